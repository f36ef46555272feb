//! One attempt at a deployment: where it goes, whether the head that comes back is taken, and what its end says of the
//! deployment.

use std::borrow::Cow;
use std::net::SocketAddr;
use std::rc::Rc;

use tollgate_policy::hash_name;
use tollgate_policy::snapshot::{ConnectionsView, DeploymentView};
use tollgate_shm::{DeploymentIndex, Failure, Region};

use super::context::Context;
use super::pool::{Pool, clear_tried};
use super::response::Response;
use super::upstream::{Security, Upstream};
use super::worker::{Generation, WorkerState};
use crate::ngx::log;
use crate::ngx::process;

/// Longest error answer that is passed on, bytes. Errors are a few lines; what is longer is no API's.
pub(super) const MOST_ERROR: u64 = 1 << 20;

/// Where an attempt goes.
pub(crate) struct Target<'a> {
    /// What connections and TLS sessions may be shared by: deployment, address, TLS name and trust, credential.
    pub key: u64,
    /// Of the deployment: keys whose deployment is gone are forgotten.
    pub owner: u64,
    pub address: SocketAddr,
    /// `None`: plain HTTP.
    pub tls: Option<TargetTls<'a>>,
    /// For nginx's messages; as long-lived as the snapshot.
    pub name: &'a str,
    pub connections: ConnectionsView,
}

/// How a target is spoken to over TLS; as long-lived as the generation.
pub(crate) struct TargetTls<'a> {
    /// For SNI and verification.
    pub name: &'a str,
    pub security: &'a Security,
}

/// What connections of a deployment at an address may be shared by.
fn key(deployment: &DeploymentView<'_>, identity: u64, address: SocketAddr) -> u64 {
    let (ip, port) = match address {
        SocketAddr::V4(a) => (a.ip().to_ipv6_mapped(), a.port()),
        SocketAddr::V6(a) => (*a.ip(), a.port()),
    };
    let mut bytes = [0; 34];
    let parts = [
        &hash_name(deployment.id().as_bytes()).to_le_bytes()[..],
        &identity.to_le_bytes(),
        &ip.octets(),
        &port.to_le_bytes(),
    ];
    let mut at = 0;
    for part in parts {
        if let Some(to) = bytes.get_mut(at..at + part.len()) {
            to.copy_from_slice(part);
        }
        at += part.len();
    }
    hash_name(&bytes)
}

/// Where the next attempt goes.
pub(crate) fn target(context: &mut Context) -> Option<Target<'_>> {
    let attempt = usize::from(context.attempts);
    context.attempts = context.attempts.saturating_add(1);
    context.proxied = true;
    let deployment = context.deployment_view()?;
    let provider = deployment.provider()?;
    let upstream = context.upstream.as_deref()?;
    let count = provider.addresses().len().max(1);
    // Requests spread over a name's addresses; a further attempt takes another one.
    let first = usize::try_from(context.id_number[0] >> 32).unwrap_or(0);
    let address = provider.addresses().nth((first + attempt) % count)?;
    let identity = upstream.identity(context.credential);
    Some(Target {
        key: key(&deployment, identity, address),
        owner: hash_name(deployment.id().as_bytes()),
        address,
        tls: provider.tls().then_some(TargetTls {
            name: provider.tls_name(),
            security: &upstream.security,
        }),
        name: deployment.id(),
        connections: upstream.connections,
    })
}

/// Of these connections (key and owner), those that no request of this generation would be given: their deployment,
/// address, credential or trust is gone.
pub(crate) fn outdated(w: &WorkerState, kept: &[(u64, u64)]) -> Vec<u64> {
    let Some(generation) = w.generation() else {
        return Vec::new();
    };
    let region = w.attached.as_ref().map(|a| &*a.region);
    let snapshot = generation.snapshot();
    let mut valid = Vec::new();
    for deployment in snapshot.deployments() {
        let owner = hash_name(deployment.id().as_bytes());
        if !kept.iter().any(|(_, other)| *other == owner) {
            continue;
        }
        let Some(provider) = deployment.provider().filter(|_| deployment.enabled()) else {
            continue;
        };
        let Ok(upstream) = generation.upstream(&provider, w.master_key.as_ref(), region) else {
            continue;
        };
        for credential in (0u16..).take(upstream.heads.len()) {
            let identity = upstream.identity(credential);
            valid.extend(provider.addresses().map(|a| key(&deployment, identity, a)));
        }
    }
    kept.iter()
        .map(|(key, _)| *key)
        .filter(|key| !valid.contains(key))
        .collect()
}

/// The head of an answer.
pub(crate) struct AnswerHead {
    /// 0: what came is no HTTP.
    pub status: u16,
    /// Length of the body, if the head says it.
    pub length: Option<u64>,
    /// Whether another attempt may follow.
    pub more: bool,
}

