//! Which deployment serves a request, at which address, with which credentials.

use std::net::IpAddr;
use std::num::NonZeroU64;
use std::rc::Rc;

use tollgate_meter::request::{FieldPath, RequestFacts, Scalar, scan};
use tollgate_policy::documents::CredentialKind;
use tollgate_policy::snapshot::AffinityView;
use tollgate_shm::{Demand, Region, Settlement};

use super::context::Context;
use super::facts;
use super::pool::{Pool, Wish, set_tried};
use super::translate::{self, Misfit, Way};
use super::worker::WorkerState;
use crate::ngx::process;
use crate::ngx::request::{PoolText, Request};

/// Picks a deployment that has not been tried for the request and whose provider's quota has room; `None` if none is left.
/// Notes those it looked at as tried.
pub(super) fn choose(w: &mut WorkerState, context: &mut Context) -> Option<u32> {
    let pool = pool(context, &w.attached.as_ref()?.region)?;
    if context.model == context.first_model {
        context.most_attempts = pool.most_attempts(context.pinned.is_some());
    }
    loop {
        let random = w.random();
        let attached = w.attached.as_mut()?;
        let now_ms = attached.region.time_at(process::now_ms());
        let wish = Wish {
            tried: &context.tried,
            api: context.api,
            version: context.version.as_deref(),
            affinity: context.affinity,
            pinned: context.pinned,
            home: context.session.and_then(|s| s.home),
            now_ms,
        };
        let position = pool.choose(&attached.region, &wish, random)?;
        set_tried(&mut context.tried, position);
        let member = pool.members.get(position)?;
        if member.quota.is_empty() {
            return Some(member.index);
        }
        let output = context.grant.map_or(0, |g| g.output);
        let demand = Demand {
            limits: &member.quota,
            counters: member.quota_rows.as_deref(),
            input: context.input,
            input_exact: true,
            output,
            expected_output: output / 4,
            // What was promised to the client is not clamped for one of several providers.
            min_output: output,
            usage: None,
            may_wait: false,
            price: context
                .generation
                .snapshot()
                .deployment(member.index)
                .and_then(|d| d.cost())
                .map_or([0; 2], |cost| cost.rates.most()),
        };
        match attached.region.reserve(&mut attached.worker, now_ms, &demand) {
            Ok(grant) => {
                context.quota = Some(grant.row);
                return Some(member.index);
            }
            Err(refusal) => {
                let known = context.quota_retry_ms.map_or(u64::MAX, NonZeroU64::get);
                context.quota_retry_ms = NonZeroU64::new(known.min(refusal.retry_ms).max(1));
            }
        }
    }
}

/// The deployments of the request's model, as its channel sees them.
pub(super) fn pool(context: &Context, region: &Region) -> Option<Rc<Pool>> {
    match context.route {
        None => context.generation.pool(context.model?, region),
        Some(route) => context.generation.route_pool(route, context.model?, region),
    }
}

/// Gives back what was taken from a provider's quota for an attempt that is not made.
pub(super) fn release_quota(w: &mut WorkerState, context: &mut Context) {
    if let (Some(row), Some(attached)) = (context.quota.take(), w.attached.as_mut()) {
        attached.region.release(&mut attached.worker, row);
    }
}

/// Corrects what the attempt took from its provider's quota.
pub(super) fn settle_quota(w: &mut WorkerState, context: &mut Context, used: Settlement) {
    if let (Some(row), Some(attached)) = (context.quota.take(), w.attached.as_mut()) {
        let now = attached.region.time_at(process::now_ms());
        attached.region.settle(&mut attached.worker, row, now, used);
    }
}

/// 64 even bits of what keeps the caller with one deployment; `None` if the request has no such thing.
pub(super) fn affinity(
    request: &Request,
    context: &Context,
    body: &[u8],
    by: AffinityView<'_>,
) -> Option<u64> {
    let hash = |bytes: &[u8]| Some(tollgate_policy::hash_name(bytes)).filter(|_| !bytes.is_empty());
    match by {
        AffinityView::Header(name) => hash(request.header(name.as_bytes())?),
        AffinityView::Cookie(name) => hash(facts::cookie(request.header(b"cookie")?, name)?),
        AffinityView::Channel => Some(context.channel_view()?.code_hash()),
        // Not a value that the caller brings: `super::session`.
        AffinityView::Session => None,
        AffinityView::ClientIp => match facts::client_ip(request, context.generation.snapshot())? {
            IpAddr::V4(ip) => hash(&ip.octets()),
            IpAddr::V6(ip) => hash(&ip.octets()),
        },
        AffinityView::Body(path) => {
            let path = FieldPath::parse(path).ok()?;
            let mut found = RequestFacts::new();
            scan(body, context.api, &[path], &mut found).ok()?;
            match found.wanted.first()?.as_ref()? {
                Scalar::String(text) => hash(text.as_bytes()),
                Scalar::Number(number) => hash(&number.to_bits().to_le_bytes()),
                _ => None,
            }
        }
        AffinityView::Prompt => {
            let begins = [&b"\"messages\""[..], b"\"contents\"", b"\"input\"", b"\"prompt\""]
                .iter()
                .find_map(|key| body.windows(key.len()).position(|at| at == *key))?;
            hash(body.get(begins..).map(|rest| rest.get(..1_024).unwrap_or(rest))?)
        }
    }
}

