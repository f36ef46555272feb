//! A dry run over the snapshot in force and the present levels.

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::Serialize;

use super::extract::Body;
use super::limits::no_configuration;
use super::{ApiError, AppState};
use crate::config::Override;
use crate::explain::{ExplainRequest, Explanation, explain};

/// What would become of a request, and by which configuration.
#[derive(Serialize, JsonSchema)]
pub(super) struct Explained {
    /// Generation in force.
    generation: u64,
    /// The published version in force; null if what is in force is none.
    version: Option<u64>,
    /// What this instance has of its own.
    overrides: Vec<Override>,
    explanation: Explanation,
}

/// Explains what would become of a request.
pub(super) async fn answer(
    State(state): State<AppState>,
    Body(body): Body,
) -> Result<Json<Explained>, ApiError> {
    let request: ExplainRequest = serde_json::from_slice(&body)
        .map_err(|e| ApiError::bad_request(format!("not a request to explain: {e}")))?;
    let status = state.status();
    let explained = tokio::task::spawn_blocking(move || {
        let active = status.active()?;
        let explanation = explain(
            active.snapshot()?,
            active.rules(),
            &request,
            &*state.region,
            &state.counting.tokenizers,
        );
        Some(Explained {
            generation: active.generation(),
            version: status.version,
            overrides: status.overrides.to_vec(),
            explanation,
        })
    });
    explained.await?.map(Json).ok_or_else(no_configuration)
}
