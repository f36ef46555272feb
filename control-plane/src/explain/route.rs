//! Which deployments a request may go to, step by step as the module's gate finds it out (`gate/find.rs`).

use std::net::IpAddr;

use tollgate_meter::Api;
use tollgate_meter::request::{FieldPath, RequestFacts, Scalar, scan};
use tollgate_policy::snapshot::AffinityView;
use tollgate_policy::{
    ChannelView, DeploymentView, GroupView, ModelView, Outcome, RouteView, Snapshot, hash_name,
};

use super::{ExplainRequest, ExplainedDeployment, ExplainedExperiment, ExplainedRoute, Explanation};

/// What narrows down a model's deployments.
#[derive(Default)]
pub(super) struct Narrowed<'a> {
    /// Only those of this version.
    pub version: Option<String>,
    /// Only this one.
    pub pinned: Option<DeploymentView<'a>>,
    /// The channel's own route.
    route: Option<RouteView<'a>>,
}

/// A request, and whose it is.
pub(super) struct Asking<'r, 'a> {
    pub snapshot: &'r Snapshot<'a>,
    pub channel: &'r ChannelView<'a>,
    pub request: &'r ExplainRequest,
    pub body: &'r [u8],
    pub api: Api,
}

/// The model that a name means, and the version if it ends in `@<version>`.
pub(super) fn named<'a>(snapshot: &Snapshot<'a>, name: &str) -> (Option<ModelView<'a>>, Option<String>) {
    let whole = snapshot.model(name.as_bytes());
    let Some((model, version)) = name.rsplit_once('@').filter(|_| whole.is_none()) else {
        return (whole, None);
    };
    let model = snapshot.model(model.as_bytes());
    match (version, model.map_or("", |m| m.routing().latest)) {
        ("latest", "") => (model, None),
        ("latest", latest) => (model, Some(latest.to_owned())),
        _ => (model, Some(version.to_owned())),
    }
}

impl<'a> Narrowed<'a> {
    /// What the rules and the client say.
    pub(super) fn new(snapshot: &Snapshot<'a>, outcome: &Outcome, version: Option<String>) -> Narrowed<'a> {
        let pinned = outcome.set_deployment.as_deref();
        Narrowed {
            pinned: pinned.and_then(|id| snapshot.deployment_by_id(id)),
            version: outcome.set_version.as_deref().map(str::to_owned).or(version),
            route: None,
        }
    }

    fn is_chosen(&self) -> bool {
        self.version.is_some() || self.pinned.is_some()
    }

    /// The channel's own route, where nobody before it has chosen.
    pub(super) fn follow(&mut self, channel: &ChannelView<'a>, model: &ModelView<'a>) {
        self.route = channel.route(model.name());
        if let Some(route) = self.route.filter(|_| !self.is_chosen()) {
            self.version = route.version(model).map(str::to_owned);
            self.pinned = route.deployment(model);
        }
    }

    /// The group of the model's experiment that the caller is in.
    pub(super) fn sort(
        &self,
        asking: &Asking<'_, 'a>,
        model: &ModelView<'a>,
        shown: &mut Explanation,
    ) -> Option<GroupView<'a>> {
        let experiment = model.experiment()?;
        let explained = shown.experiment.insert(ExplainedExperiment {
            name: experiment.name().to_owned(),
            by: experiment.by().map(by_name).unwrap_or_default(),
            ..ExplainedExperiment::default()
        });
        let weighted = self.route.is_some_and(|route| route.weights(model).is_some());
        if self.is_chosen() || weighted {
            explained.reason = "takes no part: the client, a rule or the channel's route has chosen";
            return None;
        }
        let closed = |group: GroupView<'_>| group.model().is_some_and(|m| !asking.channel.permits(m.name()));
        if experiment.groups().any(closed) {
            explained.reason = "takes no part: the channel may not use all of its models";
            return None;
        }
        let Some(caller) = experiment.by().and_then(|by| caller(asking, by)) else {
            explained.reason = "takes no part: the request lacks what makes a caller";
            return None;
        };
        let group = experiment.group_of(caller);
        match group {
            Some(group) => explained.group = Some(group.name().to_owned()),
            None => explained.reason = "the caller is in no group",
        }
        group
    }

    /// What a group says.
    pub(super) fn join(&mut self, group: &GroupView<'a>) {
        self.pinned = group.deployment();
        self.version = Some(group.version()).filter(|v| !v.is_empty()).map(str::to_owned);
    }

