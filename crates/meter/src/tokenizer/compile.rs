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
//! # Priorities that are no ids
//! Hugging Face's merges are a list of pairs in order of priority, and what a pair joins to has an id of its own. The same
//! argument holds, so again each token comes out of one pair; tokens are ranked by the priority of theirs, and a table
//! leads from ranks back to ids.
//!
//! # Atomic characters
//! Some characters always join before anything around them can: see `atomic`.

use std::collections::{HashMap, HashSet};

use super::atomic;
use super::layout::{
    CHARACTERS, CHECKSUM_START, CLASS_SIZE, EMPTY_PAIR, HEADER_FIELDS, HEADER_SIZE, LAYOUT_VERSION,
    LONGEST_CHARACTER, MAGIC, PAIR_SLOTS_END, RANK_LIMIT, RANK_SIZE, field, filter_bit, hash_bytes,
    hash_pair, pair_key, pair_slot_key, pair_slot_size,
};
use super::perfect::PerfectHash;

/// Longest token that a vocabulary may hold, in bytes.
pub const MAX_TOKEN_BYTES: usize = 1024;

/// Why a list of tokens is not a usable vocabulary. The list's author is at fault; trying again does not help.
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
    /// A join of ids that no token has, or whose bytes are not those of what they join to; given by its place.
    BadJoin(usize),
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
            Self::BadJoin(place) => write!(f, "join {place} is not one of two tokens to a third"),
            Self::NoPerfectHash => write!(f, "no perfect hash found for the vocabulary"),
        }
    }
}

impl std::error::Error for CompileError {}

/// What a byte-pair vocabulary is made of.
pub struct Pairing<'a> {
    /// Bytes and id of each token, in any order.
    pub tokens: &'a [(Vec<u8>, u32)],
    /// What joins.
    pub joins: Joins<'a>,
    /// Ids of the bytes of characters that are no tokens, for vocabularies that begin with characters; none for those
    /// that begin with bytes.
    pub fallback: Option<&'a [(u8, u32)]>,
}

/// Which neighbours join, and in which order.
pub enum Joins<'a> {
    /// All whose bytes together are a token, that of the lowest id first. Pieces that are tokens are not merged at all.
    ByRank,
    /// Those of a list, earlier ones first: ids of the left and right half, and of what they join to.
    Listed {
        /// The list.
        pairs: &'a [(u32, u32, u32)],
        /// Whether pieces that are tokens are not merged at all.
        whole_pieces: bool,
    },
}

/// Beside the tokens: what a buffer's header says about how texts are prepared and split. Numbers as in `layout`.
#[derive(Default)]
pub struct Settings {
    pub pattern: u32,
    pub flags: u32,
    pub normalizer: u32,
    pub prefix: u32,
    /// A checksum of what the vocabulary was made from, so that its owner sees whether it is still current.
    pub source: u64,
}

