//! Credentials of the documents sealed anew, when the master key has changed.

use std::sync::Arc;

use axum::extract::State;
use axum::http::HeaderMap;
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::Deserialize;
use tollgate_policy::Kind;

use super::emergency::optional;
use super::extract::Body;
use super::guard::Trail;
use super::publish::{Published, author, make};
use super::{ApiError, AppState};
use crate::config::{Change, Edit, Expected, instance_of, resealed};

/// How credentials are sealed anew.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "Reseal")]
pub(super) struct Wanted {
    /// Stands in the new version.
    #[serde(default)]
    message: String,
    /// Also if an instance cannot open them then: it goes on with the documents that it has, until it can.
    #[serde(default)]
    force: bool,
}

/// Publishes the documents with every credential that another master key has sealed sealed by this instance's, as a new
/// version; nothing if there is none. Refused while an instance says that it does not open what this key seals.
pub(super) async fn reseal(
    State(state): State<AppState>,
    Extension(trail): Extension<Trail>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Json<Published>, ApiError> {
    let wanted: Wanted = optional(&body)?;
    let key = state.sealer.key.names().0;
    let members = state.naming.members();
    let lacking: Vec<&str> = members
        .others
        .iter()
        .filter(|other| !other.keys.contains(&key))
        .map(|other| other.instance.as_str())
        .collect();
    if !wanted.force && !lacking.is_empty() {
        return Err(ApiError::conflict(format!(
            "the new key does not open there: {}; bring it to them and restart their daemons and nginx first",
            lacking.join(", ")
        )));
    }
    let unknown = match &members.failure {
        Some(failure) => Some(failure.as_str()),
        None if state.nacos.is_some() && !members.heard => Some("it has only just started"),
        None => None,
    };
    if let Some(why) = unknown.filter(|_| !wanted.force) {
        return Err(ApiError::conflict(format!(
            "this instance does not know whether the others have the key: {why}"
        )));
    }
    let set = Arc::clone(&state.status().documents);
    let mut edits = Vec::new();
    for document in &set.documents {
        let holds = Kind::from_file_name(&document.name).is_some_and(Kind::holds_secrets);
        if !holds && instance_of(&document.name).is_none() {
            continue;
        }
        let alone = state.sealer.key.alone();
        let sealed = resealed(&document.bytes, &state.sealer.key, &alone)
            .map_err(|e| ApiError::conflict(format!("{}: {e}", document.name)))?;
        if let Some(bytes) = sealed {
            edits.push(Edit {
                name: document.name.clone(),
                bytes: Some(bytes.into()),
                expected: Expected::Exactly(document.etag.clone()),
            });
        }
    }
    if edits.is_empty() {
        trail.nothing();
        return Ok(Json(Published::nothing(&state.status())));
    }
    let message = match wanted.message.as_str() {
        "" => "credentials sealed by the new master key".to_owned(),
        message => message.to_owned(),
    };
    let change = Change {
        author: author(&headers, &trail)?,
        message,
        edits,
    };
    make(&state, &trail, &set, change, false).await
}
