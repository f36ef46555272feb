//! Places where a pass over a long text stops for others: at most so many bytes apart.

use std::fmt;

/// Bytes between two stops: some 50 µs of the slowest text.
pub(crate) const EVERY: usize = 16 * 1024;

/// What is called at each stop, and where the next one is. A copy may stop more often, never later.
#[derive(Clone, Copy)]
pub(crate) struct Pause<'a> {
    stop: Option<&'a dyn Fn()>,
    next: usize,
}

impl<'a> Pause<'a> {
    /// Never stops.
    pub(crate) const NEVER: Self = Self {
        stop: None,
        next: usize::MAX,
    };

    /// Calls `stop` at each stop.
    pub(crate) const fn calling(stop: &'a dyn Fn()) -> Self {
        Self {
            stop: Some(stop),
            next: EVERY,
        }
    }

    /// Stops if it is time; the pass has come to `at`.
    #[inline(always)]
    pub(crate) fn at(&mut self, at: usize) {
        if at >= self.next {
            self.stop(at);
        }
    }

    #[cold]
    #[inline(never)]
    fn stop(&mut self, at: usize) {
        if let Some(stop) = self.stop {
            stop();
            self.next = at.saturating_add(EVERY);
        }
    }
}

impl fmt::Debug for Pause<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pause")
            .field("next", &self.next)
            .finish_non_exhaustive()
    }
}
