//! A request's reservation over all its limits at once, and its settlement.
//!
//! All or nothing (R1): limits are taken one after the other and each is recorded; the first that refuses sends
//! everything back. What was taken meanwhile can only make others see less room, never more, so strictness holds at
//! every instant.

use crate::atomic::{Relaxed, Release, SeqCst};
use crate::bucket;
use crate::counters::{CounterIndex, CounterTableFull};
use crate::inflight::{ACTIVE, Entry, FREE, InflightIndex, SETTLING};
use crate::layout::CounterRow;
use crate::layout::{InflightRow, MAX_LIMITS_PER_REQUEST};
use crate::limit::{Algorithm, Enforcement, Level, LimitSpec, Metric, is_window};
use crate::region::Region;
use crate::usage::UsageIndex;
use crate::workers::{Worker, WorkerSlot};

/// Rounds of clamping an output reservation under contention before it is refused.
const ATTEMPTS: u32 = 32;

/// What a request wants from its limits.
#[derive(Clone, Copy, Debug)]
pub struct Demand<'a> {
    /// Every limit that applies, at most `MAX_LIMITS_PER_REQUEST`.
    pub limits: &'a [LimitSpec],
    /// Where they count, if that is known: what [`Region::locate`] gave for the same limits.
    pub counters: Option<&'a [CounterIndex]>,
    /// Input tokens: the exact count or an upper bound.
    pub input: u64,
    /// Whether `input` is exact. An upper bound is only accepted where there is room to spare.
    pub input_exact: bool,
    /// Output tokens asked for: an upper bound of what the upstream may produce.
    pub output: u64,
    /// Output tokens expected, for limits that are enforced softly.
    pub expected_output: u64,
    /// Clamping an output below this refuses the request instead.
    pub min_output: u64,
    /// Where the request's statistics go.
    pub usage: Option<UsageIndex>,
    /// The most that a million input tokens and a million output tokens cost, in millionths of a currency's unit.
    pub price: [u32; 2],
    /// Whether the request can wait where only this instance's allowance is short of what a limit over all instances has.
    pub may_wait: bool,
}

/// What so many tokens cost at so much per million, rounded up.
pub(crate) fn priced(tokens: u64, per_million: u32) -> u64 {
    let cost = (u128::from(tokens) * u128::from(per_million)).div_ceil(1_000_000);
    u64::try_from(cost).unwrap_or(u64::MAX)
}

impl Demand<'_> {
    /// Units of a metric of output that the input takes.
    fn input_units(&self, metric: Metric) -> u64 {
        let [price, _] = self.price;
        match metric {
            Metric::TotalTokens => self.input,
            Metric::Cost => priced(self.input, price),
            _ => 0,
        }
    }

    /// Units of a metric of output that so many output tokens take.
    fn output_units(&self, metric: Metric, tokens: u64) -> u64 {
        let [_, price] = self.price;
        if metric == Metric::Cost {
            priced(tokens, price)
        } else {
            tokens
        }
    }

    /// Output tokens that fit into so many units.
    fn tokens_within(&self, metric: Metric, units: u64) -> u64 {
        match (metric, self.price) {
            (Metric::Cost, [_, 0]) => u64::MAX,
            (Metric::Cost, [_, price]) => {
                let tokens = u128::from(units) * 1_000_000 / u128::from(price);
                u64::try_from(tokens).unwrap_or(u64::MAX)
            }
            _ => units,
        }
    }
}

/// An admitted request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Grant {
    /// Its row in the in-flight table; give it to [`Region::settle`].
    pub row: InflightIndex,
    /// Output tokens it may produce; at most what was asked for.
    pub output: u64,
    /// How long a leaky bucket makes it wait, milliseconds.
    pub delay_ms: u64,
}

/// Why a request was not admitted. Nothing is held then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason.
    pub kind: RefusalKind,
    /// Index into the demand's limits of the one that decided, where one did.
    pub limit: usize,
    /// Its level.
    pub level: Level,
    /// Units that were asked of it.
    pub wanted: u64,
    /// Milliseconds after which the same request can fit.
    pub retry_ms: u64,
}

