//! Counting and encoding whole texts.

use super::Vocabulary;
use super::cache::{PieceCache, Place};
use super::merge::{FIRST_WINDOW, Merger, WINDOW};
use super::split::{
    Cl100k, DeepSeek, EachSpace, Gpt2, Kimi, Llama3, O200k, Pattern, Qwen2, Qwen35, Split, Tekken,
};
use crate::counter::TokenCounter;

/// Counts tokens with one vocabulary. Holds scratch space and small caches (about 370 KB in all), so one per worker
/// and vocabulary is enough. Counting allocates nothing as long as no piece of a text is longer than 256 bytes.
pub struct Counter<'v> {
    vocabulary: Vocabulary<'v>,
    merger: Box<Merger>,
    pieces: PieceCache,
    /// A text as its vocabulary wants it.
    prepared: String,
}

/// Prepared texts up to this size keep their memory for the next one.
const KEPT: usize = 64 * 1024;

impl<'v> Counter<'v> {
    /// A counter over a vocabulary.
    pub fn new(vocabulary: Vocabulary<'v>) -> Self {
        Self {
            vocabulary,
            merger: Box::new(Merger::new()),
            pieces: PieceCache::new(),
            prepared: String::new(),
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
        let text = self.vocabulary.preparation().apply(text, true, &mut prepared);
        let (mut at, mut ids) = (0, Vec::new());
        while at < text.len() {
            let end = self.vocabulary.piece_end(text, at);
            let piece = text.as_bytes().get(at..end).unwrap_or_default();
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
        self.keep(prepared);
        ids
    }

    /// Counts a part of a text that was cut where cuts are certain; `beginning` if it is the first one.
    pub(super) fn count_part(&mut self, text: &str, beginning: bool) -> u64 {
        let mut prepared = std::mem::take(&mut self.prepared);
        let text = self
            .vocabulary
            .preparation()
            .apply(text, beginning, &mut prepared);
        let count = self.count_pieces(text, text.len());
        self.keep(prepared);
        count
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
        let bytes = text.as_bytes();
        match self.vocabulary.pattern() {
            Pattern::Cl100k => self.count_split(Cl100k, bytes, end),
            Pattern::O200k => self.count_split(O200k, bytes, end),
            Pattern::Gpt2 => self.count_split(Gpt2, bytes, end),
            Pattern::Llama3 => self.count_split(Llama3, bytes, end),
            Pattern::Qwen2 => self.count_split(Qwen2, bytes, end),
            Pattern::Qwen35 => self.count_split(Qwen35, bytes, end),
            Pattern::DeepSeek => self.count_split(DeepSeek, bytes, end),
            Pattern::Kimi => self.count_split(Kimi, bytes, end),
            Pattern::Tekken => self.count_split(Tekken, bytes, end),
            Pattern::EachSpace => self.count_split(EachSpace, bytes, end),
            Pattern::Spaces => self.count_split(self.vocabulary.spaces(), bytes, end),
        }
    }

    fn count_split<S: Split>(&mut self, split: S, text: &[u8], until: usize) -> u64 {
        let (mut at, mut count) = (0, 0);
        while at < until {
            let end = split.piece_end(text, at);
            let piece = text.get(at..end).unwrap_or_default();
            count += self.count_piece(piece);
            at = end;
        }
        count
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
        // What is too long for the cache and ends beyond ASCII is a clause of Chinese or the like, hardly ever a token.
        let clause = matches!(place, Place::Nowhere) && piece.last().is_some_and(|byte| !byte.is_ascii());
        let lookup = !clause || !self.vocabulary.all_reachable();
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
        self.count_part(text, true)
    }
}