/// Compiles a byte-pair vocabulary.
///
/// # Errors
/// See [`CompileError`].
pub fn compile(pairing: &Pairing<'_>, settings: &Settings) -> Result<Vec<u8>, CompileError> {
    let ids = index(pairing)?;
    let rules = Rules::new(pairing, &ids)?;
    let ranked = Ranked::new(pairing, &rules);
    let pairs = pairs(&ranked);
    let marks = atomic::marks(&ranked, &rules);
    let tokens = &ranked.tokens;
    let longest = tokens.iter().map(|(bytes, _)| bytes.len()).max().unwrap_or(0);

    let mut out = vec![0; HEADER_SIZE];
    let pair_table = PerfectHash::build(pairs.iter().map(|pair| hash_pair(pair.key())).collect())?;
    // One more than the highest rank, so that no pair is all ones.
    let ranks = tokens
        .iter()
        .map(|(_, rank)| *rank)
        .chain(ranked.bytes)
        .max()
        .unwrap_or(0)
        + 2;
    let rank_bits = ranks.next_power_of_two().ilog2();
    let mut slots = vec![EMPTY_PAIR; pair_table.slots as usize];
    for (pair, &at) in pairs.iter().zip(&pair_table.place) {
        if let Some(slot) = slots.get_mut(at) {
            *slot = (pair_slot_key(pair.key(), rank_bits) << rank_bits) | u64::from(pair.merged);
        }
    }
    let mut fields = [0; HEADER_FIELDS];
    let size = pair_slot_size(rank_bits);
    let stored = slots
        .iter()
        .flat_map(|slot| slot.to_le_bytes().into_iter().take(size));
    fields[field::PAIRS_AT] = append(&mut out, stored.chain([0; PAIR_SLOTS_END]));
    fields[field::RANK_BITS] = rank_bits;
    fields[field::PILOTS_AT] = append(
        &mut out,
        pair_table.pilots.iter().flat_map(|pilot| pilot.to_le_bytes()),
    );
    // Four to eight bits per pair: at most a fifth of the pairs that do not join pass.
    let filter_log2 = (pairs.len().max(1) * 4).next_power_of_two().ilog2().max(3);
    let mut filter = vec![0u8; 1 << (filter_log2 - 3)];
    for pair in &pairs {
        let (at, mask) = filter_bit(hash_pair(pair.key()), filter_log2);
        if let Some(byte) = filter.get_mut(at) {
            *byte |= mask;
        }
    }
    fields[field::FILTER_AT] = append(&mut out, filter);
    fields[field::BYTES_AT] = append(&mut out, ranked.bytes.iter().flat_map(|rank| rank.to_le_bytes()));
    if !ranked.ids.is_empty() {
        fields[field::IDS_AT] = append(&mut out, ranked.ids.iter().flat_map(|id| id.to_le_bytes()));
    }

    if let Some(glued) = glued(&ranked) {
        fields[field::GLUED_AT] = append(&mut out, glued);
    }

    let mut by_length: Vec<Vec<(&[u8], u32)>> = vec![Vec::new(); longest];
    for &(bytes, rank) in tokens {
        let mark = marks.get(bytes).copied().unwrap_or(0);
        if let Some(class) = by_length.get_mut(bytes.len() - 1) {
            class.push((bytes, rank | mark));
        }
    }
    let mut classes = Vec::with_capacity(longest * CLASS_SIZE);
    for class in &by_length {
        let length = class.first().map_or(0, |(bytes, _)| bytes.len());
        let with_ranks = length <= LONGEST_CHARACTER || ranked.unreachable_lengths.contains(&length);
        classes.extend(append_class(&mut out, class, with_ranks)?);
    }
    fields[field::CLASSES_AT] = append(&mut out, classes);
    fields[field::TOKENS] = ranked.kept;
    fields[field::LONGEST] = longest as u32;
    fields[field::PAIR_SLOTS] = pair_table.slots;
    fields[field::PAIR_PILOTS] = pair_table.pilots.len() as u32;
    fields[field::FILTER_LOG2] = filter_log2;
    fields[field::LONGEST_UNREACHABLE] = ranked.longest_unreachable as u32;
    if rules.characters {
        fields[field::FLAGS] = CHARACTERS;
    }
    Ok(finish(out, fields, settings))
}

/// The bytes behind which a token that merging yields has a space, as bits; none if there is no such byte.
fn glued(ranked: &Ranked<'_>) -> Option<[u8; 32]> {
    let mut glued = [0; 32];
    for window in ranked.joined.iter().flat_map(|(bytes, ..)| bytes.windows(2)) {
        if let [before, b' '] = window
            && *before != b' '
            && let Some(bits) = glued.get_mut(usize::from(before / 8))
        {
            *bits |= 1 << (before % 8);
        }
    }
    (glued != [0; 32]).then_some(glued)
}

