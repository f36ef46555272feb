//! Limits that hold across instances: the state functions of both sides, without I/O and without a clock of their own.
//!
//! ARCHITECTURE.md, "Limits across instances", has the protocol, its invariants (I1 …) and why they hold.
#![forbid(unsafe_code)]

pub mod appetite;
pub mod holder;
pub mod keeper;
pub mod ledger;
pub mod script;

pub use appetite::{Appetite, Seen, Wish};
pub use holder::{Holder, RowChange, Terms};
pub use keeper::{Keeper, Lowered, Policy, Row, Words};
pub use ledger::{Answer, Era, Ledger, Notice, Record, Report};
