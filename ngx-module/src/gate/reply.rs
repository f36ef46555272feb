//! Answers of the gateway itself, in the error shape of the API that was called.

use std::fmt::Write;

use tollgate_meter::Api;

/// A complete answer.
pub(crate) struct Reply {
    pub status: u16,
    pub headers: Vec<(&'static [u8], String)>,
    pub body: String,
}

/// Which part of an error's shape differs by kind: the `type` of OpenAI's and of Anthropic's errors, Google's `status`.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum ErrorKind {
    InvalidRequest,
    Authentication,
    Permission,
    NotFound,
    TooLarge,
    RateLimit,
    Unavailable,
    Internal,
}

impl ErrorKind {
    fn openai(self) -> &'static str {
        match self {
            ErrorKind::InvalidRequest | ErrorKind::TooLarge | ErrorKind::NotFound => "invalid_request_error",
            ErrorKind::Authentication => "authentication_error",
            ErrorKind::Permission => "permission_error",
            ErrorKind::RateLimit => "rate_limit_error",
            ErrorKind::Unavailable | ErrorKind::Internal => "server_error",
        }
    }

    fn anthropic(self) -> &'static str {
        match self {
            ErrorKind::InvalidRequest => "invalid_request_error",
            ErrorKind::Authentication => "authentication_error",
            ErrorKind::Permission => "permission_error",
            ErrorKind::NotFound => "not_found_error",
            ErrorKind::TooLarge => "request_too_large",
            ErrorKind::RateLimit => "rate_limit_error",
            ErrorKind::Unavailable => "overloaded_error",
            ErrorKind::Internal => "api_error",
        }
    }

    /// The `status` of Google's errors.
    fn google(self) -> &'static str {
        match self {
            ErrorKind::InvalidRequest | ErrorKind::TooLarge => "INVALID_ARGUMENT",
            ErrorKind::Authentication => "UNAUTHENTICATED",
            ErrorKind::Permission => "PERMISSION_DENIED",
            ErrorKind::NotFound => "NOT_FOUND",
            ErrorKind::RateLimit => "RESOURCE_EXHAUSTED",
            ErrorKind::Unavailable => "UNAVAILABLE",
            ErrorKind::Internal => "INTERNAL",
        }
    }

    /// The kind that fits a status a rule has chosen.
    pub fn of_status(status: u16) -> ErrorKind {
        match status {
            401 => ErrorKind::Authentication,
            403 => ErrorKind::Permission,
            404 => ErrorKind::NotFound,
            413 => ErrorKind::TooLarge,
            429 => ErrorKind::RateLimit,
            503 => ErrorKind::Unavailable,
            500..=599 => ErrorKind::Internal,
            _ => ErrorKind::InvalidRequest,
        }
    }
}

/// Writes a JSON string.
pub(crate) fn quote(text: &str, out: &mut String) {
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            c if c < ' ' => {
                let _ = write!(out, "\\u{:04x}", c as u32);
            }
            c => out.push(c),
        }
    }
    out.push('"');
}

impl Reply {
    pub fn error(
        api: Api,
        status: u16,
        kind: ErrorKind,
        code: &str,
        message: &str,
        request_id: &str,
    ) -> Reply {
        let mut body = String::with_capacity(160 + message.len());
        if api.is_gemini() {
            let _ = write!(body, "{{\"error\":{{\"code\":{status},\"message\":");
            quote(message, &mut body);
            body.push_str(",\"status\":");
            quote(kind.google(), &mut body);
            body.push_str(
                ",\"details\":[{\"@type\":\"type.googleapis.com/google.rpc.ErrorInfo\",\"domain\":\"tollgate\",\"reason\":",
            );
            quote(code, &mut body);
            body.push_str("}]");
        } else if api.is_anthropic() {
            body.push_str("{\"type\":\"error\",\"error\":{\"type\":");
            quote(kind.anthropic(), &mut body);
            body.push_str(",\"message\":");
            quote(message, &mut body);
            body.push_str(",\"code\":");
            quote(code, &mut body);
        } else {
            body.push_str("{\"error\":{\"message\":");
            quote(message, &mut body);
            body.push_str(",\"type\":");
            quote(kind.openai(), &mut body);
            body.push_str(",\"param\":null,\"code\":");
            quote(code, &mut body);
        }
        body.push_str("},\"request_id\":");
        quote(request_id, &mut body);
        body.push('}');
        let mut headers: Vec<(&'static [u8], String)> = Vec::new();
        if !request_id.is_empty() {
            headers.push((b"x-request-id", request_id.to_owned()));
        }
        Reply {
            status,
            headers,
            body,
        }
    }

    /// A success that the gateway answers itself.
    pub fn ok(body: String, request_id: &str) -> Reply {
        Reply {
            status: 200,
            headers: vec![(b"x-request-id", request_id.to_owned())],
            body,
        }
    }

    pub fn header(mut self, name: &'static [u8], value: String) -> Reply {
        self.headers.push((name, value));
        self
    }
}
