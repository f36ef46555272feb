//! What the gateway does at this moment, once a second, for as long as anybody looks: differences of the region's
//! counters, which only grow.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tollgate_shm::{HISTOGRAM_BUCKETS, Region, UsageIndex, UsageTotals};

/// Time between two looks.
const PERIOD: Duration = Duration::from_secs(1);

/// What one channel × model did since the look before.
#[derive(Clone, Debug, Default)]
pub struct Beat {
    /// Channel code.
    pub channel: String,
    /// Model.
    pub model: String,
    /// Requests that ended, by class number.
    pub classes: [u64; 8],
    /// Tokens.
    pub input_tokens: u64,
    /// Tokens.
    pub output_tokens: u64,
    /// Requests by latency, see [`tollgate_shm::bucket_upper_us`].
    pub latency: Vec<u64>,
    /// Requests by time to the first byte.
    pub first_token: Vec<u64>,
    /// Requests being served.
    pub in_flight: u64,
}

/// A look at the gateway.
#[derive(Clone, Debug, Default)]
pub struct Pulse {
    /// Region time, milliseconds.
    pub at_ms: u64,
    /// Milliseconds since the look before; 0 for the first one, which has nothing to compare with.
    pub span_ms: u64,
    /// Whoever did something or has requests being served.
    pub beats: Vec<Beat>,
}

type Feed = watch::Sender<Arc<Pulse>>;

/// Gives looks to whoever wants them.
#[derive(Clone)]
pub struct Pulses {
    region: Arc<Region>,
    feed: Arc<Mutex<Option<Feed>>>,
}

impl Pulses {
    /// Looks at a region.
    pub fn new(region: Arc<Region>) -> Pulses {
        Pulses {
            region,
            feed: Arc::default(),
        }
    }

    fn feed(&self) -> std::sync::MutexGuard<'_, Option<Feed>> {
        self.feed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows what happens from now on. The first who does so begins the looks, which end with the last.
    pub fn follow(&self) -> watch::Receiver<Arc<Pulse>> {
        let mut feed = self.feed();
        if let Some(running) = feed.as_ref() {
            return running.subscribe();
        }
        let (sender, receiver) = watch::channel(Arc::default());
        *feed = Some(sender.clone());
        tokio::spawn(self.clone().run(sender));
        receiver
    }

    async fn run(self, sender: Feed) {
        let mut before: HashMap<u32, UsageTotals> = HashMap::new();
        let mut last_ms = 0;
        let mut ticks = tokio::time::interval(PERIOD);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            {
                // Under the lock: nobody begins to follow between the look at the number and the end.
                let mut feed = self.feed();
                if sender.receiver_count() == 0 {
                    *feed = None;
                    return;
                }
            }
            let region = Arc::clone(&self.region);
            let looked = tokio::task::spawn_blocking(move || {
                let pulse = look(&region, &mut before, last_ms);
                (pulse, before)
            })
            .await;
            let Ok((pulse, totals)) = looked else {
                *self.feed() = None;
                return;
            };
            (before, last_ms) = (totals, pulse.at_ms);
            sender.send_replace(Arc::new(pulse));
        }
    }
}

fn difference(now: &[u64], before: Option<&Vec<u64>>) -> Vec<u64> {
    let old = |n: usize| before.and_then(|b| b.get(n)).copied().unwrap_or(0);
    now.iter()
        .enumerate()
        .map(|(n, value)| value.saturating_sub(old(n)))
        .collect()
}

fn look(region: &Region, before: &mut HashMap<u32, UsageTotals>, last_ms: u64) -> Pulse {
    let at_ms = region.now_ms();
    let first = last_ms == 0;
    let mut in_flight: HashMap<UsageIndex, u64> = HashMap::new();
    for row in region.inflight(usize::MAX) {
        if let Some(usage) = row.usage {
            *in_flight.entry(usage).or_default() += 1;
        }
    }
    let mut beats = Vec::new();
    for (index, now) in region.all_usage() {
        let served = in_flight.get(&index).copied().unwrap_or(0);
        let old = before.get(&index.number());
        if old.is_some_and(|old| old.requests() == now.requests() && old.output_tokens == now.output_tokens)
            && served == 0
        {
            continue;
        }
        let mut classes = [0; 8];
        for (n, slot) in classes.iter_mut().enumerate() {
            let of = |t: &UsageTotals| t.classes.get(n).copied().unwrap_or(0);
            *slot = of(&now).saturating_sub(old.map_or(0, of));
        }
        let since = |of: fn(&UsageTotals) -> u64| of(&now).saturating_sub(old.map_or(0, of));
        if !first {
            beats.push(Beat {
                channel: now.channel.clone(),
                model: now.model.clone(),
                classes,
                input_tokens: since(|t| t.input_tokens),
                output_tokens: since(|t| t.output_tokens),
                latency: difference(&now.latency, old.map(|o| &o.latency)),
                first_token: difference(&now.first_token, old.map(|o| &o.first_token)),
                in_flight: served,
            });
        }
        before.insert(index.number(), now);
    }
    Pulse {
        at_ms,
        span_ms: if first { 0 } else { at_ms.saturating_sub(last_ms) },
        beats,
    }
}

/// The time below which `percent` of the requests of a histogram stay, microseconds; `None` without a request.
pub fn percentile(histogram: &[u64; HISTOGRAM_BUCKETS], percent: u64) -> Option<u64> {
    let all: u64 = histogram.iter().sum();
    let wanted = (all * percent).div_ceil(100).max(1);
    let mut seen = 0;
    let bucket = histogram.iter().position(|n| {
        seen += n;
        seen >= wanted
    })?;
    (all > 0).then(|| tollgate_shm::bucket_upper_us(bucket))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tollgate_shm::{Class, Sizes, UsageDelta, bucket_of, bucket_upper_us};

    #[test]
    fn percentiles_are_bounds_of_buckets() {
        let mut histogram = [0; HISTOGRAM_BUCKETS];
        assert_eq!(percentile(&histogram, 50), None);
        for us in 1..=100u64 {
            histogram[bucket_of(us * 1_000)] += 1;
        }
        assert_eq!(
            percentile(&histogram, 50),
            Some(bucket_upper_us(bucket_of(50_000)))
        );
        assert_eq!(
            percentile(&histogram, 99),
            Some(bucket_upper_us(bucket_of(99_000)))
        );
    }

    #[test]
    fn a_look_tells_what_happened_since_the_one_before() {
        let dir = tempfile::tempdir().unwrap();
        let sizes = Sizes {
            counters: 64,
            inflight: 64,
            ring: 64,
            usage: 64,
        };
        let region = Region::open_or_create(dir.path(), sizes).unwrap();
        let row = region.usage_index(b"a", b"m").unwrap();
        let request = || {
            region.add_usage(
                row,
                &UsageDelta {
                    input_tokens: 10,
                    ..UsageDelta::of(Class::Ok)
                },
            )
        };
        request();
        let mut before = HashMap::new();
        assert!(
            look(&region, &mut before, 0).beats.is_empty(),
            "what was before is no rate"
        );
        request();
        request();
        let pulse = look(&region, &mut before, 1);
        assert_eq!(
            (
                pulse.beats.len(),
                pulse.beats[0].classes[0],
                pulse.beats[0].input_tokens
            ),
            (1, 2, 20)
        );
        assert!(look(&region, &mut before, 2).beats.is_empty());
    }
}
