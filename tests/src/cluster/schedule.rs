//! Faults by lot: one after the other, two at once, for odd times, the same for the same seed.

use super::scene::{INSTANCES, begin, crowd, finish};
use super::{Fault, Verdict};
use std::fmt;
use std::time::Duration;

/// Between two requests of a client, so that a limit outlasts a schedule.
const PAUSE: Duration = Duration::from_millis(250);

/// What is broken at once, for how long, and the time after it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Act {
    faults: Vec<Fault>,
    lasts: Duration,
    rest: Duration,
}

/// Acts one after the other.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Schedule {
    seed: u64,
    acts: Vec<Act>,
}

impl Schedule {
    /// The schedule of a seed: the same in every run.
    ///
    /// Redis loses writes only while every instance lives and reaches it, and each has reported again before the next act:
    /// what an instance held that cannot report after a loss is the one bounded excess that the protocol allows (I1).
    pub fn new(seed: u64) -> Self {
        let mut lot = Lot(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
        let count = lot.of(3..6);
        // Nobody who is dead can report after a loss.
        let dies = lot.of(0..2) == 0;
        let acts = (0..count).map(|number| {
            let last = number + 1 == count;
            let who = usize::try_from(lot.of(0..INSTANCES as u64)).expect("a small number");
            let redis = [
                Fault::RedisKilled,
                Fault::RedisPaused,
                Fault::RedisDelayed,
                Fault::RedisFlaps,
            ];
            let one = [Fault::CutOff(who), Fault::Reset(who), Fault::DaemonKilled(who)];
            let faults = match lot.of(0..6) {
                _ if last && dies => vec![Fault::InstanceKilled(who)],
                0 => vec![Fault::RedisEmpty],
                1 | 2 => vec![lot.pick(&redis)],
                3 | 4 => vec![lot.pick(&one)],
                _ => vec![lot.pick(&redis), lot.pick(&one)],
            };
            Act {
                faults,
                lasts: Duration::from_millis(lot.of(100..1_800)),
                rest: Duration::from_millis(lot.of(20..400)),
            }
        });
        Self {
            seed,
            acts: acts.collect(),
        }
    }

    /// Plays it.
    pub async fn play(&self) -> Verdict {
        let mut cluster = begin().await;
        let crowd = crowd(&cluster, PAUSE);
        for act in &self.acts {
            let loses = act.faults.contains(&Fault::RedisEmpty);
            if loses {
                cluster.wait_settled().await;
            }
            let before = if loses {
                cluster.reports().await
            } else {
                Vec::new()
            };
            for fault in &act.faults {
                fault.begin(&mut cluster).await;
            }
            for fault in act.faults.iter().take(1) {
                fault.last_for(&cluster, act.lasts).await;
            }
            for fault in act.faults.iter().rev() {
                fault.end(&mut cluster).await;
            }
            if loses {
                cluster.wait_reported(&before).await;
            }
            tokio::time::sleep(act.rest).await;
        }
        finish(&format!("random-{}", self.seed), cluster, crowd).await
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "seed {}:", self.seed)?;
        for act in &self.acts {
            write!(f, " {:?} {} ms", act.faults, act.lasts.as_millis())?;
            write!(f, ", rest {} ms;", act.rest.as_millis())?;
        }
        Ok(())
    }
}

/// Numbers by lot (xorshift).
struct Lot(u64);

impl Lot {
    fn of(&mut self, range: std::ops::Range<u64>) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        range.start + (self.0 >> 11) % (range.end - range.start)
    }

    fn pick<T: Copy>(&mut self, among: &[T]) -> T {
        let at = self.of(0..among.len() as u64);
        among[usize::try_from(at).expect("a small number")]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_gives_one_schedule_and_seeds_differ() {
        assert_eq!(Schedule::new(7), Schedule::new(7));
        assert_ne!(Schedule::new(7).acts, Schedule::new(8).acts);
    }

    #[test]
    fn nobody_dies_before_a_loss() {
        for seed in 0..500 {
            let faults: Vec<Fault> = Schedule::new(seed)
                .acts
                .into_iter()
                .flat_map(|a| a.faults)
                .collect();
            let death = faults.iter().position(|f| matches!(f, Fault::InstanceKilled(_)));
            assert!(death.is_none_or(|at| at + 1 == faults.len()), "{faults:?}");
        }
    }
}
