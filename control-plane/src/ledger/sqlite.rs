//! The embedded store: one SQLite file, written by the daemon alone, read by connections of their own.
//!
//! Write-ahead log, so readers never wait for the writer. `synchronous=FULL`: a commit is on the disk before the
//! events it came from are consumed, so that even a power failure costs only what was not booked yet. A batch comes
//! at most a few times a second, so this is a few flushes a second.

use std::path::Path;
use std::sync::Mutex;

use rusqlite::types::Value;
use rusqlite::{Connection, OpenFlags, Row, Transaction, params, params_from_iter};

use super::{
    Batch, BookedRow, COUNTER_NAMES, COUNTERS, Counters, Delta, Keep, Position, RequestQuery, RequestRecord,
    STEPS, Store, StoreError, UsagePoint, UsageQuery,
};

/// Version of the tables below; another one is refused.
const SCHEMA_VERSION: i64 = 1;
/// Lines of the request log that one pruning removes at most, to stay short.
const PRUNE_LINES: i64 = 20_000;

/// The writer.
pub struct SqliteStore {
    db: Connection,
    sql: Statements,
}

/// A reader with its own connection; shared by the API's requests, one at a time.
pub struct SqliteReader {
    db: Mutex<Connection>,
}

struct Statements {
    add_usage: String,
    add_request: String,
}

const REQUEST_COLUMNS: &str = "time_ms, request_id, channel, model, deployment, generation, status, class, source, \
    input_tokens, output_tokens, cached_tokens, reasoning_tokens, estimated_tokens, counted_tokens, debt_tokens, \
    reserved_input, reserved_output, latency_us, first_token_us, flags, limit_key, rule";

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
         CREATE TABLE request (
             id INTEGER PRIMARY KEY AUTOINCREMENT,
             time_ms INTEGER NOT NULL, request_id TEXT NOT NULL, channel TEXT NOT NULL, model TEXT NOT NULL,
             deployment TEXT NOT NULL, generation INTEGER NOT NULL, status INTEGER NOT NULL, class TEXT NOT NULL,
             source TEXT NOT NULL, input_tokens INTEGER NOT NULL, output_tokens INTEGER NOT NULL,
             cached_tokens INTEGER NOT NULL, reasoning_tokens INTEGER NOT NULL, estimated_tokens INTEGER NOT NULL,
             counted_tokens INTEGER NOT NULL, debt_tokens INTEGER NOT NULL, reserved_input INTEGER NOT NULL,
             reserved_output INTEGER NOT NULL, latency_us INTEGER NOT NULL, first_token_us INTEGER,
             flags TEXT NOT NULL, limit_key TEXT NOT NULL, rule TEXT NOT NULL);
         CREATE INDEX request_by_channel ON request (channel, id);
         CREATE INDEX request_by_time ON request (time_ms);
         PRAGMA user_version = {SCHEMA_VERSION};"
    )
}

/// The counters' columns, quoted: some names are words of SQL.
fn counter_columns() -> String {
    format!("\"{}\"", COUNTER_NAMES.join("\", \""))
}

fn statements() -> Statements {
    let names = counter_columns();
    let places: Vec<String> = (5..5 + COUNTERS).map(|i| format!("?{i}")).collect();
    let sums: Vec<String> = COUNTER_NAMES
        .iter()
        .map(|n| format!("\"{n}\" = \"{n}\" + excluded.\"{n}\""))
        .collect();
    let columns = REQUEST_COLUMNS.split(',').count();
    let marks: Vec<&str> = std::iter::repeat_n("?", columns).collect();
    Statements {
        add_usage: format!(
            "INSERT INTO usage (step, bucket, channel, model, {names}) VALUES (?1, ?2, ?3, ?4, {}) \
             ON CONFLICT (step, bucket, channel, model) DO UPDATE SET {}",
            places.join(", "),
            sums.join(", ")
        ),
        add_request: format!(
            "INSERT INTO request ({REQUEST_COLUMNS}) VALUES ({})",
            marks.join(", ")
        ),
    }
}

