//! How much an instance asks for, and when it returns what it does not need. Nothing here can break a limit (I1); it decides
//! how much of it gets used (I2) and how often anybody asks.

use crate::ledger::Answer;

/// The most that is asked for in advance, an eighth of the maximum; at first, when no burn is known, at most half of a fair share.
const FIRST: u64 = 8;
/// The floor of a block: a 64th of the maximum.
const FLOOR: u64 = 64;
/// After a shortage nobody could satisfy: the time that others need to return what they have free.
const GRACE_MS: u64 = 15;
/// Then, while it stays so: the first and the longest time until the next question.
const DRY_MS: std::ops::RangeInclusive<u64> = 50..=1_000;
/// How long nothing is asked for in advance after there was not enough.
const SCARCE_MS: u64 = 500;
/// A surplus has to last this long before it goes back.
const SETTLED_MS: u64 = 2_000;
/// How long a row is idle before everything goes back.
const IDLE_MS: u64 = 10_000;
/// How long a shortage of one's own counts against another's.
const SHORT_MS: u64 = 1_000;

/// What there is to decide on.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    /// The least allowance that covers what is in use.
    pub used: u64,
    /// What workers were short of since the last look.
    pub wanted: u64,
    /// The row's allowance.
    pub row: u64,
    /// The limit's maximum.
    pub max: u64,
}

/// What to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wish {
    /// Ask for that much more.
    pub want: u64,
    /// What of it workers wait for.
    pub need: u64,
    /// Lower the row to this.
    pub lower_to: Option<u64>,
}

/// The appetite for one limit.
#[derive(Clone, Debug)]
pub struct Appetite {
    used: u64,
    looked_at: u64,
    /// Net growth of what is in use, units a second.
    growth: u64,
    last_used_at: u64,
    surplus_since: Option<u64>,
    live: u64,
    max: u64,
    /// The last wish that was not met, and when.
    unmet: Option<(u64, u64)>,
    misses: u32,
    ask_at: u64,
    scarce_until: u64,
}

impl Appetite {
    /// Before anything is known.
    pub fn new(now: u64) -> Appetite {
        Appetite {
            used: 0,
            looked_at: now,
            growth: 0,
            last_used_at: now,
            surplus_since: None,
            live: 1,
            max: 0,
            unmet: None,
            misses: 0,
            ask_at: 0,
            scarce_until: 0,
        }
    }

    /// The least block.
    fn floor(max: u64) -> u64 {
        (max / FLOOR).max(1)
    }

    fn look(&mut self, now: u64, seen: &Seen) {
        let passed = now.saturating_sub(self.looked_at);
        if passed >= 20 {
            let grown = seen.used.saturating_sub(self.used);
            let rate = grown.saturating_mul(1_000) / passed;
            // Fast upwards, slow downwards: being dry costs a wait, a surplus costs nothing for now.
            self.growth = if rate > self.growth {
                rate
            } else {
                (self.growth * 7 + rate) / 8
            };
            self.used = seen.used;
            self.looked_at = now;
        }
        if seen.used > 0 || seen.wanted > 0 {
            self.last_used_at = now;
        }
    }

    /// Looks at the row and decides.
    pub fn wish(&mut self, now: u64, seen: &Seen) -> Wish {
        self.look(now, seen);
        let free = seen.row.saturating_sub(seen.used);
        let mut wish = Wish::default();
        if self.max > seen.max && seen.row > 0 {
            // A maximum that fell acts at once: each instance keeps its part of it.
            let part = u128::from(seen.row) * u128::from(seen.max) / u128::from(self.max);
            wish.lower_to = Some(u64::try_from(part).unwrap_or(seen.max));
        }
        self.max = seen.max;
        if now >= self.ask_at {
            let room = seen.max.saturating_sub(seen.row);
            wish.need = seen.wanted.min(room);
            wish.want = self.want(now, seen, free).min(room);
        }
        if wish.want == 0 && wish.lower_to.is_none() {
            wish.lower_to = self.surplus(now, seen, free);
        }
        wish
    }

    fn want(&self, now: u64, seen: &Seen, free: u64) -> u64 {
        if now < self.scarce_until {
            return seen.wanted;
        }
        let floor = Self::floor(seen.max);
        if seen.row == 0 && seen.wanted > 0 {
            let first = (seen.max / FIRST).min(seen.max / (2 * self.live.max(1)));
            return first.max(floor).max(seen.wanted);
        }
        // Dry within a tenth of a second, or nearly so already.
        let low = free.saturating_mul(10) < self.growth || (self.growth > 0 && free < floor / 4);
        if seen.wanted > 0 || low {
            // A burst of a few milliseconds must not lead to a hoard, which would be lost with the instance.
            let burn = self.growth.min(seen.max / FIRST);
            seen.wanted.max(burn).max(floor)
        } else {
            0
        }
    }

    fn surplus(&mut self, now: u64, seen: &Seen, free: u64) -> Option<u64> {
        if seen.row > 0 && seen.used == 0 && now >= self.last_used_at + IDLE_MS {
            return Some(0);
        }
        let floor = Self::floor(seen.max);
        let keep = (2 * self.growth).max(2 * floor).max(seen.used / 8);
        if free <= 2 * keep {
            self.surplus_since = None;
            return None;
        }
        let since = *self.surplus_since.get_or_insert(now);
        if now < since + SETTLED_MS {
            return None;
        }
        self.surplus_since = None;
        Some(seen.used + keep)
    }

    /// Learns from an answer to a wish for so much, of which so much was needed. Returns until when workers need not wait
    /// for more.
    pub fn answered(&mut self, now: u64, (want, need): (u64, u64), answer: &Answer) -> Option<u64> {
        self.live = answer.live;
        if answer.quarantine > 0 {
            // Nobody gets anything until it ends: to ask before is in vain, to wait longer a loss.
            self.misses = 0;
            self.unmet = None;
            self.ask_at = now + answer.quarantine;
            return (need > answer.granted).then_some(self.ask_at);
        }
        if answer.granted < want {
            self.scarce_until = now + SCARCE_MS;
        }
        if answer.granted >= need {
            if need > 0 {
                self.misses = 0;
                self.ask_at = 0;
                self.unmet = None;
            }
            return None;
        }
        self.unmet = Some((need - answer.granted, now));
        self.misses = self.misses.saturating_add(1);
        if self.misses == 1 {
            self.ask_at = now + GRACE_MS;
            return None;
        }
        let wait = (DRY_MS.start() << (self.misses - 2).min(10)).min(*DRY_MS.end());
        self.ask_at = now + wait;
        Some(self.ask_at)
    }

    /// Something was returned: ask again at once.
    pub fn room(&mut self) {
        self.ask_at = 0;
        self.misses = self.misses.min(1);
    }

    /// Another instance, which holds `have`, lacks `want`: what to lower the row to (H7).
    pub fn asked(&mut self, now: u64, me: u64, seen: &Seen, other: u64, want: u64, have: u64) -> Option<u64> {
        let free = seen.row.saturating_sub(seen.used);
        let unmet = self.unmet.filter(|(_, at)| now < at + SHORT_MS).map(|(w, _)| w);
        let mine = unmet.filter(|mine| (*mine, me) < (want, other)).unwrap_or(0);
        // In hunger all share alike in the long run: who holds much more lets go as its usage leaves.
        let uneven = if seen.row > have.saturating_add(seen.max / 8) {
            (seen.row - have) / 2
        } else {
            0
        };
        let give = free.saturating_sub(mine).max(uneven).min(want);
        (give > 0).then(|| seen.row - give)
    }
}
