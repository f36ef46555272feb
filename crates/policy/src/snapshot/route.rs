//! Channels' own routes, in place.

use super::{DeploymentView, ModelView, RouteRecord, RouteWeightRecord, Section, Snapshot, flag};
use crate::glob::glob_matches;
use std::fmt;

/// A channel's own way to the deployments of certain models.
#[derive(Clone, Copy)]
pub struct RouteView<'a> {
    snapshot: Snapshot<'a>,
    record: &'a RouteRecord,
    index: u32,
}

impl<'a> RouteView<'a> {
    pub(super) fn new(snapshot: Snapshot<'a>, record: &'a RouteRecord, index: u32) -> Self {
        Self {
            snapshot,
            record,
            index,
        }
    }

    /// Position in this snapshot; differs between generations. Equal routes of many channels are one.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Names of models, by glob.
    pub fn pattern(&self) -> &'a str {
        self.snapshot.text(self.record.model)
    }

    /// Whether it is for the model of that (canonical) name.
    pub fn applies_to(&self, model: &str) -> bool {
        glob_matches(self.pattern(), model)
    }

    /// The version that requests for the model go on with; `None` if it says none, or one that the model does not have.
    pub fn version(&self, model: &ModelView<'a>) -> Option<&'a str> {
        let version = match self.snapshot.text(self.record.version) {
            "latest" => model.routing().latest,
            version => version,
        };
        Some(version).filter(|v| !v.is_empty() && model.deployments().any(|d| d.version() == *v))
    }

    /// The deployment that requests for the model go on with, if it is the model's.
    pub fn deployment(&self, model: &ModelView<'a>) -> Option<DeploymentView<'a>> {
        self.snapshot
            .deployment(self.record.deployment.get().checked_sub(1)?)
            .filter(|d| d.model().is_some_and(|m| m.index() == model.index()))
    }

    /// The weight of each of the model's deployments, by position; `None` if it says nothing of them.
    pub fn weights(&self, model: &ModelView<'a>) -> Option<Vec<u32>> {
        let weights = self
            .snapshot
            .run::<RouteWeightRecord>(Section::RouteWeights, self.record.weights);
        let weight = |index: u32| weights.iter().find(|w| w.deployment.get() == index);
        let deployments = || model.deployments().map(|d| weight(d.index()));
        deployments()
            .any(|w| w.is_some())
            .then(|| deployments().map(|w| w.map_or(0, |w| w.weight.get())).collect())
    }

    /// Names of the models to try in place of the model's own; `None` if it says nothing of them.
    pub fn fallback(&self) -> Option<impl ExactSizeIterator<Item = &'a str> + use<'a>> {
        (self.record.flags & flag::FALLBACK != 0).then(|| self.snapshot.texts(self.record.fallback))
    }
}

impl fmt::Debug for RouteView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RouteView")
            .field("index", &self.index)
            .field("pattern", &self.pattern())
            .finish_non_exhaustive()
    }
}
