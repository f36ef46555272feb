//! Takes sets of documents, makes snapshots of those without errors and publishes them.

use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;
use tollgate_policy::documents::Documents;
use tollgate_policy::{CompileInput, Kind, Problem, SecretRef, compile, hash_name, validate};
use tollgate_shm::{Region, SnapshotFiles};
use xxhash_rust::xxh3::Xxh3;

use super::resolve::{self, Answers};
use super::{
    Active, ConfigSource, ConfigStatus, Document, DocumentSet, LastGood, Resolver, StateFolder, StatusWatch,
    region_sizes, sealed,
};
use crate::secrets::Sealer;

/// Time between two questions for the addresses of providers.
const RESOLVE_AGAIN: Duration = Duration::from_secs(30);
/// The same while a name has no address at all, or something could not be written.
const RETRY: Duration = Duration::from_secs(2);
/// Part of every fingerprint: another version compiles anew.
const FINGERPRINT: &str = concat!("tollgate/", env!("CARGO_PKG_VERSION"));

/// Parses and validates a set. All problems, those of reading included.
pub fn parse_set(set: &DocumentSet) -> (Documents, Vec<Problem>) {
    let files: Vec<(String, &[u8])> = set
        .documents
        .iter()
        .map(|d| (d.name.clone(), &*d.bytes))
        .collect();
    let (documents, found) = Documents::parse(&files);
    let mut problems = set.problems.clone();
    problems.extend(found);
    problems.extend(validate(&documents));
    (documents, problems)
}

/// A set that has been looked at: what does not change until the next one comes.
struct Parsed {
    /// As it was read.
    read: Arc<DocumentSet>,
    /// With its credentials sealed.
    set: Arc<DocumentSet>,
    documents: Arc<Documents>,
    problems: Vec<Problem>,
}

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

