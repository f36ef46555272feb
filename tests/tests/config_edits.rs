//! Configuration is edited while requests run: usage stays, changes apply at once and everywhere, mistakes nowhere.

use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tollgate_tests::documents::Documents;
use tollgate_tests::gateway::Gateway;
use tollgate_tests::http::Request;
use tollgate_tests::load::Load;
use tollgate_tests::wait::{PATIENCE, wait_for, wait_until};

/// Two models and a channel.
fn documents(channel: Value) -> Documents {
    Documents::new()
        .model("gpt-4o", "mock")
        .model("gpt-4o-mini", "mini")
        .channel(channel)
}

fn limited(max: u64) -> Documents {
    let limits = json!([{ "metric": "total_tokens", "max": max, "window": "10m" }]);
    documents(json!({ "code": "wechat001", "trusted": true, "limits": limits }))
}

fn hello() -> Request {
    Request::chat("gpt-4o", " hello")
        .channel("wechat001")
        .set("max_tokens", 42)
        .set("mock", json!({ "tokens": 42 }))
}

/// Tokens of one [`hello`].
const EACH: u64 = 50;

async fn admitted(gateway: &Gateway, count: usize) -> usize {
    let mut admitted = 0;
    for _ in 0..count {
        match gateway.send(&hello()).await.status() {
            200 => admitted += 1,
            status => assert_eq!(status, 429),
        }
        // What it used is settled a moment after its last byte.
        gateway.wait_idle().await;
    }
    admitted
}

#[tokio::test]
async fn a_limit_s_usage_survives_edits_and_a_changed_maximum_applies_at_once() {
    let gateway = Gateway::with(limited(10 * EACH)).workers(2).start().await;
    let name = "total_tokens/10m";
    assert_eq!(admitted(&gateway, 6).await, 6);
    assert_eq!(gateway.used("wechat001", name).await, 6 * EACH);

    // Everything of the channel changes but the limit's identity.
    let edited = documents(json!({
        "code": "wechat001", "name": "another name", "trusted": true, "tags": ["a"], "enforcement": "strict",
        "models": { "allow": ["gpt-4o"] },
        "limits": [
            { "metric": "connections", "max": 100 },
            { "metric": "requests", "max": 1_000, "window": "1s" },
            { "metric": "total_tokens", "max": 10 * EACH, "window": "10m", "name": "renamed" },
        ],
    }));
    gateway.publish(edited).await;
    assert_eq!(gateway.used("wechat001", "renamed").await, 6 * EACH);
    assert_eq!(admitted(&gateway, 6).await, 4);

    gateway.publish(limited(15 * EACH)).await;
    assert_eq!(admitted(&gateway, 7).await, 5);

    // Lowered below what is used: nothing more, and nothing is forgotten.
    gateway.publish(limited(5 * EACH)).await;
    assert_eq!(admitted(&gateway, 3).await, 0);
    assert_eq!(gateway.used("wechat001", name).await, 15 * EACH);

    gateway.publish(limited(16 * EACH)).await;
    assert_eq!(admitted(&gateway, 3).await, 1);
    let total = gateway.mock.stats().total();
    assert_eq!(total.prompt_tokens + total.completion_tokens, 16 * EACH);
    gateway.stop().await;
}

#[tokio::test]
async fn a_channel_that_is_taken_away_and_brought_back_has_its_usage() {
    let gateway = Gateway::with(limited(10 * EACH)).workers(2).start().await;
    assert_eq!(admitted(&gateway, 6).await, 6);
    gateway
        .publish(documents(json!({ "code": "other", "trusted": true })))
        .await;
    assert_eq!(gateway.send(&hello()).await.status(), 401);
    gateway.publish(limited(10 * EACH)).await;
    assert_eq!(admitted(&gateway, 6).await, 4);
    gateway.stop().await;
}

