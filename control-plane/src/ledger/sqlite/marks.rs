//! What has changed since when: whoever keeps a copy of usage elsewhere (`crate::shared`) finds what the copy lacks.
//!
//! A minute of a channel × model whose usage changes gets a mark with a number that only grows. A reader takes the marks above
//! the number that its copy stands at, and the values they name, at one moment of the file. Values are sums and not
//! differences, so that to copy one twice changes nothing.
//!
//! Marks are kept in memory for a second before they are written, because a batch must stay cheap. None is lost: they are
//! written before the journal's row that they come from can go, and made anew from the journal when the file is opened.
//! Marks that are copied go after a while; `floor` is the number below which they are not complete. A copy that stands
//! lower needs the tables as a whole.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::time::{Duration, Instant};

use rusqlite::{Connection, params};

use super::names::Names;
use super::{UsagePoint, bits, counter_columns, journal, names, read_usage, time};
use crate::ledger::{Batch, Counters, STEPS};

/// Made when a file is opened: they were added to this version of the schema later.
pub const TABLES: &str = "CREATE TABLE IF NOT EXISTS mark (
        minute INTEGER NOT NULL, who INTEGER NOT NULL, seq INTEGER NOT NULL, PRIMARY KEY (minute, who)) WITHOUT ROWID;
    CREATE INDEX IF NOT EXISTS mark_by_seq ON mark (seq);
    CREATE TABLE IF NOT EXISTS origin (
        only INTEGER PRIMARY KEY CHECK (only = 1), id INTEGER NOT NULL, seq INTEGER NOT NULL, floor INTEGER NOT NULL);";

/// Time between two writings of marks.
const EVERY: Duration = Duration::from_secs(1);
/// Copied marks of minutes that began before that are removed, seconds.
const KEPT: u64 = 3_600;

/// What the writer and the keeper of a copy tell each other.
#[derive(Debug, Default)]
pub struct Marking {
    /// Whether there is a copy to be kept.
    wanted: AtomicBool,
    /// Everything up to this number is in the copy.
    copied: AtomicU64,
}

impl Marking {
    /// Says whether marks are wanted. While they are not, what changes is found only by reading all of it.
    pub fn want(&self, wanted: bool) {
        self.wanted.store(wanted, Relaxed);
    }

    /// The number that the copy was last said to have reached.
    pub fn last_copied(&self) -> u64 {
        self.copied.load(Relaxed)
    }

    /// Says that the copy has everything up to a number.
    pub fn copied(&self, seq: u64) {
        self.copied.store(seq, Relaxed);
    }
}

/// A value for the copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changed {
    /// Number of its latest change; 0 if it was read for other reasons.
    pub seq: u64,
    /// Which of [`STEPS`] its bucket is of.
    pub step: u64,
    /// All of that bucket.
    pub point: UsagePoint,
}

/// What a copy lacks.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// A copy with these values stands at this number.
    pub through: u64,
    /// The values.
    pub values: Vec<Changed>,
}

/// The writer's part.
pub struct Marks {
    shared: Arc<Marking>,
    fresh: HashSet<(u64, u32)>,
    seq: i64,
    /// Marks are wanted, and those above the floor are complete.
    complete: bool,
    /// They are not wanted, and the file says that they are not complete.
    said: bool,
    written: Instant,
}

/// Gives the ledger this number among those whose usage is added up, if it has none.
pub fn open(db: &Connection, id: u64) -> rusqlite::Result<()> {
    // What was there before the marks can only be found as a whole: the floor is above 0.
    db.execute(
        "INSERT OR IGNORE INTO origin (only, id, seq, floor) VALUES (1, ?1, 1, 1)",
        [bits(id)],
    )
    .map(drop)
}

impl Marks {
    /// Goes on where the file was left.
    pub fn load(db: &Connection, shared: Arc<Marking>) -> rusqlite::Result<Marks> {
        let seq = db.query_row("SELECT seq FROM origin", [], |r| r.get(0))?;
        Ok(Marks {
            shared,
            fresh: of_journal(db)?,
            seq,
            complete: true,
            said: false,
            written: Instant::now(),
        })
    }

    /// Notes what a batch changes, within its transaction. `leaving`: rows of the journal may go with it.
    pub fn note(
        &mut self,
        db: &Connection,
        names: &mut Names,
        batch: &Batch,
        leaving: bool,
    ) -> rusqlite::Result<()> {
        if !self.shared.wanted.load(Relaxed) {
            return self.skip(db, batch.deltas.is_empty());
        }
        self.begin(db)?;
        for delta in &batch.deltas {
            let who = names.who(db, &delta.channel, &delta.model)?;
            self.fresh.insert((delta.minute, who));
        }
        if leaving || self.written.elapsed() >= EVERY {
            self.write(db)?;
        }
        Ok(())
    }

