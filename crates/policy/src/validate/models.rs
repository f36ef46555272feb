//! Models and deployments.

use super::{Context, Named, Path, check_name, limits, relief, routing, settings::check_factor};
use crate::{
    documents::{Affinity, Algorithm, Entry, Kind, Location, Model, SameSite, Span},
    identity::Owner,
    suggest,
};
use std::collections::HashSet;

pub(super) const MAX_WEIGHT: u32 = 1_000_000;
const MAX_BODY: u64 = 256 << 20;
/// Most output tokens of one answer: far above every model, low enough that sums of reservations stay in range.
const MAX_OUTPUT: u64 = 16 << 20;
const MAX_DEPLOYMENTS: usize = 256;

pub(super) fn check(context: &mut Context<'_>) {
    let documents = context.documents;
    context.unique(documents.models.iter().flat_map(|entry| {
        let model = &entry.value;
        let name = Named {
            key: model.name.as_str(),
            at: &entry.at,
            path: Path::Field("name"),
            what: "this model name",
        };
        let aliases = model.aliases.iter().enumerate().map(|(index, alias)| Named {
            key: alias.as_str(),
            at: &entry.at,
            path: Path::Item("aliases", index),
            what: "this model name",
        });
        std::iter::once(name).chain(aliases)
    }));
    context.unique(documents.models.iter().flat_map(|entry| {
        entry
            .value
            .deployments
            .iter()
            .enumerate()
            .map(|(index, deployment)| Named {
                key: deployment.id(&entry.value.name),
                at: &entry.at,
                path: Path::Of("deployments", index, "id"),
                what: "a deployment of this id",
            })
    }));
    for entry in &documents.models {
        let Entry { value: model, at } = entry;
        check_name(context, at, "name", &model.name, 128);
        for (index, alias) in model.aliases.iter().enumerate() {
            check_name(context, at, format_args!("aliases[{index}]"), alias, 128);
        }
        check_deployments(context, at, model);
        limits::check_list(context, at, &model.limits, Owner::Model(&model.name));
        relief::check(context, at, &model.relief, model.limits.iter());
        check_sizes(context, at, model);
        check_currency(context, at, model);
        if let Some(factor) = model.suspicious_usage_factor {
            check_factor(context, at, factor);
        }
        check_timeouts(context, at, model);
        check_quotas(context, entry);
        check_fallback(context, at, model);
        check_routing(context, at, model);
        routing::check_experiment(context, at, model);
    }
    context.unique(documents.models.iter().filter_map(|entry| {
        let experiment = entry.value.experiment.as_ref()?;
        Some(Named {
            key: experiment.name.as_str(),
            at: &entry.at,
            path: Path::Field("experiment.name"),
            what: "an experiment of this name",
        })
    }));
}

fn check_deployments(context: &mut Context<'_>, at: &Location, model: &Model) {
    if model.deployments.is_empty() || model.deployments.len() > MAX_DEPLOYMENTS {
        context.error(
            at,
            "deployments",
            format!("a model needs 1..={MAX_DEPLOYMENTS} deployments"),
        );
    }
    for (index, deployment) in model.deployments.iter().enumerate() {
        let path = |name: &str| format!("deployments[{index}].{name}");
        if let Some(id) = &deployment.id {
            check_name(context, at, path("id"), id, 256);
        }
        if let Some(name) = &deployment.upstream_model {
            check_name(context, at, path("upstream_model"), name, 256);
        }
        if deployment.version.len() > 64 || deployment.version.chars().any(char::is_control) {
            context.error(
                at,
                path("version"),
                "must be at most 64 bytes without control characters",
            );
        }
        if deployment.weight > MAX_WEIGHT {
            context.error(at, path("weight"), format!("must be 0..={MAX_WEIGHT}"));
        }
        let provider = deployment.provider.as_str();
        if !context.providers.contains(provider) && context.documents.is_complete(Kind::Providers) {
            let hint = suggest::did_you_mean(provider, context.providers.iter().copied());
            let problem = at
                .error(&path("provider"), format!("unknown provider `{provider}`"))
                .hint(hint);
            context.problems.push(problem);
        }
    }
    let usable = model
        .deployments
        .iter()
        .any(|deployment| deployment.enabled && deployment.weight > 0);
    if !model.deployments.is_empty() && !usable {
        context.warning(
            at,
            "deployments",
            "no deployment is enabled and has a weight; requests will be refused",
        );
    }
}

/// Sums of different currencies would mean nothing.
fn check_currency(context: &mut Context<'_>, at: &Location, model: &Model) {
    let prices = |model: &'_ Model| -> Vec<(String, String)> {
        let costs = model
            .deployments
            .iter()
            .enumerate()
            .filter_map(|(index, deployment)| {
                let cost = deployment.cost.as_ref()?;
                Some((
                    format!("deployments[{index}].cost.currency"),
                    cost.currency.clone(),
                ))
            });
        let price = model.price.as_ref();
        let price = price.map(|price| ("price.currency".to_owned(), price.currency.clone()));
        price.into_iter().chain(costs).collect()
    };
    let first = context
        .documents
        .models
        .iter()
        .find_map(|entry| prices(&entry.value).into_iter().next());
    for (path, currency) in prices(model) {
        if currency.len() != 3 || !currency.bytes().all(|byte| byte.is_ascii_uppercase()) {
            context.error(at, path, "must be three capital letters, such as `USD`");
        } else if let Some((_, first)) = &first
            && *first != currency
        {
            let reason = format!("another price is in `{first}`: all prices must be in one currency");
            context.error(at, path, reason);
        }
    }
}

