//! Backups that the daemon makes by itself.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test code"
)]

mod support;

use axum::http::StatusCode;
use serde_json::json;
use support::{Daemon, Folders, SECRET};
use tokio::sync::watch;
use tollgate::backup::Keeper;

#[tokio::test(flavor = "multi_thread")]
async fn a_backup_is_made_when_the_settings_say_so_and_can_be_restored() {
    let daemon = Daemon::start(Folders::new()).await;
    daemon.until(|s| s.in_force && s.version.is_some()).await;
    let team = daemon.account("team", &["viewer"], &["team-*"]).await;
    let (_stop, stopped) = watch::channel(false);
    let keeper = Keeper {
        config: daemon.state.config.clone(),
        accounts: daemon.state.accounts.clone(),
        key: daemon.state.sealer.key.clone(),
        folder: daemon.state.backups.clone(),
        audit: daemon.state.audit.clone(),
    };
    tokio::spawn(keeper.run(stopped));
    let none = daemon.get("/api/v1/backups").await;
    assert_eq!((&none["items"], &none["every_ms"]), (&json!([]), &json!(null)));

    let on = json!({"backup": {"every": "1h", "keep": 3}});
    let (status, body) = daemon.as_root("PATCH", "/api/v1/settings", Some(&on)).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let list = daemon
        .eventually("/api/v1/backups", |list| list["items"][0].is_object())
        .await;
    assert_eq!(
        (&list["every_ms"], &list["keep"], &list["items"][1]),
        (&json!(3_600_000), &json!(3), &json!(null))
    );
    let name = list["items"][0]["name"].as_str().unwrap();
    let file = std::fs::read_to_string(daemon.folders.state().join("backups").join(name)).unwrap();
    for secret in [SECRET, &team.password, &team.csrf, support::TOKEN] {
        assert!(!file.contains(secret), "{secret}");
    }
    let path = format!("/api/v1/backups/{name}");
    let archive = daemon.get(&path).await;
    let (status, dry) = daemon
        .as_root("POST", "/api/v1/backup/restore?dry_run=true", Some(&archive))
        .await;
    assert_eq!(
        (status, &dry["written"], &dry["changed"]),
        (StatusCode::OK, &json!(false), &json!([])),
        "{dry}"
    );
    // Reading it back takes more than looking: it holds everything.
    let looker = daemon.account("looker", &["auditor"], &["*"]).await;
    assert_eq!(
        daemon.as_(&looker, "GET", "/api/v1/backups", None).await.0,
        StatusCode::OK
    );
    assert_eq!(
        daemon.as_(&looker, "GET", &path, None).await.0,
        StatusCode::FORBIDDEN
    );

    assert_eq!(
        daemon.as_root("DELETE", &path, None).await.0,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        daemon.as_root("DELETE", &path, None).await.0,
        StatusCode::NOT_FOUND
    );
    let audit = daemon.get("/api/v1/audit?resource=backup").await;
    let rows = audit["items"].as_array().unwrap();
    assert!(
        rows.iter().any(|r| r["via"] == "schedule" && r["target"] == name),
        "{audit}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn backups_that_cannot_be_are_refused_with_their_field() {
    let daemon = Daemon::start(Folders::new()).await;
    for (backup, field) in [
        (json!({"every": "1s"}), "backup.every"),
        (json!({"keep": 0}), "backup.keep"),
    ] {
        let (status, body) = daemon
            .as_root("PATCH", "/api/v1/settings", Some(&json!({"backup": backup})))
            .await;
        assert_eq!(
            (status, &body["problems"][0]["field"]),
            (StatusCode::UNPROCESSABLE_ENTITY, &json!(field)),
            "{body}"
        );
    }
}
