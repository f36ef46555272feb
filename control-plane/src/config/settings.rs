//! What the daemon itself takes from the settings.

use tollgate_policy::documents::Settings;
use tollgate_shm::{MAX_WORKERS, Sizes};

use crate::ledger::Keep;

/// Sizes of a new region. The settings' ring counts events of all workers, the region's those of one.
pub fn region_sizes(settings: &Settings) -> Sizes {
    let region = &settings.region;
    Sizes {
        counters: region.counters,
        inflight: region.inflight,
        ring: region.ring / MAX_WORKERS as u32,
        usage: region.usage,
    }
}

/// What the ledger keeps at region time `now_ms`.
pub fn keep(settings: &Settings, now_ms: u64) -> Keep {
    let seconds_ago = |ms: u64| now_ms.saturating_sub(ms) / 1_000;
    let log = &settings.request_log;
    Keep {
        now: now_ms / 1_000,
        minutes_from: seconds_ago(settings.retention.minutes.as_millis()),
        ten_minutes_from: seconds_ago(settings.retention.ten_minutes.as_millis()),
        requests_from_ms: now_ms.saturating_sub(log.max_age.as_millis()),
        requests: log.max_rows,
    }
}
