//! A compiled vocabulary, read in place.

use zerocopy::FromBytes;
use zerocopy::little_endian::{U16, U32};

use super::Pattern;
use super::layout::{
    CHARACTERS, CHECKSUM_START, EMPTY_PAIR, HEADER_FIELDS, HEADER_SIZE, LAYOUT_VERSION, MAGIC, METASPACE,
    PAIR_SLOTS_END, PILOT_SIZE, RANK_BITS, RANK_LIMIT, RANK_SIZE, SOURCE_AT, bucket, field, filter_bit,
    hash_bytes, hash_medium, hash_pair, hash_short, load_head, load_short, load_tail, pair_key,
    pair_slot_key, pair_slot_size, slot,
};
use super::normalize::{Normalizer, Prefix, Preparation};
use super::program::Program;
use super::split::{Spaces, Split};
use super::unigram::Unigram;

/// A vocabulary over a borrowed buffer: cheap to make, no copy, no pointer into anything else.
///
/// The buffer may be part of the binary, a mapped file or shared memory; nothing in it is trusted beyond what
/// [`Vocabulary::from_bytes`] checks, and a hostile buffer can yield wrong counts but no panic.
#[derive(Clone, Copy)]
pub struct Vocabulary<'a> {
    pattern: Pattern,
    preparation: Preparation,
    source: u64,
    tokens: u32,
    characters: bool,
    ids: &'a [U32],
    glued: &'a [u8; 32],
    /// With what stands behind the last one.
    pair_slots: &'a [u8],
    pair_count: u32,
    rank_bits: u32,
    pair_pilots: &'a [U16],
    pair_filter: &'a [u8],
    filter_log2: u32,
    byte_ranks: &'a [U32; 256],
    longest_unreachable: usize,
    classes: &'a [Class],
    whole: &'a [u8],
    unigram: Option<Unigram<'a>>,
    program: Option<Program<'a>>,
    growth: u32,
}

/// Where the tokens of one length stand; see `layout`.
#[derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::KnownLayout, zerocopy::Unaligned)]
#[repr(C)]
struct Class {
    slots: U32,
    pilots: U32,
    keys_at: U32,
    ranks_at: U32,
    pilots_at: U32,
}

/// Why a buffer is not a vocabulary. Its producer is at fault; a recompiled buffer helps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VocabularyError {
    /// Not a vocabulary at all.
    BadMagic,
    /// Another layout version, given here.
    LayoutVersion(u32),
    /// A split pattern that this build does not know, by id.
    UnknownPattern(u32),
    /// A preparation of texts that this build does not know.
    UnknownPreparation,
    /// The buffer is shorter or longer than its header says.
    Truncated,
    /// The checksum does not match.
    Corrupt,
    /// A table lies outside the buffer although the checksum matches.
    Inconsistent,
}

impl std::fmt::Display for VocabularyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::BadMagic => write!(f, "not a vocabulary buffer"),
            Self::LayoutVersion(version) => {
                write!(
                    f,
                    "vocabulary layout version {version}, this build reads {LAYOUT_VERSION}"
                )
            }
            Self::UnknownPattern(id) => write!(f, "unknown split pattern {id}"),
            Self::UnknownPreparation => write!(f, "unknown normalizer, prefix or flag"),
            Self::Truncated => write!(f, "vocabulary buffer has another length than its header says"),
            Self::Corrupt => write!(f, "vocabulary checksum does not match"),
            Self::Inconsistent => write!(f, "vocabulary table outside its buffer"),
        }
    }
}

impl std::error::Error for VocabularyError {}

impl std::fmt::Debug for Vocabulary<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Vocabulary")
            .field("pattern", &self.pattern)
            .field("tokens", &self.tokens)
            .finish_non_exhaustive()
    }
}

