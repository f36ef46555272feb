//! The one error of the API: a problem document (RFC 9457).

use axum::Json;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};
use tollgate_policy::{Problem, Severity};

use super::MOST_PROBLEMS;
use crate::accounts::{AccountsError, RecordsError};
use crate::audit::{AuditError, Change};
use crate::config::{DocumentDiff, PutError, VersionsError};
use crate::ledger::StoreError;
use crate::shared::SharedError;

/// Something that is wrong with what was sent.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "FieldProblem")]
pub struct FieldProblem {
    /// The document it would be in; empty if it is none.
    pub document: String,
    /// Where in the document: `channels[3].limits[0].window`.
    pub path: String,
    /// Where in the entry that was sent: `limits[0].window`; null if it stands elsewhere.
    pub field: Option<String>,
    /// What is wrong.
    pub reason: String,
    /// `error`, or `warning`, which keeps nothing from taking effect.
    pub severity: String,
    /// What to write instead, if that can be guessed.
    pub hint: Option<String>,
}

impl FieldProblem {
    /// A problem of a document as a whole.
    pub fn of(problem: &Problem) -> FieldProblem {
        FieldProblem {
            document: problem.document.clone(),
            path: problem.path.clone(),
            field: None,
            reason: problem.reason.clone(),
            severity: match problem.severity {
                Severity::Warning => "warning".into(),
                Severity::Error => "error".into(),
            },
            hint: problem.hint.clone(),
        }
    }

    /// An error at a field.
    pub fn at(field: impl Into<String>, reason: impl Into<String>) -> FieldProblem {
        let field = field.into();
        FieldProblem {
            document: String::new(),
            path: field.clone(),
            field: Some(field),
            reason: reason.into(),
            severity: "error".into(),
            hint: None,
        }
    }

    fn is_error(&self) -> bool {
        self.severity == "error"
    }
}

/// The body of an error.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ProblemDocument")]
pub(super) struct Body {
    #[serde(rename = "type")]
    kind: &'static str,
    /// The kind of error in a few words; the same for all errors of that kind.
    title: &'static str,
    /// HTTP status.
    status: u16,
    /// What is wrong, and what to do about it.
    detail: String,
    /// What is wrong with what was sent.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(default)]
    problems: Vec<FieldProblem>,
    /// What there is now, if the version did not match; null if there is nothing any more.
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<Value>,
    /// How what was sent differs from what there is: places of an entry, or documents.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<Vec<Differs>>")]
    diff: Option<Vec<Conflict>>,
    /// Seconds after which another try may succeed.
    #[serde(skip_serializing_if = "Option::is_none")]
    retry_after_s: Option<u64>,
    /// Whatever else belongs to this kind of error.
    #[serde(flatten)]
    more: Map<String, Value>,
}

/// What `diff` is a list of: for documents it comes with what belongs to that kind of error.
#[derive(JsonSchema)]
#[serde(untagged)]
#[expect(dead_code, reason = "only its schema is used")]
enum Differs {
    Place(Conflict),
    Document(DocumentDiff),
}

/// A place where two editors differ.
#[derive(Debug, Serialize, JsonSchema)]
struct Conflict {
    /// `limits[0].max`.
    path: String,
    /// What there is.
    #[serde(skip_serializing_if = "Option::is_none")]
    current: Option<Value>,
    /// What was sent.
    #[serde(skip_serializing_if = "Option::is_none")]
    yours: Option<Value>,
}

/// Why a request was not answered as asked.
#[derive(Debug)]
pub struct ApiError {
    body: Box<Body>,
}

impl ApiError {
    fn new(status: StatusCode, title: &'static str, detail: impl Into<String>) -> ApiError {
        let body = Body {
            kind: "about:blank",
            title,
            status: status.as_u16(),
            detail: detail.into(),
            problems: Vec::new(),
            current: None,
            diff: None,
            retry_after_s: None,
            more: Map::new(),
        };
        ApiError { body: Box::new(body) }
    }

    /// With further members, from an object.
    #[must_use]
    pub fn with(mut self, more: Value) -> ApiError {
        if let Value::Object(more) = more {
            self.body.more.extend(more);
        }
        self
    }

    /// HTTP status.
    pub fn status(&self) -> u16 {
        self.body.status
    }

    /// What is wrong, in words.
    pub fn detail(&self) -> &str {
        &self.body.detail
    }

