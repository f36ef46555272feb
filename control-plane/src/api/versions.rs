//! Versions of the configuration: what was published, by whom and why, what differs, and the way back.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tollgate_policy::{Kind, Problem};

use super::documents::{prepared, resolve, shown};
use super::extract::{Body, Path, Query};
use super::guard::Trail;
use super::{ApiError, AppState};
use crate::config::{
    Change, DocumentDiff, DocumentSet, Edit, Etag, Expected, PutError, SHARD_BYTES, Version, Versions, diff,
    edited, edits_back_to, list_versions, parse_set, redacted, split,
};

/// Longest wait for a version to be looked at.
const PATIENCE: Duration = Duration::from_secs(5);
/// Most versions in one answer.
const MOST: usize = 500;

/// Who publishes: the account, or, from whoever has the state folder's token, the header `x-tollgate-author`.
pub(super) fn author(headers: &HeaderMap, trail: &Trail) -> Result<String, ApiError> {
    let named = headers.get(HeaderName::from_static("x-tollgate-author"));
    let Some(value) = named.filter(|_| trail.is_owner()) else {
        return Ok(trail.who().to_owned());
    };
    let text = std::str::from_utf8(value.as_bytes()).ok().map(str::trim);
    text.filter(|t| !t.is_empty() && t.chars().count() <= 100 && !t.chars().any(char::is_control))
        .map(str::to_owned)
        .ok_or_else(|| ApiError::bad_request("`x-tollgate-author` is no name"))
}

/// Runs something that may wait for the source.
async fn blocking<T: Send + 'static>(
    state: &AppState,
    work: impl FnOnce(&dyn Versions) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let source = Arc::clone(&state.source);
    tokio::task::spawn_blocking(move || {
        let versions = source.versions().ok_or_else(|| {
            ApiError::conflict("this configuration has no versions: it is for reading only")
        })?;
        work(versions)
    })
    .await?
}

/// A version, without its documents.
#[derive(Serialize, JsonSchema)]
struct VersionHead {
    /// 1, 2, 3, …
    number: u64,
    /// Who published it.
    author: String,
    /// When, Unix milliseconds.
    unix_ms: u64,
    /// Why.
    message: String,
    /// Documents that differ from the version before.
    changed: Vec<String>,
}

impl VersionHead {
    fn of(version: &Version, before: Option<&Version>) -> VersionHead {
        VersionHead {
            number: version.number,
            author: version.author.clone(),
            unix_ms: version.unix_ms,
            message: version.message.clone(),
            changed: version.changed(before),
        }
    }
}

/// A version in a list.
#[derive(Serialize, JsonSchema)]
struct VersionLine {
    #[serde(flatten)]
    head: VersionHead,
    /// Number of its documents.
    documents: usize,
}

/// Versions, newest first.
#[derive(Serialize, JsonSchema)]
pub(super) struct VersionList {
    /// The newest one; null if there is none.
    head: Option<u64>,
    /// The one in force; null if what is in force is none.
    in_force: Option<u64>,
    versions: Vec<VersionLine>,
}

/// A version.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "ConfigurationVersion")]
pub(super) struct OneVersion {
    #[serde(flatten)]
    head: VersionHead,
    /// Each document's own version.
    documents: BTreeMap<String, String>,
}

/// How two versions differ.
#[derive(Serialize, JsonSchema)]
pub(super) struct VersionDiff {
    /// The older one; null for nothing.
    from: Option<u64>,
    /// The newer one.
    to: u64,
    documents: Vec<DocumentDiff>,
}

/// What became of a publication.
#[derive(Serialize, JsonSchema)]
pub(super) struct Published {
    /// Whether it was published; not for a dry run.
    published: bool,
    /// The version that it is; null for a dry run.
    version: Option<u64>,
    /// Whether it is in force already.
    in_force: bool,
    /// Generation in force.
    generation: u64,
    /// The documents that it is about.
    documents: Vec<String>,
    /// What differs.
    diff: Vec<DocumentDiff>,
    /// Warnings, as many as fit.
    problems: Vec<Problem>,
}

/// Which versions to list.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct ListQuery {
    /// Only versions before this one.
    before: Option<u64>,
    /// At most so many; 50 by default, at most 500.
    limit: Option<usize>,
    /// Only versions that changed this document.
    document: Option<String>,
}

