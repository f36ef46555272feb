//! A dry run: what the gateway would do with a request, step by step, and why. Takes nothing from any limit. The
//! steps are those of the module's gate; the end-to-end tests hold the two against each other.

mod decide;
mod identify;
mod request;
mod route;

pub use decide::explain;
pub use request::ExplainRequest;
pub use route::by_name;

use schemars::JsonSchema;
use serde::Serialize;

use crate::live::LiveLimit;

/// What would happen, and why.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Explanation {
    /// Whether the request would be proxied.
    pub admitted: bool,
    /// What decided: `admitted`, `maintenance`, `channel`, `body`, `rule`, `model`, `permission`, `limit` or `route`.
    pub decided_by: &'static str,
    /// HTTP status of a refusal.
    pub status: Option<u16>,
    /// Code of a refusal.
    pub code: String,
    /// In words.
    pub message: String,
    /// Who is calling.
    pub channel: ExplainedChannel,
    /// Every rule.
    pub rules: Vec<ExplainedRule>,
    /// What the rules changed.
    pub changes: Changes,
    /// The model.
    pub model: Option<ExplainedModel>,
    /// Input tokens.
    pub input: Option<ExplainedInput>,
    /// Output tokens.
    pub output: Option<ExplainedOutput>,
    /// Every limit that applies.
    pub limits: Vec<ExplainedLimit>,
    /// The channel's own route for the model.
    pub route: Option<ExplainedRoute>,
    /// The model's experiment.
    pub experiment: Option<ExplainedExperiment>,
    /// Only deployments of this version.
    pub version: Option<String>,
    /// Models that stand in, in their order.
    pub fallback: Vec<String>,
    /// Where it could go.
    pub deployments: Vec<ExplainedDeployment>,
}

/// Who is calling.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct ExplainedChannel {
    /// The channel's code; `None` if none was found.
    pub code: Option<String>,
    /// Where the request says so, such as `header channelcode`.
    pub source: Option<String>,
    /// Id of the key that proved it; `None` for a trusted channel.
    pub key: Option<String>,
}

/// What became of a rule.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct ExplainedRule {
    /// Its name.
    pub rule: String,
    /// Whether it matched; `None` if an earlier one had ended the evaluation.
    pub matched: Option<bool>,
    /// The condition that did not hold.
    pub failed: Option<String>,
}

/// What rules changed.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Changes {
    /// The channel it goes on as.
    pub channel: Option<String>,
    /// The model it goes on with.
    pub model: Option<String>,
    /// The version it goes on with.
    pub version: Option<String>,
    /// The deployment it goes on with.
    pub deployment: Option<String>,
    /// The most output tokens.
    pub cap_max_tokens: Option<u64>,
    /// Labels.
    pub tags: Vec<String>,
    /// What shadow rules would have done: rule and action.
    pub shadow: Vec<(String, String)>,
}

/// The model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct ExplainedModel {
    /// The name that was asked for.
    pub asked: String,
    /// The canonical name; `None` if there is no such model.
    pub name: Option<String>,
    /// Whether the channel may use it.
    pub permitted: bool,
}

/// Input tokens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct ExplainedInput {
    /// Exact count.
    pub tokens: u64,
    /// The bound that is used while limits are far from full.
    pub bound: u64,
    /// Whether a part could only be estimated, or the tokenizer is only the nearest we have.
    pub estimated: bool,
    /// The counting rule; empty for the defaults.
    pub rule: String,
    /// Version of all that decides the count.
    pub version: String,
    /// The tokenizer; empty for ratios per character.
    pub tokenizer: String,
}

/// Output tokens.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct ExplainedOutput {
    /// What the client, the model's default and the rules make of it, over all answers.
    pub wanted: u64,
    /// What is left of it after clamping by strict limits.
    pub reserved: u64,
}

/// A limit and what the request does to it.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct ExplainedLimit {
    /// Its level before.
    #[serde(flatten)]
    pub before: LiveLimit,
    /// Units that the request takes.
    pub wanted: u64,
    /// Units used after that.
    pub after: u64,
    /// Whether they fit.
    pub fits: bool,
}

/// A channel's own route: what it says of the request's model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct ExplainedRoute {
    /// The glob that matched.
    pub model: String,
    /// Only deployments of this version.
    pub version: Option<String>,
    /// Only this deployment.
    pub deployment: Option<String>,
    /// Whether it gives the deployments weights of its own.
    pub weights: bool,
    /// Whether it names the models that stand in.
    pub fallback: bool,
}

/// The model's experiment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct ExplainedExperiment {
    /// Its name.
    pub name: String,
    /// What makes a caller.
    pub by: String,
    /// The caller's group.
    pub group: Option<String>,
    /// Why there is none.
    pub reason: &'static str,
}

/// A deployment.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct ExplainedDeployment {
    /// Its id.
    pub id: String,
    /// Its provider.
    pub provider: String,
    /// What the provider calls the model.
    pub upstream_model: String,
    /// Its version label.
    pub version: String,
    /// Whether it can be chosen.
    pub usable: bool,
    /// The part of requests it gets, 0..=1.
    pub share: f64,
    /// Its addresses.
    pub addresses: Vec<String>,
}
