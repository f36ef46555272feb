//! Backups: all documents and who may do what, in one archive, and back. Credentials stand in it as they stand in the
//! documents, sealed with the master key, which is not part of it; a code of the same key says that nobody changed it.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use axum::{Extension, Json};
use hmac::{Hmac, Mac};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::Sha256;
use tollgate_policy::{Kind, Problem};

use super::extract::{Body, Query};
use super::guard::Trail;
use super::session::decoded;
use super::{ApiError, AppState};
use crate::accounts::{KeptRecord, Permissions, Principal};
use crate::config::{Change, Document, DocumentSet, Edit, Expected, instance_of, parse_set, sealed};
use crate::secrets::MasterKey;

/// The form of archives that this program writes and reads.
const FORMAT: &str = "tollgate-backup/1";

/// What an archive holds.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "BackupContent")]
struct Content {
    /// `tollgate-backup/1`.
    format: String,
    /// Version of the program that wrote it.
    version: String,
    /// Unix milliseconds by region time.
    created_at_ms: u64,
    /// Text of each document.
    documents: BTreeMap<String, String>,
    /// Accounts, custom roles and API tokens, without anything that could be used to sign in.
    accounts: Vec<KeptRecord>,
}

/// An archive.
#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Backup")]
pub(super) struct Archive {
    content: Content,
    /// Shows that the content is what a daemon with the same master key wrote.
    code: String,
}

/// How an archive is restored.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct RestoreQuery {
    /// Only say what would happen.
    #[serde(default)]
    dry_run: bool,
    /// Whether accounts, roles and tokens are restored too; only documents by default.
    #[serde(default)]
    accounts: bool,
}

/// What was restored.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Restored")]
pub(super) struct Answer {
    /// Whether anything was written; not for a dry run.
    written: bool,
    /// Documents that are other than before.
    changed: Vec<String>,
    /// Documents that the archive does not have; they stay as they are.
    left: Vec<String>,
    /// Accounts, roles and tokens that were written.
    accounts: usize,
}

fn code(key: &MasterKey, content: &Content) -> Result<String, ApiError> {
    let text = serde_json::to_vec(content).map_err(ApiError::internal)?;
    let mut mac =
        Hmac::<Sha256>::new_from_slice(key.derived("backup").as_slice()).map_err(ApiError::internal)?;
    mac.update(&text);
    Ok(mac
        .finalize()
        .into_bytes()
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect())
}

/// Everything that makes this gateway what it is.
pub(super) async fn make(
    State(state): State<AppState>,
    Extension(trail): Extension<Trail>,
) -> Result<impl IntoResponse, ApiError> {
    let archive = tokio::task::spawn_blocking(move || {
        let mut documents = BTreeMap::new();
        for document in &state.status().documents.documents {
            let bytes = match document.kind() {
                // What stands there in the clear because its source is for reading only is sealed here.
                Some(Kind::Providers) => sealed(&document.bytes, &state.sealer.key)
                    .map_err(ApiError::internal)?
                    .unwrap_or_else(|| document.bytes.to_vec()),
                _ => document.bytes.to_vec(),
            };
            let text = String::from_utf8(bytes)
                .map_err(|_| ApiError::conflict(format!("`{}` is no text", document.name)))?;
            documents.insert(document.name.clone(), text);
        }
        let content = Content {
            format: FORMAT.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            created_at_ms: state.region.now_ms(),
            documents,
            accounts: state.accounts.export()?,
        };
        let code = code(&state.sealer.key, &content)?;
        Ok::<_, ApiError>(Archive { content, code })
    })
    .await??;
    trail.changed(
        None,
        Some(json!({ "documents": archive.content.documents.len() })),
    );
    let name = "attachment; filename=\"tollgate-backup.json\"";
    Ok((
        [
            (header::CONTENT_DISPOSITION, name),
            (header::CACHE_CONTROL, "no-store"),
        ],
        Json(archive),
    ))
}

/// The documents as they would be.
fn candidate(present: &DocumentSet, content: &Content) -> DocumentSet {
    let start = DocumentSet {
        problems: Vec::new(),
        ..present.clone()
    };
    let documents = content
        .documents
        .iter()
        .map(|(n, text)| Document::new(n.clone(), text.clone().into_bytes()));
    documents.fold(start, |set, document| set.with(document))
}

/// Makes the gateway what it was. Documents that the archive does not have stay; nothing is written unless all of them
/// together are valid.
pub(super) async fn restore(
    State(state): State<AppState>,
    Extension(who): Extension<Principal>,
    Extension(trail): Extension<Trail>,
    Query(query): Query<RestoreQuery>,
    Body(body): Body,
) -> Result<Json<Answer>, ApiError> {
    // It can change who may do what, and every limit.
    if !who.permissions.cover(&Permissions::all()) {
        return Err(ApiError::forbidden(
            "only who may do everything can restore a backup",
        ));
    }
    let archive: Archive = decoded(&body)?;
    let Archive { content, code: told } = archive;
    if content.format != FORMAT {
        return Err(ApiError::bad_request(format!("not a `{FORMAT}` archive")));
    }
    if code(&state.sealer.key, &content)? != told {
        let detail = "the archive was changed, or written by a daemon with another master key";
        return Err(ApiError::conflict(detail));
    }
    if query.dry_run {
        trail.nothing();
    }
    let author = trail.who().to_owned();
    let answer = tokio::task::spawn_blocking(move || written(&state, author, &content, &query)).await??;
    trail.changed(None, Some(json!(answer)));
    Ok(Json(answer))
}

fn written(
    state: &AppState,
    author: String,
    content: &Content,
    query: &RestoreQuery,
) -> Result<Answer, ApiError> {
    let present: Arc<DocumentSet> = Arc::clone(&state.status().documents);
    let candidate = candidate(&present, content);
    for name in content.documents.keys() {
        let known = Kind::from_file_name(name).is_some() || instance_of(name).is_some();
        if !known || name.contains(['/', '\\']) || name.starts_with('.') {
            return Err(ApiError::bad_request(format!(
                "`{name}` is no name of a document"
            )));
        }
    }
    let (_, problems) = parse_set(&candidate);
    if problems.iter().any(Problem::is_error) {
        return Err(ApiError::invalid(problems));
    }
    let is_kept = |d: &&Document| content.documents.contains_key(&d.name);
    let is_other = |d: &&Document| present.get(&d.name).is_none_or(|before| before.etag != d.etag);
    let edits: Vec<Edit> = candidate
        .documents
        .iter()
        .filter(is_kept)
        .filter(is_other)
        .map(|d| Edit {
            name: d.name.clone(),
            bytes: Some(Arc::clone(&d.bytes)),
            expected: Expected::exactly(present.get(&d.name).map(|before| &before.etag)),
        })
        .collect();
    let changed = edits.iter().map(|e| e.name.clone()).collect();
    if !query.dry_run && !edits.is_empty() {
        let message = format!("restored the backup of {}", content.created_at_ms);
        // One version: all of it or nothing.
        state.source.publish(&Change {
            author,
            message,
            edits,
        })?;
    }
    let left = present
        .documents
        .iter()
        .map(|d| &d.name)
        .filter(|n| !content.documents.contains_key(*n));
    let left = left.cloned().collect();
    let accounts = match query.accounts {
        true if query.dry_run => content.accounts.len(),
        true => state.accounts.import(&content.accounts)?,
        false => 0,
    };
    Ok(Answer {
        written: !query.dry_run,
        changed,
        left,
        accounts,
    })
}
