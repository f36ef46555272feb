//! The live stream: what the gateway does, once a second, and what is wrong with it when that changes, as server-sent events.

use std::collections::{BTreeMap, HashMap};
use std::convert::Infallible;
use std::time::Duration;

use axum::Extension;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::IntoResponse;
use axum::response::sse::{Event, KeepAlive, Sse};
use futures_util::stream::unfold;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tollgate_shm::{Class, HISTOGRAM_BUCKETS};

use super::AppState;
use super::alerts;
use super::extract::Query;
use super::guard::identify;
use crate::accounts::{Action, Principal, Resource};
use crate::alerts::Shown;
use crate::pulse::{Beat, Pulse, percentile};
use crate::schedule::now_ms;

/// After so many events it is looked up whether the session still stands.
const ASK_AGAIN: u32 = 10;

/// What to show.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct Wanted {
    /// So many channels and models with the most requests; 10 by default, at most 100.
    top: Option<usize>,
}

/// Percentiles in milliseconds; null without a request.
#[derive(Debug, Serialize, JsonSchema)]
struct Percentiles {
    p50: Option<f64>,
    p90: Option<f64>,
    p99: Option<f64>,
}

/// A channel or a model.
#[derive(Debug, Default, Serialize, JsonSchema)]
struct Part {
    name: String,
    requests_per_s: f64,
    tokens_per_s: f64,
    errors_per_s: f64,
    in_flight: u64,
}

/// What happened within the last second.
#[derive(Debug, Serialize, JsonSchema)]
#[schemars(rename = "LiveSample")]
pub(super) struct Sample {
    /// Region time, Unix milliseconds.
    at_ms: u64,
    requests_per_s: f64,
    input_tokens_per_s: f64,
    output_tokens_per_s: f64,
    /// Requests that failed upstream, timed out, or failed here.
    errors_per_s: f64,
    /// Requests that a limit or a rule refused.
    refused_per_s: f64,
    in_flight: u64,
    latency_ms: Percentiles,
    first_token_ms: Percentiles,
    /// Requests by how they ended.
    by_class: BTreeMap<&'static str, u64>,
    channels: Vec<Part>,
    models: Vec<Part>,
    /// Generation in force.
    generation: u64,
    /// Worker processes that live, and those that have not taken the generation up yet.
    workers: Workers,
}

#[derive(Debug, Serialize, JsonSchema)]
struct Workers {
    alive: usize,
    behind: usize,
}

fn count(beat: &Beat, classes: &[Class]) -> u64 {
    classes.iter().filter_map(|c| beat.classes.get(*c as usize)).sum()
}

const FAILED: [Class; 3] = [Class::Upstream, Class::Timeout, Class::Internal];

fn percentiles<'b>(histograms: impl Iterator<Item = &'b Vec<u64>>) -> Percentiles {
    let mut sum = [0; HISTOGRAM_BUCKETS];
    for histogram in histograms {
        for (slot, n) in sum.iter_mut().zip(histogram) {
            *slot += n;
        }
    }
    let of = |percent| percentile(&sum, percent).map(|us| us as f64 / 1_000.0);
    Percentiles {
        p50: of(50),
        p90: of(90),
        p99: of(99),
    }
}

fn parts<'b>(beats: &[&'b Beat], name: fn(&'b Beat) -> &'b str, seconds: f64, top: usize) -> Vec<Part> {
    let mut sums: HashMap<&str, Part> = HashMap::new();
    for beat in beats {
        let part = sums.entry(name(beat)).or_default();
        part.requests_per_s += count(beat, &Class::ALL) as f64 / seconds;
        part.tokens_per_s += (beat.input_tokens + beat.output_tokens) as f64 / seconds;
        part.errors_per_s += count(beat, &FAILED) as f64 / seconds;
        part.in_flight += beat.in_flight;
    }
    let mut all: Vec<Part> = sums
        .into_iter()
        .map(|(name, part)| Part {
            name: name.to_owned(),
            ..part
        })
        .collect();
    all.sort_by(|a, b| {
        b.requests_per_s
            .total_cmp(&a.requests_per_s)
            .then_with(|| a.name.cmp(&b.name))
    });
    all.truncate(top);
    all
}

