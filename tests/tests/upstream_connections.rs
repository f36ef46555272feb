//! Connections to providers and what travels on them: kept alive, never shared between deployments, upgraded, traced.

use serde_json::{Value, json};
use tollgate_tests::access;
use tollgate_tests::documents::Documents;
use tollgate_tests::gateway::{Gateway, HTTP};
use tollgate_tests::http::{Connection, Request};
use tollgate_tests::load::Load;
use tollgate_tests::mock::MockLlm;
use tollgate_tests::nginx::Nginx;
use tollgate_tests::wait::{PATIENCE, wait_until};

fn documents() -> Documents {
    Documents::new()
        .model("m", "mock?tokens=2")
        .limited(
            "c",
            json!([{ "metric": "requests", "max": 100_000, "window": "10m" }]),
        )
        .limited("one", json!([{ "metric": "connections", "max": 1 }]))
}

fn chat(model: &str) -> Request {
    Request::chat(model, " hello").channel("c")
}

#[tokio::test]
async fn a_thousand_requests_share_a_connection() {
    let gateway = Gateway::with(documents()).start().await;
    let mut connection = Connection::open(gateway.address()).await.unwrap();
    for number in 0..1_000 {
        let request = chat("m").set("stream", number % 2 == 0);
        assert_eq!(connection.exchange(&request).await.unwrap().status(), 200);
    }
    let (opened, open) = gateway.mock.stats().connections();
    assert!(opened <= 3 && open <= 1, "{opened} connections, {open} open");
    gateway.stop().await;
}

#[tokio::test]
async fn a_connection_that_the_provider_closed_costs_no_request() {
    let gateway = Gateway::with(documents().model("closing", "mock?keepalive=no"))
        .start()
        .await;
    for _ in 0..50 {
        assert_eq!(gateway.send(&chat("closing")).await.status(), 200);
    }
    assert_eq!(gateway.mock.stats().connections().0, 50);
    gateway.stop().await;
}

#[tokio::test]
async fn deployments_at_one_address_share_no_connection() {
    let documents = documents()
        .model("a", "mock?tokens=1")
        .model("b", "mock?tokens=1");
    let gateway = Gateway::with(documents).start().await;
    for model in ["a", "b", "m", "a", "b", "m"] {
        assert_eq!(gateway.send(&chat(model)).await.status(), 200);
    }
    assert_eq!(gateway.mock.stats().connections(), (3, 3));
    gateway.stop().await;
}

#[tokio::test]
async fn kept_connections_are_counted_as_the_settings_keep_them() {
    let provider = |connections: Value| json!({ "id": "p", "protocol": "openai", "base_url": "", "connections": connections });
    let mock = MockLlm::start().await;
    let with = |connections: Value| {
        let mut provider = provider(connections);
        provider["base_url"] = json!(mock.url());
        documents()
            .provider(provider)
            .model_value(json!({ "name": "kept", "deployments": [
            { "id": "kept", "provider": "p", "upstream_model": "x?tokens=2&latency=20ms" }] }))
    };
    let gateway = Gateway::with(with(json!({ "max_idle": 3 })))
        .workers(2)
        .start()
        .await;
    let region = gateway.region();
    let row = region.deployment(tollgate_policy::hash_name(b"kept")).unwrap();
    let idle = || region.deployment_view(row).unwrap().idle;
    let load = |requests| {
        Load::new(gateway.address())
            .parallel(16)
            .requests(requests)
            .run(|_| chat("kept"), |_, answer| assert_eq!(answer.status(), 200))
    };
    load(200).await;
    gateway.wait_idle().await;
    wait_until("three idle ones in each worker that served", PATIENCE, || {
        matches!(idle(), 3..=6)
    })
    .await;
    let state = gateway.daemon.get("/deployments/kept").await;
    let connections = &state["connections"];
    assert_eq!(
        (&connections["idle"], &connections["active"]),
        (&json!(idle()), &json!(0))
    );
    let count = |name: &str| connections[name].as_u64().unwrap();
    assert_eq!(count("made") + count("reused"), 200, "{state}");
    assert!(count("reused") > 0 && count("failed") == 0, "{state}");
    let metrics = gateway.daemon.api(Request::get("/metrics")).await.text();
    let line = format!(
        "tollgate_deployment_idle_connections{{deployment=\"kept\",model=\"kept\",provider=\"p\"}} {}",
        idle()
    );
    assert!(metrics.contains(&line), "{metrics}");
    // Workers that are killed take their connections with them, and their counts.
    for worker in gateway.nginx.workers() {
        gateway.nginx.kill_worker(worker).await;
    }
    wait_until("the dead workers' counts to be gone", PATIENCE, || idle() == 0).await;
    load(50).await;
    wait_until("new ones", PATIENCE, || idle() > 0).await;
    // They are closed after their time, and after their number of requests.
    gateway.publish(with(json!({ "idle_timeout": "1s" }))).await;
    load(50).await;
    wait_until("idle ones to be closed", PATIENCE, || idle() == 0).await;
    gateway.publish(with(json!({ "max_requests": 1 }))).await;
    let before = mock.stats().connections().0;
    for _ in 0..10 {
        assert_eq!(gateway.send(&chat("kept")).await.status(), 200);
    }
    assert_eq!(mock.stats().connections().0, before + 10);
    assert_eq!(idle(), 0);
    gateway.stop().await;
}

