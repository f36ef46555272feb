//! The daemon dies and comes back: no request notices, and no usage is lost or doubled.

use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tollgate_tests::documents::Documents;
use tollgate_tests::gateway::Gateway;
use tollgate_tests::http::Request;
use tollgate_tests::load::Load;
use tollgate_tests::wait::{PATIENCE, wait_for, wait_until};

fn documents() -> Documents {
    let limits = json!([
        { "metric": "connections", "max": 1_000 },
        { "metric": "total_tokens", "max": 1_000_000_000, "window": "10m" },
    ]);
    Documents::new()
        .model("gpt-4o", "mock")
        .model("gpt-4o-mini", "mini")
        .limited("wechat001", limits.clone())
        .limited("app002", limits)
}

/// The ledger's totals since ever.
async fn ledger(gateway: &Gateway, filter: &str) -> [i64; 3] {
    let usage = gateway.daemon.get(&format!("/usage?step=0{filter}")).await;
    ["ok", "input_tokens", "output_tokens"].map(|name| usage["total"][name].as_i64().expect("a number"))
}

/// What the mock counted, in the ledger's terms.
fn counted(tally: &tollgate_tests::mock::Tally) -> [i64; 3] {
    [tally.completed, tally.prompt_tokens, tally.completion_tokens].map(|n| i64::try_from(n).expect("small"))
}

#[tokio::test]
async fn a_dead_daemon_leaves_limits_and_usage_in_force() {
    let limits = json!([{ "metric": "requests", "max": 6, "window": "10m" }]);
    let documents = Documents::new()
        .model("gpt-4o", "mock")
        .limited("wechat001", limits);
    let mut gateway = Gateway::with(documents).workers(2).start().await;
    let request = Request::chat("gpt-4o", " hello").channel("wechat001");
    assert_eq!(gateway.send(&request).await.status(), 200);
    gateway.daemon.kill();
    assert_eq!(gateway.send(&request).await.status(), 200);
    // Reloaded and killed workers do without a daemon as well.
    gateway.nginx.reload().await;
    assert_eq!(gateway.send(&request).await.status(), 200);
    gateway.nginx.kill_worker(gateway.nginx.workers()[0]).await;
    assert_eq!(gateway.send(&request).await.status(), 200);
    gateway.daemon.restart().await;
    assert_eq!(gateway.used("wechat001", "requests/10m").await, 4);
    assert_eq!(gateway.send(&request).await.status(), 200);
    assert_eq!(gateway.send(&request).await.status(), 200);
    assert_eq!(gateway.send(&request).await.status(), 429);
    wait_for("the ledger to have all", PATIENCE, || async {
        (ledger(&gateway, "").await == counted(&gateway.mock.stats().total())).then_some(())
    })
    .await;
    gateway.stop().await;
}

#[tokio::test]
async fn an_edit_made_while_the_daemon_was_dead_is_taken_up() {
    let mut gateway = Gateway::with(documents()).workers(2).start().await;
    let request = Request::chat("gpt-4o", " hello").channel("new003");
    assert_eq!(gateway.send(&request).await.status(), 401);
    gateway.daemon.kill();
    documents()
        .limited("new003", json!([]))
        .openai("mock", &gateway.mock.url())
        .write(&gateway.site);
    assert_eq!(gateway.send(&request).await.status(), 401);
    gateway.daemon.restart().await;
    wait_for("the edit", PATIENCE, || async {
        (gateway.send(&request).await.status() == 200).then_some(())
    })
    .await;
    gateway.stop().await;
}

mod load {
    //! Needs the machine for itself: see tests/nextest.toml.

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn nothing_is_lost_or_doubled_when_the_daemon_is_killed_under_load() {
        const KILLS: u32 = 3;
        let mut gateway = Gateway::with(documents()).workers(2).start().await;
        let load = Load::new(gateway.address()).parallel(40).requests(u64::MAX);
        let stop = load.stopper();
        let done = Arc::new(AtomicU64::new(0));
        let counter = Arc::clone(&done);
        let running = tokio::spawn(load.run(
            |turn| {
                let model = if turn.number % 3 == 0 {
                    "gpt-4o-mini"
                } else {
                    "gpt-4o"
                };
                let channel = if turn.number % 5 == 0 {
                    "app002"
                } else {
                    "wechat001"
                };
                // Some streams end without the upstream's usage: then our own count has to be exact.
                let usage = if turn.number % 7 == 0 { "no" } else { "yes" };
                Request::chat(model, " hello".repeat(turn.number as usize % 50 + 1).trim_start())
                    .channel(channel)
                    .set("stream", turn.number % 2 == 0)
                    .set("max_tokens", 1 + turn.number % 40)
                    .set("mock", json!({ "tokens": 30, "usage": usage }))
            },
            move |_, _| {
                counter.fetch_add(1, Ordering::Relaxed);
            },
        ));
        let progress = async |what: &str| {
            let from = done.load(Ordering::Relaxed);
            wait_until(what, PATIENCE, || done.load(Ordering::Relaxed) > from + 500).await;
        };
        for _ in 0..KILLS {
            progress("answers with the daemon").await;
            gateway.daemon.kill();
            progress("answers without it").await;
            gateway.daemon.restart().await;
        }
        progress("answers at the end").await;
        stop.stop();
        let report = running.await.unwrap();
        assert_eq!(report.failed(), 0, "{:?}", report.errors);
        assert_eq!(report.status(200), report.total(), "{:?}", report.statuses);
        gateway.wait_idle().await;

        let mock = gateway.mock.stats().total();
        let expected = counted(&mock);
        wait_for("the ledger to have all", PATIENCE, || async {
            let found = ledger(&gateway, "").await;
            assert!(
                found
                    .iter()
                    .zip(&expected)
                    .all(|(found, expected)| found <= expected),
                "{found:?} {expected:?}"
            );
            (found == expected).then_some(())
        })
        .await;
        for (model, upstream) in [("gpt-4o", "mock"), ("gpt-4o-mini", "mini")] {
            let found = ledger(&gateway, &format!("&model={model}")).await;
            assert_eq!(found, counted(&gateway.mock.stats().model(upstream)), "{model}");
        }
        println!("{} requests, {} kills: {expected:?}", report.total(), KILLS);
        // Minutes and ten minutes hold the same.
        for step in ["60", "600"] {
            let usage: Value = gateway.daemon.get(&format!("/usage?step={step}&from=0")).await;
            assert_eq!(usage["total"]["output_tokens"], expected[2], "in steps of {step}");
        }
        // Killed once more, it still adds nothing.
        gateway.daemon.kill();
        gateway.daemon.restart().await;
        gateway.advance(Duration::from_secs(60));
        assert_eq!(ledger(&gateway, "").await, expected);
        gateway.stop().await;
    }
}