impl<'a> Vocabulary<'a> {
    /// Checks magic, layout version, length, checksum and table bounds, then reads `bytes` in place.
    ///
    /// Costs one pass over the buffer for the checksum (about 0.3 ms for o200k).
    ///
    /// # Errors
    /// See [`VocabularyError`].
    pub fn from_bytes(bytes: &'a [u8]) -> Result<Self, VocabularyError> {
        let header = Header::read(bytes)?;
        let checked = bytes.get(CHECKSUM_START..).unwrap_or_default();
        if xxhash_rust::xxh3::xxh3_64(checked) != header.checksum {
            return Err(VocabularyError::Corrupt);
        }
        Self::from_header(bytes, &header)
    }

    /// As [`Vocabulary::from_bytes`] without the checksum: for bytes that are part of this binary.
    pub(super) fn from_trusted_bytes(bytes: &'a [u8]) -> Result<Self, VocabularyError> {
        Self::from_header(bytes, &Header::read(bytes)?)
    }

    fn from_header(bytes: &'a [u8], header: &Header) -> Result<Self, VocabularyError> {
        let table = |at: u32, len: usize| {
            bytes
                .get(at as usize..)
                .and_then(|rest| rest.get(..len))
                .ok_or(VocabularyError::Inconsistent)
        };
        let of = |number: usize| header.fields.get(number).copied().unwrap_or(0);
        // Vocabularies that merge no pairs have no such slots.
        let rank_bits = match of(field::RANK_BITS) {
            0 if of(field::PAIR_SLOTS) == 0 => 1,
            bits => bits,
        };
        if !(1..=RANK_BITS).contains(&rank_bits) {
            return Err(VocabularyError::Inconsistent);
        }
        let pair_slots = table(
            of(field::PAIRS_AT),
            (of(field::PAIR_SLOTS) as usize)
                .saturating_mul(pair_slot_size(rank_bits))
                .saturating_add(PAIR_SLOTS_END),
        )?;
        let pilots = table(
            of(field::PILOTS_AT),
            (of(field::PAIR_PILOTS) as usize).saturating_mul(PILOT_SIZE),
        )?;
        let classes = table(
            of(field::CLASSES_AT),
            (of(field::LONGEST) as usize).saturating_mul(size_of::<Class>()),
        )?;
        let filter_log2 = of(field::FILTER_LOG2);
        if !(3..=32).contains(&filter_log2) {
            return Err(VocabularyError::Inconsistent);
        }
        let flags = of(field::FLAGS);
        let preparation = Preparation {
            normalizer: Normalizer::from_id(of(field::NORMALIZER))
                .ok_or(VocabularyError::UnknownPreparation)?,
            metaspace: flags & METASPACE != 0,
            prefix: Prefix::from_id(of(field::PREFIX)).ok_or(VocabularyError::UnknownPreparation)?,
        };
        if flags & !(CHARACTERS | METASPACE) != 0 {
            return Err(VocabularyError::UnknownPreparation);
        }
        let ids = match of(field::IDS_AT) {
            0 => &[],
            at => bytes.get(at as usize..).ok_or(VocabularyError::Inconsistent)?,
        };
        let (ids, _) = <[U32]>::ref_from_prefix_with_elems(ids, (ids.len() / 4).min(RANK_LIMIT as usize))
            .map_err(|_| VocabularyError::Inconsistent)?;
        let glued = match of(field::GLUED_AT) {
            0 => &[0; 32],
            at => table(at, 32)?
                .first_chunk()
                .ok_or(VocabularyError::Inconsistent)?,
        };
        let vocabulary = Self {
            pattern: header.pattern,
            preparation,
            source: header.source,
            tokens: of(field::TOKENS),
            characters: flags & CHARACTERS != 0,
            ids,
            glued,
            pair_slots,
            pair_count: of(field::PAIR_SLOTS),
            rank_bits,
            pair_pilots: <[U16]>::ref_from_bytes(pilots).map_err(|_| VocabularyError::Inconsistent)?,
            pair_filter: table(of(field::FILTER_AT), 1 << (filter_log2 - 3))?,
            filter_log2,
            longest_unreachable: of(field::LONGEST_UNREACHABLE) as usize,
            byte_ranks: <[U32; 256]>::ref_from_bytes(table(of(field::BYTES_AT), 1024)?)
                .map_err(|_| VocabularyError::Inconsistent)?,
            classes: <[Class]>::ref_from_bytes(classes).map_err(|_| VocabularyError::Inconsistent)?,
            whole: bytes,
            unigram: match of(field::UNIGRAM_AT) as usize {
                0 => None,
                at => Some(Unigram::read(bytes, at).ok_or(VocabularyError::Inconsistent)?),
            },
            program: match of(field::PROGRAM_AT) as usize {
                0 => None,
                at => Some(Program::read(bytes, at).ok_or(VocabularyError::UnknownPreparation)?),
            },
            growth: of(field::GROWTH).max(1),
        };
        for (at, class) in vocabulary.classes.iter().enumerate() {
            let slots = class.slots.get() as usize;
            table(class.keys_at.get(), slots.saturating_mul(at + 1))?;
            if class.ranks_at.get() != 0 {
                table(class.ranks_at.get(), slots.saturating_mul(RANK_SIZE))?;
            }
            table(
                class.pilots_at.get(),
                (class.pilots.get() as usize).saturating_mul(PILOT_SIZE),
            )?;
        }
        Ok(vocabulary)
    }

