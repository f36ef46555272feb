//! Limits across instances, as a row sees them: what workers are held against, how the daemon moves it, and how a worker tells
//! that it is too little. The order of loads and stores here is what I1 rests on (ARCHITECTURE.md, "Limits across instances").

use crate::atomic::{AtomicU64, Relaxed, SeqCst};
use crate::bucket;
use crate::counters::CounterIndex;
use crate::layout::CounterRow;
use crate::limit::{Algorithm, LimitSpec, cell_ms, is_window};
use crate::region::Region;
use crate::reserve::Demand;
use crate::window::{Cap, Window};

const SPAN_BITS: u32 = 20;
const SPAN_MASK: u64 = (1 << SPAN_BITS) - 1;

/// What the daemon writes into a row.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseWords {
    /// What may be in use until the fence.
    pub allowance: u64,
    /// What may be in use after it.
    pub standing: u64,
    /// The fence, region time in milliseconds.
    pub fence_ms: u64,
    /// How long `standing` outlives the fence, milliseconds; whole seconds count.
    pub standing_span_ms: u64,
}

/// A row that limits across instances, as the daemon needs it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseView {
    /// The limit: the same in all instances.
    pub key: u64,
    /// How it counts.
    pub algorithm: Algorithm,
    /// Its maximum, as a worker last knew it.
    pub max: u64,
    /// Length of its window, milliseconds.
    pub window_ms: u64,
    /// What a token bucket holds.
    pub burst: u64,
    /// Longest delay by a leaky bucket, milliseconds.
    pub max_delay_ms: u64,
    /// What stands in the row.
    pub words: LeaseWords,
}

/// What lowering a row found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseLowered {
    /// The least allowance that covers what was in use, debt included, after the row had been lowered.
    pub covered: u64,
    /// Region time from which on what lies above it may be returned.
    pub free_at_ms: u64,
}

/// The words that decide what a worker may use.
#[derive(Clone, Copy)]
pub(crate) struct Lease<'a> {
    pub allowance: &'a AtomicU64,
    pub standing: &'a AtomicU64,
    pub lease: &'a AtomicU64,
}

impl Lease<'_> {
    /// What may be in use at `now_ms`. The fence is read first: an allowance read later is at least as new.
    pub fn limit(&self, now_ms: u64) -> u64 {
        let lease = self.lease.load(SeqCst);
        let fence = lease >> SPAN_BITS;
        if now_ms < fence {
            self.allowance.load(SeqCst)
        } else if now_ms < fence + (lease & SPAN_MASK) * 1_000 {
            self.standing.load(SeqCst)
        } else {
            0
        }
    }

    /// Everything but what is in use.
    fn write(&self, words: &LeaseWords) {
        self.standing.store(words.standing, SeqCst);
        self.allowance.store(words.allowance, SeqCst);
        let span = (words.standing_span_ms / 1_000).min(SPAN_MASK);
        self.lease.store(words.fence_ms << SPAN_BITS | span, SeqCst);
    }

    /// Lowers what may be in use, then looks at what is: whoever added before and saw the former limit is seen; who was not
    /// seen reads the lower limit and backs out.
    pub fn lower(&self, words: &LeaseWords, in_use: impl FnOnce() -> u64) -> u64 {
        self.write(words);
        in_use().max(words.allowance)
    }
}

/// What a take from a row is held against.
#[derive(Clone, Copy)]
pub(crate) struct LeaseCap<'a> {
    pub lease: Lease<'a>,
    pub max: u64,
    pub now_ms: u64,
    /// Three quarters are enough: an upper bound while little is left for anybody.
    pub quarters: bool,
}

impl Cap for LeaseCap<'_> {
    const MOVES: bool = true;
    fn now(self) -> u64 {
        let limit = self.lease.limit(self.now_ms).min(self.max);
        if self.quarters { limit / 4 * 3 } else { limit }
    }
}

fn algorithm_of(shape: u64) -> Algorithm {
    match shape & 0xff {
        1 => Algorithm::FixedWindow,
        2 => Algorithm::TokenBucket,
        3 => Algorithm::LeakyBucket,
        4 => Algorithm::Concurrency,
        _ => Algorithm::SlidingWindow,
    }
}

