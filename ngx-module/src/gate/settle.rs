//! What a request cost: settled exactly once, whatever happened to it, then reported.

use std::rc::Rc;
use std::time::Instant;

use tollgate_meter::request::count_input;
use tollgate_meter::response::Usage;
use tollgate_policy::Rates;
use tollgate_policy::documents::AbortPolicy;
use tollgate_shm::{Class, Event, Failure, Grant, InflightIndex, Settlement, UsageDelta, UsageIndex};

use super::context::{Charged, Context, Source, Stage};
use super::response::Response;
use super::slices::{Counted as InputCounted, SlicedCount};
use super::worker::{Generation, WorkerState};
use crate::ngx::guard::guarded;
use crate::ngx::request::{PoolText, Request};
use crate::ngx::{counting, process};

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
    context.undecided = None;
    context.running = None;
    let status = request.as_ref().map_or(0, |r| r.response_status());
    let gone = request.as_ref().is_some_and(|r| r.client_is_gone());
    let admitted = context.stage == Stage::Admitted;
    context.class = match context.stage {
        Stage::Admitted => classify(context, status, gone),
        // The body never came whole: the client left, or nginx refused it (its size, its framing, a time-out). Which of
        // the two must not depend on how soon nginx saw it.
        Stage::Closed if context.class == Class::Internal && (400..500).contains(&status) => unread(gone),
        Stage::Closed => context.class,
        Stage::Identified
        | Stage::Reading
        | Stage::Waiting
        | Stage::BodyRead
        | Stage::Counting
        | Stage::Counted => unread(gone || !(400..499).contains(&status)),
    };
    let mut sum = Sum::default();
    if admitted && context.proxied && is_billable(context, status) {
        let counted = count(w, context);
        sum = charge(w, request.as_deref(), context, &counted);
        if context.class == Class::Ok && counted.usage.is_some_and(|u| u.input.is_some()) {
            sum.sample = counted_beside(w, request.as_deref(), context).unwrap_or_default();
        }
    }
    let Some(mut draft) = draft(w, context, status, &sum) else {
        return;
    };
    report_shadows(w, context, &draft);
    let Some(sliced) = sum.sliced else {
        return book(w, &draft);
    };
    // Should this worker die before the count is made, this is what is charged.
    if let (Some(attached), Some(grant)) = (&w.attached, &draft.grant) {
        attached.region.note_produced(grant.row, draft.charged.output);
    }
    draft.charged.source = Source::Counted;
    w.unsettled.push(Box::new(Unsettled {
        sliced,
        generation: Rc::clone(&context.generation),
        model: context.model,
        least: sum.least_input,
        estimated_output: sum.estimated_output,
        draft,
    }));
    counting::wake();
}

/// A finished request whose input nobody has counted: it holds its reservation until its turn has come.
pub(crate) struct Unsettled {
    sliced: Box<SlicedCount>,
    generation: Rc<Generation>,
    model: Option<u32>,
    /// The least input to charge, whatever the count says.
    least: u64,
    /// Tokens of the output that are estimates.
    estimated_output: u64,
    /// Everything else; its estimate holds the bound.
    draft: Draft,
}

impl Unsettled {
    /// Bytes that it keeps.
    pub fn bytes(&self) -> usize {
        self.sliced.kept()
    }

    fn finish(mut self: Box<Self>, counted: InputCounted) -> Draft {
        if let InputCounted::Tokens(tokens) = counted {
            self.draft.estimated = self.estimated_output;
            self.draft.charged.input = tokens.max(self.least);
            self.draft.served.input = tokens;
        }
        let counting = self.model.and_then(|m| self.generation.counting(m));
        let estimate = counting.is_none_or(|c| c.estimate);
        let draft = &mut self.draft;
        (draft.charged.source, draft.estimated) = judged(draft.charged.source, draft.estimated, estimate);
        self.draft
    }
}

