//! Takes sets of documents, makes snapshots of those without errors and publishes them.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tollgate_policy::documents::Documents;
use tollgate_policy::{CompileInput, CountingInput, Problem, SecretRef, compile};
use tollgate_shm::{Region, SnapshotFiles};
use xxhash_rust::xxh3::xxh3_128;

use super::authorities::Authorities;
use super::parsed::{Parsed, parse_set};
use super::resolve::{Answers, Resolver, ask};
use super::{Active, ConfigSource, ConfigStatus, DocumentSet, Fixed, LastGood, StateFolder, StatusWatch};
use crate::counting::{Counting, Look};
use crate::secrets::Sealer;

/// Problems that are logged at a time.
const MOST_LOGGED: usize = 20;
/// Longest time between two looks at named credentials and certificates.
const ASK_AGAIN: Duration = Duration::from_secs(30);
/// The same while a name has no address at all, or something could not be written.
const RETRY: Duration = Duration::from_secs(2);
/// Names whose answers end within this time are asked for together, and never sooner than [`LEAST`] after the last ones.
const TOGETHER: Duration = Duration::from_millis(250);
const LEAST: Duration = Duration::from_millis(250);
/// Time between two looks at the tokenizers' folders.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Part of every fingerprint: another version compiles anew.
const FINGERPRINT: &str = concat!("tollgate/", env!("CARGO_PKG_VERSION"));

async fn raised(stop: &mut watch::Receiver<bool>) {
    // An error means that nobody is left who could stop us, which comes to the same.
    let _ = stop.wait_for(|s| *s).await;
}

/// Answers that were asked for; never, if none were.
async fn finished(asking: &mut Option<JoinHandle<Answers>>) -> Answers {
    match asking {
        Some(task) => task.await.unwrap_or_default(),
        None => std::future::pending().await,
    }
}

/// Tokenizers that are being compiled; never, if none are.
async fn compiled(compiling: &mut Option<JoinHandle<()>>) {
    match compiling {
        Some(task) => {
            let _ = task.await;
        }
        None => std::future::pending().await,
    }
}

/// Publishes what a source says.
pub struct Publisher {
    source: Arc<dyn ConfigSource>,
    documents: watch::Receiver<Arc<DocumentSet>>,
    region: Arc<Region>,
    files: SnapshotFiles,
    state: StateFolder,
    sealer: Sealer,
    counting: Counting,
    /// Tokenizers are compiled beside everything else: that takes seconds, and until then others stand in for them.
    compiling: Option<JoinHandle<()>>,
    /// The set that the source was last told of.
    told: Option<Arc<DocumentSet>>,
    /// The source is being told.
    adopting: Option<JoinHandle<()>>,
    /// Whether a set of this life's has been looked at: from then on the status says what is in force.
    looked: bool,
    resolver: Resolver,
    /// Time until names are asked for again.
    again: Duration,
    parsed: Option<Parsed>,
    last: LastGood,
    status: watch::Sender<Arc<ConfigStatus>>,
    logged: Vec<Problem>,
}

fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

impl Publisher {
    /// A publisher that goes on with what the region, or else the state folder, says was in force.
    pub fn new(
        source: Arc<dyn ConfigSource>,
        region: Arc<Region>,
        state: StateFolder,
        sealer: Sealer,
        counting: Counting,
    ) -> Publisher {
        let files = SnapshotFiles::new(region.dir());
        let mut publisher = Publisher {
            documents: source.documents(),
            source,
            files,
            last: state.last_good(),
            state,
            sealer,
            counting,
            compiling: None,
            told: None,
            adopting: None,
            looked: false,
            resolver: Resolver::default(),
            again: RETRY,
            parsed: None,
            status: watch::Sender::default(),
            logged: Vec::new(),
            region,
        };
        if let Some(active) = publisher.adopt() {
            let mut status = ConfigStatus::default();
            status.activate(active);
            publisher.status.send_replace(Arc::new(status));
        }
        publisher
    }

    /// Where to see how it goes.
    pub fn status(&self) -> StatusWatch {
        self.status.subscribe()
    }

