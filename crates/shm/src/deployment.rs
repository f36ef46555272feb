//! What all workers know of a deployment: its circuit breaker, cool-down, verdict of the daemon's probes, latency, and
//! how many requests it serves. A worker that sees a failure tells the others by one store; nobody waits for anybody.
//!
//! The breaker is one word, replaced by compare-and-swap (B1: a process killed in between leaves the old or the new
//! state, and every state but *closed* ends by time):
//!
//! ```text
//!            `failures` in a row                  its time is over: one worker takes the trial
//!  closed ─────────────────────────► open(until) ───────────────────────────────► half-open(until)
//!    ▲                                ▲                                             │       │  no word of the trial
//!    │           success              │        failure: open for twice as long      │       └──► until: another trial
//!    └────────────────────────────────┼─────────────────────────────────────────────┘
//! ```

use crate::atomic::{Relaxed, SeqCst};
use crate::concurrency::Concurrency;
use crate::layout::DeploymentRow;
use crate::region::Region;
use crate::workers::{Worker, WorkerSlot};

const PROBES: usize = 256;
/// How long others wait for a trial's result before one of them tries, milliseconds.
const TRIAL_MS: u64 = 30_000;

/// How many times the average an answer's first byte must be late to count against a deployment.
const OUTLIER: u64 = 5;
/// And after how long at least, microseconds.
const OUTLIER_US: u64 = 1_000_000;

const CLOSED: u64 = 0;
const OPEN: u64 = 1;
const HALF_OPEN: u64 = 2;
const TRIPS_SHIFT: u32 = 2;
const TRIPS_MASK: u64 = (1 << 14) - 1;
const UNTIL_SHIFT: u32 = 16;

/// Kinds of [`Failure`].
pub(crate) const FAILURES: usize = 8;
/// Failures that come sooner after the last one are no news, milliseconds.
const NEWS_MS: u64 = 1_000;

/// A deployment's row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeploymentIndex(u32);

/// State of a breaker.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BreakerState {
    /// Requests pass.
    Closed,
    /// None pass until its time is over.
    Open,
    /// One request is on trial.
    HalfOpen,
}

impl BreakerState {
    /// Name in the API and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            BreakerState::Closed => "closed",
            BreakerState::Open => "open",
            BreakerState::HalfOpen => "half_open",
        }
    }
}

/// When a breaker opens, and for how long. Milliseconds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BreakerSpec {
    /// Failures in a row, over all workers.
    pub failures: u32,
    /// How long at first.
    pub open_ms: u64,
    /// How long at most.
    pub max_open_ms: u64,
}

/// What went wrong with an attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Failure {
    /// No connection.
    Connect = 1,
    /// No answer in time.
    Timeout = 2,
    /// 5xx.
    Status = 3,
    /// What came is no HTTP, or breaks off.
    Malformed = 4,
    /// 429, or 503 with `Retry-After`: not broken, but full.
    Full = 5,
    /// No TLS, or a certificate that is not the provider's.
    Tls = 6,
    /// 401 or 403: the provider does not take our credential. Not broken either.
    Refused = 7,
    /// An answer, but far later than it uses to come.
    Slow = 8,
}

impl Failure {
    /// All, by number minus one.
    pub const ALL: [Failure; FAILURES] = [
        Failure::Connect,
        Failure::Timeout,
        Failure::Status,
        Failure::Malformed,
        Failure::Full,
        Failure::Tls,
        Failure::Refused,
        Failure::Slow,
    ];

    /// Name in the API and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Failure::Connect => "connect",
            Failure::Timeout => "timeout",
            Failure::Status => "status",
            Failure::Malformed => "malformed",
            Failure::Full => "full",
            Failure::Tls => "tls",
            Failure::Refused => "refused",
            Failure::Slow => "slow",
        }
    }

    /// Whether a deployment that fails like this works, and only does not want us now.
    fn is_unwillingness(self) -> bool {
        matches!(self, Failure::Full | Failure::Refused)
    }
}

