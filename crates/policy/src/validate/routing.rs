//! Experiments, channels' own routes, and whatever else names a deployment.

use super::{Context, check_name, models::MAX_WEIGHT};
use crate::{
    documents::{Affinity, Experiment, Group, Kind, Location, Model, Route},
    experiment::{LINE, units},
    glob::glob_matches,
    rules::is_token,
    suggest,
};
use std::{collections::HashSet, fmt::Display};

const MAX_GROUPS: usize = 16;
const MAX_ROUTES: usize = 256;

/// What stands in logs, headers and cookies as it is.
fn is_plain(name: &str) -> bool {
    (1..=64).contains(&name.len())
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte))
}

const PLAIN: &str = "must be 1..=64 letters, digits, `-`, `_` or `.`";

/// Response headers that are not an experiment's to set.
const TAKEN: [&str; 8] = [
    "connection",
    "content-length",
    "content-type",
    "date",
    "set-cookie",
    "server",
    "transfer-encoding",
    "x-request-id",
];

pub(super) fn check_experiment(context: &mut Context<'_>, at: &Location, model: &Model) {
    let Some(experiment) = &model.experiment else {
        return;
    };
    context.within = "experiment.".to_owned();
    if !is_plain(&experiment.name) {
        context.error(at, "name", PLAIN);
    }
    match Affinity::parse(&experiment.by) {
        Ok(Affinity::Prompt | Affinity::Session) => context.error(
            at,
            "by",
            format!(
                "`{}` is nothing that a caller keeps from the start",
                experiment.by
            ),
        ),
        Ok(_) => {}
        Err(reason) => context.error(at, "by", reason),
    }
    if let Some(header) = &experiment.header {
        if !is_token(header) || header.len() > 64 {
            context.error(at, "header", format!("`{header}` is no header name"));
        } else if TAKEN.iter().any(|taken| header.eq_ignore_ascii_case(taken)) {
            context.error(at, "header", format!("`{header}` has a meaning of its own"));
        }
    }
    check_groups(context, at, model, experiment);
    context.within.clear();
}

fn check_groups(context: &mut Context<'_>, at: &Location, model: &Model, experiment: &Experiment) {
    if experiment.groups.is_empty() || experiment.groups.len() > MAX_GROUPS {
        context.error(
            at,
            "groups",
            format!("an experiment needs 1..={MAX_GROUPS} groups"),
        );
    }
    let mut names = HashSet::new();
    let mut sum = 0_u64;
    for (index, group) in experiment.groups.iter().enumerate() {
        let path = |name: &str| format!("groups[{index}].{name}");
        if !is_plain(&group.name) {
            context.error(at, path("name"), PLAIN);
        } else if !names.insert(group.name.as_str()) {
            context.error(
                at,
                path("name"),
                format!("the experiment has two groups `{}`", group.name),
            );
        }
        match units(group.share) {
            Some(share) => sum += u64::from(share),
            None => context.error(at, path("share"), "must be 0..=100 percent in steps of 0.001"),
        }
        check_effects(context, at, model, group, &path);
    }
    if sum > u64::from(LINE) {
        context.error(at, "groups", "the shares are more than 100 percent together");
    }
}

fn check_effects(
    context: &mut Context<'_>,
    at: &Location,
    model: &Model,
    group: &Group,
    path: &dyn Fn(&str) -> String,
) {
    if group.cap_max_tokens == Some(0) {
        context.error(at, path("cap_max_tokens"), "must be 1 or more");
    }
    let documents = context.documents;
    // Where the group goes on.
    let mut target = Some(model);
    if let Some(name) = &group.set_model {
        context.expect_model(at, path("set_model"), name);
        target = documents
            .models
            .iter()
            .map(|entry| &entry.value)
            .find(|model| model.name == *name);
    }
    let Some(target) = target else { return };
    if let Some(version) = &group.set_version
        && !target.deployments.iter().any(|d| d.version == *version)
    {
        let reason = format!("no deployment of `{}` has the version `{version}`", target.name);
        context.error(at, path("set_version"), reason);
    }
    let Some(id) = &group.set_deployment else {
        return;
    };
    if group.set_version.is_some() {
        context.error(
            at,
            path("set_version"),
            "a deployment has a version already; leave it out",
        );
    }
    if let Some(of) = expect_deployment(context, at, path("set_deployment"), id)
        && of != target.name
    {
        let reason = format!("`{id}` is a deployment of `{of}`, not of `{}`", target.name);
        context.error(at, path("set_deployment"), reason);
    }
}

