//! What each instance counts of what all instances do together, laid side by side in Redis for the one that watches.
//!
//! One hash: instance → part, with a number that grows each time it is written. A part whose number stands still is of an instance that
//! is gone, so no instance's clock is compared with another's.

use std::collections::{BTreeMap, HashMap};
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use serde::{Deserialize, Serialize};

use super::reading::Labels;
use super::traffic::Count;
use crate::shared::{Script, Shared, SharedError};

static EXCHANGE: LazyLock<Script> = LazyLock::new(|| {
    Script::repeatable(
        "redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) redis.call('PEXPIRE', KEYS[1], ARGV[3]) return redis.call('HGETALL', KEYS[1])",
    )
});

/// Key of the hash.
const KEY: &str = "{alerts}:parts";
/// How long a part counts that is not written any more, and how long it lies there.
const FRESH: Duration = Duration::from_secs(20);
const KEPT: Duration = Duration::from_secs(3_600);
/// How long the hash lies there when nobody writes, milliseconds.
const KEPT_MS: u64 = 86_400_000;
/// Names and limits in a part: those that matter most.
pub const MOST: usize = 300;

/// How full a limit of tokens or money is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Level {
    /// Key of its counter: the same at every instance.
    pub key: String,
    /// Whether it is one of money.
    pub budget: bool,
    /// What an alert of it is about.
    pub labels: Labels,
    /// Whose it is, in words.
    pub whose: String,
    /// What is used.
    pub used: u64,
    /// The most that may be.
    pub max: u64,
}

impl Level {
    /// How much of it is used.
    pub fn percent(&self) -> f64 {
        self.used as f64 * 100.0 / (self.max as f64).max(1.0)
    }
}

/// What an instance counts.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Part {
    /// Grows each time that it is written.
    pub number: u64,
    /// Requests of the last minutes by model.
    pub models: BTreeMap<String, Count>,
    /// The same by channel.
    pub channels: BTreeMap<String, Count>,
    /// Limits that are used to some part.
    pub levels: Vec<Level>,
}

fn add(to: &mut BTreeMap<String, Count>, from: &BTreeMap<String, Count>) {
    for (name, count) in from {
        to.entry(name.clone()).or_default().add(count);
    }
}

fn most(counts: &mut BTreeMap<String, Count>, of: fn(&Count) -> u64) {
    if counts.len() > MOST {
        let mut all: Vec<(String, Count)> = std::mem::take(counts).into_iter().collect();
        all.sort_by_key(|(_, count)| std::cmp::Reverse(of(count)));
        all.truncate(MOST);
        counts.extend(all);
    }
}

impl Part {
    /// Adds what another instance counts.
    pub fn add(&mut self, other: &Part) {
        add(&mut self.models, &other.models);
        add(&mut self.channels, &other.channels);
        let places: HashMap<String, usize> = self
            .levels
            .iter()
            .enumerate()
            .map(|(at, level)| (level.key.clone(), at))
            .collect();
        for level in &other.levels {
            match places.get(&level.key).and_then(|at| self.levels.get_mut(*at)) {
                Some(ours) => ours.used = ours.used.saturating_add(level.used),
                None => self.levels.push(level.clone()),
            }
        }
    }

    /// What of it is written: those with the most failures and refusals, and the fullest limits.
    fn bounded(&self) -> Part {
        let mut part = self.clone();
        most(&mut part.models, |count| count.failed);
        most(&mut part.channels, |count| count.limited);
        part.levels.sort_by(|a, b| b.percent().total_cmp(&a.percent()));
        part.levels.truncate(MOST);
        part
    }
}

/// The others' parts.
#[derive(Debug, Default)]
pub struct Parts {
    seen: HashMap<String, Seen>,
}

/// A part of another instance.
#[derive(Debug)]
struct Seen {
    part: Part,
    /// Since when it has had its number.
    since: Instant,
    /// It had another one before: its instance lives, or did when this one looked.
    moves: bool,
}

impl Seen {
    fn is_fresh(&self) -> bool {
        self.since.elapsed() < FRESH
    }
}

impl Parts {
    /// What lies there now.
    fn take(&mut self, found: Vec<(String, Part)>) {
        let names: Vec<String> = found.iter().map(|(name, _)| name.clone()).collect();
        self.seen.retain(|name, _| names.contains(name));
        for (name, part) in found {
            let known = self.seen.get(&name);
            if known.is_none_or(|old| old.part.number != part.number) {
                let seen = Seen {
                    part,
                    since: Instant::now(),
                    moves: known.is_some(),
                };
                self.seen.insert(name, seen);
            }
        }
    }

    /// Those that count.
    pub fn fresh(&self) -> impl Iterator<Item = &Part> {
        let fresh = self.seen.values().filter(|seen| seen.is_fresh());
        fresh.map(|seen| &seen.part)
    }

