//! The request log, newest first.

use axum::Json;
use axum::extract::{Query, State};
use serde::Deserialize;
use serde_json::{Value, json};

use super::{ApiError, AppState};
use crate::ledger::RequestQuery;

/// Most lines on one page.
const MOST: usize = 1_000;

/// Which lines.
#[derive(Debug, Deserialize)]
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
    /// At most so many; 100 by default, at most 1,000.
    #[serde(default = "hundred")]
    limit: usize,
}

fn hundred() -> usize {
    100
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
        limit,
    };
    let lines = tokio::task::spawn_blocking(move || state.ledger.requests(&query)).await??;
    let next = (lines.len() == limit)
        .then(|| lines.last().map(|(id, _)| *id))
        .flatten();
    let lines: Vec<_> = lines.into_iter().map(|(_, record)| record).collect();
    Ok(Json(json!({ "requests": lines, "next": next })))
}
