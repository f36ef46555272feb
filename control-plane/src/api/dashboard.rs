//! The dashboard's files, which are part of the daemon if they were there when it was built.

use axum::http::{HeaderMap, HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};

use super::{ApiError, BASE};

/// A file of the dashboard.
struct File {
    path: &'static str,
    content_type: &'static str,
    etag: &'static str,
    bytes: &'static [u8],
}

include!(concat!(env!("OUT_DIR"), "/dashboard.rs"));

/// Everything from here, no script inside a page, and nobody puts the pages into a frame. Components set styles.
const POLICY: &str = "default-src 'self'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data: blob:; \
     font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'self'; form-action 'self'; \
     frame-ancestors 'none'";

/// What is shown by a daemon without the dashboard.
const MISSING: &str = "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Tollgate</title>\
     <style>body{font:16px/1.6 system-ui,sans-serif;max-width:40rem;margin:4rem auto;padding:0 1rem;color-scheme:light dark}</style>\
     <h1>Tollgate</h1><p>This daemon was built without the dashboard. Build it with <code>npm ci &amp;&amp; npm run build</code> in \
     <code>admin-ui</code>, and then the daemon again: <code>make daemon</code>.</p>\
     <p>The API is here: <a href=\"/api/v1/docs\">/api/v1/docs</a>.</p></html>";

fn secured(mut response: Response) -> Response {
    let headers = response.headers_mut();
    for (name, value) in [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        (header::X_FRAME_OPTIONS, "DENY"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}

/// Names with a hash in them never mean anything else; all other files are asked for again.
fn caching(path: &str) -> &'static str {
    if path.starts_with("assets/") {
        "public, max-age=31536000, immutable"
    } else {
        "no-cache"
    }
}

fn answer(file: &File, headers: &HeaderMap) -> Response {
    let head = [
        (header::ETAG, file.etag),
        (header::CACHE_CONTROL, caching(file.path)),
    ];
    let known = headers.get(header::IF_NONE_MATCH).and_then(|v| v.to_str().ok());
    if known.is_some_and(|known| known.split(',').any(|tag| tag.trim() == file.etag)) {
        return (StatusCode::NOT_MODIFIED, head).into_response();
    }
    (head, [(header::CONTENT_TYPE, file.content_type)], file.bytes).into_response()
}

fn choose<'f>(files: &'f [File], path: &str) -> Option<&'f File> {
    let find = |wanted: &str| files.iter().find(|f| f.path == wanted);
    let path = path.trim_start_matches('/');
    // What is no file is a place within the dashboard; a missing asset is missing.
    let page = !path.starts_with("assets/") && !path.rsplit('/').next().unwrap_or_default().contains('.');
    find(path).or_else(|| find("index.html").filter(|_| page))
}

/// A file of the dashboard, or its first page for every place within it.
pub(super) async fn read(method: Method, uri: Uri, headers: HeaderMap) -> Response {
    let path = uri.path();
    let api = path
        .strip_prefix(BASE)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
    if api || path.starts_with("/api/") || !matches!(method, Method::GET | Method::HEAD) {
        return ApiError::not_found("there is nothing here; see /api/v1/docs").into_response();
    }
    if FILES.is_empty() {
        let head = [
            (header::CONTENT_TYPE, "text/html; charset=utf-8"),
            (header::CACHE_CONTROL, "no-cache"),
        ];
        let status = if path == "/" {
            StatusCode::OK
        } else {
            StatusCode::NOT_FOUND
        };
        return secured((status, head, MISSING).into_response());
    }
    match choose(FILES, path) {
        Some(file) => secured(answer(file, &headers)),
        None => secured(ApiError::not_found("there is no such file").into_response()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SOME: &[File] = &[
        File {
            path: "index.html",
            content_type: "text/html",
            etag: "\"1\"",
            bytes: b"<html>",
        },
        File {
            path: "assets/app-1f.js",
            content_type: "text/javascript",
            etag: "\"2\"",
            bytes: b"x",
        },
        File {
            path: "favicon.svg",
            content_type: "image/svg+xml",
            etag: "\"3\"",
            bytes: b"y",
        },
    ];

    #[test]
    fn places_get_the_page_and_missing_files_do_not() {
        let chosen = |path: &str| choose(SOME, path).map(|f| f.path);
        for place in [
            "/",
            "/channels",
            "/channels/wechat001",
            "/models/openai/x",
            "/index.html",
        ] {
            assert_eq!(chosen(place), Some("index.html"), "{place}");
        }
        assert_eq!(chosen("/assets/app-1f.js"), Some("assets/app-1f.js"));
        assert_eq!(chosen("/favicon.svg"), Some("favicon.svg"));
        for missing in ["/assets/old.js", "/assets/x", "/robots.txt"] {
            assert_eq!(chosen(missing), None, "{missing}");
        }
    }

    #[test]
    fn versions_are_not_sent_twice() {
        let mut headers = HeaderMap::new();
        assert_eq!(answer(&SOME[1], &headers).status(), StatusCode::OK);
        headers.insert(header::IF_NONE_MATCH, HeaderValue::from_static("\"9\", \"2\""));
        let answer = answer(&SOME[1], &headers);
        assert_eq!(answer.status(), StatusCode::NOT_MODIFIED);
        assert_eq!(
            answer.headers()[header::CACHE_CONTROL],
            "public, max-age=31536000, immutable"
        );
        assert!(!POLICY.contains("script-src 'self' 'unsafe"));
    }
}
