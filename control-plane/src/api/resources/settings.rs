//! The settings: an entry of which there is one, and which has its defaults where there is no document.

use axum::http::HeaderMap;
use serde_json::value::RawValue;

use super::answer::{Item, Written};
use super::index::etag_of;
use super::list::present;
use super::ordered::Json;
use super::plan::{Job, Known};
use super::sort::Sort;
use super::write::{WriteQuery, run, sent};
use crate::accounts::Principal;
use crate::api::guard::Trail;
use crate::api::{ApiError, AppState};

/// What there is if nothing was written.
const NOTHING: &str = "{}";

/// The settings.
pub(in crate::api) async fn read_settings(state: AppState) -> Result<Item, ApiError> {
    let sort = Sort::SETTINGS;
    let index = present(&state, sort).await?;
    Ok(match index.entries.first() {
        Some(entry) => Item::new(&index, entry, &sort),
        None => Item {
            id: sort.one.into(),
            etag: etag_of(NOTHING.as_bytes()),
            document: "tollgate.settings.json".into(),
            index: 0,
            value: RawValue::from_string(NOTHING.into()).map_err(ApiError::internal)?,
        },
    })
}

async fn change(
    (state, _, trail): (AppState, Principal, Trail),
    query: WriteQuery,
    headers: &HeaderMap,
    edit: super::plan::Edit,
) -> Result<Written, ApiError> {
    let sort = Sort::SETTINGS;
    let mut known = Known::from_headers(headers)?;
    let index = present(&state, sort).await?;
    if index.entries.is_empty()
        && [Known::Present, Known::Version(etag_of(NOTHING.as_bytes()))].contains(&known)
    {
        known = Known::Absent;
    }
    run(
        &state,
        &trail,
        Job {
            sort,
            id: sort.one.into(),
            known,
            document: None,
            edit,
            dry_run: query.dry_run,
        },
    )
    .await
}

/// Replaces the settings.
pub(in crate::api) async fn replace_settings(
    context: (AppState, Principal, Trail),
    query: WriteQuery,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Written, ApiError> {
    let value = sent(body)?;
    change(
        context,
        query,
        headers,
        Box::new(move |_| Ok(Some(value.clone()))),
    )
    .await
}

/// Changes some settings.
pub(in crate::api) async fn patch_settings(
    context: (AppState, Principal, Trail),
    query: WriteQuery,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Written, ApiError> {
    let patch = sent(body)?;
    let edit = Box::new(move |present: Option<&Json>| {
        let mut value = present.cloned().unwrap_or(Json::Object(Vec::new()));
        value.merge(&patch);
        Ok(Some(value))
    });
    change(context, query, headers, edit).await
}
