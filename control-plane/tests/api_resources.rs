//! Entries of documents as resources, through the API.

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
use support::{Daemon, Folders, SECRET};

async fn change(daemon: &Daemon, method: &str, path: &str, etag: &str, body: &Value) -> (StatusCode, Value) {
    let request = Daemon::request(method, path)
        .header("if-match", etag)
        .body(Body::from(body.to_string()))
        .unwrap();
    let (status, _, body) = daemon.send(request).await;
    (status, body)
}

#[tokio::test]
async fn every_sort_is_made_read_changed_and_removed() {
    let daemon = Daemon::start(Folders::new()).await;
    for (path, id, value, patch) in [
        (
            "channels",
            "app 1/ä",
            json!({"code": "app 1/ä", "trusted": true}),
            json!({"name": "App"}),
        ),
        (
            "templates",
            "standard",
            json!({"name": "standard"}),
            json!({"tags": ["x"]}),
        ),
        (
            "models",
            "openai/gpt-5",
            json!({"name": "openai/gpt-5", "deployments": [{"provider": "p"}]}),
            json!({"aliases": ["five"]}),
        ),
        (
            "providers",
            "q",
            json!({"id": "q", "protocol": "openai", "base_url": "http://127.0.0.1:9/v1"}),
            json!({"base_url": "http://127.0.0.1:10/v1"}),
        ),
        (
            "rules",
            "cap",
            json!({"name": "cap", "then": {"cap_max_tokens": 10}}),
            json!({"priority": 7}),
        ),
        (
            "rule-templates",
            "capped",
            json!({"name": "capped", "then": {"cap_max_tokens": 10}}),
            json!({"description": "d"}),
        ),
        (
            "counting-rules",
            "mine",
            json!({"name": "mine", "models": ["x*"], "factor": 1.5}),
            json!({"minimum": 3}),
        ),
    ] {
        let all = format!("/api/v1/{path}");
        let (status, made) = daemon.as_root("POST", &all, Some(&value)).await;
        assert_eq!(status, StatusCode::CREATED, "{path}: {made}");
        assert_eq!(
            (&made["in_force"], &made["value"], &made["id"]),
            (&json!(true), &value, &json!(id)),
            "{path}"
        );
        assert_eq!(
            daemon.as_root("POST", &all, Some(&value)).await.0,
            StatusCode::CONFLICT,
            "{path}"
        );
        let one = format!(
            "{all}/{}",
            id.replace('/', "%2F").replace(' ', "%20").replace('ä', "%C3%A4")
        );
        let read = daemon.get(&one).await;
        assert_eq!((&read["value"], &read["etag"]), (&value, &made["etag"]));
        let listed = daemon
            .get(&format!(
                "{all}?search={}",
                &id[..id.len().min(3)].replace(' ', "%20")
            ))
            .await;
        assert!(
            listed["items"].as_array().unwrap().iter().any(|i| i["id"] == id),
            "{path}: {listed}"
        );

        let etag = read["etag"].as_str().unwrap();
        let dry = format!("{one}?dry_run=true");
        let (status, tried) = change(&daemon, "PATCH", &dry, etag, &patch).await;
        assert_eq!(
            (status, &tried["written"]),
            (StatusCode::OK, &json!(false)),
            "{path}: {tried}"
        );
        assert_eq!(daemon.get(&one).await, read, "a dry run changes nothing");
        let (status, patched) = change(&daemon, "PATCH", &one, etag, &patch).await;
        assert_eq!(
            (status, &patched["in_force"]),
            (StatusCode::OK, &json!(true)),
            "{path}: {patched}"
        );
        for (name, wanted) in patch.as_object().unwrap() {
            assert_eq!(&patched["value"][name], wanted, "{path}");
        }
        assert_eq!(
            patched["etag"], tried["etag"],
            "{path}: a dry run says what would be"
        );

        // The second editor of the version that both knew gets the difference.
        let (status, conflict) = change(&daemon, "PUT", &one, etag, &value).await;
        assert_eq!(status, StatusCode::CONFLICT, "{path}");
        assert_eq!(conflict["current"]["value"], patched["value"], "{path}");
        assert!(
            !conflict["diff"].as_array().unwrap().is_empty(),
            "{path}: {conflict}"
        );
        let blind = Daemon::request("PUT", &one)
            .body(Body::from(value.to_string()))
            .unwrap();
        assert_eq!(
            daemon.send(blind).await.0,
            StatusCode::PRECONDITION_REQUIRED,
            "{path}"
        );
        let (status, replaced) =
            change(&daemon, "PUT", &one, patched["etag"].as_str().unwrap(), &value).await;
        assert_eq!(
            (status, &replaced["value"]),
            (StatusCode::OK, &value),
            "{path}: {replaced}"
        );

        let (status, gone) = change(&daemon, "DELETE", &one, "*", &Value::Null).await;
        assert_eq!(
            (status, &gone["value"]),
            (StatusCode::OK, &Value::Null),
            "{path}: {gone}"
        );
        let missing = Daemon::request("GET", &one).body(Body::empty()).unwrap();
        assert_eq!(daemon.send(missing).await.0, StatusCode::NOT_FOUND, "{path}");
        let (status, late) = change(&daemon, "PUT", &one, etag, &value).await;
        assert_eq!(
            (status, &late["current"]),
            (StatusCode::CONFLICT, &Value::Null),
            "{path}: {late}"
        );
    }
}

