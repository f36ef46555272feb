//! Worker slots: who is attached. A slot is claimed by compare-and-swap and freed only by its owner or by the one
//! process that won the right to sweep it after the owner's death (C1).

use crate::atomic::{Relaxed, SeqCst};
use crate::inflight::LocalRows;
use crate::layout::WorkerRow;
use crate::process::Identity;
use crate::reclaim::Reclaimed;
use crate::region::Region;

/// Set in a slot's owner word while the named process cleans up after the former owner.
const SWEEPING: u64 = 1 << 63;

/// Index of a worker's slot, below `MAX_WORKERS`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct WorkerSlot(pub u16);

/// The calling process attached as a worker. Single-threaded by construction (`&mut` for all that counts).
pub struct Worker {
    pub(crate) slot: WorkerSlot,
    identity: Identity,
    pub(crate) rows: LocalRows,
}

/// What is known of an attached worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WorkerView {
    /// Index of its slot.
    pub slot: usize,
    /// Its process.
    pub pid: u32,
    /// Whether that process still runs.
    pub alive: bool,
    /// When it attached, region time.
    pub started_ms: u64,
    /// Generation of the snapshot it decides new requests by.
    pub generation: u64,
    /// Its last sign of life, region time.
    pub heartbeat_ms: u64,
    /// Requests it has decided.
    pub requests: u64,
    /// Panics it has caught.
    pub panics: u64,
    /// Events it could not put on a full ring.
    pub events_dropped: u64,
}

impl Region {
    /// Attaches the calling process; first cleans up after the dead. `None` when all slots belong to live ones.
    pub fn attach_worker(&self) -> Option<Worker> {
        self.sweep_dead_workers();
        let me = Identity::current();
        for (index, row) in self.worker_rows().iter().enumerate() {
            if row.owner.load(SeqCst) == 0 && row.owner.compare_exchange(0, me.word(), SeqCst, SeqCst).is_ok()
            {
                row.started_ms.store(self.now_ms(), Relaxed);
                row.heartbeat_ms.store(self.now_ms(), Relaxed);
                row.generation.store(0, Relaxed);
                row.requests.store(0, Relaxed);
                let slot = WorkerSlot(u16::try_from(index).ok()?);
                return Some(Worker {
                    slot,
                    identity: me,
                    rows: LocalRows::default(),
                });
            }
        }
        None
    }

    /// Finds workers that died, settles what they had in flight and frees their slots. Any process may call it at
    /// any time; a slot is swept by one process at a time.
    pub fn sweep_dead_workers(&self) -> Reclaimed {
        let me = Identity::current();
        let mut total = Reclaimed::default();
        for (index, row) in self.worker_rows().iter().enumerate() {
            let word = row.owner.load(SeqCst);
            let owner = Identity::from_word(word);
            if word == 0 || owner == me || owner.is_alive() {
                continue;
            }
            if row
                .owner
                .compare_exchange(word, SWEEPING | me.word(), SeqCst, SeqCst)
                .is_err()
            {
                continue;
            }
            let Ok(slot) = u16::try_from(index) else { continue };
            total.add(self.reclaim(WorkerSlot(slot)));
            total.workers += 1;
            // C3: the slot becomes claimable only after everything it held is gone.
            row.owner.store(0, SeqCst);
        }
        if total.workers > 0 {
            self.header().reclaimed_workers.fetch_add(total.workers, Relaxed);
            self.header()
                .reclaimed_requests
                .fetch_add(total.requests, Relaxed);
        }
        total
    }

    /// All attached workers.
    pub fn workers(&self) -> Vec<WorkerView> {
        let view = |(slot, row): (usize, &WorkerRow)| {
            let word = row.owner.load(SeqCst);
            let identity = Identity::from_word(word);
            (word != 0 && word & SWEEPING == 0).then(|| WorkerView {
                slot,
                pid: identity.pid(),
                alive: identity.is_alive(),
                started_ms: row.started_ms.load(Relaxed),
                generation: row.generation.load(Relaxed),
                heartbeat_ms: row.heartbeat_ms.load(Relaxed),
                requests: row.requests.load(Relaxed),
                panics: row.panics.load(Relaxed),
                events_dropped: row.ring_dropped.load(Relaxed),
            })
        };
        self.worker_rows().iter().enumerate().filter_map(view).collect()
    }

    pub(crate) fn worker_row(&self, slot: WorkerSlot) -> Option<&WorkerRow> {
        self.worker_rows().get(usize::from(slot.0))
    }
}

impl Worker {
    /// Tells which generation new requests of this worker use, and that it lives.
    pub fn beat(&self, region: &Region, generation: u64, now_ms: u64) {
        if let Some(row) = region.worker_row(self.slot) {
            row.generation.store(generation, Relaxed);
            row.heartbeat_ms.store(now_ms, Relaxed);
        }
    }

    /// Counts a decided request.
    pub fn count_request(&self, region: &Region) {
        if let Some(row) = region.worker_row(self.slot) {
            // One writer: no read-modify-write needed.
            row.requests.store(row.requests.load(Relaxed) + 1, Relaxed);
        }
    }

    /// Counts a panic that an entry point caught.
    pub fn count_panic(&self, region: &Region) {
        if let Some(row) = region.worker_row(self.slot) {
            row.panics.fetch_add(1, Relaxed);
        }
    }

    /// Gives up the slot; whatever is still in flight is settled as if the worker had died.
    pub fn detach(self, region: &Region) {
        if let Some(row) = region.worker_row(self.slot) {
            let word = self.identity.word();
            if row
                .owner
                .compare_exchange(word, SWEEPING | word, SeqCst, SeqCst)
                .is_ok()
            {
                region.reclaim(self.slot);
                row.owner.store(0, SeqCst);
            }
        }
    }
}
