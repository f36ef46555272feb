//! Numbers as bytes: seven bits a byte, the low ones first (LEB128), signed ones in zigzag order.

/// Appends a number.
pub fn put(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Appends a signed number.
pub fn put_signed(out: &mut Vec<u8>, n: i64) {
    put(out, ((n << 1) ^ (n >> 63)).cast_unsigned());
}

/// Takes back what was appended; `None` at the end or on what cannot have been written.
pub struct Bytes<'a>(pub &'a [u8]);

impl Bytes<'_> {
    /// A number.
    pub fn number(&mut self) -> Option<u64> {
        let (mut n, mut shift) = (0u64, 0u32);
        loop {
            let (byte, rest) = self.0.split_first()?;
            self.0 = rest;
            n |= u64::from(byte & 0x7f).checked_shl(shift)?;
            if *byte < 0x80 {
                return Some(n);
            }
            shift += 7;
        }
    }

    /// A number of 32 bits.
    pub fn small(&mut self) -> Option<u32> {
        u32::try_from(self.number()?).ok()
    }

    /// A signed number.
    pub fn signed(&mut self) -> Option<i64> {
        let n = self.number()?;
        Some((n >> 1).cast_signed() ^ -(n & 1).cast_signed())
    }

    /// Eight bytes as they are.
    pub fn word(&mut self) -> Option<u64> {
        let (word, rest) = self.0.split_first_chunk::<8>()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*word))
    }

    /// Whether all has been taken.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn numbers_come_back(numbers in proptest::collection::vec((any::<u64>(), any::<i64>(), 0u32..64), 0..50)) {
            let mut out = Vec::new();
            for (n, signed, shift) in &numbers {
                put(&mut out, n >> shift);
                put_signed(&mut out, signed >> shift);
            }
            let mut bytes = Bytes(&out);
            for (n, signed, shift) in &numbers {
                prop_assert_eq!(bytes.number(), Some(n >> shift));
                prop_assert_eq!(bytes.signed(), Some(signed >> shift));
            }
            prop_assert!(bytes.is_empty());
            prop_assert_eq!(bytes.number(), None);
        }

        #[test]
        fn foreign_bytes_end(bytes in proptest::collection::vec(any::<u8>(), 0..50)) {
            let mut bytes = Bytes(&bytes);
            while bytes.number().is_some() {}
        }
    }
}
