//! Limits as they stand in the region at this moment.

use schemars::JsonSchema;
use serde::Serialize;
use tollgate_policy::documents::{Algorithm, Enforcement, OnFull};
use tollgate_policy::{ChannelView, LimitView, ModelView, Snapshot};
use tollgate_shm::{Level, LimitSpec, Metric, Region};

/// Whoever knows how full limits are.
pub trait Levels {
    /// A limit's level now.
    fn level_of(&self, spec: &LimitSpec) -> Level;
}

impl Levels for Region {
    fn level_of(&self, spec: &LimitSpec) -> Level {
        self.level(spec, self.now_ms())
    }
}

/// A gateway that nobody has used yet.
pub struct Unused;

impl Levels for Unused {
    fn level_of(&self, spec: &LimitSpec) -> Level {
        let max = if spec.algorithm == tollgate_shm::Algorithm::TokenBucket {
            spec.burst
        } else {
            spec.max
        };
        Level {
            max,
            ..Level::default()
        }
    }
}

/// A limit and its level.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct LiveLimit {
    /// Its name where it stands.
    pub name: String,
    /// Whose it is.
    #[schemars(extend("enum" = ["channel", "channel_model", "model", "global", "deployment"]))]
    pub scope: &'static str,
    /// The model whose counter this is; empty if it counts all models together.
    pub model: String,
    /// What it counts.
    #[schemars(with = "tollgate_policy::documents::Metric")]
    pub metric: &'static str,
    /// How it counts.
    #[schemars(with = "Algorithm")]
    pub algorithm: &'static str,
    /// `strict` or `soft`.
    #[schemars(with = "Enforcement")]
    pub enforcement: &'static str,
    /// Length of its window, milliseconds; 0 for concurrency.
    pub window_ms: u64,
    /// The most that is admitted.
    pub max: u64,
    /// What counts against it now, debt included.
    pub used: u64,
    /// What is left.
    pub left: u64,
    /// Units used beyond reservations, not yet booked into a window.
    pub debt: u64,
    /// Milliseconds until something is freed; 0 if nothing is used.
    pub reset_ms: u64,
    /// Key of its counter, 16 hexadecimal digits.
    pub key: String,
}

/// The region's view of a limit for requests for `model` (its canonical name, or empty). `None` for a metric that the
/// region does not count.
pub fn spec(limit: &LimitView<'_>, model: &str) -> Option<LimitSpec> {
    use tollgate_policy::documents::Metric as Documented;
    let metric = match limit.metric() {
        Documented::Connections => Metric::Connections,
        Documented::Requests => Metric::Requests,
        Documented::InputTokens => Metric::InputTokens,
        Documented::OutputTokens => Metric::OutputTokens,
        Documented::TotalTokens => Metric::TotalTokens,
        Documented::Cost => Metric::Cost,
    };
    Some(LimitSpec {
        key: limit.counter_key(model),
        metric,
        algorithm: match limit.algorithm() {
            Algorithm::SlidingWindow => tollgate_shm::Algorithm::SlidingWindow,
            Algorithm::FixedWindow => tollgate_shm::Algorithm::FixedWindow,
            Algorithm::TokenBucket => tollgate_shm::Algorithm::TokenBucket,
            Algorithm::LeakyBucket => tollgate_shm::Algorithm::LeakyBucket,
            Algorithm::Concurrency => tollgate_shm::Algorithm::Concurrency,
        },
        enforcement: match limit.enforcement() {
            Enforcement::Strict => tollgate_shm::Enforcement::Strict,
            Enforcement::Soft => tollgate_shm::Enforcement::Soft,
        },
        max: limit.max(),
        window_ms: limit.window_ms().max(1),
        burst: limit.burst(),
        max_delay_ms: limit.max_delay_ms(),
        open_when_full: limit.on_full() == OnFull::Open,
        cluster: false,
    })
}

