//! What a rule in shadow mode would have done, to look at before it is enforced.

use std::collections::BTreeMap;

use axum::extract::State;
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tollgate_policy::{Deeds, hash_name};

use super::extract::{Path, Query};
use super::resources::{self, sort::Sort};
use super::{ApiError, AppState};
use crate::accounts::{Action, Principal, Resource};
use crate::ledger::{SeriesQuery, ShadowSums};

/// Channels that stand by themselves in an answer.
const TOP: usize = 10;
/// Most buckets in an answer.
const MOST: u64 = 1_000;
/// Lengths of buckets, seconds; hits are kept by the first.
const STEPS: [u64; 3] = [600, 3_600, 86_400];

/// Which results.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
#[schemars(rename = "ShadowWanted")]
pub(super) struct Wanted {
    /// Unix seconds; a day before `to` by default.
    from: Option<u64>,
    /// Unix seconds, not included; now by default.
    to: Option<u64>,
}

/// What the rule would have done; a request counts in each that applies to it.
#[derive(Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "ShadowDeeds")]
struct Would {
    /// Requests that it would have refused.
    refuse: u64,
    /// Requests that it would have let pass, whatever later rules say.
    allow: u64,
    /// Requests that it would have moved to another channel, model, version or deployment.
    reroute: u64,
    /// Requests whose output it would have capped.
    cap: u64,
    /// Requests that it would have labelled.
    tag: u64,
}

/// Hits of one channel.
#[derive(Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "ShadowChannel")]
struct Channel {
    /// Channel code; empty for requests without one.
    channel: String,
    /// Its requests that the rule matched.
    hits: u64,
}

/// What a rule in shadow mode would have done.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "ShadowResults")]
pub(super) struct Answer {
    /// The rule's name.
    rule: String,
    /// Length of a bucket in seconds: ten minutes, an hour or a day, by the length of the time.
    step: u64,
    /// Begin of the first bucket, Unix seconds.
    from: u64,
    /// End, Unix seconds.
    to: u64,
    /// What there is to say about whose requests these are; null if there are no others.
    note: Option<String>,
    /// Requests that the rule matched.
    hits: u64,
    /// All requests of that time, refused ones among them; for an account that is limited to some channels, theirs, as are hits.
    requests: u64,
    /// Hits by what it would have done.
    would: Would,
    /// Those with the most hits; none for those who may not read usage.
    channels: Vec<Channel>,
    /// Hits of all other channels.
    others: u64,
    /// Begin of each bucket, Unix seconds.
    times: Vec<u64>,
    /// Hits by bucket, in the order of `times`.
    values: Vec<u64>,
}

impl Would {
    fn of(deeds: &BTreeMap<u16, u64>) -> Would {
        let mut would = Would::default();
        let moved = Deeds::SET_CHANNEL
            .and(Deeds::SET_MODEL)
            .and(Deeds::SET_VERSION)
            .and(Deeds::SET_DEPLOYMENT);
        for (deeds, hits) in deeds {
            for (sum, which) in [
                (&mut would.refuse, Deeds::DENY),
                (&mut would.allow, Deeds::ALLOW),
                (&mut would.reroute, moved),
                (&mut would.cap, Deeds::CAP_MAX_TOKENS),
                (&mut would.tag, Deeds::TAG),
            ] {
                if Deeds(*deeds).has(which) {
                    *sum += hits;
                }
            }
        }
        would
    }
}

/// The channels with the most hits, and how many the others have.
fn ranked(channels: BTreeMap<String, u64>, top: usize) -> (Vec<Channel>, u64) {
    let named = |(channel, hits)| Channel { channel, hits };
    let mut all: Vec<Channel> = channels.into_iter().map(named).collect();
    all.sort_by(|a, b| (b.hits, &a.channel).cmp(&(a.hits, &b.channel)));
    let others = all.split_off(top.min(all.len()));
    (all, others.iter().map(|c| c.hits).sum())
}

/// The time that is asked for, in whole buckets.
fn range(wanted: &Wanted, now: u64) -> Result<SeriesQuery, ApiError> {
    let to = wanted.to.unwrap_or(now + 1);
    let from = wanted.from.unwrap_or(to.saturating_sub(86_400));
    let fits = |step: &u64| to.saturating_sub(from / step * step).div_ceil(*step) <= MOST;
    let Some(step) = STEPS.into_iter().find(fits) else {
        return Err(ApiError::bad_request(format!(
            "`from`: more than {MOST} days before `to`"
        )));
    };
    Ok(SeriesQuery {
        step,
        from: from / step * step,
        to,
        by_channel: false,
        by_model: false,
        channel: None,
        model: None,
    })
}

