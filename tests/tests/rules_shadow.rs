//! Rules in shadow mode: they decide nothing, and what they would have decided is counted to the request.

use serde_json::{Value, json};
use tollgate_tests::documents::Documents;
use tollgate_tests::gateway::Gateway;
use tollgate_tests::http::Request;
use tollgate_tests::wait::{PATIENCE, wait_for};

fn documents() -> Documents {
    let case = |values: Value| json!({ "field": "header.x-case", "op": "in", "value": values });
    Documents::new()
        .model("m", "mock?tokens=5")
        .model("other", "mock?tokens=5")
        .limited("c", json!([]))
        .limited("d", json!([]))
        .rule(json!({ "name": "would refuse", "priority": 30, "when": case(json!(["one", "both", "late"])),
            "then": [{ "shadow": { "deny": { "status": 400, "code": "would" } } }, { "shadow": { "tag": "t" } }] }))
        .rule(json!({ "name": "would reroute", "priority": 20, "when": case(json!(["both"])),
            "then": { "shadow": { "set_model": "other" } } }))
        .rule(json!({ "name": "refuses", "priority": 10, "when": case(json!(["refused", "late"])),
            "then": { "deny": { "status": 403, "code": "no" } } }))
        .rule(json!({ "name": "would cap", "priority": 0, "when": case(json!(["late"])),
            "then": { "shadow": { "cap_max_tokens": 1 } } }))
}

/// What a rule would have done, once so many requests of the channels are known.
async fn results(gateway: &Gateway, rule: &str, requests: u64) -> Value {
    let all = wait_for("all requests in the ledger", PATIENCE, || async {
        let usage = gateway.daemon.get("/usage?step=0").await;
        let points = usage["points"].as_array().expect("a list");
        let ours = points
            .iter()
            .filter(|p| p["channel"] == "c" || p["channel"] == "d");
        let sum: u64 = ours.filter_map(|p| p["requests"].as_u64()).sum();
        (sum == requests).then(|| usage["total"]["requests"].clone())
    })
    .await;
    let found = gateway.daemon.get(&format!("/rules/{rule}/shadow")).await;
    // With those that the harness asks first, of no channel.
    assert_eq!(found["requests"], all);
    found
}

/// Hits, and of them those that would have been refused, rerouted and labelled.
fn told(found: &Value) -> [u64; 4] {
    let would = &found["would"];
    [&found["hits"], &would["refuse"], &would["reroute"], &would["tag"]]
        .map(|n| n.as_u64().expect("a number"))
}

#[tokio::test]
async fn hits_are_counted_to_the_request_and_decide_nothing() {
    let mut gateway = Gateway::with(documents()).workers(2).start().await;
    let chat = |case: &str, channel: &str| {
        Request::chat("m", " hello")
            .channel(channel)
            .header("X-Case", case)
    };
    // Case, channel, how many, and the status that a rule in force makes of them.
    let traffic = [
        ("none", "c", 7, 200),
        ("one", "c", 5, 200),
        ("both", "c", 3, 200),
        ("both", "d", 2, 200),
        ("refused", "c", 4, 403),
        ("late", "d", 6, 403),
    ];
    let all: u64 = traffic.iter().map(|(.., n, _)| n).sum();
    for life in 1..=2u64 {
        for (case, channel, n, status) in traffic {
            for at in 0..n {
                let request = chat(case, channel).set("stream", at % 2 == 1);
                assert_eq!(gateway.send(&request).await.status(), status, "{case}");
            }
        }
        if life == 1 {
            // What is on the rings when the daemon dies is counted once, by the next one.
            gateway.daemon.kill();
            gateway.daemon.restart().await;
        }
        let found = results(&gateway, "would%20refuse", all * life).await;
        assert_eq!(told(&found), [16, 16, 0, 16].map(|n| n * life));
        assert_eq!(
            found["channels"],
            json!([{ "channel": "c", "hits": 8 * life }, { "channel": "d", "hits": 8 * life }])
        );
        let values = found["values"].as_array().expect("a list");
        let sum: u64 = values.iter().filter_map(Value::as_u64).sum();
        assert_eq!((sum, found["others"].as_u64()), (16 * life, Some(0)));
        assert_eq!(
            told(&results(&gateway, "would%20reroute", all * life).await),
            [5, 0, 5, 0].map(|n| n * life)
        );
        // A rule in force has decided these, and is no shadow; one behind it was not asked.
        for rule in ["refuses", "would%20cap"] {
            assert_eq!(told(&results(&gateway, rule, all * life).await), [0; 4], "{rule}");
        }
    }
    // Nothing went elsewhere, and no hit is a line of the log or a request of its own.
    let log = gateway.daemon.get("/requests?attempts=true&limit=1000").await;
    let lines = log["requests"].as_array().expect("a list");
    let ours = lines.iter().filter(|line| line["channel"] != "");
    assert_eq!(ours.count() as u64, all * 2);
    assert!(lines.iter().all(|line| line["model"] != "other"));
    let flagged = lines
        .iter()
        .filter(|l| l["flags"].as_str().is_some_and(|f| f.contains("shadow")));
    assert_eq!(flagged.count(), 32);

    let missing = gateway
        .daemon
        .api(Request::get("/api/v1/rules/nobody/shadow"))
        .await;
    assert_eq!(missing.status(), 404);
    let absurd = gateway
        .daemon
        .api(Request::get("/api/v1/rules/refuses/shadow?from=0"))
        .await;
    assert_eq!(absurd.status(), 400);
    gateway.stop().await;
}

#[tokio::test]
async fn a_rule_is_enforced_after_its_shadow_and_keeps_its_results() {
    let gateway = Gateway::with(documents()).start().await;
    let request = Request::chat("m", " hello").channel("c").header("X-Case", "one");
    for _ in 0..3 {
        assert_eq!(gateway.send(&request).await.status(), 200);
    }
    assert_eq!(told(&results(&gateway, "would%20refuse", 3).await)[0], 3);
    let enforced = Documents::new()
        .model("m", "mock?tokens=5")
        .limited("c", json!([]))
        .rule(
            json!({ "name": "would refuse", "when": { "field": "header.x-case", "op": "eq", "value": "one" },
            "then": { "deny": { "status": 400, "code": "now" } } }),
        );
    gateway.publish(enforced).await;
    for _ in 0..2 {
        assert_eq!(gateway.send(&request).await.status(), 400);
    }
    assert_eq!(told(&results(&gateway, "would%20refuse", 5).await)[0], 3);
    gateway.stop().await;
}