    /// 400: the request is wrong.
    pub fn bad_request(detail: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::BAD_REQUEST, "bad request", detail)
    }

    /// 401: nobody has signed in.
    pub fn unauthorized() -> ApiError {
        let detail =
            "sign in, or send a token as `Authorization: Bearer …`; the daemon's own lies in its token file";
        ApiError::new(StatusCode::UNAUTHORIZED, "unauthorized", detail)
    }

    /// 401: name or password is wrong.
    pub fn wrong_password() -> ApiError {
        ApiError::new(
            StatusCode::UNAUTHORIZED,
            "unauthorized",
            "name or password is wrong, or the account is disabled",
        )
    }

    /// 403: it is known who it is, and they may not.
    pub fn forbidden(detail: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::FORBIDDEN, "forbidden", detail)
    }

    /// 403: another site may have sent it.
    pub fn csrf() -> ApiError {
        let detail = "send the session's `csrf`, which GET /api/v1/session tells, as `X-CSRF-Token`";
        ApiError::new(StatusCode::FORBIDDEN, "csrf token required", detail)
    }

    /// 404.
    pub fn not_found(detail: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::NOT_FOUND, "not found", detail)
    }

    /// 405.
    pub fn method_not_allowed() -> ApiError {
        ApiError::new(
            StatusCode::METHOD_NOT_ALLOWED,
            "method not allowed",
            "see /api/v1/openapi.json",
        )
    }

    /// 409: what is there stands in the way.
    pub fn conflict(detail: impl Into<String>) -> ApiError {
        ApiError::new(StatusCode::CONFLICT, "conflict", detail)
    }

    /// 409: somebody else changed it meanwhile. What there is now (null for nothing), and how what was sent differs.
    pub fn edited(detail: impl Into<String>, current: Value, diff: Vec<Change>) -> ApiError {
        let mut error = ApiError::outdated(detail);
        let conflict = |c: Change| Conflict {
            path: c.path,
            current: c.from,
            yours: c.to,
        };
        error.body.current = Some(current);
        error.body.diff = Some(diff.into_iter().map(conflict).collect());
        error
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
        let detail = "it is there already; send its ETag as `If-Match`";
        ApiError::new(StatusCode::PRECONDITION_REQUIRED, "version required", detail)
    }

    /// 422: documents with errors.
    pub fn invalid(problems: Vec<Problem>) -> ApiError {
        ApiError::invalid_fields(problems.iter().map(FieldProblem::of).collect())
    }

    /// 422: fields with errors.
    pub fn invalid_fields(problems: Vec<FieldProblem>) -> ApiError {
        let (errors, warnings): (Vec<_>, Vec<_>) = problems.into_iter().partition(FieldProblem::is_error);
        let detail = format!("{} errors; nothing was written", errors.len());
        let mut error = ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", detail);
        error.body.problems = errors.into_iter().chain(warnings).take(MOST_PROBLEMS).collect();
        error
    }

    /// 429: not so soon.
    pub fn too_many(wait_ms: u64) -> ApiError {
        let seconds = wait_ms.div_ceil(1_000).max(1);
        let detail = format!("too many failed logins; try again in {seconds} s");
        let mut error = ApiError::new(StatusCode::TOO_MANY_REQUESTS, "too many requests", detail);
        error.body.retry_after_s = Some(seconds);
        error
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

    /// 500: it may have taken effect, but nobody will be able to tell who did it.
    pub fn unrecorded(error: &dyn std::fmt::Display) -> ApiError {
        tracing::error!(%error, "a request to the API is not in the audit log");
        let detail = format!("the request may have taken effect, but is not in the audit log: {error}");
        ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, "not recorded", detail)
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> ApiError {
        ApiError::internal(error)
    }
}

impl From<SharedError> for ApiError {
    fn from(error: SharedError) -> ApiError {
        ApiError::unavailable(error.to_string())
    }
}

impl From<RecordsError> for ApiError {
    fn from(error: RecordsError) -> ApiError {
        if error.source.is::<SharedError>() {
            return ApiError::unavailable(error.to_string());
        }
        ApiError::internal(error)
    }
}

impl From<AuditError> for ApiError {
    fn from(error: AuditError) -> ApiError {
        ApiError::internal(error)
    }
}

impl From<AccountsError> for ApiError {
    fn from(error: AccountsError) -> ApiError {
        match error {
            AccountsError::Store(error) => error.into(),
            AccountsError::Invalid(faults) => ApiError::invalid_fields(
                faults
                    .into_iter()
                    .map(|f| FieldProblem::at(f.field, f.reason))
                    .collect(),
            ),
            AccountsError::NotFound(what) => ApiError::not_found(format!("there is no such {what}")),
            AccountsError::Exists => ApiError::conflict("the name is taken"),
            AccountsError::Changed => ApiError::conflict("it was changed meanwhile; read it again"),
            AccountsError::LastAdmin => {
                ApiError::conflict("no other account would be left that is enabled and may do everything")
            }
            AccountsError::BuiltIn => {
                ApiError::conflict("the program brings this role; it cannot be changed")
            }
            AccountsError::Used(name) => ApiError::conflict(format!("the account `{name}` has this role")),
            AccountsError::Refused => ApiError::wrong_password(),
            AccountsError::Throttled(ms) => ApiError::too_many(ms),
        }
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
        let status = StatusCode::from_u16(self.body.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after = self.body.retry_after_s;
        let mut response = (status, Json(self.body)).into_response();
        let headers = response.headers_mut();
        headers.insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        if status == StatusCode::UNAUTHORIZED {
            headers.insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        if let Some(seconds) = retry_after {
            headers.insert(header::RETRY_AFTER, seconds.into());
        }
        response
    }
}
