//! Settling for the dead: what a killed worker had in flight is charged, its connections are forgotten, its rows and
//! blocks become free. Runs under the exclusive right of a sweep (C1).
//!
//! What an upstream produced for a dead worker nobody knows: its answer may have lain unread in a socket. Strict limits
//! therefore keep the whole reservation charged until its window passes (F3); soft limits and statistics go by what
//! the worker had noted.

use crate::atomic::{Relaxed, Release, SeqCst};
use crate::inflight::{ACTIVE, FREE, InflightIndex, RECLAIMING};
use crate::layout::{BLOCK_ROWS, InflightRow};
use crate::region::Region;
use crate::reserve::{Settlement, priced};
use crate::usage::{Class, UsageDelta, UsageIndex};
use crate::workers::WorkerSlot;

/// What a sweep found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Reclaimed {
    /// Dead workers whose slots were freed.
    pub workers: u64,
    /// Requests that were settled for them.
    pub requests: u64,
}

impl Reclaimed {
    pub(crate) fn add(&mut self, other: Reclaimed) {
        self.workers += other.workers;
        self.requests += other.requests;
    }
}

impl Region {
    pub(crate) fn reclaim(&self, slot: WorkerSlot) -> Reclaimed {
        let mut done = Reclaimed::default();
        let owner = u64::from(slot.0) + 1;
        for (block, owned) in self.block_rows().iter().enumerate() {
            if owned.owner.load(SeqCst) != owner {
                continue;
            }
            for index in block * BLOCK_ROWS..(block + 1) * BLOCK_ROWS {
                let Some(row) = u32::try_from(index)
                    .ok()
                    .and_then(|i| self.inflight_row(InflightIndex(i)))
                else {
                    continue;
                };
                done.requests += u64::from(self.reclaim_row(slot, row));
            }
            owned.owner.store(0, SeqCst);
        }
        for row in self.counter_rows() {
            if row.is_concurrency() {
                row.concurrency().sweep(slot);
            }
        }
        self.sweep_deployments(slot);
        done
    }

    /// A row found in `RECLAIMING` belonged to a sweeper that died over it: it is freed without a second correction,
    /// so its amounts stay charged until their windows pass.
    fn reclaim_row(&self, slot: WorkerSlot, row: &InflightRow) -> bool {
        let active = row
            .state
            .compare_exchange(ACTIVE, RECLAIMING, SeqCst, SeqCst)
            .is_ok();
        if active {
            let (input, output) = (row.input.load(Relaxed), row.produced.load(Relaxed));
            let price = row.price.load(Relaxed);
            let cost = priced(input, price as u32).saturating_add(priced(output, (price >> 32) as u32));
            let used = Settlement { input, output, cost };
            let now_ms = self.now_ms();
            for entry in row.entries() {
                let noted = entry.part_of(used);
                let units = if entry.strict {
                    noted.max(entry.units)
                } else {
                    noted
                };
                self.adjust(slot, &entry, units, now_ms);
            }
            if let Some(usage) = UsageIndex::from_word(row.usage.load(Relaxed)) {
                let delta = UsageDelta {
                    input_tokens: used.input,
                    output_tokens: used.output,
                    estimated_tokens: used.input + used.output,
                    bill: used.cost,
                    ..UsageDelta::of(Class::Internal)
                };
                self.add_usage(usage, &delta);
            }
        }
        row.state.store(FREE, Release);
        active
    }
}
