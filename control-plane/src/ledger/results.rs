//! What came of the requests of an experiment's group.

use tollgate_shm::{Event, HISTOGRAM_BUCKETS, bucket_of, bucket_upper_us};

use super::Counters;

/// Requests by duration, in the buckets of [`tollgate_shm::bucket_of`].
pub type Histogram = [u64; HISTOGRAM_BUCKETS];

/// Sums over requests. Made of events alone, so what a full ring has dropped is missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Results {
    /// How they ended, tokens, time.
    pub counters: Counters,
    /// Proxied requests by the time from the request to the end of the answer.
    pub latency: Histogram,
    /// Answered requests by the time to the first byte of the answer.
    pub first_token: Histogram,
}

impl Default for Results {
    fn default() -> Self {
        Results {
            counters: Counters::default(),
            latency: [0; HISTOGRAM_BUCKETS],
            first_token: [0; HISTOGRAM_BUCKETS],
        }
    }
}

fn note(histogram: &mut Histogram, us: u32) {
    if let Some(bucket) = histogram.get_mut(bucket_of(us.into())) {
        *bucket = bucket.saturating_add(1);
    }
}

impl Results {
    /// Adds what one event adds.
    pub fn add_event(&mut self, event: &Event) {
        self.counters.add_event(event);
        // Within the same millisecond it is 0.
        if event.deployment != u32::MAX {
            note(&mut self.latency, event.latency_us);
        }
        if event.first_token_us != u32::MAX {
            note(&mut self.first_token, event.first_token_us);
        }
    }

    /// Both together.
    #[must_use]
    pub fn plus(&self, other: &Results) -> Results {
        let sum = |a: &Histogram, b: &Histogram| {
            let mut sum = *a;
            for (a, b) in sum.iter_mut().zip(b) {
                *a = a.saturating_add(*b);
            }
            sum
        };
        Results {
            counters: self.counters.plus(&other.counters),
            latency: sum(&self.latency, &other.latency),
            first_token: sum(&self.first_token, &other.first_token),
        }
    }
}

/// The upper bound, in microseconds, of the bucket that a quantile lies in; `None` without requests, and where it is
/// beyond the last bound.
pub fn quantile_us(histogram: &Histogram, quantile: f64) -> Option<u64> {
    let all: u64 = histogram.iter().sum();
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        clippy::cast_precision_loss,
        reason = "a rank among as many requests as an experiment has"
    )]
    let rank = (all as f64 * quantile.clamp(0.0, 1.0)).ceil() as u64;
    let mut below = 0u64;
    let bucket = histogram.iter().position(|n| {
        below += n;
        *n > 0 && below >= rank
    })?;
    Some(bucket_upper_us(bucket)).filter(|us| *us < u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_bounds_of_buckets() {
        let mut results = Results::default();
        for us in 1..=1_000 {
            results.add_event(&Event {
                latency_us: us * 1_000,
                first_token_us: u32::MAX,
                ..Event::default()
            });
        }
        for (quantile, us) in [(0.5, 500_000), (0.99, 990_000), (1.0, 1_000_000), (0.0, 1_000)] {
            let found = quantile_us(&results.latency, quantile).unwrap();
            assert!(found >= us && found <= us * 3 / 2, "{quantile}: {found}");
        }
        assert_eq!(quantile_us(&results.first_token, 0.5), None);
        let twice = results.plus(&results);
        assert_eq!(twice.latency.iter().sum::<u64>(), 2_000);
        assert_eq!(twice.counters.requests(), 2_000);
    }
}
