//! Documents in Nacos, shared by all instances: the group `TOLLGATE` has one data id per document and a manifest of
//! the version that they are; the group `TOLLGATE_VERSIONS` has every version's record and each content under its hash.
//!
//! Everything talks to Nacos on a thread of its own: whoever publishes or asks for a version waits for that thread, and
//! whoever only wants the documents waits for nobody.

mod claim;
mod client;
mod login;
mod publish;
mod remember;
mod watch;

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::RecvTimeoutError;
use std::thread::JoinHandle;
use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::runtime::Handle;
use tokio::sync::{mpsc, watch as watched};
use tollgate_policy::Problem;

pub use login::Account;

pub use client::props;

use claim::Claim;
use client::{Client, NacosError};
use remember::Memory;
use watch::Watcher;

use super::versions::decode;
use super::{
    Change, ConfigSource, DocumentSet, Edit, Etag, Expected, PutError, SourceHealth, Version, Versions,
    VersionsError,
};

/// Group of the documents.
const GROUP: &str = "TOLLGATE";
/// Group of what was ever published.
const VERSIONS: &str = "TOLLGATE_VERSIONS";
/// The record of the present version.
const MANIFEST: &str = "tollgate.manifest.json";
/// See [`claim`].
const CLAIM: &str = "tollgate.claim.json";
/// Largest document. The client library takes no message of more than 4 MiB, and texts grow when they are sent.
const MOST_BYTES: usize = 1 << 20;
/// Longest wait for the first look, and for a version.
const PATIENCE: Duration = Duration::from_secs(8);
/// Times at which instances make what was edited by hand a version: this far from each other, so many.
const ADOPT: Duration = Duration::from_millis(150);
const ADOPTERS: u64 = 16;
/// Longest wait for a publication: it may wait for others'.
const PUBLISHING: Duration = Duration::from_secs(60);

fn version_id(number: u64) -> String {
    format!("tollgate.version.{number}.json")
}

fn content_id(etag: &Etag) -> String {
    format!("tollgate.content.{}", etag.as_str())
}

/// Where Nacos is, and who we are.
#[derive(Clone, Debug)]
pub struct NacosOptions {
    /// `host:port` of its servers; each one's gRPC port is 1,000 higher.
    pub servers: Vec<String>,
    /// Namespace; empty for `public`.
    pub namespace: String,
    /// Who logs in; nobody if Nacos asks for nobody.
    pub account: Option<Account>,
    /// This instance's name: different for each.
    pub instance: String,
}

impl NacosOptions {
    /// The servers of a list such as `http://one:8848,two`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn servers(text: &str) -> Result<Vec<String>, String> {
        let mut servers = Vec::new();
        for part in text.split(',').map(str::trim).filter(|p| !p.is_empty()) {
            if part.starts_with("https://") {
                return Err(format!("`{part}`: TLS to Nacos is not supported"));
            }
            let host = part.strip_prefix("http://").unwrap_or(part);
            let host = host.strip_suffix("/nacos").unwrap_or(host).trim_end_matches('/');
            if host.is_empty() || host.contains(['/', '@', ' ', '?']) {
                return Err(format!(
                    "`{part}` is no address of Nacos: expected http://host:port"
                ));
            }
            servers.push(if host.contains(':') {
                host.to_owned()
            } else {
                format!("{host}:8848")
            });
        }
        if servers.is_empty() {
            return Err("there is no address of Nacos".to_owned());
        }
        Ok(servers)
    }
}

/// A lock in front of the claim, for a store that has real ones: whoever publishes holds it while it claims.
pub trait PublicationLock: Send + Sync {
    /// Waits for the lock, to write these documents; it is given back when the result is dropped. `None`: there is no such store now, and
    /// the claim alone decides. May block.
    ///
    /// # Errors
    /// If it cannot be had for now.
    fn lock(&self, documents: &[String]) -> Result<Option<Arc<dyn PublicationGuard>>, PutError>;
}

/// A lock that is held.
pub trait PublicationGuard: Send + Sync {
    /// Whether it still is, and nobody who had it later has begun to write the same. Asked before each step that others would see.
    fn holds(&self) -> BoxFuture<'static, bool>;
}

