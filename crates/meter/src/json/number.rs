//! Number grammar and integers that every JSON parser reads alike.

use super::lex::count_digits;

/// Largest integer that all JSON parsers agree on (RFC 8259 §6): 2^53 - 1.
pub(crate) const MAX_SAFE_INTEGER: u64 = (1 << 53) - 1;

/// What a number is when an integer of at least 0 is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Integer {
    /// The value, at most 2^53 - 1. `1e3` and `10.0` are integers.
    Value(u64),
    /// Begins with a minus sign.
    Negative,
    /// Has a fraction.
    Fraction,
    /// Above 2^53 - 1.
    TooLarge,
}

/// Length of the number at the start of `bytes` by RFC 8259's grammar, `None` if there is none.
#[inline(never)]
pub(crate) fn length(bytes: &[u8]) -> Option<usize> {
    let byte = |at: usize| bytes.get(at).copied().unwrap_or(0);
    let digits = |at: usize| at + count_digits(bytes.get(at..).unwrap_or_default());
    let start = usize::from(byte(0) == b'-');
    let mut at = match byte(start) {
        b'0' => start + 1,
        b'1'..=b'9' => digits(start + 1),
        _ => return None,
    };
    if byte(at) == b'.' {
        let end = digits(at + 1);
        if end == at + 1 {
            return None;
        }
        at = end;
    }
    if matches!(byte(at), b'e' | b'E') {
        let first = at + 1 + usize::from(matches!(byte(at + 1), b'+' | b'-'));
        let end = digits(first);
        if end == first {
            return None;
        }
        at = end;
    }
    Some(at)
}

/// Whether all of `bytes` is one number.
pub(crate) fn is_number(bytes: &[u8]) -> bool {
    length(bytes) == Some(bytes.len())
}

/// Reads a number that has passed the grammar.
pub(crate) fn integer(number: &[u8]) -> Integer {
    if number.len() > 15 {
        return exotic(number);
    }
    let mut value = 0;
    for byte in number {
        let digit = byte.wrapping_sub(b'0');
        if digit > 9 {
            return exotic(number);
        }
        value = value * 10 + u64::from(digit);
    }
    Integer::Value(value)
}

/// Decimal arithmetic on the digits, so that no rounding can turn a fraction or a huge number into an integer.
#[cold]
fn exotic(number: &[u8]) -> Integer {
    if number.first() == Some(&b'-') {
        return Integer::Negative;
    }
    let (mantissa, exponent) = match number.iter().position(|byte| matches!(byte, b'e' | b'E')) {
        Some(at) => (
            number.get(..at).unwrap_or_default(),
            number.get(at + 1..).unwrap_or_default(),
        ),
        None => (number, [].as_slice()),
    };
    let mut power = 0_i64;
    for digit in exponent.iter().filter(|byte| byte.is_ascii_digit()) {
        power = power.saturating_mul(10).saturating_add(i64::from(digit & 15));
    }
    if exponent.first() == Some(&b'-') {
        power = -power;
    }
    let point = mantissa
        .iter()
        .position(|&byte| byte == b'.')
        .unwrap_or(mantissa.len());
    let fraction_digits = mantissa.len().saturating_sub(point + 1);
    // Value = digits x 10^scale, with the zeros at both ends taken off.
    let mut scale = power.saturating_sub(i64::try_from(fraction_digits).unwrap_or(i64::MAX));
    let digits = mantissa.iter().filter(|&&byte| byte != b'.');
    let first = digits.clone().position(|&byte| byte != b'0');
    let Some(first) = first else {
        return Integer::Value(0);
    };
    let last = mantissa
        .iter()
        .rev()
        .filter(|&&byte| byte != b'.')
        .position(|&byte| byte != b'0')
        .unwrap_or(0);
    scale = scale.saturating_add(i64::try_from(last).unwrap_or(i64::MAX));
    if scale < 0 {
        return Integer::Fraction;
    }
    let count = digits.clone().count() - last;
    let mut value = 0_u64;
    for digit in digits.take(count).skip(first) {
        value = value.saturating_mul(10).saturating_add(u64::from(digit & 15));
    }
    for _ in 0..scale.min(20) {
        value = value.saturating_mul(10);
    }
    if value > MAX_SAFE_INTEGER {
        Integer::TooLarge
    } else {
        Integer::Value(value)
    }
}

#[cfg(test)]
mod tests {
    use super::{Integer, MAX_SAFE_INTEGER, integer, is_number};

    #[test]
    fn grammar_is_rfc_8259() {
        for good in ["0", "-0", "10", "1.5", "1e3", "1E+3", "1e-3", "0.0e0", "-1.25e10"] {
            assert!(is_number(good.as_bytes()), "{good}");
        }
        for bad in [
            "", "-", "01", "1.", ".5", "+1", "1e", "1e+", "0x1", "NaN", "1_0", "--1", "1.e3", "00",
        ] {
            assert!(!is_number(bad.as_bytes()), "{bad}");
        }
    }

    #[test]
    fn integers_are_exact() {
        for (text, want) in [
            ("0", Integer::Value(0)),
            ("7", Integer::Value(7)),
            ("1e3", Integer::Value(1000)),
            ("10.0", Integer::Value(10)),
            ("1.5e1", Integer::Value(15)),
            ("1200e-2", Integer::Value(12)),
            ("0e999", Integer::Value(0)),
            ("0.000", Integer::Value(0)),
            ("9007199254740991", Integer::Value(MAX_SAFE_INTEGER)),
            ("9007199254740992", Integer::TooLarge),
            ("9223372036854775808", Integer::TooLarge),
            ("1e999", Integer::TooLarge),
            ("1e99999999999999999999", Integer::TooLarge),
            ("18446744073709551616000", Integer::TooLarge),
            ("1.5", Integer::Fraction),
            ("1e-1", Integer::Fraction),
            ("1e-99999999999999999999", Integer::Fraction),
            // Rounds to 1 as a double.
            ("1.00000000000000000000000001", Integer::Fraction),
            ("-1", Integer::Negative),
            ("-0", Integer::Negative),
        ] {
            assert_eq!(integer(text.as_bytes()), want, "{text}");
        }
    }
}
