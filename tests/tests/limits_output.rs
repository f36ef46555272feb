//! Output is bounded before it exists: `max_tokens` is clamped or added, and a stream that goes on all the same ends.

use serde_json::{Value, json};
use tollgate_tests::documents::Documents;
use tollgate_tests::gateway::Gateway;
use tollgate_tests::http::{Request, Response};
use tollgate_tests::load::Load;
use tollgate_tests::mock::words;

async fn gateway(limits: Value) -> Gateway {
    let documents = Documents::new()
        .model("gpt-4o", "mock")
        .limited("wechat001", limits);
    Gateway::with(documents).start().await
}

fn output_limit(max: u64) -> Value {
    json!([{ "metric": "output_tokens", "max": max, "window": "10m" }])
}

fn hello() -> Request {
    Request::chat("gpt-4o", " hello").channel("wechat001")
}

fn to_anthropic(max_tokens: u64) -> Request {
    let messages = json!([{ "role": "user", "content": " hello" }]);
    let body = json!({ "model": "gpt-4o", "max_tokens": max_tokens, "messages": messages });
    Request::post("/v1/messages", &body)
        .header("anthropic-version", "2023-06-01")
        .channel("wechat001")
}

/// Sends a request and waits until what it used is settled: that is a moment after its last byte.
async fn settled(gateway: &Gateway, request: &Request) -> Response {
    let answer = gateway.send(request).await;
    gateway.wait_idle().await;
    answer
}

/// The body that the mock was sent last.
fn sent(gateway: &Gateway) -> Value {
    let record = gateway.mock.stats().last().expect("a request");
    record.json().expect("a JSON body")
}

/// The text of a streamed chat, which must have ended in the API's own way.
fn streamed(answer: &Response) -> (String, Option<String>, Option<Value>) {
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let events = answer.events();
    assert!(
        events.last().is_some_and(tollgate_tests::sse::Event::is_done),
        "{}",
        answer.text()
    );
    let mut text = String::new();
    let (mut finish, mut usage) = (None, None);
    for event in events.iter().filter(|event| !event.is_done()) {
        let chunk = event.json();
        assert_eq!(chunk["object"], "chat.completion.chunk");
        let choice = &chunk["choices"][0];
        text.push_str(choice["delta"]["content"].as_str().unwrap_or_default());
        if let Some(reason) = choice["finish_reason"].as_str() {
            assert!(finish.is_none(), "two reasons: {}", answer.text());
            finish = Some(reason.to_owned());
        }
        if chunk["usage"].is_object() {
            assert!(usage.is_none(), "two usages: {}", answer.text());
            usage = Some(chunk["usage"].clone());
        }
    }
    (text, finish, usage)
}

#[tokio::test]
async fn max_tokens_is_clamped_to_what_is_left_down_to_the_minimum() {
    let gateway = gateway(output_limit(100)).await;
    let request = |max: u64, tokens: u64| {
        hello()
            .set("max_tokens", max)
            .set("mock", json!({ "tokens": tokens }))
    };
    // Fits: sent as it was.
    assert_eq!(
        settled(&gateway, &request(60, 60)).await.json()["usage"]["completion_tokens"],
        60
    );
    assert_eq!(sent(&gateway)["max_tokens"], 60);
    // Does not fit: clamped to the 40 that are left; the 20 that it does not use come back.
    assert_eq!(
        settled(&gateway, &request(60, 20)).await.json()["usage"]["completion_tokens"],
        20
    );
    assert_eq!(sent(&gateway)["max_tokens"], 40);
    // Down to the minimum of 16.
    assert_eq!(settled(&gateway, &request(4_000, 4)).await.status(), 200);
    assert_eq!(sent(&gateway)["max_tokens"], 20);
    assert_eq!(settled(&gateway, &request(4_000, 1)).await.status(), 200);
    assert_eq!(sent(&gateway)["max_tokens"], 16);
    let refused = settled(&gateway, &request(4_000, 1)).await;
    assert_eq!(refused.status(), 429);
    assert_eq!(refused.header("x-ratelimit-remaining-tokens"), Some("15"));
    // Who asks for less than the minimum is not refused for it.
    assert_eq!(settled(&gateway, &request(15, 15)).await.status(), 200);
    assert_eq!(gateway.mock.stats().total().completion_tokens, 100);
    gateway.stop().await;
}

