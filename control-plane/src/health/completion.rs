//! A real answer of a model, as short as it can be.

use serde_json::{Value, json};
use tollgate_policy::documents::Protocol;

/// Path from the client's point of view, and body.
pub(super) fn request(protocol: Protocol, model: &str, max_tokens: u32) -> Option<(String, Value)> {
    let messages = json!([{ "role": "user", "content": "1" }]);
    Some(match protocol {
        Protocol::Openai => {
            // OpenAI's reasoning models refuse the older name, other providers do not know the newer one.
            let reasoning = ["o1", "o3", "o4", "gpt-5"].iter().any(|m| model.starts_with(m));
            let limit = if reasoning {
                "max_completion_tokens"
            } else {
                "max_tokens"
            };
            let body = json!({ "model": model, "messages": messages, limit: max_tokens });
            ("/v1/chat/completions".into(), body)
        }
        Protocol::Anthropic => {
            let body = json!({ "model": model, "messages": messages, "max_tokens": max_tokens });
            ("/v1/messages".into(), body)
        }
        Protocol::Gemini => {
            let body = json!({
                "contents": [{ "role": "user", "parts": [{ "text": "1" }] }],
                "generationConfig": { "maxOutputTokens": max_tokens },
            });
            (format!("/v1beta/models/{}:generateContent", encoded(model)), body)
        }
        Protocol::Other => return None,
    })
}

/// Input and output tokens that an answer reports.
pub(super) fn usage(answer: &Value) -> (u64, u64) {
    let first = |paths: [&str; 3]| {
        let number = |path: &str| answer.pointer(path).and_then(Value::as_u64);
        paths.into_iter().find_map(number).unwrap_or(0)
    };
    (
        first([
            "/usage/prompt_tokens",
            "/usage/input_tokens",
            "/usageMetadata/promptTokenCount",
        ]),
        first([
            "/usage/completion_tokens",
            "/usage/output_tokens",
            "/usageMetadata/candidatesTokenCount",
        ]),
    )
}

/// A name as one segment of a path (RFC 3986: everything but unreserved characters as `%XX`).
pub(super) fn encoded(name: &str) -> String {
    use std::fmt::Write;
    let mut out = String::with_capacity(name.len());
    for byte in name.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

/// A provider's prefix before a path that a client would call: a prefix that ends with a version takes the place of the
/// path's own version, as it does for clients' requests.
pub(super) fn with_prefix(prefix: &str, path: &str) -> String {
    let prefix = prefix.trim_end_matches('/');
    let is_version = |segment: &str| {
        let rest = segment.strip_prefix('v');
        rest.is_some_and(|v| v.starts_with(|c: char| c.is_ascii_digit()))
    };
    let versioned = prefix.rsplit('/').next().is_some_and(is_version);
    let own = path.get(1..).and_then(|p| p.split_once('/'));
    match own {
        Some((version, rest)) if versioned && is_version(version) => format!("{prefix}/{rest}"),
        _ => format!("{prefix}{path}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_protocol_is_asked_in_its_own_words() {
        let (path, body) = request(Protocol::Openai, "gpt-4o", 1).unwrap();
        assert_eq!((&*path, &body["max_tokens"]), ("/v1/chat/completions", &json!(1)));
        let (_, body) = request(Protocol::Openai, "gpt-5-mini", 16).unwrap();
        assert_eq!(body["max_completion_tokens"], 16);
        assert!(body.get("max_tokens").is_none());
        let (path, body) = request(Protocol::Anthropic, "claude-x", 1).unwrap();
        assert_eq!((&*path, &body["model"]), ("/v1/messages", &json!("claude-x")));
        let (path, body) = request(Protocol::Gemini, "models/é?", 1).unwrap();
        assert_eq!(path, "/v1beta/models/models%2F%C3%A9%3F:generateContent");
        assert_eq!(body["generationConfig"]["maxOutputTokens"], 1);
        assert!(request(Protocol::Other, "x", 1).is_none());
    }

    #[test]
    fn a_prefix_that_is_a_version_replaces_the_paths() {
        for (prefix, path, whole) in [
            ("", "/v1/messages", "/v1/messages"),
            ("/v1", "/v1/messages", "/v1/messages"),
            (
                "/api/paas/v4",
                "/v1/chat/completions",
                "/api/paas/v4/chat/completions",
            ),
            ("/v1beta", "/v1beta/models/m:x", "/v1beta/models/m:x"),
            ("/openai/", "/v1/chat/completions", "/openai/v1/chat/completions"),
        ] {
            assert_eq!(with_prefix(prefix, path), whole, "{prefix} {path}");
        }
    }

    #[test]
    fn usage_is_found_in_every_shape() {
        for answer in [
            json!({"usage": {"prompt_tokens": 8, "completion_tokens": 1}}),
            json!({"usage": {"input_tokens": 8, "output_tokens": 1}}),
            json!({"usageMetadata": {"promptTokenCount": 8, "candidatesTokenCount": 1}}),
        ] {
            assert_eq!(usage(&answer), (8, 1), "{answer}");
        }
        assert_eq!(usage(&json!([])), (0, 0));
    }
}
