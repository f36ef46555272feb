//! What stands where in the region. Changing anything here means a new `LAYOUT_VERSION`.

use crate::atomic::{AtomicU32, AtomicU64};

/// Version of this layout; it is part of the file name and of the header.
pub const LAYOUT_VERSION: u64 = 3;
/// Workers (of all generations of one nginx) that can be attached at the same time.
pub const MAX_WORKERS: usize = 64;
/// Limits that may apply to a single request.
pub const MAX_LIMITS_PER_REQUEST: usize = 16;

pub(crate) const MAGIC: u64 = u64::from_le_bytes(*b"TOLLGATE");
pub(crate) const HEADER_SIZE: u64 = 4096;
pub(crate) const CELLS: usize = 32;
pub(crate) const BLOCK_ROWS: usize = 64;
pub(crate) const EVENT_WORDS: usize = 16;
/// Deployments with shared state; a power of two. One that finds no row is used without a breaker.
pub(crate) const DEPLOYMENTS: u64 = 4096;

/// Capacities of the tables, in rows. They are fixed when the region is created.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Counter rows; rounded up to a power of two. 384 bytes each.
    pub counters: u32,
    /// Requests in flight at the same time; rounded up to a multiple of 64. 448 bytes each.
    pub inflight: u32,
    /// Events that wait for the daemon, per worker; rounded up to a power of two. 128 bytes each.
    pub ring: u32,
    /// Channel × model pairs with statistics; rounded up to a power of two. 1 KiB each.
    pub usage: u32,
}

impl Default for Sizes {
    fn default() -> Self {
        Sizes {
            counters: 131_072,
            inflight: 65_536,
            ring: 2_048,
            usage: 16_384,
        }
    }
}

impl Sizes {
    pub(crate) fn rounded(self) -> Sizes {
        let pow2 = |n: u32| n.clamp(64, 1 << 26).next_power_of_two();
        Sizes {
            counters: pow2(self.counters),
            inflight: self
                .inflight
                .clamp(64, 1 << 24)
                .next_multiple_of(BLOCK_ROWS as u32),
            ring: pow2(self.ring),
            usage: pow2(self.usage),
        }
    }

    pub(crate) fn capacity(&self, table: Table) -> u64 {
        match table {
            Table::Workers => MAX_WORKERS as u64,
            Table::Counters => self.counters.into(),
            Table::Blocks => u64::from(self.inflight) / BLOCK_ROWS as u64,
            Table::Inflight => self.inflight.into(),
            Table::Ring => u64::from(self.ring) * MAX_WORKERS as u64,
            Table::Usage => self.usage.into(),
            Table::Deployments => DEPLOYMENTS,
            Table::Shortages => u64::from(self.counters).div_ceil(64),
        }
    }
}

pub(crate) const TABLES: usize = 8;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Table {
    Workers,
    Counters,
    Blocks,
    Inflight,
    Ring,
    Usage,
    Deployments,
    Shortages,
}

impl Table {
    pub const ALL: [Table; TABLES] = [
        Table::Workers,
        Table::Counters,
        Table::Blocks,
        Table::Inflight,
        Table::Ring,
        Table::Usage,
        Table::Deployments,
        Table::Shortages,
    ];

    pub fn stride(self) -> u64 {
        let size = match self {
            Table::Workers => size_of::<WorkerRow>(),
            Table::Counters => size_of::<CounterRow>(),
            Table::Blocks => size_of::<BlockRow>(),
            Table::Inflight => size_of::<InflightRow>(),
            Table::Ring => size_of::<EventRow>(),
            Table::Usage => size_of::<UsageRow>(),
            Table::Deployments => size_of::<DeploymentRow>(),
            Table::Shortages => size_of::<ShortageRow>(),
        };
        size as u64
    }
}

/// First page of the file. The first part never changes after creation and is covered by `check`.
#[repr(C)]
pub(crate) struct Header {
    pub magic: AtomicU64,
    pub version: AtomicU64,
    pub total_size: AtomicU64,
    pub region_id: AtomicU64,
    pub created_wall_ms: AtomicU64,
    /// Wall clock minus monotonic clock at creation: region time = monotonic time + this.
    pub clock_base_ms: AtomicU64,
    /// Offset and capacity of each table.
    pub tables: [[AtomicU64; 2]; TABLES],
    pub check: AtomicU64,
    pub _pad0: [AtomicU64; 9],

    // Changing part, on its own cache lines.
    pub generation: AtomicU64,
    pub published_ms: AtomicU64,
    pub daemon: AtomicU64,
    pub daemon_heartbeat_ms: AtomicU64,
    /// Added to region time; only tests set it.
    pub test_offset_ms: AtomicU64,
    pub restored: AtomicU64,
    pub draining: AtomicU64,
    /// Counts shortages of allowances; the daemon sleeps on it.
    pub lease_wake: AtomicU32,
    /// Whether it does: only then has a worker to make a system call.
    pub lease_sleeping: AtomicU32,

    pub counters_used: AtomicU64,
    pub counters_refused: AtomicU64,
    pub usage_used: AtomicU64,
    pub usage_refused: AtomicU64,
    pub inflight_refused: AtomicU64,
    pub reclaimed_workers: AtomicU64,
    pub reclaimed_requests: AtomicU64,
    /// Requests decided while a lease that they needed had ended.
    pub degraded: AtomicU64,
}

