//! What is known of alerts at this instance, for whoever wants to see it or to say something of it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use tokio::sync::{Notify, watch};
use tollgate_policy::documents::AlertReceiver;

use super::book::{Alert, Book};
use super::marks::Marks;
use super::message::Message;
use super::send::{Sender, unix_ms};
use crate::accounts::{Expected, Record, Records, RecordsError, Table, random_text};
use crate::secrets::Sealer;

/// Key of what people say.
pub(super) const MARKS: &str = "marks";
/// Key of what one instance watches for all.
pub(super) const FOR_ALL: &str = "cluster";
/// What the key of an instance's own book begins with.
pub(super) const OF_INSTANCE: &str = "instance ";

/// What people say, of its record. What cannot be read was written by another version, and is given up.
pub(super) fn read_marks(record: &Record) -> Marks {
    serde_json::from_slice(&record.value).unwrap_or_default()
}

/// What is known.
#[derive(Clone, Debug, Default)]
pub struct Shown {
    /// Grows with every change that is worth looking at.
    pub revision: u64,
    /// Books by who answers for them: an instance, or nobody (empty) for what one watches for all.
    pub books: BTreeMap<String, Book>,
    /// What people say.
    pub marks: Marks,
    /// The books that this instance fills.
    pub own: Vec<String>,
}

impl Shown {
    /// All alerts, with who answers for them.
    pub fn alerts(&self) -> impl Iterator<Item = (&str, &Alert)> {
        let books = self.books.iter();
        books.flat_map(|(of, book)| book.alerts.iter().map(move |alert| (of.as_str(), alert)))
    }
}

/// Messages since the start.
#[derive(Debug, Default)]
pub struct Sent {
    /// Those that were taken.
    pub accepted: AtomicU64,
    /// Those that were not; they are sent again.
    pub failed: AtomicU64,
}

struct Inner {
    instance: String,
    records: Arc<dyn Records>,
    sender: Sender,
    shown: watch::Sender<Arc<Shown>>,
    wake: Notify,
    sent: Sent,
}

/// Where alerts are looked at. Clones share it.
#[derive(Clone)]
pub struct AlertDesk {
    inner: Arc<Inner>,
}

impl AlertDesk {
    /// A desk of the instance of this name, with nothing on it yet.
    pub fn new(instance: &str, records: Arc<dyn Records>, sealer: Sealer) -> AlertDesk {
        AlertDesk {
            inner: Arc::new(Inner {
                instance: instance.to_owned(),
                records,
                sender: Sender::new(sealer),
                shown: watch::Sender::default(),
                wake: Notify::new(),
                sent: Sent::default(),
            }),
        }
    }

    /// Name of the instance.
    pub fn instance(&self) -> &str {
        &self.inner.instance
    }

    /// What is known now.
    pub fn shown(&self) -> Arc<Shown> {
        Arc::clone(&self.inner.shown.borrow())
    }

    /// Told when that is something else.
    pub fn follow(&self) -> watch::Receiver<Arc<Shown>> {
        self.inner.shown.subscribe()
    }

    /// Messages since the start.
    pub fn sent(&self) -> &Sent {
        &self.inner.sent
    }

    /// Shows something else. `news` if it is worth looking at.
    pub(super) fn show(&self, news: bool, change: impl FnOnce(&mut Shown)) {
        self.inner.shown.send_if_modified(|shown| {
            let mut next = Shown::clone(shown);
            change(&mut next);
            next.revision += u64::from(news);
            *shown = Arc::new(next);
            news
        });
    }

    pub(super) async fn woken(&self) {
        self.inner.wake.notified().await;
    }

    pub(super) fn records(&self) -> &dyn Records {
        &*self.inner.records
    }

    /// What people say, as the store has it. Blocks.
    pub(super) fn marks(&self) -> Result<(Marks, Option<u64>), RecordsError> {
        let record = self.inner.records.get(Table::Alerts, MARKS, unix_ms())?;
        let marks = record.as_ref().map(read_marks).unwrap_or_default();
        Ok((marks, record.map(|r| r.version)))
    }

    /// Changes what people say; done anew if somebody else was faster. Blocks.
    ///
    /// # Errors
    /// If the store fails.
    pub fn say<T>(&self, change: impl Fn(&mut Marks) -> T) -> Result<T, RecordsError> {
        loop {
            let (mut marks, version) = self.marks()?;
            let before = marks.clone();
            let said = change(&mut marks);
            if marks == before {
                return Ok(said);
            }
            marks.prune(unix_ms());
            let value = serde_json::to_vec(&marks).map_err(|source| RecordsError {
                action: "write what is said of alerts",
                source: source.into(),
            })?;
            let record = Record {
                key: MARKS.to_owned(),
                version: 0,
                value,
                expires_ms: None,
            };
            let expected = version.map_or(Expected::Absent, Expected::Version);
            let written = self
                .inner
                .records
                .put(Table::Alerts, &record, expected, unix_ms())?;
            if written.is_some() {
                self.show(true, |shown| shown.marks = marks);
                self.inner.wake.notify_one();
                return Ok(said);
            }
        }
    }

    /// Sends a message. Blocks.
    ///
    /// # Errors
    /// Why it was not taken.
    pub(super) fn send(&self, receiver: &AlertReceiver, message: &Message) -> Result<(), String> {
        use std::sync::atomic::Ordering::Relaxed;
        let outcome = self.inner.sender.send(receiver, message);
        let counter = match outcome {
            Ok(()) => &self.inner.sent.accepted,
            Err(_) => &self.inner.sent.failed,
        };
        counter.fetch_add(1, Relaxed);
        outcome
    }

    /// Sends a message that only shows that messages arrive. Blocks.
    ///
    /// # Errors
    /// Why it was not taken.
    pub fn trial(&self, receiver: &AlertReceiver) -> Result<(), String> {
        let id = random_text(9).map_err(|e| e.to_string())?;
        self.send(receiver, &Message::trial(self.instance(), id))
    }
}
