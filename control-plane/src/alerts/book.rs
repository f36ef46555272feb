//! Alerts and what became of them: a state machine that is told what was found, and what receivers took.
//!
//! ```text
//!            beyond the threshold            for long enough                 clear for long enough
//!  nothing ─────────────────────► Pending ───────────────────► Firing ─────────────────────────► Resolved
//!     ▲                              │                           ▲ │
//!     └──────────────────────────────┘                           └─┘ beyond again, or near: not clear
//! ```
//! An alert is told of because of what its book says was told: there is no queue beside it, so that nothing is lost or told twice
//! when the daemon ends, and a receiver that cannot be reached makes nothing grow.

use std::collections::{BTreeMap, HashMap, HashSet};

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use tollgate_policy::documents::{AlertReceiver, AlertRuleName, AlertSeverity, Alerts};

use super::marks::Marks;
use super::reading::{Labels, Reading, is_beyond, is_near};

/// Alerts that are open at a time; more of them are counted only.
pub const MOST_OPEN: usize = 500;
/// Alerts that are over and still shown.
const MOST_OVER: usize = 200;
/// How long they are shown, milliseconds.
const SHOWN_MS: u64 = 7 * 86_400_000;
/// How long a receiver is tried that an alert is over, milliseconds.
const TRIED_MS: u64 = 86_400_000;
/// Alerts in one message.
pub const MOST_TOLD: usize = 20;
/// How long an instance that has left is looked for, milliseconds.
const MISSED_MS: u64 = 86_400_000;

/// What has become of an alert. Times are Unix milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", tag = "is")]
pub enum State {
    /// It is so, but not for long enough.
    Pending {
        /// Since when.
        since_ms: u64,
    },
    /// It is so.
    Firing {
        /// When it was first so.
        begun_ms: u64,
        /// Since when it counts.
        since_ms: u64,
        /// Since when it is not so any more; not for long enough yet.
        clear_ms: Option<u64>,
    },
    /// It was so.
    Resolved {
        /// When it was first so.
        begun_ms: u64,
        /// Since when it counted.
        since_ms: u64,
        /// When it was over.
        at_ms: u64,
    },
}

impl State {
    /// Its name in the API.
    pub fn name(&self) -> &'static str {
        match self {
            State::Pending { .. } => "pending",
            State::Firing { .. } => "firing",
            State::Resolved { .. } => "resolved",
        }
    }

    fn is_open(&self) -> bool {
        !matches!(self, State::Resolved { .. })
    }
}

/// What a receiver was told of an alert.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Told {
    /// How many times that it fires.
    pub firing: u32,
    /// When it was last told, Unix milliseconds.
    pub at_ms: u64,
    /// Whether it knows that it is over.
    pub resolved: bool,
    /// Whether it was tried in vain before it was told anything.
    pub tried: bool,
}

/// Something that is so, or was.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Alert {
    /// Different for each time that it happens.
    pub id: String,
    /// The rule that watches.
    pub rule: AlertRuleName,
    /// How bad it is.
    pub severity: AlertSeverity,
    /// What it is about.
    pub labels: Labels,
    /// What has become of it.
    pub state: State,
    /// What was last found while it was so, in the rule's unit.
    pub value: f64,
    /// From where on it is one.
    pub threshold: f64,
    /// In words.
    pub text: String,
    /// What receivers were told, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub told: BTreeMap<String, Told>,
}

/// How it goes with a receiver. Times are Unix milliseconds, 0 for never.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Delivery {
    /// When it last took a message.
    pub accepted_ms: u64,
    /// When it last did not.
    pub failed_ms: u64,
    /// Why not; empty if it took the last one.
    pub error: String,
    /// Times in a row that it did not.
    pub failures: u32,
}

/// An instance that was there.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// When it was last there, Unix milliseconds.
    pub at_ms: u64,
    /// Whether it was drained then.
    pub draining: bool,
}

/// What there is to be told of an alert.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Notice {
    /// It fires; how many times that was told before.
    Firing(u32),
    /// It is over.
    Resolved,
}

/// The alerts that one instance answers for.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Book {
    /// Open ones, and those that were lately.
    pub alerts: Vec<Alert>,
    /// How it goes with receivers, by name.
    pub deliveries: BTreeMap<String, Delivery>,
    /// The cluster's instances, by name.
    pub seen: BTreeMap<String, Seen>,
    /// Alerts that are not among them because there are too many.
    #[serde(skip)]
    pub left_out: usize,
}

/// What a look at everything tells the book.
pub struct Look<'l> {
    /// What was found.
    pub readings: &'l [Reading],
    /// The settings in force.
    pub settings: &'l Alerts,
    /// Whether what is missing among the readings is over; not just after a start, when not everything is known yet.
    pub complete: bool,
    /// Unix milliseconds.
    pub now_ms: u64,
}

