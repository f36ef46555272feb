//! The mock behind a bare nginx: what it promises survives a proxy, and the harness tells what nginx does.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tollgate_tests::http::{self, Connection, Request};
use tollgate_tests::load::Load;
use tollgate_tests::mock::{End, MockLlm, words};
use tollgate_tests::nginx::{Config, Nginx};
use tollgate_tests::process;
use tollgate_tests::sse::SseReader;
use tollgate_tests::wait::{PATIENCE, wait_until};

fn proxy(mock: &MockLlm) -> Config {
    Nginx::config(
        "upstream mock { server {{mock}}; keepalive 64; }
         server {
             listen {{http}};
             client_max_body_size 200m;
             location / {
                 proxy_pass http://mock;
                 proxy_http_version 1.1;
                 proxy_set_header Connection '';
                 proxy_buffering off;
             }
         }",
    )
    .set("mock", mock.address())
}

fn text_of(response: &http::Response) -> String {
    let events = response.events();
    assert!(
        events.last().is_some_and(tollgate_tests::sse::Event::is_done),
        "{}",
        response.text()
    );
    events
        .iter()
        .filter(|event| !event.is_done())
        .filter_map(|event| {
            event.json()["choices"][0]["delta"]["content"]
                .as_str()
                .map(str::to_owned)
        })
        .collect()
}

#[tokio::test]
async fn every_way_of_cutting_arrives_whole() {
    let mock = MockLlm::start().await;
    let nginx = proxy(&mock).start().await;
    for options in [
        "split=1",
        "split=1..9&seed=7",
        "wire=1",
        "wire=2..50",
        "eol=crlf",
        "eol=cr&comments=yes",
        "framing=close",
        "chunks=2",
    ] {
        let request = Request::chat(&format!("mock?tokens=9&{options}"), " hello").set("stream", true);
        let response = http::send(nginx.address(), &request).await.unwrap();
        assert_eq!(text_of(&response), words::text(0, 9), "{options}");
    }
    let total = mock.stats().total();
    assert_eq!((total.completed, total.completion_tokens), (8, 72));
    nginx.stop().await;
}

#[tokio::test]
async fn the_mock_counts_what_tiktoken_counts() {
    let mock = MockLlm::start().await;
    let request = Request::chat("mock?tokens=40", "Wie kalt ist das Wasser? 水有多冷?").set("max_tokens", 30);
    let response = http::send(mock.address(), &request).await.unwrap().json();
    let text = response["choices"][0]["message"]["content"].as_str().unwrap();
    assert_eq!(words::count(text), 30);
    assert_eq!(response["usage"]["completion_tokens"], 30);
    let prompt = 3 + words::count("user") + words::count("Wie kalt ist das Wasser? 水有多冷?") + 3;
    assert_eq!(response["usage"]["prompt_tokens"], prompt);
    assert_eq!(mock.stats().total().prompt_tokens, prompt);
}

