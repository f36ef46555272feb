//! Sorting callers into an experiment's groups. Pure.
//!
//! A caller is a point on a line. The line has as many slots as there are groups; each group begins where its slot
//! begins, so that it can grow up to its slot's length without touching another group's callers. What a group has beyond
//! that lies at the far ends of the others' slots, which meet the slots' owners only when all is taken.

use crate::balance::mix;

/// Length of the line: shares are in thousandths of a percent.
pub const LINE: u32 = 100_000;

/// A piece of the line that belongs to one group or to none, from where the one before ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// Where it ends, not included.
    pub end: u32,
    /// Number of the group; `None` for those who take no part.
    pub group: Option<u32>,
}

/// A share in percent on the line; `None` if it is no such share.
pub(crate) fn units(percent: f64) -> Option<u32> {
    let scaled = percent * 1_000.0;
    let whole = scaled.round();
    if !(0.0..=f64::from(LINE)).contains(&whole) || (scaled - whole).abs() > 1e-6 {
        return None;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "within 0..=LINE"
    )]
    Some(whole as u32)
}

/// The point of a caller (64 even bits) in the experiment whose name hashes to `salt`.
pub fn point(caller: u64, salt: u64) -> u32 {
    let even = mix(caller ^ salt);
    u32::try_from((u128::from(even) * u128::from(LINE)) >> 64).unwrap_or(0)
}

/// The stretches of groups with these shares, which are at most [`LINE`] together.
pub fn stretches(shares: &[u32]) -> Vec<Stretch> {
    let slots = u32::try_from(shares.len()).unwrap_or(u32::MAX).max(1);
    let begin =
        |slot: u32| u32::try_from(u64::from(LINE) * u64::from(slot) / u64::from(slots)).unwrap_or(LINE);
    // Of each slot, what nobody has yet.
    let mut free: Vec<(u32, u32)> = (0..)
        .zip(shares)
        .map(|(slot, share)| {
            (
                begin(slot).saturating_add(*share).min(begin(slot + 1)),
                begin(slot + 1),
            )
        })
        .collect();
    let mut taken: Vec<(u32, u32, u32)> = (0..)
        .zip(&free)
        .map(|(slot, (from, _))| (begin(slot), *from, slot))
        .collect();
    for (group, share) in (0..).zip(shares) {
        let mut beyond = share.saturating_sub(begin(group + 1) - begin(group));
        let (before, after) = free.split_at_mut(group as usize);
        for (from, to) in after.iter_mut().chain(before) {
            let part = beyond.min(*to - *from);
            beyond -= part;
            *to -= part;
            if part > 0 {
                taken.push((*to, *to + part, group));
            }
        }
    }
    taken.retain(|(from, to, _)| from < to);
    taken.sort_unstable();
    let mut all: Vec<Stretch> = Vec::with_capacity(taken.len() * 2 + 1);
    let mut end = 0;
    for (from, to, group) in taken {
        if from > end {
            all.push(Stretch {
                end: from,
                group: None,
            });
        }
        end = to;
        match all.last_mut() {
            Some(last) if last.group == Some(group) => last.end = to,
            _ => all.push(Stretch {
                end: to,
                group: Some(group),
            }),
        }
    }
    if end < LINE {
        all.push(Stretch {
            end: LINE,
            group: None,
        });
    }
    all
}

/// The group at a point.
pub fn group_at(mut stretches: impl Iterator<Item = Stretch>, point: u32) -> Option<u32> {
    stretches.find(|stretch| point < stretch.end)?.group
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn group(shares: &[u32], point: u32) -> Option<u32> {
        group_at(stretches(shares).into_iter(), point)
    }

    /// How many points of the line go from one group to another.
    fn moves(before: &[u32], after: &[u32]) -> std::collections::BTreeMap<(Option<u32>, Option<u32>), u32> {
        let mut moves = std::collections::BTreeMap::new();
        for point in 0..LINE {
            let way = (group(before, point), group(after, point));
            if way.0 != way.1 {
                *moves.entry(way).or_default() += 1;
            }
        }
        moves
    }

    fn any_shares() -> impl Strategy<Value = Vec<u32>> {
        proptest::collection::vec(0u32..=LINE, 1..=16).prop_map(|mut shares| {
            let sum: u64 = shares.iter().map(|s| u64::from(*s)).sum();
            for share in &mut shares {
                *share = (u64::from(*share) * u64::from(LINE) / sum.max(u64::from(LINE))) as u32;
            }
            shares
        })
    }

    proptest! {
        #[test]
        fn every_group_has_its_share(shares in any_shares()) {
            let mut lengths = vec![0; shares.len()];
            let mut begin = 0;
            for stretch in stretches(&shares) {
                prop_assert!(stretch.end > begin);
                if let Some(group) = stretch.group {
                    lengths[group as usize] += stretch.end - begin;
                }
                begin = stretch.end;
            }
            prop_assert_eq!(begin, LINE);
            prop_assert_eq!(lengths, shares);
        }
    }

    #[test]
    fn groups_that_grow_take_from_those_outside_only() {
        // Control and treatment, 5 % each, to 10 %, to a third, to a half.
        for (before, after) in [(5, 10), (10, 33), (33, 50)] {
            for groups in 2..=100 / after {
                let shares = |percent: u32| vec![percent * 1_000; groups as usize];
                let moved = moves(&shares(before), &shares(after));
                assert!(
                    moved.keys().all(|(from, to)| from.is_none() && to.is_some()),
                    "{moved:?}"
                );
                assert_eq!(moved.values().sum::<u32>(), (after - before) * 1_000 * groups);
            }
        }
    }

    #[test]
    fn a_share_that_changes_hands_moves_nobody_else() {
        let whole = |a: u32| [LINE - a, a];
        for (before, after) in [(1, 2), (100, 20_000), (49_000, 51_000), (20_000, 90_000)] {
            let moved = moves(&whole(before), &whole(after));
            assert_eq!(
                moved.into_iter().collect::<Vec<_>>(),
                [((Some(0), Some(1)), after - before)]
            );
        }
        // Of three, the one with more than its slot gives to both others, and these to nobody.
        let moved = moves(&[60_000, 20_000, 20_000], &[40_000, 30_000, 30_000]);
        assert!(moved.keys().all(|(from, _)| *from == Some(0)), "{moved:?}");
        assert_eq!(moved.values().sum::<u32>(), 20_000);
    }

    #[test]
    fn experiments_sort_callers_independently() {
        let callers = 20_000u64;
        let mut both = [[0i64; 2]; 2];
        for caller in 0..callers {
            let caller = crate::hash_name(format!("user {caller}").as_bytes());
            let half = |name: &str| {
                let salt = crate::hash_name(name.as_bytes());
                usize::from(point(caller, salt) >= LINE / 2)
            };
            both[half("one")][half("two")] += 1;
        }
        for count in both.as_flattened() {
            assert!((count - 5_000).abs() < 300, "{both:?}");
        }
    }

    #[test]
    fn shares_are_thousandths_of_a_percent() {
        assert_eq!(units(0.1), Some(100));
        assert_eq!(units(33.333), Some(33_333));
        assert_eq!(units(100.0), Some(LINE));
        for wrong in [-0.001, 0.0005, 100.001, f64::NAN, f64::INFINITY] {
            assert_eq!(units(wrong), None, "{wrong}");
        }
    }
}
