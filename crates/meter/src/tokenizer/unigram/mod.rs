//! Unigram vocabularies, as SentencePiece and Hugging Face train them: of all ways to put a text together from tokens, the
//! one whose scores sum up to the most.
//!
//! Scores are 64-bit floats and are summed up from the beginning of a piece, as in Hugging Face's `tokenizers`; of two ways that
//! are equally good, the one found first is kept, tokens that begin earlier being tried first. A character that is no token
//! is *unknown*: its score is the lowest of all less ten, and a run of unknown characters is one token, or the tokens
//! of its bytes.
//!
//! | file | what it does |
//! | --- | --- |
//! | `build` | tokens and scores to a double-array trie in a vocabulary buffer |
//! | `tiling` | the best way, forward only: what is kept does not grow with the text |
//! | `stream` | texts that arrive in parts |
//! | `program` (beside) | what happens to texts before |

mod build;
mod stream;
mod tiling;

use zerocopy::FromBytes;
use zerocopy::little_endian::{U32, U64};

pub(super) use build::{Source, build};
pub(super) use stream::Stream;
pub(super) use tiling::Tiling;

/// Longest token in bytes.
pub(super) const LONGEST: usize = 1024;
/// Flag: the bytes of unknown characters are tokens.
const BYTES: u32 = 1;
/// Marks a unit that is there; its label stands below.
const THERE: u64 = 1 << 8;
/// Where the first child would stand, were its label 0.
const BASE_SHIFT: u32 = 9;
const BASE_BITS: u32 = 23;
/// The token that ends here, plus one.
const TOKEN_SHIFT: u32 = 32;
/// The root's base is not in the first block: that one has no units, so that a unit without children need not say so.
const FIRST_BASE: usize = 256;

/// The section of a vocabulary buffer.
#[derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::KnownLayout, zerocopy::Unaligned)]
#[repr(C)]
struct Head {
    units_at: U32,
    units: U32,
    scores_at: U32,
    tokens: U32,
    root: U32,
    longest: U32,
    unknown: U32,
    flags: U32,
    /// Bytes that the unknown token's own spelling has.
    spelled: U32,
    /// Ids of the tokens of single bytes.
    bytes_at: U32,
    unknown_score: U64,
}

/// A Unigram vocabulary in its buffer.
#[derive(Clone, Copy)]
pub(super) struct Unigram<'a> {
    units: &'a [U64],
    /// Scores by id, as bits.
    scores: &'a [U64],
    root: usize,
    longest: usize,
    unknown: u32,
    unknown_score: f64,
    spelled: u32,
    /// If unknown characters become their bytes: ids of these.
    bytes: Option<&'a [U32; 256]>,
}

impl<'a> Unigram<'a> {
    /// The section at `at`; none if it is not wholly there.
    pub(super) fn read(whole: &'a [u8], at: usize) -> Option<Self> {
        let (head, _) = Head::ref_from_prefix(whole.get(at..)?).ok()?;
        let table = |at: U32| whole.get(at.get() as usize..);
        let (units, _) =
            <[U64]>::ref_from_prefix_with_elems(table(head.units_at)?, head.units.get() as usize).ok()?;
        let (scores, _) =
            <[U64]>::ref_from_prefix_with_elems(table(head.scores_at)?, head.tokens.get() as usize).ok()?;
        let bytes = if head.flags.get() & BYTES != 0 {
            Some(<[U32; 256]>::ref_from_prefix(table(head.bytes_at)?).ok()?.0)
        } else {
            None
        };
        let longest = head.longest.get() as usize;
        (longest <= LONGEST).then_some(Self {
            units,
            scores,
            root: head.root.get() as usize,
            longest,
            unknown: head.unknown.get(),
            unknown_score: f64::from_bits(head.unknown_score.get()),
            spelled: head.spelled.get(),
            bytes,
        })
    }

    /// Longest token in bytes, at least that of any character.
    pub(super) fn longest(&self) -> usize {
        self.longest.max(4)
    }

    /// Shows the tokens that a text begins with, shorter ones first: length, id, score. If its first character is no token, that
    /// is shown last, without an id.
    ///
    /// Returns the length of the first character.
    #[inline]
    fn edges(&self, text: &[u8], mut edge: impl FnMut(usize, Option<u32>, f64)) -> usize {
        let width = match text.first() {
            Some(0xF0..) => 4,
            Some(0xE0..) => 3,
            Some(0xC0..) => 2,
            _ => 1,
        }
        .min(text.len());
        let (mut base, mut single) = (self.root, false);
        // A token is never longer than this, whatever a damaged trie says.
        for (&byte, length) in text.iter().zip(1..=self.longest) {
            let Some(unit) = self.units.get(base ^ usize::from(byte)).map(|unit| unit.get()) else {
                break;
            };
            if unit & (THERE | 0xFF) != THERE | u64::from(byte) {
                break;
            }
            base = (unit >> BASE_SHIFT) as usize & ((1 << BASE_BITS) - 1);
            let token = (unit >> TOKEN_SHIFT) as u32;
            if token > 0 {
                let id = token - 1;
                let score = self.scores.get(id as usize).map_or(0, |bits| bits.get());
                single |= length == width;
                edge(length, Some(id), f64::from_bits(score));
            }
        }
        if !single {
            edge(width, None, self.unknown_score);
        }
        width
    }

    /// Ids of a piece's tokens, for tests and tools.
    pub(super) fn encode(&self, piece: &[u8], out: &mut Vec<u32>) {
        /// The best way to a place: its score, where its last token begins, and that token.
        type Way = (f64, usize, Option<u32>);
        let mut ways: Vec<Way> = vec![(f64::NEG_INFINITY, 0, None); piece.len() + 1];
        if let Some(first) = ways.first_mut() {
            first.0 = 0.0;
        }
        let mut at = 0;
        while at < piece.len() {
            let here = ways.get(at).map_or(0.0, |way| way.0);
            let rest = piece.get(at..).unwrap_or_default();
            at += self.edges(rest, |length, id, score| {
                if let Some(way) = ways.get_mut(at + length)
                    && here + score > way.0
                {
                    *way = (here + score, at, id);
                }
            });
        }
        let (mut tokens, mut end) = (Vec::new(), piece.len());
        while let Some(&(_, start, id)) = ways.get(end).filter(|way| way.1 < end) {
            tokens.push((start, end, id));
            end = start;
        }
        tokens.reverse();
        let is_unknown = |id: Option<u32>| id.is_none_or(|id| id == self.unknown);
        for run in tokens.chunk_by(|left, right| is_unknown(left.2) && is_unknown(right.2)) {
            match (run, self.bytes) {
                (&[(.., Some(id))], _) => out.push(id),
                (&[(start, ..), .., (_, end, _)], Some(bytes)) | (&[(start, end, _)], Some(bytes)) => out
                    .extend(
                        piece
                            .get(start..end)
                            .unwrap_or_default()
                            .iter()
                            .map(|byte| bytes.get(usize::from(*byte)).map_or(0, |id| id.get())),
                    ),
                _ => out.push(self.unknown),
            }
        }
    }
}
