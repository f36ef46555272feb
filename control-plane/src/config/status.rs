//! What is in force and what is wrong: the one answer for the API, the metrics and the ledger.

use std::collections::BTreeMap;
use std::sync::Arc;

use tokio::sync::watch;
use tollgate_policy::documents::Settings;
use tollgate_policy::{Problem, Severity};

use super::active::NO_CURRENCY;
use super::{Active, DocumentSet, Override};
use crate::health::Target;

/// Snapshots that are kept for events of requests that they decided.
const RECENT: usize = 4;

/// The state of the configuration. Replaced as a whole.
#[derive(Clone, Debug, Default)]
pub struct ConfigStatus {
    /// The documents as they were last looked at, in force or not.
    pub documents: Arc<DocumentSet>,
    /// Everything found in them.
    pub problems: Arc<Vec<Problem>>,
    /// Whether these documents are in force; if not, the ones before them are.
    pub in_force: bool,
    /// The published version in force; `None` if what is in force is no version, or nothing is.
    pub version: Option<u64>,
    /// What this instance has of its own, beside what all share.
    pub overrides: Arc<Vec<Override>>,
    /// Settings in force.
    pub settings: Arc<Settings>,
    /// Names of the rules in force by the hash that events carry.
    pub rules: Arc<BTreeMap<u64, String>>,
    /// Whom the documents in force want to be probed.
    pub targets: Arc<Vec<Target>>,
    /// Snapshots by age: the first is in force.
    pub recent: Vec<Arc<Active>>,
    /// How many times documents were looked at since the start.
    pub looks: u64,
}

/// Follows the state of the configuration.
pub type StatusWatch = watch::Receiver<Arc<ConfigStatus>>;

impl ConfigStatus {
    /// The snapshot in force.
    pub fn active(&self) -> Option<&Arc<Active>> {
        self.recent.first()
    }

    /// The currency of all prices in force, by its three letters; `USD` without any.
    pub fn currency(&self) -> &str {
        self.active().map_or(NO_CURRENCY, |active| active.currency())
    }

    /// Generation in force; 0 for none.
    pub fn generation(&self) -> u64 {
        self.active().map_or(0, |a| a.generation())
    }

    /// Number of problems that keep the documents from taking effect, and of all others.
    pub fn counts(&self) -> (usize, usize) {
        let errors = self
            .problems
            .iter()
            .filter(|p| p.severity == Severity::Error)
            .count();
        (errors, self.problems.len() - errors)
    }

    /// Id of a deployment by its number in the snapshot of a generation, if that is still known.
    pub fn deployment(&self, generation: u32, index: u32) -> Option<String> {
        let active = self.recent.iter().find(|a| a.generation() as u32 == generation)?;
        Some(active.snapshot()?.deployment(index)?.id().to_owned())
    }

    /// Experiment and name of a group by its number in the snapshot of a generation, if that is still known.
    pub fn group(&self, generation: u32, index: u32) -> Option<(String, String)> {
        let active = self.recent.iter().find(|a| a.generation() as u32 == generation)?;
        let group = active.snapshot()?.group(index)?;
        Some((group.experiment()?.name().to_owned(), group.name().to_owned()))
    }

    pub(super) fn activate(&mut self, active: Active) {
        self.recent.insert(0, Arc::new(active));
        self.recent.truncate(RECENT);
    }
}