/// Bit pattern of an unsigned number: SQLite's integers are signed.
fn bits(n: u64) -> i64 {
    n.cast_signed()
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
        db.busy_timeout(std::time::Duration::from_secs(5))
            .map_err(&open)?;
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
                    source: format!("its schema is version {other}, this program uses {SCHEMA_VERSION}")
                        .into(),
                });
            }
        }
        Ok(SqliteStore {
            db,
            sql: statements(),
        })
    }

    fn write(t: &Transaction<'_>, sql: &Statements, batch: &Batch) -> rusqlite::Result<()> {
        let known: Option<i64> = match t.query_row("SELECT id FROM region", [], |r| r.get(0)) {
            Ok(id) => Some(id),
            Err(rusqlite::Error::QueryReturnedNoRows) => None,
            Err(e) => return Err(e),
        };
        if known != Some(bits(batch.region)) {
            t.execute("DELETE FROM position", [])?;
            t.execute("DELETE FROM booked", [])?;
            t.execute(
                "INSERT OR REPLACE INTO region (only, id) VALUES (1, ?1)",
                [bits(batch.region)],
            )?;
        }
        let mut tail = t.prepare_cached("INSERT OR REPLACE INTO position (slot, tail) VALUES (?1, ?2)")?;
        for (slot, position) in &batch.tails {
            tail.execute(params![time(*slot as u64), bits(*position)])?;
        }
        let mut booked = t.prepare_cached(
            "INSERT OR REPLACE INTO booked (row, channel, model, counters) VALUES (?1, ?2, ?3, ?4)",
        )?;
        for row in &batch.rows {
            booked.execute(params![row.row, row.channel, row.model, to_blob(&row.booked)])?;
        }
        let mut usage = t.prepare_cached(&sql.add_usage)?;
        for delta in &batch.deltas {
            for step in STEPS {
                usage.execute(params_from_iter(usage_values(step, delta)))?;
            }
        }
        let mut request = t.prepare_cached(&sql.add_request)?;
        for r in &batch.requests {
            request.execute(params_from_iter(request_values(r)))?;
        }
        Ok(())
    }
}

fn usage_values(step: u64, delta: &Delta) -> impl Iterator<Item = Value> {
    let bucket = delta.minute.checked_div(step).map_or(0, |n| n * step);
    [
        Value::Integer(time(step)),
        Value::Integer(time(bucket)),
        Value::Text(delta.channel.clone()),
        Value::Text(delta.model.clone()),
    ]
    .into_iter()
    .chain(delta.counters.0.map(Value::Integer))
}

fn request_values(r: &RequestRecord) -> [Value; 23] {
    let text = |s: &str| Value::Text(s.to_owned());
    let number = |n: u32| Value::Integer(n.into());
    [
        Value::Integer(time(r.time_ms)),
        text(&r.request_id),
        text(&r.channel),
        text(&r.model),
        text(&r.deployment),
        number(r.generation),
        number(r.status.into()),
        text(&r.class),
        text(&r.source),
        number(r.input_tokens),
        number(r.output_tokens),
        number(r.cached_tokens),
        number(r.reasoning_tokens),
        number(r.estimated_tokens),
        number(r.counted_tokens),
        number(r.debt_tokens),
        number(r.reserved_input),
        number(r.reserved_output),
        number(r.latency_us),
        r.first_token_us.map_or(Value::Null, number),
        text(&r.flags),
        text(&r.limit_key),
        text(&r.rule),
    ]
}

