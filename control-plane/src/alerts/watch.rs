//! The task that looks, keeps the books and tells receivers.
//!
//! What concerns all instances is watched by the one that leads, and its book lies in the store that all share; each instance watches
//! itself and has a book of its own beside. Whoever leads next goes on with the book that it finds. While Redis does not answer, each
//! instance goes on with its copy of that book, so that a receiver may be told by several.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tollgate_policy::documents::{AlertReceiver, Settings};

use super::book::{Book, Look, MOST_TOLD, Notice};
use super::desk::{AlertDesk, FOR_ALL, MARKS, OF_INSTANCE, read_marks};
use super::marks::Marks;
use super::message::{Message, Told};
use super::send::unix_ms;
use super::sight::Sight;
use crate::accounts::{Expected, Record, RecordsError, Table};
use crate::config::StatusWatch;
use crate::shared::{Role, Shared};

/// Time between two looks.
const LOOK: Duration = Duration::from_secs(1);
/// Time between two looks at what other instances have written.
const OTHERS: Duration = Duration::from_secs(3);
/// How long nothing ends after a start or a change of who leads: not everything is known yet.
const SETTLE: Duration = Duration::from_secs(10);
/// The longest pause before a receiver is tried again.
const LONGEST_PAUSE: Duration = Duration::from_secs(60);
/// How long the end waits for messages that are under way.
const LAST: Duration = Duration::from_secs(2);
/// How long an instance's book is kept that it does not write any more, milliseconds, and how often it is written at least.
const KEPT_MS: u64 = 3_600_000;
const AGAIN: Duration = Duration::from_secs(1_200);

/// A book and its place in the store.
struct Kept {
    key: String,
    book: Book,
    /// The version that was read or written; `None` for none.
    version: Option<u64>,
    /// Whether it has changed since.
    changed: bool,
    written: Instant,
    /// From when on something may end.
    settled: Instant,
}

/// What is told of which alerts, by position of the book: own, for all.
type Notices = [Vec<(String, Notice)>; 2];

/// What came of a message.
struct Outcome {
    receiver: String,
    notices: Notices,
    result: Result<(), String>,
}

/// A receiver as the task knows it.
#[derive(Default)]
struct Line {
    failures: u32,
    next: Option<Instant>,
}

/// The task.
pub struct Watch {
    desk: AlertDesk,
    config: StatusWatch,
    role: watch::Receiver<Role>,
    shared: Shared,
    /// Away while it looks.
    sight: Option<Sight>,
    own: Kept,
    all: Option<Kept>,
    last_role: Option<Role>,
    marks: Marks,
    lines: HashMap<String, Line>,
    busy: HashSet<String>,
    told: mpsc::UnboundedSender<Outcome>,
    outcomes: mpsc::UnboundedReceiver<Outcome>,
    others_at: Option<Instant>,
    failing: bool,
}

fn read(record: &Record) -> Book {
    serde_json::from_slice(&record.value).unwrap_or_else(|error| {
        tracing::warn!(%error, book = record.key, "a book of alerts cannot be read and begins anew");
        Book::default()
    })
}

impl Kept {
    fn new(key: String) -> Kept {
        Kept {
            key,
            book: Book::default(),
            version: None,
            changed: false,
            written: Instant::now(),
            settled: Instant::now() + SETTLE,
        }
    }

    /// What the store has, and what this has beside.
    fn load(&mut self, desk: &AlertDesk) -> Result<(), RecordsError> {
        let record = desk.records().get(Table::Alerts, &self.key, unix_ms())?;
        let mut book = record.as_ref().map(read).unwrap_or_default();
        let ours = std::mem::take(&mut self.book);
        self.changed |= !ours.alerts.is_empty();
        book.merge(ours);
        self.version = record.map(|r| r.version);
        self.book = book;
        Ok(())
    }

    /// Writes it, unless somebody else has; whether it was written.
    fn write(
        &mut self,
        desk: &AlertDesk,
        (anyway, expires_ms): (bool, Option<u64>),
    ) -> Result<bool, RecordsError> {
        let value = serde_json::to_vec(&self.book).map_err(|source| RecordsError {
            action: "write a book of alerts",
            source: source.into(),
        })?;
        let record = Record {
            key: self.key.clone(),
            version: 0,
            value,
            expires_ms,
        };
        let expected = match (anyway, self.version) {
            (true, _) => Expected::Anything,
            (_, Some(version)) => Expected::Version(version),
            (_, None) => Expected::Absent,
        };
        let written = desk.records().put(Table::Alerts, &record, expected, unix_ms())?;
        if written.is_some() {
            self.version = written;
            self.changed = false;
            self.written = Instant::now();
        }
        Ok(written.is_some())
    }
}

