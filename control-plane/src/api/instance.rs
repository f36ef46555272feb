//! This instance: what runs, what is in force, how full everything is.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::atomic::Ordering::Relaxed;

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::Serialize;
use tollgate_policy::Problem;
use tollgate_shm::{LAYOUT_VERSION, MAX_WORKERS};

use super::AppState;
use super::documents::shown;
use crate::process::resources;

/// A worker process.
#[derive(Serialize, JsonSchema)]
struct Worker {
    slot: usize,
    pid: u32,
    /// Whether the process still runs.
    alive: bool,
    /// Generation of the snapshot that it decides new requests by.
    generation: u64,
    uptime_ms: u64,
    heartbeat_age_ms: u64,
    /// Requests that it has decided.
    requests: u64,
    /// Panics that it has caught.
    panics: u64,
    /// Events that it could not put on a full ring.
    events_dropped: u64,
    /// Resident memory; null if the process is gone.
    resident_bytes: Option<u64>,
}

/// Sizes of the region's tables.
#[derive(Serialize, JsonSchema)]
struct RegionSizes {
    counters: u32,
    inflight: u32,
    ring: u32,
    usage: u32,
    workers: usize,
}

/// The region that is shared with nginx.
#[derive(Serialize, JsonSchema)]
struct RegionState {
    /// Its folder.
    path: PathBuf,
    id: String,
    /// Version of its layout.
    layout: u64,
    bytes: u64,
    /// Region time: the wall clock's milliseconds since 1970 at its creation, and monotonic since.
    now_ms: u64,
    sizes: RegionSizes,
    gauges: BTreeMap<&'static str, u64>,
}

/// The ring of events.
#[derive(Serialize, JsonSchema)]
struct RingState {
    /// Events that wait to be read.
    depth: u64,
    /// Events that workers could not put on it.
    dropped: u64,
}

/// How the ledger is filled.
#[derive(Serialize, JsonSchema)]
struct LedgerState {
    /// Events that were booked.
    events: u64,
    commits: u64,
    failures: u64,
}

/// What is wrong with Redis.
#[derive(Serialize, JsonSchema)]
struct RedisTrouble {
    /// `settings`, `unreachable`, `slow`, `refused`, `full`, `read_only` or `failing`.
    kind: &'static str,
    /// In words, with what Redis said.
    text: String,
    /// Since when.
    for_ms: u64,
}

/// Parts of limits that this instance holds.
#[derive(Serialize, JsonSchema)]
struct LeaseState {
    /// Limits of which it holds a lease.
    held: u64,
    /// Limits whose lease has ended for want of an answer.
    ended: u64,
    /// Limits of which nothing is granted for now, since Redis may have lost writes.
    quarantined: u64,
    /// Units that count for instances whose lease has ended.
    stranded_units: u64,
}

/// How the copy of this instance's usage in Redis is.
#[derive(Serialize, JsonSchema)]
struct UsageCopyState {
    /// Minutes of a channel and model that are not in Redis yet.
    waiting: u64,
    /// Time since Redis last had everything; null if it never had.
    complete_age_ms: Option<u64>,
    /// Times that Redis was found to have lost usage, which was written again.
    repaired: u64,
}

/// What is shared over Redis, and how that goes.
#[derive(Serialize, JsonSchema)]
struct RedisState {
    /// Whether Redis answers.
    connected: bool,
    /// What is wrong with it now.
    trouble: Option<RedisTrouble>,
    /// Settings of Redis that should be others, and why; none if they may not be looked at.
    unsuitable_settings: Vec<String>,
    /// Other living instances that have this instance's name; each needs one of its own.
    namesakes: u64,
    /// Time since Redis last took this instance's sign of life; null if it never did.
    heartbeat_age_ms: Option<u64>,
    /// How far this instance's clock is from Redis'.
    clock_offset_ms: u64,
    leases: LeaseState,
    /// Requests decided by the lease policy, because a lease that they needed had ended.
    degraded_requests: u64,
    /// `leader`, `follower`, `cut_off` or `alone`: who does what one does for all.
    role: &'static str,
    usage: UsageCopyState,
}

