//! Accounts. Nobody can give what they do not have: an account's roles and channels are within those of its maker, and
//! only whoever may do all that it may can change it.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::extract::{Body, Path};
use super::guard::Trail;
use super::session::{decoded, hashing};
use super::{ApiError, AppState};
use crate::accounts::{AccountChange, AccountView, Accounts, NewAccount, Principal};

/// All accounts.
#[derive(Serialize, JsonSchema)]
pub(super) struct AccountList {
    items: Vec<AccountView>,
}

/// A new account.
#[derive(Serialize, JsonSchema)]
pub(super) struct CreatedAccount {
    #[serde(flatten)]
    account: AccountView,
    /// Its password if that was made up; nobody can show it again.
    password: Option<String>,
}

/// A password that was set.
#[derive(Serialize, JsonSchema)]
pub(super) struct SetPassword {
    /// The password if it was made up; nobody can show it again.
    password: Option<String>,
}

/// Runs something that may wait for the store.
pub(super) async fn blocking<T: Send + 'static>(
    state: &AppState,
    work: impl FnOnce(&Accounts) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let accounts = state.accounts.clone();
    tokio::task::spawn_blocking(move || work(&accounts)).await?
}

/// Whether somebody may do all that these roles allow.
fn may_give(accounts: &Accounts, who: &Principal, roles: &[String]) -> Result<(), ApiError> {
    for name in roles {
        // A role that is not there is found by validation.
        let Ok(role) = accounts.role(name) else {
            continue;
        };
        if !who.permissions.cover(&role.permissions) {
            return Err(ApiError::forbidden(format!(
                "the role `{name}` allows more than you may do yourself"
            )));
        }
    }
    Ok(())
}

fn shown(account: &AccountView) -> Value {
    json!(account)
}

/// All accounts.
pub(super) async fn list(State(state): State<AppState>) -> Result<Json<AccountList>, ApiError> {
    blocking(&state, |accounts| {
        Ok(Json(AccountList {
            items: accounts.list()?,
        }))
    })
    .await
}

/// One account.
pub(super) async fn one(
    State(state): State<AppState>,
    Path(name): Path<String>,
) -> Result<Response, ApiError> {
    let account = blocking(&state, move |accounts| Ok(accounts.one(&name)?)).await?;
    Ok(with_etag(account))
}

fn with_etag(account: AccountView) -> Response {
    let etag = format!("\"{}\"", account.etag);
    ([(header::ETAG, etag)], Json(account)).into_response()
}

/// Makes an account.
pub(super) async fn create(
    State(state): State<AppState>,
    Extension(who): Extension<Principal>,
    Extension(trail): Extension<Trail>,
    Body(body): Body,
) -> Result<(StatusCode, Json<CreatedAccount>), ApiError> {
    let wanted: NewAccount = decoded(&body)?;
    trail.target(wanted.name.chars().take(64).collect::<String>());
    let roles = wanted.roles.clone();
    blocking(&state, move |accounts| may_give(accounts, &who, &roles)).await?;
    let accounts = state.accounts.clone();
    let (account, password) = hashing(move || accounts.create(wanted)).await?;
    trail.target(account.name.clone());
    trail.changed(None, Some(shown(&account)));
    Ok((StatusCode::CREATED, Json(CreatedAccount { account, password })))
}

/// Changes an account.
pub(super) async fn change(
    State(state): State<AppState>,
    Extension(who): Extension<Principal>,
    Extension(trail): Extension<Trail>,
    Path(name): Path<String>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<Response, ApiError> {
    let wanted: AccountChange = decoded(&body)?;
    trail.target(name.clone());
    let known = headers.get(header::IF_MATCH).and_then(|v| v.to_str().ok());
    let known = known
        .map(|v| v.trim().trim_matches('"').to_owned())
        .filter(|v| v != "*");
    let (before, after) = blocking(&state, move |accounts| {
        let before = accounts.one(&name)?;
        may_give(accounts, &who, &before.roles)?;
        may_give(accounts, &who, wanted.roles.as_deref().unwrap_or_default())?;
        match accounts.change(&name, known.as_deref(), &wanted) {
            Ok(after) => Ok((before, after)),
            Err(crate::accounts::AccountsError::Changed) => {
                let now = json!(accounts.one(&name)?);
                let sent = json!({
                    "display_name": wanted.display_name, "roles": wanted.roles,
                    "channels": wanted.channels, "enabled": wanted.enabled,
                });
                let mut diff = crate::audit::changes(&now, &sent);
                diff.retain(|c| c.to.as_ref().is_some_and(|to| !to.is_null()));
                Err(ApiError::edited("the account was changed meanwhile", now, diff))
            }
            Err(error) => Err(error.into()),
        }
    })
    .await?;
    trail.changed(Some(shown(&before)), Some(shown(&after)));
    Ok(with_etag(after))
}

/// Removes an account.
pub(super) async fn remove(
    State(state): State<AppState>,
    Extension(who): Extension<Principal>,
    Extension(trail): Extension<Trail>,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    trail.target(name.clone());
    let before = blocking(&state, move |accounts| {
        let before = accounts.one(&name)?;
        may_give(accounts, &who, &before.roles)?;
        accounts.remove(&name)?;
        Ok(before)
    })
    .await?;
    trail.changed(Some(shown(&before)), None);
    Ok(StatusCode::NO_CONTENT)
}

/// A new password for somebody else.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Reset {
    /// The password; one is made up if there is none.
    password: Option<String>,
}

/// Gives an account another password, and ends its sessions.
pub(super) async fn reset(
    State(state): State<AppState>,
    Extension(who): Extension<Principal>,
    Extension(trail): Extension<Trail>,
    Path(name): Path<String>,
    Body(body): Body,
) -> Result<Json<SetPassword>, ApiError> {
    let wanted: Reset = if body.is_empty() {
        Reset { password: None }
    } else {
        decoded(&body)?
    };
    trail.target(name.clone());
    let of = name.clone();
    blocking(&state, move |accounts| {
        may_give(accounts, &who, &accounts.one(&of)?.roles)
    })
    .await?;
    let accounts = state.accounts.clone();
    let password = hashing(move || accounts.reset_password(&name, wanted.password.as_deref())).await?;
    trail.changed(None, Some(json!({ "password": "reset" })));
    Ok(Json(SetPassword { password }))
}

/// Ends all sessions of an account.
pub(super) async fn end_sessions(
    State(state): State<AppState>,
    Extension(trail): Extension<Trail>,
    Path(name): Path<String>,
) -> Result<StatusCode, ApiError> {
    trail.target(name.clone());
    blocking(&state, move |accounts| Ok(accounts.end_sessions(&name)?)).await?;
    Ok(StatusCode::NO_CONTENT)
}
