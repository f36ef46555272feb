//! One at a time publishes: a lock in Redis in front of the claim that stands in Nacos itself.
//!
//! A holder gets a fencing token, notes it at each document that it is going to write, and asks before it writes whether the lock is
//! still its own and nobody with a higher token has begun to write one of these. While Redis does not answer, the claim alone decides.

use std::sync::{Arc, LazyLock, OnceLock};
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use tokio::runtime::Handle;

use super::{Script, Shared, SharedError};
use crate::config::{PublicationGuard, PublicationLock, PutError};

static SCRIPT: LazyLock<Script> = LazyLock::new(|| Script::new(include_str!("publication.lua")));

/// How long the lock lasts after its holder was last heard of, milliseconds.
const LEASE_MS: u64 = 20_000;
/// Time between two looks at a lock that another holds, and the longest wait.
const LOOK: Duration = Duration::from_millis(30);
const PATIENCE: Duration = Duration::from_secs(25);

/// The lock. It is made before the settings are known that say where Redis is.
#[derive(Clone)]
pub struct SharedLock {
    runtime: Handle,
    shared: Arc<OnceLock<Shared>>,
}

struct Held {
    runtime: Handle,
    shared: Shared,
    me: String,
    token: u64,
    documents: Vec<String>,
}

fn keys(shared: &Shared) -> [String; 3] {
    ["{publish}:holder", "{publish}:token", "{publish}:fences"].map(|key| shared.key(key))
}

async fn ask(shared: Shared, arguments: Vec<Vec<u8>>) -> Result<u64, SharedError> {
    shared.script(&SCRIPT, &keys(&shared), &arguments).await
}

fn words(words: &[&str]) -> Vec<Vec<u8>> {
    words.iter().map(|w| w.as_bytes().to_vec()).collect()
}

impl SharedLock {
    /// A lock that lets everybody pass until it is told of a Redis.
    pub fn new(runtime: Handle) -> SharedLock {
        SharedLock {
            runtime,
            shared: Arc::default(),
        }
    }

    /// Has the runtime ask, and waits, on whatever thread this is.
    fn wait(
        &self,
        asked: impl Future<Output = Result<u64, SharedError>> + Send + 'static,
    ) -> Result<u64, SharedError> {
        let (done, answer) = std::sync::mpsc::channel();
        self.runtime.spawn(async move {
            let _ = done.send(asked.await);
        });
        answer
            .recv()
            .unwrap_or_else(|_| Err(SharedError::Unreachable("the daemon ends".to_owned())))
    }

    /// Uses this connection from now on.
    pub fn over(&self, shared: Shared) {
        let _ = self.shared.set(shared);
    }
}

impl PublicationLock for SharedLock {
    fn lock(&self, documents: &[String]) -> Result<Option<Arc<dyn PublicationGuard>>, PutError> {
        let Some(shared) = self.shared.get().filter(|s| s.is_configured()) else {
            return Ok(None);
        };
        let random = getrandom::u64().map_err(|e| PutError::Failed {
            source: std::io::Error::other(e.to_string()),
        })?;
        let me = format!("{random:016x}");
        let began = Instant::now();
        loop {
            let arguments = words(&["take", &me, &LEASE_MS.to_string()]);
            match self.wait(ask(shared.clone(), arguments)) {
                Ok(0) if began.elapsed() > PATIENCE => return Err(PutError::Busy),
                Ok(0) => std::thread::sleep(LOOK),
                Ok(token) => {
                    return Ok(Some(Arc::new(Held {
                        runtime: self.runtime.clone(),
                        shared: shared.clone(),
                        me,
                        token,
                        documents: documents.to_vec(),
                    })));
                }
                Err(error) => {
                    tracing::warn!(%error, "published under the claim in Nacos alone");
                    return Ok(None);
                }
            }
        }
    }
}

impl PublicationGuard for Held {
    fn holds(&self) -> BoxFuture<'static, bool> {
        let mut arguments = words(&["holds", &self.me, &self.token.to_string(), &LEASE_MS.to_string()]);
        arguments.extend(self.documents.iter().map(|d| d.clone().into_bytes()));
        // On the runtime that the connection belongs to.
        let asked = self.runtime.spawn(ask(self.shared.clone(), arguments));
        Box::pin(async move {
            match asked.await {
                Ok(Ok(answer)) => answer == 1,
                // The claim decides, as it would have without a lock.
                _ => true,
            }
        })
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.runtime
            .spawn(ask(self.shared.clone(), words(&["leave", &self.me])));
    }
}
