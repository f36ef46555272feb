//! Finds the end of plain string content and of digits many bytes at a time.

use memchr::memchr2;
use wide::u8x16;

/// Bytes that one step looks at.
const BLOCK: usize = 16;
/// Blocks before the search gives up on a short string and calls for wider vectors.
const SHORT_BLOCKS: usize = 2;

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// One bit per byte of the block, the first byte lowest: set for those that may not stand unescaped inside a JSON string
/// or end it (quote, backslash, below U+0020).
#[inline(always)]
fn special_bits(block: &[u8; BLOCK]) -> u32 {
    let bytes = u8x16::new(*block);
    let quote = bytes.simd_eq(u8x16::splat(b'"'));
    let slash = bytes.simd_eq(u8x16::splat(b'\\'));
    let control = bytes.min(u8x16::splat(0x1f)).simd_eq(bytes);
    (quote | slash | control).to_bitmask()
}

#[inline(always)]
fn block_at(bytes: &[u8], at: usize) -> Option<&[u8; BLOCK]> {
    bytes.get(at..)?.first_chunk()
}

/// Index of the first quote, backslash or control character at or after `from`; `bytes.len()` if there is none.
#[inline(always)]
pub(crate) fn find_special(bytes: &[u8], from: usize) -> usize {
    let Some(block) = block_at(bytes, from) else {
        return find_in_tail(bytes, from);
    };
    let bits = special_bits(block);
    if bits != 0 {
        return from + bits.trailing_zeros() as usize;
    }
    find_far(bytes, from + BLOCK)
}

/// Past the first block: a few more, then the widest vectors that the machine has.
#[inline(never)]
fn find_far(bytes: &[u8], from: usize) -> usize {
    let mut at = from;
    for _ in 1..SHORT_BLOCKS {
        let Some(block) = block_at(bytes, at) else {
            return find_in_tail(bytes, at);
        };
        let bits = special_bits(block);
        if bits != 0 {
            return at + bits.trailing_zeros() as usize;
        }
        at += BLOCK;
    }
    let rest = bytes.get(at..).unwrap_or_default();
    let plain = memchr2(b'"', b'\\', rest).map_or(rest, |end| rest.get(..end).unwrap_or_default());
    // Control characters are errors: looking for them afterwards, in a loop that becomes vector minima, costs a third
    // of looking for them on the way.
    let lowest = plain.iter().fold(u8::MAX, |lowest, &byte| lowest.min(byte));
    let length = if lowest < 0x20 {
        plain.iter().position(|&byte| byte < 0x20).unwrap_or(plain.len())
    } else {
        plain.len()
    };
    at + length
}

/// Fewer than a block's bytes are left.
#[inline(never)]
fn find_in_tail(bytes: &[u8], from: usize) -> usize {
    let rest = bytes.get(from..).unwrap_or_default();
    match bytes.last_chunk::<BLOCK>() {
        Some(block) if !rest.is_empty() => {
            // What stands before is shifted out; the zeros that come in are control characters and end the search.
            let shift = 8 * (BLOCK - rest.len().min(BLOCK));
            let block = (u128::from_le_bytes(*block) >> shift).to_le_bytes();
            (from + special_bits(&block).trailing_zeros() as usize).min(bytes.len())
        }
        _ => rest
            .iter()
            .position(|&byte| byte == b'"' || byte == b'\\' || byte < 0x20)
            .map_or(bytes.len(), |position| from + position),
    }
}

/// How many ASCII digits `bytes` begins with.
#[inline]
pub(crate) fn count_digits(bytes: &[u8]) -> usize {
    let mut rest = bytes;
    while let Some((word, later)) = rest.split_first_chunk::<8>() {
        // Digits become 0 to 9; no byte's sum reaches its neighbour.
        let word = u64::from_le_bytes(*word) ^ (ONES * b'0' as u64);
        let other = (((word & !HIGHS) + ONES * 0x76) | word) & HIGHS;
        if other != 0 {
            return bytes.len() - rest.len() + (other.trailing_zeros() / 8) as usize;
        }
        rest = later;
    }
    let tail = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    bytes.len() - rest.len() + tail
}

#[cfg(test)]
mod tests {
    use super::{count_digits, find_special};

    #[test]
    fn finds_the_first_special_byte_at_every_position() {
        for special in [b'"', b'\\', 0, 0x1f, b'\n'] {
            for length in 0..130 {
                for position in 0..length {
                    // 0x21, 0x23, 0x5b, 0x5d, 0x80 and 0xff are the neighbours that a wrong mask would hit.
                    let mut bytes: Vec<u8> = [0x21, 0x23, 0x5b, 0x5d, 0x20, 0x80, 0xa2, 0xdc, 0xff, 0x7f]
                        .iter()
                        .copied()
                        .cycle()
                        .take(length)
                        .collect();
                    assert_eq!(find_special(&bytes, 0), length);
                    assert_eq!(find_special(&bytes, length), length);
                    bytes[position] = special;
                    for from in 0..=position {
                        assert_eq!(find_special(&bytes, from), position);
                    }
                    // What stands before does not count.
                    assert_eq!(find_special(&bytes, position + 1), length);
                    if let Some(later) = bytes.get_mut(position + 1) {
                        *later = b'"';
                        assert_eq!(find_special(&bytes, 0), position);
                    }
                }
            }
        }
    }

    #[test]
    fn digits_are_counted() {
        for byte in (0..=u8::MAX).filter(|byte| !byte.is_ascii_digit()) {
            for length in 0..20 {
                for position in 0..=length {
                    let mut bytes: Vec<u8> = b"0918273645".iter().copied().cycle().take(length).collect();
                    if let Some(slot) = bytes.get_mut(position) {
                        *slot = byte;
                    }
                    assert_eq!(count_digits(&bytes), position);
                }
            }
        }
    }
}
