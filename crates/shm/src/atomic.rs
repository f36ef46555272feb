//! The atomics in use: the real ones, or loom's under `--cfg loom`, so that the very code of production is
//! what the model checker explores.

#[cfg(loom)]
pub(crate) use loom::sync::atomic::{AtomicU32, AtomicU64, Ordering};
#[cfg(not(loom))]
pub(crate) use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

pub(crate) use Ordering::{Acquire, Relaxed, Release, SeqCst};
