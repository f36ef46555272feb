//! nginx and daemon start in any order, with or without each other, and with a region that is no region.

use serde_json::json;
use std::time::Duration;
use tollgate_shm::Region;
use tollgate_tests::daemon::Daemon;
use tollgate_tests::documents::Documents;
use tollgate_tests::gateway::{Gateway, HTTP};
use tollgate_tests::http::{self, Connection, Request, Response};
use tollgate_tests::mock::MockLlm;
use tollgate_tests::nginx::Nginx;
use tollgate_tests::site::Site;
use tollgate_tests::sse::SseReader;
use tollgate_tests::wait::{PATIENCE, wait_for, wait_until};

fn documents() -> Documents {
    let limits = json!([
        { "metric": "requests", "max": 5, "window": "10m" },
        { "metric": "connections", "max": 100 },
    ]);
    Documents::new()
        .model("gpt-4o", "mock")
        .limited("wechat001", limits)
}

fn hello() -> Request {
    Request::chat("gpt-4o", " hello").channel("wechat001")
}

async fn start_nginx(site: &Site, mock: &MockLlm) -> Nginx {
    let config = site.fill(Nginx::config(HTTP).with_module().workers(2));
    config.set("mock", mock.address()).start().await
}

async fn send(nginx: &Nginx) -> Response {
    http::send(nginx.address(), &hello()).await.expect("an answer")
}

/// The 503 of a gateway that cannot decide.
async fn assert_unavailable(nginx: &Nginx) {
    for request in [hello(), Request::get("/v1/models").channel("wechat001")] {
        let answer = http::send(nginx.address(), &request).await.expect("an answer");
        assert_eq!(answer.status(), 503, "{}", answer.text());
        let body = answer.json();
        assert_eq!(body["error"]["type"], "server_error", "{body}");
        assert!(
            body["error"]["message"]
                .as_str()
                .is_some_and(|text| !text.is_empty()),
            "{body}"
        );
    }
}

async fn wait_admitted(nginx: &Nginx) {
    wait_for("a decision", PATIENCE, || async {
        (send(nginx).await.status() == 200).then_some(())
    })
    .await;
}

#[tokio::test]
async fn nginx_first() {
    let mock = MockLlm::start().await;
    let site = Site::new();
    documents().openai("mock", &mock.url()).write(&site);
    let nginx = start_nginx(&site, &mock).await;
    assert_unavailable(&nginx).await;
    assert!(
        nginx.error_log().contains("no configuration yet"),
        "{}",
        nginx.error_log()
    );
    let mut daemon = Daemon::start(&site).await;
    wait_admitted(&nginx).await;
    nginx.stop().await;
    daemon.stop().await;
}

#[tokio::test]
async fn without_a_daemon_the_last_snapshot_on_disk_holds() {
    let mock = MockLlm::start().await;
    let site = Site::new();
    documents().openai("mock", &mock.url()).write(&site);
    let mut daemon = Daemon::start(&site).await;
    wait_until("a snapshot on disk", PATIENCE, || {
        site.state().join("snapshot.last").is_file()
    })
    .await;
    daemon.stop().await;
    // As after a reboot: the folder in memory is empty.
    for entry in std::fs::read_dir(site.region()).unwrap() {
        std::fs::remove_file(entry.unwrap().path()).unwrap();
    }
    let nginx = start_nginx(&site, &mock).await;
    let mut statuses = Vec::new();
    for _ in 0..7 {
        statuses.push(send(&nginx).await.status());
    }
    assert_eq!(statuses, [200, 200, 200, 200, 200, 429, 429]);
    let credential = mock
        .stats()
        .last()
        .unwrap()
        .header("authorization")
        .map(str::to_owned);
    assert_eq!(
        credential,
        Some(format!("Bearer {}", tollgate_tests::documents::PROVIDER_KEY))
    );
    // The daemon that comes at last finds what was used.
    daemon.restart().await;
    let region = Region::open(&site.region()).unwrap();
    wait_until("the daemon to publish", PATIENCE, || region.generation() > 0).await;
    assert_eq!(send(&nginx).await.status(), 429);
    nginx.stop().await;
    daemon.stop().await;
}

