//! Figures of speed on a machine that does other work: this thread's CPU time, and the best of rounds that are spread over
//! the whole run, since another's cache misses and turbo come and go.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds that this thread has run.
pub fn cpu_time() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    (time.tv_sec * 1_000_000_000 + time.tv_nsec).cast_unsigned()
}

/// The least of what was measured.
#[derive(Clone, Copy)]
pub struct Best {
    bytes: usize,
    nanoseconds: u64,
}

impl Best {
    /// Nothing measured yet of a text of so many bytes.
    pub fn new(bytes: usize) -> Self {
        Self {
            bytes,
            nanoseconds: u64::MAX,
        }
    }

    /// Measures once more.
    pub fn measure(&mut self, pass: impl FnOnce()) {
        let start = cpu_time();
        pass();
        self.nanoseconds = self.nanoseconds.min(cpu_time() - start);
    }

    /// 10^6 bytes a second.
    pub fn rate(&self) -> f64 {
        self.bytes as f64 * 1e3 / self.nanoseconds as f64
    }
}
