//! Who is calling: where the channel and its key may stand, who is refused, and what never goes further.

use serde_json::{Value, json};
use tollgate_tests::documents::{Documents, PROVIDER_KEY};
use tollgate_tests::gateway::Gateway;
use tollgate_tests::http::Request;
use tollgate_tests::mock::Record;

/// Client keys and their SHA-256.
const KEY: (&str, &str) = (
    "tg-key-one",
    "2b00a69dc6c043abad83b1fbb4be3c9d63bfecdaaac01501b75408efacd9be76",
);
const OLD: (&str, &str) = (
    "tg-key-old",
    "28817eec77af46f81a4bb3dc88204118430aa995c2259ae61a2d959905acfea0",
);
const OFF: (&str, &str) = (
    "tg-key-off",
    "a48e1c843f7b0c73abf20b964def9c4c73724cfc6b69ecafc58c6e513bf2487b",
);

fn documents(sources: Value) -> Documents {
    Documents::new()
        .model("m", "mock?tokens=2")
        .model("other", "mock?tokens=2")
        .setting("channel_source", sources)
        .limited("open", json!([]))
        .channel(
            json!({ "code": "keyed", "models": { "deny": ["other"] }, "keys": [
            { "id": "one", "sha256": KEY.1, "expires_at": "2999-01-01T00:00:00Z" },
            { "id": "old", "sha256": OLD.1, "expires_at": "2020-01-01T00:00:00Z" },
            { "id": "off", "sha256": OFF.1, "enabled": false },
        ] }),
        )
        .channel(json!({ "code": "gone", "trusted": true, "enabled": false }))
}

fn chat() -> Request {
    Request::chat("m", " hello")
}

fn at(target: &str) -> Request {
    Request {
        target: target.to_owned(),
        ..chat()
    }
}

/// Nothing of what identified the client, and the provider's own credential.
fn assert_stripped(record: &Record, secrets: &[&str]) {
    let shown = format!(
        "{} {:?} {}",
        record.target,
        record.headers,
        String::from_utf8_lossy(&record.body)
    );
    for secret in secrets {
        assert!(!shown.contains(secret), "{secret} in {shown}");
    }
    assert_eq!(
        record.header("authorization"),
        Some(&*format!("Bearer {PROVIDER_KEY}"))
    );
    assert!(
        record.header("cookie").is_none() && record.header("x-api-key").is_none(),
        "{shown}"
    );
}

#[tokio::test]
async fn a_code_or_a_key_opens_and_neither_reaches_the_provider() {
    let sources = json!([{ "header": "channelcode" }, { "query": "ch" }, { "cookie": "ch" },
        { "body": "metadata.ch" }, { "api_key": true }]);
    let gateway = Gateway::with(documents(sources)).start().await;
    let bearer = format!("Bearer {}", KEY.0);
    let secrets = [KEY.0, "keyed", "open", "c00kie"];
    for request in [
        chat().channel("open"),
        chat()
            .header("ChannelCode", "open")
            .header("Cookie", "sid=c00kie"),
        at("/v1/chat/completions?a=1&ch=open&b=2"),
        at("/v1/chat/completions?ch=open"),
        at("/v1/chat/completions?c%68=op%65n"),
        chat().header("Cookie", "sid=c00kie; ch=open"),
        chat().set("metadata", json!({ "a": 1, "ch": "open", "b": 2 })),
        chat()
            .set("metadata", json!({ "ch": "keyed" }))
            .header("Authorization", &bearer),
        chat().channel("keyed").header("Authorization", &bearer),
        chat()
            .channel("keyed")
            .header("authorization", &format!("bearer {}", KEY.0)),
        chat().channel("keyed").header("X-Api-Key", KEY.0),
        chat().channel("keyed").header("api-key", KEY.0),
        chat().header("Authorization", &bearer),
        chat().header("x-api-key", KEY.0),
        chat()
            .header("x-goog-api-key", KEY.0)
            .header("Proxy-Authorization", "Basic open"),
    ] {
        let answer = gateway.send(&request).await;
        assert_eq!(answer.status(), 200, "{request:?}: {}", answer.text());
        let record = gateway.mock.stats().last().unwrap();
        assert_stripped(&record, &secrets);
        assert_eq!(record.json().unwrap()["model"], "mock?tokens=2");
        if request.target.contains("a=1") {
            assert_eq!(record.target, "/v1/chat/completions?a=1&b=2");
        }
        if String::from_utf8_lossy(&request.body).contains("\"a\":1") {
            assert_eq!(record.json().unwrap()["metadata"], json!({ "a": 1, "b": 2 }));
        }
    }
    gateway.stop().await;
}

#[tokio::test]
async fn everyone_else_is_refused_with_a_reason() {
    let gateway = Gateway::with(documents(
        json!([{ "header": "channelcode" }, { "api_key": true }]),
    ))
    .start()
    .await;
    let key = |key: &str| chat().header("Authorization", &format!("Bearer {key}"));
    for (request, status, code) in [
        (chat(), 401, "channel_required"),
        (chat().channel(""), 401, "channel_required"),
        (chat().channel("nobody"), 401, "unknown_channel"),
        (chat().channel(&"x".repeat(4_000)), 401, "unknown_channel"),
        (chat().channel("OPEN"), 401, "unknown_channel"),
        (chat().channel("gone"), 403, "channel_disabled"),
        (chat().channel("keyed"), 401, "api_key_required"),
        (
            chat().channel("keyed").header("Authorization", "Basic dGc6a2V5"),
            401,
            "api_key_required",
        ),
        (key(OLD.0), 401, "invalid_api_key"),
        (key(OFF.0), 401, "invalid_api_key"),
        (key("nonsense"), 401, "invalid_api_key"),
        (key(KEY.1), 401, "invalid_api_key"),
        (key(OLD.0).channel("keyed"), 401, "invalid_api_key"),
        (
            at("/v1/chat/completions?channelcode=open"),
            401,
            "channel_required",
        ),
        (
            Request::chat("other", " hello").header("x-api-key", KEY.0),
            403,
            "model_not_permitted",
        ),
    ] {
        let answer = gateway.send(&request).await;
        let value = answer.json();
        assert_eq!(
            (answer.status(), value["error"]["code"].as_str()),
            (status, Some(code)),
            "{request:?}"
        );
        assert!(!answer.text().contains("tg-key"), "{value}");
    }
    assert_eq!(gateway.mock.stats().total().requests, 0);
    gateway.stop().await;
}

#[tokio::test]
async fn the_list_of_models_is_what_the_channel_may_use() {
    let gateway = Gateway::with(documents(
        json!([{ "header": "channelcode" }, { "api_key": true }]),
    ))
    .start()
    .await;
    for (request, models) in [
        (Request::get("/v1/models").channel("open"), vec!["m", "other"]),
        (
            Request::get("/v1/models").header("Authorization", &format!("Bearer {}", KEY.0)),
            vec!["m"],
        ),
    ] {
        let answer = gateway.send(&request).await.json();
        let mut names: Vec<&str> = answer["data"]
            .as_array()
            .unwrap()
            .iter()
            .filter_map(|it| it["id"].as_str())
            .collect();
        names.sort_unstable();
        assert_eq!(names, models);
    }
    assert_eq!(gateway.send(&Request::get("/v1/models")).await.status(), 401);
    gateway.stop().await;
}
