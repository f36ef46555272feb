//! JSON string content to text and back.

use memchr::memchr;

/// The character that a one-letter escape stands for.
pub(crate) const fn simple_escape(letter: u8) -> Option<char> {
    Some(match letter {
        b'"' => '"',
        b'\\' => '\\',
        b'/' => '/',
        b'b' => '\u{8}',
        b'f' => '\u{c}',
        b'n' => '\n',
        b'r' => '\r',
        b't' => '\t',
        _ => return None,
    })
}

fn hex4(digits: &[u8]) -> Option<u32> {
    let digits = digits.first_chunk::<4>()?;
    digits.iter().try_fold(0, |value, &digit| {
        Some(value * 16 + char::from(digit).to_digit(16)?)
    })
}

/// Reads the `\uXXXX` (or pair of them) at the start of `bytes`: the character and how many bytes it took.
/// A surrogate without its partner is U+FFFD.
fn unicode_escape(bytes: &[u8]) -> (char, usize) {
    let Some(unit) = bytes.get(2..).and_then(hex4) else {
        return (char::REPLACEMENT_CHARACTER, bytes.len());
    };
    if (0xd800..0xdc00).contains(&unit)
        && bytes.get(6..8) == Some(b"\\u")
        && let Some(low) = bytes.get(8..).and_then(hex4)
        && (0xdc00..0xe000).contains(&low)
    {
        let code = 0x1_0000 + ((unit - 0xd800) << 10) + (low - 0xdc00);
        return (char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER), 12);
    }
    (char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER), 6)
}

/// Appends the text of a string's raw content. Invalid UTF-8 and lone surrogates become U+FFFD; escapes that are
/// none (impossible after the cursor has passed) too.
pub(crate) fn decode_lossy(raw: &[u8], out: &mut String) {
    let mut rest = raw;
    while let Some(at) = memchr(b'\\', rest) {
        let (plain, escape) = rest.split_at(at);
        push_lossy(plain, out);
        let (character, length) = match escape.get(1).copied() {
            Some(b'u') => unicode_escape(escape),
            Some(letter) => (simple_escape(letter).unwrap_or(char::REPLACEMENT_CHARACTER), 2),
            None => (char::REPLACEMENT_CHARACTER, 1),
        };
        out.push(character);
        rest = escape.get(length..).unwrap_or_default();
    }
    push_lossy(rest, out);
}

/// Length of a beginning of a string's raw content that can be decoded by itself: at most `most` bytes (which must be 12 or
/// more), up to a character's or an escape's end.
pub(crate) fn separable(raw: &[u8], most: usize) -> usize {
    if raw.len() <= most {
        return raw.len();
    }
    let mut at = 0;
    while let Some(found) = memchr(b'\\', raw.get(at..most).unwrap_or_default()) {
        let escape = raw.get(at + found..).unwrap_or_default();
        let length = match escape.get(1) {
            Some(b'u') => unicode_escape(escape).1,
            _ => 2,
        };
        if at + found + length > most {
            return at + found;
        }
        at += found + length;
    }
    let mut end = most;
    while end > at && raw.get(end).is_some_and(|byte| byte & 0xc0 == 0x80) {
        end -= 1;
    }
    end
}

fn push_lossy(bytes: &[u8], out: &mut String) {
    match std::str::from_utf8(bytes) {
        Ok(text) => out.push_str(text),
        Err(_) => out.push_str(&String::from_utf8_lossy(bytes)),
    }
}

/// Appends `text` as a JSON string with its quotes.
pub(crate) fn push_json_string(text: &str, out: &mut String) {
    out.push('"');
    for character in text.chars() {
        match character {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\r' => out.push_str("\\r"),
            '\t' => out.push_str("\\t"),
            control if control < ' ' => {
                let code = u32::from(control);
                out.push_str("\\u00");
                for digit in [code >> 4, code & 15] {
                    out.push(char::from_digit(digit, 16).unwrap_or('0'));
                }
            }
            plain => out.push(plain),
        }
    }
    out.push('"');
}

#[cfg(test)]
mod tests {
    use super::{decode_lossy, push_json_string};

    fn decoded(raw: &str) -> String {
        let mut out = String::new();
        decode_lossy(raw.as_bytes(), &mut out);
        out
    }

    #[test]
    fn escapes_decode() {
        assert_eq!(decoded(r#"a\"\\\/\b\f\n\r\tz"#), "a\"\\/\u{8}\u{c}\n\r\tz");
        assert_eq!(decoded(r"mod\u0065l"), "model");
        assert_eq!(decoded(r"\u4f60\ud83d\ude00!"), "你😀!");
        assert_eq!(decoded(r"\ud83d"), "\u{fffd}");
        assert_eq!(decoded(r"\ud83dx\ude00"), "\u{fffd}x\u{fffd}");
        assert_eq!(decoded(r"\ud83d\u0041"), "\u{fffd}A");
    }

    proptest::proptest! {
        #[test]
        fn encoding_is_undone_by_decoding(text in ".*") {
            let mut json = String::new();
            push_json_string(&text, &mut json);
            proptest::prop_assert_eq!(&serde_json::from_str::<String>(&json).unwrap(), &text);
            proptest::prop_assert_eq!(decoded(&json[1..json.len() - 1]), text);
        }
    }
}
