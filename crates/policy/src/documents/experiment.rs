//! Experiments: callers of a model sorted into groups, each of which may be served in its own way.

use schemars::JsonSchema;
use serde::Deserialize;

/// Callers of a model, sorted into named groups. Requests whose version or deployment somebody else has chosen (the client,
/// a rule, the channel's route) take no part.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Experiment {
    /// Unique in the whole configuration, 1..=64 letters, digits, `-`, `_` or `.`; another name sorts callers anew.
    pub name: String,
    /// What makes a caller: `header.<name>`, `cookie.<name>`, `body.<path>`, `channel` or `client.ip`. Requests without it
    /// take no part.
    pub by: String,
    /// A switched-off experiment sorts nobody.
    #[serde(default = "super::channel::yes")]
    pub enabled: bool,
    /// Name of the response header that says `<experiment>=<group>`; none by default.
    pub header: Option<String>,
    /// 1..=16 groups, whose shares are at most 100 together. Callers beyond that are in none.
    pub groups: Vec<Group>,
}

/// A group of an experiment. Without any effect it is served as everybody else.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Group {
    /// Unique in the experiment, 1..=64 letters, digits, `-`, `_` or `.`.
    pub name: String,
    /// Percent of the callers, 0..=100 in steps of 0.001.
    pub share: f64,
    /// Goes on with deployments of this version.
    pub set_version: Option<String>,
    /// Goes on with this deployment, whatever its weight.
    pub set_deployment: Option<String>,
    /// Goes on with this model. Channels that may not use it take no part in the experiment.
    pub set_model: Option<String>,
    /// The most output tokens of an answer.
    pub cap_max_tokens: Option<u64>,
}
