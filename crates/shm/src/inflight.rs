//! The in-flight table: what each request holds, so that a dead worker's requests can be settled by others.
//!
//! Rows come in blocks of 64. A block belongs to one worker at a time; within its blocks a worker hands out rows
//! without touching shared words. The order of writes makes every crash safe: an entry counts only once
//! `entries_held` covers it, which is written after the take (F1: a crash in between leaves the amount taken until its
//! window passes, never given back twice); a row leaves `ACTIVE` before anything is given back (F2).

use crate::atomic::{Acquire, Relaxed, Release, SeqCst};
use crate::counters::CounterIndex;
use crate::layout::{BLOCK_ROWS, InflightRow, MAX_LIMITS_PER_REQUEST};
use crate::limit::{Algorithm, Amount, Enforcement, LimitSpec, Metric};
use crate::region::Region;
use crate::reserve::Settlement;
use crate::workers::WorkerSlot;

pub(crate) const FREE: u64 = 0;
pub(crate) const ACTIVE: u64 = 1;
pub(crate) const SETTLING: u64 = 2;
pub(crate) const RECLAIMING: u64 = 3;

/// A request's row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct InflightIndex(pub(crate) u32);

/// A request in flight, as seen from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InflightView {
    /// Its row.
    pub row: u32,
    /// When it was admitted, region time.
    pub start_ms: u64,
    /// Statistics row it will be booked to, if any.
    pub usage: Option<crate::UsageIndex>,
    /// Input tokens reserved.
    pub input: u64,
    /// Output tokens reserved.
    pub output: u64,
    /// Output tokens produced so far.
    pub produced: u64,
}

/// One limit's share of a reservation, decoded from its three words.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Entry {
    pub counter: CounterIndex,
    pub metric: Metric,
    pub algorithm: Algorithm,
    pub strict: bool,
    pub epoch: u64,
    pub units: u64,
    /// Time that 1024 units occupy in a bucket; the length of the window if it runs at a part of its rate.
    pub span_ns: u64,
    /// The bucket runs at a part of its rate, which may have changed since.
    pub leased: bool,
}

const EPOCH_MASK: u64 = (1 << 24) - 1;

impl Entry {
    pub fn new(counter: CounterIndex, spec: &LimitSpec, amount: &Amount) -> Entry {
        Entry {
            counter,
            metric: spec.metric,
            algorithm: spec.algorithm,
            strict: spec.enforcement == Enforcement::Strict,
            epoch: amount.epoch,
            units: amount.units,
            span_ns: amount.span_ns,
            leased: amount.leased,
        }
    }

    /// Units of this entry's metric in what a request used.
    pub fn part_of(&self, used: Settlement) -> u64 {
        match self.metric {
            Metric::Connections | Metric::Requests => self.units,
            Metric::InputTokens => used.input,
            Metric::OutputTokens => used.output,
            Metric::TotalTokens => used.input.saturating_add(used.output),
            Metric::Cost => used.cost,
        }
    }

    fn encode(&self) -> [u64; 3] {
        let head = u64::from(self.counter.0)
            | (self.epoch & EPOCH_MASK) << 32
            | (self.metric as u64) << 56
            | (self.algorithm as u64) << 59
            | u64::from(self.strict) << 62
            | u64::from(self.leased) << 63;
        [head, self.units, self.span_ns]
    }

    fn decode([head, units, span_ns]: [u64; 3]) -> Option<Entry> {
        let metric = match head >> 56 & 7 {
            0 => Metric::Connections,
            1 => Metric::Requests,
            2 => Metric::InputTokens,
            3 => Metric::OutputTokens,
            4 => Metric::TotalTokens,
            5 => Metric::Cost,
            _ => return None,
        };
        let algorithm = match head >> 59 & 7 {
            0 => Algorithm::SlidingWindow,
            1 => Algorithm::FixedWindow,
            2 => Algorithm::TokenBucket,
            3 => Algorithm::LeakyBucket,
            4 => Algorithm::Concurrency,
            _ => return None,
        };
        Some(Entry {
            counter: CounterIndex(head as u32),
            metric,
            algorithm,
            strict: head >> 62 & 1 == 1,
            epoch: head >> 32 & EPOCH_MASK,
            units,
            span_ns,
            leased: head >> 63 == 1,
        })
    }
}

