//! What a worker held when it was killed: connections come back, reservations stay charged.

use rustix::process::Signal;
use serde_json::json;
use tollgate_tests::documents::Documents;
use tollgate_tests::gateway::Gateway;
use tollgate_tests::http::{Connection, Request};
use tollgate_tests::process;
use tollgate_tests::wait::{PATIENCE, wait_until};

#[tokio::test]
async fn an_answer_that_a_dead_worker_never_read_is_charged() {
    let documents = Documents::new().model("gpt-4o", "mock").limited(
        "wechat001",
        json!([
            { "metric": "output_tokens", "max": 1_000, "window": "10m" },
            { "metric": "connections", "max": 10 },
        ]),
    );
    let gateway = Gateway::with(documents).start().await;
    // The worker sleeps while the mock writes its answer into the socket, and is killed before it can read it.
    let request = Request::chat("gpt-4o", " hello")
        .channel("wechat001")
        .set("max_tokens", 800)
        .set("mock", json!({ "tokens": 800, "latency": "300ms" }));
    let mut connection = Connection::open(gateway.address()).await.unwrap();
    connection.write(&request.to_bytes()).await.unwrap();
    let stats = gateway.mock.stats();
    wait_until("the mock to have the request", PATIENCE, || {
        stats.total().in_flight == 1
    })
    .await;
    let worker = gateway.nginx.workers()[0];
    process::signal(worker, Signal::STOP);
    wait_until("the mock to have answered", PATIENCE, || {
        stats.total().completed == 1
    })
    .await;
    assert_eq!(gateway.used("wechat001", "connections").await, 1);
    gateway.nginx.kill_worker(worker).await;
    assert!(connection.read_head("POST").await.is_err());
    gateway.wait_idle().await;
    assert_eq!(gateway.used("wechat001", "connections").await, 0);

    // 200 are left: the next answer is clamped to that, and then it is over.
    let again = gateway.send(&request).await;
    assert_eq!(again.status(), 200, "{}", again.text());
    assert_eq!(again.json()["usage"]["completion_tokens"], 200);
    assert_eq!(gateway.send(&request).await.status(), 429);
    assert_eq!(stats.total().completion_tokens, 1_000);
    gateway.stop().await;
}

#[tokio::test]
async fn streams_of_a_dead_worker_leave_no_connection_behind() {
    let documents = Documents::new().model("gpt-4o", "mock?hang=mid&at=3").limited(
        "wechat001",
        json!([
            { "metric": "connections", "max": 4 },
            { "metric": "output_tokens", "max": 10_000, "window": "10m", "enforcement": "soft" },
        ]),
    );
    let gateway = Gateway::with(documents).workers(2).start().await;
    let request = Request::chat("gpt-4o", " hello")
        .channel("wechat001")
        .set("stream", true)
        .set("max_tokens", 400);
    for _ in 0..3 {
        let mut open = Vec::new();
        for _ in 0..4 {
            let mut connection = Connection::open(gateway.address()).await.unwrap();
            assert_eq!(connection.send(&request).await.unwrap().status, 200);
            open.push(connection);
        }
        assert_eq!(gateway.used("wechat001", "connections").await, 4);
        assert_eq!(gateway.send(&request).await.status(), 429);
        for worker in gateway.nginx.workers() {
            gateway.nginx.kill_worker(worker).await;
        }
        gateway.wait_idle().await;
        assert_eq!(gateway.used("wechat001", "connections").await, 0);
        let stats = gateway.mock.stats();
        wait_until("the mock to notice", PATIENCE, || stats.total().in_flight == 0).await;
    }
    // A soft limit is charged what the workers had noted, two tokens of each stream, and not the reservations.
    let charged = gateway.used("wechat001", "output_tokens/10m").await;
    assert!((1..=24).contains(&charged), "{charged}");
    gateway.stop().await;
}