    /// Other living instances that have the name of this one. What an earlier region of its own left does not move.
    pub fn namesakes(&self, instance: &str) -> usize {
        let alive = self.seen.iter().filter(|(_, seen)| seen.moves && seen.is_fresh());
        let names = alive.filter_map(|(key, _)| key.rsplit_once(' '));
        names.filter(|(name, _)| *name == instance).count()
    }

    /// Writes an instance's own part and reads the others'.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn exchange(&mut self, shared: &Shared, instance: &str, own: &Part) -> Result<(), SharedError> {
        // The key of a part is the instance's name, and what tells its region from others.
        let key = shared.key(KEY);
        let text = serde_json::to_vec(&own.bounded()).unwrap_or_default();
        let arguments = [
            instance.as_bytes().to_vec(),
            text,
            KEPT_MS.to_string().into_bytes(),
        ];
        let found: Vec<(String, Vec<u8>)> = shared
            .script(&EXCHANGE, std::slice::from_ref(&key), &arguments)
            .await?;
        let others = found.into_iter().filter(|(name, _)| name != instance);
        let parts = others.filter_map(|(name, text)| Some((name, serde_json::from_slice(&text).ok()?)));
        self.take(parts.collect());
        let gone = self.seen.iter().filter(|(_, seen)| seen.since.elapsed() > KEPT);
        let gone: Vec<&String> = gone.map(|(name, _)| name).collect();
        if !gone.is_empty() {
            let mut command = redis::cmd("HDEL");
            command.arg(&key).arg(gone);
            shared.query::<u64>(&command).await?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn part(number: u64, failed: u64, used: u64) -> Part {
        let count = Count {
            all: 10,
            failed,
            limited: 0,
        };
        let level = Level {
            key: "k".into(),
            budget: false,
            labels: Labels::new(),
            whose: "channel c".into(),
            used,
            max: 100,
        };
        Part {
            number,
            models: BTreeMap::from([("m".into(), count)]),
            channels: BTreeMap::new(),
            levels: vec![level],
        }
    }

    #[test]
    fn parts_add_up_and_one_that_stands_still_is_forgotten() {
        let mut sum = part(1, 2, 40);
        sum.add(&part(7, 3, 55));
        assert_eq!((sum.models["m"].all, sum.models["m"].failed), (20, 5));
        assert_eq!((sum.levels.len(), sum.levels[0].percent()), (1, 95.0));

        let mut parts = Parts::default();
        parts.take(vec![("two".into(), part(1, 0, 0))]);
        assert_eq!(parts.fresh().count(), 1);
        let Some(seen) = parts.seen.get_mut("two") else {
            panic!("it was seen");
        };
        seen.since -= FRESH;
        parts.take(vec![("two".into(), part(1, 0, 0))]);
        assert_eq!(parts.fresh().count(), 0, "it stands still");
        parts.take(vec![("two".into(), part(2, 0, 0))]);
        assert_eq!(parts.fresh().count(), 1);
        parts.take(Vec::new());
        assert_eq!(parts.fresh().count(), 0);
    }

    #[test]
    fn a_namesake_is_one_that_lives() {
        let mut parts = Parts::default();
        let all = |number| {
            let names = ["one 0a", "one 0b", "two 0c"];
            let of = |name: &str| {
                (
                    name.to_owned(),
                    part(if name == "one 0b" { 7 } else { number }, 0, 0),
                )
            };
            names.map(of).to_vec()
        };
        parts.take(all(1));
        assert_eq!(parts.namesakes("one"), 0, "they may be gone");
        parts.take(all(2));
        assert_eq!((parts.namesakes("one"), parts.namesakes("two")), (1, 1));
        assert_eq!(parts.namesakes("three"), 0);
        for seen in parts.seen.values_mut() {
            seen.since -= FRESH;
        }
        assert_eq!(parts.namesakes("one"), 0);
    }

    #[test]
    fn a_part_is_bounded() {
        let mut all = Part::default();
        for n in 0..2_000u64 {
            let count = Count {
                all: 10,
                failed: n,
                limited: n,
            };
            all.models.insert(format!("m{n}"), count);
            all.channels.insert(format!("c{n}"), count);
            let level = Level {
                key: n.to_string(),
                used: n,
                ..part(0, 0, 0).levels[0].clone()
            };
            all.levels.push(level);
        }
        let some = all.bounded();
        assert_eq!(
            (some.models.len(), some.channels.len(), some.levels.len()),
            (MOST, MOST, MOST)
        );
        assert!(some.models.contains_key("m1999") && !some.models.contains_key("m1"));
        assert_eq!(some.levels[0].used, 1_999);
    }
}
