//! What a request cost: settled exactly once, whatever happened to it, then reported.

use tollgate_meter::Api;
use tollgate_meter::request::count_input;
use tollgate_meter::response::Usage;
use tollgate_policy::documents::AbortPolicy;
use tollgate_shm::{Class, Event, Settlement, UsageDelta};

use super::context::{Charged, Context, Source, Stage};
use super::response::Response;
use super::worker::WorkerState;
use crate::ngx::process;
use crate::ngx::request::{PoolText, Request};

/// Where counts come from, in the order of truth.
struct Counted {
    usage: Option<Usage>,
    /// Output tokens by our own count.
    output: u64,
    /// Part of it that is only an estimate.
    estimated: u64,
}

/// Settles a request. `request` is absent when only the process's end is left to do it.
pub(crate) fn settle(w: &mut WorkerState, request: Option<&mut Request>, context: &mut Context) {
    if std::mem::replace(&mut context.settled, true) {
        return;
    }
    context.upstream_head = PoolText::EMPTY;
    let status = request.as_ref().map_or(0, |r| r.response_status());
    let gone = request.as_ref().is_some_and(|r| r.client_is_gone());
    let admitted = context.stage == Stage::Admitted;
    context.class = match context.stage {
        Stage::Admitted => classify(context, status, gone),
        // The body never came whole: the client left, or nginx refused it (its size, its framing, a time-out). Which of
        // the two must not depend on how soon nginx saw it.
        Stage::Closed if context.class == Class::Internal && (400..500).contains(&status) => unread(gone),
        Stage::Closed => context.class,
        Stage::Identified | Stage::Reading | Stage::Waiting | Stage::BodyRead => {
            unread(gone || !(400..499).contains(&status))
        }
    };
    let mut estimated = 0;
    let mut suspicious = false;
    if admitted && context.proxied && is_billable(context, status) {
        let counted = count(w, context);
        (estimated, suspicious) = charge(w, request.as_deref(), context, &counted);
    }
    report(w, context, status, estimated, suspicious);
}

/// The class of a request whose body did not come.
fn unread(gone: bool) -> Class {
    if gone { Class::Abort } else { Class::Client }
}

/// How a request that was let through has ended.
fn classify(context: &Context, status: u16, gone: bool) -> Class {
    match context.upstream_status {
        0 if status == 504 || status == 408 => Class::Timeout,
        0 if gone || status == 499 => Class::Abort,
        0 => Class::Upstream,
        _ if context.overdue => Class::Timeout,
        101 => Class::Ok,
        s if s >= 400 => Class::Upstream,
        _ if context.ended => Class::Ok,
        _ if gone => Class::Abort,
        _ if status == 504 => Class::Timeout,
        _ => Class::Upstream,
    }
}

/// Whether an upstream may have worked for the request: not if it refused, nor if it was never reached.
fn is_billable(context: &Context, status: u16) -> bool {
    match context.upstream_status {
        0 => matches!(context.class, Class::Timeout | Class::Abort) && status != 502,
        s => s < 400,
    }
}

fn count(w: &mut WorkerState, context: &mut Context) -> Counted {
    let counter = context
        .model_view()
        .map(|m| m.tokenizer())
        .and_then(|t| w.counters.get(t));
    match &mut context.response {
        Response::Opaque => Counted {
            usage: None,
            output: 0,
            estimated: 0,
        },
        Response::Unread { bytes, encoded } => {
            let produces = !matches!(
                context.api,
                Api::Embeddings | Api::AnthropicCountTokens | Api::Other
            );
            let estimated = match context.grant {
                _ if !produces => 0,
                // A strict limit stays one: the upstream was told not to produce more than this.
                Some(grant) if context.output_bounded => grant.output,
                // Text compresses to about a byte a token, plain text has about four.
                _ if *encoded => *bytes,
                _ => *bytes / 4,
            };
            Counted {
                usage: None,
                output: estimated,
                estimated,
            }
        }
        Response::Json(json) => {
            let (usage, output) = json.finish(counter);
            Counted {
                usage,
                output,
                estimated: 0,
            }
        }
        Response::Sse(sse) => {
            let usage = sse.state.usage();
            let whole = usage.is_some_and(|u| u.is_complete()) && context.ended && !context.cut;
            let (output, estimated) = if whole { (0, 0) } else { sse.count(counter) };
            Counted {
                usage,
                output: output + estimated,
                estimated,
            }
        }
    }
}

