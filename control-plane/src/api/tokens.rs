//! API tokens. Everybody has their own; those of others need a permission.

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;

use super::accounts::blocking;
use super::extract::{Body, Path, Query};
use super::guard::Trail;
use super::session::decoded;
use super::{ApiError, AppState};
use crate::accounts::{Action, NewToken, Principal, Resource, TokenView, Via};

/// Tokens.
#[derive(Serialize, JsonSchema)]
pub(super) struct TokenList {
    items: Vec<TokenView>,
}

/// A new token.
#[derive(Serialize, JsonSchema)]
pub(super) struct CreatedToken {
    #[serde(flatten)]
    view: TokenView,
    /// The token itself; nobody can show it again.
    token: String,
}

/// Whose tokens.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Whose {
    /// An account's, `*` for all; one's own by default.
    account: Option<String>,
}

fn may(who: &Principal, account: &str, action: Action) -> Result<(), ApiError> {
    if who.name == account || (who.may(Resource::Tokens, action) && !who.is_limited()) {
        Ok(())
    } else {
        Err(ApiError::forbidden(format!("needs tokens:{}", action.name())))
    }
}

/// Tokens.
pub(super) async fn list(
    State(state): State<AppState>,
    Extension(who): Extension<Principal>,
    Query(whose): Query<Whose>,
) -> Result<Json<TokenList>, ApiError> {
    let account = whose.account.unwrap_or_else(|| who.name.clone());
    may(&who, &account, Action::Read)?;
    blocking(&state, move |accounts| {
        let of = (account != "*").then_some(account.as_str());
        Ok(Json(TokenList {
            items: accounts.tokens(of)?,
        }))
    })
    .await
}

/// Makes a token of one's own.
pub(super) async fn create(
    State(state): State<AppState>,
    Extension(who): Extension<Principal>,
    Extension(trail): Extension<Trail>,
    Body(body): Body,
) -> Result<(StatusCode, Json<CreatedToken>), ApiError> {
    let wanted: NewToken = decoded(&body)?;
    if who.via == Via::BreakGlass {
        return Err(ApiError::conflict(
            "the daemon's own token has no account; sign in with one",
        ));
    }
    let (view, token) = blocking(&state, move |accounts| Ok(accounts.create_token(&who, &wanted)?)).await?;
    trail.target(view.id.clone());
    trail.changed(None, Some(json!(view)));
    Ok((StatusCode::CREATED, Json(CreatedToken { view, token })))
}

/// Revokes a token.
pub(super) async fn revoke(
    State(state): State<AppState>,
    Extension(who): Extension<Principal>,
    Extension(trail): Extension<Trail>,
    Path(id): Path<String>,
) -> Result<StatusCode, ApiError> {
    trail.target(id.clone());
    let before = blocking(&state, move |accounts| {
        let token = accounts.token(&id)?;
        may(&who, &token.account, Action::Delete)?;
        accounts.revoke(&id)?;
        Ok(token)
    })
    .await?;
    trail.changed(Some(json!(before)), None);
    Ok(StatusCode::NO_CONTENT)
}
