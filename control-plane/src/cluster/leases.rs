//! All leases of this instance: which rows they belong to, when to look at them, what to send. No I/O: what is sent and what
//! comes back passes through here as values.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use tollgate_lease::{Answer, Keeper, Notice, Policy, Report, script};
use tollgate_policy::documents::{LeasePolicy, Settings};
use tollgate_shm::{Algorithm, CounterIndex, LeaseView, Region};

use super::Figures;
use super::rows::{RegionRow, terms_of, words_of};

/// How often a row in use is looked at, and an idle one.
const LOOK_MS: u64 = 25;
const IDLE_LOOK_MS: u64 = 250;
/// After a report that failed, the next.
const FAILED_MS: u64 = 250;
/// After that long without a lease and without a shortage a limit is forgotten.
const FORGET_MS: u64 = 5_000;
/// How long workers need not wait while Redis does not answer.
const GONE_MS: u64 = 500;

/// How limits are shared, from the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseSettings {
    /// Length of a lease, milliseconds.
    pub ttl_ms: u64,
    /// What happens after it.
    pub policy: Policy,
    /// How long a standing share outlives a report, milliseconds.
    pub standing_ttl_ms: u64,
    /// How far clocks may be apart, milliseconds.
    pub clock_skew_ms: u64,
    /// How long connections count after their lease, milliseconds.
    pub connections_hold_ms: u64,
    /// How long an answer may take, milliseconds.
    pub timeout_ms: u64,
}

impl LeaseSettings {
    /// From the settings' document.
    pub fn of(settings: &Settings) -> LeaseSettings {
        let lease = &settings.lease;
        LeaseSettings {
            ttl_ms: lease.ttl.as_millis(),
            policy: match lease.policy {
                LeasePolicy::Share => Policy::Share(lease.standing_percent.into()),
                LeasePolicy::Open => Policy::Open,
                LeasePolicy::Closed => Policy::Closed,
            },
            standing_ttl_ms: lease.standing_ttl.as_millis(),
            clock_skew_ms: lease.clock_skew.as_millis(),
            connections_hold_ms: lease.connections_hold.as_millis(),
            timeout_ms: settings.redis.as_ref().map_or(1_000, |r| r.timeout.as_millis()),
        }
    }
}

/// A report that is to be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Outgoing {
    /// The row; goes back with the answer.
    pub row: CounterIndex,
    /// The limit, the same in all instances.
    pub limit: u64,
    /// What is reported.
    pub report: Report,
}

/// Reports on limits of one hash tag, which go out as one command.
pub type Together = Vec<Outgoing>;

struct Kept {
    limit: u64,
    keeper: Keeper,
    /// The number of the report under way.
    seq: u64,
    due: u64,
    /// Redis answered its last report with an error: what is wrong with one limit's key is not to keep others from their leases.
    alone: bool,
    /// When something last happened to it: for a while after that its appetite is remembered.
    stirred: u64,
}

impl Kept {
    /// Looks at the row; what comes back is to be sent. `along`: another lease is renewed that this one can go along with.
    fn look(&mut self, now: u64, row: CounterIndex, sees: &Sees<'_>, along: bool) -> Option<Outgoing> {
        let view = sees.region.lease_view(row)?;
        let mut adapter = RegionRow::new(sees.region, row, &view, sees.settings);
        let is_out = sees.skewed && view.algorithm == Algorithm::FixedWindow;
        if is_out {
            self.keeper.give_up(now, &mut adapter);
        }
        let max = if is_out { 0 } else { view.max };
        let report = if along {
            self.keeper.step_along(now, max, &mut adapter)
        } else {
            self.keeper.step(now, max, &mut adapter)
        }?;
        self.seq = report.seq;
        let report = Report {
            max: view.max,
            ..report
        };
        Some(Outgoing {
            row,
            limit: self.limit,
            report,
        })
    }
}

/// What a look at a row goes by.
struct Sees<'a> {
    region: &'a Region,
    settings: &'a LeaseSettings,
    skewed: bool,
}

/// The leases of an instance.
pub struct Leases {
    region: Arc<Region>,
    settings: LeaseSettings,
    figures: Arc<Figures>,
    kept: HashMap<CounterIndex, Kept>,
    rows: HashMap<u64, CounterIndex>,
    /// The clock is too far from Redis' for fixed windows.
    skewed: bool,
}

