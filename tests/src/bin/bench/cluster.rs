//! Limits over all instances: what Redis' trouble does to a worker's latency, and how often Redis is asked.

use crate::Plan;
use crate::gateways::{Bench, Kind, Running};
use crate::generator::Order;
use crate::load::{self, Sample};
use crate::rounds::median;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tollgate_shm::Region;
use tollgate_tests::cluster::Figures as Metrics;
use tollgate_tests::daemon::Daemon;
use tollgate_tests::documents::Documents;
use tollgate_tests::fault::FaultProxy;
use tollgate_tests::http::Request;
use tollgate_tests::redis::Redis;
use tollgate_tests::site::Site;
use tollgate_tests::wait::{PATIENCE, wait_for, wait_until};

/// Channels that ask all the time, and channels that ask once.
const HOT: usize = 10;
const COLD: usize = 1_000;
/// Requests a second: of the hot channels where they do not ask as fast as they can, and of the cold.
const RATES: (u64, u64) = (2_000, 200);
/// For how long the commands of hot channels are counted: four renewals, which may come all at once.
const COUNTED: Duration = Duration::from_secs(24);
/// After a cold channel's last request: the time in which everything goes back.
const RETURNED: Duration = Duration::from_secs(20);
/// What every lease must have left when a round of trouble begins, which must be over by then.
const LEFT_MS: u64 = 4_000;
const ROUND: Duration = Duration::from_secs(3);
/// How long trouble has lasted when latency is first taken.
const BEFORE: Duration = Duration::from_millis(200);
const FAR: u64 = 100_000_000_000;

/// What is done to the way to Redis.
type Break = fn(&FaultProxy);

/// What stands behind [`Kind::Cluster`]: its own region and daemon, and a Redis that it reaches through a proxy.
#[derive(Debug)]
pub struct Instance {
    /// The daemon.
    pub daemon: Daemon,
    /// The Redis.
    pub redis: Redis,
    /// Its folders.
    pub site: Site,
    way: Arc<FaultProxy>,
}

impl Instance {
    /// Starts Redis, the proxy and the daemon.
    pub async fn start(documents: Documents) -> Self {
        let redis = Redis::start().await;
        let way = way(redis.address());
        let four: Vec<_> = ["requests", "input_tokens", "output_tokens", "total_tokens"]
            .into_iter()
            .map(|metric| json!({ "metric": metric, "max": FAR, "window": "10m" }))
            .collect();
        let mut documents = documents
            .template(json!({ "name": "four", "limits": four }))
            .setting("redis", json!({ "urls": [format!("redis://{}", way.address())] }))
            // The core that the daemon shares with the load is never idle.
            .setting("lease", json!({ "wait": "1s" }));
        for code in hot().chain(cold()) {
            documents = documents.channel(json!({ "code": code, "trusted": true, "extends": "four" }));
        }
        let site = Site::new();
        documents.write(&site);
        let daemon = Daemon::start(&site).await;
        wait_until("the first snapshot", PATIENCE, || {
            Region::open(&site.region()).is_ok_and(|region| region.generation() > 0)
        })
        .await;
        wait_for("Redis", PATIENCE, || async {
            (Metrics::of(&daemon).await.get("tollgate_redis_connected") == 1).then_some(())
        })
        .await;
        Self {
            daemon,
            redis,
            site,
            way,
        }
    }

    /// Waits until every lease in use has most of its time to run.
    async fn wait_leased(&self) {
        let region = Region::open(&self.site.region()).expect("the region opens");
        wait_until("leases in hand", PATIENCE, || {
            let until = region.now_ms() + LEFT_MS;
            region
                .leased_rows()
                .filter_map(|row| region.lease_view(row))
                .all(|view| view.words.allowance == 0 || view.words.fence_ms >= until)
        })
        .await;
    }
}

/// A proxy in a thread of its own: the bench's runtime stands still while a load runs. It lives as long as the bench.
fn way(target: std::net::SocketAddr) -> Arc<FaultProxy> {
    let (tell, told) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        runtime.expect("a runtime").block_on(async move {
            let way = Arc::new(FaultProxy::start(target).await);
            tell.send(Arc::clone(&way)).expect("the bench waits for it");
            std::future::pending::<()>().await;
        });
    });
    told.recv().expect("the proxy starts")
}

fn hot() -> impl Iterator<Item = String> {
    (0..HOT).map(|number| format!("hot{number}"))
}

fn cold() -> impl Iterator<Item = String> {
    (0..COLD).map(|number| format!("cold{number}"))
}

/// Latency while Redis is in some state, microseconds, medians over the rounds.
#[derive(Clone, Debug)]
pub struct Latency {
    /// Redis' state.
    pub title: &'static str,
    /// Median.
    pub p50: f64,
    /// 99th percentile.
    pub p99: f64,
    /// The smallest and the largest 99th percentile of a round.
    pub spread: (f64, f64),
}

