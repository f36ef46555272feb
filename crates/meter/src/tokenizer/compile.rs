//! From a list of token bytes and ranks to the flat buffer that `Vocabulary` reads in place.
//!
//! # Why one pair per token is enough
//! Byte-pair encoding repeats one step: of all neighbours whose joined bytes are a token, join those with the lowest
//! rank, leftmost first. As long as no join crosses the borders of a stretch of bytes, what happens inside it is what
//! would happen if the stretch stood alone, because the lowest of all candidates is also the lowest inside. So two
//! neighbours `left`, `right` whose bytes form token `T` can only stand side by side if encoding `T` alone passes
//! through exactly these two: one pair per token, found by encoding the token alone. A token that its own encoding
//! never reaches has no pair; it is only ever found as a whole piece.
//!
//! # Atomic characters
//! A multi-byte character that is a token is marked *atomic* if, between two characters that are not ASCII (or the
//! piece's ends) and before no character with a lead byte below [`ATOMIC_NEXT_LEAD`], its bytes always join before
//! any of them can join a neighbour's. An encoder may start with it as one node. This holds if every pair that would
//! cross its border has a higher rank than the character, and if no pair has a lower rank than its halves (then joins
//! happen in order of rank, and joining a character early changes nothing else).

use std::collections::HashMap;

use super::layout::{
    ATOMIC, CHECKSUM_START, CLASS_SIZE, EMPTY_PAIR, HEADER_SIZE, LAYOUT_VERSION, MAGIC, RANK_BITS,
    RANK_LIMIT, RANK_SIZE, bucket, filter_bit, hash_bytes, hash_pair, pair_key, slot,
};

/// Longest token that a vocabulary may hold, in bytes.
pub const MAX_TOKEN_BYTES: usize = 1024;
/// The lowest UTF-8 lead byte that may follow a character for its atomic mark to count (U+3000 and up).
pub const ATOMIC_NEXT_LEAD: u8 = 0xE3;

/// Why a rank list is not a usable vocabulary. The list's author is at fault; trying again does not help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CompileError {
    /// A byte that is no token on its own: some texts could not be encoded.
    MissingByte(u8),
    /// A token of no bytes or of more than 1024, given by its rank.
    BadLength(u32),
    /// A rank of 2^20 or more.
    RankTooHigh(u32),
    /// Two entries with the same bytes or the same rank, given by the later rank.
    Duplicate(u32),
    /// No perfect hash was found; does not happen with real vocabularies.
    NoPerfectHash,
}

impl std::fmt::Display for CompileError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::MissingByte(byte) => write!(f, "byte 0x{byte:02x} is not a token"),
            Self::BadLength(rank) => {
                write!(
                    f,
                    "token of rank {rank} is empty or longer than {MAX_TOKEN_BYTES} bytes"
                )
            }
            Self::RankTooHigh(rank) => write!(f, "rank {rank} is not below {RANK_LIMIT}"),
            Self::Duplicate(rank) => {
                write!(f, "token of rank {rank} repeats earlier bytes or an earlier rank")
            }
            Self::NoPerfectHash => write!(f, "no perfect hash found for the vocabulary"),
        }
    }
}

impl std::error::Error for CompileError {}

