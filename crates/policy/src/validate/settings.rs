//! Settings.

use super::{Context, alerts, check_name, limits, relief};
use crate::{
    documents::{ChannelSource, Entry, Location, Oidc, Settings, Span},
    identity::Owner,
    rules::{canonical_path, is_token},
};
use std::net::{IpAddr, SocketAddr};

pub(super) fn check(context: &mut Context<'_>) {
    let Some(Entry { value: settings, at }) = &context.documents.settings else {
        return;
    };
    check_sources(context, at, settings);
    limits::check_list(context, at, &settings.limits, Owner::Global);
    relief::check(context, at, &settings.relief, settings.limits.iter());
    if let Some(maintenance) = &settings.maintenance {
        if maintenance.message.len() > 1_024 || maintenance.message.chars().any(char::is_control) {
            context.error(
                at,
                "maintenance.message",
                "must be at most 1024 bytes without control characters",
            );
        }
        let (least, most) = (Span::from_millis(1_000), Span::from_millis(86_400_000));
        if maintenance.retry_after < least || maintenance.retry_after > most {
            context.error(at, "maintenance.retry_after", format!("must be {least}..={most}"));
        }
        context.warning(at, "maintenance", "all requests are refused");
    }
    check_region(context, at, settings);
    if !(1..=65_536).contains(&settings.min_output_reservation) {
        context.error(at, "min_output_reservation", "must be 1..=65536");
    }
    check_factor(context, at, settings.suspicious_usage_factor);
    if settings.trusted_proxies.len() > 1_024 {
        context.error(at, "trusted_proxies", "at most 1024 ranges");
    }
    if settings.request_log.max_rows > 100_000_000 {
        context.error(at, "request_log.max_rows", "must be at most 100000000");
    }
    if settings.request_log.cluster_rows > 100_000 {
        context.error(at, "request_log.cluster_rows", "must be at most 100000");
    }
    let minute = Span::from_millis(60_000);
    for (path, span) in [
        ("request_log.max_age", settings.request_log.max_age),
        ("retention.minutes", settings.retention.minutes),
        ("retention.ten_minutes", settings.retention.ten_minutes),
        ("retention.cluster_minutes", settings.retention.cluster_minutes),
        (
            "retention.cluster_ten_minutes",
            settings.retention.cluster_ten_minutes,
        ),
    ] {
        if span < minute {
            context.error(at, path, "must be at least 1m");
        }
    }
    match settings.api.listen.parse::<SocketAddr>() {
        Err(_) => context.error(
            at,
            "api.listen",
            "must be an address and a port such as `127.0.0.1:9180`",
        ),
        Ok(address) if !is_loopback(address.ip()) => {
            context.warning(
                at,
                "api.listen",
                "the admin API can be reached from other machines",
            );
        }
        Ok(_) => {}
    }
    if let Some(oidc) = &settings.api.oidc {
        check_oidc(context, at, oidc);
    }
    if let Some(backup) = settings.backup {
        if backup.every < minute {
            context.error(at, "backup.every", "must be at least 1m");
        }
        if !(1..=1_000).contains(&backup.keep) {
            context.error(at, "backup.keep", "must be 1..=1000");
        }
    }
    check_cluster(context, at, settings);
    alerts::check(context, at, &settings.alerts);
    if settings.balancer.weight > 256 {
        context.error(at, "balancer.weight", "must be 0..=256");
    }
    if settings.testing.short_windows {
        context.warning(at, "testing.short_windows", "is for tests only");
    }
}

/// Whether a URL is one that nobody can listen in on.
fn is_private(url: &str) -> bool {
    let Some(rest) = url.strip_prefix("http://") else {
        return url.strip_prefix("https://").is_some_and(|rest| !rest.is_empty());
    };
    let authority = rest.split('/').next().unwrap_or_default();
    let local = |host: &str| host == "localhost" || host.parse::<IpAddr>().is_ok_and(is_loopback);
    match authority.strip_prefix('[') {
        Some(inner) => local(inner.split(']').next().unwrap_or_default()),
        None => local(authority.split(':').next().unwrap_or_default()),
    }
}

