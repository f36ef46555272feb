//! Public models and their deployments.

use super::{Experiment, Limit, Price, Relief, Routing, Span, channel::yes};
use schemars::JsonSchema;
use serde::Deserialize;

/// How long each stage of a request may take.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Timeouts {
    /// To connect, TLS included.
    pub connect: Span,
    /// From the request's last byte to the answer's first.
    pub first_token: Span,
    /// Between two pieces of the answer.
    pub idle: Span,
    /// All of it.
    pub total: Span,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Span::from_millis(5_000),
            first_token: Span::from_millis(60_000),
            idle: Span::from_millis(60_000),
            total: Span::from_millis(600_000),
        }
    }
}

/// One provider endpoint for a model.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Deployment {
    /// Unique in the whole configuration; `<model>/<provider>` by default.
    pub id: Option<String>,
    /// The provider's id.
    pub provider: String,
    /// What the provider calls the model; the model's name by default.
    pub upstream_model: Option<String>,
    /// Share of the traffic among the model's deployments, 0..=1,000,000.
    #[serde(default = "default_weight")]
    pub weight: u32,
    /// Free version label.
    #[serde(default)]
    pub version: String,
    /// A disabled deployment gets no requests.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// What the provider takes for it.
    pub cost: Option<Price>,
    /// Its provider's own quota: a deployment without room is passed over.
    #[serde(default)]
    pub limits: Vec<Limit>,
}

impl Deployment {
    /// The id, by default `<model>/<provider>`.
    pub fn id(&self, model: &str) -> String {
        self.id
            .clone()
            .unwrap_or_else(|| format!("{model}/{}", self.provider))
    }
}

fn default_weight() -> u32 {
    100
}

/// A public model.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Model {
    /// What clients write in the body, at most 128 bytes.
    pub name: String,
    /// Other names for it.
    #[serde(default)]
    pub aliases: Vec<String>,
    /// Where requests go.
    pub deployments: Vec<Deployment>,
    /// What channels pay for it.
    pub price: Option<Price>,
    /// Limits over all channels together.
    #[serde(default)]
    pub limits: Vec<Limit>,
    /// Limits of these that were reset or topped up.
    #[serde(default)]
    pub relief: Vec<Relief>,
    /// The most output tokens that a client may ask for.
    #[serde(default = "default_ceiling")]
    pub max_output_tokens: u64,
    /// What is asked for if the client names no maximum.
    #[serde(default = "default_output")]
    pub default_max_tokens: u64,
    /// Longest request body, in bytes; at most 256 MiB.
    #[serde(default = "default_body")]
    pub max_body_bytes: u64,
    /// How long each stage may take.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// What tokens are counted with: a tokenizer on board, or a file in the tokenizers' folder by its name; by the counting
    /// rules and the model's name by default.
    pub tokenizer: Option<String>,
    /// How many times our own count an upstream may report before its usage is called suspicious; the settings' by default.
    pub suspicious_usage_factor: Option<f64>,
    /// Models to try if this one cannot answer, in order.
    #[serde(default)]
    pub fallback: Vec<String>,
    /// How its requests are spread over its deployments.
    #[serde(default)]
    pub routing: Routing,
    /// Callers sorted into groups.
    pub experiment: Option<Experiment>,
}

fn default_ceiling() -> u64 {
    16_384
}

fn default_output() -> u64 {
    4_096
}

fn default_body() -> u64 {
    16 << 20
}
