//! What deployments have served, by version: one row for each that served something in a bucket.
//!
//! As with usage, a batch appends one row to a journal, readers add the journal to the table, and every few seconds it is added
//! to the table, here in one transaction: there are far fewer deployments than channels.
//!
//! Results: counters, then of each histogram the number of buckets that are not empty, and those. A row of the journal: number
//! of entries; of each minute, who, results.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};

use super::bytes::{Bytes, put};
use super::journal::{bucket, put_counters, take_counters};
use super::names::{self, Names};
use super::pace::Pace;
use super::{damaged, prune_steps, time};
use crate::ledger::{Histogram, Keep, Results, STEPS, Served, ServedDelta, ServedQuery};

/// Made when a file is opened: they were added to this version of the schema later.
pub const TABLES: &str = "CREATE TABLE IF NOT EXISTS served (
        step INTEGER NOT NULL, bucket INTEGER NOT NULL, who INTEGER NOT NULL, data BLOB NOT NULL,
        PRIMARY KEY (step, bucket, who)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS served_journal (seq INTEGER PRIMARY KEY, data BLOB NOT NULL);";

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
}

impl Serving {
    /// Adds up what is there.
    pub fn load(db: &Connection) -> rusqlite::Result<Serving> {
        let mut serving = Serving {
            pending: HashMap::new(),
            pace: Pace::default(),
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

/// Removes what need not be kept, within a transaction.
pub fn prune(db: &Connection, keep: &Keep) -> rusqlite::Result<()> {
    prune_steps(db, "served", "who", keep)
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
