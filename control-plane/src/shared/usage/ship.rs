//! Keeps Redis' copy of this ledger's usage up to date.
//!
//! One task and one command at a time. Per tag it knows the record in Redis: how far the ledger's changes have come there, and the
//! token of the last command. The script writes only if it finds that token, and leaves a new one. So a command that arrives
//! late changes nothing, and what Redis has lost shows as another token: the record that is there says from where on to write
//! again. A record that the ledger's marks do not reach back to, or none, makes it write everything.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use tokio::sync::watch;
use tollgate_shm::Region;

use super::keys::{self, Span, TAGS, TOTALS_MS};
use super::parts::{Kept, Run, runs};
use crate::config::StatusWatch;
use crate::ledger::{Changed, Marking, STEPS, SqliteReader, StoreError, UsagePoint};
use crate::shared::{Script, Shared, SharedError};

static PUSH: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("push.lua")));

/// Time between two looks at what has changed.
const ROUND: Duration = Duration::from_secs(4);
/// Time after which the record of a tag is looked at about which nothing was written: has Redis lost something? All are looked at
/// after a new connection, and when one is found to be another.
const CHECK: Duration = Duration::from_secs(30);
/// Time after which a record is moved on even though nothing of its tag has changed, long before marks go.
const MOVE_ON: Duration = Duration::from_secs(600);
/// Minutes of a channel × model taken from the ledger at a time, and points of a page when everything is written.
const MOST: usize = 2_000;
/// Times that a tag's record is found other than known, in a row, before that is an error: does another daemon use a copy
/// of this ledger?
const STRANGE: u32 = 10;

/// What metrics tell.
#[derive(Debug, Default)]
pub struct ShippingFigures {
    /// Minutes of a channel × model that the copy lacks.
    pub depth: AtomicU64,
    /// Values written since the start.
    pub values: AtomicU64,
    /// Times that Redis was found to have lost something that is written again.
    pub repaired: AtomicU64,
    /// Rounds that ended with an error.
    pub failures: AtomicU64,
    /// When everything was last written, region time in milliseconds; 0 for never.
    pub caught_up_ms: AtomicU64,
}

/// What is known of a tag's record.
#[derive(Clone, Debug)]
struct Tag {
    /// The record's position.
    stored: u64,
    token: String,
    /// Everything up to here is in Redis: what lies between `stored` and this is about other tags.
    reached: u64,
    moved: Instant,
    /// When the record was last seen to be this one.
    seen: Instant,
    strange: u32,
}

enum ShipError {
    Shared(SharedError),
    Ledger(StoreError),
    /// The record is another one than known; what is known now is right.
    Strange,
}

impl From<SharedError> for ShipError {
    fn from(error: SharedError) -> ShipError {
        ShipError::Shared(error)
    }
}

impl From<StoreError> for ShipError {
    fn from(error: StoreError) -> ShipError {
        ShipError::Ledger(error)
    }
}

/// The task.
pub struct Shipper {
    shared: Shared,
    ledger: Arc<SqliteReader>,
    marking: Arc<Marking>,
    region: Arc<Region>,
    config: StatusWatch,
    figures: Arc<ShippingFigures>,
    origin: u64,
    /// Empty while the records are not known.
    tags: Vec<Tag>,
    /// The connection over which all records were seen; `None` after one was another than known.
    seen_over: Option<u64>,
    failing: bool,
}

fn parse(record: &str) -> (u64, String) {
    let (position, token) = record.split_once(' ').unwrap_or(("0", ""));
    (position.parse().unwrap_or(0), token.to_owned())
}

fn token() -> String {
    // Without random numbers a command that comes late is not told from another; the time is the next best thing.
    let number = getrandom::u64().unwrap_or_else(|_| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.map_or(0, |d| u64::try_from(d.as_nanos()).unwrap_or(u64::MAX))
    });
    format!("{number:016x}")
}

impl Shipper {
    /// A shipper of the ledger. `ledger` is a connection of its own; marks are wanted from now on if there is a Redis.
    ///
    /// # Errors
    /// If the ledger cannot be read.
    pub fn new(
        shared: Shared,
        ledger: SqliteReader,
        marking: Arc<Marking>,
        region: Arc<Region>,
        config: StatusWatch,
    ) -> Result<Shipper, StoreError> {
        marking.want(shared.is_configured());
        Ok(Shipper {
            origin: ledger.origin()?,
            shared,
            ledger: Arc::new(ledger),
            marking,
            region,
            config,
            figures: Arc::default(),
            tags: Vec::new(),
            seen_over: None,
            failing: false,
        })
    }

    /// How it goes.
    pub fn figures(&self) -> Arc<ShippingFigures> {
        Arc::clone(&self.figures)
    }

