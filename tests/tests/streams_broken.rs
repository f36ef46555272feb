//! Upstreams that break off, lie, say nothing or speak something else: the client is told, and the bill is right.

use serde_json::json;
use tollgate_tests::access;
use tollgate_tests::documents::Documents;
use tollgate_tests::gateway::Gateway;
use tollgate_tests::http::{self, Connection, Request};
use tollgate_tests::mock::words;

fn limits() -> serde_json::Value {
    json!([{ "metric": "total_tokens", "max": 100_000_000, "window": "10m" }])
}

fn documents(upstream_model: &str) -> Documents {
    Documents::new().model("m", upstream_model).limited("c", limits())
}

fn chat() -> Request {
    Request::chat("m", " hello the water is clear").channel("c")
}

fn messages() -> Request {
    let body = json!({ "model": "m", "max_tokens": 1_000, "stream": true,
        "messages": [{ "role": "user", "content": " hello" }] });
    Request::post("/v1/messages", &body).channel("c")
}

#[tokio::test]
async fn a_stream_whose_upstream_dies_ends_with_an_error_event() {
    // The pauses give the gateway the time to read something before a reset.
    for fault in ["close=mid&at=10", "reset=mid&at=10&interval=20ms"] {
        for split in ["", "&split=1"] {
            let gateway = Gateway::with(documents(&format!("mock?tokens=40&{fault}{split}")))
                .start()
                .await;
            let mut connection = Connection::open(gateway.address()).await.unwrap();
            let answer = connection.exchange(&chat().set("stream", true)).await.unwrap();
            assert_eq!(answer.status(), 200);
            let events = answer.events();
            let error = events.last().unwrap().json();
            assert_eq!(error["error"]["code"], "upstream_error", "{fault}: {error}");
            let texts = events.iter().filter(|event| {
                event.json()["choices"][0]["delta"]["content"]
                    .as_str()
                    .is_some_and(|it| !it.is_empty())
            });
            let passed = texts.count() as u64;
            // A reset takes with it what the gateway had not read yet.
            let produced = gateway.mock.stats().total().completion_tokens;
            assert!(passed == produced || fault.starts_with("reset") && passed < produced);
            assert!(connection.is_reusable());

            let answer = gateway.send(&messages()).await;
            let events = answer.events();
            assert_eq!(
                events.last().unwrap().name.as_deref(),
                Some("error"),
                "{}",
                answer.text()
            );
            let entries = access::entries(&gateway.nginx, "c", 2).await;
            assert_eq!(
                (entries[0].number("output"), entries[0].get("source")),
                (passed, "counted")
            );
            gateway.wait_idle().await;
            gateway.stop().await;
        }
    }
}

#[tokio::test]
async fn an_unfinished_event_of_a_dead_upstream_is_not_passed_on() {
    let gateway = Gateway::with(documents("mock?tokens=40&garbage=mid&at=10"))
        .start()
        .await;
    let answer = gateway.send(&chat().set("stream", true)).await;
    assert_eq!(answer.status(), 200);
    // The mock's garbage ends like an event: it is the upstream's word and passes, then comes ours.
    let events = answer.events();
    assert!(
        events.last().unwrap().json()["error"].is_object(),
        "{}",
        answer.text()
    );
    let entry = access::entries(&gateway.nginx, "c", 1).await.remove(0);
    assert_eq!(
        entry.number("output"),
        gateway.mock.stats().total().completion_tokens
    );
    gateway.stop().await;
}

#[tokio::test]
async fn an_upstreams_own_error_event_passes() {
    let gateway = Gateway::with(documents("mock?tokens=40&fail=mid&at=10"))
        .start()
        .await;
    let answer = gateway.send(&chat().set("stream", true)).await;
    let events = answer.events();
    assert_eq!(
        events.last().unwrap().json()["error"]["message"],
        "the mock was asked to fail"
    );
    let entry = access::entries(&gateway.nginx, "c", 1).await.remove(0);
    let produced = gateway.mock.stats().total().completion_tokens;
    assert_eq!(
        (entry.number("output"), entry.get("source")),
        (produced, "counted")
    );
    gateway.stop().await;
}

#[tokio::test]
async fn what_is_no_answer_at_all_becomes_a_clear_error() {
    for (fault, status) in [
        ("garbage=before", 502),
        ("reset=before", 502),
        ("close=before", 502),
    ] {
        let gateway = Gateway::with(documents(&format!("mock?{fault}"))).start().await;
        for stream in [false, true] {
            let answer = gateway.send(&chat().set("stream", stream)).await;
            assert_eq!(answer.status(), status, "{fault}");
            let value = answer.json();
            assert_eq!(value["error"]["code"], "upstream_unreachable", "{fault}: {value}");
            assert_eq!(
                value["request_id"].as_str(),
                answer.header("x-request-id"),
                "{value}"
            );
        }
        let answer = gateway.send(&messages()).await;
        assert_eq!(
            (answer.status(), &answer.json()["type"]),
            (status, &json!("error")),
            "{fault}"
        );
        for entry in access::entries(&gateway.nginx, "c", 3).await {
            assert_eq!(
                (entry.number("input"), entry.number("output")),
                (0, 0),
                "{fault}: {entry:?}"
            );
        }
        gateway.wait_idle().await;
        gateway.stop().await;
    }
}

