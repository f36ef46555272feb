//! The embedded store: one SQLite file, written by the daemon alone, read by connections of their own.
//!
//! Write-ahead log, so readers never wait for the writer. What a batch says is written in few bytes: usage as a row of
//! the [`journal`], requests in [`block`]s.
//!
//! A commit that is in the write-ahead log survives the daemon, but a power failure only once the log is flushed to
//! the disk. Batches come as often as rings fill, perhaps fifty times a second; flushes come five times a second, and
//! at the latest with the next look at the rings. So a power failure costs no more than it would if the last events
//! had stayed in their rings, which are in memory too.

mod block;
mod bytes;
mod former;
mod journal;
mod log;
mod marks;
mod names;
mod pace;
mod packed;
mod packing;
mod pairs;
mod results;
mod search;
mod series;
mod served;
mod shadows;
#[cfg(test)]
mod tests;

pub use marks::{Changed, Changes, Marking};
pub use search::{RequestPage, RequestSearch};
pub use series::{Ranked, RankedLine, Series, SeriesQuery};
pub use served::{RankedServed, ServedLine};
pub use shadows::ShadowSums;

use std::collections::{BTreeMap, HashMap};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use rusqlite::types::{Type, Value};
use rusqlite::{Connection, OpenFlags, OptionalExtension, Row, Transaction, params, params_from_iter};

use super::{
    Batch, BookedRow, COUNTER_NAMES, Counters, Keep, Position, RequestQuery, RequestRecord, Results,
    ResultsPoint, ResultsQuery, Served, ServedQuery, ShadowHits, ShadowQuery, Store, StoreError, UsagePoint,
    UsageQuery,
};

/// Version of the tables below; another one is refused.
const SCHEMA_VERSION: i64 = 3;
/// Buckets of usage that one pruning removes at most, to stay short.
const PRUNE_BUCKETS: i64 = 2_000;
/// The writer's page cache, as SQLite wants it: negative numbers are KiB.
const CACHE_KIB: i64 = -16_384;
/// How long packing may take at a time.
const PACK: Duration = Duration::from_millis(50);
/// Time between two flushes to the disk.
const FLUSH: Duration = Duration::from_millis(200);

/// The writer.
pub struct SqliteStore {
    db: Connection,
    add_usage: String,
    /// What is known of the file's content; `None` before the first batch and after a failure.
    known: Option<Known>,
    flushed: Instant,
    unflushed: bool,
    /// Whether commits flush.
    synchronous: bool,
    marking: Arc<marks::Marking>,
}

/// A reader with its own connection; shared by the API's requests, one at a time.
pub struct SqliteReader {
    db: Mutex<Connection>,
    pairs: Mutex<pairs::Pairs>,
}

struct Known {
    region: Option<i64>,
    names: names::Names,
    journal: journal::Journal,
    log: log::LogWriter,
    marks: marks::Marks,
    packing: packing::Packing<packed::Usage>,
    serving: served::Serving,
    shadowing: shadows::Shadowing,
}

/// Something in the file is not what this program writes.
fn damaged() -> rusqlite::Error {
    rusqlite::Error::FromSqlConversionFailure(0, Type::Blob, "the file is damaged".into())
}

fn fail(action: &'static str) -> impl Fn(rusqlite::Error) -> StoreError {
    move |source| StoreError {
        action,
        source: source.into(),
    }
}

fn schema() -> String {
    let counters: String = COUNTER_NAMES
        .iter()
        .map(|name| format!("\"{name}\" INTEGER NOT NULL, "))
        .collect();
    format!(
        "CREATE TABLE position (slot INTEGER PRIMARY KEY, tail INTEGER NOT NULL);
         CREATE TABLE region (only INTEGER PRIMARY KEY CHECK (only = 1), id INTEGER NOT NULL);
         CREATE TABLE booked (
             row INTEGER PRIMARY KEY, channel TEXT NOT NULL, model TEXT NOT NULL, counters BLOB NOT NULL);
         CREATE TABLE usage (
             step INTEGER NOT NULL, bucket INTEGER NOT NULL, channel TEXT NOT NULL, model TEXT NOT NULL,
             {counters}
             PRIMARY KEY (step, bucket, channel, model)) WITHOUT ROWID;
         CREATE INDEX usage_by_channel ON usage (channel, step, bucket);
         {} {} {}
         PRAGMA user_version = {SCHEMA_VERSION};",
        names::TABLES,
        journal::TABLE,
        log::TABLES
    )
}

