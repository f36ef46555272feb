//! Deployments that fail: who notices, who sees it, and how they come back.

use serde_json::{Value, json};
use std::time::{Duration, Instant};
use tollgate_shm::{BreakerState, Region};
use tollgate_tests::documents::Documents;
use tollgate_tests::gateway::Gateway;
use tollgate_tests::http::Request;
use tollgate_tests::load::Load;
use tollgate_tests::mock::MockLlm;
use tollgate_tests::wait::{PATIENCE, wait_for, wait_until};

fn deployments(options: &[&str]) -> Vec<Value> {
    options
        .iter()
        .enumerate()
        .map(|(i, options)| {
            json!({ "id": format!("d{i}"), "provider": format!("p{i}"), "upstream_model": format!("d{i}?tokens=4{options}") })
        })
        .collect()
}

fn documents(mocks: &[MockLlm], options: &[&str]) -> Documents {
    let mut documents = Documents::new()
        .model_value(json!({
            "name": "m", "deployments": deployments(options),
            "routing": { "breaker": { "failures": 5, "open": "300ms", "max_open": "1s" }, "slow_start": "0s" },
            "timeouts": { "connect": "1s", "first_token": "1s", "idle": "5s", "total": "60s" },
        }))
        .limited(
            "c",
            json!([{ "metric": "requests", "max": 1_000_000, "window": "10m" },
                { "metric": "total_tokens", "max": 100_000_000, "window": "10m" },
                { "metric": "connections", "max": 1_000 }]),
        );
    for (i, mock) in mocks.iter().enumerate() {
        documents = documents.openai(&format!("p{i}"), &mock.url());
    }
    documents
}

fn breaker(region: &Region, id: &str) -> BreakerState {
    let row = region
        .deployment(tollgate_policy::hash_name(id.as_bytes()))
        .unwrap();
    region.deployment_view(row).unwrap().breaker
}

fn failed(region: &Region, id: &str) -> u64 {
    let row = region
        .deployment(tollgate_policy::hash_name(id.as_bytes()))
        .unwrap();
    region.deployment_view(row).unwrap().failed.iter().sum()
}

async fn mocks(count: usize) -> Vec<MockLlm> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(MockLlm::start().await);
    }
    all
}

/// 200 clients, plain and streaming, while one deployment after the other has the same trouble.
async fn in_turn(trouble: &str) {
    let mut mocks = mocks(3).await;
    let good = ["", "", ""];
    let gateway = Gateway::with(documents(&mocks, &good)).workers(4).start().await;
    let region = gateway.region();
    let load = Load::new(gateway.address())
        .parallel(200)
        .requests(u64::MAX)
        .time(PATIENCE);
    let stop = load.stopper();
    let running = tokio::spawn(load.run(
        |turn| {
            Request::chat("m", " hello")
                .channel("c")
                .set("stream", turn.number % 2 == 0)
        },
        |_, answer| assert_eq!(answer.status(), 200, "{}", answer.text()),
    ));
    for bad in 0..3 {
        let failures = |region: &Region| failed(region, &format!("d{bad}"));
        let before = failures(&region);
        if trouble == "kill" {
            mocks[bad].stop();
        } else {
            let mut options = good;
            options[bad] = trouble;
            gateway.publish(documents(&mocks, &options)).await;
        }
        let id = format!("d{bad}");
        wait_until("a failure", PATIENCE, || failures(&region) > before).await;
        let began = Instant::now();
        wait_until("the breaker to open", PATIENCE, || {
            breaker(&region, &id) != BreakerState::Closed
        })
        .await;
        let (took, count) = (began.elapsed(), failures(&region) - before);
        println!("{trouble}: breaker of {id} open {took:?} after the first failure, {count} by then");
        assert!(
            took < Duration::from_secs(1) || count <= 10,
            "over all four workers"
        );
        if trouble == "kill" {
            let port = mocks[bad].address().port();
            mocks[bad] = MockLlm::start_on(port).await;
        } else {
            gateway.publish(documents(&mocks, &good)).await;
        }
        wait_until("the breaker to close", PATIENCE, || {
            breaker(&region, &id) == BreakerState::Closed
        })
        .await;
    }
    stop.stop();
    let report = running.await.unwrap();
    println!("{trouble}: {} requests, all answered", report.total());
    assert_eq!(report.failed(), 0, "{report:?}");
    assert_eq!(report.status(200), report.total());
    gateway.wait_idle().await;
    assert_eq!(gateway.used("c", "requests/10m").await, report.total());
    gateway.stop().await;
}

#[tokio::test]
async fn a_deployment_that_answers_with_500_is_left_alone() {
    in_turn("&status=500").await;
}

