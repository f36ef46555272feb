//! Several credentials of one provider: they take turns, one that is refused or used up rests, and no connection carries
//! two of them.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::time::Duration;
use tollgate_tests::documents::Documents;
use tollgate_tests::gateway::Gateway;
use tollgate_tests::http::Request;
use tollgate_tests::raw::{RawServer, Say};
use tollgate_tests::wait::{PATIENCE, wait_until};

fn documents(server: &RawServer, keys: &Value) -> Documents {
    Documents::new()
        .provider(json!({
            "id": "p", "protocol": "openai", "base_url": server.url(),
            "credentials": { "type": "bearer", "keys": keys },
        }))
        .model_value(json!({ "name": "m", "deployments": [{ "id": "d", "provider": "p" }] }))
        .limited(
            "c",
            json!([{ "metric": "requests", "max": 100_000, "window": "10m" },
            { "metric": "output_tokens", "max": 1_000_000, "window": "10m" }]),
        )
}

fn chat() -> Request {
    Request::chat("m", " hello").channel("c")
}

/// How often each key arrived.
fn keys(server: &RawServer) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    for arrived in server.arrived() {
        let key = arrived
            .header("authorization")
            .unwrap()
            .trim_start_matches("Bearer ")
            .to_owned();
        *counts.entry(key).or_default() += 1;
    }
    counts
}

#[tokio::test]
async fn keys_take_turns_by_weight_and_share_no_connection() {
    let server = RawServer::start(|_| Say::completion()).await;
    let all = json!([{ "id": "one", "key": "sk-1" }, { "id": "two", "key": "sk-2", "weight": 3 }]);
    let gateway = Gateway::with(documents(&server, &all)).start().await;
    let stored = std::fs::read_to_string(gateway.site.config().join("tollgate.providers.json")).unwrap();
    assert!(
        !stored.contains("sk-1") && stored.contains("encrypted"),
        "sealed in place"
    );
    for _ in 0..40 {
        let answer = gateway.send(&chat()).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }
    assert_eq!(
        keys(&server),
        BTreeMap::from([("sk-1".into(), 10), ("sk-2".into(), 30)])
    );
    // One connection each, and each carries one key.
    let mut carried: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for arrived in server.arrived() {
        let key = arrived.header("authorization").unwrap().to_owned();
        carried.entry(arrived.connection).or_default().push(key);
    }
    assert_eq!(carried.len(), 2, "{carried:?}");
    for keys in carried.values() {
        assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
    }
    // A key that is exchanged gets a connection of its own as well, and the former one's is closed.
    let other = json!([{ "id": "one", "key": "sk-3" }]);
    gateway.publish(documents(&server, &other)).await;
    assert_eq!(gateway.send(&chat()).await.status(), 200);
    let last = server.arrived().pop().unwrap();
    assert_eq!(
        (last.header("authorization"), last.connection),
        (Some("Bearer sk-3"), 2)
    );
    let region = gateway.region();
    let row = region.deployment(tollgate_policy::hash_name(b"d")).unwrap();
    wait_until("one idle connection", PATIENCE, || {
        region.deployment_view(row).unwrap().idle == 1
    })
    .await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_key_that_fails_rests_and_the_others_go_on() {
    for (status, rest_s) in [
        ("401 Unauthorized", 60),
        ("403 Forbidden", 10),
        ("429 Too Many Requests", 30),
    ] {
        let server = RawServer::start(move |arrived| {
            if arrived.head.contains("sk-bad") {
                Say::answer(
                    status,
                    "Retry-After: 30\r\nContent-Type: application/json\r\n",
                    "{\"error\":{}}",
                )
            } else {
                Say::completion()
            }
        })
        .await;
        let all = json!([{ "id": "bad", "key": "sk-bad" }, { "id": "good", "key": "sk-good" }]);
        let gateway = Gateway::with(documents(&server, &all)).workers(2).start().await;
        for n in 0..40 {
            let answer = gateway.send(&chat()).await;
            assert_eq!(answer.status(), 200, "{status}, request {n}: {}", answer.text());
        }
        let counts = keys(&server);
        assert_eq!(
            (counts["sk-bad"], counts["sk-good"]),
            (1, 40),
            "{status}: all workers know"
        );
        gateway.wait_idle().await;
        assert_eq!(gateway.used("c", "requests/10m").await, 40, "{status}");
        let state = gateway.daemon.get("/deployments/d").await;
        assert_eq!(state["state"], "ready", "{state}");
        let shown = state["credentials"].as_array().unwrap();
        assert_eq!(
            (&shown[0]["id"], &shown[1]["resting_for_ms"]),
            (&json!("bad"), &Value::Null)
        );
        let resting = shown[0]["resting_for_ms"].as_u64().unwrap();
        assert!(resting > 0 && resting <= rest_s * 1_000, "{shown:?}");
        assert!(!state.to_string().contains("sk-"), "{state}");
        let log = gateway.nginx.error_log();
        assert_eq!(log.matches("the credential \"bad\"").count(), 1, "{log}");
        // Its rest ends.
        gateway.advance(Duration::from_secs(rest_s + 1));
        for _ in 0..4 {
            assert_eq!(gateway.send(&chat()).await.status(), 200);
        }
        assert_eq!(keys(&server)["sk-bad"], 2, "{status}: tried again, once");
        gateway.stop().await;
    }
}

#[tokio::test]
async fn when_all_keys_rest_the_deployment_does_and_says_what_the_provider_said() {
    let server =
        RawServer::start(|_| Say::answer("429 Too Many Requests", "Retry-After: 20\r\n", "{}")).await;
    let spare = RawServer::start(|_| Say::completion()).await;
    let all = json!([{ "id": "a", "key": "sk-a" }, { "id": "b", "key": "sk-b" }]);
    let documents = |deployments: Value| {
        documents(&server, &all)
            .openai("spare", &spare.url())
            .model_value(json!({ "name": "n", "deployments": deployments }))
    };
    let first = json!({ "id": "e", "provider": "p", "weight": 1_000_000 });
    let second = json!({ "id": "f", "provider": "spare", "weight": 1 });
    let gateway = Gateway::with(documents(json!([first, second]))).start().await;
    for _ in 0..20 {
        let answer = gateway.send(&Request::chat("n", " hello").channel("c")).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
    }
    assert_eq!(server.arrived().len(), 2, "each key once");
    assert_eq!(gateway.daemon.get("/deployments/e").await["state"], "cooling");
    // Alone it is asked all the same: a refusal of ours would be no better.
    let answer = gateway.send(&chat()).await;
    assert_eq!((answer.status(), answer.header("retry-after")), (429, Some("20")));
    gateway.stop().await;
}