/// What [`Region::note_failure`] has to tell.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Noted {
    /// This failure opened the breaker.
    pub opened: bool,
    /// The first failure after a success, and the last one is a while ago: worth a line in a log, which the failures that
    /// follow are not.
    pub news: bool,
}

/// Whether a deployment may be given a request now.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Readiness {
    /// Yes.
    Ready,
    /// Only as the trial of an open breaker, which [`Region::take_trial`] hands out once.
    Trial,
    /// The breaker is open.
    Broken,
    /// It asked to be left alone (429, `Retry-After`).
    Cooling,
    /// The daemon's probes fail.
    Unhealthy,
}

/// The daemon's verdict.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Verdict {
    /// Not probed.
    Unknown,
    /// Probes succeed.
    Healthy,
    /// Probes fail.
    Unhealthy,
}

/// A row's readings.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct DeploymentView {
    /// Of the breaker.
    pub breaker: BreakerState,
    /// Region time at which an open breaker allows a trial; 0 when closed.
    pub breaker_until_ms: u64,
    /// Failures in a row.
    pub failures_in_row: u64,
    /// Region time until which it is left alone.
    pub cooling_until_ms: u64,
    /// Of the daemon's probes.
    pub verdict: Verdict,
    /// When it last began to work again, region time; 0 if it never stopped.
    pub recovered_ms: u64,
    /// Moving average of the time to the first byte, microseconds; 0 before the first answer.
    pub latency_us: u64,
    /// Requests that it serves now.
    pub in_flight: u64,
    /// Attempts so far.
    pub attempts: u64,
    /// Attempts by [`Failure`], in the order of [`Failure::ALL`].
    pub failed: [u64; FAILURES],
    /// How often the breaker has opened.
    pub opened: u64,
    /// Connections that were made.
    pub connected: u64,
    /// Attempts over a connection that was already there.
    pub reused: u64,
    /// TLS handshakes that took up a former session.
    pub resumed: u64,
    /// Connections that are kept and serve nobody now.
    pub idle: u64,
    /// The last failure and its region time.
    pub last_failure: Option<(Failure, u64)>,
}

fn state_of(word: u64) -> u64 {
    word & 3
}
fn until_of(word: u64) -> u64 {
    word >> UNTIL_SHIFT
}
fn trips_of(word: u64) -> u64 {
    word >> TRIPS_SHIFT & TRIPS_MASK
}
fn pack(state: u64, trips: u64, until_ms: u64) -> u64 {
    until_ms << UNTIL_SHIFT | trips.min(TRIPS_MASK) << TRIPS_SHIFT | state
}

impl DeploymentRow {
    fn connections(&self) -> Concurrency<'_> {
        Concurrency {
            cells: &self.cells,
            contested_until: &self.contested_until,
        }
    }

    fn idle(&self) -> Concurrency<'_> {
        Concurrency {
            cells: &self.idle,
            contested_until: &self.contested_until,
        }
    }

    fn readiness(&self, now_ms: u64) -> Readiness {
        let word = self.breaker.load(SeqCst);
        if state_of(word) != CLOSED {
            return if until_of(word) <= now_ms {
                Readiness::Trial
            } else {
                Readiness::Broken
            };
        }
        if self.cooling_until.load(Relaxed) > now_ms {
            return Readiness::Cooling;
        }
        if self.verdict.load(Relaxed) == 2 {
            return Readiness::Unhealthy;
        }
        Readiness::Ready
    }

    fn learn_latency(&self, sample: u64, share: u64) {
        // Two workers at once may lose one sample of many.
        let old = self.latency_us.load(Relaxed);
        let next = if old == 0 {
            sample
        } else {
            old - old / share + sample / share
        };
        self.latency_us.store(next.max(1), Relaxed);
    }

    fn trip(&self, now_ms: u64, spec: &BreakerSpec, from: u64, trips: u64) -> bool {
        let open_ms = spec
            .open_ms
            .saturating_mul(1 << trips.min(20))
            .min(spec.max_open_ms)
            .max(1);
        let next = pack(OPEN, trips + 1, now_ms.saturating_add(open_ms));
        let done = self.breaker.compare_exchange(from, next, SeqCst, SeqCst).is_ok();
        if done {
            self.opened.fetch_add(1, Relaxed);
        }
        done
    }
}