fn sample(state: &AppState, pulse: &Pulse, who: &Principal, top: usize) -> Sample {
    let beats: Vec<&Beat> = pulse.beats.iter().filter(|b| who.sees(&b.channel)).collect();
    let seconds = pulse.span_ms.max(1) as f64 / 1_000.0;
    let rate = |of: &dyn Fn(&Beat) -> u64| beats.iter().map(|b| of(b)).sum::<u64>() as f64 / seconds;
    let region = &state.region;
    let (generation, workers) = (region.generation(), region.workers());
    let alive = workers.iter().filter(|w| w.alive).count();
    Sample {
        at_ms: pulse.at_ms,
        requests_per_s: rate(&|b| count(b, &Class::ALL)),
        input_tokens_per_s: rate(&|b| b.input_tokens),
        output_tokens_per_s: rate(&|b| b.output_tokens),
        errors_per_s: rate(&|b| count(b, &FAILED)),
        refused_per_s: rate(&|b| count(b, &[Class::Limit, Class::Rule])),
        in_flight: beats.iter().map(|b| b.in_flight).sum(),
        latency_ms: percentiles(beats.iter().map(|b| &b.latency)),
        first_token_ms: percentiles(beats.iter().map(|b| &b.first_token)),
        by_class: Class::ALL
            .into_iter()
            .map(|c| (c.name(), beats.iter().map(|b| count(b, &[c])).sum()))
            .collect(),
        channels: parts(&beats, |b| &b.channel, seconds, top),
        models: parts(&beats, |b| &b.model, seconds, top),
        generation,
        workers: Workers {
            alive,
            behind: workers
                .iter()
                .filter(|w| w.alive && w.generation != generation)
                .count(),
        },
    }
}

struct Stream {
    state: AppState,
    who: Principal,
    headers: HeaderMap,
    pulses: watch::Receiver<std::sync::Arc<Pulse>>,
    alerts: watch::Receiver<std::sync::Arc<Shown>>,
    top: usize,
    sent: u32,
}

impl Stream {
    /// How many alerts there are; nothing for whoever may not know.
    fn counts(&mut self) -> Option<Event> {
        let shown = std::sync::Arc::clone(&self.alerts.borrow_and_update());
        self.who.may(Resource::Alerts, Action::Read).then_some(())?;
        let counts = alerts::counts(&shown, &self.who, now_ms());
        Event::default().event("alerts").json_data(counts).ok()
    }

    /// The next event; `None` when whoever listens may not any more.
    async fn next(mut self) -> Option<(Result<Event, Infallible>, Stream)> {
        loop {
            tokio::select! {
                biased;
                changed = self.alerts.changed() => {
                    changed.ok()?;
                    match self.counts() {
                        Some(event) => return Some((Ok(event), self)),
                        None => continue,
                    }
                }
                changed = self.pulses.changed() => changed.ok()?,
            }
            let pulse = std::sync::Arc::clone(&self.pulses.borrow_and_update());
            if pulse.span_ms == 0 {
                continue;
            }
            self.sent += 1;
            if self.sent.is_multiple_of(ASK_AGAIN) {
                self.who = identify(&self.state, &self.headers).await.ok()??;
                if !self.who.may(Resource::Usage, Action::Read) {
                    return None;
                }
            }
            let sample = sample(&self.state, &pulse, &self.who, self.top);
            let event = Event::default()
                .event("sample")
                .id(pulse.at_ms.to_string())
                .json_data(sample)
                .ok()?;
            return Some((Ok(event), self));
        }
    }
}

/// Follows what the gateway does.
pub(super) async fn read(
    State(state): State<AppState>,
    Extension(who): Extension<Principal>,
    Query(wanted): Query<Wanted>,
    headers: HeaderMap,
) -> impl IntoResponse {
    let mut alerts = state.alerts.follow();
    // The first event says how it is now.
    alerts.mark_changed();
    let stream = Stream {
        pulses: state.pulses.follow(),
        alerts,
        top: wanted.top.unwrap_or(10).clamp(1, 100),
        sent: 0,
        state,
        who,
        headers,
    };
    let events = Sse::new(unfold(stream, Stream::next));
    // A proxy in between passes each event on at once.
    let head = [
        (header::CACHE_CONTROL, "no-store"),
        (header::HeaderName::from_static("x-accel-buffering"), "no"),
    ];
    (
        head,
        events.keep_alive(KeepAlive::new().interval(Duration::from_secs(15))),
    )
}
