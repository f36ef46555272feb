//! The journal of usage: what a batch books, in one row, and how it gets from there into the tables.
//!
//! Adding to three buckets and a booked sum for each channel in each batch costs far more than what the batch says.
//! So a batch appends one row, readers add the journal to the tables, and every few seconds its sums are folded into
//! the tables, some channels with each batch, so that no transaction is long. Each such part appends a row that takes
//! off what it added to the tables: tables and journal together are exact after every transaction. When all is
//! folded, the rows up to where the folding began and those that took off add up to nothing, and go.
//!
//! A row: number of deltas; of each minute, who, counters; number of booked sums; of each row, who, counters.
//! Counters: a bit for each that is not zero, then those.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use rusqlite::{Connection, Statement, params};

use super::bytes::{Bytes, put, put_signed};
use super::names::Names;
use super::packed::Usage;
use super::packing::Packing;
use super::{counter_columns, damaged, time, to_blob};
use crate::ledger::{Batch, COUNTER_NAMES, COUNTERS, Counters, STEPS};

/// `fold` is 1 for rows that take off what was folded. Booked sums count only for the region they name, and the
/// latest counts.
pub const TABLE: &str = "CREATE TABLE journal (
    seq INTEGER PRIMARY KEY, region INTEGER NOT NULL, fold INTEGER NOT NULL, data BLOB NOT NULL);";

/// Time between two foldings.
const EVERY: Duration = Duration::from_secs(10);
/// Entries in the journal that do not wait for it: readers go through all of them.
const MOST: usize = 200_000;
/// Minutes and booked sums folded with one batch.
const PART: usize = if cfg!(test) { 3 } else { 256 };

/// What a row of the journal says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Entry {
    /// Usage by minute (Unix seconds) and who.
    pub deltas: Vec<(u64, u32, Counters)>,
    /// Booked sums by row of the usage table, with its who.
    pub booked: Vec<(u32, u32, Counters)>,
}

/// Appends counters: which are not zero, and those.
pub fn put_counters(out: &mut Vec<u8>, counters: &Counters) {
    let there = |(i, n): (usize, &i64)| u64::from(*n != 0) << i;
    put(out, counters.0.iter().enumerate().map(there).sum());
    for n in counters.0.iter().filter(|n| **n != 0) {
        put_signed(out, *n);
    }
}

/// Takes counters back.
pub fn take_counters(bytes: &mut Bytes<'_>) -> Option<Counters> {
    let mut counters = Counters::default();
    let there = bytes.number()?;
    for (i, n) in counters.0.iter_mut().enumerate() {
        if there >> i & 1 == 1 {
            *n = bytes.signed()?;
        }
    }
    Some(counters)
}

impl Entry {
    fn encode(&self) -> Vec<u8> {
        let mut out = Vec::with_capacity(4 + 40 * (self.deltas.len() + self.booked.len()));
        put(&mut out, self.deltas.len() as u64);
        for (minute, who, counters) in &self.deltas {
            put(&mut out, minute / 60);
            put(&mut out, u64::from(*who));
            put_counters(&mut out, counters);
        }
        put(&mut out, self.booked.len() as u64);
        for (row, who, counters) in &self.booked {
            put(&mut out, u64::from(*row));
            put(&mut out, u64::from(*who));
            put_counters(&mut out, counters);
        }
        out
    }

    fn decode(data: &[u8]) -> Option<Entry> {
        let mut bytes = Bytes(data);
        let mut entry = Entry::default();
        for _ in 0..bytes.number()? {
            let minute = bytes.number()?.checked_mul(60)?;
            let delta = (minute, bytes.small()?, take_counters(&mut bytes)?);
            entry.deltas.push(delta);
        }
        for _ in 0..bytes.number()? {
            let sum = (bytes.small()?, bytes.small()?, take_counters(&mut bytes)?);
            entry.booked.push(sum);
        }
        bytes.is_empty().then_some(entry)
    }
}

/// Goes through the journal, oldest row first: region and what it says.
pub fn read(db: &Connection, mut each: impl FnMut(i64, Entry)) -> rusqlite::Result<()> {
    let mut statement = db.prepare_cached("SELECT region, data FROM journal ORDER BY seq")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let entry = Entry::decode(row.get_ref(1)?.as_blob()?).ok_or_else(damaged)?;
        each(row.get(0)?, entry);
    }
    Ok(())
}

