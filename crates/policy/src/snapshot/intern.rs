//! Finds equal things among those stored already, by hash and comparison, without keeping a copy of them.

use crate::identity::checksum;
use std::{
    collections::HashMap,
    hash::{BuildHasherDefault, Hasher},
};
use zerocopy::{Immutable, IntoBytes};

/// Hashes to positions. The keys are hashes already, so the map takes them as they are.
#[derive(Default)]
pub(crate) struct Interner {
    positions: HashMap<u64, u32, BuildHasherDefault<Unchanged>>,
}

impl Interner {
    /// The position of something equal (`is_it`) with that hash, or the key under which to [`Interner::add`] it.
    pub fn find(&self, hash: u64, is_it: impl Fn(usize) -> bool) -> Result<u32, u64> {
        let mut key = hash;
        while let Some(position) = self.positions.get(&key) {
            if usize::try_from(*position).is_ok_and(&is_it) {
                return Ok(*position);
            }
            // Another thing of the same hash: look at the next key.
            key = key.wrapping_add(1);
        }
        Err(key)
    }

    pub fn add(&mut self, key: u64, position: u32) {
        self.positions.insert(key, position);
    }
}

pub(crate) fn hash_of<T: IntoBytes + Immutable + ?Sized>(value: &T) -> u64 {
    checksum(value.as_bytes())
}

#[derive(Default)]
struct Unchanged(u64);

impl Hasher for Unchanged {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0 = checksum(bytes);
    }

    fn write_u64(&mut self, value: u64) {
        self.0 = value;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn things_of_one_hash_are_told_apart() {
        let stored = ["a", "b"];
        let mut interner = Interner::default();
        for (position, text) in (0_u32..).zip(stored) {
            let key = interner.find(7, |at| stored[at] == text).unwrap_err();
            interner.add(key, position);
        }
        assert_eq!(interner.find(7, |at| stored[at] == "a"), Ok(0));
        assert_eq!(interner.find(7, |at| stored[at] == "b"), Ok(1));
        assert_eq!(interner.find(7, |at| stored[at] == "c"), Err(9));
    }
}
