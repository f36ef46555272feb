//! Limits on requests and connections, and what a refused client is told.

use serde_json::{Value, json};
use std::sync::Arc;
use std::time::{Duration, Instant};
use tollgate_tests::documents::Documents;
use tollgate_tests::gateway::Gateway;
use tollgate_tests::http::{self, Connection, Request, Response};
use tollgate_tests::wait::{PATIENCE, wait_for, wait_until};

async fn gateway(limits: Value) -> Gateway {
    let documents = Documents::new()
        .model("gpt-4o", "mock")
        .limited("wechat001", limits);
    Gateway::with(documents).workers(2).start().await
}

fn hello() -> Request {
    Request::chat("gpt-4o", " hello").channel("wechat001")
}

fn to_anthropic(text: &str) -> Request {
    let messages = json!([{ "role": "user", "content": text }]);
    Request::post(
        "/v1/messages",
        &json!({ "model": "gpt-4o", "max_tokens": 64, "messages": messages }),
    )
    .header("anthropic-version", "2023-06-01")
    .channel("wechat001")
}

/// Sends requests one after the other and counts those that were admitted.
async fn admitted(gateway: &Gateway, count: usize) -> usize {
    let mut admitted = 0;
    for _ in 0..count {
        match gateway.send(&hello()).await.status() {
            200 => admitted += 1,
            status => assert_eq!(status, 429),
        }
    }
    admitted
}

fn number(response: &Response, header: &str) -> f64 {
    let value = response
        .header(header)
        .unwrap_or_else(|| panic!("no {header} in {:?}", response.head));
    value.trim_end_matches('s').parse().expect("a number")
}

#[tokio::test]
async fn a_token_bucket_lets_a_burst_through_and_then_its_rate() {
    let limit =
        json!({ "metric": "requests", "max": 2, "window": "10m", "algorithm": "token_bucket", "burst": 7 });
    let gateway = gateway(json!([limit])).await;
    assert_eq!(admitted(&gateway, 12).await, 7);
    let refused = gateway.send(&hello()).await;
    assert!(
        (280.0..=300.0).contains(&number(&refused, "retry-after")),
        "{:?}",
        refused.head
    );
    assert_eq!(number(&refused, "x-ratelimit-limit-requests"), 7.0);
    // Two more every ten minutes, up to the burst.
    gateway.advance(Duration::from_secs(300));
    assert_eq!(admitted(&gateway, 5).await, 1);
    gateway.advance(Duration::from_secs(24 * 3_600));
    assert_eq!(admitted(&gateway, 12).await, 7);
    gateway.stop().await;
}