#[tokio::test]
async fn faults_look_like_faults() {
    let mock = MockLlm::start().await;
    let nginx = proxy(&mock).start().await;
    for (options, status) in [
        ("status=429&retry_after=3", Some(429)),
        ("reset=before", Some(502)),
        ("close=before", Some(502)),
        // What is not HTTP/1 at all, nginx takes for HTTP/0.9 and passes on as it is.
        ("garbage=before", None),
        ("close=mid", None),
        ("reset=mid", None),
    ] {
        let request = Request::chat(&format!("mock?{options}"), " hello");
        let answer = http::send(nginx.address(), &request).await;
        assert_eq!(answer.ok().map(|answer| answer.status()), status, "{options}");
    }
    let records = mock.stats().records();
    assert!(
        records.iter().all(|record| record.end == Some(End::Failed)),
        "{records:?}"
    );
    nginx.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_is_seen_by_the_mock() {
    let mock = MockLlm::start().await;
    let nginx = proxy(&mock).start().await;
    for options in [
        "hang=head",
        "hang=before",
        "endless=yes&interval=5ms",
        "endless=yes",
        "tokens=100&interval=1s",
    ] {
        let request = Request::chat(&format!("mock?{options}"), " hello").set("stream", true);
        let mut connection = Connection::open(nginx.address()).await.unwrap();
        connection.write(&request.to_bytes()).await.unwrap();
        wait_until("the request to arrive", PATIENCE, || {
            mock.stats().total().in_flight == 1
        })
        .await;
        drop(connection);
        wait_until("the mock to notice", PATIENCE, || {
            mock.stats().total().in_flight == 0
        })
        .await;
        assert_eq!(mock.stats().last().unwrap().end, Some(End::Aborted), "{options}");
    }
    nginx.stop().await;
}

#[tokio::test]
async fn events_come_one_by_one() {
    let mock = MockLlm::start().await;
    let nginx = proxy(&mock).start().await;
    let request = Request::chat("mock?tokens=5&hang=mid&at=3", " hello").set("stream", true);
    let mut connection = Connection::open(nginx.address()).await.unwrap();
    assert_eq!(connection.send(&request).await.unwrap().status, 200);
    // The mock is silent after three events: all three must have been passed on.
    let mut reader = SseReader::default();
    let mut events = Vec::new();
    while events.len() < 3 {
        events.extend(reader.feed(&connection.piece().await.unwrap().unwrap()));
    }
    assert_eq!(mock.stats().total().completion_tokens, 2);
    drop(connection);
    wait_until("the mock to notice", PATIENCE, || {
        mock.stats().total().aborted == 1
    })
    .await;
    nginx.stop().await;
}

#[tokio::test]
async fn a_compressed_stream_is_compressed() {
    let mock = MockLlm::start().await;
    let request = Request::chat("mock?gzip=yes&tokens=3", " hello").set("stream", true);
    let mut response = http::send(mock.address(), &request).await.unwrap();
    assert_eq!(response.header("content-encoding"), Some("gzip"));
    let mut plain = Vec::new();
    std::io::copy(
        &mut flate2::read::GzDecoder::new(response.body.as_slice()),
        &mut plain,
    )
    .unwrap();
    response.body = plain;
    assert_eq!(text_of(&response), words::text(0, 3));
}

#[tokio::test]
async fn outside_programs_read_the_counts() {
    let mock = MockLlm::start().await;
    let request = Request::chat("mock?tokens=2", " hello").header("Authorization", "Bearer secret");
    http::send(mock.address(), &request).await.unwrap();
    let stats = http::send(mock.address(), &Request::get("/mock/stats"))
        .await
        .unwrap()
        .json();
    assert_eq!(stats["credentials"]["Bearer secret"]["completion_tokens"], 2);
    assert_eq!(stats["models"]["mock"]["requests"], 1);
    let requests = http::send(mock.address(), &Request::get("/mock/requests"))
        .await
        .unwrap()
        .json();
    assert_eq!(requests[0]["target"], "/v1/chat/completions");
    http::send(mock.address(), &Request::new("POST", "/mock/reset"))
        .await
        .unwrap();
    assert_eq!(mock.stats().total().requests, 0);
}

#[tokio::test]
async fn a_websocket_echoes() {
    let mock = MockLlm::start().await;
    let mut connection = Connection::open(mock.address()).await.unwrap();
    let request = Request::get("/v1/realtime?model=mock")
        .header("Connection", "Upgrade")
        .header("Upgrade", "websocket");
    assert_eq!(connection.send(&request).await.unwrap().status, 101);
    connection.write(b"\x81\x02hi").await.unwrap();
    assert_eq!(connection.piece().await.unwrap().unwrap(), b"\x81\x02hi");
}

#[tokio::test]
async fn large_and_chunked_bodies_arrive() {
    let mock = MockLlm::start().await;
    let nginx = proxy(&mock).start().await;
    let text = " hello".repeat(200_000);
    let request = Request::chat("mock?prompt_tokens=1", &text);
    assert_eq!(http::send(nginx.address(), &request).await.unwrap().status(), 200);
    assert_eq!(mock.stats().last().unwrap().body.len(), 64 * 1024);

    let mut connection = Connection::open(mock.address()).await.unwrap();
    let head = "POST /v1/completions HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    connection.write(head.as_bytes()).await.unwrap();
    connection
        .write(b"f\r\n{\"model\":\"mock?\r\n8\r\ntokens=1\r\n2\r\n\"}\r\n0\r\n\r\n")
        .await
        .unwrap();
    let response = connection.read_head("POST").await.unwrap();
    assert_eq!(response.status, 200);
    nginx.stop().await;
}

#[tokio::test]
async fn reload_and_killed_workers_are_survived() {
    let mock = MockLlm::start().await;
    let nginx = proxy(&mock).workers(2).start().await;
    let load = Load::new(nginx.address()).parallel(8).requests(u64::MAX);
    let stop = load.stopper();
    let done = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&done);
    let running = tokio::spawn(load.run(
        |_| Request::chat("mock", " hello"),
        move |_, _| {
            counted.fetch_add(1, Ordering::Relaxed);
        },
    ));
    let before = nginx.workers();
    let progress = async |what: &str| {
        let from = done.load(Ordering::Relaxed);
        wait_until(what, PATIENCE, || done.load(Ordering::Relaxed) > from + 100).await;
    };
    progress("answers before the reload").await;
    nginx.reload().await;
    progress("answers after the reload").await;
    nginx.wait_old_workers_gone(PATIENCE).await;
    assert!(nginx.workers().iter().all(|pid| !before.contains(pid)));
    stop.stop();
    let report = running.await.unwrap();
    assert_eq!(report.failed(), 0, "{:?}", report.errors);
    assert_eq!(report.status(200), report.total());

    let victim = nginx.workers()[0];
    nginx.kill_worker(victim).await;
    assert!(!process::is_alive(victim));
    let answer = http::send(nginx.address(), &Request::chat("mock", " hello"))
        .await
        .unwrap();
    assert_eq!(answer.status(), 200);
    nginx.stop().await;
}

