//! What people say of alerts: that somebody looks at one, and that nobody is to be told for a while.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tollgate_policy::documents::AlertRuleName;
use tollgate_policy::glob_matches;

use super::book::Alert;

/// Most silences at a time.
pub const MOST_SILENCES: usize = 200;
/// Acknowledgements that are kept; the oldest go first.
const MOST_ACKS: usize = 2_000;
/// How long a silence is shown after it has ended, milliseconds.
const SHOWN_MS: u64 = 86_400_000;

/// Nobody is told of what matches, for a while.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "AlertSilence")]
pub struct Silence {
    /// Its id.
    pub id: String,
    /// Only of this rule; of all if null.
    pub rule: Option<AlertRuleName>,
    /// Only of alerts with these labels; values are globs.
    pub labels: BTreeMap<String, String>,
    /// From when on, Unix milliseconds.
    pub starts_ms: u64,
    /// Until when, Unix milliseconds.
    pub ends_ms: u64,
    /// Why.
    pub comment: String,
    /// Who wants it.
    pub by: String,
}

impl Silence {
    fn covers(&self, alert: &Alert, now_ms: u64) -> bool {
        (self.starts_ms..self.ends_ms).contains(&now_ms)
            && self.rule.is_none_or(|rule| rule == alert.rule)
            && self.labels.iter().all(|(name, glob)| {
                let value = alert.labels.get(name).map_or("", String::as_str);
                glob_matches(glob, value)
            })
    }
}

/// Somebody looks at it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[schemars(rename = "AlertAcknowledgement")]
pub struct Ack {
    /// Who.
    pub by: String,
    /// Since when, Unix milliseconds.
    pub at_ms: u64,
    /// What they say.
    pub comment: String,
}

/// All that people say.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks {
    /// Silences, those that were lately among them.
    pub silences: Vec<Silence>,
    /// By id of the alert.
    pub acks: BTreeMap<String, Ack>,
}

impl Marks {
    /// The silence that covers an alert now.
    pub fn silence(&self, alert: &Alert, now_ms: u64) -> Option<&Silence> {
        self.silences.iter().find(|silence| silence.covers(alert, now_ms))
    }

    /// Forgets what says nothing any more.
    pub fn prune(&mut self, now_ms: u64) {
        self.silences
            .retain(|s| s.ends_ms.saturating_add(SHOWN_MS) > now_ms);
        while self.acks.len() > MOST_ACKS {
            let oldest = self.acks.iter().min_by_key(|(_, ack)| ack.at_ms);
            let Some(id) = oldest.map(|(id, _)| id.clone()) else {
                return;
            };
            self.acks.remove(&id);
        }
    }
}
