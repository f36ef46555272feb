//! Token bucket and leaky bucket as one word: the theoretical arrival time of the generic cell rate algorithm
//! (ITU-T I.371), in nanoseconds of region time. One compare-and-swap admits or refuses, so there is nothing to
//! verify and nothing to repair after a crash.

use crate::atomic::{AtomicU64, SeqCst};
use crate::window::Cap;

const NS_PER_MS: u64 = 1_000_000;

/// A rate of `max` units per `window_ms`, with its state. The rate may be a part of a whole one and change under way.
#[derive(Clone, Copy)]
pub(crate) struct Bucket<'a, C: Cap = u64> {
    /// The instant at which the bucket is full (or the queue empty) again.
    pub tat: &'a AtomicU64,
    pub max: C,
    /// What `max` is a part of: it fixes how far ahead `tat` may be.
    pub whole: u64,
    pub window_ms: u64,
}

/// Time that `units` take at `max` per window, rounded up so that the rate is never exceeded.
pub(crate) fn span_ns(units: u64, max: u64, window_ms: u64) -> u64 {
    let window_ns = u128::from(window_ms) * u128::from(NS_PER_MS);
    let ns = (u128::from(units) * window_ns).div_ceil(u128::from(max.max(1)));
    u64::try_from(ns).unwrap_or(u64::MAX)
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Passed {
    /// Admitted after a delay (always 0 for a token bucket).
    After { delay_ms: u64 },
    /// Refused; the same amount fits after this time if nothing else happens.
    Refused { retry_ms: u64 },
}

impl<C: Cap> Bucket<'_, C> {
    /// The time that `units` occupy: what a later correction works with.
    pub fn span_of(&self, units: u64) -> u64 {
        span_ns(units, self.max.now(), self.window_ms)
    }

    /// Units that would be refused now out of a full `burst`.
    pub fn used(&self, now_ms: u64, burst: u64) -> u64 {
        let ahead = u128::from(
            self.tat
                .load(SeqCst)
                .saturating_sub(now_ms.saturating_mul(NS_PER_MS)),
        );
        let window_ns = (u128::from(self.window_ms) * u128::from(NS_PER_MS)).max(1);
        let units = (ahead * u128::from(self.max.now())).div_ceil(window_ns);
        u64::try_from(units).unwrap_or(u64::MAX).min(burst)
    }

    fn pass(&self, now_ms: u64, amount: u64, slack_ns: u64, queued: bool) -> Passed {
        let now = now_ms.saturating_mul(NS_PER_MS);
        let mut tat = self.tat.load(SeqCst);
        loop {
            // The rate belongs to the time it was read after: a change of both in between makes the swap fail.
            let max = self.max.now();
            let span = span_ns(amount, max, self.window_ms);
            let start = tat.max(now);
            let next = start.saturating_add(span);
            // A token bucket tests where it would end, a queue tests when the newcomer would start.
            let tested = if queued { start } else { next };
            let limit = now.saturating_add(slack_ns);
            if max == 0 || tested > limit {
                let retry_ms = (tested - limit.min(tested)).div_ceil(NS_PER_MS);
                return Passed::Refused {
                    retry_ms: if max == 0 { self.window_ms } else { retry_ms },
                };
            }
            match self.tat.compare_exchange(tat, next, SeqCst, SeqCst) {
                Ok(_) if queued => {
                    return Passed::After {
                        delay_ms: (start - now).div_ceil(NS_PER_MS),
                    };
                }
                Ok(_) => return Passed::After { delay_ms: 0 },
                Err(seen) => tat = seen,
            }
        }
    }

    /// Token bucket: at most `burst` at once, `max` per window in the long run.
    pub fn take(&self, now_ms: u64, amount: u64, burst: u64) -> Passed {
        let slack_ns = span_ns(burst, self.whole, self.window_ms);
        self.pass(now_ms, amount, slack_ns, false)
    }

    /// Leaky bucket: evenly spaced; waits up to `max_delay_ms` for its turn.
    pub fn enqueue(&self, now_ms: u64, amount: u64, max_delay_ms: u64) -> Passed {
        self.pass(now_ms, amount, max_delay_ms.saturating_mul(NS_PER_MS), true)
    }
}

/// Counts what is ahead of now in the time of another rate, so that it stays the same number of units. `tat` changes in any
/// case, so that no worker gets through that worked with the former rate.
pub(crate) fn rescale(tat: &AtomicU64, now_ms: u64, from: u64, to: u64) {
    let now = now_ms.saturating_mul(NS_PER_MS);
    let mut seen = tat.load(SeqCst);
    loop {
        let ahead = u128::from(seen.saturating_sub(now));
        let scaled = (ahead * u128::from(from.max(1))).div_ceil(u128::from(to.max(1)));
        let next = if ahead == 0 {
            seen.saturating_add(1)
        } else {
            // Half of the range is a few centuries: nothing that is added to it overflows.
            now.saturating_add(u64::try_from(scaled).unwrap_or(u64::MAX / 2).min(u64::MAX / 2))
        };
        let next = if next == seen {
            next.saturating_add(1)
        } else {
            next
        };
        match tat.compare_exchange(seen, next, SeqCst, SeqCst) {
            Ok(_) => return,
            Err(other) => seen = other,
        }
    }
}

