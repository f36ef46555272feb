//! The audit log.

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::extract::{Path, Query};
use super::{ApiError, AppState};
use crate::audit::{AuditQuery, AuditRows, Outcome, Row, Verdict};

/// Most rows on one page.
const MOST: usize = 1_000;

/// Which rows.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// `next` of the page before.
    before: Option<u64>,
    /// Only of this account.
    actor: Option<String>,
    /// Only of this resource.
    resource: Option<String>,
    /// Only this action.
    action: Option<String>,
    /// Only about this one.
    target: Option<String>,
    /// Only with this outcome.
    outcome: Option<Outcome>,
    /// Not older, Unix milliseconds.
    from_ms: Option<u64>,
    /// Older than this, Unix milliseconds.
    to_ms: Option<u64>,
    /// Only with this text somewhere.
    search: Option<String>,
    /// At most so many; 100 by default, at most 1,000.
    limit: Option<usize>,
}

/// A page of the audit log.
#[derive(Serialize, JsonSchema)]
pub(super) struct AuditPage {
    items: Vec<Row>,
    /// `before` of the next page; null on the last one. A page of a search for a text may be short, and the next one goes on.
    next: Option<u64>,
    /// Number of rows of the log.
    count: u64,
    /// Hash of the last row.
    head: String,
}

/// A page of the log, newest first.
pub(super) async fn list(
    State(state): State<AppState>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<AuditPage>, ApiError> {
    let query = AuditQuery {
        before: wanted.before,
        actor: wanted.actor,
        resource: wanted.resource,
        action: wanted.action,
        target: wanted.target,
        outcome: wanted.outcome,
        from_ms: wanted.from_ms,
        to_ms: wanted.to_ms,
        search: wanted.search.filter(|s| !s.is_empty()),
        limit: wanted.limit.unwrap_or(100).clamp(1, MOST),
    };
    let audit = state.audit.clone();
    tokio::task::spawn_blocking(move || {
        let AuditRows { rows: items, next } = audit.rows(&query)?;
        let (count, head) = audit.count();
        Ok(Json(AuditPage {
            items,
            next,
            count,
            head,
        }))
    })
    .await?
}

/// One row.
pub(super) async fn one(State(state): State<AppState>, Path(seq): Path<u64>) -> Result<Json<Row>, ApiError> {
    let audit = state.audit.clone();
    let row = tokio::task::spawn_blocking(move || audit.row(seq)).await??;
    row.map(Json)
        .ok_or_else(|| ApiError::not_found(format!("there is no row {seq}")))
}

/// Follows the chain.
pub(super) async fn verify(State(state): State<AppState>) -> Result<Json<Verdict>, ApiError> {
    let audit = state.audit.clone();
    Ok(Json(tokio::task::spawn_blocking(move || audit.verify()).await??))
}
