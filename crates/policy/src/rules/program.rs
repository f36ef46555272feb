//! Rules in order, as a snapshot holds them and as workers evaluate them.

use super::{
    condition::{Node, Overrides, Wanted, lower},
    evaluate::{Decision, Deeds, Facts, Outcome, RuleTrace, Shadowed},
};
use crate::documents::{Action, Condition, Deny, Then};
use serde::{Deserialize, Serialize};
use std::{fmt, fmt::Write, sync::Arc};

/// Most actions of one rule.
const MAX_ACTIONS: usize = 64;

/// A rule without template: what stands in a snapshot (as JSON, in the order of evaluation).
#[derive(Clone, Debug, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PlainRule {
    pub name: String,
    pub priority: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Condition>,
    pub then: Then,
}

/// Problems of a rule: path below it, reason, hint.
pub(crate) fn check(rule: &PlainRule, report: &mut dyn FnMut(&str, String, Option<String>)) {
    build(rule, &mut Wanted::default(), report);
}

/// The rules as a snapshot holds them.
pub(crate) fn encode(rules: &[PlainRule]) -> Vec<u8> {
    let mut ordered: Vec<&PlainRule> = rules.iter().collect();
    ordered.sort_by(|a, b| b.priority.cmp(&a.priority).then_with(|| a.name.cmp(&b.name)));
    // Types that are made of strings, numbers and lists always serialize.
    serde_json::to_vec(&ordered).unwrap_or_default()
}

/// Why a rules section cannot be used: it was damaged, or written by another version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulesError {
    reason: String,
}

impl fmt::Display for RulesError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rules cannot be decoded: {}", self.reason)
    }
}

impl std::error::Error for RulesError {}

/// Rules, ready to be evaluated. Costs memory for its regular expressions: keep one per worker and
/// [`crate::Snapshot::rules_checksum`].
#[derive(Clone, Debug, Default)]
pub struct RuleSet {
    rules: Vec<ReadyRule>,
    wanted: Wanted,
}

#[derive(Clone, Debug)]
struct ReadyRule {
    name: Arc<str>,
    when: Option<Node>,
    then: Vec<Effect>,
}

#[derive(Clone, Debug)]
enum Effect {
    Tag(Arc<str>),
    SetChannel(Arc<str>),
    SetModel(Arc<str>),
    SetVersion(Arc<str>),
    SetDeployment(Arc<str>),
    CapMaxTokens(u64),
    /// All shadow actions of the rule.
    Shadow(Arc<[Arc<str>]>, Deeds),
    Deny {
        status: u16,
        code: Arc<str>,
        message: Arc<str>,
    },
    Allow,
}

impl RuleSet {
    /// Decodes [`crate::Snapshot::rules_blob`].
    ///
    /// # Errors
    /// If the bytes are no rules of this version.
    pub fn decode(blob: &[u8]) -> Result<Self, RulesError> {
        if blob.is_empty() {
            return Ok(Self::default());
        }
        let plain: Vec<PlainRule> = serde_json::from_slice(blob).map_err(|error| RulesError {
            reason: error.to_string(),
        })?;
        let mut set = Self::default();
        for rule in &plain {
            let mut first = None;
            let ready = build(rule, &mut set.wanted, &mut |path, reason, _| {
                first.get_or_insert_with(|| format!("{}: {path}: {reason}", rule.name));
            });
            if let Some(reason) = first {
                return Err(RulesError { reason });
            }
            set.rules.push(ready);
        }
        Ok(set)
    }

    /// Paths in the body that rules look at, steps joined by dots (`messages.0.role`); [`Facts::body`] gets an index in
    /// this list.
    pub fn body_paths(&self) -> &[String] {
        &self.wanted.body
    }

    /// Headers that rules look at, in lower case.
    pub fn header_names(&self) -> &[String] {
        &self.wanted.headers
    }

    /// Whether there are no rules.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.rules.len()
    }

    /// Evaluates all rules, higher priority first, until one denies or allows. Conditions see the channel and model that
    /// earlier rules have set.
    pub fn evaluate(&self, facts: &dyn Facts) -> Outcome {
        let mut outcome = Outcome::default();
        for rule in &self.rules {
            if rule.holds(facts, &outcome).is_ok() && rule.apply(&mut outcome) {
                break;
            }
        }
        outcome
    }

    /// [`RuleSet::evaluate`], and what became of every rule.
    pub fn explain(&self, facts: &dyn Facts) -> (Outcome, Vec<RuleTrace>) {
        let mut outcome = Outcome::default();
        let mut traces = Vec::with_capacity(self.rules.len());
        let mut ended = false;
        for rule in &self.rules {
            let (matched, failed) = match (ended, rule.holds(facts, &outcome)) {
                (true, _) => (None, None),
                (false, Ok(())) => {
                    ended = rule.apply(&mut outcome);
                    (Some(true), None)
                }
                (false, Err(failed)) => (Some(false), failed.map(str::to_owned)),
            };
            traces.push(RuleTrace {
                rule: rule.name.clone(),
                matched,
                failed,
            });
        }
        (outcome, traces)
    }
}

