//! Ten thousand clients at once, while nginx reloads and the daemon is killed.

use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tollgate_tests::documents::{Documents, PROVIDER_KEY};
use tollgate_tests::gateway::{self, Gateway};
use tollgate_tests::http::Request;
use tollgate_tests::load::{Load, Report};
use tollgate_tests::mock::MockProcess;
use tollgate_tests::nginx::Nginx;
use tollgate_tests::wait::{wait_for, wait_until};

/// Clients whose answers the mock gives at once, half of them as streams.
const QUICK: usize = 9_000;
/// Clients of streams that last two seconds: some are open whatever happens.
const SLOW: usize = 1_000;
/// Requests of each client.
const EACH: u64 = 4;
/// Between two requests of a client.
const PAUSE: Duration = Duration::from_secs(6);
const LONG: Duration = Duration::from_secs(120);

fn documents(mock: &MockProcess) -> Documents {
    let limits = json!([
        { "metric": "connections", "max": 20_000 },
        { "metric": "requests", "max": 1_000_000, "window": "1s", "algorithm": "token_bucket", "burst": 1_000_000 },
        { "metric": "input_tokens", "max": 1_000_000_000, "window": "10m" },
        { "metric": "output_tokens", "max": 1_000_000_000, "window": "10m", "model": "gpt-4o" },
        { "metric": "total_tokens", "max": 1_000_000_000, "window": "20m" },
    ]);
    Documents::new()
        .provider(json!({
            "id": "far", "protocol": "openai", "base_url": format!("http://{}", mock.address()),
            "credentials": { "type": "bearer", "key": PROVIDER_KEY },
        }))
        .model_value(json!({
            "name": "gpt-4o", "tokenizer": "o200k_base",
            "deployments": [{ "provider": "far", "upstream_model": "mock" }],
        }))
        .limited("wechat001", limits.clone())
        .limited("app002", limits)
}

fn quick(number: u64) -> Request {
    let channel = if number.is_multiple_of(3) {
        "app002"
    } else {
        "wechat001"
    };
    Request::chat(
        "gpt-4o",
        [" hello", " hello hello", " one two three"][number as usize % 3],
    )
    .channel(channel)
    .set("stream", number.is_multiple_of(2))
    .set("max_tokens", 64)
}

fn slow(number: u64) -> Request {
    quick(number)
        .set("stream", true)
        .set("mock", json!({ "tokens": 20, "interval": "100ms" }))
}

/// Shows a load and adds up what became of it: successes, all.
fn judge(name: &str, report: &Report) -> (u64, u64) {
    println!(
        "{name}: {} requests in {:.1} s: {:.0}/s; mean {:?}, median {:?}, p99 {:?}, max {:?}; {:?}, {:?}, {} sent again",
        report.total(),
        report.elapsed.as_secs_f64(),
        report.rate(),
        report.mean(),
        report.latency(0.5),
        report.latency(0.99),
        report.latency(1.0),
        report.statuses,
        report.errors,
        report.resent,
    );
    (report.status(200), report.total())
}

/// The daemon's ledger, all time.
async fn booked(gateway: &Gateway) -> Value {
    gateway.daemon.get("/usage?step=0").await["total"].take()
}

mod load {
    //! Needs the machine for itself: see tests/nextest.toml.

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn ten_thousand_mixed_clients_through_reload_and_daemon_kill() {
        let mock = MockProcess::start().await;
        let http = gateway::HTTP.replace("listen {{http}};", "listen {{http}} backlog=4096;");
        let mut gateway = Gateway::with(documents(&mock))
            .nginx(|_| {
                Nginx::config(&http)
                    .with_module()
                    .workers(2)
                    .connections(16_000)
                    .log_level("warn")
            })
            .start()
            .await;
        // What the gateway answered to find out whether it was ready.
        gateway.wait_idle().await;

        let done = Arc::new(AtomicU64::new(0));
        let start = |clients: usize, make: fn(u64) -> Request| {
            let load = Load::new(gateway.address())
                .parallel(clients)
                .requests(clients as u64 * EACH)
                .time(LONG)
                .pause(PAUSE);
            let done = Arc::clone(&done);
            tokio::spawn(load.run(
                move |turn| make(turn.number),
                move |_, _| {
                    done.fetch_add(1, Ordering::Relaxed);
                },
            ))
        };
        let (at_once, streams) = (start(QUICK, quick), start(SLOW, slow));
        let all = (QUICK + SLOW) as u64 * EACH;
        let reaches = |share: u64| {
            let done = Arc::clone(&done);
            async move {
                wait_until("part of the load", LONG, || {
                    done.load(Ordering::Relaxed) >= all * share / 100
                })
                .await;
            }
        };
        reaches(30).await;
        gateway.nginx.reload().await;
        reaches(50).await;
        gateway.daemon.kill();
        reaches(65).await;
        gateway.daemon.restart().await;
        reaches(75).await;
        gateway.nginx.reload().await;

        let at_once = judge("answered at once", &at_once.await.expect("a verdict"));
        let streams = judge("streams of two seconds", &streams.await.expect("a verdict"));
        let (good, total) = (at_once.0 + streams.0, at_once.1 + streams.1);
        assert_eq!(total, all);
        assert!(good * 1_000 >= total * 999, "{good} of {total} succeeded");

        gateway.nginx.wait_old_workers_gone(LONG).await;
        gateway.wait_idle().await;
        assert_eq!(gateway.used("wechat001", "connections").await, 0);
        let sent = mock.stats().await;
        wait_for("the ledger to agree with the mock", LONG, || async {
            let total = booked(&gateway).await;
            (total["ok"] == sent["completed"]).then_some(())
        })
        .await;
        let total = booked(&gateway).await;
        assert_eq!(sent["completed"], sent["requests"], "{sent}");
        assert_eq!(total["input_tokens"], sent["prompt_tokens"]);
        assert_eq!(total["output_tokens"], sent["completion_tokens"]);
        gateway.stop().await;
    }
}
