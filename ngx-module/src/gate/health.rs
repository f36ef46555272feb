//! The answer to a front balancer's health check: whether it should send clients here.

use super::reply::Reply;
use super::worker::WorkerState;
use crate::ngx::process;

/// 200 if this worker decides about requests, 503 if it cannot yet, or if the instance is being drained: whoever still
/// comes is served, but nobody new should. Whether the daemon lives does not matter: workers go on without it.
pub(crate) fn health(w: &mut WorkerState) -> Reply {
    let current = w.current(process::now_ms());
    let maintained = current.as_ref().is_some_and(|g| g.maintenance().is_some());
    let generation = current.map(|g| g.number);
    let draining = w.attached.as_ref().is_some_and(|a| a.region.draining());
    let (status, word) = match generation {
        _ if draining => (503, "draining"),
        None => (503, "no configuration"),
        // Clients are to have the gateway's own answer, not the balancer's page for no instance at all.
        _ if maintained => (200, "maintenance"),
        Some(_) => (200, "ok"),
    };
    Reply {
        status,
        headers: vec![(b"Cache-Control", "no-store".to_owned())],
        body: format!(
            "{{\"status\":\"{word}\",\"generation\":{}}}\n",
            generation.unwrap_or(0)
        ),
    }
}