#[repr(C, align(64))]
pub(crate) struct WorkerRow {
    /// 0, an identity, or an identity with `SWEEPING` set: who cleans up after a dead owner.
    pub owner: AtomicU64,
    pub started_ms: AtomicU64,
    pub generation: AtomicU64,
    pub heartbeat_ms: AtomicU64,
    pub requests: AtomicU64,
    pub panics: AtomicU64,
    pub ring_head: AtomicU64,
    pub ring_dropped: AtomicU64,
    // Written by the daemon.
    pub ring_tail: AtomicU64,
    pub _pad: [AtomicU64; 7],
}

#[repr(C, align(64))]
pub(crate) struct CounterRow {
    /// 0 or the limit's identity; bit 0 tells that the cells are concurrency fields and not windows.
    pub key: AtomicU64,
    pub tat: AtomicU64,
    pub debt: AtomicU64,
    /// Region time until which takers look before they add: somebody was refused. A hint, never a promise.
    pub contested_until: AtomicU64,

    // A limit that holds across instances (ARCHITECTURE.md, "Limits across instances"). All zero for others.
    /// What this instance may have in use until the fence.
    pub allowance: AtomicU64,
    /// What it may have in use after it.
    pub standing: AtomicU64,
    /// The fence (region time, milliseconds, 44 bits) and how long `standing` outlives it (seconds, 20 bits).
    pub lease: AtomicU64,
    /// By how much the allowance has been too small; the daemon takes it out.
    pub wanted: AtomicU64,
    /// Region time until which waiting for more is in vain.
    pub dry_until: AtomicU64,
    /// 1 while little is left for anybody.
    pub tight: AtomicU64,
    // The limit itself, as a worker last knew it.
    pub max: AtomicU64,
    pub window_ms: AtomicU64,
    pub burst: AtomicU64,
    /// Algorithm (8 bits) and longest delay in milliseconds.
    pub shape: AtomicU64,
    pub _pad: [AtomicU64; 2],
    pub cells: [AtomicU64; CELLS],
}

#[repr(C)]
pub(crate) struct ShortageRow {
    /// A bit for each of 64 counters: its allowance is short.
    pub bits: AtomicU64,
}

#[repr(C)]
pub(crate) struct BlockRow {
    /// 0 or worker slot + 1: whose 64 in-flight rows these are.
    pub owner: AtomicU64,
}

#[repr(C, align(64))]
pub(crate) struct InflightRow {
    pub state: AtomicU64,
    pub start_ms: AtomicU64,
    pub usage: AtomicU64,
    pub input: AtomicU64,
    pub output: AtomicU64,
    /// Output tokens produced so far; what a dead worker's request is charged.
    pub produced: AtomicU64,
    /// The most that a million input tokens (low half) and output tokens cost: see `Demand::price`.
    pub price: AtomicU64,
    /// How many of the entries hold: written after each take.
    pub entries_held: AtomicU64,
    pub entries: [[AtomicU64; 3]; MAX_LIMITS_PER_REQUEST],
}

#[repr(C, align(64))]
pub(crate) struct EventRow {
    pub words: [AtomicU64; EVENT_WORDS],
}

pub(crate) const CHANNEL_WORDS: usize = 8;
pub(crate) const MODEL_WORDS: usize = 16;
pub(crate) const USAGE_COUNTERS: usize = 20;

#[repr(C, align(64))]
pub(crate) struct UsageRow {
    pub key: AtomicU64,
    pub named: AtomicU64,
    pub channel_len: AtomicU64,
    pub model_len: AtomicU64,
    pub channel: [AtomicU64; CHANNEL_WORDS],
    pub model: [AtomicU64; MODEL_WORDS],
    pub counters: [AtomicU64; USAGE_COUNTERS],
    pub latency: [AtomicU64; crate::usage::HISTOGRAM_BUCKETS],
    pub first_token: [AtomicU64; crate::usage::HISTOGRAM_BUCKETS],
}

#[repr(C, align(64))]
pub(crate) struct DeploymentRow {
    /// 0 or the hash of the deployment's id.
    pub key: AtomicU64,
    /// State, trips and time: see `deployment.rs`.
    pub breaker: AtomicU64,
    /// Failures in a row.
    pub failures: AtomicU64,
    /// Region time.
    pub cooling_until: AtomicU64,
    /// 0 unknown, 1 healthy, 2 unhealthy. Written by the daemon.
    pub verdict: AtomicU64,
    pub recovered_ms: AtomicU64,
    pub latency_us: AtomicU64,
    /// Kind in the lowest byte, region time above.
    pub last_failure: AtomicU64,
    pub contested_until: AtomicU64,
    pub attempts: AtomicU64,
    pub opened: AtomicU64,
    pub connected: AtomicU64,
    pub reused: AtomicU64,
    /// TLS handshakes that took up a former session.
    pub resumed: AtomicU64,
    pub failed: [AtomicU64; crate::deployment::FAILURES],
    pub _pad: [AtomicU64; 2],
    /// Requests in flight by worker, as in a counter's concurrency cells.
    pub cells: [AtomicU64; CELLS],
    /// Idle connections by worker, likewise.
    pub idle: [AtomicU64; CELLS],
}

#[cfg(not(loom))]
const _: () = {
    assert!(size_of::<WorkerRow>() == 128);
    assert!(size_of::<CounterRow>() == 384);
    assert!(size_of::<InflightRow>() == 448);
    assert!(size_of::<EventRow>() == 128);
    assert!(size_of::<UsageRow>() == 1024);
    assert!(size_of::<DeploymentRow>() == 704);
    assert!(size_of::<Header>() < HEADER_SIZE as usize);
};
