//! Looks at the gateway for what rules watch: at this instance itself, and at what one instance sees for all.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::{Duration, Instant};

use tollgate_policy::documents::{AlertRuleName, Alerts, Metric};
use tollgate_policy::{DeploymentView, Snapshot, hash_name};
use tollgate_shm::{Readiness, Region};

use super::book::Book;
use super::certificates;
use super::parts::{Level, Part, Parts};
use super::reading::{Labels, Reading};
use super::send::unix_ms;
use super::traffic::Traffic;
use crate::cluster::Figures;
use crate::config::{ConfigSource, ConfigStatus, StatusWatch};
use crate::health::Board;
use crate::ledger::DrainStatus;
use crate::live;
use crate::naming::Naming;
use crate::shared::Shared;

/// Time between two looks at counters of usage and at limits.
const COUNTERS: Duration = Duration::from_secs(5);
/// How long Redis may take to hand over what others count.
const PATIENCE: Duration = Duration::from_secs(1);
/// The same at keys and certificates that may expire.
const KEYS: Duration = Duration::from_secs(60);
/// The same at the disk.
const DISK: Duration = Duration::from_secs(10);
/// How far back panics and failures of the ledger count.
const PANICS: Duration = Duration::from_secs(600);
const COMMITS: Duration = Duration::from_secs(60);
/// How long an expired key is told of, seconds.
const EXPIRED_S: i64 = 86_400;
/// A worker that was last heard of longer ago is not asked what it has taken up, milliseconds.
const SILENT_MS: u64 = 5_000;

/// Where to look.
pub struct Places {
    /// The region.
    pub region: Arc<Region>,
    /// The configuration's state.
    pub config: StatusWatch,
    /// What probes found.
    pub probes: Board,
    /// Where documents come from.
    pub source: Arc<dyn ConfigSource>,
    /// What is known of Redis.
    pub figures: Arc<Figures>,
    /// How the ledger is filled.
    pub drain: Arc<DrainStatus>,
    /// The other instances.
    pub naming: Naming,
    /// The state folder.
    pub state: PathBuf,
    /// The admin port's certificate, if it speaks TLS.
    pub certificate: Option<PathBuf>,
}

/// A counter that only grows, and what it grew by lately.
#[derive(Default)]
struct Growth {
    last: Option<u64>,
    grown: VecDeque<(Instant, u64)>,
}

impl Growth {
    /// What it grew by within `span`; one that begins anew has grown by what it has.
    fn look(&mut self, value: u64, span: Duration) -> u64 {
        let by = match self.last.replace(value) {
            None => 0,
            Some(last) if value < last => value,
            Some(last) => value - last,
        };
        if by > 0 {
            self.grown.push_back((Instant::now(), by));
        }
        while self.grown.front().is_some_and(|(at, _)| at.elapsed() > span) {
            self.grown.pop_front();
        }
        self.grown.iter().map(|(_, by)| by).sum()
    }
}

/// Something that is looked at now and then only.
#[derive(Default)]
struct Rare {
    at: Option<Instant>,
    readings: Vec<Reading>,
}

impl Rare {
    fn look(&mut self, every: Duration, look: impl FnOnce() -> Vec<Reading>) -> &[Reading] {
        if self.at.is_none_or(|at| at.elapsed() >= every) {
            self.at = Some(Instant::now());
            self.readings = look();
        }
        &self.readings
    }
}

/// Looks, and remembers what it needs to compare with.
pub struct Sight {
    places: Places,
    instance: String,
    traffic: Traffic,
    panics: HashMap<u32, Growth>,
    commits: Growth,
    dropped: Growth,
    counted: Option<Instant>,
    part: Part,
    /// Number of the part that others were told of.
    told: u64,
    parts: Parts,
    keys: Rare,
    disk: Rare,
    certificates: Rare,
}

impl Sight {
    /// Looks at these places as the instance of this name.
    pub fn new(places: Places, instance: &str) -> Sight {
        Sight {
            places,
            instance: instance.to_owned(),
            traffic: Traffic::default(),
            panics: HashMap::new(),
            commits: Growth::default(),
            dropped: Growth::default(),
            counted: None,
            part: Part::default(),
            told: 0,
            parts: Parts::default(),
            keys: Rare::default(),
            disk: Rare::default(),
            certificates: Rare::default(),
        }
    }

