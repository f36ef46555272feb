//! What stands before every handler: who is it, may they, and what is written down about it.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::extract::connect_info::Connected;
use axum::extract::{ConnectInfo, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::serve::IncomingStream;
use serde_json::Value;
use subtle::ConstantTimeEq;
use tokio::net::TcpListener;

use super::route::{Access, Reach, Rule};
use super::{ApiError, AppState};
use crate::accounts::{Action, Credentials, Principal, Resource, Via};
use crate::audit::{Detail, Entry, Outcome, changes, redacted};

/// The session's cookie.
pub(super) const COOKIE: &str = "tollgate_session";
/// The header in which changing requests of a session repeat its token.
const CSRF: &str = "x-csrf-token";
/// Longest `before` and `after` in the audit log, bytes of JSON.
const MAX_DETAIL: usize = 32 << 10;

/// A rule, and what is needed to apply it.
#[derive(Clone)]
pub(super) struct Guard {
    pub state: AppState,
    pub rule: Rule,
}

/// Where a connection comes from.
#[derive(Clone, Copy, Debug)]
pub struct Peer(pub SocketAddr);

impl Connected<IncomingStream<'_, TcpListener>> for Peer {
    fn connect_info(stream: IncomingStream<'_, TcpListener>) -> Peer {
        Peer(*stream.remote_addr())
    }
}

/// Where a request comes from; empty if there is no socket.
pub(super) fn address_of(extensions: &axum::http::Extensions) -> String {
    extensions
        .get::<ConnectInfo<Peer>>()
        .map(|ConnectInfo(Peer(address))| address.ip().to_canonical().to_string())
        .unwrap_or_default()
}

#[derive(Debug, Default)]
struct Noted {
    target: Option<String>,
    actor: Option<String>,
    reason: Option<String>,
    before: Option<Value>,
    after: Option<Value>,
    nothing: bool,
    because: Option<String>,
}

/// What a handler says about what it has done, for the audit log.
#[derive(Clone, Debug, Default)]
pub(super) struct Trail {
    noted: Arc<Mutex<Noted>>,
    /// Who makes the request, as versions of the configuration name them.
    who: Arc<str>,
    /// Whether that is whoever owns the daemon, who may speak for others.
    owner: bool,
}

impl Trail {
    fn note(&self, change: impl FnOnce(&mut Noted)) {
        change(&mut self.noted.lock().unwrap_or_else(PoisonError::into_inner));
    }

    fn of(who: Option<&Principal>) -> Trail {
        Trail {
            noted: Arc::default(),
            who: who.map_or("", |w| w.name.as_str()).into(),
            owner: who.is_some_and(|w| w.via == Via::BreakGlass),
        }
    }

    /// Who makes the request.
    pub fn who(&self) -> &str {
        &self.who
    }

    /// Whether it is made with the token of the state folder.
    pub fn is_owner(&self) -> bool {
        self.owner
    }

    /// What it is about.
    pub fn target(&self, target: impl Into<String>) {
        let target = target.into();
        self.note(|n| n.target = Some(target));
    }

    /// What there was and what there is; secrets are taken out later.
    pub fn changed(&self, before: Option<Value>, after: Option<Value>) {
        self.note(|n| (n.before, n.after) = (before, after));
    }

    /// Who it was, where the request itself proves it.
    pub fn actor(&self, name: impl Into<String>) {
        let name = name.into();
        self.note(|n| n.actor = Some(name));
    }

    /// Why somebody was not signed in.
    pub fn refused(&self, reason: impl Into<String>) {
        let reason = reason.into();
        self.note(|n| n.reason = Some(reason));
    }

    /// Why it is done, in the words of who does it.
    pub fn because(&self, reason: &str) {
        let reason = reason.trim();
        if !reason.is_empty() {
            let reason = reason.to_owned();
            self.note(|n| n.because = Some(reason));
        }
    }

    /// What a version of the configuration says that this makes.
    pub fn message(&self, deed: String) -> String {
        let noted = self.noted.lock().unwrap_or_else(PoisonError::into_inner);
        match &noted.because {
            Some(reason) => format!("{deed}: {reason}"),
            None => deed,
        }
    }

    /// It only said what would happen.
    pub fn nothing(&self) {
        self.note(|n| n.nothing = true);
    }
}

fn fits(value: Option<Value>) -> Option<Value> {
    let value = redacted(&value?);
    (value.to_string().len() <= MAX_DETAIL).then_some(value)
}

fn detail(noted: &mut Noted) -> Option<Detail> {
    let (before, after) = (noted.before.take(), noted.after.take());
    if before.is_none() && after.is_none() {
        return None;
    }
    let mut diff = changes(
        before.as_ref().unwrap_or(&Value::Null),
        after.as_ref().unwrap_or(&Value::Null),
    );
    diff.retain(|c| {
        [&c.from, &c.to]
            .into_iter()
            .flatten()
            .all(|v| v.to_string().len() <= MAX_DETAIL)
    });
    Some(Detail {
        before: fits(before),
        after: fits(after),
        diff,
    })
}

/// The value of the session's cookie.
pub(super) fn session_cookie(headers: &HeaderMap) -> Option<&str> {
    cookie_named(headers, COOKIE)
}

/// The value of a cookie.
pub(super) fn cookie_named<'h>(headers: &'h HeaderMap, wanted: &str) -> Option<&'h str> {
    let lines = headers
        .get_all(header::COOKIE)
        .iter()
        .filter_map(|v| v.to_str().ok());
    let mut pairs = lines
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='));
    pairs.find(|(name, _)| *name == wanted).map(|(_, value)| value)
}