#[tokio::test]
async fn an_upstreams_refusal_passes_and_costs_nothing() {
    let gateway = Gateway::with(documents("mock?status=400")).start().await;
    let answer = gateway.send(&chat()).await;
    assert_eq!(answer.status(), 400);
    assert_eq!(answer.json()["error"]["message"], "the mock was asked to fail");
    let entry = access::entries(&gateway.nginx, "c", 1).await.remove(0);
    assert_eq!(entry.charged(), (0, 0, "none"));
    gateway.stop().await;
}

#[tokio::test]
async fn a_plain_answer_cut_short_is_seen_as_such_and_charged_for_its_text() {
    let gateway = Gateway::with(documents("mock?tokens=200&close=mid"))
        .start()
        .await;
    let error = http::send(gateway.address(), &chat()).await.unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::UnexpectedEof);
    let entry = access::entries(&gateway.nginx, "c", 1).await.remove(0);
    let (input, output, source) = entry.charged();
    assert!(
        source == "counted" && input > 0 && (1..=200).contains(&output),
        "{entry:?}"
    );
    gateway.stop().await;
}

#[tokio::test]
async fn without_usage_the_count_is_exactly_tiktokens() {
    let prompt = "Wie kalt ist das Wasser? 水有多冷? 🧊🧊 fn main() { println!(\"{}\", 1_000); }";
    for usage in ["no", "null"] {
        let gateway = Gateway::with(documents(&format!("mock?tokens=77&usage={usage}&split=1..7")))
            .start()
            .await;
        for stream in [false, true] {
            let answer = gateway
                .send(&Request::chat("m", prompt).channel("c").set("stream", stream))
                .await;
            assert_eq!(answer.status(), 200, "{}", answer.text());
        }
        let total = gateway.mock.stats().total();
        assert_eq!(total.completion_tokens, 2 * 77);
        let input = 3 + words::count("user") + words::count(prompt) + 3;
        for entry in access::entries(&gateway.nginx, "c", 2).await {
            assert_eq!(entry.charged(), (input, 77, "counted"), "usage={usage}");
        }
        gateway.stop().await;
    }
}

#[tokio::test]
async fn usage_that_contradicts_the_reservation_is_flagged_and_becomes_a_debt() {
    let documents = Documents::new()
        .model("m", "mock?tokens=50&ignore_max=yes&usage=lie:3")
        .limited(
            "c",
            json!([{ "metric": "output_tokens", "max": 1_000, "window": "10m" }]),
        );
    let gateway = Gateway::with(documents).start().await;
    assert_eq!(gateway.send(&chat().set("max_tokens", 50)).await.status(), 200);
    let entry = access::entries(&gateway.nginx, "c", 1).await.remove(0);
    assert_eq!((entry.number("output"), entry.get("source")), (150, "upstream"));
    tollgate_tests::wait::wait_for(
        "the request in the log",
        tollgate_tests::wait::PATIENCE,
        || async {
            let log = gateway.daemon.get("/requests?channel=c").await;
            let line = log["requests"].get(0)?.clone();
            assert!(line["flags"].as_str().unwrap().contains("suspicious"), "{line}");
            assert_eq!(line["debt_tokens"], 100, "{line}");
            Some(())
        },
    )
    .await;
    let metrics = gateway.daemon.api(Request::get("/metrics")).await.text();
    assert!(metrics.contains("tollgate_suspicious_usage_total 1"), "{metrics}");
    gateway.stop().await;
}

#[tokio::test]
async fn a_compressed_answer_is_never_free() {
    let gateway = Gateway::with(documents("mock?tokens=500&gzip=yes")).start().await;
    for stream in [false, true] {
        let answer = gateway
            .send(&chat().set("stream", stream).set("max_tokens", 500))
            .await;
        assert_eq!(
            (answer.status(), answer.header("content-encoding")),
            (200, Some("gzip"))
        );
        let mut plain = String::new();
        let mut decoder = flate2::read::GzDecoder::new(answer.body.as_slice());
        std::io::Read::read_to_string(&mut decoder, &mut plain).unwrap();
        assert!(plain.contains(" hello"));
        let asked = gateway.mock.stats().last().unwrap();
        assert_eq!(asked.header("accept-encoding"), None);
    }
    for entry in access::entries(&gateway.nginx, "c", 2).await {
        let (input, output, source) = entry.charged();
        assert!(input > 0 && output >= 500, "{entry:?}");
        assert_eq!(source, "estimated");
    }
    gateway.stop().await;
}
