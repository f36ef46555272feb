//! HTTP as clients really speak it: methods, pipelining, `Expect`, HTTP/2, too many headers.

use serde_json::json;
use std::process::Stdio;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tollgate_tests::access;
use tollgate_tests::documents::Documents;
use tollgate_tests::gateway::{Gateway, HTTP};
use tollgate_tests::http::{Connection, Request};
use tollgate_tests::mock::words;

fn documents() -> Documents {
    Documents::new()
        .model("m", "mock?tokens=5")
        .model_value(json!({ "name": "large", "max_body_bytes": 16 << 20,
            "deployments": [{ "provider": "mock", "upstream_model": "mock?prompt_tokens=1" }] }))
        .limited(
            "c",
            json!([{ "metric": "requests", "max": 1_000, "window": "10m" }]),
        )
}

#[tokio::test]
async fn other_methods_get_an_answer_and_keep_the_connection() {
    let gateway = Gateway::with(documents()).start().await;
    let mut connection = Connection::open(gateway.address()).await.unwrap();
    for (method, target, status) in [
        ("GET", "/v1/models", 200),
        ("HEAD", "/v1/chat/completions", 400),
        ("GET", "/v1/chat/completions", 400),
        ("OPTIONS", "/v1/chat/completions", 400),
        ("DELETE", "/v1/files/1", 400),
        ("PATCH", "/v1/none", 400),
    ] {
        let answer = connection
            .exchange(&Request::new(method, target).channel("c"))
            .await
            .unwrap();
        assert_eq!(answer.status(), status, "{method} {target}: {}", answer.text());
        if method == "HEAD" {
            assert!(answer.body.is_empty());
        } else {
            assert!(answer.json().is_object());
        }
    }
    let last = connection
        .exchange(&Request::chat("m", " hello").channel("c"))
        .await
        .unwrap();
    assert_eq!(last.status(), 200);
    assert_eq!(gateway.mock.stats().total().requests, 1);
    gateway.stop().await;
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_their_order() {
    let gateway = Gateway::with(documents()).start().await;
    let chat = |tokens: u64| {
        Request::chat("m", " hello")
            .channel("c")
            .set("max_tokens", tokens)
    };
    let requests = [
        chat(1),
        Request::post_bytes("/v1/chat/completions", b"{".to_vec()).channel("c"),
        chat(2).set("stream", true),
        Request::chat("m", " hello").channel("nobody"),
        Request::get("/v1/models").channel("c"),
        chat(3),
    ];
    let bytes: Vec<u8> = requests.iter().flat_map(Request::to_bytes).collect();
    let mut connection = Connection::open(gateway.address()).await.unwrap();
    connection.write(&bytes).await.unwrap();
    let mut statuses = Vec::new();
    let mut bodies = Vec::new();
    for request in &requests {
        statuses.push(connection.read_head(&request.method).await.unwrap().status);
        bodies.push(connection.read_body().await.unwrap());
    }
    assert_eq!(statuses, [200, 400, 200, 401, 200, 200]);
    let json = |index: usize| serde_json::from_slice::<serde_json::Value>(&bodies[index]).unwrap();
    assert_eq!(json(0)["usage"]["completion_tokens"], 1);
    assert_eq!(json(5)["usage"]["completion_tokens"], 3);
    assert!(String::from_utf8_lossy(&bodies[2]).ends_with("data: [DONE]\n\n"));
    gateway.stop().await;
}

#[tokio::test]
async fn a_client_that_waits_for_100_continue_gets_it_and_a_stranger_is_refused_without_a_body() {
    const INTERIM: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
    let gateway = Gateway::with(documents()).start().await;
    let request = Request::chat("m", " hello");
    for channel in ["c", "nobody"] {
        let mut connection = Connection::open(gateway.address()).await.unwrap();
        let head = format!(
            "POST /v1/chat/completions HTTP/1.1\r\nHost: x\r\nchannelcode: {channel}\r\nExpect: 100-continue\r\n\
             Content-Length: {}\r\n\r\n",
            request.body.len()
        );
        connection.write(head.as_bytes()).await.unwrap();
        if channel == "c" {
            let mut interim = vec![0; INTERIM.len()];
            connection.stream().read_exact(&mut interim).await.unwrap();
            assert_eq!(interim, INTERIM);
            connection.write(&request.body).await.unwrap();
            assert_eq!(connection.read_head("POST").await.unwrap().status, 200);
            assert!(gateway.mock.stats().last().unwrap().header("expect").is_none());
        } else {
            assert_eq!(connection.read_head("POST").await.unwrap().status, 401);
        }
    }
    gateway.stop().await;
}

#[tokio::test]
async fn floods_of_headers_are_refused_and_hurt_nobody_else() {
    let gateway = Gateway::with(documents()).start().await;
    let flooded = |count: usize, length: usize| {
        (0..count).fold(Request::chat("m", " hello").channel("c"), |request, index| {
            request.header(&format!("x-flood-{index}"), &"v".repeat(length))
        })
    };
    // As many as nginx's own limits let through, then more lines, longer lines.
    assert_eq!(gateway.send(&flooded(80, 200)).await.status(), 200);
    for request in [flooded(10_000, 100), flooded(10, 30_000)] {
        let mut connection = Connection::open(gateway.address()).await.unwrap();
        // nginx may answer and close before everything is written.
        let _ = connection.write(&request.to_bytes()).await;
        if let Ok(head) = connection.read_head("POST").await {
            assert_eq!(head.status, 400);
        }
    }
    assert_eq!(
        gateway
            .send(&Request::chat("m", " hello").channel("c"))
            .await
            .status(),
        200
    );
    assert_eq!(gateway.mock.stats().total().requests, 2);
    gateway.stop().await;
}

/// Runs curl with HTTP/2 without TLS; the status is the last line.
async fn curl(gateway: &Gateway, path: &str, headers: &[&str], body: Option<Vec<u8>>) -> (String, String) {
    let address = gateway.nginx.port("port_h2");
    let mut command = tokio::process::Command::new("curl");
    command.args([
        "-sS",
        "--max-time",
        "30",
        "--http2-prior-knowledge",
        "--noproxy",
        "*",
    ]);
    command.args(["-H", "content-type: application/json"]);
    headers.iter().for_each(|header| {
        command.args(["-H", header]);
    });
    if body.is_some() {
        command.args(["--data-binary", "@-"]);
    }
    command.args(["-w", "\n%{http_version} %{http_code}"]);
    let mut child = command
        .arg(format!("http://{address}{path}"))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("curl runs");
    let mut stdin = child.stdin.take().unwrap();
    let write = async move {
        stdin.write_all(&body.unwrap_or_default()).await.unwrap();
    };
    let (output, ()) = tokio::join!(child.wait_with_output(), write);
    let text = String::from_utf8(output.unwrap().stdout).unwrap();
    let (body, status) = text.rsplit_once('\n').unwrap();
    (body.to_owned(), status.to_owned())
}

#[tokio::test]
async fn http_2_clients_chat_stream_and_are_refused() {
    let http = HTTP.replace(
        "listen {{http}};",
        "listen {{http}};\n        listen {{port_h2}} http2;",
    );
    assert_ne!(http, HTTP);
    let gateway = Gateway::with(documents())
        .nginx(|_| tollgate_tests::nginx::Nginx::config(&http).with_module())
        .start()
        .await;
    let chat = Request::chat("m", " hello");
    let path = "/v1/chat/completions";
    let (text, status) = curl(&gateway, path, &["channelcode: c"], Some(chat.body.clone())).await;
    assert_eq!(status, "2 200", "{text}");
    assert!(text.contains(&words::text(0, 5)), "{text}");

    let (text, status) = curl(
        &gateway,
        path,
        &["channelcode: c"],
        chat.clone().set("stream", true).body.into(),
    )
    .await;
    assert_eq!(status, "2 200", "{text}");
    assert!(
        text.ends_with("data: [DONE]\n\n") && !text.contains("usage\":{"),
        "{text}"
    );
    assert!(
        gateway
            .mock
            .stats()
            .last()
            .unwrap()
            .header("content-length")
            .is_some()
    );

    let large = Request::chat("large", &"x".repeat(3 << 20))
        .set("max_tokens", 2)
        .body;
    let (text, status) = curl(&gateway, path, &["channelcode: c"], Some(large)).await;
    assert_eq!(status, "2 200", "{text}");
    assert!(text.contains("\"completion_tokens\":2"), "{text}");

    // Without a body: curl 7.88 does not survive any server's answer that overtakes its body.
    let (text, status) = curl(&gateway, path, &["channelcode: nobody"], None).await;
    assert_eq!(status, "2 401", "{text}");
    assert!(text.contains("\"unknown_channel\""), "{text}");
    let (text, status) = curl(&gateway, path, &["channelcode: c"], Some(b"{".to_vec())).await;
    assert_eq!(status, "2 400", "{text}");

    let entries = access::entries(&gateway.nginx, "c", 4).await;
    let output: Vec<u64> = entries.iter().map(|entry| entry.number("output")).collect();
    assert_eq!(output, [5, 5, 2, 0]);
    gateway.wait_idle().await;
    gateway.stop().await;
}