fn algorithm_name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::SlidingWindow => "sliding_window",
        Algorithm::FixedWindow => "fixed_window",
        Algorithm::TokenBucket => "token_bucket",
        Algorithm::LeakyBucket => "leaky_bucket",
        Algorithm::Concurrency => "concurrency",
    }
}

/// A limit's level for requests for `model`.
pub fn level(region: &dyn Levels, limit: &LimitView<'_>, model: &str) -> Option<LiveLimit> {
    let spec = spec(limit, model)?;
    let level = region.level_of(&spec);
    let model = if limit.per_model() {
        model
    } else {
        limit.model_pattern()
    };
    Some(LiveLimit {
        name: limit.name().to_owned(),
        scope: limit.scope().name(),
        model: model.to_owned(),
        metric: limit.metric().name(),
        algorithm: algorithm_name(limit.algorithm()),
        enforcement: match limit.enforcement() {
            Enforcement::Strict => "strict",
            Enforcement::Soft => "soft",
        },
        window_ms: limit.window_ms(),
        max: level.max,
        used: level.used,
        left: level.left(),
        debt: level.debt,
        reset_ms: level.reset_ms,
        key: format!("{:016x}", spec.key),
    })
}

/// Levels of a list of limits over all models: one per counter. Models that `wanted` refuses are left out.
fn levels<'a>(
    region: &dyn Levels,
    snapshot: &Snapshot<'a>,
    limits: impl Iterator<Item = LimitView<'a>>,
    wanted: impl Fn(&str) -> bool,
) -> Vec<LiveLimit> {
    let mut found = Vec::new();
    for limit in limits {
        if limit.per_model() {
            let models = snapshot.models().map(|m| m.name());
            let models = models.filter(|m| limit.applies_to(m) && wanted(m));
            found.extend(models.filter_map(|m| level(region, &limit, m)));
        } else {
            found.extend(level(region, &limit, ""));
        }
    }
    found
}

/// A channel's own limits.
pub fn channel_limits<'a>(
    region: &dyn Levels,
    snapshot: &Snapshot<'a>,
    channel: &ChannelView<'a>,
) -> Vec<LiveLimit> {
    levels(region, snapshot, channel.limits().iter(), |m| channel.permits(m))
}

/// Limits over everything.
pub fn global_limits(region: &dyn Levels, snapshot: &Snapshot<'_>) -> Vec<LiveLimit> {
    levels(region, snapshot, snapshot.global_limits().iter(), |_| true)
}

/// Every limit that a channel's request can meet: its own, those of the models it may call, the global ones. With a
/// model, only those that apply to it.
pub fn all_limits<'a>(
    region: &dyn Levels,
    snapshot: &Snapshot<'a>,
    channel: &ChannelView<'a>,
    model: Option<&ModelView<'a>>,
) -> Vec<LiveLimit> {
    match model {
        Some(model) => applying(snapshot, Some(channel), Some(model))
            .iter()
            .filter_map(|limit| level(region, limit, model.name()))
            .collect(),
        None => {
            let mut found = channel_limits(region, snapshot, channel);
            for model in snapshot.models().filter(|m| channel.permits(m.name())) {
                let of_model = model.limits();
                let limits = of_model.iter().filter_map(|l| level(region, &l, model.name()));
                found.extend(limits.map(|mut l| {
                    model.name().clone_into(&mut l.model);
                    l
                }));
            }
            found.extend(global_limits(region, snapshot));
            found
        }
    }
}

/// Limits that apply to a request of a channel for a model, in the order in which they are taken.
pub fn applying<'a>(
    snapshot: &Snapshot<'a>,
    channel: Option<&ChannelView<'a>>,
    model: Option<&ModelView<'a>>,
) -> Vec<LimitView<'a>> {
    let name = model.map_or("", |m| m.name());
    let own = channel.map(|c| c.limits());
    let of_model = model.map(|m| m.limits());
    own.iter()
        .chain(of_model.iter())
        .flat_map(|list| list.iter())
        .chain(snapshot.global_limits().iter())
        .filter(|limit| limit.applies_to(name))
        .collect()
}
