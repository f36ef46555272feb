//! What is wanted, may the channel have it, does it fit its limits: everything between a read body and the proxy.

use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use tollgate_meter::Api;
use tollgate_meter::request::{MaxTokensName, RequestFacts, Rewrite, scan};
use tollgate_policy::snapshot::{AffinityView, SourceView};
use tollgate_policy::{Decision, ModelView};
use tollgate_shm::{Class, Demand, Grant, RefusalKind};

use super::answers::header_safe;
use super::context::{Context, Remarks, Stage};
use super::facts::{self, GateFacts};
use super::reply::{ErrorKind, Reply};
use super::scanning::Scanning;
use super::slices::{Counted, SlicedCount};
use super::strip::{is_channel_header, is_private};
use super::terms::{Terms, applicable};
use super::translate::{self, Misfit, Way};
use super::worker::{Rules, WorkerState};
use super::{gemini, route, session, stop};
use crate::ngx::counting::Ticket;
use crate::ngx::guard::guarded;
use crate::ngx::process;
use crate::ngx::request::Request;

/// What becomes of a request.
pub(crate) enum Verdict {
    /// It goes to the proxy, after its turn in a leaky bucket.
    Proxy { delay_ms: u64 },
    /// Its body has to be scanned or its input counted first, which takes longer than others should wait; then it is to be
    /// decided again.
    Count,
    /// This instance's part of a limit over all instances has no room: it is to be decided again in a moment.
    Wait,
    /// The gateway answers.
    Reply(Reply),
}

/// Why a request does not go on now.
enum Stop {
    Reply(Reply),
    Count(Box<SlicedCount>),
    /// With what has been counted of it, if that had to be done.
    Wait(Option<Counted>),
}

impl From<Reply> for Stop {
    fn from(reply: Reply) -> Stop {
        Stop::Reply(reply)
    }
}

/// A request that is decided as far as can be now.
pub(crate) struct Undecided {
    step: Step,
    /// Its place in the queue.
    ticket: Option<Ticket>,
}

pub(super) enum Step {
    /// Its body is being scanned.
    Scan(Scanning),
    /// All is decided but for its limits.
    Limits(Unlimited),
}

/// A request whose limits need its exact count, or more of an allowance.
pub(super) struct Unlimited {
    facts: RequestFacts,
    asked: Asked,
    terms: Rc<Terms>,
    /// `None` if nothing is to be counted: it waits for an allowance.
    sliced: Option<Box<SlicedCount>>,
    counted: Option<Counted>,
}

/// A request that waits for its count keeps its place until it is counted or gone.
pub(crate) fn hold_ticket(context: &mut Context, ticket: Ticket) {
    if let Some(undecided) = &mut context.undecided {
        undecided.ticket = Some(ticket);
    }
}

/// Scans a waiting request's body or counts its input until about `until`; true once it can be decided.
pub(crate) fn count_request(
    w: &mut WorkerState,
    request: &Request,
    context: &mut Context,
    until: Instant,
) -> bool {
    let Some(mut undecided) = context.undecided.take() else {
        return true;
    };
    let body = request.body_in_place().unwrap_or_default();
    // A panic must not bring the request back here again and again: without a scan it is refused, without a count decided
    // by its upper bound.
    let done = match &mut undecided.step {
        Step::Scan(scanning) => guarded("scanning", true, || scanning.slice(body, until)),
        Step::Limits(Unlimited {
            sliced: Some(sliced),
            counted,
            ..
        }) => {
            let counting = context.counting();
            let now = guarded("counting", Counted::Impossible, || {
                counting.map_or(Counted::Impossible, |counting| {
                    let mut counter = w.tokenizers.counter(&counting);
                    sliced.slice(body, &counting.formula, &mut counter, until)
                })
            });
            *counted = Some(now);
            now != Counted::NotYet
        }
        Step::Limits(_) => true,
    };
    context.undecided = Some(undecided);
    done
}

