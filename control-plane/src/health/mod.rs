//! Active probes: the daemon asks providers whether they work and tells the workers its verdict.
//!
//! ```text
//! documents ─plan─► targets ─prober─► probe ─finding─► standing ─verdict─► region
//!                                                         └─ board ◄─ API, metrics
//!
//!            first pass                    `unhealthy_after` failures in a row
//!  unknown ─────────────► healthy ─────────────────────────────────────────────► unhealthy
//!     │                      ▲        `healthy_after` passes in a row                │ ▲
//!     │                      └───────────────────────────────────────────────────────┘ │
//!     └── `unhealthy_after` failures in a row ─────────────────────────────────────────┘
//! ```
//!
//! Of instances that share a Redis one probes, and the others take its word (`told`); one that does not hear of a target for
//! three intervals and ten seconds probes it itself. A verdict in the region is its own daemon's. It becomes *unknown* when the daemon starts, when it stops, and when the documents
//! no longer ask for it. A daemon that was killed cannot say so: whoever reads a verdict ignores it when the daemon's
//! heartbeat is older than [`STALE_MS`] (in a worker: `DAEMON_ALIVE_MS`).

mod board;
mod budget;
mod completion;
mod plan;
mod probe;
mod prober;
mod standing;
mod tls;
mod told;

pub use board::{Board, Counts, Entry, KEPT, Probed};
pub use plan::{Target, targets};
pub use prober::Prober;
pub use standing::{Change, Outcome, Standing, verdict_name};
pub use told::{Others, Told};

/// Age of the daemon's heartbeat, milliseconds, from which its verdicts mean nothing. It beats five times a second; a
/// machine that stalls for seconds is no reason to forget what was found.
pub const STALE_MS: u64 = 15_000;
