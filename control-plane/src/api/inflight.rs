//! Requests being served now.

use axum::extract::State;
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::AppState;
use super::extract::Query;
use crate::accounts::Principal;

/// Most requests in one answer.
const MOST: usize = 10_000;

/// How many.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// At most so many; 100 by default.
    #[serde(default = "hundred")]
    limit: usize,
}

fn hundred() -> usize {
    100
}

/// A request that is being served.
#[derive(Serialize, JsonSchema)]
struct InFlight {
    /// Its row in the table of requests in flight.
    row: u32,
    /// Milliseconds since it was admitted.
    age_ms: u64,
    /// Its channel; null if it is not known yet.
    channel: Option<String>,
    /// Its model; null if it is not known yet.
    model: Option<String>,
    /// Input tokens reserved.
    input_tokens: u64,
    /// Output tokens reserved.
    reserved_output: u64,
    /// Output tokens produced so far.
    produced: u64,
}

/// Requests that are being served.
#[derive(Serialize, JsonSchema)]
pub(super) struct InFlightList {
    requests: Vec<InFlight>,
}

/// Requests in flight, in no order.
pub(super) async fn read(
    State(state): State<AppState>,
    Extension(who): Extension<Principal>,
    Query(wanted): Query<Wanted>,
) -> Json<InFlightList> {
    let region = &state.region;
    let now = region.now_ms();
    let requests: Vec<InFlight> = region
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
            Some(InFlight {
                row: r.row,
                age_ms: now.saturating_sub(r.start_ms),
                channel,
                model,
                input_tokens: r.input,
                reserved_output: r.output,
                produced: r.produced,
            })
        })
        .take(wanted.limit.min(MOST))
        .collect();
    Json(InFlightList { requests })
}