#[tokio::test]
async fn a_restarted_nginx_goes_on_with_the_usage_so_far() {
    let mock = MockLlm::start().await;
    let site = Site::new();
    documents().openai("mock", &mock.url()).write(&site);
    let mut daemon = Daemon::start(&site).await;
    for expected in [[200, 200, 200], [200, 200, 429]] {
        let nginx = start_nginx(&site, &mock).await;
        wait_for("a decision", PATIENCE, || async {
            let answer = http::send(
                nginx.address(),
                &Request::chat("gpt-4o", " hello").channel("other"),
            )
            .await
            .ok()?;
            (answer.status() != 503).then_some(())
        })
        .await;
        let mut statuses = Vec::new();
        for _ in 0..3 {
            statuses.push(send(&nginx).await.status());
        }
        assert_eq!(statuses, expected);
        nginx.stop().await;
    }
    daemon.stop().await;
}

#[tokio::test]
async fn a_region_that_is_none_is_refused_and_its_removal_is_enough() {
    for damage in ["header", "truncated", "empty", "foreign"] {
        let mock = MockLlm::start().await;
        let site = Site::new();
        documents().openai("mock", &mock.url()).write(&site);
        let mut daemon = Daemon::start(&site).await;
        let path = Region::open(&site.region()).unwrap().path();
        daemon.stop().await;
        let mut bytes = std::fs::read(&path).unwrap();
        match damage {
            "header" => bytes[8..64].fill(0xff),
            "truncated" => bytes.truncate(bytes.len() / 2),
            "empty" => bytes.clear(),
            _ => bytes = b"#!/bin/sh\necho not a region\n".repeat(1_000),
        }
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, &bytes).unwrap();

        let nginx = start_nginx(&site, &mock).await;
        assert_unavailable(&nginx).await;
        let log = nginx.error_log();
        assert!(log.contains("is unusable"), "{damage}: {log}");
        assert!(log.contains(&path.display().to_string()), "{damage}: {log}");
        let refused = Daemon::command(&[
            "serve",
            "--config",
            &site.config().display().to_string(),
            "--state",
            &site.state().display().to_string(),
            "--region",
            &site.region().display().to_string(),
            "--listen",
            "127.0.0.1:0",
        ]);
        assert!(!refused.status.success(), "{damage}");
        let said =
            String::from_utf8_lossy(&refused.stdout).into_owned() + &String::from_utf8_lossy(&refused.stderr);
        assert!(
            said.contains("is unusable") && said.contains("remove it"),
            "{damage}: {said}"
        );
        nginx.stop().await;
        assert_eq!(
            std::fs::read(&path).unwrap(),
            bytes,
            "{damage}: it was written to"
        );

        std::fs::remove_file(&path).unwrap();
        daemon.restart().await;
        let nginx = start_nginx(&site, &mock).await;
        wait_admitted(&nginx).await;
        nginx.stop().await;
        daemon.stop().await;
    }
}

#[tokio::test]
async fn open_streams_outlive_a_reload() {
    let gateway = Gateway::with(documents()).workers(2).start().await;
    let stream = hello()
        .set("stream", true)
        .set("max_tokens", 100)
        .set("mock", json!({ "tokens": 100, "interval": "15ms" }));
    let mut open = Vec::new();
    for _ in 0..4 {
        let mut connection = Connection::open(gateway.address()).await.unwrap();
        assert_eq!(connection.send(&stream).await.unwrap().status, 200);
        open.push(connection);
    }
    let begun = gateway.mock.stats().total().completion_tokens;
    gateway.nginx.reload().await;
    // New workers decide with the same counters while old ones finish their streams.
    assert_eq!(gateway.send(&hello()).await.status(), 200);
    assert_eq!(gateway.send(&hello()).await.status(), 429);
    assert!(
        gateway.mock.stats().total().in_flight > 0,
        "the streams were over at {begun}"
    );
    wait_for("old and new workers' connections together", PATIENCE, || async {
        let used = gateway.used("wechat001", "connections").await;
        (used == gateway.mock.stats().total().in_flight && used > 0).then_some(())
    })
    .await;
    for mut connection in open {
        let body = tokio::time::timeout(Duration::from_secs(20), connection.read_body())
            .await
            .unwrap()
            .unwrap();
        let events = SseReader::read_all(&body);
        assert!(events.last().is_some_and(tollgate_tests::sse::Event::is_done));
    }
    gateway.wait_idle().await;
    gateway.nginx.wait_old_workers_gone(PATIENCE).await;
    assert_eq!(gateway.used("wechat001", "connections").await, 0);
    let total = gateway.mock.stats().total();
    assert_eq!(
        (total.completed, total.aborted, total.completion_tokens),
        (5, 0, 416)
    );
    gateway.stop().await;
}