#[tokio::test]
async fn problems_stand_at_the_field_and_nothing_is_written() {
    let daemon = Daemon::start(Folders::new()).await;
    let before = std::fs::read(daemon.folders.file("channels")).unwrap();
    let bad = json!({"code": "app1", "trusted": true, "extends": "missing",
        "limits": [{"metric": "requests", "max": 1, "window": "1s"}, {"metric": "inputs", "max": 1, "window": "10m"}]});
    let (status, body) = daemon.as_root("POST", "/api/v1/channels", Some(&bad)).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    let fields: Vec<&str> = body["problems"]
        .as_array()
        .unwrap()
        .iter()
        .filter_map(|p| p["field"].as_str())
        .collect();
    assert!(
        fields.contains(&"extends") && fields.contains(&"limits[1].metric"),
        "{body}"
    );
    for (bad, field) in [(json!({"name": "no code"}), "code"), (json!([1]), "")] {
        let (status, body) = daemon.as_root("POST", "/api/v1/channels", Some(&bad)).await;
        assert_eq!(
            (status, &body["problems"][0]["field"]),
            (StatusCode::UNPROCESSABLE_ENTITY, &json!(field))
        );
    }
    let renamed = json!({"code": "other", "trusted": true});
    let (status, body) = change(&daemon, "PUT", "/api/v1/channels/wechat001", "*", &renamed).await;
    assert_eq!(
        (status, &body["problems"][0]["field"]),
        (StatusCode::UNPROCESSABLE_ENTITY, &json!("code")),
        "{body}"
    );
    assert_eq!(std::fs::read(daemon.folders.file("channels")).unwrap(), before);
    // What others refer to cannot go.
    let (status, body) = change(&daemon, "DELETE", "/api/v1/providers/p", "*", &Value::Null).await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY, "{body}");
    assert_eq!(body["problems"][0]["document"], "tollgate.models.json");
}

