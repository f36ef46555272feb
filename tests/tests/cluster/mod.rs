//! Three instances that share one Redis, and crowds of clients that want more than there is.

#![allow(dead_code, reason = "not every test file uses everything")]

use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tollgate_tests::documents::Documents;
use tollgate_tests::gateway::Gateway;
use tollgate_tests::http::{Connection, Request};
use tollgate_tests::wait::{PATIENCE, wait_for, wait_until};

/// The maximum of most limits here.
pub const MAX: u64 = 10_000;
/// How long a refused client waits before it tries again.
const BACK_OFF: Duration = Duration::from_millis(40);

/// Documents with a lease of one second.
pub fn documents(redis: &str, limits: &Value) -> Documents {
    Documents::new()
        .model("m", "mock")
        .model("p", "probe")
        .limited(
            "probe",
            json!([{ "metric": "requests", "max": 1_000, "window": "1m" }]),
        )
        .limited("c", limits.clone())
        .setting("redis", json!({ "urls": [redis], "timeout": "500ms" }))
        .setting("lease", json!({ "ttl": "1s" }))
}

/// Starts instances and waits until each admits from a limit of all.
pub async fn instances(count: usize, documents: &Documents) -> Vec<Gateway> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(Gateway::with(documents.clone()).start().await);
    }
    for gateway in &all {
        admits(gateway).await;
    }
    all
}

/// Waits until the instance has a lease of a limit that is far from full.
pub async fn admits(gateway: &Gateway) {
    wait_for("an allowance", PATIENCE, || async {
        let answer = gateway.send(&Request::chat("p", " hello").channel("probe")).await;
        (answer.status() == 200).then_some(())
    })
    .await;
}

/// A request of less than 100 tokens, 1 % of the limit. Half of the answers are streams.
pub fn request(number: u64) -> Request {
    let output = 24 + number * 5 % 37;
    let words = usize::try_from(10 + number * 7 % 20).expect("a few");
    Request::chat("m", " hello".repeat(words).trim_start())
        .channel("c")
        .set("max_tokens", output)
        .set("stream", number.is_multiple_of(2))
        .set(
            "mock",
            json!({ "tokens": output, "latency": "5ms", "interval": "200us" }),
        )
}

/// Tokens that the mocks have seen on the way.
pub fn tokens(all: &[Gateway]) -> u64 {
    let tally = all.iter().map(|g| g.mock.stats().model("mock"));
    tally.map(|t| t.prompt_tokens + t.completion_tokens).sum()
}

/// A figure of the daemon's metrics.
pub async fn figure(gateway: &Gateway, name: &str) -> u64 {
    let text = gateway.daemon.api(Request::get("/metrics")).await.text();
    let line = text.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix(' '));
    line.and_then(|n| n.parse().ok())
        .unwrap_or_else(|| panic!("no {name}"))
}

#[derive(Debug, Default)]
pub struct Counts {
    next: AtomicU64,
    pub admitted: AtomicU64,
    refused_in_a_row: AtomicU64,
    pub broken: AtomicU64,
    stop: AtomicBool,
}

/// Clients that ask again and again, spread over the instances.
pub struct Crowd {
    pub counts: Arc<Counts>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Crowd {
    pub fn start(all: &[&Gateway], parallel: usize) -> Self {
        let counts = Arc::new(Counts::default());
        let addresses: Vec<_> = all.iter().map(|g| g.address()).collect();
        let tasks = (0..parallel)
            .map(|client| {
                let counts = Arc::clone(&counts);
                let addresses = addresses.clone();
                tokio::spawn(async move {
                    let mut kept: Vec<Option<Connection>> = addresses.iter().map(|_| None).collect();
                    let mut turn = client;
                    while !counts.stop.load(Ordering::Relaxed) {
                        let request = request(counts.next.fetch_add(1, Ordering::Relaxed));
                        // A single client goes round; of many each stays.
                        let at = turn % addresses.len();
                        turn += usize::from(parallel < addresses.len());
                        let exchange = async {
                            let mut connection = match kept[at].take() {
                                Some(connection) => connection,
                                None => Connection::open(addresses[at]).await?,
                            };
                            let response = connection.exchange(&request).await?;
                            kept[at] = Some(connection).filter(Connection::is_reusable);
                            Ok::<_, std::io::Error>(response)
                        };
                        match tokio::time::timeout(PATIENCE, exchange).await {
                            Ok(Ok(response)) if response.status() == 200 => {
                                counts.admitted.fetch_add(1, Ordering::Relaxed);
                                counts.refused_in_a_row.store(0, Ordering::Relaxed);
                            }
                            Ok(Ok(response)) => {
                                assert_eq!(response.status(), 429, "{}", response.text());
                                counts.refused_in_a_row.fetch_add(1, Ordering::Relaxed);
                                tokio::time::sleep(BACK_OFF).await;
                            }
                            Ok(Err(_)) => {
                                counts.broken.fetch_add(1, Ordering::Relaxed);
                                tokio::time::sleep(BACK_OFF).await;
                            }
                            Err(_) => panic!("no answer in time"),
                        }
                    }
                })
            })
            .collect();
        Self { counts, tasks }
    }

    /// Ends them whatever they wait for: their gateway is gone.
    pub fn abandon(self) {
        for task in self.tasks {
            task.abort();
        }
    }

    pub async fn end(self) {
        self.counts.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("a client's verdict");
        }
    }

    /// Lets them go on until all are refused for a second with nothing in flight.
    pub async fn saturate(self, all: &[&Gateway]) {
        let regions: Vec<_> = all.iter().map(|g| g.region()).collect();
        let enough = (self.tasks.len() as u64 + 10).max(30);
        let mut since = std::time::Instant::now();
        wait_until("nothing but refusals", PATIENCE * 3, || {
            let busy = regions.iter().any(|r| !r.inflight(1).is_empty());
            let refused = self.counts.refused_in_a_row.load(Ordering::Relaxed);
            if busy {
                self.counts.refused_in_a_row.store(0, Ordering::Relaxed);
            }
            if busy && refused == 0 {
                since = std::time::Instant::now();
            }
            refused >= enough && since.elapsed() > Duration::from_secs(1)
        })
        .await;
        self.end().await;
        for gateway in all {
            gateway.wait_idle().await;
        }
    }
}
