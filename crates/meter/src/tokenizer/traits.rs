//! The traits of characters, see `trait_bits`.

use super::trait_bits::BLOCK;
pub(super) use super::trait_bits::{ACCENT, FRESH, JOINS};

include!(concat!(env!("OUT_DIR"), "/trait_table.rs"));

/// The traits of a character.
#[inline]
pub(super) fn traits(character: char) -> u8 {
    let scalar = character as usize;
    let block = TRAIT_BLOCK_NUMBERS.get(scalar / BLOCK).copied().unwrap_or(0);
    TRAIT_BLOCKS
        .get(usize::from(block) * BLOCK + scalar % BLOCK)
        .copied()
        .unwrap_or(JOINS)
}
