//! What acts at once: ended streams, limits reset and topped up, maintenance.

use serde_json::{Value, json};
use tollgate_tests::access;
use tollgate_tests::documents::Documents;
use tollgate_tests::gateway::Gateway;
use tollgate_tests::http::{self, Connection, Request};
use tollgate_tests::sse::{Event, SseReader};
use tollgate_tests::wait::{PATIENCE, wait_for, wait_until};

fn wide() -> Value {
    json!([{ "metric": "total_tokens", "max": 100_000_000, "window": "10m" }])
}

fn chat(channel: &str, mock: Value) -> Request {
    Request::chat("m", " hello the water is clear")
        .channel(channel)
        .set("stream", true)
        .set("max_tokens", 5_000)
        .set("mock", mock)
}

/// Does what an operator would, and makes sure that it is in force.
async fn act(gateway: &Gateway, path: &str, body: Value) -> Value {
    let request = Request::post(&format!("/api/v1/emergency/{path}"), &body);
    let answer = gateway.daemon.api(request).await;
    assert_eq!(answer.status(), 200, "{path}: {}", answer.text());
    let written = answer.json();
    assert_eq!(written["in_force"], true, "{path}: {written}");
    written
}

/// A stream that has begun.
struct Running {
    connection: Connection,
    reader: SseReader,
    events: Vec<Event>,
}

impl Running {
    /// Sends the request and reads until that many texts have come.
    async fn start(gateway: &Gateway, request: &Request, texts: usize) -> Running {
        let mut connection = Connection::open(gateway.address()).await.unwrap();
        let head = connection.send(request).await.unwrap();
        assert_eq!(head.status, 200);
        let mut running = Running {
            connection,
            reader: SseReader::default(),
            events: Vec::new(),
        };
        while running.texts() < texts {
            let piece = running
                .connection
                .piece()
                .await
                .unwrap()
                .expect("more of the stream");
            running.events.extend(running.reader.feed(&piece));
        }
        running
    }

    /// Reads it to its end.
    async fn end(&mut self) {
        let rest = tokio::time::timeout(PATIENCE, self.connection.read_body()).await;
        let rest = rest.expect("the stream ends").expect("it ends regularly");
        self.events.extend(self.reader.feed(&rest));
    }

    fn texts(&self) -> usize {
        let text = |event: &&Event| {
            !event.is_done() && {
                let json = event.json();
                let openai = json["choices"][0]["delta"]["content"].as_str();
                let anthropic = json["delta"]["text"].as_str();
                openai.or(anthropic).is_some_and(|text| !text.is_empty())
            }
        };
        self.events.iter().filter(text).count()
    }
}

#[tokio::test]
async fn what_a_channel_is_served_ends_and_is_charged_what_it_produced() {
    let documents = Documents::new()
        .model("m", "mock")
        .limited("c", wide())
        .limited("d", wide());
    let gateway = Gateway::with(documents).workers(2).start().await;
    let held = json!({ "tokens": 40, "hold": 7 });
    let flowing = json!({ "tokens": 5_000, "interval": "20ms" });
    let mut other = Running::start(&gateway, &chat("d", held.clone()), 3).await;
    let mut standing = Running::start(&gateway, &chat("c", held.clone()), 3).await;
    let mut streaming = Running::start(&gateway, &chat("c", flowing), 3).await;
    let messages = json!({ "model": "m", "max_tokens": 5_000, "stream": true, "mock": held,
        "messages": [{ "role": "user", "content": " hello" }] });
    let messages = Request::post("/v1/messages", &messages).channel("c");
    let mut anthropic = Running::start(&gateway, &messages, 1).await;
    let mut waiting = Connection::open(gateway.address()).await.unwrap();
    let late = chat("c", json!({ "latency": "100s" })).set("stream", false);
    waiting.write(&late.to_bytes()).await.unwrap();
    wait_until("five requests in flight", PATIENCE, || {
        gateway.region().inflight(10).len() == 5 && gateway.mock.stats().total().requests == 5
    })
    .await;

    act(&gateway, "channels/c/end-streams", json!({ "reason": "a test" })).await;

    for running in [&mut standing, &mut streaming] {
        running.end().await;
        let last = running.events.last().unwrap().json();
        assert_eq!(last["error"]["code"], "ended_by_operator", "{last}");
        assert!(running.connection.is_reusable());
    }
    anthropic.end().await;
    let last = anthropic.events.last().unwrap();
    assert_eq!(
        (last.name.as_deref(), &last.json()["error"]["type"]),
        (Some("error"), &json!("ended_by_operator"))
    );
    let head = waiting.read_head("POST").await.unwrap();
    let body: Value = serde_json::from_slice(&waiting.read_body().await.unwrap()).unwrap();
    assert_eq!(
        (head.status, &body["error"]["code"]),
        (503, &json!("ended_by_operator"))
    );

    let entries = access::entries(&gateway.nginx, "c", 4).await;
    assert!(
        entries.iter().all(|entry| entry.get("decision") == "ended"),
        "{entries:?}"
    );
    let mut charged: Vec<u64> = entries.iter().map(|entry| entry.number("output")).collect();
    let mut passed: Vec<u64> = [&standing, &streaming, &anthropic]
        .map(|running| running.texts() as u64)
        .to_vec();
    passed.push(0);
    charged.sort_unstable();
    passed.sort_unstable();
    assert_eq!(charged, passed, "each is charged what passed");
    assert!(entries.iter().all(|entry| entry.number("input") > 0));

    // The other channel's goes on to its end, and so does what begins now.
    let release = http::send(gateway.mock.address(), &Request::new("POST", "/mock/release")).await;
    assert_eq!(release.unwrap().status(), 200);
    other.end().await;
    assert_eq!(
        (other.texts(), other.events.last().unwrap().is_done()),
        (40, true)
    );
    let mut fresh = Running::start(&gateway, &chat("c", json!({ "tokens": 9 })), 1).await;
    fresh.end().await;
    assert_eq!((fresh.texts(), fresh.events.last().unwrap().is_done()), (9, true));

    // It was no fault of the deployment's.
    let trouble = gateway.daemon.get("/deployments?trouble=true").await;
    assert_eq!(trouble["deployments"], json!([]), "{trouble}");
    gateway.wait_idle().await;
    let used: u64 = access::entries(&gateway.nginx, "c", 5)
        .await
        .iter()
        .map(|entry| entry.number("input") + entry.number("output"))
        .sum();
    assert_eq!(gateway.used("c", "total_tokens/10m").await, used);
    let audit = gateway.daemon.get("/audit?limit=5").await.to_string();
    assert!(
        audit.contains("channels/c/end-streams") && audit.contains("a test"),
        "{audit}"
    );
    gateway.stop().await;
}

