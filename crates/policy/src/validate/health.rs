//! Health checks of providers.

use super::Context;
use crate::documents::{HealthCheck, Location, ProbeKind, Protocol, Provider};

pub(super) fn check(context: &mut Context<'_>, at: &Location, provider: &Provider) {
    let Some(check) = &provider.health_check else {
        return;
    };
    check_http(context, at, check);
    check_completion(context, at, provider, check);
    if !(1_000..=86_400_000).contains(&check.interval.as_millis()) {
        context.error(at, "health_check.interval", "must be 1s..=24h");
    }
    if check.timeout().as_millis() == 0 || check.timeout() > check.interval {
        context.error(
            at,
            "health_check.timeout",
            "must be longer than 0 and not longer than the interval",
        );
    }
    if check.jitter_percent > 50 {
        context.error(at, "health_check.jitter_percent", "must be 0..=50");
    }
    for (name, times) in [
        ("unhealthy_after", check.unhealthy_after),
        ("healthy_after", check.healthy_after),
    ] {
        if !(1..=100).contains(&times) {
            context.error(at, format_args!("health_check.{name}"), "must be 1..=100");
        }
    }
}

fn check_http(context: &mut Context<'_>, at: &Location, check: &HealthCheck) {
    if check.kind != ProbeKind::Http {
        for (name, given) in [
            ("path", check.path.is_some()),
            ("expected_status", check.expected_status.is_some()),
            ("body_contains", check.body_contains.is_some()),
        ] {
            if given {
                let reason = "makes no difference: the probe's type is not `http`";
                context.error(at, format_args!("health_check.{name}"), reason);
            }
        }
        return;
    }
    match check.path.as_deref() {
        None => context.error(at, "health_check.path", "missing: what shall be asked for?"),
        Some(path) => {
            let visible = path.bytes().all(|byte| byte.is_ascii_graphic());
            if !path.starts_with('/') || path.len() > 1024 || !visible || path.contains('#') {
                context.error(
                    at,
                    "health_check.path",
                    "must begin with `/` and be at most 1024 visible ASCII characters, none of them `#`",
                );
            } else if path.contains("{model}") && !check.per_deployment() {
                let reason = "`{model}` needs `\"per\": \"deployment\"`: a provider has many";
                context.error(at, "health_check.path", reason);
            }
        }
    }
    if check.expected_status.as_ref().is_some_and(Vec::is_empty) {
        context.error(
            at,
            "health_check.expected_status",
            "is empty: no answer would be healthy",
        );
    }
    if let Some(text) = &check.body_contains {
        if text.is_empty() || text.len() > 1024 {
            context.error(at, "health_check.body_contains", "must be 1..=1024 bytes");
        }
        if check.method == crate::documents::ProbeMethod::Head {
            context.error(
                at,
                "health_check.body_contains",
                "an answer to `HEAD` has no body",
            );
        }
    }
}

fn check_completion(context: &mut Context<'_>, at: &Location, provider: &Provider, check: &HealthCheck) {
    if check.kind == ProbeKind::Completion {
        if provider.protocol == Protocol::Other {
            let reason = "`completion` needs a provider whose protocol is known";
            context.error(at, "health_check.type", reason);
        }
        if !(1..=60).contains(&check.max_per_minute()) {
            context.error(at, "health_check.max_per_minute", "must be 1..=60");
        }
        if !(1..=64).contains(&check.max_tokens()) {
            context.error(at, "health_check.max_tokens", "must be 1..=64");
        }
        return;
    }
    for (name, given) in [
        ("max_per_minute", check.max_per_minute.is_some()),
        ("max_tokens", check.max_tokens.is_some()),
    ] {
        if given {
            let reason = "makes no difference: the probe's type is not `completion`";
            context.error(at, format_args!("health_check.{name}"), reason);
        }
    }
}
