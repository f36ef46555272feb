//! What the gate remembers of one request; lives in the request's pool.

use std::num::NonZeroU64;
use std::rc::Rc;

use tollgate_meter::Api;
use tollgate_policy::Shadowed;
use tollgate_policy::documents::LeasePolicy;
use tollgate_policy::snapshot::{ChannelView, DeploymentView, GroupView, ModelView};
use tollgate_shm::{Class, Failure, Grant, InflightIndex, UsageIndex};

use super::counting::Counting;
use super::decide::Undecided;
use super::gemini::GeminiRequest;
use super::pool::Tried;
use super::reply::Reply;
use super::response::Response;
use super::session::Session;
use super::translate::Translation;
use super::upstream::Upstream;
use super::worker::Generation;
use crate::ngx::request::PoolText;
use crate::ngx::running::Place;

/// How far a request has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Stage {
    /// The caller is known; the body has not been asked for.
    Identified,
    /// The body is being read, within the call that asked for it.
    Reading,
    /// The body is being read; the event loop serves others.
    Waiting,
    /// The body is there.
    BodyRead,
    /// The body is being scanned or the input counted, in slices; the event loop serves others.
    Counting,
    /// That is done, or a moment of waiting is over: it can be decided.
    Counted,
    /// Let through to the proxy.
    Admitted,
    /// Answered by the gateway, or failed.
    Closed,
}

/// Where the counts of a request come from.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
#[repr(u8)]
pub(crate) enum Source {
    #[default]
    None = 0,
    Upstream = 1,
    Counted = 2,
    Estimated = 3,
}

impl Source {
    pub fn name(self) -> &'static str {
        match self {
            Source::None => "none",
            Source::Upstream => "upstream",
            Source::Counted => "counted",
            Source::Estimated => "estimated",
        }
    }
}

/// What the request used, as far as it is known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Charged {
    pub input: u64,
    pub output: u64,
    pub cached: u64,
    pub reasoning: u64,
    pub source: Source,
}

/// What rules say of a request without deciding about it.
#[derive(Debug, Default)]
pub(crate) struct Remarks {
    /// Their labels, with commas between them.
    pub tags: Option<Rc<str>>,
    /// What those in shadow mode would have done.
    pub shadow: Vec<Shadowed>,
}