/// Writes the header before the tables.
pub fn finish(mut out: Vec<u8>, mut fields: [u32; HEADER_FIELDS], settings: &Settings) -> Vec<u8> {
    fields[field::FLAGS] |= settings.flags;
    fields[field::NORMALIZER] = settings.normalizer;
    fields[field::PREFIX] = settings.prefix;
    let mut header = Vec::with_capacity(HEADER_SIZE);
    header.extend(MAGIC);
    header.extend(LAYOUT_VERSION.to_le_bytes());
    header.extend(settings.pattern.to_le_bytes());
    header.extend((out.len() as u64).to_le_bytes());
    header.extend([0; 8]);
    header.extend(fields.iter().flat_map(|field| field.to_le_bytes()));
    header.extend(settings.source.to_le_bytes());
    header.resize(HEADER_SIZE, 0);
    out.splice(..HEADER_SIZE, header);
    let checksum = xxhash_rust::xxh3::xxh3_64(out.get(CHECKSUM_START..).unwrap_or_default());
    out.splice(24..CHECKSUM_START, checksum.to_le_bytes());
    out
}

/// Token bytes to id, checked.
fn index<'a>(pairing: &Pairing<'a>) -> Result<HashMap<&'a [u8], u32>, CompileError> {
    let mut ids = HashMap::with_capacity(pairing.tokens.len());
    let mut seen = std::collections::HashSet::with_capacity(pairing.tokens.len());
    for (bytes, id) in pairing.tokens {
        if bytes.is_empty() || bytes.len() > MAX_TOKEN_BYTES {
            return Err(CompileError::BadLength(*id));
        }
        if *id >= RANK_LIMIT {
            return Err(CompileError::RankTooHigh(*id));
        }
        if ids.insert(bytes.as_slice(), *id).is_some() || !seen.insert(*id) {
            return Err(CompileError::Duplicate(*id));
        }
    }
    for (_, id) in pairing.fallback.unwrap_or_default() {
        if *id >= RANK_LIMIT {
            return Err(CompileError::RankTooHigh(*id));
        }
        if !seen.insert(*id) {
            return Err(CompileError::Duplicate(*id));
        }
    }
    Ok(ids)
}

/// A part of a text on its way from bytes to tokens: where it begins, and its token.
pub(super) type Part = (usize, u32);

/// How a vocabulary merges, by ids.
pub(super) struct Rules<'a> {
    ids: &'a HashMap<&'a [u8], u32>,
    /// Id of each byte that is, or stands in for, a part of a text.
    bytes: [u32; 256],
    /// Priority and result of the listed pairs; none if all tokens join by rank.
    listed: Option<HashMap<(u32, u32), (u32, u32)>>,
    /// Texts begin as characters.
    pub(super) characters: bool,
}

impl<'a> Rules<'a> {
    fn new(pairing: &Pairing<'_>, ids: &'a HashMap<&'a [u8], u32>) -> Result<Self, CompileError> {
        let mut bytes = [0; 256];
        for (byte, id) in (0..=u8::MAX).zip(&mut bytes) {
            let fallback =
                |list: &[(u8, u32)]| list.iter().find(|entry| entry.0 == byte).map(|entry| entry.1);
            // In vocabularies of characters, a token of one byte that is not ASCII is no character.
            let token = ids
                .get(&[byte][..])
                .copied()
                .filter(|_| pairing.fallback.is_none() || byte.is_ascii());
            *id = token
                .or_else(|| pairing.fallback.and_then(fallback))
                .ok_or(CompileError::MissingByte(byte))?;
        }
        let listed = match &pairing.joins {
            Joins::ByRank => None,
            Joins::Listed { pairs, .. } => {
                let mut spelled: HashMap<u32, &[u8]> = HashMap::with_capacity(ids.len());
                spelled.extend(ids.iter().map(|(bytes, id)| (*id, *bytes)));
                let mut listed = HashMap::with_capacity(pairs.len());
                for (place, &(left, right, merged)) in pairs.iter().enumerate() {
                    let spelling = |id| spelled.get(&id).copied().ok_or(CompileError::BadJoin(place));
                    if [spelling(left)?, spelling(right)?].concat() != spelling(merged)? {
                        return Err(CompileError::BadJoin(place));
                    }
                    // A pair that is listed twice has its last place, as in the reference.
                    listed.insert((left, right), (place as u32, merged));
                }
                Some(listed)
            }
        };
        Ok(Self {
            ids,
            bytes,
            listed,
            characters: pairing.fallback.is_some(),
        })
    }

