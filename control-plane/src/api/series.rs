//! Usage over time, for charts: made of roll-ups, one query for any range.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::extract::State;
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::experiments::{Times, times};
use super::extract::Query;
use super::parts::{self, By, Name, Part};
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
    /// The model and the version of the deployment that served it. Not with `channel`, nor what no deployment served; of
    /// this instance alone.
    Version,
    /// The deployment that served it; likewise.
    Deployment,
    /// The group of an experiment that its caller was sorted into; likewise.
    Group,
}

impl GroupBy {
    fn parts(self) -> Option<By> {
        match self {
            GroupBy::None | GroupBy::Channel | GroupBy::Model | GroupBy::ChannelModel => None,
            GroupBy::Version => Some(By::Version),
            GroupBy::Deployment => Some(By::Deployment),
            GroupBy::Group => Some(By::Group),
        }
    }
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
    /// Only this experiment's groups; with `group_by=group` only.
    experiment: Option<String>,
    /// The whole cluster's usage or this instance's; the cluster's by default if the instances share a Redis.
    scope: Option<Scope>,
    /// So many series with the most requests by themselves, all others as one; 10 by default, at most 100.
    top: Option<usize>,
}

/// Counters by their names.
type Named<T> = BTreeMap<String, T>;

/// One channel's, one model's, another part's, or all usage over time.
#[derive(Default, Serialize, JsonSchema)]
#[schemars(rename = "UsageLine")]
pub(super) struct Line {
    /// Its channel; null for all.
    channel: Option<String>,
    /// Its model; null for all.
    model: Option<String>,
    /// The deployment that served it.
    #[serde(skip_serializing_if = "Option::is_none")]
    deployment: Option<String>,
    /// Its version; missing where it has none.
    #[serde(skip_serializing_if = "Option::is_none")]
    version: Option<String>,
    /// The experiment that sorted its callers.
    #[serde(skip_serializing_if = "Option::is_none")]
    experiment: Option<String>,
    /// Their group in it.
    #[serde(skip_serializing_if = "Option::is_none")]
    group: Option<String>,
    /// From the request to the end of the answer; only told of versions, deployments and groups.
    #[serde(skip_serializing_if = "Option::is_none")]
    latency: Option<Times>,
    /// From the request to the first byte of the answer; likewise.
    #[serde(skip_serializing_if = "Option::is_none")]
    first_token: Option<Times>,
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

fn some(text: String) -> Option<String> {
    (!text.is_empty()).then_some(text)
}

fn line(channel: String, model: String, points: &[Counters]) -> Line {
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
        ..Line::default()
    }
}

fn line_of(part: Part) -> Line {
    let Name {
        served,
        experiment,
        group,
    } = part.name;
    Line {
        deployment: some(served.deployment),
        version: some(served.version),
        experiment: some(experiment),
        group: some(group),
        latency: Some(times(&part.total.latency)),
        first_token: Some(times(&part.total.first_token)),
        ..line(String::new(), served.model, &part.points)
    }
}

/// Why parts cannot be shown; or what there is to say about them.
fn refused_parts(
    state: &AppState,
    who: &Principal,
    query: &SeriesQuery,
    by: By,
    scope: Option<Scope>,
) -> Result<Option<String>, ApiError> {
    if who.is_limited() {
        return Err(ApiError::forbidden(
            "versions, deployments and groups concern all channels, and this account is limited to some",
        ));
    }
    if query.channel.is_some() {
        let detail = "`channel`: versions, deployments and groups are not kept by channel";
        return Err(ApiError::bad_request(detail));
    }
    if by == By::Group && query.model.is_some() {
        return Err(ApiError::bad_request(
            "`model`: an experiment has one; name the `experiment`",
        ));
    }
    if scope == Some(Scope::Cluster) {
        let detail = "`scope`: versions, deployments and groups are known by each instance for itself";
        return Err(ApiError::bad_request(detail));
    }
    let shared = state.usage.is_configured();
    Ok(shared.then(|| "this instance's alone: other instances know their own".to_owned()))
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
    let by = wanted.group_by.parts();
    if wanted.experiment.is_some() && by != Some(By::Group) {
        return Err(ApiError::bad_request("`experiment` needs `group_by=group`"));
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
    let times = (0..buckets).map(|n| from + n * step).collect();
    if let Some(by) = by {
        let note = refused_parts(&state, &who, &query, by, wanted.scope)?;
        let ledger = Arc::clone(&state.ledger);
        return tokio::task::spawn_blocking(move || {
            let found = parts::read(&ledger, &query, by, wanted.experiment, top)?;
            Ok(Json(Answer {
                step,
                from,
                to,
                scope: Scope::Instance,
                note,
                times,
                series: found.first.into_iter().map(line_of).collect(),
                others: found.others.map(line_of),
            }))
        })
        .await?;
    }
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
            times,
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