/// Quotas are taken per attempt, where nothing can wait or be clamped: leaky buckets are for channels and models.
fn check_quotas(context: &mut Context<'_>, entry: &Entry<Model>) {
    let Entry { value: model, at } = entry;
    for (index, deployment) in model.deployments.iter().enumerate() {
        let id = deployment.id(&model.name);
        context.within = format!("deployments[{index}].");
        limits::check_list(context, at, &deployment.limits, Owner::Deployment(&id));
        for (number, limit) in deployment.limits.iter().enumerate() {
            if limit.algorithm() == Algorithm::LeakyBucket {
                context.error(
                    at,
                    format!("limits[{number}].algorithm"),
                    "a deployment cannot delay; use token_bucket",
                );
            }
        }
    }
    context.within.clear();
}

fn check_sizes(context: &mut Context<'_>, at: &Location, model: &Model) {
    if !(1..=MAX_OUTPUT).contains(&model.max_output_tokens) {
        context.error(at, "max_output_tokens", format!("must be 1..={MAX_OUTPUT}"));
    }
    if !(1..=MAX_OUTPUT).contains(&model.default_max_tokens) {
        context.error(at, "default_max_tokens", format!("must be 1..={MAX_OUTPUT}"));
    } else if model.default_max_tokens > model.max_output_tokens {
        context.error(at, "default_max_tokens", "must not exceed max_output_tokens");
    }
    if !(1..=MAX_BODY).contains(&model.max_body_bytes) {
        context.error(at, "max_body_bytes", format!("must be 1..={MAX_BODY}"));
    }
}

fn check_timeouts(context: &mut Context<'_>, at: &Location, model: &Model) {
    let timeouts = &model.timeouts;
    let stages = [
        ("connect", timeouts.connect),
        ("first_token", timeouts.first_token),
        ("idle", timeouts.idle),
    ];
    for (name, span) in stages.into_iter().chain([("total", timeouts.total)]) {
        if !(1..=86_400_000).contains(&span.as_millis()) {
            context.error(at, format_args!("timeouts.{name}"), "must be 1ms..=24h");
        }
    }
    for (name, span) in stages {
        if span > timeouts.total {
            context.warning(
                at,
                format_args!("timeouts.{name}"),
                "is longer than `total`, which ends the request first",
            );
        }
    }
}

fn check_routing(context: &mut Context<'_>, at: &Location, model: &Model) {
    let routing = &model.routing;
    if let Some(Err(reason)) = routing.affinity.as_deref().map(Affinity::parse) {
        context.error(at, "routing.affinity", reason);
    }
    if let Some(latest) = &routing.latest
        && !model.deployments.iter().any(|d| d.version == *latest)
    {
        context.error(
            at,
            "routing.latest",
            format!("no deployment has the version `{latest}`"),
        );
    }
    if routing.panic_percent > 100 {
        context.error(at, "routing.panic_percent", "must be 0..=100");
    }
    let lifetime = routing.session.lifetime.as_millis();
    if !(1_000..=30 * 86_400_000).contains(&lifetime) {
        context.error(at, "routing.session.lifetime", "must be 1s..=30d");
    }
    if routing.session.same_site == SameSite::None && !routing.session.secure {
        context.error(
            at,
            "routing.session.same_site",
            "browsers refuse `none` without `\"secure\": true`",
        );
    }
    let hour = Span::from_millis(3_600_000);
    if routing.slow_start > hour {
        context.error(at, "routing.slow_start", "must be 0..=1h");
    }
    let breaker = &routing.breaker;
    if !(1..=1_000).contains(&breaker.failures) {
        context.error(at, "routing.breaker.failures", "must be 1..=1000");
    }
    if breaker.open < Span::from_millis(100) || breaker.open > hour {
        context.error(at, "routing.breaker.open", "must be 100ms..=1h");
    }
    if breaker.max_open < breaker.open || breaker.max_open > hour {
        context.error(
            at,
            "routing.breaker.max_open",
            "must be at least `open`, at most 1h",
        );
    }
    if !(1..=16).contains(&routing.retry.attempts) {
        context.error(at, "routing.retry.attempts", "must be 1..=16");
    }
    if routing.retry.budget_percent > 100 {
        context.error(at, "routing.retry.budget_percent", "must be 0..=100");
    }
}

fn check_fallback(context: &mut Context<'_>, at: &Location, model: &Model) {
    let mut seen = HashSet::new();
    for (index, name) in model.fallback.iter().enumerate() {
        let path = format!("fallback[{index}]");
        if *name == model.name {
            context.error(at, &path, "a model cannot be its own fallback");
        } else if !seen.insert(name) {
            context.error(at, &path, format!("`{name}` stands twice"));
        } else {
            context.expect_model(at, &path, name);
        }
    }
}
