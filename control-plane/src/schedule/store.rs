//! Where drafts are kept. Calls may block.

use std::sync::Arc;

use tokio::sync::watch;

use super::draft::{Draft, State, now_ms};
use crate::accounts::{Expected, Record, Records, RecordsError, Table};

/// How long a draft is kept after it has ended.
const KEPT_MS: u64 = 90 * 86_400_000;

/// What became of a wish to cancel a draft.
#[derive(Debug)]
pub enum Cancelled {
    /// It will not be published.
    Done(Draft),
    /// There is none of that id.
    Missing,
    /// Its time has come already.
    TooLate,
}

/// The drafts. Clones share them.
#[derive(Clone)]
pub struct Schedules {
    records: Arc<dyn Records>,
    /// Counts changes made by this instance.
    changes: watch::Sender<u64>,
}

fn read(record: &Record) -> Result<(Draft, u64), RecordsError> {
    let draft = serde_json::from_slice(&record.value).map_err(|source| RecordsError {
        action: "read a scheduled change",
        source: source.into(),
    })?;
    Ok((draft, record.version))
}

impl Schedules {
    /// The drafts in a store.
    pub fn new(records: Arc<dyn Records>) -> Schedules {
        Schedules {
            records,
            changes: watch::Sender::new(0),
        }
    }

    /// Told of changes made by this instance.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// All drafts with their versions, in the order of their time.
    ///
    /// # Errors
    /// If the store fails.
    pub fn list(&self) -> Result<Vec<(Draft, u64)>, RecordsError> {
        let records = self.records.list(Table::Schedules, now_ms())?;
        let mut all = records.iter().map(read).collect::<Result<Vec<_>, _>>()?;
        all.sort_by(|(a, _), (b, _)| (a.at_ms, &a.id).cmp(&(b.at_ms, &b.id)));
        Ok(all)
    }

    /// A draft and its version.
    ///
    /// # Errors
    /// If the store fails.
    pub fn one(&self, id: &str) -> Result<Option<(Draft, u64)>, RecordsError> {
        let record = self.records.get(Table::Schedules, id, now_ms())?;
        record.as_ref().map(read).transpose()
    }

    /// Writes a draft if it still is the version that is known (`None`: if it is not there); its new version.
    ///
    /// # Errors
    /// If the store fails.
    pub fn put(&self, draft: &Draft, known: Option<u64>) -> Result<Option<u64>, RecordsError> {
        let value = serde_json::to_vec(draft).map_err(|source| RecordsError {
            action: "write a scheduled change",
            source: source.into(),
        })?;
        let record = Record {
            key: draft.id.clone(),
            version: 0,
            value,
            expires_ms: draft.ended_ms().map(|at| at.saturating_add(KEPT_MS)),
        };
        let expected = known.map_or(Expected::Absent, Expected::Version);
        let version = self.records.put(Table::Schedules, &record, expected, now_ms())?;
        self.changes.send_modify(|n| *n += 1);
        Ok(version)
    }

    /// Sees to it that a draft is not published.
    ///
    /// # Errors
    /// If the store fails.
    pub fn cancel(&self, id: &str, by: &str) -> Result<Cancelled, RecordsError> {
        loop {
            let Some((mut draft, version)) = self.one(id)? else {
                return Ok(Cancelled::Missing);
            };
            if draft.state != State::Waiting {
                return Ok(Cancelled::TooLate);
            }
            draft.state = State::Cancelled {
                by: by.to_owned(),
                at_ms: now_ms(),
            };
            // If somebody was faster, look again at what they did.
            if self.put(&draft, Some(version))?.is_some() {
                return Ok(Cancelled::Done(draft));
            }
        }
    }
}
