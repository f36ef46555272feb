//! Alerts: what is wrong, who looks at it, who is not to be told, and whether receivers can be reached.

use std::collections::BTreeMap;
use std::time::Instant;

use axum::extract::State;
use axum::http::StatusCode;
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tollgate_policy::documents::{AlertRuleName, AlertSeverity, Alerts, Span};

use super::emergency::optional;
use super::error::FieldProblem;
use super::extract::{Body, Path, Query};
use super::guard::Trail;
use super::session::decoded;
use super::{ApiError, AppState};
use crate::accounts::{Principal, random_text};
use crate::alerts::{Ack, Alert, AlertDesk, Labels, MOST_SILENCES, Marks, Shown, Silence, State as Progress};
use crate::schedule::now_ms;

/// Longest silence.
const LONGEST_MS: u64 = 366 * 86_400_000;
/// Longest comment, bytes.
const LONGEST_COMMENT: usize = 1_024;
/// Most labels of a silence.
const MOST_LABELS: usize = 16;

/// Which alerts.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "AlertQuery")]
pub(super) struct Wanted {
    /// Only those in this state.
    #[schemars(extend("enum" = ["pending", "firing", "resolved"]))]
    state: Option<String>,
    /// Only those of this severity.
    severity: Option<AlertSeverity>,
    /// Only those of this rule.
    rule: Option<AlertRuleName>,
}

/// What a receiver was told of an alert.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AlertToldTo")]
struct ToldTo {
    receiver: String,
    /// How many times that it fires.
    firing: u32,
    /// When it last was told, Unix milliseconds; 0 for never.
    at_ms: u64,
    /// Whether it knows that it is over.
    resolved: bool,
}

/// An alert. Times are Unix milliseconds.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Alert")]
struct AlertView {
    id: String,
    rule: AlertRuleName,
    severity: AlertSeverity,
    /// `pending` is so but not for long enough.
    #[schemars(extend("enum" = ["pending", "firing", "resolved"]))]
    state: &'static str,
    labels: Labels,
    /// In words.
    summary: String,
    /// What was last found while it was so, in the rule's unit.
    value: f64,
    /// From where on it is one.
    threshold: f64,
    /// `percent`, `days` or `count`; empty for what is so or not.
    unit: &'static str,
    /// The instance that watches itself; empty for what one watches for all.
    instance: String,
    /// When it was first so.
    started_ms: u64,
    /// Since when it fires; null if it does not yet.
    firing_ms: Option<u64>,
    /// When it was over; null if it is not.
    ended_ms: Option<u64>,
    /// Who looks at it; null if nobody does.
    acknowledged: Option<Ack>,
    /// Id of the silence that keeps receivers from being told; null without one.
    silence: Option<String>,
    told: Vec<ToldTo>,
}

/// A receiver, and how it goes with it. Times are Unix milliseconds, 0 for never.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AlertReceiverState")]
struct ReceiverState {
    name: String,
    kind: &'static str,
    enabled: bool,
    /// When it last took a message.
    accepted_ms: u64,
    /// When it last did not.
    failed_ms: u64,
    /// Why not; empty if it took the last one.
    error: String,
    /// Times in a row that it did not.
    failures: u32,
}

/// A rule as it is in force.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AlertRuleState")]
struct RuleState {
    name: AlertRuleName,
    enabled: bool,
    /// Null for what is so or not.
    threshold: Option<f64>,
    /// `percent`, `days` or `count`; empty for what is so or not.
    unit: &'static str,
    /// Whether values below the threshold matter, not those above.
    below: bool,
    /// How long it must be so, milliseconds.
    for_ms: u64,
    /// How long it must be over, milliseconds.
    clear_after_ms: u64,
    severity: AlertSeverity,
    /// Whether each instance watches itself; if not, one watches for all.
    own: bool,
    /// What the program brings.
    defaults: RuleDefaults,
}

#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AlertRuleDefaults")]
struct RuleDefaults {
    threshold: Option<f64>,
    for_ms: u64,
    clear_after_ms: u64,
    severity: AlertSeverity,
}