/// Counts for the finished request whose turn it is until about `until`, and settles it once it is counted.
pub(crate) fn count_unsettled(w: &mut WorkerState, until: Instant) {
    let Some(mut unsettled) = w.unsettled.pop() else {
        return;
    };
    // A panic must not leave it unsettled.
    let counted = guarded("counting", InputCounted::Impossible, || {
        let counting = unsettled.model.and_then(|m| unsettled.generation.counting(m));
        counting.map_or(InputCounted::Impossible, |counting| {
            let mut counter = w.tokenizers.counter(&counting);
            unsettled
                .sliced
                .slice(&[], &counting.formula, &mut counter, until)
        })
    });
    if counted == InputCounted::NotYet {
        return w.unsettled.push(unsettled);
    }
    let draft = unsettled.finish(counted);
    book(w, &draft);
}

/// The process ends: what has not been counted by now is charged by its upper bound.
pub(super) fn give_up_counting(w: &mut WorkerState) {
    while let Some(unsettled) = w.unsettled.pop() {
        let draft = unsettled.finish(InputCounted::Impossible);
        book(w, &draft);
    }
}

/// The source and the number of estimated tokens to report; `estimate` if the model's counts are estimates.
fn judged(source: Source, estimated: u64, estimate: bool) -> (Source, u64) {
    if source == Source::Upstream {
        (source, 0)
    } else if estimated > 0 || estimate {
        (Source::Estimated, estimated.max(1))
    } else {
        (source, estimated)
    }
}

/// The class of a request whose body did not come.
fn unread(gone: bool) -> Class {
    if gone { Class::Abort } else { Class::Client }
}

/// How a request that was let through has ended.
fn classify(context: &Context, status: u16, gone: bool) -> Class {
    match context.upstream_status {
        _ if context.stopped => Class::Rule,
        0 if status == 504 || status == 408 => Class::Timeout,
        0 if gone || status == 499 => Class::Abort,
        0 => Class::Upstream,
        _ if context.overdue => Class::Timeout,
        _ if context.translation.as_ref().is_some_and(|t| t.has_failed()) => Class::Upstream,
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
        0 if context.stopped => true,
        0 => matches!(context.class, Class::Timeout | Class::Abort) && status != 502,
        s => s < 400,
    }
}

