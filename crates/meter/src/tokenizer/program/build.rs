//! A list of steps to a program in a buffer, and what is certain of it.

use super::super::compile::append;
use super::super::traits::{FRESH, JOINS, traits};
use super::{CUTS, Charsmap, Kind, Part, Program, Scratch};

/// Bytes of an entry.
const ENTRY: usize = 20;
/// Bytes of what a program begins with.
const HEAD: usize = 24;
/// A part in the middle of a text.
const MIDDLE: Part = Part {
    beginning: false,
    last: false,
};

/// A step to be built.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::tokenizer) struct Source {
    pub kind: Kind,
    pub first: Vec<u8>,
    pub second: Vec<u8>,
    /// Texts that a charsmap has replacements for.
    keys: Vec<String>,
}

impl Source {
    /// A step with nothing to know.
    pub(in crate::tokenizer) fn plain(kind: Kind) -> Self {
        Self::new(kind, "", "")
    }

    /// A step with two strings.
    pub(in crate::tokenizer) fn new(kind: Kind, first: &str, second: &str) -> Self {
        Self {
            kind,
            first: first.into(),
            second: second.into(),
            keys: Vec::new(),
        }
    }

    /// The step of SentencePiece's table of characters.
    pub(in crate::tokenizer) fn charsmap(charsmap: &[u8]) -> Result<Self, &'static str> {
        let (first, second, keys) = Charsmap::pack(charsmap)?;
        Ok(Self {
            kind: Kind::Precompiled,
            first,
            second,
            keys,
        })
    }
}

/// Where a program stands in a buffer, and how much it can make of a text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::tokenizer) struct Built {
    pub at: u32,
    /// At most so many bytes of a byte, where U+2581 counts as one.
    pub growth: u32,
}

/// Appends a program to a buffer.
pub(in crate::tokenizer) fn build(out: &mut Vec<u8>, steps: &[Source]) -> Built {
    let growth = growth(steps);
    let cuts = cuts(steps);
    let at = write(out, steps, cuts, [0; 16]);
    if cuts {
        // Read back, to ask it what it makes of each character.
        let solid = Program::read(out, at as usize).map_or([0; 16], |program| solid(&program, steps));
        if let Some(place) = out.get_mut(at as usize + 8..at as usize + HEAD) {
            place.copy_from_slice(&solid);
        }
    }
    Built { at, growth }
}

fn write(out: &mut Vec<u8>, steps: &[Source], cuts: bool, solid: [u8; 16]) -> u32 {
    let mut entries = Vec::with_capacity(steps.len() * ENTRY);
    for step in steps {
        let first_at = append(out, step.first.iter().copied());
        let second_at = append(out, step.second.iter().copied());
        for number in [
            step.kind.id(),
            first_at,
            step.first.len() as u32,
            second_at,
            step.second.len() as u32,
        ] {
            entries.extend(number.to_le_bytes());
        }
    }
    let head = (steps.len() as u32)
        .to_le_bytes()
        .into_iter()
        .chain((if cuts { CUTS } else { 0 }).to_le_bytes())
        .chain(solid);
    append(out, head.chain(entries).collect::<Vec<u8>>())
}

/// A buffer that holds nothing but a program.
fn alone(steps: &[Source]) -> (Vec<u8>, usize) {
    let mut buffer = Vec::new();
    let at = write(&mut buffer, steps, true, [0; 16]);
    (buffer, at as usize)
}

/// All characters but those of planes in which there are none, or private ones: only a table of characters can change
/// these, and its keys are looked at apart.
fn scalars() -> impl Iterator<Item = char> {
    ('\0'..='\u{323af}').chain('\u{e0000}'..='\u{e01ef}')
}