    /// Marks are wanted. If they were not until now, what is in the tables is copied as a whole; but not all is there yet.
    fn begin(&mut self, db: &Connection) -> rusqlite::Result<()> {
        if !self.complete {
            (self.complete, self.said) = (true, false);
            self.raise_floor(db)?;
            self.fresh = of_journal(db)?;
        }
        Ok(())
    }

    /// Nobody wants marks: once, the file is told that they are not complete.
    fn skip(&mut self, db: &Connection, nothing: bool) -> rusqlite::Result<()> {
        self.fresh.clear();
        self.complete = false;
        if !self.said && !nothing {
            self.said = true;
            self.raise_floor(db)?;
        }
        Ok(())
    }

    fn raise_floor(&mut self, db: &Connection) -> rusqlite::Result<()> {
        self.seq += 1;
        db.execute("UPDATE origin SET seq = ?1, floor = ?1", [self.seq])
            .map(drop)
    }

    fn write(&mut self, db: &Connection) -> rusqlite::Result<()> {
        self.written = Instant::now();
        if self.fresh.is_empty() {
            return Ok(());
        }
        self.seq += 1;
        let mut mark =
            db.prepare_cached("INSERT OR REPLACE INTO mark (minute, who, seq) VALUES (?1, ?2, ?3)")?;
        for (minute, who) in self.fresh.drain() {
            mark.execute(params![time(minute), who, self.seq])?;
        }
        db.prepare_cached("UPDATE origin SET seq = ?1")?
            .execute([self.seq])
            .map(drop)
    }

    /// Writes what waits, and removes marks that nobody needs any more, within a transaction.
    pub fn prune(&mut self, db: &Connection, now: u64) -> rusqlite::Result<()> {
        if !self.shared.wanted.load(Relaxed) {
            return Ok(());
        }
        self.begin(db)?;
        self.write(db)?;
        let gone = params![
            time(self.shared.copied.load(Relaxed)),
            time(now.saturating_sub(KEPT))
        ];
        let highest: Option<i64> = db
            .prepare_cached("SELECT MAX(seq) FROM mark WHERE seq <= ?1 AND minute < ?2")?
            .query_row(gone, |r| r.get(0))?;
        if let Some(highest) = highest {
            db.prepare_cached("DELETE FROM mark WHERE seq <= ?1 AND minute < ?2")?
                .execute(gone)?;
            db.prepare_cached("UPDATE origin SET floor = MAX(floor, ?1)")?
                .execute([highest])?;
        }
        Ok(())
    }
}

/// All that the journal changes.
fn of_journal(db: &Connection) -> rusqlite::Result<HashSet<(u64, u32)>> {
    let mut all = HashSet::new();
    journal::read(db, |_, entry| {
        all.extend(entry.deltas.iter().map(|(minute, who, _)| (*minute, *who)));
    })?;
    Ok(all)
}

/// The ledger's number among those whose usage is added up.
pub fn origin(db: &Connection) -> rusqlite::Result<u64> {
    db.query_row("SELECT id FROM origin", [], |r| r.get::<_, i64>(0))
        .map(i64::cast_unsigned)
}

/// The number that marks have come to, and the one below which they are not complete.
pub fn reach(db: &Connection) -> rusqlite::Result<(u64, u64)> {
    db.prepare_cached("SELECT seq, floor FROM origin")?
        .query_row([], |r| {
            Ok((
                r.get::<_, i64>(0)?.cast_unsigned(),
                r.get::<_, i64>(1)?.cast_unsigned(),
            ))
        })
}

/// Marks that a copy lacks which stands at a number.
pub fn count(db: &Connection, after: u64) -> rusqlite::Result<u64> {
    db.prepare_cached("SELECT COUNT(*) FROM mark WHERE seq > ?1")?
        .query_row([time(after)], |r| r.get::<_, i64>(0))
        .map(i64::cast_unsigned)
}