    /// How texts are split into pieces before merging.
    pub fn pattern(&self) -> Pattern {
        self.pattern
    }

    /// Number of ordinary tokens.
    pub fn tokens(&self) -> u32 {
        self.tokens
    }

    /// The normal form that texts are brought to before they are split.
    pub fn normalizer(&self) -> Normalizer {
        self.preparation.normalizer
    }

    /// A checksum of what the buffer was compiled from, as it was given to the compiler; 0 if none was.
    pub fn source(&self) -> u64 {
        self.source
    }

    /// Most tokens that a text of so many bytes can have: as many as bytes, one more for a space put before it, and up
    /// to three (NFC) or eighteen (NFKC, U+FDFA) times as many where a normal form may make it longer, or whatever a
    /// file's own tables of characters make of them.
    pub fn most_tokens(&self, bytes: u64) -> u64 {
        let growth = match self.preparation.normalizer {
            Normalizer::None => u64::from(self.growth),
            Normalizer::Nfc => 3,
            Normalizer::Nfkc => 18,
        };
        let prefixed = self.preparation.prefix != Prefix::None || self.program.is_some();
        let prefix = u64::from(bytes > 0 && prefixed);
        bytes.saturating_mul(growth).saturating_add(prefix)
    }

    /// End of the piece that begins at byte `at` of a prepared text.
    pub(super) fn piece_end(&self, text: &str, at: usize) -> usize {
        match self.pattern {
            Pattern::Spaces if at < text.len() => self.spaces().piece_end(text.as_bytes(), at),
            pattern => pattern.piece_end(text, at),
        }
    }