/// Decides a request whose body has been read, or whose input has been counted since.
pub(crate) fn decide(w: &mut WorkerState, request: &mut Request, context: &mut Context) -> Verdict {
    let undecided = context.undecided.take();
    let mut facts = std::mem::take(&mut w.facts);
    let mut scratch = std::mem::take(&mut w.scratch);
    let result = Decider {
        w,
        context,
        facts: &mut facts,
        scratch: &mut scratch,
    }
    .run(request, undecided);
    w.facts = facts;
    // A huge body's copy is not kept for all the small ones after it.
    if scratch.capacity() > 1 << 20 {
        scratch = Vec::new();
    }
    w.scratch = scratch;
    match result {
        Ok(verdict) => verdict,
        Err(reply) => {
            context.stage = Stage::Closed;
            Verdict::Reply(reply)
        }
    }
}

/// Gives the model another name in the body that has already been rewritten once, and lowers its output maximum if asked.
pub(super) fn rename_model(
    w: &mut WorkerState,
    request: &mut Request,
    context: &mut Context,
    name: &str,
    clamp: Option<u64>,
) -> Result<(), ()> {
    let mut scratch = Vec::new();
    let body = request.body(&mut scratch)?;
    if body.is_empty() {
        return Ok(());
    }
    scan(body, context.api, &[], &mut w.facts).map_err(|_| ())?;
    let in_body = gemini::model_in_body(context.api, name);
    let mut rewrite = Rewrite::new(&w.facts);
    if w.facts.model.is_some() || context.gemini.is_none() {
        rewrite.set_model(&in_body);
    }
    if let Some(most) = clamp {
        rewrite.limit_output(most, injected_name(context.api, name));
    }
    // Only a body that no upstream has seen yet lacks it: the attempts before were translated ones.
    if reports_usage_if_asked(context) && !w.facts.include_usage() {
        rewrite.include_usage();
        context.hide_usage = true;
    }
    let mut out = Vec::with_capacity(rewrite.len(body.len()));
    rewrite.write_into(body, &mut out);
    request.replace_body(&out).ok_or(())
}

pub(super) struct Decider<'a> {
    pub w: &'a mut WorkerState,
    pub context: &'a mut Context,
    pub facts: &'a mut RequestFacts,
    pub scratch: &'a mut Vec<u8>,
}

/// What the rules asked for.
#[derive(Default)]
pub(super) struct Asked {
    pub model: Option<String>,
    pub version: Option<Arc<str>>,
    pub deployment: Option<Arc<str>>,
    pub cap: Option<u64>,
}

/// Bodies above this size are not copied where a few of their bytes change.
const SPLICED: u64 = 32 * 1024;