/// Makes a deployment the request's target: credentials and path. The body is the caller's business, unless the
/// deployment speaks another protocol.
pub(super) fn aim(
    w: &WorkerState,
    request: &mut Request,
    context: &mut Context,
    deployment: u32,
) -> Result<(), Misfit> {
    let generation = Rc::clone(&context.generation);
    let snapshot = generation.snapshot();
    let provider = snapshot
        .deployment(deployment)
        .and_then(|d| d.provider())
        .ok_or("the deployment has no provider")?;
    let region = w.attached.as_ref().map(|a| &*a.region);
    let upstream = generation.upstream(&provider, w.master_key.as_ref(), region)?;
    let now = region.map_or(0, |r| r.time_at(process::now_ms()));
    let credential = upstream.pick(region, now);
    let own = upstream
        .heads
        .get(usize::from(credential))
        .ok_or("the provider has no credential")?;
    match translate::way(context.api, provider.protocol()) {
        Way::Native => translate::undo(request, context).ok_or("out of memory")?,
        Way::Translated(pair) => translate::there(request, context, pair, deployment)?,
        Way::Unable => return Err("the deployment does not serve this API".into()),
    }
    context.deployment = Some(deployment);
    context.upstream_head = head(request, context, &own.lines).ok_or("out of memory")?;
    context.credential = credential;
    context.upstream = Some(Rc::clone(&upstream));
    if provider.credential_kind() == CredentialKind::Header {
        // The usual ones are taken out of every request.
        let name = provider.credential_header().as_bytes();
        request.hide_headers(|header| header.eq_ignore_ascii_case(name));
    }
    let prefix = provider.path_prefix().trim_end_matches('/');
    if let Some(path) = context.translation.as_deref().and_then(|t| t.path()) {
        context
            .original_path
            .get_or_insert_with(|| String::from_utf8_lossy(request.path()).as_ref().into());
        request
            .set_target(translate::target(prefix, path).as_bytes())
            .ok_or("out of memory")?;
    } else if let Some(call) = context.gemini.as_deref() {
        let upstream_model = snapshot
            .deployment(deployment)
            .map_or("", |deployment| deployment.upstream_model());
        let path = call.target(upstream_model, request.args());
        request
            .set_target(translate::target(prefix, &path).as_bytes())
            .ok_or("out of memory")?;
    } else if !prefix.is_empty() && prefix != "/v1" {
        // A base URL that names a version takes the place of the client's.
        let path = context
            .original_path
            .get_or_insert_with(|| String::from_utf8_lossy(request.path()).as_ref().into())
            .clone();
        request
            .set_path(translate::target(prefix, &path).as_bytes())
            .ok_or("out of memory")?;
    } else if let Some(path) = &context.original_path {
        // A former attempt's provider had a prefix.
        request.set_path(path.as_bytes()).ok_or("out of memory")?;
    }
    Ok(())
}

/// All header lines that the gateway writes for one attempt, as the value of the first of them, `Host`: one variable costs
/// nginx a seventh of what seven do, and a credential may have any name.
fn head(request: &Request, context: &Context, own: &[u8]) -> Option<PoolText> {
    const UPGRADE: &[u8] = b"\r\nConnection: upgrade\r\nUpgrade: websocket";
    let pieces = [
        own,
        b"\r\nx-request-id: ",
        &context.request_id,
        b"\r\ntraceparent: ",
        &context.traceparent,
        // A WebSocket passes through unmetered, under the connection and request limits.
        if context.upgrade { UPGRADE } else { b"" },
    ];
    let mut length = pieces.iter().map(|p| p.len()).sum();
    if let Some(translation) = &context.translation {
        translation.write_lines(&mut |piece| length += piece.len());
    }
    request.text(length, |write| {
        for piece in pieces {
            write(piece);
        }
        if let Some(translation) = &context.translation {
            translation.write_lines(write);
        }
    })
}

