//! What the steps of a program do.

use std::ops::Range;

use memchr::memmem;
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfd_quick, is_nfkc_quick, is_nfkd_quick};

use super::{Charsmap, Part};
use crate::tokenizer::normalize::nfc;
use crate::tokenizer::traits::{ACCENT, traits};

/// The character that SentencePiece writes for a space.
const MARKER: char = '\u{2581}';

/// The kinds of steps, by Hugging Face's names where they have one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tokenizer) enum Kind {
    Nfc,
    Nfkc,
    Nfd,
    Nfkd,
    Nmt,
    Lowercase,
    StripAccents,
    StripLeft,
    StripRight,
    /// A string by another.
    Replace,
    /// Two spaces and more by a string.
    Collapse,
    Prepend,
    Precompiled,
    /// `WhitespaceSplit` and `Metaspace` behind it: words, each with one space before it.
    Words,
}

const KINDS: [(Kind, u32); 14] = [
    (Kind::Nfc, 1),
    (Kind::Nfkc, 2),
    (Kind::Nfd, 3),
    (Kind::Nfkd, 4),
    (Kind::Nmt, 5),
    (Kind::Lowercase, 6),
    (Kind::StripAccents, 7),
    (Kind::StripLeft, 8),
    (Kind::StripRight, 9),
    (Kind::Replace, 10),
    (Kind::Collapse, 11),
    (Kind::Prepend, 12),
    (Kind::Precompiled, 13),
    (Kind::Words, 14),
];

impl Kind {
    /// The number that stands for it in a vocabulary buffer.
    pub(super) fn id(self) -> u32 {
        KINDS
            .iter()
            .find(|entry| entry.0 == self)
            .map_or(0, |entry| entry.1)
    }

    /// The kind of an id.
    pub(super) fn from_id(id: u32) -> Option<Self> {
        KINDS.iter().find(|entry| entry.1 == id).map(|entry| entry.0)
    }
}

/// What became of a text.
pub(super) enum Outcome {
    /// Nothing.
    Same,
    /// A part of it.
    Within(Range<usize>),
    /// What was written.
    Written,
}

impl Outcome {
    fn written(any: bool) -> Self {
        if any { Self::Written } else { Self::Same }
    }
}

