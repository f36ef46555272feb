//! What Nacos has, as one consistent set after another.
//!
//! A change is told by the server and looked for once a second besides (the manifest: one small content), because what
//! happens while a connection is down is not told. Everything is read anew after an outage and from time to time. A
//! document that is not what the manifest says is part of a publication that goes on, which is waited for; the rest of
//! one that was broken off, which is not taken; or an edit by hand, which is taken when it has stood for a moment.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tollgate_policy::{Kind, Problem};

use super::claim::{Claim, LIFETIME};
use super::client::{Client, NacosError};
use super::publish::{ManifestError, manifest};
use super::{GROUP, MANIFEST, NacosOptions, VERSIONS, content_id};
use crate::config::{Document, DocumentSet, Version, document_of};

/// Time between two looks at the manifest, and at documents that are not there: the library does not tell of the first
/// content of a data id.
const LOOK: Duration = Duration::from_millis(700);
/// Time between two looks at everything.
const FULL_LOOK: Duration = Duration::from_secs(30);
/// The same for a while after an outage, in which the library does not listen yet.
const CLOSE_LOOK: Duration = Duration::from_secs(3);
/// How long after an outage that is.
const DEAF: Duration = Duration::from_secs(75);
/// How long an edit by hand stands before it is taken, and how soon it is looked at again until then.
const SETTLE: Duration = Duration::from_millis(150);
/// Outages that are shorter are nobody's business.
const SILENCE: Duration = Duration::from_secs(4);
/// Contents that are asked for at a time.
const AT_ONCE: usize = 8;

/// Follows Nacos.
pub(super) struct Watcher {
    client: Arc<Client>,
    instance: String,
    namespace: String,
    documents: watch::Sender<Arc<DocumentSet>>,
    changed: mpsc::UnboundedSender<String>,
    found: BTreeMap<String, Document>,
    listened: BTreeSet<String>,
    /// Documents that are not what the manifest says, and since when they are what they are.
    edited: (BTreeMap<String, Option<Document>>, Instant),
    /// The claim that is waited for.
    claim: (String, Instant),
    full_at: Instant,
    failing_since: Option<Instant>,
    /// What was last told of an outage: the same in other words is nothing new.
    told: Option<std::mem::Discriminant<NacosError>>,
    deaf_until: Instant,
}

/// What a look came to.
enum Look {
    /// The set.
    Set(DocumentSet),
    /// Something is going on; look again soon.
    Again,
}

impl Watcher {
    pub fn new(
        client: Arc<Client>,
        options: &NacosOptions,
        documents: watch::Sender<Arc<DocumentSet>>,
        changed: mpsc::UnboundedSender<String>,
    ) -> Watcher {
        let now = Instant::now();
        Watcher {
            client,
            instance: options.instance.clone(),
            namespace: options.namespace.clone(),
            documents,
            changed,
            found: BTreeMap::new(),
            listened: BTreeSet::new(),
            edited: (BTreeMap::new(), now),
            claim: (String::new(), now),
            full_at: now,
            failing_since: None,
            told: None,
            deaf_until: now,
        }
    }

    /// Looks until `stop`. `looked` is told after the first look, whatever came of it.
    pub async fn run(
        mut self,
        mut told: mpsc::UnboundedReceiver<String>,
        looked: std::sync::mpsc::Sender<()>,
        mut stop: watch::Receiver<bool>,
    ) {
        let mut dirty: BTreeSet<String> = BTreeSet::new();
        loop {
            let full = Instant::now() >= self.full_at;
            let look = self.look(&dirty, full).await;
            let _ = looked.send(());
            let pause = match look {
                Ok(Look::Set(set)) => {
                    self.announce(set);
                    LOOK
                }
                Ok(Look::Again) if self.failing_since.is_some() => LOOK,
                Ok(Look::Again) => SETTLE,
                Err(problem) => {
                    self.announce_failure(problem);
                    LOOK
                }
            };
            if self.failing_since.is_none() {
                dirty.clear();
            }
            tokio::select! {
                id = told.recv() => {
                    dirty.extend(id);
                    while let Ok(id) = told.try_recv() {
                        dirty.insert(id);
                    }
                }
                () = tokio::time::sleep(pause) => {}
                _ = stop.wait_for(|s| *s) => return,
            }
        }
    }

