//! Event streams on their way to the client: not a byte changed, not an event delayed, not more held than needed.

use serde_json::json;
use std::time::Duration;
use tollgate_tests::access;
use tollgate_tests::documents::Documents;
use tollgate_tests::gateway::Gateway;
use tollgate_tests::http::{self, Connection, Request};
use tollgate_tests::mock::{MockLlm, words};
use tollgate_tests::process;
use tollgate_tests::sse::SseReader;
use tollgate_tests::wait::{PATIENCE, wait_for, wait_until};

const APIS: [&str; 4] = [
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/messages",
    "/v1/responses",
];

fn documents(upstream_model: &str) -> Documents {
    Documents::new().model("m", upstream_model).limited(
        "c",
        json!([{ "metric": "total_tokens", "max": 1_000_000_000, "window": "10m" }]),
    )
}

/// A streaming request that asks for usage, so that nothing has to be taken out of the answer.
fn streaming(path: &str) -> Request {
    let mut body = json!({ "model": "m", "max_tokens": 9, "stream": true });
    match path {
        "/v1/completions" => body["prompt"] = json!(" hello"),
        "/v1/responses" => {
            body["input"] = json!(" hello");
            body["max_output_tokens"] = json!(9);
        }
        _ => body["messages"] = json!([{ "role": "user", "content": " hello" }]),
    }
    if path.ends_with("completions") {
        body["stream_options"] = json!({ "include_usage": true });
    }
    Request::post(path, &body).channel("c")
}

/// Without the clock: two answers may begin in different seconds.
fn timeless(body: &[u8]) -> String {
    let mut out = String::new();
    let text = String::from_utf8_lossy(body);
    let mut rest = &*text;
    while let Some(at) = rest.find("\"created") {
        let (before, behind) = rest.split_at(at);
        out.push_str(before);
        rest = &behind[behind.find([',', '}']).unwrap_or(behind.len())..];
    }
    out + rest
}

#[tokio::test]
async fn every_way_of_cutting_arrives_unchanged_and_is_counted() {
    const OPTIONS: [&str; 7] = [
        "split=1",
        "wire=1",
        "split=2..9&seed=3",
        "eol=crlf&split=1",
        "eol=cr&comments=yes",
        "comments=yes&split=3..5",
        "chunks=2&framing=close",
    ];
    for options in OPTIONS {
        let model = format!("mock?tokens=20&{options}");
        let gateway = Gateway::with(documents(&model)).start().await;
        for path in APIS {
            let request = streaming(path);
            let direct = http::send(
                gateway.mock.address(),
                &request.clone().set("model", model.as_str()),
            )
            .await
            .unwrap();
            let through = gateway.send(&request).await;
            assert_eq!(through.status(), 200);
            assert_eq!(
                timeless(&through.body),
                timeless(&direct.body),
                "{path} {options}"
            );
            assert_eq!(through.header("content-type"), Some("text/event-stream"));
        }
        let half = gateway.mock.stats().total();
        for entry in access::entries(&gateway.nginx, "c", APIS.len()).await {
            let input = half.prompt_tokens / 2 / APIS.len() as u64;
            assert!(
                entry.number("input").abs_diff(input) <= 8,
                "{entry:?} {input} {options}"
            );
            assert_eq!(
                (entry.number("output"), entry.get("source")),
                (9, "upstream"),
                "{options}"
            );
        }
        gateway.stop().await;
    }
}

#[tokio::test]
async fn each_event_leaves_before_the_next_one_comes() {
    let gateway = Gateway::with(documents("mock?hang=mid&at=4")).start().await;
    for path in APIS {
        let mut connection = Connection::open(gateway.address()).await.unwrap();
        assert_eq!(connection.send(&streaming(path)).await.unwrap().status, 200);
        // The mock is silent after four events: all four must have been passed on.
        let mut reader = SseReader::default();
        let mut events = 0;
        while events < 4 {
            let piece = tokio::time::timeout(PATIENCE, connection.piece())
                .await
                .expect("no event is held back");
            events += reader.feed(&piece.unwrap().unwrap()).len();
        }
        assert!(reader.is_between_events());
    }
    gateway.wait_idle().await;
    gateway.stop().await;
}

