//! DeepSeek V3's pattern: three splits, each of what the previous one left whole.
//!
//! ```text
//! \p{N}{1,3}
//! [一-龥\u3040-\u309f\u30a0-\u30ff]+
//! [!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
//! ```
//! The third one sees a text end where a number or an ideograph begins, which decides about white space before these.
//! What it does not match, controls and format characters before anything but letters, makes a piece of its own.
#![expect(
    clippy::indexing_slicing,
    reason = "positions only move forward past bytes that were read, and `at < text.len()` is checked before each read"
)]

use super::super::class::{GRAPHIC, KANA_OR_IDEOGRAPH, LETTER, MARK, NEWLINE, NUMBER, OTHER};
use super::Split;
use super::scan::{class_at, line_breaks, lower_ascii_run, numbers, run, run_without, white_run};

pub(crate) struct DeepSeek;

/// The second split's characters are none of the third one's, whatever else they are.
const APART: u16 = KANA_OR_IDEOGRAPH;

impl Split for DeepSeek {
    #[inline]
    fn piece_end(&self, text: &[u8], at: usize) -> usize {
        let (class, len) = class_at(text, at);
        let next = at + len;
        if class & NUMBER != 0 {
            return numbers(text, next, 2);
        }
        if class & APART != 0 {
            return run(text, next, APART);
        }
        if class & (LETTER | MARK) != 0 {
            return word_end(text, next);
        }
        if text[at].is_ascii_punctuation() {
            let mut end = next;
            while end < text.len() && text[end].is_ascii_alphabetic() {
                end += 1;
            }
            if end > next {
                return end;
            }
        }
        if class & GRAPHIC != 0 {
            return symbols_end(text, next);
        }
        if class & NEWLINE == 0 {
            let end = word_end(text, next);
            if end > next {
                return end;
            }
        }
        if class & OTHER != 0 {
            return unmatched_end(text, next);
        }
        if text[at] == b' ' {
            let end = symbols_end(text, next);
            if end > next && !matches!(text[next], b'\r' | b'\n') {
                return end;
            }
        }
        let white = white_run(text, at, len);
        let ends = white.end == text.len() || class_at(text, white.end).0 & (NUMBER | APART) != 0;
        white.cut(ends)
    }
}

/// End of `[\p{L}\p{M}]*`.
#[inline]
fn word_end(text: &[u8], at: usize) -> usize {
    run_without(text, lower_ascii_run(text, at), LETTER | MARK, APART)
}

/// End of `[\p{P}\p{S}]*[\r\n]*`.
#[inline]
fn symbols_end(text: &[u8], at: usize) -> usize {
    line_breaks(text, run_without(text, at, GRAPHIC, APART), false)
}

/// End of a run of characters that nothing matches, but for the last one if letters follow, whose prefix it is.
fn unmatched_end(text: &[u8], mut at: usize) -> usize {
    let mut last = at;
    while at < text.len() {
        let (class, len) = class_at(text, at);
        if class & APART != 0 || class & OTHER == 0 {
            return if class & (LETTER | MARK) != 0 && class & APART == 0 {
                last
            } else {
                at
            };
        }
        last = at;
        at += len;
    }
    at
}
