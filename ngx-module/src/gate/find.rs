//! Which model is wanted and which of its deployments may serve: what the client says, the rules, the channel's route, an
//! experiment. Who comes first has the last word.

use std::rc::Rc;

use tollgate_policy::{ExperimentView, GroupView, ModelView, Snapshot};
use tollgate_shm::Class;

use super::decide::{Asked, Decider};
use super::reply::{ErrorKind, Reply};
use super::terms::Terms;
use super::{facts, route};
use crate::ngx::request::Request;

/// The model of a name, and the version if the name ends in `@<version>`.
pub(super) fn find<'s>(snapshot: Snapshot<'s>, name: &str) -> (Option<ModelView<'s>>, Option<Rc<str>>) {
    let whole = snapshot.model(name.as_bytes());
    let Some((model, version)) = name.rsplit_once('@').filter(|_| whole.is_none()) else {
        return (whole, None);
    };
    let model = snapshot.model(model.as_bytes());
    match (version, model.map_or("", |m| m.routing().latest)) {
        // Without a latest version all are as good as one another.
        ("latest", "") => (model, None),
        ("latest", latest) => (model, Some(latest.into())),
        _ => (model, Some(version.into())),
    }
}

impl Decider<'_> {
    /// The model that the request names in its path or body.
    pub(super) fn named_model(&self) -> Option<&str> {
        let in_path = self.context.gemini.as_deref().map(|call| call.model());
        in_path.or(self.facts.model.as_ref().map(|m| m.value.as_str()))
    }

    /// Finds the model and the terms on which the channel may use it; notes what narrows down its deployments.
    pub(super) fn find_model(
        &mut self,
        request: &Request,
        asked: &mut Asked,
        body_len: usize,
    ) -> Result<Rc<Terms>, Reply> {
        let generation = Rc::clone(&self.context.generation);
        let snapshot = generation.snapshot();
        let (mut model, version) = match asked.deployment.as_deref() {
            None => self.named(request, asked, snapshot)?,
            Some(id) => (self.pinned(id, snapshot)?, None),
        };
        // A rule has the last word.
        let version = asked.version.as_deref().map(Rc::from).or(version);
        if let Some(version) = &version
            && !model.deployments().any(|d| d.version() == &**version)
        {
            let text = format!("the model {:?} has no version {version:?}", model.name());
            return Err(self.fail(
                Class::Client,
                404,
                ErrorKind::NotFound,
                "version_not_found",
                &text,
            ));
        }
        self.context.version = version;
        self.context.first_model = Some(model.index());
        self.context.model = Some(model.index());
        self.w.allow_retries(model.routing().retry_percent);
        let mut terms = self.terms(snapshot, &model)?;
        if !terms.permitted {
            let text = format!("the channel may not use the model {:?}", model.name());
            return Err(self.fail(
                Class::Rule,
                403,
                ErrorKind::Permission,
                "model_not_permitted",
                &text,
            ));
        }
        self.follow(&terms);
        if let Some(group) = self.sort(request, snapshot, &model, &terms)? {
            self.context.group = Some(group.index());
            if let Some(cap) = group.cap_max_tokens() {
                asked.cap = Some(asked.cap.map_or(cap, |lower| lower.min(cap)));
            }
            if let Some(other) = group.model() {
                model = other;
                self.context.affinity = None;
                self.context.first_model = Some(model.index());
                self.context.model = Some(model.index());
                terms = self.terms(snapshot, &model)?;
            }
            self.context.pinned = group.deployment().map(|d| d.index());
            self.context.version = Some(group.version()).filter(|v| !v.is_empty()).map(Rc::from);
            self.follow(&terms);
        }
        if body_len as u64 > model.max_body_bytes() {
            let text = format!(
                "the body has {body_len} bytes, the model takes at most {}",
                model.max_body_bytes()
            );
            return Err(self.fail(Class::Client, 413, ErrorKind::TooLarge, "body_too_large", &text));
        }
        Ok(terms)
    }

    /// The model that the rules or the client name, and the version that the name ends in.
    fn named<'s>(
        &mut self,
        request: &Request,
        asked: &Asked,
        snapshot: Snapshot<'s>,
    ) -> Result<(ModelView<'s>, Option<Rc<str>>), Reply> {
        let query_model = facts::query(request.args(), "model");
        let name = asked
            .model
            .as_deref()
            .or(self.named_model())
            .or(query_model.as_deref())
            .map(str::to_owned);
        let Some(name) = name else {
            let text = "the request names no model";
            return Err(self.fail(
                Class::Client,
                400,
                ErrorKind::InvalidRequest,
                "model_required",
                text,
            ));
        };
        if let (Some(model), version) = find(snapshot, &name) {
            return Ok((model, version));
        }
        Err(self.no_such_model(snapshot, &name))
    }

    /// The model of the deployment that a rule names, which is noted.
    fn pinned<'s>(&mut self, id: &str, snapshot: Snapshot<'s>) -> Result<ModelView<'s>, Reply> {
        let deployment = snapshot.deployment_by_id(id);
        let Some((deployment, model)) = deployment.and_then(|d| Some((d, d.model()?))) else {
            let text = format!("a rule moved the request to the deployment {id:?}, which does not exist");
            return Err(self.fail(
                Class::Rule,
                503,
                ErrorKind::Unavailable,
                "unknown_deployment",
                &text,
            ));
        };
        self.context.pinned = Some(deployment.index());
        Ok(model)
    }

    fn terms(&mut self, snapshot: Snapshot<'_>, model: &ModelView<'_>) -> Result<Rc<Terms>, Reply> {
        let channel = self.context.channel.and_then(|c| snapshot.channel(c));
        let (Some(attached), Some(channel)) = (&self.w.attached, channel) else {
            return Err(self.fail(
                Class::Internal,
                503,
                ErrorKind::Unavailable,
                "no_region",
                "the shared memory is not there",
            ));
        };
        Ok(self.w.terms.get(snapshot, &channel, model, &attached.region))
    }

    /// The channel's own route, where nobody before it has chosen.
    fn follow(&mut self, terms: &Terms) {
        self.context.route = terms.route;
        if self.context.version.is_none() && self.context.pinned.is_none() {
            self.context.version.clone_from(&terms.version);
            self.context.pinned = terms.pinned;
        }
    }

    /// The group that the caller is in, if the model has an experiment and the request takes part in it.
    fn sort<'s>(
        &mut self,
        request: &Request,
        snapshot: Snapshot<'s>,
        model: &ModelView<'s>,
        terms: &Terms,
    ) -> Result<Option<GroupView<'s>>, Reply> {
        let chosen = self.context.version.is_some() || self.context.pinned.is_some() || terms.weighted;
        let Some(experiment) = model.experiment().filter(|_| !chosen) else {
            return Ok(None);
        };
        if !self.may_take_part(snapshot, &experiment)? {
            return Ok(None);
        }
        let Some(by) = experiment.by() else {
            return Ok(None);
        };
        let body = request.body(self.scratch).unwrap_or_default();
        let caller = route::affinity(request, self.context, body, by);
        if model.routing().affinity == Some(by) {
            // Looked for once, for both.
            self.context.affinity = caller;
        }
        Ok(caller.and_then(|caller| experiment.group_of(caller)))
    }

    /// Whether the channel may use all models of the experiment: groups that some callers cannot be in would not be
    /// comparable.
    fn may_take_part(
        &mut self,
        snapshot: Snapshot<'_>,
        experiment: &ExperimentView<'_>,
    ) -> Result<bool, Reply> {
        for model in experiment.groups().filter_map(|group| group.model()) {
            if !self.terms(snapshot, &model)?.permitted {
                return Ok(false);
            }
        }
        Ok(true)
    }
}
