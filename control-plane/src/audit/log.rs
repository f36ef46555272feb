//! The log itself: a SQLite file that is only ever added to.

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rusqlite::types::Value as Sql;
use rusqlite::{Connection, OptionalExtension, params, params_from_iter};

use super::denials::Denials;
use super::entry::{Entry, GENESIS, Outcome, Row, hash, hex};
use super::head::HeadFile;
use super::verify::{self, Verdict};
use crate::secrets::MasterKey;

/// The columns by which rows are found are computed from the row's text: they cannot say anything else.
const SCHEMA: &str = "
    CREATE TABLE audit (
        seq INTEGER PRIMARY KEY,
        entry TEXT NOT NULL,
        hash BLOB NOT NULL,
        at_ms INTEGER GENERATED ALWAYS AS (entry ->> 'at_ms') VIRTUAL,
        actor TEXT GENERATED ALWAYS AS (entry ->> 'actor') VIRTUAL,
        resource TEXT GENERATED ALWAYS AS (entry ->> 'resource') VIRTUAL,
        action TEXT GENERATED ALWAYS AS (entry ->> 'action') VIRTUAL,
        target TEXT GENERATED ALWAYS AS (entry ->> 'target') VIRTUAL,
        outcome TEXT GENERATED ALWAYS AS (entry ->> 'outcome') VIRTUAL);
    CREATE INDEX audit_by_actor ON audit (actor, seq);
    CREATE INDEX audit_by_target ON audit (resource, target, seq);
    CREATE INDEX audit_by_outcome ON audit (outcome, seq);
    CREATE INDEX audit_by_time ON audit (at_ms);
    CREATE TRIGGER audit_is_not_edited BEFORE UPDATE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit log is only added to'); END;
    CREATE TRIGGER audit_is_not_cut BEFORE DELETE ON audit
        BEGIN SELECT RAISE(ABORT, 'the audit log is only added to'); END;
    PRAGMA user_version = 1;";

/// The audit log cannot be read or written.
#[derive(Debug)]
pub struct AuditError {
    action: &'static str,
    source: Box<dyn std::error::Error + Send + Sync>,
}

impl std::fmt::Display for AuditError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot {}: {}", self.action, self.source)
    }
}
impl std::error::Error for AuditError {}

fn fail<E: Into<Box<dyn std::error::Error + Send + Sync>>>(action: &'static str) -> impl Fn(E) -> AuditError {
    move |source| AuditError {
        action,
        source: source.into(),
    }
}

/// Rows that a search for a text looks at; the next one goes on from where it ended.
const MOST_SEARCHED: u64 = if cfg!(test) { 4 } else { 50_000 };

/// Rows, newest first.
#[derive(Clone, Debug, Default)]
pub struct AuditRows {
    /// Those that were found.
    pub rows: Vec<Row>,
    /// `before` of the next page, which may be there though this one is short; `None` if this is the last one.
    pub next: Option<u64>,
}

/// Which rows, newest first.
#[derive(Clone, Debug, Default)]
pub struct AuditQuery {
    /// Only rows with a lower number: the next page.
    pub before: Option<u64>,
    /// Only of this account.
    pub actor: Option<String>,
    /// Only of this resource.
    pub resource: Option<String>,
    /// Only this action.
    pub action: Option<String>,
    /// Only about this one.
    pub target: Option<String>,
    /// Only with this outcome.
    pub outcome: Option<Outcome>,
    /// Not older, Unix milliseconds.
    pub from_ms: Option<u64>,
    /// Older than this, Unix milliseconds.
    pub to_ms: Option<u64>,
    /// Only with this text somewhere.
    pub search: Option<String>,
    /// At most so many.
    pub limit: usize,
}

struct Open {
    db: Connection,
    rows: u64,
    last: [u8; 32],
    denials: Denials,
}

