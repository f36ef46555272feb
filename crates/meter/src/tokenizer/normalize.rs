//! What happens to a text before it is split: Unicode normal forms, and the space that some vocabularies put first.

use std::ops::Range;

use unicode_normalization::char::canonical_combining_class;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick, is_nfkc_quick};

use super::split::{first_unstable, is_stable};

/// Bytes between two places that NFC must look at below which these are looked at together.
const NEAR: usize = 16;
/// The character that SentencePiece writes for a space.
const METASPACE: &str = "\u{2581}";

/// The normal form that a vocabulary wants its texts in.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Normalizer {
    /// As they are.
    #[default]
    None,
    /// Unicode's NFC: Qwen.
    Nfc,
    /// Unicode's NFKC, which may make a text longer: Claude's legacy vocabulary.
    Nfkc,
}

impl Normalizer {
    /// The number that stands for it in a vocabulary buffer.
    pub(super) fn id(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Nfc => 1,
            Self::Nfkc => 2,
        }
    }

    /// The normal form of an id.
    pub(super) fn from_id(id: u32) -> Option<Self> {
        [Self::None, Self::Nfc, Self::Nfkc]
            .into_iter()
            .find(|form| form.id() == id)
    }
}

/// Whether a space is put before a text that is not empty.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Prefix {
    /// Never.
    #[default]
    None,
    /// Always: Llama 2.
    Always,
    /// Unless it begins with one.
    UnlessThere,
}

impl Prefix {
    /// The number that stands for it in a vocabulary buffer.
    pub(super) fn id(self) -> u32 {
        match self {
            Self::None => 0,
            Self::Always => 1,
            Self::UnlessThere => 2,
        }
    }

    /// The prefix of an id.
    pub(super) fn from_id(id: u32) -> Option<Self> {
        [Self::None, Self::Always, Self::UnlessThere]
            .into_iter()
            .find(|prefix| prefix.id() == id)
    }
}

/// All that is done to a text, in this order: normal form, U+2581 to space, prefix.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Preparation {
    pub normalizer: Normalizer,
    pub metaspace: bool,
    pub prefix: Prefix,
}

impl Preparation {
    /// The text as it is split, in `scratch` if it differs; `beginning` is false for the rest of a text whose beginning
    /// was prepared before.
    pub(super) fn apply<'t>(&self, text: &'t str, beginning: bool, scratch: &'t mut String) -> &'t str {
        scratch.clear();
        match self.normalizer {
            Normalizer::None => {}
            Normalizer::Nfc => nfc(text, scratch),
            Normalizer::Nfkc if text.is_ascii() => {}
            Normalizer::Nfkc => scratch.extend(text.nfkc()),
        }
        let normal = if scratch.is_empty() {
            text
        } else {
            scratch.as_str()
        };
        if self.metaspace && memchr::memmem::find(normal.as_bytes(), METASPACE.as_bytes()).is_some() {
            *scratch = normal.replace(METASPACE, " ");
        }
        let there = if scratch.is_empty() {
            text
        } else {
            scratch.as_str()
        };
        let wanted = match self.prefix {
            Prefix::None => false,
            Prefix::Always => true,
            Prefix::UnlessThere => !there.starts_with(' '),
        };
        if wanted && beginning && !text.is_empty() {
            if scratch.is_empty() {
                scratch.push(' ');
                scratch.push_str(text);
            } else {
                scratch.insert(0, ' ');
            }
        }
        if scratch.is_empty() { text } else { scratch }
    }

    /// The last position before which a text can be prepared without what follows, whatever more may follow.
    pub(super) fn last_boundary(&self, text: &str) -> usize {
        let boundary = |&(at, character): &(usize, char)| match self.normalizer {
            Normalizer::None => true,
            Normalizer::Nfc => is_stable(text.as_bytes(), at),
            Normalizer::Nfkc => {
                canonical_combining_class(character) == 0
                    && is_nfkc_quick(std::iter::once(character)) == IsNormalized::Yes
            }
        };
        match self.normalizer {
            Normalizer::None => text.len(),
            _ => text.char_indices().rev().find(boundary).map_or(0, |(at, _)| at),
        }
    }
}

/// Writes a text's NFC to `out`, or nothing if it is the text itself.
///
/// Before a stable character (see `class::STABLE`) nothing composes, so only the stretches between two of them that
/// hold something else are looked at, and rewritten only if they are not in order.
pub(super) fn nfc(text: &str, out: &mut String) {
    let (mut copied, mut at) = (0, 0);
    while let Some(stretch) = unstable_stretch(text, at) {
        at = stretch.end;
        let old = text.get(stretch.clone()).unwrap_or_default();
        if is_nfc_quick(old.chars()) == IsNormalized::Yes {
            continue;
        }
        out.push_str(text.get(copied..stretch.start).unwrap_or_default());
        out.extend(old.nfc());
        copied = at;
    }
    if copied > 0 {
        out.push_str(text.get(copied..).unwrap_or_default());
    }
}

/// The next stretch from `from` on that holds unstable characters: from the stable one before to the stable one after
/// them. Stretches with little between them count as one.
fn unstable_stretch(text: &str, from: usize) -> Option<Range<usize>> {
    let bytes = text.as_bytes();
    let mut unstable = first_unstable(bytes, from);
    if unstable == bytes.len() {
        return None;
    }
    // The character before it is stable, or `from` is where the text begins.
    let start = text.floor_char_boundary(unstable.saturating_sub(1)).max(from);
    loop {
        let mut end = unstable;
        while !is_stable(bytes, end) {
            end = text.ceil_char_boundary(end + 1);
        }
        unstable = first_unstable(bytes, end);
        if unstable == bytes.len() || unstable - end > NEAR {
            return Some(start..end);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nfc_is_that_of_the_whole_text() {
        let parts = [
            "a",
            "e",
            "\u{301}",
            "\u{323}",
            "\u{e9}",
            "\u{1100}",
            "\u{1161}",
            "\u{11a8}",
            "\u{ac00}",
            "\u{958}",
            "\u{212b}",
            "\u{344}",
            " ",
            "0123456789abcdef0123",
            "中",
            "\u{9c7}",
            "\u{9be}",
            "\u{1f600}",
        ];
        let mut state = 7u64;
        let mut text = String::new();
        let preparation = Preparation {
            normalizer: Normalizer::Nfc,
            ..Preparation::default()
        };
        for _ in 0..20_000 {
            text.clear();
            for _ in 0..state >> 8 & 15 {
                state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
                text.push_str(parts[(state >> 33) as usize % parts.len()]);
            }
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let expected: String = text.nfc().collect();
            assert_eq!(
                preparation.apply(&text, true, &mut String::new()),
                expected,
                "{text:?}"
            );
            let cut = preparation.last_boundary(&text);
            let (head, tail) = text.split_at(cut);
            let apart: String = head.nfc().chain(tail.nfc()).collect();
            assert_eq!(apart, expected, "{head:?} and {tail:?}");
        }
    }

    #[test]
    fn prefix_and_metaspace() {
        let prepare = |prefix, text: &str| {
            let preparation = Preparation {
                metaspace: true,
                prefix,
                ..Preparation::default()
            };
            preparation.apply(text, true, &mut String::new()).to_owned()
        };
        assert_eq!(prepare(Prefix::Always, " a"), "  a");
        assert_eq!(prepare(Prefix::Always, ""), "");
        assert_eq!(prepare(Prefix::UnlessThere, "\u{2581}a"), " a");
        assert_eq!(prepare(Prefix::UnlessThere, "a"), " a");
        assert_eq!(prepare(Prefix::None, "a\u{2581}b"), "a b");
    }
}
