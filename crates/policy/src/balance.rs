//! Picking one of several deployments. Pure: randomness and readings come from the caller.

/// A deployment that may be picked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// What the caller knows it by.
    pub index: u32,
    /// Share, already reduced while it warms up; at least 1.
    pub weight: u64,
    /// Requests that it serves now.
    pub in_flight: u64,
    /// Moving average of the time to the first byte, microseconds; 0 if unknown.
    pub latency_us: u64,
}

/// The weight of a deployment that began to work again `since_ms` ago: from a tenth to all of it within `ramp_ms`. In
/// thousandths of the weight, so that small weights warm up as well; at least 1.
pub fn warmed_up(weight: u32, since_ms: u64, ramp_ms: u64) -> u64 {
    let full = u64::from(weight) * 1_000;
    if since_ms >= ramp_ms {
        return full.max(1);
    }
    let share = (since_ms * 1_000 / ramp_ms).max(100);
    (u64::from(weight) * share).max(1)
}

/// A number in `0..total`, the same share of it for every total: a larger total moves no point past its neighbours.
fn scaled(point: u64, total: u64) -> u64 {
    u64::try_from((u128::from(point) * u128::from(total)) >> 64).unwrap_or(0)
}

fn at_point(candidates: &[Candidate], point: u64) -> Option<&Candidate> {
    let total: u64 = candidates.iter().map(|c| c.weight).sum();
    let mut left = scaled(point, total);
    for candidate in candidates {
        if left < candidate.weight {
            return Some(candidate);
        }
        left -= candidate.weight;
    }
    candidates.last()
}

/// Weights side by side, made once for many picks.
#[derive(Clone, Debug, Default)]
pub struct Line {
    /// Where each one's stretch ends.
    ends: Vec<u64>,
}

impl Line {
    /// The line of these candidates' weights.
    pub fn new(candidates: &[Candidate]) -> Self {
        let mut end = 0;
        let ends = candidates.iter().map(|candidate| {
            end += candidate.weight;
            end
        });
        Self { ends: ends.collect() }
    }

    /// The position of the candidate at `point` (64 even bits): the same that [`weighted`] and [`sticky`] pick.
    pub fn at(&self, point: u64) -> Option<usize> {
        let total = *self.ends.last().filter(|total| **total > 0)?;
        let left = scaled(point, total);
        Some(self.ends.partition_point(|end| *end <= left))
    }
}

/// At random, in proportion to the weights. `random`: 64 even bits.
pub fn weighted(candidates: &[Candidate], random: u64) -> Option<u32> {
    at_point(candidates, random).map(|c| c.index)
}

/// The one that belongs to `key` (64 even bits): the same as long as weights and order stay, and after a change of weights
/// for as many keys as possible. If it cannot serve, the key goes to one that can, by the same rule among those.
pub fn sticky(all: &[Candidate], usable: &[Candidate], key: u64) -> Option<u32> {
    let home = at_point(all, key)?.index;
    if usable.iter().any(|c| c.index == home) {
        return Some(home);
    }
    // Not the same point again: the neighbours of a dead deployment would get all of its callers.
    weighted(usable, mix(key))
}

/// Splitmix64's finisher.
pub(crate) fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// The fewest requests in flight per weight; among equals by weight at random.
pub fn least_connections(candidates: &[Candidate], random: u64) -> Option<u32> {
    let load = |c: &Candidate| (c.in_flight, c.weight);
    let less =
        |a: (u64, u64), b: (u64, u64)| u128::from(a.0) * u128::from(b.1) < u128::from(b.0) * u128::from(a.1);
    let mut least = load(candidates.first()?);
    for candidate in candidates {
        if less(load(candidate), least) {
            least = load(candidate);
        }
    }
    let equals = || candidates.iter().filter(|c| !less(least, load(c)));
    let total: u64 = equals().map(|c| c.weight).sum();
    let mut left = scaled(random, total);
    for candidate in equals() {
        if left < candidate.weight {
            return Some(candidate.index);
        }
        left -= candidate.weight;
    }
    None
}

