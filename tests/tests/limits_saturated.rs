//! A limit under far more requests than it has room for: never exceeded and nearly used up, as the mock counted.

use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tollgate_tests::documents::Documents;
use tollgate_tests::gateway::Gateway;
use tollgate_tests::http::{Connection, Request};
use tollgate_tests::mock::Tally;
use tollgate_tests::wait::{PATIENCE, wait_until};

/// The maximum of most limits here.
const MAX: u64 = 10_000;
/// How long a refused client waits before it tries again.
const BACK_OFF: Duration = Duration::from_millis(40);
const TEN_MINUTES: Duration = Duration::from_secs(600);

/// A request of less than 100 tokens, 1 % of the limit. Half of the answers are streams, a third is shorter than asked
/// for.
fn request(number: u64, channel: &str, model: &str) -> Request {
    let output = 24 + number * 5 % 37;
    let produced = if number.is_multiple_of(3) {
        output / 2
    } else {
        output
    };
    let words = usize::try_from(10 + number * 7 % 20).expect("a few");
    Request::chat(model, " hello".repeat(words).trim_start())
        .channel(channel)
        .set("max_tokens", output)
        .set("stream", number.is_multiple_of(2))
        .set(
            "mock",
            json!({ "tokens": produced, "latency": "5ms", "interval": "200us" }),
        )
}

/// Counts of a [`Crowd`].
#[derive(Debug, Default)]
struct Counts {
    next: AtomicU64,
    admitted: AtomicU64,
    /// Refusals since the last admission.
    refused_in_a_row: AtomicU64,
    /// Requests whose connection broke: a worker was killed.
    broken: AtomicU64,
    stop: AtomicBool,
}

/// Clients that ask again and again: at once after an answer, after a pause when they were refused.
struct Crowd {
    counts: Arc<Counts>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Crowd {
    fn start(
        gateway: &Gateway,
        parallel: usize,
        make: impl Fn(u64) -> Request + Send + Sync + 'static,
    ) -> Self {
        let counts = Arc::new(Counts::default());
        let make = Arc::new(make);
        let address = gateway.address();
        let tasks = (0..parallel)
            .map(|_| {
                let (counts, make) = (Arc::clone(&counts), Arc::clone(&make));
                tokio::spawn(async move {
                    let mut kept = None;
                    while !counts.stop.load(Ordering::Relaxed) {
                        let request = make(counts.next.fetch_add(1, Ordering::Relaxed));
                        let exchange = async {
                            let mut connection = match kept.take() {
                                Some(connection) => connection,
                                None => Connection::open(address).await?,
                            };
                            let response = connection.exchange(&request).await?;
                            kept = Some(connection).filter(Connection::is_reusable);
                            Ok::<_, std::io::Error>(response)
                        };
                        match tokio::time::timeout(PATIENCE, exchange)
                            .await
                            .expect("an answer in time")
                        {
                            Ok(response) if response.status() == 200 => {
                                counts.admitted.fetch_add(1, Ordering::Relaxed);
                                counts.refused_in_a_row.store(0, Ordering::Relaxed);
                            }
                            Ok(response) => {
                                assert_eq!(response.status(), 429, "{}", response.text());
                                counts.refused_in_a_row.fetch_add(1, Ordering::Relaxed);
                                tokio::time::sleep(BACK_OFF).await;
                            }
                            Err(_) => {
                                counts.broken.fetch_add(1, Ordering::Relaxed);
                            }
                        }
                    }
                })
            })
            .collect();
        Self { counts, tasks }
    }

    /// Lets them go on until each has been refused about once more with nothing in flight, then ends them.
    async fn saturate(self, gateway: &Gateway) -> Arc<Counts> {
        let region = gateway.region();
        let enough = self.tasks.len() as u64 + 10;
        wait_until("nothing but refusals", PATIENCE, || {
            if !region.inflight(1).is_empty() {
                self.counts.refused_in_a_row.store(0, Ordering::Relaxed);
            }
            let ended = self.tasks.iter().any(tokio::task::JoinHandle::is_finished);
            ended || self.counts.refused_in_a_row.load(Ordering::Relaxed) >= enough
        })
        .await;
        self.counts.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            task.await.expect("a client's verdict");
        }
        gateway.wait_idle().await;
        self.counts
    }
}

/// A limit and how the mock sees what it counts.
struct Case {
    /// What the table of results calls it.
    name: &'static str,
    documents: Documents,
    /// Channels and models of requests in turn.
    callers: &'static [(&'static str, &'static str)],
    /// What is held against the maximum.
    counted: fn(&Tally) -> u64,
    /// What all requests together may use.
    max: u64,
    parallel: usize,
}

fn total(tally: &Tally) -> u64 {
    tally.prompt_tokens + tally.completion_tokens
}
fn input(tally: &Tally) -> u64 {
    tally.prompt_tokens
}
fn output(tally: &Tally) -> u64 {
    tally.completion_tokens
}

