//! How long requests took, as histograms: what the workers have counted since the region was made.

use axum::extract::State;
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tollgate_shm::{HISTOGRAM_BUCKETS, bucket_upper_us};

use super::extract::Query;
use super::{ApiError, AppState};
use crate::accounts::Principal;
use crate::pulse::percentile;

/// Of which requests.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// Only this channel.
    channel: Option<String>,
    /// Only this model.
    model: Option<String>,
}

/// Requests by how long something took.
#[derive(Debug, Serialize, JsonSchema)]
struct Histogram {
    /// All of them.
    count: u64,
    /// Microseconds below which half of them stayed, rounded up to a bucket's end; null without a request or beyond all.
    p50_us: Option<u64>,
    /// The same of 90 %.
    p90_us: Option<u64>,
    /// The same of 99 %.
    p99_us: Option<u64>,
    /// Requests in each bucket, in the order of `upper_us`.
    buckets: Vec<u64>,
}

/// Latencies.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "Latencies")]
pub(super) struct Answer {
    /// End of each bucket, microseconds; null for the last one, which has none.
    upper_us: Vec<Option<u64>>,
    /// From the request to the end of the answer.
    latency: Histogram,
    /// From the request to the first byte of the answer.
    first_token: Histogram,
}

impl Histogram {
    fn of(buckets: [u64; HISTOGRAM_BUCKETS]) -> Histogram {
        let below = |percent| percentile(&buckets, percent).filter(|us| *us != u64::MAX);
        Histogram {
            count: buckets.iter().sum(),
            p50_us: below(50),
            p90_us: below(90),
            p99_us: below(99),
            buckets: buckets.to_vec(),
        }
    }
}

fn add(into: &mut [u64; HISTOGRAM_BUCKETS], more: &[u64]) {
    for (sum, n) in into.iter_mut().zip(more) {
        *sum += n;
    }
}

/// Latencies of a channel, a model, both, or all.
pub(super) async fn read(
    State(state): State<AppState>,
    Extension(who): Extension<Principal>,
    Query(wanted): Query<Wanted>,
) -> Result<Json<Answer>, ApiError> {
    let answer = tokio::task::spawn_blocking(move || {
        let (mut latency, mut first_token) = ([0; HISTOGRAM_BUCKETS], [0; HISTOGRAM_BUCKETS]);
        for (_, row) in state.region.all_usage() {
            let of_channel = wanted.channel.as_ref().is_none_or(|c| *c == row.channel);
            let of_model = wanted.model.as_ref().is_none_or(|m| *m == row.model);
            if of_channel && of_model && who.sees(&row.channel) {
                add(&mut latency, &row.latency);
                add(&mut first_token, &row.first_token);
            }
        }
        let upper = |bucket| Some(bucket_upper_us(bucket)).filter(|us| *us != u64::MAX);
        Answer {
            upper_us: (0..HISTOGRAM_BUCKETS).map(upper).collect(),
            latency: Histogram::of(latency),
            first_token: Histogram::of(first_token),
        }
    });
    Ok(Json(answer.await?))
}