/// Power of two choices: the better of two picked by weight. One whose latency is unknown is tried first.
pub fn latency(candidates: &[Candidate], random: u64) -> Option<u32> {
    let first = at_point(candidates, random)?;
    let second = at_point(candidates, mix(random))?;
    let cost = |c: &Candidate| u128::from(c.latency_us) * (u128::from(c.in_flight) + 1);
    Some(if cost(second) < cost(first) { second } else { first }.index)
}

/// Smooth weighted round robin: each turn all gain their weight, and the one that has most pays the sum of all.
#[derive(Clone, Debug, Default)]
pub struct RoundRobin {
    /// By index.
    current: Vec<i64>,
}

impl RoundRobin {
    /// The next one.
    pub fn pick(&mut self, candidates: &[Candidate]) -> Option<u32> {
        let total: u64 = candidates.iter().map(|c| c.weight).sum();
        let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX / 4);
        let mut best: Option<(i64, u32)> = None;
        for candidate in candidates {
            let at = candidate.index as usize;
            if self.current.len() <= at {
                self.current.resize(at + 1, 0);
            }
            if let Some(current) = self.current.get_mut(at) {
                *current = current.saturating_add(signed(candidate.weight));
                if best.is_none_or(|(most, _)| *current > most) {
                    best = Some((*current, candidate.index));
                }
            }
        }
        let (_, index) = best?;
        if let Some(current) = self.current.get_mut(index as usize) {
            *current = current.saturating_sub(signed(total));
        }
        Some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn candidates(weights: &[u64]) -> Vec<Candidate> {
        weights
            .iter()
            .enumerate()
            .map(|(index, weight)| Candidate {
                index: index as u32,
                weight: *weight,
                in_flight: 0,
                latency_us: 0,
            })
            .collect()
    }

    fn randoms(n: u64) -> impl Iterator<Item = u64> {
        (1..=n).map(|i| mix(i.wrapping_mul(0x9e37_79b9_7f4a_7c15)))
    }

    /// Pearson's statistic against the weights.
    fn chi_square(counts: &[u64], weights: &[u64]) -> f64 {
        let (n, total) = (
            counts.iter().sum::<u64>() as f64,
            weights.iter().sum::<u64>() as f64,
        );
        counts
            .iter()
            .zip(weights)
            .map(|(c, w)| {
                let expected = n * *w as f64 / total;
                (*c as f64 - expected).powi(2) / expected
            })
            .sum()
    }

    fn counts(weights: &[u64], mut pick: impl FnMut(&[Candidate], u64) -> Option<u32>) -> Vec<u64> {
        let all = candidates(weights);
        let mut counts = vec![0; weights.len()];
        for random in randoms(10_000) {
            counts[pick(&all, random).unwrap() as usize] += 1;
        }
        counts
    }

    #[test]
    fn random_picks_follow_the_weights() {
        let weights = [1, 99, 300, 600];
        // 3 degrees of freedom: 16.3 is exceeded once in a thousand.
        assert!(chi_square(&counts(&weights, weighted), &weights) < 16.3);
        assert!(chi_square(&counts(&weights, |a, r| sticky(a, a, r)), &weights) < 16.3);
        assert!(chi_square(&counts(&weights, least_connections), &weights) < 16.3);
    }

    #[test]
    fn round_robin_is_exact_and_even() {
        let all = candidates(&[5, 1, 1]);
        let mut turns = RoundRobin::default();
        let first: Vec<u32> = (0..7).map(|_| turns.pick(&all).unwrap()).collect();
        assert_eq!(first, [0, 0, 1, 0, 2, 0, 0]);
        let weights = [3, 7, 90];
        let mut turns = RoundRobin::default();
        assert_eq!(counts(&weights, |a, _| turns.pick(a)), [300, 700, 9_000]);
    }

