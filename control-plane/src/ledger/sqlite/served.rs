//! What deployments have served, by version: one row for each that served something in a bucket.
//!
//! As with usage, a batch appends one row to a journal, readers add the journal to the table, and every few seconds it is added
//! to the table, here in one transaction: there are far fewer deployments than channels.
//!
//! Charts read packed buckets ([`super::packing`]), each in one row: of each who, ascending, the difference to the one before, how
//! many bytes its results are, and those.
//!
//! Results: counters, then of each histogram the number of buckets that are not empty, and those. A row of the journal: number
//! of entries; of each minute, who, results.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::time::Instant;

use rusqlite::{Connection, OptionalExtension, params};

use super::bytes::{Bytes, put};
use super::journal::{bucket, put_counters, take_counters};
use super::names::{self, Names};
use super::pace::Pace;
use super::packed::add_counters;
use super::packing::{Packed, Packing, there};
use super::series::{SeriesQuery, cover};
use super::{damaged, prune_steps, time};
use crate::ledger::{Counters, Histogram, Keep, Results, STEPS, Served, ServedDelta, ServedQuery};

/// Made when a file is opened: they were added to this version of the schema later.
pub const TABLES: &str = "CREATE TABLE IF NOT EXISTS served (
        step INTEGER NOT NULL, bucket INTEGER NOT NULL, who INTEGER NOT NULL, data BLOB NOT NULL,
        PRIMARY KEY (step, bucket, who)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS served_journal (seq INTEGER PRIMARY KEY, data BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS served_packed (
        step INTEGER NOT NULL, bucket INTEGER NOT NULL, data BLOB NOT NULL, PRIMARY KEY (step, bucket));";

/// What is packed of it. Minutes are few: they are not kept long.
pub struct Packs;

impl Packed for Packs {
    const TABLE: &'static str = "served_packed";
    const ROWS: &'static str = "served WHERE step = ?1";
    const STEPS: &'static [(u64, u64)] = &[(600, 0), (3_600, 600), (86_400, 3_600)];

    fn pack(db: &Connection, _: &mut Names, (step, part): (u64, u64), begin: u64) -> rusqlite::Result<()> {
        let mut sums: BTreeMap<u32, Results> = BTreeMap::new();
        let mut add =
            |_: u64, who: u32, data: &[u8]| add_results(&mut Bytes(data), sums.entry(who).or_default());
        let range = (begin, begin + step);
        if part == 0 {
            rows(db, step, range, &mut add)?;
        } else {
            for bucket in there::<Packs>(db, part, range.0, range.1)? {
                packed(db, part, bucket, &mut add)?;
            }
        }
        let (mut out, mut results, mut last) = (Vec::new(), Vec::new(), 0);
        for (who, sum) in &sums {
            results.clear();
            put_results(&mut results, sum);
            put(&mut out, u64::from(who - last));
            put(&mut out, results.len() as u64);
            out.extend_from_slice(&results);
            last = *who;
        }
        if out.is_empty() {
            return Ok(());
        }
        db.prepare_cached("INSERT OR REPLACE INTO served_packed (step, bucket, data) VALUES (?1, ?2, ?3)")?
            .execute(params![time(step), time(begin), out])
            .map(drop)
    }
}

/// Takes what a bucket has of a who: bucket, who, results. `None` if those are damaged.
type Each<'e> = dyn FnMut(u64, u32, &[u8]) -> Option<()> + 'e;

/// Goes through a packed bucket.
fn packed(db: &Connection, step: u64, bucket: u64, each: &mut Each<'_>) -> rusqlite::Result<()> {
    db.prepare_cached("SELECT data FROM served_packed WHERE step = ?1 AND bucket = ?2")?
        .query_row(params![time(step), time(bucket)], |r| {
            let mut bytes = Bytes(r.get_ref(0)?.as_blob()?);
            let mut who = 0u32;
            let mut entry = || {
                who = who.checked_add(bytes.small()?)?;
                let length = usize::try_from(bytes.number()?).ok()?;
                let (data, rest) = bytes.0.split_at_checked(length)?;
                bytes.0 = rest;
                each(bucket, who, data)?;
                Some(bytes.is_empty())
            };
            while !entry().ok_or_else(damaged)? {}
            Ok(())
        })
}

/// Goes through the table's rows of a range.
fn rows(db: &Connection, step: u64, (from, to): (u64, u64), each: &mut Each<'_>) -> rusqlite::Result<()> {
    let mut statement = db.prepare_cached(
        "SELECT bucket, who, data FROM served WHERE step = ?1 AND bucket >= ?2 AND bucket < ?3",
    )?;
    let mut rows = statement.query(params![time(step), time(from), time(to)])?;
    while let Some(row) = rows.next()? {
        let bucket = row.get::<_, i64>(0)?.cast_unsigned();
        each(bucket, row.get(1)?, row.get_ref(2)?.as_blob()?).ok_or_else(damaged)?;
    }
    Ok(())
}

fn put_results(out: &mut Vec<u8>, results: &Results) {
    put_counters(out, &results.counters);
    for histogram in [&results.latency, &results.first_token] {
        let some = || histogram.iter().enumerate().filter(|(_, n)| **n != 0);
        put(out, some().count() as u64);
        for (place, n) in some() {
            put(out, place as u64);
            put(out, *n);
        }
    }
}

/// Takes results, and adds them.
fn add_results(bytes: &mut Bytes<'_>, sum: &mut Results) -> Option<()> {
    add_counters(bytes, &mut sum.counters)?;
    for histogram in [&mut sum.latency, &mut sum.first_token] {
        for _ in 0..bytes.number()? {
            let place = usize::try_from(bytes.number()?).ok()?;
            let slot = histogram.get_mut(place)?;
            *slot = slot.saturating_add(bytes.number()?);
        }
    }
    bytes.is_empty().then_some(())
}

fn take_histogram(bytes: &mut Bytes<'_>, histogram: &mut Histogram) -> Option<()> {
    for _ in 0..bytes.number()? {
        let place = usize::try_from(bytes.number()?).ok()?;
        *histogram.get_mut(place)? = bytes.number()?;
    }
    Some(())
}

fn take_results(bytes: &mut Bytes<'_>) -> Option<Results> {
    let mut results = Results {
        counters: take_counters(bytes)?,
        ..Results::default()
    };
    take_histogram(bytes, &mut results.latency)?;
    take_histogram(bytes, &mut results.first_token)?;
    Some(results)
}

fn decode(data: &[u8]) -> rusqlite::Result<Results> {
    let mut bytes = Bytes(data);
    let results = take_results(&mut bytes).filter(|_| bytes.is_empty());
    results.ok_or_else(damaged)
}

/// Goes through the journal: minute, who, results.
fn journal(db: &Connection, mut each: impl FnMut(u64, u32, &Results)) -> rusqlite::Result<()> {
    let mut statement = db.prepare_cached("SELECT data FROM served_journal ORDER BY seq")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let mut bytes = Bytes(row.get_ref(0)?.as_blob()?);
        let mut entry = || {
            let minute = bytes.number()?.checked_mul(60)?;
            Some((minute, bytes.small()?, take_results(&mut bytes)?))
        };
        while let Some((minute, who, results)) = entry() {
            each(minute, who, &results);
        }
        if !bytes.is_empty() {
            return Err(damaged());
        }
    }
    Ok(())
}

