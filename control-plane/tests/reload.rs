//! Documents in a folder and what they do to the region.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test code"
)]

mod support;

use std::time::Instant;

use serde_json::json;
use support::{Daemon, Folders, channels};
use tollgate_policy::Snapshot;
use tollgate_shm::SnapshotFiles;

fn max_in_force(daemon: &Daemon) -> u64 {
    let file = SnapshotFiles::new(daemon.region.dir())
        .open(daemon.region.generation())
        .unwrap();
    let snapshot = Snapshot::open(&file).unwrap();
    let channel = snapshot.channel_by_code(b"wechat001").unwrap();
    channel.limits().iter().find(|l| l.window_ms() > 0).unwrap().max()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_edit_reaches_the_region() {
    let daemon = Daemon::start(Folders::new()).await;
    assert_eq!((daemon.region.generation(), max_in_force(&daemon)), (1, 10_000));
    let mut slowest = std::time::Duration::ZERO;
    for n in 1..=20 {
        let began = Instant::now();
        daemon.folders.write("channels", &channels(10_000 + n));
        while max_in_force(&daemon) != 10_000 + n {
            assert!(began.elapsed() < support::PATIENCE, "edit {n} was not published");
            tokio::task::yield_now().await;
        }
        slowest = slowest.max(began.elapsed());
    }
    println!("slowest of 20 edits: {slowest:?}");
    daemon
        .until(|s| s.generation() == daemon.region.generation())
        .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bad_edit_keeps_what_was_good_and_is_reported() {
    let daemon = Daemon::start(Folders::new()).await;
    let mut bad = channels(1);
    bad["channels"][0]["extends"] = json!("missing");
    daemon.folders.write("channels", &bad);
    std::fs::write(daemon.folders.file("rules"), "{ \"rules\": [ }").unwrap();
    daemon
        .until(|s| !s.in_force && s.problems.iter().any(|p| p.reason.contains("JSON")))
        .await;
    assert_eq!((daemon.region.generation(), max_in_force(&daemon)), (1, 10_000));
    let documents = daemon.get("/api/v1/documents").await;
    assert_eq!(documents["in_force"], false);
    let found: Vec<String> = documents["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| {
            format!(
                "{} {}",
                p["document"].as_str().unwrap(),
                p["path"].as_str().unwrap()
            )
        })
        .collect();
    assert!(
        found.iter().any(|f| f.starts_with("tollgate.rules.json line 1")),
        "{found:?}"
    );
    assert!(
        found
            .iter()
            .any(|f| f == "tollgate.channels.json channels[0].extends"),
        "{found:?}"
    );
    let metrics = daemon.get("/metrics").await;
    assert!(
        metrics
            .as_str()
            .unwrap()
            .contains("tollgate_documents_in_force 0")
    );
    assert_eq!(
        daemon.get("/api/v1/health").await["status"],
        "configuration has errors"
    );

    daemon.folders.write("channels", &channels(77));
    daemon.folders.write("rules", &json!({"rules": []}));
    daemon.until(|s| s.in_force).await;
    assert_eq!(max_in_force(&daemon), 77);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_same_documents_need_no_new_generation() {
    let folders = Folders::new();
    let daemon = Daemon::start(folders).await;
    for (generation, max) in [(2, 10_001), (3, 10_000)] {
        daemon.folders.write("channels", &channels(max));
        daemon.until(|s| s.generation() == generation).await;
    }
    // Written again, but not changed.
    daemon.folders.write("channels", &channels(10_000));
    // A document that really changes shows that the one before was looked at without effect.
    daemon.folders.write("rules", &json!({"rules": []}));
    daemon.until(|s| s.generation() == 4).await;
    assert_eq!(daemon.region.generation(), 4);
}