/// How often Redis is asked.
#[derive(Clone, Debug)]
pub struct Commands {
    /// Who asks.
    pub title: &'static str,
    /// Requests a second.
    pub rate: f64,
    /// Commands in a thousand of them.
    pub per_thousand: f64,
}

/// All of it.
#[derive(Clone, Debug)]
pub struct Figures {
    /// By Redis' state.
    pub latencies: Vec<Latency>,
    /// By channels.
    pub commands: Vec<Commands>,
}

/// Measures; `None` if [`Kind::Cluster`] does not take part.
pub async fn measure(bench: &Bench, running: &[Running], plan: &Plan) -> Option<Figures> {
    let gateway = running.iter().find(|gateway| gateway.kind == Kind::Cluster)?;
    let instance = bench.cluster.as_ref()?;
    let commands = vec![
        hot_commands(
            bench,
            gateway,
            instance,
            0,
            "10 hot × 4 limits, as fast as they can",
        ),
        hot_commands(bench, gateway, instance, RATES.0, "10 hot × 4 limits"),
        cold_commands(bench, gateway, instance).await,
    ];
    Some(Figures {
        latencies: latencies(bench, gateway, instance, plan).await,
        commands,
    })
}

fn order(bench: &Bench, gateway: &Running, channels: impl Iterator<Item = String>) -> Order {
    let others: Vec<_> = channels
        .map(|code| {
            Request::post_bytes("/v1/chat/completions", bench.unnamed.clone())
                .channel(&code)
                .to_bytes()
        })
        .collect();
    let first = Order::of(gateway.nginx.address(), others[0].clone(), 64, COUNTED);
    Order {
        every: 1,
        others,
        ..first
    }
}

fn hot_commands(
    bench: &Bench,
    gateway: &Running,
    instance: &Instance,
    rate: u64,
    title: &'static str,
) -> Commands {
    eprintln!("bench: Redis commands, {title}");
    let order = |time| Order {
        rate,
        time,
        ..order(bench, gateway, hot())
    };
    // They have their leases before anything is counted.
    load::run(bench, gateway, order(ROUND));
    let count = instance.redis.count();
    let sample = load::run(bench, gateway, order(COUNTED));
    commands(title, &sample, count.get())
}

/// Each asks once: for leases, and some time later to give them back.
async fn cold_commands(bench: &Bench, gateway: &Running, instance: &Instance) -> Commands {
    let title = "1,000 cold × 4 limits, one request each";
    eprintln!("bench: Redis commands, {title}");
    let count = instance.redis.count();
    let order = Order {
        rate: RATES.1,
        time: Duration::from_secs(COLD as u64 / RATES.1),
        ..order(bench, gateway, cold())
    };
    let sample = load::run(bench, gateway, order);
    tokio::time::sleep(RETURNED).await;
    commands(title, &sample, count.get())
}

fn commands(title: &'static str, sample: &Sample, count: u64) -> Commands {
    Commands {
        title,
        rate: sample.requests / sample.seconds,
        per_thousand: count as f64 / sample.requests * 1_000.0,
    }
}

async fn latencies(bench: &Bench, gateway: &Running, instance: &Instance, plan: &Plan) -> Vec<Latency> {
    let states: [(&'static str, Break); 3] = [
        ("healthy", |_| {}),
        ("delayed by 2 s", |way| way.delay(Duration::from_secs(2))),
        ("gone", FaultProxy::cut),
    ];
    let time = ROUND.min(Duration::from_secs(plan.seconds));
    let body = &bench.unnamed;
    load::post(bench, gateway, body, 1, Duration::from_secs(1));
    let mut samples = vec![Vec::new(); states.len()];
    for round in 1..=plan.rounds {
        eprintln!("bench: latency by Redis' state, round {round} of {}", plan.rounds);
        for ((_, break_it), samples) in states.iter().zip(&mut samples) {
            instance.wait_leased().await;
            break_it(&instance.way);
            tokio::time::sleep(BEFORE).await;
            samples.push(load::post(bench, gateway, body, 1, time));
            instance.way.delay(Duration::ZERO);
            instance.way.mend();
        }
    }
    instance.wait_leased().await;
    let latency = |((title, _), samples): (&(&'static str, _), &Vec<Sample>)| {
        let p99 = || samples.iter().map(|sample| sample.p99);
        Latency {
            title,
            p50: median(samples.iter().map(|sample| sample.p50)),
            p99: median(p99()),
            spread: (p99().fold(f64::MAX, f64::min), p99().fold(0.0, f64::max)),
        }
    };
    states.iter().zip(&samples).map(latency).collect()
}
