//! SentencePiece's table of characters: a double-array trie (Darts) from UTF-8 to places in a string of replacements, each of
//! which ends in a zero byte.
//!
//! Hugging Face applies it to grapheme clusters: one of less than six bytes is replaced as a whole by what its shortest
//! prefix in the trie says; if it has none, or is longer, each of its characters is looked up alone.

use unicode_segmentation::UnicodeSegmentation;
use zerocopy::FromBytes;
use zerocopy::little_endian::U32;

use crate::tokenizer::traits::{JOINS, traits};

/// Clusters of less bytes are looked up as a whole.
const WHOLE: usize = 6;
/// Bytes that say of each byte whether a character that begins with it needs a look.
const PLAIN: usize = 256;
/// Nodes that are visited before a trie is taken for one that never ends.
const MOST_NODES: usize = 4_000_000;

/// The table in its buffer.
#[derive(Clone, Copy)]
pub(in crate::tokenizer) struct Charsmap<'a> {
    /// 0 for bytes that are ASCII characters of no replacement which join with nothing.
    looked_at: &'a [u8; PLAIN],
    units: &'a [U32],
    replacements: &'a str,
}

/// A unit of the trie, as Darts packs it.
#[derive(Clone, Copy)]
struct Unit(usize);

impl Unit {
    fn has_value(self) -> bool {
        self.0 >> 8 & 1 == 1
    }

    fn value(self) -> usize {
        self.0 & 0x7FFF_FFFF
    }

    fn label(self) -> usize {
        self.0 & 0x8000_00FF
    }

    fn offset(self) -> usize {
        (self.0 >> 10) << ((self.0 & 1 << 9) >> 6)
    }
}

impl<'a> Charsmap<'a> {
    /// From what [`Charsmap::pack`] made of it.
    pub(super) fn read(packed: &'a [u8], replacements: &'a [u8]) -> Option<Self> {
        let (looked_at, units) = packed.split_first_chunk::<PLAIN>()?;
        Some(Self {
            looked_at,
            units: <[U32]>::ref_from_bytes(units).ok()?,
            replacements: std::str::from_utf8(replacements).ok()?,
        })
    }