    /// Shows the channel's own route, and the models that stand in.
    pub(super) fn show(&self, model: &ModelView<'a>, shown: &mut Explanation) {
        let own = self.route.and_then(|route| route.fallback());
        shown.fallback = match own {
            Some(own) => own.map(str::to_owned).collect(),
            None => model.fallback().map(str::to_owned).collect(),
        };
        shown.route = self.route.map(|route| ExplainedRoute {
            model: route.pattern().to_owned(),
            version: route.version(model).map(str::to_owned),
            deployment: route.deployment(model).map(|d| d.id().to_owned()),
            weights: route.weights(model).is_some(),
            fallback: route.fallback().is_some(),
        });
        shown.version = self.version.clone();
    }

    /// The model's deployments with their shares of requests like this one.
    pub(super) fn deployments(&self, model: &ModelView<'a>) -> Vec<ExplainedDeployment> {
        let weights = self.route.and_then(|route| route.weights(model));
        let weight = |position: usize, d: &DeploymentView<'_>| match (&self.pinned, &weights) {
            (Some(pinned), _) => u32::from(pinned.index() == d.index()),
            _ if self
                .version
                .as_ref()
                .is_some_and(|version| d.version() != version) =>
            {
                0
            }
            (None, Some(own)) => own.get(position).copied().unwrap_or(0),
            (None, None) => d.weight(),
        };
        let share = |(position, d): (usize, DeploymentView<'_>)| {
            let there = d.enabled()
                && d.provider()
                    .is_some_and(|p| p.enabled() && p.addresses().len() > 0);
            if there { weight(position, &d) } else { 0 }
        };
        let total: u64 = model
            .deployments()
            .enumerate()
            .map(|it| u64::from(share(it)))
            .sum();
        model
            .deployments()
            .enumerate()
            .map(|(position, d)| {
                let provider = d.provider();
                let share = share((position, d));
                ExplainedDeployment {
                    id: d.id().to_owned(),
                    provider: provider.map_or("", |p| p.id()).to_owned(),
                    upstream_model: d.upstream_model().to_owned(),
                    version: d.version().to_owned(),
                    usable: share > 0,
                    share: f64::from(share) / total.max(1) as f64,
                    addresses: provider
                        .map(|p| p.addresses().map(|a| a.to_string()).collect())
                        .unwrap_or_default(),
                }
            })
            .collect()
    }
}

/// What makes a caller, as documents write it.
pub fn by_name(by: AffinityView<'_>) -> String {
    match by {
        AffinityView::Header(name) => format!("header.{name}"),
        AffinityView::Cookie(name) => format!("cookie.{name}"),
        AffinityView::Body(path) => format!("body.{path}"),
        AffinityView::Channel => "channel".to_owned(),
        AffinityView::ClientIp => "client.ip".to_owned(),
        AffinityView::Prompt => "prompt".to_owned(),
        AffinityView::Session => "session".to_owned(),
    }
}

/// 64 even bits of what makes the caller, the same that workers make of it.
fn caller(asking: &Asking<'_, '_>, by: AffinityView<'_>) -> Option<u64> {
    let request = asking.request;
    let hash = |bytes: &[u8]| Some(hash_name(bytes)).filter(|_| !bytes.is_empty());
    match by {
        AffinityView::Header(name) => hash(request.header(name)?.as_bytes()),
        AffinityView::Cookie(name) => hash(request.cookie(name)?.as_bytes()),
        AffinityView::Channel => Some(asking.channel.code_hash()),
        AffinityView::ClientIp => match request.forwarded_ip(asking.snapshot) {
            IpAddr::V4(ip) => hash(&ip.octets()),
            IpAddr::V6(ip) => hash(&ip.octets()),
        },
        AffinityView::Body(path) => {
            let mut found = RequestFacts::new();
            scan(
                asking.body,
                asking.api,
                &[FieldPath::parse(path).ok()?],
                &mut found,
            )
            .ok()?;
            match found.wanted.first()?.as_ref()? {
                Scalar::String(text) => hash(text.as_bytes()),
                Scalar::Number(number) => hash(&number.to_bits().to_le_bytes()),
                _ => None,
            }
        }
        AffinityView::Prompt | AffinityView::Session => None,
    }
}
