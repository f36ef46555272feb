//! Which deployment gets a request: shares, turns, loads, callers, versions.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tollgate_tests::documents::Documents;
use tollgate_tests::gateway::Gateway;
use tollgate_tests::http::Request;
use tollgate_tests::load::Load;

const REQUESTS: u64 = 10_000;

/// A model whose deployments are `d0`, `d1` … at the mock, each with a weight and options.
fn model(routing: &Value, deployments: &[(u32, &str)]) -> Documents {
    let deployments: Vec<Value> = deployments
        .iter()
        .enumerate()
        .map(|(i, (weight, options))| {
            json!({ "id": format!("d{i}"), "provider": "mock", "weight": weight, "version": format!("v{i}"),
                "upstream_model": format!("d{i}?tokens=1{options}") })
        })
        .collect();
    Documents::new()
        .model_value(json!({ "name": "m", "routing": routing, "deployments": deployments }))
        .limited("c", json!([]))
}

fn served(gateway: &Gateway, deployments: usize) -> Vec<u64> {
    (0..deployments)
        .map(|i| gateway.mock.stats().model(&format!("d{i}")).requests)
        .collect()
}

async fn spread(routing: Value, deployments: &[(u32, &str)]) -> Vec<u64> {
    let gateway = Gateway::with(model(&routing, deployments))
        .workers(4)
        .start()
        .await;
    let report = Load::new(gateway.address())
        .parallel(32)
        .requests(REQUESTS)
        .run(|_| Request::chat("m", " hello").channel("c"), |_, _| {})
        .await;
    assert_eq!((report.status(200), report.failed()), (REQUESTS, 0), "{report:?}");
    let served = served(&gateway, deployments.len());
    assert_eq!(served.iter().sum::<u64>(), REQUESTS);
    gateway.stop().await;
    served
}

/// Pearson's statistic against the weights.
fn chi_square(counts: &[u64], weights: &[u64]) -> f64 {
    let (n, total) = (
        counts.iter().sum::<u64>() as f64,
        weights.iter().sum::<u64>() as f64,
    );
    let term = |(count, weight): (&u64, &u64)| {
        let expected = n * *weight as f64 / total;
        (*count as f64 - expected).powi(2) / expected
    };
    counts.iter().zip(weights).map(term).sum()
}

#[tokio::test]
async fn random_choice_follows_the_weights() {
    let served = spread(json!({}), &[(10, ""), (30, ""), (60, "")]).await;
    // Two degrees of freedom: 18.4 is exceeded once in ten thousand runs.
    let statistic = chi_square(&served, &[10, 30, 60]);
    assert!(statistic < 18.4, "{served:?}: {statistic}");
}

#[tokio::test]
async fn round_robin_is_more_even_than_chance() {
    let served = spread(
        json!({ "balance": "round_robin" }),
        &[(10, ""), (30, ""), (60, "")],
    )
    .await;
    // Each of four workers is exact but for its last turn.
    for (count, share) in served.iter().zip([1_000, 3_000, 6_000]) {
        assert!(count.abs_diff(share) <= 4, "{served:?}");
    }
}

#[tokio::test]
async fn the_least_busy_gets_more_when_another_is_slow() {
    let slow = ("&latency=20ms", "");
    let served = spread(
        json!({ "balance": "least_connections" }),
        &[(1, slow.0), (1, slow.1), (1, slow.1)],
    )
    .await;
    assert!(
        served[0] * 4 < served[1] && served[0] * 4 < served[2],
        "{served:?}"
    );
}

#[tokio::test]
async fn the_faster_gets_more() {
    let served = spread(json!({ "balance": "latency" }), &[(1, "&latency=20ms"), (1, "")]).await;
    // The slow one is only picked when both picks fall on it: a quarter.
    assert!(served[0] * 2 < served[1], "{served:?}");
}