    /// Names that documents may have, whether they are there or not.
    fn names(&self, manifest: Option<&Version>) -> BTreeSet<String> {
        let mut names: BTreeSet<String> = Kind::ALL
            .iter()
            .map(|kind| format!("tollgate.{}.json", kind.name()))
            .collect();
        names.insert(document_of(&self.instance));
        names.extend(manifest.iter().flat_map(|v| v.documents.keys().cloned()));
        names
    }

    async fn look(&mut self, dirty: &BTreeSet<String>, full: bool) -> Result<Look, Problem> {
        let read = self.read(dirty, full).await;
        match read {
            Ok(version) => {
                self.told = None;
                if self
                    .failing_since
                    .take()
                    .is_some_and(|since| since.elapsed() > SILENCE)
                {
                    tracing::info!("Nacos answers again");
                }
                Ok(self.judge(version).await)
            }
            Err(ManifestError::Content(error)) => {
                Err(Problem::error(MANIFEST, "", format!("cannot be used: {error}")))
            }
            Err(ManifestError::Nacos(error)) => {
                let now = Instant::now();
                let since = *self.failing_since.get_or_insert(now);
                let silent = since.elapsed() < SILENCE && !self.found.is_empty();
                let kind = std::mem::discriminant(&error);
                self.full_at = now;
                self.deaf_until = now + DEAF;
                if silent || self.told.replace(kind) == Some(kind) {
                    return Ok(Look::Again);
                }
                Err(outage(&error, self.known()))
            }
        }
    }

    /// Whether there are documents to go on with.
    fn known(&self) -> bool {
        !self.documents.borrow().documents.is_empty()
    }

    /// Reads the manifest and whatever may have changed.
    async fn read(&mut self, dirty: &BTreeSet<String>, full: bool) -> Result<Option<Version>, ManifestError> {
        let version = manifest(&self.client).await?.map(|(version, _)| version);
        let names = self.names(version.as_ref());
        let changed = |name: &String| {
            let known = self.found.get(name).map(|d| &d.etag);
            let wanted = version.as_ref().and_then(|v| v.documents.get(name));
            full || dirty.contains(name)
                || self.edited.0.contains_key(name)
                || known.is_none()
                || wanted.is_some_and(|w| known != Some(w))
        };
        let wanted: Vec<String> = names.iter().filter(|name| changed(name)).cloned().collect();
        self.fetch(&wanted).await.map_err(ManifestError::Nacos)?;
        self.found.retain(|name, _| names.contains(name));
        for name in names.iter().chain([&MANIFEST.to_owned()]) {
            if !self.listened.contains(name) {
                let listening = self.client.listen(GROUP, name, &self.changed).await;
                listening.map_err(ManifestError::Nacos)?;
                self.listened.insert(name.clone());
            }
        }
        if full {
            let deaf = Instant::now() < self.deaf_until;
            self.full_at = Instant::now() + if deaf { CLOSE_LOOK } else { FULL_LOOK };
        }
        Ok(version)
    }

    async fn fetch(&mut self, names: &[String]) -> Result<(), NacosError> {
        for some in names.chunks(AT_ONCE) {
            let mut asking = JoinSet::new();
            for name in some.iter().cloned() {
                let client = Arc::clone(&self.client);
                asking.spawn(async move {
                    let read = client.get(GROUP, &name).await;
                    (name, read)
                });
            }
            while let Some(asked) = asking.join_next().await {
                let (name, read) = asked.map_err(|e| NacosError::Failed(e.to_string()))?;
                match read? {
                    Some(read) => {
                        let document = Document::new(name.clone(), read.text.into_bytes());
                        self.found.insert(name, document);
                    }
                    None => {
                        self.found.remove(&name);
                    }
                }
            }
        }
        Ok(())
    }

