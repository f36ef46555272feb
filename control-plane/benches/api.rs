//! How long the admin API takes over a large gateway: 10,000 channels, 1,000 models, and as many rows of the request log as
//! asked for, with the usage that belongs to them.
//!
//! `cargo bench -p tollgate --bench api --profile release -- 10000000` (`make bench-api`) prints per route the median and the
//! worst of some calls, over the whole stack but the socket: access, handler, JSON. It ends with exit code 1 if a median is
//! over 200 ms.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "bench code"
)]

#[path = "../tests/support/mod.rs"]
mod support;

#[path = "../tests/support/large.rs"]
mod large;

use std::time::Instant;

use axum::body::Body;
use axum::http::StatusCode;
use large::{Large, routes};
use support::Daemon;

/// What the slowest route may take, milliseconds.
const MOST_MS: f64 = 200.0;
/// Calls per route.
const CALLS: usize = 9;

fn main() {
    let wanted = std::env::args().filter_map(|a| a.parse().ok()).next();
    let rows: u64 = wanted.unwrap_or(1_000_000);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .unwrap();
    let slow = runtime.block_on(run(rows));
    std::process::exit(i32::from(slow));
}

async fn run(rows: u64) -> bool {
    let began = Instant::now();
    let large = Large {
        channels: 10_000,
        models: 1_000,
        rows,
    };
    let daemon = Daemon::start(large.folders()).await;
    let ready = began.elapsed();
    let began = Instant::now();
    let last = large.fill(&daemon);
    println!(
        "{} channels, {} models in force after {:.1} s; {rows} rows inserted in {:.1} s",
        large.channels,
        large.models,
        ready.as_secs_f64(),
        began.elapsed().as_secs_f64()
    );
    let mut slow = false;
    println!("| route | median ms | worst ms | bytes |\n| --- | --- | --- | --- |");
    for path in routes(&large, last) {
        let mut times = Vec::new();
        let mut bytes = 0;
        for _ in 0..CALLS {
            let request = Daemon::request("GET", &path).body(Body::empty()).unwrap();
            let began = Instant::now();
            let (status, _, body) = daemon.send(request).await;
            times.push(began.elapsed().as_secs_f64() * 1_000.0);
            assert_eq!(status, StatusCode::OK, "{path}: {body}");
            bytes = body.to_string().len();
        }
        times.sort_by(f64::total_cmp);
        let (median, worst) = (times[CALLS / 2], times[CALLS - 1]);
        slow |= median > MOST_MS;
        println!("| {path} | {median:.1} | {worst:.1} | {bytes} |");
    }
    slow
}