fn check_oidc(context: &mut Context<'_>, at: &Location, oidc: &Oidc) {
    for (path, url) in [
        ("api.oidc.issuer", &oidc.issuer),
        ("api.oidc.redirect_url", &oidc.redirect_url),
    ] {
        if !is_private(url) {
            context.error(at, path, "must be `https://…`; `http://` only on this machine");
        }
    }
    if oidc.issuer.contains(['?', '#']) {
        context.error(at, "api.oidc.issuer", "must have no query and no fragment");
    }
    if !oidc.redirect_url.ends_with("/api/v1/oidc/callback") {
        context.error(at, "api.oidc.redirect_url", "must end in `/api/v1/oidc/callback`");
    }
    for (path, text) in [
        ("api.oidc.client_id", &oidc.client_id),
        ("api.oidc.name_claim", &oidc.name_claim),
    ] {
        if text.is_empty() {
            context.error(at, path, "must not be empty");
        }
    }
    if oidc.roles.is_empty() {
        context.warning(
            at,
            "api.oidc.roles",
            "nobody gets a role, so that nobody can sign in",
        );
    }
    for (index, rule) in oidc.roles.iter().enumerate() {
        if rule.roles.is_empty() || rule.channels.is_empty() {
            let path = format!("api.oidc.roles[{index}]");
            context.error(at, &path, "must name roles and channels");
        }
    }
}

/// The same in settings and models.
pub(super) fn check_factor(context: &mut Context<'_>, at: &Location, factor: f64) {
    if !(1.0..=1_000.0).contains(&factor) {
        context.error(at, "suspicious_usage_factor", "must be 1..=1000");
    }
}

fn is_loopback(address: IpAddr) -> bool {
    address.to_canonical().is_loopback()
}

fn check_sources(context: &mut Context<'_>, at: &Location, settings: &Settings) {
    let sources = &settings.channel_source;
    if sources.is_empty() || sources.len() > 8 {
        context.error(at, "channel_source", "needs 1..=8 sources");
    }
    for (index, source) in sources.iter().enumerate() {
        let path = format!("channel_source[{index}]");
        match source {
            ChannelSource::Header(name) | ChannelSource::Cookie(name)
                if !is_token(name) || name.len() > 128 =>
            {
                context.error(at, &path, format!("`{name}` is no name of a header or cookie"));
            }
            ChannelSource::Query(name) => check_name(context, at, &path, name, 128),
            ChannelSource::Body(body) if canonical_path(body).is_none() => {
                context.error(
                    at,
                    &path,
                    format!("`{body}` is no path such as `metadata.channel`"),
                );
            }
            ChannelSource::ApiKey(false) => {
                context.error(at, &path, "leave the source out instead of saying `false`");
            }
            _ => {}
        }
        if sources.iter().take(index).any(|earlier| earlier == source) {
            context.error(at, &path, "this source stands twice");
        }
    }
}

fn check_cluster(context: &mut Context<'_>, at: &Location, settings: &Settings) {
    if let Some(redis) = &settings.redis {
        if redis.urls.is_empty() || redis.urls.len() > 64 {
            context.error(at, "redis.urls", "needs 1..=64 addresses");
        }
        for (index, url) in redis.urls.iter().enumerate() {
            let address = ["redis://", "rediss://"].iter().find_map(|s| url.strip_prefix(s));
            let path = format!("redis.urls[{index}]");
            if address.is_none_or(str::is_empty) {
                context.error(at, &path, "must begin with `redis://` or `rediss://`");
            } else if address.is_some_and(|a| a.contains('@')) {
                context.error(
                    at,
                    &path,
                    "must not hold a password: name it in `redis.password_ref`",
                );
            }
        }
        let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | ':' | '_' | '-');
        if redis.prefix.is_empty() || redis.prefix.len() > 64 || !redis.prefix.chars().all(plain) {
            context.error(
                at,
                "redis.prefix",
                "must be 1..=64 letters, digits, `.`, `:`, `_`, `-`",
            );
        }
    }
    let lease = settings.lease;
    let ms = Span::from_millis;
    for (path, span, least, most) in [
        ("lease.ttl", lease.ttl, ms(1_000), ms(60_000)),
        ("lease.wait", lease.wait, ms(0), ms(1_000)),
        (
            "lease.standing_ttl",
            lease.standing_ttl,
            ms(60_000),
            ms(86_400_000),
        ),
        ("lease.clock_skew", lease.clock_skew, ms(100), ms(60_000)),
        (
            "lease.connections_hold",
            lease.connections_hold,
            ms(0),
            ms(86_400_000),
        ),
    ] {
        if span < least || span > most {
            context.error(at, path, format!("must be {least}..={most}"));
        }
    }
    if lease.standing_percent > 100 {
        context.error(at, "lease.standing_percent", "must be 0..=100");
    }
}

fn check_region(context: &mut Context<'_>, at: &Location, settings: &Settings) {
    let region = settings.region;
    for (name, size, least, most) in [
        ("counters", region.counters, 1_024, 16_777_216),
        ("inflight", region.inflight, 64, 4_194_304),
        ("ring", region.ring, 64, 4_194_304),
        ("usage", region.usage, 64, 4_194_304),
        ("workers", region.workers, 1, 1_024),
    ] {
        if !(least..=most).contains(&size) {
            context.error(
                at,
                format_args!("region.{name}"),
                format!("must be {least}..={most}"),
            );
        }
    }
}