impl Leases {
    /// Takes up what the region says is held.
    pub fn resume(region: Arc<Region>, settings: LeaseSettings, figures: Arc<Figures>) -> Leases {
        let mut leases = Leases {
            region,
            settings,
            figures,
            kept: HashMap::new(),
            rows: HashMap::new(),
            skewed: false,
        };
        let now = leases.region.now_ms();
        let rows: Vec<CounterIndex> = leases.region.leased_rows().collect();
        for row in rows {
            leases.keep(row, now);
        }
        leases
    }

    /// Replaces the settings.
    pub fn set(&mut self, settings: LeaseSettings) {
        if settings == self.settings {
            return;
        }
        self.settings = settings;
        for (row, kept) in &mut self.kept {
            if let Some(view) = self.region.lease_view(*row) {
                kept.keeper.set(settings.policy, terms_of(&view, &settings));
            }
        }
    }

    /// Tells how far the clock is from Redis'.
    pub fn set_clock_offset(&mut self, offset_ms: u64) {
        self.figures.clock_offset_ms.store(offset_ms, Relaxed);
        let skewed = offset_ms > self.settings.clock_skew_ms / 2;
        if skewed && !self.skewed {
            tracing::error!(
                offset_ms,
                "the clock is too far from Redis' clock: fixed windows are not admitted from until it is right"
            );
        }
        self.skewed = skewed;
    }

    fn keep(&mut self, row: CounterIndex, now: u64) {
        let Some(view) = self.region.lease_view(row) else {
            return;
        };
        let settings = &self.settings;
        let adapter = RegionRow::new(&self.region, row, &view, settings);
        let terms = terms_of(&view, settings);
        self.kept.entry(row).or_insert_with(|| Kept {
            limit: view.key,
            keeper: Keeper::resume(
                self.region.id(),
                settings.policy,
                terms,
                now,
                words_of(&view),
                &adapter,
            ),
            seq: 0,
            due: now,
            alone: false,
            stirred: now,
        });
        self.rows.insert(view.key, row);
    }

    /// Takes up rows that workers found short; they are due at once.
    pub fn take_shortages(&mut self) {
        let mut short = Vec::new();
        self.region.take_shortages(|row| short.push(row));
        self.figures.shortages.fetch_add(short.len() as u64, Relaxed);
        let now = self.region.now_ms();
        for row in short {
            self.keep(row, now);
            if let Some(kept) = self.kept.get_mut(&row) {
                kept.due = now;
                kept.stirred = now;
            }
        }
    }

    /// While Redis cannot be asked: nobody waits in vain, and the policy `open` opens.
    pub fn without_redis(&mut self) {
        let now = self.region.now_ms();
        let mut fenced = 0;
        for (row, kept) in &mut self.kept {
            let Some(view) = self.region.lease_view(*row) else {
                continue;
            };
            if now < kept.keeper.fence() {
                continue;
            }
            fenced += 1;
            let mut adapter = RegionRow::new(&self.region, *row, &view, &self.settings);
            kept.keeper.without_redis(now, view.max, &mut adapter);
            self.region.set_dry(*row, now + GONE_MS);
        }
        self.figures.fenced.store(fenced, Relaxed);
    }