/// The counters' columns, quoted: some names are words of SQL.
fn counter_columns() -> String {
    format!("\"{}\"", COUNTER_NAMES.join("\", \""))
}

/// Bit pattern of an unsigned number: SQLite's integers are signed.
fn bits(n: u64) -> i64 {
    n.cast_signed()
}

/// Removes buckets of a table that is keyed by step, bucket and `of`, those that need not be kept, within a transaction.
fn prune_steps(db: &Connection, table: &str, of: &str, keep: &Keep) -> rusqlite::Result<()> {
    let mut gone = db.prepare_cached(&format!(
        "DELETE FROM {table} WHERE (step, bucket, {of}) IN (
             SELECT step, bucket, {of} FROM {table} WHERE step = ?1 AND bucket < ?2 LIMIT ?3)",
    ))?;
    for (step, from) in [(60, keep.minutes_from), (600, keep.ten_minutes_from)] {
        gone.execute(params![step, time(from), PRUNE_BUCKETS])?;
    }
    Ok(())
}

/// For times, which are compared: what does not fit is as large as can be.
fn time(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn to_blob(counters: &Counters) -> Vec<u8> {
    counters.0.iter().flat_map(|n| n.to_le_bytes()).collect()
}

fn from_blob(bytes: &[u8]) -> Counters {
    let mut counters = Counters::default();
    for (slot, chunk) in counters.0.iter_mut().zip(bytes.as_chunks::<8>().0) {
        *slot = i64::from_le_bytes(*chunk);
    }
    counters
}

impl SqliteStore {
    /// Opens the file, creating it and its tables if need be. A file of another schema version is refused.
    pub fn open(path: &Path) -> Result<SqliteStore, StoreError> {
        let db = Connection::open(path).map_err(fail("open the ledger"))?;
        SqliteStore::with(db)
    }

    fn with(mut db: Connection) -> Result<SqliteStore, StoreError> {
        let open = fail("open the ledger");
        db.pragma_update(None, "journal_mode", "WAL").map_err(&open)?;
        db.pragma_update(None, "synchronous", "FULL").map_err(&open)?;
        db.pragma_update(None, "cache_size", CACHE_KIB).map_err(&open)?;
        db.set_prepared_statement_cache_capacity(64);
        db.busy_timeout(Duration::from_secs(5)).map_err(&open)?;
        let version: i64 = db
            .query_row("PRAGMA user_version", [], |r| r.get(0))
            .map_err(&open)?;
        match version {
            SCHEMA_VERSION => {}
            0 => {
                let t = db.transaction().map_err(&open)?;
                t.execute_batch(&schema())
                    .map_err(fail("create the ledger's tables"))?;
                t.commit().map_err(fail("create the ledger's tables"))?;
            }
            other => {
                return Err(StoreError {
                    action: "open the ledger",
                    source: format!(
                        "its schema is version {other}, this program uses {SCHEMA_VERSION}; move the file away to \
                         begin a new one"
                    )
                    .into(),
                });
            }
        }
        db.execute_batch(&format!(
            "{} {} {} {} {} {} {} {}",
            names::GROUPS_TABLE,
            names::SERVED_TABLE,
            served::TABLES,
            shadows::TABLES,
            results::TABLE,
            marks::TABLES,
            packed::TABLE,
            former::TABLES
        ))
        .map_err(fail("create the ledger's tables"))?;
        let id = getrandom::u64().map_err(|e| StoreError {
            action: "give the ledger a number",
            source: std::io::Error::other(e.to_string()).into(),
        })?;
        marks::open(&db, id).map_err(&open)?;
        Ok(SqliteStore {
            db,
            add_usage: journal::add_usage(),
            known: None,
            flushed: Instant::now(),
            unflushed: true,
            synchronous: true,
            marking: Arc::default(),
        })
    }

    /// What whoever keeps a copy of usage tells this writer.
    pub fn marking(&self) -> Arc<marks::Marking> {
        Arc::clone(&self.marking)
    }

    /// Does something in a transaction. After a failure nothing of it has taken effect, and what is known is read
    /// anew.
    fn transact(
        &mut self,
        flush: bool,
        work: impl FnOnce(&Transaction<'_>, &mut Known, &str) -> rusqlite::Result<()>,
    ) -> rusqlite::Result<()> {
        let flush = flush || self.flushed.elapsed() >= FLUSH;
        if flush != self.synchronous {
            let mode = if flush { "FULL" } else { "NORMAL" };
            self.db.pragma_update(None, "synchronous", mode)?;
            self.synchronous = flush;
        }
        let t = self.db.transaction()?;
        let mut known = match self.known.take() {
            Some(known) => known,
            None => Known::load(&t, &self.marking)?,
        };
        work(&t, &mut known, &self.add_usage)?;
        t.commit()?;
        self.known = Some(known);
        self.unflushed = !flush;
        if flush {
            self.flushed = Instant::now();
        }
        Ok(())
    }
}

impl Known {
    fn load(db: &Connection, marking: &Arc<marks::Marking>) -> rusqlite::Result<Known> {
        let region = db
            .query_row("SELECT id FROM region", [], |r| r.get(0))
            .optional()?;
        Ok(Known {
            region,
            names: names::Names::default(),
            journal: journal::Journal::load(db, region)?,
            log: log::LogWriter::default(),
            marks: marks::Marks::load(db, Arc::clone(marking))?,
            packing: packing::Packing::load(db)?,
            serving: served::Serving::load(db)?,
            shadowing: shadows::Shadowing::load(db)?,
        })
    }

    fn write(&mut self, t: &Transaction<'_>, add_usage: &str, batch: &Batch) -> rusqlite::Result<()> {
        let region = bits(batch.region);
        if self.region != Some(region) {
            if let Some(former) = self.region {
                let left = query_position(t, former.cast_unsigned())?;
                former::put_aside(t, former, &left)?;
            }
            t.execute("DELETE FROM position", [])?;
            t.execute("DELETE FROM booked", [])?;
            former::take_back(t, region)?;
            t.execute(
                "INSERT OR REPLACE INTO region (only, id) VALUES (1, ?1)",
                [region],
            )?;
            self.journal.forget_booked();
            self.region = Some(region);
        }
        let mut tail = t.prepare_cached("INSERT OR REPLACE INTO position (slot, tail) VALUES (?1, ?2)")?;
        for (slot, position) in &batch.tails {
            tail.execute(params![time(*slot as u64), bits(*position)])?;
        }
        self.journal.append(t, &mut self.names, region, batch)?;
        self.log.append(t, &mut self.names, &batch.requests)?;
        results::add(t, &mut self.names, &batch.groups)?;
        self.serving.fold(t)?;
        self.serving.append(t, &mut self.names, &batch.served)?;
        self.shadowing.fold(t)?;
        self.shadowing.append(t, &batch.shadows)?;
        let leaving = self.journal.is_folding();
        self.marks.note(t, &mut self.names, batch, leaving)?;
        self.journal
            .fold(t, &mut self.names, region, add_usage, &mut self.packing)
    }
}

fn read_usage(row: &Row<'_>) -> rusqlite::Result<UsagePoint> {
    let mut counters = Counters::default();
    for (i, slot) in counters.0.iter_mut().enumerate() {
        *slot = row.get(3 + i)?;
    }
    Ok(UsagePoint {
        bucket: row.get::<_, i64>(0)?.cast_unsigned(),
        channel: row.get(1)?,
        model: row.get(2)?,
        counters,
    })
}

/// Usage in the tables, and that in the journal added to it.
fn query_usage(db: &Connection, q: &UsageQuery) -> rusqlite::Result<Vec<UsagePoint>> {
    let mut points = BTreeMap::new();
    for point in query_buckets(db, q)? {
        points.insert((point.bucket, point.channel, point.model), point.counters);
    }
    let mut pending: HashMap<(u64, u32), Counters> = HashMap::new();
    let wanted = names::wanted(db, q.channel.as_deref(), q.model.as_deref())?;
    journal::read(db, |_, entry| {
        for (minute, who, counters) in entry.deltas {
            let bucket = journal::bucket(q.step, minute);
            if (q.from..q.to).contains(&bucket) && wanted.as_ref().is_none_or(|ids| ids.contains(&who)) {
                let sum = pending.entry((bucket, who)).or_default();
                *sum = sum.plus(&counters);
            }
        }
    })?;
    // The tables gave their first points only: what they hold of a later one is not known, but that one is beyond the
    // limit anyway.
    for ((bucket, who), counters) in pending {
        let (channel, model) = names::name(db, who)?;
        let sum = points.entry((bucket, channel, model)).or_default();
        *sum = sum.plus(&counters);
    }
    let point = |((bucket, channel, model), counters)| UsagePoint {
        bucket,
        channel,
        model,
        counters,
    };
    Ok(points.into_iter().map(point).take(q.limit).collect())
}

fn query_buckets(db: &Connection, q: &UsageQuery) -> rusqlite::Result<Vec<UsagePoint>> {
    let names = counter_columns();
    let mut sql = format!(
        "SELECT bucket, channel, model, {names} FROM usage WHERE step = ? AND bucket >= ? AND bucket < ?"
    );
    let mut values = vec![
        Value::Integer(time(q.step)),
        Value::Integer(time(q.from)),
        Value::Integer(time(q.to)),
    ];
    for (column, wanted) in [("channel", &q.channel), ("model", &q.model)] {
        if let Some(wanted) = wanted {
            sql.push_str(&format!(" AND {column} = ?"));
            values.push(Value::Text(wanted.clone()));
        }
    }
    sql.push_str(" ORDER BY bucket, channel, model LIMIT ?");
    values.push(Value::Integer(time(q.limit as u64)));
    let mut statement = db.prepare_cached(&sql)?;
    statement
        .query_map(params_from_iter(values), read_usage)?
        .collect()
}

fn query_position(db: &Connection, region: u64) -> rusqlite::Result<Position> {
    let mut known = db.prepare("SELECT 1 FROM region WHERE id = ?1")?;
    if !known.exists([bits(region)])? {
        return former::find(db, bits(region));
    }
    let mut tails = db.prepare("SELECT slot, tail FROM position")?;
    let tails = tails.query_map([], |r| {
        let slot: u32 = r.get(0)?;
        Ok((slot as usize, r.get::<_, i64>(1)?.cast_unsigned()))
    })?;
    let mut rows = db.prepare("SELECT row, channel, model, counters FROM booked")?;
    let rows = rows.query_map([], |r| {
        Ok(BookedRow {
            row: r.get(0)?,
            channel: r.get(1)?,
            model: r.get(2)?,
            booked: from_blob(r.get_ref(3)?.as_blob()?),
        })
    })?;
    let mut sums: BTreeMap<u32, BookedRow> = rows
        .map(|row| row.map(|row| (row.row, row)))
        .collect::<Result<_, _>>()?;
    let mut latest = HashMap::new();
    journal::read(db, |of, entry| {
        if of == bits(region) {
            latest.extend(
                entry
                    .booked
                    .into_iter()
                    .map(|(row, who, counters)| (row, (who, counters))),
            );
        }
    })?;
    for (row, (who, booked)) in latest {
        let (channel, model) = names::name(db, who)?;
        let sum = BookedRow {
            row,
            channel,
            model,
            booked,
        };
        sums.insert(row, sum);
    }
    Ok(Position {
        tails: tails.collect::<Result<_, _>>()?,
        rows: sums.into_values().collect(),
    })
}

impl Store for SqliteStore {
    fn position(&mut self, region: u64) -> Result<Position, StoreError> {
        query_position(&self.db, region).map_err(fail("read the ledger's position"))
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), StoreError> {
        self.transact(false, |t, known, add_usage| known.write(t, add_usage, batch))
            .map_err(fail("write to the ledger"))
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        if !self.unflushed {
            return Ok(());
        }
        // A commit flushes all before it, and there is none without a change.
        self.transact(true, |t, _, _| {
            t.execute("UPDATE request_log SET kept = kept", []).map(drop)
        })
        .map_err(fail("flush the ledger"))
    }

    fn usage(&mut self, query: &UsageQuery) -> Result<Vec<UsagePoint>, StoreError> {
        query_usage(&self.db, query).map_err(fail("read usage"))
    }

    fn results(&mut self, query: &ResultsQuery) -> Result<Vec<ResultsPoint>, StoreError> {
        results::query(&self.db, query).map_err(fail("read results"))
    }

    fn served(
        &mut self,
        query: &ServedQuery,
        each: &mut dyn FnMut(u64, &Served, &Results),
    ) -> Result<(), StoreError> {
        served::query(&self.db, query, each).map_err(fail("read what deployments served"))
    }

    fn shadows(
        &mut self,
        query: &ShadowQuery,
        each: &mut dyn FnMut(&ShadowHits, u64),
    ) -> Result<(), StoreError> {
        shadows::query(&self.db, query, each).map_err(fail("read what shadow rules matched"))
    }

    fn requests(&mut self, query: &RequestQuery) -> Result<Vec<(i64, RequestRecord)>, StoreError> {
        log::query(&self.db, query).map_err(fail("read the request log"))
    }

    fn prune(&mut self, keep: &Keep) -> Result<(), StoreError> {
        self.transact(false, |t, known, add_usage| {
            known.marks.prune(t, keep.now)?;
            // Where nothing comes any more, this is what folds the rest.
            if let Some(region) = known.region {
                let Known {
                    journal,
                    names,
                    packing,
                    ..
                } = &mut *known;
                journal.fold(t, names, region, add_usage, packing)?;
            }
            prune_steps(t, "usage", "channel, model", keep)?;
            results::prune(t, keep)?;
            let late = Instant::now() + PACK;
            known.packing.prune(t, &mut known.names, keep, late)?;
            known.serving.fold(t)?;
            known.serving.prune(t, &mut known.names, keep, late)?;
            known.shadowing.fold(t)?;
            known.shadowing.prune(t, &mut known.names, keep, late)?;
            log::prune(t, keep.requests_from_ms, keep.requests)
        })
        .map_err(fail("prune the ledger"))
    }
}

/// Reads the tables and the journal as they are at one moment.
fn at_once<T>(db: &Connection, read: impl FnOnce(&Connection) -> rusqlite::Result<T>) -> rusqlite::Result<T> {
    let t = db.unchecked_transaction()?;
    let result = read(&t)?;
    t.commit()?;
    Ok(result)
}

impl SqliteReader {
    /// Opens an existing ledger for reading.
    pub fn open(path: &Path) -> Result<SqliteReader, StoreError> {
        let open = fail("open the ledger for reading");
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(path, flags).map_err(&open)?;
        db.busy_timeout(Duration::from_secs(5)).map_err(&open)?;
        Ok(SqliteReader {
            db: Mutex::new(db),
            pairs: Mutex::default(),
        })
    }

    fn db(&self) -> std::sync::MutexGuard<'_, Connection> {
        // A panic while reading leaves a connection in working order.
        self.db.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// See [`Store::usage`].
    pub fn usage(&self, query: &UsageQuery) -> Result<Vec<UsagePoint>, StoreError> {
        at_once(&self.db(), |db| query_usage(db, query)).map_err(fail("read usage"))
    }

    /// See [`Store::results`].
    pub fn results(&self, query: &ResultsQuery) -> Result<Vec<ResultsPoint>, StoreError> {
        at_once(&self.db(), |db| results::query(db, query)).map_err(fail("read results"))
    }

    /// What deployments have served over time, apart by deployment or version: the `top` with the most requests, and all
    /// others as one. Of the query, the model counts and no channel.
    pub fn served(
        &self,
        query: &SeriesQuery,
        by_version: bool,
        top: usize,
    ) -> Result<RankedServed, StoreError> {
        at_once(&self.db(), |db| served::read(db, query, by_version, top))
            .map_err(fail("read what deployments served"))
    }

    /// What a rule in shadow mode, by the hash of its name, has matched over time, of channels that `sees` accepts. Of the query,
    /// only the times count.
    pub fn shadow(
        &self,
        rule: u64,
        query: &SeriesQuery,
        sees: Option<&dyn Fn(&str) -> bool>,
    ) -> Result<ShadowSums, StoreError> {
        let mut pairs = self.pairs();
        at_once(&self.db(), |db| {
            shadows::read(db, &mut pairs, (rule, query), sees)
        })
        .map_err(fail("read what shadow rules matched"))
    }

    fn pairs(&self) -> std::sync::MutexGuard<'_, pairs::Pairs> {
        self.pairs
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Usage over time, summed up: the `top` with the most requests, and all others as one. Of channels that `sees` accepts.
    pub fn series(
        &self,
        query: &SeriesQuery,
        top: usize,
        sees: Option<&dyn Fn(&str) -> bool>,
    ) -> Result<Ranked, StoreError> {
        let mut pairs = self.pairs();
        at_once(&self.db(), |db| series::read(db, &mut pairs, query, top, sees)).map_err(fail("read usage"))
    }

    /// This ledger's number among those whose usage is added up.
    pub fn origin(&self) -> Result<u64, StoreError> {
        at_once(&self.db(), marks::origin).map_err(fail("read the ledger's number"))
    }

    /// The number that marks of changes have come to, and the one below which they are not complete.
    pub fn reach(&self) -> Result<(u64, u64), StoreError> {
        at_once(&self.db(), marks::reach).map_err(fail("read what has changed"))
    }

    /// Minutes of a channel × model that a copy lacks which stands at a number.
    pub fn lacking(&self, after: u64) -> Result<u64, StoreError> {
        at_once(&self.db(), |db| marks::count(db, after)).map_err(fail("read what has changed"))
    }

    /// What a copy lacks which stands at a number, about `most` minutes of it; `None` if it needs everything.
    pub fn changes(&self, after: u64, most: usize) -> Result<Option<Changes>, StoreError> {
        at_once(&self.db(), |db| marks::changes(db, after, most)).map_err(fail("read what has changed"))
    }

    /// A page of one step's usage for a copy that needs everything: buckets that begin at `from` or later, after the last
    /// point of the page before. What has not come into the tables yet is among the changes.
    pub fn page(
        &self,
        step: u64,
        from: u64,
        after: Option<&UsagePoint>,
        most: usize,
    ) -> Result<Vec<UsagePoint>, StoreError> {
        at_once(&self.db(), |db| marks::page(db, step, from, after, most)).map_err(fail("read usage"))
    }

    /// A page of the request log, of channels that `sees` accepts.
    pub fn search(
        &self,
        query: &RequestSearch,
        sees: Option<&dyn Fn(&str) -> bool>,
    ) -> Result<RequestPage, StoreError> {
        at_once(&self.db(), |db| search::search(db, query, sees)).map_err(fail("read the request log"))
    }

    /// See [`Store::requests`].
    pub fn requests(&self, query: &RequestQuery) -> Result<Vec<(i64, RequestRecord)>, StoreError> {
        at_once(&self.db(), |db| log::query(db, query)).map_err(fail("read the request log"))
    }
}
