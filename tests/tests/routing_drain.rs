//! What becomes of requests while deployments come and go: removal under load, and the smallest canary.

use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};
use tollgate_tests::documents::Documents;
use tollgate_tests::gateway::Gateway;
use tollgate_tests::http::Request;
use tollgate_tests::load::Load;
use tollgate_tests::wait::{PATIENCE, wait_until};

mod load {
    use super::*;

    #[tokio::test]
    async fn a_removed_deployment_gets_nothing_new_and_its_streams_end() {
        // Forty events, 50 ms apart: two seconds.
        let slow = "?tokens=40&chunks=40&interval=50ms";
        let documents = |ids: &[&str]| {
            let one =
                |id: &&str| json!({ "id": id, "provider": "mock", "upstream_model": format!("{id}{slow}") });
            let deployments: Vec<Value> = ids.iter().map(one).collect();
            Documents::new()
                .model_value(json!({ "name": "m", "deployments": deployments }))
                .limited("c", json!([{ "metric": "connections", "max": 10_000 }]))
        };
        let gateway = Gateway::with(documents(&["stays", "goes"]))
            .workers(2)
            .start()
            .await;
        let whole = Arc::new(AtomicU64::new(0));
        let counted = Arc::clone(&whole);
        let load = Load::new(gateway.address())
            .parallel(200)
            .requests(u64::MAX)
            .time(PATIENCE);
        let stop = load.stopper();
        let running = tokio::spawn(load.run(
            |turn| {
                Request::chat("m", " hello")
                    .channel("c")
                    .set("stream", turn.number % 4 != 0)
                    .set("max_tokens", 40)
            },
            move |turn, answer| {
                assert_eq!(answer.status(), 200, "{}", answer.text());
                if turn.number % 4 != 0 {
                    let events = answer.events();
                    assert!(
                        events.last().is_some_and(|event| event.is_done()),
                        "a stream without its end"
                    );
                    let text = events
                        .iter()
                        .filter(|e| e.data.contains("\"content\":\" "))
                        .count();
                    counted.fetch_add(u64::from(text >= 39), Ordering::Relaxed);
                }
            },
        ));
        let goes = || gateway.mock.stats().model("goes").requests;
        wait_until("streams on both", PATIENCE, || goes() > 80).await;
        gateway.publish(documents(&["stays"])).await;
        // Each worker sees the new generation with its next request, and at the latest a quarter of a second later.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let (before, removed) = (goes(), Instant::now());
        let served = gateway.mock.stats().model("stays").requests;
        wait_until("a whole further round of streams", PATIENCE, || {
            removed.elapsed() > Duration::from_secs(4)
                && gateway.mock.stats().model("stays").requests > served + 200
        })
        .await;
        assert_eq!(goes(), before, "nothing new for what was removed");
        stop.stop();
        let report = running.await.unwrap();
        println!(
            "{} requests, {} streams with all their text",
            report.total(),
            whole.load(Ordering::Relaxed)
        );
        assert_eq!(
            (report.failed(), report.status(200)),
            (0, report.total()),
            "{report:?}"
        );
        let stats = gateway.mock.stats();
        let tally = stats.model("goes");
        assert_eq!(
            tally.completion_tokens,
            tally.requests * 40,
            "all that was begun there was finished"
        );
        gateway.stop().await;
    }

    #[tokio::test]
    async fn a_canary_of_a_thousandth_is_sticky() {
        const USERS: u64 = 10_000;
        let documents = |canary: u32| {
            Documents::new()
                .model_value(json!({ "name": "m", "routing": { "affinity": "header.x-user" }, "deployments": [
                    { "id": "stable", "provider": "mock", "upstream_model": "stable?tokens=1", "weight": 1_000 - canary },
                    { "id": "canary", "provider": "mock", "upstream_model": "canary?tokens=1", "weight": canary } ] }))
                .limited("c", json!([]))
        };
        let gateway = Gateway::with(documents(1)).workers(2).start().await;
        let mut on_canary: Vec<Vec<u64>> = Vec::new();
        for canary in [1, 1, 2] {
            if on_canary.len() == 2 {
                gateway.publish(documents(canary)).await;
            }
            let found = Arc::new(std::sync::Mutex::new(Vec::new()));
            let seen = Arc::clone(&found);
            let report = Load::new(gateway.address())
                .parallel(32)
                .requests(USERS)
                .run(
                    |turn| {
                        Request::chat("m", " hello")
                            .channel("c")
                            .header("x-user", &format!("user {}", turn.number))
                    },
                    move |turn, answer| {
                        if answer.model() == "canary" {
                            seen.lock().unwrap().push(turn.number);
                        }
                    },
                )
                .await;
            assert_eq!((report.status(200), report.failed()), (USERS, 0), "{report:?}");
            let mut users = std::mem::take(&mut *found.lock().unwrap());
            users.sort_unstable();
            on_canary.push(users);
        }
        let [first, again, more] = [&on_canary[0], &on_canary[1], &on_canary[2]];
        // Poisson with mean 10, and 20: beyond these bounds once in ten thousand.
        assert!((1..=24).contains(&first.len()), "{first:?}");
        assert!((5..=40).contains(&more.len()), "{more:?}");
        assert_eq!(first, again, "each user stays on its side");
        assert!(first.iter().all(|user| more.contains(user)), "{first:?} {more:?}");
        gateway.stop().await;
    }
}
