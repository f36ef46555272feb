//! What rules in shadow mode have matched, by rule, ten minutes, channel and what they would have done.
//!
//! As with what deployments serve, a batch appends one row to a journal, readers add the journal to the table, and every few
//! seconds it is added to the table.
//!
//! A row of the journal, of each entry: bucket, rule (8 bytes), deeds, hits, length of the channel code, the code.

use std::collections::BTreeMap;

use rusqlite::{Connection, params};

use super::bytes::{Bytes, put};
use super::pace::Pace;
use super::{PRUNE_BUCKETS, bits, damaged, time};
use crate::ledger::{Keep, ShadowDelta, ShadowHits, ShadowQuery};

/// Made when a file is opened: they were added to this version of the schema later.
pub const TABLES: &str = "CREATE TABLE IF NOT EXISTS shadow (
        rule INTEGER NOT NULL, bucket INTEGER NOT NULL, channel TEXT NOT NULL, deeds INTEGER NOT NULL,
        hits INTEGER NOT NULL, PRIMARY KEY (rule, bucket, channel, deeds)) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS shadow_by_bucket ON shadow (bucket);
    CREATE TABLE IF NOT EXISTS shadow_journal (seq INTEGER PRIMARY KEY, data BLOB NOT NULL);";

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
}

impl Shadowing {
    /// Adds up what is there.
    pub fn load(db: &Connection) -> rusqlite::Result<Shadowing> {
        let mut shadowing = Shadowing {
            pending: BTreeMap::new(),
            pace: Pace::default(),
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

/// See [`crate::ledger::Store::shadows`].
pub fn query(
    db: &Connection,
    q: &ShadowQuery,
    each: &mut dyn FnMut(&ShadowHits, u64),
) -> rusqlite::Result<()> {
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
    journal(db, |delta| {
        if delta.of.rule == q.rule && (q.from..q.to).contains(&delta.of.bucket) {
            each(&delta.of, delta.hits);
        }
    })
}

/// Removes what need not be kept, within a transaction.
pub fn prune(db: &Connection, keep: &Keep) -> rusqlite::Result<()> {
    db.prepare_cached(
        "DELETE FROM shadow WHERE (rule, bucket, channel, deeds) IN (
             SELECT rule, bucket, channel, deeds FROM shadow WHERE bucket < ?1 LIMIT ?2)",
    )?
    .execute(params![time(keep.ten_minutes_from), PRUNE_BUCKETS])?;
    Ok(())
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
