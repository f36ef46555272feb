//! The Tollgate daemon: configuration, ledger, reclaim and the admin API beside an nginx with the Tollgate module.
//!
//! ```text
//! documents ─config─► snapshot ─► region ◄─► nginx workers
//!                                   │ usage, events
//!                                   ▼
//!                                ledger ─► api ◄─ cli, dashboard, Prometheus
//! ```
#![forbid(unsafe_code)]

pub mod accounts;
pub mod alerts;
pub mod api;
pub mod audit;
pub mod backup;
pub mod balancer;
pub mod cli;
pub mod cluster;
pub mod config;
pub mod counting;
pub mod daemon;
pub mod explain;
pub mod health;
pub mod ledger;
pub mod live;
pub mod naming;
pub mod oidc;
pub mod outgoing;
pub mod process;
pub mod pulse;
pub mod rotation;
pub mod schedule;
pub mod secrets;
pub mod security;
pub mod shared;