/// Compiles `tokens` (bytes and rank, in any order) for the split pattern `pattern_id` (see `Pattern::id`).
///
/// # Errors
/// See [`CompileError`].
pub fn compile(tokens: &[(Vec<u8>, u32)], pattern_id: u32) -> Result<Vec<u8>, CompileError> {
    let ranks = index(tokens)?;
    let pairs = Pairs::find(tokens, &ranks);
    let longest = tokens.iter().map(|(bytes, _)| bytes.len()).max().unwrap_or(0);

    let mut out = vec![0; HEADER_SIZE];
    let pair_table = PerfectHash::build(pairs.list.iter().map(|pair| hash_pair(pair.key())).collect())?;
    let mut slots = vec![EMPTY_PAIR; pair_table.slots as usize];
    for (pair, &at) in pairs.list.iter().zip(&pair_table.place) {
        if let Some(slot) = slots.get_mut(at) {
            *slot = (pair.key() << RANK_BITS) | u64::from(pair.merged);
        }
    }
    let pairs_at = append(&mut out, slots.iter().flat_map(|slot| slot.to_le_bytes()));
    let pilots_at = append(
        &mut out,
        pair_table.pilots.iter().flat_map(|pilot| pilot.to_le_bytes()),
    );
    // Four to eight bits per pair: at most a fifth of the pairs that do not join pass.
    let filter_log2 = (pairs.list.len().max(1) * 4).next_power_of_two().ilog2().max(3);
    let mut filter = vec![0u8; 1 << (filter_log2 - 3)];
    for pair in &pairs.list {
        let (at, mask) = filter_bit(hash_pair(pair.key()), filter_log2);
        if let Some(byte) = filter.get_mut(at) {
            *byte |= mask;
        }
    }
    let filter_at = append(&mut out, filter);
    let bytes_at = append(
        &mut out,
        (0..=u8::MAX).flat_map(|byte| ranks.get(&[byte][..]).copied().unwrap_or(0).to_le_bytes()),
    );

    let mut by_length: Vec<Vec<(&[u8], u32)>> = vec![Vec::new(); longest];
    for (bytes, rank) in tokens {
        let mark = if pairs.is_atomic(bytes, *rank, &ranks) {
            ATOMIC
        } else {
            0
        };
        if let Some(class) = by_length.get_mut(bytes.len() - 1) {
            class.push((bytes, *rank | mark));
        }
    }
    let mut classes = Vec::with_capacity(longest * CLASS_SIZE);
    for class in &by_length {
        classes.extend(append_class(&mut out, class)?);
    }
    let classes_at = append(&mut out, classes);

    let total = out.len() as u64;
    let mut header = Vec::with_capacity(HEADER_SIZE);
    header.extend(MAGIC);
    header.extend(LAYOUT_VERSION.to_le_bytes());
    header.extend(pattern_id.to_le_bytes());
    header.extend(total.to_le_bytes());
    header.extend([0; 8]);
    for field in [
        tokens.len() as u32,
        longest as u32,
        pair_table.slots,
        pair_table.pilots.len() as u32,
        pairs_at,
        pilots_at,
        bytes_at,
        classes_at,
        filter_at,
        filter_log2,
        (tokens.len() - 256 - pairs.list.len()) as u32,
    ] {
        header.extend(field.to_le_bytes());
    }
    header.resize(HEADER_SIZE, 0);
    out.splice(..HEADER_SIZE, header);
    let checksum = xxhash_rust::xxh3::xxh3_64(out.get(CHECKSUM_START..).unwrap_or_default());
    out.splice(24..CHECKSUM_START, checksum.to_le_bytes());
    Ok(out)
}

/// Token bytes to rank, checked.
fn index(tokens: &[(Vec<u8>, u32)]) -> Result<HashMap<&[u8], u32>, CompileError> {
    let mut ranks = HashMap::with_capacity(tokens.len());
    let mut seen = std::collections::HashSet::with_capacity(tokens.len());
    for (bytes, rank) in tokens {
        if bytes.is_empty() || bytes.len() > MAX_TOKEN_BYTES {
            return Err(CompileError::BadLength(*rank));
        }
        if *rank >= RANK_LIMIT {
            return Err(CompileError::RankTooHigh(*rank));
        }
        if ranks.insert(bytes.as_slice(), *rank).is_some() || !seen.insert(*rank) {
            return Err(CompileError::Duplicate(*rank));
        }
    }
    match (0..=u8::MAX).find(|byte| !ranks.contains_key(&[*byte][..])) {
        Some(byte) => Err(CompileError::MissingByte(byte)),
        None => Ok(ranks),
    }
}

/// Appends a 64-byte aligned table and returns its offset.
fn append(out: &mut Vec<u8>, table: impl IntoIterator<Item = u8>) -> u32 {
    out.resize(out.len().next_multiple_of(64), 0);
    let at = out.len() as u32;
    out.extend(table);
    at
}

/// Appends the tables of one token length and returns its class entry.
fn append_class(out: &mut Vec<u8>, class: &[(&[u8], u32)]) -> Result<Vec<u8>, CompileError> {
    let table = PerfectHash::build(class.iter().map(|(bytes, _)| hash_bytes(bytes)).collect())?;
    let mut at: Vec<Option<(&[u8], u32)>> = vec![None; table.slots as usize];
    for (token, &place) in class.iter().zip(&table.place) {
        if let Some(entry) = at.get_mut(place) {
            *entry = Some(*token);
        }
    }
    // Any token will do for a hole: its own bytes are always sent to its own slot.
    let filler = class.first().copied().unwrap_or((&[], 0));
    let entries: Vec<_> = at.into_iter().map(|entry| entry.unwrap_or(filler)).collect();
    let keys_at = append(out, entries.iter().flat_map(|(bytes, _)| bytes.iter().copied()));
    let ranks_at = append(
        out,
        entries
            .iter()
            .flat_map(|(_, rank)| rank.to_le_bytes().into_iter().take(RANK_SIZE)),
    );
    let pilots_at = append(out, table.pilots.iter().flat_map(|pilot| pilot.to_le_bytes()));
    Ok([
        table.slots,
        table.pilots.len() as u32,
        keys_at,
        ranks_at,
        pilots_at,
    ]
    .into_iter()
    .flat_map(u32::to_le_bytes)
    .collect())
}