    fn status(&self) -> Arc<ConfigStatus> {
        Arc::clone(&self.places.config.borrow())
    }

    fn about_me(&self, rule: AlertRuleName, value: f64, text: String) -> Reading {
        Reading::new(rule, &[("instance", &self.instance)], value, text)
    }

    /// What this instance sees of itself.
    pub fn own(&mut self) -> Vec<Reading> {
        let mut found = Vec::new();
        let status = self.status();
        let me = self.instance.clone();
        if status.settings.redis.is_some() && self.places.figures.connected.load(Relaxed) == 0 {
            let why = self.places.figures.found().map(|found| found.text);
            let why = why.unwrap_or_else(|| "there is no connection".to_owned());
            let text = format!("Redis does not serve instance {me}: {why}");
            found.push(self.about_me(AlertRuleName::RedisLost, 1.0, text));
        }
        if let Some(health) = self.places.source.health().filter(|h| !h.reachable) {
            let text = format!("Nacos does not answer instance {me}: {}", health.reason);
            found.push(self.about_me(AlertRuleName::NacosLost, 1.0, text));
        }
        found.extend(self.not_taken(&status));
        found.extend(self.panics());
        found.extend(self.ledger());
        let (state, instance) = (self.places.state.clone(), me);
        found.extend_from_slice(self.disk.look(DISK, || disk(&state, &instance)));
        let shown = self.places.certificate.clone();
        found.extend_from_slice(self.certificates.look(KEYS, || {
            let snapshot = status.active().and_then(|active| active.snapshot());
            let files = certificates::files(shown.as_deref(), &status.settings, snapshot.as_ref());
            let now = i64::try_from(unix_ms() / 1_000).unwrap_or(i64::MAX);
            certificates::look(&files, &instance, now)
        }));
        found
    }

    fn not_taken(&self, status: &ConfigStatus) -> Option<Reading> {
        let region = &self.places.region;
        let me = &self.instance;
        let text = if status.in_force || status.looks == 0 {
            let (now, generation) = (region.now_ms(), region.generation());
            let behind = |w: &tollgate_shm::WorkerView| {
                w.alive && w.generation < generation && now.saturating_sub(w.heartbeat_ms) < SILENT_MS
            };
            let count = region.workers().iter().filter(|w| behind(w)).count();
            if count == 0 {
                return None;
            }
            format!("{count} workers of instance {me} have not taken up generation {generation}")
        } else {
            let (errors, _) = status.counts();
            let first = status.problems.iter().find(|p| p.is_error());
            let first = first.map_or(String::new(), |p| {
                format!(", the first: {} {}: {}", p.document, p.path, p.reason)
            });
            format!("instance {me} refuses its documents: {errors} errors{first}")
        };
        Some(self.about_me(AlertRuleName::ConfigurationNotTaken, 1.0, text))
    }

    fn panics(&mut self) -> Option<Reading> {
        let workers = self.places.region.workers();
        self.panics
            .retain(|pid, growth| !growth.grown.is_empty() || workers.iter().any(|w| w.pid == *pid));
        let mut sum = 0;
        for worker in &workers {
            // A worker that is new has panicked since the last look, if at all.
            let growth = self.panics.entry(worker.pid).or_default();
            sum += growth.look(worker.panics, PANICS);
        }
        (sum > 0).then(|| {
            let me = &self.instance;
            let text = format!("{sum} panics of workers of instance {me} were caught within ten minutes; see nginx' error log");
            self.about_me(AlertRuleName::WorkerPanics, sum as f64, text)
        })
    }

    fn ledger(&mut self) -> Option<Reading> {
        let region = &self.places.region;
        let failed = self
            .commits
            .look(self.places.drain.failures.load(Relaxed), COMMITS);
        let me = &self.instance;
        if failed > 0 {
            let text = format!(
                "the ledger of instance {me} cannot be written: {failed} attempts failed within a minute"
            );
            return Some(self.about_me(AlertRuleName::LedgerBehind, 100.0, text));
        }
        let lost = self.dropped.look(region.events_dropped(), COMMITS);
        if lost > 0 {
            let text = format!(
                "{lost} events of instance {me} found no place on a ring within a minute; their usage is booked without them"
            );
            return Some(self.about_me(AlertRuleName::LedgerBehind, 100.0, text));
        }
        // Each worker has a ring of its own.
        let workers = region.workers().iter().filter(|w| w.alive).count().max(1);
        let filled =
            region.ring_depth() as f64 * 100.0 / (f64::from(region.sizes().ring.max(1)) * workers as f64);
        (filled > 0.0).then(|| {
            let text = format!("{filled:.0} % of the rings of events of instance {me} waits for the ledger");
            self.about_me(AlertRuleName::LedgerBehind, filled, text)
        })
    }