    /// Priority and result of joining two parts, `bytes` together.
    fn join(&self, left: u32, right: u32, bytes: &[u8]) -> Option<(u32, u32)> {
        match &self.listed {
            Some(listed) => listed.get(&(left, right)).copied(),
            None => self.ids.get(bytes).map(|id| (*id, *id)),
        }
    }

    /// What merging begins with.
    fn first_parts(&self, bytes: &[u8]) -> Vec<Part> {
        let mut parts = Vec::with_capacity(bytes.len());
        if self.characters
            && let Ok(text) = std::str::from_utf8(bytes)
        {
            for (at, character) in text.char_indices() {
                let bytes = bytes.get(at..at + character.len_utf8()).unwrap_or_default();
                match self.ids.get(bytes) {
                    Some(id) => parts.push((at, *id)),
                    None => parts.extend((at..).zip(bytes.iter().map(|byte| self.byte(*byte)))),
                }
            }
        } else {
            parts.extend((0..).zip(bytes.iter().map(|byte| self.byte(*byte))));
        }
        parts
    }

    fn byte(&self, byte: u8) -> u32 {
        self.bytes.get(usize::from(byte)).copied().unwrap_or(0)
    }

    /// Encodes `bytes` alone and shows every state on the way, from single bytes to the end.
    pub(super) fn encode_alone(&self, bytes: &[u8], mut state: impl FnMut(&[Part])) {
        let mut parts = self.first_parts(bytes);
        loop {
            state(&parts);
            let end_of = |at: usize| parts.get(at + 2).map_or(bytes.len(), |part| part.0);
            let best = parts
                .windows(2)
                .enumerate()
                .filter_map(|(at, window)| match window {
                    [left, right] => self
                        .join(left.1, right.1, bytes.get(left.0..end_of(at))?)
                        .map(|(priority, merged)| (priority, at, merged)),
                    _ => None,
                })
                .min();
            let Some((_, at, merged)) = best else { return };
            parts.remove(at + 1);
            if let Some(part) = parts.get_mut(at) {
                part.1 = merged;
            }
        }
    }

    /// The two parts that a token comes out of and the priority of their join, if merging its bytes yields it at all.
    fn last_join(&self, bytes: &[u8], id: u32) -> Option<(usize, u32, u32)> {
        let (mut two, mut reached) = (None, false);
        self.encode_alone(bytes, |parts| match parts {
            [left, right] => two = Some((*left, *right)),
            [whole] => reached = whole.1 == id,
            _ => {}
        });
        let (left, right) = two.filter(|_| reached)?;
        self.join(left.1, right.1, bytes)
            .map(|(priority, _)| (right.0, priority, id))
    }
}

