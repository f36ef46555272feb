//! One limit: what it measures, how, and the dispatch to the algorithm that holds its state.

use crate::atomic::SeqCst;
use crate::bucket::{Bucket, Passed};
use crate::layout::{CELLS, CounterRow};
use crate::window::{Cap, Taken, Window};
use crate::workers::WorkerSlot;

/// What a limit counts.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
#[repr(u8)]
pub enum Metric {
    /// Requests being served at the same time.
    Connections = 0,
    /// Requests admitted.
    Requests = 1,
    /// Tokens of the prompt.
    InputTokens = 2,
    /// Tokens of the answer.
    OutputTokens = 3,
    /// Both together.
    TotalTokens = 4,
    /// What both cost, in millionths of a currency's unit.
    Cost = 5,
}

/// How a limit counts over time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Algorithm {
    /// Any trailing window of the length holds at most the maximum.
    SlidingWindow = 0,
    /// Windows aligned to the Unix epoch.
    FixedWindow = 1,
    /// Bursts up to `burst`, refilled evenly.
    TokenBucket = 2,
    /// Evenly spaced, with a queue bounded in time.
    LeakyBucket = 3,
    /// How many at the same time.
    Concurrency = 4,
}

/// Whether what exceeds the reservation can break the maximum.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Enforcement {
    /// Reserve the most that can be used; excess becomes debt.
    Strict,
    /// Reserve what is expected, correct afterwards.
    Soft,
}

/// A limit as the region needs it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LimitSpec {
    /// Identity of the counter; stays the same over edits of everything but metric, window and algorithm.
    pub key: u64,
    /// What is counted.
    pub metric: Metric,
    /// How.
    pub algorithm: Algorithm,
    /// Strict or soft.
    pub enforcement: Enforcement,
    /// Maximum per window (or at the same time), below 2^39.
    pub max: u64,
    /// Window in milliseconds, at least 1; ignored for concurrency.
    pub window_ms: u64,
    /// Size of a full token bucket.
    pub burst: u64,
    /// Longest wait in a leaky bucket's queue, milliseconds.
    pub max_delay_ms: u64,
    /// Whether the limit refuses (`false`) or is ignored (`true`) when the counter table is full.
    pub open_when_full: bool,
    /// Whether it holds over all instances together: then this one may use what it has a lease for.
    pub cluster: bool,
}

/// An amount taken, as it is written into the in-flight table.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Amount {
    /// Units.
    pub units: u64,
    pub(crate) epoch: u64,
    pub(crate) span_ns: u64,
    pub(crate) delay_ms: u64,
    /// Taken from a bucket that runs at a part of its rate; `span_ns` is the length of the window then.
    pub(crate) leased: bool,
}

/// A limit's level at an instant.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Level {
    /// Units that count against the maximum now, debt included.
    pub used: u64,
    /// Units used beyond reservations that are not yet booked into a window.
    pub debt: u64,
    /// The maximum they are held against (the burst of a token bucket).
    pub max: u64,
    /// Milliseconds until something is freed if nothing is admitted meanwhile; 0 when nothing is used.
    pub reset_ms: u64,
}

impl Level {
    /// Units that are left.
    pub fn left(&self) -> u64 {
        self.max.saturating_sub(self.used)
    }
}

/// Where one cell of a window of this length begins and ends. 30 live cells make up the window.
pub(crate) fn cell_ms(algorithm: Algorithm, window_ms: u64) -> u64 {
    match algorithm {
        Algorithm::SlidingWindow => window_ms.div_ceil(CELLS as u64 - 2).max(1),
        _ => window_ms.max(1),
    }
}

