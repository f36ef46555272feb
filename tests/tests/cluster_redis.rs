//! What the daemon says of the Redis that it was given.

use serde_json::json;
use tollgate_tests::daemon::Daemon;
use tollgate_tests::documents::Documents;
use tollgate_tests::http::Request;
use tollgate_tests::redis::Redis;
use tollgate_tests::site::Site;
use tollgate_tests::wait::{PATIENCE, wait_for};

async fn daemon(redis: &Redis) -> (Site, Daemon) {
    let site = Site::new();
    Documents::new()
        .model("m", "mock")
        .any("mock", "http://127.0.0.1:9")
        .limited("c", json!([]))
        .setting("redis", json!({ "urls": [redis.url()], "timeout": "500ms" }))
        .write(&site);
    let daemon = Daemon::start(&site).await;
    (site, daemon)
}

#[tokio::test(flavor = "multi_thread")]
async fn settings_that_do_not_suit_are_said_in_log_api_and_metrics() {
    let redis = Redis::start().await;
    let (_site, good) = daemon(&redis).await;
    let state = wait_for("a sign of life", PATIENCE, || async {
        let state = good.get("/instance").await["redis"].clone();
        (state["connected"] == true && state["heartbeat_age_ms"].is_number()).then_some(state)
    })
    .await;
    assert_eq!(state["unsuitable_settings"], json!([]), "{state}");

    for setting in ["appendonly no", "maxmemory-policy allkeys-lru"] {
        let answer = redis.ask(&format!("CONFIG SET {setting}"));
        assert!(answer.is_some_and(|a| a.starts_with("+OK")));
    }
    let (_site, bad) = daemon(&redis).await;
    let state = wait_for("a connection", PATIENCE, || async {
        let state = bad.get("/instance").await["redis"].clone();
        (state["connected"] == true).then_some(state)
    })
    .await;
    let said = state["unsuitable_settings"].to_string();
    assert!(
        said.contains("appendonly") && said.contains("noeviction"),
        "{state}"
    );
    let metrics = bad.api(Request::get("/metrics")).await.text();
    assert!(
        metrics
            .lines()
            .any(|l| l == "tollgate_redis_unsuitable_settings 2"),
        "{metrics}"
    );
    assert!(
        bad.log().contains("`maxmemory-policy` is `allkeys-lru`"),
        "{}",
        bad.log()
    );
}
