//! The one error of the API: a problem document (RFC 9457).

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
use tollgate_policy::Problem;

use crate::config::{PutError, VersionsError};
use crate::ledger::StoreError;

/// Why a request was not answered as asked.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    title: &'static str,
    detail: String,
    problems: Vec<Problem>,
    /// Further members of the problem document.
    more: Option<Value>,
}

impl ApiError {
    fn new(status: StatusCode, title: &'static str, detail: impl Into<String>) -> ApiError {
        ApiError {
            status,
            title,
            detail: detail.into(),
            problems: Vec::new(),
            more: None,
        }
    }

    /// With further members, from an object.
    #[must_use]
    pub fn with(mut self, more: Value) -> ApiError {
        self.more = Some(more);
        self
    }

    /// 400: the request is wrong.
    pub fn bad_request(detail: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, "bad request", detail)
    }

    /// 401: no token, or the wrong one.
    pub fn unauthorized() -> ApiError {
        let detail = "send the API's token as `Authorization: Bearer …`; it lies in the daemon's token file";
        ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    }

    /// 404.
    pub fn not_found(detail: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, "not found", detail)
    }

    /// 405.
    pub fn method_not_allowed() -> ApiError {
        ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method not allowed", "")
    }

    /// 409: what is there stands in the way.
    pub fn conflict(detail: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::CONFLICT, "conflict", detail)
    }

    /// 412: the document is not the version that the client knew.
    pub fn changed(detail: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::PRECONDITION_FAILED, "changed meanwhile", detail)
    }

    /// 409: a document or the configuration is not the version that the client knew.
    pub fn outdated(detail: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::CONFLICT, "changed meanwhile", detail)
    }

    /// 413.
    pub fn too_large(detail: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "too large", detail)
    }

    /// 428: the client must say which version it knew.
    pub fn needs_version() -> ApiError {
        let detail = "the document is there; send its ETag as `If-Match`";
        ApiError::new(StatusCode::PRECONDITION_REQUIRED, "version required", detail)
    }

    /// 422: documents with errors.
    pub fn invalid(problems: Vec<Problem>) -> ApiError {
        let errors = problems.iter().filter(|p| p.is_error()).count();
        ApiError {
            problems,
            ..ApiError::new(
                StatusCode::UNPROCESSABLE_ENTITY,
                "invalid documents",
                format!("{errors} errors; nothing was written"),
            )
        }
    }

    /// 503: not ready yet.
    pub fn unavailable(detail: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::SERVICE_UNAVAILABLE, "unavailable", detail)
    }

    /// 500: our fault.
    pub fn internal(error: impl std::fmt::Display) -> ApiError {
        tracing::error!(%error, "a request to the API failed");
        ApiError::new(
            StatusCode::INTERNAL_SERVER_ERROR,
            "internal error",
            error.to_string(),
        )
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> ApiError {
        ApiError::internal(error)
    }
}

impl From<tokio::task::JoinError> for ApiError {
    fn from(error: tokio::task::JoinError) -> ApiError {
        ApiError::internal(error)
    }
}

impl From<PutError> for ApiError {
    fn from(error: PutError) -> ApiError {
        match error {
            PutError::Changed { .. } => ApiError::outdated(error.to_string()),
            PutError::ReadOnly => ApiError::conflict(error.to_string()),
            PutError::TooLarge { .. } => ApiError::too_large(error.to_string()),
            PutError::Busy | PutError::Failed { .. } => {
                tracing::error!(%error, "a publication failed");
                ApiError::unavailable(error.to_string())
            }
        }
    }
}

impl From<VersionsError> for ApiError {
    fn from(error: VersionsError) -> ApiError {
        match error {
            VersionsError::Missing(_) => ApiError::not_found(error.to_string()),
            VersionsError::Damaged(_) | VersionsError::Newer(_) => ApiError::conflict(error.to_string()),
            VersionsError::Failed(_) => ApiError::unavailable(error.to_string()),
        }
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut body = json!({
            "type": "about:blank",
            "title": self.title,
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if !self.problems.is_empty()
            && let Some(object) = body.as_object_mut()
        {
            object.insert("problems".into(), json!(super::documents::shown(&self.problems)));
        }
        if let (Some(object), Some(Value::Object(more))) = (body.as_object_mut(), self.more) {
            object.extend(more);
        }
        let mut response = (self.status, Json(body)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if self.status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