    /// The region's snapshot; in a new region the one from the state folder, which is published at once, so that nginx
    /// has a configuration even if the documents turn out to be wrong.
    fn adopt(&mut self) -> Option<Active> {
        let mut generation = self.region.generation();
        if generation == 0 {
            let bytes = self.state.last_snapshot()?;
            generation = tollgate_policy::Snapshot::open(&bytes).ok()?.generation();
            if let Err(error) = self.files.write(generation, &bytes) {
                tracing::warn!(%error, "the last snapshot cannot be put into the region's folder");
                return None;
            }
            self.region.publish(generation);
            tracing::info!(generation, "published the last good configuration");
        }
        let file = self.files.open(generation).map_err(|e| e.to_string());
        match file.and_then(Active::new) {
            Ok(active) if active.generation() == generation => Some(active),
            Ok(_) | Err(_) => {
                // Workers cannot use it either: whatever comes next is new.
                self.last.fingerprint.clear();
                None
            }
        }
    }

    /// Publishes every set until `stop` changes. Names are asked for beside that, so that a slow name server delays no
    /// change of the documents.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        let mut asking: Option<JoinHandle<Answers>> = None;
        let mut ask_at = Instant::now() + self.again;
        let mut look_at = Instant::now() + LOOK_AGAIN;
        self.counting.tokenizers.changed();
        loop {
            let relief_ends = self.end_of_relief();
            tokio::select! {
                biased;
                () = raised(&mut stop) => {
                    if let Some(adopting) = self.adopting.take() {
                        let _ = adopting.await;
                    }
                    return;
                }
                changed = self.documents.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.take_present().await;
                    ask_at = self.next_question();
                }
                answers = finished(&mut asking) => {
                    asking = None;
                    self.resolver.learn(answers);
                    self.take_present().await;
                    ask_at = self.next_question();
                }
                () = compiled(&mut self.compiling) => {
                    self.compiling = None;
                    self.take_present().await;
                }
                () = tokio::time::sleep_until(relief_ends) => self.take_present().await,
                () = tokio::time::sleep_until(look_at) => {
                    if self.counting.tokenizers.changed() {
                        self.take_present().await;
                    }
                    look_at = Instant::now() + LOOK_AGAIN;
                }
                () = tokio::time::sleep_until(ask_at), if asking.is_none() => {
                    // Those that are due within a moment come along.
                    let until = std::time::Instant::now() + TOGETHER;
                    let parsed = self.parsed.as_ref();
                    let names = parsed.map(|p| self.resolver.due(&p.upstreams, until)).unwrap_or_default();
                    let servers = parsed.map(|p| p.settings.resolver.nameservers.clone()).unwrap_or_default();
                    asking = Some(tokio::spawn(async move { ask(names, &servers).await }));
                }
            }
        }
    }

    /// When names are to be asked for: when the first answer does not hold any more, and now and then for the rest of what
    /// is looked at then.
    fn next_question(&self) -> Instant {
        let due = self
            .parsed
            .as_ref()
            .and_then(|p| self.resolver.next_due(&p.upstreams));
        let soonest = Instant::now() + LEAST;
        let latest = Instant::now() + self.again;
        due.map_or(latest, |due| Instant::from_std(due).min(latest))
            .max(soonest)
    }

    /// When the next limit that was topped up has its written maximum again: then it is compiled anew.
    fn end_of_relief(&self) -> Instant {
        let now_ms = unix_ms();
        let next = self.parsed.as_ref().and_then(|p| p.relief_at(now_ms).1);
        Instant::now()
            + next.map_or(ASK_AGAIN, |end| {
                Duration::from_millis(end - now_ms).min(ASK_AGAIN)
            })
    }

    /// Makes the source's present set take effect if it can.
    pub async fn take_present(&mut self) {
        let set = Arc::clone(&self.documents.borrow_and_update());
        let known = |p: &Parsed| Arc::ptr_eq(&p.read, &set) || p.read.same_content(&set);
        let (parsed, documents) = match self.parsed.take().filter(known) {
            Some(mut parsed) => {
                parsed.renumber(set);
                (parsed, None)
            }
            None => {
                let (parsed, documents) =
                    Parsed::new(set, &*self.source, &self.sealer.key, self.region.sizes());
                (parsed, Some(documents))
            }
        };
        let mut problems = parsed.problems.clone();
        let mut in_force = false;
        let mut fresh = None;
        self.again = ASK_AGAIN;
        if !problems.iter().any(Problem::is_error) {
            let unknown = self.resolver.unknown(&parsed.upstreams);
            if !unknown.is_empty() {
                let servers = &parsed.settings.resolver.nameservers;
                self.resolver.learn(ask(unknown, servers).await);
            }
            for (host, reason) in self.resolver.failures(&parsed.upstreams) {
                self.again = RETRY;
                problems.push(Problem::warning(
                    "",
                    "",
                    format!("`{host}` cannot be resolved: {reason}"),
                ));
            }
            let mut look = self.counting.tokenizers.look(&parsed.tokenizers);
            problems.append(&mut look.problems);
            self.compile_missing(&look);
            match self.publish(&parsed, documents, &look) {
                Ok(active) => (in_force, fresh) = (true, active),
                Err(more) => {
                    self.again = RETRY;
                    problems.extend(more);
                }
            }
        }
        self.log(&problems, in_force);
        if in_force {
            self.tell(&parsed.set);
        }
        let former = (!in_force && !self.looked).then(|| self.former()).flatten();
        self.looked = true;
        self.status.send_modify(|status| {
            let mut next = ConfigStatus::clone(status);
            if let Some(former) = &former {
                next.settings = Arc::clone(&former.settings);
                next.rules = Arc::clone(&former.rules);
                next.targets = Arc::clone(&former.targets);
                next.overrides = Arc::clone(&former.overrides);
                next.version = former.set.version;
            }
            next.looks += 1;
            next.documents = Arc::clone(&parsed.set);
            next.in_force = in_force;
            next.problems = Arc::new(problems);
            if in_force {
                next.settings = Arc::clone(&parsed.settings);
                next.rules = Arc::clone(&parsed.rules);
                next.targets = Arc::clone(&parsed.targets);
                next.overrides = Arc::clone(&parsed.overrides);
                next.version = parsed.set.version;
            }
            if let Some(active) = fresh {
                next.activate(active);
            }
            *status = Arc::new(next);
        });
        self.parsed = Some(parsed);
    }

    /// Tells the source what has taken effect, one set after the other.
    fn tell(&mut self, set: &Arc<DocumentSet>) {
        if self.told.as_ref().is_some_and(|told| Arc::ptr_eq(told, set)) {
            return;
        }
        self.told = Some(Arc::clone(set));
        let (source, set, former) = (Arc::clone(&self.source), Arc::clone(set), self.adopting.take());
        self.adopting = Some(tokio::spawn(async move {
            if let Some(former) = former {
                let _ = former.await;
            }
            let _ = tokio::task::spawn_blocking(move || source.adopt(&set)).await;
        }));
    }

    /// What is known of the documents that were last in force, for a start with documents that are wrong: the ledger
    /// must not go by default settings then, nor probes end.
    fn former(&self) -> Option<Parsed> {
        let set = Arc::new(self.source.last_good()?);
        let (parsed, _) = Parsed::new(
            set,
            &Fixed::new(Vec::new()),
            &self.sealer.key,
            self.region.sizes(),
        );
        (!parsed.problems.iter().any(Problem::is_error)).then_some(parsed)
    }

    fn compile_missing(&mut self, look: &Look) {
        if self.compiling.is_some() || look.missing.is_empty() {
            return;
        }
        let (tokenizers, missing) = (Arc::clone(&self.counting.tokenizers), look.missing.clone());
        self.compiling = Some(tokio::task::spawn_blocking(move || {
            for name in missing {
                tokenizers.compile(&name);
            }
        }));
    }

    /// Compiles and publishes; parses the documents for that if they are not at hand. `Ok(None)` if that is what is in
    /// force already.
    fn publish(
        &mut self,
        parsed: &Parsed,
        documents: Option<Documents>,
        look: &Look,
    ) -> Result<Option<Active>, Vec<Problem>> {
        let addresses = self.resolver.addresses(&parsed.upstreams);
        let credentials = self.sealer.fingerprint(
            parsed
                .upstreams
                .iter()
                .flat_map(|u| &u.key_refs)
                .map(String::as_str),
        );
        let files = parsed.upstreams.iter().filter_map(|u| u.ca_file.as_deref());
        let authorities = Authorities::read(files);
        let learner = Arc::clone(&self.counting.learner);
        let learned = learner.factors();
        let now_ms = unix_ms();
        let (ended, _) = parsed.relief_at(now_ms);
        let inputs = format!(
            "{FINGERPRINT} {:032x} {ended} {credentials} {:032x} {addresses:?} {:?} {learned:?}",
            parsed.content,
            authorities.fingerprint(),
            look.ready
        );
        let fingerprint = format!("{:032x}", xxh3_128(inputs.as_bytes()));
        let present = self.region.generation();
        if present > 0 && self.last.generation == present && self.last.fingerprint == fingerprint {
            return Ok(None);
        }
        let began = Instant::now();
        let documents = documents.unwrap_or_else(|| parse_set(&parsed.set).0);
        let generation = present.max(self.last.generation) + 1;
        let sealer = self.sealer.clone();
        let resolved = |id: &str| addresses.get(id).cloned().unwrap_or_default();
        let seal = move |id: &str, secret: SecretRef<'_>| sealer.seal(id, secret);
        let input = CompileInput {
            generation,
            created_unix_ms: now_ms,
            resolved: &resolved,
            authorities: &|path| authorities.of(path),
            counting: CountingInput {
                vocabulary: &|name| look.ready.get(name).cloned(),
                learned: &|model| learned.get(model).copied(),
            },
            seal: &seal,
        };
        let bytes = compile(&documents, &input)?;
        let compiled = began.elapsed();
        let last = LastGood {
            generation,
            fingerprint,
        };
        let handed = self.counting.tokenizers.hand_over(&look.ready, self.region.dir());
        let active = handed
            .and_then(|()| self.hand_over(&last, &bytes))
            .map_err(|error| {
                let reason = format!("generation {generation} cannot be published: {error}");
                vec![Problem::error("", "", reason)]
            })?;
        self.last = last;
        if let Some(snapshot) = active.snapshot() {
            for model in snapshot.models() {
                if let Some(view) = model.counting() {
                    learner.counts_with(model.name(), view.tokenizer());
                }
            }
        }
        tracing::info!(
            generation,
            channels = documents.channels.len(),
            models = documents.models.len(),
            bytes = bytes.len(),
            parse = ?parsed.took,
            compile = ?compiled,
            total = ?began.elapsed() + parsed.took,
            "published"
        );
        Ok(Some(active))
    }

    fn hand_over(&self, last: &LastGood, bytes: &[u8]) -> io::Result<Active> {
        self.state.remember(last)?;
        self.files.write(last.generation, bytes)?;
        let file = self.files.open(last.generation)?;
        let active = Active::new(file).map_err(io::Error::other)?;
        self.region.publish(last.generation);
        self.files.clean_up(last.generation)?;
        self.state.remember_snapshot(bytes)?;
        Ok(active)
    }

    /// Says what is wrong, each thing once and not more than [`MOST_LOGGED`] at a time, errors first.
    fn log(&mut self, problems: &[Problem], in_force: bool) {
        let (errors, warnings): (Vec<&Problem>, Vec<&Problem>) = problems.iter().partition(|p| p.is_error());
        let shown: Vec<Problem> = errors
            .into_iter()
            .chain(warnings)
            .take(MOST_LOGGED)
            .cloned()
            .collect();
        if self.logged == shown {
            return;
        }
        for problem in shown.iter().filter(|p| !self.logged.contains(p)) {
            let (document, path, hint) = (&problem.document, &problem.path, problem.hint.as_deref());
            if problem.is_error() {
                tracing::error!(document, path, hint, "{}", problem.reason);
            } else {
                tracing::warn!(document, path, hint, "{}", problem.reason);
            }
        }
        if problems.len() > shown.len() {
            let more = problems.len() - shown.len();
            tracing::warn!("and {more} more problems; `tollgate check` shows all");
        }
        if !in_force {
            tracing::error!(
                generation = self.region.generation(),
                "the documents have errors and do not take effect; what was in force stays so"
            );
        } else if self.logged.iter().any(Problem::is_error) {
            tracing::info!("the documents have no errors any more");
        }
        self.logged = shown;
    }
}