/// A step with its arguments in a buffer.
#[derive(Clone, Copy)]
pub(super) enum Step<'a> {
    Plain(Kind),
    Replace { pattern: &'a str, content: &'a str },
    Collapse(&'a str),
    Prepend(&'a str),
    Precompiled(Charsmap<'a>),
}

impl<'a> Step<'a> {
    pub(super) fn read(kind: Kind, first: &'a [u8], second: &'a [u8]) -> Option<Self> {
        let text = |bytes| std::str::from_utf8(bytes).ok();
        Some(match kind {
            Kind::Replace => Self::Replace {
                pattern: text(first).filter(|pattern| !pattern.is_empty())?,
                content: text(second)?,
            },
            Kind::Collapse => Self::Collapse(text(second)?),
            Kind::Prepend => Self::Prepend(text(second)?),
            Kind::Precompiled => Self::Precompiled(Charsmap::read(first, second)?),
            plain => Self::Plain(plain),
        })
    }

    /// Does the step to a part of a text; `out` is empty.
    pub(super) fn run(self, text: &str, part: Part, out: &mut String) -> Outcome {
        match self {
            Self::Plain(kind) => plain(kind, text, part, out),
            Self::Replace { pattern, content } => {
                let mut copied = 0;
                for at in memmem::find_iter(text.as_bytes(), pattern.as_bytes()) {
                    out.push_str(text.get(copied..at).unwrap_or_default());
                    out.push_str(content);
                    copied = at + pattern.len();
                }
                rest(text, copied, out)
            }
            Self::Collapse(content) => {
                let (bytes, mut copied) = (text.as_bytes(), 0);
                while let Some(found) = memmem::find(bytes.get(copied..).unwrap_or_default(), b"  ") {
                    let at = copied + found;
                    out.push_str(text.get(copied..at).unwrap_or_default());
                    out.push_str(content);
                    let run = bytes
                        .get(at..)
                        .unwrap_or_default()
                        .iter()
                        .take_while(|byte| **byte == b' ')
                        .count();
                    copied = at + run;
                }
                rest(text, copied, out)
            }
            Self::Prepend(content) => {
                let wanted = part.beginning && !text.is_empty() && !content.is_empty();
                if wanted {
                    out.push_str(content);
                    out.push_str(text);
                }
                Outcome::written(wanted)
            }
            Self::Precompiled(charsmap) => Outcome::written(charsmap.apply(text, out)),
        }
    }
}

/// Copies what follows the last replacement.
fn rest(text: &str, copied: usize, out: &mut String) -> Outcome {
    if copied > 0 {
        out.push_str(text.get(copied..).unwrap_or_default());
    }
    Outcome::written(copied > 0)
}

fn plain(kind: Kind, text: &str, part: Part, out: &mut String) -> Outcome {
    match kind {
        Kind::Nfc => {
            nfc(text, out);
            Outcome::written(!out.is_empty())
        }
        Kind::Nfkc if !text.is_ascii() && is_nfkc_quick(text.chars()) != IsNormalized::Yes => {
            out.extend(text.nfkc());
            Outcome::Written
        }
        Kind::Nfd if !text.is_ascii() && is_nfd_quick(text.chars()) != IsNormalized::Yes => {
            out.extend(text.nfd());
            Outcome::Written
        }
        Kind::Nfkd if !text.is_ascii() && is_nfkd_quick(text.chars()) != IsNormalized::Yes => {
            out.extend(text.nfkd());
            Outcome::Written
        }
        Kind::Nmt => nmt(text, out),
        Kind::Lowercase if text.is_ascii() => {
            let any = text.bytes().any(|byte| byte.is_ascii_uppercase());
            if any {
                out.push_str(text);
                out.make_ascii_lowercase();
            }
            Outcome::written(any)
        }
        Kind::Lowercase => {
            out.extend(text.chars().flat_map(char::to_lowercase));
            Outcome::Written
        }
        Kind::StripAccents if !text.is_ascii() => {
            out.extend(text.chars().filter(|character| traits(*character) & ACCENT == 0));
            Outcome::written(out.len() < text.len())
        }
        Kind::StripLeft if part.beginning => {
            let start = text.len() - text.trim_start().len();
            Outcome::Within(start..text.len())
        }
        Kind::StripRight if part.last => Outcome::Within(0..text.trim_end().len()),
        Kind::Words => {
            words(text, part.beginning, out);
            Outcome::Written
        }
        _ => Outcome::Same,
    }
}

/// SentencePiece's rules for translation models: controls are taken out, other kinds of space become spaces.
fn nmt(text: &str, out: &mut String) -> Outcome {
    let mut copied = 0;
    for (at, character) in text.char_indices() {
        let replacement = match character {
            '\u{1}'..='\u{8}' | '\u{b}' | '\u{e}'..='\u{1f}' | '\u{7f}' | '\u{8f}' | '\u{9f}' => "",
            '\t'
            | '\n'
            | '\u{c}'
            | '\r'
            | '\u{1680}'
            | '\u{200b}'..='\u{200f}'
            | '\u{2028}'
            | '\u{2029}'
            | '\u{2581}'
            | '\u{feff}'
            | '\u{fffd}' => " ",
            _ => continue,
        };
        out.push_str(text.get(copied..at).unwrap_or_default());
        out.push_str(replacement);
        copied = at + character.len_utf8();
    }
    rest(text, copied, out)
}

/// Words with a space before each, unless one begins with a marker already; `first` if the first one gets one, too.
fn words(text: &str, first: bool, out: &mut String) {
    let (mut wanted, mut at) = (first, 0);
    while at < text.len() {
        let rest = text.get(at..).unwrap_or_default();
        let space = white_prefix(rest);
        if space > 0 {
            (wanted, at) = (true, at + space);
            continue;
        }
        if wanted && !rest.starts_with(MARKER) {
            out.push(' ');
        }
        wanted = false;
        let end = word_end(rest);
        out.push_str(rest.get(..end).unwrap_or_default());
        at += end;
    }
}

/// Bytes of white space that a text begins with.
fn white_prefix(text: &str) -> usize {
    text.len() - text.trim_start().len()
}

/// Bytes of a text before its first white space.
fn word_end(text: &str) -> usize {
    let mut from = 0;
    // Leads of the characters that are white space.
    while let Some(found) = text
        .as_bytes()
        .get(from..)
        .and_then(|rest| rest.iter().position(|byte| may_be_white(*byte)))
    {
        let at = from + found;
        let character = text.get(at..).and_then(|rest| rest.chars().next());
        match character {
            Some(character) if character.is_whitespace() => return at,
            Some(character) => from = at + character.len_utf8(),
            None => from = at + 1,
        }
    }
    text.len()
}

#[inline]
fn may_be_white(byte: u8) -> bool {
    matches!(byte, 0x09..=0x0D | b' ' | 0xC2 | 0xE1 | 0xE2 | 0xE3)
}
