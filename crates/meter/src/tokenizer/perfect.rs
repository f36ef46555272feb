//! Perfect hashes: a table of pilots that sends each of a fixed set of keys to a slot of its own.

use super::compile::CompileError;
use super::layout::{bucket, slot};

/// A table of pilots, and the slot of each key in the order given.
pub(crate) struct PerfectHash {
    pub(crate) slots: u32,
    pub(crate) pilots: Vec<u16>,
    pub(crate) place: Vec<usize>,
}

impl PerfectHash {
    /// Finds pilots for distinct hashes, with more and more room if need be.
    pub(crate) fn build(hashes: Vec<u64>) -> Result<Self, CompileError> {
        (0..40u64)
            .find_map(|attempt| {
                let spread = hashes.len() as u64 * (101 + 2 * attempt) / 100;
                Self::with_slots(&hashes, spread as u32 + u32::from(!hashes.is_empty()))
            })
            .ok_or(CompileError::NoPerfectHash)
    }

    fn with_slots(hashes: &[u64], slots: u32) -> Option<Self> {
        let buckets = (hashes.len() as u32).div_ceil(4);
        let mut members: Vec<Vec<usize>> = vec![Vec::new(); buckets as usize];
        for (key, &hash) in hashes.iter().enumerate() {
            members.get_mut(bucket(hash, buckets))?.push(key);
        }
        let mut order: Vec<usize> = (0..buckets as usize).collect();
        order.sort_by_key(|at| std::cmp::Reverse(members.get(*at).map_or(0, Vec::len)));

        let mut taken = vec![false; slots as usize];
        let mut pilots = vec![0; buckets as usize];
        let mut place = vec![0; hashes.len()];
        let mut wanted = Vec::new();
        for at in order {
            let keys = members.get(at)?;
            let pilot = (0..=u16::MAX).find(|&pilot| {
                wanted.clear();
                keys.iter().all(|&key| {
                    let at = hashes.get(key).map_or(0, |&hash| slot(hash, pilot, slots));
                    let free = taken.get(at) == Some(&false) && !wanted.contains(&at);
                    wanted.push(at);
                    free
                })
            })?;
            for (&key, &at) in keys.iter().zip(&wanted) {
                *taken.get_mut(at)? = true;
                *place.get_mut(key)? = at;
            }
            *pilots.get_mut(at)? = pilot;
        }
        Some(Self { slots, pilots, place })
    }
}
