//! Small direct-mapped caches in front of the shared tables: what a text repeats is found in a line or two of private
//! memory instead of three scattered ones. A newer entry simply replaces an older one; nothing here affects a result.
//!
//! An entry packs key and value into one or two words, so that it can be compared and replaced as a whole.

use super::layout::{RANK_BITS, RANK_LIMIT, hash_pair, load_head, load_short, load_tail, pair_key};
use super::vocabulary::Vocabulary;

/// Multiplier of the index hashes (the golden ratio; any odd number with mixed bits does).
const SPREAD: u64 = 0x9E37_79B9_7F4A_7C15;
/// Never an entry: a pair's top bits are zero, a piece's count is below 255, and no character's bytes are all ones.
const VACANT: u64 = u64::MAX;

const PAIR_BITS: u32 = 14;
const SHORT_BITS: u32 = 14;
const LONG_BITS: u32 = 12;
const WIDE_BITS: u32 = 10;
const CHARACTER_BITS: u32 = 12;

/// Joins looked up lately, as pair slots (see `layout`); a merged rank of all ones means that there is no join.
pub(super) struct PairCache(Box<[u64; 1 << PAIR_BITS]>);

impl PairCache {
    pub(super) fn new() -> Self {
        Self(boxed(VACANT))
    }

    /// As [`Vocabulary::merged`].
    #[inline]
    pub(super) fn merged(&mut self, vocabulary: &Vocabulary<'_>, left: u32, right: u32) -> u32 {
        const NONE: u32 = RANK_LIMIT - 1;
        let key = pair_key(left, right);
        let hash = hash_pair(key);
        if !vocabulary.may_join(hash) {
            return RANK_LIMIT;
        }
        let Some(entry) = self.0.get_mut((hash >> (64 - PAIR_BITS)) as usize) else {
            return vocabulary.join(key, hash);
        };
        if *entry >> RANK_BITS == key {
            let merged = *entry as u32 & NONE;
            return if merged == NONE { RANK_LIMIT } else { merged };
        }
        let merged = vocabulary.join(key, hash);
        if merged != NONE {
            *entry = (key << RANK_BITS) | u64::from(merged.min(NONE));
        }
        merged
    }
}

/// What [`CharacterCache::marked_rank`] is for characters that are no tokens: no rank and no mark.
pub(super) const NO_CHARACTER: u32 = 1 << 31;

/// Characters seen lately: a character's bytes in the upper half of an entry, rank and marks or [`NO_CHARACTER`] in the
/// lower.
pub(super) struct CharacterCache(Box<[u64; 1 << CHARACTER_BITS]>);

impl CharacterCache {
    pub(super) fn new() -> Self {
        Self(boxed(VACANT))
    }

    /// As [`Vocabulary::marked_rank`], for a character of 2 to 4 bytes.
    #[inline]
    pub(super) fn marked_rank(&mut self, vocabulary: &Vocabulary<'_>, character: &[u8]) -> u32 {
        let bytes = load_short(character);
        let Some(entry) = self
            .0
            .get_mut((bytes.wrapping_mul(SPREAD) >> (64 - CHARACTER_BITS)) as usize)
        else {
            return vocabulary.marked_rank(character).unwrap_or(NO_CHARACTER);
        };
        if *entry >> 32 != bytes {
            *entry = (bytes << 32) | u64::from(vocabulary.marked_rank(character).unwrap_or(NO_CHARACTER));
        }
        *entry as u32
    }
}

/// Where a piece's count is kept, or will be.
#[derive(Clone, Copy)]
pub(super) enum Place {
    /// Up to 7 bytes, packed.
    Short(u64),
    /// 8 to 15 bytes: the first 8, and the last up to 7.
    Long(u64, u64),
    /// 16 to 31 bytes that end in ASCII: indentations, rules of dashes, long words.
    Wide([u64; 4]),
    /// Longer pieces, clauses of Chinese and the like, and those that end in a zero byte are not kept.
    Nowhere,
}

/// Counts of pieces seen lately: 224 KB. A piece's bytes fill the lower 7 (15, 31) bytes of its entry, its count the
/// highest; zero bytes behind the piece mean nothing, as no piece that is kept ends in one.
pub(super) struct PieceCache {
    short: Box<[u64; 1 << SHORT_BITS]>,
    long: Box<[(u64, u64); 1 << LONG_BITS]>,
    wide: Box<[[u64; 4]; 1 << WIDE_BITS]>,
}

