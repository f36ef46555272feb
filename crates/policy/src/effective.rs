//! Channels with what their templates give them.

use crate::{
    decode::Location,
    documents::{AbortPolicy, Channel, Documents, Enforcement, Entry, Kind, Limit, Route, Template},
    identity::{Owner, limit_shape},
    problem::Problem,
    suggest,
};
use std::collections::HashMap;

/// A limit as it applies to a channel, and where it was written.
#[derive(Clone, Copy, Debug)]
pub(crate) struct EffectiveLimit<'d> {
    pub limit: &'d Limit,
    pub enforcement: Enforcement,
    /// Identity without the channel.
    pub shape: u64,
    pub at: &'d Location,
    /// Position in the list it was written in.
    pub index: usize,
}

impl EffectiveLimit<'_> {
    /// The path of the limit below its entry.
    pub fn path(&self) -> String {
        format!("limits[{}]", self.index)
    }
}

/// What a template says, with what the templates say that it extends.
#[derive(Clone, Debug, Default)]
struct Inherited<'d> {
    allow: Option<&'d [String]>,
    deny: Vec<&'d str>,
    tags: Vec<&'d str>,
    limits: Vec<EffectiveLimit<'d>>,
    /// The nearest first.
    routes: Vec<&'d Route>,
    abort_policy: Option<AbortPolicy>,
    enforcement: Option<Enforcement>,
}

impl<'d> Inherited<'d> {
    fn add_limits(&mut self, limits: &'d [Limit], at: &'d Location) {
        let inherited = self.limits.len();
        for (index, limit) in limits.iter().enumerate() {
            let shape = limit_shape(limit, Owner::Channel);
            let own = EffectiveLimit {
                limit,
                enforcement: Enforcement::Strict,
                shape,
                at,
                index,
            };
            let replaced = self
                .limits
                .iter_mut()
                .take(inherited)
                .find(|old| old.shape == shape || (limit.name.is_some() && old.limit.name == limit.name));
            match replaced {
                Some(old) => *old = own,
                None => self.limits.push(own),
            }
        }
    }

    fn add_template(&mut self, entry: &'d Entry<Template>) {
        let template = &entry.value;
        self.allow = template.models.allow.as_deref().or(self.allow);
        self.deny.extend(template.models.deny.iter().map(String::as_str));
        self.tags.extend(template.tags.iter().map(String::as_str));
        self.add_limits(&template.limits, &entry.at);
        self.routes.splice(..0, &template.routes);
        self.abort_policy = template.abort_policy.or(self.abort_policy);
        self.enforcement = template.enforcement.or(self.enforcement);
    }
}

/// The templates of a configuration, each with what it inherits.
pub(crate) struct Templates<'d> {
    resolved: HashMap<&'d str, Inherited<'d>>,
    nothing: Inherited<'d>,
}

impl<'d> Templates<'d> {
    /// Resolves all templates. Unknown names and cycles are reported, and end the chain.
    pub fn resolve(documents: &'d Documents, problems: &mut Vec<Problem>) -> Self {
        let mut by_name: HashMap<&str, &'d Entry<Template>> = HashMap::new();
        for entry in &documents.templates {
            // The first of two that share a name counts; that they do is reported elsewhere.
            by_name.entry(&entry.value.name).or_insert(entry);
        }
        let mut resolved = HashMap::with_capacity(by_name.len());
        for entry in &documents.templates {
            let mut chain = vec![entry];
            let mut next = entry.value.extends.as_deref();
            let mut extending = entry;
            while let Some(name) = next {
                let Some(&parent) = by_name.get(name) else {
                    // Reported once, by the template that names it.
                    if std::ptr::eq(extending, entry) {
                        problems.extend(unknown_template(documents, &entry.at, name));
                    }
                    break;
                };
                if chain.iter().any(|seen| seen.value.name == parent.value.name) {
                    if parent.value.name == entry.value.name {
                        let names: Vec<&str> = chain.iter().map(|link| link.value.name.as_str()).collect();
                        let reason = format!("templates extend each other: {} → {name}", names.join(" → "));
                        problems.push(entry.at.error("extends", reason));
                    }
                    break;
                }
                chain.push(parent);
                extending = parent;
                next = parent.value.extends.as_deref();
            }
            let mut inherited = Inherited::default();
            for link in chain.into_iter().rev() {
                inherited.add_template(link);
            }
            resolved.entry(entry.value.name.as_str()).or_insert(inherited);
        }
        Self {
            resolved,
            nothing: Inherited::default(),
        }
    }

    /// The channel with what its template gives it.
    pub fn channel(&self, entry: &'d Entry<Channel>) -> EffectiveChannel<'d> {
        let channel = &entry.value;
        let base = channel
            .extends
            .as_deref()
            .and_then(|name| self.resolved.get(name))
            .unwrap_or(&self.nothing);
        let mut own = base.clone();
        own.add_limits(&channel.limits, &entry.at);
        let default = channel.enforcement.or(own.enforcement).unwrap_or_default();
        for limit in &mut own.limits {
            limit.enforcement = limit.limit.enforcement.unwrap_or(default);
        }
        own.deny.extend(channel.models.deny.iter().map(String::as_str));
        own.tags.extend(channel.tags.iter().map(String::as_str));
        own.routes.splice(..0, &channel.routes);
        EffectiveChannel {
            channel,
            at: &entry.at,
            allow: channel.models.allow.as_deref().or(own.allow),
            deny: own.deny,
            tags: own.tags,
            limits: own.limits,
            routes: own.routes,
            abort_policy: channel.abort_policy.or(own.abort_policy).unwrap_or_default(),
        }
    }
}

/// The problem of a reference to a template that does not exist.
pub(crate) fn unknown_template(documents: &Documents, at: &Location, name: &str) -> Option<Problem> {
    if !documents.is_complete(Kind::Templates) {
        return None;
    }
    let known = documents.templates.iter().map(|entry| entry.value.name.as_str());
    Some(
        at.error("extends", format!("unknown template `{name}`"))
            .hint(suggest::did_you_mean(name, known)),
    )
}

/// A channel with everything that applies to it.
#[derive(Debug)]
pub(crate) struct EffectiveChannel<'d> {
    pub channel: &'d Channel,
    pub at: &'d Location,
    /// `None` allows every model.
    pub allow: Option<&'d [String]>,
    pub deny: Vec<&'d str>,
    pub tags: Vec<&'d str>,
    pub limits: Vec<EffectiveLimit<'d>>,
    /// The first that matches a model counts.
    pub routes: Vec<&'d Route>,
    pub abort_policy: AbortPolicy,
}