fn id_of(rule: AlertRuleName, labels: &Labels, now_ms: u64) -> String {
    let mut hash = Sha256::new();
    hash.update(rule.name());
    for (name, value) in labels {
        for part in [name, value] {
            hash.update(part.len().to_le_bytes());
            hash.update(part);
        }
    }
    hash.update(now_ms.to_le_bytes());
    hash.finalize()
        .iter()
        .take(8)
        .map(|b| format!("{b:02x}"))
        .collect()
}

impl Book {
    /// Takes what was found into account. Whether anything has changed that is worth keeping.
    pub fn take<'l>(&mut self, look: &Look<'l>) -> bool {
        let key = |reading: &'l Reading| (reading.rule, &reading.labels);
        let found: HashMap<(AlertRuleName, &Labels), &Reading> = look
            .readings
            .iter()
            .map(|reading| (key(reading), reading))
            .collect();
        let mut known: HashSet<(AlertRuleName, &Labels)> = HashSet::new();
        let mut changed = false;
        self.alerts.retain_mut(|alert| {
            if !alert.state.is_open() {
                return true;
            }
            let reading = found.get(&(alert.rule, &alert.labels)).copied();
            known.extend(reading.map(key));
            let kept = alert.step(reading, look, &mut changed);
            changed |= !kept;
            kept
        });
        let mut open = self.alerts.iter().filter(|a| a.state.is_open()).count();
        self.left_out = 0;
        // In the order of the readings, so that the first ones have a place.
        for reading in look.readings {
            if !known.insert(key(reading)) {
                continue;
            }
            let rule = look.settings.rule(reading.rule);
            if !rule.enabled || !is_beyond(&rule, reading.value) {
                continue;
            }
            if open >= MOST_OPEN {
                self.left_out += 1;
                continue;
            }
            open += 1;
            let mut alert = Alert {
                id: id_of(reading.rule, &reading.labels, look.now_ms),
                rule: reading.rule,
                severity: rule.severity,
                labels: reading.labels.clone(),
                state: State::Pending {
                    since_ms: look.now_ms,
                },
                value: reading.value,
                threshold: rule.value,
                text: reading.text.clone(),
                told: BTreeMap::new(),
            };
            alert.step(Some(reading), look, &mut changed);
            self.alerts.push(alert);
            changed = true;
        }
        self.prune(look.now_ms) || changed
    }

    fn prune(&mut self, now_ms: u64) -> bool {
        let before = self.alerts.len();
        let mut over = self.alerts.iter().filter(|a| !a.state.is_open()).count();
        self.alerts.retain(|alert| match alert.state {
            State::Resolved { at_ms, .. } => {
                let goes = over > MOST_OVER || at_ms.saturating_add(SHOWN_MS) < now_ms;
                over -= usize::from(goes);
                !goes
            }
            _ => true,
        });
        before != self.alerts.len()
    }

    /// What a receiver is to be told now, and of which alerts (by position): at most as much as one message holds.
    pub fn due(
        &self,
        receiver: &AlertReceiver,
        settings: &Alerts,
        marks: &Marks,
        (quiet, now_ms): (bool, u64),
    ) -> Vec<(usize, Notice)> {
        let wanted = |alert: &Alert| {
            alert.severity >= receiver.min_severity
                && (receiver.rules.is_empty() || receiver.rules.contains(&alert.rule))
        };
        let notice = |alert: &Alert| {
            let told = alert.told.get(&receiver.name);
            match alert.state {
                State::Pending { .. } => None,
                State::Firing { .. } => {
                    let again = told.is_some_and(|t| t.firing > 0);
                    if quiet || marks.silence(alert, now_ms).is_some() || !wanted(alert) {
                        return None;
                    }
                    if marks.acks.contains_key(&alert.id) {
                        return None;
                    }
                    let since = told.map_or(0, |t| now_ms.saturating_sub(t.at_ms));
                    let repeat = settings.repeat_interval.as_millis();
                    (!again || since >= repeat).then(|| Notice::Firing(told.map_or(0, |t| t.firing)))
                }
                State::Resolved { at_ms, .. } => {
                    let knows = told.is_some_and(|t| (t.firing > 0 || t.tried) && !t.resolved);
                    let late = now_ms.saturating_sub(at_ms) > TRIED_MS;
                    (receiver.resolved && knows && !late).then_some(Notice::Resolved)
                }
            }
        };
        let all = self.alerts.iter().enumerate();
        all.filter_map(|(index, alert)| Some((index, notice(alert)?)))
            .take(MOST_TOLD)
            .collect()
    }

    /// Notes what came of telling a receiver.
    pub fn told(
        &mut self,
        receiver: &str,
        notices: &[(String, Notice)],
        outcome: &Result<(), String>,
        now_ms: u64,
    ) {
        let delivery = self.deliveries.entry(receiver.to_owned()).or_default();
        match outcome {
            Ok(()) => {
                delivery.accepted_ms = now_ms;
                delivery.error.clear();
                delivery.failures = 0;
            }
            Err(error) => {
                delivery.failed_ms = now_ms;
                delivery.error.clone_from(error);
                delivery.failures = delivery.failures.saturating_add(1);
            }
        }
        for (id, notice) in notices {
            let Some(alert) = self.alerts.iter_mut().find(|alert| alert.id == *id) else {
                continue;
            };
            let told = alert.told.entry(receiver.to_owned()).or_default();
            match (outcome, notice) {
                (Ok(()), Notice::Firing(before)) => {
                    told.firing = before.saturating_add(1);
                    told.at_ms = now_ms;
                }
                (Ok(()), Notice::Resolved) => {
                    told.resolved = true;
                    told.at_ms = now_ms;
                }
                (Err(_), _) => told.tried = true,
            }
        }
    }

    /// Brings in what another book of the same things has that this one has not: alerts of a time in which both were kept apart.
    pub fn merge(&mut self, other: Book) {
        for alert in other.alerts {
            let open = alert.state.is_open();
            let same = |a: &&mut Alert| {
                a.id == alert.id
                    || (open && a.state.is_open() && a.rule == alert.rule && a.labels == alert.labels)
            };
            match self.alerts.iter_mut().find(same) {
                Some(ours) => {
                    for (receiver, told) in alert.told {
                        ours.told.entry(receiver).or_insert(told);
                    }
                }
                None => self.alerts.push(alert),
            }
        }
        for (name, seen) in other.seen {
            let ours = self.seen.entry(name).or_insert_with(|| seen.clone());
            if seen.at_ms > ours.at_ms {
                *ours = seen;
            }
        }
    }

    /// Notes which instances are there; those that are missing, and since when.
    pub fn missing(&mut self, present: &[(String, bool)], now_ms: u64) -> Vec<(String, u64)> {
        for (name, draining) in present {
            let seen = Seen {
                at_ms: now_ms,
                draining: *draining,
            };
            self.seen.insert(name.clone(), seen);
        }
        self.seen
            .retain(|_, seen| seen.at_ms.saturating_add(MISSED_MS) > now_ms);
        let gone = |(name, seen): (&String, &Seen)| {
            let there = present.iter().any(|(other, _)| other == name);
            (!there && !seen.draining).then(|| (name.clone(), seen.at_ms))
        };
        self.seen.iter().filter_map(gone).collect()
    }
}

