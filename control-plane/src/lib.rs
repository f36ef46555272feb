//! The Tollgate daemon: configuration, ledger, reclaim and the admin API beside an nginx with the Tollgate module.
#![forbid(unsafe_code)]

pub mod config;
pub mod ledger;
pub mod secrets;