    /// The splitter of a vocabulary without a pattern.
    pub(super) fn spaces(&self) -> Spaces<'a> {
        Spaces::new(self.glued)
    }

    /// Whether a piece always ends between this byte and a space, whatever follows: in all patterns a space begins a
    /// piece or stands inside white space, and nothing looks ahead across that point.
    #[inline]
    pub(super) fn cuts_behind(&self, byte: u8) -> bool {
        byte.is_ascii_graphic()
            && (self.pattern != Pattern::Spaces || self.spaces().cuts_behind(byte))
            && self.program.is_none_or(|program| program.is_solid(byte))
    }

    /// Whether tokens are chosen by their scores instead of being merged.
    pub fn is_unigram(&self) -> bool {
        self.unigram.is_some()
    }

    /// The Unigram model, if that is what the vocabulary is.
    #[inline]
    pub(super) fn unigram(&self) -> Option<&Unigram<'a>> {
        self.unigram.as_ref()
    }

    /// Where the next piece of a Unigram vocabulary begins, at `from` or later; none if it begins in what follows.
    pub(super) fn next_piece(&self, text: &str, from: usize) -> Option<usize> {
        let rest = text.as_bytes().get(from..)?;
        let spaced = self.pattern == Pattern::EachSpace;
        memchr::memchr(b' ', rest).filter(|_| spaced).map(|at| from + at)
    }

    /// Where the last piece of a Unigram vocabulary begins, whose first one begins at `from`.
    pub(super) fn last_piece(&self, text: &str, from: usize) -> usize {
        let spaced = self.pattern == Pattern::EachSpace;
        let rest = text.as_bytes().get(from..).unwrap_or_default();
        memchr::memrchr(b' ', rest)
            .filter(|_| spaced)
            .map_or(from, |at| from + at)
    }

    /// What normalizes texts before all else.
    #[inline]
    pub(super) fn program(&self) -> Option<&Program<'a>> {
        self.program.as_ref()
    }

    /// What is done to texts before they are split.
    #[inline]
    pub(super) fn preparation(&self) -> Preparation {
        self.preparation
    }

    /// Whether texts begin as characters, not as bytes.
    #[inline]
    pub(super) fn characters(&self) -> bool {
        self.characters
    }

    /// The published id of a rank.
    pub(super) fn id(&self, rank: u32) -> u32 {
        self.ids.get(rank as usize).map_or(rank, |id| id.get())
    }

    /// Size of the buffer in bytes.
    pub fn size(&self) -> usize {
        self.whole.len()
    }

    /// Bytes of the longest token that merging its bytes does not yield, of those that do not end in ASCII: longer pieces
    /// that end so need not be looked up before they are merged.
    #[inline]
    pub(super) fn longest_unreachable(&self) -> usize {
        self.longest_unreachable
    }

    /// Rank of a single byte.
    #[inline]
    pub(super) fn byte_rank(&self, byte: u8) -> u32 {
        self.byte_ranks
            .get(usize::from(byte))
            .map_or(0, |rank| rank.get())
    }

    /// What two neighbouring tokens join to, or a rank of [`RANK_LIMIT`] or more.
    #[inline]
    pub(super) fn merged(&self, left: u32, right: u32) -> u32 {
        let key = pair_key(left, right);
        let hash = hash_pair(key);
        if self.may_join(hash) {
            self.join(key, hash)
        } else {
            RANK_LIMIT
        }
    }

    /// False if no pair of this hash joins; true if one may.
    #[inline]
    pub(super) fn may_join(&self, hash: u64) -> bool {
        let (at, mask) = filter_bit(hash, self.filter_log2);
        self.pair_filter.get(at).is_some_and(|byte| byte & mask != 0)
    }

    /// What the pair of this key and its hash joins to, or a rank of [`RANK_LIMIT`] or more.
    pub(super) fn join(&self, key: u64, hash: u64) -> u32 {
        let pilot = self
            .pair_pilots
            .get(bucket(hash, self.pair_pilots.len() as u32))
            .map_or(0, |pilot| pilot.get());
        let at = slot(hash, pilot, self.pair_count) * pair_slot_size(self.rank_bits);
        let slot = self
            .pair_slots
            .get(at..)
            .and_then(|rest| rest.first_chunk())
            .map_or(EMPTY_PAIR, |bytes| u64::from_le_bytes(*bytes));
        let stored = slot & (u64::MAX >> (64 - 8 * pair_slot_size(self.rank_bits)));
        if stored >> self.rank_bits == pair_slot_key(key, self.rank_bits) {
            stored as u32 & ((1 << self.rank_bits) - 1)
        } else {
            RANK_LIMIT
        }
    }

    /// Whether the bytes are a token.
    #[inline]
    pub(super) fn contains(&self, piece: &[u8]) -> bool {
        self.find(piece).is_some()
    }

    /// Rank of a token, if it is stored: merging a token without one yields its rank.
    pub(super) fn rank(&self, piece: &[u8]) -> Option<u32> {
        self.marked_rank(piece).map(|marked| marked & (RANK_LIMIT - 1))
    }

    /// Rank of a token, with the marks of a character above it (see `layout`), if it is stored: that of every character is.
    #[inline]
    pub(super) fn marked_rank(&self, piece: &[u8]) -> Option<u32> {
        let (class, slot) = self.find(piece)?;
        if class.ranks_at.get() == 0 {
            return None;
        }
        let at = class.ranks_at.get() as usize + slot * RANK_SIZE;
        let bytes = self.whole.get(at..at + RANK_SIZE)?;
        Some(
            bytes
                .iter()
                .rev()
                .fold(0, |rank, byte| (rank << 8) | u32::from(*byte)),
        )
    }

    /// The class and slot of a token.
    #[inline]
    fn find(&self, piece: &[u8]) -> Option<(&'a Class, usize)> {
        let len = piece.len();
        let class = self.classes.get(len.wrapping_sub(1))?;
        // One hash and one comparison per width: this is the hottest lookup of the crate.
        if len <= 8 {
            let packed = load_short(piece);
            let (slot, key) = self.slot_key(class, hash_short(packed), len)?;
            (load_short(key) == packed).then_some((class, slot))
        } else if len <= 16 {
            let (head, tail) = (load_head(piece), load_tail(piece));
            let (slot, key) = self.slot_key(class, hash_medium(head, tail), len)?;
            (load_head(key) == head && load_tail(key) == tail).then_some((class, slot))
        } else {
            let (slot, key) = self.slot_key(class, hash_bytes(piece), len)?;
            (key == piece).then_some((class, slot))
        }
    }

    #[inline]
    fn slot_key(&self, class: &Class, hash: u64, len: usize) -> Option<(usize, &'a [u8])> {
        if class.slots.get() == 0 {
            return None;
        }
        let pilot_at = class.pilots_at.get() as usize + PILOT_SIZE * bucket(hash, class.pilots.get());
        let pilot = u16::from_le_bytes(*self.whole.get(pilot_at..)?.first_chunk()?);
        let slot = slot(hash, pilot, class.slots.get());
        let at = class.keys_at.get() as usize + slot * len;
        Some((slot, self.whole.get(at..at + len)?))
    }
}

