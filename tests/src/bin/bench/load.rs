//! One run of wrk against one gateway, with the CPU time that it cost.

use crate::gateways::{CHANNEL, Running};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;
use tollgate_tests::{process, programs};

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

/// Posts the file over and over.
///
/// # Panics
/// If wrk fails or any request does.
pub fn post(gateway: &Running, body: &Path, connections: u32, seconds: u64) -> Sample {
    let before = Clock::read(gateway);
    let output = Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "wrk", "--threads", "1", "--timeout", "10s"])
        .args(["--connections", &connections.to_string()])
        .args(["--duration", &format!("{seconds}s"), "--script"])
        .arg(programs::root().join("bench/post.lua"))
        .arg(format!("http://{}/v1/chat/completions", gateway.nginx.address()))
        .arg("--")
        .arg(body)
        .arg(format!("channelcode={CHANNEL}"))
        .stdin(Stdio::null())
        .output()
        .expect("setpriv starts wrk");
    let (worker, others, beside, waited) = Clock::read(gateway).since(&before);
    let text = String::from_utf8_lossy(&output.stdout);
    let line = text.lines().find_map(|line| line.strip_prefix("BENCH "));
    let fields: Vec<f64> = line
        .unwrap_or_default()
        .split(' ')
        .filter_map(|field| field.parse().ok())
        .collect();
    let &[requests, microseconds, failures, p50, p99] = fields.as_slice() else {
        panic!("wrk said:\n{text}{}", String::from_utf8_lossy(&output.stderr));
    };
    assert!(
        failures == 0.0 && requests > 0.0,
        "{}: {failures} of {requests} requests failed\n{}",
        gateway.kind.title(),
        gateway.nginx.error_log()
    );
    Sample {
        requests,
        seconds: microseconds / 1e6,
        p50,
        p99,
        cpu: worker + others,
        others,
        beside,
        waited,
    }
}
