//! Which deployment serves a request, at which address, with which credentials.

use std::net::SocketAddr;
use std::rc::Rc;

use tollgate_policy::DeploymentView;
use tollgate_policy::documents::CredentialKind;

use super::context::Context;
use super::worker::WorkerState;
use crate::ngx::request::{PoolText, Request};

/// Where an attempt goes.
pub(crate) struct Target<'a> {
    /// What connections may be shared by: deployment, address, TLS name.
    pub key: u64,
    pub address: SocketAddr,
    pub tls: bool,
    /// For nginx's messages; as long-lived as the snapshot.
    pub name: &'a str,
}

pub(super) fn is_usable(deployment: &DeploymentView<'_>) -> bool {
    deployment.enabled()
        && deployment.weight() > 0
        && deployment
            .provider()
            .is_some_and(|p| p.enabled() && p.addresses().len() > 0)
}

/// Picks a deployment of the request's model by weight, another than `not` if there is one.
pub(super) fn choose(w: &mut WorkerState, context: &Context, not: Option<u32>) -> Option<u32> {
    let model = context.model_view()?;
    let candidates = || {
        model
            .deployments()
            .filter(is_usable)
            .filter(|d| Some(d.index()) != not)
    };
    let mut all = candidates();
    let first = all.next()?;
    if all.next().is_none() {
        return Some(first.index());
    }
    let total: u64 = candidates().map(|d| u64::from(d.weight())).sum();
    let mut point = w.random() % total.max(1);
    for deployment in candidates() {
        let weight = u64::from(deployment.weight());
        if point < weight {
            return Some(deployment.index());
        }
        point -= weight;
    }
    None
}

/// Makes a deployment the request's target: credentials and path. The body is the caller's business.
pub(super) fn aim(
    w: &WorkerState,
    request: &mut Request,
    context: &mut Context,
    deployment: u32,
) -> Result<(), &'static str> {
    context.deployment = Some(deployment);
    let generation = Rc::clone(&context.generation);
    let snapshot = generation.snapshot();
    let provider = snapshot
        .deployment(deployment)
        .and_then(|d| d.provider())
        .ok_or("the deployment has no provider")?;
    let own = generation.upstream_head(&provider, w.master_key.as_ref())?;
    context.upstream_head = head(request, context, &own).ok_or("out of memory")?;
    if provider.credential_kind() == CredentialKind::Header {
        // The usual ones are taken out of every request.
        let name = provider.credential_header().as_bytes();
        request.hide_headers(|header| header.eq_ignore_ascii_case(name));
    }
    let prefix = provider.path_prefix().trim_end_matches('/');
    if !prefix.is_empty() && prefix != "/v1" {
        // A base URL that names a version takes the place of the client's `/v1`.
        let versioned = prefix.rsplit('/').next().is_some_and(|s| {
            s.strip_prefix('v')
                .is_some_and(|v| v.starts_with(|c: char| c.is_ascii_digit()))
        });
        let path = context
            .original_path
            .get_or_insert_with(|| String::from_utf8_lossy(request.path()).as_ref().into())
            .clone();
        let rest = if versioned {
            path.strip_prefix("/v1").unwrap_or(&path)
        } else {
            &path
        };
        request
            .set_path(format!("{prefix}{rest}").as_bytes())
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
    request.text(pieces.iter().map(|p| p.len()).sum(), |write| {
        for piece in pieces {
            write(piece);
        }
    })
}

/// Moves a request whose attempt failed to another deployment.
pub(crate) fn next_deployment(
    w: &mut WorkerState,
    request: &mut Request,
    context: &mut Context,
) -> Result<(), ()> {
    let former = context.deployment;
    let next = choose(w, context, former).ok_or(())?;
    let name = |index: Option<u32>| {
        index
            .and_then(|i| context.generation.snapshot().deployment(i))
            .map(|d| d.upstream_model())
    };
    let renamed = match (name(former), name(Some(next))) {
        (Some(a), Some(b)) if a != b => Some(b.to_owned()),
        _ => None,
    };
    if let Some(model) = renamed {
        super::decide::rename_model(w, request, context, &model)?;
    }
    aim(w, request, context, next).map_err(|reason| {
        crate::ngx::log::error(format_args!("tollgate: cannot try another deployment: {reason}"));
    })
}

/// Where the next attempt goes.
pub(crate) fn target(context: &mut Context) -> Option<Target<'_>> {
    let attempt = usize::from(context.attempts);
    context.attempts = context.attempts.saturating_add(1);
    context.proxied = true;
    let deployment = context.deployment_view()?;
    let provider = deployment.provider()?;
    let addresses = provider.addresses();
    let count = addresses.len().max(1);
    let address = provider.addresses().nth(attempt % count)?;
    let mut key = tollgate_policy::hash_name(deployment.id().as_bytes());
    key ^= tollgate_policy::hash_name(provider.tls_name().as_bytes()).rotate_left(17);
    key ^= match address {
        SocketAddr::V4(a) => u64::from(u32::from(*a.ip())) << 16 | u64::from(a.port()),
        SocketAddr::V6(a) => tollgate_policy::hash_name(&a.ip().octets())
            .wrapping_add(u64::from(a.port()))
            .rotate_left(31),
    };
    Some(Target {
        key,
        address,
        tls: provider.tls(),
        name: deployment.id(),
    })
}