pub(crate) struct Context {
    pub stage: Stage,
    pub api: Api,
    /// What the attempt's deployment is spoken to in; `api`, unless the attempt is translated.
    pub upstream_api: Api,
    pub stream: bool,
    /// Whether the usage chunk of a stream was asked for by us and not by the client.
    pub hide_usage: bool,
    pub input_exact: bool,
    /// Whether the request has reached an upstream attempt.
    pub proxied: bool,
    pub settled: bool,
    /// Whether the answer came to its regular end.
    pub ended: bool,
    /// Whether the stream was ended at its reservation.
    pub cut: bool,
    /// Whether the stream was ended because its total time was over.
    pub overdue: bool,
    /// Whether an operator has ended it.
    pub stopped: bool,
    /// Whether some strict limit bounds the output.
    pub output_bounded: bool,
    /// The policy that decided about the request, while a lease that it needed had ended.
    pub degraded: Option<LeasePolicy>,
    pub attempts: u8,
    /// The level of the connection's log while nginx's own lines are kept out of it; 0 while they are not.
    pub log_level: u8,
    pub class: Class,
    pub generation: Rc<Generation>,
    pub channel: Option<u32>,
    pub model: Option<u32>,
    /// The model that was asked for, whose fallback chain counts.
    pub first_model: Option<u32>,
    /// Models of the chain that were looked at.
    pub fallbacks: u8,
    /// Deployments of the model that were tried.
    pub tried: Tried,
    /// The version that was asked for (`model@version`).
    pub version: Option<Rc<str>>,
    /// The deployment that was asked for by its id.
    pub pinned: Option<u32>,
    /// The channel's own route to the model's deployments.
    pub route: Option<u32>,
    /// The group of an experiment that the caller is in.
    pub group: Option<u32>,
    /// The caller's session with a deployment, where the model has such.
    pub session: Option<Session>,
    /// Upstream attempts that the request may make.
    pub most_attempts: u32,
    /// What keeps the caller with one deployment.
    pub affinity: Option<u64>,
    /// What the attempt holds of its provider's quota.
    pub quota: Option<InflightIndex>,
    /// When the first deployment that had no room has some again, milliseconds from now.
    pub quota_retry_ms: Option<NonZeroU64>,
    /// When the current attempt began.
    pub attempt_ms: u64,
    /// The status of the last attempt that has ended, and why it gave no answer.
    pub attempt_status: u16,
    pub attempt_failure: Option<Failure>,
    pub deployment: Option<u32>,
    pub usage: Option<UsageIndex>,
    pub grant: Option<Grant>,
    /// Answers that the output reservation is shared by (`n` × prompts).
    pub answers: u64,
    /// Input tokens reserved: exact, or an upper bound.
    pub input: u64,
    /// Output tokens of one answer that the upstream may produce, where that is less than the client says.
    pub output_limit: Option<u64>,
    pub request_id: [u8; 32],
    pub id_number: [u64; 2],
    pub traceparent: [u8; 55],
    pub start_ms: u64,
    pub first_byte_ms: Option<u64>,
    /// When the model's total time is over; 0 for never.
    pub deadline_ms: u64,
    /// Whether the client asks for a WebSocket.
    pub upgrade: bool,
    pub upstream_status: u16,
    pub limit_key: u64,
    /// Name of the limit or rule that decided against the request.
    pub limit: Option<Rc<str>>,
    pub rule: Option<Rc<str>>,
    /// What rules have noted of it; most requests meet none that does.
    pub remarks: Option<Box<Remarks>>,
    /// The client's path, before a provider's prefix replaced part of it.
    pub original_path: Option<Rc<str>>,
    /// The attempt's provider, and which of its credentials is sent.
    pub upstream: Option<Rc<Upstream>>,
    pub credential: u16,
    /// The header lines that only this attempt's upstream may see, as [`super::route::aim`] writes them.
    pub upstream_head: PoolText,
    pub reply: Option<Box<Reply>>,
    /// From the first attempt on that is translated.
    pub translation: Option<Box<Translation>>,
    /// A call of Gemini's API that names its model in the path.
    pub gemini: Option<Box<GeminiRequest>>,
    /// Since when it has been waiting for more of a limit over all instances.
    pub short_since_ms: Option<u64>,
    /// Its place among the requests that can be ended, from admission to settlement.
    pub running: Option<Place>,
    /// What is kept while the body is scanned or the input counted.
    pub undecided: Option<Box<Undecided>>,
    pub response: Response,
    pub charged: Charged,
    pub output: crate::ngx::filter::Output,
}

const _: () = assert!(size_of::<Context>() <= 768);

/// What a variable can show.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Field {
    Channel,
    Model,
    Deployment,
    Version,
    Provider,
    Decision,
    Rule,
    Limit,
    Class,
    InputTokens,
    OutputTokens,
    CachedTokens,
    ReasoningTokens,
    UsageSource,
    RequestId,
    Tags,
    Experiment,
    ExperimentGroup,
    Degraded,
    Generation,
    UpstreamHead,
    UpstreamTlsName,
}

/// A variable's value.
pub(crate) enum Variable<'a> {
    None,
    Text(&'a [u8]),
    Number(u64),
}

impl<'a> From<Option<&'a str>> for Variable<'a> {
    fn from(text: Option<&'a str>) -> Variable<'a> {
        text.map_or(Variable::None, |t| t.as_bytes().into())
    }
}

impl<'a> From<&'a [u8]> for Variable<'a> {
    fn from(text: &'a [u8]) -> Variable<'a> {
        if text.is_empty() {
            Variable::None
        } else {
            Variable::Text(text)
        }
    }
}