/// A folding on its way.
struct Fold {
    /// Rows up to here are being folded.
    through: i64,
    deltas: Vec<(u64, u32, Counters)>,
    booked: Vec<(u32, u32, Counters)>,
}

/// What the journal adds up to, beyond what is being folded. Must be forgotten when a transaction that used it fails.
pub struct Journal {
    deltas: HashMap<(u64, u32), Counters>,
    booked: HashMap<u32, (u32, Counters)>,
    entries: usize,
    fold: Option<Fold>,
    folded: Option<Instant>,
}

impl Journal {
    /// Adds up what is there. `region` is the one whose booked sums count.
    pub fn load(db: &Connection, region: Option<i64>) -> rusqlite::Result<Journal> {
        let mut journal = Journal {
            deltas: HashMap::new(),
            booked: HashMap::new(),
            entries: 0,
            fold: None,
            folded: None,
        };
        read(db, |of, entry| journal.add(&entry, Some(of) == region))?;
        Ok(journal)
    }

    fn add(&mut self, entry: &Entry, with_booked: bool) {
        for (minute, who, counters) in &entry.deltas {
            let sum = self.deltas.entry((*minute, *who)).or_default();
            *sum = sum.plus(counters);
        }
        if with_booked {
            let sums = entry.booked.iter();
            self.booked
                .extend(sums.map(|(row, who, counters)| (*row, (*who, *counters))));
        }
        self.entries += entry.deltas.len() + entry.booked.len();
    }

    /// Another region begins: no booked sum of the former counts.
    pub fn forget_booked(&mut self) {
        self.booked.clear();
        if let Some(fold) = &mut self.fold {
            fold.booked.clear();
        }
    }

    /// Appends what a batch books, within its transaction.
    pub fn append(
        &mut self,
        db: &Connection,
        names: &mut Names,
        region: i64,
        batch: &Batch,
    ) -> rusqlite::Result<()> {
        if batch.deltas.is_empty() && batch.rows.is_empty() {
            return Ok(());
        }
        let mut entry = Entry::default();
        for d in &batch.deltas {
            let who = names.who(db, &d.channel, &d.model)?;
            entry.deltas.push((d.minute, who, d.counters));
        }
        for r in &batch.rows {
            let who = names.who(db, &r.channel, &r.model)?;
            entry.booked.push((r.row, who, r.booked));
        }
        self.add(&entry, true);
        write(db, region, false, &entry)
    }

    fn due(&self) -> bool {
        let long_ago = self.folded.is_none_or(|at| at.elapsed() >= EVERY);
        self.entries >= MOST || long_ago && self.entries > 0
    }

    /// Whether the next call of [`Self::fold`] folds something.
    pub fn is_folding(&self) -> bool {
        self.fold.is_some() || self.due()
    }

    /// Folds a part if it is time to, within a transaction.
    pub fn fold(
        &mut self,
        db: &Connection,
        names: &mut Names,
        region: i64,
        add_usage: &str,
        packing: &mut Packing<Usage>,
    ) -> rusqlite::Result<()> {
        let mut fold = match self.fold.take() {
            Some(fold) => fold,
            None if self.due() => self.begin(db, names)?,
            None => return Ok(()),
        };
        let part = fold.deltas.split_off(fold.deltas.len().saturating_sub(PART));
        let mut usage = db.prepare_cached(add_usage)?;
        let mut touched = None;
        for (minute, who, counters) in part.iter().rev() {
            if touched.replace(*minute) != Some(*minute) {
                packing.touch(db, *minute)?;
            }
            let (channel, model) = names.name(db, *who)?;
            for step in STEPS {
                upsert(&mut usage, step, *minute, channel, model, counters)?;
            }
        }
        let sums = fold.booked.split_off(fold.booked.len().saturating_sub(PART));
        let mut booked = db.prepare_cached(
            "INSERT OR REPLACE INTO booked (row, channel, model, counters) VALUES (?1, ?2, ?3, ?4)",
        )?;
        for (row, who, counters) in sums.iter().rev() {
            let (channel, model) = names.name(db, *who)?;
            booked.execute(params![row, channel, model, to_blob(counters)])?;
        }
        if fold.deltas.is_empty() && fold.booked.is_empty() {
            db.prepare_cached("DELETE FROM journal WHERE seq <= ?1 OR fold = 1")?
                .execute([fold.through])?;
            return Ok(());
        }
        if !part.is_empty() {
            let taken = Entry {
                deltas: part
                    .into_iter()
                    .map(|(minute, who, counters)| (minute, who, Counters::default().minus(&counters)))
                    .collect(),
                booked: Vec::new(),
            };
            write(db, region, true, &taken)?;
        }
        self.fold = Some(fold);
        Ok(())
    }