#[tokio::test]
async fn a_deployment_that_resets_connections_is_left_alone() {
    in_turn("&reset=before").await;
}

#[tokio::test]
async fn a_deployment_that_hangs_is_left_alone() {
    in_turn("&hang=before").await;
}

#[tokio::test]
async fn a_deployment_that_is_killed_is_left_alone() {
    in_turn("kill").await;
}

#[tokio::test]
async fn a_deployment_that_becomes_slow_is_left_alone_if_there_are_others() {
    let mocks = mocks(2).await;
    let with = |first: &str| {
        let mut documents = Documents::new()
            .model_value(json!({
                "name": "m", "deployments": deployments(&[first, ""]),
                "routing": { "breaker": { "failures": 5, "open": "60s", "max_open": "60s" }, "slow_start": "0s" },
            }))
            .model_value(json!({ "name": "alone", "deployments": [
                { "id": "a", "provider": "p0", "upstream_model": format!("a?tokens=4{first}") }] }))
            .limited("c", json!([{ "metric": "requests", "max": 1_000_000, "window": "10m" }]));
        for (i, mock) in mocks.iter().enumerate() {
            documents = documents.openai(&format!("p{i}"), &mock.url());
        }
        documents
    };
    let gateway = Gateway::with(with("")).start().await;
    let load = |model: &'static str, requests| {
        Load::new(gateway.address()).parallel(8).requests(requests).run(
            move |_| Request::chat(model, " hello").channel("c"),
            |_, answer| assert_eq!(answer.status(), 200, "{}", answer.text()),
        )
    };
    load("m", 40).await;
    load("alone", 10).await;
    gateway.publish(with("&latency=1300ms")).await;
    load("m", 60).await;
    let state = gateway.daemon.get("/deployments/d0").await;
    assert_eq!(state["state"], "broken", "{state}");
    assert!(state["failed"]["slow"].as_u64().unwrap() >= 5, "{state}");
    let before = mocks[0].stats().model("d0").requests;
    load("m", 20).await;
    assert_eq!(mocks[0].stats().model("d0").requests, before);
    load("alone", 8).await;
    let alone = gateway.daemon.get("/deployments/a").await;
    assert_eq!(
        (&alone["state"], &alone["failed"]["slow"]),
        (&json!("ready"), &json!(0))
    );
    gateway.stop().await;
}

#[tokio::test]
async fn a_full_deployment_is_given_the_time_it_asks_for() {
    let mocks = mocks(2).await;
    let gateway = Gateway::with(documents(&mocks, &["&status=429&retry_after=60", ""]))
        .start()
        .await;
    for _ in 0..50 {
        let answer = gateway.send(&Request::chat("m", " hello").channel("c")).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }
    // Asked once, then left alone; its breaker has nothing to do with it.
    assert_eq!(mocks[0].stats().total().requests, 1);
    assert_eq!(breaker(&gateway.region(), "d0"), BreakerState::Closed);
    gateway.advance(Duration::from_secs(61));
    for _ in 0..30 {
        gateway.send(&Request::chat("m", " hello").channel("c")).await;
    }
    assert_eq!(mocks[0].stats().total().requests, 2);
    gateway.stop().await;
}

#[tokio::test]
async fn when_all_look_dead_all_are_tried() {
    let mocks = mocks(2).await;
    let gateway = Gateway::with(documents(&mocks, &["&status=500", "&status=500"]))
        .start()
        .await;
    let mut last = 0;
    for _ in 0..20 {
        last = gateway
            .send(&Request::chat("m", " hello").channel("c"))
            .await
            .status();
    }
    assert_eq!(last, 500, "the upstream's own answer, not a refusal");
    gateway.publish(documents(&mocks, &["", ""])).await;
    let answer = gateway.send(&Request::chat("m", " hello").channel("c")).await;
    assert_eq!(
        answer.status(),
        200,
        "no waiting for a breaker: {}",
        answer.text()
    );
    gateway.stop().await;
}

