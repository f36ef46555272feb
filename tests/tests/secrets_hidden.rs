//! Credentials in the clear are nowhere but on their way to their provider.

use serde_json::json;
use std::path::Path;
use tollgate_tests::access;
use tollgate_tests::documents::{Documents, PROVIDER_KEY};
use tollgate_tests::gateway::{Gateway, HTTP};
use tollgate_tests::http::Request;
use tollgate_tests::nginx::Nginx;
use tollgate_tests::site::{MASTER_KEY, TOKEN};

const CLIENT_KEY: &str = "tg-key-one";
const CLIENT_DIGEST: &str = "2b00a69dc6c043abad83b1fbb4be3c9d63bfecdaaac01501b75408efacd9be76";
const SECOND_KEY: &str = "sk-second-9876543210-do-not-show";

/// Every file below, but for those that are meant to hold a secret.
fn files(folder: &Path, meant: &[&str]) -> Vec<(String, Vec<u8>)> {
    let mut all = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            all.extend(files(&path, meant));
        } else if !meant.contains(&&*name) {
            all.push((
                path.display().to_string(),
                std::fs::read(&path).unwrap_or_default(),
            ));
        }
    }
    all
}

fn assert_without(what: &str, bytes: &[u8], secrets: &[&str]) {
    for secret in secrets {
        assert!(
            !bytes.windows(secret.len()).any(|it| it == secret.as_bytes()),
            "{secret:?} in {what}"
        );
    }
}

#[tokio::test]
async fn no_file_log_or_answer_shows_a_credential() {
    // Even a log format that asks for them gets nothing.
    let shown = "'up=$tollgate_upstream_head source=";
    let http = HTTP.replace("'source=", shown);
    assert_ne!(http, HTTP);
    let documents = Documents::new()
        .model("m", "mock?tokens=2")
        .model_value(json!({ "name": "dead", "deployments": [{ "provider": "second" }] }))
        .provider(
            json!({ "id": "second", "protocol": "anthropic", "base_url": "http://127.0.0.1:9",
            "credentials": { "type": "x_api_key", "key": SECOND_KEY } }),
        )
        .channel(
            json!({ "code": "keyed", "keys": [{ "id": "one", "sha256": CLIENT_DIGEST }],
            "limits": [{ "metric": "requests", "max": 3, "window": "10m" }] }),
        );
    let gateway = Gateway::with(documents)
        .nginx(|_| Nginx::config(&http).with_module())
        .start()
        .await;
    let secrets = [PROVIDER_KEY, SECOND_KEY, MASTER_KEY, TOKEN, CLIENT_KEY];
    let key = |request: Request| request.header("Authorization", &format!("Bearer {CLIENT_KEY}"));
    let requests = [
        key(Request::chat("m", " hello")),
        key(Request::chat("m", " hello").set("stream", true)),
        key(Request::chat("dead", " hello")),
        key(Request::chat("m", " hello")),
        key(Request::post_bytes("/v1/chat/completions", b"{".to_vec())),
        Request::chat("m", " hello").header("x-api-key", &format!("{CLIENT_KEY}-wrong")),
    ];
    let mut statuses = Vec::new();
    for request in &requests {
        let answer = gateway.send(request).await;
        statuses.push(answer.status());
        let head = format!("{:?}", answer.head);
        assert_without("an answer", &answer.body, &secrets);
        assert_without("an answer's head", head.as_bytes(), &secrets);
    }
    assert_eq!(statuses, [200, 200, 502, 429, 400, 401]);
    let sent = gateway.mock.stats().last().unwrap();
    assert_eq!(
        sent.header("authorization"),
        Some(&*format!("Bearer {PROVIDER_KEY}"))
    );

    access::entries(&gateway.nginx, "keyed", 5).await;
    let listed = gateway.daemon.get("/documents").await;
    assert!(listed.to_string().contains("tollgate.providers"), "{listed}");
    for path in [
        "/documents",
        "/documents/tollgate.providers.json",
        "/documents/tollgate.channels.json",
        "/instance",
        "/requests",
        "/usage",
        "/limits",
        "/metrics",
    ] {
        let answer = gateway.daemon.api(Request::get(&format!("/api/v1{path}"))).await;
        assert_eq!(answer.status(), 200, "{path}: {}", answer.text());
        assert_without(path, &answer.body, &secrets);
    }
    assert_without("the daemon's log", gateway.daemon.log().as_bytes(), &secrets);
    assert_without("the access log", gateway.nginx.access_log().as_bytes(), &secrets);
    // The configuration too: the daemon seals what an operator has written in the clear.
    let meant = ["api.token", "master.key"];
    let mut looked_at = 0;
    for folder in [
        gateway.site.region(),
        gateway.site.state(),
        gateway.site.config(),
        gateway.nginx.prefix(),
    ] {
        for (name, bytes) in files(&folder, &meant) {
            assert_without(&name, &bytes, &secrets);
            looked_at += 1;
        }
    }
    assert!(looked_at > 8, "{looked_at} files");
    gateway.stop().await;
}