/// Kinds of refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// A limit has no room.
    Limit,
    /// A limit over all instances may have room, but this one's allowance has none: the daemon asks for more, wait a moment and
    /// try again.
    LeaseShort,
    /// Near a limit an upper bound is not good enough: count exactly and ask again.
    NeedsExactInput,
    /// The counter table is full and the limit refuses then.
    CountersFull,
    /// No row is left in the in-flight table.
    InflightFull,
    /// More limits apply than a row can hold.
    TooManyLimits,
}

/// What a request really used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub struct Settlement {
    /// Input tokens.
    pub input: u64,
    /// Output tokens.
    pub output: u64,
    /// What they cost, in millionths of a currency's unit.
    pub cost: u64,
}

/// The counter rows of a demand's limits; `None` where a full table is ignored.
type Rows = [Option<CounterIndex>; MAX_LIMITS_PER_REQUEST];

fn is_output(metric: Metric) -> bool {
    matches!(metric, Metric::OutputTokens | Metric::TotalTokens | Metric::Cost)
}

impl Region {
    /// The rows that limits count in, claimed if need be; they stay for the life of the region (T1). `None` if the table
    /// has no row left for one of them.
    pub fn locate(&self, limits: &[LimitSpec]) -> Option<Vec<CounterIndex>> {
        let row = |spec: &LimitSpec| {
            let index = self
                .counter(spec.key, spec.algorithm == Algorithm::Concurrency)
                .ok()?;
            if spec.cluster
                && let Some(row) = self.counter_row(index)
            {
                row.describe(spec);
            }
            Some(index)
        };
        limits.iter().map(row).collect()
    }

    /// Takes the demand from every limit or from none.
    pub fn reserve(&self, worker: &mut Worker, now_ms: u64, demand: &Demand<'_>) -> Result<Grant, Refusal> {
        let refuse = |kind| Refusal {
            kind,
            limit: 0,
            level: Level::default(),
            wanted: 0,
            retry_ms: 1_000,
        };
        if demand.limits.len() > MAX_LIMITS_PER_REQUEST {
            return Err(refuse(RefusalKind::TooManyLimits));
        }
        let mut counters: Rows = [None; MAX_LIMITS_PER_REQUEST];
        let known = demand.counters.filter(|c| c.len() == demand.limits.len());
        for (slot, index) in counters.iter_mut().zip(known.unwrap_or_default()) {
            *slot = Some(*index);
        }
        let unknown = if known.is_some() { &[] } else { demand.limits };
        for (i, (slot, spec)) in counters.iter_mut().zip(unknown).enumerate() {
            match self.counter(spec.key, spec.algorithm == Algorithm::Concurrency) {
                Ok(index) => *slot = Some(index),
                Err(CounterTableFull) if spec.open_when_full => {}
                Err(CounterTableFull) => {
                    return Err(Refusal {
                        limit: i,
                        ..refuse(RefusalKind::CountersFull)
                    });
                }
            }
        }
        let Some(index) = worker.rows.take(self, worker.slot) else {
            self.header().inflight_refused.fetch_add(1, Relaxed);
            return Err(refuse(RefusalKind::InflightFull));
        };
        let Some(row) = self.inflight_row(index) else {
            return Err(refuse(RefusalKind::InflightFull));
        };
        row.start_ms.store(now_ms, Relaxed);
        row.usage.store(UsageIndex::to_word(demand.usage), Relaxed);
        row.input.store(demand.input, Relaxed);
        row.output.store(0, Relaxed);
        row.produced.store(0, Relaxed);
        let [input_price, output_price] = demand.price.map(u64::from);
        row.price.store(input_price | output_price << 32, Relaxed);
        row.entries_held.store(0, Relaxed);
        row.state.store(ACTIVE, Release);

        let taken = self
            .take_plain(worker.slot, now_ms, demand, &counters, row)
            .and_then(|delay_ms| {
                Ok((
                    delay_ms,
                    self.take_output(worker.slot, now_ms, demand, &counters, row)?,
                ))
            });
        match taken {
            Ok((delay_ms, output)) => {
                row.output.store(output, Relaxed);
                Ok(Grant {
                    row: index,
                    output,
                    delay_ms,
                })
            }
            Err(refusal) => {
                self.release(worker, index);
                Err(refusal)
            }
        }
    }