fn bearer(headers: &HeaderMap) -> Option<&str> {
    let (scheme, token) = headers
        .get(header::AUTHORIZATION)?
        .to_str()
        .ok()?
        .split_at_checked(7)?;
    scheme.eq_ignore_ascii_case("bearer ").then(|| token.trim())
}

/// Who it is; `None` if nobody or somebody unknown.
pub(super) async fn identify(state: &AppState, headers: &HeaderMap) -> Result<Option<Principal>, ApiError> {
    let accounts = state.accounts.clone();
    if let Some(token) = bearer(headers) {
        if state.token.is(token.as_bytes()) {
            return Ok(Some(Principal::break_glass()));
        }
        let token = token.to_owned();
        return Ok(
            tokio::task::spawn_blocking(move || accounts.identify(Credentials::Bearer(&token))).await??,
        );
    }
    let Some(secret) = session_cookie(headers).map(str::to_owned) else {
        return Ok(None);
    };
    Ok(tokio::task::spawn_blocking(move || accounts.identify(Credentials::Session(&secret))).await??)
}

/// Whether they may; if not, why.
fn refusal(rule: &Rule, who: Option<&Principal>, method: &Method, headers: &HeaderMap) -> Option<ApiError> {
    if rule.access == Access::Open {
        return None;
    }
    let Some(who) = who else {
        return Some(ApiError::unauthorized());
    };
    if let Via::Session { csrf, .. } = &who.via
        && !method.is_safe()
    {
        let presented = headers.get(CSRF).map(|v| v.as_bytes()).unwrap_or_default();
        if !bool::from(presented.ct_eq(csrf.as_bytes())) {
            return Some(ApiError::csrf());
        }
    }
    if let Access::May(resource, action) = rule.access
        && !who.may(resource, action)
    {
        return Some(ApiError::forbidden(format!(
            "needs {}:{}",
            resource.name(),
            action.name()
        )));
    }
    if rule.reach == Reach::Everything && who.is_limited() {
        return Some(ApiError::forbidden(
            "concerns all channels, and this account is limited to some",
        ));
    }
    None
}

/// Applies a route's rule to a request, and writes down what came of it.
pub(super) async fn guard(
    State(Guard { state, rule }): State<Guard>,
    mut request: Request,
    next: Next,
) -> Response {
    let who = match rule.access {
        Access::Open => None,
        _ => match identify(&state, request.headers()).await {
            Ok(who) => who,
            Err(error) => return error.into_response(),
        },
    };
    let mut entry = Entry {
        actor: who.as_ref().map(|w| w.name.clone()).unwrap_or_default(),
        via: who.as_ref().map(|w| w.via.name().to_owned()).unwrap_or_default(),
        address: address_of(request.extensions()),
        method: request.method().to_string(),
        path: request.uri().path().chars().take(512).collect(),
        ..Entry::default()
    };
    if let Some((resource, action)) = rule.deed() {
        resource.name().clone_into(&mut entry.resource);
        action.name().clone_into(&mut entry.action);
    }
    if let Some(error) = refusal(&rule, who.as_ref(), request.method(), request.headers()) {
        return denied(&state, entry, error).await;
    }
    let trail = Trail::of(who.as_ref());
    request.extensions_mut().insert(trail.clone());
    if let Some(who) = who {
        request.extensions_mut().insert(who);
    }
    let response = next.run(request).await;
    let mut noted = std::mem::take(&mut *trail.noted.lock().unwrap_or_else(PoisonError::into_inner));
    entry.target = noted.target.take().unwrap_or_default();
    let signs_in = noted.actor.is_some();
    if let Some(actor) = noted.actor.take() {
        entry.target.clone_from(&actor);
        entry.actor = actor;
        Resource::Accounts.name().clone_into(&mut entry.resource);
        "sign_in".clone_into(&mut entry.action);
    }
    if let Some(reason) = noted.reason.take() {
        entry.reason = reason;
        Resource::Accounts.name().clone_into(&mut entry.resource);
        "sign_in".clone_into(&mut entry.action);
    }
    let status = response.status();
    if matches!(
        status,
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::TOO_MANY_REQUESTS
    ) {
        return written(
            &state,
            response,
            Entry {
                outcome: Outcome::Denied,
                ..entry
            },
        )
        .await;
    }
    let changes = rule.deed().is_some_and(|(_, action)| action != Action::Read) && !noted.nothing;
    let outcome = match status {
        s if s.is_success() || s.is_redirection() => Outcome::Ok,
        s if s.is_server_error() => Outcome::Failed,
        // Nothing was changed, and nobody was kept from anything that they are not allowed to.
        _ => return response,
    };
    if !changes && !signs_in {
        return response;
    }
    let entry = Entry {
        outcome,
        detail: detail(&mut noted),
        reason: noted.because.take().unwrap_or_default(),
        ..entry
    };
    written(&state, response, entry).await
}

async fn denied(state: &AppState, entry: Entry, error: ApiError) -> Response {
    let entry = Entry {
        reason: error.detail().to_owned(),
        outcome: Outcome::Denied,
        ..entry
    };
    written(state, error.into_response(), entry).await
}

/// The answer, once the row is on the disk.
async fn written(state: &AppState, response: Response, entry: Entry) -> Response {
    let entry = Entry {
        status: response.status().as_u16(),
        ..entry
    };
    let audit = state.audit.clone();
    let appended = tokio::task::spawn_blocking(move || match entry.outcome {
        Outcome::Denied => audit.denied(entry),
        Outcome::Ok | Outcome::Failed => audit.append(entry).map(drop),
    })
    .await;
    match appended {
        Ok(Ok(())) => response,
        Ok(Err(error)) => ApiError::unrecorded(&error).into_response(),
        Err(error) => ApiError::unrecorded(&error).into_response(),
    }
}
