//! One load on one gateway, with the CPU time that it cost.

use crate::gateways::{Bench, CHANNEL, Running};
use crate::generator::Order;
use std::time::Duration;
use tollgate_tests::http::Request;
use tollgate_tests::process;

/// What came of it.
#[derive(Clone, Copy, Debug)]
pub struct Sample {
    /// Answers.
    pub requests: f64,
    /// How long it took, seconds.
    pub seconds: f64,
    /// Median latency, microseconds.
    pub p50: f64,
    /// 99th percentile of the latency, microseconds.
    pub p99: f64,
    /// CPU time of the worker and of others on the request's path, seconds.
    pub cpu: f64,
    /// Part of it that is not the worker's.
    pub others: f64,
    /// CPU time of processes beside the request's path, seconds.
    pub beside: f64,
    /// Time for which the worker could run but had no CPU, seconds: what the rest of the machine took from it.
    pub waited: f64,
}

impl Sample {
    /// CPU time of a request, microseconds.
    pub fn each(&self) -> f64 {
        self.cpu / self.requests * 1e6
    }
}

/// CPU and waiting time of a gateway's processes.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    worker: f64,
    others: f64,
    beside: f64,
    waited: f64,
}

impl Clock {
    /// Reads the counters.
    pub fn read(gateway: &Running) -> Self {
        let sum = |pids: &[u32]| pids.iter().map(|pid| process::cpu_time(*pid).as_secs_f64()).sum();
        let worker = gateway.worker();
        Self {
            worker: sum(&[worker]),
            others: sum(&gateway.path),
            beside: sum(&gateway.beside),
            waited: waited(worker).as_secs_f64(),
        }
    }

    /// What was used since `before`: worker, others on the path, beside it, waiting.
    pub fn since(&self, before: &Self) -> (f64, f64, f64, f64) {
        (
            self.worker - before.worker,
            self.others - before.others,
            self.beside - before.beside,
            self.waited - before.waited,
        )
    }
}

/// Time that the main thread was ready to run but did not: the second field of `schedstat`.
fn waited(pid: u32) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    let nanoseconds = text
        .split_whitespace()
        .nth(1)
        .and_then(|field| field.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

/// Posts the body over and over.
///
/// # Panics
/// If any request fails.
pub fn post(bench: &Bench, gateway: &Running, body: &[u8], connections: usize, time: Duration) -> Sample {
    let request = request(body, CHANNEL);
    run(
        bench,
        gateway,
        Order::of(gateway.nginx.address(), request, connections, time),
    )
}

/// A chat request's bytes.
pub fn request(body: &[u8], channel: &str) -> Vec<u8> {
    Request::post_bytes("/v1/chat/completions", body.to_vec())
        .channel(channel)
        .to_bytes()
}

/// Runs a load.
///
/// # Panics
/// If any request fails.
pub fn run(bench: &Bench, gateway: &Running, order: Order) -> Sample {
    let before = Clock::read(gateway);
    let outcome = bench.fast.run(order);
    let (worker, others, beside, waited) = Clock::read(gateway).since(&before);
    assert!(
        outcome.failures == 0 && outcome.answers > 0,
        "{}: {} requests failed, {} did not: {}\n{}",
        gateway.kind.title(),
        outcome.failures,
        outcome.answers,
        outcome.failure,
        gateway.nginx.error_log()
    );
    Sample {
        requests: outcome.answers as f64,
        seconds: outcome.elapsed.as_secs_f64(),
        p50: outcome.latency(0.5),
        p99: outcome.latency(0.99),
        cpu: worker + others,
        others,
        beside,
        waited,
    }
}
