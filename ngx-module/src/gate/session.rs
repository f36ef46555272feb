//! Sessions: a signed cookie keeps a caller with the deployment that it was balanced to.

use tollgate_policy::documents::SameSite;
use tollgate_policy::session::{SessionCookie, cookie_name};

use super::context::Context;
use super::worker::WorkerState;
use super::{facts, identify, route};
use crate::ngx::log;
use crate::ngx::request::Request;

/// What the caller's cookie says.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) struct Session {
    /// The deployment that it names, by its index; `None` without a cookie of ours, or if that deployment is gone.
    pub home: Option<u32>,
    /// Whether it is good for at least half of its time.
    fresh: bool,
}

/// The caller's session with the request's model. Whatever is not ours is no cookie.
pub(super) fn find(w: &mut WorkerState, request: &Request, context: &Context) -> Option<Session> {
    let Some(signer) = &w.signer else {
        // Once per worker: without its key the daemon's credentials cannot be opened either.
        if !std::mem::replace(&mut w.unsigned, true) {
            log::error(format_args!(
                "tollgate: sessions need the master key to sign their cookies; callers are balanced without them"
            ));
        }
        return None;
    };
    let model = context.model_view()?;
    let now = identify::now_unix();
    let cookie = request
        .header(b"cookie")
        .and_then(|header| facts::cookie(header, &cookie_name(model.name_hash())))
        .and_then(|value| signer.read(model.name(), value, now));
    let Some(cookie) = cookie else {
        return Some(Session::default());
    };
    let pool = route::pool(context, &w.attached.as_ref()?.region)?;
    let half = i64::from(model.routing().session.lifetime_s / 2);
    Some(Session {
        home: pool.marked(cookie.mark, signer, context.generation.snapshot()),
        fresh: i64::from(cookie.ends_unix) - now >= half,
    })
}

/// The value of `Set-Cookie` for an answer with this status, if the caller has to be told where its session is now.
pub(crate) fn session_cookie(w: &WorkerState, context: &Context, status: u16, tls: bool) -> Option<String> {
    let session = context.session?;
    let deployment = context.deployment_view().filter(|_| status < 500)?;
    if session.fresh && session.home == Some(deployment.index()) {
        return None;
    }
    let (signer, model) = (w.signer.as_ref()?, context.model_view()?);
    let of = model.routing().session;
    let ends = identify::now_unix().saturating_add(of.lifetime_s.into());
    let cookie = SessionCookie {
        mark: signer.mark(deployment.id()),
        ends_unix: u32::try_from(ends).unwrap_or(u32::MAX),
    };
    let same_site = match of.same_site {
        SameSite::Lax => "Lax",
        SameSite::Strict => "Strict",
        SameSite::None => "None",
    };
    let secure = if of.secure || tls { "; Secure" } else { "" };
    Some(format!(
        "{}={}; Path=/; Max-Age={}; HttpOnly; SameSite={same_site}{secure}",
        cookie_name(model.name_hash()),
        signer.write(model.name(), cookie),
        of.lifetime_s
    ))
}
