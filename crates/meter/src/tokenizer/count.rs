//! Counting and encoding whole texts.

use super::Vocabulary;
use super::cache::{PieceCache, Place};
use super::merge::{FIRST_WINDOW, Merger, WINDOW};
use super::split::{Cl100k, O200k, Pattern, Split};
use crate::counter::TokenCounter;

/// Counts tokens with one vocabulary. Holds scratch space and small caches (about 370 KB in all), so one per worker
/// and vocabulary is enough. Counting allocates nothing as long as no piece of a text is longer than 256 bytes.
pub struct Counter<'v> {
    vocabulary: Vocabulary<'v>,
    merger: Box<Merger>,
    pieces: PieceCache,
}

impl<'v> Counter<'v> {
    /// A counter over a vocabulary.
    pub fn new(vocabulary: Vocabulary<'v>) -> Self {
        Self {
            vocabulary,
            merger: Box::new(Merger::new()),
            pieces: PieceCache::new(),
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
        let (mut at, mut ids) = (0, Vec::new());
        while at < text.len() {
            let end = self.vocabulary.pattern().piece_end(text, at);
            let piece = text.as_bytes().get(at..end).unwrap_or_default();
            match self.vocabulary.rank(piece) {
                Some(rank) => ids.push(rank),
                None => self
                    .merger
                    .encode(&self.vocabulary, piece, window.clamp(1, WINDOW), &mut ids),
            }
            at = end;
        }
        ids
    }

    fn count_split<S: Split>(&mut self, text: &[u8]) -> u64 {
        let (mut at, mut count) = (0, 0);
        while at < text.len() {
            let end = S::piece_end(text, at);
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
        match self.vocabulary.pattern() {
            Pattern::Cl100k => self.count_split::<Cl100k>(text.as_bytes()),
            Pattern::O200k => self.count_split::<O200k>(text.as_bytes()),
        }
    }
}