impl Region {
    fn deployment_row(&self, index: DeploymentIndex) -> Option<&DeploymentRow> {
        self.deployment_rows().get(index.0 as usize)
    }

    /// The row of a deployment, by the hash of its id; claimed at first use. `None` if the table is full: it is then used
    /// without a breaker.
    pub fn deployment(&self, id_hash: u64) -> Option<DeploymentIndex> {
        let key = id_hash.max(1);
        let rows = self.deployment_rows();
        let start = (key.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 40) as usize;
        for i in 0..PROBES.min(rows.len()) {
            let at = (start + i) & (rows.len() - 1);
            let row = rows.get(at)?;
            let mut seen = row.key.load(SeqCst);
            if seen == 0 {
                seen = match row.key.compare_exchange(0, key, SeqCst, SeqCst) {
                    Ok(_) => key,
                    Err(other) => other,
                };
            }
            if seen == key {
                return u32::try_from(at).ok().map(DeploymentIndex);
            }
        }
        None
    }

    /// Whether a deployment may be given a request now.
    pub fn deployment_readiness(&self, index: DeploymentIndex, now_ms: u64) -> Readiness {
        self.deployment_row(index)
            .map_or(Readiness::Ready, |row| row.readiness(now_ms))
    }

    /// Requests in flight and latency in microseconds: what a choice by load needs.
    pub fn deployment_load(&self, index: DeploymentIndex) -> (u64, u64) {
        self.deployment_row(index).map_or((0, 0), |row| {
            (row.connections().sum(), row.latency_us.load(Relaxed))
        })
    }

    /// When it last began to work again, region time.
    pub fn deployment_recovered_ms(&self, index: DeploymentIndex) -> u64 {
        self.deployment_row(index)
            .map_or(0, |row| row.recovered_ms.load(Relaxed))
    }

    /// Takes the trial of an open breaker whose time is over. `false`: another has it.
    pub fn take_trial(&self, index: DeploymentIndex, now_ms: u64) -> bool {
        let Some(row) = self.deployment_row(index) else {
            return true;
        };
        let word = row.breaker.load(SeqCst);
        if state_of(word) == CLOSED {
            return true;
        }
        let next = pack(HALF_OPEN, trips_of(word), now_ms.saturating_add(TRIAL_MS));
        until_of(word) <= now_ms && row.breaker.compare_exchange(word, next, SeqCst, SeqCst).is_ok()
    }

    /// An attempt begins: give the same deployment to [`Region::end_attempt`] exactly once.
    pub fn begin_attempt(&self, worker: &Worker, index: DeploymentIndex, reused: bool) {
        if let Some(row) = self.deployment_row(index) {
            row.connections().add(worker.slot, 1);
            row.attempts.fetch_add(1, Relaxed);
            let connections = if reused { &row.reused } else { &row.connected };
            connections.fetch_add(1, Relaxed);
        }
    }

    /// A connection of this worker becomes idle.
    pub fn add_idle(&self, worker: &Worker, index: DeploymentIndex) {
        if let Some(row) = self.deployment_row(index) {
            row.idle().add(worker.slot, 1);
        }
    }

    /// An idle connection of this worker serves again, or is closed.
    pub fn remove_idle(&self, worker: &Worker, index: DeploymentIndex) {
        if let Some(row) = self.deployment_row(index) {
            row.idle().give_back(worker.slot, 1);
        }
    }

    /// A TLS handshake took up a former session.
    pub fn note_resumed(&self, index: DeploymentIndex) {
        if let Some(row) = self.deployment_row(index) {
            row.resumed.fetch_add(1, Relaxed);
        }
    }

    /// An attempt has ended, however.
    pub fn end_attempt(&self, worker: &Worker, index: DeploymentIndex) {
        if let Some(row) = self.deployment_row(index) {
            row.connections().give_back(worker.slot, 1);
        }
    }

