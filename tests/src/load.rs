//! A closed-loop load: a number of tasks, each sending one request after the other.

use crate::http::{Connection, Request, Response};
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Connections from one local address before the next one is used, far below the kernel's port range.
const PER_ADDRESS: usize = 20_000;

/// What to run. Every load is bounded by a number of requests and by a time.
#[derive(Clone, Debug)]
pub struct Load {
    address: SocketAddr,
    parallel: usize,
    requests: u64,
    time: Duration,
    pause: Duration,
    keepalive: bool,
    stop: Arc<AtomicBool>,
}

/// Ends a running load early: each task finishes the request it has begun.
#[derive(Clone, Debug)]
pub struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Ends it.
    pub fn stop(&self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// What came of it.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// Answers by status.
    pub statuses: BTreeMap<u16, u64>,
    /// Requests that got no complete answer, by the reason.
    pub errors: BTreeMap<String, u64>,
    /// Requests sent again because a kept connection had been closed by the server before any byte of the answer,
    /// as every client does (RFC 9112, section 9.3.1).
    pub resent: u64,
    /// From sending to the last byte, microseconds, sorted.
    pub latencies: Vec<u32>,
    /// From the start to the last answer.
    pub elapsed: Duration,
}

impl Report {
    /// Answers with this status.
    pub fn status(&self, status: u16) -> u64 {
        self.statuses.get(&status).copied().unwrap_or(0)
    }

    /// All requests, answered or not.
    pub fn total(&self) -> u64 {
        self.statuses.values().sum::<u64>() + self.failed()
    }

    /// Requests without a complete answer.
    pub fn failed(&self) -> u64 {
        self.errors.values().sum()
    }

    /// Requests a second.
    pub fn rate(&self) -> f64 {
        self.total() as f64 / self.elapsed.as_secs_f64().max(1e-9)
    }

    /// A quantile of the latencies, `0.0..=1.0`.
    pub fn latency(&self, quantile: f64) -> Duration {
        let last = self.latencies.len().saturating_sub(1);
        let index = (last as f64 * quantile.clamp(0.0, 1.0)).round() as usize;
        Duration::from_micros(self.latencies.get(index).copied().unwrap_or(0).into())
    }

    /// Mean of the latencies.
    pub fn mean(&self) -> Duration {
        let sum: u64 = self.latencies.iter().map(|latency| u64::from(*latency)).sum();
        Duration::from_micros(sum / (self.latencies.len() as u64).max(1))
    }

    fn add(&mut self, other: Self) {
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        for (error, count) in other.errors {
            *self.errors.entry(error).or_default() += count;
        }
        self.resent += other.resent;
        self.latencies.extend(other.latencies);
    }
}

/// The place of a request in the load.
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    /// Which task sends it.
    pub task: usize,
    /// Its number over all tasks.
    pub number: u64,
}

impl Load {
    /// One task, one request, 60 s.
    pub fn new(address: SocketAddr) -> Self {
        Self {
            address,
            parallel: 1,
            requests: 1,
            time: Duration::from_secs(60),
            pause: Duration::ZERO,
            keepalive: true,
            stop: Arc::default(),
        }
    }

    /// Tasks at once.
    #[must_use]
    pub fn parallel(mut self, tasks: usize) -> Self {
        self.parallel = tasks;
        self
    }

    /// Requests in all.
    #[must_use]
    pub fn requests(mut self, count: u64) -> Self {
        self.requests = count;
        self
    }

    /// No request begins after this time. One that hangs is given as long again and then counts as failed.
    #[must_use]
    pub fn time(mut self, time: Duration) -> Self {
        self.time = time;
        self
    }

    /// What each task does between two requests: nothing, for this long. The first requests are spread evenly over one
    /// such pause, so that a crowd does not come at once.
    #[must_use]
    pub fn pause(mut self, time: Duration) -> Self {
        self.pause = time;
        self
    }

    /// A connection for each request.
    #[must_use]
    pub fn without_keepalive(mut self) -> Self {
        self.keepalive = false;
        self
    }

    /// To end it early.
    pub fn stopper(&self) -> Stop {
        Stop(Arc::clone(&self.stop))
    }

    /// Runs it: `make` gives the requests, `seen` is shown each answer.
    pub async fn run(
        self,
        make: impl Fn(Turn) -> Request + Send + Sync + 'static,
        seen: impl Fn(Turn, &Response) + Send + Sync + 'static,
    ) -> Report {
        let shared = Arc::new((self, make, seen, AtomicU64::new(0), Mutex::new(Report::default())));
        let start = Instant::now();
        let tasks: Vec<_> = (0..shared.0.parallel)
            .map(|task| {
                let shared = Arc::clone(&shared);
                tokio::spawn(async move {
                    let (load, make, seen, next, sum) = &*shared;
                    let report = load.task(task, start, make, seen, next).await;
                    sum.lock().unwrap_or_else(PoisonError::into_inner).add(report);
                })
            })
            .collect();
        for task in tasks {
            if let Err(error) = task.await {
                // A panic in `seen` is the test's verdict.
                std::panic::resume_unwind(error.into_panic());
            }
        }
        let mut report = std::mem::take(&mut *shared.4.lock().unwrap_or_else(PoisonError::into_inner));
        report.latencies.sort_unstable();
        report.elapsed = start.elapsed();
        report
    }