impl Watch {
    /// A task that looks by this.
    pub fn new(
        desk: AlertDesk,
        config: StatusWatch,
        (role, shared): (watch::Receiver<Role>, Shared),
        sight: Sight,
    ) -> Watch {
        let (told, outcomes) = mpsc::unbounded_channel();
        let own = Kept::new(format!("{OF_INSTANCE}{}", desk.instance()));
        Watch {
            desk,
            config,
            role,
            shared,
            sight: Some(sight),
            own,
            all: None,
            last_role: None,
            marks: Marks::default(),
            lines: HashMap::new(),
            busy: HashSet::new(),
            told,
            outcomes,
            others_at: None,
            failing: false,
        }
    }

    /// Looks until it is time to end.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut ticks = tokio::time::interval(LOOK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            let looks = tokio::select! {
                biased;
                _ = stop.wait_for(|s| *s) => break,
                outcome = self.outcomes.recv() => {
                    if let Some(outcome) = outcome {
                        self.note(outcome);
                    }
                    false
                }
                _ = ticks.tick() => true,
                () = self.desk.woken() => {
                    self.others_at = None;
                    false
                }
            };
            self = match tokio::task::spawn_blocking(move || {
                self.step(looks);
                self
            })
            .await
            {
                Ok(watch) => watch,
                Err(error) => {
                    tracing::error!(%error, "alerts are not watched any more");
                    return;
                }
            };
            self.tell();
            if looks && let Some(sight) = &mut self.sight {
                sight.exchange(&self.shared).await;
            }
        }
        // What was taken meanwhile is not to be told again.
        let ended = async {
            while !self.busy.is_empty() {
                let Some(outcome) = self.outcomes.recv().await else {
                    return;
                };
                self.note(outcome);
            }
        };
        let _ = tokio::time::timeout(LAST, ended).await;
        let _ = tokio::task::spawn_blocking(move || self.keep()).await;
    }

    fn settings(&self) -> std::sync::Arc<Settings> {
        std::sync::Arc::clone(&self.config.borrow().settings)
    }

    fn is_shared(&self) -> bool {
        self.settings().redis.is_some()
    }

    /// One step: whose book this is to fill, what there is to see, what others wrote. Blocks.
    fn step(&mut self, looks: bool) {
        let started = self.last_role.is_none();
        let mut news = self.follow_role();
        if self
            .others_at
            .is_none_or(|at| self.is_shared() && at.elapsed() >= OTHERS)
        {
            news |= self.read_others();
        }
        if looks || started {
            news |= self.look();
        }
        news |= self.own.changed || self.all.as_ref().is_some_and(|all| all.changed);
        self.keep();
        let (own, all) = (
            self.own.book.clone(),
            self.all.as_ref().map(|all| all.book.clone()),
        );
        let (marks, instance) = (self.marks.clone(), self.desk.instance().to_owned());
        self.desk.show(news, move |shown| {
            shown.own = vec![instance.clone()];
            shown.books.insert(instance, own);
            if let Some(all) = all {
                shown.own.push(String::new());
                shown.books.insert(String::new(), all);
            }
            shown.marks = marks;
        });
    }

    /// Takes over the book of all when it is this instance's turn, or gives it away.
    fn follow_role(&mut self) -> bool {
        let role = self.role.borrow().clone();
        if self.last_role.as_ref() == Some(&role) {
            return false;
        }
        let mut failed = None;
        if self.last_role.is_none() {
            failed = self.own.load(&self.desk).err();
        }
        // What was written while Redis was away is written again where all see it.
        self.own.changed |= self.last_role.is_some();
        if role.works() {
            let mut all = self.all.take().unwrap_or_else(|| Kept::new(FOR_ALL.to_owned()));
            failed = failed.or(all.load(&self.desk).err());
            all.settled = Instant::now() + SETTLE;
            self.all = Some(all);
        } else {
            self.all = None;
        }
        match failed {
            // Asked again with the next step.
            Some(error) => tracing::warn!(%error, "alerts of before are not known yet"),
            None => self.last_role = Some(role),
        }
        true
    }

    fn take_marks(&mut self, marks: Marks) -> bool {
        let news = marks != self.marks;
        self.marks = marks;
        news
    }

    /// What people said, and what other instances have found.
    fn read_others(&mut self) -> bool {
        self.others_at = Some(Instant::now());
        if !self.is_shared() {
            return self.desk.marks().is_ok_and(|(marks, _)| self.take_marks(marks));
        }
        let Ok(records) = self.desk.records().list(Table::Alerts, unix_ms()) else {
            return false;
        };
        let marks = records.iter().find(|record| record.key == MARKS);
        let news = self.take_marks(marks.map(read_marks).unwrap_or_default());
        let mut books: BTreeMap<String, Book> = BTreeMap::new();
        for record in &records {
            let of = match record.key.strip_prefix(OF_INSTANCE) {
                Some(instance) if instance != self.desk.instance() => instance,
                None if record.key == FOR_ALL && self.all.is_none() => "",
                _ => continue,
            };
            books.insert(of.to_owned(), read(record));
        }
        let own = self.desk.instance().to_owned();
        let ours = |of: &str| of == own || (of.is_empty() && self.all.is_some());
        let shown = self.desk.shown();
        let before = shown.books.iter().filter(|(of, _)| !ours(of));
        if before.eq(books.iter()) {
            return news;
        }
        self.desk.show(false, |shown| {
            shown.books.retain(|of, _| ours(of));
            shown.books.extend(books);
        });
        true
    }

    fn look(&mut self) -> bool {
        let Some(mut sight) = self.sight.take() else {
            return false;
        };
        let settings = self.settings();
        let now_ms = unix_ms();
        let mut changed = false;
        let mut take = |kept: &mut Kept, readings: &[super::Reading]| {
            let look = Look {
                readings,
                settings: &settings.alerts,
                complete: Instant::now() >= kept.settled,
                now_ms,
            };
            kept.changed |= kept.book.take(&look);
            changed |= kept.changed;
        };
        take(&mut self.own, &sight.own());
        sight.count();
        if let Some(all) = &mut self.all {
            let readings = sight.all(&settings.alerts, &mut all.book, now_ms);
            take(all, &readings);
        }
        self.sight = Some(sight);
        changed
    }

    /// Writes what has changed. What cannot be written is written with the next step.
    fn keep(&mut self) {
        let expires_ms = self.is_shared().then(|| unix_ms() + KEPT_MS);
        let due = self.own.changed || (expires_ms.is_some() && self.own.written.elapsed() >= AGAIN);
        let mut failed = None;
        if due {
            failed = self.own.write(&self.desk, (true, expires_ms)).err();
        }
        if let Some(all) = self.all.as_mut().filter(|all| all.changed) {
            match all.write(&self.desk, (false, None)) {
                Ok(true) => {}
                // Somebody else has written: the next step writes both together, if it is still our turn.
                Ok(false) => failed = failed.or(all.load(&self.desk).err()),
                Err(error) => failed = Some(error),
            }
        }
        if let Some(error) = &failed
            && !self.failing
        {
            tracing::warn!(%error, "alerts are not kept; after a restart they would be told again");
        }
        self.failing = failed.is_some();
    }

    /// Notes what came of a message.
    fn note(&mut self, outcome: Outcome) {
        let Outcome {
            receiver,
            notices: [own, all],
            result,
        } = outcome;
        self.busy.remove(&receiver);
        let now_ms = unix_ms();
        for (kept, notices) in [(Some(&mut self.own), own), (self.all.as_mut(), all)] {
            if let Some(kept) = kept.filter(|_| !notices.is_empty()) {
                kept.book.told(&receiver, &notices, &result, now_ms);
                kept.changed = true;
            }
        }
        let line = self.lines.entry(receiver.clone()).or_default();
        match result {
            Ok(()) => *line = Line::default(),
            Err(error) => {
                if line.failures == 0 {
                    tracing::warn!(receiver, error, "a receiver of alerts does not take a message");
                }
                let pause = LOOK * 2u32.saturating_pow(line.failures.min(10));
                line.failures += 1;
                line.next = Some(Instant::now() + pause.min(LONGEST_PAUSE));
            }
        }
    }

    /// Sends what there is to be told, one message at a time to each receiver.
    fn tell(&mut self) {
        let settings = self.settings();
        let names: HashSet<&str> = settings
            .alerts
            .receivers
            .iter()
            .map(|r| r.name.as_str())
            .collect();
        self.lines.retain(|name, _| names.contains(name.as_str()));
        if self.last_role.is_none() {
            return;
        }
        for receiver in settings.alerts.receivers.iter().filter(|r| r.enabled) {
            let waits = self.lines.get(&receiver.name).and_then(|line| line.next);
            if self.busy.contains(&receiver.name) || waits.is_some_and(|next| next > Instant::now()) {
                continue;
            }
            if let Some((message, notices)) = self.message(receiver, &settings) {
                self.busy.insert(receiver.name.clone());
                let (desk, receiver, told) = (self.desk.clone(), receiver.clone(), self.told.clone());
                tokio::task::spawn_blocking(move || {
                    let result = desk.send(&receiver, &message);
                    let receiver = receiver.name;
                    let _ = told.send(Outcome {
                        receiver,
                        notices,
                        result,
                    });
                });
            }
        }
    }

    fn message(&self, receiver: &AlertReceiver, settings: &Settings) -> Option<(Message, Notices)> {
        let now_ms = unix_ms();
        let quiet = settings.maintenance.is_some();
        let mut told = Vec::new();
        let mut collect = |book: &Book| {
            let mut notices = Vec::new();
            for (index, notice) in book.due(receiver, &settings.alerts, &self.marks, (quiet, now_ms)) {
                if let Some(alert) = book.alerts.get(index).filter(|_| told.len() < MOST_TOLD) {
                    told.push(Told::of(alert, notice));
                    notices.push((alert.id.clone(), notice));
                }
            }
            notices
        };
        let own = collect(&self.own.book);
        let all = self
            .all
            .as_ref()
            .map(|all| collect(&all.book))
            .unwrap_or_default();
        (!told.is_empty()).then(|| (Message::new(self.desk.instance(), told), [own, all]))
    }
}