    /// An attempt worked. `latency_us`: time to its first byte. Returns whether this closed the breaker.
    pub fn note_success(&self, index: DeploymentIndex, now_ms: u64, latency_us: Option<u64>) -> bool {
        let Some(row) = self.deployment_row(index) else {
            return false;
        };
        if row.failures.load(Relaxed) != 0 {
            row.failures.store(0, Relaxed);
        }
        let word = row.breaker.load(SeqCst);
        // In an open breaker this is an old request's end: it says nothing about new ones.
        let closed =
            state_of(word) == HALF_OPEN && row.breaker.compare_exchange(word, CLOSED, SeqCst, SeqCst).is_ok();
        if closed {
            row.recovered_ms.store(now_ms, Relaxed);
        }
        if let Some(sample) = latency_us {
            row.learn_latency(sample, 8);
        }
        closed
    }

    /// Whether an answer's first byte came so late that it counts against a deployment: after a second and
    /// five times the average. The average moves towards it slowly, so that a deployment that stays as slow as that
    /// is not left out for ever.
    pub fn note_latency_if_outlier(&self, index: DeploymentIndex, latency_us: u64) -> bool {
        let Some(row) = self.deployment_row(index) else {
            return false;
        };
        let usual = row.latency_us.load(Relaxed);
        let outlier = usual > 0 && latency_us > OUTLIER_US && latency_us > usual.saturating_mul(OUTLIER);
        if outlier {
            row.learn_latency(latency_us, 64);
        }
        outlier
    }

    /// An attempt failed.
    pub fn note_failure(
        &self,
        index: DeploymentIndex,
        now_ms: u64,
        failure: Failure,
        spec: &BreakerSpec,
    ) -> Noted {
        let Some(row) = self.deployment_row(index) else {
            return Noted::default();
        };
        if let Some(count) = row.failed.get(failure as usize - 1) {
            count.fetch_add(1, Relaxed);
        }
        let last = row.last_failure.swap(now_ms << 8 | failure as u64, Relaxed);
        let quiet = now_ms.saturating_sub(last >> 8) >= NEWS_MS || last & 0xff != failure as u64;
        if failure.is_unwillingness() {
            // It answers, and that is what a trial asks.
            let word = row.breaker.load(SeqCst);
            if state_of(word) == HALF_OPEN {
                let _ = row.breaker.compare_exchange(word, CLOSED, SeqCst, SeqCst);
            }
            return Noted {
                opened: false,
                news: quiet,
            };
        }
        let failures = row.failures.fetch_add(1, SeqCst) + 1;
        let word = row.breaker.load(SeqCst);
        Noted {
            opened: match state_of(word) {
                HALF_OPEN => row.trip(now_ms, spec, word, trips_of(word)),
                CLOSED if failures >= u64::from(spec.failures) => row.trip(now_ms, spec, word, 0),
                _ => false,
            },
            news: failures == 1 && quiet,
        }
    }

    /// An attempt ended without a word on the deployment (the client left): if it was the trial, the next one may follow.
    pub fn note_nothing(&self, index: DeploymentIndex, now_ms: u64) {
        if let Some(row) = self.deployment_row(index) {
            let word = row.breaker.load(SeqCst);
            if state_of(word) == HALF_OPEN {
                let next = pack(OPEN, trips_of(word), now_ms);
                // Lost to another: then it has been decided.
                let _ = row.breaker.compare_exchange(word, next, SeqCst, SeqCst);
            }
        }
    }

    /// The breaker of another instance has opened, for what is the deployment's own fault: ours opens until the same time.
    /// `false`: it is not closed, so this instance knows by itself.
    pub fn open_breaker(&self, index: DeploymentIndex, until_ms: u64) -> bool {
        let Some(row) = self.deployment_row(index) else {
            return false;
        };
        let next = pack(OPEN, 1, until_ms);
        let done = row.breaker.compare_exchange(CLOSED, next, SeqCst, SeqCst).is_ok();
        if done {
            row.opened.fetch_add(1, Relaxed);
        }
        done
    }

