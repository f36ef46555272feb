//! An upgrade to another layout of the region: which order loses nothing, and what to do where it was not kept.
//!
//! Regions of different layouts stand side by side under different names. Giving the region's file another name while it is mapped
//! makes the same scene: old workers go on in a region that the daemon of now does not know.

use serde_json::json;
use std::path::PathBuf;
use tollgate_tests::documents::Documents;
use tollgate_tests::gateway::Gateway;
use tollgate_tests::http::Request;
use tollgate_tests::wait::{PATIENCE, wait_for};

/// Requests of the limit's ten minutes.
const MAX: u64 = 10;

async fn gateway() -> Gateway {
    let limits = json!([{ "metric": "requests", "max": MAX, "window": "10m" }]);
    let documents = Documents::new()
        .model("gpt-4o", "mock")
        .limited("wechat001", limits)
        .limited("free", json!([]));
    Gateway::with(documents).workers(2).start().await
}

async fn ask(gateway: &Gateway, channel: &str, count: u64) {
    for _ in 0..count {
        let request = Request::chat("gpt-4o", " hello").channel(channel);
        assert_eq!(gateway.send(&request).await.status(), 200);
    }
}

/// Requests and tokens since ever by the ledger, and by the mock.
async fn books(gateway: &Gateway) -> [[i64; 3]; 2] {
    let usage = gateway.daemon.get("/usage?step=0").await;
    let booked =
        ["ok", "input_tokens", "output_tokens"].map(|name| usage["total"][name].as_i64().expect("a number"));
    let served = gateway.mock.stats().total();
    let served = [served.completed, served.prompt_tokens, served.completion_tokens];
    [booked, served.map(|n| i64::try_from(n).expect("small"))]
}

async fn wait_booked(gateway: &Gateway) {
    wait_for("the ledger to have all", PATIENCE, || async {
        let [booked, served] = books(gateway).await;
        assert!(
            booked.iter().zip(&served).all(|(b, s)| b <= s),
            "{booked:?} {served:?}"
        );
        (booked == served).then_some(())
    })
    .await;
}

/// The region of now, and where one of another layout stands.
fn places(gateway: &Gateway) -> (PathBuf, PathBuf) {
    let now = gateway.region().path();
    let other = now.with_file_name("region.v1");
    (now, other)
}

#[tokio::test(flavor = "multi_thread")]
async fn nginx_first_then_the_daemon_loses_nothing() {
    let mut gateway = gateway().await;
    ask(&gateway, "wechat001", 4).await;
    ask(&gateway, "free", 20).await;
    // docs/cluster.md, "Upgrades": nginx ends, then the daemon, which books all that is left.
    gateway.nginx.quit().await;
    gateway.daemon.stop().await;
    let (now, other) = places(&gateway);
    std::fs::rename(&now, &other).expect("the region is there");
    gateway.daemon.restart().await;
    assert!(now.exists() && other.exists(), "side by side");
    gateway.nginx.start_again().await;
    let [booked, served] = books(&gateway).await;
    assert_eq!(booked, served);
    // The windows came over too.
    assert_eq!(gateway.used("wechat001", "requests/10m").await, 4);
    ask(&gateway, "wechat001", MAX - 4).await;
    let request = Request::chat("gpt-4o", " hello").channel("wechat001");
    assert_eq!(gateway.send(&request).await.status(), 429);
    wait_booked(&gateway).await;
    gateway.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_old_workers_count_beside_a_newer_daemon_waits_for_the_old_one() {
    let mut gateway = gateway().await;
    ask(&gateway, "free", 5).await;
    wait_booked(&gateway).await;
    gateway.daemon.stop().await;
    let (now, other) = places(&gateway);
    std::fs::rename(&now, &other).expect("the region is there");
    gateway.daemon.restart().await;
    assert!(
        gateway.daemon.log().contains("a region of another layout"),
        "the newer daemon says so"
    );
    // Old workers go on, in their own region.
    ask(&gateway, "free", 7).await;
    gateway.nginx.restart().await;
    ask(&gateway, "free", 3).await;
    wait_for("what new workers count", PATIENCE, || async {
        (books(&gateway).await[0][0] == 5 + 3).then_some(())
    })
    .await;
    let [booked, served] = books(&gateway).await;
    assert_eq!(served[0] - booked[0], 7, "nobody books what old workers counted");

    // The old daemon, once more, on the same state folder.
    gateway.daemon.stop().await;
    let newer = now.with_file_name("region.v9");
    std::fs::rename(&now, &newer).expect("the newer region");
    std::fs::rename(&other, &now).expect("the older region");
    gateway.daemon.restart().await;
    wait_booked(&gateway).await;
    gateway.daemon.stop().await;
    std::fs::rename(&now, &other).expect("the older region");
    std::fs::rename(&newer, &now).expect("the newer region");
    gateway.daemon.restart().await;
    ask(&gateway, "free", 2).await;
    wait_booked(&gateway).await;
    gateway.stop().await;
}
