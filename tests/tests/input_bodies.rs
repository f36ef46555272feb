//! Bodies that are not what they should be: a clear answer in the shape of the API that was called, and nothing of it
//! reaches a provider or is charged.

use serde_json::{Value, json};
use tollgate_tests::access;
use tollgate_tests::documents::Documents;
use tollgate_tests::gateway::Gateway;
use tollgate_tests::http::{Connection, Request, Response};
use tollgate_tests::mock::digest;
use tollgate_tests::raw::{RawServer, Say};

const CHAT: &str = "/v1/chat/completions";
const MIB: usize = 1 << 20;

fn documents() -> Documents {
    Documents::new().model("m", "mock?tokens=5").limited(
        "c",
        json!([{ "metric": "input_tokens", "max": 100_000, "window": "10m" }]),
    )
}

fn body(path: &str, bytes: impl Into<Vec<u8>>) -> Request {
    Request::post_bytes(path, bytes.into()).channel("c")
}

/// The message of an error of OpenAI's shape.
fn openai_error(answer: &Response) -> String {
    let value = answer.json();
    let error = &value["error"];
    assert_eq!(error["type"], "invalid_request_error", "{value}");
    assert!(error["code"].is_string(), "{value}");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(
        value["request_id"].as_str(),
        answer.header("x-request-id"),
        "{value}"
    );
    error["message"].as_str().unwrap_or_default().to_owned()
}

