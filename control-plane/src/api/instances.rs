//! The cluster: its instances, whether they agree, and taking this one out of it.

use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};

use super::AppState;
use crate::naming::Member;

/// All instances that are registered, this one first. They have converged if all have the same version in force, and
/// none refuses what is at the source.
pub(super) async fn list(State(state): State<AppState>) -> Json<Value> {
    let members = state.naming.members();
    let status = state.status();
    // What is known of this instance itself is newer than what it last told.
    let own = Member {
        version: status.version.unwrap_or(0),
        generation: status.generation(),
        draining: state.region.draining(),
        refusing: !status.in_force,
        ..members.own.clone()
    };
    let all = || std::iter::once(&own).chain(&members.others);
    let converged = all().all(|m| m.version == own.version && !m.refusing);
    Json(json!({
        "own": own.instance,
        "version": own.version,
        "converged": converged,
        "failure": members.failure,
        "instances": all().collect::<Vec<_>>(),
    }))
}

fn state_of(state: &AppState) -> Json<Value> {
    Json(json!({
        "draining": state.region.draining(),
        "in_flight": state.region.inflight(usize::MAX).len(),
    }))
}

/// Whether this instance is drained, and what is still in flight.
pub(super) async fn draining(State(state): State<AppState>) -> Json<Value> {
    state_of(&state)
}

/// Takes this instance out: it leaves the registry, its health check answers 503, what is in flight ends by itself.
pub(super) async fn drain(State(state): State<AppState>) -> Json<Value> {
    if !state.region.draining() {
        tracing::info!("draining: no new clients");
    }
    state.region.set_draining(true);
    state_of(&state)
}

/// Takes it in again.
pub(super) async fn undrain(State(state): State<AppState>) -> Json<Value> {
    if state.region.draining() {
        tracing::info!("taking clients again");
    }
    state.region.set_draining(false);
    state_of(&state)
}
