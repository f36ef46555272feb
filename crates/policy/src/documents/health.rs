//! How a provider's health is probed.

use super::Span;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, de};
use std::borrow::Cow;
use std::fmt;

/// What a probe does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProbeKind {
    /// One HTTP request.
    #[default]
    Http,
    /// A TCP connection, closed at once.
    Tcp,
    /// A real answer of a model. It costs money.
    Completion,
}

impl ProbeKind {
    /// Name in documents, the API and metrics.
    pub fn name(self) -> &'static str {
        match self {
            ProbeKind::Http => "http",
            ProbeKind::Tcp => "tcp",
            ProbeKind::Completion => "completion",
        }
    }
}

/// What one probe speaks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ProbeScope {
    /// All deployments at the provider.
    #[default]
    Provider,
    /// One deployment; each has probes of its own.
    Deployment,
}

/// Method of an HTTP probe. None has a body.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "UPPERCASE")]
pub enum ProbeMethod {
    /// `GET`
    #[default]
    Get,
    /// `HEAD`
    Head,
    /// `OPTIONS`
    Options,
    /// `POST`
    Post,
}

impl ProbeMethod {
    /// As it stands in a request.
    pub fn name(self) -> &'static str {
        match self {
            ProbeMethod::Get => "GET",
            ProbeMethod::Head => "HEAD",
            ProbeMethod::Options => "OPTIONS",
            ProbeMethod::Post => "POST",
        }
    }
}

/// Statuses of an HTTP answer: a number such as `200` or a range such as `"200-399"`, both ends included; 100..=599.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct StatusRange {
    from: u16,
    to: u16,
}

impl StatusRange {
    /// Whether the status is one of them.
    pub fn contains(self, status: u16) -> bool {
        (self.from..=self.to).contains(&status)
    }

    fn new(from: u16, to: u16) -> Option<Self> {
        let known = 100..=599;
        (known.contains(&from) && known.contains(&to) && from <= to).then_some(Self { from, to })
    }

    fn parse(text: &str) -> Option<Self> {
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        Self::new(from.trim().parse().ok()?, to.trim().parse().ok()?)
    }
}

impl<'de> Deserialize<'de> for StatusRange {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Visitor;
        impl de::Visitor<'_> for Visitor {
            type Value = StatusRange;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a status such as 200 or a range such as \"200-399\", within 100..=599")
            }
            fn visit_u64<E: de::Error>(self, number: u64) -> Result<StatusRange, E> {
                u16::try_from(number)
                    .ok()
                    .and_then(|n| StatusRange::new(n, n))
                    .ok_or_else(|| E::invalid_value(de::Unexpected::Unsigned(number), &self))
            }
            fn visit_i64<E: de::Error>(self, number: i64) -> Result<StatusRange, E> {
                u64::try_from(number)
                    .map_err(|_| E::invalid_value(de::Unexpected::Signed(number), &self))
                    .and_then(|n| self.visit_u64(n))
            }
            fn visit_str<E: de::Error>(self, text: &str) -> Result<StatusRange, E> {
                StatusRange::parse(text).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_any(Visitor)
    }
}

impl JsonSchema for StatusRange {
    fn schema_name() -> Cow<'static, str> {
        "StatusRange".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "oneOf": [
            { "type": "integer", "minimum": 100, "maximum": 599 },
            { "type": "string", "pattern": "^[1-5][0-9][0-9](-[1-5][0-9][0-9])?$" },
        ] })
    }
}

/// How a provider's health is probed by the daemon. Probes carry the provider's credential, Host and TLS settings.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct HealthCheck {
    /// What a probe does.
    #[serde(rename = "type", default)]
    pub kind: ProbeKind,
    /// What a probe speaks for; a `completion` always for one deployment.
    #[serde(default)]
    pub per: ProbeScope,
    /// `http`: its method.
    #[serde(default)]
    pub method: ProbeMethod,
    /// `http`: path and query to ask for, beginning with `/`, from the host's root: the base URL's prefix is not put
    /// before it. Where probes are per deployment, `{model}` stands for the model's name at the provider.
    pub path: Option<String>,
    /// `http`: statuses of a healthy provider, 200-399 by default.
    pub expected_status: Option<Vec<StatusRange>>,
    /// `http`: text that must stand in the first 64 KiB of the answer.
    pub body_contains: Option<String>,
    /// `completion`: probes in a minute over all deployments of the provider, 1..=60. More than fit wait for their turn.
    pub max_per_minute: Option<u32>,
    /// `completion`: tokens to ask for, 1..=64. Models that think before they answer may need more than one.
    pub max_tokens: Option<u32>,
    /// Time between probes, at least 1 s.
    #[serde(default = "ten_seconds")]
    pub interval: Span,
    /// How long a probe may take; 2 s by default, 10 s for a `completion`, never more than `interval`.
    pub timeout: Option<Span>,
    /// Share of the interval by which probes come earlier or later, at random, percent; 0..=50.
    #[serde(default = "ten")]
    pub jitter_percent: u32,
    /// Probes in a row that must fail.
    #[serde(default = "three")]
    pub unhealthy_after: u32,
    /// Probes in a row that must succeed again.
    #[serde(default = "two")]
    pub healthy_after: u32,
}

fn ten_seconds() -> Span {
    Span::from_millis(10_000)
}

fn ten() -> u32 {
    10
}

fn three() -> u32 {
    3
}

fn two() -> u32 {
    2
}

impl HealthCheck {
    /// How long a probe may take.
    pub fn timeout(&self) -> Span {
        let usual = match self.kind {
            ProbeKind::Http | ProbeKind::Tcp => 2_000,
            ProbeKind::Completion => 10_000,
        };
        self.timeout
            .unwrap_or_else(|| Span::from_millis(usual).min(self.interval))
    }

    /// Whether each deployment has probes of its own.
    pub fn per_deployment(&self) -> bool {
        self.kind == ProbeKind::Completion || self.per == ProbeScope::Deployment
    }

    /// Whether this status shows a healthy provider.
    pub fn expects(&self, status: u16) -> bool {
        match &self.expected_status {
            Some(ranges) => ranges.iter().any(|range| range.contains(status)),
            None => (200..=399).contains(&status),
        }
    }

    /// Completions in a minute.
    pub fn max_per_minute(&self) -> u32 {
        self.max_per_minute.unwrap_or(6)
    }

    /// Tokens that a completion asks for.
    pub fn max_tokens(&self) -> u32 {
        self.max_tokens.unwrap_or(1)
    }
}