/// Publishes what a source says.
pub struct Publisher {
    source: Arc<dyn ConfigSource>,
    documents: watch::Receiver<Arc<DocumentSet>>,
    region: Arc<Region>,
    files: SnapshotFiles,
    state: StateFolder,
    sealer: Sealer,
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
    ) -> Publisher {
        let files = SnapshotFiles::new(region.dir());
        let mut publisher = Publisher {
            documents: source.documents(),
            source,
            files,
            last: state.last_good(),
            state,
            sealer,
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
        loop {
            tokio::select! {
                biased;
                () = raised(&mut stop) => return,
                changed = self.documents.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    self.take_present().await;
                }
                answers = finished(&mut asking) => {
                    asking = None;
                    self.resolver.learn(answers);
                    self.take_present().await;
                    ask_at = Instant::now() + self.again;
                }
                () = tokio::time::sleep_until(ask_at), if asking.is_none() => {
                    let names = self.parsed.as_ref().map(|p| resolve::names(&p.documents));
                    asking = Some(tokio::spawn(resolve::ask(names.unwrap_or_default())));
                }
            }
        }
    }

    /// Makes the source's present set take effect if it can.
    pub async fn take_present(&mut self) {
        let set = Arc::clone(&self.documents.borrow_and_update());
        let parsed = match self.parsed.take() {
            Some(parsed) if Arc::ptr_eq(&parsed.read, &set) => parsed,
            _ => self.parse(set),
        };
        let documents = &*parsed.documents;
        let mut problems = parsed.problems.clone();
        let mut in_force = false;
        let mut fresh = None;
        self.again = RESOLVE_AGAIN;
        if !problems.iter().any(Problem::is_error) {
            let unknown = self.resolver.unknown(documents);
            if !unknown.is_empty() {
                self.resolver.learn(resolve::ask(unknown).await);
            }
            for (host, reason) in self.resolver.failures(documents) {
                self.again = RETRY;
                problems.push(Problem::warning(
                    "",
                    "",
                    format!("`{host}` cannot be resolved: {reason}"),
                ));
            }
            match self.publish(&parsed.set, documents) {
                Ok(active) => (in_force, fresh) = (true, active),
                Err(more) => {
                    self.again = RETRY;
                    problems.extend(more);
                }
            }
        }
        self.log(&problems, in_force);
        self.status.send_modify(|status| {
            let mut next = ConfigStatus::clone(status);
            next.looks += 1;
            next.documents = Arc::clone(&parsed.set);
            next.in_force = in_force;
            next.problems = Arc::new(problems);
            if in_force {
                next.settings = Arc::new(documents.settings());
                let names = documents.rules.iter().map(|r| r.value.name.clone());
                next.rules = Arc::new(names.map(|n| (hash_name(n.as_bytes()), n)).collect());
            }
            if let Some(active) = fresh {
                next.activate(active);
            }
            *status = Arc::new(next);
        });
        self.parsed = Some(parsed);
    }

    fn parse(&self, read: Arc<DocumentSet>) -> Parsed {
        let mut set = Arc::clone(&read);
        let mut notes = self.seal_documents(&mut set);
        let (documents, mut problems) = parse_set(&set);
        problems.append(&mut notes);
        self.compare_sizes(&documents, &mut problems);
        Parsed {
            read,
            set,
            documents: Arc::new(documents),
            problems,
        }
    }

    /// Replaces credentials in the clear by sealed ones, in the source if it lets us.
    fn seal_documents(&self, set: &mut Arc<DocumentSet>) -> Vec<Problem> {
        let mut notes = Vec::new();
        let providers: Vec<Document> = set
            .documents
            .iter()
            .filter(|d| d.kind() == Some(Kind::Providers))
            .cloned()
            .collect();
        for document in providers {
            let bytes = match sealed(&document.bytes, &self.sealer.key) {
                Ok(None) => continue,
                Ok(Some(bytes)) => bytes,
                Err(error) => {
                    notes.push(Problem::error(
                        document.name,
                        "",
                        format!("cannot seal a credential: {error}"),
                    ));
                    continue;
                }
            };
            match self.source.put(&document.name, &bytes, Some(&document.etag)) {
                Ok(()) => {
                    tracing::info!(
                        document = document.name,
                        "replaced credentials in the clear by sealed ones"
                    );
                    *set = Arc::new(set.with(Document::new(document.name, bytes)));
                }
                Err(error) => {
                    let reason = format!("holds a credential in the clear, and {error}");
                    notes.push(Problem::warning(document.name, "", reason));
                }
            }
        }
        notes
    }

    fn compare_sizes(&self, documents: &Documents, problems: &mut Vec<Problem>) {
        let wanted = region_sizes(&documents.settings());
        let present = self.region.sizes();
        let differs = |wanted: u32, present: u32| wanted > present || wanted.saturating_mul(2) <= present;
        if differs(wanted.counters, present.counters)
            || differs(wanted.inflight, present.inflight)
            || differs(wanted.ring, present.ring)
            || differs(wanted.usage, present.usage)
        {
            let Some(settings) = &documents.settings else {
                return;
            };
            let reason = "the region has other sizes; they take effect when it is made anew, with nginx and the daemon stopped";
            let document = settings.at.document.to_string();
            problems.push(Problem::warning(document, settings.at.path("region"), reason));
        }
    }

    /// Compiles and publishes. `Ok(None)` if that is what is in force already.
    fn publish(&mut self, set: &DocumentSet, documents: &Documents) -> Result<Option<Active>, Vec<Problem>> {
        let addresses = self.resolver.addresses(documents);
        let mut hash = Xxh3::new();
        hash.update(FINGERPRINT.as_bytes());
        for d in &set.documents {
            for part in [d.name.as_bytes(), &*d.bytes] {
                hash.update(&part.len().to_le_bytes());
                hash.update(part);
            }
        }
        hash.update(format!("{addresses:?}").as_bytes());
        let fingerprint = format!("{:032x}", hash.digest128());
        let present = self.region.generation();
        if present > 0
            && self.last
                == (LastGood {
                    generation: present,
                    fingerprint: fingerprint.clone(),
                })
        {
            return Ok(None);
        }
        let generation = present.max(self.last.generation) + 1;
        let sealer = self.sealer.clone();
        let resolved = |id: &str| addresses.get(id).cloned().unwrap_or_default();
        let seal = move |id: &str, secret: SecretRef<'_>| sealer.seal(id, secret);
        let input = CompileInput {
            generation,
            created_unix_ms: unix_ms(),
            resolved: &resolved,
            seal: &seal,
        };
        let bytes = compile(documents, &input)?;
        let last = LastGood {
            generation,
            fingerprint,
        };
        let active = self.hand_over(&last, &bytes).map_err(|error| {
            let reason = format!("generation {generation} cannot be published: {error}");
            vec![Problem::error("", "", reason)]
        })?;
        self.last = last;
        tracing::info!(
            generation,
            channels = documents.channels.len(),
            models = documents.models.len(),
            bytes = bytes.len(),
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

    /// Says what is wrong, each thing once.
    fn log(&mut self, problems: &[Problem], in_force: bool) {
        if self.logged == problems {
            return;
        }
        for problem in problems.iter().filter(|p| !self.logged.contains(p)) {
            let (document, path, hint) = (&problem.document, &problem.path, problem.hint.as_deref());
            if problem.is_error() {
                tracing::error!(document, path, hint, "{}", problem.reason);
            } else {
                tracing::warn!(document, path, hint, "{}", problem.reason);
            }
        }
        if !in_force {
            tracing::error!(
                generation = self.region.generation(),
                "the documents have errors and do not take effect; what was in force stays so"
            );
        } else if self.logged.iter().any(Problem::is_error) {
            tracing::info!("the documents have no errors any more");
        }
        self.logged = problems.to_vec();
    }
}