/// The model whose deployment it is; an error if it is nobody's.
pub(super) fn expect_deployment<'d>(
    context: &mut Context<'d>,
    at: &Location,
    path: impl Display,
    id: &str,
) -> Option<&'d str> {
    let found = context.deployments.get(id).copied();
    if found.is_none() && context.documents.is_complete(Kind::Models) {
        let hint = suggest::did_you_mean(id, context.deployments.keys().map(String::as_str));
        let path = format!("{}{path}", context.within);
        let problem = at.error(&path, format!("unknown deployment `{id}`")).hint(hint);
        context.problems.push(problem);
    }
    found
}

pub(super) fn check_routes(context: &mut Context<'_>, at: &Location, routes: &[Route]) {
    if routes.len() > MAX_ROUTES {
        context.error(at, "routes", format!("at most {MAX_ROUTES} routes"));
    }
    for (index, route) in routes.iter().enumerate() {
        context.within = format!("routes[{index}].");
        check_route(context, at, route);
        context.within.clear();
    }
}

fn check_route(context: &mut Context<'_>, at: &Location, route: &Route) {
    check_name(context, at, "model", &route.model, 128);
    let documents = context.documents;
    let complete = documents.is_complete(Kind::Models);
    let matched = || {
        documents
            .models
            .iter()
            .map(|entry| &entry.value)
            .filter(|model| glob_matches(&route.model, &model.name))
    };
    if complete && matched().next().is_none() {
        context.warning(at, "model", format!("no model matches `{}`", route.model));
        return;
    }
    let says = [
        route.version.is_some(),
        route.deployment.is_some(),
        route.weights.is_some(),
    ];
    match says.iter().filter(|it| **it).count() {
        0 if route.fallback.is_none() => {
            context.error(
                at,
                "",
                "says neither `version` nor `deployment`, `weights` or `fallback`",
            );
        }
        2.. if route.deployment.is_some() => {
            context.error(
                at,
                "deployment",
                "leaves nothing for `version` or `weights` to say",
            );
        }
        _ => {}
    }
    if let Some(version) = &route.version
        && complete
    {
        let has = |model: &Model| match version.as_str() {
            "latest" => model.routing.latest.is_some(),
            version => model.deployments.iter().any(|d| d.version == version),
        };
        if !matched().any(has) {
            let reason = format!(
                "no model that matches `{}` has the version `{version}`",
                route.model
            );
            context.error(at, "version", reason);
        }
    }
    let mut check = |path: String, id: &str| {
        if let Some(of) = expect_deployment(context, at, &path, id)
            && !glob_matches(&route.model, of)
        {
            let reason = format!(
                "`{id}` is a deployment of `{of}`, which `{}` does not match",
                route.model
            );
            context.error(at, path, reason);
        }
    };
    if let Some(id) = &route.deployment {
        check("deployment".to_owned(), id);
    }
    for id in route.weights.iter().flat_map(|weights| weights.keys()) {
        check(format!("weights.{id}"), id);
    }
    for (id, weight) in route.weights.iter().flatten() {
        if *weight > MAX_WEIGHT {
            context.error(at, format!("weights.{id}"), format!("must be 0..={MAX_WEIGHT}"));
        }
    }
    if let Some(weights) = &route.weights
        && weights.values().all(|weight| *weight == 0)
    {
        context.error(at, "weights", "one of them must be above 0");
    }
    let mut seen = HashSet::new();
    for (index, name) in route.fallback.iter().flatten().enumerate() {
        let path = format!("fallback[{index}]");
        if !seen.insert(name) {
            context.error(at, path, format!("`{name}` stands twice"));
        } else {
            context.expect_model(at, path, name);
        }
    }
}
