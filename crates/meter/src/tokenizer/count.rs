//! Counting and encoding whole texts.

use super::Vocabulary;
use super::cache::{PieceCache, Place};
use super::merge::{FIRST_WINDOW, LongPiece, Merger, WINDOW};
use super::normalize::Preparation;
use super::program::{Part, Scratch};
use super::split::{
    Cl100k, DeepSeek, EachSpace, Gpt2, Kimi, Llama3, O200k, Pattern, Qwen2, Qwen35, Split, Tekken, Whole,
};
use super::unigram::Tiling;
use crate::counter::TokenCounter;

/// Counts tokens with one vocabulary. Holds scratch space and small caches (about 400 KB in all), so one per worker
/// and vocabulary is enough. Counting allocates nothing as long as no piece of a text is longer than 256 bytes.
pub struct Counter<'v> {
    vocabulary: Vocabulary<'v>,
    merger: Box<Merger>,
    pieces: PieceCache,
    /// A text as its vocabulary wants it.
    prepared: String,
    /// Memory of the program that normalizes texts, if there is one.
    scratch: Scratch,
    /// At the beginning of a piece; for Unigram vocabularies.
    tiling: Option<Tiling>,
}

/// Prepared texts up to this size keep their memory for the next one.
const KEPT: usize = 64 * 1024;

/// A text that is not in parts.
const WHOLE: Part = Part {
    beginning: true,
    last: true,
};

/// Where counting pauses.
#[derive(Clone, Copy)]
struct Stop {
    until: usize,
    longest: usize,
}

impl<'v> Counter<'v> {
    /// A counter over a vocabulary.
    pub fn new(vocabulary: Vocabulary<'v>) -> Self {
        Self {
            vocabulary,
            merger: Box::new(Merger::new()),
            pieces: PieceCache::new(),
            prepared: String::new(),
            scratch: Scratch::default(),
            tiling: vocabulary.unigram().map(Tiling::new),
        }
    }

