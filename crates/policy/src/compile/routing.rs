//! Experiments and channels' own routes: what names deployments and models, and so comes after them.

use super::Compiler;
use crate::{
    documents::{Affinity, Experiment, Group, Route},
    experiment,
    identity::hash_name,
    snapshot::{
        AffinityView, ExperimentRecord, GroupRecord, Range, RouteRecord, RouteWeightRecord, StretchRecord,
        flag,
        writer::{TooLarge, Writer, small},
    },
};
use std::collections::HashMap;
use zerocopy::little_endian::U32;

/// Positions by name.
#[derive(Default)]
pub(super) struct Numbers<'d> {
    models: HashMap<&'d str, u32>,
    deployments: HashMap<String, u32>,
}

/// As records say it: the position + 1, 0 for none.
fn place(found: Option<u32>) -> U32 {
    found.map_or(0, |at| at.saturating_add(1)).into()
}

impl<'d> Compiler<'d> {
    pub(super) fn experiments(&mut self) -> Result<(), TooLarge> {
        let (mut models, mut deployments) = (0, 0);
        for entry in &self.documents.models {
            let model = &entry.value;
            self.numbers.models.insert(&model.name, models);
            models += 1;
            for deployment in &model.deployments {
                self.numbers
                    .deployments
                    .insert(deployment.id(&model.name), deployments);
                deployments += 1;
            }
        }
        for (index, entry) in self.documents.models.iter().enumerate() {
            let Some(found) = entry.value.experiment.as_ref().filter(|e| e.enabled) else {
                continue;
            };
            let at = small(self.writer.experiments.len())?;
            self.experiment(found, small(index)?, at)?;
            if let Some(record) = self.writer.models.get_mut(index) {
                record.experiment = place(Some(at));
            }
        }
        Ok(())
    }

    fn experiment(&mut self, found: &'d Experiment, model: u32, at: u32) -> Result<(), TooLarge> {
        for group in &found.groups {
            let record = self.group(group, at)?;
            self.writer.groups.push(record);
        }
        // Validated before, as is what makes a caller.
        let share = |group: &Group| experiment::units(group.share).unwrap_or(0);
        let shares: Vec<u32> = found.groups.iter().map(share).collect();
        let stretches = experiment::stretches(&shares);
        self.writer
            .stretches
            .extend(stretches.iter().map(|stretch| StretchRecord {
                end: stretch.end.into(),
                group: place(stretch.group),
            }));
        let by = Affinity::parse(&found.by).ok();
        let (by, by_name) = AffinityView::code(by.as_ref());
        let record = ExperimentRecord {
            salt: hash_name(found.name.as_bytes()).into(),
            name: self.writer.text(&found.name)?,
            header: self.writer.text(found.header.as_deref().unwrap_or_default())?,
            by_name: self.writer.text(by_name)?,
            groups: Writer::tail(self.writer.groups.len(), found.groups.len())?,
            stretches: Writer::tail(self.writer.stretches.len(), stretches.len())?,
            model: model.into(),
            by,
            reserved: [0; 3],
        };
        self.writer.experiments.push(record);
        Ok(())
    }

    fn group(&mut self, group: &'d Group, experiment: u32) -> Result<GroupRecord, TooLarge> {
        let deployment = group.set_deployment.as_ref();
        let model = group.set_model.as_deref();
        Ok(GroupRecord {
            cap: group.cap_max_tokens.unwrap_or(0).into(),
            name: self.writer.text(&group.name)?,
            version: self
                .writer
                .text(group.set_version.as_deref().unwrap_or_default())?,
            deployment: place(
                deployment
                    .and_then(|id| self.numbers.deployments.get(id))
                    .copied(),
            ),
            set_model: place(model.and_then(|name| self.numbers.models.get(name)).copied()),
            share: experiment::units(group.share).unwrap_or(0).into(),
            experiment: experiment.into(),
        })
    }

    /// A channel's list of routes. Those of a template come by as often as there are channels that extend it.
    pub(super) fn routes(&mut self, routes: &[&'d Route]) -> Result<Range, TooLarge> {
        let mut ids = Vec::with_capacity(routes.len());
        for route in routes {
            let address = std::ptr::from_ref::<Route>(route).addr();
            let id = match self.routes.get(&address) {
                Some(id) => *id,
                None => {
                    let id = self.route(route)?;
                    self.routes.insert(address, id);
                    id
                }
            };
            ids.push(id);
        }
        self.writer.route_list(&ids)
    }

    fn route(&mut self, route: &'d Route) -> Result<U32, TooLarge> {
        let number = |id: &String| self.numbers.deployments.get(id).copied();
        let weights: Vec<RouteWeightRecord> = route
            .weights
            .iter()
            .flatten()
            .filter_map(|(id, weight)| {
                Some(RouteWeightRecord {
                    deployment: number(id)?.into(),
                    weight: (*weight).into(),
                })
            })
            .collect();
        let deployment = place(route.deployment.as_ref().and_then(number));
        let fallback = route.fallback.as_deref();
        let record = RouteRecord {
            model: self.writer.text(&route.model)?,
            version: self.writer.text(route.version.as_deref().unwrap_or_default())?,
            fallback: self
                .writer
                .texts(fallback.unwrap_or_default().iter().map(String::as_str))?,
            weights: self.writer.route_weights(&weights)?,
            deployment,
            flags: super::bit(fallback.is_some(), flag::FALLBACK),
            reserved: [0; 3],
        };
        self.writer.route(record)
    }
}
