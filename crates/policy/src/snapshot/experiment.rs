//! Experiments, in place.

use super::{
    AffinityView, DeploymentView, ExperimentRecord, GroupRecord, ModelView, Section, Snapshot, StretchRecord,
};
use crate::experiment::{self, Stretch};
use std::fmt;

/// An experiment.
#[derive(Clone, Copy)]
pub struct ExperimentView<'a> {
    snapshot: Snapshot<'a>,
    record: &'a ExperimentRecord,
}

impl<'a> ExperimentView<'a> {
    pub(super) fn new(snapshot: Snapshot<'a>, record: &'a ExperimentRecord) -> Self {
        Self { snapshot, record }
    }

    /// Its name.
    pub fn name(&self) -> &'a str {
        self.snapshot.text(self.record.name)
    }

    /// The response header that says the group; empty for none.
    pub fn header(&self) -> &'a str {
        self.snapshot.text(self.record.header)
    }

    /// The model whose callers it sorts; `None` only in a corrupt snapshot.
    pub fn model(&self) -> Option<ModelView<'a>> {
        self.snapshot.model_at(self.record.model.get())
    }

    /// What makes a caller; `None` only in a corrupt snapshot.
    pub fn by(&self) -> Option<AffinityView<'a>> {
        AffinityView::from_code(self.record.by, self.snapshot.text(self.record.by_name))
    }

    /// Its groups.
    pub fn groups(&self) -> impl ExactSizeIterator<Item = GroupView<'a>> + use<'a> {
        let snapshot = self.snapshot;
        let start = self.record.groups.start.get();
        super::numbered(
            snapshot.run(Section::Groups, self.record.groups),
            move |record, index| GroupView::new(snapshot, record, start.saturating_add(index)),
        )
    }

    /// The group of a caller (64 even bits).
    pub fn group_of(&self, caller: u64) -> Option<GroupView<'a>> {
        let stretches = self
            .snapshot
            .run::<StretchRecord>(Section::Stretches, self.record.stretches);
        let stretches = stretches.iter().map(|stretch| Stretch {
            end: stretch.end.get(),
            group: stretch.group.get().checked_sub(1),
        });
        let group = experiment::group_at(stretches, experiment::point(caller, self.record.salt.get()))?;
        self.snapshot
            .group(self.record.groups.start.get().saturating_add(group))
    }
}

impl fmt::Debug for ExperimentView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ExperimentView")
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}

/// A group of an experiment.
#[derive(Clone, Copy)]
pub struct GroupView<'a> {
    snapshot: Snapshot<'a>,
    record: &'a GroupRecord,
    index: u32,
}

impl<'a> GroupView<'a> {
    pub(super) fn new(snapshot: Snapshot<'a>, record: &'a GroupRecord, index: u32) -> Self {
        Self {
            snapshot,
            record,
            index,
        }
    }

    /// Position in this snapshot; differs between generations.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// Its name within the experiment.
    pub fn name(&self) -> &'a str {
        self.snapshot.text(self.record.name)
    }

    /// Its experiment; `None` only in a corrupt snapshot.
    pub fn experiment(&self) -> Option<ExperimentView<'a>> {
        let record = self
            .snapshot
            .records(Section::Experiments)
            .get(usize::try_from(self.record.experiment.get()).ok()?)?;
        Some(ExperimentView::new(self.snapshot, record))
    }

    /// Its share of the callers, in thousandths of a percent.
    pub fn share(&self) -> u32 {
        self.record.share.get()
    }

    /// The version it goes on with; empty for the model's.
    pub fn version(&self) -> &'a str {
        self.snapshot.text(self.record.version)
    }

    /// The deployment it goes on with.
    pub fn deployment(&self) -> Option<DeploymentView<'a>> {
        self.snapshot
            .deployment(self.record.deployment.get().checked_sub(1)?)
    }

    /// The model it goes on with.
    pub fn model(&self) -> Option<ModelView<'a>> {
        self.snapshot
            .model_at(self.record.set_model.get().checked_sub(1)?)
    }

    /// The most output tokens of an answer; `None` for no cap.
    pub fn cap_max_tokens(&self) -> Option<u64> {
        Some(self.record.cap.get()).filter(|cap| *cap > 0)
    }
}

impl fmt::Debug for GroupView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GroupView")
            .field("index", &self.index)
            .field("name", &self.name())
            .finish_non_exhaustive()
    }
}
