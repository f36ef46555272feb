//! One limit at one instance: the row, what is held of it, and the appetite, brought together. The daemon and the simulation
//! run this very code.

use crate::appetite::{Appetite, Seen};
use crate::holder::{Holder, RowChange, Terms};
use crate::ledger::{Answer, Notice, Report};

/// What a row's words have to be.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Words {
    /// What workers may have in use until the fence.
    pub allowance: u64,
    /// What they may have in use after it.
    pub standing: u64,
    /// The fence, region time in milliseconds.
    pub fence: u64,
    /// How long after the fence the standing share holds, milliseconds.
    pub standing_span: u64,
}

/// What lowering a row found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lowered {
    /// The least allowance that covers what was in use after the row had been lowered.
    pub covered: u64,
    /// From when on what lies above it may be returned.
    pub free_at: u64,
}

/// A limit's row in shared memory.
pub trait Row {
    /// The least allowance that covers what is in use, without debt.
    fn in_use(&self, now: u64) -> u64;
    /// What workers have been short of since the last call.
    fn take_wanted(&mut self) -> u64;
    /// Lowers allowance and standing share, then looks at what is in use (Dekker order).
    fn lower(&mut self, now: u64, words: Words) -> Lowered;
    /// Raises the allowance, and writes the other words.
    fn raise(&mut self, now: u64, words: Words);
    /// Writes the words and leaves a bucket's time as it is.
    fn cut(&mut self, words: Words);
    /// Workers need not wait for more before that time.
    fn dry_until(&mut self, at: u64);
    /// Whether little is left for anybody: upper bounds are not taken for counts then.
    fn tight(&mut self, tight: bool);
}

/// What an instance does when its lease has ended and Redis does not answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Policy {
    /// Use what was set aside beforehand: this part of the maximum over all instances, in percent.
    Share(u64),
    /// Use the whole maximum, each instance for itself.
    Open,
    /// Refuse.
    Closed,
}

/// One limit at one instance.
#[derive(Clone, Debug)]
pub struct Keeper {
    id: u64,
    policy: Policy,
    terms: Terms,
    holder: Holder,
    appetite: Appetite,
    max: u64,
    /// What the last report said it had, and what it asked for.
    reported: u64,
    wanted: (u64, u64),
    live: u64,
    /// Lowered by more than what was free: the rest is returned as it leaves.
    draining: bool,
    /// What the last answer said.
    last: Answer,
    /// Until when nothing is granted.
    quarantine_until: u64,
}

impl Keeper {
    /// Takes up a row as it stands.
    pub fn resume(id: u64, policy: Policy, terms: Terms, now: u64, words: Words, row: &impl Row) -> Keeper {
        let standing = if matches!(policy, Policy::Share(_)) {
            words.standing
        } else {
            0
        };
        let holder = Holder::resume(id, terms, words.allowance, standing, words.fence, row.in_use(now));
        Keeper {
            id,
            policy,
            terms,
            holder,
            appetite: Appetite::new(now),
            max: 0,
            reported: 0,
            wanted: (0, 0),
            live: 1,
            draining: false,
            last: Answer::default(),
            quarantine_until: 0,
        }
    }

    /// What is held.
    pub fn held(&self) -> u64 {
        self.holder.held()
    }

    /// The last answer.
    pub fn last(&self) -> &Answer {
        &self.last
    }

    /// Whether nothing is granted for now, since Redis may have lost writes.
    pub fn is_in_quarantine(&self, now: u64) -> bool {
        now < self.quarantine_until
    }

    /// When the lease ends for workers.
    pub fn fence(&self) -> u64 {
        self.holder.fence()
    }

    /// When the command under way was sent.
    pub fn under_way(&self) -> Option<u64> {
        self.holder.under_way()
    }

    /// Whether nothing is held and nothing is due.
    pub fn is_dormant(&self) -> bool {
        self.holder.held() == 0 && self.reported == 0 && self.holder.under_way().is_none()
    }

    /// Replaces policy and terms.
    pub fn set(&mut self, policy: Policy, terms: Terms) {
        self.policy = policy;
        self.terms = terms;
        self.holder.set_terms(terms);
    }

    fn words(&self) -> Words {
        let standing = match self.policy {
            Policy::Share(_) => self.holder.standing(),
            Policy::Open => self.max,
            Policy::Closed => 0,
        };
        Words {
            allowance: self.holder.row(),
            standing,
            fence: self.holder.fence(),
            standing_span: match self.policy {
                Policy::Open => u64::MAX,
                Policy::Share(_) | Policy::Closed => self.terms.standing_span(),
            },
        }
    }

    fn change(&self, now: u64, change: Option<RowChange>, row: &mut impl Row) {
        match change {
            Some(RowChange::Raise) => row.raise(now, self.words()),
            Some(RowChange::Cut) => row.cut(self.words()),
            None => {}
        }
    }

    fn lower(&mut self, now: u64, to: u64, row: &mut impl Row) {
        let mut words = self.words();
        words.allowance = words.allowance.min(to);
        if self.policy != Policy::Open {
            words.standing = words.standing.min(to);
        }
        let Lowered { covered, free_at } = row.lower(now, words);
        self.holder.lowered(now, to, covered, free_at);
        self.draining = self.holder.held() > self.holder.row();
    }