const COUNT_SHIFT: u32 = 56;
const BYTES: u64 = (1 << COUNT_SHIFT) - 1;

impl PieceCache {
    pub(super) fn new() -> Self {
        Self {
            short: boxed(VACANT),
            long: boxed((VACANT, VACANT)),
            wide: boxed([VACANT; 4]),
        }
    }

    /// The place of a piece.
    #[inline]
    pub(super) fn place(piece: &[u8]) -> Place {
        if piece.last() == Some(&0) {
            return Place::Nowhere;
        }
        match piece.len() {
            0..=7 => Place::Short(load_short(piece)),
            // The tail's bytes that are also in the head are shifted out.
            len @ 8..=15 => Place::Long(
                load_head(piece),
                load_tail(piece).checked_shr(8 * (16 - len as u32)).unwrap_or(0),
            ),
            16..=31 if piece.last().is_some_and(u8::is_ascii) => wide_place(piece),
            _ => Place::Nowhere,
        }
    }

    /// The count at a place, 0 if it is not known.
    #[inline]
    pub(super) fn get(&self, place: Place) -> u64 {
        match place {
            Place::Short(bytes) => match self.short.get(short_index(bytes)) {
                Some(entry) if entry & BYTES == bytes && *entry != VACANT => entry >> COUNT_SHIFT,
                _ => 0,
            },
            Place::Long(head, tail) => match self.long.get(long_index(head, tail)) {
                Some(entry) if entry.0 == head && entry.1 & BYTES == tail && entry.1 != VACANT => {
                    entry.1 >> COUNT_SHIFT
                }
                _ => 0,
            },
            Place::Wide(bytes) => match self.wide.get(wide_index(bytes)) {
                Some([first, second, third, last])
                    if [*first, *second, *third, *last & BYTES] == bytes && *last != VACANT =>
                {
                    last >> COUNT_SHIFT
                }
                _ => 0,
            },
            Place::Nowhere => 0,
        }
    }

    /// Keeps a count of 1 to 31, which is at most the number of the piece's bytes.
    #[inline]
    pub(super) fn put(&mut self, place: Place, count: u64) {
        match place {
            Place::Short(bytes) => {
                if let Some(entry) = self.short.get_mut(short_index(bytes)) {
                    *entry = bytes | (count << COUNT_SHIFT);
                }
            }
            Place::Long(head, tail) => {
                if let Some(entry) = self.long.get_mut(long_index(head, tail)) {
                    *entry = (head, tail | (count << COUNT_SHIFT));
                }
            }
            Place::Wide(bytes) => {
                if let Some(entry) = self.wide.get_mut(wide_index(bytes)) {
                    let [first, second, third, last] = bytes;
                    *entry = [first, second, third, last | (count << COUNT_SHIFT)];
                }
            }
            Place::Nowhere => {}
        }
    }
}

#[inline]
fn short_index(bytes: u64) -> usize {
    (bytes.wrapping_mul(SPREAD) >> (64 - SHORT_BITS)) as usize
}

#[inline]
fn long_index(head: u64, tail: u64) -> usize {
    ((head ^ tail.rotate_left(23)).wrapping_mul(SPREAD) >> (64 - LONG_BITS)) as usize
}

/// The place of a piece of 16 to 31 bytes: its first 16, and the rest of its last 16.
#[inline]
fn wide_place(piece: &[u8]) -> Place {
    let (Some(head), Some(tail)) = (piece.first_chunk::<16>(), piece.last_chunk::<16>()) else {
        return Place::Nowhere;
    };
    let head = u128::from_le_bytes(*head);
    let rest = u128::from_le_bytes(*tail)
        .checked_shr(8 * (32 - piece.len() as u32))
        .unwrap_or(0);
    Place::Wide([head as u64, (head >> 64) as u64, rest as u64, (rest >> 64) as u64])
}

#[inline]
fn wide_index([first, second, third, last]: [u64; 4]) -> usize {
    let mixed = (first ^ third.rotate_left(31)).wrapping_mul(SPREAD) ^ second ^ last.rotate_left(23);
    (mixed.wrapping_mul(SPREAD) >> (64 - WIDE_BITS)) as usize
}

/// An array on the heap that never stood on the stack.
fn boxed<T: Copy, const N: usize>(value: T) -> Box<[T; N]> {
    match vec![value; N].try_into() {
        Ok(array) => array,
        Err(_) => Box::new([value; N]),
    }
}