/// Versions, newest first.
pub(super) async fn list(
    State(state): State<AppState>,
    Query(query): Query<ListQuery>,
) -> Result<Json<VersionList>, ApiError> {
    let in_force = state.status().version;
    blocking(&state, move |versions| {
        let limit = query.limit.unwrap_or(50).clamp(1, MOST);
        // One more, to say what the last one changed.
        let found = list_versions(versions, query.before, limit + 1)?;
        let head = versions.head()?.map(|v| v.number);
        let mut shown = Vec::new();
        for (index, version) in found.iter().take(limit).enumerate() {
            let before = found.get(index + 1);
            let touched = |name: &String| version.changed(before).contains(name);
            if query.document.as_ref().is_none_or(touched) {
                shown.push(VersionLine {
                    head: VersionHead::of(version, before),
                    documents: version.documents.len(),
                });
            }
        }
        Ok(Json(VersionList {
            head,
            in_force,
            versions: shown,
        }))
    })
    .await
}

fn former(versions: &dyn Versions, number: u64) -> Option<Version> {
    versions.version(number.checked_sub(1).filter(|n| *n > 0)?).ok()
}

/// One version and its documents.
pub(super) async fn one(
    State(state): State<AppState>,
    Path(number): Path<u64>,
) -> Result<Json<OneVersion>, ApiError> {
    blocking(&state, move |versions| {
        let version = versions.version(number)?;
        let documents = version.documents.iter();
        Ok(Json(OneVersion {
            head: VersionHead::of(&version, former(versions, number).as_ref()),
            documents: documents
                .map(|(n, e)| (n.clone(), e.as_str().to_owned()))
                .collect(),
        }))
    })
    .await
}

/// A document as it was in a version, its credentials taken out.
pub(super) async fn document(
    State(state): State<AppState>,
    Path((number, name)): Path<(u64, String)>,
) -> Result<Response, ApiError> {
    blocking(&state, move |versions| {
        let version = versions.version(number)?;
        let etag = version
            .documents
            .get(&name)
            .ok_or_else(|| ApiError::not_found(format!("version {number} has no document `{name}`")))?;
        let bytes = versions.content(etag)?;
        let bytes = match Kind::from_file_name(&name) {
            Some(Kind::Providers) => redacted(&bytes)
                .ok_or_else(|| ApiError::conflict("the document is not JSON; it cannot be shown"))?,
            _ => bytes.to_vec(),
        };
        let head = [
            (header::CONTENT_TYPE, "application/json".to_owned()),
            (header::ETAG, format!("\"{}\"", etag.as_str())),
        ];
        Ok((head, bytes).into_response())
    })
    .await
}

/// With what to compare a version.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct DiffQuery {
    /// The older one; the version before by default.
    from: Option<u64>,
}

fn differences(
    versions: &dyn Versions,
    old: Option<&Version>,
    new: &Version,
) -> Result<Vec<DocumentDiff>, ApiError> {
    let content = |etag: Option<&Etag>| etag.map(|e| versions.content(e)).transpose();
    let mut found = Vec::new();
    for name in new.changed(old) {
        let before = content(old.and_then(|v| v.documents.get(&name)))?;
        let after = content(new.documents.get(&name))?;
        found.extend(diff(&name, before.as_deref(), after.as_deref()));
    }
    Ok(found)
}

/// What a version changed, or how it differs from another one.
pub(super) async fn difference(
    State(state): State<AppState>,
    Path(number): Path<u64>,
    Query(query): Query<DiffQuery>,
) -> Result<Json<VersionDiff>, ApiError> {
    blocking(&state, move |versions| {
        let new = versions.version(number)?;
        let old = match query.from {
            Some(from) => Some(versions.version(from)?),
            None => former(versions, number),
        };
        let found = differences(versions, old.as_ref(), &new)?;
        Ok(Json(VersionDiff {
            from: old.map(|v| v.number),
            to: number,
            documents: found,
        }))
    })
    .await
}

