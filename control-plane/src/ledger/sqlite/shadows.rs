//! What rules in shadow mode have matched, by rule, ten minutes, channel and what they would have done.
//!
//! As with what deployments serve, a batch appends one row to a journal, readers add the journal to the table, and every few
//! seconds it is added to the table.
//!
//! Charts read packed buckets ([`super::packing`]), a row for each rule. `total`: of each deeds that there are, these and the hits.
//! `data`: of each channel, in the order of their numbers (as a channel × model of no model), the distance to the number before,
//! deeds, hits.
//!
//! A row of the journal, of each entry: bucket, rule (8 bytes), deeds, hits, length of the channel code, the code.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Instant;

use rusqlite::{Connection, params};

use super::bytes::{Bytes, put};
use super::names::Names;
use super::pace::Pace;
use super::packing::{Packed, Packing};
use super::pairs::Pairs;
use super::series::{SeriesQuery, cover_of};
use super::{PRUNE_BUCKETS, bits, damaged, time};
use crate::ledger::{Keep, ShadowDelta, ShadowHits, ShadowQuery};

/// Made when a file is opened: they were added to this version of the schema later.
pub const TABLES: &str = "CREATE TABLE IF NOT EXISTS shadow (
        rule INTEGER NOT NULL, bucket INTEGER NOT NULL, channel TEXT NOT NULL, deeds INTEGER NOT NULL,
        hits INTEGER NOT NULL, PRIMARY KEY (rule, bucket, channel, deeds)) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS shadow_by_bucket ON shadow (bucket);
    CREATE TABLE IF NOT EXISTS shadow_journal (seq INTEGER PRIMARY KEY, data BLOB NOT NULL);
    CREATE TABLE IF NOT EXISTS shadow_packed (
        step INTEGER NOT NULL, bucket INTEGER NOT NULL, rule INTEGER NOT NULL, total BLOB NOT NULL, data BLOB NOT NULL,
        PRIMARY KEY (step, bucket, rule));";

/// What is packed of it.
pub struct Packs;

/// Hits of a rule, by channel's number and deeds.
type Sums = BTreeMap<(u32, u16), u64>;

impl Packed for Packs {
    const TABLE: &'static str = "shadow_packed";
    const ROWS: &'static str = "shadow WHERE ?1 = 600";
    const STEPS: &'static [(u64, u64)] = &[(600, 0), (3_600, 600), (86_400, 3_600)];

    fn pack(
        db: &Connection,
        names: &mut Names,
        (step, part): (u64, u64),
        begin: u64,
    ) -> rusqlite::Result<()> {
        let mut rules: BTreeMap<i64, Sums> = BTreeMap::new();
        if part == 0 {
            let mut statement =
                db.prepare_cached("SELECT rule, channel, deeds, hits FROM shadow WHERE bucket = ?1")?;
            let mut rows = statement.query([time(begin)])?;
            while let Some(row) = rows.next()? {
                let who = names.who(db, row.get_ref(1)?.as_str()?, "")?;
                let sums = rules.entry(row.get(0)?).or_default();
                *sums.entry((who, row.get(2)?)).or_default() += row.get::<_, i64>(3)?.cast_unsigned();
            }
        } else {
            let mut statement = db.prepare_cached(
                "SELECT rule, data FROM shadow_packed WHERE step = ?1 AND bucket >= ?2 AND bucket < ?3",
            )?;
            let mut rows = statement.query(params![time(part), time(begin), time(begin + step)])?;
            while let Some(row) = rows.next()? {
                let sums = rules.entry(row.get(0)?).or_default();
                each_channel(row.get_ref(1)?.as_blob()?, |who, deeds, hits| {
                    *sums.entry((who, deeds)).or_default() += hits;
                })
                .ok_or_else(damaged)?;
            }
        }
        for (rule, sums) in rules {
            let (total, data) = packed(&sums);
            db.prepare_cached(
                "INSERT OR REPLACE INTO shadow_packed (step, bucket, rule, total, data) VALUES (?1, ?2, ?3, ?4, ?5)",
            )?
            .execute(params![time(step), time(begin), rule, total, data])?;
        }
        Ok(())
    }
}

fn packed(sums: &Sums) -> (Vec<u8>, Vec<u8>) {
    let (mut total, mut data) = (Vec::new(), Vec::new());
    let mut deeds_of: BTreeMap<u16, u64> = BTreeMap::new();
    let mut last = 0;
    for ((who, deeds), hits) in sums {
        put(&mut data, u64::from(who - last));
        put(&mut data, u64::from(*deeds));
        put(&mut data, *hits);
        *deeds_of.entry(*deeds).or_default() += hits;
        last = *who;
    }
    for (deeds, hits) in deeds_of {
        put(&mut total, u64::from(deeds));
        put(&mut total, hits);
    }
    (total, data)
}