impl Context {
    pub fn channel_view(&self) -> Option<ChannelView<'_>> {
        self.generation.snapshot().channel(self.channel?)
    }

    pub fn model_view(&self) -> Option<ModelView<'_>> {
        self.generation.snapshot().model_at(self.model?)
    }

    /// How the model is counted.
    pub fn counting(&self) -> Option<Rc<Counting>> {
        self.generation.counting(self.model?)
    }

    pub fn deployment_view(&self) -> Option<DeploymentView<'_>> {
        self.generation.snapshot().deployment(self.deployment?)
    }

    pub fn group_view(&self) -> Option<GroupView<'_>> {
        self.generation.snapshot().group(self.group?)
    }

    /// The response header that says the caller's group: its name, and what stands in it.
    pub fn group_header(&self) -> Option<(&str, String)> {
        let group = self.group_view()?;
        let experiment = group.experiment().filter(|e| !e.header().is_empty())?;
        Some((
            experiment.header(),
            format!("{}={}", experiment.name(), group.name()),
        ))
    }

    /// What rules in shadow mode would have done.
    pub fn shadow(&self) -> &[Shadowed] {
        self.remarks.as_ref().map_or(&[], |remarks| &remarks.shadow)
    }

    pub fn request_id(&self) -> &str {
        std::str::from_utf8(&self.request_id).unwrap_or_default()
    }

    /// Marks the request as answered by the gateway.
    pub fn refuse(&mut self, class: Class, reply: Reply) -> Reply {
        self.stage = Stage::Closed;
        self.class = class;
        reply
    }

    pub fn take_reply(&mut self) -> Option<Box<Reply>> {
        self.reply.take()
    }

    /// How long to wait for the upstream: to connect, for the first byte, between pieces; milliseconds.
    pub fn timeouts_ms(&self) -> Option<[u64; 3]> {
        let timeouts = self.model_view()?.timeouts();
        Some([timeouts.connect, timeouts.first_token, timeouts.idle])
    }

    fn decision(&self) -> &'static str {
        match (self.stage, self.class) {
            (Stage::Closed, Class::Ok) => "answered",
            (Stage::Closed, Class::Client) => "refused",
            (Stage::Closed, Class::Rule) => "denied",
            (Stage::Closed, Class::Limit) => "limited",
            (Stage::Closed, _) => "failed",
            _ if self.stopped => "ended",
            _ if self.cut => "cut",
            (Stage::Admitted, _) => "admitted",
            _ => "",
        }
    }

    pub fn variable(&self, field: Field) -> Variable<'_> {
        match field {
            Field::Channel => self.channel_view().map(|c| c.code()).into(),
            Field::Model => self.model_view().map(|m| m.name()).into(),
            Field::Deployment => self.deployment_view().map(|d| d.id()).into(),
            Field::Version => self.deployment_view().map(|d| d.version()).into(),
            Field::Provider => self
                .deployment_view()
                .and_then(|d| d.provider())
                .map(|p| p.id())
                .into(),
            Field::Decision => Some(self.decision()).into(),
            Field::Rule => self.rule.as_deref().into(),
            Field::Limit => self.limit.as_deref().into(),
            Field::Class if self.settled => Some(self.class.name()).into(),
            Field::Class => Variable::None,
            Field::InputTokens => Variable::Number(self.charged.input),
            Field::OutputTokens => Variable::Number(self.charged.output),
            Field::CachedTokens => Variable::Number(self.charged.cached),
            Field::ReasoningTokens => Variable::Number(self.charged.reasoning),
            Field::UsageSource => Some(self.charged.source.name()).into(),
            Field::RequestId => Some(self.request_id()).into(),
            Field::Tags => self
                .remarks
                .as_ref()
                .and_then(|remarks| remarks.tags.as_deref())
                .into(),
            Field::Experiment => self
                .group_view()
                .and_then(|g| g.experiment())
                .map(|e| e.name())
                .into(),
            Field::ExperimentGroup => self.group_view().map(|g| g.name()).into(),
            Field::Degraded => self.degraded.map(LeasePolicy::name).into(),
            Field::Generation => Variable::Number(self.generation.number),
            Field::UpstreamHead => self.upstream_head.bytes().into(),
            Field::UpstreamTlsName => self
                .deployment_view()
                .and_then(|d| d.provider())
                .map(|p| p.tls_name())
                .into(),
        }
    }
}
