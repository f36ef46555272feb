//! Work on one long body that goes on where it was, on a stack of its own: the scan and the walk are written as plain
//! passes that call `pause` now and then, and here that gives the event loop back to others.

use std::cell::Cell;
use std::time::Instant;

use corosensei::stack::DefaultStack;
use corosensei::{Coroutine, CoroutineResult, Yielder};

/// Bodies up to this size are read in one go: a few tenths of a millisecond at worst.
pub(super) const AT_ONCE: usize = 128 * 1024;
/// Bytes of a stack. A pass nests no calls by what a body says.
const STACK: usize = 128 * 1024;

/// A pass over a body, as far as it has come. Dropped in its midst, it is unwound.
pub(super) struct Sliced<T> {
    pass: Coroutine<Instant, (), T, DefaultStack>,
    body: *const [u8],
}

/// What came of a slice.
pub(super) enum Slice<T> {
    NotYet,
    Done(T),
    /// The body is not where it was, or the pass is over.
    Lost,
}

impl<T: 'static> Sliced<T> {
    /// A pass over `body` that has not begun; `None` if there is no memory for its stack.
    pub fn new(body: &[u8], pass: impl FnOnce(&[u8], &dyn Fn()) -> T + 'static) -> Option<Sliced<T>> {
        let stack = DefaultStack::new(STACK).ok()?;
        let body: *const [u8] = body;
        let pass = move |yielder: &Yielder<Instant, ()>, until: Instant| {
            let until = Cell::new(until);
            let pause = || {
                if Instant::now() >= until.get() {
                    until.set(yielder.suspend(()));
                }
            };
            // SAFETY: it is read only while `run` is called, which holds a reference to these very bytes. In between they
            // stay as they are: a body that has been read belongs to the request that waits, or to who has copied it.
            pass(unsafe { &*body }, &pause)
        };
        Some(Sliced {
            pass: Coroutine::with_stack(stack, pass),
            body,
        })
    }

    /// Goes on until about `until`. `body` must be the one that it was made for.
    pub fn run(&mut self, body: &[u8], until: Instant) -> Slice<T> {
        if self.pass.done() || !std::ptr::eq(self.body, body) {
            return Slice::Lost;
        }
        match self.pass.resume(until) {
            CoroutineResult::Yield(()) => Slice::NotYet,
            CoroutineResult::Return(result) => Slice::Done(result),
        }
    }
}
