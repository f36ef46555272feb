//! GPT-2's pattern: r50k_base, p50k_base, and every Hugging Face tokenizer with a plain `ByteLevel` pre-tokenizer.
//!
//! ```text
//! 's|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+
//! ```
#![expect(
    clippy::indexing_slicing,
    reason = "`at` is below `text.len()` by the trait's contract"
)]

use super::super::class::{LETTER, NUMBER, SYMBOL};
use super::Split;
use super::scan::{class_at, run, white_run, word_run};

pub(crate) struct Gpt2;

impl Split for Gpt2 {
    #[inline]
    fn piece_end(&self, text: &[u8], at: usize) -> usize {
        if text[at] == b'\'' {
            match text.get(at + 1..).unwrap_or_default() {
                [b's' | b't' | b'm' | b'd', ..] => return at + 2,
                [b'r' | b'v', b'e', ..] | [b'l', b'l', ..] => return at + 3,
                _ => {}
            }
        }
        let (first, first_len) = class_at(text, at);
        let (class, next) = if text[at] == b' ' && at + 1 < text.len() {
            let (class, len) = class_at(text, at + 1);
            (class, at + 1 + len)
        } else {
            (first, at + first_len)
        };
        if class & LETTER != 0 {
            return word_run(text, next, LETTER);
        }
        for set in [NUMBER, SYMBOL] {
            if class & set != 0 {
                return run(text, next, set);
            }
        }
        let white = white_run(text, at, first_len);
        white.cut_anywhere(white.end == text.len())
    }
}