impl ReadyRule {
    fn holds(&self, facts: &dyn Facts, so_far: &Outcome) -> Result<(), Option<&str>> {
        let Some(when) = &self.when else { return Ok(()) };
        let now = Overrides {
            channel: so_far.set_channel.as_deref(),
            model: so_far.set_model.as_deref(),
        };
        let mut failed = None;
        if when.holds(facts, &now, &mut failed) {
            Ok(())
        } else {
            Err(failed.map(|test| &*test.text))
        }
    }

    /// Applies the effects; whether they end the evaluation.
    fn apply(&self, outcome: &mut Outcome) -> bool {
        outcome.matched.push(self.name.clone());
        for effect in &self.then {
            match effect {
                Effect::Tag(tag) => {
                    if !outcome.tags.contains(tag) {
                        outcome.tags.push(tag.clone());
                    }
                }
                Effect::SetChannel(code) => outcome.set_channel = Some(code.clone()),
                // The last word counts: a deployment belongs to one model and has one version.
                Effect::SetModel(name) => {
                    outcome.set_model = Some(name.clone());
                    outcome.set_deployment = None;
                }
                Effect::SetVersion(version) => {
                    outcome.set_version = Some(version.clone());
                    outcome.set_deployment = None;
                }
                Effect::SetDeployment(id) => {
                    outcome.set_deployment = Some(id.clone());
                    outcome.set_version = None;
                }
                Effect::CapMaxTokens(cap) => {
                    outcome.cap_max_tokens =
                        Some(outcome.cap_max_tokens.map_or(*cap, |lower| lower.min(*cap)));
                }
                Effect::Shadow(actions, deeds) => outcome.shadow.push(Shadowed {
                    rule: self.name.clone(),
                    actions: actions.clone(),
                    deeds: *deeds,
                }),
                Effect::Deny {
                    status,
                    code,
                    message,
                } => {
                    outcome.decision = Decision::Deny {
                        rule: self.name.clone(),
                        status: *status,
                        code: code.clone(),
                        message: message.clone(),
                    };
                    return true;
                }
                Effect::Allow => {
                    outcome.decision = Decision::Allow {
                        rule: self.name.clone(),
                    };
                    return true;
                }
            }
        }
        false
    }
}

fn build(
    rule: &PlainRule,
    wanted: &mut Wanted,
    report: &mut dyn FnMut(&str, String, Option<String>),
) -> ReadyRule {
    let when = rule.when.as_ref().map(|when| {
        lower(when, wanted, &mut |path, reason, hint| {
            let path = if path.is_empty() {
                "when".to_owned()
            } else {
                format!("when.{path}")
            };
            report(&path, reason, hint);
        })
    });
    let then = effects(&rule.then, "then", false, report);
    ReadyRule {
        name: rule.name.as_str().into(),
        when,
        then,
    }
}

fn effects(
    then: &Then,
    path: &str,
    in_shadow: bool,
    report: &mut dyn FnMut(&str, String, Option<String>),
) -> Vec<Effect> {
    let mut effects = Vec::new();
    if then.0.len() > MAX_ACTIONS {
        report(path, format!("more than {MAX_ACTIONS} actions"), None);
        return effects;
    }
    for (at, action) in then.0.iter().enumerate() {
        let path = if then.0.len() > 1 {
            format!("{path}[{at}]")
        } else {
            path.to_owned()
        };
        if effects
            .iter()
            .any(|effect| matches!(effect, Effect::Deny { .. } | Effect::Allow))
        {
            report(
                &path,
                "never reached: an action before it ends the evaluation".to_owned(),
                None,
            );
        }
        let before = effects.len();
        action_effects(action, &path, in_shadow, &mut effects, report);
        if effects.len() == before && !says_something(action) {
            report(&path, "an action that does nothing".to_owned(), None);
        }
    }
    if then.0.is_empty() {
        report(path, "an empty list of actions".to_owned(), None);
    }
    effects
}

fn says_something(action: &Action) -> bool {
    action.shadow.is_some() || action.deny.is_some() || action.allow.is_some()
}

