//! What Redis keeps of one limit, and the one command that changes it. `script.lua` is this file in Redis; a property
//! test holds the two together.

use std::collections::BTreeMap;

/// How long a shortage that nobody could satisfy is remembered, milliseconds.
pub const SHORT_MS: u64 = 1_000;

/// What an instance tells: what it holds, and what more it would like. Times in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Report {
    /// The instance: its region's id, so that a new region is another instance.
    pub id: u64,
    /// Higher than in every earlier report of this instance for this limit.
    pub seq: u64,
    /// What it holds, with authority.
    pub have: u64,
    /// What it would like on top.
    pub want: u64,
    /// How much of that somebody waits for: less than this is a shortage.
    pub need: u64,
    /// How much of it should outlive the lease; at most what it then holds counts.
    pub standing: u64,
    /// The limit's maximum as the instance knows it.
    pub max: u64,
    /// Length of the lease.
    pub ttl: u64,
    /// How long after its end what was admitted under it still counts somewhere.
    pub hold: u64,
    /// How long the standing share may be used after this report; it counts `hold` longer.
    pub standing_ttl: u64,
}

/// An instance, as Redis knows it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// Sequence number of its last report.
    pub seq: u64,
    /// What it may have in use.
    pub allowance: u64,
    /// The part of it that outlives the lease.
    pub standing: u64,
    /// End of the lease.
    pub until: u64,
    /// End of the time in which the allowance counts.
    pub hold_until: u64,
    /// End of the time in which the standing share counts.
    pub standing_until: u64,
    /// The maximum it works with.
    pub max: u64,
}

impl Record {
    /// What counts for it at `now`.
    pub fn counted(&self, now: u64) -> u64 {
        if now < self.hold_until {
            self.allowance.max(self.standing)
        } else if now < self.standing_until {
            self.standing
        } else {
            0
        }
    }

    /// Whether its lease runs.
    pub fn is_live(&self, now: u64) -> bool {
        now < self.until
    }
}

/// Which Redis process serves the keys of a tag, and since when. `R` is its `run_id`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Era<R> {
    /// The process.
    pub run: R,
    /// When it was first seen here; from then on nothing was lost.
    pub since: u64,
}

impl<R: PartialEq + Clone> Era<R> {
    /// The era at `now` in the process `run`: a new one after a restart, a failover or a flush.
    pub fn enter(era: &mut Option<Era<R>>, now: u64, run: &R) -> u64 {
        match era {
            Some(known) if known.run == *run => known.since,
            _ => {
                *era = Some(Era {
                    run: run.clone(),
                    since: now,
                });
                now
            }
        }
    }
}

/// Somebody got less than it needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Short {
    /// Who.
    pub id: u64,
    /// How much is missing.
    pub want: u64,
    /// When this is forgotten.
    pub until: u64,
}

/// One limit in Redis.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Ledger {
    /// Every instance that counts.
    pub records: BTreeMap<u64, Record>,
    /// The last shortage.
    pub short: Option<Short>,
}

/// What is published to all instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Notice {
    /// `id`, which holds `have`, lacks `want`.
    Short {
        /// Who.
        id: u64,
        /// How much.
        want: u64,
        /// What it holds.
        have: u64,
    },
    /// Something was returned while somebody was short.
    Room,
}

/// The answer to a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct Answer {
    /// The report was not newer than one before; nothing else in here counts but the number to exceed.
    pub stale: bool,
    /// The last sequence number that counts.
    pub seq: u64,
    /// What the instance now holds on top of what it reported.
    pub granted: u64,
    /// What is set aside for it beyond its lease.
    pub standing: u64,
    /// The maximum that holds.
    pub max: u64,
    /// What nobody holds.
    pub left: u64,
    /// By how much everything held exceeds the maximum.
    pub over: u64,
    /// What another instance lacks; 0 if none is short.
    pub lacking: u64,
    /// Instances whose lease runs, this one included.
    pub live: u64,
    /// What counts for instances whose lease has ended.
    pub stranded: u64,
    /// Time until something is granted again after Redis may have lost writes.
    pub quarantine: u64,
}

impl Ledger {
    /// Applies a report at the server's time `now`, in the process `run`.
    pub fn report<R: PartialEq + Clone>(
        &mut self,
        era: &mut Option<Era<R>>,
        now: u64,
        run: &R,
        report: &Report,
    ) -> (Answer, Option<Notice>) {
        let since = Era::enter(era, now, run);
        self.forget(now);
        let before = match self.records.get(&report.id) {
            Some(known) if report.seq <= known.seq => {
                let stale = Answer {
                    stale: true,
                    seq: known.seq,
                    ..Answer::default()
                };
                return (stale, None);
            }
            Some(known) => known.counted(now),
            None => 0,
        };
        let others = || {
            self.records
                .iter()
                .filter(|(id, _)| **id != report.id)
                .map(|(_, r)| r)
        };
        let live = || others().filter(|r| r.is_live(now));
        let max = live().map(|r| r.max).fold(report.max, u64::min);
        let counted: u64 = others().map(|r| r.counted(now)).sum();
        let stranded = others().filter(|r| !r.is_live(now)).map(|r| r.counted(now)).sum();
        let live = 1 + live().count() as u64;

        let held = counted.saturating_add(report.have);
        let quarantine = since.saturating_add(report.ttl).saturating_sub(now);
        let free = max.saturating_sub(held);
        let granted = if quarantine > 0 { 0 } else { report.want.min(free) };
        let allowance = report.have.saturating_add(granted);
        let standing = report.standing.min(allowance);
        let record = Record {
            seq: report.seq,
            allowance,
            standing,
            until: now.saturating_add(report.ttl),
            hold_until: now.saturating_add(report.ttl).saturating_add(report.hold),
            standing_until: now
                .saturating_add(report.standing_ttl)
                .saturating_add(report.hold),
            max: report.max,
        };
        self.records.insert(report.id, record);

        let mut notice = None;
        let lacking = self.short.filter(|s| s.id != report.id).map_or(0, |s| s.want);
        if quarantine > 0 {
            // What others would return could be given to nobody.
        } else if report.need > granted {
            let want = report.need - granted;
            self.short = Some(Short {
                id: report.id,
                want,
                until: now.saturating_add(SHORT_MS),
            });
            notice = Some(Notice::Short {
                id: report.id,
                want,
                have: allowance,
            });
        } else if self.short.is_some_and(|s| s.id == report.id) {
            self.short = None;
        } else if self.short.is_some() && allowance < before && free > granted {
            self.short = None;
            notice = Some(Notice::Room);
        }
        let answer = Answer {
            stale: false,
            seq: report.seq,
            granted,
            standing,
            max,
            left: free - granted,
            over: held.saturating_sub(max),
            lacking,
            live,
            stranded,
            quarantine,
        };
        (answer, notice)
    }

    /// What counts at `now`, over all instances.
    pub fn counted(&self, now: u64) -> u64 {
        self.records.values().map(|r| r.counted(now)).sum()
    }

    fn forget(&mut self, now: u64) {
        self.records.retain(|_, r| r.is_live(now) || r.counted(now) > 0);
        self.short = self.short.filter(|s| now < s.until);
    }
}

#[cfg(test)]
#[path = "ledger/tests.rs"]
mod tests;
