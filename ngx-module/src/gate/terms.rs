//! The terms on which a channel may use a model: permission, limits with their counters' rows, the row of its statistics.
//! Worked out once per generation, channel and model, and kept: most requests of a worker are like one before.

use std::rc::Rc;

use tollgate_policy::documents as policy;
use tollgate_policy::{ChannelView, LimitView, ModelView, Snapshot};
use tollgate_shm::{
    Algorithm, CounterIndex, Enforcement, LimitSpec, MAX_LIMITS_PER_REQUEST, Metric, Region, UsageIndex,
};

/// Places for terms, a power of two. Channel × model pairs that share one take it in turn.
const PLACES: usize = 1024;

pub(crate) struct Terms {
    generation: u64,
    channel: u32,
    model: u32,
    pub permitted: bool,
    /// At most [`MAX_LIMITS_PER_REQUEST`], in the order of [`applicable`].
    pub limits: Vec<LimitSpec>,
    /// Where the limits count; `None` while the region's table has no row for one of them.
    pub counters: Option<Vec<CounterIndex>>,
    /// More limits apply than a request can hold.
    pub too_many: bool,
    /// Whether some strict limit bounds the output.
    pub output_bounded: bool,
    /// Whether some limit counts input tokens.
    pub counts_input: bool,
    pub usage: Option<UsageIndex>,
    /// The channel's own route, where it says something of weights or of models that stand in.
    pub route: Option<u32>,
    /// Whether it says something of weights.
    pub weighted: bool,
    /// The version that the channel's own route asks for.
    pub version: Option<Rc<str>>,
    /// The deployment that the channel's own route asks for.
    pub pinned: Option<u32>,
    /// The most that a million input and output tokens cost the channel.
    pub price: [u32; 2],
}

/// The limits that a request of the channel for the model has to keep.
pub(super) fn applicable<'a>(
    snapshot: Snapshot<'a>,
    channel: &ChannelView<'a>,
    model: &ModelView<'a>,
) -> impl Iterator<Item = LimitView<'a>> {
    let name = model.name();
    channel
        .limits()
        .iter()
        .chain(model.limits().iter())
        .chain(snapshot.global_limits().iter())
        .filter(move |limit| limit.applies_to(name))
}

impl Terms {
    fn new(
        snapshot: Snapshot<'_>,
        channel: &ChannelView<'_>,
        model: &ModelView<'_>,
        region: &Region,
    ) -> Terms {
        let hash = model.name_hash();
        let cluster = snapshot.settings().cluster();
        let mut limits: Vec<LimitSpec> = applicable(snapshot, channel, model)
            .take(MAX_LIMITS_PER_REQUEST + 1)
            .map(|limit| spec(&limit, hash, cluster))
            .collect();
        let too_many = limits.len() > MAX_LIMITS_PER_REQUEST;
        limits.truncate(MAX_LIMITS_PER_REQUEST);
        let permitted = channel.permits(model.name());
        let route = channel.route(model.name());
        let weighted = route.is_some_and(|r| r.weights(model).is_some());
        let price = model.price().map_or([0; 2], |price| price.rates.most());
        let [input_price, output_price] = price;
        Terms {
            route: route
                .filter(|r| weighted || r.fallback().is_some())
                .map(|r| r.index()),
            weighted,
            version: route.and_then(|r| r.version(model)).map(Rc::from),
            pinned: route.and_then(|r| r.deployment(model)).map(|d| d.index()),
            generation: snapshot.generation(),
            channel: channel.index(),
            model: model.index(),
            permitted,
            too_many,
            output_bounded: limits.iter().any(|l| {
                let bounds = match l.metric {
                    Metric::OutputTokens | Metric::TotalTokens => true,
                    Metric::Cost => output_price > 0,
                    _ => false,
                };
                bounds && l.enforcement == Enforcement::Strict
            }),
            counts_input: limits.iter().any(|l| match l.metric {
                Metric::InputTokens | Metric::TotalTokens => true,
                Metric::Cost => input_price > 0,
                _ => false,
            }),
            price,
            // What may not be used takes no rows.
            counters: permitted.then(|| region.locate(&limits)).flatten(),
            usage: permitted
                .then(|| region.usage_index(channel.code().as_bytes(), model.name().as_bytes()))
                .flatten(),
            limits,
        }
    }

    /// Whether everything has its row: rows stay for the life of the region, so these terms stay as well.
    fn is_settled(&self) -> bool {
        self.permitted && self.counters.is_some() && self.usage.is_some()
    }
}

/// A worker's terms.
#[derive(Default)]
pub(crate) struct KeptTerms(Vec<Option<Rc<Terms>>>);

impl KeptTerms {
    pub fn get(
        &mut self,
        snapshot: Snapshot<'_>,
        channel: &ChannelView<'_>,
        model: &ModelView<'_>,
        region: &Region,
    ) -> Rc<Terms> {
        let (generation, c, m) = (snapshot.generation(), channel.index(), model.index());
        let place = (c.wrapping_mul(0x9e37_79b1) ^ m.wrapping_mul(0x85eb_ca77)) as usize >> 7 & (PLACES - 1);
        if let Some(Some(known)) = self.0.get(place)
            && (known.generation, known.channel, known.model) == (generation, c, m)
        {
            return Rc::clone(known);
        }
        let terms = Rc::new(Terms::new(snapshot, channel, model, region));
        if terms.is_settled() {
            if self.0.is_empty() {
                self.0.resize(PLACES, None);
            }
            if let Some(slot) = self.0.get_mut(place) {
                *slot = Some(Rc::clone(&terms));
            }
        }
        terms
    }
}

/// A limit of the snapshot in the region's terms.
pub(super) fn spec(limit: &LimitView<'_>, model_hash: u64, cluster: bool) -> LimitSpec {
    LimitSpec {
        key: limit.counter_key_hashed(model_hash),
        metric: match limit.metric() {
            policy::Metric::Connections => Metric::Connections,
            policy::Metric::InputTokens => Metric::InputTokens,
            policy::Metric::OutputTokens => Metric::OutputTokens,
            policy::Metric::TotalTokens => Metric::TotalTokens,
            policy::Metric::Cost => Metric::Cost,
            policy::Metric::Requests => Metric::Requests,
        },
        algorithm: match limit.algorithm() {
            policy::Algorithm::SlidingWindow => Algorithm::SlidingWindow,
            policy::Algorithm::FixedWindow => Algorithm::FixedWindow,
            policy::Algorithm::TokenBucket => Algorithm::TokenBucket,
            policy::Algorithm::LeakyBucket => Algorithm::LeakyBucket,
            policy::Algorithm::Concurrency => Algorithm::Concurrency,
        },
        enforcement: match limit.enforcement() {
            policy::Enforcement::Strict => Enforcement::Strict,
            policy::Enforcement::Soft => Enforcement::Soft,
        },
        max: limit.max(),
        window_ms: limit.window_ms().max(1),
        burst: limit.burst(),
        max_delay_ms: limit.max_delay_ms(),
        open_when_full: limit.on_full() == policy::OnFull::Open,
        cluster,
    }
}
