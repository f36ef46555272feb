//! What is done in an emergency. All of it is changes of documents: they reach every worker within a tenth of a second, hold
//! on every instance that reads the same documents, also on one that was cut off meanwhile, and are undone like any other.

use axum::extract::State;
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tollgate_policy::LimitView;
use tollgate_policy::documents::{Metric, Moment, Span};

use super::error::FieldProblem;
use super::extract::{Body, Path};
use super::guard::Trail;
use super::limits::no_configuration;
use super::resources::sort::Sort;
use super::resources::{self, Deed, Written};
use super::session::decoded;
use super::{ApiError, AppState};
use crate::accounts::Principal;
use crate::schedule::now_ms;

/// Longest time for which a limit is topped up.
const LONGEST_MS: u64 = 31 * 86_400_000;

type Context = (AppState, Principal, Trail);

/// A body that may be left out.
pub(super) fn optional<T: Default + serde::de::DeserializeOwned>(body: &[u8]) -> Result<T, ApiError> {
    if body.is_empty() {
        Ok(T::default())
    } else {
        decoded(body)
    }
}

fn set(patch: Value) -> Deed {
    Box::new(move |_| Ok(patch.clone()))
}

/// What is in force of it.
#[derive(Serialize, JsonSchema)]
pub(super) struct EmergencyState {
    /// Whether all requests are refused; null if not.
    maintenance: Option<MaintenanceState>,
    /// Answers to requests that began before are ended, of whatever channel; null for none.
    end_streams_before: Option<String>,
}

/// Maintenance as it is.
#[derive(Serialize, JsonSchema)]
struct MaintenanceState {
    /// What clients are told.
    message: String,
    /// After how long they should come again.
    retry_after: Span,
}

/// Says what is in force of it.
pub(super) async fn state(State(state): State<AppState>) -> Json<EmergencyState> {
    let settings = std::sync::Arc::clone(&state.status().settings);
    Json(EmergencyState {
        maintenance: settings.maintenance.as_ref().map(|m| MaintenanceState {
            message: m.message.clone(),
            retry_after: m.retry_after,
        }),
        end_streams_before: settings.end_streams_before.map(|at| at.to_string()),
    })
}

/// Why something is done.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Reason {
    /// For the audit log and the version's message.
    reason: String,
}

/// Blocking a channel.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub(super) struct Block {
    /// For the audit log and the version's message.
    reason: String,
    /// Whether what it is being served ends as well.
    end_streams: bool,
}

/// Refuses all requests of a channel from now on.
pub(super) async fn block(
    State(state): State<AppState>,
    Extension(who): Extension<Principal>,
    Extension(trail): Extension<Trail>,
    Path(code): Path<String>,
    Body(body): Body,
) -> Result<Written, ApiError> {
    let wanted: Block = optional(&body)?;
    trail.because(&wanted.reason);
    let mut patch = json!({ "enabled": false });
    if wanted.end_streams {
        patch = json!({ "enabled": false, "end_streams_before": Moment(now_ms()).to_string() });
    }
    resources::amend(Sort::CHANNELS, (state, who, trail), code, set(patch)).await
}

/// Serves a channel again.
pub(super) async fn unblock(
    State(state): State<AppState>,
    Extension(who): Extension<Principal>,
    Extension(trail): Extension<Trail>,
    Path(code): Path<String>,
    Body(body): Body,
) -> Result<Written, ApiError> {
    trail.because(&optional::<Reason>(&body)?.reason);
    let deed = set(json!({ "enabled": true }));
    resources::amend(Sort::CHANNELS, (state, who, trail), code, deed).await
}

fn end_now() -> Deed {
    set(json!({ "end_streams_before": Moment(now_ms()).to_string() }))
}

/// Ends what a channel is being served.
pub(super) async fn end_streams(
    State(state): State<AppState>,
    Extension(who): Extension<Principal>,
    Extension(trail): Extension<Trail>,
    Path(code): Path<String>,
    Body(body): Body,
) -> Result<Written, ApiError> {
    trail.because(&optional::<Reason>(&body)?.reason);
    resources::amend(Sort::CHANNELS, (state, who, trail), code, end_now()).await
}

/// Ends what anybody is being served.
pub(super) async fn end_all_streams(
    State(state): State<AppState>,
    Extension(who): Extension<Principal>,
    Extension(trail): Extension<Trail>,
    Body(body): Body,
) -> Result<Written, ApiError> {
    trail.because(&optional::<Reason>(&body)?.reason);
    let sort = Sort::SETTINGS;
    resources::amend(sort, (state, who, trail), sort.one.to_owned(), end_now()).await
}

/// Maintenance.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Maintenance {
    /// Whether all requests are refused with 503.
    on: bool,
    /// What clients are told.
    message: Option<String>,
    /// After how long they should come again, such as `5m`; a minute by default.
    retry_after: Option<Span>,
    /// Whether what is being served ends as well.
    #[serde(default)]
    end_streams: bool,
    /// For the audit log and the version's message.
    #[serde(default)]
    reason: String,
}

