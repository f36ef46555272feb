//! Records in a SQLite file of their own, beside the ledger.

use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rusqlite::{Connection, OptionalExtension, Row, params};

use super::records::{Expected, Record, Records, RecordsError, Table};
use super::redis::Content;

/// Version of the tables; another one is refused.
const SCHEMA_VERSION: i64 = 1;

const SCHEMA: &str = "
    CREATE TABLE record (
        tab TEXT NOT NULL, key TEXT NOT NULL, version INTEGER NOT NULL, value BLOB NOT NULL, expires_ms INTEGER,
        PRIMARY KEY (tab, key)) WITHOUT ROWID;
    CREATE INDEX record_by_end ON record (expires_ms) WHERE expires_ms IS NOT NULL;
    CREATE TABLE clock (only INTEGER PRIMARY KEY CHECK (only = 1), version INTEGER NOT NULL);
    INSERT INTO clock VALUES (1, 0);
    PRAGMA user_version = 1;";

/// Of which shared records this is a copy. Made when a file is opened: it was added to this version of the schema later.
const LINEAGE: &str = "CREATE TABLE IF NOT EXISTS lineage (
    only INTEGER PRIMARY KEY CHECK (only = 1), id TEXT NOT NULL, clock INTEGER NOT NULL, synced_ms INTEGER NOT NULL);";

/// The embedded store.
pub struct SqliteRecords {
    db: Mutex<Connection>,
    path: PathBuf,
}

/// Of which shared records a file is a copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lineage {
    /// Their lineage.
    pub id: String,
    /// At which of their changes it was taken.
    pub clock: u64,
    /// When it was last known to be a copy, Unix milliseconds.
    pub synced_ms: u64,
}

fn fail(action: &'static str) -> impl Fn(rusqlite::Error) -> RecordsError {
    move |source| RecordsError {
        action,
        source: source.into(),
    }
}

/// SQLite's integers are signed; a time that does not fit is as late as can be.
fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

fn read(row: &Row<'_>) -> rusqlite::Result<Record> {
    Ok(Record {
        key: row.get(0)?,
        version: row.get::<_, i64>(1)?.cast_unsigned(),
        value: row.get(2)?,
        expires_ms: row.get::<_, Option<i64>>(3)?.map(i64::cast_unsigned),
    })
}

impl SqliteRecords {
    /// Opens the file, creating it for its owner alone if need be.
    ///
    /// # Errors
    /// If it cannot be used, or is of another version.
    pub fn open(path: &Path) -> Result<SqliteRecords, RecordsError> {
        let open = fail("open the accounts");
        let db = Connection::open(path).map_err(&open)?;
        // Password hashes are nobody else's business.
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(path, private).map_err(|e| RecordsError {
            action: "protect the accounts",
            source: e.into(),
        })?;
        db.pragma_update(None, "journal_mode", "WAL").map_err(&open)?;
        db.pragma_update(None, "synchronous", "FULL").map_err(&open)?;
        db.busy_timeout(Duration::from_secs(5)).map_err(&open)?;
        let version: i64 = db
            .query_row("PRAGMA user_version", [], |r| r.get(0))
            .map_err(&open)?;
        match version {
            SCHEMA_VERSION => {}
            0 => db.execute_batch(SCHEMA).map_err(fail("create the accounts"))?,
            other => {
                return Err(RecordsError {
                    action: "open the accounts",
                    source: format!("their schema is version {other}, this program uses {SCHEMA_VERSION}")
                        .into(),
                });
            }
        }
        db.execute_batch(LINEAGE).map_err(fail("create the accounts"))?;
        Ok(SqliteRecords {
            db: Mutex::new(db),
            path: path.to_owned(),
        })
    }

    fn db(&self) -> MutexGuard<'_, Connection> {
        // A panic rolls a transaction back and leaves the connection in working order.
        self.db.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// As a copy of records that lie elsewhere.
impl SqliteRecords {
    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn lineage(&self) -> Result<Option<Lineage>, RecordsError> {
        lineage(&self.db()).map_err(fail("read the accounts"))
    }

    /// Notes that the copy still is one.
    pub(super) fn still(&self, now_ms: u64) -> Result<(), RecordsError> {
        self.db()
            .execute("UPDATE lineage SET synced_ms = ?1", [signed(now_ms)])
            .map(drop)
            .map_err(fail("write the accounts"))
    }