/// Goes through the channels of a packed bucket: number, deeds, hits; `None` if it is damaged.
fn each_channel(data: &[u8], mut each: impl FnMut(u32, u16, u64)) -> Option<()> {
    let mut bytes = Bytes(data);
    let mut who = 0u32;
    while !bytes.is_empty() {
        who = who.checked_add(bytes.small()?)?;
        each(who, u16::try_from(bytes.number()?).ok()?, bytes.number()?);
    }
    Some(())
}

/// Hits of a packed bucket; `None` if it is damaged.
fn hits_of(total: &[u8]) -> Option<u64> {
    let mut bytes = Bytes(total);
    let mut sum = 0u64;
    while !bytes.is_empty() {
        bytes.number()?;
        sum = sum.saturating_add(bytes.number()?);
    }
    Some(sum)
}

fn put_delta(out: &mut Vec<u8>, delta: &ShadowDelta) {
    put(out, delta.of.bucket);
    out.extend_from_slice(&delta.of.rule.to_le_bytes());
    put(out, delta.of.deeds.into());
    put(out, delta.hits);
    put(out, delta.of.channel.len() as u64);
    out.extend_from_slice(delta.of.channel.as_bytes());
}

fn take_delta(bytes: &mut Bytes<'_>) -> Option<ShadowDelta> {
    let (bucket, rule) = (bytes.number()?, bytes.word()?);
    let (deeds, hits) = (u16::try_from(bytes.number()?).ok()?, bytes.number()?);
    let length = usize::try_from(bytes.number()?).ok()?;
    let (channel, rest) = bytes.0.split_at_checked(length)?;
    bytes.0 = rest;
    let of = ShadowHits {
        bucket,
        rule,
        channel: std::str::from_utf8(channel).ok()?.to_owned(),
        deeds,
    };
    Some(ShadowDelta { of, hits })
}

/// Goes through the journal.
fn journal(db: &Connection, mut each: impl FnMut(ShadowDelta)) -> rusqlite::Result<()> {
    let mut statement = db.prepare_cached("SELECT data FROM shadow_journal ORDER BY seq")?;
    let mut rows = statement.query([])?;
    while let Some(row) = rows.next()? {
        let mut bytes = Bytes(row.get_ref(0)?.as_blob()?);
        while !bytes.is_empty() {
            each(take_delta(&mut bytes).ok_or_else(damaged)?);
        }
    }
    Ok(())
}

/// What the journal adds up to. Must be forgotten when a transaction that used it fails.
pub struct Shadowing {
    pending: BTreeMap<ShadowHits, u64>,
    pace: Pace,
    packing: Packing<Packs>,
}

impl Shadowing {
    /// Adds up what is there.
    pub fn load(db: &Connection) -> rusqlite::Result<Shadowing> {
        let mut shadowing = Shadowing {
            pending: BTreeMap::new(),
            pace: Pace::default(),
            packing: Packing::load(db)?,
        };
        journal(db, |delta| shadowing.note(delta))?;
        Ok(shadowing)
    }

    fn note(&mut self, delta: ShadowDelta) {
        *self.pending.entry(delta.of).or_default() += delta.hits;
        self.pace.note();
    }

    /// Appends what a batch says, within its transaction.
    pub fn append(&mut self, db: &Connection, deltas: &[ShadowDelta]) -> rusqlite::Result<()> {
        if deltas.is_empty() {
            return Ok(());
        }
        let mut data = Vec::with_capacity(40 * deltas.len());
        for delta in deltas {
            put_delta(&mut data, delta);
            self.note(delta.clone());
        }
        db.prepare_cached("INSERT INTO shadow_journal (data) VALUES (?1)")?
            .execute([data])?;
        Ok(())
    }

    /// Adds the journal to the table if it is time to, within a transaction.
    pub fn fold(&mut self, db: &Connection) -> rusqlite::Result<()> {
        if !self.pace.is_due() {
            return Ok(());
        }
        let mut add = db.prepare_cached(
            "INSERT INTO shadow (rule, bucket, channel, deeds, hits) VALUES (?1, ?2, ?3, ?4, ?5)
             ON CONFLICT DO UPDATE SET hits = hits + excluded.hits",
        )?;
        for (of, hits) in std::mem::take(&mut self.pending) {
            self.packing.touch(db, of.bucket)?;
            add.execute(params![
                bits(of.rule),
                time(of.bucket),
                of.channel,
                of.deeds,
                time(hits)
            ])?;
        }
        db.prepare_cached("DELETE FROM shadow_journal")?.execute([])?;
        self.pace.added();
        Ok(())
    }
}

