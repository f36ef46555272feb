//! Signing in and out.

use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::Semaphore;

use super::guard::{COOKIE, Trail, address_of, identify};
use super::{ApiError, AppState};
use crate::accounts::{ABSOLUTE_MS, Permissions, Principal, SignedIn, Via};

/// Passwords that are hashed at a time: each takes 20 ms of a core and 19 MiB.
static HASHING: Semaphore = Semaphore::const_new(2);

/// Runs something that hashes a password.
pub(super) async fn hashing<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, crate::accounts::AccountsError> + Send + 'static,
) -> Result<T, ApiError> {
    let _turn = HASHING.acquire().await.map_err(ApiError::internal)?;
    Ok(tokio::task::spawn_blocking(work).await??)
}

/// JSON of a type, or what is wrong with it.
pub(super) fn decoded<T: serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    use super::error::FieldProblem;
    // To serde, a list of its fields' values is a struct as well.
    if body.trim_ascii_start().first() == Some(&b'[') {
        return Err(ApiError::bad_request("the body is a list; expected an object"));
    }
    serde_json::from_slice(body).map_err(|error| match error.classify() {
        // The value is not repeated: it may be a password.
        serde_json::error::Category::Data => {
            let text = error.to_string();
            let reason = text
                .rsplit_once(" at line ")
                .map_or(text.as_str(), |(reason, _)| reason);
            let field = reason.split('`').nth(1).unwrap_or_default();
            let told = if reason.starts_with("invalid") {
                "has the wrong type"
            } else {
                reason
            };
            ApiError::invalid_fields(vec![FieldProblem::at(field, told)])
        }
        _ => ApiError::bad_request("the body is not JSON"),
    })
}

fn too_long() -> ApiError {
    ApiError::too_large("the body is longer than this route takes")
}

/// Who signs in.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Login {
    /// Name of the account.
    name: String,
    /// Its password.
    password: String,
}

/// Somebody's account, as far as it concerns them.
#[derive(Serialize, JsonSchema)]
pub(super) struct Me {
    name: String,
    display_name: String,
    roles: Vec<String>,
    /// Globs of the channels that they may see and change.
    channels: Vec<String>,
    /// Whether somebody else knows their password.
    must_change_password: bool,
}

/// Who is signed in.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "SignedIn")]
pub(super) struct Session {
    /// Whether anybody is; the other fields are null if not.
    signed_in: bool,
    account: Option<Me>,
    /// How they proved it.
    #[schemars(extend("enum" = ["session", "token", "break_glass", null]))]
    via: Option<&'static str>,
    /// What changing requests must repeat as `X-CSRF-Token`; null unless via session.
    csrf: Option<String>,
    /// When the session ends unless it is used, Unix milliseconds.
    expires_at_ms: Option<u64>,
    /// What they may do.
    permissions: Option<Permissions>,
}

impl Session {
    fn of(who: Option<&Principal>) -> Session {
        let (csrf, expires_at_ms) = match who.map(|w| &w.via) {
            Some(Via::Session {
                csrf, expires_at_ms, ..
            }) => (Some(csrf.clone()), Some(*expires_at_ms)),
            _ => (None, None),
        };
        Session {
            signed_in: who.is_some(),
            account: who.map(|w| Me {
                name: w.name.clone(),
                display_name: w.display_name.clone(),
                roles: w.roles.clone(),
                channels: w.shown_channels(),
                must_change_password: w.must_change_password,
            }),
            via: who.map(|w| w.via.name()),
            csrf,
            expires_at_ms,
            permissions: who.map(|w| w.permissions.clone()),
        }
    }
}

