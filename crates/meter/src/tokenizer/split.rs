//! Cutting a text into the pieces that are merged on their own: hand-written equivalents of the published patterns.
//!
//! cl100k_base, as tiktoken publishes it (`++` and the like do not give back what they took):
//! ```text
//! '(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?+\p{L}++|\p{N}{1,3}+| ?[^\s\p{L}\p{N}]++[\r\n]*+|\s++$|\s*[\r\n]|\s+(?!\S)|\s
//! ```
//! o200k_base (with `T = (?i:'s|'t|'re|'ve|'m|'ll|'d)?`):
//! ```text
//! [^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+T
//! |[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*T
//! |\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+
//! ```
//! Nothing here backtracks: each function walks forward and remembers where the expression would have come back to.
//! A walk passes over at most one piece more than it returns, so a text is walked over at most twice.
//!
//! Case-insensitivity is Unicode's: `'s` also matches an apostrophe with U+017F (long s).
#![expect(
    clippy::indexing_slicing,
    reason = "positions only move forward past bytes that were read, and `at < text.len()` is checked before each \
              read; characters are whole because the text is a `str`'s bytes"
)]

use super::class::{
    BLOCK, CASELESS, LETTER, LOWER, MARK, NEWLINE, NUMBER, OTHER, SPACE, SYMBOL, UPPER, WHITE,
};

static BLOCK_NUMBERS: &[u8; 0x11_0000 / BLOCK] = include_bytes!(concat!(env!("OUT_DIR"), "/class_index.bin"));
static BLOCKS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/class_blocks.bin"));
/// Classes of the ASCII bytes, 0 for bytes that begin or continue longer characters.
static ASCII: [u8; 256] = ascii_classes();

const fn ascii_classes() -> [u8; 256] {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 128 {
        classes[byte] = match byte as u8 {
            b'\r' | b'\n' => NEWLINE,
            b'\t' | 0x0B | 0x0C | b' ' => SPACE,
            b'0'..=b'9' => NUMBER,
            b'a'..=b'z' => LOWER,
            b'A'..=b'Z' => UPPER,
            _ => OTHER,
        };
        byte += 1;
    }
    classes
}

/// How a text is split into pieces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Pattern {
    /// The pattern of cl100k_base (GPT-3.5, GPT-4).
    Cl100k,
    /// The pattern of o200k_base and o200k_harmony (GPT-4o and later).
    O200k,
}

impl Pattern {
    /// The number that stands for the pattern in a vocabulary buffer.
    pub const fn id(self) -> u32 {
        match self {
            Self::Cl100k => 1,
            Self::O200k => 2,
        }
    }

    /// The pattern of an id.
    pub const fn from_id(id: u32) -> Option<Self> {
        match id {
            1 => Some(Self::Cl100k),
            2 => Some(Self::O200k),
            _ => None,
        }
    }

    /// End of the piece that begins at byte `at` of a text; more than `at` unless the text ends there.
    pub fn piece_end(self, text: &str, at: usize) -> usize {
        let text = text.as_bytes();
        if at >= text.len() {
            return text.len();
        }
        match self {
            Self::Cl100k => Cl100k::piece_end(text, at),
            Self::O200k => O200k::piece_end(text, at),
        }
    }
}

/// A pattern, known when the counting loop is compiled.
pub(super) trait Split {
    /// End of the piece that begins at `at`, which is a character's start below `text.len()`.
    fn piece_end(text: &[u8], at: usize) -> usize;
}

pub(super) struct Cl100k;
pub(super) struct O200k;

impl Split for Cl100k {
    #[inline]
    fn piece_end(text: &[u8], at: usize) -> usize {
        let (class, len) = class_at(text, at);
        let next = at + len;
        if class & LETTER != 0 {
            return run(text, next, LETTER);
        }
        if class & NUMBER != 0 {
            return numbers(text, next);
        }
        if class & NEWLINE == 0 {
            if text[at] == b'\'' {
                let end = contraction(text, at);
                if end > at {
                    return end;
                }
            }
            let end = run(text, next, LETTER);
            if end > next {
                return end;
            }
            if class & SYMBOL != 0 {
                return run(text, run(text, next, SYMBOL), NEWLINE);
            }
            if text[at] == b' ' {
                let end = run(text, next, SYMBOL);
                if end > next {
                    return run(text, end, NEWLINE);
                }
            }
        }
        let white = white_run(text, at, len);
        if white.end == text.len() {
            white.end
        } else {
            white.cut(text)
        }
    }
}

impl Split for O200k {
    #[inline]
    fn piece_end(text: &[u8], at: usize) -> usize {
        let (class, len) = class_at(text, at);
        let next = at + len;
        if class & LETTER != 0 {
            return contraction(text, cased_word(text, at).end());
        }
        if class & NUMBER != 0 {
            return numbers(text, next);
        }
        if class & NEWLINE == 0 {
            let word = cased_word(text, next);
            if class & MARK != 0 {
                // A mark is a prefix, but also a word on its own where only capitals or nothing follow: the first
                // alternative is tried without a prefix before the second one with it.
                let end = if let Word::Lower(end) = word { end } else { next };
                return contraction(text, end);
            }
            if !matches!(word, Word::None) {
                return contraction(text, word.end());
            }
            if class & OTHER != 0 {
                return newlines_and_slashes(text, run(text, next, SYMBOL));
            }
            if text[at] == b' ' {
                let end = run(text, next, SYMBOL);
                if end > next {
                    return newlines_and_slashes(text, end);
                }
            }
        }
        white_run(text, at, len).cut(text)
    }
}

/// Class and length of the character at `at`.
#[inline]
fn class_at(text: &[u8], at: usize) -> (u8, usize) {
    let class = ASCII[usize::from(text[at])];
    if class != 0 {
        (class, 1)
    } else {
        wide_class_at(text, at)
    }
}

