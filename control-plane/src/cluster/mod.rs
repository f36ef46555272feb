//! Limits over all instances: holds leases of them in Redis and moves what workers may use (ARCHITECTURE.md, "Limits across
//! instances"). Without `redis` in the settings nothing here runs.
//!
//! ```text
//! workers ─shortage─► waker ─► task ─reports─► Redis
//!    ▲                          │ ▲ answers, notices
//!    └── region: allowances ◄── leases
//! ```

mod figures;
mod leases;
mod link;
mod rows;
mod task;
mod trouble;

pub use figures::Figures;
pub use leases::{LeaseSettings, Leases, Outgoing, Together};
pub use link::{Link, LinkOptions, Script};
pub use task::Cluster;
pub use trouble::{LinkError, Trouble};
