//! Limits: each by itself, the lists they stand in, and how many one request can meet.

use super::{Context, Path, check_name};
use crate::{
    documents::{Algorithm, Limit, Location, Metric},
    effective::EffectiveChannel,
    glob::{glob_matches, is_glob},
    identity::{Owner, limit_shape},
};
use std::collections::{HashMap, HashSet};

/// Most limits that one request may meet: what a row of the in-flight table holds.
pub(crate) const MAX_PER_REQUEST: usize = 16;
/// Longest list of limits as written; far above what can apply to one request.
const MAX_LIST: usize = 256;
/// Longest window.
const MAX_WINDOW_MS: u64 = 31 * 86_400_000;
const MAX_DELAY_MS: u64 = 60_000;

/// Checks a list of limits as it was written.
pub(super) fn check_list(context: &mut Context<'_>, at: &Location, limits: &[Limit], owner: Owner<'_>) {
    if limits.len() > MAX_LIST {
        context.error(at, "limits", format!("at most {MAX_LIST} limits"));
        return;
    }
    let mut shapes: Vec<u64> = Vec::with_capacity(limits.len());
    let mut names: Vec<String> = Vec::with_capacity(limits.len());
    for (index, limit) in limits.iter().enumerate() {
        check_limit(context, at, index, limit, owner);
        let (shape, name) = (limit_shape(limit, owner), limit.display_name());
        if let Some(first) = shapes.iter().position(|earlier| *earlier == shape) {
            let reason = format!(
                "counts the same as `limits[{first}]`: metric, window, model and algorithm are equal"
            );
            context.error(at, Path::Item("limits", index), reason);
        } else if let Some(first) = names.iter().position(|earlier| *earlier == name) {
            let reason = format!("`limits[{first}]` has the same name, `{name}`");
            context.error(at, Path::Of("limits", index, "name"), reason);
        }
        shapes.push(shape);
        names.push(name);
    }
}

/// Checks that inherited and own limits together have different names.
pub(super) fn check_effective_names(context: &mut Context<'_>, channel: &EffectiveChannel<'_>) {
    // Without inherited limits, the list as written was checked already.
    let inherited = channel
        .limits
        .iter()
        .any(|limit| !std::ptr::eq(limit.at, channel.at));
    if !inherited || channel.channel.limits.is_empty() {
        return;
    }
    let mut names = HashSet::new();
    for limit in &channel.limits {
        let name = limit.limit.display_name();
        if !names.insert(name.clone()) && std::ptr::eq(limit.at, channel.at) {
            context.error(
                limit.at,
                limit.path(),
                format!("an inherited limit has the same name, `{name}`"),
            );
        }
    }
}

fn check_limit(context: &mut Context<'_>, at: &Location, index: usize, limit: &Limit, owner: Owner<'_>) {
    let field = |name| Path::Of("limits", index, name);
    if limit.metric == Metric::Cost {
        check_priced(context, at, field("metric"), owner);
    }
    if limit.max > Limit::MAX {
        context.error(at, field("max"), format!("must be 0..={}", Limit::MAX));
    }
    if let Some(name) = &limit.name {
        check_name(context, at, field("name"), name, 128);
    }
    check_algorithm(context, at, index, limit);
    check_window(context, at, field("window"), limit);
    match (owner, limit.model.as_deref()) {
        (Owner::Model(_) | Owner::Deployment(_), Some(_)) => {
            context.error(
                at,
                field("model"),
                "a model's own limits are for that model already",
            );
        }
        (_, Some(pattern)) => check_model(context, at, field("model"), pattern),
        _ => {}
    }
    if limit.per_model {
        let one =
            matches!(owner, Owner::Model(_)) || limit.model.as_deref().is_some_and(|model| !is_glob(model));
        if one {
            context.warning(
                at,
                field("per_model"),
                "there is only one model here; `per_model` makes no difference",
            );
        }
    }
}

/// What has no price costs nothing.
fn check_priced(context: &mut Context<'_>, at: &Location, path: Path, owner: Owner<'_>) {
    let models = &context.documents.models;
    let priced = match owner {
        Owner::Deployment(id) => models.iter().any(|entry| {
            let mut deployments = entry.value.deployments.iter();
            deployments.any(|deployment| deployment.cost.is_some() && deployment.id(&entry.value.name) == id)
        }),
        Owner::Model(name) => models
            .iter()
            .any(|entry| entry.value.name == name && entry.value.price.is_some()),
        _ => models.iter().any(|entry| entry.value.price.is_some()),
    };
    if !priced {
        context.warning(
            at,
            path,
            "nothing that it counts has a price; it will never refuse anything",
        );
    }
}

fn check_model(context: &mut Context<'_>, at: &Location, path: Path, pattern: &str) {
    check_name(context, at, path, pattern, 128);
    if !is_glob(pattern) {
        context.expect_model(at, path, pattern);
    } else if !context.any_model_matches(pattern) {
        context.warning(at, path, format!("no model matches `{pattern}`"));
    }
}