#[tokio::test]
async fn a_websocket_passes_both_ways_under_the_connection_limit() {
    let gateway = Gateway::with(documents()).start().await;
    let upgrade = || {
        Request::get("/v1/realtime?model=m")
            .channel("one")
            .header("Connection", "Upgrade")
            .header("Upgrade", "websocket")
            .header("Sec-WebSocket-Version", "13")
            .header("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ==")
    };
    let mut socket = Connection::open(gateway.address()).await.unwrap();
    assert_eq!(socket.send(&upgrade()).await.unwrap().status, 101);
    let arrived = gateway.mock.stats().last().unwrap();
    assert_eq!(
        arrived.header("sec-websocket-key"),
        Some("dGhlIHNhbXBsZSBub25jZQ==")
    );
    assert!(arrived.header("channelcode").is_none());
    for length in [1, 100, 100_000] {
        let frame: Vec<u8> = (0..length).map(|byte: u32| byte.to_le_bytes()[0]).collect();
        socket.write(&frame).await.unwrap();
        let mut echo = Vec::new();
        while echo.len() < frame.len() {
            let piece = tokio::time::timeout(PATIENCE, socket.piece()).await.unwrap();
            echo.extend(piece.unwrap().expect("the socket stays open"));
        }
        assert!(echo == frame, "{length} bytes");
    }
    let second = gateway.send(&upgrade()).await;
    assert_eq!(second.status(), 429, "{}", second.text());
    drop(socket);
    gateway.wait_idle().await;
    let mut third = Connection::open(gateway.address()).await.unwrap();
    assert_eq!(third.send(&upgrade()).await.unwrap().status, 101);
    drop(third);
    gateway.wait_idle().await;
    wait_until("the provider's sockets to close", PATIENCE, || {
        gateway.mock.stats().total().in_flight == 0
    })
    .await;
    // Nothing else is upgraded, whatever a client asks for.
    let request = chat("m").header("Connection", "Upgrade").header("Upgrade", "h2c");
    assert_eq!(gateway.send(&request).await.status(), 200);
    assert_eq!(gateway.mock.stats().last().unwrap().header("upgrade"), None);
    gateway.stop().await;
}

fn lines<'a>(headers: &'a [(String, String)], name: &str) -> Vec<&'a str> {
    let named = headers.iter().filter(|(key, _)| key.eq_ignore_ascii_case(name));
    named.map(|(_, value)| value.as_str()).collect()
}

fn is_trace(value: &str) -> bool {
    let parts: Vec<usize> = value.split('-').map(str::len).collect();
    parts == [2, 32, 16, 2] && value.bytes().all(|byte| byte == b'-' || byte.is_ascii_hexdigit())
}

#[tokio::test]
async fn one_request_id_and_one_trace_go_everywhere() {
    let http = HTTP.replace("'source=", "'id=$tollgate_request_id source=");
    let gateway = Gateway::with(documents())
        .nginx(|_| Nginx::config(&http).with_module())
        .start()
        .await;
    let given = "0123456789abcdef0123456789ABCDEF";
    let trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    let mut ids = Vec::new();
    for (request, kept_id, kept_trace) in [
        (chat("m"), None, None),
        (chat("m"), None, None),
        (
            chat("m")
                .header("X-Request-Id", given)
                .header("traceparent", trace)
                .header("tracestate", "a=b"),
            Some(given),
            Some(trace),
        ),
        (
            chat("m")
                .header("X-Request-Id", "x y")
                .header("traceparent", "00-zz"),
            None,
            None,
        ),
        (
            chat("m")
                .header("X-Request-Id", given)
                .header("X-Request-Id", "other"),
            None,
            None,
        ),
        (
            chat("m")
                .header("traceparent", trace)
                .header("traceparent", trace),
            None,
            None,
        ),
    ] {
        let answer = gateway.send(&request).await;
        assert_eq!(answer.status(), 200);
        let sent = gateway.mock.stats().last().unwrap();
        let (upstream, back) = (
            lines(&sent.headers, "x-request-id"),
            lines(&answer.head.headers, "x-request-id"),
        );
        assert_eq!((upstream.len(), &upstream), (1, &back), "{request:?}");
        assert!(
            kept_id.is_none_or(|id| id == upstream[0]) && upstream[0].len() == 32,
            "{upstream:?}"
        );
        let traces = lines(&sent.headers, "traceparent");
        assert!(traces.len() == 1 && is_trace(traces[0]), "{traces:?}");
        assert!(kept_trace.is_none_or(|trace| trace == traces[0]), "{traces:?}");
        ids.push(upstream[0].to_owned());
    }
    let refused = gateway.send(&Request::chat("none", " hello").channel("c")).await;
    let id = refused.header("x-request-id").unwrap().to_owned();
    assert_eq!(refused.json()["request_id"], id);
    ids.push(id);
    let entries = access::entries(&gateway.nginx, "c", ids.len()).await;
    let logged: Vec<&str> = entries.iter().map(|entry| entry.get("id")).collect();
    assert_eq!(logged, ids);
    let mut different = ids.clone();
    different.sort();
    different.dedup();
    assert_eq!(different.len(), ids.len());
    gateway.stop().await;
}