#[tokio::test]
async fn credentials_of_providers_are_for_writing_only() {
    let daemon = Daemon::start(Folders::new()).await;
    let shown = daemon.get("/api/v1/providers/p").await;
    assert_eq!(shown["value"]["credentials"]["encrypted"], "***");
    let stored = || std::fs::read_to_string(daemon.folders.file("providers")).unwrap();
    let sealed = |text: String| -> Value {
        serde_json::from_str::<Value>(&text).unwrap()["providers"][0]["credentials"]["encrypted"].clone()
    };
    let before = sealed(stored());
    let mut value = shown["value"].clone();
    value["base_url"] = json!("http://127.0.0.1:11");
    let (status, body) = change(
        &daemon,
        "PUT",
        "/api/v1/providers/p",
        shown["etag"].as_str().unwrap(),
        &value,
    )
    .await;
    assert_eq!(status, StatusCode::OK, "{body}");
    assert_eq!(sealed(stored()), before, "what was shown as *** stays");
    value["credentials"] = json!({"type": "bearer", "key": "sk-another"});
    let (status, body) = change(&daemon, "PUT", "/api/v1/providers/p", "*", &value).await;
    assert_eq!(
        (status, &body["value"]["credentials"]["encrypted"]),
        (StatusCode::OK, &json!("***")),
        "{body}"
    );
    assert!(!stored().contains("sk-another") && sealed(stored()) != before);
    let ciphertext = sealed(stored());
    let found = daemon
        .get(&format!(
            "/api/v1/providers?search={}",
            &ciphertext.as_str().unwrap()[..8]
        ))
        .await;
    assert_eq!(found["matched"], 0, "nobody searches in ciphertext");
    for path in ["/api/v1/providers", "/api/v1/audit?limit=100"] {
        let text = daemon.get(path).await.to_string();
        assert!(
            !text.contains(SECRET)
                && !text.contains("sk-another")
                && !text.contains(ciphertext.as_str().unwrap())
        );
    }
}

#[tokio::test]
async fn many_editors_of_one_document_all_get_through() {
    let daemon = Daemon::start(Folders::new()).await;
    let make = async |n: usize| {
        let channel = json!({"code": format!("app{n}"), "trusted": true});
        daemon.as_root("POST", "/api/v1/channels", Some(&channel)).await
    };
    let (a, b, c, d) = tokio::join!(make(1), make(2), make(3), make(4));
    for (status, body) in [a, b, c, d] {
        assert_eq!(status, StatusCode::CREATED, "{body}");
    }
    assert_eq!(daemon.get("/api/v1/channels").await["total"], 5);
    let text = std::fs::read_to_string(daemon.folders.file("channels")).unwrap();
    assert!(
        text.contains("\"code\": \"wechat001\",\n"),
        "what was there is as it was written: {text}"
    );
}

#[tokio::test]
async fn a_team_sees_and_edits_its_own_channels() {
    let daemon = Daemon::start(Folders::new()).await;
    for code in ["team-a", "team-b", "other"] {
        let (status, _) = daemon
            .as_root(
                "POST",
                "/api/v1/channels",
                Some(&json!({"code": code, "trusted": true})),
            )
            .await;
        assert_eq!(status, StatusCode::CREATED);
    }
    let team = daemon.account("team", &["operator"], &["team-*"]).await;
    let (_, page) = daemon.as_(&team, "GET", "/api/v1/channels", None).await;
    assert_eq!(
        (&page["total"], &page["items"][1]["id"]),
        (&json!(2), &json!("team-b")),
        "{page}"
    );
    let get = async |path: &str| daemon.as_(&team, "GET", path, None).await.0;
    assert_eq!(get("/api/v1/channels/team-a").await, StatusCode::OK);
    for path in [
        "/api/v1/channels/other",
        "/api/v1/channels/other/limits",
        "/api/v1/channels/other/effective",
    ] {
        assert_eq!(get(path).await, StatusCode::NOT_FOUND, "{path}");
    }
    let name = json!({"name": "x"});
    assert_eq!(
        daemon
            .as_(&team, "PATCH", "/api/v1/channels/team-a", Some(&name))
            .await
            .0,
        StatusCode::OK
    );
    assert_eq!(
        daemon
            .as_(&team, "PATCH", "/api/v1/channels/other", Some(&name))
            .await
            .0,
        StatusCode::NOT_FOUND
    );
    assert_eq!(
        daemon
            .as_(&team, "POST", "/api/v1/emergency/channels/other/block", None)
            .await
            .0,
        StatusCode::NOT_FOUND
    );
    let outside = json!({"code": "mine", "trusted": true});
    assert_eq!(
        daemon
            .as_(&team, "POST", "/api/v1/channels", Some(&outside))
            .await
            .0,
        StatusCode::FORBIDDEN
    );
    assert_eq!(get("/api/v1/models").await, StatusCode::OK);
    for path in [
        "/api/v1/rules",
        "/api/v1/documents",
        "/api/v1/providers",
        "/api/v1/settings",
        "/api/v1/instance",
    ] {
        assert_eq!(get(path).await, StatusCode::FORBIDDEN, "{path}");
    }
    let limits = daemon.as_(&team, "GET", "/api/v1/limits", None).await.1;
    assert_eq!(limits["total"], 2, "{limits}");
}