/// Alerts, those that fire first.
#[derive(Serialize, JsonSchema)]
pub(super) struct AlertList {
    /// Whether anything is watched.
    enabled: bool,
    /// Open alerts of those that the caller may see, whatever was asked for.
    counts: AlertCounts,
    alerts: Vec<AlertView>,
    /// Alerts that are counted only, because there are too many.
    left_out: usize,
    /// Those that hold, and those that lately did.
    silences: Vec<Silence>,
    receivers: Vec<ReceiverState>,
    rules: Vec<RuleState>,
    /// Unix milliseconds.
    now_ms: u64,
}

/// Open alerts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub(super) struct AlertCounts {
    pending: usize,
    firing: usize,
    /// Those that fire, are critical, and nobody looks at.
    critical: usize,
    /// Those that fire and somebody looks at, or that are silenced.
    quiet: usize,
}

fn is_visible(who: &Principal, alert: &Alert) -> bool {
    !who.is_limited()
        || alert
            .labels
            .get("channel")
            .is_some_and(|channel| who.sees(channel))
}

/// What there is for somebody to see.
pub(super) fn counts(shown: &Shown, who: &Principal, now_ms: u64) -> AlertCounts {
    let mut counts = AlertCounts::default();
    for (_, alert) in shown.alerts().filter(|(_, alert)| is_visible(who, alert)) {
        match alert.state {
            Progress::Pending { .. } => counts.pending += 1,
            Progress::Firing { .. } => {
                counts.firing += 1;
                let marks = &shown.marks;
                if marks.acks.contains_key(&alert.id) || marks.silence(alert, now_ms).is_some() {
                    counts.quiet += 1;
                } else if alert.severity == AlertSeverity::Critical {
                    counts.critical += 1;
                }
            }
            Progress::Resolved { .. } => {}
        }
    }
    counts
}

fn view(instance: &str, alert: &Alert, marks: &Marks, now_ms: u64) -> AlertView {
    let (started_ms, firing_ms, ended_ms) = match alert.state {
        Progress::Pending { since_ms } => (since_ms, None, None),
        Progress::Firing {
            begun_ms, since_ms, ..
        } => (begun_ms, Some(since_ms), None),
        Progress::Resolved {
            begun_ms,
            since_ms,
            at_ms,
        } => (begun_ms, Some(since_ms), Some(at_ms)),
    };
    let told = alert.told.iter().map(|(receiver, told)| ToldTo {
        receiver: receiver.clone(),
        firing: told.firing,
        at_ms: told.at_ms,
        resolved: told.resolved,
    });
    AlertView {
        id: alert.id.clone(),
        rule: alert.rule,
        severity: alert.severity,
        state: alert.state.name(),
        labels: alert.labels.clone(),
        summary: alert.text.clone(),
        value: alert.value,
        threshold: alert.threshold,
        unit: alert.rule.defaults().threshold.map_or("", |t| t.unit),
        instance: instance.to_owned(),
        started_ms,
        firing_ms,
        ended_ms,
        acknowledged: marks.acks.get(&alert.id).cloned(),
        silence: match ended_ms {
            None => marks.silence(alert, now_ms).map(|silence| silence.id.clone()),
            Some(_) => None,
        },
        told: told.collect(),
    }
}

fn receivers(settings: &Alerts, shown: &Shown) -> Vec<ReceiverState> {
    let one = |receiver: &tollgate_policy::documents::AlertReceiver| {
        let mut state = ReceiverState {
            name: receiver.name.clone(),
            kind: receiver.kind.name(),
            enabled: receiver.enabled,
            accepted_ms: 0,
            failed_ms: 0,
            error: String::new(),
            failures: 0,
        };
        // Of what several instances know, the last counts.
        let all = shown
            .books
            .values()
            .filter_map(|book| book.deliveries.get(&receiver.name));
        for delivery in all {
            if delivery.accepted_ms.max(delivery.failed_ms) >= state.accepted_ms.max(state.failed_ms) {
                state.error.clone_from(&delivery.error);
                state.failures = delivery.failures;
            }
            state.accepted_ms = state.accepted_ms.max(delivery.accepted_ms);
            state.failed_ms = state.failed_ms.max(delivery.failed_ms);
        }
        state
    };
    settings.receivers.iter().map(one).collect()
}

