//! One worker under Valgrind through everything that goes well and wrong: no invalid access, no use of what was never
//! written, nothing lost. `make valgrind` runs it on an nginx whose pools are plain allocations.

use serde_json::json;
use std::path::Path;
use std::time::Duration;
use tollgate_tests::documents::Documents;
use tollgate_tests::gateway::Gateway;
use tollgate_tests::http::{Connection, Request};
use tollgate_tests::wait::{PATIENCE, wait_until};

const ROUNDS: u64 = 8;

fn documents(generation: u64) -> Documents {
    let limits = json!([
        { "metric": "connections", "max": 50 },
        { "metric": "requests", "max": 100_000 + generation, "window": "10m" },
        { "metric": "input_tokens", "max": 10_000_000, "window": "10m" },
        { "metric": "output_tokens", "max": 10_000_000, "window": "10m", "model": "m" },
        { "metric": "total_tokens", "max": 10_000_000, "window": "20m" },
    ]);
    Documents::new()
        .model("m", "mock")
        .limited("wechat001", limits)
        .limited("small", json!([{ "metric": "input_tokens", "max": 50, "window": "10m" }]))
        .limited("short", json!([{ "metric": "output_tokens", "max": 60, "window": "10m" }]))
        .rule(json!({
            "name": "no secrets", "priority": 10,
            "when": { "all": [ { "field": "body.messages.0.content", "op": "regex", "value": "top ?secret" } ] },
            "then": { "deny": { "status": 403, "code": "secret", "message": "not this" } },
        }))
}

fn chat() -> Request {
    Request::chat("m", " hello")
        .channel("wechat001")
        .set("max_tokens", 40)
}

fn with(options: serde_json::Value) -> Request {
    chat().set("mock", options)
}

/// Requests that are answered, with the status they get; 0 where the answer is cut off.
fn answered() -> Vec<(Request, u16)> {
    let stream = |options| (with(options).set("stream", true), 200);
    let raw = |body: &[u8]| {
        (
            Request::post_bytes("/v1/chat/completions", body.to_vec()).channel("wechat001"),
            400,
        )
    };
    let deep = [b"{\"model\":\"m\",\"messages\":".as_slice(), &[b'['; 5_000]].concat();
    let messages = |stream: bool| {
        let body = json!({ "model": "m", "max_tokens": 9, "stream": stream, "messages": [{ "role": "user", "content": "hi" }] });
        (Request::post("/v1/messages", &body).channel("wechat001"), 200)
    };
    vec![
        (chat(), 200),
        (chat().set("n", 3), 200),
        (
            chat()
                .set("stream_options", json!({ "include_usage": true }))
                .set("stream", true),
            200,
        ),
        messages(false),
        messages(true),
        (
            Request::post(
                "/v1/responses",
                &json!({ "model": "m", "input": "hi", "stream": true }),
            )
            .channel("wechat001"),
            200,
        ),
        (
            Request::post("/v1/embeddings", &json!({ "model": "m", "input": ["a", "b"] }))
                .channel("wechat001"),
            200,
        ),
        (Request::get("/v1/models").channel("wechat001"), 200),
        stream(json!({ "tokens": 30, "interval": "1ms" })),
        stream(json!({ "tokens": 9, "split": 1 })),
        stream(json!({ "tokens": 9, "wire": "1..9" })),
        stream(json!({ "tokens": 9, "gzip": true })),
        stream(json!({ "tokens": 9, "eol": "crlf", "comments": true, "usage": "no" })),
        stream(json!({ "tokens": 9, "done": "no" })),
        stream(json!({ "tokens": 90, "ignore_max": true })),
        stream(json!({ "big_event": 300_000 })),
        stream(json!({ "tokens": 9, "fail": "mid" })),
        (with(json!({ "usage": "no" })), 200),
        (with(json!({ "usage": "lie:40" })), 200),
        (with(json!({ "gzip": true })), 200),
        (with(json!({ "status": 429 })), 429),
        (with(json!({ "status": 500 })), 500),
        (with(json!({ "close": "before" })), 502),
        (with(json!({ "garbage": "before" })), 502),
        (with(json!({ "reset": "mid" })), 0),
        (with(json!({ "close": "mid" })).set("stream", true), 0),
        // Counted before it is sent on: the bound by bytes does not fit.
        (
            Request::chat("m", &" hello".repeat(40))
                .channel("small")
                .set("max_tokens", 5),
            0,
        ),
        (Request::chat("m", &" hello".repeat(400)).channel("small"), 429),
        (
            Request::chat("m", " hello").channel("short").set("stream", true),
            0,
        ),
        (
            Request::chat("m", &" hello".repeat(50_000)).channel("wechat001"),
            200,
        ),
        (Request::chat("m", "this is top secret").channel("wechat001"), 403),
        (Request::chat("other", " hello").channel("wechat001"), 404),
        (Request::chat("m", " hello").channel("nobody"), 401),
        (Request::chat("m", " hello"), 401),
        raw(b""),
        raw(b"{"),
        raw(b"{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"\xff\xfe\"}]}"),
        raw(b"{\"model\":\"m\",\"max_tokens\":1e999,\"messages\":[]}"),
        raw(b"{\"model\":7,\"messages\":[]}"),
        raw(&deep),
    ]
}