/// Documents in Nacos.
pub struct Nacos {
    options: NacosOptions,
    client: Arc<Client>,
    documents: watched::Sender<Arc<DocumentSet>>,
    changed: mpsc::UnboundedSender<String>,
    memory: Memory,
    lock: Option<Arc<dyn PublicationLock>>,
    /// One publication of this instance at a time.
    publishing: std::sync::Mutex<()>,
    runtime: Handle,
    stop: watched::Sender<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Nacos {
    /// Reads the documents and begins to watch them. Returns also if Nacos cannot be reached, with what was last in
    /// force here, kept in the folder `state`.
    ///
    /// # Errors
    /// If no thread can be started.
    pub fn open(options: NacosOptions, state: &Path) -> io::Result<Nacos> {
        let memory = Memory::new(state.join("nacos.last.json"), Some(options.instance.clone()));
        let mut first = memory.recall().unwrap_or_default();
        first.instance = Some(options.instance.clone());
        if first.documents.is_empty() {
            first.problems = vec![Problem::error("", "", "Nacos has not answered yet")];
        }
        let documents = watched::Sender::new(Arc::new(first));
        let client = Arc::new(Client::new(&options));
        let (changed, told) = mpsc::unbounded_channel();
        let (stop, stopped) = watched::channel(false);
        let (looked, first_look) = std::sync::mpsc::channel();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        let handle = runtime.handle().clone();
        let watcher = Watcher::new(Arc::clone(&client), &options, documents.clone(), changed.clone());
        let thread = std::thread::Builder::new()
            .name("nacos".into())
            .spawn(move || runtime.block_on(watcher.run(told, looked, stopped)))?;
        // Nobody needs to know whether it was in time: the documents say what there is.
        let _ = first_look.recv_timeout(PATIENCE);
        Ok(Nacos {
            options,
            client,
            documents,
            changed,
            memory,
            lock: None,
            publishing: std::sync::Mutex::new(()),
            runtime: handle,
            stop,
            thread: Some(thread),
        })
    }

    /// With a lock in front of every publication.
    #[must_use]
    pub fn locked_by(mut self, lock: Arc<dyn PublicationLock>) -> Nacos {
        self.lock = Some(lock);
        self
    }

    /// What logs in, for other clients of the same server.
    pub fn login(&self) -> Option<Arc<dyn nacos_sdk::api::plugin::AuthPlugin>> {
        self.client.login()
    }

    /// Has Nacos' thread do something, and waits for it.
    fn wait<T: Send + 'static>(
        &self,
        patience: Duration,
        work: impl Future<Output = T> + Send + 'static,
    ) -> Result<T, NacosError> {
        let (done, result) = std::sync::mpsc::channel();
        self.runtime.spawn(async move {
            let _ = done.send(work.await);
        });
        result.recv_timeout(patience).map_err(|error| match error {
            RecvTimeoutError::Timeout => NacosError::Unreachable(format!("no answer within {patience:?}")),
            RecvTimeoutError::Disconnected => NacosError::Failed("its thread has ended".into()),
        })
    }

    fn get(&self, group: &'static str, id: String, what: &str) -> Result<Vec<u8>, VersionsError> {
        let client = Arc::clone(&self.client);
        let read = self.wait(PATIENCE, async move { client.get(group, &id).await });
        match read.and_then(|read| read) {
            Ok(Some(read)) => Ok(read.text.into_bytes()),
            Ok(None) => Err(VersionsError::Missing(what.to_owned())),
            Err(error) => Err(VersionsError::Failed(error.to_string())),
        }
    }

    /// What of a set is not in the present version, as edits that change nothing of what stands in Nacos. Waits while
    /// somebody publishes: that may be it.
    fn edited(&self, set: &DocumentSet) -> Result<Vec<Edit>, VersionsError> {
        let began = std::time::Instant::now();
        loop {
            let head = self.head()?;
            let known = |name: &str| head.as_ref().and_then(|v| v.documents.get(name));
            let differs = set.documents.iter().filter(|d| known(&d.name) != Some(&d.etag));
            let edits: Vec<Edit> = differs
                .map(|d| Edit {
                    name: d.name.clone(),
                    bytes: Some(Arc::clone(&d.bytes)),
                    expected: Expected::Exactly(d.etag.clone()),
                })
                .collect();
            let client = Arc::clone(&self.client);
            let claim = self.wait(PATIENCE, async move { Claim::read(&client).await });
            match claim.and_then(|claim| claim) {
                Ok(claim) if claim.is_free() || edits.is_empty() => return Ok(edits),
                // Of somebody who died: publishing waits until it is void.
                Ok(_) if began.elapsed() > PATIENCE => return Ok(edits),
                Ok(_) => std::thread::sleep(ADOPT),
                Err(error) => return Err(VersionsError::Failed(error.to_string())),
            }
        }
    }

