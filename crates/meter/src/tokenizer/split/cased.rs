//! Patterns that part words where capitals begin: o200k, Kimi, tekken.
//!
//! o200k_base (with `T = (?i:'s|'t|'re|'ve|'m|'ll|'d)?`):
//! ```text
//! [^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+T
//! |[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*T
//! |\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+
//! ```
//! Tekken (Mistral) has no `T` and single numbers, `\p{N}`. Kimi begins with `[\p{Han}]+|`, has no Han in its words
//! and `[\r\n]*` for `[\r\n/]*`.
#![expect(
    clippy::indexing_slicing,
    reason = "`at` is below `text.len()` by the trait's contract"
)]

use super::super::class::{CASELESS, HAN, LETTER, LOWER, MARK, NEWLINE, NUMBER, SIGN, SYMBOL, UPPER};
use super::Split;
use super::scan::{
    class_at, contraction, line_breaks, lower_ascii_run, numbers, run, run_without, white_run,
};

pub(crate) struct O200k;
pub(crate) struct Kimi;
pub(crate) struct Tekken;

impl Split for O200k {
    #[inline]
    fn piece_end(&self, text: &[u8], at: usize) -> usize {
        piece_end::<true, 2, true, false>(text, at)
    }
}

impl Split for Kimi {
    #[inline]
    fn piece_end(&self, text: &[u8], at: usize) -> usize {
        piece_end::<true, 2, false, true>(text, at)
    }
}

impl Split for Tekken {
    #[inline]
    fn piece_end(&self, text: &[u8], at: usize) -> usize {
        piece_end::<false, 0, true, false>(text, at)
    }
}

/// `CONTRACTIONS`: words take a contraction. `NUMBERS`: numbers in a piece behind the first one. `SLASHES`: slashes
/// follow symbols as line breaks do. `HAN_APART`: Han characters are pieces of their own.
#[inline]
fn piece_end<const CONTRACTIONS: bool, const NUMBERS: usize, const SLASHES: bool, const HAN_APART: bool>(
    text: &[u8],
    at: usize,
) -> usize {
    let suffix = |end| if CONTRACTIONS { contraction(text, end) } else { end };
    let (class, len) = class_at(text, at);
    let next = at + len;
    if HAN_APART && class & HAN != 0 {
        return run(text, next, HAN);
    }
    if class & LETTER != 0 {
        return suffix(cased_word::<HAN_APART>(text, at).end());
    }
    if class & NUMBER != 0 {
        return numbers(text, next, NUMBERS);
    }
    if class & NEWLINE == 0 {
        let word = cased_word::<HAN_APART>(text, next);
        if class & MARK != 0 {
            // A mark is a prefix, but also a word on its own where only capitals or nothing follow: the first
            // alternative is tried without a prefix before the second one with it.
            return suffix(if let Word::Lower(end) = word { end } else { next });
        }
        if !matches!(word, Word::None) {
            return suffix(word.end());
        }
        if class & SIGN != 0 {
            return line_breaks(text, run(text, next, SYMBOL), SLASHES);
        }
        if text[at] == b' ' {
            let end = run(text, next, SYMBOL);
            if end > next {
                return line_breaks(text, end, SLASHES);
            }
        }
    }
    let white = white_run(text, at, len);
    white.cut(white.end == text.len())
}

/// What o200k's two word alternatives match, without prefix and contraction.
enum Word {
    /// The first alternative, ending here.
    Lower(usize),
    /// Only the second one: capitals alone, ending here.
    Capitals(usize),
    /// Neither.
    None,
}

impl Word {
    #[inline]
    fn end(&self) -> usize {
        match self {
            Self::Lower(end) | Self::Capitals(end) => *end,
            Self::None => 0,
        }
    }
}

/// A word of o200k at `at`.
///
/// The first part, `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*`, takes all it can. If a lower-case letter follows, the second
/// part takes that and what belongs to it. If not, the first part gives back up to the last character that the second
/// part also takes, a caseless letter or a mark; what follows that one are capitals, so the word ends behind it.
#[inline]
fn cased_word<const HAN_APART: bool>(text: &[u8], start: usize) -> Word {
    let mut at = start;
    let mut shared_end = start;
    while at < text.len() {
        let (class, len) = class_at(text, at);
        if class & LOWER != 0 {
            let without = if HAN_APART { HAN } else { 0 };
            let rest = lower_ascii_run(text, at);
            return Word::Lower(run_without(text, rest, LOWER | CASELESS | MARK, without));
        }
        if class & (UPPER | CASELESS | MARK) == 0 || HAN_APART && class & HAN != 0 {
            break;
        }
        at += len;
        if class & UPPER == 0 {
            shared_end = at;
        }
    }
    if shared_end > start {
        Word::Lower(shared_end)
    } else if at > start {
        Word::Capitals(at)
    } else {
        Word::None
    }
}