/// What becomes of an answer whose head has come.
pub(crate) enum HeadVerdict {
    /// It is the answer.
    Pass,
    /// Another attempt follows.
    Retry,
    /// It is the answer, whatever it says: there is nothing left to try.
    Last,
    /// It is none: another attempt follows, or the client gets a 502.
    Broken(Cow<'static, str>),
}

/// Looks at the head of an answer before anything of it goes anywhere.
pub(crate) fn head_arrived(w: &WorkerState, context: &Context, head: &AnswerHead) -> HeadVerdict {
    match head.status {
        0 => HeadVerdict::Broken("what came is not HTTP".into()),
        101 if context.upgrade => HeadVerdict::Pass,
        100..=199 => HeadVerdict::Broken(format!("an unexpected status {}", head.status).into()),
        // A model API has nothing to say elsewhere, and what it says of other hosts is not the client's to know.
        300..=399 => {
            HeadVerdict::Broken(format!("a redirect ({}), which is not followed", head.status).into())
        }
        401 | 403 if head.more && has_alternative(w, context) => HeadVerdict::Retry,
        400..=599 if head.length.is_some_and(|length| length > MOST_ERROR) => {
            HeadVerdict::Broken(format!("an error page of {} bytes", head.length.unwrap_or(0)).into())
        }
        429 | 500.. if head.more && !has_alternative(w, context) => HeadVerdict::Last,
        _ => HeadVerdict::Pass,
    }
}

/// Whether another credential or deployment could do better than one that is refused.
fn has_alternative(w: &WorkerState, context: &Context) -> bool {
    let Some(region) = w.attached.as_ref().map(|a| &a.region) else {
        return false;
    };
    let now = region.time_at(process::now_ms());
    let other_key = context
        .upstream
        .as_deref()
        .is_some_and(|u| u.has_another(region, context.credential, now));
    let snapshot = context.generation.snapshot();
    let first = context.first_model.and_then(|m| snapshot.model_at(m));
    let own = context
        .channel_view()
        .zip(first)
        .and_then(|(channel, model)| channel.route(model.name()))
        .and_then(|route| route.fallback().map(Iterator::count));
    let stand_ins = own.or(first.map(|model| model.fallback().len())).unwrap_or(0);
    let pool = super::route::pool(context, region).filter(|_| context.pinned.is_none());
    other_key
        || stand_ins > usize::from(context.fallbacks)
        || pool.is_some_and(|pool| pool.has_untried(&context.tried))
}

/// How an attempt at a deployment has ended.
pub(crate) struct Outcome {
    /// nginx calls it failed.
    pub failed: bool,
    /// HTTP status; 0 if no head of an answer came.
    pub status: u16,
    /// The answer's head came and its body broke off.
    pub broken: bool,
    /// A kept connection turned out dead before anything came over it: no fault of the deployment.
    pub stale: bool,
    /// `Retry-After`, seconds.
    pub retry_after_s: Option<u64>,
    /// The client has gone.
    pub gone: bool,
    /// What was wrong, if no answer came.
    pub trouble: Option<(Failure, Cow<'static, str>)>,
    pub address: SocketAddr,
}

/// An attempt begins.
pub(crate) fn attempt_begins(
    w: &WorkerState,
    context: &mut Context,
    reused: bool,
) -> Option<DeploymentIndex> {
    context.attempt_ms = process::now_ms();
    let attached = w.attached.as_ref()?;
    let pool = super::route::pool(context, &attached.region)?;
    // A single deployment's state is shown, never asked.
    let row = pool.members.get(pool.position(context.deployment?)?)?.row?;
    attached.region.begin_attempt(&attached.worker, row, reused);
    Some(row)
}

/// A connection's handshake took up a former session.
pub(crate) fn session_resumed(w: &WorkerState, row: DeploymentIndex) {
    if let Some(attached) = &w.attached {
        attached.region.note_resumed(row);
    }
}

/// A connection of the deployment becomes idle.
pub(crate) fn connection_kept(w: &WorkerState, row: DeploymentIndex) {
    if let Some(attached) = &w.attached {
        attached.region.add_idle(&attached.worker, row);
    }
}

/// An idle connection of the deployment serves again, or is closed.
pub(crate) fn connection_left(w: &WorkerState, row: DeploymentIndex) {
    if let Some(attached) = &w.attached {
        attached.region.remove_idle(&attached.worker, row);
    }
}

/// What an outcome says of the deployment.
enum Word {
    Nothing,
    Worked,
    Failed(Failure, Cow<'static, str>),
}

fn word(context: &Context, pool: &Pool, region: &Region, row: DeploymentIndex, outcome: &Outcome) -> Word {
    let status = || Cow::from(format!("status {}", outcome.status));
    match outcome.status {
        _ if outcome.stale || context.stopped => Word::Nothing,
        429 => Word::Failed(Failure::Full, status()),
        503 if outcome.retry_after_s.is_some() => Word::Failed(Failure::Full, status()),
        500.. => Word::Failed(Failure::Status, status()),
        401 | 403 => Word::Failed(Failure::Refused, status()),
        0 if outcome.gone => Word::Nothing,
        _ if let Some((failure, what)) = &outcome.trouble => Word::Failed(*failure, what.clone()),
        _ if outcome.gone => Word::Worked,
        _ if outcome.broken && !context.cut => {
            Word::Failed(Failure::Malformed, "the answer breaks off".into())
        }
        // A status line had come, and then no end of the head that nginx would take.
        _ if outcome.failed => Word::Failed(
            Failure::Malformed,
            "the answer's head is too long or breaks off".into(),
        ),
        200..=299 if is_not_json(context) => {
            Word::Failed(Failure::Malformed, "the answer says it is JSON and is not".into())
        }
        // With nobody to go to instead, a late answer is better than none.
        _ if pool.has_others()
            && first_byte_us(context).is_some_and(|us| region.note_latency_if_outlier(row, us)) =>
        {
            Word::Failed(Failure::Slow, "an answer far later than usual".into())
        }
        _ => Word::Worked,
    }
}

fn first_byte_us(context: &Context) -> Option<u64> {
    context
        .first_byte_ms
        .map(|at| at.saturating_sub(context.attempt_ms).max(1) * 1_000)
}

fn is_not_json(context: &Context) -> bool {
    matches!(&context.response, Response::Json(json) if json.is_malformed())
}

/// An attempt has ended: what it says of the deployment is known to all workers at once.
pub(crate) fn attempt_ended(w: &WorkerState, context: &mut Context, row: DeploymentIndex, outcome: &Outcome) {
    context.attempt_status = outcome.status;
    context.attempt_failure = outcome.trouble.as_ref().map(|(failure, _)| *failure);
    let Some(attached) = w.attached.as_ref() else {
        return;
    };
    let region = &attached.region;
    region.end_attempt(&attached.worker, row);
    let Some(pool) = super::route::pool(context, region) else {
        return;
    };
    let now = region.time_at(process::now_ms());
    let (failure, what) = match word(context, &pool, region, row, outcome) {
        Word::Nothing => return region.note_nothing(row, now),
        Word::Worked => {
            if region.note_success(row, now, first_byte_us(context)) {
                let id = context.deployment_view().map_or("", |d| d.id());
                log::warn(format_args!(
                    "tollgate: the breaker of the deployment {id:?} closes: it works again"
                ));
            }
            return;
        }
        Word::Failed(failure, what) => (failure, what),
    };
    if matches!(failure, Failure::Full | Failure::Refused) {
        leave_alone(context, &pool, region, row, outcome, now);
    }
    let noted = region.note_failure(row, now, failure, &pool.breaker);
    let id = context.deployment_view().map_or("", |d| d.id());
    let (kind, address) = (failure.name(), outcome.address);
    // Once, and again when it has worked in between: who fails a thousand times a second is not to fill the disk.
    if noted.news {
        log::error(format_args!(
            "tollgate: the deployment {id:?} at {address} fails ({kind}): {what}; more of the same goes unsaid"
        ));
    }
    if noted.opened {
        log::warn(format_args!(
            "tollgate: the breaker of the deployment {id:?} opens after {} failures in a row, the last one: {kind}",
            pool.breaker.failures,
        ));
    }
}

/// A credential that is used up or refused rests; so does the deployment when no other credential is left.
fn leave_alone(
    context: &mut Context,
    pool: &Pool,
    region: &Region,
    row: DeploymentIndex,
    outcome: &Outcome,
    now: u64,
) {
    /// Without a word of the provider.
    const FULL_S: u64 = 5;
    /// Somebody has to give us another key; until then it may be tried once a minute.
    const UNKNOWN_S: u64 = 60;
    /// It may be about what was asked for.
    const FORBIDDEN_S: u64 = 10;
    const MOST_S: u64 = 600;
    let seconds = match outcome.status {
        401 => UNKNOWN_S,
        403 => FORBIDDEN_S,
        _ => outcome.retry_after_s.unwrap_or(FULL_S).clamp(1, MOST_S),
    };
    let until = now + seconds * 1_000;
    if outcome.status == 503 {
        return region.cool_down(row, until);
    }
    let Some(upstream) = context.upstream.clone() else {
        return;
    };
    if let Some(name) = upstream.working(region, context.credential, now) {
        let id = context.deployment_view().map_or("", |d| d.id());
        log::warn(format_args!(
            "tollgate: the credential {name:?} of the provider of {id:?} rests for {seconds} s: status {}",
            outcome.status
        ));
    }
    let soonest_ms = upstream.rest(region, context.credential, now, until);
    if soonest_ms > 0 {
        // A single 403 says nothing for sure.
        if outcome.status != 403 || upstream.heads.len() > 1 {
            region.cool_down(row, now + soonest_ms);
        }
    } else if let Some(position) = context.deployment.and_then(|d| pool.position(d)) {
        // With the next credential it is another deployment, in a manner of speaking.
        clear_tried(&mut context.tried, position);
    }
}

impl Generation {
    /// A provider as this worker uses it; made once per generation.
    pub fn upstream(
        &self,
        provider: &tollgate_policy::ProviderView<'_>,
        key: Option<&super::credentials::MasterKey>,
        region: Option<&Region>,
    ) -> Result<Rc<Upstream>, &'static str> {
        self.upstreams.get(provider.index(), || {
            Upstream::new(provider, key, region, &self.contexts).map(Rc::new)
        })
    }
}