fn rules(settings: &Alerts) -> Vec<RuleState> {
    let one = |name: &AlertRuleName| {
        let (rule, defaults) = (settings.rule(*name), name.defaults());
        RuleState {
            name: *name,
            enabled: rule.enabled,
            threshold: rule.threshold.map(|_| rule.value),
            unit: rule.threshold.map_or("", |t| t.unit),
            below: rule.threshold.is_some_and(|t| t.below),
            for_ms: rule.lasting_ms,
            clear_after_ms: rule.clear_after_ms,
            severity: rule.severity,
            own: defaults.own,
            defaults: RuleDefaults {
                threshold: defaults.threshold.map(|t| t.default),
                for_ms: defaults.lasting_ms,
                clear_after_ms: defaults.clear_after_ms,
                severity: defaults.severity,
            },
        }
    };
    AlertRuleName::ALL.iter().map(one).collect()
}

/// Alerts of the whole cluster, and what belongs to them. An account that is limited to some channels sees those about its channels.
pub(super) async fn list(
    State(state): State<AppState>,
    Extension(who): Extension<Principal>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<AlertList>, ApiError> {
    if let Some(other) = wanted.state.as_deref()
        && !["pending", "firing", "resolved"].contains(&other)
    {
        return Err(ApiError::bad_request(format!(
            "`{other}` is no state; there are pending, firing, resolved"
        )));
    }
    let now = now_ms();
    let shown = state.alerts.shown();
    let settings = std::sync::Arc::clone(&state.status().settings);
    let mut alerts: Vec<AlertView> = shown
        .alerts()
        .filter(|(_, alert)| is_visible(&who, alert))
        .filter(|(_, alert)| wanted.severity.is_none_or(|s| s == alert.severity))
        .filter(|(_, alert)| wanted.rule.is_none_or(|r| r == alert.rule))
        .filter(|(_, alert)| wanted.state.as_deref().is_none_or(|s| s == alert.state.name()))
        .map(|(instance, alert)| view(instance, alert, &shown.marks, now))
        .collect();
    let place = |alert: &AlertView| match alert.state {
        "firing" => 0,
        "pending" => 1,
        _ => 2,
    };
    alerts.sort_by(|a, b| {
        let newest = |alert: &AlertView| alert.ended_ms.unwrap_or(alert.started_ms);
        (
            place(a),
            std::cmp::Reverse(a.severity),
            std::cmp::Reverse(newest(a)),
            &a.id,
        )
            .cmp(&(
                place(b),
                std::cmp::Reverse(b.severity),
                std::cmp::Reverse(newest(b)),
                &b.id,
            ))
    });
    // History is in the order of time alone.
    let over = alerts.partition_point(|alert| alert.state != "resolved");
    if let Some(over) = alerts.get_mut(over..) {
        over.sort_by_key(|alert| std::cmp::Reverse(alert.ended_ms));
    }
    let all = !who.is_limited();
    Ok(Json(AlertList {
        enabled: settings.alerts.enabled,
        counts: counts(&shown, &who, now),
        alerts,
        left_out: shown.books.values().map(|book| book.left_out).sum(),
        silences: if all {
            shown.marks.silences.clone()
        } else {
            Vec::new()
        },
        receivers: if all {
            receivers(&settings.alerts, &shown)
        } else {
            Vec::new()
        },
        rules: rules(&settings.alerts),
        now_ms: now,
    }))
}

/// Why.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "AlertComment")]
pub(super) struct Comment {
    /// For those who look later, and for the audit log.
    comment: String,
}

fn checked(comment: &str) -> Result<String, ApiError> {
    let comment = comment.trim();
    if comment.len() > LONGEST_COMMENT || comment.chars().any(|c| c.is_control() && c != '\n') {
        let reason = format!("must be at most {LONGEST_COMMENT} bytes without control characters");
        return Err(ApiError::invalid_fields(vec![FieldProblem::at(
            "comment", reason,
        )]));
    }
    Ok(comment.to_owned())
}

async fn say<T: Send + 'static>(
    desk: &AlertDesk,
    change: impl Fn(&mut Marks) -> T + Send + 'static,
) -> Result<T, ApiError> {
    let desk = desk.clone();
    Ok(tokio::task::spawn_blocking(move || desk.say(change)).await??)
}

