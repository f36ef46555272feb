//! What instances tell each other of deployments: the leader's verdicts, breakers that have opened, deployments that asked to be
//! left alone.
//!
//! Each is a String in Redis with an end, and a message when it is new. Messages that are lost are made up for by reading the
//! Strings every few seconds. Workers read nothing but the region.
//!
//! A breaker that has opened for what a provider answered opens those of the others. One that has opened for want of a
//! connection or of time may say more about its own instance's network: the others only need one failure of their own then.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::Relaxed};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use futures_util::StreamExt;
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tollgate_policy::{credential_row, hash_name};
use tollgate_shm::{BreakerState, DeploymentIndex, Failure, Region};

use super::{Role, Script, Shared, SharedError};
use crate::config::StatusWatch;
use crate::health::Told;

static TELL: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("tell.lua")));
static READ_ALL: LazyLock<Script> =
    LazyLock::new(|| Script::repeatable("return {redis.call('TIME'), redis.call('MGET', unpack(KEYS))}"));

/// Time between two looks at what workers have found.
const LOOK: Duration = Duration::from_millis(100);
/// Time between two readings of everything that is told: while messages come, and while they do not.
const READ: Duration = Duration::from_secs(5);
const READ_DEAF: Duration = Duration::from_secs(2);
/// Time before a listener that has lost its connection tries again.
const AGAIN: Duration = Duration::from_millis(500);
/// Cool-downs and open breakers that end sooner are not worth telling, milliseconds.
const SHORT_MS: u64 = 150;
/// Where news are told, below the prefix.
const CHANNEL: &str = "deployments";
/// Keys read at once.
const AT_ONCE: usize = 500;

/// What is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Kind {
    Verdict,
    Breaker,
    Cooling,
}

impl Kind {
    const ALL: [Kind; 3] = [Kind::Verdict, Kind::Breaker, Kind::Cooling];

