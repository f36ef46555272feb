//! Changes that are published later, through the API.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test code"
)]

mod support;

use std::fs;
use std::sync::Arc;

use axum::http::StatusCode;
use serde_json::{Value, json};
use support::{Daemon, Folders, channels};
use tollgate::accounts::SqliteRecords;
use tollgate::schedule::{Schedules, now_ms};

async fn started() -> Daemon {
    let daemon = Daemon::start(Folders::new()).await;
    daemon.until(|s| s.in_force && s.version.is_some()).await;
    daemon
}

/// Keeps documents until `ahead` milliseconds from now; the id.
async fn schedule(daemon: &Daemon, ahead: u64, documents: Value) -> String {
    let body = json!({"at_ms": now_ms() + ahead, "documents": documents, "message": "tonight"});
    let (status, body) = daemon.as_root("POST", "/api/v1/schedules", Some(&body)).await;
    assert_eq!(
        (status, &body["state"]),
        (StatusCode::CREATED, &json!("waiting")),
        "{body}"
    );
    body["id"].as_str().unwrap().to_owned()
}

fn path(id: &str) -> String {
    format!("/api/v1/schedules/{id}")
}

async fn ended(daemon: &Daemon, id: &str) -> Value {
    daemon
        .eventually(&path(id), |draft| draft["ended_at_ms"].is_number())
        .await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_published_at_its_time_by_one_of_two_instances() {
    let daemon = started().await;
    let before = daemon.state.config.borrow().version.unwrap();
    let (_one, _two) = (daemon.run_schedules("one"), daemon.run_schedules("two"));
    let id = schedule(&daemon, 400, json!({"channels": channels(4_321)})).await;
    let waiting = daemon.get(&path(&id)).await;
    assert_eq!(waiting["conflicts"], json!([]));
    assert_eq!(
        waiting["diff"][0]["document"], "tollgate.channels.json",
        "{waiting}"
    );
    assert!(
        !fs::read_to_string(daemon.folders.file("channels"))
            .unwrap()
            .contains("4321")
    );

    let draft = ended(&daemon, &id).await;
    assert_eq!(
        (&draft["state"], &draft["version"]),
        (&json!("published"), &json!(before + 1)),
        "{draft}"
    );
    assert!(draft["ended_at_ms"].as_u64() >= draft["at_ms"].as_u64());
    daemon
        .until(|s| s.in_force && s.version == Some(before + 1))
        .await;
    assert!(
        fs::read_to_string(daemon.folders.file("channels"))
            .unwrap()
            .contains("4321")
    );
    let versions = daemon.get("/api/v1/versions").await;
    assert_eq!(
        (&versions["head"], &versions["versions"][0]["message"]),
        (&json!(before + 1), &json!("tonight (scheduled)"))
    );
    let audit = daemon.get("/api/v1/audit?action=update").await;
    let rows: Vec<&Value> = audit["items"]
        .as_array()
        .unwrap()
        .iter()
        .filter(|row| row["via"] == "schedule")
        .collect();
    assert_eq!(rows.len(), 1, "{audit}");
    assert_eq!(
        (&rows[0]["outcome"], &rows[0]["actor"]),
        (&json!("ok"), &json!("root"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_outlives_the_daemon_that_took_it() {
    let mut daemon = started().await;
    let id = schedule(&daemon, 100, json!({"channels": channels(777)})).await;
    // Another process over the same folder.
    let records = SqliteRecords::open(&daemon.folders.state().join("accounts.db")).unwrap();
    daemon.state.schedules = Schedules::new(Arc::new(records));
    let _one = daemon.run_schedules("one");
    let draft = ended(&daemon, &id).await;
    assert_eq!(draft["state"], "published", "{draft}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_changed_meanwhile_is_not_overwritten() {
    let daemon = started().await;
    let id = schedule(&daemon, 50, json!({"channels": channels(1)})).await;
    let other = json!({"documents": {"channels": channels(2)}});
    let (status, body) = daemon.post("/api/v1/versions", &other).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let conflicted = daemon.get(&path(&id)).await;
    assert_eq!(
        conflicted["conflicts"],
        json!(["tollgate.channels.json"]),
        "{conflicted}"
    );
    let text = fs::read_to_string(daemon.folders.file("channels")).unwrap();
    let _one = daemon.run_schedules("one");
    let draft = ended(&daemon, &id).await;
    assert_eq!(draft["state"], "refused", "{draft}");
    assert!(
        draft["reason"]
            .as_str()
            .unwrap()
            .contains("tollgate.channels.json")
    );
    assert_eq!(fs::read_to_string(daemon.folders.file("channels")).unwrap(), text);
    let audit = daemon.get("/api/v1/audit?outcome=failed").await;
    assert_eq!(audit["items"][0]["via"], "schedule", "{audit}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_valid_any_more_is_refused_and_says_why() {
    let daemon = started().await;
    let template = json!({"documents": {"templates": {"templates": [{"name": "t"}]}}});
    assert_eq!(daemon.post("/api/v1/versions", &template).await.0, StatusCode::OK);
    let mut extending = channels(5);
    extending["channels"][0]["extends"] = json!("t");
    let id = schedule(&daemon, 50, json!({"channels": extending})).await;
    let gone = json!({"documents": {"templates": null}});
    assert_eq!(daemon.post("/api/v1/versions", &gone).await.0, StatusCode::OK);
    let _one = daemon.run_schedules("one");
    let draft = ended(&daemon, &id).await;
    assert_eq!(draft["state"], "refused", "{draft}");
    assert!(
        draft["problems"][0].as_str().unwrap().contains("extends"),
        "{draft}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_change_is_cancelled_or_ends_with_its_authors_rights() {
    let daemon = started().await;
    let bad = |at_ms: u64, documents: Value| json!({"at_ms": at_ms, "documents": documents});
    for body in [
        bad(now_ms() - 1, json!({"channels": channels(1)})),
        bad(now_ms() + 500 * 86_400_000, json!({"channels": channels(1)})),
        bad(now_ms() + 60_000, json!({})),
        bad(
            now_ms() + 60_000,
            json!({"channels": {"channels": [{"code": 1}]}}),
        ),
    ] {
        let (status, answer) = daemon.as_root("POST", "/api/v1/schedules", Some(&body)).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}: {answer}");
    }
    assert_eq!(daemon.get("/api/v1/schedules").await["items"], json!([]));

    let id = schedule(&daemon, 3_600_000, json!({"channels": channels(1)})).await;
    let (status, draft) = daemon.as_root("DELETE", &path(&id), None).await;
    assert_eq!(
        (status, &draft["state"]),
        (StatusCode::OK, &json!("cancelled")),
        "{draft}"
    );
    assert_eq!(
        daemon.as_root("DELETE", &path(&id), None).await.0,
        StatusCode::CONFLICT
    );
    assert_eq!(
        daemon.as_root("DELETE", &path("none"), None).await.0,
        StatusCode::NOT_FOUND
    );

    let mia = daemon.account("mia", &["operator"], &["*"]).await;
    let body = bad(now_ms() + 50, json!({"channels": channels(9)}));
    let (status, draft) = daemon.as_(&mia, "POST", "/api/v1/schedules", Some(&body)).await;
    assert_eq!(
        (status, &draft["author"]),
        (StatusCode::CREATED, &json!("mia")),
        "{draft}"
    );
    let disabled = json!({"enabled": false});
    let (status, _) = daemon
        .as_root("PATCH", "/api/v1/accounts/mia", Some(&disabled))
        .await;
    assert_eq!(status, StatusCode::OK);
    let _one = daemon.run_schedules("one");
    let draft = ended(&daemon, draft["id"].as_str().unwrap()).await;
    assert_eq!(draft["state"], "refused", "{draft}");
    assert!(draft["reason"].as_str().unwrap().contains("mia"));
}