    /// What one instance sees for all.
    pub fn all(&mut self, settings: &Alerts, book: &mut Book, now_ms: u64) -> Vec<Reading> {
        let mut found = Vec::new();
        found.extend(self.instances(book, now_ms));
        let status = self.status();
        let active = status.active();
        let Some(snapshot) = active.and_then(|active| active.snapshot()) else {
            return found;
        };
        found.extend(deployments(&self.places, &snapshot));
        let keys = self.keys.look(KEYS, || keys(&snapshot, now_ms));
        found.extend_from_slice(keys);
        found.extend(self.together(settings));
        found
    }

    /// Counts what all instances do together, as far as this one does; now and then.
    pub fn count(&mut self) {
        if self.counted.is_some_and(|at| at.elapsed() < COUNTERS) {
            return;
        }
        self.counted = Some(Instant::now());
        self.traffic.look(&self.places.region);
        let mut part = Part {
            number: self.part.number + 1,
            ..Part::default()
        };
        for (channel, model, count) in self.traffic.rows() {
            for (counts, name) in [(&mut part.models, model), (&mut part.channels, channel)] {
                if !name.is_empty() {
                    counts.entry(name.to_owned()).or_default().add(&count);
                }
            }
        }
        let status = self.status();
        if let Some(snapshot) = status.active().and_then(|active| active.snapshot()) {
            part.levels = levels(&self.places.region, &snapshot, &self.traffic);
        }
        self.part = part;
    }

    /// Tells the others what this instance counts, and hears what they do.
    pub async fn exchange(&mut self, shared: &Shared) {
        if !shared.is_configured() {
            self.parts = Parts::default();
            self.note_namesakes();
        } else if self.told != self.part.number {
            self.told = self.part.number;
            // Instances that were given the same name have regions of their own all the same.
            let me = format!("{} {:08x}", self.instance, self.places.region.id() >> 32);
            let exchanged = self.parts.exchange(shared, &me, &self.part);
            // Without an answer the others are forgotten after a while.
            let _ = tokio::time::timeout(PATIENCE, exchanged).await;
            self.note_namesakes();
        }
    }

    /// Whether another instance has this one's name: books of alerts, documents and the list of requests cannot tell them apart.
    fn note_namesakes(&self) {
        let count = self.parts.namesakes(&self.instance) as u64;
        let before = self.places.figures.namesakes.swap(count, Relaxed);
        let name = &self.instance;
        if count > 0 && before == 0 {
            tracing::error!(
                name,
                "another instance over this Redis has the same name: their alerts, requests and documents are mixed up; start each with a \
                 name of its own (--instance)"
            );
        } else if count == 0 && before > 0 {
            tracing::info!(name, "no other instance has this name any more");
        }
    }

    /// What comes of all counts together.
    fn together(&self, settings: &Alerts) -> Vec<Reading> {
        let mut sum = self.part.clone();
        for part in self.parts.fresh() {
            sum.add(part);
        }
        let mut found = shares(&sum);
        found.extend(full(&sum, settings));
        found
    }

    fn instances(&self, book: &mut Book, now_ms: u64) -> Vec<Reading> {
        let members = self.places.naming.members();
        if members.failure.is_some() {
            // Who is missing cannot be told: nothing begins and nothing ends.
            return book
                .seen
                .keys()
                .map(|name| lost(name, Reading::UNDECIDED, "cannot be seen"))
                .collect();
        }
        let present: Vec<(String, bool)> = members
            .others
            .iter()
            .chain([&members.own])
            .map(|m| (m.instance.clone(), m.draining))
            .collect();
        book.missing(&present, now_ms)
            .iter()
            .map(|(name, _)| lost(name, 1.0, "is gone"))
            .collect()
    }
}

fn lost(name: &str, value: f64, how: &str) -> Reading {
    let text = format!("instance {name} {how}, and was not drained");
    Reading::new(AlertRuleName::InstanceLost, &[("instance", name)], value, text)
}

