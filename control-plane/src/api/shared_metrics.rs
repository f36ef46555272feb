//! Metrics of what the instances share in Redis beside limits.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use super::AppState;
use super::metrics::Text;
use crate::shared::Role;

pub(super) fn write(text: &mut Text, state: &AppState) {
    if !state.shared.is_configured() {
        return;
    }
    let get = |word: &AtomicU64| word.load(Relaxed);
    let (redis, shipping) = (state.shared.figures(), &state.shipping);
    let (_, recent) = &state.recent;
    for (name, kind, help, value) in [
        (
            "tollgate_shared_redis_up",
            "gauge",
            "Whether Redis answered the last question about what instances share.",
            get(&redis.connected),
        ),
        (
            "tollgate_shared_redis_requests_total",
            "counter",
            "Questions to Redis about what instances share, limits apart.",
            get(&redis.questions),
        ),
        (
            "tollgate_shared_redis_failures_total",
            "counter",
            "Those that were not answered, or not as they should.",
            get(&redis.failures),
        ),
        (
            "tollgate_usage_spool_depth",
            "gauge",
            "Minutes of a channel and model that are in this instance's ledger and not in Redis yet.",
            get(&shipping.depth),
        ),
        (
            "tollgate_usage_shipped_total",
            "counter",
            "Sums of usage written to Redis.",
            get(&shipping.values),
        ),
        (
            "tollgate_usage_repaired_total",
            "counter",
            "Times that Redis was found to have lost usage, which was written again.",
            get(&shipping.repaired),
        ),
        (
            "tollgate_usage_ship_failures_total",
            "counter",
            "Times that usage could not be written to Redis and stayed in the ledger.",
            get(&shipping.failures),
        ),
        (
            "tollgate_recent_requests_total",
            "counter",
            "Lines of the request log written to Redis for all instances to show.",
            get(&recent.lines),
        ),
        (
            "tollgate_recent_failures_total",
            "counter",
            "Times that they could not be written.",
            get(&recent.failures),
        ),
        (
            "tollgate_deployment_news_told_total",
            "counter",
            "What this instance told the others of deployments.",
            get(&state.rumours.told),
        ),
        (
            "tollgate_deployment_news_heard_total",
            "counter",
            "What the others told that was news here.",
            get(&state.rumours.heard),
        ),
        (
            "tollgate_accounts_copies_total",
            "counter",
            "Times that this instance's copy of the shared accounts was brought up to date.",
            get(&state.accounts_copy.copies),
        ),
        (
            "tollgate_leader",
            "gauge",
            "1 if this instance does what one does for all.",
            u64::from(matches!(*state.role.borrow(), Role::Leader(_))),
        ),
    ] {
        text.one(name, kind, help, value);
    }
    text.one(
        "tollgate_shared_redis_wait_seconds_total",
        "counter",
        "Time that answers of Redis about what instances share took.",
        get(&redis.waited_us) as f64 / 1e6,
    );
    text.one(
        "tollgate_redis_unsuitable_settings",
        "gauge",
        "Settings of Redis that should be others; `/api/v1/instance` says which.",
        state.cluster.unsuitable().len(),
    );
    let now = state.region.now_ms();
    let beat = get(&state.cluster.beat_ms);
    if beat > 0 {
        text.one(
            "tollgate_redis_heartbeat_age_seconds",
            "gauge",
            "Time since Redis last took this instance's sign of life.",
            now.saturating_sub(beat) as f64 / 1e3,
        );
    }
    let caught_up = get(&shipping.caught_up_ms);
    if caught_up > 0 {
        text.one(
            "tollgate_usage_copy_age_seconds",
            "gauge",
            "Time since Redis last had all usage of this instance.",
            now.saturating_sub(caught_up) as f64 / 1e3,
        );
    }
}
