//! Errors in each protocol's shape, written and read.

use crate::Protocol;
use crate::answer::Fault;
use crate::json::{Json, Object};

/// Characters of an upstream's error message that are passed on.
const SHOWN_MESSAGE: usize = 2000;

/// What kind of error, independent of the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// 400 and every other 4xx.
    InvalidRequest,
    /// 401
    Authentication,
    /// 403, and 402: nothing may be bought with these credentials.
    Permission,
    /// 404
    NotFound,
    /// 413
    TooLarge,
    /// 429
    RateLimit,
    /// 408, 504
    Timeout,
    /// 503, 529
    Overloaded,
    /// The upstream does not keep to its protocol, redirects, or broke off: 502.
    BadUpstream,
    /// Any other 5xx.
    Internal,
}

impl ErrorKind {
    /// The kind that belongs to an HTTP status.
    #[must_use]
    pub const fn of_status(status: u16) -> Self {
        match status {
            401 => Self::Authentication,
            402 | 403 => Self::Permission,
            404 => Self::NotFound,
            408 | 504 => Self::Timeout,
            413 => Self::TooLarge,
            429 => Self::RateLimit,
            502 => Self::BadUpstream,
            503 | 529 => Self::Overloaded,
            400..=499 => Self::InvalidRequest,
            500..=599 => Self::Internal,
            // Nothing else is an answer to a request like ours.
            _ => Self::BadUpstream,
        }
    }

    /// The `type` in OpenAI's errors.
    #[must_use]
    pub const fn openai(self) -> &'static str {
        match self {
            Self::InvalidRequest | Self::NotFound | Self::TooLarge => "invalid_request_error",
            Self::Authentication => "authentication_error",
            Self::Permission => "permission_error",
            Self::RateLimit => "rate_limit_error",
            Self::Timeout | Self::Overloaded | Self::BadUpstream | Self::Internal => "server_error",
        }
    }

    /// The `type` in Anthropic's errors.
    #[must_use]
    pub const fn anthropic(self) -> &'static str {
        match self {
            Self::InvalidRequest => "invalid_request_error",
            Self::Authentication => "authentication_error",
            Self::Permission => "permission_error",
            Self::NotFound => "not_found_error",
            Self::TooLarge => "request_too_large",
            Self::RateLimit => "rate_limit_error",
            Self::Timeout => "timeout_error",
            Self::Overloaded => "overloaded_error",
            Self::BadUpstream | Self::Internal => "api_error",
        }
    }

    /// The `code` and `status` in Gemini's errors.
    #[must_use]
    pub const fn gemini(self) -> (u16, &'static str) {
        match self {
            Self::InvalidRequest => (400, "INVALID_ARGUMENT"),
            Self::Authentication => (401, "UNAUTHENTICATED"),
            Self::Permission => (403, "PERMISSION_DENIED"),
            Self::NotFound => (404, "NOT_FOUND"),
            Self::TooLarge => (413, "INVALID_ARGUMENT"),
            Self::RateLimit => (429, "RESOURCE_EXHAUSTED"),
            Self::Timeout => (504, "DEADLINE_EXCEEDED"),
            Self::Overloaded => (503, "UNAVAILABLE"),
            Self::BadUpstream => (502, "INTERNAL"),
            Self::Internal => (500, "INTERNAL"),
        }
    }

    fn of_anthropic(kind: &str) -> Option<Self> {
        Some(match kind {
            "invalid_request_error" => Self::InvalidRequest,
            "authentication_error" => Self::Authentication,
            "permission_error" | "billing_error" => Self::Permission,
            "not_found_error" => Self::NotFound,
            "request_too_large" => Self::TooLarge,
            "rate_limit_error" => Self::RateLimit,
            "timeout_error" => Self::Timeout,
            "overloaded_error" => Self::Overloaded,
            "api_error" => Self::Internal,
            _ => return None,
        })
    }

    fn of_openai(kind: &str, code: &str) -> Option<Self> {
        Some(match (kind, code) {
            (_, "rate_limit_exceeded")
            | ("rate_limit_error" | "tokens" | "requests" | "insufficient_quota", _) => Self::RateLimit,
            (_, "model_not_found") => Self::NotFound,
            ("invalid_request_error", _) => Self::InvalidRequest,
            ("authentication_error", _) => Self::Authentication,
            ("permission_error", _) => Self::Permission,
            ("server_error" | "api_error", _) => Self::Internal,
            _ => return None,
        })
    }
}

/// The body of an error in a protocol's shape. `code` is a word for programs (OpenAI and Anthropic), `param` the path of
/// the field that is to blame (OpenAI).
#[must_use]
pub fn error_body(
    protocol: Protocol,
    kind: ErrorKind,
    code: Option<&str>,
    message: &str,
    param: Option<&str>,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(128 + message.len());
    write_error(protocol, kind, code, message, param, &mut out);
    out
}

