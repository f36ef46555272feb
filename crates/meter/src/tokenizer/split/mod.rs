//! Cutting a text into the pieces that are merged on their own: hand-written equivalents of the published patterns.
//!
//! Nothing here backtracks: each function walks forward and remembers where the expression would have come back to.
//! A walk passes over at most one piece more than it returns, so a text is walked over at most twice.
//!
//! Case-insensitivity is Unicode's: `'s` also matches an apostrophe with U+017F (long s).
//!
//! | file | patterns |
//! | --- | --- |
//! | `words` | cl100k, Llama 3 and GLM, Qwen 2 and 3.5 |
//! | `cased` | o200k, Kimi, tekken |
//! | `gpt2` | r50k, p50k and other GPT-2 heirs |
//! | `deepseek` | DeepSeek V3 |
//! | `spaces` | SentencePiece-like vocabularies, which have no pattern |
//! | `scan` | walking over runs of characters |

mod cased;
mod deepseek;
mod gpt2;
mod scan;
mod spaces;
mod words;

pub(super) use cased::{Kimi, O200k, Tekken};
pub(super) use deepseek::DeepSeek;
pub(super) use gpt2::Gpt2;
pub(super) use scan::{first_unstable, is_stable};
pub(super) use spaces::{EachSpace, Spaces, Whole};
pub(super) use words::{Cl100k, Llama3, Qwen2, Qwen35};

/// How a text is split into pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Pattern {
    /// The pattern of cl100k_base (GPT-3.5, GPT-4).
    Cl100k,
    /// The pattern of o200k_base and o200k_harmony (GPT-4o and later), Llama 4 and MiniMax M2.
    O200k,
    /// The pattern of GPT-2: r50k_base, p50k_base, and the `ByteLevel` pre-tokenizer.
    Gpt2,
    /// The pattern of Llama 3 and GLM 4 to 5.
    Llama3,
    /// The pattern of Qwen 2, 2.5 and 3.
    Qwen2,
    /// The pattern of Qwen 3.5 and 3.6.
    Qwen35,
    /// The three splits of DeepSeek V3 and later.
    DeepSeek,
    /// The pattern of Kimi K2.
    Kimi,
    /// The pattern of Mistral's tekken.
    Tekken,
    /// No pattern: SentencePiece-like vocabularies, whose texts are cut only where none of their tokens could cross.
    Spaces,
    /// Each space begins a piece: SentencePiece-like vocabularies whose words are merged on their own.
    EachSpace,
    /// A text is one piece: Unigram vocabularies, in which all that came before may decide between two ways on.
    Whole,
}

/// Each pattern, its id in a vocabulary buffer and its name in configurations.
const PATTERNS: [(Pattern, u32, &str); 12] = [
    (Pattern::Cl100k, 1, "cl100k"),
    (Pattern::O200k, 2, "o200k"),
    (Pattern::Gpt2, 3, "gpt2"),
    (Pattern::Llama3, 4, "llama3"),
    (Pattern::Qwen2, 5, "qwen2"),
    (Pattern::Qwen35, 6, "qwen3.5"),
    (Pattern::DeepSeek, 7, "deepseek"),
    (Pattern::Kimi, 8, "kimi"),
    (Pattern::Tekken, 9, "tekken"),
    (Pattern::Spaces, 10, "spaces"),
    (Pattern::EachSpace, 11, "each space"),
    (Pattern::Whole, 12, "whole"),
];

impl Pattern {
    /// The number that stands for the pattern in a vocabulary buffer.
    pub fn id(self) -> u32 {
        PATTERNS
            .iter()
            .find(|entry| entry.0 == self)
            .map_or(0, |entry| entry.1)
    }

    /// The pattern of an id.
    pub fn from_id(id: u32) -> Option<Self> {
        PATTERNS.iter().find(|entry| entry.1 == id).map(|entry| entry.0)
    }

    /// The name that stands for the pattern in configurations, as a rank file's pattern.
    pub fn name(self) -> &'static str {
        PATTERNS
            .iter()
            .find(|entry| entry.0 == self)
            .map_or("", |entry| entry.2)
    }

    /// The pattern of a name.
    pub fn from_name(name: &str) -> Option<Self> {
        PATTERNS.iter().find(|entry| entry.2 == name).map(|entry| entry.0)
    }

    /// End of the piece that begins at byte `at` of a text; more than `at` unless the text ends there.
    ///
    /// For [`Pattern::Spaces`], of a vocabulary in which no token has a space behind anything but spaces.
    pub fn piece_end(self, text: &str, at: usize) -> usize {
        let text = text.as_bytes();
        if at >= text.len() {
            return text.len();
        }
        match self {
            Self::Cl100k => Cl100k.piece_end(text, at),
            Self::O200k => O200k.piece_end(text, at),
            Self::Gpt2 => Gpt2.piece_end(text, at),
            Self::Llama3 => Llama3.piece_end(text, at),
            Self::Qwen2 => Qwen2.piece_end(text, at),
            Self::Qwen35 => Qwen35.piece_end(text, at),
            Self::DeepSeek => DeepSeek.piece_end(text, at),
            Self::Kimi => Kimi.piece_end(text, at),
            Self::Tekken => Tekken.piece_end(text, at),
            Self::Spaces => Spaces::new(&[0; 32]).piece_end(text, at),
            Self::EachSpace => EachSpace.piece_end(text, at),
            Self::Whole => Whole.piece_end(text, at),
        }
    }

    /// Whether the pattern knows nothing but spaces, as those of SentencePiece-like vocabularies do.
    pub fn is_spaced(self) -> bool {
        matches!(self, Self::Spaces | Self::EachSpace | Self::Whole)
    }
}

