//! The records that instances share: in Redis, with a copy in each instance's own file.
//!
//! Redis is asked at each call, so a change counts everywhere at once. The copy is taken every few seconds and after each change. It
//! serves while Redis does not answer: who could sign in can sign in, for an hour; sessions that begin then are this instance's
//! alone, and failures are counted by each. What would have to be told to the others (accounts, roles, tokens) cannot be changed then.
//!
//! The records of Redis have a *lineage*, made when they are first put there, and a *clock* that counts their changes. A copy of the
//! same lineage with a later clock knows what Redis has lost, and takes its place; of several the latest wins. An instance with another lineage
//! joins: its own records give way, and are kept in a file beside.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::runtime::Handle;
use tokio::sync::{Notify, watch};

use super::records::{Expected, Record, Records, RecordsError, Table};
use super::redis::Content;
use super::{RedisRecords, SqliteRecords};
use crate::shared::{Shared, SharedError};

/// Time between two looks at Redis for the copy.
const SYNC: Duration = Duration::from_secs(5);
/// How long the copy serves without Redis, milliseconds.
const ALONE_MS: u64 = 3_600_000;

struct Inner {
    local: SqliteRecords,
    redis: RedisRecords,
    shared: Shared,
    changed: Notify,
    /// One copying at a time.
    syncing: Mutex<()>,
    figures: Arc<CopyFigures>,
}

/// What metrics tell of the copy.
#[derive(Debug, Default)]
pub struct CopyFigures {
    /// Times that the copy was found to be one, or made one.
    pub copies: AtomicU64,
    /// When that was last so, Unix milliseconds; 0 for never.
    pub copied_ms: AtomicU64,
}

/// The store. Clones share it. Its calls block, and are not to be made on a thread of the runtime.
#[derive(Clone)]
pub struct SharedRecords {
    inner: Arc<Inner>,
}

fn unix_ms() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}

fn fail(source: SharedError) -> RecordsError {
    RecordsError {
        action: "take a copy of the accounts",
        source: source.into(),
    }
}

impl SharedRecords {
    /// Records in the Redis that the settings name, copied to this file; in the file alone as long as they name none.
    pub fn new(local: SqliteRecords, shared: Shared, runtime: Handle) -> SharedRecords {
        SharedRecords {
            inner: Arc::new(Inner {
                local,
                redis: RedisRecords::new(shared.clone(), runtime),
                shared,
                changed: Notify::new(),
                syncing: Mutex::new(()),
                figures: Arc::default(),
            }),
        }
    }

    /// How the copy is.
    pub fn figures(&self) -> Arc<CopyFigures> {
        Arc::clone(&self.inner.figures)
    }

    /// Whether there is a Redis in the settings.
    pub fn is_shared(&self) -> bool {
        self.inner.shared.is_configured()
    }

    /// Whether the copy may stand in for Redis.
    fn serves_alone(&self) -> Result<bool, RecordsError> {
        let known = self.inner.local.lineage()?;
        // Without a lineage they are this instance's own.
        Ok(known.is_none_or(|l| unix_ms().saturating_sub(l.synced_ms) < ALONE_MS))
    }

    /// What Redis says; what the copy says while there is no Redis, or none that answers.
    fn ask<T>(
        &self,
        redis: impl FnOnce(&RedisRecords) -> Result<T, RecordsError>,
        local: impl FnOnce(&SqliteRecords) -> Result<T, RecordsError>,
    ) -> Result<T, RecordsError> {
        if !self.is_shared() {
            return local(&self.inner.local);
        }
        match redis(&self.inner.redis) {
            Err(error) if !self.serves_alone()? => Err(error),
            Err(_) => local(&self.inner.local),
            answer => answer,
        }
    }

    /// The same for a change: not everything may be changed in the copy.
    fn change<T>(
        &self,
        table: Table,
        redis: impl FnOnce(&RedisRecords) -> Result<T, RecordsError>,
        local: impl FnOnce(&SqliteRecords) -> Result<T, RecordsError>,
    ) -> Result<T, RecordsError> {
        if table.is_written_alone() {
            let done = self.ask(redis, local);
            if table != Table::Throttles {
                self.inner.changed.notify_one();
            }
            return done;
        }
        if !self.is_shared() {
            return local(&self.inner.local);
        }
        let done = redis(&self.inner.redis)?;
        self.inner.changed.notify_one();
        Ok(done)
    }

