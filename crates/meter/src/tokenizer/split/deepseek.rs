//! DeepSeek V3's pattern: three splits, each of what the previous one left whole.
//!
//! ```text
//! \p{N}{1,3}
//! [一-龥\u3040-\u309f\u30a0-\u30ff]+
//! [!-/:-@\[-`{-~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
//! ```
//! The third one also splits what the second one took apart (kana are letters, but their iteration and sound marks are
//! symbols), and sees a text end where a number or an ideograph begins, which decides about white space before these.
//! What it does not match, controls and format characters before anything but letters, makes a piece of its own.
#![expect(
    clippy::indexing_slicing,
    reason = "positions only move forward past bytes that were read, and `at < text.len()` is checked before each read"
)]

use super::super::class::{GRAPHIC, KANA_OR_IDEOGRAPH, LETTER, MARK, NEWLINE, NUMBER, OTHER};
use super::Split;
use super::scan::{class_at, line_breaks, lower_ascii_run, numbers, white_run};

pub(crate) struct DeepSeek;

/// What the second split takes apart: nothing of the third one goes over its borders.
const APART: u16 = KANA_OR_IDEOGRAPH;

impl Split for DeepSeek {
    #[inline]
    fn piece_end(&self, text: &[u8], at: usize) -> usize {
        let (class, len) = class_at(text, at);
        let next = at + len;
        let apart = class & APART;
        if class & NUMBER != 0 {
            return numbers(text, next, 2);
        }
        if class & (LETTER | MARK) != 0 {
            return word_end(text, next, apart);
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
            return symbols_end(text, next, apart);
        }
        if class & NEWLINE == 0 {
            let end = word_end(text, next, apart);
            if end > next {
                return end;
            }
        }
        if class & OTHER != 0 {
            return unmatched_end(text, next, apart);
        }
        if text[at] == b' ' {
            let end = symbols_end(text, next, apart);
            if end > next && !matches!(text[next], b'\r' | b'\n') {
                return end;
            }
        }
        let white = white_run(text, at, len);
        let ends = white.end == text.len() || class_at(text, white.end).0 & (NUMBER | APART) != 0;
        white.cut(ends)
    }
}

/// End of the run of characters of the classes in `set` on one side of the second split.
#[inline]
fn run_beside(text: &[u8], mut at: usize, set: u16, apart: u16) -> usize {
    while at < text.len() {
        let (class, len) = class_at(text, at);
        if class & set == 0 || class & APART != apart {
            break;
        }
        at += len;
    }
    at
}

/// End of `[\p{L}\p{M}]*`.
#[inline]
fn word_end(text: &[u8], mut at: usize, apart: u16) -> usize {
    if apart == 0 {
        at = lower_ascii_run(text, at);
    }
    run_beside(text, at, LETTER | MARK, apart)
}

/// End of `[\p{P}\p{S}]*[\r\n]*`.
#[inline]
fn symbols_end(text: &[u8], at: usize, apart: u16) -> usize {
    let end = run_beside(text, at, GRAPHIC, apart);
    if apart == 0 {
        line_breaks(text, end, false)
    } else {
        end
    }
}

/// End of a run of characters that nothing matches, but for the last one if letters follow, whose prefix it is.
fn unmatched_end(text: &[u8], mut at: usize, apart: u16) -> usize {
    let mut last = at;
    while at < text.len() {
        let (class, len) = class_at(text, at);
        if class & APART != apart || class & OTHER == 0 {
            let letters = class & (LETTER | MARK) != 0 && class & APART == apart;
            return if letters { last } else { at };
        }
        last = at;
        at += len;
    }
    at
}
