//! Whether the daemon does its work. Says nothing that needs a token.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;

use super::AppState;

/// Whether the daemon does its work.
#[derive(Serialize, JsonSchema)]
pub(super) struct Health {
    /// In words.
    #[schemars(extend("enum" = ["ok", "no configuration", "configuration has errors"]))]
    status: &'static str,
    /// Generation in force; 0 for none.
    generation: u64,
    /// Whether all requests are refused.
    maintenance: bool,
}

/// 200 with a configuration in force, 503 without one.
pub(super) async fn read(State(state): State<AppState>) -> (StatusCode, Json<Health>) {
    let status = state.status();
    let (errors, _) = status.counts();
    let generation = status.generation();
    let word = match (generation, errors) {
        (0, _) => "no configuration",
        (_, 0) => "ok",
        _ => "configuration has errors",
    };
    let code = if generation == 0 {
        StatusCode::SERVICE_UNAVAILABLE
    } else {
        StatusCode::OK
    };
    let health = Health {
        status: word,
        generation,
        maintenance: status.settings.maintenance.is_some(),
    };
    (code, Json(health))
}