#[tokio::test]
async fn a_leaky_bucket_spaces_requests_and_bounds_its_queue() {
    const SPACING: u64 = 200;
    let limit = json!({
        "metric": "requests", "max": 5, "window": "1s", "algorithm": "leaky_bucket", "max_delay": "600ms",
    });
    let gateway = gateway(json!([limit])).await;
    let address = gateway.address();
    let begin = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .expect("after 1970");
    let start = Instant::now();
    let asking: Vec<_> = (0..12)
        .map(|_| tokio::spawn(async move { (http::send(address, &hello()).await, Instant::now()) }))
        .collect();
    let (mut passed, mut refused) = (0, 0);
    let mut last_refusal = start;
    for answer in asking {
        let (answer, at) = answer.await.expect("an answer");
        match answer.expect("an answer").status() {
            200 => passed += 1,
            status => {
                assert_eq!(status, 429);
                refused += 1;
                last_refusal = last_refusal.max(at);
            }
        }
    }
    // One at once and three in the queue; more only if the twelve came in over some time.
    let came_in = last_refusal - start;
    let most = 4 + came_in.as_millis() as u64 / SPACING;
    assert!(
        (4..=most).contains(&passed),
        "{passed} passed, {refused} were refused within {came_in:?}"
    );
    // The mock saw them one by one: none before its turn.
    let begin_ms = u64::try_from(begin.as_millis()).expect("a time");
    let mut arrivals: Vec<u64> = gateway
        .mock
        .stats()
        .records()
        .iter()
        .map(|it| it.at_unix_ms - begin_ms)
        .collect();
    arrivals.sort_unstable();
    for (turn, arrival) in (0u64..).zip(&arrivals) {
        assert!(*arrival + 5 >= turn * SPACING, "{arrivals:?}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_the_queue_costs_nothing_upstream() {
    let limits = json!([
        { "metric": "requests", "max": 1, "window": "60s", "algorithm": "leaky_bucket", "max_delay": "60s" },
        { "metric": "connections", "max": 10 },
    ]);
    let gateway = gateway(limits).await;
    assert_eq!(gateway.send(&hello()).await.status(), 200);
    let mut queued = Connection::open(gateway.address()).await.unwrap();
    queued.write(&hello().to_bytes()).await.unwrap();
    wait_for("a place in the queue", PATIENCE, || async {
        (gateway.used("wechat001", "connections").await == 1).then_some(())
    })
    .await;
    drop(queued);
    gateway.wait_idle().await;
    assert_eq!(gateway.used("wechat001", "connections").await, 0);
    assert_eq!(gateway.mock.stats().total().requests, 1);
    gateway.stop().await;
}

#[tokio::test]
async fn a_fixed_window_counts_from_its_boundary() {
    let limit = json!({ "metric": "requests", "max": 3, "window": "10m", "algorithm": "fixed_window" });
    let gateway = gateway(json!([limit])).await;
    gateway.align(Duration::from_secs(600));
    gateway.advance(Duration::from_secs(400));
    assert_eq!(admitted(&gateway, 5).await, 3);
    let refused = gateway.send(&hello()).await;
    let retry = number(&refused, "retry-after");
    assert!((150.0..=200.0).contains(&retry), "{retry}");
    gateway.advance(Duration::from_secs(200));
    assert_eq!(admitted(&gateway, 5).await, 3);
    gateway.stop().await;
}

#[tokio::test]
async fn connections_are_counted_while_they_last() {
    let gateway = gateway(json!([{ "metric": "connections", "max": 2 }])).await;
    let stream = hello()
        .set("stream", true)
        .set("mock", json!({ "hang": "mid", "at": 3 }));
    let mut open = Vec::new();
    for _ in 0..2 {
        let mut connection = Connection::open(gateway.address()).await.unwrap();
        assert_eq!(connection.send(&stream).await.unwrap().status, 200);
        open.push(connection);
    }
    let refused = gateway.send(&hello()).await;
    assert_eq!(refused.status(), 429);
    assert_eq!(number(&refused, "x-ratelimit-limit-connections"), 2.0);
    assert_eq!(number(&refused, "x-ratelimit-remaining-connections"), 0.0);
    assert!(refused.text().contains("connections"), "{}", refused.text());
    open.pop();
    wait_until("the mock to notice", PATIENCE, || {
        gateway.mock.stats().total().aborted == 1
    })
    .await;
    wait_for("room", PATIENCE, || async {
        (gateway.send(&hello()).await.status() == 200).then_some(())
    })
    .await;
    drop(open);
    gateway.wait_idle().await;
    assert_eq!(gateway.used("wechat001", "connections").await, 0);
    gateway.stop().await;
}

#[tokio::test]
async fn a_refusal_says_why_in_the_api_s_own_words() {
    let limits = json!([{ "metric": "input_tokens", "max": 500, "window": "10m", "name": "prompts" }]);
    let gateway = gateway(limits).await;
    assert_eq!(gateway.send(&hello()).await.status(), 200);
    gateway.wait_idle().await;
    let long = " hello".repeat(600);

    let refused = gateway
        .send(&Request::chat("gpt-4o", &long).channel("wechat001"))
        .await;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.header("content-type"), Some("application/json"));
    assert_eq!(refused.header("x-tollgate-limit"), Some("prompts"));
    assert_eq!(number(&refused, "x-ratelimit-limit-tokens"), 500.0);
    assert_eq!(number(&refused, "x-ratelimit-remaining-tokens"), 492.0);
    assert!(number(&refused, "x-ratelimit-reset-tokens") <= 620.0);
    assert!((1.0..=620.0).contains(&number(&refused, "retry-after")));
    let body = refused.json();
    assert_eq!(body["error"]["type"], "rate_limit_error");
    assert_eq!(body["error"]["code"], "rate_limit_exceeded");
    let message = body["error"]["message"].as_str().unwrap();
    for part in ["prompts", "input tokens", "492 of 500"] {
        assert!(message.contains(part), "{message}");
    }
    assert_eq!(body["request_id"].as_str(), refused.header("x-request-id"));

    let refused = gateway.send(&to_anthropic(&long)).await;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.header("x-tollgate-limit"), Some("prompts"));
    assert!(refused.header("retry-after").is_some());
    let body = refused.json();
    assert_eq!(body["type"], "error");
    assert_eq!(body["error"]["type"], "rate_limit_error");
    assert_eq!(gateway.mock.stats().total().requests, 1);
    gateway.stop().await;
}