/// A body and what its refusal must name.
fn malformed() -> Vec<(Vec<u8>, &'static str)> {
    let member = |member: &str| format!(r#"{{"model":"m","messages":[],{member}}}"#).into_bytes();
    let deep = |count: usize| {
        let (open, close) = ("[".repeat(count), "]".repeat(count));
        member(&format!(r#""metadata":{open}{close}"#))
    };
    vec![
        (b"".to_vec(), "invalid JSON"),
        (b"{".to_vec(), "invalid JSON"),
        (br#"{"model":"m""#.to_vec(), "invalid JSON"),
        (br#"{"model":"m"} x"#.to_vec(), "invalid JSON"),
        (br#"{"model":"m",}"#.to_vec(), "invalid JSON"),
        (br#"{'model':'m'}"#.to_vec(), "invalid JSON"),
        (br#"["model","m"]"#.to_vec(), "must be an object"),
        (member(r#""user":"\x""#), "user: invalid JSON"),
        (member("\"user\":\"a\nb\""), "user: invalid JSON"),
        (member(r#""user":01"#), "user: invalid JSON"),
        (member(r#""user":NaN"#), "user: invalid JSON"),
        (deep(200), "metadata"),
        (deep(100_000), "metadata"),
        (
            b"{\"model\":\"m\",\"user\":\"\xff\"}".to_vec(),
            "user: invalid UTF-8",
        ),
        (b"{\"model\":\"\xed\xa0\x80\"}".to_vec(), "model: invalid UTF-8"),
        (member(r#""model":"other""#), "model: duplicate key"),
        (member(r#""mod\u0065l":"other""#), "duplicate key"),
        (member(r#""Model":"other""#), "Model: key must be in lower case"),
        (
            member(r#""max_tokens":1,"max_tokens":9"#),
            "max_tokens: duplicate key",
        ),
        (member(r#""tier":"a","tier":"b""#), "tier: duplicate key"),
        (br#"{"model":7}"#.to_vec(), "model: must be a string"),
        (br#"{"model":null}"#.to_vec(), "model: must be a string"),
        (member(r#""stream":"yes""#), "stream: must be true or false"),
        (
            member(r#""stream_options":3"#),
            "stream_options: must be an object",
        ),
        (
            member(r#""stream_options":{"include_usage":1}"#),
            "stream_options.include_usage",
        ),
        (member(r#""max_tokens":"many""#), "max_tokens: must be an integer"),
        (member(r#""max_tokens":-1"#), "max_tokens: must be at least 0"),
        (member(r#""max_tokens":1.5"#), "max_tokens: must be an integer"),
        (member(r#""max_tokens":1e999"#), "max_tokens: too large"),
        (
            member(r#""max_tokens":9223372036854775808"#),
            "max_tokens: too large",
        ),
        (
            member(r#""max_completion_tokens":18446744073709551616"#),
            "max_completion_tokens: too large",
        ),
        (member(r#""n":0"#), "n: must be at least 1"),
        (member(r#""n":-9223372036854775808"#), "n: must be at least 1"),
    ]
}

#[tokio::test]
async fn malformed_bodies_are_refused_by_the_field_at_fault() {
    let watched = json!({ "name": "tier", "when": { "field": "body.tier", "op": "eq", "value": "x" },
        "then": { "tag": "x" } });
    let gateway = Gateway::with(documents().rule(watched)).start().await;
    let cases = malformed();
    for (bytes, named) in &cases {
        let shown = String::from_utf8_lossy(&bytes[..bytes.len().min(80)]).into_owned();
        let answer = gateway.send(&body(CHAT, bytes.clone())).await;
        assert_eq!(answer.status(), 400, "{shown}: {}", answer.text());
        let message = openai_error(&answer);
        assert!(message.contains(named), "{shown}: {message}");
        assert!(message.len() < 300, "{shown}: {message}");
    }
    for entry in access::entries(&gateway.nginx, "c", cases.len()).await {
        assert_eq!((entry.status, entry.charged()), (400, (0, 0, "none")));
    }
    assert_eq!(gateway.mock.stats().total().requests, 0);
    let limits = gateway.daemon.get("/channels/c/limits").await;
    assert_eq!(limits["limits"][0]["used"], 0, "{limits}");
    // The same workers still serve.
    assert_eq!(
        gateway
            .send(&Request::chat("m", " hello").channel("c"))
            .await
            .status(),
        200
    );
    gateway.stop().await;
}

#[tokio::test]
async fn refusals_have_the_shape_of_anthropics_api_where_that_was_called() {
    let gateway = Gateway::with(documents()).start().await;
    for (bytes, status, kind) in [
        (
            r#"{"model":"m","max_tokens":-1,"messages":[]}"#,
            400,
            "invalid_request_error",
        ),
        (
            r#"{"model":"none","max_tokens":1,"messages":[]}"#,
            404,
            "not_found_error",
        ),
    ] {
        let answer = gateway.send(&body("/v1/messages", bytes)).await;
        let value = answer.json();
        assert_eq!(
            (answer.status(), &value["type"]),
            (status, &json!("error")),
            "{value}"
        );
        assert_eq!(value["error"]["type"], kind, "{value}");
        assert!(value["error"]["message"].is_string(), "{value}");
    }
    gateway.stop().await;
}

#[tokio::test]
async fn a_request_without_a_usable_model_is_told_so() {
    let gateway = Gateway::with(documents()).start().await;
    for (bytes, status, code) in [
        (r#"{"messages":[]}"#, 400, "model_required"),
        (r#"{"model":"none","messages":[]}"#, 404, "model_not_found"),
        (r#"{"model":"","messages":[]}"#, 404, "model_not_found"),
        (r#"{"model":"m\u0000","messages":[]}"#, 404, "model_not_found"),
    ] {
        let answer = gateway.send(&body(CHAT, bytes)).await;
        assert_eq!(answer.status(), status, "{bytes}: {}", answer.text());
        assert_eq!(answer.json()["error"]["code"], code, "{bytes}");
    }
    assert_eq!(gateway.mock.stats().total().requests, 0);
    gateway.stop().await;
}

#[tokio::test]
async fn unusual_but_valid_bodies_are_served() {
    let gateway = Gateway::with(documents()).start().await;
    let nested = format!("{}{}", "[".repeat(100), "]".repeat(100));
    for bytes in [
        r#"{"mod\u0065l":"\u006d","messages":[{"role":"user","content":"\ud83d\ude00 \u0000"}]}"#.to_owned(),
        "\r\n\t {\"messages\" : [ ] , \"model\" :\t\"m\"\n}\n ".to_owned(),
        r#"{"max_tokens":null,"stream":null,"n":1e0,"model":"m","messages":[]}"#.to_owned(),
        r#"{"model":"m","messages":[],"temperature":-1e-400,"seed":-9223372036854775808}"#.to_owned(),
        r#"{"user":"a","user":"b","model":"m","messages":[]}"#.to_owned(),
        format!(r#"{{"metadata":{nested},"model":"m","messages":[]}}"#),
    ] {
        let answer = gateway.send(&body(CHAT, bytes.clone())).await;
        assert_eq!(answer.status(), 200, "{bytes}: {}", answer.text());
        let arrived = gateway.mock.stats().last().unwrap();
        assert!(
            String::from_utf8_lossy(&arrived.body).contains(r#""mock?tokens=5""#),
            "{bytes}"
        );
    }
    gateway.stop().await;
}

/// A body of that length whose last member asks for 3 tokens: whoever reads it to its end knows.
fn long_body(length: usize) -> Vec<u8> {
    let head = r#"{"model":"m","messages":[{"role":"user","content":""#;
    let tail = r#""}],"max_tokens":3}"#;
    let mut bytes = head.as_bytes().to_vec();
    bytes.resize(length - tail.len(), b'x');
    bytes.extend_from_slice(tail.as_bytes());
    bytes
}

fn large(max_body_bytes: usize) -> Documents {
    Documents::new()
        .model_value(json!({ "name": "m", "max_body_bytes": max_body_bytes,
            "deployments": [{ "provider": "mock", "upstream_model": "mock?prompt_tokens=1" }] }))
        .limited(
            "c",
            json!([{ "metric": "requests", "max": 1_000, "window": "10m" }]),
        )
}

#[tokio::test]
async fn a_body_of_100_megabytes_is_served_or_refused_as_its_model_says() {
    let gateway = Gateway::with(large(128 * MIB)).start().await;
    let request = body(CHAT, long_body(100_000_000));
    let answer = gateway.send(&request).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(answer.json()["usage"]["completion_tokens"], 3);
    let arrived = gateway.mock.stats().last().unwrap();
    let length = 100_000_000 - "m".len() + "mock?prompt_tokens=1".len();
    assert_eq!(arrived.header("content-length"), Some(&*length.to_string()));

    gateway.publish(large(16 * MIB)).await;
    let answer = gateway.send(&request).await;
    assert_eq!(answer.status(), 413);
    assert_eq!(
        answer.json()["error"]["code"],
        "body_too_large",
        "{}",
        answer.text()
    );
    assert_eq!(gateway.mock.stats().total().requests, 1);
    gateway.stop().await;
}

#[tokio::test]
async fn a_body_beyond_its_buffer_is_rewritten_from_the_temporary_file() {
    let gateway = Gateway::with(large(16 * MIB)).start().await;
    let request = body(CHAT, long_body(3 * MIB));
    let answer = gateway.send(&request).await;
    assert_eq!(answer.status(), 200, "{}", answer.text());
    assert_eq!(answer.json()["usage"]["completion_tokens"], 3);
    let arrived = gateway.mock.stats().last().unwrap();
    assert!(
        arrived
            .body
            .starts_with(br#"{"model":"mock?prompt_tokens=1","messages":[{"role":"user","content":"xxx"#)
    );
    let length = 3 * MIB - "m".len() + "mock?prompt_tokens=1".len();
    assert_eq!(arrived.header("content-length"), Some(&*length.to_string()));
    assert!(gateway.nginx.error_log().contains("buffered to a temporary file"));
    gateway.stop().await;
}

#[tokio::test]
async fn a_large_body_changes_where_it_must_and_nowhere_else_at_every_attempt() {
    let broken = RawServer::start(|_| Say::answer("500 Internal Server Error", "", "{}")).await;
    let upstream = "mock?tokens=5&prompt_tokens=1";
    let documents = Documents::new()
        .openai("broken", &broken.url())
        .model_value(
            json!({ "name": "m", "routing": { "balance": "round_robin", "breaker": { "failures": 1_000 } },
            "deployments": [{ "id": "m/a", "provider": "broken", "upstream_model": upstream },
                { "id": "m/b", "provider": "mock", "upstream_model": upstream }] }),
        )
        .limited(
            "c",
            json!([{ "metric": "output_tokens", "max": 1_000_000, "window": "10m" }]),
        );
    let gateway = Gateway::with(documents).start().await;
    for size in [30_000, 40_000, 300_000, 3 * MIB / 2, 3 * MIB] {
        let text = r"ä\u00e4 ".repeat(size / 9);
        let of = |most: u64, options: &str, model: &str| {
            format!(
                r#" {{"max_tokens":{most},"stream":true,"messages":[{{"role":"user","content":"{text}"}}],"stream_options":{options},"model":"{model}" }}"#
            )
        };
        let sent = of(9_000_000, "{}", "m");
        // Every second one goes to the broken deployment first.
        for _ in 0..4 {
            let answer = gateway.send(&body(CHAT, sent.clone().into_bytes())).await;
            assert_eq!(answer.status(), 200, "{size}: {}", answer.text());
            let arrived = gateway.mock.stats().last().unwrap();
            let begin = String::from_utf8_lossy(&arrived.body[..40]).into_owned();
            let digits: String = begin.chars().filter(char::is_ascii_digit).collect();
            let most: u64 = digits.parse().unwrap();
            assert!(most < 1_000_000, "{begin}");
            let expected = of(most, r#"{"include_usage":true}"#, upstream);
            assert_eq!(
                arrived.whole,
                (expected.len(), digest(expected.as_bytes())),
                "{size}: {begin}"
            );
        }
    }
    assert!(broken.arrived().len() >= 8, "{}", broken.arrived().len());
    gateway.stop().await;
}

#[tokio::test]
async fn a_body_is_whole_however_it_was_cut() {
    let gateway = Gateway::with(documents()).start().await;
    let text =
        json!({ "model": "m", "max_tokens": 4, "messages": [{ "role": "user", "content": " hello" }] })
            .to_string();
    let expected: Value = serde_json::from_str(&text.replace(r#""m""#, r#""mock?tokens=5""#)).unwrap();
    let head = "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nchannelcode: c\r\n";
    let mut connection = Connection::open(gateway.address()).await.unwrap();
    // In one chunk, in chunks of a byte, with an extension and a trailer; each then byte by byte on the wire.
    let one = format!("{:x}\r\n{text}\r\n0\r\n\r\n", text.len());
    let many: String = text
        .chars()
        .map(|byte| format!("1;name=value\r\n{byte}\r\n"))
        .collect();
    let bodies = [
        format!("{head}Transfer-Encoding: chunked\r\n\r\n{one}"),
        format!("{head}Transfer-Encoding: chunked\r\n\r\n{many}0\r\nx-trailer: 1\r\n\r\n"),
        format!("{head}Content-Length: {}\r\n\r\n{text}", text.len()),
    ];
    for bytes in bodies {
        for segment in [bytes.len(), 1, 7] {
            for piece in bytes.as_bytes().chunks(segment) {
                connection.write(piece).await.unwrap();
            }
            let head = connection.read_head("POST").await.unwrap();
            let answer = connection.read_body().await.unwrap();
            assert_eq!(
                head.status,
                200,
                "{segment}: {bytes}: {}",
                String::from_utf8_lossy(&answer)
            );
            let arrived = gateway.mock.stats().last().unwrap();
            assert_eq!(arrived.json().unwrap(), expected);
            assert_eq!(arrived.header("transfer-encoding"), None);
        }
    }
    assert_eq!(gateway.mock.stats().total().completion_tokens, 9 * 4);
    gateway.stop().await;
}

#[tokio::test]
async fn a_body_that_never_ends_holds_no_limit() {
    let documents = documents().limited("one", json!([{ "metric": "connections", "max": 1 }]));
    let gateway = Gateway::with(documents).start().await;
    let mut slow = Connection::open(gateway.address()).await.unwrap();
    let head =
        "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nchannelcode: one\r\nContent-Length: 100\r\n\r\n{";
    slow.write(head.as_bytes()).await.unwrap();
    let request = Request::chat("m", " hello").channel("one");
    assert_eq!(gateway.send(&request).await.status(), 200);
    drop(slow);
    gateway.wait_idle().await;
    assert_eq!(gateway.send(&request).await.status(), 200);
    gateway.stop().await;
}