    fn name(self) -> &'static str {
        match self {
            Kind::Verdict => "verdict",
            Kind::Breaker => "breaker",
            Kind::Cooling => "cooling",
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
struct Said {
    kind: Kind,
    name: String,
    /// The instance that says so.
    from: String,
    /// Of what kind the last failure was, by its name; of breakers.
    #[serde(default)]
    failure: String,
    #[serde(default)]
    verdict: Option<Told>,
    /// By Redis' clock; the script adds it.
    #[serde(default)]
    until_ms: u64,
}

/// What metrics tell.
#[derive(Debug, Default)]
pub struct RumourFigures {
    /// What this instance told the others.
    pub told: AtomicU64,
    /// What others told that was news here.
    pub heard: AtomicU64,
}

/// A row that may be talked about.
struct Subject {
    row: DeploymentIndex,
    /// Failures that open its breaker; 0 for rows without one.
    failures: u32,
    /// Until when it was known to cool, and its breaker to be open.
    cooling_until: u64,
    open_until: u64,
}

/// The task.
pub struct Rumours {
    shared: Shared,
    region: Arc<Region>,
    config: StatusWatch,
    name: String,
    role: watch::Receiver<Role>,
    /// Verdicts of our own probes, and of others'.
    from_prober: mpsc::UnboundedReceiver<Told>,
    to_prober: mpsc::UnboundedSender<Told>,
    figures: Arc<RumourFigures>,
    subjects: HashMap<String, Subject>,
    /// Until when what was heard last of each counts, by Redis' clock.
    heard: HashMap<(Kind, String), u64>,
    /// Names that verdicts may be about.
    targets: Vec<String>,
    generation: Option<u64>,
    /// Redis' clock minus the region's, milliseconds.
    ahead_ms: i64,
    read_at: Instant,
    /// Whether messages come.
    hears: Arc<AtomicBool>,
    heard_last: bool,
    failing: bool,
}

/// Whether a failure may be this instance's own network's.
fn may_be_ours(failure: &str) -> bool {
    [Failure::Connect, Failure::Timeout, Failure::Tls, Failure::Slow]
        .iter()
        .any(|f| f.name() == failure)
}

impl Rumours {
    /// An instance of this name; the prober's verdicts come from and go to these channels.
    pub fn new(
        shared: Shared,
        region: Arc<Region>,
        config: StatusWatch,
        name: &str,
        role: watch::Receiver<Role>,
        prober: (mpsc::UnboundedReceiver<Told>, mpsc::UnboundedSender<Told>),
    ) -> Rumours {
        Rumours {
            shared,
            region,
            config,
            name: name.to_owned(),
            role,
            from_prober: prober.0,
            to_prober: prober.1,
            figures: Arc::default(),
            subjects: HashMap::new(),
            heard: HashMap::new(),
            targets: Vec::new(),
            generation: None,
            ahead_ms: 0,
            read_at: Instant::now(),
            hears: Arc::default(),
            heard_last: false,
            failing: false,
        }
    }

    /// How much is told.
    pub fn figures(&self) -> Arc<RumourFigures> {
        Arc::clone(&self.figures)
    }

    /// Tells and listens until it is time to end.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let (messages, mut inbox) = mpsc::unbounded_channel();
        let listener = tokio::spawn(listen(self.shared.clone(), messages, Arc::clone(&self.hears)));
        let mut looks = tokio::time::interval(LOOK);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = ended(&mut stop) => break,
                Some(text) = inbox.recv() => self.hear(&text),
                Some(told) = self.from_prober.recv() => self.tell_verdict(told).await,
                _ = looks.tick() => self.look().await,
            }
        }
        listener.abort();
    }

    fn take_present(&mut self) {
        let status = Arc::clone(&self.config.borrow());
        if self.generation == Some(status.generation()) {
            return;
        }
        self.generation = Some(status.generation());
        self.targets = status.targets.iter().map(crate::health::Target::name).collect();
        let mut before = std::mem::take(&mut self.subjects);
        let snapshot = status.active().and_then(|a| a.snapshot());
        let Some(snapshot) = &snapshot else { return };
        let mut subjects: Vec<(String, u64, u32)> = Vec::new();
        for deployment in snapshot.deployments().filter(|d| d.enabled()) {
            let failures = deployment.model().map_or(0, |m| m.routing().breaker_failures);
            subjects.push((
                deployment.id().to_owned(),
                hash_name(deployment.id().as_bytes()),
                failures,
            ));
        }
        for provider in snapshot.providers().filter(|p| p.credentials().len() > 1) {
            for credential in provider.credentials() {
                let name = format!("{} key {}", provider.id(), credential.id);
                subjects.push((name, credential_row(provider.id(), credential.id), 0));
            }
        }
        for (name, hash, failures) in subjects {
            let Some(row) = self.region.deployment(hash) else {
                continue;
            };
            let former = before.remove(&name);
            let subject = Subject {
                row,
                failures,
                cooling_until: former.as_ref().map_or(0, |s| s.cooling_until),
                open_until: former.map_or(0, |s| s.open_until),
            };
            self.subjects.insert(name, subject);
        }
    }

    async fn look(&mut self) {
        if !self.shared.is_configured() {
            return;
        }
        self.take_present();
        let hears = self.hears.load(Relaxed);
        // What was told before messages came was not heard.
        let before = std::mem::replace(&mut self.heard_last, hears);
        if (hears && !before) || self.read_at <= Instant::now() {
            self.read_at = Instant::now() + if hears { READ } else { READ_DEAF };
            let outcome = self.read().await;
            self.note(&outcome);
        }
        let now = self.region.now_ms();
        let mut news = Vec::new();
        for (name, subject) in &mut self.subjects {
            let Some(view) = self.region.deployment_view(subject.row) else {
                continue;
            };
            let (cooling, open) = (view.cooling_until_ms, view.breaker_until_ms);
            if cooling > now + SHORT_MS && cooling > subject.cooling_until + SHORT_MS {
                subject.cooling_until = cooling;
                news.push((Kind::Cooling, name.clone(), cooling - now, ""));
            }
            if view.breaker == BreakerState::Open && open > now + SHORT_MS && open != subject.open_until {
                subject.open_until = open;
                let failure = view.last_failure.map_or("", |(failure, _)| failure.name());
                news.push((Kind::Breaker, name.clone(), open - now, failure));
            }
        }
        for (kind, name, for_ms, failure) in news {
            let said = Said {
                kind,
                name,
                from: self.name.clone(),
                failure: failure.to_owned(),
                verdict: None,
                until_ms: 0,
            };
            let outcome = self.tell(&said, for_ms, 0).await;
            self.note(&outcome);
        }
    }

    /// One line in the log when it stops working, and one when it works again.
    fn note<T>(&mut self, outcome: &Result<T, SharedError>) {
        match outcome {
            Err(error) if !self.failing => {
                tracing::warn!(%error, "instances do not hear of each other's trouble with deployments");
            }
            Ok(_) if self.failing => {
                tracing::info!("instances hear of each other's trouble with deployments again")
            }
            _ => {}
        }
        self.failing = outcome.is_err();
    }

    async fn tell_verdict(&mut self, told: Told) {
        // A verdict that is found while nobody leads is for oneself.
        let fence = match *self.role.borrow() {
            Role::Leader(fence) => fence,
            _ => return,
        };
        let for_ms = told.for_ms;
        let said = Said {
            kind: Kind::Verdict,
            name: told.name.clone(),
            from: self.name.clone(),
            failure: String::new(),
            verdict: Some(told),
            until_ms: 0,
        };
        let outcome = self.tell(&said, for_ms, fence).await;
        self.note(&outcome);
    }

    fn key(&self, kind: Kind, name: &str) -> String {
        self.shared.key(&format!("{{health}}:{}:{name}", kind.name()))
    }

    async fn tell(&self, said: &Said, for_ms: u64, fence: u64) -> Result<(), SharedError> {
        let keys = [self.key(said.kind, &said.name), self.shared.key("{health}:fence")];
        let text = serde_json::to_string(said).unwrap_or_default();
        let arguments = [
            self.shared.key(CHANNEL),
            for_ms.to_string(),
            text,
            fence.to_string(),
        ]
        .map(String::into_bytes);
        let told: u64 = self.shared.script(&TELL, &keys, &arguments).await?;
        self.figures.told.fetch_add(told, Relaxed);
        Ok(())
    }

    /// Reads everything that is told, and Redis' clock.
    async fn read(&mut self) -> Result<(), SharedError> {
        let of = |kind: Kind| {
            let names: Vec<&String> = match kind {
                Kind::Verdict => self.targets.iter().collect(),
                _ => self.subjects.keys().collect(),
            };
            names
                .into_iter()
                .map(|name| self.key(kind, name))
                .collect::<Vec<_>>()
        };
        let keys: Vec<String> = Kind::ALL.into_iter().flat_map(of).collect();
        for some in keys.chunks(AT_ONCE) {
            let before = self.region.now_ms();
            let ((seconds, micros), found): ((u64, u64), Vec<Option<String>>) =
                self.shared.script(&READ_ALL, some, &[]).await?;
            let theirs = seconds.saturating_mul(1_000).saturating_add(micros / 1_000);
            self.ahead_ms = theirs.cast_signed() - before.midpoint(self.region.now_ms()).cast_signed();
            for text in found.into_iter().flatten() {
                self.hear(&text);
            }
        }
        let theirs_now = self.region.now_ms().saturating_add_signed(self.ahead_ms);
        self.heard.retain(|_, until| *until > theirs_now);
        Ok(())
    }

    fn hear(&mut self, text: &str) {
        let Ok(said) = serde_json::from_str::<Said>(text) else {
            return;
        };
        if said.from == self.name {
            return;
        }
        let key = (said.kind, said.name.clone());
        if self.heard.insert(key, said.until_ms) == Some(said.until_ms) {
            return;
        }
        let until = said.until_ms.saturating_add_signed(-self.ahead_ms);
        let now = self.region.now_ms();
        if until <= now {
            return;
        }
        if let Some(mut told) = said.verdict {
            told.for_ms = until - now;
            told.from = said.from;
            if self.to_prober.send(told).is_ok() {
                self.figures.heard.fetch_add(1, Relaxed);
            }
            return;
        }
        let Some(subject) = self.subjects.get_mut(&said.name) else {
            return;
        };
        self.figures.heard.fetch_add(1, Relaxed);
        match said.kind {
            Kind::Cooling => {
                subject.cooling_until = subject.cooling_until.max(until);
                self.region.cool_down(subject.row, until);
            }
            Kind::Breaker if may_be_ours(&said.failure) => {
                self.region.suspect_deployment(subject.row, subject.failures);
            }
            Kind::Breaker => {
                if self.region.open_breaker(subject.row, until) {
                    subject.open_until = until;
                    tracing::warn!(
                        deployment = said.name,
                        instance = said.from,
                        failure = said.failure,
                        "the breaker opens: another instance's has"
                    );
                }
            }
            Kind::Verdict => {}
        }
    }
}

async fn ended(stop: &mut watch::Receiver<bool>) {
    let _ = stop.wait_for(|s| *s).await;
}

/// Passes on what is told, as long as somebody wants it.
async fn listen(shared: Shared, messages: mpsc::UnboundedSender<String>, hears: Arc<AtomicBool>) {
    for attempt in 0.. {
        if let Some(Ok(options)) = shared.options() {
            let channel = shared.key(CHANNEL);
            let way = format!("{:?}", shared.settings().redis);
            if let Ok(mut listener) = options.subscribe(attempt, &channel).await {
                let mut stream = listener.on_message();
                hears.store(true, Relaxed);
                loop {
                    // Another Redis in the settings takes another connection.
                    let Ok(message) = tokio::time::timeout(READ_DEAF, stream.next()).await else {
                        if format!("{:?}", shared.settings().redis) != way {
                            break;
                        }
                        continue;
                    };
                    let Some(message) = message else { break };
                    if let Ok(text) = message.get_payload::<String>()
                        && messages.send(text).is_err()
                    {
                        return;
                    }
                }
            }
        }
        hears.store(false, Relaxed);
        tokio::time::sleep(AGAIN).await;
    }
}