/// Refuses all requests, or serves them again.
pub(super) async fn maintenance(
    State(state): State<AppState>,
    Extension(who): Extension<Principal>,
    Extension(trail): Extension<Trail>,
    Body(body): Body,
) -> Result<Written, ApiError> {
    let wanted: Maintenance = decoded(&body)?;
    trail.because(&wanted.reason);
    let deed: Deed = Box::new(move |present| {
        let mut patch = Map::new();
        let mut maintenance = Value::Null;
        if wanted.on {
            // As a whole, so that nothing of a former one is left.
            let former = present["maintenance"].as_object();
            let mut fields: Map<String, Value> = former
                .into_iter()
                .flat_map(Map::keys)
                .map(|name| (name.clone(), Value::Null))
                .collect();
            let message = wanted.message.as_ref().filter(|m| !m.is_empty());
            fields.extend(message.map(|m| ("message".to_owned(), m.as_str().into())));
            let retry_after = wanted.retry_after.map(|span| span.to_string());
            fields.extend(retry_after.map(|span| ("retry_after".to_owned(), span.into())));
            maintenance = fields.into();
        }
        patch.insert("maintenance".to_owned(), maintenance);
        if wanted.end_streams {
            let now = Moment(now_ms()).to_string();
            patch.insert("end_streams_before".to_owned(), now.into());
        }
        Ok(patch.into())
    });
    let sort = Sort::SETTINGS;
    resources::amend(sort, (state, who, trail), sort.one.to_owned(), deed).await
}

/// Whose limits.
#[derive(Clone, Debug)]
enum Owner {
    Channel(String),
    Model(String),
    All,
}

/// What is needed of a limit.
#[derive(Clone, Copy)]
struct Found {
    metric: Metric,
    window_ms: u64,
}

impl Owner {
    fn sort(&self) -> (Sort, String) {
        match self {
            Owner::Channel(code) => (Sort::CHANNELS, code.clone()),
            Owner::Model(name) => (Sort::MODELS, name.clone()),
            Owner::All => (Sort::SETTINGS, Sort::SETTINGS.one.to_owned()),
        }
    }

    /// The limit of that name, inherited ones among them, as it is in force.
    fn limit(&self, state: &AppState, name: &str) -> Result<Found, ApiError> {
        let status = state.status();
        let active = status.active().ok_or_else(no_configuration)?;
        let snapshot = active.snapshot().ok_or_else(no_configuration)?;
        let all: Vec<LimitView<'_>> = match self {
            Owner::Channel(code) => {
                let channel = snapshot.channel_by_code(code.as_bytes());
                let missing = || ApiError::not_found(format!("there is no channel `{code}`"));
                channel.ok_or_else(missing)?.limits().iter().collect()
            }
            Owner::Model(model) => {
                let found = snapshot.model(model.as_bytes()).filter(|m| m.name() == model);
                let missing = || ApiError::not_found(format!("there is no model `{model}`"));
                found.ok_or_else(missing)?.limits().iter().collect()
            }
            Owner::All => snapshot.global_limits().iter().collect(),
        };
        let found = all.iter().find(|limit| limit.name() == name);
        let found = found.map(|limit| Found {
            metric: limit.metric(),
            window_ms: limit.window_ms(),
        });
        found.ok_or_else(|| {
            let names: Vec<&str> = all.iter().map(LimitView::name).collect();
            let reason = match names.is_empty() {
                true => "there are no limits here".to_owned(),
                false => format!("there is no such limit here; there are {}", names.join(", ")),
            };
            ApiError::invalid_fields(vec![FieldProblem::at("limit", reason)])
        })
    }

    /// Changes what is said of the limit.
    async fn relieve(&self, context: Context, limit: String, change: Value) -> Result<Written, ApiError> {
        let deed: Deed = Box::new(move |present| {
            let now = now_ms();
            let mut list = present["relief"].as_array().cloned().unwrap_or_default();
            // What was added and is over says nothing any more; a reset is part of what the limit is.
            for entry in &mut list {
                let until = serde_json::from_value::<Moment>(entry["until"].clone());
                if until.is_ok_and(|until| until.0 <= now)
                    && let Some(fields) = entry.as_object_mut()
                {
                    fields.remove("add");
                    fields.remove("until");
                }
            }
            list.retain(|e| e["limit"] == *limit || !e["reset"].is_null() || !e["until"].is_null());
            let entry = match list.iter_mut().find(|e| e["limit"] == *limit) {
                Some(entry) => entry,
                None => {
                    list.push(json!({ "limit": limit }));
                    list.last_mut().ok_or_else(no_configuration)?
                }
            };
            if let (Some(entry), Some(change)) = (entry.as_object_mut(), change.as_object()) {
                entry.extend(change.clone());
            }
            Ok(json!({ "relief": list }))
        });
        let (sort, id) = self.sort();
        resources::amend(sort, context, id, deed).await
    }

    async fn reset(self, (state, who, trail): Context, body: &[u8]) -> Result<Written, ApiError> {
        let wanted: Reset = decoded(body)?;
        trail.because(&wanted.reason);
        if self.limit(&state, &wanted.limit)?.metric == Metric::Connections {
            let reason = "connections have no window: they end with their requests";
            return Err(ApiError::invalid_fields(vec![FieldProblem::at("limit", reason)]));
        }
        let change = json!({ "reset": Moment(now_ms()).to_string() });
        self.relieve((state, who, trail), wanted.limit, change).await
    }

    async fn top_up(self, (state, who, trail): Context, body: &[u8]) -> Result<Written, ApiError> {
        let wanted: TopUp = decoded(body)?;
        trail.because(&wanted.reason);
        let found = self.limit(&state, &wanted.limit)?;
        let span_ms = match wanted.lasting {
            Some(span) => span.as_millis(),
            None if found.window_ms > 0 => found.window_ms,
            None => {
                let reason = "missing: the limit has no window";
                return Err(ApiError::invalid_fields(vec![FieldProblem::at("for", reason)]));
            }
        };
        if span_ms == 0 || span_ms > LONGEST_MS {
            let reason = "must be longer than 0 and at most 31d";
            return Err(ApiError::invalid_fields(vec![FieldProblem::at("for", reason)]));
        }
        let until = Moment(now_ms() + span_ms).to_string();
        let change = json!({ "add": wanted.add, "until": until });
        self.relieve((state, who, trail), wanted.limit, change).await
    }
}