/// Two models and two channels, the first with these limits.
fn documents(limits: Value) -> Documents {
    Documents::new()
        .model("gpt-4o", "mock")
        .model("gpt-4o-mini", "mini")
        .limited("wechat001", limits)
        .limited("app002", json!([]))
}

impl Case {
    fn new(name: &'static str, limits: Value, counted: fn(&Tally) -> u64) -> Self {
        Self {
            name,
            documents: documents(limits),
            callers: &[("wechat001", "gpt-4o"), ("wechat001", "gpt-4o-mini")],
            counted,
            max: MAX,
            parallel: 500,
        }
    }

    async fn start(&self) -> Gateway {
        let gateway = Gateway::with(self.documents.clone()).workers(4).start().await;
        gateway.align(Duration::from_secs(1_200));
        gateway
    }

    fn crowd(&self, gateway: &Gateway) -> Crowd {
        let callers = self.callers;
        Crowd::start(gateway, self.parallel, move |number| {
            let (channel, model) = callers[usize::try_from(number).expect("a count") % callers.len()];
            request(number, channel, model)
        })
    }

    /// Asserts what strict and used mean, and shows the figure.
    fn judge(&self, gateway: &Gateway, windows: u64, counts: &Counts) {
        let used = (self.counted)(&gateway.mock.stats().total());
        let max = self.max * windows;
        let (admitted, asked) = (
            counts.admitted.load(Ordering::Relaxed),
            counts.next.load(Ordering::Relaxed),
        );
        println!(
            "admitted/limit {:.4} ({used} of {max}) at {} parallel: {}; {admitted} of {asked} requests admitted",
            used as f64 / max as f64,
            self.parallel,
            self.name,
        );
        assert!(used <= max, "{}: {used} of {max} tokens", self.name);
        assert!(
            used * 100 >= max * 95,
            "{}: only {used} of {max} tokens",
            self.name
        );
        assert_eq!(
            counts.broken.load(Ordering::Relaxed),
            0,
            "requests without an answer"
        );
    }

    /// Saturates the limit once.
    async fn run(self) {
        let gateway = self.start().await;
        let counts = self.crowd(&gateway).saturate(&gateway).await;
        self.judge(&gateway, 1, &counts);
        gateway.stop().await;
    }
}