impl InflightRow {
    /// Records an entry; only then does it count as held.
    pub fn hold(&self, entry: &Entry) {
        let n = self.entries_held.load(Relaxed);
        if let Some(slot) = self.entries.get(n as usize) {
            for (word, value) in slot.iter().zip(entry.encode()) {
                word.store(value, Relaxed);
            }
            self.entries_held.store(n + 1, Release);
        }
    }

    pub fn entries(&self) -> impl Iterator<Item = Entry> + '_ {
        let held = self.entries_held.load(Acquire).min(MAX_LIMITS_PER_REQUEST as u64) as usize;
        self.entries.iter().take(held).filter_map(|e| {
            let [a, b, c] = e;
            Entry::decode([a.load(Relaxed), b.load(Relaxed), c.load(Relaxed)])
        })
    }
}

struct OwnedBlock {
    block: u32,
    /// Bit i is set while row i is free.
    free: u64,
}

/// A worker's own view of its blocks.
#[derive(Default)]
pub(crate) struct LocalRows {
    blocks: Vec<OwnedBlock>,
    current: usize,
}

impl LocalRows {
    /// A free row, from an own block or a newly claimed one.
    pub fn take(&mut self, region: &Region, slot: WorkerSlot) -> Option<InflightIndex> {
        if self.blocks.get(self.current).is_none_or(|b| b.free == 0) {
            self.current = match self.blocks.iter().position(|b| b.free != 0) {
                Some(position) => position,
                None => self.claim(region, slot)?,
            };
        }
        let owned = self.blocks.get_mut(self.current)?;
        let bit = owned.free.trailing_zeros();
        owned.free &= owned.free - 1;
        Some(InflightIndex(owned.block * BLOCK_ROWS as u32 + bit))
    }

    fn claim(&mut self, region: &Region, slot: WorkerSlot) -> Option<usize> {
        let owner = u64::from(slot.0) + 1;
        let rows = region.block_rows();
        // Begin at a place of one's own, so that workers rarely race for the same block.
        let start = rows.len() / crate::MAX_WORKERS * usize::from(slot.0);
        for i in 0..rows.len() {
            let index = (start + i) % rows.len();
            let row = rows.get(index)?;
            if row.owner.load(Relaxed) == 0 && row.owner.compare_exchange(0, owner, SeqCst, SeqCst).is_ok() {
                self.blocks.push(OwnedBlock {
                    block: u32::try_from(index).ok()?,
                    free: u64::MAX,
                });
                return Some(self.blocks.len() - 1);
            }
        }
        None
    }

    /// Takes a row back; a block that is wholly free goes back to the region when another free one remains.
    pub fn put(&mut self, region: &Region, row: InflightIndex) {
        let block = row.0 / BLOCK_ROWS as u32;
        let Some(position) = self.position(block) else {
            return;
        };
        let Some(owned) = self.blocks.get_mut(position) else {
            return;
        };
        owned.free |= 1 << (row.0 % BLOCK_ROWS as u32);
        if owned.free == u64::MAX && position != self.current && self.blocks.len() > 1 {
            let released = self.blocks.swap_remove(position);
            if self.current == self.blocks.len() {
                self.current = position;
            }
            if let Some(row) = region.block_rows().get(released.block as usize) {
                row.owner.store(0, SeqCst);
            }
        }
    }

    fn position(&self, block: u32) -> Option<usize> {
        if self.blocks.get(self.current).is_some_and(|b| b.block == block) {
            return Some(self.current);
        }
        self.blocks.iter().position(|b| b.block == block)
    }
}