#[tokio::test]
async fn another_model_stands_in_and_the_bill_is_paid_once() {
    let mocks = mocks(2).await;
    let documents = |first: &str| {
        let models = [
            json!({ "name": "m", "fallback": ["unknown to the channel", "spare"],
                "limits": [{ "metric": "total_tokens", "max": 1_000_000, "window": "10m", "name": "of m" }],
                "deployments": [{ "id": "d0", "provider": "p0", "upstream_model": first }] }),
            json!({ "name": "unknown to the channel", "deployments": [{ "id": "dx", "provider": "p0" }] }),
            json!({ "name": "spare",
                "limits": [{ "metric": "output_tokens", "max": 1_000, "window": "10m", "name": "of spare" }],
                "deployments": [{ "id": "d1", "provider": "p1", "upstream_model": "spare-name?tokens=7" }] }),
        ];
        let mut documents = Documents::new()
            .openai("p0", &mocks[0].url())
            .openai("p1", &mocks[1].url())
            .channel(
                json!({ "code": "c", "trusted": true, "models": { "allow": ["m", "spare"] },
                "limits": [{ "metric": "requests", "max": 100, "window": "10m" },
                    { "metric": "output_tokens", "max": 10_000, "window": "10m" }] }),
            );
        for model in models {
            documents = documents.model_value(model);
        }
        documents
    };
    let gateway = Gateway::with(documents("m-name?status=500")).start().await;
    for (n, stream) in [(1, false), (2, true)] {
        let request = Request::chat("m", " hello").channel("c").set("stream", stream);
        let answer = gateway.send(&request).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        let record = mocks[1].stats().last().unwrap();
        let body = record.json().unwrap();
        assert_eq!(body["model"], "spare-name?tokens=7");
        assert!(body["max_tokens"].as_u64().unwrap() <= 1_000, "{body}");
        gateway.wait_idle().await;
        assert_eq!(gateway.used("c", "requests/10m").await, n);
        assert_eq!(gateway.used("c", "output_tokens/10m").await, 7 * n);
    }
    assert_eq!(
        mocks[0].stats().total().requests,
        2,
        "the forbidden model is not tried"
    );
    gateway.stop().await;
}

#[tokio::test]
async fn traffic_goes_where_a_providers_quota_has_room() {
    let documents = |second: bool| {
        let quota = json!([{ "metric": "requests", "max": 5, "window": "10m" },
            { "metric": "output_tokens", "max": 1_000, "window": "10m" }, { "metric": "connections", "max": 2 }]);
        Documents::new()
            .model_value(json!({ "name": "m", "default_max_tokens": 100, "deployments": [
                { "id": "d0", "provider": "mock", "upstream_model": "d0?tokens=4", "weight": 1_000, "limits": quota },
                { "id": "d1", "provider": "mock", "upstream_model": "d1?tokens=4", "weight": 1, "enabled": second },
            ] }))
            .limited("c", json!([{ "metric": "requests", "max": 1_000, "window": "10m" }]))
    };
    let gateway = Gateway::with(documents(true)).workers(2).start().await;
    let report = Load::new(gateway.address())
        .parallel(8)
        .requests(40)
        .run(|_| Request::chat("m", " hello").channel("c"), |_, _| {})
        .await;
    assert_eq!(report.status(200), 40, "{report:?}");
    let stats = gateway.mock.stats();
    let (first, second) = (stats.model("d0"), stats.model("d1"));
    assert_eq!((first.requests, second.requests), (5, 35));
    assert!(first.max_in_flight <= 2, "{first:?}");
    gateway.wait_idle().await;
    gateway.publish(documents(false)).await;
    let answer = gateway.send(&Request::chat("m", " hello").channel("c")).await;
    let error = &answer.json()["error"];
    assert_eq!((answer.status(), &error["code"]), (429, &json!("quota_exceeded")));
    assert!(answer.header("retry-after").is_some());
    // Refused requests are given back to the channel.
    assert_eq!(gateway.used("c", "requests/10m").await, 40);
    gateway.advance(Duration::from_secs(700));
    let answer = gateway.send(&Request::chat("m", " hello").channel("c")).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    gateway.stop().await;
}

#[tokio::test]
async fn an_only_deployment_is_asked_whatever_its_breaker_says_and_closes_it() {
    let mocks = mocks(1).await;
    let gateway = Gateway::with(documents(&mocks, &["&status=500"]))
        .workers(2)
        .start()
        .await;
    let region = gateway.region();
    let ask = Request::chat("m", " hello").channel("c");
    wait_for("the breaker to open", PATIENCE, || async {
        assert_eq!(gateway.send(&ask).await.status(), 500);
        (breaker(&region, "d0") != BreakerState::Closed).then_some(())
    })
    .await;
    // There is nobody else to ask.
    let asked = mocks[0].stats().total().requests;
    assert_eq!(gateway.send(&ask).await.status(), 500);
    assert_eq!(mocks[0].stats().total().requests, asked + 1);
    gateway.publish(documents(&mocks, &[""])).await;
    wait_for("the breaker to close", PATIENCE, || async {
        assert_eq!(gateway.send(&ask).await.status(), 200);
        (breaker(&region, "d0") == BreakerState::Closed).then_some(())
    })
    .await;
    gateway.stop().await;
}
