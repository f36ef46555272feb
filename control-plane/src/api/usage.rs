//! Usage from the ledger.

use axum::Json;
use axum::extract::{Query, State};
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::{ApiError, AppState};
use crate::ledger::{COUNTER_NAMES, Counters, STEPS, UsageQuery};

/// Most points in one answer.
const MOST: usize = 20_000;

/// Which usage.
#[derive(Debug, Deserialize)]
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

fn fields(counters: &Counters) -> Map<String, Value> {
    let mut fields: Map<String, Value> = COUNTER_NAMES
        .iter()
        .zip(counters.0)
        .map(|(name, n)| ((*name).to_owned(), n.into()))
        .collect();
    fields.insert("requests".into(), counters.requests().into());
    fields
}

/// Usage per channel × model in buckets of a minute or ten, and its total.
pub(super) async fn read(
    State(state): State<AppState>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Value>, ApiError> {
    if !STEPS.contains(&wanted.step) {
        return Err(ApiError::bad_request("`step` must be 60, 600, or 0 for all time"));
    }
    let now = state.region.now_ms() / 1_000;
    let (from, to) = if wanted.step == 0 {
        (0, u64::MAX)
    } else {
        let to = wanted.to.unwrap_or(now + 1);
        (wanted.from.unwrap_or(to.saturating_sub(3_600)), to)
    };
    let query = UsageQuery {
        step: wanted.step,
        // The bucket that `from` lies in belongs to the answer.
        from: from.checked_div(wanted.step).map_or(0, |n| n * wanted.step),
        to,
        channel: wanted.channel,
        model: wanted.model,
        limit: MOST + 1,
    };
    let first = query.from;
    let mut points = tokio::task::spawn_blocking(move || state.ledger.usage(&query)).await??;
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
        "to": if wanted.step == 0 { now } else { to },
        "truncated": truncated,
        "total": fields(&total),
        "points": shown,
    })))
}