mod load {
    //! Needs the machine for itself: see tests/nextest.toml.

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn total_tokens_at_1_50_and_500_parallel() {
        for parallel in [1, 50, 500] {
            let limits = json!([{ "metric": "total_tokens", "max": MAX, "window": "10m" }]);
            let case = Case {
                parallel,
                ..Case::new("total_tokens/10m", limits, total)
            };
            case.run().await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn input_tokens() {
        let limits = json!([{ "metric": "input_tokens", "max": MAX, "window": "10m" }]);
        Case::new("input_tokens/10m", limits, input).run().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn output_tokens() {
        let limits = json!([{ "metric": "output_tokens", "max": MAX, "window": "10m" }]);
        Case::new("output_tokens/10m", limits, output).run().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn twenty_minutes() {
        let limits = json!([{ "metric": "total_tokens", "max": MAX, "window": "20m" }]);
        Case::new("total_tokens/20m", limits, total).run().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn channel_and_model() {
        let limits = json!([{ "metric": "total_tokens", "max": MAX, "window": "10m", "model": "gpt-4o" }]);
        let case = Case {
            callers: &[("wechat001", "gpt-4o")],
            ..Case::new("total_tokens/10m:gpt-4o", limits, total)
        };
        case.run().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn each_model_has_its_own_counter() {
        let limits = json!([{ "metric": "total_tokens", "max": MAX, "window": "10m", "per_model": true }]);
        let case = Case {
            max: 2 * MAX,
            ..Case::new("total_tokens/10m:each model", limits, total)
        };
        let gateway = case.start().await;
        let counts = case.crowd(&gateway).saturate(&gateway).await;
        case.judge(&gateway, 1, &counts);
        for model in ["mock", "mini"] {
            let used = total(&gateway.mock.stats().model(model));
            assert!(used <= MAX, "{model}: {used}");
        }
        gateway.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_model_over_all_channels() {
        let model = json!({
            "name": "gpt-4o", "tokenizer": "o200k_base", "deployments": [{ "provider": "mock", "upstream_model": "mock" }],
            "limits": [{ "metric": "total_tokens", "max": MAX, "window": "10m" }],
        });
        let case = Case {
            documents: Documents::new()
                .model_value(model)
                .limited("wechat001", json!([]))
                .limited("app002", json!([])),
            callers: &[("wechat001", "gpt-4o"), ("app002", "gpt-4o")],
            ..Case::new("model gpt-4o, total_tokens/10m", json!([]), total)
        };
        case.run().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn everything_together() {
        let global = json!([{ "metric": "total_tokens", "max": MAX, "window": "10m" }]);
        let case = Case {
            documents: documents(json!([])).setting("limits", global),
            callers: &[
                ("wechat001", "gpt-4o"),
                ("app002", "gpt-4o"),
                ("wechat001", "gpt-4o-mini"),
                ("app002", "gpt-4o-mini"),
            ],
            ..Case::new("global, total_tokens/10m", json!([]), total)
        };
        case.run().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn fixed_windows_begin_anew() {
        let limits =
            json!([{ "metric": "total_tokens", "max": MAX, "window": "10m", "algorithm": "fixed_window" }]);
        let case = Case::new("total_tokens/10m, fixed windows", limits, total);
        let gateway = case.start().await;
        for window in 1..=3 {
            let counts = case.crowd(&gateway).saturate(&gateway).await;
            case.judge(&gateway, window, &counts);
            gateway.advance(TEN_MINUTES);
        }
        gateway.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_sliding_window_frees_what_has_left_it() {
        let limits = json!([{ "metric": "total_tokens", "max": MAX, "window": "10m" }]);
        let case = Case::new("total_tokens/10m, sliding", limits, total);
        let gateway = case.start().await;
        let counts = case.crowd(&gateway).saturate(&gateway).await;
        case.judge(&gateway, 1, &counts);
        // Nine minutes later all of it still counts.
        gateway.advance(TEN_MINUTES * 9 / 10);
        let counts = case.crowd(&gateway).saturate(&gateway).await;
        assert_eq!(counts.admitted.load(Ordering::Relaxed), 0);
        // One window and one part of a window (a thirtieth) after the beginning nothing of it does.
        gateway.advance(TEN_MINUTES / 10 + TEN_MINUTES / 15);
        let counts = case.crowd(&gateway).saturate(&gateway).await;
        case.judge(&gateway, 2, &counts);
        gateway.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn two_windows_at_once() {
        let limits = json!([
            { "metric": "input_tokens", "max": 10_000, "window": "10m" },
            { "metric": "input_tokens", "max": 15_000, "window": "20m" },
        ]);
        let mut case = Case::new("input_tokens/10m", limits, input);
        let gateway = case.start().await;
        let counts = case.crowd(&gateway).saturate(&gateway).await;
        case.judge(&gateway, 1, &counts);
        gateway.advance(TEN_MINUTES + TEN_MINUTES / 15);
        let counts = case.crowd(&gateway).saturate(&gateway).await;
        (case.name, case.max) = ("input_tokens/10m and /20m", 15_000);
        case.judge(&gateway, 1, &counts);
        gateway.stop().await;
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn workers_are_killed_and_nginx_reloads_meanwhile() {
        let limits = json!([
            { "metric": "total_tokens", "max": MAX, "window": "10m" },
            { "metric": "connections", "max": 1_000 },
        ]);
        let case = Case::new("total_tokens/10m, killed and reloaded", limits, total);
        let gateway = case.start().await;
        let region = gateway.region();
        let stats = gateway.mock.stats();
        let tokens = || total(&stats.total());
        // Slow answers: many are under way whenever a worker dies.
        let crowd = Crowd::start(&gateway, case.parallel, |number| {
            request(number, "wechat001", "gpt-4o")
                .set("mock", json!({ "latency": "50ms", "interval": "4ms" }))
        });
        let busiest = || {
            let workers = region.workers();
            let busiest = workers.iter().filter(|it| it.alive).max_by_key(|it| it.requests);
            busiest.expect("a worker").pid
        };
        wait_until("answers under way", PATIENCE, || stats.total().in_flight >= 40).await;
        gateway.nginx.kill_worker(busiest()).await;
        gateway.nginx.reload().await;
        gateway.nginx.kill_worker(gateway.nginx.workers()[0]).await;
        gateway.nginx.kill_worker(gateway.nginx.workers()[0]).await;
        wait_until("the dead to be cleared away", PATIENCE, || {
            region.workers().iter().all(|worker| worker.alive)
        })
        .await;
        crowd.saturate(&gateway).await;
        let gauges = region.gauges();
        let lost = gauges
            .iter()
            .find(|(name, _)| *name == "reclaimed_requests")
            .map_or(0, |(_, n)| *n);
        println!(
            "admitted/limit {:.4}: {}; {lost} requests died",
            tokens() as f64 / MAX as f64,
            case.name
        );
        assert!(lost > 0, "no request died with its worker");
        assert!(tokens() <= MAX, "{} tokens", tokens());
        // Nobody can know what an upstream produced for a worker that died, so its reservations stay charged: the limit
        // is used up by the gateway's count, and the mock's is that without what the dead left unused.
        let charged = gateway.used("wechat001", "total_tokens/10m").await;
        assert!(
            (MAX * 95 / 100..=MAX).contains(&charged),
            "{charged} tokens are charged"
        );
        assert_eq!(gateway.used("wechat001", "connections").await, 0);
        gateway.nginx.wait_old_workers_gone(PATIENCE).await;

        // Nothing of that reaches the next window.
        gateway.advance(TEN_MINUTES * 2);
        gateway.mock.stats().reset();
        let counts = case.crowd(&gateway).saturate(&gateway).await;
        case.judge(&gateway, 1, &counts);
        assert_eq!(gateway.used("wechat001", "connections").await, 0);
        gateway.stop().await;
    }
}