    fn seen(&self, now: u64, wanted: u64, row: &impl Row) -> Seen {
        Seen {
            used: row.in_use(now),
            wanted,
            row: self.holder.row(),
            max: self.max,
        }
    }

    /// Looks at the row. What comes back is to be sent; while a command is under way nothing does.
    pub fn step(&mut self, now: u64, max: u64, row: &mut impl Row) -> Option<Report> {
        let renews = self.is_due(now);
        self.look(now, max, renews, row)
    }

    /// Whether a lease is held that is to be renewed.
    pub fn is_due(&self, now: u64) -> bool {
        self.holder.held() > 0 && now >= self.holder.renew_at()
    }

    /// Whether a lease is held that may be renewed along with another one that is due.
    pub fn may_go_along(&self, now: u64) -> bool {
        self.holder.held() > 0 && self.holder.under_way().is_none() && now >= self.holder.may_renew_at()
    }

    /// [`Self::step`] for one that may go along.
    pub fn step_along(&mut self, now: u64, max: u64, row: &mut impl Row) -> Option<Report> {
        self.look(now, max, true, row)
    }

    fn look(&mut self, now: u64, max: u64, renews: bool, row: &mut impl Row) -> Option<Report> {
        if self.holder.under_way().is_some() {
            return None;
        }
        self.max = max;
        self.holder.return_due(now);
        let wanted = row.take_wanted();
        if now >= self.holder.fence() {
            let change = self.holder.back(now, row.in_use(now));
            self.change(now, change, row);
        }
        let wish = self.appetite.wish(now, &self.seen(now, wanted, row));
        if let Some(to) = wish.lower_to.filter(|to| *to < self.holder.row()) {
            self.lower(now, to, row);
        } else if self.draining && self.holder.return_at().is_none() {
            // Again what is in use now; what waits for its time is not put off.
            self.lower(now, self.holder.row(), row);
        }
        let held = self.holder.held();
        let returned = held < self.reported && self.returns_enough(held);
        if wish.want == 0 && !returned && !(held > 0 && renews) {
            return None;
        }
        let standing = self.standing_wish(held + wish.want);
        if standing < self.holder.standing() {
            self.holder.lower_standing(standing);
            row.raise(now, self.words());
        }
        let report = self.holder.report(now, wish.want, wish.need, standing, max);
        self.wanted = (wish.want, wish.need);
        self.reported = report.have;
        Some(report)
    }

    /// While a row drains its remainder goes back in pieces, not unit by unit.
    fn returns_enough(&self, held: u64) -> bool {
        !self.draining || self.reported - held >= (self.max / 256).max(1)
    }

    fn standing_wish(&self, held: u64) -> u64 {
        match self.policy {
            Policy::Share(percent) => (self.max / 100 * percent + self.max % 100 * percent / 100)
                .checked_div(self.live)
                .unwrap_or(0)
                .min(held),
            Policy::Open | Policy::Closed => 0,
        }
    }

    /// Takes over an answer. Returns whether it was the one that was waited for.
    pub fn answered(&mut self, now: u64, seq: u64, answer: &Answer, row: &mut impl Row) -> bool {
        let Some(change) = self.holder.answered(seq, answer) else {
            return false;
        };
        self.change(now, Some(change), row);
        self.reported = self.reported.saturating_add(answer.granted);
        self.live = answer.live.max(1);
        self.last = *answer;
        self.quarantine_until = now + answer.quarantine;
        row.tight(answer.left < self.max / 4);
        if let Some(at) = self.appetite.answered(now, self.wanted, answer) {
            row.dry_until(at);
        } else if answer.granted > 0 {
            row.dry_until(0);
        }
        if answer.over > 0 {
            // More is held than there is: each keeps its part, as its usage leaves.
            let all = u128::from(answer.max) + u128::from(answer.over);
            let part = u128::from(self.holder.row()) * u128::from(answer.max) / all.max(1);
            self.lower(now, u64::try_from(part).unwrap_or(0), row);
        }
        true
    }

    /// While Redis cannot be asked and the lease has ended: with `open` the whole maximum stands in the row.
    pub fn without_redis(&mut self, now: u64, max: u64, row: &mut impl Row) {
        self.max = max;
        if self.policy == Policy::Open {
            let fence = self.holder.fence().max(now);
            let words = Words {
                fence,
                ..self.words()
            };
            row.cut(words);
        }
    }

    /// Lowers the row to nothing: this limit cannot be kept here now.
    pub fn give_up(&mut self, now: u64, row: &mut impl Row) {
        if self.holder.row() > 0 || self.holder.standing() > 0 {
            self.lower(now, 0, row);
        }
    }

    /// Gives up the command with that number.
    pub fn lost(&mut self, seq: u64) {
        self.holder.lost(seq);
    }

    /// Hears of another's shortage, or of room.
    pub fn noticed(&mut self, now: u64, notice: &Notice, row: &mut impl Row) {
        match *notice {
            Notice::Room => {
                self.appetite.room();
                row.dry_until(0);
            }
            Notice::Short { id, want, have } if id != self.id => {
                let seen = self.seen(now, 0, row);
                if let Some(to) = self.appetite.asked(now, self.id, &seen, id, want, have) {
                    self.lower(now, to, row);
                }
            }
            Notice::Short { .. } => {}
        }
    }
}
