//! Channels and the templates they extend.

use super::{Enforcement, Instant, Limit, Moment, Relief, Route, Sha256Hex};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// What a client that goes away is charged.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum AbortPolicy {
    /// What was produced until then.
    #[default]
    Counted,
    /// The whole reservation.
    Reserved,
}

/// Model names by glob; deny wins.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelPatterns {
    /// Models that may be called; what the template allows, or `["*"]`, by default.
    pub allow: Option<Vec<String>>,
    /// Models that may not be called; added to what the template denies.
    #[serde(default)]
    pub deny: Vec<String>,
}

/// A key of a channel: its digest, never the key.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ChannelKey {
    /// How logs and the API call it; unique within the channel.
    pub id: String,
    /// SHA-256 of the key's bytes.
    pub sha256: Sha256Hex,
    /// From this instant on the key is refused.
    pub expires_at: Option<Instant>,
    /// A disabled key is refused.
    #[serde(default = "yes")]
    pub enabled: bool,
}

pub(super) fn yes() -> bool {
    true
}

/// A caller with its own permissions and limits.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Channel {
    /// The channel code, 1..=64 bytes.
    pub code: String,
    /// What people call it.
    #[serde(default)]
    pub name: String,
    /// A disabled channel is refused.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// The template whose permissions and limits it inherits.
    pub extends: Option<String>,
    /// Keys that prove that a caller is this channel.
    #[serde(default)]
    pub keys: Vec<ChannelKey>,
    /// The channel code alone identifies the caller; needed if there are no keys.
    #[serde(default)]
    pub trusted: bool,
    /// What may be called.
    #[serde(default)]
    pub models: ModelPatterns,
    /// Limits, added to the template's; one with the identity or the name of an inherited one replaces it.
    #[serde(default)]
    pub limits: Vec<Limit>,
    /// Own ways to deployments, before the template's.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// What a client that goes away is charged.
    pub abort_policy: Option<AbortPolicy>,
    /// Default for limits that do not say.
    pub enforcement: Option<Enforcement>,
    /// Free labels, added to the template's.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Limits that were reset or topped up, inherited ones among them.
    #[serde(default)]
    pub relief: Vec<Relief>,
    /// Answers to requests that began before this instant are ended.
    pub end_streams_before: Option<Moment>,
}

/// What channels extend. A channel's own words win.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Template {
    /// What `extends` calls it.
    pub name: String,
    /// Another template that this one extends.
    pub extends: Option<String>,
    /// What may be called.
    #[serde(default)]
    pub models: ModelPatterns,
    /// Limits of each channel that extends this (each channel has its own counters).
    #[serde(default)]
    pub limits: Vec<Limit>,
    /// Own ways to deployments, before those of the template that this one extends.
    #[serde(default)]
    pub routes: Vec<Route>,
    /// What a client that goes away is charged.
    pub abort_policy: Option<AbortPolicy>,
    /// Default for limits that do not say.
    pub enforcement: Option<Enforcement>,
    /// Free labels.
    #[serde(default)]
    pub tags: Vec<String>,
}
