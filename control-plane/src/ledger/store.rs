//! What a ledger's store can do. Every implementation passes `conformance`.

use super::{Counters, Lines, RequestRecord, Results, Served};

/// Lengths of the buckets that usage is kept in, seconds; 0 is the one bucket of all time, which is never pruned.
pub const STEPS: [u64; 3] = [0, 60, 600];

/// A store failed. The batch that failed may be tried again: nothing of it took effect.
#[derive(Debug)]
pub struct StoreError {
    /// What was being done.
    pub action: &'static str,
    /// Why it failed.
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

impl std::fmt::Display for StoreError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "cannot {}: {}", self.action, self.source)
    }
}
impl std::error::Error for StoreError {}

/// How far a region has been booked.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Position {
    /// Ring positions by worker slot; a slot that is missing stands at 0.
    pub tails: Vec<(usize, u64)>,
    /// Everything booked so far, by row of the usage table.
    pub rows: Vec<BookedRow>,
}

/// What has been booked of one row of a region's usage table.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BookedRow {
    /// Number of the row in the region.
    pub row: u32,
    /// Its channel code.
    pub channel: String,
    /// Its model.
    pub model: String,
    /// Sum of everything booked of it.
    pub booked: Counters,
}

/// Usage to add to a minute and to everything that contains it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delta {
    /// Begin of the minute, Unix seconds.
    pub minute: u64,
    /// Channel code.
    pub channel: String,
    /// Model.
    pub model: String,
    /// What to add.
    pub counters: Counters,
}

/// Results to add to a minute and to everything that contains it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GroupDelta {
    /// Begin of the minute, Unix seconds.
    pub minute: u64,
    /// The experiment.
    pub experiment: String,
    /// Its group.
    pub group: String,
    /// What to add.
    pub results: Results,
}

/// What a deployment has served, to add to a minute and to everything that contains it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServedDelta {
    /// Begin of the minute, Unix seconds.
    pub minute: u64,
    /// Who served.
    pub served: Served,
    /// What to add.
    pub results: Results,
}

/// What a rule in shadow mode would have done with a channel's requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct ShadowHits {
    /// Begin of the ten minutes, Unix seconds.
    pub bucket: u64,
    /// Hash of the rule's name.
    pub rule: u64,
    /// Channel code.
    pub channel: String,
    /// The rule's deeds, a bit each.
    pub deeds: u16,
}

/// Hits of a rule in shadow mode to add.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShadowDelta {
    /// Whose.
    pub of: ShadowHits,
    /// Requests that it matched.
    pub hits: u64,
}

/// What is committed together or not at all.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Batch {
    /// The region it comes from. What is remembered of any other region is forgotten with it.
    pub region: u64,
    /// New ring positions of the slots that moved.
    pub tails: Vec<(usize, u64)>,
    /// New sums of the rows that changed.
    pub rows: Vec<BookedRow>,
    /// Usage by minute.
    pub deltas: Vec<Delta>,
    /// Results of experiments by minute.
    pub groups: Vec<GroupDelta>,
    /// What deployments have served, by minute.
    pub served: Vec<ServedDelta>,
    /// What rules in shadow mode have matched, by ten minutes.
    pub shadows: Vec<ShadowDelta>,
    /// Lines of the request log.
    pub requests: Lines,
}

impl Batch {
    /// Whether there is nothing to commit.
    pub fn is_empty(&self) -> bool {
        self.tails.is_empty()
            && self.rows.is_empty()
            && self.deltas.is_empty()
            && self.groups.is_empty()
            && self.served.is_empty()
            && self.shadows.is_empty()
            && self.requests.is_empty()
    }
}

/// What is kept when a store is pruned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// The present, Unix seconds.
    pub now: u64,
    /// Buckets of one minute that begin before this go, Unix seconds.
    pub minutes_from: u64,
    /// Buckets of ten minutes that begin before this go, Unix seconds.
    pub ten_minutes_from: u64,
    /// Lines of the request log older than this go, Unix milliseconds.
    pub requests_from_ms: u64,
    /// Lines of the request log beyond this number go, the oldest first.
    pub requests: u64,
}

