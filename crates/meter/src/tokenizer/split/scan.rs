//! Walking over runs of character classes.
#![expect(
    clippy::indexing_slicing,
    reason = "positions only move forward past bytes that were read, and `at < text.len()` is checked before each \
              read; characters are whole because the text is a `str`'s bytes"
)]

use super::super::class::{BLOCK, GRAPHIC, LOWER, NEWLINE, NUMBER, OTHER, SPACE, STABLE, UPPER, WHITE};

include!(concat!(env!("OUT_DIR"), "/class_table.rs"));

/// The first character at or behind `at` that NFC might change or join with what is before it; the text's length if
/// there is none.
pub(crate) fn first_unstable(text: &[u8], mut at: usize) -> usize {
    while at < text.len() {
        if let Some(chunk) = text.get(at..).and_then(|rest| rest.first_chunk::<16>())
            && u128::from_le_bytes(*chunk) & (u128::MAX / 0xFF * 0x80) == 0
        {
            at += 16;
            continue;
        }
        let (class, len) = class_at(text, at);
        if class & STABLE == 0 {
            return at;
        }
        at += len;
    }
    text.len()
}

/// Whether NFC never joins the character at `at` with what is before it, nor moves it there.
pub(crate) fn is_stable(text: &[u8], at: usize) -> bool {
    at >= text.len() || class_at(text, at).0 & STABLE != 0
}

/// Classes of the ASCII bytes, 0 for bytes that begin or continue longer characters.
static ASCII: [u16; 256] = ascii_classes();

const fn ascii_classes() -> [u16; 256] {
    let mut classes = [0; 256];
    let mut byte = 0;
    while byte < 128 {
        classes[byte] = STABLE
            | match byte as u8 {
                b'\r' | b'\n' => NEWLINE,
                b'\t' | 0x0B | 0x0C | b' ' => SPACE,
                b'0'..=b'9' => NUMBER,
                b'a'..=b'z' => LOWER,
                b'A'..=b'Z' => UPPER,
                b'!'..=b'~' => GRAPHIC,
                _ => OTHER,
            };
        byte += 1;
    }
    classes
}

/// Class and length of the character at `at`.
#[inline]
pub(super) fn class_at(text: &[u8], at: usize) -> (u16, usize) {
    let class = ASCII[usize::from(text[at])];
    if class != 0 {
        (class, 1)
    } else {
        wide_class_at(text, at)
    }
}

/// Class and length of the longer character at `at`.
#[inline]
pub(super) fn wide_class_at(text: &[u8], at: usize) -> (u16, usize) {
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
pub(super) fn scalar_class(scalar: u32) -> u16 {
    let block = BLOCK_NUMBERS.get(scalar as usize / BLOCK).copied().unwrap_or(0);
    BLOCKS
        .get(usize::from(block) * BLOCK + scalar as usize % BLOCK)
        .copied()
        .unwrap_or(OTHER)
}

/// End of the run of characters of the classes in `set` from `at` on.
#[inline]
pub(super) fn run(text: &[u8], mut at: usize, set: u16) -> usize {
    while at < text.len() {
        let (class, len) = class_at(text, at);
        if class & set == 0 {
            break;
        }
        at += len;
    }
    at
}

/// As [`run`], quicker where most are `[a-z]`, which `set` must hold.
#[inline]
pub(super) fn word_run(text: &[u8], at: usize, set: u16) -> usize {
    run(text, lower_ascii_run(text, at), set)
}

/// As [`run`], of characters that are none of the classes in `without`.
#[inline]
pub(super) fn run_without(text: &[u8], mut at: usize, set: u16, without: u16) -> usize {
    while at < text.len() {
        let (class, len) = class_at(text, at);
        if class & set == 0 || class & without != 0 {
            break;
        }
        at += len;
    }
    at
}

/// End of the run of `[a-z]` from `at` on, eight bytes at a time.
#[inline]
pub(super) fn lower_ascii_run(text: &[u8], mut at: usize) -> usize {
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

/// Up to `more` more numbers.
#[inline]
pub(super) fn numbers(text: &[u8], mut at: usize, more: usize) -> usize {
    for _ in 0..more {
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

/// Behind the contraction at `at` (`'s 't 'm 'd 're 've 'll`), or `at` if there is none.
#[inline]
pub(super) fn contraction(text: &[u8], at: usize) -> usize {
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

/// `[\r\n]*`, or `[\r\n/]*` with slashes.
#[inline]
pub(super) fn line_breaks(text: &[u8], mut at: usize, slashes: bool) -> usize {
    while at < text.len() && (matches!(text[at], b'\r' | b'\n') || slashes && text[at] == b'/') {
        at += 1;
    }
    at
}

/// A run of white space: its end, the end of its first and the start of its last character, and the end of its last line break (0 for none).
pub(super) struct White {
    pub(super) first_end: usize,
    pub(super) last_start: usize,
    pub(super) newline_end: usize,
    pub(super) end: usize,
}

#[inline]
pub(super) fn white_run(text: &[u8], start: usize, first_len: usize) -> White {
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
    /// Where `\s*[\r\n]+|\s+(?!\S)|\s+` ends: at the last line break, or at the end of the run if the text ends there, too,
    /// or before the last character, which goes to the next piece, unless it is the only one.
    #[inline]
    pub(super) fn cut(&self, text_ends: bool) -> usize {
        if self.newline_end > 0 {
            self.newline_end
        } else {
            self.cut_anywhere(text_ends)
        }
    }

    /// Where `\s+(?!\S)|\s+` ends, to which line breaks are nothing special.
    #[inline]
    pub(super) fn cut_anywhere(&self, text_ends: bool) -> usize {
        if text_ends {
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
}
