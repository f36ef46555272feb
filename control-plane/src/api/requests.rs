//! The request log, newest first.

use axum::extract::State;
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::extract::{Path, Query};
use super::usage::Scope;
use super::{ApiError, AppState};
use crate::accounts::Principal;
use crate::config::ConfigStatus;
use crate::ledger::{RequestRecord, RequestSearch, flag_bit};
use crate::live;
use crate::shared::RecentCursor;

/// Most lines on one page.
const MOST: usize = 1_000;

/// Which lines.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// `next` of the page before.
    before: Option<String>,
    /// This instance's whole log, by default, or the newest lines of all instances, as far as `request_log.cluster_rows`
    /// goes and instances share a Redis.
    scope: Option<Scope>,
    /// Only this channel.
    channel: Option<String>,
    /// Only this model.
    model: Option<String>,
    /// Only this class: `ok`, `client`, `rule`, `limit`, `upstream`, `timeout`, `abort`, `internal`.
    class: Option<String>,
    /// Only callers whom this experiment has sorted.
    experiment: Option<String>,
    /// Only callers of a group of this name.
    group: Option<String>,
    /// Only this status.
    status: Option<u16>,
    /// Only this deployment.
    deployment: Option<String>,
    /// Only lines with this flag: `stream`, `suspicious`, `cut`, `shadow` (a shadow rule matched).
    flag: Option<String>,
    /// Only this request id, 32 hexadecimal digits.
    id: Option<String>,
    /// Whether attempts that another one followed are lines too: by default only with `id`.
    attempts: Option<bool>,
    /// Not older, Unix milliseconds.
    from_ms: Option<u64>,
    /// Older than this, Unix milliseconds.
    to_ms: Option<u64>,
    /// At most so many; 100 by default, at most 1,000.
    #[serde(default = "hundred")]
    limit: usize,
}

fn hundred() -> usize {
    100
}

/// A line of the request log. `rule` is the rule's name as long as the configuration in force has it.
#[derive(Serialize, JsonSchema)]
pub(super) struct RequestLine {
    /// Its number in the log of its instance.
    number: i64,
    /// The instance.
    instance: String,
    #[serde(flatten)]
    record: RequestRecord,
    /// Name of the limit that refused it; null for none, or for one that the configuration in force does not have.
    limit: Option<String>,
}

/// A page of the request log.
#[derive(Serialize, JsonSchema)]
pub(super) struct RequestPage {
    requests: Vec<RequestLine>,
    /// `before` of the next page; null on the last one.
    next: Option<String>,
}

/// Names of the limit and the rule that decided, as far as the configuration in force still has them.
fn named(
    status: &ConfigStatus,
    (number_of_line, instance): (i64, String),
    mut record: RequestRecord,
) -> RequestLine {
    let number = |hex: &str| u64::from_str_radix(hex, 16).ok();
    let limit = || {
        let key = number(&record.limit_key)?;
        let snapshot = status.active()?.snapshot()?;
        let channel = snapshot.channel_by_code(record.channel.as_bytes());
        let model = snapshot.model(record.model.as_bytes());
        let limits = live::applying(&snapshot, channel.as_ref(), model.as_ref());
        let limit = limits.iter().find(|l| l.counter_key(&record.model) == key)?;
        Some(limit.name().to_owned())
    };
    let limit = limit();
    let rule = number(&record.rule).and_then(|hash| status.rules.get(&hash));
    if let Some(rule) = rule {
        record.rule.clone_from(rule);
    }
    RequestLine {
        number: number_of_line,
        instance,
        record,
        limit,
    }
}

/// What of the log somebody may see; `None` for all.
fn seen_by(who: &Principal) -> Option<impl Fn(&str) -> bool> {
    who.is_limited().then_some(|channel: &str| who.sees(channel))
}

async fn search(state: AppState, who: Principal, query: RequestSearch) -> Result<RequestPage, ApiError> {
    let status = state.status();
    tokio::task::spawn_blocking(move || {
        let sees = seen_by(&who);
        let page = state
            .ledger
            .search(&query, sees.as_ref().map(|f| f as &dyn Fn(&str) -> bool))?;
        let lines = page
            .lines
            .into_iter()
            .map(|(number, record)| named(&status, (number, state.instance.clone()), record));
        Ok(RequestPage {
            requests: lines.collect(),
            next: page.next.map(|number| number.to_string()),
        })
    })
    .await?
}

/// A page of what all instances show one another.
async fn search_all(
    state: &AppState,
    who: &Principal,
    before: Option<&str>,
    query: &RequestSearch,
) -> Result<RequestPage, ApiError> {
    if !state.recent.0.is_configured() {
        return Err(ApiError::bad_request(
            "`scope`: without `redis` in the settings each instance knows its own requests only",
        ));
    }
    let cursor = match before {
        None => RecentCursor::default(),
        Some(text) => {
            RecentCursor::parse(text).ok_or_else(|| ApiError::bad_request("`before` is no page's `next`"))?
        }
    };
    let sees = |channel: &str| who.sees(channel);
    let (lines, next) = state.recent.0.search(query, &cursor, &sees).await?;
    let status = state.status();
    let lines = lines
        .into_iter()
        .map(|line| named(&status, (line.number, line.instance), line.record));
    Ok(RequestPage {
        requests: lines.collect(),
        next: next.map(|cursor| cursor.to_string()),
    })
}

/// A page of the log.
pub(super) async fn read(
    State(state): State<AppState>,
    Extension(who): Extension<Principal>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<RequestPage>, ApiError> {
    let flag = wanted.flag.as_deref().map(|name| {
        flag_bit(name)
            .ok_or_else(|| ApiError::bad_request("`flag` is none of `stream`, `suspicious`, `cut`, `shadow`"))
    });
    let of_all = wanted.scope == Some(Scope::Cluster);
    let before = wanted.before.as_ref().filter(|_| !of_all).map(|text| {
        text.parse()
            .map_err(|_| ApiError::bad_request("`before` is no page's `next`"))
    });
    let query = RequestSearch {
        flags: flag.transpose()?.unwrap_or(0),
        before: before.transpose()?,
        channel: wanted.channel,
        model: wanted.model,
        class: wanted.class,
        experiment: wanted.experiment,
        group: wanted.group,
        status: wanted.status,
        attempts: wanted.attempts.unwrap_or(wanted.id.is_some()),
        deployment: wanted.deployment,
        id: wanted.id,
        from_ms: wanted.from_ms,
        to_ms: wanted.to_ms,
        limit: wanted.limit.clamp(1, MOST),
    };
    if of_all {
        search_all(&state, &who, wanted.before.as_deref(), &query)
            .await
            .map(Json)
    } else {
        search(state, who, query).await.map(Json)
    }
}

/// One line of the log.
pub(super) async fn one(
    State(state): State<AppState>,
    Extension(who): Extension<Principal>,
    Path(number): Path<i64>,
) -> Result<Json<RequestLine>, ApiError> {
    let query = RequestSearch {
        before: number.checked_add(1),
        attempts: true,
        limit: 1,
        ..RequestSearch::default()
    };
    let page = search(state, who, query).await?;
    page.requests
        .into_iter()
        .find(|line| line.number == number)
        .map(Json)
        .ok_or_else(|| ApiError::not_found(format!("there is no request {number} in the log")))
}
