//! Who may use which route: every route of the API, by a table made from the routes themselves. A route that is added
//! is in it at once.

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
use tollgate::api::{Sketch, openapi, sketches};

/// A path that may or may not exist: access is decided before that is looked at.
fn filled(path: &str) -> String {
    let part = |name: &str| match name {
        "seq" | "number" => "1".to_owned(),
        "kind" => "channels".to_owned(),
        _ => "some".to_owned(),
    };
    let mut out = String::new();
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('{') {
        let (name, tail) = after.split_once('}').unwrap();
        out.push_str(before);
        out.push_str(&part(name.trim_start_matches('*')));
        rest = tail;
    }
    out + rest
}

fn request(route: &Sketch) -> axum::http::request::Builder {
    Request::builder()
        .method(route.method.as_str())
        .uri(filled(&route.path))
        .header("content-type", "application/json")
}

async fn status(daemon: &Daemon, request: Request<Body>) -> (StatusCode, Value) {
    let (status, headers, body) = daemon.send(request).await;
    if status.is_client_error() {
        assert_eq!(headers["content-type"], "application/problem+json", "{body}");
    }
    (status, body)
}

fn is_safe(route: &Sketch) -> bool {
    route.method == "GET"
}

#[tokio::test]
async fn nobody_gets_past_a_rule() {
    let daemon = Daemon::start(Folders::new()).await;
    let routes = sketches();
    assert!(routes.len() > 80, "{}", routes.len());
    // An account that may do nothing but has signed in, one for some channels only, and one whose session has ended.
    daemon.role("nothing", &json!({})).await;
    let nothing = daemon.account("nothing", &["nothing"], &["*"]).await;
    let team = daemon.account("team", &["admin"], &["team-*"]).await;
    let gone = daemon.account("gone", &["admin"], &["*"]).await;
    let (done, _) = daemon
        .as_root("DELETE", "/api/v1/accounts/gone/sessions", None)
        .await;
    assert_eq!(done, StatusCode::NO_CONTENT);
    for route in &routes {
        let name = format!("{} {}", route.method, route.path);
        let Some((resource, action)) = route.needs else {
            continue;
        };
        let (got, body) = status(&daemon, request(route).body(Body::empty()).unwrap()).await;
        assert_eq!(
            got,
            StatusCode::UNAUTHORIZED,
            "{name} without credentials: {body}"
        );
        for bad in [
            "Bearer nonsense",
            "Bearer tgt_0123456789ab_nonsense",
            "Basic YWRtaW46YWRtaW4=",
        ] {
            let wrong = request(route)
                .header("authorization", bad)
                .body(Body::empty())
                .unwrap();
            assert_eq!(
                status(&daemon, wrong).await.0,
                StatusCode::UNAUTHORIZED,
                "{name} with {bad}"
            );
        }
        let expired = gone.on(request(route)).body(Body::empty()).unwrap();
        assert_eq!(
            status(&daemon, expired).await.0,
            StatusCode::UNAUTHORIZED,
            "{name} with an ended session"
        );
        if !is_safe(route) {
            for csrf in [None, Some("wrong")] {
                let mut forged = request(route).header("cookie", team.cookie.as_str());
                if let Some(csrf) = csrf {
                    forged = forged.header("x-csrf-token", csrf);
                }
                let (got, body) = status(&daemon, forged.body(Body::empty()).unwrap()).await;
                assert_eq!(
                    (got, &body["title"]),
                    (StatusCode::FORBIDDEN, &json!("csrf token required")),
                    "{name}"
                );
            }
        }
        if !route.own {
            let (got, body) = status(&daemon, nothing.on(request(route)).body(Body::empty()).unwrap()).await;
            let needs = format!("needs {}:{}", resource.name(), action.name());
            assert_eq!(
                (got, &body["detail"]),
                (StatusCode::FORBIDDEN, &json!(needs)),
                "{name}"
            );
        }
        if route.concerns_all {
            let (got, body) = status(&daemon, team.on(request(route)).body(Body::empty()).unwrap()).await;
            assert_eq!(
                (got, &body["title"]),
                (StatusCode::FORBIDDEN, &json!("forbidden")),
                "{name}: {body}"
            );
        }
    }
}

