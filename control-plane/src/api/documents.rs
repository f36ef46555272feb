//! Documents: what is there, what is wrong with it, and changing it under optimistic locking.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tollgate_policy::{Kind, Problem};

use super::extract::{Body, Path, Query};
use super::guard::Trail;
use super::publish::author;
use super::versions::conflict;
use super::{ApiError, AppState, MOST_PROBLEMS};
use crate::config::{
    Change, Document, DocumentSet, Edit, Etag, Expected, Override, PutError, SourceHealth, instance_of,
    parse_set, redacted, sealed, with_restored,
};

/// Longest wait for a written document to be looked at.
const PATIENCE: Duration = Duration::from_secs(5);

/// As many problems as fit into an answer, errors first.
pub(super) fn shown(problems: &[Problem]) -> Vec<Problem> {
    let errors = problems.iter().filter(|p| p.is_error());
    let warnings = problems.iter().filter(|p| !p.is_error());
    errors.chain(warnings).take(MOST_PROBLEMS).cloned().collect()
}

/// A document without its content.
#[derive(Serialize, JsonSchema)]
struct DocumentHead {
    /// File name or data id.
    name: String,
    /// Its kind; null if it is of none, such as an instance's overrides.
    kind: Option<&'static str>,
    /// Its version: send it as `If-Match`.
    etag: String,
    /// Its length.
    bytes: usize,
}

/// The documents, and how it is with them.
#[derive(Serialize, JsonSchema)]
pub(super) struct DocumentList {
    /// Where they come from.
    source: String,
    /// How it is with the server behind the source; null if there is none.
    source_health: Option<SourceHealth>,
    /// The published version that these documents are; null if they are none.
    version: Option<u64>,
    /// The published version in force; null if what is in force is none.
    version_in_force: Option<u64>,
    /// What this instance has of its own.
    overrides: Vec<Override>,
    /// Generation in force; 0 for none.
    generation: u64,
    /// Whether these documents are in force; if not, the ones before them are.
    in_force: bool,
    documents: Vec<DocumentHead>,
    /// Number of errors.
    errors: usize,
    /// Number of warnings.
    warnings: usize,
    /// Errors and warnings, as many as fit.
    problems: Vec<Problem>,
}

/// All documents, without their content, and everything that is wrong with them.
pub(super) async fn list(State(state): State<AppState>) -> Json<DocumentList> {
    let status = state.status();
    let (errors, warnings) = status.counts();
    let head = |d: &Document| DocumentHead {
        name: d.name.clone(),
        kind: d.kind().map(Kind::name),
        etag: d.etag.as_str().to_owned(),
        bytes: d.bytes.len(),
    };
    Json(DocumentList {
        source: state.source.describe(),
        source_health: state.source.health(),
        version: status.documents.version,
        version_in_force: status.version,
        overrides: status.overrides.to_vec(),
        generation: status.generation(),
        in_force: status.in_force,
        documents: status.documents.documents.iter().map(head).collect(),
        errors,
        warnings,
        problems: shown(&status.problems),
    })
}

/// The name of the document that a request means: a document's own name, or a kind.
pub(super) fn resolve(set: &DocumentSet, name: &str) -> Result<String, ApiError> {
    if set.get(name).is_some() {
        return Ok(name.to_owned());
    }
    if let Some(kind) = Kind::from_name(name) {
        let of_kind: Vec<&str> = set
            .documents
            .iter()
            .filter(|d| d.kind() == Some(kind))
            .map(|d| d.name.as_str())
            .collect();
        return match of_kind.as_slice() {
            [] => Ok(format!("tollgate.{name}.json")),
            [only] => Ok((*only).to_owned()),
            several => Err(ApiError::conflict(format!(
                "there are several documents of this kind, name one of them: {}",
                several.join(", ")
            ))),
        };
    }
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let known = Kind::from_file_name(name).is_some() || instance_of(name).is_some();
    if known && name.ends_with(".json") && !name.starts_with('.') && name.bytes().all(plain) {
        return Ok(name.to_owned());
    }
    Err(ApiError::not_found(format!(
        "`{name}` is neither a document nor a kind of document"
    )))
}

fn with_etag(etag: &Etag, body: impl IntoResponse) -> Response {
    let quoted = format!("\"{}\"", etag.as_str());
    ([(header::ETAG, quoted)], body).into_response()
}

