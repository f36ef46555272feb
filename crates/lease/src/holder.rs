//! What an instance holds of one limit, and what may be done with it: the part of the daemon that I1 rests on. How much to
//! want stands in `appetite`; nothing there can break a limit.
//!
//! All times are readings of the region's clock in milliseconds.

use crate::ledger::{Answer, Report};

/// How leases of one limit run. Milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Terms {
    /// Length of a lease.
    pub ttl: u64,
    /// How much earlier the instance ends it by itself: drift of the clocks and the age of a worker's time.
    pub margin: u64,
    /// How long after its end what was admitted under it still counts.
    pub hold: u64,
    /// How long the standing share outlives a report.
    pub standing_ttl: u64,
    /// How long two attempts to renew take if the first is not answered.
    pub attempts: u64,
}

impl Terms {
    /// How long the standing share may be used after the fence.
    pub fn standing_span(&self) -> u64 {
        self.standing_ttl.saturating_sub(self.ttl)
    }

    /// How long a lease lasts for workers.
    fn span(&self) -> u64 {
        self.ttl.saturating_sub(self.margin)
    }
}

/// How the row's allowance has to change; the words to be written are [`Holder::row`], [`Holder::standing`],
/// [`Holder::fence`]. Lowering begins at the row: [`Holder::lowered`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RowChange {
    /// Upwards: a bucket's time is rescaled first.
    Raise,
    /// Downwards after a fence that has outlasted `hold`: a bucket's time stays as it is (H4).
    Cut,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Sent {
    seq: u64,
    at: u64,
}

/// What `lower` took off the row and may be returned later (H5).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Pending {
    to: u64,
    at: u64,
}

/// One limit, held.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Holder {
    id: u64,
    terms: Terms,
    /// What is reported: never less than the row's allowance or what is in use.
    held: u64,
    row: u64,
    standing: u64,
    fence: u64,
    seq: u64,
    sent: Option<Sent>,
    pending: Option<Pending>,
}

impl Holder {
    /// Takes up what a row says, be it nothing (H6). `in_use` is the least allowance that covers what is in use.
    pub fn resume(id: u64, terms: Terms, row: u64, standing: u64, fence: u64, in_use: u64) -> Holder {
        Holder {
            id,
            terms,
            held: row.max(in_use).max(standing),
            row,
            standing,
            fence,
            seq: 0,
            sent: None,
            pending: None,
        }
    }

    /// What is reported as held.
    pub fn held(&self) -> u64 {
        self.held
    }

    /// What the row's allowance has to be.
    pub fn row(&self) -> u64 {
        self.row
    }

    /// What is set aside beyond the lease.
    pub fn standing(&self) -> u64 {
        self.standing
    }

    /// When the lease ends for workers.
    pub fn fence(&self) -> u64 {
        self.fence
    }

    /// Whether a command is under way, and since when.
    pub fn under_way(&self) -> Option<u64> {
        self.sent.map(|s| s.at)
    }

    /// The number of the report whose answer is waited for.
    pub fn waits_for(&self) -> Option<u64> {
        self.sent.map(|s| s.seq)
    }

    /// When the lease should be renewed: with a third of it left, or with more if two attempts would not fit; at most half.
    pub fn renew_at(&self) -> u64 {
        let span = self.terms.span();
        let left = (span / 3).max(self.terms.attempts.min(span / 2));
        self.fence.saturating_sub(left)
    }

    /// From when on it may be renewed along with another one that is due: when a third of it is over.
    pub fn may_renew_at(&self) -> u64 {
        self.fence.saturating_sub(self.terms.span() / 3 * 2)
    }

    /// When something may be returned that could not be returned at once.
    pub fn return_at(&self) -> Option<u64> {
        self.pending.map(|p| p.at)
    }

    /// Replaces the terms; they take effect with the next report.
    pub fn set_terms(&mut self, terms: Terms) {
        // A shorter hold must not shorten that of a lease that runs.
        let hold = if self.held == 0 {
            terms.hold
        } else {
            terms.hold.max(self.terms.hold)
        };
        self.terms = Terms { hold, ..terms };
    }

    /// Notes that the row's allowance and standing share have been lowered to at most `to`: `covered` is the least allowance that
    /// covers what was in use after that (Dekker order in `shm`), and what lies above it may be returned from `free_at` on.
    pub fn lowered(&mut self, now: u64, to: u64, covered: u64, free_at: u64) {
        self.row = self.row.min(to);
        self.standing = self.standing.min(to);
        self.pending = Some(Pending {
            to: covered,
            at: free_at,
        });
        self.return_due(now);
    }

    /// Returns what may be returned by now.
    pub fn return_due(&mut self, now: u64) {
        if let Some(pending) = self.pending.filter(|p| p.at <= now) {
            self.held = self.held.min(pending.to.max(self.row));
            self.pending = None;
        }
    }

    /// Notes a smaller standing share that the row already has.
    pub fn lower_standing(&mut self, to: u64) {
        self.standing = self.standing.min(to);
    }

    /// H4, before a report: after a fence that has outlasted `hold` only the standing share is left.
    pub fn back(&mut self, now: u64, in_use: u64) -> Option<RowChange> {
        if now < self.fence.saturating_add(self.terms.hold) {
            self.held = self.held.max(in_use);
            return None;
        }
        if now >= self.fence.saturating_add(self.terms.standing_span()) {
            self.standing = 0;
        }
        self.held = self.standing.max(in_use);
        self.pending = None;
        let cut = self.row > self.standing;
        self.row = self.row.min(self.standing);
        cut.then_some(RowChange::Cut)
    }

    /// The next report. A command that is still under way is given up (H3). Redis goes on counting the standing share that
    /// the row has: a smaller wish takes effect by [`Holder::lower_standing`] first.
    pub fn report(&mut self, now: u64, want: u64, need: u64, standing: u64, max: u64) -> Report {
        self.return_due(now);
        self.seq = now.max(self.seq + 1);
        self.sent = Some(Sent {
            seq: self.seq,
            at: now,
        });
        Report {
            id: self.id,
            seq: self.seq,
            have: self.held,
            want,
            need,
            standing: standing.max(self.standing),
            max,
            ttl: self.terms.ttl,
            hold: self.terms.hold,
            standing_ttl: self.terms.standing_ttl,
        }
    }

    /// Takes over the answer to the report of that number; `None` if it is not the last one's.
    pub fn answered(&mut self, seq: u64, answer: &Answer) -> Option<RowChange> {
        let sent = self.sent.filter(|s| s.seq == seq)?;
        self.sent = None;
        if answer.stale {
            self.seq = self.seq.max(answer.seq);
            return None;
        }
        self.held = self.held.saturating_add(answer.granted);
        self.row = self.row.saturating_add(answer.granted).min(self.held);
        self.standing = answer.standing;
        self.fence = (sent.at + self.terms.ttl).saturating_sub(self.terms.margin);
        Some(RowChange::Raise)
    }

    /// Lets workers use what is held again, up to `to`: it had been lowered to be returned and was not.
    pub fn reclaim(&mut self, to: u64) -> RowChange {
        self.row = self.row.max(to.min(self.held));
        RowChange::Raise
    }

    /// Gives up the command under way.
    pub fn lost(&mut self, seq: u64) {
        self.sent = self.sent.filter(|s| s.seq != seq);
    }
}

#[cfg(test)]
#[path = "holder/tests.rs"]
mod tests;
