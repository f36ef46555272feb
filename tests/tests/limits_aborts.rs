//! Clients that go away: charged for what was produced, held by nothing.

use serde_json::{Value, json};
use tollgate_tests::documents::Documents;
use tollgate_tests::gateway::Gateway;
use tollgate_tests::http::{Connection, Request};
use tollgate_tests::mock::End;
use tollgate_tests::sse::SseReader;
use tollgate_tests::wait::{PATIENCE, wait_for, wait_until};

async fn gateway(abort_policy: &str) -> Gateway {
    let channel = json!({
        "code": "wechat001", "trusted": true, "abort_policy": abort_policy,
        "limits": [
            { "metric": "connections", "max": 10 },
            { "metric": "input_tokens", "max": 1_000, "window": "10m" },
            { "metric": "output_tokens", "max": 1_000, "window": "10m" },
        ],
    });
    let documents = Documents::new().model("gpt-4o", "mock").channel(channel);
    Gateway::with(documents).workers(2).start().await
}

fn hello(stream: bool, mock: Value) -> Request {
    Request::chat("gpt-4o", " hello")
        .channel("wechat001")
        .set("max_tokens", 300)
        .set("stream", stream)
        .set("mock", mock)
}

/// The ledger's totals, once it has so many aborted requests.
async fn aborted(gateway: &Gateway, count: u64) -> Value {
    wait_for("the ledger", PATIENCE, || async {
        let usage = gateway.daemon.get("/usage?step=0").await["total"].clone();
        (usage["abort"] == count).then_some(usage)
    })
    .await
}

/// Reads text events until there are so many, then leaves.
async fn leave_after(gateway: &Gateway, texts: usize) {
    // The mock falls silent after that: what was produced is exactly what was read.
    let request = hello(true, json!({ "tokens": 200, "hang": "mid", "at": texts + 1 }));
    let mut connection = Connection::open(gateway.address()).await.unwrap();
    assert_eq!(connection.send(&request).await.unwrap().status, 200);
    let mut reader = SseReader::default();
    let mut read = 0;
    while read < texts {
        let piece = connection.piece().await.unwrap().expect("more");
        let events = reader.feed(&piece);
        read += events
            .iter()
            .filter(|event| {
                event.json()["choices"][0]["delta"]["content"]
                    .as_str()
                    .is_some_and(|text| !text.is_empty())
            })
            .count();
    }
    assert_eq!(gateway.used("wechat001", "connections").await, 1);
}

#[tokio::test]
async fn a_client_that_leaves_a_stream_pays_for_what_was_produced() {
    let gateway = gateway("counted").await;
    leave_after(&gateway, 25).await;
    let stats = gateway.mock.stats();
    wait_until("the mock to notice", PATIENCE, || stats.total().in_flight == 0).await;
    gateway.wait_idle().await;
    assert_eq!(stats.last().unwrap().end, Some(End::Aborted));
    assert_eq!(stats.total().completion_tokens, 25);
    assert_eq!(gateway.used("wechat001", "connections").await, 0);
    assert_eq!(gateway.used("wechat001", "output_tokens/10m").await, 25);
    assert_eq!(gateway.used("wechat001", "input_tokens/10m").await, 8);
    let usage = aborted(&gateway, 1).await;
    assert_eq!(
        (usage["input_tokens"].as_u64(), usage["output_tokens"].as_u64()),
        (Some(8), Some(25)),
        "{usage}"
    );
    gateway.stop().await;
}

