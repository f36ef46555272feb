//! Experiments: what is in force, and what came of each group.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tollgate_policy::{ExperimentView, GroupView};
use tollgate_shm::Class;

use super::extract::{Path, Query};
use super::usage::{Range, Tally};
use super::{ApiError, AppState};
use crate::explain::by_name;
use crate::ledger::{Counter, Histogram, Results, ResultsQuery, quantile_us};

/// Most points in one answer.
const MOST: usize = 20_000;

/// What an experiment consists of, as it is in force.
#[derive(Default, Serialize, JsonSchema)]
struct ExperimentHead {
    /// Its name.
    name: String,
    /// The model whose callers it sorts.
    model: Option<String>,
    /// What makes a caller, such as `header.x-user`.
    by: Option<String>,
    /// The header by which a caller names a group; null for none.
    header: Option<String>,
}

/// What is in force of a group.
#[derive(Default, Serialize, JsonSchema)]
struct ExperimentGroup {
    /// Its name.
    name: String,
    /// Percent of the callers; null for a group that is in force no more.
    share: Option<f64>,
    /// Its callers get this version.
    #[serde(skip_serializing_if = "Option::is_none")]
    set_version: Option<String>,
    /// Its callers get this deployment.
    #[serde(skip_serializing_if = "Option::is_none")]
    set_deployment: Option<String>,
    /// Its callers get this model.
    #[serde(skip_serializing_if = "Option::is_none")]
    set_model: Option<String>,
    /// Its callers get at most so many output tokens.
    #[serde(skip_serializing_if = "Option::is_none")]
    cap_max_tokens: Option<u64>,
}

/// An experiment in force.
#[derive(Serialize, JsonSchema)]
struct ExperimentInForce {
    #[serde(flatten)]
    head: ExperimentHead,
    groups: Vec<ExperimentGroup>,
}

/// Experiments in force.
#[derive(Serialize, JsonSchema)]
pub(super) struct ExperimentList {
    experiments: Vec<ExperimentInForce>,
}

/// How long requests took; microseconds, null without a request.
#[derive(Serialize, JsonSchema)]
pub(super) struct Times {
    /// Requests that this is made of.
    count: u64,
    p50_us: Option<u64>,
    p95_us: Option<u64>,
    p99_us: Option<u64>,
    /// Only told of whole requests.
    #[serde(skip_serializing_if = "Option::is_none")]
    mean_us: Option<i64>,
}

/// What came of requests.
#[derive(Serialize, JsonSchema)]
struct GroupResults {
    #[serde(flatten)]
    counters: Tally,
    /// Requests that failed upstream, timed out, or failed here.
    errors: i64,
    /// From the request to the end of the answer.
    latency: Times,
    /// From the request to the first byte of the answer.
    first_token: Times,
}

/// A group and what came of it.
#[derive(Serialize, JsonSchema)]
struct GroupOutcome {
    #[serde(flatten)]
    group: ExperimentGroup,
    #[serde(flatten)]
    results: GroupResults,
}

/// What came of a group within a bucket.
#[derive(Serialize, JsonSchema)]
struct GroupPoint {
    /// Begin of the bucket, Unix seconds.
    time: u64,
    /// The group's name.
    group: String,
    #[serde(flatten)]
    results: GroupResults,
}

/// An experiment and what came of it.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ExperimentOutcome")]
pub(super) struct Outcome {
    #[serde(flatten)]
    head: ExperimentHead,
    /// Whether it is in force.
    in_force: bool,
    /// Length of a bucket in seconds; 0 for all time.
    step: u64,
    /// Begin, Unix seconds.
    from: u64,
    /// End, Unix seconds.
    to: u64,
    /// Whether there are more points than these.
    truncated: bool,
    groups: Vec<GroupOutcome>,
    /// None if `step` is 0.
    points: Vec<GroupPoint>,
}

fn group(group: &GroupView<'_>) -> ExperimentGroup {
    ExperimentGroup {
        name: group.name().to_owned(),
        share: Some(f64::from(group.share()) / 1_000.0),
        set_version: Some(group.version()).filter(|v| !v.is_empty()).map(str::to_owned),
        set_deployment: group.deployment().map(|d| d.id().to_owned()),
        set_model: group.model().map(|m| m.name().to_owned()),
        cap_max_tokens: group.cap_max_tokens(),
    }
}

