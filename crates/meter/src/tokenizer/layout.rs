//! The vocabulary buffer's byte layout and the hashes that address it; shared by compiler, build script and reader.
//!
//! All integers are little-endian, all offsets count bytes from the start of the buffer.
//!
//! | bytes | field |
//! | --- | --- |
//! | 0..8 | [`MAGIC`] |
//! | 8..12 | [`LAYOUT_VERSION`] |
//! | 12..16 | pattern id, see `Pattern` |
//! | 16..24 | length of the whole buffer |
//! | 24..32 | XXH3-64 of bytes 32.. |
//! | 32..112 | fields of 4 bytes, see [`field`] |
//! | 112..120 | checksum of what the vocabulary was compiled from, 0 if unknown |
//!
//! A *pair slot* is `left`, `right` and `merged`, each of [`field::RANK_BITS`], from high to low in as few bytes as hold
//! them, or all ones when empty; behind the last one are [`PAIR_SLOTS_END`] bytes. A *length class* holds every token
//! of one length: slots, pilots (counts), then the offsets of keys (`slots * length` bytes), ranks (`slots` times
//! [`RANK_SIZE`] bytes, or 0 for none) and pilots (`u16` each). Counting asks for the ranks of characters only, and merging
//! finds those of all others, unless it never yields a token of that length: then, too, there are ranks. A slot that holds no token repeats the bytes of a token whose place is elsewhere,
//! so that it can never compare equal to a key that is sent to it.
//!
//! The *pair filter* has a bit set for the hash of every pair. Most neighbours do not join, and most of those are told
//! by this one bit, whose table stays in a core's own cache, while the pair slots do not.
//!
//! Both kinds of table are minimal-like perfect hashes: keys are thrown into buckets of about four, and a bucket's
//! pilot is the number that sends its keys to free slots. A lookup reads one pilot and one slot.

/// First bytes of every vocabulary buffer.
pub const MAGIC: [u8; 8] = *b"TGVOCAB\0";
/// Raised whenever a reader of the previous layout would misread the buffer.
pub const LAYOUT_VERSION: u32 = 4;
/// Bytes before the first table.
pub const HEADER_SIZE: usize = 128;
/// 4-byte fields behind the checksum.
pub const HEADER_FIELDS: usize = 20;
/// Where the checksum of the source stands.
pub const SOURCE_AT: usize = 112;
/// Bytes before the checksummed part.
pub const CHECKSUM_START: usize = 32;
/// Bytes of one length class.
pub const CLASS_SIZE: usize = 20;
/// Bytes of one stored rank in a length class; its upper four bits are marks of characters, see `atomic`.
pub const RANK_SIZE: usize = 3;
/// Bytes of one pilot.
pub const PILOT_SIZE: usize = 2;
/// Bytes behind the pair slots, so that each may be read as 8 bytes.
pub const PAIR_SLOTS_END: usize = 8;
/// Bytes of the longest character.
pub const LONGEST_CHARACTER: usize = 4;
/// Width of a rank in a pair's key: ranks are below 2^20.
pub const RANK_BITS: u32 = 20;
/// Ranks are below this.
pub const RANK_LIMIT: u32 = 1 << RANK_BITS;
/// Marks a character that merges before anything around it can.
pub const ATOMIC: u32 = 1 << 23;
/// Marks an atomic character that is one only if the character before it is a token and does not meddle.
pub const NEEDS_LEFT: u32 = 1 << 22;
/// Marks an atomic character that is one only if the character behind it is a token and does not meddle.
pub const NEEDS_RIGHT: u32 = 1 << 21;
/// Marks a character that may join with a part of what stands beside it.
pub const MEDDLES: u32 = 1 << 20;
/// A pair slot that holds nothing; no pair packs to it.
pub const EMPTY_PAIR: u64 = u64::MAX;

/// The header's fields, numbered from byte 32 on.
pub mod field {
    /// Number of ordinary tokens.
    pub const TOKENS: usize = 0;
    /// Longest token in bytes.
    pub const LONGEST: usize = 1;
    /// Pair slots.
    pub const PAIR_SLOTS: usize = 2;
    /// Pair pilots.
    pub const PAIR_PILOTS: usize = 3;
    /// Offset of the pair slots.
    pub const PAIRS_AT: usize = 4;
    /// Offset of the pair pilots (`u16` each).
    pub const PILOTS_AT: usize = 5;
    /// Offset of the 256 single-byte ranks (`u32` each).
    pub const BYTES_AT: usize = 6;
    /// Offset of the length classes (`CLASS_SIZE` bytes each, for token lengths 1..=longest).
    pub const CLASSES_AT: usize = 7;
    /// Offset of the pair filter.
    pub const FILTER_AT: usize = 8;
    /// Log2 of the pair filter's bits, 3 to 32.
    pub const FILTER_LOG2: usize = 9;
    /// Bytes of the longest token that merging never yields and that does not end in ASCII; 0 if there is none.
    pub const LONGEST_UNREACHABLE: usize = 10;
    /// See [`super::CHARACTERS`] and [`super::METASPACE`].
    pub const FLAGS: usize = 11;
    /// See `Normalizer`.
    pub const NORMALIZER: usize = 12;
    /// See `Prefix`.
    pub const PREFIX: usize = 13;
    /// Offset of the ids (`u32` per rank); 0 if ids are ranks.
    pub const IDS_AT: usize = 14;
    /// Offset of 256 bits, one for each byte behind which a token has a space, see `Spaces`; 0 if there is none.
    pub const GLUED_AT: usize = 15;
    /// Offset of the section of a Unigram vocabulary, whose tables for pairs are empty; 0 if it merges pairs.
    pub const UNIGRAM_AT: usize = 16;
    /// Offset of the program that normalizes texts before all else; 0 if there is none.
    pub const PROGRAM_AT: usize = 17;
    /// How much longer the program may make a text.
    pub const GROWTH: usize = 18;
    /// Bits of a rank in a pair slot, 1 to 20.
    pub const RANK_BITS: usize = 19;
}

