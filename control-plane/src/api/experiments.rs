//! Experiments: what is in force, and what came of each group.

use std::collections::BTreeMap;

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use tollgate_policy::{ExperimentView, GroupView};
use tollgate_shm::Class;

use super::extract::{Path, Query};
use super::usage::{self, Range};
use super::{ApiError, AppState};
use crate::explain::by_name;
use crate::ledger::{Counter, Histogram, Results, ResultsQuery, quantile_us};

/// Most points in one answer.
const MOST: usize = 20_000;

/// What is in force of a group.
fn group(group: &GroupView<'_>) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("name".into(), group.name().into());
    fields.insert("share".into(), (f64::from(group.share()) / 1_000.0).into());
    let effects = [
        (
            "set_version",
            Some(group.version()).filter(|v| !v.is_empty()).map(Value::from),
        ),
        ("set_deployment", group.deployment().map(|d| d.id().into())),
        ("set_model", group.model().map(|m| m.name().into())),
        ("cap_max_tokens", group.cap_max_tokens().map(Value::from)),
    ];
    for (name, effect) in effects {
        if let Some(effect) = effect {
            fields.insert(name.into(), effect);
        }
    }
    fields
}

fn head(experiment: &ExperimentView<'_>) -> Map<String, Value> {
    let mut fields = Map::new();
    fields.insert("name".into(), experiment.name().into());
    fields.insert("model".into(), experiment.model().map(|m| m.name()).into());
    fields.insert("by".into(), experiment.by().map(by_name).into());
    fields.insert(
        "header".into(),
        Some(experiment.header()).filter(|h| !h.is_empty()).into(),
    );
    fields
}

/// All experiments in force.
pub(super) async fn all(State(state): State<AppState>) -> Json<Value> {
    let status = state.status();
    let snapshot = status.active().and_then(|active| active.snapshot());
    let shown: Vec<Value> = snapshot
        .into_iter()
        .flat_map(|snapshot| snapshot.experiments())
        .map(|experiment| {
            let mut fields = head(&experiment);
            let groups: Vec<_> = experiment.groups().map(|g| group(&g)).collect();
            fields.insert("groups".into(), json!(groups));
            Value::Object(fields)
        })
        .collect();
    Json(json!({ "experiments": shown }))
}

/// Which results.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
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

fn times(histogram: &Histogram) -> Value {
    let quantile = |q| quantile_us(histogram, q);
    json!({
        "count": histogram.iter().sum::<u64>(),
        "p50_us": quantile(0.5), "p95_us": quantile(0.95), "p99_us": quantile(0.99),
    })
}

fn results(results: &Results) -> Map<String, Value> {
    let mut fields = usage::fields(&results.counters);
    let failed = [Class::Upstream, Class::Timeout, Class::Internal];
    let errors: i64 = failed
        .map(|c| results.counters.get(Counter::Requests(c)))
        .iter()
        .sum();
    fields.insert("errors".into(), errors.into());
    let proxied: u64 = results.latency.iter().sum();
    let total = fields
        .remove("latency_us")
        .and_then(|us| us.as_u64())
        .unwrap_or(0);
    let mut latency = times(&results.latency);
    if let Some(latency) = latency.as_object_mut() {
        latency.insert("mean_us".into(), total.checked_div(proxied).into());
    }
    fields.insert("latency".into(), latency);
    fields.insert("first_token".into(), times(&results.first_token));
    fields
}

/// One experiment with what came of each group: requests by how they ended, errors of ours and the upstreams', tokens,
/// latency. Groups that are in force no more are shown as long as there is something to show of them.
pub(super) async fn one(
    State(state): State<AppState>,
    Path(name): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Value>, ApiError> {
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
    let mut groups: Vec<Map<String, Value>> = Vec::new();
    for known in found.iter().flat_map(|experiment| experiment.groups()) {
        let mut fields = group(&known);
        fields.append(&mut results(&sums.remove(known.name()).unwrap_or_default()));
        groups.push(fields);
    }
    for (name, sum) in sums {
        let mut fields = Map::from_iter([
            ("name".to_owned(), name.into()),
            ("share".to_owned(), Value::Null),
        ]);
        fields.append(&mut results(&sum));
        groups.push(fields);
    }
    let shown: Vec<Value> = points
        .iter()
        .filter(|_| wanted.step > 0)
        .map(|point| {
            let mut fields = results(&point.results);
            fields.insert("time".into(), point.bucket.into());
            fields.insert("group".into(), point.group.clone().into());
            Value::Object(fields)
        })
        .collect();
    let mut answer = found.as_ref().map(head).unwrap_or_default();
    let more = json!({
        "name": name, "in_force": found.is_some(), "step": wanted.step, "from": range.from, "to": range.shown_to,
        "truncated": truncated, "groups": groups, "points": shown,
    });
    if let Value::Object(mut more) = more {
        answer.append(&mut more);
    }
    Ok(Json(Value::Object(answer)))
}