/// Goes through the table's rows of a rule.
fn rows(db: &Connection, q: &ShadowQuery, each: &mut dyn FnMut(&ShadowHits, u64)) -> rusqlite::Result<()> {
    let mut statement = db.prepare_cached(
        "SELECT bucket, channel, deeds, hits FROM shadow WHERE rule = ?1 AND bucket >= ?2 AND bucket < ?3",
    )?;
    let mut rows = statement.query(params![bits(q.rule), time(q.from), time(q.to)])?;
    while let Some(row) = rows.next()? {
        let of = ShadowHits {
            bucket: row.get::<_, i64>(0)?.cast_unsigned(),
            rule: q.rule,
            channel: row.get(1)?,
            deeds: row.get(2)?,
        };
        each(&of, row.get::<_, i64>(3)?.cast_unsigned());
    }
    Ok(())
}

/// See [`crate::ledger::Store::shadows`].
pub fn query(
    db: &Connection,
    q: &ShadowQuery,
    each: &mut dyn FnMut(&ShadowHits, u64),
) -> rusqlite::Result<()> {
    rows(db, q, each)?;
    journal(db, |delta| {
        if delta.of.rule == q.rule && (q.from..q.to).contains(&delta.of.bucket) {
            each(&delta.of, delta.hits);
        }
    })
}

/// What a rule has matched, added up.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ShadowSums {
    /// Hits by what it would have done, a bit for each deed.
    pub deeds: BTreeMap<u16, u64>,
    /// Hits by channel code.
    pub channels: BTreeMap<String, u64>,
    /// Hits by bucket.
    pub points: Vec<u64>,
}

/// Who is asked about, by the place of a channel's name.
struct Seen<'s> {
    sees: Option<&'s dyn Fn(&str) -> bool>,
    known: HashMap<u32, bool>,
}

impl Seen<'_> {
    fn sees(&mut self, pairs: &Pairs, channel: u32) -> bool {
        let Some(sees) = self.sees else { return true };
        *self
            .known
            .entry(channel)
            .or_insert_with(|| sees(pairs.channel(channel)))
    }
}

/// See [`super::SqliteReader::shadow`].
pub fn read(
    db: &Connection,
    pairs: &mut Pairs,
    (rule, q): (u64, &SeriesQuery),
    sees: Option<&dyn Fn(&str) -> bool>,
) -> rusqlite::Result<ShadowSums> {
    pairs.catch_up(db)?;
    let mut seen = Seen {
        sees,
        known: HashMap::new(),
    };
    let there = |length: u64, end: u64| -> rusqlite::Result<BTreeSet<u64>> {
        let mut statement = db.prepare_cached(
            "SELECT bucket FROM shadow_packed WHERE step = ?1 AND bucket >= ?2 AND bucket < ?3 AND rule = ?4",
        )?;
        let found = statement.query_map(params![time(length), time(q.from), time(end), bits(rule)], |r| {
            r.get::<_, i64>(0).map(i64::cast_unsigned)
        })?;
        found.collect()
    };
    let mut one = db.prepare_cached(
        "SELECT total, data FROM shadow_packed WHERE step = ?1 AND bucket = ?2 AND rule = ?3",
    )?;
    let mut deeds: BTreeMap<u16, u64> = BTreeMap::new();
    let mut channels: HashMap<u32, u64> = HashMap::new();
    let mut points = vec![0u64; q.buckets()];

    let longest = cover_of(q, 86_400, there)?;
    for (step, bucket) in longest.packed {
        one.query_row(params![time(step), time(bucket), bits(rule)], |r| {
            each_channel(r.get_ref(1)?.as_blob()?, |who, of, hits| {
                let channel = pairs.of(who).map_or(u32::MAX, |pair| pair.channel);
                if seen.sees(pairs, channel) {
                    *deeds.entry(of).or_default() += hits;
                    *channels.entry(channel).or_default() += hits;
                }
            })
            .ok_or_else(damaged)
        })?;
    }
    let details = cover_of(q, q.step, there)?;
    for (step, bucket) in details.packed {
        let hits = one.query_row(params![time(step), time(bucket), bits(rule)], |r| {
            if seen.sees.is_none() {
                return hits_of(r.get_ref(0)?.as_blob()?).ok_or_else(damaged);
            }
            let mut sum = 0;
            each_channel(r.get_ref(1)?.as_blob()?, |who, _, hits| {
                let channel = pairs.of(who).map_or(u32::MAX, |pair| pair.channel);
                sum += if seen.sees(pairs, channel) { hits } else { 0 };
            })
            .ok_or_else(damaged)?;
            Ok(sum)
        })?;
        if let Some(sum) = q.place(bucket).and_then(|at| points.get_mut(at)) {
            *sum += hits;
        }
    }

    // What is packed into days may be more than what is packed into the buckets that are asked for, and the other way round.
    let mut add = |into: (bool, bool), of: &ShadowHits, hits: u64| {
        let channel = pairs.pair(&of.channel, "").channel;
        if !seen.sees(pairs, channel) {
            return;
        }
        if into.0 {
            *deeds.entry(of.deeds).or_default() += hits;
            *channels.entry(channel).or_default() += hits;
        }
        if let Some(sum) = q
            .place(of.bucket)
            .and_then(|at| points.get_mut(at))
            .filter(|_| into.1)
        {
            *sum += hits;
        }
    };
    for (ranges, into) in [(longest.rows, (true, false)), (details.rows, (false, true))] {
        for (from, to) in ranges {
            let range = ShadowQuery { rule, from, to };
            rows(db, &range, &mut |of, hits| add(into, of, hits))?;
        }
    }
    journal(db, |delta| {
        if delta.of.rule == rule && (q.from..q.to).contains(&delta.of.bucket) {
            add((true, true), &delta.of, delta.hits);
        }
    })?;
    let named = |(channel, hits): (u32, u64)| (pairs.channel(channel).to_owned(), hits);
    Ok(ShadowSums {
        deeds,
        channels: channels.into_iter().map(named).collect(),
        points,
    })
}

