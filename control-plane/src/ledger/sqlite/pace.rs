//! When a small journal is added to its table: every few seconds, or when it has become long.

use std::time::{Duration, Instant};

/// Time between two additions to the table.
const EVERY: Duration = if cfg!(test) {
    Duration::ZERO
} else {
    Duration::from_secs(10)
};
/// Entries in the journal that do not wait for it.
const MOST: usize = 100_000;

/// What a journal holds, and when it was last added to its table.
#[derive(Default)]
pub struct Pace {
    entries: usize,
    added: Option<Instant>,
}

impl Pace {
    /// The journal has another entry.
    pub fn note(&mut self) {
        self.entries += 1;
    }

    /// Whether it is time to add it to the table.
    pub fn is_due(&self) -> bool {
        let waits = self.added.is_some_and(|at| at.elapsed() < EVERY) && self.entries < MOST;
        self.entries > 0 && !waits
    }

    /// It is in the table, and empty.
    pub fn added(&mut self) {
        self.entries = 0;
        self.added = Some(Instant::now());
    }
}
