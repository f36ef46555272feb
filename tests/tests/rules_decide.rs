//! Rules as documents: what they look at, what they do, and what the client is told.

use serde_json::{Value, json};
use tollgate_tests::access;
use tollgate_tests::documents::Documents;
use tollgate_tests::gateway::Gateway;
use tollgate_tests::http::Request;
use tollgate_tests::wait::{PATIENCE, wait_for};

fn documents() -> Documents {
    Documents::new()
        .model("m", "mock?tokens=5")
        .model_value(json!({ "name": "real", "aliases": ["alias"],
            "deployments": [{ "provider": "mock", "upstream_model": "real-upstream" }] }))
        .limited("c", json!([]))
        .limited("moved", json!([]))
        .setting("trusted_proxies", json!(["127.0.0.1/32", "10.0.0.0/8"]))
}

fn chat() -> Request {
    Request::chat("m", " hello").channel("c")
}

/// A rule that refuses with its own name as the code.
fn deny(name: &str, when: Value) -> Value {
    json!({ "name": name, "when": when, "then": { "deny": { "status": 403, "code": name, "message": "no" } } })
}

fn field(field: &str, op: &str, value: Value) -> Value {
    json!({ "field": field, "op": op, "value": value })
}

fn conditions() -> Vec<(&'static str, Value, Vec<Request>)> {
    let get = |target: &str| Request {
        target: target.to_owned(),
        ..chat()
    };
    let forwarded = |value: &str| chat().header("X-Forwarded-For", value);
    vec![
        (
            "header",
            field("header.x-team", "eq", json!("red")),
            vec![chat().header("X-Team", "red")],
        ),
        (
            "header_glob",
            field("header.user-agent", "matches", json!("bad-*")),
            vec![chat().header("User-Agent", "bad-bot")],
        ),
        (
            "body_number",
            field("body.max_tokens", "gt", json!(4096)),
            vec![
                chat().set("max_tokens", 4097),
                chat().set("max_tokens", 1_000_000),
            ],
        ),
        (
            "body_text",
            field("body.messages.0.content", "contains", json!("forbidden")),
            vec![Request::chat("m", "a forbidden word").channel("c")],
        ),
        (
            "body_nested",
            field("body.metadata.tier", "in", json!(["gold", "silver"])),
            vec![chat().set("metadata", json!({ "tier": "gold" }))],
        ),
        (
            "body_exists",
            field("body.tools", "exists", json!(true)),
            vec![chat().set("tools", json!([]))],
        ),
        (
            "body_regex",
            field("body.user", "regex", json!("^u[0-9]{3}$")),
            vec![chat().set("user", "u123")],
        ),
        (
            "query",
            field("query.debug", "eq", json!("a b")),
            vec![
                get("/v1/chat/completions?x=1&debug=a%20b"),
                get("/v1/chat/completions?debug=a+b"),
            ],
        ),
        (
            "cookie",
            field("cookie.session", "eq", json!("old")),
            vec![chat().header("Cookie", "a=b; session=old")],
        ),
        (
            "path",
            field("path", "matches", json!("/v1/secret/*")),
            vec![get("/v1/x/../secret/chat/completions")],
        ),
        (
            "ip",
            field("client.ip", "cidr", json!(["203.0.113.0/24", "2001:db8::/32"])),
            vec![
                forwarded("203.0.113.9"),
                forwarded("198.51.100.1, 203.0.113.9, 10.1.1.1"),
                forwarded("2001:db8::1"),
                // A proxy that adds a line of its own, below one that the client made up.
                forwarded("198.51.100.1").header("X-Forwarded-For", "203.0.113.9"),
            ],
        ),
        (
            "model",
            field("model", "eq", json!("real")),
            vec![
                Request::chat("real", " hello").channel("c"),
                Request::chat("alias", " hello").channel("c"),
            ],
        ),
        (
            "all_of",
            json!({ "all": [field("header.x-a", "eq", json!("1")),
            { "not": field("header.x-b", "exists", json!(true)) },
            { "any": [field("method", "eq", json!("GET")), field("channel", "eq", json!("c"))] }] }),
            vec![chat().header("X-A", "1")],
        ),
    ]
}