/// What the journal adds up to. Must be forgotten when a transaction that used it fails.
pub struct Serving {
    pending: HashMap<(u64, u32), Results>,
    pace: Pace,
    packing: Packing<Packs>,
}

impl Serving {
    /// Adds up what is there.
    pub fn load(db: &Connection) -> rusqlite::Result<Serving> {
        let mut serving = Serving {
            pending: HashMap::new(),
            pace: Pace::default(),
            packing: Packing::load(db)?,
        };
        journal(db, |minute, who, results| serving.note(minute, who, results))?;
        Ok(serving)
    }

    fn note(&mut self, minute: u64, who: u32, results: &Results) {
        let sum = self.pending.entry((minute, who)).or_default();
        *sum = sum.plus(results);
        self.pace.note();
    }

    /// Appends what a batch says, within its transaction.
    pub fn append(
        &mut self,
        db: &Connection,
        names: &mut Names,
        deltas: &[ServedDelta],
    ) -> rusqlite::Result<()> {
        if deltas.is_empty() {
            return Ok(());
        }
        let mut data = Vec::with_capacity(80 * deltas.len());
        for delta in deltas {
            let who = names.served(db, &delta.served)?;
            put(&mut data, delta.minute / 60);
            put(&mut data, u64::from(who));
            put_results(&mut data, &delta.results);
            self.note(delta.minute / 60 * 60, who, &delta.results);
        }
        db.prepare_cached("INSERT INTO served_journal (data) VALUES (?1)")?
            .execute([data])?;
        Ok(())
    }

