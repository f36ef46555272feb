//! The atomics in use: the real ones, or loom's under `--cfg loom`, so that the very code of production is
//! what the model checker explores.

#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

#[cfg(loom)]
pub(crate) use fenced::{AtomicU32, AtomicU64};
#[cfg(loom)]
pub(crate) use loom::sync::atomic::Ordering;

pub(crate) use Ordering::{Acquire, Relaxed, Release, SeqCst};

/// loom takes `SeqCst` on an operation for acquire and release only, and would find executions that the one order of all such
/// operations forbids (store here, load there, both see the old value). It does know `SeqCst` fences: one on either side
/// of the operation gives it that order.
#[cfg(loom)]
mod fenced {
    use loom::sync::atomic::{Ordering, fence};

    macro_rules! fenced {
        ($name:ident, $word:ty) => {
            pub(crate) struct $name(loom::sync::atomic::$name);

            #[allow(dead_code, reason = "not every word needs every operation")]
            impl $name {
                pub fn new(value: $word) -> Self {
                    Self(loom::sync::atomic::$name::new(value))
                }
                fn ordered<R>(order: Ordering, operation: impl FnOnce() -> R) -> R {
                    if order != Ordering::SeqCst {
                        return operation();
                    }
                    fence(Ordering::SeqCst);
                    let result = operation();
                    fence(Ordering::SeqCst);
                    result
                }
                pub fn load(&self, order: Ordering) -> $word {
                    Self::ordered(order, || self.0.load(order))
                }
                pub fn store(&self, value: $word, order: Ordering) {
                    Self::ordered(order, || self.0.store(value, order));
                }
                pub fn swap(&self, value: $word, order: Ordering) -> $word {
                    Self::ordered(order, || self.0.swap(value, order))
                }
                pub fn fetch_add(&self, value: $word, order: Ordering) -> $word {
                    Self::ordered(order, || self.0.fetch_add(value, order))
                }
                pub fn fetch_and(&self, value: $word, order: Ordering) -> $word {
                    Self::ordered(order, || self.0.fetch_and(value, order))
                }
                pub fn fetch_or(&self, value: $word, order: Ordering) -> $word {
                    Self::ordered(order, || self.0.fetch_or(value, order))
                }
                pub fn fetch_max(&self, value: $word, order: Ordering) -> $word {
                    Self::ordered(order, || self.0.fetch_max(value, order))
                }
                pub fn compare_exchange(
                    &self,
                    current: $word,
                    new: $word,
                    success: Ordering,
                    failure: Ordering,
                ) -> Result<$word, $word> {
                    Self::ordered(success, || {
                        self.0.compare_exchange(current, new, success, failure)
                    })
                }
            }
        };
    }
    fenced!(AtomicU64, u64);
    fenced!(AtomicU32, u32);
}