impl Alert {
    /// One step of an open alert; `false` if nothing is left of it.
    fn step(&mut self, reading: Option<&Reading>, look: &Look<'_>, changed: &mut bool) -> bool {
        let (rule, now_ms) = (look.settings.rule(self.rule), look.now_ms);
        let near = reading.filter(|reading| rule.enabled && is_near(&rule, reading.value));
        if let Some(reading) = near {
            self.value = reading.value;
            self.text.clone_from(&reading.text);
            if (self.severity, self.threshold) != (rule.severity, rule.value) {
                (self.severity, self.threshold) = (rule.severity, rule.value);
                *changed = true;
            }
        }
        if let State::Pending { since_ms } = self.state {
            if near.is_none() {
                return rule.enabled && reading.is_none() && !look.complete;
            }
            if now_ms.saturating_sub(since_ms) >= rule.lasting_ms {
                self.state = State::Firing {
                    begun_ms: since_ms,
                    since_ms: now_ms,
                    clear_ms: None,
                };
                *changed = true;
            }
            return true;
        }
        if let State::Firing {
            begun_ms,
            since_ms,
            clear_ms,
        } = &mut self.state
        {
            let over = State::Resolved {
                begun_ms: *begun_ms,
                since_ms: *since_ms,
                at_ms: now_ms,
            };
            let clear = match near {
                Some(_) => None,
                None if reading.is_none() && !look.complete => *clear_ms,
                None => Some(clear_ms.unwrap_or(now_ms)),
            };
            *changed |= clear != *clear_ms;
            *clear_ms = clear;
            let ends = clear.is_some_and(|since| now_ms.saturating_sub(since) >= rule.clear_after_ms);
            if !rule.enabled || (ends && look.complete) {
                self.state = over;
                *changed = true;
            }
        }
        true
    }
}
