//! Requests of the last five minutes per channel × model, in steps of half a minute: differences of the region's counters.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use tollgate_shm::{Class, Region, UsageTotals};

/// Length of a step, milliseconds, and steps that count.
const STEP_MS: u64 = 30_000;
const STEPS: usize = 10;
/// Fewer requests than these say nothing about a share.
const LEAST: u64 = 20;

/// Requests by what became of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Count {
    /// All of them.
    pub all: u64,
    /// Those that failed at a provider or here.
    pub failed: u64,
    /// Those that a limit refused.
    pub limited: u64,
}

impl Count {
    fn of(totals: &UsageTotals) -> Count {
        let of = |class: Class| totals.classes.get(class as usize).copied().unwrap_or(0);
        Count {
            all: totals.requests(),
            failed: of(Class::Upstream) + of(Class::Timeout) + of(Class::Internal),
            limited: of(Class::Limit),
        }
    }

    fn since(&self, before: &Count) -> Count {
        Count {
            all: self.all.saturating_sub(before.all),
            failed: self.failed.saturating_sub(before.failed),
            limited: self.limited.saturating_sub(before.limited),
        }
    }

    /// Adds others.
    pub fn add(&mut self, other: &Count) {
        self.all += other.all;
        self.failed += other.failed;
        self.limited += other.limited;
    }

    /// How many percent of those that were let through failed; `None` of too few.
    pub fn failed_percent(&self) -> Option<f64> {
        let let_through = self.all.saturating_sub(self.limited);
        (let_through >= LEAST).then(|| self.failed as f64 * 100.0 / let_through as f64)
    }

    /// How many percent were refused by limits; `None` of too few.
    pub fn limited_percent(&self) -> Option<f64> {
        (self.all >= LEAST).then(|| self.limited as f64 * 100.0 / self.all as f64)
    }
}

#[derive(Debug)]
struct Row {
    channel: String,
    model: String,
    last: Count,
    steps: [Count; STEPS],
}

/// The last five minutes.
#[derive(Debug, Default)]
pub struct Traffic {
    rows: HashMap<u32, Row>,
    /// Number of the present step; `None` before the first look.
    step: Option<u64>,
}

impl Traffic {
    /// Looks at the region's counters; what was counted before the first look is of no time.
    pub fn look(&mut self, region: &Region) {
        let rows = region.all_usage();
        let rows = rows.iter().map(|(index, totals)| {
            let names = (totals.channel.as_str(), totals.model.as_str());
            (index.number(), names, Count::of(totals))
        });
        self.take(rows, region.now_ms());
    }

    fn take<'r>(&mut self, rows: impl Iterator<Item = (u32, (&'r str, &'r str), Count)>, now_ms: u64) {
        let step = now_ms / STEP_MS;
        let first = self.step.is_none();
        let passed = self.step.map_or(0, |last| step.saturating_sub(last));
        self.step = Some(step);
        let place = |step: u64| usize::try_from(step % STEPS as u64).unwrap_or(0);
        for row in self.rows.values_mut() {
            for back in 0..passed.min(STEPS as u64) {
                if let Some(slot) = row.steps.get_mut(place(step.wrapping_sub(back))) {
                    *slot = Count::default();
                }
            }
        }
        for (number, (channel, model), now) in rows {
            let row = self.rows.entry(number).or_insert_with(|| Row {
                channel: channel.to_owned(),
                model: model.to_owned(),
                last: if first { now } else { Count::default() },
                steps: [Count::default(); STEPS],
            });
            let new = now.since(&row.last);
            row.last = now;
            if let Some(slot) = row.steps.get_mut(place(step)) {
                slot.add(&new);
            }
        }
    }

    /// Channels and models that were ever called together.
    pub fn names(&self) -> impl Iterator<Item = (&str, &str)> {
        self.rows
            .values()
            .map(|row| (row.channel.as_str(), row.model.as_str()))
    }

    /// Channels and models with what was counted of both together, where anything was.
    pub fn rows(&self) -> impl Iterator<Item = (&str, &str, Count)> {
        self.rows.values().filter_map(|row| {
            let mut sum = Count::default();
            for step in &row.steps {
                sum.add(step);
            }
            (sum.all > 0).then_some((row.channel.as_str(), row.model.as_str(), sum))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn count(all: u64, failed: u64, limited: u64) -> Count {
        Count { all, failed, limited }
    }

    #[test]
    fn a_window_begins_with_the_first_look_and_forgets_after_five_minutes() {
        let mut traffic = Traffic::default();
        let mut take = |now: Count, ms: u64| {
            traffic.take([(7, ("c", "m"), now)].into_iter(), ms);
            traffic.rows().map(|(_, _, count)| count).next()
        };
        let at = 1_000 * STEP_MS;
        assert_eq!(take(count(100, 50, 0), at), None, "what was before is of no time");
        assert_eq!(take(count(120, 60, 5), at + 1_000), Some(count(20, 10, 5)));
        assert_eq!(take(count(130, 60, 5), at + STEP_MS), Some(count(30, 10, 5)));
        let last = STEPS as u64 * STEP_MS;
        assert_eq!(take(count(130, 60, 5), at + last), Some(count(10, 0, 0)));
        assert_eq!(take(count(130, 60, 5), at + last + STEP_MS), None);
        assert_eq!(take(count(131, 60, 5), at + 100 * last), Some(count(1, 0, 0)));
    }

    #[test]
    fn shares_need_enough_requests_and_leave_refused_ones_out_of_failures() {
        assert_eq!(count(19, 19, 0).failed_percent(), None);
        assert_eq!(count(40, 5, 20).failed_percent(), Some(25.0));
        assert_eq!(count(40, 5, 20).limited_percent(), Some(50.0));
        assert_eq!(count(30, 0, 20).failed_percent(), None);
    }
}
