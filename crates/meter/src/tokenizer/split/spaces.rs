//! Vocabularies without a pattern. Their texts are one piece, but where no token of the vocabulary crosses a point,
//! merging cannot either: a text may be cut before its spaces, unless a token holds what stands there.

use super::Split;

/// Cuts before spaces that stand behind anything but a space or a *glued* byte: one behind which some token that merging
/// yields has a space.
#[derive(Clone, Copy)]
pub(crate) struct Spaces<'a> {
    glued: &'a [u8; 32],
}

impl<'a> Spaces<'a> {
    /// With a bit set for each glued byte.
    pub(crate) const fn new(glued: &'a [u8; 32]) -> Self {
        Self { glued }
    }

    /// Whether a text is cut between this byte and a space.
    #[inline]
    pub(crate) fn cuts_behind(&self, byte: u8) -> bool {
        let glued = self
            .glued
            .get(usize::from(byte / 8))
            .is_some_and(|bits| bits & (1 << (byte % 8)) != 0);
        byte != b' ' && !glued
    }
}

impl Split for Spaces<'_> {
    #[inline]
    fn piece_end(&self, text: &[u8], at: usize) -> usize {
        let mut from = at + 1;
        while let Some(found) = text.get(from..).and_then(|rest| memchr::memchr(b' ', rest)) {
            let space = from + found;
            if text.get(space - 1).is_some_and(|byte| self.cuts_behind(*byte)) {
                return space;
            }
            from = space + 1;
        }
        text.len()
    }
}

/// Cuts before every space.
pub(crate) struct EachSpace;

impl Split for EachSpace {
    #[inline]
    fn piece_end(&self, text: &[u8], at: usize) -> usize {
        let rest = text.get(at + 1..).unwrap_or_default();
        at + 1 + memchr::memchr(b' ', rest).unwrap_or(rest.len())
    }
}

/// Cuts nowhere.
pub(crate) struct Whole;

impl Split for Whole {
    #[inline]
    fn piece_end(&self, text: &[u8], _at: usize) -> usize {
        text.len()
    }
}
