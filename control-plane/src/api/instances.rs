//! The cluster: its instances, whether they agree, and taking this one out of it.

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::Serialize;

use super::AppState;
use crate::balancer::BalancerState;
use crate::naming::Member;

/// The instances of the cluster.
#[derive(Serialize, JsonSchema)]
pub(super) struct Cluster {
    /// Name of this instance.
    own: String,
    /// Whether it was given that name: one that has made it up has no document of its own.
    named: bool,
    /// The version of the documents that this instance has in force; 0 for none.
    version: u64,
    /// Whether all instances have that version in force, and none refuses what is at the source.
    converged: bool,
    /// Why the other instances are not known; null if they are.
    failure: Option<String>,
    /// Front balancers that this instance's daemon sets.
    balancers: Vec<BalancerState>,
    /// This one first.
    instances: Vec<Member>,
}

/// Whether an instance is drained.
#[derive(Serialize, JsonSchema)]
pub(super) struct Draining {
    /// Whether it takes no new clients.
    draining: bool,
    /// Requests in flight.
    in_flight: usize,
}

/// All instances that are registered, this one first. They have converged if all have the same version in force, and
/// none refuses what is at the source.
pub(super) async fn list(State(state): State<AppState>) -> Json<Cluster> {
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
    Json(Cluster {
        own: own.instance.clone(),
        named: state.named,
        version: own.version,
        converged,
        failure: members.failure.clone(),
        balancers: state.balancers.states().to_vec(),
        instances: all().cloned().collect(),
    })
}

fn state_of(state: &AppState) -> Json<Draining> {
    Json(Draining {
        draining: state.region.draining(),
        in_flight: state.region.inflight(usize::MAX).len(),
    })
}

/// Whether this instance is drained, and what is still in flight.
pub(super) async fn draining(State(state): State<AppState>) -> Json<Draining> {
    state_of(&state)
}

/// Takes this instance out: it leaves the registry, its health check answers 503, what is in flight ends by itself.
pub(super) async fn drain(State(state): State<AppState>) -> Json<Draining> {
    if !state.region.draining() {
        tracing::info!("draining: no new clients");
    }
    state.region.set_draining(true);
    state_of(&state)
}

/// Takes it in again.
pub(super) async fn undrain(State(state): State<AppState>) -> Json<Draining> {
    if state.region.draining() {
        tracing::info!("taking clients again");
    }
    state.region.set_draining(false);
    state_of(&state)
}