/// What is ahead of now, in units of the whole at `max` per window that `part` of it is counted in: the least part that covers
/// it. A full `burst` takes the whole.
pub(crate) fn covering(
    tat: &AtomicU64,
    now_ms: u64,
    part: u64,
    whole: u64,
    burst: u64,
    window_ms: u64,
) -> u64 {
    let ahead = u128::from(tat.load(SeqCst).saturating_sub(now_ms.saturating_mul(NS_PER_MS)));
    let window_ns = (u128::from(window_ms) * u128::from(NS_PER_MS)).max(1);
    // units = ahead * part / window; the part that covers them = units * whole / burst.
    let units = (ahead * u128::from(part.max(1))).div_ceil(window_ns);
    let covering = (units * u128::from(whole)).div_ceil(u128::from(burst.max(1)));
    u64::try_from(covering).unwrap_or(u64::MAX)
}

/// Corrects what was taken from a bucket whose rate may change: `units` at the part that counts now. Reads the time, then the
/// part, like a take.
pub(crate) fn correct(tat: &AtomicU64, part: &AtomicU64, window_ns: u64, now_ms: u64, taken: u64, used: u64) {
    let now = now_ms.saturating_mul(NS_PER_MS);
    let mut seen = tat.load(SeqCst);
    loop {
        let rate = u128::from(part.load(SeqCst).max(1));
        let span = |units: u64| u128::from(units) * u128::from(window_ns) / rate;
        let ns = |span: u128| u64::try_from(span).unwrap_or(u64::MAX / 2).min(u64::MAX / 2);
        let next = if used > taken {
            seen.max(now)
                .saturating_add(ns(span(used - taken)).saturating_add(1))
        } else {
            seen.saturating_sub(ns(span(taken - used)).saturating_sub(1))
        };
        match tat.compare_exchange(seen, next, SeqCst, SeqCst) {
            Ok(_) => return,
            Err(other) => seen = other,
        }
    }
}

/// Returns the time of what was taken and not used.
pub(crate) fn give_back(tat: &AtomicU64, span_ns: u64) {
    let mut seen = tat.load(SeqCst);
    while let Err(now) = tat.compare_exchange(seen, seen.saturating_sub(span_ns), SeqCst, SeqCst) {
        seen = now;
    }
}

/// Charges what was used beyond the amount taken: later requests wait for it, so debt is never forgiven.
pub(crate) fn charge(tat: &AtomicU64, now_ms: u64, span_ns: u64) {
    let now = now_ms.saturating_mul(NS_PER_MS);
    let mut seen = tat.load(SeqCst);
    while let Err(other) = tat.compare_exchange(seen, seen.max(now).saturating_add(span_ns), SeqCst, SeqCst) {
        seen = other;
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const T0: u64 = 1_700_000_000_000;

    #[test]
    fn burst_then_rate() {
        let tat = AtomicU64::new(0);
        let b = Bucket {
            tat: &tat,
            max: 50,
            whole: 50,
            window_ms: 1_000,
        };
        let ok = |now| matches!(b.take(now, 1, 100), Passed::After { delay_ms: 0 });
        assert_eq!((0..150).filter(|_| ok(T0)).count(), 100);
        assert_eq!(b.take(T0, 1, 100), Passed::Refused { retry_ms: 20 });
        assert!(!ok(T0 + 19));
        assert!(ok(T0 + 20));
        assert_eq!((0..150).filter(|_| ok(T0 + 1_020)).count(), 50);
        assert_eq!(b.used(T0 + 1_020, 100), 100);
        assert_eq!(b.used(T0 + 2_020, 100), 50);
    }

    #[test]
    fn leaky_bucket_spaces_requests_and_bounds_its_queue() {
        let tat = AtomicU64::new(0);
        let b = Bucket {
            tat: &tat,
            max: 10,
            whole: 10,
            window_ms: 1_000,
        };
        let delays: Vec<_> = (0..7).map(|_| b.enqueue(T0, 1, 500)).collect();
        for (i, d) in delays.iter().take(6).enumerate() {
            assert_eq!(
                *d,
                Passed::After {
                    delay_ms: i as u64 * 100
                }
            );
        }
        assert_eq!(delays[6], Passed::Refused { retry_ms: 100 });
    }

    #[test]
    fn zero_blocks_and_refunds_return() {
        let tat = AtomicU64::new(0);
        assert_eq!(
            Bucket {
                tat: &tat,
                max: 0,
                whole: 0,
                window_ms: 1_000
            }
            .take(T0, 1, 0),
            Passed::Refused { retry_ms: 1_000 }
        );
        let b = Bucket {
            tat: &tat,
            max: 10,
            whole: 10,
            window_ms: 1_000,
        };
        assert_eq!(b.take(T0, 10, 10), Passed::After { delay_ms: 0 });
        give_back(&tat, b.span_of(4));
        assert_eq!(b.used(T0, 10), 6);
        assert_eq!(b.take(T0, 4, 10), Passed::After { delay_ms: 0 });
        charge(&tat, T0, b.span_of(5));
        assert_eq!(b.take(T0, 1, 10), Passed::Refused { retry_ms: 600 });
    }

    proptest! {
        /// Over any span of t seconds at most burst + rate * t gets through.
        #[test]
        fn never_more_than_burst_plus_rate(steps in proptest::collection::vec((0u64..400, 1u64..8), 1..200)) {
            let tat = AtomicU64::new(0);
            let b = Bucket { tat: &tat, max: 7, whole: 7, window_ms: 1_000 };
            let mut now = T0;
            let mut log = Vec::new();
            for (dt, amount) in steps {
                now += dt;
                if let Passed::After { .. } = b.take(now, amount, 20) {
                    log.push((now, amount));
                }
            }
            for i in 0..log.len() {
                let mut total = 0;
                for (t, a) in &log[i..] {
                    total += a;
                    prop_assert!(total <= 20 + (t - log[i].0) * 7 / 1_000 + 1);
                }
            }
        }
    }
}