#[tokio::test]
async fn keys_are_shown_once_and_rotated() {
    let daemon = Daemon::start(Folders::new()).await;
    let (status, made) = daemon
        .as_root("POST", "/api/v1/channels/wechat001/keys", None)
        .await;
    assert_eq!(
        (status, &made["id"]),
        (StatusCode::CREATED, &json!("key1")),
        "{made}"
    );
    let key = made["key"].as_str().unwrap().to_owned();
    let digest = |key: &str| -> String {
        use sha2::{Digest, Sha256};
        Sha256::digest(key).iter().map(|b| format!("{b:02x}")).collect()
    };
    let channel = daemon.get("/api/v1/channels/wechat001").await;
    assert_eq!(channel["value"]["keys"][0]["sha256"], digest(&key).as_str());
    let path = "/api/v1/channels/wechat001/keys/key1/rotate";
    let (status, second) = daemon.as_root("POST", path, Some(&json!({"grace": "24h"}))).await;
    assert_eq!(
        (status, &second["id"]),
        (StatusCode::CREATED, &json!("key2")),
        "{second}"
    );
    let channel = daemon.get("/api/v1/channels/wechat001").await;
    assert!(
        channel["value"]["keys"][0]["expires_at"]
            .as_str()
            .unwrap()
            .ends_with('Z'),
        "{channel}"
    );
    assert_eq!(channel["value"]["keys"][1]["id"], "key2");
    let (status, _) = daemon
        .as_root("DELETE", "/api/v1/channels/wechat001/keys/key1", None)
        .await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        daemon
            .as_root("DELETE", "/api/v1/channels/wechat001/keys/key1", None)
            .await
            .0,
        StatusCode::NOT_FOUND
    );
    for path in ["/api/v1/channels", "/api/v1/audit?limit=100"] {
        let text = daemon.get(path).await.to_string();
        assert!(
            !text.contains(&key) && !text.contains(second["key"].as_str().unwrap()),
            "{path}"
        );
    }
}

#[tokio::test]
async fn deployments_are_edited_one_by_one() {
    let daemon = Daemon::start(Folders::new()).await;
    let all = "/api/v1/models/gpt-4o/deployments";
    let second = json!({"id": "canary", "provider": "p", "weight": 5, "version": "v2"});
    let (status, made) = daemon.as_root("POST", all, Some(&second)).await;
    assert_eq!(
        (status, &made["id"], &made["value"]),
        (StatusCode::CREATED, &json!("canary"), &second),
        "{made}"
    );
    let first = daemon.get(&format!("{all}/gpt-4o%2Fp")).await;
    let etag = first["etag"].as_str().unwrap();
    let one = format!("{all}/gpt-4o%2Fp");
    let (status, patched) = change(&daemon, "PATCH", &one, etag, &json!({"weight": 95})).await;
    assert_eq!(
        (status, &patched["value"]["weight"]),
        (StatusCode::OK, &json!(95)),
        "{patched}"
    );
    let (status, conflict) = change(&daemon, "PATCH", &one, etag, &json!({"weight": 50})).await;
    assert_eq!(
        (status, &conflict["diff"][0]["current"]),
        (StatusCode::CONFLICT, &json!(95)),
        "{conflict}"
    );
    let (status, _) = change(
        &daemon,
        "PATCH",
        &format!("{all}/canary"),
        "*",
        &json!({"weight": 6}),
    )
    .await;
    assert_eq!(
        status,
        StatusCode::OK,
        "the other deployment's version is its own"
    );
    let (status, body) = change(
        &daemon,
        "PATCH",
        &format!("{all}/canary"),
        "*",
        &json!({"provider": "none"}),
    )
    .await;
    assert_eq!(status, StatusCode::UNPROCESSABLE_ENTITY);
    assert_eq!(body["problems"][0]["field"], "deployments[1].provider", "{body}");
    assert_eq!(
        daemon.as_root("POST", all, Some(&second)).await.0,
        StatusCode::CONFLICT
    );
    let (status, _) = change(&daemon, "DELETE", &format!("{all}/canary"), "*", &Value::Null).await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(daemon.get(all).await["total"], 1);
}