#[tokio::test]
async fn malformed_and_oversized_bodies_are_refused_by_every_route() {
    let daemon = Daemon::start(Folders::new()).await;
    for route in sketches().iter().filter(|r| r.takes_json) {
        let name = format!("{} {}", route.method, route.path);
        for body in ["{", "[1]", "\u{fffd}", "null"] {
            let request = daemon
                .root_on(request(route))
                .header("if-match", "*")
                .body(Body::from(body))
                .unwrap();
            let (got, answer) = status(&daemon, request).await;
            assert!(got.is_client_error(), "{name} with {body}: {got} {answer}");
        }
        if route.max_body <= 1 << 20 {
            let long = vec![b' '; route.max_body + 1];
            let request = daemon
                .root_on(request(route))
                .header("if-match", "*")
                .body(Body::from(long))
                .unwrap();
            let (got, answer) = status(&daemon, request).await;
            assert_eq!(got, StatusCode::PAYLOAD_TOO_LARGE, "{name}: {answer}");
        }
    }
}

#[tokio::test]
async fn every_route_is_described_and_everything_described_exists() {
    let document = openapi();
    assert_eq!(document["openapi"], "3.1.0");
    let paths = document["paths"].as_object().unwrap();
    let mut described = 0;
    for route in sketches() {
        let path = route.path.trim_start_matches("/api/v1").replace("{*", "{");
        let operation = &paths[&path][route.method.to_lowercase()];
        assert!(operation["responses"].is_object(), "{} {path}", route.method);
        let rule = match route.needs {
            None => Value::Null,
            Some(_) if route.own => json!("signed in"),
            Some((resource, action)) => json!(format!("{}:{}", resource.name(), action.name())),
        };
        assert_eq!(operation["x-permission"], rule, "{} {path}", route.method);
        assert_eq!(
            operation["requestBody"].is_object(),
            route.takes_json,
            "{} {path}",
            route.method
        );
        described += 1;
    }
    let operations: usize = paths.values().map(|item| item.as_object().unwrap().len()).sum();
    assert_eq!(operations, described);
    let mut ids: Vec<&str> = paths
        .values()
        .flat_map(|item| item.as_object().unwrap().values())
        .map(|o| o["operationId"].as_str().unwrap())
        .collect();
    let all = ids.len();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), all, "each operation has an id of its own");
    // No reference leads nowhere.
    fn references<'v>(value: &'v Value, found: &mut Vec<&'v str>) {
        match value {
            Value::Object(fields) => {
                found.extend(fields.get("$ref").and_then(Value::as_str));
                fields.values().for_each(|v| references(v, found));
            }
            Value::Array(list) => list.iter().for_each(|v| references(v, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    references(&document, &mut found);
    assert!(found.len() > 50);
    for reference in found {
        assert!(
            document.pointer(reference.trim_start_matches('#')).is_some(),
            "{reference}"
        );
    }
    let daemon = Daemon::start(Folders::new()).await;
    let open = Request::builder()
        .uri("/api/v1/openapi.json")
        .body(Body::empty())
        .unwrap();
    assert_eq!(daemon.send(open).await.2, document);
    let page = Request::builder()
        .uri("/api/v1/docs")
        .body(Body::empty())
        .unwrap();
    let (_, headers, page) = daemon.send(page).await;
    assert!(page.as_str().unwrap().contains("/api/v1/channels/{id}/keys"));
    assert!(
        headers["content-security-policy"]
            .to_str()
            .unwrap()
            .contains("default-src 'none'")
    );
}

#[tokio::test]
async fn places_outside_the_api_get_a_page_and_inside_a_problem() {
    let daemon = Daemon::start(Folders::new()).await;
    let get = |path: &str| Request::builder().uri(path).body(Body::empty()).unwrap();
    let (got, headers, page) = daemon.send(get("/")).await;
    assert_eq!(got, StatusCode::OK);
    assert!(page.as_str().unwrap().contains("<html"));
    let policy = headers["content-security-policy"].to_str().unwrap();
    assert!(
        policy.contains("script-src 'self';") && policy.contains("frame-ancestors 'none'"),
        "{policy}"
    );
    for path in ["/api/v1/nothing", "/api/v1", "/api/other"] {
        assert_eq!(
            status(&daemon, get(path)).await.0,
            StatusCode::NOT_FOUND,
            "{path}"
        );
    }
    let put = Request::builder()
        .method("PUT")
        .uri("/api/v1/health")
        .body(Body::empty())
        .unwrap();
    assert_eq!(status(&daemon, put).await.0, StatusCode::METHOD_NOT_ALLOWED);
}
