//! Backups: made on demand, looked through, restored.

use std::io;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::extract::{Body, Path, Query};
use super::guard::Trail;
use super::session::decoded;
use super::{ApiError, AppState};
use crate::accounts::{Permissions, Principal};
use crate::backup::{Archive, ArchiveError, BackupFile, Restored, Wish};

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

/// Backups that this instance keeps.
#[derive(Serialize, JsonSchema)]
pub(super) struct BackupList {
    /// Time between two backups that are made by themselves, milliseconds; null if none are.
    every_ms: Option<u64>,
    /// How many of them are kept.
    keep: Option<u32>,
    /// Newest first.
    items: Vec<BackupFile>,
}

impl From<ArchiveError> for ApiError {
    fn from(error: ArchiveError) -> ApiError {
        match error {
            ArchiveError::Format(_) | ArchiveError::Name(_) => ApiError::bad_request(error.to_string()),
            ArchiveError::NoText(_) | ArchiveError::Code => ApiError::conflict(error.to_string()),
            ArchiveError::Invalid(problems) => ApiError::invalid(problems),
            ArchiveError::Put(error) => error.into(),
            ArchiveError::Accounts(error) => error.into(),
            ArchiveError::Unsealed(_) | ArchiveError::Json(_) => ApiError::internal(error),
        }
    }
}

fn file(name: &str, archive: Archive) -> impl IntoResponse + use<> {
    let head = [
        (
            header::CONTENT_DISPOSITION,
            format!("attachment; filename=\"{name}\""),
        ),
        (header::CACHE_CONTROL, "no-store".to_owned()),
    ];
    (head, Json(archive))
}

/// Everything that makes this gateway what it is.
pub(super) async fn make(
    State(state): State<AppState>,
    Extension(trail): Extension<Trail>,
) -> Result<impl IntoResponse, ApiError> {
    let archive = tokio::task::spawn_blocking(move || {
        let documents = Arc::clone(&state.status().documents);
        Archive::make(
            &documents,
            &state.accounts,
            &state.sealer.key,
            state.region.now_ms(),
        )
    })
    .await??;
    trail.changed(
        None,
        Some(json!({ "documents": archive.content.documents.len() })),
    );
    Ok(file("tollgate-backup.json", archive))
}

/// Makes the gateway what it was.
pub(super) async fn restore(
    State(state): State<AppState>,
    Extension(who): Extension<Principal>,
    Extension(trail): Extension<Trail>,
    Query(query): Query<RestoreQuery>,
    Body(body): Body,
) -> Result<Json<Restored>, ApiError> {
    // It can change who may do what, and every limit.
    if !who.permissions.cover(&Permissions::all()) {
        return Err(ApiError::forbidden(
            "only who may do everything can restore a backup",
        ));
    }
    let archive: Archive = decoded(&body)?;
    archive.verify(&state.sealer.key)?;
    if query.dry_run {
        trail.nothing();
    }
    let wish = Wish {
        author: trail.who().to_owned(),
        dry_run: query.dry_run,
        accounts: query.accounts,
    };
    let restored = tokio::task::spawn_blocking(move || {
        let present = Arc::clone(&state.status().documents);
        archive.restore(&*state.source, &present, &state.accounts, &wish)
    })
    .await??;
    trail.changed(None, Some(json!(restored)));
    Ok(Json(restored))
}

/// Backups that were made by themselves.
pub(super) async fn list(State(state): State<AppState>) -> Result<Json<BackupList>, ApiError> {
    let settings = state.status().settings.backup;
    let folder = state.backups.clone();
    let items = tokio::task::spawn_blocking(move || folder.list()).await?;
    Ok(Json(BackupList {
        every_ms: settings.map(|s| s.every.as_millis()),
        keep: settings.map(|s| s.keep),
        items: items.map_err(ApiError::internal)?,
    }))
}

fn missing(name: &str) -> ApiError {
    ApiError::not_found(format!("there is no backup `{name}`"))
}

/// One of them.
pub(super) async fn one(
    State(state): State<AppState>,
    Extension(trail): Extension<Trail>,
    Path(name): Path<String>,
) -> Result<impl IntoResponse, ApiError> {
    trail.target(name.clone());
    let (folder, wanted) = (state.backups.clone(), name.clone());
    let archive = tokio::task::spawn_blocking(move || folder.read(&wanted)).await?;
    match archive {
        Ok(archive) => Ok(file(&name, archive)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Err(missing(&name)),
        Err(error) => Err(ApiError::conflict(format!("`{name}` is damaged: {error}"))),
    }
}

/// Removes one of them.
pub(super) async fn remove(
    State(state): State<AppState>,
    Extension(trail): Extension<Trail>,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    trail.target(name.clone());
    let (folder, wanted) = (state.backups.clone(), name.clone());
    let removed = tokio::task::spawn_blocking(move || folder.remove(&wanted)).await?;
    if removed.map_err(ApiError::internal)? {
        Ok(StatusCode::NO_CONTENT)
    } else {
        Err(missing(&name))
    }
}