impl CounterRow {
    pub(crate) fn window(&self, spec: &LimitSpec) -> Window<'_> {
        let cells = match spec.algorithm {
            Algorithm::FixedWindow => self.cells.get(..1).unwrap_or_default(),
            _ => self.cells.as_slice(),
        };
        Window {
            cells,
            debt: &self.debt,
            contested_until: &self.contested_until,
            cell_ms: cell_ms(spec.algorithm, spec.window_ms),
        }
    }

    fn bucket<C: Cap>(&self, spec: &LimitSpec, max: C) -> Bucket<'_, C> {
        Bucket {
            tat: &self.tat,
            max,
            whole: spec.max,
            window_ms: spec.window_ms,
        }
    }

    /// What a take is held against now.
    pub(crate) fn cap(&self, spec: &LimitSpec, now_ms: u64) -> u64 {
        if spec.cluster {
            self.lease_cap(spec, now_ms, false).now()
        } else {
            spec.max
        }
    }

    /// Takes `units` or tells how long to wait, in milliseconds. An upper bound of what is really wanted (`bound`) is accepted
    /// from a window only up to three quarters of it.
    pub(crate) fn take(
        &self,
        spec: &LimitSpec,
        slot: WorkerSlot,
        now_ms: u64,
        units: u64,
        bound: bool,
    ) -> Result<Amount, u64> {
        if spec.cluster {
            self.take_below(spec, slot, now_ms, units, self.lease_cap(spec, now_ms, bound))
        } else {
            let quarters = bound && is_window(spec);
            let max = if quarters { spec.max / 4 * 3 } else { spec.max };
            self.take_below(spec, slot, now_ms, units, max)
        }
    }

    fn take_below<C: Cap>(
        &self,
        spec: &LimitSpec,
        slot: WorkerSlot,
        now_ms: u64,
        units: u64,
        max: C,
    ) -> Result<Amount, u64> {
        let amount = |epoch, span_ns, delay_ms| Amount {
            units,
            epoch,
            span_ns,
            delay_ms,
            leased: C::MOVES,
        };
        match spec.algorithm {
            Algorithm::SlidingWindow | Algorithm::FixedWindow => {
                let window = self.window(spec);
                match window.take(now_ms, max, units) {
                    Taken::Yes { epoch } => Ok(amount(epoch, 0, 0)),
                    Taken::No { .. } => Err(window.wait_for(now_ms, max.now(), units)),
                }
            }
            Algorithm::TokenBucket | Algorithm::LeakyBucket => {
                let bucket = self.bucket(spec, max);
                let passed = match spec.algorithm {
                    Algorithm::TokenBucket => bucket.take(now_ms, units, spec.burst),
                    _ => bucket.enqueue(now_ms, units, spec.max_delay_ms),
                };
                let span = || {
                    if C::MOVES {
                        spec.window_ms.saturating_mul(1_000_000)
                    } else {
                        bucket.span_of(1024)
                    }
                };
                match passed {
                    Passed::After { delay_ms } => Ok(amount(0, span(), delay_ms)),
                    Passed::Refused { retry_ms } => Err(retry_ms),
                }
            }
            Algorithm::Concurrency => {
                if self.concurrency().take(slot, now_ms, max, units) {
                    Ok(amount(0, 0, 0))
                } else {
                    // Nobody knows when a connection ends; a second is the shortest honest answer.
                    Err(1_000)
                }
            }
        }
    }

    /// Units that count now, and what they are held against: what the path of a request needs of a level.
    pub(crate) fn used(&self, spec: &LimitSpec, now_ms: u64) -> (u64, u64) {
        match spec.algorithm {
            Algorithm::SlidingWindow | Algorithm::FixedWindow => {
                let sum = self.window(spec).sum(now_ms);
                (sum.used.saturating_add(sum.debt), self.cap(spec, now_ms))
            }
            Algorithm::Concurrency => (self.concurrency().sum(), self.cap(spec, now_ms)),
            Algorithm::TokenBucket if spec.cluster => {
                let whole = u128::from(spec.max.max(1));
                let part = u128::from(self.cap(spec, now_ms)) * u128::from(spec.burst) / whole;
                let part = u64::try_from(part).unwrap_or(spec.burst);
                (self.level(spec, now_ms).used, part)
            }
            _ => {
                let level = self.level(spec, now_ms);
                (level.used, level.max)
            }
        }
    }

    pub(crate) fn level(&self, spec: &LimitSpec, now_ms: u64) -> Level {
        match spec.algorithm {
            Algorithm::SlidingWindow | Algorithm::FixedWindow => {
                let window = self.window(spec);
                let sum = window.sum(now_ms);
                let used = sum.used.saturating_add(sum.debt);
                let reset_ms = if used == 0 {
                    0
                } else {
                    window.wait_for(now_ms, used.saturating_sub(1), 0)
                };
                Level {
                    used,
                    debt: sum.debt,
                    max: spec.max,
                    reset_ms,
                }
            }
            Algorithm::TokenBucket => {
                let bucket = self.bucket(spec, self.cap(spec, now_ms));
                let used = bucket.used(now_ms, spec.burst);
                let reset_ms = self
                    .tat
                    .load(SeqCst)
                    .saturating_sub(now_ms.saturating_mul(1_000_000))
                    / 1_000_000;
                Level {
                    used,
                    debt: 0,
                    max: spec.burst,
                    reset_ms,
                }
            }
            Algorithm::LeakyBucket => {
                let waiting_ms = self
                    .tat
                    .load(SeqCst)
                    .saturating_sub(now_ms.saturating_mul(1_000_000))
                    / 1_000_000;
                Level {
                    used: self.bucket(spec, self.cap(spec, now_ms)).used(now_ms, u64::MAX),
                    debt: 0,
                    max: spec.max,
                    reset_ms: waiting_ms,
                }
            }
            Algorithm::Concurrency => Level {
                used: self.concurrency().sum(),
                debt: 0,
                max: spec.max,
                reset_ms: 0,
            },
        }
    }
}

pub(crate) fn is_window(spec: &LimitSpec) -> bool {
    matches!(spec.algorithm, Algorithm::SlidingWindow | Algorithm::FixedWindow)
}