    /// The breaker of another instance has opened, perhaps for want of a way from there: the next failure here is as good as
    /// `failures` in a row, and a success ends that.
    pub fn suspect_deployment(&self, index: DeploymentIndex, failures: u32) {
        if let Some(row) = self.deployment_row(index) {
            row.failures
                .fetch_max(u64::from(failures.saturating_sub(1)), SeqCst);
        }
    }

    /// It asked to be left alone for a time.
    pub fn cool_down(&self, index: DeploymentIndex, until_ms: u64) {
        if let Some(row) = self.deployment_row(index) {
            row.cooling_until.fetch_max(until_ms, Relaxed);
        }
    }

    /// How long it is still to be left alone, milliseconds.
    pub fn deployment_cooling_ms(&self, index: DeploymentIndex, now_ms: u64) -> u64 {
        self.deployment_row(index)
            .map_or(0, |row| row.cooling_until.load(Relaxed).saturating_sub(now_ms))
    }

    /// The daemon's verdict; returns the former one.
    pub fn set_verdict(&self, index: DeploymentIndex, now_ms: u64, verdict: Verdict) -> Verdict {
        let Some(row) = self.deployment_row(index) else {
            return Verdict::Unknown;
        };
        let number = match verdict {
            Verdict::Unknown => 0,
            Verdict::Healthy => 1,
            Verdict::Unhealthy => 2,
        };
        let former = verdict_of(row.verdict.swap(number, SeqCst));
        if former == Verdict::Unhealthy && verdict == Verdict::Healthy {
            row.recovered_ms.store(now_ms, Relaxed);
        }
        former
    }

    /// Everything about a deployment.
    pub fn deployment_view(&self, index: DeploymentIndex) -> Option<DeploymentView> {
        let row = self.deployment_row(index)?;
        let word = row.breaker.load(SeqCst);
        let last = row.last_failure.load(Relaxed);
        let kind = usize::try_from(last & 0xff).ok().and_then(|n| n.checked_sub(1));
        Some(DeploymentView {
            breaker: match state_of(word) {
                CLOSED => BreakerState::Closed,
                OPEN => BreakerState::Open,
                _ => BreakerState::HalfOpen,
            },
            breaker_until_ms: until_of(word),
            failures_in_row: row.failures.load(Relaxed),
            cooling_until_ms: row.cooling_until.load(Relaxed),
            verdict: verdict_of(row.verdict.load(Relaxed)),
            recovered_ms: row.recovered_ms.load(Relaxed),
            latency_us: row.latency_us.load(Relaxed),
            in_flight: row.connections().sum(),
            attempts: row.attempts.load(Relaxed),
            failed: std::array::from_fn(|i| row.failed.get(i).map_or(0, |c| c.load(Relaxed))),
            opened: row.opened.load(Relaxed),
            connected: row.connected.load(Relaxed),
            reused: row.reused.load(Relaxed),
            resumed: row.resumed.load(Relaxed),
            idle: row.idle().sum(),
            last_failure: kind
                .and_then(|k| Failure::ALL.get(k).copied())
                .map(|failure| (failure, last >> 8)),
        })
    }

    /// Forgets what a dead worker had in flight, and its idle connections.
    pub(crate) fn sweep_deployments(&self, worker: WorkerSlot) {
        for row in self.deployment_rows() {
            if row.key.load(Relaxed) != 0 {
                row.connections().sweep(worker);
                row.idle().sweep(worker);
            }
        }
    }
}