    async fn task(
        &self,
        task: usize,
        start: Instant,
        make: &impl Fn(Turn) -> Request,
        seen: &impl Fn(Turn, &Response),
        next: &AtomicU64,
    ) -> Report {
        let mut report = Report::default();
        let mut kept = None;
        let share = task as f64 / self.parallel.max(1) as f64;
        let mut pause = self.pause.mul_f64(share);
        while !self.stop.load(Ordering::Relaxed) && start.elapsed() < self.time {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= self.requests {
                break;
            }
            if !pause.is_zero() {
                tokio::time::sleep(pause).await;
            }
            pause = self.pause;
            let turn = Turn { task, number };
            let request = make(turn);
            let sent = Instant::now();
            let exchange = self.exchange(task, &request, &mut kept, &mut report.resent);
            match tokio::time::timeout(self.time, exchange).await {
                Ok(Ok(response)) => {
                    let taken = u32::try_from(sent.elapsed().as_micros()).unwrap_or(u32::MAX);
                    report.latencies.push(taken);
                    *report.statuses.entry(response.status()).or_default() += 1;
                    seen(turn, &response);
                }
                Ok(Err(error)) => {
                    kept = None;
                    *report.errors.entry(error.to_string()).or_default() += 1;
                }
                Err(_) => {
                    kept = None;
                    *report.errors.entry("no answer in time".to_owned()).or_default() += 1;
                }
            }
        }
        report
    }

    async fn exchange(
        &self,
        task: usize,
        request: &Request,
        kept: &mut Option<Connection>,
        resent: &mut u64,
    ) -> io::Result<Response> {
        if let Some(mut connection) = kept.take() {
            match connection.exchange(request).await {
                Ok(response) => {
                    *kept = Some(connection).filter(|connection| self.keepalive && connection.is_reusable());
                    return Ok(response);
                }
                Err(_) if !connection.is_answered() => *resent += 1,
                Err(error) => return Err(error),
            }
        }
        let mut connection = self.connect(task).await?;
        let response = connection.exchange(request).await?;
        *kept = Some(connection).filter(|connection| self.keepalive && connection.is_reusable());
        Ok(response)
    }

    async fn connect(&self, task: usize) -> io::Result<Connection> {
        if self.parallel <= PER_ADDRESS || !self.address.is_ipv4() {
            return Connection::open(self.address).await;
        }
        let last = u8::try_from(2 + task / PER_ADDRESS).unwrap_or(u8::MAX);
        Connection::open_from(
            SocketAddr::from((Ipv4Addr::new(127, 0, 0, last), 0)),
            self.address,
        )
        .await
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mock::MockLlm;

    #[tokio::test]
    async fn sends_as_many_requests_as_asked() {
        let mock = MockLlm::start().await;
        let load = Load::new(mock.address()).parallel(20).requests(300);
        let report = load
            .run(
                |turn| {
                    Request::chat(
                        if turn.number % 3 == 0 {
                            "mock?status=503"
                        } else {
                            "mock"
                        },
                        " hello",
                    )
                },
                |_, _| {},
            )
            .await;
        assert_eq!(
            (report.status(200), report.status(503), report.failed()),
            (200, 100, 0)
        );
        assert_eq!(mock.stats().total().requests, 300);
        assert!(mock.stats().connections().0 <= 20);
        assert_eq!(report.latencies.len(), 300);
        assert!(report.latency(0.5) <= report.latency(0.99));
    }

    #[tokio::test]
    async fn errors_are_counted_by_reason() {
        let mock = MockLlm::start().await;
        let load = Load::new(mock.address()).parallel(2).requests(10);
        let report = load
            .run(|_| Request::chat("mock?close=before", " hello"), |_, _| {})
            .await;
        assert_eq!((report.failed(), report.total()), (10, 10), "{report:?}");
    }

    #[tokio::test]
    async fn stops_early() {
        let mock = MockLlm::start().await;
        let load = Load::new(mock.address()).parallel(2).requests(u64::MAX);
        let stop = load.stopper();
        let report = load
            .run(
                |_| Request::chat("mock", " hello"),
                move |turn, _| {
                    if turn.number >= 50 {
                        stop.stop()
                    }
                },
            )
            .await;
        assert!((51..=60).contains(&report.total()), "{}", report.total());
    }
}
