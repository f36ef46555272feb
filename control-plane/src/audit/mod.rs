//! The audit log: every change and every denied try, in a chain that shows what was edited, removed or put elsewhere.
//!
//! Row *n* carries SHA-256 over row *n-1*'s hash, its own number and its own text. The number of rows and the last hash
//! stand apart in a small file, under a code that only the master key makes, so that rows missing at the end show too.
//! A daemon that dies between the two leaves the file one row behind, which is no fault: rows are added to the chain
//! only.

mod denials;
mod diff;
mod entry;
mod head;
mod log;
mod verify;

pub use diff::{Change, changes, redacted};
pub use entry::{Detail, Entry, Outcome, Row};
pub use log::{Audit, AuditError, AuditQuery, AuditRows};
pub use verify::{Fault, Verdict};