/// A document's content, its credentials taken out.
pub(super) async fn read(
    State(state): State<AppState>,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let status = state.status();
    let name = resolve(&status.documents, &name)?;
    let document = status
        .documents
        .get(&name)
        .ok_or_else(|| ApiError::not_found(format!("there is no document `{name}`")))?;
    let bytes = match document.kind() {
        Some(kind) if kind.holds_secrets() => redacted(&document.bytes).ok_or_else(|| {
            ApiError::conflict("the document is not JSON, so that its credentials cannot be told from the rest; see its file")
        })?,
        _ => document.bytes.to_vec(),
    };
    let place = [
        (header::CONTENT_TYPE, "application/json".to_owned()),
        (HeaderName::from_static("x-tollgate-document"), name),
    ];
    Ok(with_etag(&document.etag, (place, bytes)))
}

/// How a document is written.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "DocumentWriteQuery")]
pub(super) struct WriteQuery {
    /// Only say what would happen.
    #[serde(default)]
    dry_run: bool,
    /// Why it is changed; stands in the version.
    #[serde(default)]
    message: String,
}

/// The version that a client says it knows; `*` and nothing are `None`.
fn version(headers: &HeaderMap, name: HeaderName) -> Result<Option<String>, ApiError> {
    let Some(value) = headers.get(&name) else {
        return Ok(None);
    };
    let text = value
        .to_str()
        .map_err(|_| ApiError::bad_request(format!("`{name}` is no ETag")))?;
    let text = text.trim().trim_start_matches("W/");
    Ok(Some(text.trim_matches('"').to_owned()))
}

/// Why a document is not to be written as the client asked.
enum Unmet {
    /// For another reason than the next.
    Refused(ApiError),
    /// It is not the version that the client knew.
    Outdated(Option<Etag>),
}

/// Checks what the client knows against what is there; returns the version to replace.
fn precondition(headers: &HeaderMap, present: Option<&Document>) -> Result<Option<Etag>, Unmet> {
    let version = |name| version(headers, name).map_err(Unmet::Refused);
    let known = version(header::IF_MATCH)?;
    let absent = version(header::IF_NONE_MATCH)?.is_some_and(|v| v == "*");
    match (present, known) {
        (Some(_), _) if absent => Err(Unmet::Refused(ApiError::changed("the document is there already"))),
        (Some(document), Some(known)) if known == "*" || known == document.etag.as_str() => {
            Ok(Some(document.etag.clone()))
        }
        (Some(_), Some(known)) => Err(Unmet::Outdated(Etag::parse(&known))),
        (Some(_), None) => Err(Unmet::Refused(ApiError::needs_version())),
        (None, Some(known)) => Err(Unmet::Outdated(Etag::parse(&known))),
        (None, None) => Ok(None),
    }
}

/// The content as it will be written: credentials that were taken out put back, those in the clear sealed.
pub(super) fn prepared(
    state: &AppState,
    kind: Option<Kind>,
    name: &str,
    body: &[u8],
    present: Option<&Document>,
) -> Result<Vec<u8>, ApiError> {
    if !kind.is_some_and(Kind::holds_secrets) {
        return Ok(body.to_vec());
    }
    let whole = with_restored(body, present.map(|d| &*d.bytes)).map_err(|unknown| {
        let problem = |id| match kind {
            Some(Kind::Settings) => {
                let reason = format!("no secret is stored as `{id}`; write it out");
                Problem::error(name, "settings.alerts.receivers", reason)
            }
            _ => {
                let reason = format!("no credential is stored for the provider `{id}`; write it out");
                Problem::error(name, "providers", reason)
            }
        };
        ApiError::invalid(unknown.into_iter().map(problem).collect())
    })?;
    match sealed(&whole, &state.sealer.key) {
        Ok(Some(bytes)) => Ok(bytes),
        Ok(None) => Ok(whole),
        Err(error) => Err(ApiError::bad_request(format!(
            "a credential cannot be sealed: {error}"
        ))),
    }
}

/// A document for the audit log: its content, if that is JSON.
fn recorded(document: &Document) -> Value {
    serde_json::from_slice(&document.bytes).unwrap_or_else(|_| json!({ "etag": document.etag.as_str() }))
}

/// What became of a document.
#[derive(Serialize, JsonSchema)]
pub(super) struct DocumentWritten {
    /// Its name.
    document: String,
    /// Whether it was written; not for a dry run.
    written: bool,
    /// Whether it is in force already.
    in_force: bool,
    /// Generation in force.
    generation: u64,
    /// The version of the configuration that this made; null for a dry run.
    version: Option<u64>,
    /// The document's own version.
    etag: String,
    /// Warnings, as many as fit.
    problems: Vec<Problem>,
}