#[tokio::test]
async fn the_usage_chunk_reaches_those_who_asked_for_it() {
    let gateway = Gateway::with(documents("mock?tokens=6")).start().await;
    let base = || streaming("/v1/chat/completions");
    let off = [
        base().set("stream_options", json!(null)),
        base().set("stream_options", json!({})),
        base().set("stream_options", json!({ "include_usage": false })),
        base().set("stream_options", json!({ "other": true })),
    ];
    for request in &off {
        let answer = gateway.send(request).await;
        let events = answer.events();
        assert!(events.last().unwrap().is_done());
        for event in events.iter().filter(|event| !event.is_done()) {
            let event = event.json();
            assert!(
                event["choices"]
                    .as_array()
                    .is_some_and(|choices| !choices.is_empty()),
                "{event}"
            );
            assert!(event["usage"].is_null(), "{event}");
        }
        let asked = gateway.mock.stats().last().unwrap().json().unwrap();
        assert_eq!(
            asked["stream_options"]["include_usage"], true,
            "the upstream is asked in any case"
        );
    }
    let answer = gateway.send(&base()).await;
    let with_usage = answer
        .events()
        .iter()
        .filter(|event| !event.is_done() && event.json()["usage"].is_object())
        .count();
    assert_eq!(with_usage, 1);
    for entry in access::entries(&gateway.nginx, "c", off.len() + 1).await {
        assert_eq!((entry.number("output"), entry.get("source")), (6, "upstream"));
    }
    gateway.stop().await;
}

#[tokio::test]
async fn an_upstream_that_sends_usage_unasked_shows_it_only_to_those_who_asked() {
    let gateway = Gateway::with(documents("mock?tokens=6&usage=always&split=1"))
        .start()
        .await;
    let answer = gateway
        .send(&streaming("/v1/chat/completions").set("stream_options", json!(null)))
        .await;
    assert!(!answer.text().contains("total_tokens"), "{}", answer.text());
    assert!(answer.events().last().unwrap().is_done());
    gateway.stop().await;
}

#[tokio::test]
async fn an_event_of_10_megabytes_passes_and_is_not_held() {
    const SIZE: usize = 10_000_000;
    let gateway = Gateway::with(documents(&format!("mock?tokens=3&big_event={SIZE}")))
        .start()
        .await;
    let worker = gateway.nginx.workers()[0];
    let request = streaming("/v1/chat/completions");
    gateway.send(&Request::get("/v1/models").channel("c")).await;
    let before = process::memory(worker);
    let answer = gateway.send(&request).await;
    let text: String = answer
        .events()
        .iter()
        .filter(|event| !event.is_done())
        .filter_map(|event| {
            event.json()["choices"][0]["delta"]["content"]
                .as_str()
                .map(str::to_owned)
        })
        .collect();
    assert_eq!(text, words::text(0, 3) + &" hello".repeat(SIZE / 6));
    let grown = process::memory(worker).saturating_sub(before);
    assert!(grown < 4 << 20, "the worker has grown by {grown} bytes");
    // The upstream tells the usage, whatever the gateway could not read.
    let entry = access::entries(&gateway.nginx, "c", 2).await.remove(1);
    assert_eq!(entry.charged().2, "upstream", "{entry:?}");
    gateway.stop().await;
}

#[tokio::test]
async fn a_big_event_of_an_upstream_that_tells_no_usage_is_estimated() {
    let gateway = Gateway::with(documents("mock?tokens=3&usage=no&big_event=1000000"))
        .start()
        .await;
    let answer = gateway.send(&streaming("/v1/chat/completions")).await;
    assert_eq!(answer.status(), 200);
    let entry = access::entries(&gateway.nginx, "c", 1).await.remove(0);
    let (_, output, source) = entry.charged();
    assert_eq!(source, "estimated");
    let truth = 1_000_000 / 6 + 3;
    assert!((truth / 2..=truth * 3).contains(&output), "{output} of {truth}");
    gateway.stop().await;
}

