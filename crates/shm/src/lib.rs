//! The shared-memory region between nginx workers and the daemon.
//!
//! Every table consists of rows of atomics, so any bit pattern is a valid value; positions are offsets and
//! indexes, never pointers; nothing here ever waits for another process. ARCHITECTURE.md names the invariants
//! (S1 …) that the comments below refer to.

mod atomic;
mod bucket;
mod concurrency;
mod counters;
mod deployment;
mod inflight;
mod layout;
mod lease;
mod limit;
mod process;
mod publish;
mod reclaim;
mod region;
mod reserve;
mod ring;
mod usage;
mod window;
mod workers;

pub use counters::{CounterIndex, CounterTableFull};
pub use deployment::{
    BreakerSpec, BreakerState, DeploymentIndex, DeploymentView, Failure, Noted, Readiness, Verdict,
};
pub use inflight::{InflightIndex, InflightView};
pub use layout::{LAYOUT_VERSION, MAX_LIMITS_PER_REQUEST, MAX_WORKERS, Sizes};
pub use lease::{LeaseLowered, LeaseView, LeaseWords};
pub use limit::{Algorithm, Amount, Enforcement, Level, LimitSpec, Metric};
pub use process::Identity;
pub use publish::{MappedFile, SnapshotFiles, write_atomically};
pub use reclaim::Reclaimed;
pub use region::{Region, RegionError};
pub use reserve::{Demand, Grant, Refusal, RefusalKind, Settlement};
pub use ring::Event;
pub use usage::{Class, HISTOGRAM_BUCKETS, UsageDelta, UsageIndex, UsageTotals, bucket_of, bucket_upper_us};
pub use workers::{Worker, WorkerView};
