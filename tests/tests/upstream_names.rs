//! Names of providers: resolved by the daemon for as long as an answer holds, published, and drained when they go.

use serde_json::{Value, json};
use std::time::Duration;
use tollgate_tests::dns::NameServer;
use tollgate_tests::documents::Documents;
use tollgate_tests::gateway::Gateway;
use tollgate_tests::http::{Connection, Request};
use tollgate_tests::mock::MockLlm;
use tollgate_tests::wait::{PATIENCE, wait_for, wait_until};

const TTL: Duration = Duration::from_secs(1);

fn documents(names: &NameServer, url: &str) -> Documents {
    Documents::new()
        .setting("resolver", json!({ "nameservers": [names.address()] }))
        .model_value(json!({ "name": "m", "deployments": [{ "id": "d", "provider": "p", "upstream_model": "x?tokens=2" }] }))
        .openai("p", url)
        .limited("c", json!([{ "metric": "requests", "max": 100_000, "window": "10m" }]))
}

fn chat() -> Request {
    Request::chat("m", " hello").channel("c")
}

async fn addresses(gateway: &Gateway) -> Vec<String> {
    let state = gateway.daemon.get("/deployments/d").await;
    let all = state["addresses"].as_array().cloned().unwrap_or_default();
    all.iter().map(|a| a.as_str().unwrap().to_owned()).collect()
}

async fn until_addresses(gateway: &Gateway, wanted: &[String]) {
    wait_for("the addresses to be published", PATIENCE, || async {
        (addresses(gateway).await == wanted).then_some(())
    })
    .await;
}

#[tokio::test]
async fn an_address_that_goes_is_drained_and_one_that_comes_is_used() {
    let names = NameServer::start().await;
    let mock = MockLlm::start().await;
    let port = mock.address().port();
    // Both are the mock: all of 127/8 is loopback, but it listens on one. The other takes nobody's connection.
    names.set("llm.test", &["127.0.0.1"], TTL);
    let gateway = Gateway::with(documents(&names, &format!("http://llm.test:{port}")))
        .start()
        .await;
    assert_eq!(gateway.send(&chat()).await.status(), 200);
    assert_eq!(
        mock.stats().last().unwrap().header("host"),
        Some(&*format!("llm.test:{port}"))
    );
    let at = |ip: &str| format!("{ip}:{port}");
    assert_eq!(addresses(&gateway).await, [at("127.0.0.1")]);

    // A stream that is held at the address that goes.
    let mut streaming = Connection::open(gateway.address()).await.unwrap();
    let held = Request::chat("m", " hello")
        .channel("c")
        .set("stream", true)
        .set("mock", json!({ "tokens": 6, "hold": 3 }));
    assert_eq!(streaming.send(&held).await.unwrap().status, 200);
    wait_until("the idle connection and the stream", PATIENCE, || {
        mock.stats().total().in_flight == 1
    })
    .await;

    names.set("llm.test", &["127.0.0.2"], TTL);
    until_addresses(&gateway, &[at("127.0.0.2")]).await;
    let answer = gateway.send(&chat()).await;
    assert_eq!(
        answer.status(),
        502,
        "new requests go to the new address alone: {}",
        answer.text()
    );
    assert_eq!(mock.stats().total().in_flight, 1, "the stream goes on");
    wait_until(
        "idle connections to the old address to be closed",
        PATIENCE,
        || mock.stats().connections().1 == 1,
    )
    .await;
    let release = tollgate_tests::http::send(mock.address(), &Request::new("POST", "/mock/release")).await;
    assert_eq!(release.unwrap().status(), 200);
    let mut rest = Vec::new();
    while let Some(piece) = tokio::time::timeout(PATIENCE, streaming.piece())
        .await
        .unwrap()
        .unwrap()
    {
        rest.extend(piece);
    }
    assert!(
        String::from_utf8_lossy(&rest).contains("[DONE]"),
        "it ends as it should"
    );

    names.set("llm.test", &["127.0.0.1"], TTL);
    until_addresses(&gateway, &[at("127.0.0.1")]).await;
    assert_eq!(gateway.send(&chat()).await.status(), 200);
    gateway.stop().await;
}

#[tokio::test]
async fn answers_hold_as_long_as_they_say_and_survive_their_server() {
    let names = NameServer::start().await;
    let mock = MockLlm::start().await;
    let port = mock.address().port();
    names.set("short.test", &["127.0.0.1"], TTL);
    names.set("long.test", &["127.0.0.1", "::1"], Duration::from_secs(200));
    let documents = documents(&names, &format!("http://short.test:{port}"))
        .openai("q", &format!("http://long.test:{port}"))
        .openai("hosts", &format!("http://localhost:{port}"))
        .openai("missing", &format!("http://missing.test:{port}"))
        .model_value(json!({ "name": "n", "deployments": [{ "id": "e", "provider": "q", "upstream_model": "x?tokens=2" }] }))
        .model_value(json!({ "name": "h", "deployments": [{ "id": "h", "provider": "hosts", "upstream_model": "x?tokens=2" }] }))
        .model_value(json!({ "name": "gone", "deployments": [{ "id": "g", "provider": "missing" }] }));
    let gateway = Gateway::with(documents).start().await;
    let of = async |id: &str| gateway.daemon.get(&format!("/deployments/{id}")).await["addresses"].clone();
    assert_eq!(
        of("e").await,
        json!([format!("127.0.0.1:{port}"), format!("[::1]:{port}")])
    );
    // A connection that ::1 refuses is tried again at the other address.
    for model in ["m", "n", "h"] {
        for _ in 0..6 {
            let answer = gateway.send(&Request::chat(model, " hello").channel("c")).await;
            assert!(
                answer.status() == 200 || model != "m" && answer.status() == 502,
                "{model}: {}",
                answer.text()
            );
        }
    }
    let answer = gateway.send(&Request::chat("gone", " hello").channel("c")).await;
    assert_eq!(
        (answer.status(), &answer.json()["error"]["code"]),
        (503, &json!("no_deployment"))
    );
    let problems: Value = gateway.daemon.get("/documents").await;
    assert!(
        problems.to_string().contains("`missing.test` cannot be resolved"),
        "{problems}"
    );
    let once = names.asked("long.test");
    wait_until("the short answer to be asked for again", PATIENCE, || {
        names.asked("short.test") >= 6
    })
    .await;
    assert_eq!(names.asked("long.test"), once, "it still holds");

    names.silence(true);
    let before = names.asked("short.test");
    wait_until("questions without an answer", PATIENCE, || {
        names.asked("short.test") > before + 1
    })
    .await;
    assert_eq!(
        gateway.send(&chat()).await.status(),
        200,
        "the last known address stays"
    );
    gateway.stop().await;
}
