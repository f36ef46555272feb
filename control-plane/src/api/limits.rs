//! Limits as they stand now.

use axum::extract::State;
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::extract::{Path, Query};
use super::{ApiError, AppState};
use crate::accounts::Principal;
use crate::live::{self, LiveLimit};

/// Most channels on one page.
const MOST: usize = 1_000;

/// A model to ask about.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct OfModel {
    /// Its name or alias.
    model: Option<String>,
}

/// How full a channel's limits are.
#[derive(Serialize, JsonSchema)]
pub(super) struct ChannelLimits {
    /// Generation in force.
    generation: u64,
    /// Its code.
    channel: String,
    /// Its name.
    name: String,
    /// Whether its requests are served.
    enabled: bool,
    /// The model that was asked about; null for all.
    model: Option<String>,
    /// Every limit that its requests meet.
    limits: Vec<LiveLimit>,
}

/// How full a channel's own limits are.
#[derive(Serialize, JsonSchema)]
struct ChannelLevels {
    /// Its code.
    channel: String,
    /// Its name.
    name: String,
    /// Whether its requests are served.
    enabled: bool,
    /// Its own limits.
    limits: Vec<LiveLimit>,
}

/// How full all limits are.
#[derive(Serialize, JsonSchema)]
pub(super) struct AllLimits {
    /// Generation in force.
    generation: u64,
    /// Channels that were skipped.
    offset: usize,
    /// Number of channels that the caller may see.
    total: usize,
    channels: Vec<ChannelLevels>,
    /// Limits over everything.
    global: Vec<LiveLimit>,
}

/// Every limit that a channel's requests meet.
pub(super) async fn of_channel(
    State(state): State<AppState>,
    Extension(who): Extension<Principal>,
    Path(code): Path<String>,
    Query(query): Query<OfModel>,
) -> Result<Json<ChannelLimits>, ApiError> {
    let status = state.status();
    let active = status.active().ok_or_else(no_configuration)?;
    let snapshot = active.snapshot().ok_or_else(no_configuration)?;
    let channel = Some(code.as_bytes())
        .filter(|_| who.sees(&code))
        .and_then(|bytes| snapshot.channel_by_code(bytes))
        .ok_or_else(|| ApiError::not_found(format!("there is no channel `{code}`")))?;
    let model = match &query.model {
        None => None,
        Some(name) => Some(
            snapshot
                .model(name.as_bytes())
                .ok_or_else(|| ApiError::not_found(format!("there is no model `{name}`")))?,
        ),
    };
    let limits = live::all_limits(&*state.region, &snapshot, &channel, model.as_ref());
    Ok(Json(ChannelLimits {
        generation: active.generation(),
        name: channel.name().to_owned(),
        enabled: channel.enabled(),
        channel: code,
        model: model.map(|m| m.name().to_owned()),
        limits,
    }))
}

pub(super) fn no_configuration() -> ApiError {
    ApiError::unavailable("no configuration is in force")
}

/// A page of channels.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Page {
    /// Channels to skip.
    #[serde(default)]
    offset: usize,
    /// Channels to show; 100 by default, at most 1,000.
    #[serde(default = "hundred")]
    limit: usize,
}

fn hundred() -> usize {
    100
}

/// The limits of all channels, page by page, and the global ones.
pub(super) async fn all(
    State(state): State<AppState>,
    Extension(who): Extension<Principal>,
    Query(page): Query<Page>,
) -> Result<Json<AllLimits>, ApiError> {
    let status = state.status();
    let active = status.active().ok_or_else(no_configuration)?;
    let snapshot = active.snapshot().ok_or_else(no_configuration)?;
    let limited = who.is_limited();
    let visible = || snapshot.channels().filter(|c| !limited || who.sees(c.code()));
    let total = if limited {
        visible().count()
    } else {
        snapshot.channels().len()
    };
    let channels: Vec<ChannelLevels> = visible()
        .skip(page.offset)
        .take(page.limit.min(MOST))
        .map(|c| ChannelLevels {
            channel: c.code().to_owned(),
            name: c.name().to_owned(),
            enabled: c.enabled(),
            limits: live::channel_limits(&*state.region, &snapshot, &c),
        })
        .collect();
    Ok(Json(AllLimits {
        generation: active.generation(),
        offset: page.offset,
        total,
        channels,
        global: live::global_limits(&*state.region, &snapshot),
    }))
}
