//! A counter's row in the region as the keeper of its lease sees it.

use tollgate_lease::{Lowered, Row, Terms, Words};
use tollgate_shm::{Algorithm, CounterIndex, LeaseView, LeaseWords, Region};

use super::LeaseSettings;

/// What two attempts take beside the answers' time: the pause after the first, and the looks.
const PAUSES_MS: u64 = 300;

pub(super) struct RegionRow<'a> {
    pub region: &'a Region,
    pub index: CounterIndex,
    /// Length of a fixed window, and how long after its beginning nothing is returned (H5).
    pub fixed: Option<(u64, u64)>,
}

impl<'a> RegionRow<'a> {
    pub fn new(region: &'a Region, index: CounterIndex, view: &LeaseView, settings: &LeaseSettings) -> Self {
        let fixed = view.algorithm == Algorithm::FixedWindow;
        RegionRow {
            region,
            index,
            fixed: fixed.then_some((view.window_ms, settings.clock_skew_ms)),
        }
    }
}

fn lease_words(words: Words) -> LeaseWords {
    LeaseWords {
        allowance: words.allowance,
        standing: words.standing,
        fence_ms: words.fence,
        standing_span_ms: words.standing_span,
    }
}

pub(super) fn words_of(view: &LeaseView) -> Words {
    Words {
        allowance: view.words.allowance,
        standing: view.words.standing,
        fence: view.words.fence_ms,
        standing_span: view.words.standing_span_ms,
    }
}

/// How leases of a limit run.
pub(super) fn terms_of(view: &LeaseView, settings: &LeaseSettings) -> Terms {
    let hold = match view.algorithm {
        Algorithm::SlidingWindow => view.window_ms,
        Algorithm::FixedWindow => view.window_ms.saturating_add(settings.clock_skew_ms),
        Algorithm::TokenBucket => {
            let refill = u128::from(view.burst) * u128::from(view.window_ms) / u128::from(view.max.max(1));
            u64::try_from(refill).unwrap_or(u64::MAX).saturating_add(1)
        }
        Algorithm::LeakyBucket => view.window_ms.saturating_add(view.max_delay_ms),
        Algorithm::Concurrency => settings.connections_hold_ms,
    };
    Terms {
        ttl: settings.ttl_ms,
        margin: (settings.ttl_ms / 10).max(100),
        // What is told to Redis has to fit its numbers whatever the documents say.
        hold: hold.saturating_add(settings.ttl_ms / 10).min(1 << 42),
        standing_ttl: settings.standing_ttl_ms,
        attempts: settings.timeout_ms.saturating_mul(2).saturating_add(PAUSES_MS),
    }
}

impl Row for RegionRow<'_> {
    fn in_use(&self, now: u64) -> u64 {
        self.region.lease_in_use(self.index, now)
    }

    fn take_wanted(&mut self) -> u64 {
        self.region.take_wanted(self.index)
    }

    fn lower(&mut self, now: u64, words: Words) -> Lowered {
        let lowered = self.region.lower_lease(self.index, now, &lease_words(words));
        let settled = self.fixed.map_or(0, |(window, skew)| {
            let begun = now - now % window.max(1);
            begun.saturating_add(skew)
        });
        Lowered {
            covered: lowered.covered,
            free_at: lowered.free_at_ms.max(settled),
        }
    }

    fn raise(&mut self, now: u64, words: Words) {
        self.region.raise_lease(self.index, now, &lease_words(words));
    }

    fn cut(&mut self, words: Words) {
        self.region.cut_lease(self.index, &lease_words(words));
    }

    fn dry_until(&mut self, at: u64) {
        self.region.set_dry(self.index, at);
    }

    fn tight(&mut self, tight: bool) {
        self.region.set_tight(self.index, tight);
    }
}