    fn publish_now(&self, change: &Change) -> Result<Version, PutError> {
        let _one = self
            .publishing
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let documents: Vec<String> = change.edits.iter().map(|e| e.name.clone()).collect();
        let held = match &self.lock {
            Some(lock) => lock.lock(&documents)?,
            None => None,
        };
        let (client, owner) = (Arc::clone(&self.client), self.options.instance.clone());
        let change = Arc::new(change.clone());
        let published = self.wait(PUBLISHING, async move {
            publish::publish(&client, &owner, &change, held.as_deref()).await
        });
        let version = published.map_err(|e| PutError::Failed { source: e.into() })??;
        let _ = self.changed.send(MANIFEST.to_owned());
        Ok(version)
    }
}

impl Drop for Nacos {
    fn drop(&mut self) {
        self.stop.send_replace(true);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl ConfigSource for Nacos {
    fn documents(&self) -> watched::Receiver<Arc<DocumentSet>> {
        self.documents.subscribe()
    }

    fn publish(&self, change: &Change) -> Result<Version, PutError> {
        self.publish_now(change)
    }

    fn adopt(&self, set: &Arc<DocumentSet>) {
        if let Err(error) = self.memory.keep(set) {
            tracing::error!(%error, "what is in force cannot be kept for a start without Nacos");
        }
        if set.version.is_some() || set.documents.is_empty() {
            return;
        }
        // What stands in Nacos already, so that nobody else's edit is replaced. Of several instances the first does it;
        // each waits for another time, so that they are not in each other's way.
        let place = xxhash_rust::xxh3::xxh3_64(self.options.instance.as_bytes()) % ADOPTERS;
        std::thread::sleep(ADOPT * u32::try_from(place).unwrap_or(0));
        let edits = match self.edited(set) {
            Ok(edits) if edits.is_empty() => return,
            Ok(edits) => edits,
            Err(error) => {
                tracing::warn!(%error, "what was edited in Nacos is no version yet");
                return;
            }
        };
        let names: Vec<&str> = edits.iter().map(|e| e.name.as_str()).collect();
        let change = Change {
            author: "nacos".into(),
            message: format!("edited in Nacos: {}", names.join(", ")),
            edits,
        };
        match self.publish_now(&change) {
            // Changed again: the next set will be looked at.
            Ok(_) | Err(PutError::Changed { .. }) => {}
            Err(error) => tracing::warn!(%error, "what was edited in Nacos is no version yet"),
        }
    }

    fn versions(&self) -> Option<&dyn Versions> {
        Some(self)
    }

    fn last_good(&self) -> Option<DocumentSet> {
        self.memory.recall()
    }

    fn largest(&self) -> usize {
        MOST_BYTES
    }

    fn health(&self) -> Option<SourceHealth> {
        Some(self.client.health())
    }

    fn describe(&self) -> String {
        let servers = self.options.servers.join(", ");
        match self.options.namespace.as_str() {
            "" => format!("Nacos at {servers}"),
            namespace => format!("Nacos at {servers}, namespace `{namespace}`"),
        }
    }
}

impl Versions for Nacos {
    fn head(&self) -> Result<Option<Version>, VersionsError> {
        let what = "the present version";
        match self.get(GROUP, MANIFEST.to_owned(), what) {
            Ok(bytes) => decode(what, &bytes).map(Some),
            Err(VersionsError::Missing(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn version(&self, number: u64) -> Result<Version, VersionsError> {
        let what = format!("version {number}");
        decode(&what, &self.get(VERSIONS, version_id(number), &what)?)
    }

    fn content(&self, etag: &Etag) -> Result<Arc<[u8]>, VersionsError> {
        let what = format!("the content {}", etag.as_str());
        let bytes = self.get(VERSIONS, content_id(etag), &what)?;
        if Etag::of(&bytes) != *etag {
            return Err(VersionsError::Damaged(what));
        }
        Ok(bytes.into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_they_are_written_in_the_field() {
        let servers = |text: &str| NacosOptions::servers(text);
        assert_eq!(
            servers("http://one:8848/nacos, two:1,three/").unwrap(),
            ["one:8848", "two:1", "three:8848"]
        );
        for wrong in ["", " , ", "https://one", "http://", "http://u@one", "one/other"] {
            assert!(servers(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn nobody_learns_a_password_from_a_debug_print() {
        let account = Account {
            user: "nacos".into(),
            password: "very-secret".to_owned().into(),
        };
        assert!(!format!("{account:?}").contains("very-secret"));
    }
}