    #[test]
    fn a_canary_moves_only_as_many_callers_as_it_must() {
        let before = candidates(&[950, 50]);
        let after = candidates(&[900, 100]);
        let mut moved = 0;
        for key in randoms(10_000) {
            let (old, new) = (sticky(&before, &before, key), sticky(&after, &after, key));
            assert!(
                old == new || (old, new) == (Some(0), Some(1)),
                "nobody leaves the canary"
            );
            moved += u32::from(old != new);
        }
        assert!((400..600).contains(&moved), "{moved}");
    }

    #[test]
    fn callers_of_a_dead_deployment_spread_and_the_others_stay() {
        let all = candidates(&[10, 10, 10, 10]);
        let alive: Vec<Candidate> = all.iter().filter(|c| c.index != 2).copied().collect();
        let mut taken = [0; 4];
        for key in randoms(10_000) {
            let home = sticky(&all, &all, key).unwrap();
            let now = sticky(&all, &alive, key).unwrap();
            if home == 2 {
                taken[now as usize] += 1;
            } else {
                assert_eq!(home, now);
            }
        }
        assert!(
            taken[2] == 0 && [0, 1, 3].iter().all(|i| taken[*i] > 600),
            "{taken:?}"
        );
    }

    #[test]
    fn loads_and_latencies_decide() {
        let mut all = candidates(&[10, 10, 20]);
        all[0].in_flight = 3;
        all[1].in_flight = 1;
        all[2].in_flight = 4;
        for random in randoms(100) {
            assert_eq!(least_connections(&all, random), Some(1));
        }
        let mut all = candidates(&[1, 1]);
        all[0].latency_us = 900;
        all[1].latency_us = 100;
        let slow = randoms(10_000).filter(|r| latency(&all, *r) == Some(0)).count();
        assert!(
            (2_200..2_800).contains(&slow),
            "only when it is picked twice: {slow}"
        );
    }

    #[test]
    fn a_line_is_what_its_candidates_are() {
        for weights in [&[7][..], &[1, 99, 300, 600], &[0, 5, 0, 0, 1_000_000, 1, 0]] {
            let all = candidates(weights);
            let line = Line::new(&all);
            for random in randoms(5_000).chain([0, u64::MAX]) {
                let picked = line.at(random).unwrap();
                assert_eq!(Some(picked as u32), weighted(&all, random));
                assert!(weights[picked] > 0);
            }
        }
        assert_eq!(
            (Line::new(&[]).at(1), Line::new(&candidates(&[0])).at(1)),
            (None, None)
        );
    }

    #[test]
    fn a_canary_grows_in_steps_of_a_thousandth() {
        let keys = || randoms(1_000_000);
        let at = |canary: u64, key| sticky(&candidates(&[1_000 - canary, canary]), &candidates(&[1, 1]), key);
        let mut before = std::collections::BTreeSet::new();
        for canary in 0..=3 {
            let now: std::collections::BTreeSet<u64> =
                keys().filter(|key| at(canary, *key) == Some(1)).collect();
            // 1,000 of a million for each step; 5 standard deviations.
            let expected = 1_000.0 * canary as f64;
            assert!(
                (now.len() as f64 - expected).abs() <= 5.0 * expected.sqrt(),
                "{canary}: {}",
                now.len()
            );
            assert!(before.is_subset(&now), "nobody leaves the canary");
            before = now;
        }
    }

    #[test]
    fn warming_up_begins_at_a_tenth() {
        assert_eq!(warmed_up(10, 0, 1_000), 1_000);
        assert_eq!(warmed_up(10, 500, 1_000), 5_000);
        assert_eq!(warmed_up(10, 1_000, 1_000), 10_000);
        assert_eq!(warmed_up(10, 0, 0), 10_000);
    }

    #[test]
    fn nothing_to_pick_from() {
        assert_eq!(weighted(&[], 1), None);
        assert_eq!(sticky(&[], &[], 1), None);
        assert_eq!(least_connections(&[], 1), None);
        assert_eq!(latency(&[], 1), None);
        assert_eq!(RoundRobin::default().pick(&[]), None);
    }
}