    /// Makes the copy what Redis has, or Redis what the copy has if Redis has lost it.
    ///
    /// # Errors
    /// If Redis does not answer, or the file cannot be used.
    pub fn sync(&self) -> Result<(), RecordsError> {
        self.copy()?;
        self.inner.figures.copies.fetch_add(1, Relaxed);
        self.inner.figures.copied_ms.store(unix_ms(), Relaxed);
        Ok(())
    }

    fn copy(&self) -> Result<(), RecordsError> {
        let Inner {
            local,
            redis,
            syncing,
            ..
        } = &*self.inner;
        let _one = syncing.lock().unwrap_or_else(PoisonError::into_inner);
        let mine = local.lineage()?;
        let theirs = redis.state().map_err(fail)?;
        let content = match (&theirs, &mine) {
            (Some((lineage, clock)), Some(mine)) if *lineage == mine.id => {
                if *clock == mine.clock {
                    return local.still(unix_ms());
                }
                (*clock < mine.clock).then(|| local.content()).transpose()?
            }
            (Some(_), _) => {
                local.keep_beside(&self.before())?;
                None
            }
            (None, _) => Some(local.content()?),
        };
        if let Some(mut content) = content {
            if content.lineage.is_empty() {
                content.lineage = super::random_text(8)?;
            }
            // Refused if somebody who knows as much was faster.
            if redis.replace(&content).map_err(fail)? {
                tracing::info!(
                    records = content.records.len(),
                    "the instances' accounts are in Redis"
                );
            }
        }
        let content = redis.content().map_err(fail)?;
        if content.lineage.is_empty() {
            let lost = SharedError::Unreachable("it has lost the accounts again".to_owned());
            return Err(fail(lost));
        }
        self.take(&content)
    }

    fn take(&self, content: &Content) -> Result<(), RecordsError> {
        self.inner.local.take(content, unix_ms())
    }

    fn before(&self) -> PathBuf {
        self.inner.local.path().with_extension("before.db")
    }

    /// Keeps the copy up to date until it is time to end.
    pub async fn keep(self, mut stop: watch::Receiver<bool>) {
        let mut failing = false;
        loop {
            if self.is_shared() {
                let records = self.clone();
                let outcome = tokio::task::spawn_blocking(move || records.sync()).await;
                let failed = !matches!(outcome, Ok(Ok(())));
                match outcome {
                    Ok(Err(error)) if !failing => {
                        tracing::warn!(%error, "sign-ins go by this instance's copy, and accounts cannot be changed");
                    }
                    Ok(Ok(())) if failing => tracing::info!("accounts are shared again"),
                    _ => {}
                }
                failing = failed;
            }
            let woken = async {
                let changed = tokio::time::timeout(SYNC, self.inner.changed.notified());
                let _ = changed.await;
            };
            tokio::select! {
                () = woken => {}
                _ = stop.wait_for(|s| *s) => return,
            }
        }
    }
}

impl Records for SharedRecords {
    fn get(&self, table: Table, key: &str, now_ms: u64) -> Result<Option<Record>, RecordsError> {
        self.ask(|r| r.get(table, key, now_ms), |l| l.get(table, key, now_ms))
    }

    fn list(&self, table: Table, now_ms: u64) -> Result<Vec<Record>, RecordsError> {
        self.ask(|r| r.list(table, now_ms), |l| l.list(table, now_ms))
    }

    fn put(
        &self,
        table: Table,
        record: &Record,
        expected: Expected,
        now_ms: u64,
    ) -> Result<Option<u64>, RecordsError> {
        self.change(
            table,
            |r| r.put(table, record, expected, now_ms),
            |l| l.put(table, record, expected, now_ms),
        )
    }

    fn remove(&self, table: Table, key: &str) -> Result<bool, RecordsError> {
        self.change(table, |r| r.remove(table, key), |l| l.remove(table, key))
    }

    fn prune(&self, now_ms: u64) -> Result<(), RecordsError> {
        self.ask(|r| r.prune(now_ms), |l| l.prune(now_ms))
    }
}
