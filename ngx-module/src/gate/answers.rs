//! What the gateway answers itself: refusals that say why, counts of tokens.

use std::fmt::Write;
use std::num::NonZeroU64;
use std::rc::Rc;

use tollgate_policy::LimitView;
use tollgate_policy::documents as policy;
use tollgate_shm::{Class, LimitSpec, Refusal, RefusalKind};

use super::decide::Decider;
use super::pool;
use super::reply::{ErrorKind, Reply};
use super::slices::Counted;
use super::translate::{self, Way};
use crate::ngx::request::Request;

impl Decider<'_> {
    pub(super) fn refused(
        &mut self,
        refusal: &Refusal,
        limit: Option<&LimitView<'_>>,
        spec: Option<&LimitSpec>,
    ) -> Reply {
        let retry_s = refusal.retry_ms.div_ceil(1_000).max(1);
        let (Some(limit), RefusalKind::Limit) = (limit, refusal.kind) else {
            let (code, text) = match refusal.kind {
                RefusalKind::CountersFull => (
                    "counters_full",
                    "the gateway's counter table is full; its limit refuses then",
                ),
                RefusalKind::InflightFull => (
                    "inflight_full",
                    "the gateway serves as many requests as it can hold",
                ),
                _ => ("too_many_limits", "more limits apply than a request can hold"),
            };
            return self
                .fail(Class::Limit, 503, ErrorKind::Unavailable, code, text)
                .header(b"Retry-After", retry_s.to_string());
        };
        self.context.limit = Some(Rc::from(limit.name()));
        self.context.limit_key = spec.map_or(0, |s| s.key);
        let metric = metric_name(limit.metric());
        let mut text = format!(
            "the {} limit {:?} has {} of {} {metric} left",
            limit.scope().name(),
            limit.name(),
            refusal.level.left(),
            refusal.level.max,
        );
        if limit.window_ms() > 0 && limit.algorithm() != policy::Algorithm::Concurrency {
            let _ = write!(text, " per {} s", limit.window_ms() as f64 / 1_000.0);
        }
        let _ = write!(
            text,
            " and the request needs {}; try again in {retry_s} s",
            refusal.wanted
        );
        let kind = match limit.metric() {
            policy::Metric::Connections => "connections",
            policy::Metric::Requests => "requests",
            policy::Metric::Cost => "cost",
            _ => "tokens",
        };
        let [limit_name, remaining_name, reset_name] = ratelimit_headers(kind);
        self.fail(
            Class::Limit,
            429,
            ErrorKind::RateLimit,
            "rate_limit_exceeded",
            &text,
        )
        .header(b"Retry-After", retry_s.to_string())
        .header(limit_name, refusal.level.max.to_string())
        .header(remaining_name, refusal.level.left().to_string())
        .header(reset_name, format!("{}s", refusal.retry_ms as f64 / 1_000.0))
        .header(b"x-tollgate-limit", header_safe(limit.name()))
    }

    /// No deployment of the model can take the request; `refusal`: what the first says that would have to translate it.
    pub(super) fn unserved(
        &mut self,
        request: &Request,
        refusal: Option<&tollgate_translate::Refusal>,
    ) -> Reply {
        // Nobody was asked: the channel's limits forget the request.
        if let (Some(grant), Some(attached)) = (self.context.grant.take(), self.w.attached.as_mut()) {
            attached.region.release(&mut attached.worker, grant.row);
        }
        if let Some(refusal) = refusal {
            self.context.class = Class::Client;
            let client = if self.context.api.is_anthropic() {
                tollgate_translate::Protocol::AnthropicMessages
            } else {
                tollgate_translate::Protocol::OpenAiChat
            };
            let body = String::from_utf8_lossy(&refusal.body(client)).into_owned();
            return Reply {
                status: 400,
                ..Reply::ok(body, self.context.request_id())
            };
        }
        if let Some(retry_ms) = self.context.quota_retry_ms.map(NonZeroU64::get) {
            let text = "every deployment of the model is at its provider's quota";
            return self
                .fail(Class::Limit, 429, ErrorKind::RateLimit, "quota_exceeded", text)
                .header(b"Retry-After", retry_ms.div_ceil(1_000).max(1).to_string());
        }
        let generation = Rc::clone(&self.context.generation);
        let Some(model) = self.context.model.and_then(|m| generation.snapshot().model_at(m)) else {
            return self.no_deployment();
        };
        let mut protocols: Vec<&str> = model
            .deployments()
            .filter(pool::is_usable)
            .filter_map(|d| Some(translate::name(d.provider()?.protocol())))
            .collect();
        if protocols.is_empty() {
            return self.no_deployment();
        }
        let able = |d| {
            pool::is_usable(&d)
                && d.provider()
                    .is_some_and(|p| translate::way(self.context.api, p.protocol()) != Way::Unable)
        };
        if model.deployments().any(able) {
            return self.no_deployment();
        }
        protocols.sort_unstable();
        protocols.dedup();
        let path = String::from_utf8_lossy(request.path());
        let text = format!(
            "no deployment of the model {:?} serves {path}: they speak {}, and nothing translates between the two",
            model.name(),
            protocols.join(", "),
        );
        self.fail(
            Class::Client,
            400,
            ErrorKind::InvalidRequest,
            "api_not_served",
            &text,
        )
    }

    pub(super) fn no_deployment(&mut self) -> Reply {
        let text = "no deployment of the model is enabled and has an address";
        self.fail(
            Class::Upstream,
            503,
            ErrorKind::Unavailable,
            "no_deployment",
            text,
        )
    }

    /// The answer to a request that only asks how many tokens it has.
    pub(super) fn tokens_counted(&mut self, counted: Counted) -> Reply {
        let Counted::Tokens(tokens) = counted else {
            let text = "the request's tokens cannot be counted";
            return self.fail(Class::Internal, 500, ErrorKind::Internal, "not_countable", text);
        };
        self.context.class = Class::Ok;
        let name = if self.context.api.is_gemini() {
            "totalTokens"
        } else {
            "input_tokens"
        };
        Reply::ok(format!("{{\"{name}\":{tokens}}}"), self.context.request_id())
    }
}

fn metric_name(metric: policy::Metric) -> &'static str {
    match metric {
        policy::Metric::Connections => "connections",
        policy::Metric::Requests => "requests",
        policy::Metric::InputTokens => "input tokens",
        policy::Metric::OutputTokens => "output tokens",
        policy::Metric::TotalTokens => "tokens",
        policy::Metric::Cost => "millionths of money",
    }
}

fn ratelimit_headers(kind: &str) -> [&'static [u8]; 3] {
    match kind {
        "connections" => [
            b"x-ratelimit-limit-connections",
            b"x-ratelimit-remaining-connections",
            b"x-ratelimit-reset-connections",
        ],
        "requests" => [
            b"x-ratelimit-limit-requests",
            b"x-ratelimit-remaining-requests",
            b"x-ratelimit-reset-requests",
        ],
        "cost" => [
            b"x-ratelimit-limit-cost",
            b"x-ratelimit-remaining-cost",
            b"x-ratelimit-reset-cost",
        ],
        _ => [
            b"x-ratelimit-limit-tokens",
            b"x-ratelimit-remaining-tokens",
            b"x-ratelimit-reset-tokens",
        ],
    }
}

/// A name as a header value: visible ASCII only.
pub(super) fn header_safe(name: &str) -> String {
    name.chars()
        .map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' })
        .collect()
}
