//! Versions of the configuration: what was published, by whom and why, and what differs.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tollgate_policy::Kind;

use super::extract::{Path, Query};
use super::{ApiError, AppState};
use crate::config::{DocumentDiff, Etag, Version, Versions, diff, list_versions, redacted};

/// Most versions in one answer.
const MOST: usize = 500;

/// Runs something that may wait for the source.
pub(super) async fn blocking<T: Send + 'static>(
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
            Some(kind) if kind.holds_secrets() => redacted(&bytes)
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

pub(super) fn differences(
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