    /// Connections, requests and input tokens; returns the longest queueing delay.
    fn take_plain(
        &self,
        slot: WorkerSlot,
        now_ms: u64,
        demand: &Demand<'_>,
        counters: &Rows,
        row: &InflightRow,
    ) -> Result<u64, Refusal> {
        let mut delay_ms = 0;
        for (i, (spec, index)) in demand.limits.iter().zip(counters).enumerate() {
            let Some((index, counter)) = index.and_then(|i| Some((i, self.counter_row(i)?))) else {
                continue;
            };
            if is_output(spec.metric) {
                continue;
            }
            let units = if spec.metric == Metric::InputTokens {
                demand.input
            } else {
                1
            };
            let bound = spec.metric == Metric::InputTokens && !demand.input_exact;
            if bound && !is_window(spec) {
                let (used, max) = counter.used(spec, now_ms);
                if used.saturating_add(units) > max / 4 * 3 {
                    return Err(needs_exact(i, counter.level(spec, now_ms), units));
                }
            }
            match counter.take(spec, slot, now_ms, units, bound) {
                Ok(amount) => {
                    delay_ms = delay_ms.max(amount.delay_ms);
                    row.hold(&Entry::new(index, spec, &amount));
                }
                Err(_) if spec.cluster && self.short(index, counter, spec, demand, now_ms, units) => {
                    return Err(lease_short(i, counter.level(spec, now_ms), units));
                }
                Err(_) if bound => return Err(needs_exact(i, counter.level(spec, now_ms), units)),
                Err(retry_ms) => {
                    if is_window(spec) {
                        counter.window(spec).book_debt(now_ms, counter.cap(spec, now_ms));
                    }
                    let level = counter.level(spec, now_ms);
                    return Err(Refusal {
                        kind: RefusalKind::Limit,
                        limit: i,
                        level,
                        wanted: units,
                        retry_ms: counter.retry_ms(spec, now_ms, units, retry_ms),
                    });
                }
            }
        }
        Ok(delay_ms)
    }