    /// Everything that copies have.
    pub(super) fn content(&self) -> Result<Content, RecordsError> {
        let db = self.db();
        let all_of = || {
            let known = lineage(&db)?;
            let own: i64 = db.query_row("SELECT version FROM clock", [], |r| r.get(0))?;
            let mut content = Content {
                clock: known.as_ref().map_or(own.cast_unsigned(), |l| l.clock),
                lineage: known.map(|l| l.id).unwrap_or_default(),
                records: Vec::new(),
            };
            let mut all =
                db.prepare_cached("SELECT key, version, value, expires_ms FROM record WHERE tab = ?1")?;
            for table in Table::KEPT {
                for record in all.query_map([table.name()], read)? {
                    content.records.push((table, record?));
                }
            }
            Ok(content)
        };
        all_of().map_err(fail("read the accounts"))
    }

    /// Makes this a copy of what lies elsewhere.
    pub(super) fn take(&self, content: &Content, now_ms: u64) -> Result<(), RecordsError> {
        let mut db = self.db();
        let mut write = || {
            let t = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            for table in Table::KEPT {
                t.execute("DELETE FROM record WHERE tab = ?1", [table.name()])?;
            }
            for (table, record) in &content.records {
                t.execute(
                    "INSERT INTO record (tab, key, version, value, expires_ms) VALUES (?1, ?2, ?3, ?4, ?5)",
                    params![
                        table.name(),
                        record.key,
                        signed(record.version),
                        record.value,
                        record.expires_ms.map(signed)
                    ],
                )?;
            }
            // What is changed here alone has versions that were never seen.
            t.execute(
                "UPDATE clock SET version = MAX(version, ?1)",
                [signed(content.clock)],
            )?;
            t.execute(
                "INSERT OR REPLACE INTO lineage (only, id, clock, synced_ms) VALUES (1, ?1, ?2, ?3)",
                params![content.lineage, signed(content.clock), signed(now_ms)],
            )?;
            t.commit()
        };
        write().map_err(fail("write the accounts"))
    }

    /// Keeps what there is in another file, before it gives way to something else.
    pub(super) fn keep_beside(&self, path: &Path) -> Result<(), RecordsError> {
        let db = self.db();
        let empty = db.query_row("SELECT NOT EXISTS (SELECT 1 FROM record)", [], |r| r.get(0));
        if empty.map_err(fail("read the accounts"))? {
            return Ok(());
        }
        let protect = |e: std::io::Error| RecordsError {
            action: "keep the former accounts",
            source: e.into(),
        };
        match std::fs::remove_file(path) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(protect(error)),
            _ => {}
        }
        db.execute("VACUUM INTO ?1", [path.to_string_lossy()])
            .map_err(fail("keep the former accounts"))?;
        let private = std::os::unix::fs::PermissionsExt::from_mode(0o600);
        std::fs::set_permissions(path, private).map_err(protect)?;
        tracing::warn!(
            kept = %path.display(),
            "this instance's accounts give way to those that the instances share"
        );
        Ok(())
    }
}

fn lineage(db: &Connection) -> rusqlite::Result<Option<Lineage>> {
    db.query_row("SELECT id, clock, synced_ms FROM lineage", [], |r| {
        Ok(Lineage {
            id: r.get(0)?,
            clock: r.get::<_, i64>(1)?.cast_unsigned(),
            synced_ms: r.get::<_, i64>(2)?.cast_unsigned(),
        })
    })
    .optional()
}

impl Records for SqliteRecords {
    fn get(&self, table: Table, key: &str, now_ms: u64) -> Result<Option<Record>, RecordsError> {
        self.db()
            .prepare_cached(
                "SELECT key, version, value, expires_ms FROM record
                 WHERE tab = ?1 AND key = ?2 AND (expires_ms IS NULL OR expires_ms > ?3)",
            )
            .and_then(|mut s| {
                s.query_row(params![table.name(), key, signed(now_ms)], read)
                    .optional()
            })
            .map_err(fail("read an account's record"))
    }

