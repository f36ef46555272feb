//! Publishing: documents as one version, and the way back to a former one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::http::{HeaderMap, HeaderName};
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tollgate_policy::{Kind, Problem};

use super::documents::{prepared, resolve, shown};
use super::extract::{Body, Path};
use super::guard::Trail;
use super::versions::{blocking, conflict, differences};
use super::{ApiError, AppState};
use crate::config::{
    Change, ConfigStatus, DocumentDiff, DocumentSet, Edit, Expected, PutError, SHARD_BYTES, diff, edited,
    edits_back_to, parse_set, resealed, split,
};

/// Longest wait for a version to be looked at.
const PATIENCE: Duration = Duration::from_secs(5);

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

/// What became of a publication.
#[derive(Serialize, JsonSchema)]
pub(super) struct Published {
    /// Whether it was published; not for a dry run, nor if there was nothing to publish.
    published: bool,
    /// The version that it is; null if it was not published.
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

impl Published {
    /// Nothing was to be published.
    pub(super) fn nothing(status: &ConfigStatus) -> Published {
        Published {
            published: false,
            version: None,
            in_force: status.in_force,
            generation: status.generation(),
            documents: Vec::new(),
            diff: Vec::new(),
            problems: Vec::new(),
        }
    }
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
pub(super) async fn make(
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
    // A version from before a change of the master key would be in force nowhere.
    for edit in &edits {
        let (key, bytes) = (&state.sealer.key, edit.bytes.as_deref().unwrap_or_default());
        let holds = Kind::from_file_name(&edit.name).is_some_and(Kind::holds_secrets);
        if holds && let Err(error) = resealed(bytes, key, key) {
            return Err(ApiError::conflict(format!(
                "{}: a credential: {error}",
                edit.name
            )));
        }
    }
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