/// 409 for a document: what happened to it since the version that the client knew, or, if that is not kept, how it
/// differs from what the client sent.
pub(super) async fn conflict(
    state: &AppState,
    name: String,
    known: Option<Etag>,
    present: Option<Etag>,
    ours: Vec<u8>,
) -> ApiError {
    let source = Arc::clone(&state.source);
    let answer = tokio::task::spawn_blocking(move || {
        let kept = |etag: &Etag| source.versions().and_then(|v| v.content(etag).ok());
        let there = present.as_ref().and_then(|etag| {
            let set = Arc::clone(&source.documents().borrow());
            let local = set.get(&name).filter(|d| d.etag == *etag);
            local.map(|d| Arc::clone(&d.bytes)).or_else(|| kept(etag))
        });
        let base = known.as_ref().and_then(kept);
        let against = if base.is_some() {
            "your version"
        } else {
            "your document"
        };
        let base = base.unwrap_or_else(|| ours.into());
        let detail = match &present {
            Some(etag) => format!("`{name}` is version \"{}\" now", etag.as_str()),
            None => format!("`{name}` is not there any more"),
        };
        ApiError::outdated(detail).with(json!({
            "document": name,
            "present": present.as_ref().map(Etag::as_str),
            "compared_with": against,
            "diff": diff(&name, Some(&base), there.as_deref()),
        }))
    });
    answer.await.unwrap_or_else(ApiError::from)
}

/// Content by document name, or by kind for all documents of that kind.
pub(super) type Texts = BTreeMap<String, Box<RawValue>>;

/// Documents to publish as one version.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Publication {
    /// Content by document name, or by kind for all documents of that kind; an object, its text as a string, or `null`
    /// to take it away.
    #[schemars(with = "BTreeMap<String, Value>")]
    documents: Texts,
    /// Why.
    #[serde(default)]
    message: String,
    /// The version that the client knew; nothing is published if it is not the present one.
    base: Option<u64>,
    /// Only say what would happen.
    #[serde(default)]
    dry_run: bool,
}

/// The text of a document as it was sent.
fn text_of(raw: &RawValue) -> Result<Option<Vec<u8>>, ApiError> {
    let text = raw.get();
    if text == "null" {
        return Ok(None);
    }
    if text.starts_with('"') {
        let text: String = serde_json::from_str(text).map_err(|e| ApiError::bad_request(e.to_string()))?;
        return Ok(Some(text.into_bytes()));
    }
    Ok(Some(text.as_bytes().to_vec()))
}

/// The edits that a publication comes to.
pub(super) fn edits(state: &AppState, set: &DocumentSet, documents: &Texts) -> Result<Vec<Edit>, ApiError> {
    let mut edits: BTreeMap<String, Edit> = BTreeMap::new();
    let mut add = |name: String, bytes: Option<Arc<[u8]>>| {
        let expected = Expected::exactly(set.get(&name).map(|d| &d.etag));
        edits.insert(
            name.clone(),
            Edit {
                name,
                bytes,
                expected,
            },
        );
    };
    for (key, raw) in documents {
        let text = text_of(raw)?;
        let Some(kind) = Kind::from_name(key) else {
            let name = resolve(set, key)?;
            let kind = Kind::from_file_name(&name);
            let bytes = text
                .map(|t| prepared(state, kind, &name, &t, set.get(&name)))
                .transpose()?;
            add(name, bytes.map(Into::into));
            continue;
        };
        // The whole kind: what is not among its new shards goes.
        for document in set.documents.iter().filter(|d| d.kind() == Some(kind)) {
            add(document.name.clone(), None);
        }
        let Some(text) = text else { continue };
        let single = set.documents.iter().find(|d| d.kind() == Some(kind));
        let text = prepared(state, Some(kind), key, &text, single)?;
        let target = if text.len() > state.source.largest() {
            SHARD_BYTES
        } else {
            usize::MAX
        };
        for (name, bytes) in split(kind, &text, target) {
            add(name, Some(bytes));
        }
    }
    Ok(edits.into_values().collect())
}

