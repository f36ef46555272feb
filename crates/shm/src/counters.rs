//! The table of counters: open addressing by the limit's identity. Rows are claimed by compare-and-swap on the key
//! and never removed while the region lives, so a row that was found once stays that limit's row (T1).

use crate::atomic::{AtomicU64, Relaxed, SeqCst};
use crate::concurrency::Concurrency;
use crate::layout::{CELLS, CounterRow};
use crate::region::Region;

/// Rows looked at before the table counts as full.
const PROBES: usize = 512;

/// A counter's row.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct CounterIndex(pub(crate) u32);

/// No row is left for a limit that has none yet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CounterTableFull;

/// Bit 0 of the stored key tells the kind of the cells, so that a sweep knows it without any other word (C2).
pub(crate) fn stored_key(key: u64, concurrency: bool) -> u64 {
    (key | 2) & !1 | u64::from(concurrency)
}

impl CounterRow {
    pub(crate) fn concurrency(&self) -> Concurrency<'_> {
        Concurrency {
            cells: &self.cells,
            contested_until: &self.contested_until,
        }
    }

    pub(crate) fn is_concurrency(&self) -> bool {
        self.key.load(SeqCst) & 1 == 1
    }
}

impl Region {
    pub(crate) fn counter_row(&self, index: CounterIndex) -> Option<&CounterRow> {
        self.counter_rows().get(index.0 as usize)
    }

    fn probe(&self, key: u64) -> impl Iterator<Item = (CounterIndex, &CounterRow)> {
        let rows = self.counter_rows();
        let mask = rows.len().wrapping_sub(1);
        let start = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) as usize;
        (0..PROBES.min(rows.len())).filter_map(move |i| {
            let index = (start + i) & mask;
            Some((CounterIndex(u32::try_from(index).ok()?), rows.get(index)?))
        })
    }

    /// The row of a limit, claimed at first use.
    pub(crate) fn counter(&self, key: u64, concurrency: bool) -> Result<CounterIndex, CounterTableFull> {
        let key = stored_key(key, concurrency);
        for (index, row) in self.probe(key) {
            let mut seen = row.key.load(SeqCst);
            if seen == 0 {
                match row.key.compare_exchange(0, key, SeqCst, SeqCst) {
                    Ok(_) => {
                        self.header().counters_used.fetch_add(1, Relaxed);
                        return Ok(index);
                    }
                    Err(other) => seen = other,
                }
            }
            if seen == key {
                return Ok(index);
            }
        }
        self.header().counters_refused.fetch_add(1, Relaxed);
        Err(CounterTableFull)
    }

    /// The row of a limit if it has been used.
    pub(crate) fn find_counter(&self, key: u64, concurrency: bool) -> Option<CounterIndex> {
        let key = stored_key(key, concurrency);
        for (index, row) in self.probe(key) {
            match row.key.load(SeqCst) {
                0 => return None,
                seen if seen == key => return Some(index),
                _ => {}
            }
        }
        None
    }

    /// Every counter in use as words that [`Region::restore_counters`] takes back in another region: stored key,
    /// arrival time, debt, cells. Concurrency is left out: connections do not survive a reboot.
    pub fn export_counters(&self) -> Vec<u64> {
        let mut out = Vec::new();
        let now_ms = self.now_ms();
        for row in self.counter_rows() {
            let key = row.key.load(SeqCst);
            let rest = [&row.debt].into_iter().chain(&row.cells).map(|w| w.load(SeqCst));
            let words = std::iter::once(row.tat_of_the_whole(now_ms)).chain(rest);
            if key != 0 && !row.is_concurrency() && words.clone().any(|w| w != 0) {
                out.push(key);
                out.extend(words);
            }
        }
        out
    }

    /// Takes over exported counters into rows that are still untouched. Returns how many were restored; a trailing
    /// incomplete record is ignored.
    pub fn restore_counters(&self, words: &[u64]) -> usize {
        let mut restored = 0;
        for record in words.chunks_exact(3 + CELLS) {
            let [key, tat, debt, cells @ ..] = record else {
                continue;
            };
            if *key & 3 != 2 {
                continue;
            }
            let Some(row) = self.counter(*key, false).ok().and_then(|i| self.counter_row(i)) else {
                continue;
            };
            let fresh =
                |slot: &AtomicU64, value: u64| slot.compare_exchange(0, value, SeqCst, SeqCst).is_ok();
            fresh(&row.tat, *tat);
            fresh(&row.debt, *debt);
            for (slot, value) in row.cells.iter().zip(cells) {
                fresh(slot, *value);
            }
            restored += 1;
        }
        restored
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::Sizes;

    fn region() -> (tempfile::TempDir, Region) {
        let dir = tempfile::tempdir().unwrap();
        let r = Region::open_or_create(
            dir.path(),
            Sizes {
                counters: 64,
                inflight: 64,
                ring: 64,
                usage: 64,
            },
        )
        .unwrap();
        (dir, r)
    }

    #[test]
    fn threads_agree_on_rows_and_a_full_table_says_so() {
        let (_dir, r) = region();
        let found: Vec<Vec<_>> = std::thread::scope(|s| {
            let h: Vec<_> = (0..4)
                .map(|_| {
                    s.spawn(|| {
                        (1..=64u64)
                            .map(|k| r.counter(k * 4, k % 2 == 0).unwrap())
                            .collect()
                    })
                })
                .collect();
            h.into_iter().map(|h| h.join().unwrap()).collect()
        });
        assert!(found.iter().all(|f| *f == found[0]));
        let mut distinct = found[0].clone();
        distinct.sort_by_key(|i| i.0);
        distinct.dedup();
        assert_eq!(distinct.len(), 64);
        assert_eq!(r.counter(4_000, false), Err(CounterTableFull));
        assert_eq!(r.find_counter(8, true), Some(found[0][1]));
        assert_eq!(r.find_counter(8, false), None);
    }

    #[test]
    fn export_and_restore_into_a_new_region() {
        let (_d1, a) = region();
        let (_d2, b) = region();
        let row = a.counter_row(a.counter(400, false).unwrap()).unwrap();
        row.cells[3].store(77, SeqCst);
        row.debt.store(5, SeqCst);
        a.counter_row(a.counter(800, true).unwrap()).unwrap().cells[0].store(1, SeqCst);
        let words = a.export_counters();
        assert_eq!(words.len(), 3 + CELLS);
        assert_eq!(b.restore_counters(&words), 1);
        let row = b.counter_row(b.find_counter(400, false).unwrap()).unwrap();
        assert_eq!((row.cells[3].load(SeqCst), row.debt.load(SeqCst)), (77, 5));
        assert_eq!(b.restore_counters(&words[..10]), 0);
    }
}
