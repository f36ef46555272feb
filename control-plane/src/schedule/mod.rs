//! Changes that are published later: drafts with a time.
//!
//! ```text
//! waiting ─due, claimed─► running ─► published | refused
//!    │                      └─ claim ran out ─► claimed again
//!    └─ cancelled
//! ```
//! They stand in the store that accounts stand in, so that all instances of a cluster see them, and each step is a
//! compare-and-swap: one instance claims a draft, and if it dies another one takes it up. A draft is published with what
//! its author knew of each document: whatever was changed meanwhile makes it refused, never overwritten.

mod draft;
mod run;
mod store;

pub use draft::{Draft, KeptEdit, State, now_ms};
pub use run::Runner;
pub use store::{Cancelled, Schedules};
