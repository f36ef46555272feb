//! Counting a text that is there as a whole, with pauses.

use super::Counter;
use super::merge::LongPiece;
use super::unigram::Tiling;

/// Pieces of more bytes are counted with pauses. No token is as long.
const LONG: usize = 2048;
/// Bytes that are normalized at once at least, if more comes.
const NORMALIZED: usize = 4096;
/// Bytes of a long piece of a Unigram vocabulary that are walked over between two looks at what is left.
const STRIDE: usize = 1024;

/// Counts a text in steps, so that other work is done in between. Exact: equal to counting it at once.
///
/// The text is fed first, part by part, and kept: what a piece is, is certain only when the text is whole. The end of a
/// piece is looked for at once, at the speed of reading.
#[derive(Debug, Clone, Default)]
pub struct StepCounter {
    /// Not as the vocabulary wants it yet.
    fed: String,
    /// Bytes that must wait before it is looked again for a place where they may be normalized apart.
    hold: usize,
    /// Ready to be counted.
    text: String,
    begun: bool,
    at: usize,
    count: u64,
    /// The piece at `at`: its end, and how far it is counted.
    long: Option<(usize, Long)>,
}

/// How far a long piece is counted.
#[derive(Debug, Clone)]
enum Long {
    Merged(LongPiece),
    /// With the bytes that were walked over.
    Tiled(Tiling, usize),
}

impl StepCounter {
    /// Takes the next part of the text; `last` if it is the last one, which may be empty. The same counter each time.
    pub fn feed(&mut self, counter: &mut Counter<'_>, part: &str, last: bool) {
        if counter.takes_plain() {
            self.text.push_str(part);
            return;
        }
        self.fed.push_str(part);
        if self.fed.len() < self.hold && !last {
            return;
        }
        self.begun |= counter.prepare(&mut self.fed, !self.begun, last, &mut self.text);
        // Where nothing can be taken apart, it is not looked for with every part anew.
        self.hold = (2 * self.fed.len()).max(NORMALIZED);
    }

    /// Counts on in the text, which has been fed, until about `left` bytes are counted; takes what it counts from `left`.
    /// The total once all is counted.
    pub fn step(&mut self, counter: &mut Counter<'_>, left: &mut usize) -> Option<u64> {
        loop {
            while let Some((end, long)) = &mut self.long {
                if *left == 0 {
                    return None;
                }
                let piece = self.text.as_bytes().get(self.at..*end).unwrap_or_default();
                let counted = match long {
                    Long::Merged(long) => {
                        *left = left.saturating_sub(long.step());
                        counter.count_on(piece, long).then_some(long.count)
                    }
                    Long::Tiled(tiling, walked) => {
                        let rest = piece.get(*walked..).unwrap_or_default();
                        *walked += counter.walk_on(tiling, rest, STRIDE);
                        *left = left.saturating_sub(STRIDE);
                        (*walked >= piece.len()).then(|| tiling.finish())
                    }
                };
                if let Some(count) = counted {
                    self.count += count;
                    self.at = *end;
                    self.long = None;
                }
            }
            let before = self.at;
            let until = before.saturating_add(*left);
            self.count += counter.count_from(&self.text, &mut self.at, until, LONG);
            *left = left.saturating_sub(self.at - before);
            if self.at >= self.text.len() {
                return Some(self.count);
            }
            if self.at >= until {
                return None;
            }
            let end = counter.vocabulary().piece_end(&self.text, self.at);
            let long = match counter.vocabulary().unigram() {
                Some(model) => Long::Tiled(Tiling::new(model), 0),
                None => Long::Merged(LongPiece::default()),
            };
            self.long = Some((end, long));
        }
    }
}
