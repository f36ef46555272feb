//! One at a time publishes, on a server that may ignore conditions: a data id as a lock.
//!
//! Whoever finds it free writes its own nonce, waits longer than looking and writing takes (twice what it took
//! itself), and has it if its nonce still stands there (Fischer's lock). A writer that took longer than [`SLOW`]
//! starts over. So only a write that lingers in the network much longer than others' could let two in; for that case
//! the nonce is looked at again among the documents and before the manifest, and the manifest afterwards: whoever
//! finds another's there begins again. The claim also tells readers that documents are being replaced
//! and by what, so that a publication that was broken off is not taken for an edit by hand.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::client::{Client, NacosError};
use super::{CLAIM, GROUP};
use crate::config::version::nonce;
use crate::config::{Etag, PutError};

/// Least time after which a claim that still stands is had.
const SETTLE: Duration = Duration::from_millis(100);
/// A look and a write that take longer are not trusted.
const SLOW: Duration = Duration::from_millis(1_000);
/// Time between two looks at another's claim.
const LOOK: Duration = Duration::from_millis(40);
/// Longest wait for others.
const PATIENCE: Duration = Duration::from_secs(15);
/// A claim of someone who has not been heard of for so long is void.
pub(super) const LIFETIME: Duration = Duration::from_secs(20);

/// Who publishes, and what.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claim {
    /// Different for each publication; empty if nobody publishes.
    pub nonce: String,
    /// The instance.
    pub owner: String,
    /// The documents that are being replaced; `None` for those that go.
    pub documents: BTreeMap<String, Option<Etag>>,
}

impl Claim {
    /// Whether nobody publishes.
    pub fn is_free(&self) -> bool {
        self.nonce.is_empty()
    }

    /// The claim as it stands. One that cannot be read is nobody's.
    pub async fn read(client: &Client) -> Result<Claim, NacosError> {
        let found = client.get(GROUP, CLAIM).await?;
        Ok(found
            .and_then(|read| serde_json::from_str(&read.text).ok())
            .unwrap_or_default())
    }

    async fn write(&self, client: &Client) -> Result<(), NacosError> {
        let text = serde_json::to_string(self).map_err(|e| NacosError::Failed(e.to_string()))?;
        client.put(GROUP, CLAIM, &text, None).await
    }

    /// Waits until nobody publishes, and claims. `meanwhile` is done while the claim settles: nobody else publishes then,
    /// unless the claim turns out not to be ours.
    pub async fn take<F: Future + Send>(
        client: &Client,
        owner: &str,
        documents: BTreeMap<String, Option<Etag>>,
        meanwhile: impl Fn() -> F,
    ) -> Result<(Claim, F::Output), PutError> {
        let failed = |e: NacosError| PutError::Failed { source: e.into() };
        let claim = Claim {
            nonce: nonce(),
            owner: owner.to_owned(),
            documents,
        };
        let began = Instant::now();
        let mut other: Option<(String, Instant)> = None;
        loop {
            let looked = Instant::now();
            let found = Claim::read(client).await.map_err(failed)?;
            if other.as_ref().is_none_or(|(nonce, _)| *nonce != found.nonce) {
                other = Some((found.nonce.clone(), looked));
            }
            let void = other
                .as_ref()
                .is_some_and(|(_, since)| since.elapsed() > LIFETIME);
            if found.is_free() || void {
                claim.write(client).await.map_err(failed)?;
                let took = looked.elapsed();
                if took < SLOW {
                    let settled = tokio::time::sleep(SETTLE.max(took * 2));
                    let (found, ()) = tokio::join!(meanwhile(), settled);
                    if claim.stands(client).await.map_err(failed)? {
                        return Ok((claim, found));
                    }
                } else {
                    // Somebody else may have claimed and begun meanwhile.
                    claim.clone().release(client).await;
                    tokio::time::sleep(SETTLE).await;
                }
            }
            if began.elapsed() > PATIENCE.max(LIFETIME + LOOK * 2) {
                return Err(PutError::Busy);
            }
            tokio::time::sleep(LOOK).await;
        }
    }

    /// Whether it is still ours.
    pub async fn stands(&self, client: &Client) -> Result<bool, NacosError> {
        Ok(Claim::read(client).await?.nonce == self.nonce)
    }

    /// Lets others publish. If that fails, they wait until the claim is void.
    pub async fn release(self, client: &Client) {
        let released = match self.stands(client).await {
            Ok(true) => Claim::default().write(client).await,
            Ok(false) => Ok(()),
            Err(error) => Err(error),
        };
        if let Err(error) = released {
            tracing::warn!(%error, "others can publish only when the claim is void");
        }
    }
}
