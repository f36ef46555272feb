//! Verdicts that pass between instances: the one that leads probes, the others take its word.

use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, watch};
use tollgate_shm::Verdict;

use super::plan::Target;
use super::standing::Outcome;
use crate::shared::{Role, alone};

/// What a probe has led to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// The target, by [`Target::name`].
    pub name: String,
    /// Different where the endpoint or the question is: a verdict on another endpoint says nothing.
    pub about: String,
    /// What the last probe found.
    pub outcome: Outcome,
    /// Why.
    pub found: String,
    /// How long it took, microseconds.
    pub latency_us: u64,
    /// The verdict after it.
    pub healthy: Option<bool>,
    /// Why it became that.
    pub reason: String,
    /// How long it counts, milliseconds.
    pub for_ms: u64,
    /// The instance that found it; filled in by whoever passes it on.
    #[serde(default)]
    pub from: String,
}

impl Told {
    /// The verdict.
    pub fn verdict(&self) -> Verdict {
        match self.healthy {
            Some(true) => Verdict::Healthy,
            Some(false) => Verdict::Unhealthy,
            None => Verdict::Unknown,
        }
    }
}

/// A verdict as it is told.
pub(super) fn healthy(verdict: Verdict) -> Option<bool> {
    match verdict {
        Verdict::Healthy => Some(true),
        Verdict::Unhealthy => Some(false),
        Verdict::Unknown => None,
    }
}

impl Target {
    /// The same in all instances that probe the same.
    pub fn name(&self) -> String {
        let (provider, deployment) = self.key();
        deployment.unwrap_or(provider)
    }

    /// Different for another endpoint and for another question.
    pub(super) fn about(&self) -> String {
        let Target {
            check,
            endpoint,
            upstream_model,
            ..
        } = self;
        let text = format!("{endpoint} {upstream_model} {check:?}");
        format!("{:016x}", tollgate_policy::hash_name(text.as_bytes()))
    }
}

/// How a prober hears of the others.
pub struct Others {
    /// Whether this instance probes for all.
    pub role: watch::Receiver<Role>,
    /// Where its verdicts go.
    pub tell: mpsc::UnboundedSender<Told>,
    /// Where the others' come from.
    pub hear: mpsc::UnboundedReceiver<Told>,
}

impl Others {
    /// There are none.
    pub fn none() -> Others {
        let (tell, _) = mpsc::unbounded_channel();
        let (_, hear) = mpsc::unbounded_channel();
        Others {
            role: alone(),
            tell,
            hear,
        }
    }
}