#[tokio::test]
async fn conditions_see_every_part_of_a_request() {
    let all = conditions();
    let documents = all.iter().fold(documents(), |documents, (name, when, _)| {
        documents.rule(deny(name, when.clone()))
    });
    let gateway = Gateway::with(documents).start().await;
    for (name, _, requests) in &all {
        for request in requests {
            let answer = gateway.send(request).await;
            assert_eq!(answer.status(), 403, "{name}: {}", answer.text());
            assert_eq!(answer.json()["error"]["code"], *name);
            assert_eq!(answer.header("x-tollgate-rule"), Some(*name));
        }
    }
    // What is near them passes.
    for request in [
        chat(),
        chat().header("X-Team", "blue").set("max_tokens", 4096),
        chat().header("X-A", "1").header("X-B", "1"),
        chat().header("Cookie", "session=new"),
        chat()
            .set("user", "u1234")
            .set("metadata", json!({ "tier": "lead" })),
        // Made up by the client, in front of what a trusted proxy has seen.
        chat().header("X-Forwarded-For", "203.0.113.9, 198.51.100.1"),
        chat()
            .header("X-Forwarded-For", "203.0.113.9")
            .header("X-Forwarded-For", "198.51.100.1"),
    ] {
        let answer = gateway.send(&request).await;
        assert_eq!(answer.status(), 200, "{request:?}: {}", answer.text());
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_stranger_cannot_choose_its_address() {
    let documents = documents()
        .setting("trusted_proxies", json!(["10.0.0.0/8"]))
        .rule(deny("ip", field("client.ip", "cidr", json!("203.0.113.0/24"))));
    let gateway = Gateway::with(documents).start().await;
    let answer = gateway
        .send(&chat().header("X-Forwarded-For", "203.0.113.9"))
        .await;
    assert_eq!(answer.status(), 200, "the peer is no trusted proxy");
    gateway.stop().await;
}

#[tokio::test]
async fn rules_apply_at_their_hours() {
    let rule = |value: Value| deny("closed", json!({ "field": "time", "op": "in", "value": value }));
    let always =
        json!({ "weekdays": ["mon", "tue", "wed", "thu", "fri", "sat", "sun"], "zone": "Asia/Shanghai" });
    // An hour that lies half a day away, whatever the time is.
    let seconds = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap()
        .as_secs();
    let hour = seconds / 3_600 % 24;
    let other = json!({ "hours": format!("{:02}:00-{:02}:00", (hour + 11) % 24, (hour + 13) % 24) });
    let gateway = Gateway::with(documents().rule(rule(always))).start().await;
    let answer = gateway.send(&chat()).await;
    assert_eq!(
        (answer.status(), &answer.json()["error"]["code"]),
        (403, &json!("closed"))
    );
    gateway.publish(documents().rule(rule(other))).await;
    assert_eq!(gateway.send(&chat()).await.status(), 200);
    gateway.stop().await;
}

#[tokio::test]
async fn actions_move_cap_tag_and_allow() {
    let when = |value: &str| field("header.x-case", "eq", json!(value));
    let documents = documents()
        .rule(json!({ "name": "allow", "priority": 10, "when": when("allow"), "then": { "allow": true } }))
        .rule(json!({ "name": "block", "priority": 5,
            "when": field("header.x-case", "matches", json!("allow*")), "then": { "deny": { "status": 418 } } }))
        .rule(json!({ "name": "move", "when": when("move"), "then": { "set_channel": "moved" } }))
        .rule(json!({ "name": "gone", "when": when("gone"), "then": { "set_model": "real" } }))
        .rule(json!({ "name": "cap", "when": when("cap"), "then": [{ "cap_max_tokens": 3 }, { "tag": "capped" }] }))
        .rule(json!({ "name": "shadow", "when": when("shadow"),
            "then": { "shadow": { "deny": { "status": 400, "code": "would" } } } }));
    let http = tollgate_tests::gateway::HTTP.replace(
        "source=$tollgate_usage_source",
        "source=$tollgate_usage_source tags=$tollgate_tags rule=$tollgate_rule",
    );
    let gateway = Gateway::with(documents)
        .nginx(|_| tollgate_tests::nginx::Nginx::config(&http).with_module())
        .start()
        .await;
    let case = |name: &str| chat().header("X-Case", name);

    assert_eq!(gateway.send(&case("allow")).await.status(), 200);
    let denied = gateway.send(&case("allowed-not")).await;
    assert_eq!(
        (denied.status(), &denied.json()["error"]["code"]),
        (418, &json!("denied_by_rule"))
    );
    assert!(
        denied.json()["error"]["message"]
            .as_str()
            .unwrap()
            .contains("block")
    );

    assert_eq!(gateway.send(&case("gone")).await.status(), 200);
    assert_eq!(
        gateway.mock.stats().last().unwrap().json().unwrap()["model"],
        "real-upstream"
    );

    for request in [
        case("cap"),
        case("cap").set("max_tokens", 100),
        case("cap").set("stream", true),
    ] {
        assert_eq!(gateway.send(&request).await.status(), 200);
        let record = gateway.mock.stats().last().unwrap();
        assert_eq!(
            (
                record.json().unwrap()["max_tokens"].as_u64(),
                record.completion_tokens
            ),
            (Some(3), 3)
        );
    }
    assert_eq!(
        gateway.send(&case("cap").set("max_tokens", 2)).await.status(),
        200
    );
    assert_eq!(gateway.mock.stats().last().unwrap().completion_tokens, 2);

    assert_eq!(gateway.send(&case("shadow")).await.status(), 200);
    let entries = access::entries(&gateway.nginx, "c", 8).await;
    let tags: Vec<&str> = entries.iter().map(|entry| entry.get("tags")).collect();
    assert_eq!(tags, ["-", "-", "-", "capped", "capped", "capped", "capped", "-"]);
    assert_eq!(
        (entries[0].get("rule"), entries[1].get("rule")),
        ("allow", "block")
    );
    wait_for("the shadowed request in the log", PATIENCE, || async {
        let log = gateway.daemon.get("/requests?channel=c").await;
        let lines = log["requests"].as_array()?.clone();
        lines
            .iter()
            .any(|line| {
                line["flags"]
                    .as_str()
                    .is_some_and(|flags| flags.contains("shadow"))
            })
            .then_some(())
    })
    .await;

    assert_eq!(gateway.send(&case("move")).await.status(), 200);
    assert_eq!(access::entries(&gateway.nginx, "moved", 1).await[0].status, 200);
    gateway.stop().await;
}
