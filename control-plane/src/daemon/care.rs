//! Threads that look after the region: signs of life, dead workers, the ledger, the checkpoint.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tollgate_shm::Region;

use super::{Checkpoint, Stop};
use crate::audit::Audit;
use crate::config::{StatusWatch, keep};
use crate::ledger::{Drain, Store};

/// Time between two sweeps for dead workers, and between two batches of the ledger.
const PERIOD: Duration = Duration::from_millis(200);
/// How often the rings are looked at while they are quiet, in case they begin to fill faster than that.
const LOOK: Duration = Duration::from_millis(10);
/// The same while they fill fast.
const CLOSE_LOOK: Duration = Duration::from_millis(1);
/// Time between two comparisons of the ledger with the usage table.
const COMPARE: Duration = Duration::from_secs(1);
/// Time between two prunings.
const PRUNE: Duration = Duration::from_secs(2);
/// Least time between two checkpoints. They may take a fiftieth of the time.
const CHECKPOINT: Duration = Duration::from_secs(1);
/// The same while nothing happens.
const IDLE_CHECKPOINT: Duration = Duration::from_secs(10);

/// Time between two looks at denied tries that were only counted.
const SETTLE_AUDIT: Duration = Duration::from_secs(10);

/// Writes denied tries that were counted into the audit log, at the latest when the daemon ends.
pub(super) async fn settle_audit(audit: Audit, mut stop: tokio::sync::watch::Receiver<bool>) {
    loop {
        let ended = tokio::time::timeout(SETTLE_AUDIT, stop.wait_for(|s| *s))
            .await
            .is_ok();
        let audit = audit.clone();
        let settled = tokio::task::spawn_blocking(move || audit.settle(ended)).await;
        if let Ok(Err(error)) = settled {
            tracing::error!(%error, "denied tries are not in the audit log yet");
        }
        if ended {
            return;
        }
    }
}

/// Shows that the daemon lives and settles for dead workers.
pub(super) fn watch_over(region: &Region, stop: &Stop) {
    loop {
        region.daemon_beat();
        let done = region.sweep_dead_workers();
        if done.workers > 0 {
            tracing::warn!(
                workers = done.workers,
                requests = done.requests,
                "settled for workers that died"
            );
        }
        if stop.sleep(PERIOD) {
            return;
        }
    }
}

/// When to look at the rings again, if `waiting` events wait and the last `came` came within `passed`: when `most`
/// wait at this rate.
fn next_look(waiting: u64, came: u64, passed: Duration, most: u64) -> Duration {
    if came == 0 {
        return LOOK;
    }
    let count = |n: u64| u32::try_from(n).unwrap_or(u32::MAX);
    let until_full = passed.saturating_mul(count(most.saturating_sub(waiting))) / count(came);
    until_full.clamp(CLOSE_LOOK, LOOK)
}

/// Books usage until it is time to end, and once more then. A batch costs as much as some hundred events, so it waits
/// until a ring might be half full.
pub(super) fn keep_ledger<S: Store>(
    region: &Region,
    drain: &mut Drain<S>,
    config: &StatusWatch,
    stop: &Stop,
) {
    let start = Instant::now();
    let most = u64::from(region.sizes().ring) / 2;
    let (mut looked, mut waited, mut pause) = (Instant::now(), 0, LOOK);
    let (mut compared, mut pruned, mut stepped): (Option<Instant>, Option<Instant>, Option<Instant>) =
        (None, None, None);
    let mut failing = false;
    let due = |last: Option<Instant>, every| last.is_none_or(|at: Instant| at.elapsed() >= every);
    loop {
        let ending = stop.sleep(pause);
        // Of all rings together: which of them it is does not matter.
        let waiting = region.ring_depth();
        let (came, passed) = (waiting.saturating_sub(waited), looked.elapsed());
        pause = next_look(waiting, came, passed, most);
        (looked, waited) = (Instant::now(), waiting);
        if !(ending || due(stepped, PERIOD) || waiting >= most - most / 8) {
            continue;
        }
        let status = Arc::clone(&config.borrow());
        let compare = ending || due(compared, COMPARE);
        let clock_ms = u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX);
        let log = status.settings.request_log.enabled;
        let result = drain.step(clock_ms, compare, log, &*status);
        waited = region.ring_depth();
        pause = next_look(waited, came, passed, most);
        stepped = Some(Instant::now());
        if compare {
            compared = stepped;
        }
        match &result {
            Err(error) if !failing => {
                tracing::error!(%error, "usage waits in the region until the ledger can be written")
            }
            Ok(_) if failing => tracing::info!("the ledger can be written again"),
            _ => {}
        }
        failing = result.is_err();
        if due(pruned, PRUNE) || ending {
            pruned = Some(Instant::now());
            if let Err(error) = drain.store().prune(&keep(&status.settings, region.now_ms())) {
                tracing::warn!(%error, "the ledger grows");
            }
        }
        if ending {
            return;
        }
    }
}

/// What cannot stay the same while limits are being used: decided requests by worker. `None` while some are in flight,
/// because their settlement shows nowhere.
fn activity(region: &Region) -> Option<Vec<(u32, u64)>> {
    let idle = region.inflight(1).is_empty();
    idle.then(|| region.workers().iter().map(|w| (w.pid, w.requests)).collect())
}

/// Writes the counters to the disk until it is time to end, and once more then. Looking at all counters costs some
/// milliseconds, so an idle gateway's are looked at less often.
pub(super) fn keep_checkpoint(region: &Region, checkpoint: &mut Checkpoint, stop: &Stop) {
    let mut failing = false;
    let mut last: Option<(Instant, Vec<(u32, u64)>)> = None;
    loop {
        let begun = Instant::now();
        let now = activity(region);
        let same = last
            .as_ref()
            .is_some_and(|(at, was)| at.elapsed() < IDLE_CHECKPOINT && now.as_ref() == Some(was));
        if !same {
            let result = checkpoint.write(region);
            match &result {
                Err(error) if !failing => {
                    tracing::error!(%error, "counters cannot be saved; a reboot now would empty the windows");
                }
                Ok(_) if failing => tracing::info!("counters can be saved again"),
                _ => {}
            }
            failing = result.is_err();
            last = now.filter(|_| !failing).map(|now| (begun, now));
        }
        if stop.sleep(CHECKPOINT.max(begun.elapsed() * 50)) {
            if let Err(error) = checkpoint.write(region) {
                tracing::error!(%error, "counters could not be saved at the end");
            }
            return;
        }
    }
}