#[tokio::test]
async fn a_caller_stays_where_it_is_and_a_canary_moves_on_without_an_error() {
    let weights = |canary: u32| {
        model(
            &json!({ "affinity": "header.x-user" }),
            &[(1_000 - canary, ""), (canary, "")],
        )
    };
    let gateway = Gateway::with(weights(1)).workers(4).start().await;
    let seen: Arc<Mutex<BTreeMap<u64, Vec<String>>>> = Arc::default();
    let kept = Arc::clone(&seen);
    let load = Load::new(gateway.address())
        .parallel(16)
        .requests(u64::MAX)
        .time(Duration::from_secs(60));
    let stop = load.stopper();
    let running = tokio::spawn(load.run(
        |turn| {
            Request::chat("m", " hello")
                .channel("c")
                .header("x-user", &format!("user {}", turn.number % 200))
        },
        move |turn, answer| {
            let model = answer.json()["model"].as_str().unwrap_or_default().to_owned();
            let mut kept = kept.lock().unwrap();
            let list = kept.entry(turn.number % 200).or_default();
            if list.last() != Some(&model) {
                list.push(model);
            }
        },
    ));
    let mut shares = Vec::new();
    for canary in [50, 200, 500, 900, 999, 1_000] {
        gateway.publish(weights(canary)).await;
        gateway.mock.stats().reset();
        // Every worker has taken it up once each has served some requests.
        tollgate_tests::wait::wait_until("traffic", tollgate_tests::wait::PATIENCE, || {
            gateway.mock.stats().total().requests > 2_000
        })
        .await;
        let served = served(&gateway, 2);
        shares.push(served[1] * 1_000 / (served[0] + served[1]));
    }
    stop.stop();
    let report = running.await.unwrap();
    assert_eq!(report.failed(), 0, "{report:?}");
    assert_eq!(report.status(200), report.total());
    assert!(shares.is_sorted(), "{shares:?}");
    assert!(shares[5] > 990, "{shares:?}");
    let seen = std::mem::take(&mut *seen.lock().unwrap());
    assert_eq!(seen.len(), 200);
    for (user, models) in &seen {
        // Answers of the moment of a change may overtake one another; nobody goes back and forth beyond that.
        assert!(models.len() <= 4, "user {user}: {models:?}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn each_kind_of_caller_keeps_its_deployment() {
    for affinity in ["cookie.sid", "body.user", "prompt", "channel", "client.ip"] {
        let gateway = Gateway::with(model(
            &json!({ "affinity": affinity }),
            &[(1, ""), (1, ""), (1, ""), (1, "")],
        ))
        .start()
        .await;
        let mut homes = BTreeMap::new();
        for round in 0..40 {
            let caller = round % 10;
            let request = Request::chat("m", &format!(" caller {caller}"))
                .channel("c")
                .header("Cookie", &format!("a=b; sid=s{caller}"))
                .set("user", format!("u{caller}"));
            let answer = gateway.send(&request).await.json();
            let home = answer["model"].clone();
            assert_eq!(
                *homes.entry(caller).or_insert_with(|| home.clone()),
                home,
                "{affinity}"
            );
        }
        let mut distinct: Vec<String> = homes.values().map(Value::to_string).collect();
        distinct.sort();
        distinct.dedup();
        let one = ["channel", "client.ip"].contains(&affinity);
        assert_eq!(distinct.len() == 1, one, "{affinity}: {homes:?}");
        gateway.stop().await;
    }
}

#[tokio::test]
async fn a_version_can_be_asked_for() {
    let gateway = Gateway::with(model(
        &json!({ "latest": "v1" }),
        &[(100, ""), (1, ""), (100, "")],
    ))
    .start()
    .await;
    for (name, number) in [("m@v0", 0), ("m@v1", 1), ("m@v2", 2), ("m@latest", 1)] {
        gateway.mock.stats().reset();
        for _ in 0..10 {
            let answer = gateway.send(&Request::chat(name, " hello").channel("c")).await;
            assert_eq!(answer.status(), 200, "{}", answer.text());
        }
        assert_eq!(served(&gateway, 3)[number], 10, "{name}");
    }
    for (name, code, hint) in [
        ("m@v9", "version_not_found", "v9"),
        ("mm", "model_not_found", "did you mean \\\"m\\\"?"),
    ] {
        let answer = gateway.send(&Request::chat(name, " hello").channel("c")).await;
        assert_eq!(
            (answer.status(), answer.json()["error"]["code"].as_str()),
            (404, Some(code))
        );
        assert!(answer.text().contains(hint), "{}", answer.text());
    }
    gateway.stop().await;
}

#[tokio::test]
async fn long_prompts_go_to_the_version_that_a_rule_names() {
    let documents = model(&json!({}), &[(100, ""), (1, "")]).rule(json!({
        "name": "long prompts", "when": { "field": "prompt_bytes", "op": "gt", "value": 10_000 },
        "then": { "set_version": "v1" },
    }));
    let gateway = Gateway::with(documents).start().await;
    for (words, number) in [(1, 0), (4_000, 1)] {
        let text = " hello".repeat(words);
        for _ in 0..10 {
            let request = Request::chat("m@v0", &text).channel("c");
            assert_eq!(gateway.send(&request).await.status(), 200);
        }
        assert_eq!(served(&gateway, 2)[number], 10);
    }
    gateway.stop().await;
}
