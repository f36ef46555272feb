//! Probes when it is time, and tells the region.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, watch};
use tokio::task::{Id, JoinSet};
use tokio::time::Instant;
use tollgate_policy::documents::ProbeKind;
use tollgate_policy::hash_name;
use tollgate_shm::{Region, Verdict};

use super::board::Board;
use super::budget::Budget;
use super::plan::{Key, Target};
use super::probe::{Finding, Reach, probe};
use super::standing::verdict_name;
use super::tls::TlsConfigs;
use super::told::{Others, Told, healthy};
use crate::config::{ConfigStatus, StatusWatch};
use crate::secrets::MasterKey;

/// Probes that run at a time.
const AT_ONCE: usize = 64;
/// The longest wait for a first probe, and between probes of what nobody knows yet.
const SOON: Duration = Duration::from_secs(1);

/// How much longer than three intervals nothing may be heard of a target.
const SILENCE: Duration = Duration::from_secs(10);

/// A target and when it is its turn.
struct Watched {
    target: Target,
    due: Instant,
    /// A budget's slot is kept for that time.
    slot: bool,
    /// The task that probes it now. A result of any other comes too late.
    running: Option<Id>,
}

/// Probes all targets of the documents in force.
pub struct Prober {
    region: Arc<Region>,
    config: StatusWatch,
    key: MasterKey,
    board: Board,
    watched: BTreeMap<Key, Watched>,
    /// Deployments whose verdict may be another than unknown.
    told: BTreeSet<String>,
    running: JoinSet<(Key, Finding)>,
    free: Arc<Semaphore>,
    budget: Budget,
    tls: TlsConfigs,
    others: Others,
    /// Whether this instance probes for all.
    leads: bool,
}

/// A duration between `from` and `to`; without random numbers the middle.
fn between(from: Duration, to: Duration) -> Duration {
    let share = getrandom::u32().map_or(0.5, |n| f64::from(n) / f64::from(u32::MAX));
    from + to.saturating_sub(from).mul_f64(share)
}

/// How long nothing may be heard of a target before one asks oneself.
fn silence(target: &Target) -> Duration {
    Duration::from_millis(target.check.interval.as_millis()) * 3 + SILENCE
}

impl Prober {
    /// A prober that has not probed anything yet. `board` is what the API looks at.
    pub fn new(
        region: Arc<Region>,
        config: StatusWatch,
        key: MasterKey,
        board: Board,
        others: Others,
    ) -> Prober {
        let leads = others.role.borrow().works();
        Prober {
            region,
            config,
            key,
            board,
            watched: BTreeMap::new(),
            told: BTreeSet::new(),
            running: JoinSet::new(),
            free: Arc::new(Semaphore::new(AT_ONCE)),
            budget: Budget::default(),
            tls: TlsConfigs::default(),
            leads,
            others,
        }
    }

