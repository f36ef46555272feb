//! What is done in an emergency. Blocking and maintenance are changes of documents: they reach every worker within a
//! tenth of a second, hold on every instance that reads the same documents, and are undone like any other change.

use axum::Extension;
use axum::extract::State;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Value, json};

use super::extract::{Body, Path};
use super::guard::Trail;
use super::resources::sort::Sort;
use super::resources::{self, Written};
use super::session::decoded;
use super::{ApiError, AppState};
use crate::accounts::Principal;

/// Name of the rule that refuses everything.
const MAINTENANCE: &str = "tollgate maintenance";

/// Refuses all requests of a channel from now on; those being served end by themselves.
pub(super) async fn block(
    State(state): State<AppState>,
    Extension(who): Extension<Principal>,
    Extension(trail): Extension<Trail>,
    Path(code): Path<String>,
) -> Result<Written, ApiError> {
    resources::set_field(
        Sort::CHANNELS,
        (state, who, trail),
        code,
        "enabled",
        Value::Bool(false),
    )
    .await
}

/// Serves a channel again.
pub(super) async fn unblock(
    State(state): State<AppState>,
    Extension(who): Extension<Principal>,
    Extension(trail): Extension<Trail>,
    Path(code): Path<String>,
) -> Result<Written, ApiError> {
    resources::set_field(
        Sort::CHANNELS,
        (state, who, trail),
        code,
        "enabled",
        Value::Bool(true),
    )
    .await
}

/// Maintenance.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Maintenance {
    /// Whether all requests are refused.
    on: bool,
    /// What clients are told.
    message: Option<String>,
    /// The HTTP status that they get; 503 by default.
    status: Option<u16>,
}

/// Refuses all requests, or serves them again.
pub(super) async fn maintenance(
    State(state): State<AppState>,
    Extension(who): Extension<Principal>,
    Extension(trail): Extension<Trail>,
    Body(body): Body,
) -> Result<Written, ApiError> {
    let wanted: Maintenance = decoded(&body)?;
    let message = wanted
        .message
        .as_deref()
        .unwrap_or("the gateway is being maintained; try again later");
    let rule = json!({
        "name": MAINTENANCE,
        "priority": i32::MAX,
        "enabled": wanted.on,
        "then": { "deny": { "status": wanted.status.unwrap_or(503), "code": "maintenance", "message": message } },
    });
    resources::put(Sort::RULES, (state, who, trail), MAINTENANCE, &rule).await
}