/// A pattern, known when the counting loop is compiled.
pub(super) trait Split {
    /// End of the piece that begins at `at`, which is a character's start below `text.len()`.
    fn piece_end(&self, text: &[u8], at: usize) -> usize;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pieces(pattern: Pattern, text: &str) -> Vec<&str> {
        let (mut at, mut pieces) = (0, Vec::new());
        while at < text.len() {
            let end = pattern.piece_end(text, at);
            pieces.push(&text[at..end]);
            at = end;
        }
        pieces
    }

    #[test]
    fn o200k_gives_back_to_the_last_caseless_letter() {
        assert_eq!(pieces(Pattern::O200k, "中AB c"), ["中", "AB", " c"]);
        assert_eq!(pieces(Pattern::O200k, "中ABc"), ["中ABc"]);
        assert_eq!(pieces(Pattern::O200k, "\u{301}AB"), ["\u{301}", "AB"]);
        assert_eq!(pieces(Pattern::O200k, "HTTPServer's"), ["HTTPServer's"]);
        assert_eq!(pieces(Pattern::O200k, "IT'LL'S"), ["IT'LL", "'S"]);
    }

    #[test]
    fn long_s_is_a_contraction() {
        assert_eq!(pieces(Pattern::O200k, "it'\u{17f}x"), ["it'\u{17f}", "x"]);
        assert_eq!(pieces(Pattern::Cl100k, "it'\u{17f}x"), ["it", "'\u{17f}", "x"]);
    }

    #[test]
    fn white_space_leaves_its_last_character_to_the_word() {
        for pattern in [Pattern::O200k, Pattern::Cl100k] {
            assert_eq!(pieces(pattern, "a   b"), ["a", "  ", " b"]);
            assert_eq!(pieces(pattern, "a \n  \n  b"), ["a", " \n  \n", " ", " b"]);
            assert_eq!(pieces(pattern, "a\u{a0}1"), ["a", "\u{a0}", "1"]);
        }
        assert_eq!(pieces(Pattern::O200k, "a \n  "), ["a", " \n", "  "]);
        assert_eq!(pieces(Pattern::Cl100k, "a \n  "), ["a", " \n  "]);
    }

    #[test]
    fn slashes_follow_symbols_in_o200k_only() {
        assert_eq!(pieces(Pattern::O200k, "!\n/\n!"), ["!\n/\n", "!"]);
        assert_eq!(pieces(Pattern::Cl100k, "!\n/\n!"), ["!\n", "/\n", "!"]);
    }

    #[test]
    fn names_and_ids_lead_back() {
        for (pattern, id, name) in PATTERNS {
            assert_eq!(
                (Pattern::from_id(id), Pattern::from_name(name)),
                (Some(pattern), Some(pattern))
            );
        }
    }

    #[test]
    fn deepseek_splits_in_three_steps() {
        let split = |text| pieces(Pattern::DeepSeek, text);
        assert_eq!(split("a  1"), ["a", "  ", "1"]);
        assert_eq!(split("a  中文かな"), ["a", "  ", "中文かな"]);
        assert_eq!(split("フ゜か\u{3097}か"), ["フ", "゜", "か", "\u{3097}か"]);
        assert_eq!(split("か\u{3097}a"), ["か", "\u{3097}", "a"]);
        assert_eq!(split("・\n"), ["・", "\n"]);
        assert_eq!(split(".abcé"), [".abc", "é"]);
        assert_eq!(
            split("\u{200b}\u{200b}\u{200b}a"),
            ["\u{200b}\u{200b}", "\u{200b}a"]
        );
        assert_eq!(split("\u{200b}\u{200b}!"), ["\u{200b}\u{200b}", "!"]);
    }

    #[test]
    fn kimi_takes_han_apart() {
        assert_eq!(pieces(Pattern::Kimi, "ab中文Cd"), ["ab", "中文", "Cd"]);
        assert_eq!(pieces(Pattern::Kimi, " 中"), [" ", "中"]);
    }
}