    /// Takes SentencePiece's form apart (length of the trie in bytes, trie, replacements) and checks it; what is wrong with it
    /// if it cannot be used. Returns the two arguments of the step, and the keys.
    #[expect(clippy::type_complexity, reason = "read in one place")]
    pub(in crate::tokenizer) fn pack(
        charsmap: &[u8],
    ) -> Result<(Vec<u8>, Vec<u8>, Vec<String>), &'static str> {
        let (length, rest) = charsmap
            .split_first_chunk::<4>()
            .ok_or("charsmap without a length")?;
        let length = u32::from_le_bytes(*length) as usize;
        let (units, replacements) = rest
            .split_at_checked(length)
            .filter(|_| length.is_multiple_of(4))
            .ok_or("charsmap shorter than its trie")?;
        if std::str::from_utf8(replacements).is_err() {
            return Err("replacements that are no UTF-8");
        }
        let mut packed = vec![1; PLAIN];
        packed.extend(units);
        let map = Charsmap::read(&packed, replacements).ok_or("charsmap")?;
        let keys = map.keys()?;
        let plain: Vec<u8> = (0..128u8)
            .map(|byte| {
                let looked_at = traits(char::from(byte)) & JOINS != 0 || map.find(&[byte]).is_some();
                u8::from(looked_at)
            })
            .collect();
        packed.splice(..plain.len(), plain);
        Ok((packed, replacements.to_vec(), keys))
    }

    fn unit(&self, at: usize) -> Option<Unit> {
        self.units.get(at).map(|unit| Unit(unit.get() as usize))
    }

    /// All keys of less than six bytes; an error if one leads nowhere.
    fn keys(&self) -> Result<Vec<String>, &'static str> {
        let (mut keys, mut nodes) = (Vec::new(), 0);
        let Some(root) = self.unit(0) else { return Ok(keys) };
        let mut open = vec![(root.offset(), Vec::new())];
        while let Some((base, key)) = open.pop() {
            for byte in 1..=u8::MAX {
                let at = base ^ usize::from(byte);
                let Some(unit) = self.unit(at).filter(|unit| unit.label() == usize::from(byte)) else {
                    continue;
                };
                nodes += 1;
                if nodes > MOST_NODES {
                    return Err("charsmap whose trie does not end");
                }
                let next = at ^ unit.offset();
                let key: Vec<u8> = key.iter().copied().chain([byte]).collect();
                if unit.has_value() {
                    let place = self.unit(next).map_or(usize::MAX, Unit::value);
                    if !self.replacements.is_char_boundary(place) {
                        return Err("charsmap that points behind its replacements");
                    }
                    keys.extend(String::from_utf8(key.clone()));
                }
                if key.len() < WHOLE - 1 {
                    open.push((next, key));
                }
            }
        }
        Ok(keys)
    }

    /// What the shortest prefix of a key that is in the trie is replaced by.
    #[inline]
    fn find(&self, key: &[u8]) -> Option<&'a str> {
        let mut at = self.unit(0)?.offset();
        for &byte in key {
            if byte == 0 {
                return None;
            }
            at ^= usize::from(byte);
            let unit = self.unit(at)?;
            if unit.label() != usize::from(byte) {
                return None;
            }
            at ^= unit.offset();
            if unit.has_value() {
                let rest = self.replacements.get(self.unit(at)?.value()..)?;
                let end = memchr::memchr(0, rest.as_bytes()).unwrap_or(rest.len());
                return rest.get(..end);
            }
        }
        None
    }

    /// Writes a text with its replacements; false, and nothing, if there are none.
    pub(super) fn apply(&self, text: &str, out: &mut String) -> bool {
        let bytes = text.as_bytes();
        let mut writer = Writer {
            text,
            copied: 0,
            out,
            any: false,
        };
        let mut at = 0;
        while let Some(&byte) = bytes.get(at) {
            if self.looked_at.get(usize::from(byte)) == Some(&0) {
                at += 1;
                continue;
            }
            let Some(character) = text.get(at..).and_then(|rest| rest.chars().next()) else {
                break;
            };
            let end = at + character.len_utf8();
            let joins = traits(character) & JOINS != 0;
            if !joins && !joins_at(text, end) {
                let replacement = self.find(bytes.get(at..end).unwrap_or_default());
                writer.replace(at..end, replacement);
                at = end;
                continue;
            }
            // The character before one that joins was passed, if it is one that is not looked at.
            let before = at.checked_sub(1).filter(|before| {
                joins
                    && *before >= writer.copied
                    && bytes
                        .get(*before)
                        .is_some_and(|byte| self.looked_at.get(usize::from(*byte)) == Some(&0))
            });
            let start = before.unwrap_or(at);
            let stretch_end = stretch_end(text, at);
            self.apply_clusters(start..stretch_end, &mut writer);
            at = stretch_end;
        }
        writer.finish()
    }

    fn apply_clusters(&self, stretch: std::ops::Range<usize>, writer: &mut Writer<'_, '_>) {
        let start = stretch.start;
        let part = writer.text.get(stretch).unwrap_or_default();
        for (at, cluster) in part.grapheme_indices(true) {
            let at = start + at;
            if cluster.len() < WHOLE
                && let Some(replacement) = self.find(cluster.as_bytes())
            {
                writer.replace(at..at + cluster.len(), Some(replacement));
                continue;
            }
            for (within, character) in cluster.char_indices() {
                let (from, len) = (at + within, character.len_utf8());
                let key = cluster.as_bytes().get(within..within + len);
                writer.replace(from..from + len, self.find(key.unwrap_or_default()));
            }
        }
    }
}

/// Whether the character at `at` joins with neighbours.
#[inline]
fn joins_at(text: &str, at: usize) -> bool {
    match text.as_bytes().get(at) {
        Some(b'\r') => true,
        Some(byte) if byte.is_ascii() => false,
        _ => text
            .get(at..)
            .and_then(|rest| rest.chars().next())
            .is_some_and(|character| traits(character) & JOINS != 0),
    }
}

/// The first position behind `at` at which a cluster ends for certain: between two characters that do not join.
fn stretch_end(text: &str, at: usize) -> usize {
    let mut before = true;
    for (offset, character) in text.get(at..).unwrap_or_default().char_indices() {
        let joins = traits(character) & JOINS != 0;
        if offset > 0 && !before && !joins {
            return at + offset;
        }
        before = joins;
    }
    text.len()
}

/// Copies what is not replaced, as late as possible.
struct Writer<'t, 'o> {
    text: &'t str,
    copied: usize,
    out: &'o mut String,
    any: bool,
}

impl Writer<'_, '_> {
    #[inline]
    fn replace(&mut self, range: std::ops::Range<usize>, replacement: Option<&str>) {
        if let Some(replacement) = replacement {
            self.out
                .push_str(self.text.get(self.copied..range.start).unwrap_or_default());
            self.out.push_str(replacement);
            self.copied = range.end;
            self.any = true;
        }
    }

    fn finish(self) -> bool {
        if self.any {
            self.out
                .push_str(self.text.get(self.copied..).unwrap_or_default());
        }
        self.any
    }
}