/// Appends what [`error_body`] returns.
pub(crate) fn write_error(
    protocol: Protocol,
    kind: ErrorKind,
    code: Option<&str>,
    message: &str,
    param: Option<&str>,
    out: &mut Vec<u8>,
) {
    fn or_null(object: &mut Object<'_>, name: &str, value: Option<&str>) {
        match value {
            Some(value) => object.text(name, value),
            None => object.raw(name, "null"),
        };
    }
    let mut body = Object::open(out);
    if protocol == Protocol::AnthropicMessages {
        body.text("type", "error");
    }
    let mut error = Object::open(body.key("error"));
    match protocol {
        Protocol::OpenAiChat => {
            error.text("message", message).text("type", kind.openai());
            or_null(&mut error, "param", param);
            or_null(&mut error, "code", code);
        }
        Protocol::AnthropicMessages => {
            error.text("type", kind.anthropic()).text("message", message);
            if let Some(code) = code {
                error.text("code", code);
            }
        }
        Protocol::Gemini => {
            let (number, status) = kind.gemini();
            error
                .number("code", u64::from(number))
                .text("message", message)
                .text("status", status);
        }
    }
    error.close();
    body.close();
}

/// Reads the error that an upstream reports, as a body with an error status or as an event in a stream (without one).
/// What an upstream says about our own credentials is not passed on: it may quote them.
pub(crate) fn read_error(upstream: Protocol, status: Option<u16>, body: &[u8]) -> Fault {
    let by_status = status.map(ErrorKind::of_status);
    let parsed = Json::parse(body).ok();
    // Gemini answers some errors with an array of one.
    let root = parsed.map(|json| json.elements().next().unwrap_or(json));
    let error = root.and_then(|json| json.get("error"));
    let text = |name: &str| {
        error
            .and_then(|error| error.get_str(name))
            .map(|text| text.text())
    };
    let kind_word = text("type").unwrap_or_default();
    let code = error.and_then(|error| error.get("code"));
    let code_word = code
        .and_then(Json::str)
        .map(|code| code.text())
        .unwrap_or_default();
    let kind = match upstream {
        Protocol::AnthropicMessages => ErrorKind::of_anthropic(&kind_word).or(by_status),
        Protocol::OpenAiChat => by_status.or_else(|| ErrorKind::of_openai(&kind_word, &code_word)),
        Protocol::Gemini => {
            let number = code.and_then(Json::u64).and_then(|code| u16::try_from(code).ok());
            by_status.or(number.map(ErrorKind::of_status))
        }
    }
    .unwrap_or(ErrorKind::Internal);
    let own_word = match upstream {
        Protocol::OpenAiChat => code_word.into_owned(),
        Protocol::AnthropicMessages => kind_word.into_owned(),
        Protocol::Gemini => text("status").unwrap_or_default().into_owned(),
    };
    if kind == ErrorKind::Authentication {
        return Fault {
            kind,
            code: Some("upstream_authentication".to_owned()),
            message: "the deployment's provider refused the gateway's credentials".to_owned(),
        };
    }
    let message = text("message")
        // Some servers compatible with OpenAI's send `{"error": "text"}` or `{"message": "text"}`.
        .or_else(|| error.and_then(Json::str).map(|text| text.text()))
        .or_else(|| {
            root.and_then(|json| json.get_str("message"))
                .map(|text| text.text())
        })
        .filter(|text| !text.is_empty());
    let message = match message {
        Some(message) => message.chars().take(SHOWN_MESSAGE).collect(),
        None => match status {
            Some(status) => format!("the deployment answered with status {status} and no readable error"),
            None => "the deployment reported an error".to_owned(),
        },
    };
    let code = (!own_word.is_empty() && own_word.len() <= 64).then_some(own_word);
    Fault { kind, code, message }
}

#[cfg(test)]
mod tests {
    use super::{ErrorKind, SHOWN_MESSAGE, error_body, read_error};
    use crate::Protocol;

    const ALL: [Protocol; 3] = [
        Protocol::OpenAiChat,
        Protocol::AnthropicMessages,
        Protocol::Gemini,
    ];

    #[test]
    fn an_error_written_in_a_protocol_is_read_back() {
        for protocol in ALL {
            for status in [400, 403, 404, 413, 429, 500, 503, 504] {
                let kind = ErrorKind::of_status(status);
                let body = error_body(protocol, kind, None, "what \"went\" wrong", None);
                let fault = read_error(protocol, Some(status), &body);
                assert_eq!(
                    (fault.kind, fault.message.as_str()),
                    (kind, "what \"went\" wrong"),
                    "{protocol:?}"
                );
            }
        }
    }

    #[test]
    fn garbage_gives_a_bounded_message_that_quotes_nothing() {
        for protocol in ALL {
            for body in [
                &b"<html>502 nginx</html>"[..],
                b"",
                b"[]",
                b"{\"error\":null}",
                b"\xff",
            ] {
                let fault = read_error(protocol, Some(502), body);
                assert_eq!(fault.kind, ErrorKind::BadUpstream);
                assert_eq!(
                    fault.message,
                    "the deployment answered with status 502 and no readable error"
                );
            }
            let long = error_body(protocol, ErrorKind::Internal, None, &"x".repeat(100_000), None);
            assert_eq!(
                read_error(protocol, Some(500), &long).message.len(),
                SHOWN_MESSAGE
            );
        }
    }

    #[test]
    fn what_a_provider_says_about_our_key_stays_here() {
        let body = br#"{"error":{"message":"Incorrect API key provided: sk-live","type":"invalid_request_error","code":"invalid_api_key"}}"#;
        let fault = read_error(Protocol::OpenAiChat, Some(401), body);
        assert_eq!(fault.kind, ErrorKind::Authentication);
        assert!(!format!("{fault:?}").contains("sk-live"));
    }
}