fn count(w: &mut WorkerState, context: &mut Context) -> Counted {
    let counting = context.counting();
    let mut counter = counting.as_deref().map(|c| w.tokenizers.counter(c));
    match &mut context.response {
        Response::Opaque | Response::Error(_) => Counted {
            usage: None,
            output: 0,
            estimated: 0,
        },
        Response::Unread { bytes, encoded } => {
            let estimated = match context.grant {
                _ if !context.api.produces() => 0,
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
            let (usage, output) = json.finish(counter.as_mut());
            Counted {
                usage,
                output,
                estimated: 0,
            }
        }
        Response::Sse(sse) => {
            let usage = sse.state.usage();
            // Also if the upstream has said it all: what it says is held against it.
            let (output, estimated) = sse.finish(counter.as_mut());
            Counted {
                usage,
                output: output + estimated,
                estimated,
            }
        }
    }
}

/// What a request comes to besides `context.charged`.
#[derive(Default)]
struct Sum {
    /// Tokens that are estimates.
    estimated: u64,
    /// Part of them that is output.
    estimated_output: u64,
    /// Whether the upstream's figures are suspicious.
    suspicious: bool,
    /// The count of the input that is still to be made.
    sliced: Option<Box<SlicedCount>>,
    /// The least input to charge.
    least_input: u64,
    /// See [`counted_beside`].
    sample: [u32; 2],
    /// What the deployment has served, whatever the channel is charged.
    served: Charged,
}

/// Fills in `context.charged`.
fn charge(w: &mut WorkerState, request: Option<&Request>, context: &mut Context, counted: &Counted) -> Sum {
    let usage = counted.usage.unwrap_or_default();
    let counting = context.counting();
    let mut sum = Sum {
        estimated: counted.estimated,
        estimated_output: counted.estimated,
        ..Sum::default()
    };
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
            match local_input(w, request, context) {
                LocalInput::Tokens(tokens) => tokens,
                LocalInput::Later(sliced) => {
                    sum.sliced = Some(sliced);
                    sum.estimated += context.input;
                    context.input
                }
                LocalInput::Unknown => {
                    sum.estimated += context.input;
                    context.input
                }
            }
        }
    };
    let estimate = counting.as_ref().is_none_or(|c| c.estimate);
    (source, sum.estimated) = judged(source, sum.estimated, estimate);
    let bound = context
        .grant
        .filter(|_| context.output_bounded)
        .map_or(u64::MAX, |g| g.output);
    // The input is only known not to exceed what was reserved for it, unless it was counted. Of the output we know what
    // we have seen: reasoning may be hidden, and an answer that was cut or went by unread says nothing.
    let seen = counted.output.saturating_sub(counted.estimated);
    let whole = context.ended && !context.cut && counted.estimated == 0 && seen > 0;
    sum.suspicious = usage.malformed
        || usage.output.is_some_and(|o| o > bound)
        || counting.is_some_and(|c| {
            usage.input.is_some_and(|i| {
                c.is_above(i, context.input) || context.input_exact && c.is_below(i, context.input)
            }) || usage.output.is_some_and(|o| {
                whole && (c.is_above(o.saturating_sub(usage.reasoning), seen) || c.is_below(o, seen))
            })
        });
    context.charged = Charged {
        input,
        output,
        cached: usage.cached,
        reasoning: usage.reasoning,
        source,
    };
    sum.served = context.charged;
    if context.class == Class::Abort
        && context
            .channel_view()
            .is_some_and(|c| c.abort_policy() == AbortPolicy::Reserved)
        && let Some(grant) = context.grant
    {
        sum.least_input = context.input;
        context.charged.input = context.charged.input.max(context.input);
        context.charged.output = context.charged.output.max(grant.output);
    }
    sum
}

/// The input of a request that the upstream has said nothing of.
enum LocalInput {
    Tokens(u64),
    /// It takes longer than others should wait.
    Later(Box<SlicedCount>),
    Unknown,
}

/// The exact count of the request's input, made only when nobody else knows it.
fn local_input(w: &mut WorkerState, request: Option<&Request>, context: &Context) -> LocalInput {
    let mut scratch = Vec::new();
    let body = match (&context.translation, request) {
        (Some(translation), _) => Some(translation.original()),
        (None, Some(request)) => request.body(&mut scratch).ok(),
        (None, None) => None,
    };
    let (Some(body), Some(counting)) = (body, context.counting()) else {
        return LocalInput::Unknown;
    };
    let mut counter = w.tokenizers.counter(&counting);
    let (mut sliced, counted) = SlicedCount::begin(context.api, body, &counting.formula, &mut counter);
    match counted {
        InputCounted::Tokens(tokens) => LocalInput::Tokens(tokens),
        InputCounted::NotYet if w.unsettled.has_room(body.len()) => {
            sliced.keep(body.to_vec());
            LocalInput::Later(Box::new(sliced))
        }
        _ => LocalInput::Unknown,
    }
}

/// Requests of which one is counted to learn from, by the request id.
const SAMPLE: u64 = 8;
/// Longest body that is counted for that: about a tenth of a millisecond.
const SAMPLE_BYTES: usize = 16 * 1024;