/// Resetting a limit.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Reset {
    /// The limit's name, as refusals and `/limits` call it.
    limit: String,
    /// For the audit log and the version's message.
    #[serde(default)]
    reason: String,
}

/// Topping a limit up.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct TopUp {
    /// The limit's name, as refusals and `/limits` call it.
    limit: String,
    /// By how much its maximum is higher, instead of what was added before; 0 ends it.
    add: u64,
    /// For how long, such as `10m`; the limit's window by default.
    #[serde(rename = "for")]
    lasting: Option<Span>,
    /// For the audit log and the version's message.
    #[serde(default)]
    reason: String,
}

/// Forgets what a channel has used of a limit.
pub(super) async fn reset_of_channel(
    State(state): State<AppState>,
    Extension(who): Extension<Principal>,
    Extension(trail): Extension<Trail>,
    Path(code): Path<String>,
    Body(body): Body,
) -> Result<Written, ApiError> {
    if !who.sees(&code) {
        return Err(ApiError::not_found(format!("there is no channel `{code}`")));
    }
    Owner::Channel(code).reset((state, who, trail), &body).await
}

/// Forgets what was used of a model's limit.
pub(super) async fn reset_of_model(
    State(state): State<AppState>,
    Extension(who): Extension<Principal>,
    Extension(trail): Extension<Trail>,
    Path(name): Path<String>,
    Body(body): Body,
) -> Result<Written, ApiError> {
    Owner::Model(name).reset((state, who, trail), &body).await
}

/// Forgets what was used of a limit over everything.
pub(super) async fn reset_of_all(
    State(state): State<AppState>,
    Extension(who): Extension<Principal>,
    Extension(trail): Extension<Trail>,
    Body(body): Body,
) -> Result<Written, ApiError> {
    Owner::All.reset((state, who, trail), &body).await
}

/// Gives a channel more of a limit for a while.
pub(super) async fn top_up_of_channel(
    State(state): State<AppState>,
    Extension(who): Extension<Principal>,
    Extension(trail): Extension<Trail>,
    Path(code): Path<String>,
    Body(body): Body,
) -> Result<Written, ApiError> {
    if !who.sees(&code) {
        return Err(ApiError::not_found(format!("there is no channel `{code}`")));
    }
    Owner::Channel(code).top_up((state, who, trail), &body).await
}

/// Gives a model more of a limit for a while.
pub(super) async fn top_up_of_model(
    State(state): State<AppState>,
    Extension(who): Extension<Principal>,
    Extension(trail): Extension<Trail>,
    Path(name): Path<String>,
    Body(body): Body,
) -> Result<Written, ApiError> {
    Owner::Model(name).top_up((state, who, trail), &body).await
}

/// Gives everything more of a limit for a while.
pub(super) async fn top_up_of_all(
    State(state): State<AppState>,
    Extension(who): Extension<Principal>,
    Extension(trail): Extension<Trail>,
    Body(body): Body,
) -> Result<Written, ApiError> {
    Owner::All.top_up((state, who, trail), &body).await
}
