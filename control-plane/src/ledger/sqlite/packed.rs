//! Usage of buckets that nothing is added to any more, packed: a row for each bucket, and for hours and days made of them.
//!
//! A chart over a day reads more than a million rows of the table of usage where thousands of channels are busy. Packed they
//! are some hundred rows of a few megabytes. A packed bucket is exactly what the table has of it: whoever adds to a bucket
//! takes its packed row away, and the hour's and the day's, in the same transaction; what lacks is packed again later. So
//! packed rows may go at any time, and a ledger from before they were made gets them bit by bit.
//!
//! `ranks`: of each channel × model, in the order of their numbers, the distance to the number before, and its requests.
//! `data`: the counters of each, in that order. `total`: their sum.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};

use super::bytes::{Bytes, put, put_signed};
use super::journal::{bucket, put_counters, take_counters};
use super::names::Names;
use super::{counter_columns, damaged, time};
use crate::ledger::{Counters, Keep};

/// Made when a file is opened: it was added to this version of the schema later.
pub const TABLE: &str = "CREATE TABLE IF NOT EXISTS usage_packed (
        step INTEGER NOT NULL, bucket INTEGER NOT NULL, total BLOB NOT NULL, ranks BLOB NOT NULL, data BLOB NOT NULL,
        PRIMARY KEY (step, bucket));";

/// Lengths of packed buckets, seconds, and of what each is made of; 0 for rows of the table of usage.
const STEPS: [(u64, u64); 4] = [(60, 0), (600, 0), (3_600, 600), (86_400, 3_600)];
/// How long after its end a bucket is packed, seconds: what was booked to it has then been folded into the table.
const GRACE: u64 = 30;
/// How long packing may take at a time; the bucket that it is at is finished.
const BUDGET: Duration = Duration::from_millis(50);

/// The buckets that hold something and are not packed, by step.
pub struct Packing {
    open: BTreeMap<u64, BTreeSet<u64>>,
}

/// Begins of packed buckets.
pub fn there(db: &Connection, step: u64, from: u64, to: u64) -> rusqlite::Result<BTreeSet<u64>> {
    let mut statement = db.prepare_cached(
        "SELECT bucket FROM usage_packed WHERE step = ?1 AND bucket >= ?2 AND bucket < ?3 ORDER BY bucket",
    )?;
    let found = statement.query_map(params![time(step), time(from), time(to)], |r| {
        r.get::<_, i64>(0).map(i64::cast_unsigned)
    })?;
    found.collect()
}

/// The sum over a packed bucket.
pub fn total(db: &Connection, step: u64, bucket: u64) -> rusqlite::Result<Counters> {
    db.prepare_cached("SELECT total FROM usage_packed WHERE step = ?1 AND bucket = ?2")?
        .query_row(params![time(step), time(bucket)], |r| {
            take_counters(&mut Bytes(r.get_ref(0)?.as_blob()?)).ok_or_else(damaged)
        })
}

/// Goes through the ranks of a packed bucket: number of channel × model, requests.
pub fn ranks(
    db: &Connection,
    step: u64,
    bucket: u64,
    mut each: impl FnMut(u32, i64),
) -> rusqlite::Result<()> {
    db.prepare_cached("SELECT ranks FROM usage_packed WHERE step = ?1 AND bucket = ?2")?
        .query_row(params![time(step), time(bucket)], |r| {
            let mut ranks = Ranks::new(r.get_ref(0)?.as_blob()?);
            while let Some((who, requests)) = ranks.next().map_err(|_| damaged())? {
                each(who, requests);
            }
            Ok(())
        })
}

/// Goes through a packed bucket: number of channel × model, and its counters, which `each` must take with [`add_counters`].
pub fn read(
    db: &Connection,
    step: u64,
    bucket: u64,
    mut each: impl FnMut(u32, &mut Bytes<'_>) -> Option<()>,
) -> rusqlite::Result<()> {
    db.prepare_cached("SELECT ranks, data FROM usage_packed WHERE step = ?1 AND bucket = ?2")?
        .query_row(params![time(step), time(bucket)], |r| {
            let mut ranks = Ranks::new(r.get_ref(0)?.as_blob()?);
            let mut data = Bytes(r.get_ref(1)?.as_blob()?);
            while let Some((who, _)) = ranks.next().map_err(|_| damaged())? {
                each(who, &mut data).ok_or_else(damaged)?;
            }
            Ok(())
        })
}

/// Takes counters, and adds them.
pub fn add_counters(bytes: &mut Bytes<'_>, sum: &mut Counters) -> Option<()> {
    let mut there = bytes.number()?;
    while there != 0 {
        let n = bytes.signed()?;
        if let Some(slot) = sum.0.get_mut(there.trailing_zeros() as usize) {
            *slot = slot.saturating_add(n);
        }
        there &= there - 1;
    }
    Some(())
}

/// What is packed into `ranks`, taken out again.
struct Ranks<'a> {
    bytes: Bytes<'a>,
    last: u64,
}