    /// Output and total tokens: clamps the output to what every strict limit has left, then takes it from all.
    fn take_output(
        &self,
        slot: WorkerSlot,
        now_ms: u64,
        demand: &Demand<'_>,
        counters: &Rows,
        row: &InflightRow,
    ) -> Result<u64, Refusal> {
        let outputs = || {
            demand
                .limits
                .iter()
                .zip(counters)
                .enumerate()
                .filter_map(|(i, (spec, index))| {
                    let index = (*index)?;
                    is_output(spec.metric).then_some(())?;
                    Some((i, spec, index, self.counter_row(index)?))
                })
        };
        let held_before = row.entries_held.load(Relaxed);
        // Far from every limit nothing needs to be clamped: what is wanted is taken at once, and verified once.
        if outputs().all(|(_, spec, ..)| is_window(spec) && spec.enforcement == Enforcement::Strict) {
            let all = outputs().all(|(_, spec, index, counter)| {
                let input = demand.input_units(spec.metric);
                let bound = !demand.input_exact && input > 0;
                let units = input.saturating_add(demand.output_units(spec.metric, demand.output));
                counter
                    .take(spec, slot, now_ms, units, bound)
                    .is_ok_and(|amount| {
                        row.hold(&Entry::new(index, spec, &amount));
                        true
                    })
            });
            if all {
                return Ok(demand.output);
            }
            self.give_back(slot, row, held_before);
        }
        let mut contended = None;
        'attempt: for _ in 0..ATTEMPTS {
            let mut output = demand.output;
            for (i, spec, index, counter) in outputs() {
                let (used, max) = counter.used(spec, now_ms);
                let input = demand.input_units(spec.metric);
                let wanted = match spec.enforcement {
                    Enforcement::Strict => demand.output,
                    Enforcement::Soft => demand.expected_output.min(demand.output),
                };
                let least = demand.output_units(spec.metric, demand.min_output.min(wanted));
                let wanted = demand.output_units(spec.metric, wanted);
                let left = max.saturating_sub(used);
                let units = input.saturating_add(wanted);
                if spec.cluster && left < units && self.short(index, counter, spec, demand, now_ms, units) {
                    return Err(lease_short(i, counter.level(spec, now_ms), units));
                }
                let inexact = !demand.input_exact && input > 0;
                let bar = if spec.cluster && counter.tight.load(Relaxed) == 0 {
                    max
                } else {
                    max / 4 * 3
                };
                if inexact && used.saturating_add(units) > bar {
                    return Err(needs_exact(i, counter.level(spec, now_ms), input));
                }
                if left < input.saturating_add(least) {
                    let units = input.saturating_add(least);
                    let level = counter.level(spec, now_ms);
                    let retry_ms = if is_window(spec) {
                        counter.window(spec).book_debt(now_ms, max);
                        counter.window(spec).wait_for(now_ms, max, units)
                    } else {
                        level.reset_ms.max(1)
                    };
                    return Err(Refusal {
                        kind: RefusalKind::Limit,
                        limit: i,
                        level,
                        wanted: units,
                        retry_ms: counter.retry_ms(spec, now_ms, units, retry_ms),
                    });
                }
                if spec.enforcement == Enforcement::Strict {
                    output = output.min(demand.tokens_within(spec.metric, left - input));
                }
            }
            for (i, spec, index, counter) in outputs() {
                let input = demand.input_units(spec.metric);
                let units = |tokens| input.saturating_add(demand.output_units(spec.metric, tokens));
                let units = match spec.enforcement {
                    Enforcement::Strict => units(output),
                    Enforcement::Soft => {
                        let (used, max) = counter.used(spec, now_ms);
                        let left = max.saturating_sub(used);
                        units(demand.expected_output.min(demand.output)).min(left)
                    }
                };
                match counter.take(spec, slot, now_ms, units, false) {
                    Ok(amount) => row.hold(&Entry::new(index, spec, &amount)),
                    Err(retry_ms) => {
                        let level = counter.level(spec, now_ms);
                        contended = Some(Refusal {
                            kind: RefusalKind::Limit,
                            limit: i,
                            level,
                            wanted: units,
                            retry_ms,
                        });
                        self.give_back(slot, row, held_before);
                        continue 'attempt;
                    }
                }
            }
            return Ok(output);
        }
        Err(contended.unwrap_or(Refusal {
            kind: RefusalKind::Limit,
            limit: 0,
            level: Level::default(),
            wanted: demand.output,
            retry_ms: 1,
        }))
    }

    /// Tells the daemon if it is this instance's allowance that has no room for `units`. Returns whether the request should
    /// wait for more of it.
    fn short(
        &self,
        index: CounterIndex,
        counter: &CounterRow,
        spec: &LimitSpec,
        demand: &Demand<'_>,
        now_ms: u64,
        units: u64,
    ) -> bool {
        let missing = counter.missing(spec, now_ms, units);
        if missing == 0 {
            return false;
        }
        self.want(index, counter, spec, missing);
        demand.may_wait && now_ms >= counter.dry_until.load(Relaxed)
    }

    /// Returns everything that entries from number `from` on hold. The entries are struck first (F2).
    fn give_back(&self, slot: WorkerSlot, row: &InflightRow, from: u64) {
        let held = row.entries_held.load(Relaxed);
        let mut entries = [None; MAX_LIMITS_PER_REQUEST];
        for (to, entry) in entries.iter_mut().zip(row.entries()) {
            *to = Some(entry);
        }
        row.entries_held.store(from.min(held), SeqCst);
        for entry in entries.iter().skip(from as usize).flatten() {
            self.adjust(slot, entry, 0, 0);
        }
    }

    /// Corrects one entry to what was really used; returns the debt this made.
    pub(crate) fn adjust(&self, slot: WorkerSlot, entry: &Entry, used: u64, now_ms: u64) -> u64 {
        let Some(counter) = self.counter_row(entry.counter) else {
            return 0;
        };
        if entry.algorithm == Algorithm::Concurrency {
            counter.concurrency().give_back(slot, entry.units);
            return 0;
        }
        let unused = entry.units.saturating_sub(used);
        let excess = used.saturating_sub(entry.units);
        match entry.algorithm {
            Algorithm::SlidingWindow | Algorithm::FixedWindow => {
                let cells = match entry.algorithm {
                    Algorithm::FixedWindow => counter.cells.get(..1).unwrap_or_default(),
                    _ => counter.cells.as_slice(),
                };
                let window = crate::window::Window {
                    cells,
                    debt: &counter.debt,
                    contested_until: &counter.contested_until,
                    cell_ms: 1,
                };
                if unused > 0 {
                    window.give_back(entry.epoch, unused);
                }
                if excess > 0 && entry.strict {
                    counter.debt.fetch_add(excess, SeqCst);
                    return excess;
                }
                if excess > 0 {
                    window.charge(entry.epoch, excess);
                }
            }
            _ if entry.leased => {
                if entry.units != used {
                    bucket::correct(
                        &counter.tat,
                        &counter.allowance,
                        entry.span_ns,
                        now_ms,
                        entry.units,
                        used,
                    );
                }
                return if entry.strict { excess } else { 0 };
            }
            _ => {
                let span = |units: u64| u128::from(entry.span_ns) * u128::from(units) / 1024;
                let ns = |span: u128| u64::try_from(span).unwrap_or(u64::MAX);
                if unused > 0 {
                    bucket::give_back(&counter.tat, ns(span(unused)).saturating_sub(1));
                }
                if excess > 0 {
                    bucket::charge(&counter.tat, now_ms, ns(span(excess)).saturating_add(1));
                    return if entry.strict { excess } else { 0 };
                }
            }
        }
        0
    }

    /// Gives a whole reservation back, as if it had never been made: its request goes on under another one.
    pub fn release(&self, worker: &mut Worker, index: InflightIndex) {
        let slot = worker.slot;
        self.end(worker, index, |row| self.give_back(slot, row, 0));
    }

    /// Corrects a reservation to what was really used and frees its row. Returns the debt in tokens. Settling a row
    /// that is not active does nothing.
    pub fn settle(&self, worker: &mut Worker, index: InflightIndex, now_ms: u64, used: Settlement) -> u64 {
        let slot = worker.slot;
        self.end(worker, index, |row| self.settle_entries(slot, row, now_ms, used))
            .unwrap_or(0)
    }

    /// Ends an active row by what `correct` does; a row is ended once (F2).
    fn end<R>(
        &self,
        worker: &mut Worker,
        index: InflightIndex,
        correct: impl FnOnce(&InflightRow) -> R,
    ) -> Option<R> {
        let row = self.inflight_row(index)?;
        row.state
            .compare_exchange(ACTIVE, SETTLING, SeqCst, SeqCst)
            .ok()?;
        let done = correct(row);
        row.state.store(FREE, Release);
        worker.rows.put(self, index);
        Some(done)
    }

    pub(crate) fn settle_entries(
        &self,
        slot: WorkerSlot,
        row: &InflightRow,
        now_ms: u64,
        used: Settlement,
    ) -> u64 {
        let mut debt = 0;
        for entry in row.entries() {
            debt = debt.max(self.adjust(slot, &entry, entry.part_of(used), now_ms));
        }
        debt
    }

    /// The level of a limit, without taking anything; zero for one that has never been used.
    pub fn level(&self, spec: &LimitSpec, now_ms: u64) -> Level {
        let empty = || Level {
            max: if spec.algorithm == Algorithm::TokenBucket {
                spec.burst
            } else {
                spec.max
            },
            ..Level::default()
        };
        self.find_counter(spec.key, spec.algorithm == Algorithm::Concurrency)
            .and_then(|i| self.counter_row(i))
            .map_or_else(empty, |row| row.level(spec, now_ms))
    }

    /// Adds usage to a window without a check: restoring from the ledger after a reboot.
    pub fn restore_usage(&self, spec: &LimitSpec, at_ms: u64, units: u64) {
        if matches!(spec.algorithm, Algorithm::SlidingWindow | Algorithm::FixedWindow)
            && let Some(row) = self
                .counter(spec.key, false)
                .ok()
                .and_then(|i| self.counter_row(i))
        {
            row.window(spec).restore(at_ms, units);
        }
    }

    /// What each part of a limit's window holds: region time at which the part began, and units.
    pub fn window_parts(&self, spec: &LimitSpec, now_ms: u64) -> Vec<(u64, u64)> {
        if !matches!(spec.algorithm, Algorithm::SlidingWindow | Algorithm::FixedWindow) {
            return Vec::new();
        }
        self.find_counter(spec.key, false)
            .and_then(|i| self.counter_row(i))
            .map_or_else(Vec::new, |row| row.window(spec).live_cells(now_ms).collect())
    }
}

fn lease_short(limit: usize, level: Level, wanted: u64) -> Refusal {
    Refusal {
        kind: RefusalKind::LeaseShort,
        limit,
        level,
        wanted,
        retry_ms: 1,
    }
}

fn needs_exact(limit: usize, level: Level, wanted: u64) -> Refusal {
    Refusal {
        kind: RefusalKind::NeedsExactInput,
        limit,
        level,
        wanted,
        retry_ms: 0,
    }
}
