//! Whether the daemon does its work. Says nothing that needs a token.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};

use super::AppState;

/// 200 with a configuration in force, 503 without one.
pub(super) async fn read(State(state): State<AppState>) -> (StatusCode, Json<Value>) {
    let status = state.status();
    let (errors, _) = status.counts();
    let word = match (status.generation(), errors) {
        (0, _) => "no configuration",
        (_, 0) => "ok",
        _ => "configuration has errors",
    };
    let code = if status.generation() == 0 {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::OK
    };
    (
        code,
        Json(json!({ "status": word, "generation": status.generation() })),
    )
}
