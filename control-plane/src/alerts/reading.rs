//! What a look at the gateway found of one thing that a rule watches.

use std::collections::BTreeMap;

use tollgate_policy::documents::{AlertRuleName, EffectiveAlertRule};

/// What an alert is about: names and values.
pub type Labels = BTreeMap<String, String>;

/// How far back from its threshold a value must be for an alert to be over: a tenth.
const BACK: f64 = 0.9;

/// What was found of one thing. What is far from its rule's threshold need not be told at all.
#[derive(Clone, Debug, PartialEq)]
pub struct Reading {
    /// The rule that watches.
    pub rule: AlertRuleName,
    /// What it is about.
    pub labels: Labels,
    /// How much, in the rule's unit; for what is so or not, 1 or 0, or [`Reading::UNDECIDED`].
    pub value: f64,
    /// In words.
    pub text: String,
}

impl Reading {
    /// Of what is so or not, where nobody can tell now: nothing begins and nothing ends.
    pub const UNDECIDED: f64 = 0.95;

    /// A reading about these names and values.
    pub fn new(rule: AlertRuleName, labels: &[(&str, &str)], value: f64, text: String) -> Reading {
        let labels = labels
            .iter()
            .map(|(name, value)| ((*name).into(), (*value).into()));
        Reading {
            rule,
            labels: labels.collect(),
            value,
            text,
        }
    }
}

/// Whether a value is beyond a rule's threshold.
pub fn is_beyond(rule: &EffectiveAlertRule, value: f64) -> bool {
    match rule.threshold {
        Some(t) if t.below => value <= rule.value,
        _ => value >= rule.value,
    }
}

/// Whether a value is beyond a rule's threshold or so near to it that nothing ends.
pub fn is_near(rule: &EffectiveAlertRule, value: f64) -> bool {
    match rule.threshold {
        Some(t) if t.below => value * BACK <= rule.value,
        _ => value >= rule.value * BACK,
    }
}