/// Flag: texts begin as characters, see `compile`.
pub const CHARACTERS: u32 = 1;
/// Flag: U+2581 in a text is a space; tokens are stored with spaces.
pub const METASPACE: u32 = 1 << 1;

/// Two ranks as one number: a pair's key.
#[inline]
pub const fn pair_key(left: u32, right: u32) -> u64 {
    ((left as u64) << RANK_BITS) | right as u64
}

/// A pair's key as it stands in a slot with ranks of so many bits.
#[inline]
pub const fn pair_slot_key(key: u64, rank_bits: u32) -> u64 {
    ((key >> RANK_BITS) << rank_bits) | (key & (RANK_LIMIT as u64 - 1))
}

/// Bytes of a slot with ranks of so many bits.
pub const fn pair_slot_size(rank_bits: u32) -> usize {
    (3 * rank_bits).div_ceil(8) as usize
}

/// Both halves of a 128-bit product, folded: mixes well and costs one multiplication.
#[inline]
const fn fold(a: u64, b: u64) -> u64 {
    let product = (a as u128) * (b as u128);
    (product as u64) ^ ((product >> 64) as u64)
}

const SEED_A: u64 = 0x9E37_79B9_7F4A_7C15;
const SEED_B: u64 = 0xD6E8_FEB8_6659_FD93;
const SEED_C: u64 = 0xA076_1D64_78BD_642F;

/// Hash of a pair key.
#[inline]
pub const fn hash_pair(key: u64) -> u64 {
    let mixed = key.wrapping_mul(SEED_A);
    mixed ^ (mixed >> 32)
}

/// Hash of a token of at most 8 bytes, given as [`load_short`] packs it.
#[inline]
pub const fn hash_short(packed: u64) -> u64 {
    fold(packed ^ SEED_B, SEED_A)
}

/// Hash of a token's bytes.
#[inline]
pub fn hash_bytes(bytes: &[u8]) -> u64 {
    match bytes.len() {
        0..=8 => hash_short(load_short(bytes)),
        9..=16 => hash_medium(load_head(bytes), load_tail(bytes)),
        _ => {
            let mut state = SEED_C;
            for chunk in bytes.chunks_exact(16) {
                state = fold(state ^ load_head(chunk), SEED_A ^ load_tail(chunk));
            }
            let last = bytes.last_chunk::<16>().map_or(&[][..], |chunk| &chunk[..]);
            fold(state ^ load_head(last), SEED_B ^ load_tail(last))
        }
    }
}

/// Hash of a token of 9 to 16 bytes, given as [`load_head`] and [`load_tail`] read it.
#[inline]
pub const fn hash_medium(head: u64, tail: u64) -> u64 {
    fold(head ^ SEED_C, tail ^ SEED_A)
}

/// First 8 bytes as a number; zero when there are fewer.
#[inline]
pub fn load_head(bytes: &[u8]) -> u64 {
    bytes
        .first_chunk::<8>()
        .map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

/// Last 8 bytes as a number; zero when there are fewer.
#[inline]
pub fn load_tail(bytes: &[u8]) -> u64 {
    bytes
        .last_chunk::<8>()
        .map_or(0, |chunk| u64::from_le_bytes(*chunk))
}

/// At most 8 bytes as a number, zero-extended. Tokens of one length only are ever compared, so it is unambiguous.
#[inline]
pub fn load_short(bytes: &[u8]) -> u64 {
    let len = bytes.len();
    if let (Some(head), Some(tail)) = (bytes.first_chunk::<4>(), bytes.last_chunk::<4>()) {
        let head = u64::from(u32::from_le_bytes(*head));
        let tail = u64::from(u32::from_le_bytes(*tail));
        return head | (tail << ((8 * (len - 4)) as u32 & 63));
    }
    let mut packed = 0;
    for (at, &byte) in bytes.iter().enumerate() {
        packed |= u64::from(byte) << (8 * at);
    }
    packed
}

/// The bit of a pair's hash in a filter of `2^log2_bits` bits: its byte, and the mask in that byte.
#[inline]
pub const fn filter_bit(hash: u64, log2_bits: u32) -> (usize, u8) {
    let bit = (hash as u32) >> (32 - log2_bits);
    ((bit / 8) as usize, 1 << (bit % 8))
}

/// The pilot's bucket of a hash.
#[inline]
pub const fn bucket(hash: u64, buckets: u32) -> usize {
    (((hash >> 32) * buckets as u64) >> 32) as usize
}

/// The slot to which a pilot sends a hash.
#[inline]
pub const fn slot(hash: u64, pilot: u16, slots: u32) -> usize {
    let mixed = (hash ^ (pilot as u64).wrapping_mul(SEED_C)).wrapping_mul(SEED_B);
    (((mixed >> 32) * slots as u64) >> 32) as usize
}
