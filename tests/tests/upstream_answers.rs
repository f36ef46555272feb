//! Answers that no provider should give: the client gets a clear error, the gateway stays bounded, and the log has one
//! line for a state and not one for a request.

use serde_json::json;
use tollgate_tests::documents::Documents;
use tollgate_tests::gateway::Gateway;
use tollgate_tests::http::{Connection, Request};
use tollgate_tests::port::Port;
use tollgate_tests::process;
use tollgate_tests::raw::{RawServer, Say};

fn documents(url: &str, spare: &str) -> Documents {
    Documents::new()
        .openai("p", url)
        .openai("spare", spare)
        .model_value(json!({ "name": "m", "deployments": [{ "id": "d", "provider": "p" }] }))
        .model_value(json!({ "name": "n", "deployments": [
            { "id": "e", "provider": "p", "weight": 1_000_000 },
            { "id": "f", "provider": "spare", "weight": 1 } ],
            "routing": { "breaker": { "failures": 5, "open": "60s", "max_open": "60s" }, "slow_start": "0s" } }))
        .limited("c", json!([{ "metric": "requests", "max": 100_000, "window": "10m" }]))
}

/// At `info` nginx's own lines would be there as well.
async fn start(documents: Documents) -> Gateway {
    Gateway::with(documents)
        .nginx(|config| config.log_level("notice"))
        .start()
        .await
}

fn chat(model: &str) -> Request {
    Request::chat(model, " hello").channel("c")
}

fn lines(gateway: &Gateway, about: &str) -> Vec<String> {
    let log = gateway.nginx.error_log();
    log.lines()
        .filter(|line| line.contains(about))
        .map(str::to_owned)
        .collect()
}

/// A provider that gives an answer which is none: 502 with a code, one line in the log, nothing of it for the client;
/// where there is another deployment, that one serves.
async fn is_refused(say: Say, kind: &str, reason: &str) {
    let server = RawServer::start(move |_| say.clone()).await;
    let spare = RawServer::start(|_| Say::completion()).await;
    let gateway = start(documents(&server.url(), &spare.url())).await;
    for n in 0..20 {
        let answer = gateway.send(&chat("m").set("stream", n % 2 == 0)).await;
        assert_eq!(answer.status(), 502, "{reason}: {}", answer.text());
        assert_eq!(answer.json()["error"]["code"], "upstream_unreachable", "{reason}");
        assert!(
            answer.header("location").is_none() && !answer.text().contains("elsewhere"),
            "{reason}"
        );
    }
    let said = lines(&gateway, "\"d\" at");
    assert_eq!(said.len(), 1, "{reason}: once for 20 requests: {said:?}");
    assert!(
        said[0].contains(&format!("({kind})")) && said[0].contains(reason),
        "{said:?}"
    );
    let others = lines(&gateway, "[error]");
    assert_eq!(others.len(), 1, "{reason}: nginx adds nothing: {others:?}");
    let state = gateway.daemon.get("/deployments/d").await;
    assert_eq!(state["failed"][kind], 20, "{reason}: {state}");
    for _ in 0..20 {
        let answer = gateway.send(&chat("n")).await;
        assert_eq!(answer.status(), 200, "{reason}: {}", answer.text());
    }
    let asked = server.arrived().len();
    assert!(asked <= 20 + 6, "{reason}: the breaker opens: {asked}");
    gateway.stop().await;
}

#[tokio::test]
async fn a_redirect_is_neither_followed_nor_shown() {
    let say = Say::answer(
        "302 Found",
        "Location: http://elsewhere.example/secret\r\n",
        "elsewhere",
    );
    is_refused(say, "malformed", "a redirect (302)").await;
}

#[tokio::test]
async fn what_is_not_http_is_no_answer() {
    is_refused(
        Say::bytes(&b"\x16\x03\x01 elsewhere, and no status line\r\n\r\n"[..]),
        "malformed",
        "not HTTP",
    )
    .await;
}

#[tokio::test]
async fn a_head_of_100_kb_is_no_answer() {
    let long = format!("X-Long: {}\r\n", "elsewhere".repeat(12_000));
    is_refused(
        Say::answer("200 OK", &long, "{}"),
        "malformed",
        "the answer's head is too long",
    )
    .await;
}

#[tokio::test]
async fn a_connection_that_ends_without_a_word_is_no_answer() {
    is_refused(Say::bytes(Vec::new()), "connect", "ends before an answer").await;
}

#[tokio::test]
async fn json_that_is_none_counts_against_its_deployment() {
    let say = Say::answer(
        "200 OK",
        "Content-Type: application/json\r\n",
        "{\"choices\": [<html>",
    );
    let server = RawServer::start(move |_| say.clone()).await;
    let spare = RawServer::start(|_| Say::completion()).await;
    let gateway = start(documents(&server.url(), &spare.url())).await;
    for _ in 0..20 {
        assert_eq!(gateway.send(&chat("n")).await.status(), 200);
    }
    assert_eq!(server.arrived().len(), 5, "then its breaker is open");
    let state = gateway.daemon.get("/deployments/e").await;
    assert_eq!(
        (&state["failed"]["malformed"], &state["state"]),
        (&json!(5), &json!("broken"))
    );
    gateway.stop().await;
}

#[tokio::test]
async fn an_error_page_of_100_mb_is_bounded() {
    const PIECE: usize = 1 << 20;
    const TIMES: usize = 100;
    let head = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/html\r\n";
    let announced = Say::bytes(format!("{head}Content-Length: {}\r\n\r\n", PIECE * TIMES));
    let kept_open = Say {
        close: false,
        ..announced
    };
    is_refused(kept_open, "malformed", "an error page of 104857600 bytes").await;
    // Without a length nobody knows before it is there: it ends after a while.
    let endless = Say {
        first: format!("{head}Transfer-Encoding: chunked\r\n\r\n").into_bytes(),
        bytes: format!("{PIECE:x}\r\n{}\r\n", "x".repeat(PIECE)).into_bytes(),
        times: TIMES,
        close: true,
    };
    let server = RawServer::start(move |_| endless.clone()).await;
    let gateway = Gateway::with(documents(&server.url(), &server.url()))
        .start()
        .await;
    let worker = gateway.nginx.workers()[0];
    let before = process::memory(worker);
    let mut connection = Connection::open(gateway.address()).await.unwrap();
    assert_eq!(connection.send(&chat("m")).await.unwrap().status, 400);
    let mut length = 0;
    let end = loop {
        match connection.piece().await {
            Ok(Some(piece)) => length += piece.len(),
            end => break end,
        }
    };
    assert!(matches!(end, Ok(None)), "it ends in good order: {end:?}");
    assert!((PIECE..2 * PIECE).contains(&length), "{length} bytes");
    let grown = process::memory(worker).saturating_sub(before);
    assert!(grown < 8 << 20, "{grown} bytes");
    gateway.stop().await;
}

#[tokio::test]
async fn a_port_where_nobody_listens_is_said_once() {
    let port = Port::free();
    let spare = RawServer::start(|_| Say::completion()).await;
    let gateway = start(documents(&format!("http://{}", port.address()), &spare.url())).await;
    for _ in 0..50 {
        assert_eq!(gateway.send(&chat("m")).await.status(), 502);
        assert_eq!(gateway.send(&chat("n")).await.status(), 200);
    }
    let said = lines(&gateway, "[error]");
    assert_eq!(
        said.len(),
        2,
        "once for each of the two deployments there: {said:?}"
    );
    let warnings = lines(&gateway, "the breaker of the deployment \"e\" opens");
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    gateway.stop().await;
}