#[tokio::test]
async fn a_slow_client_holds_back_the_upstream_and_not_the_workers_memory() {
    const TOKENS: u64 = 6_000_000;
    let gateway = Gateway::with(
        Documents::new()
            .model_value(json!({ "name": "m", "max_output_tokens": TOKENS, "default_max_tokens": TOKENS,
                "deployments": [{ "provider": "mock", "upstream_model": format!("mock?tokens={TOKENS}&chunks=3000") }] }))
            .limited("c", json!([{ "metric": "requests", "max": 100, "window": "10m" }])),
    )
    .start()
    .await;
    let worker = gateway.nginx.workers()[0];
    let stats = gateway.mock.stats();
    let mut connection = Connection::open(gateway.address()).await.unwrap();
    rustix::net::sockopt::set_socket_recv_buffer_size(connection.stream(), 64 << 10).unwrap();
    let before = process::memory(worker);
    let request = Request::chat("m", " hello").channel("c").set("stream", true);
    assert_eq!(connection.send(&request).await.unwrap().status, 200);
    // The client reads nothing: everybody must come to a stop long before the end.
    let mut last = (0, 0);
    wait_for("the upstream to be held back", PATIENCE, || {
        let sent = stats.total().completion_tokens;
        last = if sent > 0 && sent == last.0 {
            (sent, last.1 + 1)
        } else {
            (sent, 0)
        };
        std::future::ready((last.1 == 100).then_some(()))
    })
    .await;
    assert!(last.0 < TOKENS * 3 / 4, "{} tokens are on their way", last.0);
    let grown = process::memory(worker).saturating_sub(before);
    assert!(grown < 4 << 20, "the worker has grown by {grown} bytes");
    // Now it reads on, and nothing is missing.
    let mut reader = SseReader::default();
    let (mut bytes, mut done, mut position) = (0, false, 0);
    while let Some(piece) = tokio::time::timeout(PATIENCE, connection.piece())
        .await
        .unwrap()
        .unwrap()
    {
        bytes += piece.len();
        for event in reader.feed(&piece) {
            if event.is_done() {
                done = true;
            } else if let Some(text) = event.json()["choices"][0]["delta"]["content"]
                .as_str()
                .filter(|it| !it.is_empty())
            {
                assert!(
                    words::text(position, TOKENS / 3000) == text,
                    "after {bytes} bytes"
                );
                position += TOKENS / 3000;
            }
        }
    }
    assert!(done && position == TOKENS, "{position}");
    let entry = access::entries(&gateway.nginx, "c", 1).await.remove(0);
    assert_eq!(
        (entry.number("output"), entry.get("source")),
        (TOKENS, "upstream")
    );
    gateway.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_ends_the_upstream_and_pays_for_what_was_produced() {
    let gateway = Gateway::with(documents("mock?endless=yes&interval=5ms"))
        .start()
        .await;
    let mut connection = Connection::open(gateway.address()).await.unwrap();
    let request = streaming("/v1/chat/completions").set("max_tokens", 10_000);
    assert_eq!(connection.send(&request).await.unwrap().status, 200);
    let mut reader = SseReader::default();
    let mut events = 0;
    while events < 10 {
        events += reader.feed(&connection.piece().await.unwrap().unwrap()).len();
    }
    drop(connection);
    let stats = gateway.mock.stats();
    wait_until("the upstream to be closed", PATIENCE, || {
        stats.total().aborted == 1
    })
    .await;
    gateway.wait_idle().await;
    let entry = access::entries(&gateway.nginx, "c", 1).await.remove(0);
    let produced = stats.total().completion_tokens;
    let (_, output, source) = entry.charged();
    assert_eq!(source, "counted");
    // What the mock wrote last may not have been read any more.
    assert!((9..=produced).contains(&output), "{output} of {produced}");
    gateway.stop().await;
}

/// For comparison: what is asserted above about the mock itself.
#[tokio::test]
async fn the_mock_hangs_where_it_should() {
    let mock = MockLlm::start().await;
    let mut connection = Connection::open(mock.address()).await.unwrap();
    let request = streaming("/v1/chat/completions").set("model", "mock?hang=mid&at=4");
    connection.send(&request).await.unwrap();
    let mut reader = SseReader::default();
    let mut events = 0;
    while events < 4 {
        events += reader.feed(&connection.piece().await.unwrap().unwrap()).len();
    }
    let more = tokio::time::timeout(Duration::from_millis(50), connection.piece()).await;
    assert!(more.is_err() && events == 4);
}