/// For a model whose factor is learned, now and then: the input by the tokenizer alone, and what it costs beside its texts.
fn counted_beside(w: &mut WorkerState, request: Option<&Request>, context: &Context) -> Option<[u32; 2]> {
    let counting = context.counting().filter(|c| c.learns)?;
    // A translated request's own overhead is not the upstream's.
    if !context.id_number[1].is_multiple_of(SAMPLE) || context.translation.is_some() {
        return None;
    }
    let mut scratch = Vec::new();
    let body = request?.body(&mut scratch).ok()?;
    if body.is_empty() || body.len() > SAMPLE_BYTES {
        return None;
    }
    let mut counter = w.tokenizers.counter(&counting);
    let input = count_input(body, context.api, &counting.formula, &mut counter).ok()?;
    // What is not text, or not there, teaches nothing about texts.
    if input.estimated || input.hidden_input || input.images > 0 {
        return None;
    }
    let texts = input.text_units / tollgate_meter::counting::UNITS;
    Some([
        u32::try_from(texts).ok()?,
        u32::try_from(input.beside_texts).ok()?,
    ])
}

/// What is booked of a request.
struct Draft {
    grant: Option<Grant>,
    /// What the last attempt holds of its provider's quota.
    quota: Option<InflightIndex>,
    usage: Option<UsageIndex>,
    charged: Charged,
    /// What the deployment has served, which its provider takes money for.
    served: Charged,
    /// What the channel pays for the model, and what the provider takes.
    prices: [Rates; 2],
    estimated: u64,
    suspicious: bool,
    latency_us: Option<u64>,
    first_token_us: Option<u64>,
    class: Class,
    /// But for what is charged.
    event: Event,
}

/// Everything that is known at a request's end. `None` without a region: nothing is held and nothing can be booked then.
fn draft(w: &mut WorkerState, context: &mut Context, status: u16, sum: &Sum) -> Option<Draft> {
    let region = &w.attached.as_ref()?.region;
    let now_ms = process::now_ms();
    let usage = context.usage.or_else(|| {
        let channel = context.channel_view().map_or("", |c| c.code());
        let model = context.model_view().map_or("", |m| m.name());
        region.usage_index(channel.as_bytes(), model.as_bytes())
    });
    let latency_us = context
        .proxied
        .then(|| now_ms.saturating_sub(context.start_ms) * 1_000);
    let first_token_us = context
        .first_byte_ms
        .map(|at| at.saturating_sub(context.start_ms) * 1_000);
    let flags = u32::from(context.stream)
        | u32::from(sum.suspicious) << 1
        | u32::from(context.cut) << 2
        | u32::from(!context.shadow().is_empty()) << 3
        | u32::from(context.attempts.min(7)) << 5
        | context.counting().map_or(0, |c| c.version) << 8;
    let prices = [
        context.model_view().and_then(|m| m.price()),
        context.deployment_view().and_then(|d| d.cost()),
    ]
    .map(|price| price.map(|price| price.rates).unwrap_or_default());
    let event = Event {
        time_ms: region.time_at(now_ms),
        usage: usage.map_or(0, UsageIndex::number),
        deployment: context.deployment.unwrap_or(u32::MAX),
        request_id: context.id_number,
        generation: small(context.generation.number),
        status,
        class: context.class as u8,
        latency_us: latency_us.map_or(0, small),
        first_token_us: first_token_us.map_or(u32::MAX, small),
        flags,
        limit_key: context.limit_key,
        rule_hash: context
            .rule
            .as_ref()
            .map_or(0, |r| tollgate_policy::hash_name(r.as_bytes())),
        reserved: [small(context.input), small(context.grant.map_or(0, |g| g.output))],
        sample: sum.sample,
        group: context.group.map_or(0, |group| group.saturating_add(1)),
        prices: prices.map(|price| price.version),
        ..Event::default()
    };
    Some(Draft {
        grant: context.grant,
        quota: context.quota.take(),
        usage,
        charged: context.charged,
        served: sum.served,
        prices,
        estimated: sum.estimated,
        suspicious: sum.suspicious,
        latency_us,
        first_token_us,
        class: context.class,
        event,
    })
}

/// Puts on the ring what each rule in shadow mode would have done; most requests meet none.
fn report_shadows(w: &WorkerState, context: &Context, draft: &Draft) {
    let (Some(attached), Some(_)) = (&w.attached, draft.usage) else {
        return;
    };
    for hit in context.shadow() {
        let rule = tollgate_policy::hash_name(hit.rule.as_bytes());
        let event = draft.event.shadow(rule, hit.deeds.0);
        attached.region.push_event(&attached.worker, &event);
    }
}

