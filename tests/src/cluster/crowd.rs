//! Clients that ask again and again, spread over the instances, and when they have had all there is.

use super::Cluster;
use crate::http::{Connection, Request};
use crate::wait::{PATIENCE, wait_for, wait_until};
use serde_json::json;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// A limit is used up when there have been nothing but refusals for so long, while every instance is granted what there is: longer
/// than an instance pauses between two questions (one second), and than any request takes.
const QUIET: Duration = Duration::from_secs(2);
/// How often that is looked at.
const LOOK: Duration = Duration::from_millis(50);
/// How long a refused client waits before it tries again; of many together each waits longer.
const BACK_OFF: (Duration, Duration) = (Duration::from_millis(40), Duration::from_micros(400));

/// Which answers are asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Style {
    /// Whole.
    Plain,
    /// Streamed.
    Streaming,
    /// One after the other.
    Both,
}

/// What a crowd does.
#[derive(Clone, Debug)]
pub struct Order {
    /// Whose limit it uses up.
    pub channel: String,
    /// Clients at once.
    pub parallel: usize,
    /// Which answers they want.
    pub style: Style,
    /// How long each client rests after an answer.
    pub pause: Duration,
}

impl Order {
    /// A request of less than 100 tokens, 1 % of the limit.
    fn request(&self, number: u64) -> Request {
        let output = 24 + number * 5 % 37;
        let words = usize::try_from(10 + number * 7 % 20).expect("a few");
        let stream = match self.style {
            Style::Plain => false,
            Style::Streaming => true,
            Style::Both => number.is_multiple_of(2),
        };
        Request::chat("m", " hello".repeat(words).trim_start())
            .channel(&self.channel)
            .set("max_tokens", output)
            .set("stream", stream)
            .set(
                "mock",
                json!({ "tokens": output, "latency": "5ms", "interval": "200us" }),
            )
    }
}

#[derive(Debug, Default)]
struct Counts {
    next: AtomicU64,
    admitted: AtomicU64,
    refused: AtomicU64,
    stop: AtomicBool,
}

/// A running crowd. Dropped, it ends at once.
#[derive(Debug)]
pub struct Crowd {
    counts: Arc<Counts>,
    tasks: Vec<JoinHandle<()>>,
}

impl Crowd {
    /// Lets it begin. Of few clients each goes round the instances, of many each stays at one.
    pub fn start(cluster: &Cluster, order: &Order) -> Self {
        let counts = Arc::new(Counts::default());
        let addresses: Vec<_> = cluster.members.iter().map(|m| m.gateway.address()).collect();
        let tasks = (0..order.parallel)
            .map(|number| {
                let client = Client {
                    counts: Arc::clone(&counts),
                    order: order.clone(),
                    kept: addresses.iter().map(|_| None).collect(),
                    addresses: addresses.clone(),
                    turn: number,
                };
                tokio::spawn(client.run())
            })
            .collect();
        Self { counts, tasks }
    }

    /// Lets it go on until it has had all there is, then ends it and waits until nothing is in flight.
    ///
    /// # Panics
    /// If it takes too long, or a client got another answer than 200 or 429.
    pub async fn saturate(mut self, cluster: &Cluster) {
        let regions: Vec<_> = cluster.living().map(|m| m.gateway.region()).collect();
        let figures = || {
            let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
            (load(&self.counts.admitted), load(&self.counts.refused))
        };
        let enough = (self.tasks.len() as u64 + 10).max(30);
        let mut quiet = (Instant::now(), figures());
        let started = Instant::now();
        while quiet.0.elapsed() < QUIET || figures().1 < quiet.1.1 + enough {
            assert!(
                started.elapsed() < PATIENCE * 4,
                "waited for nothing but refusals: {:?}",
                self.counts
            );
            tokio::time::sleep(LOOK).await;
            if figures().0 != quiet.1.0 || !cluster.is_settled().await {
                quiet = (Instant::now(), figures());
            }
        }
        self.finish().await;
        wait_for("nothing in flight", PATIENCE, || async {
            let idle = regions.iter().all(|region| region.inflight(1).is_empty());
            idle.then_some(())
        })
        .await;
    }

    /// Waits until so many more requests were served.
    pub async fn served(&self, more: u64) {
        let admitted = || self.counts.admitted.load(Ordering::Relaxed);
        let wanted = admitted() + more;
        wait_until("requests to be served", PATIENCE, || admitted() >= wanted).await;
    }

    /// Ends it when each client has had its answer.
    ///
    /// # Panics
    /// If a client got another answer than 200 or 429.
    pub async fn end(mut self) {
        self.finish().await;
    }

    async fn finish(&mut self) {
        self.counts.stop.store(true, Ordering::Relaxed);
        for task in std::mem::take(&mut self.tasks) {
            task.await.expect("a client's verdict");
        }
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

struct Client {
    counts: Arc<Counts>,
    order: Order,
    addresses: Vec<SocketAddr>,
    kept: Vec<Option<Connection>>,
    turn: usize,
}

impl Client {
    async fn run(mut self) {
        let many = u32::try_from(self.order.parallel).unwrap_or(u32::MAX);
        let back_off = BACK_OFF.0.max(BACK_OFF.1 * many);
        let goes_round = self.order.parallel < self.addresses.len();
        while !self.counts.stop.load(Ordering::Relaxed) {
            let request = self
                .order
                .request(self.counts.next.fetch_add(1, Ordering::Relaxed));
            let at = self.turn % self.addresses.len();
            self.turn += usize::from(goes_round);
            let rest = match tokio::time::timeout(PATIENCE, self.exchange(at, &request)).await {
                Ok(Ok(200)) => {
                    self.counts.admitted.fetch_add(1, Ordering::Relaxed);
                    self.order.pause
                }
                Ok(Ok(_)) => {
                    self.counts.refused.fetch_add(1, Ordering::Relaxed);
                    back_off
                }
                // Its instance is dead.
                Ok(Err(_)) => back_off,
                Err(_) => panic!("no answer in time"),
            };
            tokio::time::sleep(rest).await;
        }
    }

    async fn exchange(&mut self, at: usize, request: &Request) -> io::Result<u16> {
        let mut connection = match self.kept[at].take() {
            Some(connection) => connection,
            None => Connection::open(self.addresses[at]).await?,
        };
        let response = connection.exchange(request).await?;
        self.kept[at] = Some(connection).filter(Connection::is_reusable);
        let status = response.status();
        assert!(status == 200 || status == 429, "{status}: {}", response.text());
        Ok(status)
    }
}
