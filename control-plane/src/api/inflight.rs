//! Requests being served now.

use axum::extract::State;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};

use super::AppState;
use super::extract::Query;
use crate::accounts::Principal;

/// Most requests in one answer.
const MOST: usize = 10_000;

/// How many.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// At most so many; 100 by default.
    #[serde(default = "hundred")]
    limit: usize,
}

fn hundred() -> usize {
    100
}

/// Requests in flight, in no order.
pub(super) async fn read(
    State(state): State<AppState>,
    Extension(who): Extension<Principal>,
    Query(wanted): Query<Wanted>,
) -> Json<Value> {
    let region = &state.region;
    let now = region.now_ms();
    let rows: Vec<Value> = region
        .inflight(if who.is_limited() {
            usize::MAX
        } else {
            wanted.limit.min(MOST)
        })
        .into_iter()
        .filter_map(|r| {
            let names = r.usage.and_then(|u| region.usage(u));
            let (channel, model) = names.map(|t| (t.channel, t.model)).unzip();
            if who.is_limited() && !channel.as_deref().is_some_and(|c| who.sees(c)) {
                return None;
            }
            Some(json!({
                "row": r.row, "age_ms": now.saturating_sub(r.start_ms), "channel": channel, "model": model,
                "input_tokens": r.input, "reserved_output": r.output, "produced": r.produced,
            }))
        })
        .take(wanted.limit.min(MOST))
        .collect();
    Json(json!({ "requests": rows }))
}
