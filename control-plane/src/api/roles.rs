//! Roles.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::accounts::blocking;
use super::extract::{Body, Path};
use super::guard::Trail;
use super::session::decoded;
use super::{ApiError, AppState};
use crate::accounts::{Permissions, Principal, Role, Wanted};

/// All roles.
#[derive(Serialize, JsonSchema)]
pub(super) struct RoleList {
    items: Vec<Role>,
}

/// A role that is asked for.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewRole {
    /// Its name; where the path has it, it may be left out.
    #[serde(default)]
    name: String,
    /// What it is for.
    #[serde(default)]
    description: String,
    /// Actions by resource; `*` is all of either.
    permissions: Wanted,
}

/// All roles, those first that the program brings.
pub(super) async fn list(State(state): State<AppState>) -> Result<Json<RoleList>, ApiError> {
    blocking(&state, |accounts| {
        Ok(Json(RoleList {
            items: accounts.roles()?,
        }))
    })
    .await
}

/// One role.
pub(super) async fn one(
    State(state): State<AppState>,
    Path(name): Path<String>,
) -> Result<Json<Role>, ApiError> {
    blocking(&state, move |accounts| Ok(Json(accounts.role(&name)?))).await
}

async fn put(
    state: &AppState,
    who: Principal,
    trail: &Trail,
    role: NewRole,
    is_new: bool,
) -> Result<Role, ApiError> {
    // Nobody can give what they do not have.
    if let Ok(wanted) = Permissions::parse(&role.permissions)
        && !who.permissions.cover(&wanted)
    {
        return Err(ApiError::forbidden(
            "the role would allow more than you may do yourself",
        ));
    }
    trail.target(role.name.chars().take(64).collect::<String>());
    let (before, after) = blocking(state, move |accounts| {
        let before = accounts.role(&role.name).ok();
        Ok((
            before,
            accounts.put_role(&role.name, &role.description, &role.permissions, is_new)?,
        ))
    })
    .await?;
    trail.changed(before.map(|r| json!(r)), Some(json!(after)));
    Ok(after)
}

/// Makes a role.
pub(super) async fn create(
    State(state): State<AppState>,
    Extension(who): Extension<Principal>,
    Extension(trail): Extension<Trail>,
    Body(body): Body,
) -> Result<(StatusCode, Json<Role>), ApiError> {
    let role = put(&state, who, &trail, decoded(&body)?, true).await?;
    Ok((StatusCode::CREATED, Json(role)))
}

/// Replaces a role.
pub(super) async fn replace(
    State(state): State<AppState>,
    Extension(who): Extension<Principal>,
    Extension(trail): Extension<Trail>,
    Path(name): Path<String>,
    Body(body): Body,
) -> Result<Json<Role>, ApiError> {
    let wanted: NewRole = decoded(&body)?;
    put(&state, who, &trail, NewRole { name, ..wanted }, false)
        .await
        .map(Json)
}

/// Removes a role.
pub(super) async fn remove(
    State(state): State<AppState>,
    Extension(trail): Extension<Trail>,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    trail.target(name.clone());
    let before = blocking(&state, move |accounts| {
        let before = accounts.role(&name)?;
        accounts.remove_role(&name)?;
        Ok(before)
    })
    .await?;
    trail.changed(Some(json!(before)), None);
    Ok(StatusCode::NO_CONTENT)
}
