//! Channels' own routes, rules that name a deployment, and the way through all deployments.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use tollgate_tests::documents::Documents;
use tollgate_tests::gateway::Gateway;
use tollgate_tests::http::Request;

fn deployments(options: &[(u32, &str)]) -> Vec<Value> {
    let one = |(i, (weight, options)): (usize, &(u32, &str))| {
        json!({ "id": format!("d{i}"), "provider": "mock", "weight": weight, "version": format!("v{i}"),
            "upstream_model": format!("d{i}?tokens=2{options}") })
    };
    options.iter().enumerate().map(one).collect()
}

async fn served(gateway: &Gateway, channel: &str, model: &str, requests: usize) -> BTreeMap<String, usize> {
    let mut served = BTreeMap::new();
    for number in 0..requests {
        let answer = gateway
            .send(&Request::chat(model, " hello").channel(channel))
            .await;
        let all: Vec<u64> = (0..3)
            .map(|i| gateway.mock.stats().model(&format!("d{i}")).requests)
            .collect();
        assert_eq!(
            answer.status(),
            200,
            "request {number}, attempts {all:?}: {}",
            answer.text()
        );
        *served.entry(answer.model()).or_default() += 1;
    }
    served
}

#[tokio::test]
async fn a_channel_has_routes_of_its_own_and_of_its_template() {
    let channel = |code: &str, routes: Value| json!({ "code": code, "trusted": true, "extends": "t", "routes": routes });
    let documents = Documents::new()
        .model_value(json!({ "name": "m", "deployments": deployments(&[(1, ""), (1, ""), (0, "")]) }))
        .model_value(json!({ "name": "down", "deployments": [
            { "id": "x", "provider": "mock", "upstream_model": "x?status=500" } ], "fallback": ["m"] }))
        .model_value(json!({ "name": "other", "deployments": [
            { "id": "o", "provider": "mock", "upstream_model": "o?tokens=2" } ] }))
        .template(json!({ "name": "t", "routes": [
            { "model": "m", "version": "v1" }, { "model": "*", "fallback": ["other"] } ] }))
        .channel(json!({ "code": "plain", "trusted": true }))
        .channel(channel("inherits", json!([])))
        .channel(channel("pinned", json!([{ "model": "m", "deployment": "d2" }])))
        .channel(channel(
            "weighs",
            json!([{ "model": "m", "weights": { "d0": 1, "d2": 3 } }]),
        ));
    let gateway = Gateway::with(documents).start().await;
    let only = |name: &str, count: usize| BTreeMap::from([(name.to_owned(), count)]);

    let plain = served(&gateway, "plain", "m", 60).await;
    assert!(
        plain.len() == 2 && plain.contains_key("d0") && plain.contains_key("d1"),
        "{plain:?}"
    );
    assert_eq!(served(&gateway, "inherits", "m", 20).await, only("d1", 20));
    assert_eq!(served(&gateway, "pinned", "m", 20).await, only("d2", 20));
    // The client may still ask for a version.
    assert_eq!(served(&gateway, "inherits", "m@v0", 5).await, only("d0", 5));
    let weighed = served(&gateway, "weighs", "m", 200).await;
    assert_eq!(weighed.len(), 2, "{weighed:?}");
    // Binomial, 150 of 200 expected, standard deviation 6.1.
    assert!(weighed["d2"].abs_diff(150) < 31, "{weighed:?}");

    // The models that stand in are the channel's too.
    let stands_in = served(&gateway, "plain", "down", 3).await;
    assert!(
        stands_in.keys().all(|name| name.starts_with('d')),
        "{stands_in:?}"
    );
    assert_eq!(served(&gateway, "inherits", "down", 3).await, only("o", 3));

    let request = |code: &str| {
        json!({ "headers": { "channelcode": code },
            "body": { "model": "m", "messages": [{ "role": "user", "content": "x" }] } })
    };
    for (code, shares, pattern) in [
        ("plain", [0.5, 0.5, 0.0], Value::Null),
        ("inherits", [0.0, 1.0, 0.0], json!("m")),
        ("weighs", [0.25, 0.0, 0.75], json!("m")),
        ("pinned", [0.0, 0.0, 1.0], json!("m")),
    ] {
        let answer = gateway
            .daemon
            .api(Request::post("/api/v1/explain", &request(code)))
            .await
            .json();
        let said = &answer["explanation"];
        let found: Vec<_> = (0..3)
            .map(|i| said["deployments"][i]["share"].as_f64().unwrap())
            .collect();
        assert_eq!(
            (&found[..], &said["route"]["model"]),
            (&shares[..], &pattern),
            "{code}: {said}"
        );
    }
    gateway.stop().await;
}