#[tokio::test]
async fn max_tokens_is_added_in_the_api_s_own_spelling() {
    let gateway = gateway(output_limit(1_000)).await;
    assert_eq!(settled(&gateway, &hello()).await.status(), 200);
    assert_eq!(sent(&gateway)["max_tokens"], 1_000);
    assert_eq!(
        gateway
            .send(&hello().set("max_completion_tokens", 5_000))
            .await
            .status(),
        200
    );
    let body = sent(&gateway);
    assert_eq!(body["max_completion_tokens"], 984);
    assert!(body.get("max_tokens").is_none(), "{body}");
    let responses = Request::post("/v1/responses", &json!({ "model": "gpt-4o", "input": " hello" }));
    assert_eq!(
        settled(&gateway, &responses.channel("wechat001")).await.status(),
        200
    );
    let body = sent(&gateway);
    assert_eq!(body["max_output_tokens"], 968, "{body}");
    let completions = Request::post(
        "/v1/completions",
        &json!({ "model": "gpt-4o", "prompt": " hello" }),
    );
    assert_eq!(
        settled(&gateway, &completions.channel("wechat001"))
            .await
            .status(),
        200
    );
    assert_eq!(sent(&gateway)["max_tokens"], 952);
    assert_eq!(settled(&gateway, &to_anthropic(5_000)).await.status(), 200);
    assert_eq!(sent(&gateway)["max_tokens"], 936);
    assert_eq!(gateway.used("wechat001", "output_tokens/10m").await, 5 * 16);
    gateway.stop().await;
}

#[tokio::test]
async fn nothing_is_added_where_nothing_limits_output() {
    let gateway = gateway(json!([{ "metric": "input_tokens", "max": 1_000, "window": "10m" }])).await;
    assert_eq!(settled(&gateway, &hello()).await.status(), 200);
    assert!(sent(&gateway).get("max_tokens").is_none(), "{}", sent(&gateway));
    gateway.stop().await;
}

#[tokio::test]
async fn several_answers_share_the_reservation() {
    let gateway = gateway(output_limit(100)).await;
    let request = hello()
        .set("n", 3)
        .set("max_tokens", 50)
        .set("mock", json!({ "tokens": 50 }));
    let answer = settled(&gateway, &request).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(sent(&gateway)["max_tokens"], 33);
    assert_eq!(gateway.mock.stats().total().completion_tokens, 99);
    assert_eq!(settled(&gateway, &request).await.status(), 429);
    gateway.stop().await;
}

#[tokio::test]
async fn a_stream_that_ignores_max_tokens_ends_at_its_reservation() {
    for asked_for_usage in [true, false] {
        let gateway = gateway(output_limit(100)).await;
        let mut request = hello().set("stream", true).set("max_tokens", 40).set(
            "mock",
            json!({ "tokens": 400, "ignore_max": true, "interval": "2ms" }),
        );
        if asked_for_usage {
            request = request.set("stream_options", json!({ "include_usage": true }));
        }
        let answer = settled(&gateway, &request).await;
        let (text, finish, usage) = streamed(&answer);
        assert_eq!(text, words::text(0, 40));
        assert_eq!(finish.as_deref(), Some("length"));
        let completion = usage.as_ref().map(|usage| usage["completion_tokens"].clone());
        assert_eq!(completion, asked_for_usage.then(|| json!(40)), "{usage:?}");
        gateway.wait_idle().await;
        // The mock was hung up on: what it had written beyond is not the client's.
        assert!(gateway.mock.stats().total().completion_tokens < 400);
        assert_eq!(gateway.used("wechat001", "output_tokens/10m").await, 40);
        gateway.stop().await;
    }
}

#[tokio::test]
async fn an_anthropic_stream_that_ignores_max_tokens_ends_at_its_reservation() {
    let gateway = gateway(output_limit(100)).await;
    let request = to_anthropic(40).set("stream", true).set(
        "mock",
        json!({ "tokens": 400, "ignore_max": true, "interval": "2ms" }),
    );
    let answer = settled(&gateway, &request).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let events = answer.events();
    let names: Vec<&str> = events.iter().filter_map(|event| event.name.as_deref()).collect();
    let shown = names
        .iter()
        .filter(|name| **name != "ping")
        .copied()
        .collect::<Vec<_>>();
    assert_eq!(&shown[..2], ["message_start", "content_block_start"]);
    assert_eq!(
        &shown[shown.len() - 3..],
        ["content_block_stop", "message_delta", "message_stop"],
        "{}",
        answer.text()
    );
    let text: String = events
        .iter()
        .filter(|event| event.name.as_deref() == Some("content_block_delta"))
        .map(|event| event.json()["delta"]["text"].as_str().expect("text").to_owned())
        .collect();
    assert_eq!(text, words::text(0, 40));
    let delta = events
        .iter()
        .find(|event| event.name.as_deref() == Some("message_delta"))
        .expect("one");
    assert_eq!(delta.json()["delta"]["stop_reason"], "max_tokens");
    assert_eq!(delta.json()["usage"]["output_tokens"], 40);
    gateway.wait_idle().await;
    assert_eq!(gateway.used("wechat001", "output_tokens/10m").await, 40);
    gateway.stop().await;
}

#[tokio::test]
async fn an_honest_stream_is_never_cut() {
    let gateway = gateway(output_limit(1_000)).await;
    for tokens in [16, 17, 40, 41] {
        let request = hello()
            .set("stream", true)
            .set("max_tokens", tokens)
            .set("mock", json!({ "tokens": 400, "split": "1..9", "seed": tokens }));
        let (text, finish, _) = streamed(&settled(&gateway, &request).await);
        assert_eq!(text, words::text(0, tokens));
        assert_eq!(finish.as_deref(), Some("length"));
    }
    assert_eq!(
        gateway.used("wechat001", "output_tokens/10m").await,
        16 + 17 + 40 + 41
    );
    assert!(
        gateway
            .nginx
            .access_log()
            .lines()
            .all(|line| !line.contains("decision=cut"))
    );
    gateway.stop().await;
}

