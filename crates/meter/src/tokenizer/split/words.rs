//! Patterns whose words are runs of letters: cl100k, Llama 3 and GLM, Qwen.
//!
//! cl100k_base, as tiktoken publishes it (`++` and the like do not give back what they took):
//! ```text
//! '(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s
//! ```
//! Llama 3 and GLM 4 (Qwen 2 has `\p{N}` for `\p{N}{1,3}`; Qwen 3.5 also counts marks among the letters, that is
//! `[\p{L}\p{M}]+` for `\p{L}+` and `[^\s\p{L}\p{M}\p{N}]+` for `[^\s\p{L}\p{N}]+`):
//! ```text
//! (?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+
//! ```
#![expect(
    clippy::indexing_slicing,
    reason = "`at` is below `text.len()` by the trait's contract"
)]

use super::super::class::{LETTER, MARK, NEWLINE, NUMBER, SIGN, SYMBOL};
use super::Split;
use super::scan::{class_at, contraction, line_breaks, numbers, run, white_run, word_run};

/// What tells these patterns apart.
trait Rules {
    /// What words consist of.
    const LETTERS: u16 = LETTER;
    /// What runs of symbols consist of.
    const SYMBOLS: u16 = SYMBOL;
    /// Numbers in a piece behind the first one.
    const MORE_NUMBERS: usize = 2;
    /// Whether white space that ends the text is one piece, line breaks or not.
    const WHOLE_TAIL: bool = false;
}

pub(crate) struct Cl100k;
pub(crate) struct Llama3;
pub(crate) struct Qwen2;
pub(crate) struct Qwen35;

impl Rules for Cl100k {
    const WHOLE_TAIL: bool = true;
}

impl Rules for Llama3 {}

impl Rules for Qwen2 {
    const MORE_NUMBERS: usize = 0;
}

impl Rules for Qwen35 {
    const LETTERS: u16 = LETTER | MARK;
    const SYMBOLS: u16 = SIGN;
    const MORE_NUMBERS: usize = 0;
}

impl<R: Rules> Split for R {
    #[inline]
    fn piece_end(&self, text: &[u8], at: usize) -> usize {
        let (class, len) = class_at(text, at);
        let next = at + len;
        if class & R::LETTERS != 0 {
            return word_run(text, next, R::LETTERS);
        }
        if class & NUMBER != 0 {
            return numbers(text, next, R::MORE_NUMBERS);
        }
        if class & NEWLINE == 0 {
            if text[at] == b'\'' {
                let end = contraction(text, at);
                if end > at {
                    return end;
                }
            }
            let end = word_run(text, next, R::LETTERS);
            if end > next {
                return end;
            }
            if class & R::SYMBOLS != 0 {
                return line_breaks(text, run(text, next, R::SYMBOLS), false);
            }
            if text[at] == b' ' {
                let end = run(text, next, R::SYMBOLS);
                if end > next {
                    return line_breaks(text, end, false);
                }
            }
        }
        let white = white_run(text, at, len);
        if R::WHOLE_TAIL && white.end == text.len() {
            white.end
        } else {
            white.cut(white.end == text.len())
        }
    }
}