/// What a copy lacks which stands at a number; a part of it if that is about `most` minutes or more. `None`: marks do not
/// reach back so far.
pub fn changes(db: &Connection, after: u64, most: usize) -> rusqlite::Result<Option<Changes>> {
    let (seq, floor) = reach(db)?;
    if after < floor {
        return Ok(None);
    }
    let mut wanted: BTreeMap<(u32, u64, u64), u64> = BTreeMap::new();
    let (mut through, mut taken) = (after, 0);
    let mut statement = db.prepare_cached("SELECT seq, minute, who FROM mark WHERE seq > ?1 ORDER BY seq")?;
    let mut rows = statement.query([time(after)])?;
    let mut whole = true;
    while let Some(row) = rows.next()? {
        let (seq, minute) = (
            row.get::<_, i64>(0)?.cast_unsigned(),
            row.get::<_, i64>(1)?.cast_unsigned(),
        );
        // Marks of one number belong together.
        if seq != through && taken >= most {
            whole = false;
            break;
        }
        (through, taken) = (seq, taken + 1);
        let who = row.get(2)?;
        for step in STEPS {
            wanted.insert((who, step, journal::bucket(step, minute)), seq);
        }
    }
    if whole {
        through = seq;
    }
    if wanted.is_empty() {
        return Ok(Some(Changes {
            through,
            values: Vec::new(),
        }));
    }
    let mut sums: BTreeMap<(u32, u64, u64), Counters> =
        wanted.keys().map(|key| (*key, Counters::default())).collect();
    add_journal(db, &mut sums)?;
    let columns = counter_columns();
    let mut stored = db.prepare_cached(&format!(
        "SELECT bucket, channel, model, {columns} FROM usage
         WHERE step = ?1 AND bucket = ?2 AND channel = ?3 AND model = ?4"
    ))?;
    let mut values = Vec::with_capacity(wanted.len());
    let mut known: Option<(u32, (String, String))> = None;
    for ((who, step, bucket), seq) in wanted {
        if known.as_ref().is_none_or(|(id, _)| *id != who) {
            known = Some((who, names::name(db, who)?));
        }
        let Some((_, (channel, model))) = &known else {
            continue;
        };
        let mut counters = sums.get(&(who, step, bucket)).copied().unwrap_or_default();
        let mut rows = stored.query(params![time(step), time(bucket), channel, model])?;
        if let Some(row) = rows.next()? {
            counters = counters.plus(&read_usage(row)?.counters);
        }
        values.push(Changed {
            seq,
            step,
            point: UsagePoint {
                bucket,
                channel: channel.clone(),
                model: model.clone(),
                counters,
            },
        });
    }
    Ok(Some(Changes { through, values }))
}

/// Adds to sums by who, step and bucket what the journal has of them.
fn add_journal(db: &Connection, sums: &mut BTreeMap<(u32, u64, u64), Counters>) -> rusqlite::Result<()> {
    journal::read(db, |_, entry| {
        for (minute, who, counters) in &entry.deltas {
            for step in STEPS {
                if let Some(sum) = sums.get_mut(&(*who, step, journal::bucket(step, *minute))) {
                    *sum = sum.plus(counters);
                }
            }
        }
    })
}

/// A page of one step's table: buckets that begin at `from` or later, after the last point of the page before. What the
/// journal has beside the table's rows stands in marks.
pub fn page(
    db: &Connection,
    step: u64,
    from: u64,
    after: Option<&UsagePoint>,
    most: usize,
) -> rusqlite::Result<Vec<UsagePoint>> {
    let columns = counter_columns();
    let mut statement = db.prepare_cached(&format!(
        "SELECT bucket, channel, model, {columns} FROM usage
         WHERE step = ?1 AND (bucket, channel, model) > (?2, ?3, ?4) ORDER BY bucket, channel, model LIMIT ?5"
    ))?;
    let (bucket, channel, model) = match after {
        Some(point) => (time(point.bucket), &*point.channel, &*point.model),
        // No name is empty, but a bucket may be the first.
        None => (time(from) - 1, "\u{10ffff}", ""),
    };
    let mut points = statement
        .query_map(
            params![time(step), bucket, channel, model, time(most as u64)],
            read_usage,
        )?
        .collect::<rusqlite::Result<Vec<_>>>()?;
    let mut keys = Vec::with_capacity(points.len());
    let mut id = db.prepare_cached("SELECT id FROM who WHERE channel = ?1 AND model = ?2")?;
    for point in &points {
        let who: Option<u32> = id
            .query(params![point.channel, point.model])?
            .next()?
            .map(|row| row.get(0))
            .transpose()?;
        keys.push(who.map(|who| (who, step, point.bucket)));
    }
    let mut sums = keys
        .iter()
        .flatten()
        .map(|key| (*key, Counters::default()))
        .collect();
    add_journal(db, &mut sums)?;
    for (point, key) in points.iter_mut().zip(keys) {
        if let Some(sum) = key.and_then(|key| sums.get(&key)) {
            point.counters = point.counters.plus(sum);
        }
    }
    Ok(points)
}