/// Two tokens that join to a third.
struct Pair {
    left: u32,
    right: u32,
    merged: u32,
}

impl Pair {
    fn key(&self) -> u64 {
        pair_key(self.left, self.right)
    }
}

/// The pairs of a vocabulary, with what deciding about atomic characters needs.
struct Pairs {
    list: Vec<Pair>,
    /// Every join has a higher rank than its halves.
    proper: bool,
    /// Lowest rank that a token can join into as the left half, before a right half that starts a character with a
    /// lead byte of at least [`ATOMIC_NEXT_LEAD`].
    lowest_as_left: HashMap<u32, u32>,
    /// Lowest rank that a token can join into as the right half, after a left half that does not end in ASCII.
    lowest_as_right: HashMap<u32, u32>,
}

impl Pairs {
    fn find(tokens: &[(Vec<u8>, u32)], ranks: &HashMap<&[u8], u32>) -> Self {
        let mut pairs = Self {
            list: Vec::with_capacity(tokens.len()),
            proper: true,
            lowest_as_left: HashMap::new(),
            lowest_as_right: HashMap::new(),
        };
        for (bytes, rank) in tokens {
            let mut last_two = None;
            let mut whole = false;
            encode_alone(bytes, ranks, |borders| match borders {
                [_, middle, _] => last_two = Some(*middle),
                [_, _] => whole = true,
                _ => {}
            });
            let (Some(middle), true) = (last_two, whole) else {
                continue;
            };
            let Some((left, right)) = bytes.split_at_checked(middle) else {
                continue;
            };
            let (Some(&left_rank), Some(&right_rank)) = (ranks.get(left), ranks.get(right)) else {
                continue;
            };
            pairs.proper &= left_rank < *rank && right_rank < *rank;
            pairs.list.push(Pair {
                left: left_rank,
                right: right_rank,
                merged: *rank,
            });
            let lower = |map: &mut HashMap<u32, u32>, half: u32| {
                map.entry(half)
                    .and_modify(|lowest| *lowest = (*lowest).min(*rank))
                    .or_insert(*rank);
            };
            if right.first().is_some_and(|byte| *byte >= ATOMIC_NEXT_LEAD) {
                lower(&mut pairs.lowest_as_left, left_rank);
            }
            if left.last().is_some_and(|byte| !byte.is_ascii()) {
                lower(&mut pairs.lowest_as_right, right_rank);
            }
        }
        pairs
    }

    /// Whether a token is an atomic character (see the module's description).
    fn is_atomic(&self, bytes: &[u8], rank: u32, ranks: &HashMap<&[u8], u32>) -> bool {
        let one_character = std::str::from_utf8(bytes).is_ok_and(|text| text.chars().count() == 1);
        if !self.proper || bytes.len() < 2 || !one_character {
            return false;
        }
        let lowest = |map: &HashMap<u32, u32>, half: &[u8]| {
            ranks
                .get(half)
                .and_then(|half| map.get(half))
                .copied()
                .unwrap_or(RANK_LIMIT)
        };
        let mut atomic = true;
        let mut whole = false;
        encode_alone(bytes, ranks, |borders| {
            let ([_, first_end, ..], [.., last_start, _]) = (borders, borders) else {
                return;
            };
            if borders.len() == 2 {
                whole = true;
                return;
            }
            atomic &= lowest(&self.lowest_as_left, bytes.get(*last_start..).unwrap_or_default()) > rank
                && lowest(&self.lowest_as_right, bytes.get(..*first_end).unwrap_or_default()) > rank;
        });
        atomic && whole
    }
}

/// Encodes `bytes` alone and shows every state on the way, from single bytes to the end, as the borders of its parts.
fn encode_alone(bytes: &[u8], ranks: &HashMap<&[u8], u32>, mut state: impl FnMut(&[usize])) {
    let mut borders: Vec<usize> = (0..=bytes.len()).collect();
    loop {
        state(&borders);
        let best = borders
            .windows(3)
            .enumerate()
            .filter_map(|(at, window)| match window {
                [from, _, to] => bytes
                    .get(*from..*to)
                    .and_then(|joined| ranks.get(joined))
                    .map(|rank| (*rank, at)),
                _ => None,
            })
            .min();
        match best {
            Some((_, at)) => drop(borders.remove(at + 1)),
            None => return,
        }
    }
}

/// A table of pilots, and the slot of each key in the order given.
struct PerfectHash {
    slots: u32,
    pilots: Vec<u16>,
    place: Vec<usize>,
}

impl PerfectHash {
    /// Finds pilots for distinct hashes, with more and more room if need be.
    fn build(hashes: Vec<u64>) -> Result<Self, CompileError> {
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
