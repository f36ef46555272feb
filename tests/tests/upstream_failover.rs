//! From one provider to the next: the second gets its own host, path, key and model name, and nothing of the first's.

use serde_json::{Value, json};
use tollgate_tests::access;
use tollgate_tests::documents::{Documents, PROVIDER_KEY};
use tollgate_tests::gateway::Gateway;
use tollgate_tests::http::Request;
use tollgate_tests::mock::{MockLlm, Record};
use tollgate_tests::port::Port;

const FIRST_KEY: &str = "sk-first-1111111111";

/// The deployment at `first` is preferred so strongly that it is tried first.
fn documents(first: &Value, upstream_model: &str) -> Documents {
    let deployments = json!([
        { "id": "first", "provider": "first", "upstream_model": upstream_model, "weight": 1_000_000 },
        { "id": "second", "provider": "mock", "upstream_model": "second-name?tokens=3", "weight": 1 },
    ]);
    Documents::new()
        .model_value(json!({ "name": "m", "deployments": deployments }))
        .provider(first.clone())
        .limited(
            "c",
            json!([{ "metric": "requests", "max": 1_000, "window": "10m" },
            { "metric": "output_tokens", "max": 1_000_000, "window": "10m" }]),
        )
}

fn provider(url: &str, credentials: &Value) -> Value {
    json!({ "id": "first", "protocol": "openai", "base_url": url, "host_header": "first.example", "credentials": credentials })
}

fn x_api_key() -> Value {
    json!({ "type": "x_api_key", "key": FIRST_KEY })
}

fn chat() -> Request {
    Request::chat("m", " hello").channel("c")
}

/// The second provider's request is as if there had been no first.
fn assert_seconds_own(record: &Record, gateway: &Gateway) {
    let shown = format!("{record:?} {}", String::from_utf8_lossy(&record.body));
    for firsts in [FIRST_KEY, "first"] {
        assert!(!shown.contains(firsts), "{firsts} in {shown}");
    }
    assert_eq!(record.target, "/v1/chat/completions");
    assert_eq!(record.header("host"), Some(&*gateway.mock.address().to_string()));
    assert_eq!(
        record.header("authorization"),
        Some(&*format!("Bearer {PROVIDER_KEY}"))
    );
    let body = record.json().unwrap();
    assert_eq!(body["model"], "second-name?tokens=3");
    assert_eq!(
        record.header("content-length"),
        Some(&*record.body.len().to_string())
    );
}

#[tokio::test]
async fn a_refused_connection_moves_on_with_nothing_of_the_first() {
    // Reserved and not listened on.
    let port = Port::free();
    let first = provider(&format!("http://{}/prefix/v9", port.address()), &x_api_key());
    let gateway = Gateway::with(documents(&first, "first-name")).start().await;
    for stream in [false, true] {
        let answer = gateway.send(&chat().set("stream", stream)).await;
        assert_eq!(answer.status(), 200, "{}", answer.text());
        assert_seconds_own(&gateway.mock.stats().last().unwrap(), &gateway);
    }
    for entry in access::entries(&gateway.nginx, "c", 2).await {
        assert_eq!((entry.get("deployment"), entry.number("output")), ("second", 3));
    }
    gateway.stop().await;
}

#[tokio::test]
async fn each_kind_of_failure_moves_on_once_and_is_charged_once() {
    for failure in [
        "status=503",
        "status=500",
        "status=429",
        "close=before",
        "reset=before",
    ] {
        let first = MockLlm::start().await;
        let at = provider(&format!("{}/prefix", first.url()), &x_api_key());
        let gateway = Gateway::with(documents(&at, &format!("first-name?{failure}")))
            .start()
            .await;
        let answer = gateway.send(&chat().set("max_tokens", 10)).await;
        assert_eq!(answer.status(), 200, "{failure}: {}", answer.text());
        let tried = first.stats().last().unwrap();
        assert_eq!(
            (tried.header("x-api-key"), tried.header("authorization")),
            (Some(FIRST_KEY), None)
        );
        assert_eq!(
            (&*tried.target, tried.header("host")),
            ("/prefix/v1/chat/completions", Some("first.example"))
        );
        assert_eq!(tried.json().unwrap()["model"], format!("first-name?{failure}"));
        let record = gateway.mock.stats().last().unwrap();
        assert_seconds_own(&record, &gateway);
        assert_eq!(tried.header("x-request-id"), record.header("x-request-id"));
        assert_eq!(
            (
                first.stats().total().requests,
                gateway.mock.stats().total().requests
            ),
            (1, 1)
        );
        let entries = access::entries(&gateway.nginx, "c", 1).await;
        assert_eq!((entries.len(), entries[0].number("output")), (1, 3));
        gateway.wait_idle().await;
        let limits = gateway.daemon.get("/channels/c/limits").await;
        let used: Vec<&Value> = limits["limits"]
            .as_array()
            .unwrap()
            .iter()
            .map(|limit| &limit["used"])
            .collect();
        assert_eq!(used, [1, 3], "{limits}");
        gateway.stop().await;
    }
}

#[tokio::test]
async fn after_the_first_byte_there_is_no_second_attempt() {
    let first = MockLlm::start().await;
    let at = provider(&first.url(), &x_api_key());
    let gateway = Gateway::with(documents(&at, "first-name?tokens=20&close=mid"))
        .start()
        .await;
    let answer = gateway.send(&chat().set("stream", true)).await;
    assert_eq!(answer.status(), 200);
    assert!(answer.events().last().unwrap().json()["error"].is_object());
    assert_eq!(gateway.mock.stats().total().requests, 0);
    gateway.stop().await;
}

#[tokio::test]
async fn when_all_fail_the_client_is_told_and_nothing_is_charged() {
    let port = Port::free();
    let documents = Documents::new()
        .model_value(json!({ "name": "m", "deployments": [{ "provider": "first" }] }))
        .provider(provider(&format!("http://{}", port.address()), &x_api_key()))
        .limited(
            "c",
            json!([{ "metric": "output_tokens", "max": 1_000, "window": "10m" }]),
        );
    let gateway = Gateway::with(documents).start().await;
    for _ in 0..3 {
        let answer = gateway.send(&chat().set("max_tokens", 1_000)).await;
        assert_eq!(answer.status(), 502);
        assert_eq!(
            answer.json()["error"]["code"],
            "upstream_unreachable",
            "{}",
            answer.text()
        );
        gateway.wait_idle().await;
    }
    gateway.stop().await;
}