fn head(experiment: &ExperimentView<'_>) -> ExperimentHead {
    ExperimentHead {
        name: experiment.name().to_owned(),
        model: experiment.model().map(|m| m.name().to_owned()),
        by: experiment.by().map(by_name),
        header: Some(experiment.header())
            .filter(|h| !h.is_empty())
            .map(str::to_owned),
    }
}

/// All experiments in force.
pub(super) async fn all(State(state): State<AppState>) -> Json<ExperimentList> {
    let status = state.status();
    let snapshot = status.active().and_then(|active| active.snapshot());
    let experiments = snapshot
        .into_iter()
        .flat_map(|snapshot| snapshot.experiments())
        .map(|experiment| ExperimentInForce {
            head: head(&experiment),
            groups: experiment.groups().map(|g| group(&g)).collect(),
        })
        .collect();
    Json(ExperimentList { experiments })
}

/// Which results.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Unix seconds; an hour ago by default.
    from: Option<u64>,
    /// Unix seconds, not included; now by default.
    to: Option<u64>,
    /// 0 for all time; with 60 or 600 from `from` to `to`, and with points of that length.
    #[serde(default)]
    step: u64,
}

pub(super) fn times(histogram: &Histogram) -> Times {
    let quantile = |q| quantile_us(histogram, q);
    Times {
        count: histogram.iter().sum(),
        p50_us: quantile(0.5),
        p95_us: quantile(0.95),
        p99_us: quantile(0.99),
        mean_us: None,
    }
}

fn results(results: &Results) -> GroupResults {
    let failed = [Class::Upstream, Class::Timeout, Class::Internal];
    let errors = failed
        .map(|c| results.counters.get(Counter::Requests(c)))
        .iter()
        .sum();
    let proxied = i64::try_from(results.latency.iter().sum::<u64>()).unwrap_or(i64::MAX);
    let latency = Times {
        mean_us: results.counters.get(Counter::LatencyUs).checked_div(proxied),
        ..times(&results.latency)
    };
    GroupResults {
        counters: Tally(results.counters),
        errors,
        latency,
        first_token: times(&results.first_token),
    }
}

/// One experiment with what came of each group: requests by how they ended, errors of ours and the upstreams', tokens,
/// latency. Groups that are in force no more are shown as long as there is something to show of them.
pub(super) async fn one(
    State(state): State<AppState>,
    Path(name): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Outcome>, ApiError> {
    let now = state.region.now_ms() / 1_000;
    let range = Range::of(wanted.step, wanted.from, wanted.to, now)?;
    let query = ResultsQuery {
        step: wanted.step,
        from: range.from,
        to: range.to,
        experiment: Some(name.clone()),
        limit: MOST + 1,
    };
    let ledger = std::sync::Arc::clone(&state.ledger);
    let mut points = tokio::task::spawn_blocking(move || ledger.results(&query)).await??;
    let truncated = points.len() > MOST;
    points.truncate(MOST);
    let mut sums: BTreeMap<&str, Results> = BTreeMap::new();
    for point in &points {
        let sum = sums.entry(&point.group).or_default();
        *sum = sum.plus(&point.results);
    }
    let status = state.status();
    let snapshot = status.active().and_then(|active| active.snapshot());
    let found = snapshot
        .into_iter()
        .flat_map(|snapshot| snapshot.experiments())
        .find(|experiment| experiment.name() == name);
    if found.is_none() && points.is_empty() {
        return Err(ApiError::not_found(format!(
            "there is no experiment {name:?}, and no result of one in this time"
        )));
    }
    let mut groups: Vec<GroupOutcome> = Vec::new();
    for known in found.iter().flat_map(|experiment| experiment.groups()) {
        groups.push(GroupOutcome {
            group: group(&known),
            results: results(&sums.remove(known.name()).unwrap_or_default()),
        });
    }
    for (name, sum) in sums {
        let group = ExperimentGroup {
            name: name.to_owned(),
            ..ExperimentGroup::default()
        };
        groups.push(GroupOutcome {
            group,
            results: results(&sum),
        });
    }
    let shown = points.iter().filter(|_| wanted.step > 0).map(|point| GroupPoint {
        time: point.bucket,
        group: point.group.clone(),
        results: results(&point.results),
    });
    let head = found.as_ref().map(head).unwrap_or_else(|| ExperimentHead {
        name,
        ..ExperimentHead::default()
    });
    Ok(Json(Outcome {
        in_force: found.is_some(),
        head,
        step: wanted.step,
        from: range.from,
        to: range.shown_to,
        truncated,
        groups,
        points: shown.collect(),
    }))
}
