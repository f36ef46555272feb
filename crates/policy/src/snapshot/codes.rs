//! Numbers of enumerations in records. They are part of the format.

use crate::documents::{
    AbortPolicy, Affinity, Algorithm, Balance, CredentialKind, Enforcement, Metric, OnFull, Protocol,
    SameSite,
};

/// An enumeration that stands in a record as one byte.
pub(crate) trait Code: Copy + PartialEq + 'static {
    /// Position is number; the first is what an unknown number reads as.
    const ALL: &'static [Self];

    fn code(self) -> u8 {
        Self::ALL
            .iter()
            .position(|value| *value == self)
            .and_then(|at| u8::try_from(at).ok())
            .unwrap_or_default()
    }

    fn from_code(code: u8, otherwise: Self) -> Self {
        Self::ALL.get(usize::from(code)).copied().unwrap_or(otherwise)
    }
}

impl Code for Metric {
    const ALL: &'static [Self] = &[
        Metric::Connections,
        Metric::Requests,
        Metric::InputTokens,
        Metric::OutputTokens,
        Metric::TotalTokens,
        Metric::Cost,
    ];
}

impl Code for Algorithm {
    const ALL: &'static [Self] = &[
        Algorithm::SlidingWindow,
        Algorithm::FixedWindow,
        Algorithm::TokenBucket,
        Algorithm::LeakyBucket,
        Algorithm::Concurrency,
    ];
}

impl Code for Enforcement {
    const ALL: &'static [Self] = &[Enforcement::Strict, Enforcement::Soft];
}

impl Code for OnFull {
    const ALL: &'static [Self] = &[OnFull::Closed, OnFull::Open];
}

impl Code for AbortPolicy {
    const ALL: &'static [Self] = &[AbortPolicy::Counted, AbortPolicy::Reserved];
}

impl Code for Protocol {
    const ALL: &'static [Self] = &[
        Protocol::Other,
        Protocol::Openai,
        Protocol::Anthropic,
        Protocol::Gemini,
    ];
}

impl Code for CredentialKind {
    const ALL: &'static [Self] = &[
        CredentialKind::None,
        CredentialKind::Bearer,
        CredentialKind::XApiKey,
        CredentialKind::Header,
    ];
}

impl Code for Balance {
    const ALL: &'static [Self] = &[
        Balance::Weighted,
        Balance::RoundRobin,
        Balance::LeastConnections,
        Balance::Latency,
    ];
}

impl Code for SameSite {
    const ALL: &'static [Self] = &[SameSite::Lax, SameSite::Strict, SameSite::None];
}

/// What keeps a caller with one deployment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AffinityView<'a> {
    /// A request header, in lower case.
    Header(&'a str),
    /// A cookie.
    Cookie(&'a str),
    /// A field of the JSON body, by canonical path.
    Body(&'a str),
    /// The channel.
    Channel,
    /// The client's address.
    ClientIp,
    /// The beginning of the prompt.
    Prompt,
    /// A cookie that the gateway sets and signs.
    Session,
}

impl<'a> AffinityView<'a> {
    pub(crate) fn from_code(code: u8, name: &'a str) -> Option<Self> {
        Some(match code {
            1 => AffinityView::Header(name),
            2 => AffinityView::Cookie(name),
            3 => AffinityView::Body(name),
            4 => AffinityView::Channel,
            5 => AffinityView::ClientIp,
            6 => AffinityView::Prompt,
            7 => AffinityView::Session,
            _ => return None,
        })
    }

    /// The number in a record, and the name beside it.
    pub(crate) fn code(affinity: Option<&Affinity>) -> (u8, &str) {
        match affinity {
            None => (0, ""),
            Some(Affinity::Header(name)) => (1, name),
            Some(Affinity::Cookie(name)) => (2, name),
            Some(Affinity::Body(path)) => (3, path),
            Some(Affinity::Channel) => (4, ""),
            Some(Affinity::ClientIp) => (5, ""),
            Some(Affinity::Prompt) => (6, ""),
            Some(Affinity::Session) => (7, ""),
        }
    }
}

/// Whose usage a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// One channel, all models.
    Channel,
    /// One channel, certain models or each model by itself.
    ChannelModel,
    /// One model, all channels.
    Model,
    /// Everything.
    Global,
    /// One deployment, all channels.
    Deployment,
}

impl Code for Scope {
    const ALL: &'static [Self] = &[
        Scope::Channel,
        Scope::ChannelModel,
        Scope::Model,
        Scope::Global,
        Scope::Deployment,
    ];
}

impl Scope {
    /// The scope's name in logs and the API.
    pub const fn name(self) -> &'static str {
        match self {
            Scope::Channel => "channel",
            Scope::ChannelModel => "channel_model",
            Scope::Model => "model",
            Scope::Global => "global",
            Scope::Deployment => "deployment",
        }
    }
}

/// How a limit's model is matched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ModelMatch {
    Any,
    Exact,
    Glob,
}

impl Code for ModelMatch {
    const ALL: &'static [Self] = &[ModelMatch::Any, ModelMatch::Exact, ModelMatch::Glob];
}

/// Where a request says which channel it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceView<'a> {
    /// A request header.
    Header(&'a str),
    /// A query parameter.
    Query(&'a str),
    /// A cookie.
    Cookie(&'a str),
    /// A field of the JSON body, by path.
    Body(&'a str),
    /// The bearer token or `x-api-key`.
    ApiKey,
}

impl<'a> SourceView<'a> {
    pub(crate) fn from_code(code: u32, name: &'a str) -> Option<Self> {
        Some(match code {
            0 => SourceView::Header(name),
            1 => SourceView::Query(name),
            2 => SourceView::Cookie(name),
            3 => SourceView::Body(name),
            4 => SourceView::ApiKey,
            _ => return None,
        })
    }

    pub(crate) fn code(self) -> (u32, &'a str) {
        match self {
            SourceView::Header(name) => (0, name),
            SourceView::Query(name) => (1, name),
            SourceView::Cookie(name) => (2, name),
            SourceView::Body(name) => (3, name),
            SourceView::ApiKey => (4, ""),
        }
    }
}