fn verdict_of(number: u64) -> Verdict {
    match number {
        1 => Verdict::Healthy,
        2 => Verdict::Unhealthy,
        _ => Verdict::Unknown,
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;
    use crate::Sizes;

    const SPEC: BreakerSpec = BreakerSpec {
        failures: 3,
        open_ms: 100,
        max_open_ms: 350,
    };

    fn region() -> (tempfile::TempDir, Region, DeploymentIndex) {
        let dir = tempfile::tempdir().unwrap();
        let sizes = Sizes {
            counters: 64,
            inflight: 64,
            ring: 64,
            usage: 64,
        };
        let region = Region::open_or_create(dir.path(), sizes).unwrap();
        let index = region.deployment(42).unwrap();
        (dir, region, index)
    }

    #[test]
    fn opens_after_failures_in_a_row_and_closes_by_a_trial() {
        let (_dir, r, d) = region();
        for _ in 0..2 {
            assert!(!r.note_failure(d, 10, Failure::Status, &SPEC).opened);
        }
        r.note_success(d, 10, None);
        assert!(!r.note_failure(d, 10, Failure::Connect, &SPEC).opened);
        assert!(!r.note_failure(d, 10, Failure::Connect, &SPEC).opened);
        assert_eq!(r.deployment_readiness(d, 10), Readiness::Ready);
        assert!(r.note_failure(d, 10, Failure::Timeout, &SPEC).opened);
        assert_eq!(r.deployment_readiness(d, 109), Readiness::Broken);
        assert!(!r.take_trial(d, 109));
        // An old request's success does not close it.
        r.note_success(d, 50, Some(5));
        assert_eq!(r.deployment_readiness(d, 60), Readiness::Broken);
        assert_eq!(r.deployment_readiness(d, 110), Readiness::Trial);
        assert!(r.take_trial(d, 110));
        assert!(!r.take_trial(d, 110), "one trial only");
        assert_eq!(r.deployment_readiness(d, 110), Readiness::Broken);
        assert!(r.note_failure(d, 120, Failure::Connect, &SPEC).opened);
        assert_eq!(r.deployment_readiness(d, 319), Readiness::Broken, "twice as long");
        assert!(r.take_trial(d, 320));
        // The client of the trial leaves: the next request may try at once.
        r.note_nothing(d, 320);
        assert!(r.take_trial(d, 320));
        // The worker on trial dies: after a while another tries.
        assert!(!r.take_trial(d, 320 + TRIAL_MS - 1));
        assert!(r.take_trial(d, 320 + TRIAL_MS));
        r.note_success(d, 40_000, None);
        assert_eq!(r.deployment_readiness(d, 40_000), Readiness::Ready);
        assert_eq!(r.deployment_recovered_ms(d), 40_000);
        let view = r.deployment_view(d).unwrap();
        assert_eq!((view.opened, view.failures_in_row), (2, 0));
        assert_eq!(view.last_failure, Some((Failure::Connect, 120)));
    }

    #[test]
    fn a_breaker_does_not_stay_open_longer_than_its_maximum() {
        let (_dir, r, d) = region();
        let mut now = 0;
        for _ in 0..3 {
            r.note_failure(d, now, Failure::Status, &SPEC);
        }
        for _ in 0..40 {
            let until = r.deployment_view(d).unwrap().breaker_until_ms;
            assert!(until - now <= 350);
            now = until;
            assert!(r.take_trial(d, now));
            assert!(r.note_failure(d, now, Failure::Status, &SPEC).opened);
        }
    }

    #[test]
    fn full_is_not_broken() {
        let (_dir, r, d) = region();
        for _ in 0..10 {
            assert!(!r.note_failure(d, 10, Failure::Full, &SPEC).opened);
        }
        for _ in 0..3 {
            r.note_failure(d, 10, Failure::Connect, &SPEC);
        }
        assert!(r.take_trial(d, 110));
        r.note_failure(d, 110, Failure::Full, &SPEC);
        assert_eq!(r.deployment_readiness(d, 110), Readiness::Ready);
        r.cool_down(d, 500);
        r.cool_down(d, 300);
        assert_eq!(r.deployment_readiness(d, 499), Readiness::Cooling);
        assert_eq!(r.deployment_readiness(d, 500), Readiness::Ready);
    }

    #[test]
    fn probes_take_it_out_and_bring_it_back() {
        let (_dir, r, d) = region();
        assert_eq!(r.set_verdict(d, 5, Verdict::Unhealthy), Verdict::Unknown);
        assert_eq!(r.deployment_readiness(d, 10), Readiness::Unhealthy);
        assert_eq!(r.set_verdict(d, 20, Verdict::Healthy), Verdict::Unhealthy);
        assert_eq!(r.deployment_readiness(d, 20), Readiness::Ready);
        assert_eq!(r.deployment_recovered_ms(d), 20);
    }

    #[test]
    fn what_others_say_opens_a_closed_breaker_or_makes_one_failure_enough() {
        let (_dir, region, at) = region();
        region.suspect_deployment(at, SPEC.failures);
        assert_eq!(region.deployment_readiness(at, 10), Readiness::Ready);
        region.note_success(at, 10, None);
        assert!(
            !region.note_failure(at, 10, Failure::Connect, &SPEC).opened,
            "a success ended it"
        );
        region.note_success(at, 10, None);
        region.suspect_deployment(at, SPEC.failures);
        assert!(region.note_failure(at, 20, Failure::Connect, &SPEC).opened);
        assert!(!region.open_breaker(at, 9_999), "it knows by itself");
        assert_eq!(region.deployment_readiness(at, 120), Readiness::Trial);
        assert!(region.take_trial(at, 120));
        region.note_success(at, 130, None);
        assert!(region.open_breaker(at, 500));
        assert_eq!(region.deployment_readiness(at, 499), Readiness::Broken);
        assert_eq!(
            region.deployment_readiness(at, 500),
            Readiness::Trial,
            "it ends by time like any other"
        );
    }

    #[test]
    fn of_many_workers_one_gets_the_trial_and_one_opens_it() {
        let (_dir, r, d) = region();
        let opened: usize = std::thread::scope(|s| {
            let each: Vec<_> = (0..4)
                .map(|_| {
                    s.spawn(|| {
                        (0..500)
                            .filter(|_| r.note_failure(d, 10, Failure::Status, &SPEC).opened)
                            .count()
                    })
                })
                .collect();
            each.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(opened, 1);
        let trials: usize = std::thread::scope(|s| {
            let each: Vec<_> = (0..4)
                .map(|_| s.spawn(|| (0..500).filter(|_| r.take_trial(d, 200)).count()))
                .collect();
            each.into_iter().map(|t| t.join().unwrap()).sum()
        });
        assert_eq!(trials, 1);
    }

    #[test]
    fn a_dead_workers_requests_leave_with_it() {
        let (_dir, r, d) = region();
        let worker = r.attach_worker().unwrap();
        r.begin_attempt(&worker, d, false);
        r.begin_attempt(&worker, d, true);
        r.add_idle(&worker, d);
        r.add_idle(&worker, d);
        r.remove_idle(&worker, d);
        assert_eq!(r.deployment_view(d).unwrap().idle, 1);
        assert_eq!(r.deployment_load(d).0, 2);
        r.end_attempt(&worker, d);
        assert_eq!(r.deployment_load(d).0, 1);
        r.sweep_deployments(worker.slot);
        assert_eq!(r.deployment_load(d).0, 0);
        assert_eq!(r.deployment_view(d).unwrap().idle, 0);
    }

    #[test]
    fn a_failure_is_news_once() {
        let (_dir, r, d) = region();
        let news = |now, failure| r.note_failure(d, now, failure, &SPEC).news;
        assert!(news(5_000, Failure::Connect));
        assert!(!news(5_001, Failure::Connect) && !news(9_000, Failure::Connect));
        r.note_success(d, 9_001, None);
        // It comes and goes.
        assert!(!news(9_002, Failure::Connect));
        r.note_success(d, 9_003, None);
        assert!(news(10_003, Failure::Connect));
        r.note_success(d, 10_004, None);
        assert!(news(10_005, Failure::Tls), "another one");
        assert!(news(20_000, Failure::Full));
        assert!(!news(20_500, Failure::Full));
    }

    #[test]
    fn an_answer_is_late_by_what_is_usual() {
        let (_dir, r, d) = region();
        assert!(!r.note_latency_if_outlier(d, 9_000_000), "nothing is usual yet");
        r.note_success(d, 1, Some(20_000));
        assert!(!r.note_latency_if_outlier(d, 900_000), "too short to matter");
        let late = (0..100)
            .take_while(|_| r.note_latency_if_outlier(d, 1_500_000))
            .count();
        assert!((8..80).contains(&late), "it becomes usual after a while: {late}");
        assert!(r.note_latency_if_outlier(d, 60_000_000));
    }
}