    /// Adds the journal to the table if it is time to, within a transaction.
    pub fn fold(&mut self, db: &Connection) -> rusqlite::Result<()> {
        if !self.pace.is_due() {
            return Ok(());
        }
        let mut sums: HashMap<(u64, u64, u32), Results> = HashMap::new();
        for ((minute, who), results) in self.pending.drain() {
            self.packing.touch(db, minute)?;
            for step in STEPS {
                let sum = sums.entry((step, bucket(step, minute), who)).or_default();
                *sum = sum.plus(&results);
            }
        }
        let mut known =
            db.prepare_cached("SELECT data FROM served WHERE step = ?1 AND bucket = ?2 AND who = ?3")?;
        let mut write = db.prepare_cached(
            "INSERT OR REPLACE INTO served (step, bucket, who, data) VALUES (?1, ?2, ?3, ?4)",
        )?;
        for ((step, bucket, who), results) in sums {
            let place = params![time(step), time(bucket), who];
            let before = known
                .query_row(place, |r| decode(r.get_ref(0)?.as_blob()?))
                .optional()?;
            let sum = before.map_or(results, |before| before.plus(&results));
            let mut data = Vec::with_capacity(120);
            put_results(&mut data, &sum);
            write.execute(params![time(step), time(bucket), who, data])?;
        }
        db.prepare_cached("DELETE FROM served_journal")?.execute([])?;
        self.pace.added();
        Ok(())
    }
}

/// See [`crate::ledger::Store::served`].
pub fn query(
    db: &Connection,
    q: &ServedQuery,
    each: &mut dyn FnMut(u64, &Served, &Results),
) -> rusqlite::Result<()> {
    let all = names::all_served(db)?;
    let wanted = |who: u32| {
        all.get(&who)
            .filter(|served| q.model.as_ref().is_none_or(|m| *m == served.model))
    };
    let mut statement = db.prepare_cached(
        "SELECT bucket, who, data FROM served WHERE step = ?1 AND bucket >= ?2 AND bucket < ?3",
    )?;
    let mut rows = statement.query(params![time(q.step), time(q.from), time(q.to)])?;
    while let Some(row) = rows.next()? {
        if let Some(served) = wanted(row.get(1)?) {
            let results = decode(row.get_ref(2)?.as_blob()?)?;
            each(row.get::<_, i64>(0)?.cast_unsigned(), served, &results);
        }
    }
    journal(db, |minute, who, results| {
        let bucket = bucket(q.step, minute);
        if let Some(served) = wanted(who).filter(|_| (q.from..q.to).contains(&bucket)) {
            each(bucket, served, results);
        }
    })
}

/// What deployments served over time, of one or of all of a version.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServedLine {
    /// Who; without a deployment where it is told apart by version. Empty for all others.
    pub served: Served,
    /// By bucket.
    pub points: Vec<Counters>,
    /// Over all of them.
    pub total: Results,
}

/// What deployments served over time, by who had the most requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RankedServed {
    /// Those with the most requests first.
    pub lines: Vec<ServedLine>,
    /// All others together; `None` if there are none.
    pub others: Option<ServedLine>,
}

