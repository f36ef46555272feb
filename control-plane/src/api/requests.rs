//! The request log, newest first.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};

use super::extract::Query;
use super::{ApiError, AppState};
use crate::config::ConfigStatus;
use crate::ledger::{RequestQuery, RequestRecord};
use crate::live;

/// Most lines on one page.
const MOST: usize = 1_000;

/// Which lines.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// `next` of the page before.
    before: Option<i64>,
    /// Only this channel.
    channel: Option<String>,
    /// Only this model.
    model: Option<String>,
    /// Only this class: `ok`, `client`, `rule`, `limit`, `upstream`, `timeout`, `abort`, `internal`.
    class: Option<String>,
    /// Only callers whom this experiment has sorted.
    experiment: Option<String>,
    /// Only callers of a group of this name.
    group: Option<String>,
    /// At most so many; 100 by default, at most 1,000.
    #[serde(default = "hundred")]
    limit: usize,
}

fn hundred() -> usize {
    100
}

/// Names of the limit and the rule that decided, as far as the configuration in force still has them.
fn named(status: &ConfigStatus, record: RequestRecord) -> Value {
    let number = |hex: &str| u64::from_str_radix(hex, 16).ok();
    let limit = || {
        let key = number(&record.limit_key)?;
        let snapshot = status.active()?.snapshot()?;
        let channel = snapshot.channel_by_code(record.channel.as_bytes());
        let model = snapshot.model(record.model.as_bytes());
        let limits = live::applying(&snapshot, channel.as_ref(), model.as_ref());
        let limit = limits.iter().find(|l| l.counter_key(&record.model) == key)?;
        Some(limit.name().to_owned())
    };
    let limit = limit();
    let rule = number(&record.rule).and_then(|hash| status.rules.get(&hash));
    let mut line = json!(record);
    if let Some(fields) = line.as_object_mut() {
        if let Some(rule) = rule {
            fields.insert("rule".into(), rule.clone().into());
        }
        fields.insert("limit".into(), limit.into());
    }
    line
}

/// A page of the log.
pub(super) async fn read(
    State(state): State<AppState>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Value>, ApiError> {
    let limit = wanted.limit.clamp(1, MOST);
    let query = RequestQuery {
        before: wanted.before,
        channel: wanted.channel,
        model: wanted.model,
        class: wanted.class,
        experiment: wanted.experiment,
        group: wanted.group,
        limit,
    };
    let status = state.status();
    let lines = tokio::task::spawn_blocking(move || state.ledger.requests(&query)).await??;
    let next = (lines.len() == limit)
        .then(|| lines.last().map(|(id, _)| *id))
        .flatten();
    let lines: Vec<Value> = lines
        .into_iter()
        .map(|(_, record)| named(&status, record))
        .collect();
    Ok(Json(json!({ "requests": lines, "next": next })))
}