/// This instance.
#[derive(Serialize, JsonSchema)]
pub(super) struct Instance {
    /// Version of the program.
    version: &'static str,
    uptime_ms: u64,
    /// Process of the daemon.
    pid: u32,
    /// Generation in force; 0 for none.
    generation: u64,
    published_age_ms: u64,
    /// Whether the documents as they are now are in force.
    documents_in_force: bool,
    /// Number of errors in them.
    errors: usize,
    /// Number of warnings.
    warnings: usize,
    /// Errors and warnings, as many as fit.
    problems: Vec<Problem>,
    region: RegionState,
    ring: RingState,
    ledger: LedgerState,
    /// Null without a Redis in the settings.
    redis: Option<RedisState>,
    workers: Vec<Worker>,
    /// Where the documents come from, if that is a server; null for a folder.
    source: Option<SourceState>,
}

/// The server with the documents.
#[derive(Serialize, JsonSchema)]
struct SourceState {
    /// Whether it answered the last question.
    reachable: bool,
    /// Why not; empty if it did.
    reason: String,
    /// Time since its last answer; null if there was none.
    answered_ms_ago: Option<u64>,
}

fn redis(state: &AppState) -> Option<RedisState> {
    let now = state.region.now_ms();
    let age = |ms: u64| Some(now.saturating_sub(ms)).filter(|_| ms > 0);
    let figures = &state.cluster;
    let trouble = figures.found().map(|found| RedisTrouble {
        kind: found.trouble.name(),
        text: found.text,
        for_ms: u64::try_from(found.since.elapsed().as_millis()).unwrap_or(u64::MAX),
    });
    state.shared.is_configured().then(|| RedisState {
        connected: figures.connected.load(Relaxed) > 0,
        trouble,
        unsuitable_settings: figures.unsuitable(),
        namesakes: figures.namesakes.load(Relaxed),
        heartbeat_age_ms: age(figures.beat_ms.load(Relaxed)),
        clock_offset_ms: figures.clock_offset_ms.load(Relaxed),
        leases: LeaseState {
            held: figures.held.load(Relaxed),
            ended: figures.fenced.load(Relaxed),
            quarantined: figures.quarantined.load(Relaxed),
            stranded_units: figures.stranded.load(Relaxed),
        },
        degraded_requests: state.region.degraded_requests(),
        role: state.role.borrow().name(),
        usage: UsageCopyState {
            waiting: state.shipping.depth.load(Relaxed),
            complete_age_ms: age(state.shipping.caught_up_ms.load(Relaxed)),
            repaired: state.shipping.repaired.load(Relaxed),
        },
    })
}

/// The instance's state.
pub(super) async fn read(State(state): State<AppState>) -> Json<Instance> {
    let region = &state.region;
    let status = state.status();
    let now = region.now_ms();
    let workers = region
        .workers()
        .into_iter()
        .map(|w| Worker {
            slot: w.slot,
            pid: w.pid,
            alive: w.alive,
            generation: w.generation,
            uptime_ms: now.saturating_sub(w.started_ms),
            heartbeat_age_ms: now.saturating_sub(w.heartbeat_ms),
            requests: w.requests,
            panics: w.panics,
            events_dropped: w.events_dropped,
            resident_bytes: resources(w.pid).map(|r| r.resident_bytes),
        })
        .collect();
    let sizes = region.sizes();
    let (errors, warnings) = status.counts();
    Json(Instance {
        version: env!("CARGO_PKG_VERSION"),
        uptime_ms: u64::try_from(state.started.elapsed().as_millis()).unwrap_or(u64::MAX),
        pid: std::process::id(),
        generation: region.generation(),
        published_age_ms: now.saturating_sub(region.published_ms()),
        documents_in_force: status.in_force,
        errors,
        warnings,
        problems: shown(&status.problems),
        region: RegionState {
            path: region.dir().to_owned(),
            id: format!("{:016x}", region.id()),
            layout: LAYOUT_VERSION,
            bytes: region.len_bytes(),
            now_ms: now,
            sizes: RegionSizes {
                counters: sizes.counters,
                inflight: sizes.inflight,
                ring: sizes.ring,
                usage: sizes.usage,
                workers: MAX_WORKERS,
            },
            gauges: region.gauges().into_iter().collect(),
        },
        ring: RingState {
            depth: region.ring_depth(),
            dropped: region.events_dropped(),
        },
        ledger: LedgerState {
            events: state.drain.events.load(Relaxed),
            commits: state.drain.commits.load(Relaxed),
            failures: state.drain.failures.load(Relaxed),
        },
        redis: redis(&state),
        workers,
        source: state.source.health().map(|health| SourceState {
            reachable: health.reachable,
            reason: health.reason.clone(),
            answered_ms_ago: health.answered_ms_ago,
        }),
    })
}
