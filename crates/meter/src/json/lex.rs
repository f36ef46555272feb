//! Finds the end of plain string content many bytes at a time.
#![expect(
    clippy::indexing_slicing,
    reason = "every index is below `bytes.len()`: the loop conditions compare against it"
)]

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;
/// Block that the compiler turns into vector compares on every target.
const BLOCK: usize = 32;

/// Whether a byte may not stand unescaped inside a JSON string, or ends it. Without branches, so that a loop over it
/// becomes vector compares.
const fn is_special(byte: u8) -> bool {
    (byte == b'"') | (byte == b'\\') | (byte < 0x20)
}

/// High bit set in each special byte of `word`. Bytes above the first special one may be marked falsely (the
/// subtraction borrows), the first one never is.
const fn special_mask(word: u64) -> u64 {
    let quote = word ^ (ONES * b'"' as u64);
    let slash = word ^ (ONES * b'\\' as u64);
    let quote = quote.wrapping_sub(ONES) & !quote;
    let slash = slash.wrapping_sub(ONES) & !slash;
    let control = word.wrapping_sub(ONES * 0x20) & !word;
    (quote | slash | control) & HIGHS
}

fn word_at(bytes: &[u8], at: usize) -> Option<u64> {
    bytes
        .get(at..)?
        .first_chunk::<8>()
        .map(|chunk| u64::from_le_bytes(*chunk))
}

/// Index of the first quote, backslash or control character at or after `from`; `bytes.len()` if there is none.
#[inline]
pub(crate) fn find_special(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    // Most strings are short: two words first.
    for _ in 0..2 {
        match word_at(bytes, at) {
            Some(word) => {
                let mask = special_mask(word);
                if mask != 0 {
                    return at + (mask.trailing_zeros() / 8) as usize;
                }
                at += 8;
            }
            None => return find_bytewise(bytes, at),
        }
    }
    find_long(bytes, at)
}

fn find_bytewise(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while at < bytes.len() && !is_special(bytes[at]) {
        at += 1;
    }
    at.min(bytes.len())
}

#[inline(never)]
fn find_long(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    while let Some(block) = bytes.get(at..).and_then(|rest| rest.first_chunk::<BLOCK>()) {
        if block
            .iter()
            .fold(0_u8, |any, &byte| any | u8::from(is_special(byte)))
            != 0
        {
            break;
        }
        at += BLOCK;
    }
    while let Some(word) = word_at(bytes, at) {
        let mask = special_mask(word);
        if mask != 0 {
            return at + (mask.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    find_bytewise(bytes, at)
}

#[cfg(test)]
mod tests {
    use super::find_special;

    #[test]
    fn finds_the_first_special_byte_at_every_position() {
        for special in [b'"', b'\\', 0, 0x1f, b'\n'] {
            for length in 0..100 {
                for position in 0..length {
                    // 0x21, 0x23, 0x5b, 0x5d, 0x80 and 0xff are the neighbours that a wrong mask would hit.
                    let mut bytes: Vec<u8> = [0x21, 0x23, 0x5b, 0x5d, 0x20, 0x80, 0xa2, 0xdc, 0xff, 0x7f]
                        .iter()
                        .copied()
                        .cycle()
                        .take(length)
                        .collect();
                    assert_eq!(find_special(&bytes, 0), length);
                    bytes[position] = special;
                    for from in 0..=position {
                        assert_eq!(find_special(&bytes, from), position);
                    }
                    if let Some(later) = bytes.get_mut(position + 1) {
                        *later = b'"';
                        assert_eq!(find_special(&bytes, 0), position);
                    }
                }
            }
        }
    }
}