fn action_effects(
    action: &Action,
    path: &str,
    in_shadow: bool,
    effects: &mut Vec<Effect>,
    report: &mut dyn FnMut(&str, String, Option<String>),
) {
    if let Some(tag) = &action.tag {
        if tag.is_empty() || tag.len() > 64 || tag.chars().any(char::is_control) {
            report(
                &format!("{path}.tag"),
                "a tag must be 1..=64 bytes without control characters".to_owned(),
                None,
            );
        }
        effects.push(Effect::Tag(tag.as_str().into()));
    }
    if let Some(code) = &action.set_channel {
        effects.push(Effect::SetChannel(code.as_str().into()));
    }
    if let Some(name) = &action.set_model {
        effects.push(Effect::SetModel(name.as_str().into()));
    }
    if let Some(version) = &action.set_version {
        if version.is_empty() || version.len() > 64 {
            report(
                &format!("{path}.set_version"),
                "a version must be 1..=64 bytes".to_owned(),
                None,
            );
        }
        effects.push(Effect::SetVersion(version.as_str().into()));
    }
    if let Some(id) = &action.set_deployment {
        for (other, given) in [
            ("set_model", action.set_model.is_some()),
            ("set_version", action.set_version.is_some()),
        ] {
            if given {
                report(
                    &format!("{path}.{other}"),
                    "says the same as `set_deployment`, or something else; leave it out".to_owned(),
                    None,
                );
            }
        }
        effects.push(Effect::SetDeployment(id.as_str().into()));
    }
    if let Some(cap) = action.cap_max_tokens {
        if cap == 0 {
            report(
                &format!("{path}.cap_max_tokens"),
                "must be 1 or more; use deny to refuse".to_owned(),
                None,
            );
        }
        effects.push(Effect::CapMaxTokens(cap));
    }
    if let Some(shadow) = &action.shadow {
        let path = format!("{path}.shadow");
        if in_shadow {
            report(&path, "a shadow within a shadow".to_owned(), None);
        } else {
            let inner = self::effects(shadow, &path, true, report);
            let what = inner.iter().map(|effect| effect.describe().into());
            let deeds = inner
                .iter()
                .fold(Deeds::default(), |all, effect| all.and(effect.deed()));
            // One hit per rule, however many of its actions are shadows.
            match effects.iter_mut().find_map(Effect::as_shadow) {
                Some((actions, all)) => {
                    *actions = actions.iter().cloned().chain(what).collect();
                    *all = all.and(deeds);
                }
                None => effects.push(Effect::Shadow(what.collect(), deeds)),
            }
        }
    }
    if let Some(deny) = &action.deny {
        check_deny(deny, path, report);
        effects.push(Effect::Deny {
            status: deny.status,
            code: deny.code.as_str().into(),
            message: deny.message.as_str().into(),
        });
    }
    match (action.allow, &action.deny) {
        (Some(true), None) => effects.push(Effect::Allow),
        (Some(true), Some(_)) => report(path, "both `deny` and `allow`".to_owned(), None),
        (Some(false), _) => {
            report(
                &format!("{path}.allow"),
                "can only be true; use deny to refuse".to_owned(),
                None,
            );
        }
        (None, _) => {}
    }
}

fn check_deny(deny: &Deny, path: &str, report: &mut dyn FnMut(&str, String, Option<String>)) {
    if !(400..=599).contains(&deny.status) {
        report(
            &format!("{path}.deny.status"),
            "must be 400..=599".to_owned(),
            None,
        );
    }
    if deny.code.is_empty() || deny.code.len() > 64 || !deny.code.bytes().all(|byte| byte.is_ascii_graphic())
    {
        report(
            &format!("{path}.deny.code"),
            "must be 1..=64 visible ASCII characters".to_owned(),
            None,
        );
    }
    if deny.message.len() > 1024 || deny.message.chars().any(char::is_control) {
        report(
            &format!("{path}.deny.message"),
            "must be at most 1024 bytes without control characters".to_owned(),
            None,
        );
    }
}

impl Effect {
    fn as_shadow(&mut self) -> Option<(&mut Arc<[Arc<str>]>, &mut Deeds)> {
        match self {
            Effect::Shadow(actions, deeds) => Some((actions, deeds)),
            _ => None,
        }
    }

    fn deed(&self) -> Deeds {
        match self {
            Effect::Tag(_) => Deeds::TAG,
            Effect::SetChannel(_) => Deeds::SET_CHANNEL,
            Effect::SetModel(_) => Deeds::SET_MODEL,
            Effect::SetVersion(_) => Deeds::SET_VERSION,
            Effect::SetDeployment(_) => Deeds::SET_DEPLOYMENT,
            Effect::CapMaxTokens(_) => Deeds::CAP_MAX_TOKENS,
            Effect::Deny { .. } => Deeds::DENY,
            Effect::Allow => Deeds::ALLOW,
            Effect::Shadow(_, deeds) => *deeds,
        }
    }

    fn describe(&self) -> String {
        match self {
            Effect::Tag(tag) => format!("tag {tag}"),
            Effect::SetChannel(code) => format!("set_channel {code}"),
            Effect::SetModel(name) => format!("set_model {name}"),
            Effect::SetVersion(version) => format!("set_version {version}"),
            Effect::SetDeployment(id) => format!("set_deployment {id}"),
            Effect::CapMaxTokens(cap) => format!("cap_max_tokens {cap}"),
            Effect::Deny { status, code, .. } => format!("deny {status} {code}"),
            Effect::Allow => "allow".to_owned(),
            Effect::Shadow(inner, _) => inner.iter().fold("shadow".to_owned(), |mut text, what| {
                let _ = write!(text, " {what}");
                text
            }),
        }
    }
}