#[tokio::test]
async fn settings_and_effective_channels_say_what_holds() {
    let daemon = Daemon::start(Folders::new()).await;
    let settings = daemon.get("/api/v1/settings").await;
    let (status, body) = change(
        &daemon,
        "PATCH",
        "/api/v1/settings",
        settings["etag"].as_str().unwrap(),
        &json!({"limits": [{"metric": "connections", "max": 50}]}),
    )
    .await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let template = json!({"name": "standard", "models": {"allow": ["gpt-*"]},
        "limits": [{"metric": "connections", "max": 9}, {"metric": "requests", "max": 5, "window": "1s"}]});
    assert_eq!(
        daemon
            .as_root("POST", "/api/v1/templates", Some(&template))
            .await
            .0,
        StatusCode::CREATED
    );
    let (status, body) = change(
        &daemon,
        "PATCH",
        "/api/v1/channels/wechat001",
        "*",
        &json!({"extends": "standard"}),
    )
    .await;
    assert_eq!(status, StatusCode::OK, "{body}");
    let effective = daemon.get("/api/v1/channels/wechat001/effective").await;
    assert_eq!(effective["chain"], json!(["standard"]));
    assert_eq!(effective["allow"]["origin"]["name"], "standard");
    let connections = effective["limits"]
        .as_array()
        .unwrap()
        .iter()
        .find(|l| l["name"] == "connections")
        .unwrap();
    assert_eq!(
        (
            &connections["value"]["max"],
            &connections["replaces"][0]["value"]["max"]
        ),
        (&json!(3), &json!(9)),
        "{effective}"
    );
    assert_eq!(connections["origin"]["path"], "channels[0].limits[1]");
    assert_eq!(effective["global_limits"][0]["value"]["max"], 50, "{effective}");
    let draft = json!({"code": "new", "extends": "standard", "limits": []});
    let (status, preview) = daemon
        .as_root("POST", "/api/v1/channels/effective", Some(&draft))
        .await;
    assert_eq!(
        (status, preview["limits"].as_array().unwrap().len()),
        (StatusCode::OK, 2),
        "{preview}"
    );
    let bad = json!({"code": "new", "limits": [{"metric": "x"}], "enabled": 3});
    assert_eq!(
        daemon
            .as_root("POST", "/api/v1/channels/effective", Some(&bad))
            .await
            .0,
        StatusCode::OK,
        "what is wrong is left out"
    );
}

#[tokio::test]
async fn in_an_emergency_a_channel_or_everything_is_refused() {
    let daemon = Daemon::start(Folders::new()).await;
    let (status, body) = daemon
        .as_root("POST", "/api/v1/emergency/channels/wechat001/block", None)
        .await;
    assert_eq!(
        (status, &body["value"]["enabled"], &body["in_force"]),
        (StatusCode::OK, &json!(false), &json!(true))
    );
    let (_, body) = daemon
        .as_root("POST", "/api/v1/emergency/channels/wechat001/unblock", None)
        .await;
    assert_eq!(body["value"]["enabled"], true);
    let ask = json!({"headers": {"channelcode": "wechat001"}, "body": {"model": "gpt-4o", "messages": []}});
    for (on, admitted) in [(true, false), (false, true), (true, false)] {
        let (status, body) = daemon
            .as_root("POST", "/api/v1/emergency/maintenance", Some(&json!({"on": on})))
            .await;
        assert_eq!(
            (status, &body["in_force"]),
            (StatusCode::OK, &json!(true)),
            "{body}"
        );
        let (_, explained) = daemon.as_root("POST", "/api/v1/explain", Some(&ask)).await;
        assert_eq!(explained["explanation"]["admitted"], admitted, "{explained}");
    }
}

