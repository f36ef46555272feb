//! Counting a text that arrives in pieces.

use super::program::Part;
use super::unigram::Stream;
use super::{Counter, Vocabulary};

/// Bytes that may wait for a certain cut before what is certain is looked for piece by piece.
const TAIL_LIMIT: usize = 16 * 1024;

/// Counts a text that arrives in pieces of any size, as if it had come as a whole.
///
/// Only the unfinished end is kept. A cut is certain where a visible ASCII character is followed by a space: in every
/// pattern here a space begins a piece or stands inside white space, and nothing looks ahead across that point. Where
/// 16 KB hold no such point (long CJK texts, base64), the text is split and all but the last two pieces are counted:
/// what decides about a piece's end lies at the latest in the next piece or its following character.
///
/// Exact, with one exception: a *single piece* of 16 KB or more (a run of one letter, say) is counted in parts and may
/// then come out a token or two too high per 16 KB. A finished text is better counted whole.
/// Of Unigram vocabularies, texts are exact in that case, too, and inexact where 16 KB hold no place at which they may be
/// normalized apart, as is true of marks without letters.
///
/// The counter is lent for each push, so that ten thousand streams share one: a stream costs these 48 bytes and the
/// capacity of its tail, which shrinks as the tail does.
#[derive(Debug, Clone, Default)]
pub struct StreamCounter {
    tail: String,
    count: u64,
    /// Something was counted: what comes next is not the beginning.
    begun: bool,
    /// The text, if the vocabulary is a Unigram model.
    unigram: Option<Box<Stream>>,
}

const _: () = assert!(size_of::<StreamCounter>() <= 64);

impl StreamCounter {
    /// Nothing counted yet.
    pub const fn new() -> Self {
        Self {
            tail: String::new(),
            count: 0,
            begun: false,
            unigram: None,
        }
    }

    /// Counts the next part of the text.
    pub fn push(&mut self, counter: &mut Counter<'_>, text: &str) {
        let mut rest = text;
        while !rest.is_empty() {
            let (part, after) = rest.split_at(rest.floor_char_boundary(TAIL_LIMIT));
            rest = after;
            if counter.vocabulary().unigram().is_some() {
                self.unigram.get_or_insert_default().push(counter, part);
            } else {
                self.push_part(counter, part);
            }
        }
    }

    fn push_part(&mut self, counter: &mut Counter<'_>, part: &str) {
        // The tail was searched when it came; only its last byte can make a cut with what is new.
        let searched = self.tail.len().saturating_sub(1);
        self.tail.push_str(part);
        let new = self.tail.as_bytes().get(searched..).unwrap_or_default();
        let cut = new
            .array_windows()
            .rposition(|[before, after]| *after == b' ' && counter.vocabulary().cuts_behind(*before));
        if let Some(at) = cut {
            self.count_to(counter, searched + at + 1);
        }
        if self.tail.len() >= TAIL_LIMIT {
            self.count_certain(counter);
        }
    }

    /// Counts what is certain of a tail without certain cuts, or all of it if that is nothing.
    fn count_certain(&mut self, counter: &mut Counter<'_>) {
        // Pieces are those of the prepared text; preparing it again changes nothing.
        let prepared = counter.prepare_head(&mut self.tail, !self.begun);
        self.begun = true;
        let head = self.tail.get(..prepared).unwrap_or_default();
        let (head, end) = match certain_end(counter.vocabulary(), head) {
            0 => (self.tail.as_str(), self.tail.len()),
            end => (head, end),
        };
        // What follows the certain pieces decides about the last of them, so it must be seen.
        self.count += counter.count_pieces(head, end);
        self.drop_to(end);
    }

    /// Counts and drops the tail's first `end` bytes, a cut.
    fn count_to(&mut self, counter: &mut Counter<'_>, end: usize) {
        let part = Part {
            beginning: !self.begun,
            last: false,
        };
        self.count += counter.count_part(self.tail.get(..end).unwrap_or_default(), part);
        self.begun |= end > 0;
        self.drop_to(end);
    }

    fn drop_to(&mut self, end: usize) {
        self.tail.drain(..end);
        self.tail.shrink_to(64);
    }

    /// Tokens that are certain so far: those of all text except an unfinished end.
    pub fn counted(&self) -> u64 {
        self.count + self.unigram.as_ref().map_or(0, |stream| stream.counted())
    }

    /// Bytes that wait for more text.
    pub fn pending(&self) -> usize {
        self.tail.len() + self.unigram.as_ref().map_or(0, |stream| stream.pending())
    }

    /// Counts the rest and returns the total.
    pub fn finish(mut self, counter: &mut Counter<'_>) -> u64 {
        if let Some(stream) = &mut self.unigram {
            return stream.finish(counter);
        }
        let end = self.tail.len();
        self.count_to(counter, end);
        self.count
    }
}

/// End of the last piece that two more pieces follow; 0 if there is none.
fn certain_end(vocabulary: &Vocabulary<'_>, text: &str) -> usize {
    let (mut at, mut ends) = (0, [0; 3]);
    while at < text.len() {
        at = vocabulary.piece_end(text, at);
        ends = [ends[1], ends[2], at];
    }
    ends[0]
}
