//! tiktoken's rank files: a line per token, its bytes in base64, a space, its rank.

#[cfg(feature = "onboard")]
use super::huggingface::byte_alphabet;
use super::{LoadError, Parts};
use crate::tokenizer::{Normalizer, Pattern};

/// Compiles a tiktoken rank file. The file does not say how texts are split or normalized, so that is given.
///
/// # Errors
/// See [`LoadError`].
pub fn rank_file(file: &[u8], pattern: Pattern, normalizer: Normalizer) -> Result<Vec<u8>, LoadError> {
    if pattern.is_spaced() {
        return Err(LoadError::Unsupported(format!(
            "a rank file with the pattern {:?}",
            pattern.name()
        )));
    }
    let mut tokens = Vec::new();
    for (line, number) in file.split(|byte| *byte == b'\n').zip(1..) {
        let line = line.trim_ascii();
        if !line.is_empty() {
            tokens.push(token(line).ok_or_else(|| LoadError::Syntax(format!("line {number}")))?);
        }
    }
    Parts {
        tokens,
        normalizer,
        ..Parts::default()
    }
    .build(pattern, file)
}

/// Compiles a packed rank list: `SPLNTRV1`, the number of tokens (`u32`, little-endian), then per token its rank and
/// length as LEB128 and its bytes. That is the format in which the crates `splintr-vocab-*` hold theirs. `spelled` lists
/// have their bytes in GPT-2's alphabet, and special tokens, which are not in it, among the ordinary ones.
///
/// # Errors
/// See [`LoadError`].
#[cfg(feature = "onboard")]
pub(in crate::tokenizer) fn packed_ranks(
    file: &[u8],
    pattern: Pattern,
    normalizer: Normalizer,
    spelled: bool,
) -> Result<Vec<u8>, LoadError> {
    let alphabet = byte_alphabet();
    let mut rest = file
        .strip_prefix(b"SPLNTRV1")
        .and_then(|rest| rest.split_at_checked(4))
        .ok_or_else(|| LoadError::Syntax("not a packed rank list".to_owned()))?
        .1;
    let mut tokens = Vec::new();
    while !rest.is_empty() {
        let (bytes, rank) =
            packed_token(&mut rest).ok_or_else(|| LoadError::Syntax(format!("token {}", tokens.len())))?;
        if !spelled {
            tokens.push((bytes, rank));
        } else if let Ok(text) = std::str::from_utf8(&bytes)
            && let Some(bytes) = text.chars().map(|c| alphabet.get(&c).copied()).collect()
        {
            tokens.push((bytes, rank));
        }
    }
    Parts {
        tokens,
        normalizer,
        ..Parts::default()
    }
    .build(pattern, file)
}

#[cfg(feature = "onboard")]
fn packed_token(rest: &mut &[u8]) -> Option<(Vec<u8>, u32)> {
    let mut number = || {
        let mut value = 0u32;
        for shift in (0..32).step_by(7) {
            let (first, after) = rest.split_first()?;
            *rest = after;
            value |= u32::from(first & 0x7F).checked_shl(shift)?;
            if first & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    };
    let (rank, len) = (number()?, number()?);
    let (bytes, after) = rest.split_at_checked(len as usize)?;
    *rest = after;
    Some((bytes.to_vec(), rank))
}

fn token(line: &[u8]) -> Option<(Vec<u8>, u32)> {
    let space = memchr::memchr(b' ', line)?;
    let (bytes, rank) = (line.get(..space)?, line.get(space + 1..)?);
    Some((
        base64(bytes)?,
        std::str::from_utf8(rank).ok()?.trim().parse().ok()?,
    ))
}

/// Decodes standard base64 with its padding (RFC 4648, section 4).
pub(super) fn base64(text: &[u8]) -> Option<Vec<u8>> {
    let padding = text.iter().rev().take_while(|byte| **byte == b'=').count();
    let digits = text.get(..text.len() - padding)?;
    if !text.len().is_multiple_of(4) || padding > 2 {
        return None;
    }
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut count) = (0u32, 0);
    for digit in digits {
        let value = match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => return None,
        };
        bits = (bits << 6 | u32::from(value)) & 0xFF_FFFF;
        count += 6;
        if count >= 8 {
            count -= 8;
            bytes.push((bits >> count) as u8);
        }
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn base64_is_decoded() {
        for (text, bytes) in [
            ("", Some(&b""[..])),
            ("Zg==", Some(b"f")),
            ("Zm8=", Some(b"fo")),
            ("Zm9vYmFy", Some(b"foobar")),
            ("+/8=", Some(b"\xfb\xff")),
            ("Zg", None),
            ("Z===", None),
            ("Zm9!", None),
        ] {
            assert_eq!(base64(text.as_bytes()).as_deref(), bytes, "{text}");
        }
    }

    #[test]
    fn broken_lines_are_named() {
        let error = |file: &[u8]| rank_file(file, Pattern::Gpt2, Normalizer::None);
        assert_eq!(error(b"AA== 0\nxx"), Err(LoadError::Syntax("line 2".to_owned())));
        assert_eq!(error(b"AA== x\n"), Err(LoadError::Syntax("line 1".to_owned())));
        assert!(matches!(error(b"AA== 0\n"), Err(LoadError::Compile(_))));
    }
}