/// Moves a request whose attempt failed to another deployment, or to a model that stands in for its own.
pub(crate) fn next_deployment(
    w: &mut WorkerState,
    request: &mut Request,
    context: &mut Context,
) -> Result<(), ()> {
    if super::response::is_overdue(context, process::now_ms()) || !w.take_retry() {
        return Err(());
    }
    // It was asked and gave nothing.
    settle_quota(w, context, Settlement::default());
    let ended = super::settle::failed_attempt(w, context);
    let upstream_model = |context: &Context| context.deployment_view().map(|d| d.upstream_model().to_owned());
    let former = upstream_model(context);
    let mut clamp = None;
    loop {
        let next = match choose(w, context) {
            Some(next) => next,
            None => {
                let (next, granted) = stand_in(w, context).ok_or(())?;
                clamp = granted.or(clamp);
                if let Some(most) = granted {
                    context.output_limit = Some(context.output_limit.map_or(most, |limit| limit.min(most)));
                }
                next
            }
        };
        match aim(w, request, context, next) {
            Ok(()) => break,
            // Its protocol cannot express the request; another's may.
            Err(Misfit::Refused(_)) => release_quota(w, context),
            Err(Misfit::Failed(reason)) => {
                context.generation.complain(next, reason);
                return Err(());
            }
        }
    }
    if let (Some(event), Some(attached)) = (ended, &w.attached) {
        attached.region.push_event(&attached.worker, &event);
    }
    let name = upstream_model(context).ok_or(())?;
    match context.translation.as_deref().map(|t| t.is_active()) {
        Some(true) => {}
        // The client's own body is back, which no deployment's name or maximum has got into.
        Some(false) => {
            let most = context.output_limit;
            super::decide::rename_model(w, request, context, &name, most)?;
        }
        None if clamp.is_some() || former.as_ref() != Some(&name) => {
            super::decide::rename_model(w, request, context, &name, clamp)?;
        }
        None => {}
    }
    Ok(())
}

/// The next model of the chain that the channel may use and that has a deployment left. The reservation moves with the
/// request: all limits of the new model apply to it, and those of the old one forget it. Returns the output tokens that
/// the new reservation allows, where one bounds them.
fn stand_in(w: &mut WorkerState, context: &mut Context) -> Option<(u32, Option<u64>)> {
    let generation = Rc::clone(&context.generation);
    let snapshot = generation.snapshot();
    let channel = context.channel.and_then(|c| snapshot.channel(c))?;
    let first = snapshot.model_at(context.first_model?)?;
    loop {
        let at = usize::from(context.fallbacks);
        let name = match channel.route(first.name()).and_then(|route| route.fallback()) {
            Some(mut own) => own.nth(at),
            None => first.fallback().nth(at),
        }?;
        context.fallbacks = context.fallbacks.saturating_add(1);
        let Some(model) = snapshot.model(name.as_bytes()) else {
            continue;
        };
        let attached = w.attached.as_mut()?;
        let terms = w.terms.get(snapshot, &channel, &model, &attached.region);
        if !terms.permitted || terms.too_many {
            continue;
        }
        let old = context.grant.take()?;
        attached.region.release(&mut attached.worker, old.row);
        let output = old
            .output
            .min(model.max_output_tokens().saturating_mul(context.answers));
        let demand = Demand {
            limits: &terms.limits,
            counters: terms.counters.as_deref(),
            input: context.input,
            // An upper bound counts as it is: the body's exact count belongs to another tokenizer.
            input_exact: true,
            output,
            expected_output: output.min(model.default_max_tokens()) / 4,
            min_output: snapshot
                .settings()
                .min_output_reservation()
                .saturating_mul(context.answers),
            usage: terms.usage,
            may_wait: false,
            price: terms.price,
        };
        let now = attached.region.time_at(process::now_ms());
        match attached.region.reserve(&mut attached.worker, now, &demand) {
            Ok(grant) => {
                context.grant = Some(grant);
                context.model = Some(model.index());
                context.usage = terms.usage;
                context.output_bounded = terms.output_bounded;
                context.version = terms.version.clone();
                context.pinned = terms.pinned;
                context.route = terms.route;
                context.session = None;
                context.tried = [0; 4];
                if let Some(next) = choose(w, context) {
                    let clamp = terms
                        .output_bounded
                        .then(|| grant.output / context.answers.max(1));
                    return Some((next, clamp));
                }
            }
            // Nothing is reserved any more: the request ends here, whatever other models are left.
            Err(_) => return None,
        }
    }
}