/// What the rule has matched of what somebody may see, and all of their requests.
fn look(
    state: &AppState,
    who: &Principal,
    rule: &str,
    query: &SeriesQuery,
) -> Result<(ShadowSums, u64), ApiError> {
    let sees = |channel: &str| who.sees(channel);
    let sees = who.is_limited().then_some(&sees as &dyn Fn(&str) -> bool);
    let sums = state.ledger.shadow(hash_name(rule.as_bytes()), query, sees)?;
    let all = state.ledger.series(query, 1, sees)?;
    let points = all.lines.iter().flat_map(|line| &line.points);
    let requests: i64 = points.map(|counters| counters.requests()).sum();
    Ok((sums, u64::try_from(requests).unwrap_or(0)))
}

/// What a rule would have done, had it not been in shadow mode: this instance's requests that it matched, by what it would
/// have done with them, by channel and over time, beside the number of all requests; an account that is limited to some
/// channels is told of theirs. Hits are counted from events, so those
/// of a full ring or a killed worker are missing.
pub(super) async fn read(
    State(state): State<AppState>,
    Extension(who): Extension<Principal>,
    Path(rule): Path<String>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Answer>, ApiError> {
    let query = range(&wanted, state.region.now_ms() / 1_000)?;
    let known = resources::one(Sort::RULES, state.clone(), who.clone(), rule.clone()).await;
    let top = if who.may(Resource::Usage, Action::Read) {
        TOP
    } else {
        0
    };
    let (looking, name, asked) = (state.clone(), rule.clone(), query.clone());
    let (sums, requests) = tokio::task::spawn_blocking(move || look(&looking, &who, &name, &asked)).await??;
    let hits: u64 = sums.points.iter().sum();
    // A rule that is gone has its results for as long as they are kept.
    if hits == 0 {
        known?;
    }
    let (channels, others) = ranked(sums.channels, top);
    let shared = state.usage.is_configured();
    Ok(Json(Answer {
        rule,
        step: query.step,
        from: query.from,
        to: query.to,
        note: shared.then(|| "this instance's alone: other instances know their own".to_owned()),
        hits,
        requests,
        would: Would::of(&sums.deeds),
        channels,
        others,
        times: (0..sums.points.len() as u64)
            .map(|n| query.from + n * query.step)
            .collect(),
        values: sums.points,
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(from: Option<u64>, to: Option<u64>) -> Wanted {
        Wanted { from, to }
    }

    #[test]
    fn buckets_are_as_long_as_the_time_needs() {
        let now = 1_800_000_123;
        let steps = |from, to| {
            range(&wanted(from, to), now).map(|q| (q.step, q.from % q.step, q.buckets() as u64 <= MOST))
        };
        let of_last = |seconds: u64| steps(Some(now - seconds), None).unwrap();
        assert_eq!(steps(None, None).unwrap(), (600, 0, true));
        assert_eq!(of_last(6 * 86_400), (600, 0, true));
        assert_eq!(of_last(7 * 86_400), (3_600, 0, true));
        assert_eq!(of_last(90 * 86_400), (86_400, 0, true));
        assert!(steps(Some(0), None).is_err());
        // A time that ends before it begins is empty.
        let query = range(&wanted(Some(now), Some(600)), now).unwrap();
        assert_eq!(query.buckets(), 0);
        assert!(range(&wanted(Some(0), Some(u64::MAX)), now).is_err());
    }

    #[test]
    fn hits_are_told_apart_by_deed() {
        let deeds = BTreeMap::from([
            (Deeds::DENY.and(Deeds::TAG).0, 3),
            (Deeds::SET_MODEL.and(Deeds::SET_VERSION).0, 4),
            (Deeds::CAP_MAX_TOKENS.0, 9),
        ]);
        let would = Would {
            refuse: 3,
            allow: 0,
            reroute: 4,
            cap: 9,
            tag: 3,
        };
        assert_eq!(Would::of(&deeds), would);
    }

    #[test]
    fn only_some_channels_stand_by_themselves() {
        let many: BTreeMap<String, u64> = (0..25).map(|n| (format!("c{n:02}"), n + 1)).collect();
        let (channels, others) = ranked(many.clone(), TOP);
        assert_eq!((channels.len(), channels[0].hits, channels[9].hits), (10, 25, 16));
        assert_eq!(others, (1..=15).sum::<u64>());
        let (channels, others) = ranked(many, 0);
        assert_eq!((channels.len(), others), (0, (1..=25).sum::<u64>()));
    }
}