/// An attempt that another one follows, for the log: its deployment, how it ended, and what its provider may take. Who
/// refused or was never reached takes nothing; who had the whole request and gave no answer may take its input.
pub(super) fn failed_attempt(w: &WorkerState, context: &Context) -> Option<Event> {
    let region = &w.attached.as_ref()?.region;
    let usage = context.usage?;
    let now_ms = process::now_ms();
    let (status, failure) = (context.attempt_status, context.attempt_failure);
    let worked = status == 0 && matches!(failure, Some(Failure::Timeout | Failure::Malformed));
    let input = if worked { context.input } else { 0 };
    let price = context.deployment_view().and_then(|d| d.cost());
    let price = price.map(|price| price.rates).unwrap_or_default();
    let (class, source) = match failure {
        Some(Failure::Timeout) => (Class::Timeout, Source::Estimated),
        _ if worked => (Class::Upstream, Source::Estimated),
        _ => (Class::Upstream, Source::None),
    };
    Some(Event {
        time_ms: region.time_at(now_ms),
        usage: usage.number(),
        deployment: context.deployment?,
        request_id: context.id_number,
        generation: small(context.generation.number),
        status,
        class: class as u8,
        source: source as u8,
        input_tokens: small(input),
        estimated_tokens: small(input),
        latency_us: small(now_ms.saturating_sub(context.attempt_ms) * 1_000),
        first_token_us: u32::MAX,
        flags: u32::from(context.stream) | Event::ATTEMPT | u32::from(context.attempts.min(7)) << 5,
        cost: small(price.cost(input, 0, 0, 0)),
        prices: [0, price.version],
        ..Event::default()
    })
}

/// Settles the reservation, adds to the statistics and puts one event on the ring.
fn book(w: &mut WorkerState, draft: &Draft) {
    let Some(attached) = w.attached.as_mut() else {
        return;
    };
    let region = &attached.region;
    let charged = draft.charged;
    let served = draft.served;
    let [price, provider_price] = draft.prices;
    let bill = price.cost(charged.input, charged.cached, charged.output, charged.reasoning);
    let cost = provider_price.cost(served.input, served.cached, served.output, served.reasoning);
    let used = Settlement {
        input: charged.input,
        output: charged.output,
        cost: bill,
    };
    let now = region.time_at(process::now_ms());
    if let Some(row) = draft.quota {
        region.settle(&mut attached.worker, row, now, Settlement { cost, ..used });
    }
    let debt = draft.grant.map_or(0, |grant| {
        region.settle(&mut attached.worker, grant.row, now, used)
    });
    let Some(usage) = draft.usage else { return };
    let total = charged.input + charged.output;
    let estimated = draft.estimated.min(total);
    let counted = if charged.source == Source::Counted {
        total
    } else {
        0
    };
    let delta = UsageDelta {
        class: draft.class,
        input_tokens: charged.input,
        output_tokens: charged.output,
        cached_tokens: charged.cached,
        reasoning_tokens: charged.reasoning,
        estimated_tokens: estimated,
        counted_tokens: counted,
        debt_tokens: debt,
        bill,
        cost,
        suspicious: draft.suspicious,
        latency_us: draft.latency_us,
        first_token_us: draft.first_token_us,
    };
    region.add_usage(usage, &delta);
    let event = Event {
        source: charged.source as u8,
        input_tokens: small(charged.input),
        output_tokens: small(charged.output),
        cached_tokens: small(charged.cached),
        reasoning_tokens: small(charged.reasoning),
        debt_tokens: small(debt),
        estimated_tokens: small(estimated),
        counted_tokens: small(counted),
        bill: small(bill),
        cost: small(cost),
        ..draft.event
    };
    region.push_event(&attached.worker, &event);
}

fn small(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}