/// Validates a document together with all others, writes it, and waits until it has been looked at.
pub(super) async fn write(
    State(state): State<AppState>,
    Extension(trail): Extension<Trail>,
    Path(name): Path<String>,
    Query(query): Query<WriteQuery>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let set = Arc::clone(&state.status().documents);
    let name = resolve(&set, &name)?;
    let present = set.get(&name);
    let bytes = prepared(&state, Kind::from_file_name(&name), &name, &body, present)?;
    let expected = match precondition(&headers, present) {
        Ok(expected) => expected,
        Err(Unmet::Refused(error)) => return Err(error),
        Err(Unmet::Outdated(known)) => {
            let there = present.map(|d| d.etag.clone());
            return Err(conflict(&state, name, known, there, bytes).await);
        }
    };
    let document = Document::new(name.clone(), bytes);
    let etag = document.etag.clone();
    let candidate = DocumentSet {
        problems: Vec::new(),
        ..set.with(document.clone())
    };
    let problems = tokio::task::spawn_blocking(move || parse_set(&candidate).1).await?;
    if problems.iter().any(Problem::is_error) {
        return Err(ApiError::invalid(problems));
    }
    trail.target(name.clone());
    if query.dry_run {
        trail.nothing();
        let answer = DocumentWritten {
            document: name,
            written: false,
            in_force: false,
            generation: state.status().generation(),
            version: None,
            etag: etag.as_str().to_owned(),
            problems: shown(&problems),
        };
        return Ok(Json(answer).into_response());
    }
    let source = Arc::clone(&state.source);
    let change = Change {
        author: author(&headers, &trail)?,
        message: query.message,
        edits: vec![Edit {
            name: name.clone(),
            bytes: Some(Arc::clone(&document.bytes)),
            expected: Expected::exactly(expected.as_ref()),
        }],
    };
    let version = match tokio::task::spawn_blocking(move || source.publish(&change)).await? {
        Ok(version) => version,
        Err(PutError::Changed { present, .. }) => {
            return Err(conflict(&state, name, expected, present, document.bytes.to_vec()).await);
        }
        Err(error) => return Err(error.into()),
    };
    trail.changed(present.map(recorded), Some(recorded(&document)));
    let mut config = state.config.clone();
    let seen = config.wait_for(|s| s.documents.version.is_some_and(|v| v >= version.number));
    let seen = tokio::time::timeout(PATIENCE, seen).await;
    let in_force = matches!(seen, Ok(Ok(status)) if status.in_force);
    let answer = DocumentWritten {
        document: name,
        written: true,
        in_force,
        generation: state.status().generation(),
        version: Some(version.number),
        etag: etag.as_str().to_owned(),
        problems: shown(&problems),
    };
    Ok(with_etag(&etag, Json(answer)))
}

/// Documents to validate: they replace those of the same name, the others are taken as they are.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Candidates {
    /// Content by document name or kind.
    documents: BTreeMap<String, Value>,
}

/// What is wrong with documents.
#[derive(Serialize, JsonSchema)]
pub(super) struct Validation {
    /// Whether they would take effect.
    valid: bool,
    /// Errors and warnings, as many as fit.
    problems: Vec<Problem>,
}

/// Validates documents together with those that are there. Writes nothing.
pub(super) async fn check(
    State(state): State<AppState>,
    Body(body): Body,
) -> Result<Json<Validation>, ApiError> {
    let candidates: Candidates = serde_json::from_slice(&body)
        .map_err(|e| ApiError::bad_request(format!("expected {{\"documents\": {{name: content}}}}: {e}")))?;
    let present = Arc::clone(&state.status().documents);
    let mut set = DocumentSet {
        problems: Vec::new(),
        ..DocumentSet::clone(&present)
    };
    for (name, content) in candidates.documents {
        let name = resolve(&set, &name)?;
        let bytes = content.to_string().into_bytes();
        let bytes = prepared(
            &state,
            Kind::from_file_name(&name),
            &name,
            &bytes,
            present.get(&name),
        )?;
        set = set.with(Document::new(name, bytes));
    }
    let problems = tokio::task::spawn_blocking(move || parse_set(&set).1).await?;
    let valid = !problems.iter().any(Problem::is_error);
    Ok(Json(Validation {
        valid,
        problems: shown(&problems),
    }))
}
