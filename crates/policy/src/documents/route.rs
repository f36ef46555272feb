//! How a channel's requests are routed, where that differs from what the model says.

use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// A channel's own way to the deployments of certain models. The first that matches a model counts, a channel's own before
/// those that it inherits. What it says of a version or of deployments that a model does not have does not concern that
/// model.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Route {
    /// Names of models, by glob.
    pub model: String,
    /// Only deployments of this version, unless the client or a rule asks for another; `latest` is the model's.
    pub version: Option<String>,
    /// Only this deployment, whatever its weight.
    pub deployment: Option<String>,
    /// Weights of deployments by id, in place of the model's; those that are not named get none. 0..=1,000,000.
    pub weights: Option<BTreeMap<String, u32>>,
    /// Models to try if this one cannot answer, in place of the model's; an empty list for none.
    pub fallback: Option<Vec<String>>,
}