#[tokio::test]
async fn a_blocked_channel_is_refused_and_what_runs_ends_with_it() {
    let documents = Documents::new().model("m", "mock").limited("c", wide());
    let gateway = Gateway::with(documents).workers(2).start().await;
    let mut running = Running::start(&gateway, &chat("c", json!({ "tokens": 40, "hold": 5 })), 2).await;
    act(&gateway, "channels/c/block", json!({ "end_streams": true })).await;
    running.end().await;
    let last = running.events.last().unwrap().json();
    assert_eq!(last["error"]["code"], "ended_by_operator", "{last}");
    let answer = gateway.send(&chat("c", json!({}))).await;
    assert_eq!(answer.status(), 403, "{}", answer.text());
    act(&gateway, "channels/c/unblock", json!({})).await;
    wait_for("the channel to be served", PATIENCE, || async {
        let answer = gateway.send(&chat("c", json!({ "tokens": 2 }))).await;
        (answer.status() == 200).then_some(())
    })
    .await;
    gateway.stop().await;
}

#[tokio::test]
async fn a_reset_limit_begins_anew_and_nothing_of_before_touches_it() {
    let template =
        json!({ "name": "t", "limits": [{ "metric": "total_tokens", "max": 1_000, "window": "10m" }] });
    let documents = Documents::new()
        .model("m", "mock")
        .template(template)
        .channel(json!({ "code": "c", "trusted": true, "extends": "t" }))
        .channel(json!({ "code": "d", "trusted": true, "extends": "t" }));
    let gateway = Gateway::with(documents).workers(2).start().await;
    let ask = |channel: &str, tokens: u64| {
        chat(channel, json!({ "tokens": tokens }))
            .set("stream", false)
            .set("max_tokens", tokens)
    };
    // A stream that holds a reservation of 400 and will use 20 of it.
    let held = chat("c", json!({ "tokens": 20, "hold": 5 })).set("max_tokens", 400);
    let mut running = Running::start(&gateway, &held, 2).await;
    for channel in ["c", "d"] {
        assert_eq!(gateway.send(&ask(channel, 500)).await.status(), 200);
    }
    let refused = gateway.send(&ask("c", 500)).await;
    // Output is clamped to what is left, so it is the input that does not fit in the end.
    assert!(refused.status() == 429 || refused.json()["usage"]["completion_tokens"].as_u64() < Some(500));
    wait_for("the limit to be full", PATIENCE, || async {
        (gateway.send(&ask("c", 500)).await.status() == 429).then_some(())
    })
    .await;

    let limit = "total_tokens/10m";
    act(&gateway, "channels/c/limits/reset", json!({ "limit": limit })).await;
    let answer = gateway.send(&ask("c", 500)).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    let usage = answer.json()["usage"]["total_tokens"].as_u64().unwrap();
    wait_until("the answer to be settled, with the stream left", PATIENCE, || {
        gateway.region().inflight(10).len() == 1
    })
    .await;
    assert_eq!(gateway.used("c", limit).await, usage, "of before nothing counts");
    let release = http::send(gateway.mock.address(), &Request::new("POST", "/mock/release")).await;
    assert_eq!(release.unwrap().status(), 200);
    running.end().await;
    gateway.wait_idle().await;
    assert_eq!(
        gateway.used("c", limit).await,
        usage,
        "what was returned belongs to before"
    );
    assert!(
        gateway.used("d", limit).await > 500,
        "the other channel keeps its usage"
    );

    let wrong = Request::post(
        "/api/v1/emergency/channels/c/limits/reset",
        &json!({ "limit": "total_tokens/20m" }),
    );
    let wrong = gateway.daemon.api(wrong).await;
    assert_eq!(wrong.status(), 422);
    assert!(wrong.text().contains("total_tokens/10m"), "{}", wrong.text());
    gateway.stop().await;
}