fn check_algorithm(context: &mut Context<'_>, at: &Location, index: usize, limit: &Limit) {
    let field = |name| Path::Of("limits", index, name);
    let algorithm = limit.algorithm();
    match (limit.metric, algorithm) {
        (Metric::Connections, Algorithm::Concurrency) => {}
        (Metric::Connections, _) => {
            context.error(at, field("algorithm"), "connections are counted by `concurrency`");
        }
        (_, Algorithm::Concurrency) => {
            context.error(at, field("algorithm"), "`concurrency` is for connections");
        }
        (Metric::Requests, _)
        | (_, Algorithm::SlidingWindow | Algorithm::FixedWindow | Algorithm::TokenBucket) => {}
        (_, Algorithm::LeakyBucket) => {
            context.error(
                at,
                field("algorithm"),
                "`leaky_bucket` delays requests; it cannot count tokens",
            );
        }
    }
    match (limit.burst, algorithm) {
        (None, _) => {}
        (Some(burst), Algorithm::TokenBucket) => {
            if burst > Limit::MAX || (burst == 0 && limit.max > 0) {
                context.error(at, field("burst"), format!("must be 1..={}", Limit::MAX));
            }
        }
        (Some(_), _) => context.error(at, field("burst"), "only `token_bucket` has a burst"),
    }
    match (limit.max_delay, algorithm) {
        (None, _) => {}
        (Some(delay), Algorithm::LeakyBucket) => {
            if delay.as_millis() > MAX_DELAY_MS {
                context.error(at, field("max_delay"), "must be at most 60s");
            }
        }
        (Some(_), _) => context.error(at, field("max_delay"), "only `leaky_bucket` delays"),
    }
}

fn check_window(context: &mut Context<'_>, at: &Location, path: Path, limit: &Limit) {
    let window = match (limit.metric, limit.window) {
        (Metric::Connections, None) => return,
        (Metric::Connections, Some(_)) => return context.error(at, path, "connections have no window"),
        (_, None) => return context.error(at, path, "missing: how long is the window, such as `10m`?"),
        (_, Some(window)) => window.as_millis(),
    };
    let short = context
        .documents
        .settings
        .as_ref()
        .is_some_and(|entry| entry.value.testing.short_windows);
    if window == 0 || window > MAX_WINDOW_MS {
        context.error(at, path, "must be longer than 0 and at most 31d");
    } else if limit.metric == Metric::Requests || short {
        if !window.is_multiple_of(1_000) {
            context.error(at, path, "must be whole seconds");
        }
    } else if !window.is_multiple_of(60_000) {
        context.error(at, path, "windows of tokens must be whole minutes");
    }
}

/// A request meets the limits of its channel, its model and the global ones: at most [`MAX_PER_REQUEST`].
pub(super) fn check_worst_case(context: &mut Context<'_>, channels: &[EffectiveChannel<'_>]) {
    let documents = context.documents;
    let global = documents
        .settings
        .as_ref()
        .map_or(&[][..], |entry| entry.value.limits.as_slice());
    let applies = |limit: &Limit, model: &str| {
        limit
            .model
            .as_deref()
            .is_none_or(|pattern| glob_matches(pattern, model))
    };
    // What a model adds: its own limits and the global ones for it. "" is a request without a model.
    let mut models: Vec<(&str, usize)> = documents
        .models
        .iter()
        .map(|entry| (entry.value.name.as_str(), entry.value.limits.len()))
        .chain([("", 0)])
        .map(|(name, own)| {
            (
                name,
                own + global.iter().filter(|limit| applies(limit, name)).count(),
            )
        })
        .collect();
    models.sort_by_key(|(_, added)| std::cmp::Reverse(*added));
    let most_added = models.first().map_or(0, |(_, added)| *added);
    // Channels of one template have the same sums.
    let mut known: HashMap<Vec<u64>, Option<(usize, &str)>> = HashMap::new();
    for channel in channels {
        if channel.limits.len() + most_added <= MAX_PER_REQUEST {
            continue;
        }
        let shapes: Vec<u64> = channel.limits.iter().map(|limit| limit.shape).collect();
        let worst = *known.entry(shapes).or_insert_with(|| {
            models
                .iter()
                .map(|(model, added)| {
                    let own = channel
                        .limits
                        .iter()
                        .filter(|limit| applies(limit.limit, model))
                        .count();
                    (own + added, *model)
                })
                .max_by_key(|(total, _)| *total)
                .filter(|(total, _)| *total > MAX_PER_REQUEST)
        });
        if let Some((total, model)) = worst {
            let what = if model.is_empty() {
                "a request".to_owned()
            } else {
                format!("a request for `{model}`")
            };
            let reason = format!(
                "{total} limits apply to {what} of channel `{}` (its own, the model's, the global ones); at most \
                 {MAX_PER_REQUEST} can",
                channel.channel.code
            );
            context.error(channel.at, "limits", reason);
        }
    }
}