    /// Probes until `stop` changes; then every verdict is unknown again.
    pub async fn run(mut self, mut stop: watch::Receiver<bool>) {
        self.take_present();
        loop {
            let due = self.next_due();
            tokio::select! {
                biased;
                // An error means that nobody is left who could stop us, which comes to the same.
                _ = stop.wait_for(|s| *s) => break,
                changed = self.config.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    self.take_present();
                }
                Some(ended) = self.running.join_next_with_id() => match ended {
                    Ok((id, (key, finding))) => self.take(id, &key, &finding),
                    Err(error) => self.lost(error.id()),
                },
                Ok(()) = self.others.role.changed() => self.take_role(),
                Some(told) = self.others.hear.recv() => self.take_word(&told),
                () = tokio::time::sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => self.launch_due(),
            }
        }
        for deployment in std::mem::take(&mut self.told) {
            self.tell(&deployment, Verdict::Unknown);
        }
    }

    fn next_due(&self) -> Option<Instant> {
        let waiting = self.watched.values().filter(|w| w.running.is_none());
        waiting.map(|w| w.due).min()
    }

    fn tell(&self, deployment: &str, verdict: Verdict) {
        if let Some(row) = self.region.deployment(hash_name(deployment.as_bytes())) {
            self.region.set_verdict(row, self.region.now_ms(), verdict);
        }
    }

    /// Makes the targets those of the documents in force.
    fn take_present(&mut self) {
        let status = Arc::clone(&self.config.borrow_and_update());
        let now = Instant::now();
        self.tls.forget();
        self.budget.prune(now);
        self.board.replace(&status.targets, self.region.now_ms());
        let mut before = std::mem::take(&mut self.watched);
        for target in status.targets.iter() {
            let key = target.key();
            let watched = match before.remove(&key) {
                Some(same) if same.target == *target => same,
                // Whatever runs now asks the wrong question.
                _ => Watched {
                    target: target.clone(),
                    due: if self.leads {
                        now + between(Duration::ZERO, SOON)
                    } else {
                        now + silence(target)
                    },
                    slot: false,
                    running: None,
                },
            };
            self.watched.insert(key, watched);
        }
        self.tell_all(&status);
    }

    /// Tells the region what is held of each deployment; what is not probed is unknown.
    fn tell_all(&mut self, status: &ConfigStatus) {
        let mut before = std::mem::take(&mut self.told);
        let snapshot = status.active().and_then(|a| a.snapshot());
        let present = snapshot.iter().flat_map(|s| s.deployments());
        for deployment in present.filter(|d| d.enabled()).map(|d| d.id().to_owned()) {
            before.remove(&deployment);
            self.tell(&deployment, self.board.verdict(&deployment));
            self.told.insert(deployment);
        }
        for gone in before {
            self.tell(&gone, Verdict::Unknown);
        }
    }

    /// Begins to probe what others have probed so far, or leaves it to them.
    fn take_role(&mut self) {
        let leads = self.others.role.borrow_and_update().works();
        if leads == self.leads {
            return;
        }
        self.leads = leads;
        let now = Instant::now();
        for watched in self.watched.values_mut() {
            watched.due = if leads {
                now + between(Duration::ZERO, SOON)
            } else {
                now + silence(&watched.target)
            };
        }
    }

    /// Takes the word of the instance that probes, if it asks what we would ask.
    fn take_word(&mut self, told: &Told) {
        let named = |w: &&mut Watched| w.target.name() == told.name && w.target.about() == told.about;
        let Some(watched) = self.watched.values_mut().find(named).filter(|_| !self.leads) else {
            return;
        };
        watched.due = Instant::now() + silence(&watched.target);
        let key = watched.target.key();
        let Some(change) = self.board.take_word(&key, told, self.region.now_ms()) else {
            return;
        };
        let deployments = watched.target.deployments.clone();
        if let Some(change) = change {
            let (to, names) = (verdict_name(change.to), deployments.join(" "));
            tracing::info!(
                provider = watched.target.provider,
                deployments = names,
                "{to}: {} says so",
                told.from
            );
        }
        for deployment in &deployments {
            self.tell(deployment, told.verdict());
        }
    }

    fn launch_due(&mut self) {
        let now = Instant::now();
        let status = Arc::clone(&self.config.borrow());
        let snapshot = status.active().and_then(|a| a.snapshot());
        for (key, watched) in &mut self.watched {
            if watched.running.is_some() || watched.due > now {
                continue;
            }
            let target = &watched.target;
            if target.check.kind == ProbeKind::Completion && !watched.slot {
                let slot = self
                    .budget
                    .take(&target.provider, target.check.max_per_minute(), now);
                if slot > now {
                    (watched.due, watched.slot) = (slot, true);
                    continue;
                }
            }
            watched.slot = false;
            let provider = snapshot
                .as_ref()
                .and_then(|s| s.providers().find(|p| p.id() == target.provider));
            let reach = match &provider {
                Some(provider) => Reach::of(provider, &self.key),
                None => Err("it is not in the configuration in force".to_owned()),
            };
            let (key, target) = (key.clone(), target.clone());
            let (free, tls) = (Arc::clone(&self.free), self.tls.clone());
            let task = self.running.spawn(async move {
                let _permit = free.acquire_owned().await;
                let finding = probe(&target, reach, tls).await;
                (key, finding)
            });
            watched.running = Some(task.id());
        }
    }

    fn take(&mut self, id: Id, key: &Key, finding: &Finding) {
        let Some(watched) = self.watched.get_mut(key).filter(|w| w.running == Some(id)) else {
            return;
        };
        watched.running = None;
        let check = &watched.target.check;
        let noted = self.board.note(key, finding, check, self.region.now_ms());
        let interval = Duration::from_millis(check.interval.as_millis());
        let pause = match noted.as_ref().map(|n| n.verdict) {
            Some(Verdict::Unknown) if check.kind != ProbeKind::Completion => interval.min(SOON),
            _ => interval,
        };
        let jitter = pause.mul_f64(f64::from(check.jitter_percent.min(100)) / 100.0);
        watched.due = Instant::now() + between(pause.saturating_sub(jitter), pause + jitter);
        let Some(noted) = noted else {
            return;
        };
        if self.leads {
            // Nobody hears it where nothing is shared.
            let _ = self.others.tell.send(Told {
                name: watched.target.name(),
                about: watched.target.about(),
                outcome: finding.outcome,
                found: finding.reason.clone(),
                latency_us: u64::try_from(finding.took.as_micros()).unwrap_or(u64::MAX),
                healthy: healthy(noted.verdict),
                reason: noted.reason.clone(),
                for_ms: u64::try_from(silence(&watched.target).as_millis()).unwrap_or(u64::MAX),
                from: String::new(),
            });
        }
        let (provider, kind) = (&watched.target.provider, check.kind.name());
        let told = watched.target.deployments.clone();
        let deployments = told.join(" ");
        match &noted.change {
            Some((change, reason)) if change.to == Verdict::Unhealthy => {
                tracing::warn!(provider, deployments, kind, "unhealthy: {reason}");
            }
            Some((_, reason)) => tracing::info!(provider, deployments, kind, "healthy: {reason}"),
            None if noted.news => {
                tracing::warn!(
                    provider,
                    deployments,
                    kind,
                    "a probe says nothing: {}",
                    finding.reason
                );
            }
            None => {}
        }
        for deployment in &told {
            self.tell(deployment, noted.verdict);
        }
    }

    /// A probe that ended without a finding is made again, after a while.
    fn lost(&mut self, id: Id) {
        for watched in self.watched.values_mut().filter(|w| w.running == Some(id)) {
            watched.running = None;
            watched.due = Instant::now() + Duration::from_millis(watched.target.check.interval.as_millis());
        }
    }
}