/// Class and length of the longer character at `at`.
#[inline]
fn wide_class_at(text: &[u8], at: usize) -> (u8, usize) {
    let byte = |offset: usize| u32::from(text.get(at + offset).copied().unwrap_or(0) & 0x3F);
    let lead = u32::from(text[at]);
    let (scalar, len) = match lead {
        0xE0..=0xEF => (((lead & 0x0F) << 12) | (byte(1) << 6) | byte(2), 3),
        0xF0.. => (
            ((lead & 0x07) << 18) | (byte(1) << 12) | (byte(2) << 6) | byte(3),
            4,
        ),
        _ => (((lead & 0x1F) << 6) | byte(1), 2),
    };
    (scalar_class(scalar), len)
}

#[inline]
fn scalar_class(scalar: u32) -> u8 {
    let block = BLOCK_NUMBERS.get(scalar as usize / BLOCK).copied().unwrap_or(0);
    BLOCKS
        .get(usize::from(block) * BLOCK + scalar as usize % BLOCK)
        .copied()
        .unwrap_or(OTHER)
}

/// End of the run of characters of the classes in `set` from `at` on.
#[inline]
fn run(text: &[u8], mut at: usize, set: u8) -> usize {
    while at < text.len() {
        let (class, len) = class_at(text, at);
        if class & set == 0 {
            break;
        }
        at += len;
    }
    at
}

/// End of the run of `[a-z]` from `at` on, eight bytes at a time.
#[inline]
fn lower_ascii_run(text: &[u8], mut at: usize) -> usize {
    const ONES: u64 = 0x0101_0101_0101_0101;
    while let Some(chunk) = text.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        // Per byte, with the top bit cleared first so that nothing carries: at least 'a', and more than 'z'.
        let low = word & (0x7F * ONES);
        let from_a = low + (0x80 - b'a' as u64) * ONES;
        let past_z = low + (0x7F - b'z' as u64) * ONES;
        let outside = (!from_a | past_z | word) & (0x80 * ONES);
        if outside != 0 {
            return at + (outside.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while at < text.len() && text[at].is_ascii_lowercase() {
        at += 1;
    }
    at
}

/// Up to two more numbers.
#[inline]
fn numbers(text: &[u8], mut at: usize) -> usize {
    for _ in 0..2 {
        if at >= text.len() {
            break;
        }
        let (class, len) = class_at(text, at);
        if class & NUMBER == 0 {
            break;
        }
        at += len;
    }
    at
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
fn cased_word(text: &[u8], start: usize) -> Word {
    let mut at = start;
    let mut shared_end = start;
    while at < text.len() {
        let (class, len) = class_at(text, at);
        if class & LOWER != 0 {
            return Word::Lower(run(text, lower_ascii_run(text, at), LOWER | CASELESS | MARK));
        }
        if class & (UPPER | CASELESS | MARK) == 0 {
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

/// Behind the contraction at `at` (`'s 't 'm 'd 're 've 'll`), or `at` if there is none.
#[inline]
fn contraction(text: &[u8], at: usize) -> usize {
    let rest = text.get(at..).unwrap_or_default();
    match rest {
        [b'\'', rest @ ..] => match rest {
            [b's' | b'S' | b't' | b'T' | b'm' | b'M' | b'd' | b'D', ..] => at + 2,
            [b'r' | b'R' | b'v' | b'V', b'e' | b'E', ..] | [b'l' | b'L', b'l' | b'L', ..] => at + 3,
            // U+017F, the only other character that folds to a letter of these.
            [0xC5, 0xBF, ..] => at + 3,
            _ => at,
        },
        _ => at,
    }
}

/// `[\r\n/]*`.
#[inline]
fn newlines_and_slashes(text: &[u8], mut at: usize) -> usize {
    while at < text.len() && matches!(text[at], b'\r' | b'\n' | b'/') {
        at += 1;
    }
    at
}

/// A run of white space: its end, the end of its first and the start of its last character, and the end of its last line break (0 for none).
struct White {
    first_end: usize,
    last_start: usize,
    newline_end: usize,
    end: usize,
}

#[inline]
fn white_run(text: &[u8], start: usize, first_len: usize) -> White {
    let mut white = White {
        first_end: start + first_len,
        last_start: start,
        newline_end: 0,
        end: start,
    };
    while white.end < text.len() {
        let (class, len) = class_at(text, white.end);
        if class & WHITE == 0 {
            break;
        }
        white.last_start = white.end;
        white.end += len;
        if class & NEWLINE != 0 {
            white.newline_end = white.end;
        }
    }
    white
}

impl White {
    /// Where `\s*[\r\n]+|\s+(?!\S)|\s+` ends: at the last line break, or at the end of the text, or before the last
    /// character, which goes to the next piece, unless it is the only one.
    #[inline]
    fn cut(&self, text: &[u8]) -> usize {
        if self.newline_end > 0 {
            self.newline_end
        } else if self.end == text.len() {
            self.end
        } else {
            self.last_start.max(self.first_end)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ascii_table_agrees_with_unicode_table() {
        for byte in 0..128u8 {
            assert_eq!(ASCII[usize::from(byte)], scalar_class(byte.into()), "byte {byte}");
        }
    }

    #[test]
    fn lower_ascii_run_stops_at_every_other_byte() {
        for stop in 0..=255u8 {
            for lead in 0..20 {
                let mut text = vec![b'q'; lead];
                text.push(stop);
                text.extend([b'x'; 9]);
                let expected = if stop.is_ascii_lowercase() {
                    text.len()
                } else {
                    lead
                };
                assert_eq!(lower_ascii_run(&text, 0), expected, "byte {stop} after {lead}");
            }
        }
    }

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
}
