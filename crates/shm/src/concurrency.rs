//! Concurrent holders, counted per worker: each worker has its own field in the row and is the only one that
//! writes it while alive. When a worker dies, whoever sweeps its slot sets that field to zero (C2), so a
//! connection count cannot leak whatever instruction the worker died at.

use crate::atomic::{AtomicU64, Relaxed, SeqCst};
use crate::window::{CONTESTED_MS, Cap};
use crate::workers::WorkerSlot;

/// Two 32-bit fields a word.
fn place(worker: WorkerSlot) -> (usize, u32) {
    (usize::from(worker.0) / 2, u32::from(worker.0) % 2 * 32)
}

#[derive(Clone, Copy)]
pub(crate) struct Concurrency<'a> {
    pub cells: &'a [AtomicU64],
    /// See `CounterRow::contested_until`.
    pub contested_until: &'a AtomicU64,
}

impl Concurrency<'_> {
    pub fn sum(&self) -> u64 {
        self.cells
            .iter()
            .map(|c| c.load(SeqCst))
            .map(|w| (w & 0xffff_ffff) + (w >> 32))
            .sum()
    }

    /// Add, then verify: of those that together exceed `max`, the last to add sees all the others.
    pub fn take<C: Cap>(&self, worker: WorkerSlot, now_ms: u64, max: C, amount: u64) -> bool {
        let contested = now_ms < self.contested_until.load(Relaxed);
        if !(contested && self.sum().saturating_add(amount) > max.now()) {
            self.add(worker, amount);
            if self.sum() <= max.now() {
                return true;
            }
            self.give_back(worker, amount);
        }
        self.contested_until.store(now_ms + CONTESTED_MS, Relaxed);
        false
    }

    pub fn add(&self, worker: WorkerSlot, amount: u64) {
        let (index, shift) = place(worker);
        if let Some(cell) = self.cells.get(index) {
            cell.fetch_add(amount << shift, SeqCst);
        }
    }

    pub fn give_back(&self, worker: WorkerSlot, amount: u64) {
        let (index, shift) = place(worker);
        if let Some(cell) = self.cells.get(index) {
            let mut word = cell.load(SeqCst);
            loop {
                // Never borrow from the neighbour's field, whatever happened to ours.
                let held = word >> shift & 0xffff_ffff;
                let next = word - (amount.min(held) << shift);
                match cell.compare_exchange(word, next, SeqCst, SeqCst) {
                    Ok(_) => return,
                    Err(seen) => word = seen,
                }
            }
        }
    }

    /// Forgets what a dead worker held.
    pub fn sweep(&self, worker: WorkerSlot) {
        let (index, shift) = place(worker);
        if let Some(cell) = self.cells.get(index) {
            cell.fetch_and(!(0xffff_ffff << shift), SeqCst);
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn parallel_workers_respect_the_maximum_and_a_sweep_frees_only_one() {
        let cells: Vec<_> = (0..32).map(|_| AtomicU64::new(0)).collect();
        let contested_until = AtomicU64::new(0);
        let c = Concurrency {
            cells: &cells,
            contested_until: &contested_until,
        };
        let peak = AtomicU64::new(0);
        std::thread::scope(|s| {
            for w in 0..4u16 {
                let (c, peak) = (c, &peak);
                s.spawn(move || {
                    for _ in 0..20_000 {
                        if c.take(WorkerSlot(w), 1_000, 3, 1) {
                            peak.fetch_max(c.sum(), SeqCst);
                            c.give_back(WorkerSlot(w), 1);
                        }
                    }
                });
            }
        });
        assert_eq!(c.sum(), 0);
        assert!(c.take(WorkerSlot(6), 1_000, 3, 1) && c.take(WorkerSlot(7), 1_000, 3, 2));
        assert!(!c.take(WorkerSlot(8), 1_000, 3, 1));
        c.sweep(WorkerSlot(7));
        assert_eq!(c.sum(), 1);
        c.give_back(WorkerSlot(7), 5);
        assert_eq!(c.sum(), 1);
    }
}