#[tokio::test]
async fn a_refused_request_takes_nothing_from_the_other_limits() {
    let limits = json!([
        { "metric": "connections", "max": 5 },
        { "metric": "requests", "max": 50, "window": "10m" },
        { "metric": "requests", "max": 20, "window": "20m", "algorithm": "token_bucket" },
        { "metric": "total_tokens", "max": 100_000, "window": "10m" },
        { "metric": "output_tokens", "max": 100_000, "window": "10m" },
        { "metric": "input_tokens", "max": 100, "window": "10m", "name": "narrow" },
    ]);
    let gateway = gateway(limits).await;
    for _ in 0..5 {
        let refused = gateway
            .send(&Request::chat("gpt-4o", &" hello".repeat(200)).channel("wechat001"))
            .await;
        assert_eq!(refused.header("x-tollgate-limit"), Some("narrow"));
    }
    for name in [
        "connections",
        "requests/10m",
        "requests/20m",
        "total_tokens/10m",
        "output_tokens/10m",
        "narrow",
    ] {
        // What a bucket gets back is rounded down by a nanosecond: within the same millisecond that shows. A request would show
        // for a minute.
        wait_for(name, PATIENCE, || async {
            (gateway.used("wechat001", name).await == 0).then_some(())
        })
        .await;
    }
    gateway.stop().await;
}

#[tokio::test]
async fn every_scope_is_checked() {
    let limit = |max: u64| json!([{ "metric": "requests", "max": max, "window": "10m" }]);
    let model = json!({
        "name": "gpt-4o", "deployments": [{ "provider": "mock", "upstream_model": "mock" }], "limits": limit(7),
    });
    let documents = Documents::new()
        .model_value(model)
        .model("gpt-4o-mini", "mini")
        .limited(
            "wechat001",
            json!([{ "metric": "requests", "max": 3, "window": "10m", "model": "gpt-4o" }]),
        )
        .limited("app002", json!([]))
        .setting("limits", limit(12));
    let gateway = Gateway::with(documents).workers(2).start().await;
    let mut asked = Vec::new();
    for (channel, model) in [
        ("wechat001", "gpt-4o"),
        ("app002", "gpt-4o"),
        ("wechat001", "gpt-4o-mini"),
    ] {
        let mut passed = 0;
        let mut message = String::new();
        for _ in 0..15 {
            let answer = gateway
                .send(&Request::chat(model, " hello").channel(channel))
                .await;
            match answer.status() {
                200 => passed += 1,
                _ => message = answer.json()["error"]["message"].as_str().unwrap().to_owned(),
            }
        }
        asked.push((passed, message));
    }
    let passed: Vec<u32> = asked.iter().map(|(passed, _)| *passed).collect();
    assert_eq!(passed, [3, 4, 5], "{asked:?}");
    for ((_, message), scope) in asked.iter().zip(["channel_model", "model", "global"]) {
        assert!(
            message.contains(&format!("the {scope} limit")),
            "{scope}: {message}"
        );
    }
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_requests_never_pass_the_number() {
    let limits = json!([
        { "metric": "requests", "max": 150, "window": "10m" },
        { "metric": "connections", "max": 20 },
    ]);
    let gateway = Arc::new(gateway(limits).await);
    let tasks: Vec<_> = (0..40)
        .map(|_| {
            let gateway = Arc::clone(&gateway);
            tokio::spawn(async move {
                let request = hello().set("mock", json!({ "latency": "5ms" }));
                for _ in 0..20 {
                    let status = gateway.send(&request).await.status();
                    assert!(matches!(status, 200 | 429), "{status}");
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a client's verdict");
    }
    gateway.wait_idle().await;
    // What the parallel ones left over goes to a single one.
    while gateway.send(&hello()).await.status() == 200 {}
    let total = gateway.mock.stats().total();
    assert_eq!(total.requests, 150);
    assert!(total.max_in_flight <= 20, "{}", total.max_in_flight);
    Arc::try_unwrap(gateway).expect("the last one").stop().await;
}
