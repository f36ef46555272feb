//! Texts of Unigram vocabularies that arrive in parts.

use super::Tiling;
use crate::tokenizer::Counter;
use crate::tokenizer::program::{Part, Program};

/// Bytes that may wait before what is certain is counted.
const WAITING: usize = 16 * 1024;

/// A text as far as it has come: what is counted, and what waits.
///
/// Exact however the text is cut, also inside a piece of any length, unless 16 KB hold no place where a text may be
/// normalized apart (see `program`); then they are cut where that matters least.
#[derive(Debug, Clone, Default)]
pub(in crate::tokenizer) struct Stream {
    /// As it came.
    raw: String,
    /// Normalized, of the last piece: what is not walked through yet.
    ready: String,
    /// The last piece, if it was walked into.
    tiling: Option<Tiling>,
    count: u64,
    begun: bool,
}

impl Stream {
    /// Takes the next part, of at most 16 KB.
    pub(in crate::tokenizer) fn push(&mut self, counter: &mut Counter<'_>, part: &str) {
        // What waits was searched when it came; only its last byte can make a cut with what is new.
        let searched = self.raw.len().saturating_sub(1);
        self.raw.push_str(part);
        let new = self.raw.as_bytes().get(searched..).unwrap_or_default();
        let cut = new
            .array_windows()
            .rposition(|[before, after]| *after == b' ' && counter.vocabulary().cuts_behind(*before));
        if let Some(at) = cut {
            self.take(counter, searched + at + 1, false);
        }
        if self.raw.len() >= WAITING {
            let end = match counter.last_boundary(&self.raw) {
                0 => Program::forced_boundary(&self.raw),
                boundary => boundary,
            };
            self.take(counter, end, false);
        }
    }

    /// Normalizes the first `end` bytes and counts what is certain of them.
    fn take(&mut self, counter: &mut Counter<'_>, end: usize, last: bool) {
        let part = Part {
            beginning: !self.begun,
            last,
        };
        counter.prepare_part(self.raw.get(..end).unwrap_or_default(), part, &mut self.ready);
        self.begun |= end > 0;
        self.raw.drain(..end);
        self.raw.shrink_to(64);
        let mut at = 0;
        if self.tiling.is_some() {
            let end = counter.vocabulary().next_piece(&self.ready, 0);
            if end.is_some() || last {
                at = end.unwrap_or(self.ready.len());
                self.walk(counter, at, at);
                self.count += self.tiling.take().map_or(0, |mut tiling| tiling.finish());
            }
        }
        if self.tiling.is_none() {
            let end = if last {
                self.ready.len()
            } else {
                counter.vocabulary().last_piece(&self.ready, at)
            };
            self.count += counter.count_from(&self.ready, &mut at, end, usize::MAX);
        }
        self.ready.drain(..at);
        // What follows decides about tokens that begin less than the longest one before the end.
        let longest = counter.vocabulary().unigram().map_or(0, |model| model.longest());
        if self.ready.len() > 2 * longest {
            let end = self.ready.len();
            let walked = self.walk(counter, end - longest, end);
            self.ready.drain(..walked);
        }
        self.ready.shrink_to(64);
    }

    /// Walks through about `bytes` of the last piece, of which `ready` holds `end`.
    fn walk(&mut self, counter: &Counter<'_>, bytes: usize, end: usize) -> usize {
        let Some(model) = counter.vocabulary().unigram() else {
            return 0;
        };
        let piece = self.ready.as_bytes().get(..end).unwrap_or_default();
        self.tiling
            .get_or_insert_with(|| Tiling::new(model))
            .walk(model, piece, bytes)
    }

    /// Tokens that are certain so far.
    pub(in crate::tokenizer) fn counted(&self) -> u64 {
        self.count
    }

    /// Bytes that wait for more text.
    pub(in crate::tokenizer) fn pending(&self) -> usize {
        self.raw.len() + self.ready.len()
    }

    /// Counts the rest and returns the total.
    pub(in crate::tokenizer) fn finish(&mut self, counter: &mut Counter<'_>) -> u64 {
        let end = self.raw.len();
        self.take(counter, end, true);
        self.count
    }
}
