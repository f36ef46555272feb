//! How long the admin API takes over a large gateway: 10,000 channels, 1,000 models, as many rows of the request log as
//! asked for, three months of roll-ups, and what people have done meanwhile.
//!
//! `cargo bench -p tollgate --bench api --profile release -- 10000000` (`make bench-api`) prints per route the median and the
//! worst of some calls, over the whole stack but the socket: access, handler, JSON. It ends with exit code 1 if a median is
//! over 200 ms, or if the API has a list, chart or search that is not among them.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "bench code"
)]

#[path = "../../tests/support/mod.rs"]
mod support;

#[path = "../../tests/redis/mod.rs"]
mod redis;

mod cluster;
mod history;
mod large;
mod routes;

use std::time::Instant;

use axum::body::Body;
use axum::http::StatusCode;
use large::Large;
use support::Daemon;
use tollgate::secrets::MasterKey;

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

/// Calls each of them; whether one is too slow.
async fn measure(daemon: &Daemon, paths: &[String]) -> bool {
    let mut slow = false;
    for path in paths {
        let mut times = Vec::new();
        let mut bytes = 0;
        for _ in 0..CALLS {
            let request = Daemon::request("GET", path).body(Body::empty()).unwrap();
            let began = Instant::now();
            let (status, _, body) = daemon.send(request).await;
            times.push(began.elapsed().as_secs_f64() * 1_000.0);
            let text = body.to_string();
            bytes = text.len();
            if status != StatusCode::OK {
                println!("{path} answered {status}: {text}");
                slow = true;
                break;
            }
        }
        if times.len() < CALLS {
            continue;
        }
        times.sort_by(f64::total_cmp);
        let (median, worst) = (times[CALLS / 2], times[CALLS - 1]);
        slow |= median > MOST_MS;
        println!("| {path} | {median:.1} | {worst:.1} | {bytes} |");
    }
    slow
}

async fn run(rows: u64) -> bool {
    let large = Large {
        channels: 10_000,
        models: 1_000,
        rows,
    };
    let mut paths = routes::routes(&large, rows);
    let forgotten = routes::forgotten(&paths);
    for route in &forgotten {
        println!("{route} is not measured, and routes.rs does not say why");
    }
    let mut began = Instant::now();
    let mut took = |what: &str| {
        println!("{what}: {:.1} s", began.elapsed().as_secs_f64());
        began = Instant::now();
    };
    let folders = large.folders();
    history::audit(&folders.state(), &MasterKey::from_bytes([5; 32]));
    took("audit log");
    let daemon = Daemon::start(folders).await;
    took("10,000 channels and 1,000 models in force");
    large.fill(&daemon);
    took(&format!("{rows} requests"));
    history::roll_ups(&large, &daemon);
    took("roll-ups");
    history::people(&daemon).await;
    took("what people have done");
    println!("| route | median ms | worst ms | bytes |\n| --- | --- | --- | --- |");
    paths.sort();
    let mut slow = measure(&daemon, &paths).await;
    drop(daemon);
    let (daemon, _redis) = cluster::start().await;
    slow |= measure(&daemon, &cluster::routes()).await;
    slow || !forgotten.is_empty()
}