    /// Ships until it is time to end; then [`Self::finish`] ships the rest.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) -> Shipper {
        loop {
            let configured = self.shared.is_configured();
            self.marking.want(configured);
            if configured {
                tokio::select! {
                    () = self.round() => {}
                    _ = stop.wait_for(|s| *s) => return self,
                }
            } else {
                self.tags.clear();
            }
            tokio::select! {
                () = tokio::time::sleep(ROUND) => {}
                changed = self.config.changed(), if !configured => {
                    if changed.is_err() {
                        return self;
                    }
                }
                _ = stop.wait_for(|s| *s) => return self,
            }
        }
    }

    /// Ships what the ledger has come to at the end.
    pub async fn finish(&mut self) {
        if self.shared.is_configured() {
            self.round().await;
        }
    }

    async fn round(&mut self) {
        let mut outcome = self.catch_up().await;
        for _ in 0..2 {
            if let Err(ShipError::Strange) = outcome {
                outcome = self.catch_up().await;
            }
        }
        let failing = match &outcome {
            Ok(()) => {
                self.figures.caught_up_ms.store(self.region.now_ms(), Relaxed);
                None
            }
            Err(ShipError::Strange) => None,
            Err(ShipError::Shared(error)) => Some(error.to_string()),
            Err(ShipError::Ledger(error)) => Some(error.to_string()),
        };
        if let Some(error) = &failing {
            self.figures.failures.fetch_add(1, Relaxed);
            if !self.failing {
                tracing::warn!(error, "the cluster's usage waits in this instance's ledger");
            }
            self.tags.clear();
        } else if self.failing {
            tracing::info!("the cluster's usage is written again");
        }
        self.failing = failing.is_some();
        self.count().await;
    }

    /// The least that is known to be in Redis.
    fn reached(&self) -> u64 {
        self.tags.iter().map(|t| t.reached).min().unwrap_or(0)
    }

    async fn count(&mut self) {
        let reached = self.reached();
        if !self.tags.is_empty() {
            self.marking.copied(reached);
        }
        // While Redis is away, what was copied before is not counted again.
        let after = if self.tags.is_empty() {
            self.marking.last_copied()
        } else {
            reached
        };
        if let Ok(depth) = self.read(move |ledger| ledger.lacking(after)).await {
            self.figures.depth.store(depth, Relaxed);
        }
    }

    async fn read<T: Send + 'static>(
        &self,
        work: impl FnOnce(&SqliteReader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let ledger = Arc::clone(&self.ledger);
        tokio::task::spawn_blocking(move || work(&ledger))
            .await
            .map_err(|e| StoreError {
                action: "read the ledger",
                source: e.into(),
            })?
    }

    fn now(&self) -> u64 {
        self.region.now_ms() / 1_000
    }

    fn kept(&self) -> Kept {
        let retention = self.config.borrow().settings.retention;
        Kept {
            minutes: retention.cluster_minutes.as_millis() / 1_000,
            tens: retention.cluster_ten_minutes.as_millis() / 1_000,
        }
    }

    /// Writes until Redis has all that the ledger has.
    async fn catch_up(&mut self) -> Result<(), ShipError> {
        self.learn().await?;
        let (seq, _) = self.read(SqliteReader::reach).await?;
        // A record beyond the ledger's end is of another life of this ledger: all of it is written again.
        for tag in self.tags.iter_mut().filter(|t| t.reached > seq) {
            tag.reached = 0;
        }
        loop {
            let after = self.reached();
            let changes = self.read(move |ledger| ledger.changes(after, MOST)).await?;
            let Some(changes) = changes else {
                self.write_everything().await?;
                continue;
            };
            self.write(changes.through, &changes.values).await?;
            if changes.values.is_empty() {
                return Ok(());
            }
        }
    }

    /// Reads the records that are not known or may have changed.
    async fn learn(&mut self) -> Result<(), ShipError> {
        let connection = self.shared.connections();
        let all = self.tags.is_empty() || self.seen_over != Some(connection);
        for number in 0..TAGS {
            let known = self.tags.get(number);
            if known.is_some_and(|tag| !all && tag.seen.elapsed() < CHECK) {
                continue;
            }
            let key = self.shared.key(&keys::records(number));
            let record: Option<String> = self
                .shared
                .query(redis::cmd("HGET").arg(key).arg(format!("{:016x}", self.origin)))
                .await?;
            let (stored, token) = parse(&record.unwrap_or_default());
            let fresh = Tag {
                stored,
                token,
                reached: stored,
                moved: Instant::now(),
                seen: Instant::now(),
                strange: 0,
            };
            match self.tags.get_mut(number) {
                None => self.tags.push(fresh),
                Some(tag) if (tag.stored, &tag.token) == (fresh.stored, &fresh.token) => {
                    tag.seen = fresh.seen
                }
                Some(tag) => {
                    self.figures.repaired.fetch_add(1, Relaxed);
                    *tag = fresh;
                }
            }
        }
        if all {
            self.seen_over = Some(connection);
        }
        Ok(())
    }

    /// Writes changed values of all tags that lack them.
    async fn write(&mut self, through: u64, values: &[Changed]) -> Result<(), ShipError> {
        let mut by_tag: Vec<Vec<&Changed>> = vec![Vec::new(); TAGS];
        for changed in values {
            if let Some(list) = by_tag.get_mut(keys::tag_of(&changed.point.channel)) {
                list.push(changed);
            }
        }
        for (number, list) in by_tag.into_iter().enumerate() {
            let Some(tag) = self.tags.get_mut(number).filter(|t| t.reached <= through) else {
                continue;
            };
            let reached = tag.reached;
            let spans = list.iter().filter(|c| c.seq > reached).filter_map(|c| {
                let span = Span::of(c.step)?;
                Some((span, &c.point))
            });
            let values: Vec<(Span, &UsagePoint)> = spans.collect();
            if values.is_empty() && (tag.moved.elapsed() < MOVE_ON || tag.stored >= through) {
                tag.reached = through;
                continue;
            }
            self.push(number, &values, Some(through)).await?;
        }
        Ok(())
    }

    /// Writes everything of the tags whose records stand too low, up to where marks are complete from.
    async fn write_everything(&mut self) -> Result<(), ShipError> {
        let (_, floor) = self.read(SqliteReader::reach).await?;
        let lacking: Vec<bool> = self.tags.iter().map(|tag| tag.reached < floor).collect();
        let (kept, now) = (self.kept(), self.now());
        for step in STEPS {
            let Some(span) = Span::of(step) else { continue };
            let from = kept.from(span, now);
            let mut last: Option<UsagePoint> = None;
            loop {
                let after = last.take();
                let page = self
                    .read(move |ledger| ledger.page(step, from, after.as_ref(), MOST))
                    .await?;
                let Some(end) = page.last() else { break };
                let mut by_tag: Vec<Vec<(Span, &UsagePoint)>> = vec![Vec::new(); TAGS];
                for point in &page {
                    if let Some(list) = by_tag.get_mut(keys::tag_of(&point.channel)) {
                        list.push((span, point));
                    }
                }
                for (number, values) in by_tag.iter().enumerate() {
                    if lacking.get(number) == Some(&true) && !values.is_empty() {
                        self.push(number, values, None).await?;
                    }
                }
                last = Some(end.clone());
            }
        }
        for number in (0..TAGS).filter(|n| lacking.get(*n) == Some(&true)) {
            self.push(number, &[], Some(floor)).await?;
        }
        Ok(())
    }

    /// Writes values of a tag; with the last of them, its record's position.
    async fn push(
        &mut self,
        number: usize,
        values: &[(Span, &UsagePoint)],
        position: Option<u64>,
    ) -> Result<(), ShipError> {
        let mut runs = runs(self.origin, values, self.kept(), self.now());
        if runs.is_empty() {
            runs.push(Run::default());
        }
        let last = runs.len() - 1;
        for (at, run) in runs.into_iter().enumerate() {
            let position = position.filter(|_| at == last);
            self.send(number, run, position).await?;
        }
        self.figures.values.fetch_add(values.len() as u64, Relaxed);
        Ok(())
    }

    async fn send(&mut self, number: usize, run: Run, position: Option<u64>) -> Result<(), ShipError> {
        let Some(tag) = self.tags.get_mut(number) else {
            return Ok(());
        };
        let own = [keys::records(number), keys::channels(number)];
        let names = own.iter().chain(&run.keys);
        let all: Vec<String> = names.map(|key| self.shared.key(key)).collect();
        let head = [
            format!("{:016x}", self.origin),
            tag.token.clone(),
            token(),
            position.map(|p| p.to_string()).unwrap_or_default(),
            TOTALS_MS.to_string(),
        ];
        let mut arguments: Vec<Vec<u8>> = head.into_iter().map(String::into_bytes).collect();
        arguments.extend(run.arguments);
        let (written, record): (u8, String) = self.shared.script(&PUSH, &all, &arguments).await?;
        let (stored, token) = parse(&record);
        (tag.stored, tag.token, tag.seen) = (stored, token, Instant::now());
        if written == 1 {
            tag.strange = 0;
            if let Some(position) = position {
                (tag.reached, tag.moved) = (position, Instant::now());
            }
            return Ok(());
        }
        self.figures.repaired.fetch_add(1, Relaxed);
        self.seen_over = None;
        tag.reached = stored;
        tag.strange += 1;
        if tag.strange == STRANGE {
            tracing::error!(
                "usage is written to Redis under this ledger's number by somebody else: is a copy of this state folder in use?"
            );
        }
        Err(ShipError::Strange)
    }
}
