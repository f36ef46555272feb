//! Signing in at an identity provider: the browser is sent there, and comes back with a code.

use axum::Extension;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tollgate_policy::documents::Oidc;

use super::extract::Query;
use super::guard::{Trail, cookie_named};
use super::session::{session_cookie_for, text_cookie};
use super::{ApiError, AppState};
use crate::oidc::OidcError;

/// The cookie of a browser that is at the provider.
const COOKIE: &str = "tollgate_oidc";
/// How long it may be there, seconds.
const PATIENCE_S: u64 = 600;

/// How one can sign in.
#[derive(Serialize, JsonSchema)]
pub(super) struct SignInWays {
    /// With a name and a password.
    password: bool,
    /// At an identity provider, by `/oidc/login`; null if there is none.
    oidc: Option<OidcWay>,
}

/// An identity provider.
#[derive(Serialize, JsonSchema)]
struct OidcWay {
    /// What to call it.
    label: String,
    /// Where to send the browser.
    path: &'static str,
}

/// Where to go afterwards.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Begin {
    /// A place in the dashboard; its first page by default.
    #[serde(default)]
    back: String,
}

/// What the provider says.
#[derive(Deserialize, JsonSchema)]
pub(super) struct Returned {
    /// What the browser was sent there with.
    #[serde(default)]
    state: String,
    /// To be exchanged for who it is.
    code: Option<String>,
    /// Why there is none.
    error: Option<String>,
}

/// Ways to sign in, for the page that asks.
pub(super) async fn ways(State(state): State<AppState>) -> axum::Json<SignInWays> {
    let settings = state.status();
    let oidc = settings.settings.api.oidc.as_ref().map(|oidc| OidcWay {
        label: oidc.label.clone(),
        path: "/api/v1/oidc/login",
    });
    axum::Json(SignInWays { password: true, oidc })
}

fn settings(state: &AppState) -> Result<Oidc, ApiError> {
    let status = state.status();
    let oidc = status.settings.api.oidc.clone();
    oidc.ok_or_else(|| ApiError::not_found("there is no identity provider; see `api.oidc` of the settings"))
}

impl From<OidcError> for ApiError {
    fn from(error: OidcError) -> ApiError {
        match error {
            OidcError::Provider(_) => {
                tracing::error!(%error, "a sign-in");
                ApiError::unavailable(error.to_string())
            }
            OidcError::Refused(_) => {
                tracing::warn!(%error, "a sign-in");
                ApiError::forbidden(error.to_string())
            }
            OidcError::Unknown | OidcError::NotMapped(_) => ApiError::forbidden(error.to_string()),
            OidcError::Accounts(crate::accounts::AccountsError::Refused) => {
                ApiError::forbidden("the account is disabled, or belongs to somebody else of that name")
            }
            OidcError::Accounts(error) => error.into(),
        }
    }
}

/// A place of ours: nobody is sent elsewhere.
fn place(back: &str) -> &str {
    let ours = back.starts_with('/')
        && !back.starts_with("//")
        && back.len() <= 512
        && back.bytes().all(|b| b.is_ascii_graphic() && b != b'\\');
    if ours { back } else { "/" }
}

/// What the dashboard's first page is told of it.
fn name_of(error: &OidcError) -> &'static str {
    match error {
        OidcError::Provider(_) => "provider",
        OidcError::Refused(_) => "refused",
        OidcError::Unknown => "expired",
        OidcError::NotMapped(_) => "no_role",
        OidcError::Accounts(_) => "account",
    }
}

/// A problem. A browser, which would show it as it stands, is sent on to the page that asks for a name, which says it in
/// words; the status stays.
fn failed(error: OidcError, headers: &HeaderMap) -> Response {
    let name = name_of(&error);
    let problem = ApiError::from(error).into_response();
    let accepts = headers.get(header::ACCEPT).and_then(|v| v.to_str().ok());
    if !accepts.is_some_and(|types| types.contains("text/html")) {
        return problem;
    }
    let page = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><title>Tollgate</title>\
         <meta http-equiv=\"refresh\" content=\"0; url=/?sign_in={name}\">\
         <a href=\"/?sign_in={name}\">The sign-in failed.</a></html>"
    );
    let head = [(header::CACHE_CONTROL, "no-store")];
    (problem.status(), head, Html(page)).into_response()
}

fn sent(to: &str, cookies: &[HeaderValue]) -> Result<Response, ApiError> {
    let to = HeaderValue::from_str(to).map_err(ApiError::internal)?;
    let mut response = (StatusCode::SEE_OTHER, [(header::LOCATION, to)]).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    for cookie in cookies {
        headers.append(header::SET_COOKIE, cookie.clone());
    }
    Ok(response)
}

/// Sends the browser to the provider.
pub(super) async fn begin(
    State(state): State<AppState>,
    Query(wanted): Query<Begin>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let settings = settings(&state)?;
    let back = place(&wanted.back).to_owned();
    let sign_ins = state.sign_ins.clone();
    let begun = tokio::task::spawn_blocking(move || sign_ins.begin(&settings, &back)).await?;
    let begun = match begun {
        Ok(begun) => begun,
        Err(error) => return Ok(failed(error, &headers)),
    };
    // Lax: the provider sends the browser back from another site.
    let cookie = text_cookie(&state, &headers, (COOKIE, &begun.cookie), ("Lax", PATIENCE_S))?;
    sent(&begun.url, &[cookie])
}

/// Signs in whom the provider vouches for.
pub(super) async fn finish(
    State(state): State<AppState>,
    Extension(trail): Extension<Trail>,
    Query(returned): Query<Returned>,
    request: Request,
) -> Result<Response, ApiError> {
    let headers = request.headers().clone();
    let settings = settings(&state)?;
    let cookie = cookie_named(&headers, COOKIE).unwrap_or_default().to_owned();
    let sign_ins = state.sign_ins.clone();
    let finished = tokio::task::spawn_blocking(move || {
        let proof = (returned.state.as_str(), cookie.as_str());
        match returned.code {
            Some(code) => sign_ins.finish(&settings, proof, code),
            None => {
                sign_ins.drop_pending(proof.0, proof.1)?;
                let why: String = returned.error.unwrap_or_default().chars().take(100).collect();
                Err(OidcError::Refused(format!(
                    "the provider says `{}`",
                    why.escape_default()
                )))
            }
        }
    })
    .await?;
    let (signed_in, back) = match finished {
        Ok(found) => found,
        Err(error) => {
            trail.refused(error.to_string());
            return Ok(failed(error, &headers));
        }
    };
    trail.actor(signed_in.principal.name.clone());
    let session = session_cookie_for(&state, &headers, &signed_in)?;
    let gone = text_cookie(&state, &headers, (COOKIE, ""), ("Lax", 0))?;
    sent(place(&back), &[session, gone])
}

#[cfg(test)]
mod tests {
    use super::place;

    #[test]
    fn nobody_is_sent_elsewhere() {
        for ours in ["/", "/channels?search=x#y", "/models/gpt-4o"] {
            assert_eq!(place(ours), ours);
        }
        for theirs in [
            "",
            "https://evil.example",
            "//evil.example",
            "/\\evil.example",
            "javascript:x",
            "/a\r\nb",
        ] {
            assert_eq!(place(theirs), "/", "{theirs:?}");
        }
    }
}