    /// Makes a set of what was read, if it is a consistent one.
    async fn judge(&mut self, version: Option<Version>) -> Look {
        let Some(version) = version else {
            // Nobody has published through us yet: what is there was written by hand.
            let mut set = self.set(self.found.values().cloned());
            if set.documents.is_empty() {
                let reason = format!(
                    "there are no documents in the group {GROUP} of the namespace `{}`; publish some with \
                     `tollgate config publish`, or look whether it is the right namespace",
                    self.namespace
                );
                set.problems.push(Problem::error("", "", reason));
            }
            return Look::Set(set);
        };
        let edited: BTreeMap<String, Option<Document>> = self
            .names(Some(&version))
            .into_iter()
            .filter(|name| version.documents.get(name) != self.found.get(name).map(|d| &d.etag))
            .map(|name| (name.clone(), self.found.get(&name).cloned()))
            .collect();
        if edited.is_empty() {
            self.edited.0.clear();
            let mut set = self.set(self.found.values().cloned());
            set.version = Some(version.number);
            return Look::Set(set);
        }
        let Ok(claim) = Claim::read(&self.client).await else {
            return Look::Again;
        };
        if claim.nonce != self.claim.0 {
            self.claim = (claim.nonce.clone(), Instant::now());
        }
        let broken_off = self.claim.1.elapsed() > LIFETIME;
        if self.edited.0 != edited || (!claim.is_free() && !broken_off) {
            self.edited = (edited, Instant::now());
            return Look::Again;
        }
        if self.edited.1.elapsed() < SETTLE {
            return Look::Again;
        }
        self.with_edits(&version, &claim, &edited).await
    }

    /// The documents of the manifest with what was edited by hand.
    async fn with_edits(
        &self,
        version: &Version,
        claim: &Claim,
        edited: &BTreeMap<String, Option<Document>>,
    ) -> Look {
        let mut problems = Vec::new();
        let mut documents = self.found.clone();
        for (name, document) in edited {
            let etag = document.as_ref().map(|d| d.etag.clone());
            let unfinished = !claim.is_free() && claim.documents.get(name) == Some(&etag);
            let wanted = version.documents.get(name);
            if unfinished {
                let reason = format!(
                    "a publication by `{}` was broken off; publish it again, or roll back to version {}",
                    claim.owner, version.number
                );
                problems.push(Problem::warning(name, "", reason));
                let former = match wanted {
                    Some(etag) => match self.client.get(VERSIONS, &content_id(etag)).await {
                        Ok(read) => read,
                        Err(_) => return Look::Again,
                    },
                    None => None,
                };
                match former {
                    Some(read) => {
                        let former = Document::new(name.clone(), read.text.into_bytes());
                        documents.insert(name.clone(), former);
                    }
                    None => {
                        documents.remove(name);
                    }
                }
            } else if document.is_none() {
                let reason = format!(
                    "was deleted in Nacos, but belongs to version {}; take it away by publishing, or roll back",
                    version.number
                );
                problems.push(Problem::error(name, "", reason));
            }
        }
        let mut set = self.set(documents.into_values());
        set.problems = problems;
        let same = set.documents.len() == version.documents.len()
            && set
                .documents
                .iter()
                .all(|d| version.documents.get(&d.name) == Some(&d.etag));
        set.version = same.then_some(version.number);
        Look::Set(set)
    }

    fn set(&self, documents: impl Iterator<Item = Document>) -> DocumentSet {
        DocumentSet {
            documents: documents.collect(),
            instance: Some(self.instance.clone()),
            ..DocumentSet::default()
        }
    }

    fn announce(&self, set: DocumentSet) {
        self.documents.send_if_modified(|present| {
            let differs = **present != set;
            if differs {
                *present = Arc::new(set);
            }
            differs
        });
    }

    /// The documents stay what they were.
    fn announce_failure(&self, problem: Problem) {
        let mut set = DocumentSet::clone(&self.documents.borrow());
        set.problems = vec![problem];
        self.announce(set);
    }
}

/// What an operator is told of an outage: no error as long as there is something to go on with.
fn outage(error: &NacosError, known: bool) -> Problem {
    if known {
        let reason = format!("{error}; what was last in force stays in force");
        Problem::warning("", "", reason)
    } else {
        Problem::error("", "", error.to_string())
    }
}