impl Shadowing {
    /// Removes what need not be kept, and packs until it is late, within a transaction.
    pub fn prune(
        &mut self,
        db: &Connection,
        names: &mut Names,
        keep: &Keep,
        late: Instant,
    ) -> rusqlite::Result<()> {
        db.prepare_cached(
            "DELETE FROM shadow WHERE (rule, bucket, channel, deeds) IN (
                 SELECT rule, bucket, channel, deeds FROM shadow WHERE bucket < ?1 LIMIT ?2)",
        )?
        .execute(params![time(keep.ten_minutes_from), PRUNE_BUCKETS])?;
        self.packing.prune(db, names, keep, late)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deltas_come_back_and_damage_is_seen() {
        let delta = ShadowDelta {
            of: ShadowHits {
                bucket: 1_800_000_000,
                rule: u64::MAX,
                channel: "渠道".into(),
                deeds: 0x8001,
            },
            hits: u64::MAX,
        };
        let mut data = Vec::new();
        put_delta(&mut data, &delta);
        assert_eq!(take_delta(&mut Bytes(&data)).as_ref(), Some(&delta));
        for cut in 0..data.len() {
            assert_eq!(take_delta(&mut Bytes(&data[..cut])), None);
        }
    }

    #[test]
    fn the_journal_counts_until_it_is_in_the_table_and_after_a_restart() {
        let db = Connection::open_in_memory().unwrap();
        db.execute_batch(TABLES).unwrap();
        let of = ShadowHits {
            bucket: 600,
            rule: 7,
            channel: "c".into(),
            deeds: 1,
        };
        let delta = |hits| ShadowDelta { of: of.clone(), hits };
        let sum = |db: &Connection| {
            let mut sum = 0;
            let all = ShadowQuery {
                rule: 7,
                from: 0,
                to: u64::MAX,
            };
            query(db, &all, &mut |_, hits| sum += hits).unwrap();
            sum
        };
        let mut shadowing = Shadowing::load(&db).unwrap();
        shadowing.append(&db, &[delta(2)]).unwrap();
        assert_eq!(sum(&db), 2);
        // Another daemon goes on from the journal.
        let mut shadowing = Shadowing::load(&db).unwrap();
        shadowing.append(&db, &[delta(3)]).unwrap();
        assert_eq!(sum(&db), 5);
        shadowing.fold(&db).unwrap();
        shadowing.append(&db, &[delta(4)]).unwrap();
        assert_eq!(sum(&db), 9);
        shadowing.fold(&db).unwrap();
        shadowing.fold(&db).unwrap();
        assert_eq!(sum(&db), 9);
        let left: i64 = db
            .query_row("SELECT COUNT(*) FROM shadow_journal", [], |r| r.get(0))
            .unwrap();
        assert_eq!(left, 0);
    }
}