fn disk(state: &std::path::Path, instance: &str) -> Vec<Reading> {
    let Ok(stat) = rustix::fs::statvfs(state) else {
        return Vec::new();
    };
    let free = stat.f_bavail as f64 * 100.0 / (stat.f_blocks as f64).max(1.0);
    let gib = stat.f_bavail.saturating_mul(stat.f_frsize) as f64 / f64::from(1 << 30);
    let text = format!("the disk with the state of instance {instance} has {free:.1} % left, {gib:.1} GiB");
    vec![Reading::new(
        AlertRuleName::DiskLow,
        &[("instance", instance)],
        free,
        text,
    )]
}

/// How a deployment is: 1 where it is so.
struct Found {
    /// Whether it is ill.
    down: f64,
    /// Whether it gets no requests, for whatever reason.
    away: f64,
    /// Why.
    why: String,
}

fn deployment(places: &Places, deployment: &DeploymentView<'_>) -> Found {
    let found = |down, away, why| Found { down, away, why };
    let region = &places.region;
    let Some(row) = region.deployment(hash_name(deployment.id().as_bytes())) else {
        return found(0.0, 0.0, String::new());
    };
    let view = region.deployment_view(row);
    // Where there is no other deployment, an open breaker is passed over and no trial closes it: what counts is the last answer.
    let answered = view
        .as_ref()
        .is_some_and(|v| v.failures_in_row == 0 && v.last_failure.is_some());
    let why = || {
        let (failures, last) = view
            .as_ref()
            .map_or((0, None), |v| (v.failures_in_row, v.last_failure));
        let last = last.map_or("unknown", |(kind, _)| kind.name());
        format!("{failures} failures in a row, the last: {last}")
    };
    match region.deployment_readiness(row, region.now_ms()) {
        Readiness::Ready => found(0.0, 0.0, String::new()),
        Readiness::Trial | Readiness::Broken if answered => found(0.0, 0.0, String::new()),
        // Until a trial succeeds it is what it was.
        Readiness::Trial | Readiness::Broken => found(1.0, 1.0, why()),
        Readiness::Unhealthy => {
            let probed = places.probes.of(deployment.id());
            let reason = probed.map_or_else(|| "probes fail".to_owned(), |p| p.standing.reason);
            found(1.0, 1.0, reason)
        }
        // It is not ill, but serves nobody either.
        Readiness::Cooling => found(0.0, 1.0, "the provider asked to be left alone".to_owned()),
    }
}

fn deployments(places: &Places, snapshot: &Snapshot<'_>) -> Vec<Reading> {
    let mut found = Vec::new();
    // By model: how bad its best deployment is, how many there are, and what is wrong with the last one.
    let mut models: BTreeMap<String, (f64, usize, String)> = BTreeMap::new();
    for view in snapshot.deployments().filter(|d| d.enabled()) {
        let Found { down, away, why } = deployment(places, &view);
        let model = view.model().map(|m| m.name().to_owned()).unwrap_or_default();
        let provider = view.provider().map(|p| p.id().to_owned()).unwrap_or_default();
        let best = models.entry(model.clone()).or_insert((1.0, 0, String::new()));
        best.0 = best.0.min(away);
        best.1 += 1;
        best.2 = format!("{}: {why}", view.id());
        if down > 0.0 {
            let labels = [
                ("deployment", view.id()),
                ("model", model.as_str()),
                ("provider", provider.as_str()),
            ];
            let text = format!("deployment {} gets no requests: {why}", view.id());
            found.push(Reading::new(AlertRuleName::DeploymentDown, &labels, down, text));
        }
    }
    for (model, (down, count, why)) in models.into_iter().filter(|(_, (down, ..))| *down > 0.0) {
        let text = format!("model {model} is down: none of its {count} deployments gets requests; {why}");
        let labels = [("model", model.as_str())];
        found.push(Reading::new(AlertRuleName::ModelDown, &labels, down, text));
    }
    found
}

