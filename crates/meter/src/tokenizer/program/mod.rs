//! A row of steps that bring a text to a normal form, as Hugging Face's `normalizer` lists them.
//!
//! | file | what it does |
//! | --- | --- |
//! | `step` | what each step does |
//! | `charsmap` | SentencePiece's table of characters |
//! | `build` | a list of steps to its bytes in a vocabulary buffer, with what is certain of it |
//!
//! # Parts
//! A text that is normalized in parts must come out as the whole. Where both neighbours are *solid* (fresh, see `trait_bits`, or
//! ASCII characters that the program leaves as one that is no space), or where a solid visible ASCII character is followed by a space,
//! no normal form, grapheme cluster or run of spaces reaches across. That the steps of a program keep this, replacements above all, is verified when it is built; if they do not, it has no certain
//! cuts, and texts are kept until they are whole.

mod build;
mod charsmap;
mod step;

use zerocopy::FromBytes;
use zerocopy::little_endian::U32;

pub(super) use build::{Source, build};
pub(super) use charsmap::Charsmap;
pub(super) use step::Kind;
use step::{Outcome, Step};

use super::traits::{FRESH, JOINS, traits};

/// Flag: texts may be normalized in parts.
const CUTS: u32 = 1;

/// Which part of a text is normalized.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Part {
    /// Nothing came before it.
    pub beginning: bool,
    /// Nothing comes after it.
    pub last: bool,
}

/// Memory for a program's work.
#[derive(Debug, Default)]
pub(super) struct Scratch {
    front: String,
    back: String,
}

impl Scratch {
    /// Gives back what is more than `kept` bytes.
    pub(super) fn shrink(&mut self, kept: usize) {
        for text in [&mut self.front, &mut self.back] {
            text.clear();
            text.shrink_to(kept);
        }
    }
}

/// What a program begins with in a buffer; `steps` steps follow it.
#[derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::KnownLayout, zerocopy::Unaligned)]
#[repr(C)]
struct Head {
    steps: U32,
    flags: U32,
    /// A bit for each ASCII character that is solid.
    solid: [u8; 16],
}

/// A step: its kind, and where its two arguments stand in the buffer.
#[derive(zerocopy::FromBytes, zerocopy::Immutable, zerocopy::KnownLayout, zerocopy::Unaligned)]
#[repr(C)]
struct Entry {
    kind: U32,
    first_at: U32,
    first_len: U32,
    second_at: U32,
    second_len: U32,
}

/// A program in a vocabulary buffer.
#[derive(Clone, Copy)]
pub(super) struct Program<'a> {
    entries: &'a [Entry],
    whole: &'a [u8],
    cuts: bool,
    solid: &'a [u8; 16],
}

impl<'a> Program<'a> {
    /// The program at `at`; none if it is not wholly there or has steps that this build does not know.
    pub(super) fn read(whole: &'a [u8], at: usize) -> Option<Self> {
        let (head, rest) = Head::ref_from_prefix(whole.get(at..)?).ok()?;
        let (entries, _) = <[Entry]>::ref_from_prefix_with_elems(rest, head.steps.get() as usize).ok()?;
        let program = Self {
            entries,
            whole,
            cuts: head.flags.get() & CUTS != 0,
            solid: &head.solid,
        };
        (0..entries.len())
            .all(|at| program.step(at).is_some())
            .then_some(program)
    }

    fn step(&self, at: usize) -> Option<Step<'a>> {
        let entry = self.entries.get(at)?;
        let argument = |at: U32, len: U32| {
            self.whole
                .get(at.get() as usize..)
                .and_then(|rest| rest.get(..len.get() as usize))
        };
        Step::read(
            Kind::from_id(entry.kind.get())?,
            argument(entry.first_at, entry.first_len)?,
            argument(entry.second_at, entry.second_len)?,
        )
    }

    /// The normal form of a part of a text.
    pub(super) fn apply<'t>(&self, text: &'t str, part: Part, scratch: &'t mut Scratch) -> &'t str {
        let Scratch { front, back } = scratch;
        let (mut written, mut range) = (false, 0..text.len());
        for at in 0..self.entries.len() {
            let Some(step) = self.step(at) else { continue };
            let current = if written { front.as_str() } else { text };
            let current = current.get(range.clone()).unwrap_or_default();
            back.clear();
            match step.run(current, part, back) {
                Outcome::Same => {}
                Outcome::Within(within) => range = range.start + within.start..range.start + within.end,
                Outcome::Written => {
                    std::mem::swap(front, back);
                    (written, range) = (true, 0..front.len());
                }
            }
        }
        let whole = if written { front.as_str() } else { text };
        whole.get(range).unwrap_or_default()
    }

    /// The last position at which a text may be cut, whatever more may follow; 0 if there is none.
    pub(super) fn last_boundary(&self, text: &str) -> usize {
        if !self.cuts {
            return 0;
        }
        let mut after = None;
        for (at, character) in text.char_indices().rev() {
            let solid = match u8::try_from(character) {
                Ok(byte) if byte.is_ascii() => self.is_solid(byte),
                _ => traits(character) & FRESH != 0,
            };
            if let Some(boundary) = after.filter(|_| solid) {
                return boundary;
            }
            after = solid.then_some(at);
        }
        0
    }

    /// Where to cut a text that has no certain boundary and must be cut all the same: its end, if there is nothing better.
    pub(super) fn forced_boundary(text: &str) -> usize {
        let mut best = text.len();
        let mut after = None;
        for (at, character) in text.char_indices().rev() {
            let joins = traits(character) & JOINS != 0;
            if let Some(boundary) = after.filter(|_| !joins) {
                // Runs of white space count as one, so it is better not to part them.
                if !character.is_whitespace() {
                    return boundary;
                }
                if best == text.len() {
                    best = boundary;
                }
            }
            // Nothing joins with a carriage return before it.
            after = (!joins || character == '\r').then_some(at);
        }
        best
    }

    /// Whether a text may be cut between this visible ASCII character and a space.
    #[inline]
    pub(super) fn is_solid(&self, byte: u8) -> bool {
        self.solid
            .get(usize::from(byte / 8))
            .is_some_and(|bits| bits & (1 << (byte % 8)) != 0)
    }
}