/// Fills in `context.charged`. Returns the tokens that are estimates and whether the upstream's figures are suspicious.
fn charge(
    w: &mut WorkerState,
    request: Option<&Request>,
    context: &mut Context,
    counted: &Counted,
) -> (u64, bool) {
    let usage = counted.usage.unwrap_or_default();
    let mut estimated = counted.estimated;
    let mut source = Source::Upstream;
    let output = match usage.output {
        // Anthropic reports as it goes: before the end its figure lags behind.
        Some(output) if context.ended && !context.cut && (output > 0 || counted.output == 0) => output,
        Some(output) => {
            source = Source::Counted;
            output.max(counted.output)
        }
        // Embeddings and their like report no output because they have none.
        None if counted.usage.is_some() && counted.output == 0 => 0,
        None => {
            source = Source::Counted;
            counted.output
        }
    };
    let input = match usage.input.filter(|i| *i > 0) {
        Some(input) => input,
        None if context.input_exact => context.input,
        None => {
            source = Source::Counted;
            local_input(w, request, context).unwrap_or_else(|| {
                estimated += context.input;
                context.input
            })
        }
    };
    if estimated > 0
        || context.model_view().is_some_and(|m| m.tokenizer_approximate()) && source == Source::Counted
    {
        source = Source::Estimated;
        estimated = estimated.max(1);
    }
    let bound = context
        .grant
        .filter(|_| context.output_bounded)
        .map_or(u64::MAX, |g| g.output);
    let suspicious = usage.malformed
        || usage
            .input
            .is_some_and(|i| i > context.input.saturating_mul(2).saturating_add(64))
        || usage.output.is_some_and(|o| o > bound);
    context.charged = Charged {
        input,
        output,
        cached: usage.cached,
        reasoning: usage.reasoning,
        source,
    };
    if context.class == Class::Abort
        && context
            .channel_view()
            .is_some_and(|c| c.abort_policy() == AbortPolicy::Reserved)
        && let Some(grant) = context.grant
    {
        context.charged.input = context.charged.input.max(context.input);
        context.charged.output = context.charged.output.max(grant.output);
    }
    (estimated, suspicious)
}

/// The exact count of the request's input, made only when nobody else knows it.
fn local_input(w: &mut WorkerState, request: Option<&Request>, context: &Context) -> Option<u64> {
    let mut scratch = Vec::new();
    let body = request?.body(&mut scratch).ok()?;
    let counter = w.counters.get(context.model_view()?.tokenizer())?;
    count_input(body, context.api, counter).ok().map(|c| c.tokens)
}

fn report(w: &mut WorkerState, context: &mut Context, status: u16, estimated: u64, suspicious: bool) {
    let used = Settlement {
        input: context.charged.input,
        output: context.charged.output,
    };
    super::route::settle_quota(w, context, used);
    let Some(attached) = w.attached.as_mut() else {
        return;
    };
    let region = &attached.region;
    let now_ms = process::now_ms();
    let now = region.time_at(now_ms);
    let charged = context.charged;
    let debt = context.grant.map_or(0, |grant| {
        region.settle(&mut attached.worker, grant.row, now, used)
    });
    let usage = context.usage.or_else(|| {
        let channel = context.channel_view().map_or("", |c| c.code());
        let model = context.model_view().map_or("", |m| m.name());
        region.usage_index(channel.as_bytes(), model.as_bytes())
    });
    let Some(usage) = usage else { return };
    let latency_us = context
        .proxied
        .then(|| now_ms.saturating_sub(context.start_ms) * 1_000);
    let first_token_us = context
        .first_byte_ms
        .map(|at| at.saturating_sub(context.start_ms) * 1_000);
    let total = charged.input + charged.output;
    let counted = if charged.source == Source::Counted {
        total
    } else {
        0
    };
    let delta = UsageDelta {
        class: context.class,
        input_tokens: charged.input,
        output_tokens: charged.output,
        cached_tokens: charged.cached,
        reasoning_tokens: charged.reasoning,
        estimated_tokens: estimated.min(total),
        counted_tokens: counted,
        debt_tokens: debt,
        suspicious,
        latency_us,
        first_token_us,
    };
    region.add_usage(usage, &delta);
    let small = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    let flags = u32::from(context.stream)
        | u32::from(suspicious) << 1
        | u32::from(context.cut) << 2
        | u32::from(context.shadowed) << 3;
    let event = Event {
        time_ms: now,
        usage: usage.number(),
        deployment: context.deployment.unwrap_or(u32::MAX),
        request_id: context.id_number,
        generation: small(context.generation.number),
        status,
        class: context.class as u8,
        source: charged.source as u8,
        input_tokens: small(charged.input),
        output_tokens: small(charged.output),
        cached_tokens: small(charged.cached),
        reasoning_tokens: small(charged.reasoning),
        latency_us: latency_us.map_or(0, small),
        first_token_us: first_token_us.map_or(u32::MAX, small),
        debt_tokens: small(debt),
        flags,
        limit_key: context.limit_key,
        rule_hash: context
            .rule
            .as_ref()
            .map_or(0, |r| tollgate_policy::hash_name(r.as_bytes())),
        reserved: [small(context.input), small(context.grant.map_or(0, |g| g.output))],
        estimated_tokens: small(estimated.min(total)),
        counted_tokens: small(counted),
    };
    region.push_event(&attached.worker, &event);
}