impl CounterRow {
    fn lease(&self) -> Lease<'_> {
        Lease {
            allowance: &self.allowance,
            standing: &self.standing,
            lease: &self.lease,
        }
    }

    pub(crate) fn lease_cap(&self, spec: &LimitSpec, now_ms: u64, bound: bool) -> LeaseCap<'_> {
        LeaseCap {
            lease: self.lease(),
            max: spec.max,
            now_ms,
            quarters: bound && is_window(spec) && self.tight.load(Relaxed) == 1,
        }
    }

    /// Tells the daemon what this row limits.
    pub(crate) fn describe(&self, spec: &LimitSpec) {
        let shape = spec.algorithm as u64 | spec.max_delay_ms << 8;
        let words = [
            (&self.max, spec.max),
            (&self.window_ms, spec.window_ms),
            (&self.burst, spec.burst),
            (&self.shape, shape),
        ];
        for (word, value) in words {
            if word.load(Relaxed) != value {
                word.store(value, Relaxed);
            }
        }
    }

    /// By how much the allowance is too small for `units` more; 0 if it is not the allowance that is in the way.
    pub(crate) fn missing(&self, spec: &LimitSpec, now_ms: u64, units: u64) -> u64 {
        let limit = self.cap(spec, now_ms);
        let room = spec.max.saturating_sub(limit);
        let missing = match spec.algorithm {
            Algorithm::SlidingWindow | Algorithm::FixedWindow | Algorithm::Concurrency => {
                let (used, _) = self.used(spec, now_ms);
                used.saturating_add(units).saturating_sub(limit)
            }
            Algorithm::TokenBucket => {
                let used = self.level(spec, now_ms).used.saturating_add(units);
                let part = (u128::from(used) * u128::from(spec.max)).div_ceil(u128::from(spec.burst.max(1)));
                u64::try_from(part).unwrap_or(u64::MAX).saturating_sub(limit)
            }
            // Twice the rate: nobody knows how long it lasts.
            Algorithm::LeakyBucket => limit.max(1),
        };
        missing.min(room)
    }

    /// When to come again: if it is only the allowance that is in the way, and others may have room, when the daemon asks next.
    pub(crate) fn retry_ms(&self, spec: &LimitSpec, now_ms: u64, units: u64, alone: u64) -> u64 {
        if spec.cluster && self.tight.load(Relaxed) == 0 && self.missing(spec, now_ms, units) > 0 {
            let asks_in = self.dry_until.load(Relaxed).saturating_sub(now_ms);
            return alone.min(asks_in.max(1));
        }
        alone
    }

    fn is_leased(&self) -> bool {
        self.lease.load(SeqCst) != 0
    }

    /// The rate that a bucket's time is counted in: the whole one before its first lease.
    fn scale(&self) -> u64 {
        if self.is_leased() {
            self.allowance.load(SeqCst)
        } else {
            self.max.load(Relaxed)
        }
    }

    /// `tat` as a row without a lease has it, for another region.
    pub(crate) fn tat_of_the_whole(&self, now_ms: u64) -> u64 {
        let tat = self.tat.load(SeqCst);
        let now = now_ms.saturating_mul(1_000_000);
        if !self.is_leased() || tat <= now {
            return tat;
        }
        let part = u128::from(self.scale().max(1));
        let ahead = (u128::from(tat - now) * part).div_ceil(u128::from(self.max.load(Relaxed).max(1)));
        now.saturating_add(u64::try_from(ahead).unwrap_or(u64::MAX / 2))
    }

    fn lease_window(&self, algorithm: Algorithm) -> Window<'_> {
        let cells = match algorithm {
            Algorithm::FixedWindow => self.cells.get(..1).unwrap_or_default(),
            _ => self.cells.as_slice(),
        };
        Window {
            cells,
            debt: &self.debt,
            contested_until: &self.contested_until,
            cell_ms: cell_ms(algorithm, self.window_ms.load(Relaxed)),
        }
    }

    /// The least allowance that covers what is in use; with debt, if that is to keep what it needs.
    fn in_use(&self, now_ms: u64, with_debt: bool) -> u64 {
        let algorithm = algorithm_of(self.shape.load(Relaxed));
        match algorithm {
            Algorithm::SlidingWindow | Algorithm::FixedWindow => {
                let sum = self.lease_window(algorithm).sum(now_ms);
                sum.used.saturating_add(if with_debt { sum.debt } else { 0 })
            }
            Algorithm::Concurrency => self.concurrency().sum(),
            Algorithm::TokenBucket => {
                let [whole, burst, window_ms] =
                    [&self.max, &self.burst, &self.window_ms].map(|w| w.load(Relaxed));
                bucket::covering(&self.tat, now_ms, self.scale(), whole, burst, window_ms)
            }
            // A queue uses the rate it drains at.
            Algorithm::LeakyBucket if self.tat.load(SeqCst) > now_ms.saturating_mul(1_000_000) => {
                self.allowance.load(SeqCst)
            }
            Algorithm::LeakyBucket => 0,
        }
    }

    fn lower_lease(&self, now_ms: u64, words: &LeaseWords) -> LeaseLowered {
        let now_lowered = |covered| LeaseLowered {
            covered,
            free_at_ms: now_ms,
        };
        let from = self.scale();
        let queued_until = self.tat.load(SeqCst).div_ceil(1_000_000);
        match algorithm_of(self.shape.load(Relaxed)) {
            Algorithm::TokenBucket => {
                // The lower rate first: a worker that mixes it with the former time counts too much, never too little.
                self.lease().write(words);
                if words.allowance != from {
                    bucket::rescale(&self.tat, now_ms, from, words.allowance);
                }
                now_lowered(self.in_use(now_ms, false).max(words.allowance))
            }
            Algorithm::LeakyBucket => {
                self.lease().write(words);
                if words.allowance != from {
                    bucket::rescale(&self.tat, now_ms, from, words.allowance);
                }
                // Those who wait already leave at the former rate.
                LeaseLowered {
                    covered: words.allowance,
                    free_at_ms: queued_until.max(now_ms),
                }
            }
            _ => now_lowered(self.lease().lower(words, || self.in_use(now_ms, true))),
        }
    }

    fn raise_lease(&self, now_ms: u64, words: &LeaseWords) {
        let from = self.scale();
        let is_bucket = matches!(
            algorithm_of(self.shape.load(Relaxed)),
            Algorithm::TokenBucket | Algorithm::LeakyBucket
        );
        // The time first, then the higher rate: as above. The first lease is less than the whole: the other way round.
        if is_bucket && words.allowance > from {
            bucket::rescale(&self.tat, now_ms, from, words.allowance);
        }
        self.lease().write(words);
        if is_bucket && words.allowance < from {
            bucket::rescale(&self.tat, now_ms, from, words.allowance);
        }
    }
}