#[tokio::test]
async fn a_topped_up_limit_has_its_maximum_again_in_the_end() {
    let limits = json!([{ "metric": "requests", "max": 2, "window": "10m", "name": "few" }]);
    let documents = Documents::new().model("m", "mock?tokens=1").limited("c", limits);
    let gateway = Gateway::with(documents).workers(2).start().await;
    let statuses = async |count: usize| {
        let mut all = Vec::new();
        for _ in 0..count {
            all.push(
                gateway
                    .send(&chat("c", json!({})).set("stream", false))
                    .await
                    .status(),
            );
        }
        all
    };
    assert_eq!(statuses(3).await, [200, 200, 429]);
    let body = json!({ "limit": "few", "add": 3, "for": "1h" });
    act(&gateway, "channels/c/limits/top-up", body).await;
    assert_eq!(
        statuses(4).await,
        [200, 200, 200, 429],
        "what was used before counts"
    );
    let body = json!({ "limit": "few", "add": 1_000, "for": "1s" });
    act(&gateway, "channels/c/limits/top-up", body).await;
    wait_for("the written maximum", PATIENCE, || async {
        let limits = gateway.daemon.get("/channels/c/limits").await;
        (limits["limits"][0]["max"] == 2).then_some(())
    })
    .await;
    wait_for("a refusal", PATIENCE, || async {
        (statuses(1).await == [429]).then_some(())
    })
    .await;
    gateway.stop().await;
}

#[tokio::test]
async fn in_maintenance_everybody_is_told_when_to_come_again() {
    let documents = Documents::new().model("m", "mock").limited("c", wide());
    let gateway = Gateway::with(documents).workers(2).start().await;
    let mut running = Running::start(&gateway, &chat("c", json!({ "tokens": 30, "hold": 5 })), 2).await;
    let body = json!({ "on": true, "message": "we move house", "retry_after": "2m" });
    act(&gateway, "maintenance", body).await;
    let answer = wait_for("maintenance", PATIENCE, || async {
        let answer = gateway.send(&chat("nobody", json!({}))).await;
        (answer.status() == 503).then_some(answer)
    })
    .await;
    assert_eq!(answer.header("retry-after"), Some("120"));
    let error = &answer.json()["error"];
    assert_eq!(
        (&error["code"], &error["message"]),
        (&json!("maintenance"), &json!("we move house"))
    );
    let messages = Request::post("/v1/messages", &json!({})).channel("c");
    let answer = gateway.send(&messages).await;
    assert_eq!(answer.status(), 503);
    assert_eq!(answer.json()["error"]["type"], "overloaded_error");
    let health = gateway.send(&Request::get("/tollgate/health")).await;
    assert_eq!(
        (health.status(), &health.json()["status"]),
        (200, &json!("maintenance"))
    );
    let health = gateway.daemon.get("/health").await;
    assert_eq!(health["maintenance"], true);
    assert_eq!(
        gateway.daemon.get("/emergency").await["maintenance"]["retry_after"],
        "2m"
    );

    // What runs goes on.
    let release = http::send(gateway.mock.address(), &Request::new("POST", "/mock/release")).await;
    assert_eq!(release.unwrap().status(), 200);
    running.end().await;
    assert_eq!(
        (running.texts(), running.events.last().unwrap().is_done()),
        (30, true)
    );
    act(&gateway, "maintenance", json!({ "on": false })).await;
    wait_for("the gateway to serve", PATIENCE, || async {
        let answer = gateway.send(&chat("c", json!({ "tokens": 2 }))).await;
        (answer.status() == 200).then_some(())
    })
    .await;
    gateway.stop().await;
}