impl Region {
    pub(crate) fn inflight_row(&self, index: InflightIndex) -> Option<&InflightRow> {
        self.inflight_rows().get(index.0 as usize)
    }

    /// Notes how much of an answer has been produced; what its request is charged should this worker die.
    pub fn note_produced(&self, index: InflightIndex, tokens: u64) {
        if let Some(row) = self.inflight_row(index) {
            row.produced.store(tokens, Relaxed);
        }
    }

    /// Requests in flight now, at most `limit` of them; one that is giving back what it held still counts, so that
    /// where this is empty all limits have their correction.
    pub fn inflight(&self, limit: usize) -> Vec<InflightView> {
        let blocks = self
            .block_rows()
            .iter()
            .enumerate()
            .filter(|(_, b)| b.owner.load(Relaxed) != 0);
        let rows = blocks.flat_map(|(b, _)| (b * BLOCK_ROWS) as u32..((b + 1) * BLOCK_ROWS) as u32);
        rows.filter_map(|index| {
            let row = self.inflight_row(InflightIndex(index))?;
            (row.state.load(Acquire) != FREE).then(|| InflightView {
                row: index,
                start_ms: row.start_ms.load(Relaxed),
                usage: crate::UsageIndex::from_word(row.usage.load(Relaxed)),
                input: row.input.load(Relaxed),
                output: row.output.load(Relaxed),
                produced: row.produced.load(Relaxed),
            })
        })
        .take(limit)
        .collect()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn entries_survive_encoding(row: u32, epoch in 0..=EPOCH_MASK, m in 0u64..6, a in 0u64..5, strict: bool, leased: bool, units: u64, span: u64) {
            let head = u64::from(row) | epoch << 32 | m << 56 | a << 59 | u64::from(strict) << 62 | u64::from(leased) << 63;
            let e = Entry::decode([head, units, span]).unwrap();
            prop_assert_eq!(e.encode(), [head, units, span]);
        }
    }

    #[test]
    fn rows_are_distinct_and_blocks_return() {
        let dir = tempfile::tempdir().unwrap();
        let sizes = crate::Sizes {
            counters: 64,
            inflight: 256,
            ring: 64,
            usage: 64,
        };
        let r = Region::open_or_create(dir.path(), sizes).unwrap();
        let (mut a, mut b) = (LocalRows::default(), LocalRows::default());
        let mut rows: Vec<_> = (0..100).map(|_| a.take(&r, WorkerSlot(0)).unwrap()).collect();
        let others: Vec<_> = std::iter::from_fn(|| b.take(&r, WorkerSlot(1))).collect();
        assert_eq!(
            others.len(),
            128,
            "two of four blocks are left for the second worker"
        );
        rows.extend(&others);
        rows.sort_by_key(|r| r.0);
        rows.dedup();
        assert_eq!(rows.len(), 228);
        for row in &others {
            b.put(&r, *row);
        }
        let owned = r
            .block_rows()
            .iter()
            .filter(|b| b.owner.load(SeqCst) != 0)
            .count();
        assert_eq!(owned, 3, "the second worker keeps one free block");
    }

    #[test]
    fn a_request_that_gives_back_is_still_in_flight() {
        let dir = tempfile::tempdir().unwrap();
        let sizes = crate::Sizes {
            counters: 64,
            inflight: 64,
            ring: 64,
            usage: 64,
        };
        let r = Region::open_or_create(dir.path(), sizes).unwrap();
        let index = LocalRows::default().take(&r, WorkerSlot(0)).unwrap();
        let row = r.inflight_row(index).unwrap();
        for (state, count) in [(ACTIVE, 1), (SETTLING, 1), (RECLAIMING, 1), (FREE, 0)] {
            row.state.store(state, SeqCst);
            assert_eq!(r.inflight(10).len(), count, "state {state}");
        }
    }
}
