//! Usage from the ledger.

use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::ser::SerializeMap;
use serde::{Deserialize, Serialize, Serializer};

use super::extract::Query;
use super::{ApiError, AppState};
use crate::accounts::Principal;
use crate::ledger::{COUNTER_NAMES, Counters, STEPS, StoreError, UsageQuery};
use crate::shared::SharedError;

/// Most points in one answer.
const MOST: usize = 20_000;

/// Which usage.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Only this channel.
    channel: Option<String>,
    /// Only this model.
    model: Option<String>,
    /// Unix seconds; an hour ago by default.
    from: Option<u64>,
    /// Unix seconds, not included; now by default.
    to: Option<u64>,
    /// 60, 600, or 0 for all time.
    #[serde(default = "minute")]
    step: u64,
    /// The whole cluster's usage or this instance's; the cluster's by default if the instances share a Redis.
    scope: Option<Scope>,
}

/// Whose usage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "UsageScope")]
pub(super) enum Scope {
    /// All instances together.
    Cluster,
    /// This one.
    Instance,
}

/// Usage of the scope that is asked for. Without a wish, this instance's stands in when Redis does not answer, and says so.
pub(super) async fn scoped<T>(
    state: &AppState,
    wish: Option<Scope>,
    cluster: impl Future<Output = Result<T, SharedError>>,
    instance: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<(T, Scope, Option<String>), ApiError>
where
    T: Send + 'static,
{
    let configured = state.usage.is_configured();
    let mut without = None;
    match wish {
        Some(Scope::Cluster) if !configured => {
            return Err(ApiError::bad_request(
                "`scope`: without `redis` in the settings each instance knows its own usage only",
            ));
        }
        Some(Scope::Cluster) => return Ok((cluster.await?, Scope::Cluster, None)),
        None if configured => match cluster.await {
            Ok(found) => return Ok((found, Scope::Cluster, None)),
            Err(error) => without = Some(format!("this instance's usage only: {error}")),
        },
        _ => {}
    }
    let found = tokio::task::spawn_blocking(instance).await??;
    Ok((found, Scope::Instance, without))
}

fn minute() -> u64 {
    60
}

/// Counters as the API shows them: by their names, and the sum of the requests.
#[derive(Clone, Copy, Default)]
pub(super) struct Tally(pub Counters);

impl Tally {
    /// Each counter.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, i64)> {
        let of_class = COUNTER_NAMES.into_iter().zip(self.0.0);
        of_class.chain([("requests", self.0.requests())])
    }
}

impl Serialize for Tally {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(COUNTER_NAMES.len() + 1))?;
        for (name, n) in self.named() {
            map.serialize_entry(name, &n)?;
        }
        map.end()
    }
}

impl JsonSchema for Tally {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Counters".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let names: Vec<&str> = Tally::default().named().map(|(name, _)| name).collect();
        let integer = serde_json::json!({ "type": "integer", "format": "int64" });
        let properties: serde_json::Map<String, serde_json::Value> = names
            .iter()
            .map(|name| ((*name).to_owned(), integer.clone()))
            .collect();
        json_schema!({ "type": "object", "properties": properties, "required": names })
    }
}

/// Usage of a channel × model within a bucket.
#[derive(Serialize, JsonSchema)]
struct UsagePoint {
    /// Begin of the bucket, Unix seconds; 0 for all time.
    time: u64,
    /// Its channel; empty for requests without one.
    channel: String,
    /// Its model; empty for requests without one.
    model: String,
    #[serde(flatten)]
    counters: Tally,
}

/// Usage per channel × model.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Usage")]
pub(super) struct Answer {
    /// Length of a bucket in seconds; 0 for all time.
    step: u64,
    /// Begin of the first bucket, Unix seconds.
    from: u64,
    /// End, Unix seconds.
    to: u64,
    /// Whether there are more points than these; `total` is of these alone.
    truncated: bool,
    /// Whose usage this is.
    scope: Scope,
    /// Why it is not what it would be otherwise; null if it is.
    note: Option<String>,
    /// The currency of all prices in force, by its three letters.
    currency: String,
    /// The sum of all points.
    total: Tally,
    points: Vec<UsagePoint>,
}

/// From when to when, Unix seconds.
pub(super) struct Range {
    /// Begin of the first bucket.
    pub from: u64,
    /// Not included.
    pub to: u64,
    /// What to call `to`.
    pub shown_to: u64,
}

impl Range {
    /// What is asked for; an hour by default, everything if the step is 0.
    pub(super) fn of(step: u64, from: Option<u64>, to: Option<u64>, now: u64) -> Result<Range, ApiError> {
        if !STEPS.contains(&step) {
            return Err(ApiError::bad_request("`step` must be 60, 600, or 0 for all time"));
        }
        if step == 0 {
            return Ok(Range {
                from: 0,
                to: u64::MAX,
                shown_to: now,
            });
        }
        let to = to.unwrap_or(now + 1);
        let from = from.unwrap_or(to.saturating_sub(3_600));
        Ok(Range {
            // The bucket that it lies in belongs to the answer.
            from: from / step * step,
            to,
            shown_to: to,
        })
    }
}

/// Usage per channel × model in buckets of a minute or ten, and its total.
pub(super) async fn read(
    State(state): State<AppState>,
    Extension(who): Extension<Principal>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Answer>, ApiError> {
    let now = state.region.now_ms() / 1_000;
    let range = Range::of(wanted.step, wanted.from, wanted.to, now)?;
    let query = UsageQuery {
        step: wanted.step,
        from: range.from,
        to: range.to,
        channel: wanted.channel,
        model: wanted.model,
        limit: MOST + 1,
    };
    let first = query.from;
    let currency = state.status().currency().to_owned();
    let sees = |channel: &str| who.sees(channel);
    let cluster = state.usage.usage(&query, &sees);
    let (ledger, wanted_here) = (Arc::clone(&state.ledger), query.clone());
    let (mut points, scope, note) =
        scoped(&state, wanted.scope, cluster, move || ledger.usage(&wanted_here)).await?;
    points.retain(|p| who.sees(&p.channel));
    let truncated = points.len() > MOST;
    points.truncate(MOST);
    let total = points
        .iter()
        .fold(Counters::default(), |sum, p| sum.plus(&p.counters));
    let points = points.into_iter().map(|p| UsagePoint {
        time: p.bucket,
        channel: p.channel,
        model: p.model,
        counters: Tally(p.counters),
    });
    Ok(Json(Answer {
        step: wanted.step,
        from: first,
        to: range.shown_to,
        truncated,
        scope,
        note,
        currency,
        total: Tally(total),
        points: points.collect(),
    }))
}
