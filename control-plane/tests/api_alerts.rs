//! Alerts over the API: receivers' secrets, silences, who may do and see what.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test code"
)]

mod support;

use axum::http::StatusCode;
use serde_json::{Value, json};
use support::{Daemon, Folders};

const HUSH: &str = "hush-of-the-receiver";

fn receivers(secret: &Value) -> Value {
    json!({ "alerts": { "receivers": [
        { "name": "ops", "url": "http://127.0.0.1:9/", "secret": secret },
        { "name": "chat", "kind": "slack", "secret_url": { "key": "http://127.0.0.1:9/hush-of-the-address" } }] } })
}

#[tokio::test]
async fn secrets_go_in_and_never_come_out() {
    let daemon = Daemon::start(Folders::new()).await;
    let (status, body) = daemon
        .as_root(
            "PATCH",
            "/api/v1/settings",
            Some(&receivers(&json!({ "key": HUSH }))),
        )
        .await;
    assert_eq!(status, StatusCode::OK, "{body}");
    daemon.until(|s| s.settings.alerts.receivers.len() == 2).await;
    let settings = daemon.get("/api/v1/settings").await;
    let shown = &settings["value"]["alerts"]["receivers"];
    assert_eq!(shown[0]["secret"], json!({ "encrypted": "***" }));
    assert_eq!(shown[1]["secret_url"], json!({ "encrypted": "***" }));
    let file = std::fs::read_to_string(daemon.folders.file("settings")).unwrap();
    assert!(file.contains("encrypted") && !file.contains("hush"), "{file}");

    // What was shown may be sent back, with a new name for the kind and in another order.
    let sealed = |text: &str| {
        let value: Value = serde_json::from_str(text).unwrap();
        let all = value["settings"]["alerts"]["receivers"]
            .as_array()
            .unwrap()
            .clone();
        all.into_iter().find(|r| r["name"] == "ops").unwrap()["secret"]["encrypted"].clone()
    };
    let turned = json!({ "alerts": { "receivers": [shown[1], shown[0]] } });
    let (status, body) = daemon.as_root("PATCH", "/api/v1/settings", Some(&turned)).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let after = std::fs::read_to_string(daemon.folders.file("settings")).unwrap();
    assert_eq!(sealed(&after), sealed(&file));
    // What is stored for one is not stored for another.
    let (status, body) = daemon
        .as_root(
            "PATCH",
            "/api/v1/settings",
            Some(
                &json!({ "alerts": { "receivers": [{ "name": "new", "url": "http://127.0.0.1:9/",
                "secret": { "encrypted": "***" } }] } }),
            ),
        )
        .await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
    assert!(body.to_string().contains("alerts/new/secret"), "{body}");

    // Nobody listens there, and nobody hears the address.
    for name in ["ops", "chat"] {
        let (status, trial) = daemon
            .as_root("POST", &format!("/api/v1/alerts/receivers/{name}/test"), None)
            .await;
        assert_eq!(
            (status, &trial["accepted"]),
            (StatusCode::OK, &json!(false)),
            "{trial}"
        );
        assert!(
            trial["error"].as_str().unwrap().len() > 5 && !trial.to_string().contains("hush"),
            "{trial}"
        );
    }
    let (status, _) = daemon
        .as_root("POST", "/api/v1/alerts/receivers/none/test", None)
        .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    for path in [
        "/api/v1/versions/2/documents/tollgate.settings.json",
        "/api/v1/audit",
        "/api/v1/alerts",
        "/api/v1/backup",
    ] {
        let text = daemon.get(path).await.to_string();
        assert!(!text.contains("hush"), "{path}: {text}");
    }
}