/// Which usage to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsageQuery {
    /// One of [`STEPS`].
    pub step: u64,
    /// First bucket: those that begin at or after this, Unix seconds.
    pub from: u64,
    /// Those that begin before this, Unix seconds.
    pub to: u64,
    /// Only this channel.
    pub channel: Option<String>,
    /// Only this model.
    pub model: Option<String>,
    /// At most so many points.
    pub limit: usize,
}

/// Usage of a channel × model in a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UsagePoint {
    /// Begin of the bucket, Unix seconds.
    pub bucket: u64,
    /// Channel code.
    pub channel: String,
    /// Model.
    pub model: String,
    /// The usage.
    pub counters: Counters,
}

/// Which results of experiments to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultsQuery {
    /// One of [`STEPS`].
    pub step: u64,
    /// First bucket: those that begin at or after this, Unix seconds.
    pub from: u64,
    /// Those that begin before this, Unix seconds.
    pub to: u64,
    /// Only this experiment.
    pub experiment: Option<String>,
    /// At most so many points.
    pub limit: usize,
}

/// Results of a group in a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultsPoint {
    /// Begin of the bucket, Unix seconds.
    pub bucket: u64,
    /// The experiment.
    pub experiment: String,
    /// Its group.
    pub group: String,
    /// What came of its requests.
    pub results: Results,
}

/// What of deployments' results to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ServedQuery {
    /// One of [`STEPS`].
    pub step: u64,
    /// First bucket: those that begin at or after this, Unix seconds.
    pub from: u64,
    /// Those that begin before this, Unix seconds.
    pub to: u64,
    /// Only deployments of this model.
    pub model: Option<String>,
}

/// Which hits of a rule in shadow mode to read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ShadowQuery {
    /// Hash of the rule's name.
    pub rule: u64,
    /// First bucket: those that begin at or after this, Unix seconds.
    pub from: u64,
    /// Those that begin before this, Unix seconds.
    pub to: u64,
}

/// Which requests to read, newest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RequestQuery {
    /// Only lines with a lower number: the next page.
    pub before: Option<i64>,
    /// Only this channel.
    pub channel: Option<String>,
    /// Only this model.
    pub model: Option<String>,
    /// Only this class.
    pub class: Option<String>,
    /// Only callers whom this experiment has sorted.
    pub experiment: Option<String>,
    /// Only callers of a group of this name.
    pub group: Option<String>,
    /// At most so many.
    pub limit: usize,
}

/// A ledger's store. One writer; readers may have connections of their own.
pub trait Store: Send {
    /// How far this region has been booked; nothing if the store knows another region or none.
    fn position(&mut self, region: u64) -> Result<Position, StoreError>;
    /// Commits a batch, whole or not at all. It survives this process at once, a power failure from the next
    /// [`Store::flush`] on or some fractions of a second later if batches keep coming.
    fn commit(&mut self, batch: &Batch) -> Result<(), StoreError>;
    /// Makes what was committed survive a power failure.
    fn flush(&mut self) -> Result<(), StoreError>;
    /// Usage, ordered by bucket, channel and model.
    fn usage(&mut self, query: &UsageQuery) -> Result<Vec<UsagePoint>, StoreError>;
    /// Results of experiments, ordered by bucket, experiment and group.
    fn results(&mut self, query: &ResultsQuery) -> Result<Vec<ResultsPoint>, StoreError>;
    /// What deployments have served, in any order: bucket, who, and what came of it. A bucket may come in parts.
    fn served(
        &mut self,
        query: &ServedQuery,
        each: &mut dyn FnMut(u64, &Served, &Results),
    ) -> Result<(), StoreError>;
    /// What a rule in shadow mode has matched, in any order: whose, and how many. A bucket may come in parts.
    fn shadows(
        &mut self,
        query: &ShadowQuery,
        each: &mut dyn FnMut(&ShadowHits, u64),
    ) -> Result<(), StoreError>;
    /// Lines of the request log with their numbers, newest first.
    fn requests(&mut self, query: &RequestQuery) -> Result<Vec<(i64, RequestRecord)>, StoreError>;
    /// Removes what need not be kept; may leave work for the next call to stay short.
    fn prune(&mut self, keep: &Keep) -> Result<(), StoreError>;
}

/// What every store must do, as tests.
#[cfg(test)]
#[path = "store/conformance.rs"]
pub(crate) mod conformance;