/// The fixed part of a buffer.
struct Header {
    pattern: Pattern,
    checksum: u64,
    source: u64,
    fields: [u32; HEADER_FIELDS],
}

impl Header {
    fn read(bytes: &[u8]) -> Result<Self, VocabularyError> {
        if bytes.get(..MAGIC.len()) != Some(&MAGIC[..]) {
            return Err(VocabularyError::BadMagic);
        }
        if bytes.len() < HEADER_SIZE {
            return Err(VocabularyError::Truncated);
        }
        let u32_at = |at: usize| {
            bytes
                .get(at..)
                .and_then(|rest| rest.first_chunk())
                .map_or(0, |chunk| u32::from_le_bytes(*chunk))
        };
        let u64_at = |at: usize| {
            bytes
                .get(at..)
                .and_then(|rest| rest.first_chunk())
                .map_or(0, |chunk| u64::from_le_bytes(*chunk))
        };
        if u32_at(8) != LAYOUT_VERSION {
            return Err(VocabularyError::LayoutVersion(u32_at(8)));
        }
        let pattern = Pattern::from_id(u32_at(12)).ok_or(VocabularyError::UnknownPattern(u32_at(12)))?;
        if u64_at(16) != bytes.len() as u64 {
            return Err(VocabularyError::Truncated);
        }
        let fields = std::array::from_fn(|field| u32_at(32 + 4 * field));
        Ok(Self {
            pattern,
            checksum: u64_at(24),
            source: u64_at(SOURCE_AT),
            fields,
        })
    }
}