    fn list(&self, table: Table, now_ms: u64) -> Result<Vec<Record>, RecordsError> {
        let db = self.db();
        let read_all = || {
            let mut statement = db.prepare_cached(
                "SELECT key, version, value, expires_ms FROM record
                 WHERE tab = ?1 AND (expires_ms IS NULL OR expires_ms > ?2) ORDER BY key",
            )?;
            statement
                .query_map(params![table.name(), signed(now_ms)], read)?
                .collect::<rusqlite::Result<Vec<Record>>>()
        };
        read_all().map_err(fail("list the accounts' records"))
    }

    fn put(
        &self,
        table: Table,
        record: &Record,
        expected: Expected,
        now_ms: u64,
    ) -> Result<Option<u64>, RecordsError> {
        let mut db = self.db();
        let mut write = || {
            let t = db.transaction_with_behavior(rusqlite::TransactionBehavior::Immediate)?;
            let present: Option<i64> = t
                .query_row(
                    "SELECT version FROM record
                     WHERE tab = ?1 AND key = ?2 AND (expires_ms IS NULL OR expires_ms > ?3)",
                    params![table.name(), record.key, signed(now_ms)],
                    |r| r.get(0),
                )
                .optional()?;
            let right = match expected {
                Expected::Absent => present.is_none(),
                Expected::Version(version) => present == Some(version.cast_signed()),
                Expected::Anything => true,
            };
            if !right {
                return Ok(None);
            }
            // One clock for all records, so that a key that comes back has a version that was never seen.
            let version: i64 = t.query_row(
                "UPDATE clock SET version = version + 1 RETURNING version",
                [],
                |r| r.get(0),
            )?;
            t.execute(
                "INSERT OR REPLACE INTO record (tab, key, version, value, expires_ms) VALUES (?1, ?2, ?3, ?4, ?5)",
                params![
                    table.name(),
                    record.key,
                    version,
                    record.value,
                    record.expires_ms.map(signed)
                ],
            )?;
            t.commit()?;
            Ok(Some(version.cast_unsigned()))
        };
        write().map_err(fail("write an account's record"))
    }

    fn remove(&self, table: Table, key: &str) -> Result<bool, RecordsError> {
        self.db()
            .execute(
                "DELETE FROM record WHERE tab = ?1 AND key = ?2",
                params![table.name(), key],
            )
            .map(|n| n > 0)
            .map_err(fail("remove an account's record"))
    }

    fn prune(&self, now_ms: u64) -> Result<(), RecordsError> {
        self.db()
            .execute(
                "DELETE FROM record WHERE expires_ms IS NOT NULL AND expires_ms <= ?1",
                [signed(now_ms)],
            )
            .map(drop)
            .map_err(fail("forget expired records"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_keeps_its_content_for_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("accounts.db");
        let record = Record {
            key: "a".into(),
            version: 0,
            value: b"1".to_vec(),
            expires_ms: None,
        };
        let store = SqliteRecords::open(&path).unwrap();
        store.put(Table::Accounts, &record, Expected::Absent, 0).unwrap();
        let again = SqliteRecords::open(&path).unwrap();
        assert_eq!(again.list(Table::Accounts, 0).unwrap().len(), 1);
        let mode = std::os::unix::fs::MetadataExt::mode(&std::fs::metadata(&path).unwrap());
        assert_eq!(mode & 0o777, 0o600);
        again.db().pragma_update(None, "user_version", 9).unwrap();
        drop(again);
        assert!(SqliteRecords::open(&path).is_err());
    }

    #[test]
    fn of_many_writers_one_wins_each_version() {
        let dir = tempfile::tempdir().unwrap();
        let store = SqliteRecords::open(&dir.path().join("accounts.db")).unwrap();
        let add = |store: &SqliteRecords| loop {
            let present = store.get(Table::Throttles, "n", 0).unwrap();
            let (n, expected) = present.map_or((0, Expected::Absent), |r| {
                let n: u64 = String::from_utf8(r.value).unwrap().parse().unwrap();
                (n, Expected::Version(r.version))
            });
            let record = Record {
                key: "n".into(),
                version: 0,
                value: (n + 1).to_string().into_bytes(),
                expires_ms: None,
            };
            if store
                .put(Table::Throttles, &record, expected, 0)
                .unwrap()
                .is_some()
            {
                return;
            }
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..25).for_each(|_| add(&store)));
            }
        });
        assert_eq!(
            store.get(Table::Throttles, "n", 0).unwrap().unwrap().value,
            b"100"
        );
    }
}