/// The alert of that id, as the caller may see it.
fn find(state: &AppState, who: &Principal, id: &str) -> Result<(String, Alert), ApiError> {
    let shown = state.alerts.shown();
    let mut all = shown.alerts().filter(|(_, alert)| is_visible(who, alert));
    let found = all.find(|(_, alert)| alert.id == id);
    let found = found.map(|(instance, alert)| (instance.to_owned(), alert.clone()));
    found.ok_or_else(|| ApiError::not_found(format!("there is no alert `{id}`")))
}

/// An alert, and who looks at it.
#[derive(Serialize, JsonSchema)]
pub(super) struct OneAlert {
    #[serde(flatten)]
    alert: AlertView,
}

/// Says that somebody looks at an alert: receivers are not told of it again until it is over.
pub(super) async fn acknowledge(
    State(state): State<AppState>,
    Extension(who): Extension<Principal>,
    Extension(trail): Extension<Trail>,
    Path(id): Path<String>,
    Body(body): Body,
) -> Result<Json<OneAlert>, ApiError> {
    let comment = checked(&optional::<Comment>(&body)?.comment)?;
    let (instance, alert) = find(&state, &who, &id)?;
    trail.target(&alert.text);
    trail.because(&comment);
    let ack = Ack {
        by: trail.who().to_owned(),
        at_ms: now_ms(),
        comment,
    };
    trail.changed(None, Some(json!(ack)));
    let marks = say(&state.alerts, move |marks| {
        marks.acks.insert(id.clone(), ack.clone());
        marks.clone()
    })
    .await?;
    Ok(Json(OneAlert {
        alert: view(&instance, &alert, &marks, now_ms()),
    }))
}

/// Takes that back.
pub(super) async fn take_back(
    State(state): State<AppState>,
    Extension(who): Extension<Principal>,
    Extension(trail): Extension<Trail>,
    Path(id): Path<String>,
) -> Result<Json<OneAlert>, ApiError> {
    let (instance, alert) = find(&state, &who, &id)?;
    trail.target(&alert.text);
    let (before, marks) = say(&state.alerts, move |marks| {
        (marks.acks.remove(&id), marks.clone())
    })
    .await?;
    trail.changed(before.map(|ack| json!(ack)), None);
    Ok(Json(OneAlert {
        alert: view(&instance, &alert, &marks, now_ms()),
    }))
}

/// A new silence.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "NewAlertSilence")]
pub(super) struct NewSilence {
    /// Only of this rule; of all without it.
    rule: Option<AlertRuleName>,
    /// Only of alerts with these labels; values are globs.
    #[serde(default)]
    labels: BTreeMap<String, String>,
    /// From when on, Unix milliseconds; from now on without it.
    starts_ms: Option<u64>,
    /// For how long, such as `2h`.
    #[serde(rename = "for")]
    lasting: Span,
    /// Why.
    #[serde(default)]
    comment: String,
}

/// Silences.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AlertSilenceList")]
pub(super) struct SilenceList {
    items: Vec<Silence>,
}

/// All silences.
pub(super) async fn silences(State(state): State<AppState>) -> Json<SilenceList> {
    Json(SilenceList {
        items: state.alerts.shown().marks.silences.clone(),
    })
}