    /// Takes all that is there now to be folded, in reverse of the tables' order: parts are taken from the end.
    fn begin(&mut self, db: &Connection, names: &mut Names) -> rusqlite::Result<Fold> {
        self.entries = 0;
        self.folded = Some(Instant::now());
        let through = db.query_row("SELECT MAX(seq) FROM journal", [], |r| r.get::<_, Option<i64>>(0))?;
        let mut deltas: Vec<_> = self
            .deltas
            .drain()
            .map(|((minute, who), counters)| Ok((names.name(db, who)?.clone(), (minute, who, counters))))
            .collect::<rusqlite::Result<_>>()?;
        deltas.sort_unstable_by(|(a, (a_minute, ..)), (b, (b_minute, ..))| (b_minute, b).cmp(&(a_minute, a)));
        let booked = self.booked.drain();
        let mut booked: Vec<_> = booked
            .map(|(row, (who, counters))| (row, who, counters))
            .collect();
        booked.sort_unstable_by_key(|(row, ..)| std::cmp::Reverse(*row));
        Ok(Fold {
            through: through.unwrap_or(0),
            deltas: deltas.into_iter().map(|(_, delta)| delta).collect(),
            booked,
        })
    }
}

fn write(db: &Connection, region: i64, fold: bool, entry: &Entry) -> rusqlite::Result<()> {
    db.prepare_cached("INSERT INTO journal (region, fold, data) VALUES (?1, ?2, ?3)")?
        .execute(params![region, fold, entry.encode()])?;
    Ok(())
}

/// The statement that adds to a bucket: step, bucket, channel, model, counters.
pub fn add_usage() -> String {
    let places: Vec<String> = (5..5 + COUNTERS).map(|i| format!("?{i}")).collect();
    let sums: Vec<String> = COUNTER_NAMES
        .iter()
        .map(|n| format!("\"{n}\" = \"{n}\" + excluded.\"{n}\""))
        .collect();
    format!(
        "INSERT INTO usage (step, bucket, channel, model, {}) VALUES (?1, ?2, ?3, ?4, {}) \
         ON CONFLICT (step, bucket, channel, model) DO UPDATE SET {}",
        counter_columns(),
        places.join(", "),
        sums.join(", ")
    )
}

fn upsert(
    usage: &mut Statement<'_>,
    step: u64,
    minute: u64,
    channel: &str,
    model: &str,
    counters: &Counters,
) -> rusqlite::Result<()> {
    usage.raw_bind_parameter(1, time(step))?;
    usage.raw_bind_parameter(2, time(bucket(step, minute)))?;
    usage.raw_bind_parameter(3, channel)?;
    usage.raw_bind_parameter(4, model)?;
    for (i, n) in counters.0.iter().enumerate() {
        usage.raw_bind_parameter(5 + i, n)?;
    }
    usage.raw_execute().map(drop)
}

/// Begin of the bucket that a minute lies in.
pub fn bucket(step: u64, minute: u64) -> u64 {
    minute.checked_div(step).map_or(0, |n| n * step)
}

#[cfg(test)]
impl Journal {
    /// A folding begins with the next batch.
    pub fn hurry(&mut self) {
        self.folded = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn counters() -> impl Strategy<Value = Counters> {
        proptest::array::uniform19(
            (any::<i64>(), 0u32..66).prop_map(|(n, shift)| n.checked_shr(shift).unwrap_or(0)),
        )
        .prop_map(Counters)
    }

    proptest! {
        #[test]
        fn entries_come_back(
            deltas in proptest::collection::vec((0u64..1 << 40, any::<u32>(), counters()), 0..9),
            booked in proptest::collection::vec((any::<u32>(), any::<u32>(), counters()), 0..9),
        ) {
            let deltas = deltas.into_iter().map(|(minute, who, c)| (minute * 60, who, c)).collect();
            let entry = Entry { deltas, booked };
            let data = entry.encode();
            prop_assert_eq!(Entry::decode(&data[..data.len() - 1]), None);
            prop_assert_eq!(Entry::decode(&data), Some(entry));
        }
    }
}
