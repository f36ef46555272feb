//! Accounts, sessions, tokens, roles and the audit log, through the API.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test code"
)]

mod support;

use axum::body::Body;
use axum::http::{Request, StatusCode};
use serde_json::{Value, json};
use support::{Daemon, Folders};

#[tokio::test]
async fn the_first_admin_is_made_once_and_signs_in_and_out() {
    let daemon = Daemon::start(Folders::new()).await;
    let accounts = daemon.state.accounts.clone();
    let first =
        tokio::task::spawn_blocking(move || (accounts.first_run().unwrap(), accounts.first_run().unwrap()));
    let (Some(password), None) = first.await.unwrap() else {
        panic!("made once");
    };
    let plain = Request::builder()
        .uri("/api/v1/session")
        .body(Body::empty())
        .unwrap();
    let (status, _, body) = daemon.send(plain).await;
    assert_eq!((status, &body["signed_in"]), (StatusCode::OK, &json!(false)));
    let admin = daemon.sign_in("Admin", &password).await.unwrap();
    assert_eq!(admin.session["account"]["must_change_password"], true);
    assert_eq!(
        admin.session["permissions"]["accounts"],
        json!(["read", "create", "update", "delete", "execute"])
    );
    let (_, again) = daemon.as_(&admin, "GET", "/api/v1/session", None).await;
    assert_eq!(
        again["csrf"],
        admin.csrf.as_str(),
        "a page that was loaded anew goes on"
    );

    // A new password: this session goes on, the other one ends.
    let other = daemon.sign_in("admin", &password).await.unwrap();
    let change = |current: &str, new: &str| json!({"current": current, "new": new});
    let path = "/api/v1/session/password";
    let (status, body) = daemon
        .as_(&admin, "PUT", path, Some(&change("wrong", "a longer password")))
        .await;
    assert_eq!(
        (status, &body["problems"][0]["field"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("current"))
    );
    let (status, body) = daemon
        .as_(&admin, "PUT", path, Some(&change(&password, "short")))
        .await;
    assert_eq!(
        (status, &body["problems"][0]["field"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("new"))
    );
    let (status, _) = daemon
        .as_(&admin, "PUT", path, Some(&change(&password, "a longer password")))
        .await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert_eq!(
        daemon.as_(&admin, "GET", "/api/v1/accounts", None).await.0,
        StatusCode::OK
    );
    assert_eq!(
        daemon.as_(&other, "GET", "/api/v1/accounts", None).await.0,
        StatusCode::UNAUTHORIZED
    );
    assert!(daemon.sign_in("admin", &password).await.is_err());

    let (status, _) = daemon.as_(&admin, "POST", "/api/v1/logout", None).await;
    assert_eq!(status, StatusCode::NO_CONTENT);
    assert_eq!(
        daemon.as_(&admin, "GET", "/api/v1/accounts", None).await.0,
        StatusCode::UNAUTHORIZED
    );

    // Nobody guesses: after some failures even the right password has to wait.
    let mut statuses = Vec::new();
    for _ in 0..7 {
        statuses.push(daemon.sign_in("admin", "not the password").await.err().unwrap().0);
    }
    assert_eq!(
        statuses
            .iter()
            .filter(|s| **s == StatusCode::UNAUTHORIZED)
            .count(),
        4,
        "one has failed before: {statuses:?}"
    );
    let (status, body) = daemon.sign_in("admin", "a longer password").await.err().unwrap();
    assert_eq!(status, StatusCode::TOO_MANY_REQUESTS);
    assert!(body["retry_after_s"].as_u64().unwrap() >= 1);
    // Neither password stands anywhere in the clear.
    for file in ["accounts.db", "accounts.db-wal", "audit.db", "audit.db-wal"] {
        let bytes = std::fs::read(daemon.folders.state().join(file)).unwrap_or_default();
        for secret in [password.as_str(), "a longer password", "not the password"] {
            assert!(
                !bytes.windows(secret.len()).any(|w| w == secret.as_bytes()),
                "{secret} in {file}"
            );
        }
    }
}

#[tokio::test]
async fn accounts_change_at_once_and_nobody_gives_what_they_do_not_have() {
    let daemon = Daemon::start(Folders::new()).await;
    let admin = daemon.account("boss", &["admin"], &["*"]).await;
    let viewer = daemon.account("viewer", &["viewer"], &["*"]).await;
    assert_eq!(
        daemon.as_(&viewer, "GET", "/api/v1/rules", None).await.0,
        StatusCode::OK
    );
    let patch = json!({"roles": ["operator"], "display_name": "Vera"});
    let (status, body) = daemon
        .as_(&admin, "PATCH", "/api/v1/accounts/viewer", Some(&patch))
        .await;
    assert_eq!((status, &body["display_name"]), (StatusCode::OK, &json!("Vera")));
    let (status, _) = daemon
        .as_(
            &viewer,
            "POST",
            "/api/v1/emergency/channels/wechat001/block",
            None,
        )
        .await;
    assert_eq!(status, StatusCode::OK, "the new role holds for the old session");
    let (status, _) = daemon
        .as_(
            &admin,
            "PATCH",
            "/api/v1/accounts/viewer",
            Some(&json!({"enabled": false})),
        )
        .await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        daemon.as_(&viewer, "GET", "/api/v1/rules", None).await.0,
        StatusCode::UNAUTHORIZED
    );
    assert!(daemon.sign_in("viewer", &viewer.password).await.is_err());

    // An editor of an old version gets what there is now.
    let old = Request::builder()
        .method("PATCH")
        .uri("/api/v1/accounts/viewer")
        .header("if-match", "\"1\"");
    let (status, _, body) = daemon
        .send(
            admin
                .on(old)
                .body(Body::from(r#"{"display_name": "V"}"#))
                .unwrap(),
        )
        .await;
    assert_eq!(
        (status, &body["current"]["display_name"]),
        (StatusCode::CONFLICT, &json!("Vera")),
        "{body}"
    );
    assert_eq!(
        body["diff"][0],
        json!({"path": "display_name", "current": "Vera", "yours": "V"})
    );

    // Somebody with a say over accounts cannot make themselves an admin, nor take one over.
    daemon
        .role(
            "clerk",
            &json!({"accounts": ["*"], "roles": ["*"], "channels": ["read"]}),
        )
        .await;
    let clerk = daemon.account("clerk", &["clerk"], &["*"]).await;
    for (method, path, body) in [
        (
            "POST",
            "/api/v1/accounts",
            json!({"name": "evil", "roles": ["admin"]}),
        ),
        ("PATCH", "/api/v1/accounts/clerk", json!({"roles": ["admin"]})),
        ("PATCH", "/api/v1/accounts/boss", json!({"enabled": false})),
        ("POST", "/api/v1/accounts/boss/password", json!({})),
        ("DELETE", "/api/v1/accounts/boss", json!({})),
        (
            "POST",
            "/api/v1/roles",
            json!({"name": "more", "permissions": {"*": ["*"]}}),
        ),
        (
            "PUT",
            "/api/v1/roles/clerk",
            json!({"permissions": {"audit": ["read"]}}),
        ),
    ] {
        let (status, answer) = daemon.as_(&clerk, method, path, Some(&body)).await;
        assert_eq!(status, StatusCode::FORBIDDEN, "{method} {path}: {answer}");
    }
    let (status, body) = daemon
        .as_(
            &clerk,
            "POST",
            "/api/v1/accounts",
            Some(&json!({"name": "helper", "roles": ["clerk"]})),
        )
        .await;
    assert_eq!(status, StatusCode::CREATED, "{body}");

    // Somebody is left who may do everything; roles in use stay.
    let (status, _) = daemon
        .as_root("PATCH", "/api/v1/accounts/boss", Some(&json!({"enabled": false})))
        .await;
    assert_eq!(status, StatusCode::CONFLICT);
    assert_eq!(
        daemon.as_root("DELETE", "/api/v1/accounts/boss", None).await.0,
        StatusCode::CONFLICT
    );
    assert_eq!(
        daemon.as_root("DELETE", "/api/v1/roles/clerk", None).await.0,
        StatusCode::CONFLICT
    );
    assert_eq!(
        daemon.as_root("DELETE", "/api/v1/roles/admin", None).await.0,
        StatusCode::CONFLICT
    );
    let bad = json!({"name": "UPPER case", "roles": ["no such"], "channels": [], "password": "short"});
    let (status, body) = daemon.as_root("POST", "/api/v1/accounts", Some(&bad)).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let fields: Vec<&str> = body["problems"]
        .as_array()
        .unwrap()
        .iter()
        .map(|p| p["field"].as_str().unwrap())
        .collect();
    assert_eq!(fields, ["name", "channels", "password", "roles[0]"]);
}

#[tokio::test]
async fn tokens_do_what_they_were_made_for_until_they_are_revoked() {
    let daemon = Daemon::start(Folders::new()).await;
    let admin = daemon.account("boss", &["admin"], &["*"]).await;
    let wanted = json!({"label": "ci", "expires_in": "90d", "permissions": {"channels": ["read"], "tokens": ["create"]},
        "channels": ["wechat*"]});
    let (status, made) = daemon.as_(&admin, "POST", "/api/v1/tokens", Some(&wanted)).await;
    assert_eq!(status, StatusCode::CREATED, "{made}");
    let token = made["token"].as_str().unwrap();
    assert!(token.starts_with("tgt_"));
    let with = |method: &str, path: &str, body: &str| {
        let request = Request::builder()
            .method(method)
            .uri(path)
            .header("authorization", format!("Bearer {token}"));
        request
            .header("if-match", "*")
            .body(Body::from(body.to_owned()))
            .unwrap()
    };
    assert_eq!(
        daemon.send(with("GET", "/api/v1/channels/wechat001", "")).await.0,
        StatusCode::OK
    );
    assert_eq!(
        daemon
            .send(with("PATCH", "/api/v1/channels/wechat001", "{}"))
            .await
            .0,
        StatusCode::FORBIDDEN
    );
    assert_eq!(
        daemon.send(with("GET", "/api/v1/accounts", "")).await.0,
        StatusCode::FORBIDDEN
    );
    // What it makes is no wider than itself.
    let (status, _, second) = daemon
        .send(with("POST", "/api/v1/tokens", r#"{"label": "more"}"#))
        .await;
    assert_eq!(status, StatusCode::CREATED, "{second}");
    assert_eq!(second["channels"], json!(["wechat*"]));
    assert_eq!(second["permissions"]["channels"], json!(["read"]));
    let (_, listed) = daemon.as_(&admin, "GET", "/api/v1/tokens", None).await;
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);
    assert!(!listed.to_string().contains(token));
    let viewer = daemon.account("viewer", &["viewer"], &["*"]).await;
    let path = format!("/api/v1/tokens/{}", made["id"].as_str().unwrap());
    assert_eq!(
        daemon.as_(&viewer, "DELETE", &path, None).await.0,
        StatusCode::FORBIDDEN
    );
    assert_eq!(
        daemon
            .as_(&viewer, "GET", "/api/v1/tokens?account=*", None)
            .await
            .0,
        StatusCode::FORBIDDEN
    );
    assert_eq!(
        daemon.as_(&admin, "DELETE", &path, None).await.0,
        StatusCode::NO_CONTENT
    );
    assert_eq!(
        daemon.send(with("GET", "/api/v1/channels/wechat001", "")).await.0,
        StatusCode::UNAUTHORIZED
    );
}

#[tokio::test]
async fn the_audit_log_says_who_did_what_and_hides_secrets() {
    let daemon = Daemon::start(Folders::new()).await;
    let boss = daemon.account("boss", &["admin"], &["*"]).await;
    let viewer = daemon.account("viewer", &["viewer"], &["*"]).await;
    let patch = json!({"limits": [{"metric": "connections", "max": 7}]});
    let (status, body) = daemon
        .as_(&boss, "PATCH", "/api/v1/channels/wechat001", Some(&patch))
        .await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let secret = json!({"credentials": {"type": "bearer", "key": "sk-brand-new-secret"}});
    let (status, body) = daemon
        .as_(&boss, "PATCH", "/api/v1/providers/p", Some(&secret))
        .await;
    assert_eq!(status, StatusCode::OK, "{body}");
    for _ in 0..20 {
        let (status, _) = daemon
            .as_(&viewer, "DELETE", "/api/v1/channels/wechat001", None)
            .await;
        assert_eq!(status, StatusCode::FORBIDDEN);
    }
    let (_, dry) = daemon
        .as_(
            &boss,
            "PATCH",
            "/api/v1/channels/wechat001?dry_run=true",
            Some(&json!({"name": "x"})),
        )
        .await;
    assert_eq!(dry["written"], false, "{dry}");
    assert!(daemon.sign_in("viewer", "guess").await.is_err());

    let rows = async |path: &str| -> Vec<Value> {
        daemon.as_root("GET", path, None).await.1["items"]
            .as_array()
            .unwrap()
            .clone()
    };
    let changes = rows("/api/v1/audit?actor=boss&outcome=ok").await;
    let told: Vec<String> = changes
        .iter()
        .map(|r| {
            format!(
                "{} {} {}",
                r["action"].as_str().unwrap(),
                r["resource"].as_str().unwrap(),
                r["target"].as_str().unwrap()
            )
        })
        .collect();
    assert_eq!(
        told,
        [
            "update providers p",
            "update channels wechat001",
            "sign_in accounts boss"
        ],
        "a dry run is no change"
    );
    let diff = changes[1]["detail"]["diff"].as_array().unwrap();
    assert!(
        diff.iter()
            .any(|d| d["path"] == "limits[0].max" && d["from"] == 10_000 && d["to"] == 7),
        "{diff:?}"
    );
    assert!(
        changes[0]["detail"]["diff"]
            .to_string()
            .contains("credentials.encrypted"),
        "{}",
        changes[0]
    );
    let denied = rows("/api/v1/audit?outcome=denied").await;
    assert_eq!(denied.len(), 2, "one row for each kind of try: {denied:?}");
    assert_eq!(
        (&denied[0]["actor"], &denied[0]["path"]),
        (&json!("viewer"), &json!("/api/v1/login"))
    );
    assert_eq!(
        (&denied[1]["actor"], &denied[1]["reason"]),
        (&json!("viewer"), &json!("needs channels:delete"))
    );
    let page = daemon.as_root("GET", "/api/v1/audit?limit=2", None).await.1;
    let next = page["next"].as_u64().unwrap();
    let older = daemon
        .as_root("GET", &format!("/api/v1/audit?limit=2&before={next}"), None)
        .await
        .1;
    assert!(older["items"][0]["seq"].as_u64().unwrap() < next);
    let (_, verdict) = daemon.as_root("GET", "/api/v1/audit/verify", None).await;
    assert_eq!(verdict["intact"], true, "{verdict}");
    let all: Value = daemon.as_root("GET", "/api/v1/audit?limit=1000", None).await.1;
    for secret in ["sk-brand-new-secret", support::SECRET, &boss.password, &boss.csrf] {
        assert!(!all.to_string().contains(secret), "{secret}");
    }
    // Whoever edits the file is found out.
    let db = rusqlite::Connection::open(daemon.folders.state().join("audit.db")).unwrap();
    db.execute_batch("DROP TRIGGER audit_is_not_edited; UPDATE audit SET entry = replace(entry, 'boss', 'evil') WHERE seq = 2;")
        .unwrap();
    let (_, verdict) = daemon.as_root("GET", "/api/v1/audit/verify", None).await;
    assert_eq!(
        (&verdict["intact"], &verdict["faults"][0]["seq"]),
        (&json!(false), &json!(2)),
        "{verdict}"
    );
}