/// See [`super::SqliteReader::served`].
pub fn read(
    db: &Connection,
    q: &SeriesQuery,
    by_version: bool,
    top: usize,
) -> rusqlite::Result<RankedServed> {
    let mut all = names::all_served(db)?;
    all.retain(|_, served| q.model.as_ref().is_none_or(|model| *model == served.model));
    let mut lines: Vec<ServedLine> = Vec::new();
    let mut places: HashMap<Served, usize> = HashMap::new();
    // By number of who, its line; one that does not exist for those that are not asked for.
    let numbers = all.keys().max().map_or(0, |n| *n as usize + 1);
    let mut line_of = vec![usize::MAX; numbers];
    for (who, mut served) in all {
        if by_version {
            served.deployment.clear();
        }
        let place = *places.entry(served).or_insert_with_key(|served| {
            lines.push(ServedLine {
                served: served.clone(),
                ..ServedLine::default()
            });
            lines.len() - 1
        });
        if let Some(slot) = line_of.get_mut(who as usize) {
            *slot = place;
        }
    }
    go_through(db, q, 86_400, &mut |_, who, data| {
        let line = line_of.get(who as usize).and_then(|place| lines.get_mut(*place));
        match line {
            Some(line) => add_results(&mut Bytes(data), &mut line.total),
            None => Some(()),
        }
    })?;

    let requests = |line: usize| lines.get(line).map_or(0, |line| line.total.counters.requests());
    let mut order: Vec<usize> = (0..lines.len()).filter(|line| requests(*line) != 0).collect();
    order.sort_by_cached_key(|line| {
        (
            Reverse(requests(*line)),
            lines.get(*line).map(|l| l.served.clone()),
        )
    });
    let rest = order.split_off(top.min(order.len()));
    // Where each is shown; all others at the end.
    let mut shown_at = vec![order.len(); lines.len()];
    for (shown, line) in order.iter().enumerate() {
        if let Some(slot) = shown_at.get_mut(*line) {
            *slot = shown;
        }
    }
    let some = order.len() + usize::from(!rest.is_empty());
    let mut points = vec![vec![Counters::default(); q.buckets()]; some];
    go_through(db, q, q.step, &mut |bucket, who, data| {
        let shown = line_of.get(who as usize).and_then(|line| shown_at.get(*line));
        let line = shown.and_then(|shown| points.get_mut(*shown));
        match line.and_then(|line| line.get_mut(q.place(bucket)?)) {
            Some(sum) => add_counters(&mut Bytes(data), sum),
            None => Some(()),
        }
    })?;
    let others = rest
        .iter()
        .filter_map(|line| lines.get(*line))
        .fold(Results::default(), |sum, line| sum.plus(&line.total));
    let mut points = points.into_iter();
    let line = |(line, points): (usize, Vec<Counters>)| ServedLine {
        points,
        ..lines.get_mut(line).map(std::mem::take).unwrap_or_default()
    };
    Ok(RankedServed {
        lines: order.into_iter().zip(points.by_ref()).map(line).collect(),
        others: points.next().map(|points| ServedLine {
            points,
            total: others,
            ..ServedLine::default()
        }),
    })
}

/// Goes through all of a range: packed buckets, each within a bucket of `within`, rows of what is not packed, and the journal.
fn go_through(db: &Connection, q: &SeriesQuery, within: u64, each: &mut Each<'_>) -> rusqlite::Result<()> {
    let cover = cover::<Packs>(db, q, within)?;
    for (step, bucket) in cover.packed {
        packed(db, step, bucket, each)?;
    }
    for range in cover.rows {
        rows(db, q.stored(), range, each)?;
    }
    let mut data = Vec::new();
    let mut sound = Some(());
    journal(db, |minute, who, results| {
        let bucket = bucket(q.stored(), minute);
        if (q.from..q.to).contains(&bucket) {
            data.clear();
            put_results(&mut data, results);
            sound = sound.and_then(|()| each(bucket, who, &data));
        }
    })?;
    sound.ok_or_else(damaged)
}

impl Serving {
    /// Removes what need not be kept, and packs until it is late, within a transaction.
    pub fn prune(
        &mut self,
        db: &Connection,
        names: &mut Names,
        keep: &Keep,
        late: Instant,
    ) -> rusqlite::Result<()> {
        prune_steps(db, "served", "who", keep)?;
        self.packing.prune(db, names, keep, late)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_back() {
        let mut results = Results::default();
        results.counters.0[3] = -7;
        results.latency[39] = u64::MAX;
        results.first_token[0] = 1;
        let mut data = Vec::new();
        put_results(&mut data, &results);
        assert!(data.len() < 20);
        assert_eq!(decode(&data).unwrap(), results);
        assert!(decode(&data[..data.len() - 1]).is_err());
        data.push(0);
        assert!(decode(&data).is_err());
    }
}