#[tokio::test]
async fn a_change_that_does_not_validate_never_takes_effect() {
    let gateway = Gateway::with(limited(1_000 * EACH)).workers(2).start().await;
    let region = gateway.region();
    let generation = region.generation();
    let limit =
        |limit: Value| json!({ "channels": [{ "code": "wechat001", "trusted": true, "limits": [limit] }] });
    for (text, named) in [
        ("{ \"channels\": [".to_owned(), "channels"),
        (
            limit(json!({ "metric": "tokens", "max": 1, "window": "10m" })).to_string(),
            "metric",
        ),
        (
            limit(json!({ "metric": "input_tokens", "max": 1, "window": "10s" })).to_string(),
            "whole minutes",
        ),
        (
            limit(json!({ "metric": "requests", "max": 1, "window": "1s", "model": "no-such-model" }))
                .to_string(),
            "no-such-model",
        ),
        (
            json!({ "channels": [{ "code": "wechat001" }, { "code": "wechat001" }] }).to_string(),
            "stands at",
        ),
    ] {
        gateway.site.write_text("channels", &text);
        let problems = wait_for("the mistake to be reported", PATIENCE, || async {
            let problems = gateway.daemon.get("/instance").await["problems"].to_string();
            problems.contains(named).then_some(problems)
        })
        .await;
        assert_eq!(region.generation(), generation, "{problems}");
        assert_eq!(gateway.send(&hello()).await.status(), 200, "{problems}");
    }
    // A good document cannot take effect together with a bad one, and does as soon as that is mended.
    gateway
        .site
        .write("settings", &json!({ "settings": { "limits": [] } }));
    gateway.publish(limited(1)).await;
    assert_eq!(gateway.send(&hello()).await.status(), 429);
    wait_for("the report to be clear", PATIENCE, || async {
        (gateway.daemon.get("/instance").await["errors"] == 0).then_some(())
    })
    .await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_request_keeps_the_configuration_that_it_began_with() {
    let gateway = Gateway::with(limited(1_000 * EACH)).start().await;
    let slow = hello().set("stream", true).set(
        "mock",
        json!({ "tokens": 42, "latency": "300ms", "interval": "10ms" }),
    );
    let stats = gateway.mock.stats();
    let (answer, ()) = tokio::join!(gateway.send(&slow), async {
        wait_until("the request to arrive", PATIENCE, || stats.total().in_flight == 1).await;
        gateway
            .publish(documents(json!({ "code": "other", "trusted": true })))
            .await;
        assert_eq!(gateway.send(&hello()).await.status(), 401);
        assert_eq!(stats.total().in_flight, 1);
    });
    assert_eq!(answer.status(), 200);
    assert!(
        answer
            .events()
            .last()
            .is_some_and(tollgate_tests::sse::Event::is_done)
    );
    gateway.stop().await;
}

mod load {
    //! Needs the machine for itself: see tests/nextest.toml.

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn edits_reach_every_worker_without_a_failed_request() {
        const EDITS: u64 = 30;
        const WORKERS: u32 = 4;
        let gateway = Gateway::with(limited(1_000_000_000))
            .workers(WORKERS)
            .start()
            .await;
        let pids = gateway.nginx.workers();
        let load = Load::new(gateway.address()).parallel(50).requests(u64::MAX);
        let stop = load.stopper();
        let running = tokio::spawn(load.run(
            |turn| hello().set("stream", turn.number.is_multiple_of(2)),
            |_, _| {},
        ));
        let region = gateway.region();
        let mut times = Vec::new();
        for edit in 0..EDITS {
            let before = region.generation();
            let start = Instant::now();
            limited(1_000_000_000 - edit - 1)
                .openai("mock", &gateway.mock.url())
                .write(&gateway.site);
            // Polled tightly: the figure is to be the gateway's, not the harness's.
            while region.workers().iter().any(|worker| worker.generation <= before) {
                assert!(start.elapsed() < PATIENCE, "{:?}", region.workers());
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            times.push(start.elapsed());
        }
        stop.stop();
        let report = running.await.unwrap();
        times.sort_unstable();
        println!(
            "written -> every one of {WORKERS} workers uses it, under {:.0} requests/s: median {:?}, worst {:?}",
            report.rate(),
            times[times.len() / 2],
            times[times.len() - 1],
        );
        assert!(times[times.len() / 2] < Duration::from_secs(1), "{times:?}");
        assert_eq!(report.failed(), 0, "{:?}", report.errors);
        assert_eq!(report.status(200), report.total(), "{:?}", report.statuses);
        assert_eq!(gateway.nginx.workers(), pids, "nginx was reloaded");
        gateway.stop().await;
    }
}
