//! A dry run over the snapshot in force and the present levels.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::extract::Body;
use super::limits::no_configuration;
use super::{ApiError, AppState};
use crate::explain::{ExplainRequest, explain};

/// Explains what would become of a request.
pub(super) async fn answer(State(state): State<AppState>, Body(body): Body) -> Result<Json<Value>, ApiError> {
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
        Some(json!({
            "generation": active.generation(),
            "version": status.version,
            "overrides": *status.overrides,
            "explanation": explanation,
        }))
    });
    explained.await?.map(Json).ok_or_else(no_configuration)
}
