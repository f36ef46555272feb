//! This instance: what runs, what is in force, how full everything is.

use std::sync::atomic::Ordering::Relaxed;

use axum::Json;
use axum::extract::State;
use serde_json::{Map, Value, json};
use tollgate_shm::{LAYOUT_VERSION, MAX_WORKERS};

use super::AppState;
use super::documents::shown;
use crate::process::resources;

/// The instance's state.
pub(super) async fn read(State(state): State<AppState>) -> Json<Value> {
    let region = &state.region;
    let status = state.status();
    let now = region.now_ms();
    let workers: Vec<Value> = region
        .workers()
        .into_iter()
        .map(|w| {
            json!({
                "slot": w.slot, "pid": w.pid, "alive": w.alive, "generation": w.generation,
                "uptime_ms": now.saturating_sub(w.started_ms),
                "heartbeat_age_ms": now.saturating_sub(w.heartbeat_ms),
                "requests": w.requests, "panics": w.panics, "events_dropped": w.events_dropped,
                "resident_bytes": resources(w.pid).map(|r| r.resident_bytes),
            })
        })
        .collect();
    let gauges: Map<String, Value> = region
        .gauges()
        .into_iter()
        .map(|(name, n)| (name.to_owned(), n.into()))
        .collect();
    let sizes = region.sizes();
    let (errors, warnings) = status.counts();
    Json(json!({
        "version": env!("CARGO_PKG_VERSION"),
        "uptime_ms": u64::try_from(state.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        "pid": std::process::id(),
        "generation": region.generation(),
        "published_age_ms": now.saturating_sub(region.published_ms()),
        "documents_in_force": status.in_force,
        "errors": errors,
        "warnings": warnings,
        "problems": shown(&status.problems),
        "region": {
            "path": region.dir(), "id": format!("{:016x}", region.id()), "layout": LAYOUT_VERSION,
            "bytes": region.len_bytes(), "now_ms": now,
            "sizes": { "counters": sizes.counters, "inflight": sizes.inflight, "ring": sizes.ring,
                       "usage": sizes.usage, "workers": MAX_WORKERS },
            "gauges": gauges,
        },
        "ring": { "depth": region.ring_depth(), "dropped": region.events_dropped() },
        "ledger": {
            "events": state.drain.events.load(Relaxed),
            "commits": state.drain.commits.load(Relaxed),
            "failures": state.drain.failures.load(Relaxed),
        },
        "workers": workers,
    }))
}