impl Region {
    /// Notes that a row's allowance is too small by so much, and wakes the daemon if it sleeps.
    pub(crate) fn want(&self, index: CounterIndex, row: &CounterRow, spec: &LimitSpec, missing: u64) {
        row.describe(spec);
        row.wanted.fetch_max(missing, SeqCst);
        if let Some(shortage) = self.shortage_rows().get(index.0 as usize / 64) {
            shortage.bits.fetch_or(1 << (index.0 % 64), SeqCst);
        }
        let header = self.header();
        header.lease_wake.fetch_add(1, SeqCst);
        if header.lease_sleeping.load(SeqCst) != 0 {
            self.wake_daemon();
        }
    }

    /// Whether a limit of these holds over all instances and its lease had ended, or never began, at `now_ms`: what was decided
    /// then was decided by what is set aside, not by what there is. Counted.
    pub fn decided_degraded(&self, demand: &Demand<'_>, now_ms: u64) -> bool {
        let known = demand.counters.filter(|c| c.len() == demand.limits.len());
        let degraded = demand.limits.iter().enumerate().any(|(i, spec)| {
            let index = match known {
                Some(known) => known.get(i).copied(),
                None => self.find_counter(spec.key, spec.algorithm == Algorithm::Concurrency),
            };
            let row = index.filter(|_| spec.cluster).and_then(|i| self.counter_row(i));
            row.is_some_and(|row| row.lease.load(SeqCst) >> SPAN_BITS <= now_ms)
        });
        if degraded {
            self.header().degraded.fetch_add(1, Relaxed);
        }
        degraded
    }

    /// Requests that were decided so.
    pub fn degraded_requests(&self) -> u64 {
        self.header().degraded.load(Relaxed)
    }

    /// Takes the rows that are short; each once.
    pub fn take_shortages(&self, mut found: impl FnMut(CounterIndex)) {
        for (block, row) in self.shortage_rows().iter().enumerate() {
            if row.bits.load(SeqCst) == 0 {
                continue;
            }
            let mut bits = row.bits.swap(0, SeqCst);
            while bits != 0 {
                let index = block as u64 * 64 + u64::from(bits.trailing_zeros());
                bits &= bits - 1;
                if let Ok(index) = u32::try_from(index) {
                    found(CounterIndex(index));
                }
            }
        }
    }

    /// Sleeps until a row is short, at most that long. Returns at once if one is already.
    #[cfg(not(loom))]
    pub fn wait_for_shortage(&self, timeout: std::time::Duration) {
        let header = self.header();
        let seen = header.lease_wake.load(SeqCst);
        header.lease_sleeping.store(1, SeqCst);
        // Whoever was short before the word above was read is found here; who comes later changes the word.
        if self.shortage_rows().iter().all(|r| r.bits.load(SeqCst) == 0) {
            let timeout = rustix::fs::Timespec {
                tv_sec: i64::try_from(timeout.as_secs()).unwrap_or(i64::MAX),
                tv_nsec: timeout.subsec_nanos().into(),
            };
            // Interrupted, timed out, changed meanwhile: all are reasons to look.
            let _ = rustix::thread::futex::wait(
                &header.lease_wake,
                rustix::thread::futex::Flags::empty(),
                seen,
                Some(&timeout),
            );
        }
        header.lease_sleeping.store(0, SeqCst);
    }