/// The audit log.
#[derive(Clone)]
pub struct Audit {
    open: Arc<Mutex<Open>>,
    head: Arc<HeadFile>,
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn connect(path: &Path, read_only: bool) -> rusqlite::Result<Connection> {
    use rusqlite::OpenFlags;
    let flags = if read_only {
        OpenFlags::SQLITE_OPEN_READ_ONLY
    } else {
        OpenFlags::default()
    };
    let db = Connection::open_with_flags(path, flags)?;
    db.busy_timeout(Duration::from_secs(5))?;
    Ok(db)
}

impl Audit {
    /// Opens `audit.db` and `audit.head` in a folder, creating them if need be.
    ///
    /// # Errors
    /// If they cannot be used.
    pub fn open(folder: &Path, key: &MasterKey) -> Result<Audit, AuditError> {
        let path = folder.join("audit.db");
        let open = fail::<rusqlite::Error>("open the audit log");
        let db = connect(&path, false).map_err(&open)?;
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(&path, private).map_err(fail("protect the audit log"))?;
        db.pragma_update(None, "journal_mode", "WAL").map_err(&open)?;
        db.pragma_update(None, "synchronous", "FULL").map_err(&open)?;
        let version: i64 = db
            .query_row("PRAGMA user_version", [], |r| r.get(0))
            .map_err(&open)?;
        match version {
            0 => db.execute_batch(SCHEMA).map_err(&open)?,
            1 => {}
            other => {
                let reason = format!("its schema is version {other}, this program uses 1");
                return Err(AuditError {
                    action: "open the audit log",
                    source: reason.into(),
                });
            }
        }
        let last = db
            .query_row("SELECT seq, hash FROM audit ORDER BY seq DESC LIMIT 1", [], |r| {
                Ok((r.get::<_, i64>(0)?.cast_unsigned(), r.get::<_, [u8; 32]>(1)?))
            })
            .optional()
            .map_err(&open)?;
        let (rows, last) = last.unwrap_or((0, GENESIS));
        let audit = Audit {
            open: Arc::new(Mutex::new(Open {
                db,
                rows,
                last,
                denials: Denials::default(),
            })),
            head: Arc::new(HeadFile::new(&folder.join("audit.head"), key)),
        };
        if rows == 0
            && audit.head.read().map_err(fail("read the audit log's head"))? == super::head::Head::Missing
        {
            audit
                .head
                .write(0, &hex(&GENESIS))
                .map_err(fail("write the audit log's head"))?;
        }
        Ok(audit)
    }

    /// Signs the head anew with another key. The daemon must not run.
    ///
    /// # Errors
    /// If the head is of neither key, or cannot be written.
    pub fn rekey(folder: &Path, old: &MasterKey, new: &MasterKey) -> Result<(), AuditError> {
        use super::head::Head;
        let file = |key| HeadFile::new(&folder.join("audit.head"), key);
        let read = |key| file(key).read().map_err(fail("read the audit log's head"));
        match (read(new)?, read(old)?) {
            (Head::Missing | Head::Rows(..), _) | (_, Head::Missing) => Ok(()),
            (Head::Foreign, Head::Rows(rows, hash)) => file(new)
                .write(rows, &hash)
                .map_err(fail("write the audit log's head")),
            (Head::Foreign, Head::Foreign) => Err(AuditError {
                action: "sign the audit log's head anew",
                source: "it is of neither key; see `tollgate audit verify`".into(),
            }),
        }
    }

    fn opened(&self) -> MutexGuard<'_, Open> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a row. It is on the disk when this returns. May block.
    ///
    /// # Errors
    /// If it is not.
    pub fn append(&self, mut entry: Entry) -> Result<u64, AuditError> {
        if entry.at_ms == 0 {
            entry.at_ms = unix_ms();
        }
        let mut open = self.opened();
        self.write(&mut open, &entry)
    }

    fn write(&self, open: &mut Open, entry: &Entry) -> Result<u64, AuditError> {
        let text = serde_json::to_string(entry).map_err(fail("write to the audit log"))?;
        let seq = open.rows + 1;
        let hash = hash(&open.last, seq, &text);
        open.db
            .prepare_cached("INSERT INTO audit (seq, entry, hash) VALUES (?1, ?2, ?3)")
            .and_then(|mut s| s.execute(params![signed(seq), text, hash]))
            .map_err(fail("write to the audit log"))?;
        (open.rows, open.last) = (seq, hash);
        self.head
            .write(seq, &hex(&hash))
            .map_err(fail("write the audit log's head"))?;
        Ok(seq)
    }

    /// Adds a denied try, or counts it if there was one like it within the last minute. May block.
    ///
    /// # Errors
    /// If it could not be written.
    pub fn denied(&self, mut entry: Entry) -> Result<(), AuditError> {
        entry.at_ms = unix_ms();
        entry.outcome = Outcome::Denied;
        let mut open = self.opened();
        self.write_ended(&mut open, entry.at_ms)?;
        match open.denials.take(entry) {
            Some(first) => self.write(&mut open, &first).map(drop),
            None => Ok(()),
        }
    }

    fn write_ended(&self, open: &mut Open, now_ms: u64) -> Result<(), AuditError> {
        for entry in open.denials.ended(now_ms) {
            self.write(
                open,
                &Entry {
                    at_ms: now_ms,
                    ..entry
                },
            )?;
        }
        Ok(())
    }

