//! Versions of the configuration through the API: what was published, by whom, what differs, and the way back.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test code"
)]

mod support;

use axum::body::Body;
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::fs;
use support::{Daemon, Folders, SECRET, channels};

async fn publish(daemon: &Daemon, body: &Value) -> (StatusCode, Value) {
    let request = Daemon::request("POST", "/api/v1/versions")
        .header("x-tollgate-author", "mia")
        .body(Body::from(body.to_string()))
        .unwrap();
    let (status, _, body) = daemon.send(request).await;
    (status, body)
}

/// A daemon whose folder has become version 1. Credentials are sealed first, which is a version of its own.
async fn started() -> (Daemon, u64) {
    let daemon = Daemon::start(Folders::new()).await;
    daemon.until(|s| s.in_force && s.version.is_some()).await;
    let version = daemon.state.config.borrow().version.unwrap();
    (daemon, version)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_publication_is_one_version_and_can_be_taken_back_byte_for_byte() {
    let (daemon, first) = started().await;
    let before = fs::read(daemon.folders.file("channels")).unwrap();
    let text = channels(77).to_string() + "\n\n";
    let (status, body) = publish(
        &daemon,
        &json!({
            "documents": {
                "channels": text,
                "tollgate.templates.json": {"templates": [{"name": "t"}]},
                "rules": null,
            },
            "message": "a template, no rules", "base": first,
        }),
    )
    .await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(
        (&body["version"], &body["in_force"]),
        (&json!(first + 1), &json!(true)),
        "{body}"
    );
    assert_eq!(fs::read_to_string(daemon.folders.file("channels")).unwrap(), text);
    assert!(daemon.folders.file("templates").exists() && !daemon.folders.file("rules").exists());

    let list = daemon.get("/api/v1/versions").await;
    assert_eq!(
        (&list["head"], &list["in_force"]),
        (&json!(first + 1), &json!(first + 1))
    );
    let newest = &list["versions"][0];
    assert_eq!(
        (&newest["author"], &newest["message"]),
        (&json!("mia"), &json!("a template, no rules"))
    );
    let changed = [
        "tollgate.channels.json",
        "tollgate.rules.json",
        "tollgate.templates.json",
    ];
    assert_eq!(newest["changed"], json!(changed));
    let diff = daemon.get(&format!("/api/v1/versions/{}/diff", first + 1)).await;
    let of = |name: &str| {
        let documents = diff["documents"].as_array().unwrap();
        documents.iter().find(|d| d["document"] == name).unwrap().clone()
    };
    assert_eq!(of("tollgate.rules.json")["change"], json!("removed"));
    assert_eq!(of("tollgate.templates.json")["change"], json!("added"));
    let max = &of("tollgate.channels.json")["differences"][0];
    assert_eq!((&max["old"], &max["new"]), (&json!(10_000), &json!(77)), "{diff}");

    // Whoever still thinks that it is the first version is told what happened since.
    let late = json!({"documents": {"templates": null}, "base": first});
    let (status, body) = publish(&daemon, &late).await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(body["present"], json!(first + 1));
    assert_eq!(body["diff"].as_array().unwrap().len(), 3, "{body}");

    let path = format!("/api/v1/versions/{first}/rollback");
    let (status, body) = daemon.post(&path, &json!({"message": "oops"})).await;
    assert_eq!(
        (status, &body["version"]),
        (StatusCode::OK, &json!(first + 2)),
        "{body}"
    );
    assert_eq!(fs::read(daemon.folders.file("channels")).unwrap(), before);
    assert!(!daemon.folders.file("templates").exists() && daemon.folders.file("rules").exists());
    let list = daemon.get("/api/v1/versions?limit=1").await;
    let message = format!("back to version {first}: oops");
    assert_eq!(list["versions"][0]["message"], json!(message));
    let documents = |n: u64| {
        let daemon = &daemon;
        async move { daemon.get(&format!("/api/v1/versions/{n}")).await["documents"].clone() }
    };
    assert_eq!(documents(first).await, documents(first + 2).await);
    let only = daemon
        .get("/api/v1/versions?document=tollgate.templates.json")
        .await;
    assert_eq!(only["versions"].as_array().unwrap().len(), 2, "{only}");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_edited_in_the_folder_becomes_a_version_when_it_is_in_force() {
    let (daemon, first) = started().await;
    daemon
        .folders
        .write("channels", &json!({"channels": [{"code": "x", "unknown": 1}]}));
    daemon.until(|s| !s.in_force).await;
    assert_eq!(daemon.get("/api/v1/versions").await["head"], json!(first));
    // The way back is open while what is there is wrong.
    let path = format!("/api/v1/versions/{first}/rollback");
    let (status, body) = daemon.post(&path, &json!({})).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(
        body["version"],
        json!(first),
        "the present version's documents are no new version"
    );
    daemon.until(|s| s.in_force && s.version == Some(first)).await;

    daemon.folders.write("channels", &channels(5));
    daemon.until(|s| s.version == Some(first + 1)).await;
    let newest = daemon.get("/api/v1/versions").await["versions"][0].clone();
    assert_eq!(newest["author"], json!("folder"));
    assert!(
        newest["message"]
            .as_str()
            .unwrap()
            .contains("tollgate.channels.json")
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn invalid_documents_and_dry_runs_are_no_versions() {
    let (daemon, first) = started().await;
    let wrong = json!({"documents": {"channels": {"channels": [{"code": "x", "extends": "missing"}]}}});
    assert_eq!(publish(&daemon, &wrong).await.0, StatusCode::UNPROCESSABLE_ENTITY);
    let dry = json!({"documents": {"channels": channels(3)}, "dry_run": true});
    let (status, body) = publish(&daemon, &dry).await;
    assert_eq!(
        (status, &body["published"]),
        (StatusCode::OK, &json!(false)),
        "{body}"
    );
    assert_eq!(body["diff"][0]["document"], json!("tollgate.channels.json"));
    assert_eq!(daemon.get("/api/v1/versions").await["head"], json!(first));
    for number in [0, first + 1] {
        let request = Daemon::request("GET", &format!("/api/v1/versions/{number}"))
            .body(Body::empty())
            .unwrap();
        assert_eq!(daemon.send(request).await.0, StatusCode::NOT_FOUND);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn credentials_are_in_no_version_in_the_clear() {
    let (daemon, first) = started().await;
    for number in 1..=first {
        let path = format!("/api/v1/versions/{number}/documents/tollgate.providers.json");
        let shown = daemon.get(&path).await["providers"][0]["credentials"].to_string();
        assert!(shown.contains("***") && !shown.contains("sealed:"), "{shown}");
    }
    for entry in fs::read_dir(daemon.folders.state().join("versions")).unwrap() {
        let text = fs::read_to_string(entry.unwrap().path()).unwrap();
        assert!(!text.contains(SECRET));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_instance_s_own_values_are_shown_with_what_they_override() {
    let (daemon, first) = started().await;
    let own = json!({"instance": {"settings": {"min_output_reservation": 99}}});
    let (status, body) = publish(
        &daemon,
        &json!({"documents": {"tollgate.instance.one.json": own}}),
    )
    .await;
    assert_eq!(
        (status, &body["version"]),
        (StatusCode::OK, &json!(first + 1)),
        "{body}"
    );
    assert_eq!(daemon.state.config.borrow().settings.min_output_reservation, 99);
    let shown = daemon.get("/api/v1/documents").await["overrides"][0].clone();
    assert_eq!(
        (&shown["path"], &shown["value"], &shown["inherited"]),
        (
            &json!("settings.min_output_reservation"),
            &json!(99),
            &Value::Null
        )
    );
    // Another instance's document is kept and changes nothing here.
    let other = json!({"instance": {"settings": {"min_output_reservation": 98}}});
    let generation = daemon.region.generation();
    let (status, body) = publish(
        &daemon,
        &json!({"documents": {"tollgate.instance.two.json": other}}),
    )
    .await;
    assert_eq!(
        (status, &body["in_force"]),
        (StatusCode::OK, &json!(true)),
        "{body}"
    );
    assert_eq!(daemon.region.generation(), generation);
    let wrong = json!({"instance": {"settings": {"min_output_reservation": 0}}});
    let (status, body) = publish(
        &daemon,
        &json!({"documents": {"tollgate.instance.one.json": wrong}}),
    )
    .await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(
        body["problems"][0]["document"],
        json!("tollgate.instance.one.json"),
        "{body}"
    );
}