impl Decider<'_> {
    fn run(&mut self, request: &mut Request, undecided: Option<Box<Undecided>>) -> Result<Verdict, Reply> {
        let generation = Rc::clone(&self.context.generation);
        let body_len = match undecided.map(|undecided| undecided.step) {
            Some(Step::Limits(it)) => {
                *self.facts = it.facts;
                if self.context.api.counts_only() {
                    return self.count_only(request, it.asked, it.terms, it.counted);
                }
                return self.admit(request, it.asked, it.terms, it.counted);
            }
            Some(Step::Scan(scanning)) => self.scanned(scanning)?,
            None => {
                if let Some(attached) = &self.w.attached {
                    attached.worker.count_request(&attached.region);
                }
                match self.begin_scan(request, &generation)? {
                    Some(length) => length,
                    None => return Ok(Verdict::Count),
                }
            }
        };
        if self.context.channel.is_none() {
            self.channel_from_body(request)?;
        }
        let mut asked = self.apply_rules(request, &generation.rules)?;
        if self.context.api.lists_models() && matches!(request.method(), b"GET" | b"HEAD") {
            return Err(self.models(request));
        }
        let terms = self.find_model(request, &mut asked, body_len)?;
        if self.context.api.counts_only() {
            return self.count_only(request, asked, terms, None);
        }
        self.admit(request, asked, terms, None)
    }

    /// Reserves and prepares a request. `counted` is what came of counting its input, if that had to be done.
    fn admit(
        &mut self,
        request: &mut Request,
        asked: Asked,
        terms: Rc<Terms>,
        counted: Option<Counted>,
    ) -> Result<Verdict, Reply> {
        let grant = match self.reserve(request, &asked, &terms, counted) {
            Ok(grant) => grant,
            Err(Stop::Reply(reply)) => return Err(reply),
            Err(Stop::Count(sliced)) => return Ok(self.park(request, asked, terms, sliced)),
            Err(Stop::Wait(counted)) => return Ok(self.wait(asked, terms, counted)),
        };
        self.context.grant = Some(grant);
        // From here on a failure has to give the reservation back: settle() does, in the log phase.
        if stop::is_to_end(self.w, self.context) {
            return Err(stop::reply(self.context));
        }
        self.prepare(request, &asked, &grant)?;
        self.context.deadline_ms = self
            .context
            .model_view()
            .map_or(0, |m| self.context.start_ms.saturating_add(m.timeouts().total));
        self.context.stage = Stage::Admitted;
        Ok(Verdict::Proxy {
            delay_ms: grant.delay_ms,
        })
    }

    /// Answers a request that only asks how many tokens it has: no deployment is asked. It takes its connection and its
    /// place among the channel's requests, also while it waits to be counted, but no tokens.
    fn count_only(
        &mut self,
        request: &mut Request,
        asked: Asked,
        terms: Rc<Terms>,
        counted: Option<Counted>,
    ) -> Result<Verdict, Reply> {
        if self.context.grant.is_none() {
            match self.reserve(request, &asked, &terms, None) {
                Ok(grant) => self.context.grant = Some(grant),
                Err(Stop::Reply(reply)) => return Err(reply),
                Err(Stop::Count(sliced)) => return Ok(self.park(request, asked, terms, sliced)),
                Err(Stop::Wait(_)) => return Ok(self.wait(asked, terms, None)),
            }
        }
        let counted = match counted {
            Some(counted) => counted,
            None => {
                let Some(counting) = self.context.counting() else {
                    return Err(self.tokens_counted(Counted::Impossible));
                };
                let body = request.body(self.scratch).unwrap_or_default();
                let mut counter = self.w.tokenizers.counter(&counting);
                let (sliced, counted) =
                    SlicedCount::begin(self.context.api, body, &counting.formula, &mut counter);
                if counted == Counted::NotYet {
                    return Ok(self.park(request, asked, terms, Box::new(sliced)));
                }
                counted
            }
        };
        Err(self.tokens_counted(counted))
    }

    /// Keeps what is known of a request until its input is counted.
    fn park(
        &mut self,
        request: &Request,
        asked: Asked,
        terms: Rc<Terms>,
        mut sliced: Box<SlicedCount>,
    ) -> Verdict {
        if request.body_in_place().is_none() {
            // `scan_body` has copied it.
            sliced.keep(std::mem::take(self.scratch));
        }
        let facts = std::mem::take(self.facts);
        self.keep(Step::Limits(Unlimited {
            facts,
            asked,
            terms,
            sliced: Some(sliced),
            counted: Some(Counted::NotYet),
        }));
        Verdict::Count
    }

    pub(super) fn keep(&mut self, step: Step) {
        self.context.undecided = Some(Box::new(Undecided { step, ticket: None }));
    }

    /// Keeps what is known of a request until the daemon may have got more of a limit.
    fn wait(&mut self, asked: Asked, terms: Rc<Terms>, counted: Option<Counted>) -> Verdict {
        let facts = std::mem::take(self.facts);
        self.keep(Step::Limits(Unlimited {
            facts,
            asked,
            terms,
            sliced: None,
            counted,
        }));
        self.context.stage = Stage::Counted;
        Verdict::Wait
    }

    pub(super) fn fail(
        &mut self,
        class: Class,
        status: u16,
        kind: ErrorKind,
        code: &str,
        message: &str,
    ) -> Reply {
        self.context.class = class;
        Reply::error(
            self.context.api,
            status,
            kind,
            code,
            message,
            self.context.request_id(),
        )
    }

    pub(super) fn out_of_memory(&mut self) -> Reply {
        self.fail(
            Class::Internal,
            500,
            ErrorKind::Internal,
            "internal",
            "out of memory",
        )
    }

    fn apply_rules(&mut self, request: &Request, rules: &Rules) -> Result<Asked, Reply> {
        if rules.set.is_empty() {
            return Ok(Asked::default());
        }
        let generation = Rc::clone(&self.context.generation);
        let snapshot = generation.snapshot();
        let query_model = facts::query(request.args(), "model");
        let outcome = rules.set.evaluate(&GateFacts {
            request,
            body: self.facts,
            snapshot,
            channel: self
                .context
                .channel
                .and_then(|c| snapshot.channel(c))
                .map(|c| c.code()),
            // By its own name, so that no alias slips past a rule.
            model: self
                .named_model()
                .or(query_model.as_deref())
                .map(|name| snapshot.model(name.as_bytes()).map_or(name, |m| m.name())),
        });
        if !outcome.tags.is_empty() || !outcome.shadow.is_empty() {
            let tags = outcome.tags.join(",");
            self.context.remarks = Some(Box::new(Remarks {
                tags: (!tags.is_empty()).then(|| tags.into()),
                shadow: outcome.shadow,
            }));
        }
        match outcome.decision {
            Decision::Continue => {}
            Decision::Allow { rule } => self.context.rule = Some(Rc::from(&*rule)),
            Decision::Deny {
                rule,
                status,
                code,
                message,
            } => {
                self.context.rule = Some(Rc::from(&*rule));
                let text = if message.is_empty() {
                    format!("denied by the rule {rule:?}")
                } else {
                    message.to_string()
                };
                let reply = self.fail(Class::Rule, status, ErrorKind::of_status(status), &code, &text);
                return Err(reply.header(b"x-tollgate-rule", header_safe(&rule)));
            }
        }
        if let Some(code) = outcome.set_channel {
            let Some(channel) = snapshot.channel_by_code(code.as_bytes()).filter(|c| c.enabled()) else {
                let text = format!(
                    "a rule moved the request to the channel {code:?}, which does not exist or is disabled"
                );
                return Err(self.fail(Class::Rule, 403, ErrorKind::Permission, "unknown_channel", &text));
            };
            self.context.channel = Some(channel.index());
        }
        Ok(Asked {
            model: outcome.set_model.map(|m| m.to_string()),
            version: outcome.set_version,
            deployment: outcome.set_deployment,
            cap: outcome.cap_max_tokens,
        })
    }

    /// Output tokens for one answer that are wanted before any limit: the client's maximum or the model's default,
    /// under the model's ceiling and the rules' cap.
    fn wanted_output(&self, model: &ModelView<'_>, asked: &Asked) -> u64 {
        let ceiling = model.max_output_tokens().min(asked.cap.unwrap_or(u64::MAX));
        self.facts
            .max_output()
            .unwrap_or(model.default_max_tokens())
            .min(ceiling)
    }

    fn reserve(
        &mut self,
        request: &Request,
        asked: &Asked,
        terms: &Terms,
        counted: Option<Counted>,
    ) -> Result<Grant, Stop> {
        let generation = Rc::clone(&self.context.generation);
        let snapshot = generation.snapshot();
        let (Some(channel), Some(model), Some(counting)) = (
            self.context.channel.and_then(|c| snapshot.channel(c)),
            self.context.model.and_then(|m| snapshot.model_at(m)),
            self.context.counting(),
        ) else {
            return Err(self
                .fail(
                    Class::Internal,
                    500,
                    ErrorKind::Internal,
                    "internal",
                    "the channel or model is gone",
                )
                .into());
        };
        if terms.too_many {
            return Err(self
                .fail(
                    Class::Internal,
                    500,
                    ErrorKind::Internal,
                    "too_many_limits",
                    "more limits apply than a request can hold",
                )
                .into());
        }
        self.context.usage = terms.usage;
        self.context.output_bounded = terms.output_bounded;
        self.context.answers = self.facts.answers().max(1);
        let counts_only = self.context.api.counts_only();
        let output = if self.context.api.produces() {
            self.wanted_output(&model, asked)
                .saturating_mul(self.context.answers)
        } else {
            0
        };
        let mut demand = Demand {
            limits: &terms.limits,
            counters: terms.counters.as_deref(),
            input: if counts_only {
                0
            } else {
                self.facts
                    .input
                    .bound(&counting.formula, |bytes| counting.rule.most(bytes))
            },
            input_exact: counts_only || !terms.counts_input,
            output,
            expected_output: output.min(model.default_max_tokens()) / 4,
            min_output: snapshot
                .settings()
                .min_output_reservation()
                .saturating_mul(self.context.answers),
            usage: self.context.usage,
            may_wait: false,
            price: terms.price,
        };
        // While it was counted, time went on; and a lease may have ended while the body was read.
        let mut start_ms = self.context.start_ms;
        let settings = snapshot.settings();
        if settings.cluster() {
            start_ms = process::now_ms();
            let since = self.context.short_since_ms.unwrap_or(start_ms);
            demand.may_wait = start_ms < since.saturating_add(settings.lease_wait_ms());
        }
        let mut counted = counted;
        if let Some(counted) = counted {
            start_ms = process::now_ms();
            take_count(&mut demand, counted);
        }
        loop {
            let Some(attached) = self.w.attached.as_mut() else {
                return Err(self
                    .fail(
                        Class::Internal,
                        503,
                        ErrorKind::Unavailable,
                        "no_region",
                        "the shared memory is not there",
                    )
                    .into());
            };
            let now = attached.region.time_at(start_ms);
            let decided = attached.region.reserve(&mut attached.worker, now, &demand);
            if let Some(policy) = settings.lease_policy()
                && decided
                    .as_ref()
                    .err()
                    .is_none_or(|r| r.kind == RefusalKind::Limit)
            {
                let degraded = attached.region.decided_degraded(&demand, now);
                self.context.degraded = degraded.then_some(policy);
            }
            match decided {
                Ok(grant) => {
                    self.context.input = demand.input;
                    self.context.input_exact = demand.input_exact && terms.counts_input;
                    return Ok(grant);
                }
                Err(refusal) if refusal.kind == RefusalKind::LeaseShort => {
                    self.context.short_since_ms.get_or_insert(start_ms);
                    return Err(Stop::Wait(counted));
                }
                Err(refusal) if refusal.kind == RefusalKind::NeedsExactInput && !demand.input_exact => {
                    // Only near a limit: the upper bound is replaced by the count.
                    let body = request.body(self.scratch).unwrap_or_default();
                    let mut counter = self.w.tokenizers.counter(&counting);
                    let (sliced, count) =
                        SlicedCount::begin(self.context.api, body, &counting.formula, &mut counter);
                    if count == Counted::NotYet {
                        return Err(Stop::Count(Box::new(sliced)));
                    }
                    counted = Some(count);
                    take_count(&mut demand, count);
                }
                Err(refusal) => {
                    let limit = applicable(snapshot, &channel, &model).nth(refusal.limit);
                    return Err(self
                        .refused(&refusal, limit.as_ref(), terms.limits.get(refusal.limit))
                        .into());
                }
            }
        }
    }

    /// Chooses the deployment and makes the request fit for it.
    fn prepare(&mut self, request: &mut Request, asked: &Asked, grant: &Grant) -> Result<(), Reply> {
        let generation = Rc::clone(&self.context.generation);
        let snapshot = generation.snapshot();
        let by = self.context.model_view().and_then(|m| m.routing().affinity);
        if by == Some(AffinityView::Session) {
            self.context.session = session::find(self.w, request, self.context);
        } else if let Some(by) = by.filter(|_| self.context.affinity.is_none()) {
            let body = request.body(self.scratch).unwrap_or_default();
            self.context.affinity = route::affinity(request, self.context, body, by);
        }
        let Some(model) = self.context.model.and_then(|m| snapshot.model_at(m)) else {
            return Err(self.fail(
                Class::Internal,
                500,
                ErrorKind::Internal,
                "internal",
                "the model is gone",
            ));
        };
        let wanted = self.wanted_output(&model, asked);
        let granted = grant.output / self.context.answers;
        let bounded = self.context.output_bounded && granted < self.facts.max_output().unwrap_or(u64::MAX);
        let capped = self.facts.max_output().is_some_and(|m| m > wanted) || asked.cap.is_some();
        if grant.output > 0 && (bounded || capped) {
            self.context.output_limit = Some(if self.context.output_bounded {
                granted
            } else {
                wanted
            });
        }
        if self.context.api.is_gemini()
            && let Some(args) = facts::without(request.args(), gemini::KEY)
        {
            request.set_args(&args);
        }
        let mut refusal = None;
        let deployment = loop {
            let Some(deployment) = route::choose(self.w, self.context) else {
                return Err(self.unserved(request, refusal.as_ref()));
            };
            let protocol = snapshot.deployment(deployment).and_then(|d| d.provider());
            let way = protocol.map_or(Way::Native, |p| translate::way(self.context.api, p.protocol()));
            if way != Way::Native && self.strip_channel(request, snapshot.settings()) {
                // Its fields stand elsewhere now.
                self.scan_body(request, &generation.rules)?;
            }
            match route::aim(self.w, request, self.context, deployment) {
                Ok(()) => break deployment,
                Err(Misfit::Refused(field)) => {
                    route::release_quota(self.w, self.context);
                    refusal = refusal.or(Some(field));
                }
                Err(Misfit::Failed(reason)) => {
                    generation.complain(deployment, reason);
                    return Err(self.fail(
                        Class::Internal,
                        503,
                        ErrorKind::Unavailable,
                        "deployment_unusable",
                        reason,
                    ));
                }
            }
        };
        let Some(deployment) = snapshot.deployment(deployment) else {
            return Err(self.fail(
                Class::Internal,
                500,
                ErrorKind::Internal,
                "internal",
                "the deployment is gone",
            ));
        };

        if !self.context.input_exact {
            request.preserve_body();
        }
        let translated = self.context.translation.as_deref().is_some_and(|t| t.is_active());
        if !translated && (self.facts.model.is_some() || !self.context.api.takes_any_body()) {
            let in_body = gemini::model_in_body(self.context.api, deployment.upstream_model());
            let mut rewrite = Rewrite::new(self.facts);
            if self.facts.model.as_ref().is_some_and(|m| m.value != in_body) {
                rewrite.set_model(&in_body);
            }
            if let Some(most) = self.context.output_limit {
                rewrite.limit_output(most, injected_name(self.context.api, deployment.upstream_model()));
            }
            if reports_usage_if_asked(self.context) && !self.facts.include_usage() {
                rewrite.include_usage();
                self.context.hide_usage = true;
            }
            if !rewrite.is_empty() {
                // A large body's bytes stay where they are; a small one is faster in one piece.
                let installed = if request.body_len() > SPLICED {
                    let spliced = request.spliced(|body, piece| rewrite.pieces(body, piece));
                    spliced.and_then(|new| request.install_spliced(new))
                } else {
                    None
                };
                let installed = installed.or_else(|| {
                    let new = {
                        let body = request.body(self.scratch).unwrap_or_default();
                        request.text(rewrite.len(body.len()), |piece| rewrite.pieces(body, piece))
                    };
                    new.and_then(|new| request.install_body(&new))
                });
                if installed.is_none() {
                    return Err(self.out_of_memory());
                }
            }
        }
        let settings = snapshot.settings();
        if !translated {
            self.strip_channel(request, settings);
        }
        let header = |s| {
            if let SourceView::Header(h) = s {
                Some(h)
            } else {
                None
            }
        };
        let mut sources = settings.channel_sources().filter_map(header);
        // One header source is the rule; further ones are looked for in a second way.
        let (first, others) = (sources.next().unwrap_or_default(), sources.next().is_some());
        request.hide_headers(|name| {
            is_private(name)
                || (name.len() == first.len() && name.eq_ignore_ascii_case(first.as_bytes()))
                || (others && is_channel_header(settings, name))
        });
        Ok(())
    }
}

/// Whether a stream of the API reports usage only if the request asks for it.
fn reports_usage_if_asked(context: &Context) -> bool {
    context.stream && matches!(context.api, Api::ChatCompletions | Api::Completions)
}

/// The count takes the upper bound's place. Where none can be made, the bound has to do.
fn take_count(demand: &mut Demand<'_>, counted: Counted) {
    if let Counted::Tokens(tokens) = counted {
        demand.input = tokens.min(demand.input);
    }
    demand.input_exact = true;
}

/// The spelling of the output maximum that an upstream takes when the client named none.
fn injected_name(api: Api, upstream_model: &str) -> MaxTokensName {
    let reasoning = ["o1", "o3", "o4", "gpt-5", "gpt-6"]
        .iter()
        .any(|p| upstream_model.starts_with(p));
    match api {
        Api::Responses | Api::GeminiGenerate => MaxTokensName::MaxOutputTokens,
        Api::ChatCompletions if reasoning => MaxTokensName::MaxCompletionTokens,
        _ => MaxTokensName::MaxTokens,
    }
}