#[tokio::test]
async fn a_plain_answer_beyond_its_reservation_is_a_debt() {
    let gateway = gateway(output_limit(100)).await;
    let lie = hello()
        .set("max_tokens", 40)
        .set("mock", json!({ "tokens": 150, "ignore_max": true }));
    assert_eq!(
        settled(&gateway, &lie).await.json()["usage"]["completion_tokens"],
        150
    );
    // It counts at once ...
    gateway.wait_idle().await;
    assert_eq!(gateway.used("wechat001", "output_tokens/10m").await, 150);
    let refused = settled(&gateway, &hello().set("max_tokens", 16)).await;
    assert_eq!(refused.status(), 429);
    // ... and fills the next window, ...
    let limits = gateway.daemon.get("/channels/wechat001/limits").await;
    assert_eq!(limits["limits"][0]["debt"], 110, "{limits}");
    let next_window = std::time::Duration::from_secs(660);
    gateway.advance(next_window);
    assert_eq!(settled(&gateway, &hello()).await.status(), 429);
    assert_eq!(gateway.used("wechat001", "output_tokens/10m").await, 110);
    // ... and what was too much even for that is missing in the third.
    gateway.advance(next_window);
    assert_eq!(settled(&gateway, &hello()).await.status(), 200);
    assert_eq!(sent(&gateway)["max_tokens"], 90);
    gateway.stop().await;
}

#[tokio::test]
async fn soft_limits_go_over_by_no_more_than_what_is_in_flight() {
    let limits = json!([{ "metric": "output_tokens", "max": 200, "window": "10m", "enforcement": "soft" }]);
    let gateway = gateway(limits).await;
    let request = hello().set("max_tokens", 80).set("mock", json!({ "tokens": 80 }));
    // A quarter is reserved; alone, each is settled before the next begins.
    let mut passed = 0;
    while settled(&gateway, &request).await.status() == 200 {
        // Nothing is clamped.
        assert_eq!(sent(&gateway)["max_tokens"], 80);
        passed += 1;
    }
    assert_eq!(passed, 3);
    assert_eq!(gateway.used("wechat001", "output_tokens/10m").await, 240);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn parallel_requests_exceed_a_soft_limit_only_by_what_they_did_not_reserve() {
    const MAX: u64 = 1_000;
    let limits = json!([
        { "metric": "output_tokens", "max": MAX, "window": "10m", "enforcement": "soft" },
        { "metric": "connections", "max": 20 },
    ]);
    let gateway = gateway(limits).await;
    let load = Load::new(gateway.address()).parallel(60).requests(600);
    let report = load
        .run(
            |turn| {
                hello()
                    .set("max_tokens", 40)
                    .set("stream", turn.number.is_multiple_of(2))
                    .set("mock", json!({ "tokens": 40, "latency": "5ms" }))
            },
            |_, _| {},
        )
        .await;
    assert_eq!(report.status(200) + report.status(429), 600, "{report:?}");
    gateway.wait_idle().await;
    while settled(&gateway, &hello().set("max_tokens", 40)).await.status() == 200 {}
    let produced = gateway.mock.stats().total().completion_tokens;
    // Each of at most 20 in flight has reserved 10 of its 40; less than 10 are left in the end.
    assert!((MAX - 9..=MAX + 20 * 30).contains(&produced), "{produced}");
    gateway.stop().await;
}

#[tokio::test]
async fn rules_and_models_cap_output_too() {
    let model = json!({
        "name": "gpt-4o", "deployments": [{ "provider": "mock", "upstream_model": "mock" }], "max_output_tokens": 300,
        "default_max_tokens": 300,
    });
    let cap = json!({
        "name": "short answers", "when": { "field": "header.x-short", "op": "exists" },
        "then": { "cap_max_tokens": 50 },
    });
    let documents = Documents::new()
        .model_value(model)
        .rule(cap)
        .limited("wechat001", json!([]));
    let gateway = Gateway::with(documents).start().await;
    assert_eq!(
        settled(&gateway, &hello().set("max_tokens", 1_000))
            .await
            .status(),
        200
    );
    assert_eq!(sent(&gateway)["max_tokens"], 300);
    let short = hello().header("x-short", "yes");
    assert_eq!(
        gateway
            .send(&short.clone().set("max_tokens", 1_000))
            .await
            .status(),
        200
    );
    assert_eq!(sent(&gateway)["max_tokens"], 50);
    assert_eq!(settled(&gateway, &short).await.status(), 200);
    assert_eq!(sent(&gateway)["max_tokens"], 50);
    gateway.stop().await;
}