/// Clients that leave: before an answer, within a stream, within their own body.
async fn abort(gateway: &Gateway) {
    for (options, stream) in [
        (json!({ "latency": "100s" }), false),
        (json!({ "endless": true, "interval": "1ms" }), true),
        (json!({ "hang": "mid", "at": 3 }), true),
    ] {
        let mut connection = Connection::open(gateway.address()).await.unwrap();
        connection
            .write(&with(options).set("stream", stream).to_bytes())
            .await
            .unwrap();
        let stats = gateway.mock.stats();
        wait_until("the mock to have it", PATIENCE, || stats.total().in_flight > 0).await;
        if stream {
            connection.read_head("POST").await.unwrap();
            connection.piece().await.unwrap();
        }
        drop(connection);
        wait_until("the mock to notice", PATIENCE, || stats.total().in_flight == 0).await;
    }
    let mut connection = Connection::open(gateway.address()).await.unwrap();
    let bytes = chat().to_bytes();
    connection.write(&bytes[..bytes.len() - 5]).await.unwrap();
    drop(connection);
}

async fn round(gateway: &Gateway) {
    for (request, status) in answered() {
        let mut connection = Connection::open(gateway.address()).await.unwrap();
        let answer = tokio::time::timeout(PATIENCE, connection.exchange(&request))
            .await
            .expect("an end");
        match answer {
            Ok(answer) if status != 0 => assert_eq!(
                answer.status(),
                status,
                "{}: {}",
                String::from_utf8_lossy(&request.body[..request.body.len().min(300)]),
                answer.text()
            ),
            Err(error) if status != 0 => panic!("{error}: {request:?}"),
            _ => {}
        }
    }
    abort(gateway).await;
}

/// What Valgrind says about each process.
fn reports(folder: &Path) -> Vec<String> {
    let files = std::fs::read_dir(folder).expect("the reports' folder");
    files
        .map(|file| std::fs::read_to_string(file.expect("a file").path()).expect("a report"))
        .collect()
}

/// Allocations that were not freed when the process ended.
fn blocks_at_exit(report: &str) -> u64 {
    let line = report.lines().find(|line| line.contains("in use at exit:"));
    let blocks = line.and_then(|line| line.split(" bytes in ").nth(1)?.split(' ').next());
    let digits = blocks.expect("a heap summary").replace(',', "");
    digits.parse().expect("a number of blocks")
}

mod load {
    //! Needs the machine for itself: see tests/nextest.toml.

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    #[ignore = "needs an nginx built for it: make valgrind"]
    async fn a_worker_under_valgrind_touches_nothing_that_is_not_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let log = format!("--log-file={}/%p", folder.path().display());
        let suppressions = tollgate_tests::programs::root().join("tests/valgrind.supp");
        let suppressions = format!("--suppressions={}", suppressions.display());
        let valgrind = [
            "valgrind",
            "--leak-check=full",
            "--show-leak-kinds=definite",
            "--errors-for-leak-kinds=definite",
            "--num-callers=30",
            "--fair-sched=yes",
            &suppressions,
            &log,
        ];
        let gateway = Gateway::with(documents(0))
            .nginx(|config| config.wrapper(&valgrind))
            .start()
            .await;
        for number in 1..=ROUNDS {
            round(&gateway).await;
            if number.is_multiple_of(2) {
                gateway.publish(documents(number)).await;
            }
            if number == ROUNDS / 2 {
                gateway.nginx.reload().await;
            }
            gateway.advance(Duration::from_secs(1_200));
        }
        gateway.wait_idle().await;
        println!(
            "{} requests reached the mock",
            gateway.mock.stats().total().requests
        );
        gateway.stop().await;

        let reports = reports(folder.path());
        let summaries: Vec<&str> = reports
            .iter()
            .flat_map(|report| report.lines())
            .filter(|line| line.contains("ERROR SUMMARY") || line.contains("in use at exit:"))
            .collect();
        println!("{}", summaries.join("\n"));
        // The master and two generations of workers; what else it forked has a report as well.
        assert!(reports.len() >= 3, "{} reports", reports.len());
        for report in &reports {
            assert!(report.contains("ERROR SUMMARY: 0 errors"), "{report}");
            // Neither may anything be kept for each request: every worker has had over a hundred.
            assert!(blocks_at_exit(report) < 100, "{report}");
        }
    }
}
