//! Limits, as channels, templates, models and settings write them.

use crate::duration::Span;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Metric {
    /// Requests in flight.
    Connections,
    /// Requests admitted.
    Requests,
    /// Tokens of the prompt.
    InputTokens,
    /// Tokens of the answer.
    OutputTokens,
    /// Both.
    TotalTokens,
    /// Money, by the model's price; in millionths of the currency's unit.
    Cost,
}

impl Metric {
    /// The metric's name in documents.
    pub const fn name(self) -> &'static str {
        match self {
            Metric::Connections => "connections",
            Metric::Requests => "requests",
            Metric::InputTokens => "input_tokens",
            Metric::OutputTokens => "output_tokens",
            Metric::TotalTokens => "total_tokens",
            Metric::Cost => "cost",
        }
    }
}

/// How a limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Algorithm {
    /// No window of the given length, wherever it begins, holds more than the maximum.
    SlidingWindow,
    /// Windows begin at multiples of their length.
    FixedWindow,
    /// Refills at `max` per `window`, holds `burst`.
    TokenBucket,
    /// Lets `max` per `window` pass evenly and delays the rest, up to `max_delay`.
    LeakyBucket,
    /// How many at once; for connections.
    Concurrency,
}

/// When the usage of a request is known to fit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Enforcement {
    /// Reserved before the request is proxied: never more than the maximum.
    #[default]
    Strict,
    /// An expected usage is reserved and settled later.
    Soft,
}

/// What a limit answers that finds no room in the counter table.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum OnFull {
    /// Refuse the request.
    #[default]
    Closed,
    /// Let the request pass uncounted.
    Open,
}

/// A limit: metric + maximum + window + algorithm; the scope is where it stands and `model`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Limit {
    /// How refusals and statistics call it; made of metric and window by default, unique where it stands.
    pub name: Option<String>,
    /// What is counted.
    pub metric: Metric,
    /// The most that is admitted in a window, 0..=2^39-1; 0 blocks. For `cost` in millionths of the currency's unit.
    pub max: u64,
    /// Length of the window; none for connections.
    pub window: Option<Span>,
    /// How it is counted: `concurrency` for connections, else `sliding_window` by default.
    pub algorithm: Option<Algorithm>,
    /// How much a token bucket holds; `max` by default.
    pub burst: Option<u64>,
    /// The longest delay by a leaky bucket, at most 60 s; 1 s by default.
    pub max_delay: Option<Span>,
    /// Strict or soft; what the channel says by default.
    pub enforcement: Option<Enforcement>,
    /// Only requests for this model (name or glob).
    pub model: Option<String>,
    /// Each model has a counter of its own.
    #[serde(default)]
    pub per_model: bool,
    /// What a full counter table answers.
    #[serde(default)]
    pub on_full: OnFull,
}

impl Limit {
    /// The largest maximum: 2^39 - 1, half of what a counter holds, so that adding before verifying cannot wrap.
    pub const MAX: u64 = (1 << 39) - 1;

    /// The algorithm, by default the metric's usual one.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm.unwrap_or(match self.metric {
            Metric::Connections => Algorithm::Concurrency,
            _ => Algorithm::SlidingWindow,
        })
    }

    /// The window in milliseconds, 0 without one.
    pub fn window_ms(&self) -> u64 {
        self.window.map_or(0, Span::as_millis)
    }

    /// The name, by default such as `input_tokens/10m`, `output_tokens/10m:gpt-4o`, `requests/1s:each model`.
    pub fn display_name(&self) -> String {
        if let Some(name) = &self.name {
            return name.clone();
        }
        let mut name = self.metric.name().to_owned();
        if let Some(window) = self.window {
            name = format!("{name}/{window}");
        }
        match (&self.model, self.per_model) {
            (Some(model), false) => format!("{name}:{model}"),
            (Some(model), true) => format!("{name}:each {model}"),
            (None, true) => format!("{name}:each model"),
            (None, false) => name,
        }
    }
}
