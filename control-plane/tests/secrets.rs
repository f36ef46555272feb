//! Secrets of people and machines: nothing that proves who somebody is stands anywhere but where it was asked for.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test code"
)]

mod support;

use std::path::Path;

use axum::http::StatusCode;
use serde_json::json;
use support::{Daemon, Folders, SECRET};
use tollgate::api::sketches;

fn files(folder: &Path, found: &mut Vec<(String, Vec<u8>)>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push((
                path.display().to_string(),
                std::fs::read(&path).unwrap_or_default(),
            ));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_proves_who_somebody_is_stands_in_no_file_and_no_answer() {
    let daemon = Daemon::start(Folders::new()).await;
    daemon.until(|s| s.in_force && s.version.is_some()).await;
    let mia = daemon.account("mia", &["admin"], &["*"]).await;
    let wanted = json!({"label": "ci", "expires_in": "30d"});
    let (status, token) = daemon.as_(&mia, "POST", "/api/v1/tokens", Some(&wanted)).await;
    assert_eq!(status, StatusCode::CREATED, "{token}");
    let path = "/api/v1/channels/wechat001/keys";
    let (status, key) = daemon.as_(&mia, "POST", path, Some(&json!({"id": "k1"}))).await;
    assert_eq!(status, StatusCode::CREATED, "{key}");
    let changed = json!({"current": mia.password, "new": "another long password"});
    let (status, _) = daemon
        .as_(&mia, "PUT", "/api/v1/session/password", Some(&changed))
        .await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert!(daemon.sign_in("mia", "a password that is wrong").await.is_err());
    let second = json!({"credentials": {"type": "bearer", "key": "sk-second-credential"}});
    let (status, body) = daemon
        .as_(&mia, "PATCH", "/api/v1/providers/p", Some(&second))
        .await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let draft = json!({"at_ms": tollgate::schedule::now_ms() + 3_600_000, "documents": {"providers":
        {"providers": [{"id": "p", "protocol": "openai", "base_url": "http://127.0.0.1:9",
            "credentials": {"type": "bearer", "key": "sk-scheduled-credential"}}]}}});
    let (status, body) = daemon.as_(&mia, "POST", "/api/v1/schedules", Some(&draft)).await;
    assert_eq!(status, StatusCode::CREATED, "{body}");
    let draft = body["id"].as_str().unwrap().to_owned();
    let archive = daemon.get("/api/v1/backup").await;
    let kept = serde_json::from_value(archive).unwrap();
    let backup = daemon.state.backups.write(&kept).unwrap().name;

    let cookie = mia.cookie.split_once('=').unwrap().1;
    let secrets = [
        SECRET,
        "sk-second-credential",
        "sk-scheduled-credential",
        mia.password.as_str(),
        "another long password",
        "a password that is wrong",
        cookie,
        mia.csrf.as_str(),
        token["token"].as_str().unwrap(),
        key["key"].as_str().unwrap(),
        support::TOKEN,
    ];
    let mut asked = 0;
    for route in sketches().iter().filter(|r| r.method == "GET") {
        let path = route
            .path
            .replace("/channels/{id}", "/channels/wechat001")
            .replace("/models/{id}", "/models/gpt-4o")
            .replace("/providers/{id}", "/providers/p")
            .replace("/rules/{id}", "/rules/no%20opus")
            .replace("/schedules/{id}", &format!("/schedules/{draft}"))
            .replace("/backups/{name}", &format!("/backups/{backup}"))
            .replace("/accounts/{name}", "/accounts/mia")
            .replace("/documents/{name}", "/documents/tollgate.providers.json")
            .replace("{kind}", "providers")
            .replace("{deployment}", "gpt-4o%2Fp")
            .replace("{*id}", "gpt-4o/p")
            .replace("{number}", "1")
            .replace("{seq}", "1");
        // The stream does not end, and the page of the API is HTML.
        if path.ends_with("/live") || path.contains('{') {
            continue;
        }
        let request = Daemon::request("GET", &path)
            .body(axum::body::Body::empty())
            .unwrap();
        let (status, headers, body) = daemon.send(request).await;
        assert!(!status.is_server_error(), "{path}: {body}");
        asked += usize::from(status.is_success());
        let text = format!("{headers:?} {body}");
        for secret in secrets {
            assert!(!text.contains(secret), "{secret} in {path}");
        }
    }
    assert!(asked > 40, "{asked}");

    let mut found = Vec::new();
    for folder in [
        daemon.folders.config(),
        daemon.folders.state(),
        daemon.folders.region(),
    ] {
        files(&folder, &mut found);
    }
    assert!(found.len() > 10, "{}", found.len());
    for (name, bytes) in &found {
        for secret in secrets {
            let there = bytes.windows(secret.len()).any(|w| w == secret.as_bytes());
            assert!(!there, "{secret} in {name}");
        }
    }
}