/// Validates a change together with everything else, publishes it, and waits until it has been looked at.
async fn make(
    state: &AppState,
    trail: &Trail,
    set: &DocumentSet,
    change: Change,
    dry_run: bool,
) -> Result<Json<Published>, ApiError> {
    let candidate = edited(set, &change.edits);
    let names: Vec<String> = change.edits.iter().map(|e| e.name.clone()).collect();
    let (problems, found) = {
        let before = set.clone();
        let (names, after) = (names.clone(), candidate);
        tokio::task::spawn_blocking(move || {
            let bytes = |set: &DocumentSet, name: &str| set.get(name).map(|d| Arc::clone(&d.bytes));
            let found: Vec<DocumentDiff> = names
                .iter()
                .filter_map(|n| diff(n, bytes(&before, n).as_deref(), bytes(&after, n).as_deref()))
                .collect();
            (parse_set(&after).1, found)
        })
        .await?
    };
    if problems.iter().any(Problem::is_error) {
        return Err(ApiError::invalid(problems));
    }
    if dry_run {
        trail.nothing();
        return Ok(Json(Published {
            published: false,
            version: None,
            in_force: false,
            generation: state.status().generation(),
            documents: names,
            diff: found,
            problems: shown(&problems),
        }));
    }
    let source = Arc::clone(&state.source);
    let sent = change.clone();
    let version = match tokio::task::spawn_blocking(move || source.publish(&sent)).await? {
        Ok(version) => version,
        Err(PutError::Changed { document, present }) => {
            let edit = change.edits.iter().find(|e| e.name == document);
            let known = match edit.map(|e| &e.expected) {
                Some(Expected::Exactly(etag)) => Some(etag.clone()),
                _ => None,
            };
            let ours = edit.and_then(|e| e.bytes.as_deref()).unwrap_or_default().to_vec();
            return Err(conflict(state, document, known, present, ours).await);
        }
        Err(error) => return Err(error.into()),
    };
    trail.target(format!("version {}", version.number));
    trail.changed(
        None,
        Some(json!({ "version": version.number, "message": version.message, "documents": names })),
    );
    let mut config = state.config.clone();
    let seen = config.wait_for(|s| s.documents.version.is_some_and(|v| v >= version.number));
    let seen = tokio::time::timeout(PATIENCE, seen).await;
    let in_force = matches!(seen, Ok(Ok(status)) if status.in_force);
    Ok(Json(Published {
        published: true,
        version: Some(version.number),
        in_force,
        generation: state.status().generation(),
        documents: names,
        diff: found,
        problems: shown(&problems),
    }))
}

/// Publishes documents as one version.
pub(super) async fn publish(
    State(state): State<AppState>,
    Extension(trail): Extension<Trail>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Json<Published>, ApiError> {
    let publication: Publication = serde_json::from_slice(&body).map_err(|e| {
        ApiError::bad_request(format!(
            "expected {{\"documents\": {{name: content}}, \"message\": …}}: {e}"
        ))
    })?;
    let set = Arc::clone(&state.status().documents);
    if let Some(base) = publication.base
        && set.version != Some(base)
    {
        let detail = match set.version {
            Some(present) => format!("the configuration is version {present} now"),
            None => "the documents have been edited at their source and are no version yet".to_owned(),
        };
        let present = set.version;
        let found = blocking(&state, move |versions| {
            let head = versions.head()?;
            let old = versions.version(base).ok();
            match (&head, &old) {
                (Some(head), Some(old)) => differences(versions, Some(old), head),
                _ => Ok(Vec::new()),
            }
        })
        .await?;
        let more = json!({ "present": present, "compared_with": "your version", "diff": found });
        return Err(ApiError::outdated(detail).with(more));
    }
    let change = Change {
        author: author(&headers, &trail)?,
        message: publication.message.clone(),
        edits: edits(&state, &set, &publication.documents)?,
    };
    make(&state, &trail, &set, change, publication.dry_run).await
}

/// Why a version is brought back.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Rollback {
    /// Stands in the new version.
    #[serde(default)]
    message: String,
}

/// Publishes the documents of a version again, byte for byte, as a new version.
pub(super) async fn rollback(
    State(state): State<AppState>,
    Path(number): Path<u64>,
    Extension(trail): Extension<Trail>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Json<Published>, ApiError> {
    let wish: Rollback = if body.is_empty() {
        Rollback::default()
    } else {
        serde_json::from_slice(&body)
            .map_err(|e| ApiError::bad_request(format!("expected {{\"message\": …}}: {e}")))?
    };
    let set = Arc::clone(&state.status().documents);
    let present = Arc::clone(&set);
    let edits = blocking(&state, move |versions| {
        let target = versions.version(number)?;
        Ok(edits_back_to(versions, &present, &target)?)
    })
    .await?;
    let message = if wish.message.is_empty() {
        format!("back to version {number}")
    } else {
        format!("back to version {number}: {}", wish.message)
    };
    let change = Change {
        author: author(&headers, &trail)?,
        message,
        edits,
    };
    make(&state, &trail, &set, change, false).await
}