    /// Looks at every row that is due. What comes back is to be sent, each list as one command.
    pub fn step(&mut self) -> Vec<Together> {
        let now = self.region.now_ms();
        let mut out: BTreeMap<u64, Together> = BTreeMap::new();
        let mut alone: Vec<Together> = Vec::new();
        // Tags of which a lease is renewed: what workers wait for takes nothing along.
        let mut renewing: BTreeSet<u64> = BTreeSet::new();
        let mut gone = Vec::new();
        let (mut held, mut fenced, mut quarantined, mut stranded) = (0, 0, 0, 0);
        let sees = Sees {
            region: &self.region,
            settings: &self.settings,
            skewed: self.skewed,
        };
        for (row, kept) in &mut self.kept {
            held += u64::from(kept.keeper.held() > 0);
            fenced += u64::from(kept.keeper.held() > 0 && now >= kept.keeper.fence());
            quarantined += u64::from(kept.keeper.is_in_quarantine(now));
            stranded += kept.keeper.last().stranded;
            if let Some(sent) = kept.keeper.under_way()
                && now > sent + self.settings.timeout_ms
            {
                kept.keeper.lost(kept.seq);
                self.figures.failures.fetch_add(1, Relaxed);
            }
            if now < kept.due {
                continue;
            }
            let Some(view) = self.region.lease_view(*row) else {
                gone.push(*row);
                continue;
            };
            self.region.book_lease_debt(*row, now);
            kept.keeper
                .set(self.settings.policy, terms_of(&view, &self.settings));
            let renews = kept.keeper.is_due(now);
            if let Some(outgoing) = kept.look(now, *row, &sees, false) {
                if kept.alone {
                    alone.push(vec![outgoing]);
                } else {
                    let tag = script::tag_of(kept.limit);
                    if renews && outgoing.report.want == 0 {
                        renewing.insert(tag);
                    }
                    out.entry(tag).or_default().push(outgoing);
                }
            }
            if kept.keeper.is_dormant() && now > kept.stirred + FORGET_MS {
                gone.push(*row);
            }
            kept.due = now
                + if kept.keeper.held() > 0 {
                    LOOK_MS
                } else {
                    IDLE_LOOK_MS
                };
        }
        if !renewing.is_empty() {
            for (row, kept) in &mut self.kept {
                let tag = script::tag_of(kept.limit);
                if renewing.contains(&tag)
                    && !kept.alone
                    && kept.keeper.may_go_along(now)
                    && let Some(outgoing) = kept.look(now, *row, &sees, true)
                {
                    out.entry(tag).or_default().push(outgoing);
                }
            }
        }
        for row in gone {
            if let Some(kept) = self.kept.remove(&row) {
                self.rows.remove(&kept.limit);
            }
        }
        self.figures.held.store(held, Relaxed);
        self.figures.fenced.store(fenced, Relaxed);
        self.figures.quarantined.store(quarantined, Relaxed);
        self.figures.stranded.store(stranded, Relaxed);
        let out: Vec<Together> = out
            .values()
            .flat_map(|all| all.chunks(script::MOST).map(<[Outgoing]>::to_vec))
            .chain(alone)
            .collect();
        let reports: usize = out.iter().map(Vec::len).sum();
        self.figures.reports.fetch_add(reports as u64, Relaxed);
        self.figures.commands.fetch_add(out.len() as u64, Relaxed);
        out
    }

    fn with<R>(
        &mut self,
        row: CounterIndex,
        act: impl FnOnce(u64, &LeaseView, &mut Kept, &mut RegionRow<'_>) -> R,
    ) -> Option<R> {
        let now = self.region.now_ms();
        let view = self.region.lease_view(row)?;
        let kept = self.kept.get_mut(&row)?;
        let mut adapter = RegionRow::new(&self.region, row, &view, &self.settings);
        Some(act(now, &view, kept, &mut adapter))
    }

    /// Takes over an answer.
    pub fn answered(&mut self, row: CounterIndex, report: &Report, answer: &Answer) {
        if !answer.stale && answer.granted < report.need {
            self.figures.unmet.fetch_add(1, Relaxed);
        }
        self.with(row, |now, _, kept, adapter| {
            kept.keeper.answered(now, report.seq, answer, adapter);
            kept.alone = false;
            // What workers are short of meanwhile, or the return of something, need not wait for the next look.
            kept.due = now;
        });
    }

    /// A report was not answered; `refused`: it was, with an error.
    pub fn failed(&mut self, row: CounterIndex, seq: u64, refused: bool) {
        self.figures.failures.fetch_add(1, Relaxed);
        self.with(row, |now, _, kept, _| {
            kept.keeper.lost(seq);
            kept.alone = refused;
            kept.due = now + FAILED_MS;
        });
    }

    /// Hears what another instance lacks, or that there is room.
    pub fn noticed(&mut self, limit: u64, notice: &Notice) {
        if let Some(row) = self.rows.get(&limit).copied() {
            self.with(row, |now, _, kept, adapter| {
                kept.keeper.noticed(now, notice, adapter);
                kept.due = now;
            });
        }
    }
}

#[cfg(test)]
#[path = "leases/tests.rs"]
mod tests;