/// Tokens by rank, which is what the tables hold.
pub(super) struct Ranked<'a> {
    /// Bytes and rank of each token that a piece may be.
    pub(super) tokens: Vec<(&'a [u8], u32)>,
    /// As `tokens`, to look up.
    pub(super) ranks: HashMap<&'a [u8], u32>,
    /// Rank of each byte.
    bytes: [u32; 256],
    /// Id of each rank; empty if these are the same.
    ids: Vec<u32>,
    /// Tokens that come out of two others: bytes, rank, and where the right one begins.
    pub(super) joined: Vec<(&'a [u8], u32, usize)>,
    /// Lengths of tokens that merging never yields.
    unreachable_lengths: HashSet<usize>,
    /// Ordinary tokens.
    kept: u32,
    /// Bytes of the longest token that merging never yields and that does not end in ASCII.
    longest_unreachable: usize,
}

impl<'a> Ranked<'a> {
    fn new(pairing: &Pairing<'a>, rules: &Rules<'_>) -> Self {
        let whole_pieces = !matches!(
            pairing.joins,
            Joins::Listed {
                whole_pieces: false,
                ..
            }
        );
        let (mut base, mut joined) = (Vec::new(), Vec::new());
        let (mut unreachable_lengths, mut longest_unreachable) = (HashSet::new(), 0);
        for (bytes, id) in pairing.tokens {
            if matches!(rules.first_parts(bytes)[..], [_]) {
                base.push((bytes.as_slice(), *id));
            } else if let Some((middle, priority, _)) = rules.last_join(bytes, *id) {
                joined.push((priority, bytes.as_slice(), *id, middle));
            } else if whole_pieces {
                base.push((bytes.as_slice(), *id));
                unreachable_lengths.insert(bytes.len());
                if bytes.last().is_some_and(|byte| !byte.is_ascii()) {
                    longest_unreachable = longest_unreachable.max(bytes.len());
                }
            }
        }
        joined.sort_unstable();
        // By rank, ids are what the joins are ordered by; else ranks are given out in their order.
        let mut ids = Vec::new();
        let mut rank_of = |id: u32| match pairing.joins {
            Joins::ByRank => id,
            Joins::Listed { .. } => {
                ids.push(id);
                ids.len() as u32 - 1
            }
        };
        let mut by_id = HashMap::new();
        for (_, id) in pairing.fallback.unwrap_or_default() {
            by_id.insert(*id, rank_of(*id));
        }
        let mut tokens = Vec::with_capacity(pairing.tokens.len());
        for (bytes, id) in base {
            let rank = rank_of(id);
            by_id.insert(id, rank);
            tokens.push((bytes, rank));
        }
        let joined: Vec<_> = joined
            .into_iter()
            .map(|(_, bytes, id, middle)| (bytes, rank_of(id), middle))
            .collect();
        tokens.extend(joined.iter().map(|(bytes, rank, _)| (*bytes, *rank)));
        let bytes = rules.bytes.map(|id| by_id.get(&id).copied().unwrap_or(0));
        if ids.iter().zip(0..).all(|(id, rank)| *id == rank) {
            ids.clear();
        }
        Self {
            kept: pairing.tokens.len() as u32,
            ranks: tokens.iter().copied().collect(),
            tokens,
            bytes,
            ids,
            joined,
            unreachable_lengths,
            longest_unreachable,
        }
    }
}

/// Appends a 64-byte aligned table and returns its offset.
pub fn append(out: &mut Vec<u8>, table: impl IntoIterator<Item = u8>) -> u32 {
    out.resize(out.len().next_multiple_of(64), 0);
    let at = out.len() as u32;
    out.extend(table);
    at
}

/// Appends the tables of one token length and returns its class entry.
fn append_class(
    out: &mut Vec<u8>,
    class: &[(&[u8], u32)],
    with_ranks: bool,
) -> Result<Vec<u8>, CompileError> {
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
    let mut ranks_at = 0;
    if with_ranks {
        let ranks = entries.iter().map(|(_, rank)| rank.to_le_bytes());
        ranks_at = append(out, ranks.flat_map(|rank| rank.into_iter().take(RANK_SIZE)));
    }
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

/// The pairs of a vocabulary.
fn pairs(ranked: &Ranked<'_>) -> Vec<Pair> {
    let rank_of = |bytes: &[u8]| match bytes {
        [byte] => ranked.bytes.get(usize::from(*byte)).copied(),
        _ => ranked.ranks.get(bytes).copied(),
    };
    let joined = ranked.joined.iter();
    joined
        .filter_map(|&(bytes, merged, middle)| {
            let (left, right) = bytes.split_at(middle);
            Some(Pair {
                left: rank_of(left)?,
                right: rank_of(right)?,
                merged,
            })
        })
        .collect()
}