#[tokio::test]
async fn long_prompts_go_to_the_deployment_that_a_rule_names() {
    let documents = Documents::new()
        .model_value(json!({ "name": "m", "deployments": deployments(&[(1, ""), (0, "")]) }))
        .model_value(json!({ "name": "other", "deployments": [
            { "id": "o", "provider": "mock", "upstream_model": "o?tokens=2" } ] }))
        .limited("c", json!([]))
        .channel(json!({ "code": "narrow", "trusted": true, "models": { "allow": ["other"] } }))
        .rule(
            json!({ "name": "long", "when": { "field": "prompt_bytes", "op": "gt", "value": 10_000 },
            "then": { "set_deployment": "d1" } }),
        );
    let gateway = Gateway::with(documents).start().await;
    let long = " hello".repeat(2_000);
    for (model, text, name) in [("m", " hello", "d0"), ("m", &*long, "d1"), ("other", &long, "d1")] {
        let answer = gateway.send(&Request::chat(model, text).channel("c")).await;
        assert_eq!(
            (answer.status(), &*answer.model()),
            (200, name),
            "{}",
            answer.text()
        );
    }
    // The deployment's model counts, for the permission as for limits.
    let refused = gateway
        .send(&Request::chat("other", &long).channel("narrow"))
        .await;
    assert_eq!(
        (refused.status(), &refused.json()["error"]["code"]),
        (403, &json!("model_not_permitted"))
    );
    gateway.stop().await;
}

#[tokio::test]
async fn the_third_of_three_is_reached_by_a_second_failover() {
    let documents = |options: [&str; 3], weights: [u32; 3], routing: Value| {
        let all: Vec<(u32, &str)> = weights.into_iter().zip(options).collect();
        Documents::new()
            .model_value(json!({ "name": "m", "routing": routing, "deployments": deployments(&all) }))
            .limited("c", json!([]))
    };
    // Breakers stay out of it: each request has to find its way by itself.
    let breaker = json!({ "failures": 1_000 });
    let gateway = Gateway::with(documents(["", "", ""], [1; 3], json!({})))
        .workers(2)
        .start()
        .await;
    for good in 0..3 {
        let mut options = ["&status=500", "&reset=before", "&status=503"];
        let mut weights = [1_000_000; 3];
        options[good] = "";
        weights[good] = 1;
        for balance in ["weighted", "round_robin", "least_connections", "latency"] {
            let routing = json!({ "balance": balance, "breaker": breaker });
            gateway.publish(documents(options, weights, routing)).await;
            gateway.mock.stats().reset();
            println!("d{good} is in order, {balance}");
            let served = served(&gateway, "c", "m", 20).await;
            assert_eq!(served, BTreeMap::from([(format!("d{good}"), 20)]), "{balance}");
            let failed: u64 = (0..3)
                .filter(|i| *i != good)
                .map(|i| gateway.mock.stats().model(&format!("d{i}")).requests)
                .sum();
            assert!(
                failed > 20,
                "{balance}: second failovers among {failed} failed attempts"
            );
        }
    }
    gateway.stop().await;
}