#[tokio::test]
async fn a_channel_may_charge_the_reservation_instead() {
    let gateway = gateway("reserved").await;
    leave_after(&gateway, 25).await;
    gateway.wait_idle().await;
    assert_eq!(gateway.used("wechat001", "output_tokens/10m").await, 300);
    assert_eq!(aborted(&gateway, 1).await["output_tokens"], 300);
    gateway.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_before_the_answer_pays_for_its_prompt() {
    let gateway = gateway("counted").await;
    let stats = gateway.mock.stats();
    for (number, stream) in (1u64..).zip([false, true]) {
        let request = hello(stream, json!({ "hang": "before" }));
        let mut connection = Connection::open(gateway.address()).await.unwrap();
        connection.write(&request.to_bytes()).await.unwrap();
        wait_until("the request to arrive", PATIENCE, || stats.total().in_flight == 1).await;
        drop(connection);
        wait_until("the mock to notice", PATIENCE, || stats.total().in_flight == 0).await;
        gateway.wait_idle().await;
        assert_eq!(gateway.used("wechat001", "connections").await, 0);
        assert_eq!(gateway.used("wechat001", "input_tokens/10m").await, 8 * number);
        assert_eq!(gateway.used("wechat001", "output_tokens/10m").await, 0);
    }
    assert_eq!(aborted(&gateway, 2).await["input_tokens"], 16);
    gateway.stop().await;
}

#[tokio::test]
async fn a_client_that_leaves_within_its_body_costs_nothing() {
    let gateway = gateway("counted").await;
    let bytes = hello(false, json!({})).to_bytes();
    let (first, rest) = bytes.split_at(bytes.len() - 10);
    for (number, wait) in (1u64..).zip([false, true]) {
        let mut connection = Connection::open(gateway.address()).await.unwrap();
        connection.write(first).await.unwrap();
        if wait {
            // The worker waits for more before the end comes: another one's whole request passes meanwhile.
            assert_eq!(
                gateway
                    .send(&hello(false, json!({ "tokens": 10 })))
                    .await
                    .status(),
                200
            );
        }
        drop(connection);
        aborted(&gateway, number).await;
    }
    // Nobody left here: what cannot be a body is the client's mistake.
    let mut connection = Connection::open(gateway.address()).await.unwrap();
    let head =
        String::from_utf8_lossy(first).replace("Content-Length: ", "Transfer-Encoding: chunked\r\nX-Was: ");
    connection.write(head.as_bytes()).await.unwrap();
    connection.write(rest).await.unwrap();
    assert_eq!(connection.read_head("POST").await.unwrap().status, 400);
    drop(connection);
    wait_for("the mistake in the ledger", PATIENCE, || async {
        let usage = gateway.daemon.get("/usage?step=0&channel=wechat001").await;
        let classes = ["ok", "abort", "client", "internal"].map(|class| usage["total"][class].as_u64());
        (classes == [1, 2, 1, 0].map(Some)).then_some(())
    })
    .await;
    assert_eq!(gateway.used("wechat001", "connections").await, 0);
    assert_eq!(gateway.used("wechat001", "input_tokens/10m").await, 8);
    assert_eq!(gateway.mock.stats().total().requests, 1);
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn many_that_leave_at_any_moment_leave_nothing_behind() {
    let gateway = gateway("counted").await;
    let address = gateway.address();
    let tasks: Vec<_> = (0..120u64)
        .map(|number| {
            tokio::spawn(async move {
                let mock = json!({ "tokens": 40, "latency": format!("{}ms", number % 7), "interval": "1ms" });
                let mut connection = Connection::open(address).await.unwrap();
                let request = hello(number % 2 == 0, mock).set("max_tokens", 40);
                connection.write(&request.to_bytes()).await.unwrap();
                // Bytes of the answer are the clock here: none, some, many.
                let mut left = number % 4;
                while left > 0 && connection.stream().readable().await.is_ok() {
                    let mut buffer = [0; 200];
                    match connection.stream().try_read(&mut buffer) {
                        Ok(0) => break,
                        Ok(_) => left -= 1,
                        Err(_) => {}
                    }
                }
            })
        })
        .collect();
    for task in tasks {
        task.await.expect("a client");
    }
    let stats = gateway.mock.stats();
    gateway.wait_idle().await;
    wait_until("the mock to notice", PATIENCE, || stats.total().in_flight == 0).await;
    assert_eq!(gateway.used("wechat001", "connections").await, 0);
    // Every request that was read is in the ledger, once. (Who leaves before that was never there.)
    let logged = || {
        let log = gateway.nginx.access_log();
        log.lines()
            .filter(|line| line.contains("channel=wechat001"))
            .count()
    };
    wait_for("the ledger", PATIENCE, || async {
        let usage = gateway.daemon.get("/usage?step=0&channel=wechat001").await;
        let found = usage["total"]["requests"].as_u64().expect("a number");
        (found == logged() as u64 && found > 60).then_some(())
    })
    .await;
    gateway.stop().await;
}
