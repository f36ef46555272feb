//! Names behind the numbers of a snapshot.

use crate::config::ConfigStatus;

/// A deployment as it was when it served.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Served {
    /// Id of the deployment.
    pub deployment: String,
    /// Name of its model.
    pub model: String,
    /// Its version; empty for none.
    pub version: String,
}

/// Whoever knows what the numbers of a generation's snapshot stood for.
pub trait Snapshots {
    /// The deployment with a number.
    fn deployment(&self, generation: u32, index: u32) -> Option<Served>;
    /// Experiment and name of the group with a number.
    fn group(&self, generation: u32, index: u32) -> Option<(String, String)>;
}

impl Snapshots for ConfigStatus {
    fn deployment(&self, generation: u32, index: u32) -> Option<Served> {
        let active = self.recent.iter().find(|a| a.generation() as u32 == generation)?;
        let deployment = active.snapshot()?.deployment(index)?;
        Some(Served {
            deployment: deployment.id().to_owned(),
            model: deployment.model().map_or("", |m| m.name()).to_owned(),
            version: deployment.version().to_owned(),
        })
    }

    fn group(&self, generation: u32, index: u32) -> Option<(String, String)> {
        ConfigStatus::group(self, generation, index)
    }
}