#[tokio::test]
#[should_panic(expected = "exited on signal 9")]
async fn an_undeclared_death_fails_the_test() {
    let mock = MockLlm::start().await;
    let nginx = proxy(&mock).start().await;
    let victim = nginx.workers()[0];
    process::signal(victim, rustix::process::Signal::KILL);
    wait_until("the master to log it", PATIENCE, || {
        nginx.error_log().contains("exited on signal")
    })
    .await;
    nginx.stop().await;
}

#[test]
fn a_bad_configuration_is_refused_with_its_reason() {
    let (accepted, message) = Nginx::config("server { listen {{http}}; no_such_directive on; }").test();
    assert!(!accepted);
    assert!(
        message.contains("unknown directive \"no_such_directive\""),
        "{message}"
    );
}

#[tokio::test]
async fn a_mock_comes_back_on_its_port() {
    let mut mock = MockLlm::start().await;
    let address = mock.address();
    assert_eq!(
        http::send(address, &Request::get("/mock/health"))
            .await
            .unwrap()
            .status(),
        200
    );
    mock.stop();
    assert!(http::send(address, &Request::get("/mock/health")).await.is_err());
    let _again = MockLlm::start_on(address.port()).await;
    let answer = tokio::time::timeout(
        Duration::from_secs(30),
        http::send(address, &Request::get("/mock/health")),
    )
    .await;
    assert_eq!(answer.unwrap().unwrap().status(), 200);
}

mod load {
    //! Needs the machine for itself: see tests/nextest.toml.

    use super::*;
    use tollgate_tests::mock::MockProcess;

    #[tokio::test(flavor = "multi_thread")]
    async fn ten_thousand_streams_stay_open_at_once() {
        const STREAMS: u64 = 10_000;
        let mock = MockProcess::start().await;
        let request = Request::chat("mock?hang=mid&at=3", " hello")
            .set("stream", true)
            .to_bytes();
        let mut open = Vec::new();
        for _ in 0..STREAMS {
            let mut connection = Connection::open(mock.address()).await.unwrap();
            connection.write(&request).await.unwrap();
            open.push(connection);
        }
        for connection in &mut open {
            assert_eq!(connection.read_head("POST").await.unwrap().status, 200);
        }
        let stats = mock.stats().await;
        assert_eq!(
            (stats["in_flight"].as_u64(), stats["aborted"].as_u64()),
            (Some(STREAMS), Some(0))
        );
        drop(open);
        tollgate_tests::wait::wait_for("the mock to notice", PATIENCE, || async {
            let stats = mock.stats().await;
            (stats["aborted"].as_u64() == Some(STREAMS) && stats["in_flight"].as_u64() == Some(0))
                .then_some(())
        })
        .await;
    }
}