/// Keeps receivers from being told of what matches, for a while.
pub(super) async fn silence(
    State(state): State<AppState>,
    Extension(trail): Extension<Trail>,
    Body(body): Body,
) -> Result<(StatusCode, Json<Silence>), ApiError> {
    let wanted: NewSilence = decoded(&body)?;
    let comment = checked(&wanted.comment)?;
    let mut wrong = Vec::new();
    let lasting = wanted.lasting.as_millis();
    if lasting == 0 || lasting > LONGEST_MS {
        wrong.push(FieldProblem::at("for", "must be longer than 0 and at most 366d"));
    }
    let now = now_ms();
    let starts_ms = wanted.starts_ms.unwrap_or(now);
    if starts_ms > now + LONGEST_MS {
        wrong.push(FieldProblem::at(
            "starts_ms",
            "must be within a year; Unix milliseconds",
        ));
    }
    let long = |(name, value): (&String, &String)| name.len() > 64 || value.len() > 512;
    if wanted.labels.len() > MOST_LABELS || wanted.labels.iter().any(long) {
        let reason = format!("at most {MOST_LABELS} labels with names of 64 and globs of 512 bytes");
        wrong.push(FieldProblem::at("labels", reason));
    }
    if !wrong.is_empty() {
        return Err(ApiError::invalid_fields(wrong));
    }
    let silence = Silence {
        id: random_text(6)?,
        rule: wanted.rule,
        labels: wanted.labels,
        starts_ms,
        ends_ms: starts_ms.saturating_add(lasting),
        comment,
        by: trail.who().to_owned(),
    };
    trail.target(format!("silence {}", silence.id));
    trail.because(&silence.comment);
    trail.changed(None, Some(json!(silence)));
    let new = silence.clone();
    let fits = say(&state.alerts, move |marks| {
        marks.prune(now);
        let fits = marks.silences.len() < MOST_SILENCES;
        if fits {
            marks.silences.push(new.clone());
        }
        fits
    })
    .await?;
    if !fits {
        return Err(ApiError::conflict(format!(
            "there are {MOST_SILENCES} silences already"
        )));
    }
    Ok((StatusCode::CREATED, Json(silence)))
}

/// Ends a silence.
pub(super) async fn end_silence(
    State(state): State<AppState>,
    Extension(trail): Extension<Trail>,
    Path(id): Path<String>,
) -> Result<Json<Silence>, ApiError> {
    trail.target(format!("silence {id}"));
    let now = now_ms();
    let wanted = id.clone();
    let found = say(&state.alerts, move |marks| {
        let silence = marks.silences.iter_mut().find(|silence| silence.id == wanted)?;
        let before = silence.clone();
        silence.ends_ms = silence.ends_ms.min(now);
        silence.starts_ms = silence.starts_ms.min(silence.ends_ms);
        Some((before, silence.clone()))
    })
    .await?;
    let (before, after) = found.ok_or_else(|| ApiError::not_found(format!("there is no silence `{id}`")))?;
    trail.changed(Some(json!(before)), Some(json!(after)));
    Ok(Json(after))
}

/// What came of a message that only shows that messages arrive.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "AlertTrial")]
pub(super) struct Trial {
    /// Whether the receiver took it.
    accepted: bool,
    /// Why not; empty if it did.
    error: String,
    took_ms: u64,
}

/// Sends a receiver a message that only shows that messages arrive.
pub(super) async fn try_receiver(
    State(state): State<AppState>,
    Extension(trail): Extension<Trail>,
    Path(name): Path<String>,
) -> Result<Json<Trial>, ApiError> {
    trail.target(format!("receiver {name}"));
    let settings = std::sync::Arc::clone(&state.status().settings);
    let receiver = settings.alerts.receivers.iter().find(|r| r.name == name);
    let missing = || ApiError::not_found(format!("there is no receiver `{name}` in force"));
    let receiver = receiver.ok_or_else(missing)?.clone();
    let desk = state.alerts.clone();
    let begun = Instant::now();
    let outcome = tokio::task::spawn_blocking(move || desk.trial(&receiver)).await?;
    Ok(Json(Trial {
        accepted: outcome.is_ok(),
        error: outcome.err().unwrap_or_default(),
        took_ms: u64::try_from(begun.elapsed().as_millis()).unwrap_or(u64::MAX),
    }))
}
