//! Usage of buckets that nothing is added to any more, packed: a row for each bucket, and for hours and days made of them.
//!
//! See [`super::packing`]. A chart over a day reads more than a million rows of the table of usage where thousands of channels are busy. Packed they
//! are some hundred rows of a few megabytes.
//!
//! `ranks`: of each channel × model, in the order of their numbers, the distance to the number before, and its requests.
//! `data`: the counters of each, in that order. `total`: their sum.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use super::bytes::{Bytes, put, put_signed};
use super::journal::{put_counters, take_counters};
use super::names::Names;
use super::packing::{Packed, there};
use super::{counter_columns, damaged, time};
use crate::ledger::Counters;

/// Made when a file is opened: it was added to this version of the schema later.
pub const TABLE: &str = "CREATE TABLE IF NOT EXISTS usage_packed (
        step INTEGER NOT NULL, bucket INTEGER NOT NULL, total BLOB NOT NULL, ranks BLOB NOT NULL, data BLOB NOT NULL,
        PRIMARY KEY (step, bucket));";

/// Usage by channel × model.
pub struct Usage;

impl Packed for Usage {
    const TABLE: &'static str = "usage_packed";
    const ROWS: &'static str = "usage WHERE step = ?1";
    const STEPS: &'static [(u64, u64)] = &[(60, 0), (600, 0), (3_600, 600), (86_400, 3_600)];

    fn pack(
        db: &Connection,
        names: &mut Names,
        (step, part): (u64, u64),
        bucket: u64,
    ) -> rusqlite::Result<()> {
        let sums = match part {
            0 => from_rows(db, names, step, bucket)?,
            part => from_parts(db, part, bucket, bucket + step)?,
        };
        if sums.is_empty() {
            return Ok(());
        }
        write(db, step, bucket, &sums)
    }
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
    for bucket in there::<Usage>(db, part, from, to)? {
        read(db, part, bucket, |who, data| {
            add_counters(data, sums.entry(who).or_default())
        })?;
    }
    Ok(sums)
}