/// Whether a program keeps what the module's description says of cuts.
fn cuts(steps: &[Source]) -> bool {
    // A space that vanishes would let replacements on its two sides meet; words are made last.
    let before_words: Vec<Source> = steps
        .iter()
        .filter(|step| step.kind != Kind::Words)
        .cloned()
        .collect();
    let (buffer, at) = alone(&before_words);
    let Some(program) = Program::read(&buffer, at) else {
        return false;
    };
    // What is replaced must not reach across a cut: a single character, or a run of one sign, none of them fresh.
    for step in steps.iter().filter(|step| step.kind == Kind::Replace) {
        let pattern = String::from_utf8_lossy(&step.first);
        let first = pattern.chars().next().unwrap_or(' ');
        let one = pattern.chars().count() == 1;
        let run = pattern.chars().all(|character| character == first)
            && (first.is_ascii_punctuation() || first == ' ');
        if pattern.chars().any(|character| traits(character) & FRESH != 0) || !(one || run) {
            return false;
        }
    }
    let mut scratch = Scratch::default();
    let mut image = |text: &str| program.apply(text, MIDDLE, &mut scratch).to_owned();
    if ![" ", "\u{2581}"].contains(&image(" ").as_str()) {
        return false;
    }
    let mut decomposed = String::new();
    scalars()
        .filter(|character| traits(*character) & FRESH != 0)
        .all(|character| {
            decomposed.clear();
            decomposed.extend(unicode_normalization::UnicodeNormalization::nfd(std::iter::once(
                character,
            )));
            let image = image(character.encode_utf8(&mut [0; 4]));
            !image.is_empty()
                && (image == decomposed || image.chars().all(|character| traits(character) & FRESH != 0))
        })
}

/// The ASCII characters that are solid: they stay, become no space, and are in no replacement of several characters.
fn solid(program: &Program<'_>, steps: &[Source]) -> [u8; 16] {
    let (mut solid, mut scratch) = ([0; 16], Scratch::default());
    for byte in 0..128u8 {
        let mut utf8 = [0; 4];
        let image = program.apply(char::from(byte).encode_utf8(&mut utf8), MIDDLE, &mut scratch);
        let loose = |character: char| {
            character.is_whitespace() || character == '\u{2581}' || traits(character) & JOINS != 0
        };
        let replaced = steps
            .iter()
            .any(|step| step.kind == Kind::Replace && step.first.len() > 1 && step.first.contains(&byte));
        if !image.is_empty()
            && !image.chars().any(loose)
            && !replaced
            && let Some(bits) = solid.get_mut(usize::from(byte / 8))
        {
            *bits |= 1 << (byte % 8);
        }
    }
    solid
}

/// What a program can make of a byte. Marks that a composing normal form would put together may be kept apart by others
/// between them, so it is the decomposed text that is measured.
fn growth(steps: &[Source]) -> u32 {
    let decomposing: Vec<Source> = steps
        .iter()
        .cloned()
        .map(|mut step| {
            step.kind = match step.kind {
                Kind::Nfc => Kind::Nfd,
                Kind::Nfkc => Kind::Nfkd,
                other => other,
            };
            step
        })
        .collect();
    let (buffer, at) = alone(&decomposing);
    let Some(program) = Program::read(&buffer, at) else {
        return 1;
    };
    let mut scratch = Scratch::default();
    let mut of = |text: &str| {
        let image = program.apply(text, MIDDLE, &mut scratch);
        let markers = memchr::memmem::find_iter(image.as_bytes(), "\u{2581}").count();
        (image.len() - 2 * markers).div_ceil(text.len().max(1)) as u32
    };
    let characters = scalars()
        .map(|character| of(character.encode_utf8(&mut [0; 4])))
        .max()
        .unwrap_or(1);
    let keys = steps
        .iter()
        .flat_map(|step| &step.keys)
        .map(|key| of(key))
        .max()
        .unwrap_or(1);
    let replaced = steps
        .iter()
        .filter(|step| matches!(step.kind, Kind::Replace | Kind::Collapse))
        .map(|step| {
            let pattern = if step.kind == Kind::Replace {
                step.first.len()
            } else {
                2
            };
            let content = String::from_utf8_lossy(&step.second).replace('\u{2581}', " ");
            content.len().div_ceil(pattern.max(1)).max(1) as u32
        })
        .fold(1, u32::saturating_mul);
    characters.max(keys).max(1).saturating_mul(replaced)
}