    /// Ends the daemon's sleep in [`Region::wait_for_shortage`], if it sleeps.
    #[cfg(not(loom))]
    pub fn wake_daemon(&self) {
        let _ = rustix::thread::futex::wake(
            &self.header().lease_wake,
            rustix::thread::futex::Flags::empty(),
            u32::MAX >> 1,
        );
    }

    #[cfg(loom)]
    fn wake_daemon(&self) {}

    /// A row and what stands in it; `None` for one that has never been short.
    pub fn lease_view(&self, index: CounterIndex) -> Option<LeaseView> {
        let row = self.counter_row(index)?;
        let lease = row.lease.load(SeqCst);
        let view = LeaseView {
            key: row.key.load(SeqCst),
            algorithm: algorithm_of(row.shape.load(Relaxed)),
            max: row.max.load(Relaxed),
            window_ms: row.window_ms.load(Relaxed),
            burst: row.burst.load(Relaxed),
            max_delay_ms: row.shape.load(Relaxed) >> 8,
            words: LeaseWords {
                allowance: row.allowance.load(SeqCst),
                standing: row.standing.load(SeqCst),
                fence_ms: lease >> SPAN_BITS,
                standing_span_ms: (lease & SPAN_MASK) * 1_000,
            },
        };
        (view.window_ms != 0).then_some(view)
    }

    /// Rows that have had a lease: what a daemon takes up when it starts.
    pub fn leased_rows(&self) -> impl Iterator<Item = CounterIndex> + '_ {
        let leased = self
            .counter_rows()
            .iter()
            .enumerate()
            .filter(|(_, r)| r.is_leased());
        leased.filter_map(|(i, _)| u32::try_from(i).ok().map(CounterIndex))
    }

    /// The row of a key that [`LeaseView`] told.
    pub fn leased_row(&self, key: u64) -> Option<CounterIndex> {
        self.find_counter(key, key & 1 == 1)
    }

    /// The least allowance that covers what is in use, without debt.
    pub fn lease_in_use(&self, index: CounterIndex, now_ms: u64) -> u64 {
        self.counter_row(index).map_or(0, |row| row.in_use(now_ms, false))
    }

    /// Takes out by how much the row has been short.
    pub fn take_wanted(&self, index: CounterIndex) -> u64 {
        self.counter_row(index).map_or(0, |row| {
            if row.wanted.load(Relaxed) == 0 {
                0
            } else {
                row.wanted.swap(0, SeqCst)
            }
        })
    }

    /// Lowers a row's allowance and standing share. Only the daemon may, like all that follows.
    pub fn lower_lease(&self, index: CounterIndex, now_ms: u64, words: &LeaseWords) -> LeaseLowered {
        self.counter_row(index).map_or(
            LeaseLowered {
                covered: words.allowance,
                free_at_ms: now_ms,
            },
            |row| row.lower_lease(now_ms, words),
        )
    }

    /// Raises a row's allowance, or gives it its first one, and writes the other words.
    pub fn raise_lease(&self, index: CounterIndex, now_ms: u64, words: &LeaseWords) {
        if let Some(row) = self.counter_row(index) {
            row.raise_lease(now_ms, words);
        }
    }

    /// Writes the words and leaves a bucket's time as it is: after a fence, when only the standing share is left.
    pub fn cut_lease(&self, index: CounterIndex, words: &LeaseWords) {
        if let Some(row) = self.counter_row(index) {
            row.lease().write(words);
        }
    }

    /// Tells workers until when waiting for more is in vain.
    pub fn set_dry(&self, index: CounterIndex, until_ms: u64) {
        if let Some(row) = self.counter_row(index) {
            row.dry_until.store(until_ms, Relaxed);
        }
    }

    /// Tells workers whether little is left for anybody.
    pub fn set_tight(&self, index: CounterIndex, tight: bool) {
        if let Some(row) = self.counter_row(index) {
            row.tight.store(tight.into(), Relaxed);
        }
    }

    /// Books debt of a row that nobody asks for, so that it does not stay for ever.
    pub fn book_lease_debt(&self, index: CounterIndex, now_ms: u64) {
        if let Some(row) = self.counter_row(index) {
            let algorithm = algorithm_of(row.shape.load(Relaxed));
            if matches!(algorithm, Algorithm::SlidingWindow | Algorithm::FixedWindow) {
                row.lease_window(algorithm)
                    .book_debt(now_ms, row.allowance.load(SeqCst));
            }
        }
    }
}

#[cfg(test)]
#[cfg(not(loom))]
#[path = "lease/tests.rs"]
mod tests;

#[cfg(test)]
#[cfg(loom)]
#[path = "lease/model.rs"]
mod model;
