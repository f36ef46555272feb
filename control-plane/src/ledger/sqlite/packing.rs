//! Buckets that nothing is added to any more, packed: each in one row, or in a row for each of a few keys, and hours and days
//! made of them.
//!
//! A packed bucket is exactly what its table has of it: whoever adds to a bucket takes its packed rows away, and the hour's and the
//! day's, in the same transaction; what lacks is packed again later. So packed rows may go at any time, and a ledger from
//! before they were made gets them bit by bit.

use std::collections::{BTreeMap, BTreeSet};
use std::marker::PhantomData;
use std::time::Instant;

use rusqlite::{Connection, params};

use super::journal::bucket;
use super::names::Names;
use super::time;
use crate::ledger::Keep;

/// How long after its end a bucket is packed, seconds: what was booked to it has then been folded into the table.
const GRACE: u64 = 30;

/// Something that is packed.
pub trait Packed {
    /// Table of packed buckets, with columns `step` and `bucket`.
    const TABLE: &'static str;
    /// Table of what is not packed, with a column `bucket`, and which of its rows are of the length `?1`.
    const ROWS: &'static str;
    /// Lengths of packed buckets, seconds, and of what each is made of; 0 for rows of the table.
    const STEPS: &'static [(u64, u64)];

    /// Packs a bucket of the first length from those of the second, within a transaction.
    fn pack(db: &Connection, names: &mut Names, of: (u64, u64), bucket: u64) -> rusqlite::Result<()>;
}

/// Begins of packed buckets.
pub fn there<P: Packed>(db: &Connection, step: u64, from: u64, to: u64) -> rusqlite::Result<BTreeSet<u64>> {
    let mut statement = db.prepare_cached(&format!(
        "SELECT DISTINCT bucket FROM {} WHERE step = ?1 AND bucket >= ?2 AND bucket < ?3 ORDER BY bucket",
        P::TABLE
    ))?;
    let found = statement.query_map(params![time(step), time(from), time(to)], |r| {
        r.get::<_, i64>(0).map(i64::cast_unsigned)
    })?;
    found.collect()
}

/// The buckets that hold something and are not packed, by step.
pub struct Packing<P> {
    open: BTreeMap<u64, BTreeSet<u64>>,
    of: PhantomData<P>,
}

impl<P: Packed> Packing<P> {
    /// Finds out what is not packed. Only between packed buckets there may be something that is not.
    pub fn load(db: &Connection) -> rusqlite::Result<Packing<P>> {
        let mut packing = Packing {
            open: P::STEPS
                .iter()
                .map(|(step, _)| (*step, BTreeSet::new()))
                .collect(),
            of: PhantomData,
        };
        let end = i64::MAX.cast_unsigned();
        for (step, part) in P::STEPS {
            let packed = there::<P>(db, *step, 0, end)?;
            let mut found = BTreeSet::new();
            if *part == 0 {
                let mut next = db.prepare_cached(&format!(
                    "SELECT MIN(bucket) FROM {} AND bucket >= ?2 AND bucket < ?3",
                    P::ROWS
                ))?;
                let mut from = 0;
                for until in packed.iter().copied().chain([end]) {
                    while from < until {
                        let at = params![time(*step), time(from), time(until)];
                        let Some(bucket) = next.query_row(at, |r| r.get::<_, Option<i64>>(0))? else {
                            break;
                        };
                        found.insert(bucket.cast_unsigned());
                        from = bucket.cast_unsigned() + step;
                    }
                    from = until.saturating_add(*step);
                }
            } else {
                let parts = there::<P>(db, *part, 0, end)?;
                let open = packing.open.get(part).into_iter().flatten();
                let all = parts.iter().chain(open).map(|begin| bucket(*step, *begin));
                found.extend(all.filter(|begin| !packed.contains(begin)));
            }
            packing.open.insert(*step, found);
        }
        Ok(packing)
    }

    /// Something is added to a minute: within a transaction.
    pub fn touch(&mut self, db: &Connection, minute: u64) -> rusqlite::Result<()> {
        for (step, open) in &mut self.open {
            let begin = bucket(*step, minute);
            if open.insert(begin) {
                db.prepare_cached(&format!(
                    "DELETE FROM {} WHERE step = ?1 AND bucket = ?2",
                    P::TABLE
                ))?
                .execute(params![time(*step), time(begin)])?;
            }
        }
        Ok(())
    }

    /// Removes what need not be kept, and packs until it is late, but the bucket that it is at; within a transaction.
    pub fn prune(
        &mut self,
        db: &Connection,
        names: &mut Names,
        keep: &Keep,
        late: Instant,
    ) -> rusqlite::Result<()> {
        for (step, open) in &mut self.open {
            let from = if *step == 60 {
                keep.minutes_from
            } else {
                keep.ten_minutes_from
            };
            // The table's rows go bit by bit: what has lost some of them must not be packed, nor be packed any more.
            *open = open.split_off(&from);
            db.prepare_cached(&format!(
                "DELETE FROM {} WHERE step = ?1 AND bucket < ?2",
                P::TABLE
            ))?
            .execute(params![time(*step), time(from)])?;
        }
        for (step, part) in P::STEPS {
            let ended: Vec<u64> = self
                .open
                .get(step)
                .into_iter()
                .flatten()
                .copied()
                .take_while(|begin| begin + step + GRACE <= keep.now)
                .collect();
            for begin in ended {
                let parts = self.open.get(part);
                if parts.is_some_and(|open| open.range(begin..begin + step).next().is_some()) {
                    continue;
                }
                if Instant::now() >= late {
                    return Ok(());
                }
                P::pack(db, names, (*step, *part), begin)?;
                if let Some(open) = self.open.get_mut(step) {
                    open.remove(&begin);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests;