    /// The vocabulary that is counted with.
    pub fn vocabulary(&self) -> &Vocabulary<'v> {
        &self.vocabulary
    }

    /// Token ids of a text. Special tokens' spellings are ordinary text. For tests and tools; counting is faster.
    pub fn encode(&mut self, text: &str) -> Vec<u32> {
        self.encode_in_windows(text, FIRST_WINDOW)
    }

    /// As [`Counter::encode`], merging at most `window` bytes at once (at least 1): tests make windows meet more often.
    #[doc(hidden)]
    pub fn encode_in_windows(&mut self, text: &str, window: usize) -> Vec<u32> {
        let mut prepared = std::mem::take(&mut self.prepared);
        let mut scratch = std::mem::take(&mut self.scratch);
        let text = self.normal(text, WHOLE, &mut scratch, &mut prepared);
        let (mut at, mut ids) = (0, Vec::new());
        while at < text.len() {
            let end = self.vocabulary.piece_end(text, at);
            let piece = text.as_bytes().get(at..end).unwrap_or_default();
            if let Some(unigram) = self.vocabulary.unigram() {
                unigram.encode(piece, &mut ids);
                at = end;
                continue;
            }
            match self.vocabulary.rank(piece) {
                Some(rank) => ids.push(rank),
                None => self
                    .merger
                    .encode(&self.vocabulary, piece, window.clamp(1, WINDOW), &mut ids),
            }
            at = end;
        }
        for id in &mut ids {
            *id = self.vocabulary.id(*id);
        }
        self.keep_both(scratch, prepared);
        ids
    }

    /// Counts a part of a text that was cut where cuts are certain; `part` says which one.
    pub(super) fn count_part(&mut self, text: &str, part: Part) -> u64 {
        let mut prepared = std::mem::take(&mut self.prepared);
        let mut scratch = std::mem::take(&mut self.scratch);
        let text = self.normal(text, part, &mut scratch, &mut prepared);
        let count = self.count_pieces(text, text.len());
        self.keep_both(scratch, prepared);
        count
    }

    /// A part of a text as it is split.
    fn normal<'t>(
        &self,
        text: &'t str,
        part: Part,
        scratch: &'t mut Scratch,
        prepared: &'t mut String,
    ) -> &'t str {
        let text = match self.vocabulary.program() {
            Some(program) => program.apply(text, part, scratch),
            None => text,
        };
        self.vocabulary
            .preparation()
            .apply(text, part.beginning, prepared)
    }

    /// A text as it is split, for tests and tools.
    pub(super) fn prepared(&mut self, text: &str) -> String {
        let mut out = String::new();
        self.prepare_part(text, WHOLE, &mut out);
        out
    }

    fn keep_both(&mut self, mut scratch: Scratch, prepared: String) {
        scratch.shrink(KEPT);
        self.scratch = scratch;
        self.keep(prepared);
    }

    /// Prepares the beginning of a text, as far as nothing that may follow changes it, and returns where that ends.
    pub(super) fn prepare_head(&mut self, text: &mut String, beginning: bool) -> usize {
        let preparation = self.vocabulary.preparation();
        let boundary = preparation.last_boundary(text);
        let mut prepared = std::mem::take(&mut self.prepared);
        let head = text.get(..boundary).unwrap_or_default();
        let normal = preparation.apply(head, beginning, &mut prepared);
        let end = normal.len();
        if normal != head {
            let normal = std::mem::take(&mut prepared);
            text.replace_range(..boundary, &normal);
        }
        self.keep(prepared);
        end
    }

    fn keep(&mut self, mut prepared: String) {
        prepared.clear();
        prepared.shrink_to(KEPT);
        self.prepared = prepared;
    }

    /// Counts the pieces of a prepared text that begin before `end`.
    pub(super) fn count_pieces(&mut self, text: &str, end: usize) -> u64 {
        self.count_from(text, &mut 0, end, usize::MAX)
    }

    /// Counts a prepared text's pieces from `at` on, a piece's beginning: as long as they begin before `until`, up to one
    /// of more than `longest` bytes. `at` is then where the next one begins.
    pub(super) fn count_from(&mut self, text: &str, at: &mut usize, until: usize, longest: usize) -> u64 {
        let text = text.as_bytes();
        let stop = Stop { until, longest };
        match self.vocabulary.pattern() {
            Pattern::Cl100k => self.count_split(Cl100k, text, at, stop),
            Pattern::O200k => self.count_split(O200k, text, at, stop),
            Pattern::Gpt2 => self.count_split(Gpt2, text, at, stop),
            Pattern::Llama3 => self.count_split(Llama3, text, at, stop),
            Pattern::Qwen2 => self.count_split(Qwen2, text, at, stop),
            Pattern::Qwen35 => self.count_split(Qwen35, text, at, stop),
            Pattern::DeepSeek => self.count_split(DeepSeek, text, at, stop),
            Pattern::Kimi => self.count_split(Kimi, text, at, stop),
            Pattern::Tekken => self.count_split(Tekken, text, at, stop),
            Pattern::EachSpace => self.count_split(EachSpace, text, at, stop),
            Pattern::Whole => self.count_split(Whole, text, at, stop),
            Pattern::Spaces => self.count_split(self.vocabulary.spaces(), text, at, stop),
        }
    }

    fn count_split<S: Split>(&mut self, split: S, text: &[u8], from: &mut usize, stop: Stop) -> u64 {
        let (mut at, mut count) = (*from, 0);
        while at < text.len().min(stop.until) {
            let end = split.piece_end(text, at);
            let piece = text.get(at..end).unwrap_or_default();
            if piece.len() > stop.longest {
                break;
            }
            count += self.count_piece(piece);
            at = end;
        }
        *from = at;
        count
    }

    /// Counts on in a piece that is long enough to be counted with pauses; true once it is counted.
    pub(super) fn count_on(&mut self, piece: &[u8], long: &mut LongPiece) -> bool {
        self.merger.count_on(&self.vocabulary, piece, long)
    }

    /// Walks on in a piece of a Unigram vocabulary, of which `rest` is left; the bytes that were walked over.
    pub(super) fn walk_on(&self, tiling: &mut Tiling, rest: &[u8], bytes: usize) -> usize {
        match self.vocabulary.unigram() {
            Some(model) => tiling.walk(model, rest, bytes),
            None => rest.len(),
        }
    }

    /// Whether texts are split as they are.
    pub(super) fn takes_plain(&self) -> bool {
        self.vocabulary.preparation() == Preparation::default() && self.vocabulary.program().is_none()
    }

    /// The last position before which a text can be prepared without what follows, whatever more may follow.
    pub(super) fn last_boundary(&self, text: &str) -> usize {
        match self.vocabulary.program() {
            Some(program) => program.last_boundary(text),
            None => self.vocabulary.preparation().last_boundary(text),
        }
    }

    /// Writes a part of a text, as it is split, behind what `out` holds.
    pub(super) fn prepare_part(&mut self, text: &str, part: Part, out: &mut String) {
        let mut prepared = std::mem::take(&mut self.prepared);
        let mut scratch = std::mem::take(&mut self.scratch);
        out.push_str(self.normal(text, part, &mut scratch, &mut prepared));
        self.keep_both(scratch, prepared);
    }

    /// Moves what of `text` can be prepared without what follows it to the end of `out`; all of it if `last`. Returns
    /// whether anything was moved.
    pub(super) fn prepare(
        &mut self,
        text: &mut String,
        beginning: bool,
        last: bool,
        out: &mut String,
    ) -> bool {
        let boundary = if last {
            text.len()
        } else {
            self.last_boundary(text)
        };
        let head = text.get(..boundary).unwrap_or_default();
        self.prepare_part(head, Part { beginning, last }, out);
        text.drain(..boundary);
        boundary > 0
    }

    #[inline]
    fn count_piece(&mut self, piece: &[u8]) -> u64 {
        if piece.len() == 1 {
            return 1;
        }
        let place = PieceCache::place(piece);
        let cached = self.pieces.get(place);
        if cached > 0 {
            return cached;
        }
        if let (Some(unigram), Some(tiling)) = (self.vocabulary.unigram(), &mut self.tiling) {
            tiling.walk(unigram, piece, piece.len());
            let count = tiling.finish();
            self.pieces.put(place, count);
            return count;
        }
        // What is too long for the cache and ends beyond ASCII is a clause of Chinese or the like, hardly ever a token.
        let clause = matches!(place, Place::Nowhere) && piece.last().is_some_and(|byte| !byte.is_ascii());
        let lookup = !clause || piece.len() <= self.vocabulary.longest_unreachable();
        let count = if lookup && self.vocabulary.contains(piece) {
            1
        } else {
            self.merger.count(&self.vocabulary, piece)
        };
        self.pieces.put(place, count);
        count
    }
}

impl TokenCounter for Counter<'_> {
    fn count(&mut self, text: &str) -> u64 {
        self.count_part(text, WHOLE)
    }
}