fn read_request(row: &Row<'_>) -> rusqlite::Result<(i64, RequestRecord)> {
    let record = RequestRecord {
        time_ms: row.get::<_, i64>(1)?.cast_unsigned(),
        request_id: row.get(2)?,
        channel: row.get(3)?,
        model: row.get(4)?,
        deployment: row.get(5)?,
        generation: row.get(6)?,
        status: row.get(7)?,
        class: row.get(8)?,
        source: row.get(9)?,
        input_tokens: row.get(10)?,
        output_tokens: row.get(11)?,
        cached_tokens: row.get(12)?,
        reasoning_tokens: row.get(13)?,
        estimated_tokens: row.get(14)?,
        counted_tokens: row.get(15)?,
        debt_tokens: row.get(16)?,
        reserved_input: row.get(17)?,
        reserved_output: row.get(18)?,
        latency_us: row.get(19)?,
        first_token_us: row.get(20)?,
        flags: row.get(21)?,
        limit_key: row.get(22)?,
        rule: row.get(23)?,
    };
    Ok((row.get(0)?, record))
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

fn query_usage(db: &Connection, q: &UsageQuery) -> rusqlite::Result<Vec<UsagePoint>> {
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

fn query_requests(db: &Connection, q: &RequestQuery) -> rusqlite::Result<Vec<(i64, RequestRecord)>> {
    let mut sql = format!("SELECT id, {REQUEST_COLUMNS} FROM request WHERE id < ?");
    let mut values = vec![Value::Integer(q.before.unwrap_or(i64::MAX))];
    for (column, wanted) in [("channel", &q.channel), ("model", &q.model), ("class", &q.class)] {
        if let Some(wanted) = wanted {
            sql.push_str(&format!(" AND {column} = ?"));
            values.push(Value::Text(wanted.clone()));
        }
    }
    sql.push_str(" ORDER BY id DESC LIMIT ?");
    values.push(Value::Integer(time(q.limit as u64)));
    let mut statement = db.prepare_cached(&sql)?;
    statement
        .query_map(params_from_iter(values), read_request)?
        .collect()
}

fn query_position(db: &Connection, region: u64) -> rusqlite::Result<Position> {
    let mut known = db.prepare("SELECT 1 FROM region WHERE id = ?1")?;
    if !known.exists([bits(region)])? {
        return Ok(Position::default());
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
    Ok(Position {
        tails: tails.collect::<Result<_, _>>()?,
        rows: rows.collect::<Result<_, _>>()?,
    })
}

impl Store for SqliteStore {
    fn position(&mut self, region: u64) -> Result<Position, StoreError> {
        query_position(&self.db, region).map_err(fail("read the ledger's position"))
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), StoreError> {
        let commit = fail("write to the ledger");
        let t = self.db.transaction().map_err(&commit)?;
        SqliteStore::write(&t, &self.sql, batch).map_err(&commit)?;
        t.commit().map_err(&commit)
    }

    fn usage(&mut self, query: &UsageQuery) -> Result<Vec<UsagePoint>, StoreError> {
        query_usage(&self.db, query).map_err(fail("read usage"))
    }

    fn requests(&mut self, query: &RequestQuery) -> Result<Vec<(i64, RequestRecord)>, StoreError> {
        query_requests(&self.db, query).map_err(fail("read the request log"))
    }

    fn prune(&mut self, keep: &Keep) -> Result<(), StoreError> {
        let prune = fail("prune the ledger");
        let t = self.db.transaction().map_err(&prune)?;
        for (step, from) in [(60, keep.minutes_from), (600, keep.ten_minutes_from)] {
            t.execute(
                "DELETE FROM usage WHERE step = ?1 AND bucket < ?2",
                params![step, time(from)],
            )
            .map_err(&prune)?;
        }
        t.execute(
            "DELETE FROM request WHERE id IN (SELECT id FROM request WHERE time_ms < ?1 ORDER BY time_ms LIMIT ?2)",
            params![time(keep.requests_from_ms), PRUNE_LINES],
        )
        .map_err(&prune)?;
        t.execute(
            "DELETE FROM request WHERE id IN (
                 SELECT id FROM request WHERE id <= (SELECT MAX(id) FROM request) - ?1 ORDER BY id LIMIT ?2)",
            params![time(keep.requests), PRUNE_LINES],
        )
        .map_err(&prune)?;
        t.commit().map_err(&prune)
    }
}

impl SqliteReader {
    /// Opens an existing ledger for reading.
    pub fn open(path: &Path) -> Result<SqliteReader, StoreError> {
        let open = fail("open the ledger for reading");
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = Connection::open_with_flags(path, flags).map_err(&open)?;
        db.busy_timeout(std::time::Duration::from_secs(5))
            .map_err(&open)?;
        Ok(SqliteReader { db: Mutex::new(db) })
    }

    fn db(&self) -> std::sync::MutexGuard<'_, Connection> {
        // A panic while reading leaves a connection in working order.
        self.db.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// See [`Store::usage`].
    pub fn usage(&self, query: &UsageQuery) -> Result<Vec<UsagePoint>, StoreError> {
        query_usage(&self.db(), query).map_err(fail("read usage"))
    }

    /// See [`Store::requests`].
    pub fn requests(&self, query: &RequestQuery) -> Result<Vec<(i64, RequestRecord)>, StoreError> {
        query_requests(&self.db(), query).map_err(fail("read the request log"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn conforms() {
        super::super::store::conformance::run(|| {
            SqliteStore::with(Connection::open_in_memory().unwrap()).unwrap()
        });
    }

    #[test]
    fn a_failed_batch_leaves_nothing_behind() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.db");
        let mut store = SqliteStore::open(&path).unwrap();
        store
            .db
            .execute_batch(
                "CREATE TRIGGER no BEFORE INSERT ON request BEGIN SELECT RAISE(ABORT, 'full'); END;",
            )
            .unwrap();
        let batch = Batch {
            region: 1,
            tails: vec![(0, 1)],
            rows: vec![BookedRow::default()],
            deltas: vec![Delta {
                minute: 60,
                channel: "c".into(),
                model: "m".into(),
                counters: Counters([1; COUNTERS]),
            }],
            requests: vec![RequestRecord::default()],
        };
        let error = store.commit(&batch).unwrap_err();
        assert!(error.to_string().contains("write to the ledger: full"), "{error}");
        assert_eq!(store.position(1).unwrap(), Position::default());
        store.db.execute_batch("DROP TRIGGER no").unwrap();
        store.commit(&batch).unwrap();
        let reader = SqliteReader::open(&path).unwrap();
        let all = UsageQuery {
            step: 60,
            from: 0,
            to: u64::MAX,
            channel: None,
            model: None,
            limit: 9,
        };
        assert_eq!(reader.usage(&all).unwrap().len(), 1);
        drop(store);
        let mut again = SqliteStore::open(&path).unwrap();
        assert_eq!(again.position(1).unwrap().tails, [(0, 1)]);
    }

    #[test]
    fn a_ledger_of_another_version_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.db");
        drop(SqliteStore::open(&path).unwrap());
        Connection::open(&path)
            .unwrap()
            .pragma_update(None, "user_version", 99)
            .unwrap();
        let error = SqliteStore::open(&path).err().unwrap();
        assert!(error.to_string().contains("version 99"), "{error}");
    }
}