#[tokio::test]
async fn silences_are_made_listed_and_ended() {
    let daemon = Daemon::start(Folders::new()).await;
    let path = "/api/v1/alerts/silences";
    for (body, field) in [
        (json!({ "for": "0s" }), "for"),
        (json!({ "for": "1h", "comment": "x".repeat(2_000) }), "comment"),
        (
            json!({ "for": "1h", "labels": { "model": "x".repeat(600) } }),
            "labels",
        ),
        (json!({ "for": "1h", "starts_ms": u64::MAX }), "starts_ms"),
    ] {
        let (status, answer) = daemon.as_root("POST", path, Some(&body)).await;
        assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}: {answer}");
        assert_eq!(answer["problems"][0]["field"], field, "{answer}");
    }
    let (status, _) = daemon
        .as_root("POST", path, Some(&json!({ "for": "1h", "rule": "nonsense" })))
        .await;
    assert!(status.is_client_error());
    let wanted =
        json!({ "for": "2h", "rule": "model_down", "labels": { "model": "gpt*" }, "comment": "moving" });
    let (status, made) = daemon.as_root("POST", path, Some(&wanted)).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    assert_eq!(
        (
            &made["by"],
            &made["comment"],
            made["ends_ms"].as_u64().unwrap() - made["starts_ms"].as_u64().unwrap()
        ),
        (&json!("root"), &json!("moving"), 7_200_000)
    );
    assert_eq!(daemon.get(path).await["items"], json!([made]));
    assert_eq!(daemon.get("/api/v1/alerts").await["silences"], json!([made]));
    let one = format!("{path}/{}", made["id"].as_str().unwrap());
    let (status, ended) = daemon.as_root("DELETE", &one, None).await;
    assert_eq!(status, StatusCode::OK, "{ended}");
    let now = daemon.get("/api/v1/alerts").await["now_ms"].as_u64().unwrap();
    assert!(ended["ends_ms"].as_u64().unwrap() <= now);
    let (status, _) = daemon.as_root("DELETE", &format!("{path}/none"), None).await;
    assert_eq!(status, StatusCode::NOT_FOUND);
    let audit = daemon.get("/api/v1/audit").await.to_string();
    assert!(
        audit.contains(&format!("silence {}", made["id"].as_str().unwrap())),
        "{audit}"
    );
}

#[tokio::test]
async fn rules_are_shown_as_they_are_in_force_and_roles_do_what_their_names_say() {
    let daemon = Daemon::start(Folders::new()).await;
    let patch = json!({ "alerts": { "rules": { "error_rate": { "threshold": 3.5, "for": "5m", "severity": "critical" },
        "disk_low": { "enabled": false } } } });
    let (status, body) = daemon.as_root("PATCH", "/api/v1/settings", Some(&patch)).await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let list = daemon
        .eventually("/api/v1/alerts", |list| list["rules"].to_string().contains("3.5"))
        .await;
    let rule = |name: &str| {
        let rules = list["rules"].as_array().unwrap();
        rules.iter().find(|rule| rule["name"] == name).unwrap().clone()
    };
    let errors = rule("error_rate");
    assert_eq!(
        (
            &errors["threshold"],
            &errors["for_ms"],
            &errors["severity"],
            &errors["defaults"]["threshold"]
        ),
        (&json!(3.5), &json!(300_000), &json!("critical"), &json!(10.0))
    );
    assert_eq!(rule("disk_low")["enabled"], false);
    assert_eq!(
        (&rule("model_down")["threshold"], &rule("model_down")["own"]),
        (&Value::Null, &json!(false))
    );

    let silence = json!({ "for": "1h" });
    for (role, may) in [("operator", true), ("viewer", false), ("auditor", false)] {
        let who = daemon.account(role, &[role], &["*"]).await;
        let (status, _) = daemon.as_(&who, "GET", "/api/v1/alerts", None).await;
        assert_eq!(status, StatusCode::OK, "{role}");
        let (status, _) = daemon
            .as_(&who, "POST", "/api/v1/alerts/silences", Some(&silence))
            .await;
        assert_eq!(status == StatusCode::CREATED, may, "{role}: {status}");
    }
    // Who sees some channels only sees nobody's silences and receivers.
    let team = daemon.account("team", &["admin"], &["team-*"]).await;
    let (status, list) = daemon.as_(&team, "GET", "/api/v1/alerts", None).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!((&list["silences"], &list["receivers"]), (&json!([]), &json!([])));
    let (status, _) = daemon
        .as_(&team, "POST", "/api/v1/alerts/none/ack", Some(&json!({})))
        .await;
    assert_eq!(status, StatusCode::NOT_FOUND);
}