/// A cookie of this name and content, for these requests of other sites and so many seconds.
pub(super) fn text_cookie(
    state: &AppState,
    headers: &HeaderMap,
    (name, value): (&str, &str),
    (same_site, max_age_s): (&str, u64),
) -> Result<HeaderValue, ApiError> {
    // A proxy that ends TLS says so; anybody else who says so only keeps themselves from signing in.
    let forwarded = headers.get("x-forwarded-proto").is_some_and(|v| v == "https");
    let secure = if state.secure_cookies || forwarded {
        "; Secure"
    } else {
        ""
    };
    let text = format!("{name}={value}; Path=/; HttpOnly; SameSite={same_site}; Max-Age={max_age_s}{secure}");
    HeaderValue::from_str(&text).map_err(ApiError::internal)
}

/// The cookie of a session that was opened.
pub(super) fn session_cookie_for(
    state: &AppState,
    headers: &HeaderMap,
    signed_in: &SignedIn,
) -> Result<HeaderValue, ApiError> {
    let kept = (COOKIE, signed_in.secret.as_str());
    text_cookie(state, headers, kept, ("Strict", ABSOLUTE_MS / 1_000))
}

/// Signs somebody in.
pub(super) async fn login(
    State(state): State<AppState>,
    Extension(trail): Extension<Trail>,
    request: Request,
) -> Result<Response, ApiError> {
    let address = address_of(request.extensions());
    let headers = request.headers().clone();
    let body = axum::body::to_bytes(request.into_body(), 8 << 10).await;
    let body = body.map_err(|_| too_long())?;
    let login: Login = decoded(&body)?;
    trail.actor(login.name.chars().take(64).collect::<String>());
    let accounts = state.accounts.clone();
    let signed_in = hashing(move || accounts.sign_in(&login.name, &login.password, &address)).await?;
    let mut response = Json(Session::of(Some(&signed_in.principal))).into_response();
    let cookie = session_cookie_for(&state, &headers, &signed_in)?;
    response.headers_mut().insert(header::SET_COOKIE, cookie);
    response
        .headers_mut()
        .insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

/// Says who is signed in.
pub(super) async fn read(State(state): State<AppState>, headers: HeaderMap) -> Result<Response, ApiError> {
    let who = identify(&state, &headers).await?;
    let no_store = [(header::CACHE_CONTROL, "no-store")];
    Ok((no_store, Json(Session::of(who.as_ref()))).into_response())
}

/// Ends the session.
pub(super) async fn logout(
    State(state): State<AppState>,
    Extension(who): Extension<Principal>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    if let Via::Session { key, .. } = who.via {
        let accounts = state.accounts.clone();
        tokio::task::spawn_blocking(move || accounts.sign_out(&key)).await??;
    }
    let gone = text_cookie(&state, &headers, (COOKIE, ""), ("Strict", 0))?;
    Ok((StatusCode::NO_CONTENT, [(header::SET_COOKIE, gone)]).into_response())
}

/// A new password of one's own.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewPassword {
    /// The present one.
    current: String,
    /// At least 10 characters.
    new: String,
}

/// Changes one's own password.
pub(super) async fn password(
    State(state): State<AppState>,
    Extension(who): Extension<Principal>,
    Extension(trail): Extension<Trail>,
    request: Request,
) -> Result<StatusCode, ApiError> {
    let address = address_of(request.extensions());
    let body = axum::body::to_bytes(request.into_body(), 8 << 10).await;
    let wanted: NewPassword = decoded(&body.map_err(|_| too_long())?)?;
    if who.via == Via::BreakGlass {
        return Err(ApiError::conflict(
            "the daemon's own token has no password; name an account",
        ));
    }
    trail.target(who.name.clone());
    let accounts = state.accounts.clone();
    let changed =
        hashing(move || accounts.change_password(&who, &address, &wanted.current, &wanted.new)).await;
    // Whoever is signed in stays so: 401 would make a browser ask for the login again.
    changed.map_err(|error| match error.status() {
        401 => ApiError::invalid_fields(vec![super::error::FieldProblem::at(
            "current",
            "is not the present password",
        )]),
        _ => error,
    })?;
    Ok(StatusCode::NO_CONTENT)
}