    /// Writes what was only counted so far and whose minute is over; all of it at the end. May block.
    ///
    /// # Errors
    /// If it could not be written.
    pub fn settle(&self, all: bool) -> Result<(), AuditError> {
        let mut open = self.opened();
        let now = unix_ms();
        self.write_ended(&mut open, if all { u64::MAX } else { now })
    }

    /// Number of rows, and the last one's hash.
    pub fn count(&self) -> (u64, String) {
        let open = self.opened();
        (open.rows, hex(&open.last))
    }

    /// Rows, newest first. May block.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn rows(&self, query: &AuditQuery) -> Result<AuditRows, AuditError> {
        let mut sql = "SELECT seq, entry, hash FROM audit WHERE seq < ?".to_owned();
        let mut values = vec![Sql::Integer(signed(query.before.unwrap_or(u64::MAX)))];
        let outcome = query
            .outcome
            .and_then(|o| serde_json::to_value(o).ok()?.as_str().map(str::to_owned));
        for (column, wanted) in [
            ("actor", &query.actor),
            ("resource", &query.resource),
            ("action", &query.action),
            ("target", &query.target),
            ("outcome", &outcome),
        ] {
            if let Some(wanted) = wanted {
                sql.push_str(&format!(" AND {column} = ?"));
                values.push(Sql::Text(wanted.clone()));
            }
        }
        for (condition, bound) in [
            (" AND at_ms >= ?", query.from_ms),
            (" AND at_ms < ?", query.to_ms),
        ] {
            if let Some(bound) = bound {
                sql.push_str(condition);
                values.push(Sql::Integer(signed(bound)));
            }
        }
        // Nothing finds a text but reading all rows, and nobody writes meanwhile.
        let mut least = 1;
        if let Some(text) = &query.search {
            let before = query.before.unwrap_or(u64::MAX).min(self.count().0 + 1);
            least = before.saturating_sub(MOST_SEARCHED).max(1);
            sql.push_str(" AND seq >= ? AND instr(lower(entry), lower(?)) > 0");
            values.push(Sql::Integer(signed(least)));
            values.push(Sql::Text(text.clone()));
        }
        sql.push_str(" ORDER BY seq DESC LIMIT ?");
        values.push(Sql::Integer(signed(query.limit as u64)));
        let rows = self.select(&sql, values)?;
        let next = match rows.last() {
            Some(last) if rows.len() == query.limit => Some(last.seq),
            _ => Some(least).filter(|least| *least > 1),
        };
        Ok(AuditRows { rows, next })
    }

    /// One row. May block.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn row(&self, seq: u64) -> Result<Option<Row>, AuditError> {
        let sql = "SELECT seq, entry, hash FROM audit WHERE seq = ?";
        Ok(self.select(sql, vec![Sql::Integer(signed(seq))])?.pop())
    }

    fn select(&self, sql: &str, values: Vec<Sql>) -> Result<Vec<Row>, AuditError> {
        let read = fail::<rusqlite::Error>("read the audit log");
        let open = self.opened();
        let mut statement = open.db.prepare_cached(sql).map_err(&read)?;
        let mut rows = statement.query(params_from_iter(values)).map_err(&read)?;
        let mut found = Vec::new();
        while let Some(row) = rows.next().map_err(&read)? {
            let text: String = row.get(1).map_err(&read)?;
            found.push(Row {
                seq: row.get::<_, i64>(0).map_err(&read)?.cast_unsigned(),
                // A row that somebody edited into nonsense is shown as it is: `verify` says what is wrong.
                entry: serde_json::from_str(&text).unwrap_or_else(|_| Entry {
                    reason: "the row is damaged".into(),
                    ..Entry::default()
                }),
                hash: hex(&row.get::<_, Vec<u8>>(2).map_err(&read)?),
            });
        }
        Ok(found)
    }

    /// Follows the chain from its beginning. May block, for a second or two per million rows.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn verify(&self) -> Result<Verdict, AuditError> {
        let head = self.head.read().map_err(fail("read the audit log's head"))?;
        verify::follow(&self.opened().db, &head).map_err(fail("read the audit log"))
    }

    /// Follows the chain of a folder's log that a daemon may be writing to.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn verify_folder(folder: &Path, key: &MasterKey) -> Result<Verdict, AuditError> {
        // The head first: rows may be added meanwhile, but are never fewer than it says.
        let head = HeadFile::new(&folder.join("audit.head"), key);
        let head = head.read().map_err(fail("read the audit log's head"))?;
        let db = connect(&folder.join("audit.db"), true).map_err(fail("open the audit log"))?;
        verify::follow(&db, &head).map_err(fail("read the audit log"))
    }

    #[cfg(test)]
    pub(super) fn opened_for_tests(&self, sql: &str) -> rusqlite::Result<()> {
        self.opened().db.execute_batch(sql)
    }
}
