//! Usage over time, for charts: made of roll-ups, one query for any range.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::extract::Query;
use super::usage::{Scope, Tally, scoped};
use super::{ApiError, AppState};
use crate::accounts::Principal;
use crate::ledger::{Counters, Ranked, SeriesQuery};

/// Most buckets in one answer.
const MOST: u64 = 5_000;

/// What usage is told apart by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
enum GroupBy {
    /// Nothing: one series.
    #[default]
    None,
    /// Its channel.
    Channel,
    /// Its model.
    Model,
    /// Both.
    ChannelModel,
}

/// Which usage.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Unix seconds; a day before `to` by default.
    from: Option<u64>,
    /// Unix seconds, not included; now by default.
    to: Option<u64>,
    /// Length of a bucket in seconds, a multiple of 60; 600 by default. Multiples of 600 reach back furthest.
    step: Option<u64>,
    /// What usage is told apart by; nothing by default.
    #[serde(default)]
    group_by: GroupBy,
    /// Only this channel.
    channel: Option<String>,
    /// Only this model.
    model: Option<String>,
    /// The whole cluster's usage or this instance's; the cluster's by default if the instances share a Redis.
    scope: Option<Scope>,
    /// So many series with the most requests by themselves, all others as one; 10 by default, at most 100.
    top: Option<usize>,
}

/// Counters by their names.
type Named<T> = BTreeMap<String, T>;

/// One channel's, one model's, or all usage over time.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "UsageLine")]
pub(super) struct Line {
    /// Its channel; null for all.
    channel: Option<String>,
    /// Its model; null for all.
    model: Option<String>,
    /// Sum of each counter.
    total: Tally,
    /// Each counter by bucket, in the order of `times`.
    values: Named<Vec<i64>>,
}

/// Usage over time.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "UsageSeries")]
pub(super) struct Answer {
    /// Length of a bucket in seconds.
    step: u64,
    /// Begin of the first bucket, Unix seconds.
    from: u64,
    /// End, Unix seconds.
    to: u64,
    /// Whose usage this is.
    scope: Scope,
    /// Why it is not what it would be otherwise; null if it is.
    note: Option<String>,
    /// Begin of each bucket, Unix seconds.
    times: Vec<u64>,
    /// Those with the most requests first.
    series: Vec<Line>,
    /// All others together; null if there are none.
    others: Option<Line>,
}

fn line(channel: String, model: String, points: &[Counters]) -> Line {
    let some = |text: String| (!text.is_empty()).then_some(text);
    let total = points.iter().fold(Counters::default(), |sum, c| sum.plus(c));
    let mut values: Vec<(&str, Vec<i64>)> = Tally(total)
        .named()
        .map(|(name, _)| (name, Vec::with_capacity(points.len())))
        .collect();
    for counters in points {
        for ((_, values), (_, n)) in values.iter_mut().zip(Tally(*counters).named()) {
            values.push(n);
        }
    }
    let named = |(name, values): (&str, Vec<i64>)| (name.to_owned(), values);
    Line {
        channel: some(channel),
        model: some(model),
        total: Tally(total),
        values: values.into_iter().map(named).collect(),
    }
}

/// Usage over time.
pub(super) async fn read(
    State(state): State<AppState>,
    Extension(who): Extension<Principal>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Answer>, ApiError> {
    let step = wanted.step.unwrap_or(600);
    if step == 0 || !step.is_multiple_of(60) || step > 366 * 86_400 {
        return Err(ApiError::bad_request(
            "`step` must be a multiple of 60, in seconds",
        ));
    }
    let to = wanted.to.unwrap_or(state.region.now_ms() / 1_000 + 1);
    let from = wanted.from.unwrap_or(to.saturating_sub(86_400)) / step * step;
    let buckets = to.saturating_sub(from).div_ceil(step);
    if buckets > MOST {
        let detail =
            format!("{buckets} buckets are more than {MOST}; take a longer `step` or a shorter range");
        return Err(ApiError::bad_request(detail));
    }
    let query = SeriesQuery {
        step,
        from,
        to,
        by_channel: matches!(wanted.group_by, GroupBy::Channel | GroupBy::ChannelModel),
        by_model: matches!(wanted.group_by, GroupBy::Model | GroupBy::ChannelModel),
        channel: wanted.channel,
        model: wanted.model,
    };
    let top = wanted.top.unwrap_or(10).clamp(1, 100);
    let sees = |channel: &str| who.sees(channel);
    let cluster = async {
        let all = state.usage.series(&query, &sees).await?;
        Ok(Ranked::of(all, &query, top))
    };
    let here = {
        let (ledger, query, who) = (Arc::clone(&state.ledger), query.clone(), who.clone());
        move || {
            let sees = |channel: &str| who.sees(channel);
            let sees: &dyn Fn(&str) -> bool = &sees;
            ledger.series(&query, top, who.is_limited().then_some(sees))
        }
    };
    let (found, scope, note) = scoped(&state, wanted.scope, cluster, here).await?;
    tokio::task::spawn_blocking(move || {
        Ok(Json(Answer {
            step,
            from,
            to,
            scope,
            note,
            times: (0..buckets).map(|n| from + n * step).collect(),
            series: found
                .lines
                .into_iter()
                .map(|l| line(l.channel, l.model, &l.points))
                .collect(),
            others: found
                .others
                .map(|points| line(String::new(), String::new(), &points)),
        }))
    })
    .await?
}
