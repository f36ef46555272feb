//! Usage from the ledger.

use axum::extract::State;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::extract::Query;
use super::{ApiError, AppState};
use crate::accounts::Principal;
use crate::ledger::{COUNTER_NAMES, Counters, STEPS, UsageQuery};

/// Most points in one answer.
const MOST: usize = 20_000;

/// Which usage.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Only this channel.
    channel: Option<String>,
    /// Only this model.
    model: Option<String>,
    /// Unix seconds; an hour ago by default.
    from: Option<u64>,
    /// Unix seconds, not included; now by default.
    to: Option<u64>,
    /// 60, 600, or 0 for all time.
    #[serde(default = "minute")]
    step: u64,
}

fn minute() -> u64 {
    60
}

pub(super) fn fields(counters: &Counters) -> Map<String, Value> {
    let mut fields: Map<String, Value> = COUNTER_NAMES
        .iter()
        .zip(counters.0)
        .map(|(name, n)| ((*name).to_owned(), n.into()))
        .collect();
    fields.insert("requests".into(), counters.requests().into());
    fields
}

/// From when to when, Unix seconds.
pub(super) struct Range {
    /// Begin of the first bucket.
    pub from: u64,
    /// Not included.
    pub to: u64,
    /// What to call `to`.
    pub shown_to: u64,
}

impl Range {
    /// What is asked for; an hour by default, everything if the step is 0.
    pub(super) fn of(step: u64, from: Option<u64>, to: Option<u64>, now: u64) -> Result<Range, ApiError> {
        if !STEPS.contains(&step) {
            return Err(ApiError::bad_request("`step` must be 60, 600, or 0 for all time"));
        }
        if step == 0 {
            return Ok(Range {
                from: 0,
                to: u64::MAX,
                shown_to: now,
            });
        }
        let to = to.unwrap_or(now + 1);
        let from = from.unwrap_or(to.saturating_sub(3_600));
        Ok(Range {
            // The bucket that it lies in belongs to the answer.
            from: from / step * step,
            to,
            shown_to: to,
        })
    }
}

/// Usage per channel × model in buckets of a minute or ten, and its total.
pub(super) async fn read(
    State(state): State<AppState>,
    Extension(who): Extension<Principal>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Value>, ApiError> {
    let now = state.region.now_ms() / 1_000;
    let range = Range::of(wanted.step, wanted.from, wanted.to, now)?;
    let query = UsageQuery {
        step: wanted.step,
        from: range.from,
        to: range.to,
        channel: wanted.channel,
        model: wanted.model,
        limit: MOST + 1,
    };
    let first = query.from;
    let mut points = tokio::task::spawn_blocking(move || state.ledger.usage(&query)).await??;
    points.retain(|p| who.sees(&p.channel));
    let truncated = points.len() > MOST;
    points.truncate(MOST);
    let total = points
        .iter()
        .fold(Counters::default(), |sum, p| sum.plus(&p.counters));
    let shown: Vec<Value> = points
        .iter()
        .map(|p| {
            let mut point = fields(&p.counters);
            point.insert("time".into(), p.bucket.into());
            point.insert("channel".into(), p.channel.clone().into());
            point.insert("model".into(), p.model.clone().into());
            Value::Object(point)
        })
        .collect();
    Ok(Json(json!({
        "step": wanted.step,
        "from": first,
        "to": range.shown_to,
        "truncated": truncated,
        "total": fields(&total),
        "points": shown,
    })))
}