impl<'a> Ranks<'a> {
    fn new(bytes: &'a [u8]) -> Ranks<'a> {
        let bytes = Bytes(bytes);
        Ranks { bytes, last: 0 }
    }

    fn next(&mut self) -> Result<Option<(u32, i64)>, ()> {
        if self.bytes.is_empty() {
            return Ok(None);
        }
        let distance = self.bytes.number().ok_or(())?;
        self.last = self.last.checked_add(distance).ok_or(())?;
        let who = u32::try_from(self.last).map_err(|_| ())?;
        Ok(Some((who, self.bytes.signed().ok_or(())?)))
    }
}

type Sums = BTreeMap<u32, Counters>;

fn write(db: &Connection, step: u64, bucket: u64, sums: &Sums) -> rusqlite::Result<()> {
    let (mut total, mut ranks, mut data) = (Counters::default(), Vec::new(), Vec::new());
    let mut last = 0;
    for (who, counters) in sums {
        put(&mut ranks, u64::from(who - last));
        put_signed(&mut ranks, counters.requests());
        put_counters(&mut data, counters);
        total = total.plus(counters);
        last = *who;
    }
    let mut sum = Vec::new();
    put_counters(&mut sum, &total);
    db.prepare_cached(
        "INSERT OR REPLACE INTO usage_packed (step, bucket, total, ranks, data) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?
    .execute(params![time(step), time(bucket), sum, ranks, data])?;
    Ok(())
}

/// What the table of usage has of a bucket.
fn from_rows(db: &Connection, names: &mut Names, step: u64, bucket: u64) -> rusqlite::Result<Sums> {
    let sql = format!(
        "SELECT channel, model, {} FROM usage WHERE step = ?1 AND bucket = ?2",
        counter_columns()
    );
    let mut statement = db.prepare_cached(&sql)?;
    let mut rows = statement.query(params![time(step), time(bucket)])?;
    let mut sums = Sums::new();
    while let Some(row) = rows.next()? {
        let mut counters = Counters::default();
        for (i, slot) in counters.0.iter_mut().enumerate() {
            *slot = row.get(2 + i)?;
        }
        let text = |i: usize| -> rusqlite::Result<&str> { Ok(row.get_ref(i)?.as_str()?) };
        sums.insert(names.who(db, text(0)?, text(1)?)?, counters);
    }
    Ok(sums)
}

/// The sum of packed buckets.
fn from_parts(db: &Connection, part: u64, from: u64, to: u64) -> rusqlite::Result<Sums> {
    let mut sums = Sums::new();
    for bucket in there(db, part, from, to)? {
        read(db, part, bucket, |who, data| {
            add_counters(data, sums.entry(who).or_default())
        })?;
    }
    Ok(sums)
}

impl Packing {
    /// Finds out what is not packed. Only between packed buckets there may be something that is not.
    pub fn load(db: &Connection) -> rusqlite::Result<Packing> {
        let mut packing = Packing {
            open: STEPS.iter().map(|(step, _)| (*step, BTreeSet::new())).collect(),
        };
        let end = i64::MAX.cast_unsigned();
        for (step, part) in STEPS {
            let packed = there(db, step, 0, end)?;
            let mut found = BTreeSet::new();
            if part == 0 {
                let mut next = db.prepare_cached(
                    "SELECT MIN(bucket) FROM usage WHERE step = ?1 AND bucket >= ?2 AND bucket < ?3",
                )?;
                let mut from = 0;
                for until in packed.iter().copied().chain([end]) {
                    while from < until {
                        let at = params![time(step), time(from), time(until)];
                        let Some(bucket) = next.query_row(at, |r| r.get::<_, Option<i64>>(0))? else {
                            break;
                        };
                        found.insert(bucket.cast_unsigned());
                        from = bucket.cast_unsigned() + step;
                    }
                    from = until.saturating_add(step);
                }
            } else {
                let parts = there(db, part, 0, end)?;
                let open = packing.open.get(&part).into_iter().flatten();
                let all = parts.iter().chain(open).map(|begin| bucket(step, *begin));
                found.extend(all.filter(|begin| !packed.contains(begin)));
            }
            packing.open.insert(step, found);
        }
        Ok(packing)
    }

    /// Something is added to a minute: within a transaction.
    pub fn touch(&mut self, db: &Connection, minute: u64) -> rusqlite::Result<()> {
        for (step, open) in &mut self.open {
            let begin = bucket(*step, minute);
            if open.insert(begin) {
                db.prepare_cached("DELETE FROM usage_packed WHERE step = ?1 AND bucket = ?2")?
                    .execute(params![time(*step), time(begin)])?;
            }
        }
        Ok(())
    }

    /// Removes what need not be kept, and packs for a while, within a transaction.
    pub fn prune(&mut self, db: &Connection, names: &mut Names, keep: &Keep) -> rusqlite::Result<()> {
        let began = Instant::now();
        for (step, open) in &mut self.open {
            let from = if *step == 60 {
                keep.minutes_from
            } else {
                keep.ten_minutes_from
            };
            // The table's rows go bit by bit: what has lost some of them must not be packed, nor be packed any more.
            *open = open.split_off(&from);
            db.prepare_cached("DELETE FROM usage_packed WHERE step = ?1 AND bucket < ?2")?
                .execute(params![time(*step), time(from)])?;
        }
        for (step, part) in STEPS {
            let ended: Vec<u64> = self
                .open
                .get(&step)
                .into_iter()
                .flatten()
                .copied()
                .take_while(|begin| begin + step + GRACE <= keep.now)
                .collect();
            for begin in ended {
                let parts = self.open.get(&part);
                if parts.is_some_and(|open| open.range(begin..begin + step).next().is_some()) {
                    continue;
                }
                let sums = match part {
                    0 => from_rows(db, names, step, begin)?,
                    part => from_parts(db, part, begin, begin + step)?,
                };
                if !sums.is_empty() {
                    write(db, step, begin, &sums)?;
                }
                if let Some(open) = self.open.get_mut(&step) {
                    open.remove(&begin);
                }
                if began.elapsed() >= BUDGET {
                    return Ok(());
                }
            }
        }
        Ok(())
    }
}