fn keys(snapshot: &Snapshot<'_>, now_ms: u64) -> Vec<Reading> {
    let now = i64::try_from(now_ms / 1_000).unwrap_or(i64::MAX);
    let mut found = Vec::new();
    for channel in snapshot.channels().filter(|c| c.enabled()) {
        for key in channel.keys().filter(|k| k.enabled() && k.expires_unix() > 0) {
            let left = key.expires_unix().saturating_sub(now);
            if !(-EXPIRED_S..=366 * 86_400).contains(&left) {
                continue;
            }
            let days = left as f64 / 86_400.0;
            let (code, id) = (channel.code(), key.id());
            let text = if left <= 0 {
                format!("key {id} of channel {code} has expired")
            } else {
                format!("key {id} of channel {code} expires in {days:.1} days")
            };
            let labels = [("channel", code), ("key", id)];
            found.push(Reading::new(AlertRuleName::KeyExpiring, &labels, days, text));
        }
    }
    // Those that end first come first, in case there are too many.
    found.sort_by(|a, b| a.value.total_cmp(&b.value));
    found
}

fn shares(sum: &Part) -> Vec<Reading> {
    let mut found = Vec::new();
    for (model, count) in &sum.models {
        if let Some(percent) = count.failed_percent().filter(|p| *p > 0.0) {
            let of = count.all.saturating_sub(count.limited);
            let text =
                format!("{percent:.1} % of {of} requests for model {model} failed within five minutes");
            let labels = [("model", model.as_str())];
            found.push(Reading::new(AlertRuleName::ErrorRate, &labels, percent, text));
        }
    }
    for (channel, count) in &sum.channels {
        if let Some(percent) = count.limited_percent().filter(|p| *p > 0.0) {
            let all = count.all;
            let text = format!(
                "{percent:.1} % of {all} requests of channel {channel} were refused by limits within five minutes"
            );
            let labels = [("channel", channel.as_str())];
            found.push(Reading::new(
                AlertRuleName::ChannelThrottled,
                &labels,
                percent,
                text,
            ));
        }
    }
    found
}

/// Limits that are half-way to their threshold; the rest is far from it.
fn full(sum: &Part, settings: &Alerts) -> Vec<Reading> {
    let mut found = Vec::new();
    for level in &sum.levels {
        let rule = match level.budget {
            true => AlertRuleName::BudgetNearlyUsed,
            false => AlertRuleName::LimitNearlyUsed,
        };
        let percent = level.percent();
        if percent < settings.rule(rule).value / 2.0 {
            continue;
        }
        let name = level.labels.get("limit").map_or("", String::as_str);
        let text = format!(
            "{percent:.0} % of limit {name} of {} is used: {} of {}",
            level.whose, level.used, level.max
        );
        found.push(Reading {
            rule,
            labels: level.labels.clone(),
            value: percent,
            text,
        });
    }
    found.sort_by(|a, b| b.value.total_cmp(&a.value));
    found
}

/// Limits of tokens and money that somebody has met; only what is used to a hundredth at least.
fn levels(region: &Region, snapshot: &Snapshot<'_>, traffic: &Traffic) -> Vec<Level> {
    let mut seen = HashSet::new();
    let mut found = Vec::new();
    for (code, name) in traffic.names() {
        let channel = snapshot.channel_by_code(code.as_bytes());
        let model = snapshot.model(name.as_bytes());
        for limit in live::applying(snapshot, channel.as_ref(), model.as_ref()) {
            let budget = match limit.metric() {
                Metric::InputTokens | Metric::OutputTokens | Metric::TotalTokens => false,
                Metric::Cost => true,
                Metric::Connections | Metric::Requests => continue,
            };
            let Some(level) = live::level(region, &limit, model.as_ref().map_or("", |m| m.name())) else {
                continue;
            };
            if level.used.saturating_mul(100) < level.max || !seen.insert(level.key.clone()) {
                continue;
            }
            let mut labels = Labels::from([("limit".to_owned(), level.name.clone())]);
            let whose = match level.scope {
                "channel" | "channel_model" => {
                    labels.insert("channel".to_owned(), code.to_owned());
                    format!("channel {code}")
                }
                "model" => format!("model {name}"),
                _ => "everything".to_owned(),
            };
            if !level.model.is_empty() || level.scope == "model" {
                let of = if level.model.is_empty() {
                    name
                } else {
                    &level.model
                };
                labels.insert("model".to_owned(), of.to_owned());
            }
            found.push(Level {
                key: level.key,
                budget,
                labels,
                whose,
                used: level.used,
                max: level.max,
            });
        }
    }
    found
}