#[tokio::test]
async fn a_backup_brings_documents_and_accounts_back() {
    let daemon = Daemon::start(Folders::new()).await;
    let team = daemon.account("team", &["viewer"], &["team-*"]).await;
    let archive = daemon.get("/api/v1/backup").await;
    let text = archive.to_string();
    for secret in [SECRET, &team.password, &team.csrf, support::TOKEN] {
        assert!(!text.contains(secret), "{secret}");
    }
    let before = std::fs::read(daemon.folders.file("channels")).unwrap();
    let (status, _) = change(
        &daemon,
        "PATCH",
        "/api/v1/channels/wechat001",
        "*",
        &json!({"limits": []}),
    )
    .await;
    assert_eq!(status, StatusCode::OK);
    assert_eq!(
        daemon.as_root("DELETE", "/api/v1/accounts/team", None).await.0,
        StatusCode::NO_CONTENT
    );
    let path = "/api/v1/backup/restore";
    let (status, dry) = daemon
        .as_root("POST", &format!("{path}?dry_run=true"), Some(&archive))
        .await;
    assert_eq!(
        (status, &dry["changed"]),
        (StatusCode::OK, &json!(["tollgate.channels.json"])),
        "{dry}"
    );
    assert_ne!(std::fs::read(daemon.folders.file("channels")).unwrap(), before);

    let mut forged = archive.clone();
    forged["content"]["documents"]["tollgate.channels.json"] = json!("{\"channels\": []}");
    assert_eq!(
        daemon.as_root("POST", path, Some(&forged)).await.0,
        StatusCode::CONFLICT
    );
    let (status, body) = daemon
        .as_root("POST", &format!("{path}?accounts=true"), Some(&archive))
        .await;
    assert_eq!((status, &body["accounts"]), (StatusCode::OK, &json!(1)), "{body}");
    assert_eq!(std::fs::read(daemon.folders.file("channels")).unwrap(), before);
    assert!(
        daemon.sign_in("team", &team.password).await.is_ok(),
        "the account is there again"
    );
    // Restoring may give away everything: only who has everything may.
    daemon.role("keeper", &json!({"backup": ["*"]})).await;
    let keeper = daemon.account("keeper", &["keeper"], &["*"]).await;
    assert_eq!(
        daemon.as_(&keeper, "GET", "/api/v1/backup", None).await.0,
        StatusCode::OK
    );
    assert_eq!(
        daemon.as_(&keeper, "POST", path, Some(&archive)).await.0,
        StatusCode::FORBIDDEN
    );
}

#[tokio::test]
async fn ten_thousand_channels_are_listed_at_once() {
    let folders = Folders::new();
    let channels: Vec<Value> = (0..10_000)
        .map(|n| json!({"code": format!("app{n:05}"), "name": format!("Application {n}"), "trusted": true, "tags": [format!("t{}", n % 10)],
            "limits": [{"metric": "input_tokens", "max": 10_000, "window": "10m"}, {"metric": "requests", "max": 50, "window": "1s"}]}))
        .collect();
    folders.write("channels", &json!({"channels": channels}));
    let daemon = Daemon::start(folders).await;
    let page = daemon
        .get("/api/v1/channels?limit=100&search=application%209&sort=name&tag=t3")
        .await;
    assert_eq!(
        (&page["total"], &page["matched"]),
        (&json!(10_000), &json!(111)),
        "{}",
        page["next"]
    );
    // Nothing is parsed again: a page of what is known takes less than a tenth of making the index, even unoptimized.
    let began = std::time::Instant::now();
    for _ in 0..10 {
        daemon
            .get("/api/v1/channels?limit=50&sort=enabled&order=desc")
            .await;
    }
    let each = began.elapsed() / 10;
    assert!(each.as_millis() < 200, "{each:?}");
}
