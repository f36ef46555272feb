//! Which characters merge before anything around them can, so that an encoder may begin with them instead of with their
//! bytes.
//!
//! A character that is a token is *atomic* if, between two characters that are not ASCII (or the piece's ends) and before
//! no character with a lead byte below [`ATOMIC_NEXT_LEAD`], its bytes always join before any of them, or the character
//! itself, joins a neighbour. This holds if every pair that would cross its border has a higher rank than all joins inside
//! it: as long as one of these is open, nothing of a higher rank is done anywhere, and what is done of lower rank elsewhere
//! does not touch the character.
//!
//! Vocabularies that were made by adding Chinese to another one have tokens of a character's last bytes with a whole
//! character behind them (`\x82数`), of lower ranks than characters that end like that. There, such a character is atomic
//! only beside certain ones: it is marked as needing that on its left or right side, and all characters that stand in such a
//! pair, on the other side of the border, are marked as *meddling*. It is atomic if the neighbour is a token and no meddler.
//!
//! SentencePiece-like vocabularies begin with characters instead of bytes; bytes stand in for characters that are no
//! tokens and never join. There, every character is atomic wherever it stands.

use std::collections::{HashMap, HashSet};

use super::compile::{Ranked, Rules};
use super::layout::{ATOMIC, MEDDLES, NEEDS_LEFT, NEEDS_RIGHT, RANK_LIMIT};

/// The lowest UTF-8 lead byte that may follow a character for its atomic mark to count (U+3000 and up).
pub const ATOMIC_NEXT_LEAD: u8 = 0xE3;

/// The marks of each token that is one character of several bytes.
pub(super) fn marks<'a>(ranked: &Ranked<'a>, rules: &Rules<'_>) -> HashMap<&'a [u8], u32> {
    let characters = ranked
        .tokens
        .iter()
        .map(|(bytes, _)| *bytes)
        .filter(|bytes| is_character(bytes));
    if rules.characters {
        return characters.map(|bytes| (bytes, ATOMIC)).collect();
    }
    let crossing = Crossing::new(ranked);
    let mut meddlers = Meddlers::default();
    let mut marks: HashMap<&[u8], u32> = characters
        .map(|bytes| (bytes, crossing.mark(bytes, ranked, rules, &mut meddlers)))
        .collect();
    for (bytes, mark) in &mut marks {
        if meddlers.holds(bytes) {
            *mark |= MEDDLES;
        }
    }
    marks
}

fn is_character(bytes: &[u8]) -> bool {
    bytes.len() > 1 && std::str::from_utf8(bytes).is_ok_and(|text| text.chars().count() == 1)
}

/// Pairs that may cross a border between two characters: rank of what they join to, and the other half.
#[derive(Default)]
struct Crossing<'a> {
    /// By the left half, before a right half that begins a character with a lead byte of at least [`ATOMIC_NEXT_LEAD`].
    by_left: HashMap<&'a [u8], Vec<(u32, &'a [u8])>>,
    /// By the right half, after a left half that does not end in ASCII.
    by_right: HashMap<&'a [u8], Vec<(u32, &'a [u8])>>,
}

impl<'a> Crossing<'a> {
    fn new(ranked: &Ranked<'a>) -> Self {
        let mut crossing = Self::default();
        for &(bytes, rank, middle) in &ranked.joined {
            let (left, right) = bytes.split_at(middle);
            if right.first().is_some_and(|byte| *byte >= ATOMIC_NEXT_LEAD) {
                crossing.by_left.entry(left).or_default().push((rank, right));
            }
            if left.last().is_some_and(|byte| !byte.is_ascii()) {
                crossing.by_right.entry(right).or_default().push((rank, left));
            }
        }
        crossing
    }

    /// A character's marks but for [`MEDDLES`]; adds to the meddlers what would meddle with it.
    fn mark(
        &self,
        character: &[u8],
        ranked: &Ranked<'_>,
        rules: &Rules<'_>,
        meddlers: &mut Meddlers<'a>,
    ) -> u32 {
        let (mut heads, mut tails, mut inside, mut whole) = (Vec::new(), Vec::new(), 0, false);
        rules.encode_alone(character, |parts| {
            let ends = parts.iter().skip(1).map(|part| part.0).chain([character.len()]);
            let spelled = parts
                .iter()
                .zip(ends)
                .map(|(part, end)| character.get(part.0..end).unwrap_or_default());
            for part in spelled.clone().filter(|part| part.len() > 1) {
                inside = inside.max(ranked.ranks.get(part).copied().unwrap_or(RANK_LIMIT));
            }
            heads.extend(spelled.clone().next().map(<[u8]>::to_vec));
            tails.extend(spelled.last().map(<[u8]>::to_vec));
            whole = parts.len() == 1;
        });
        if !whole {
            return 0;
        }
        let mut mark = ATOMIC;
        for &(_, right) in lower(&self.by_left, &tails, inside) {
            meddlers.add_right(right);
            mark |= NEEDS_RIGHT;
        }
        for &(_, left) in lower(&self.by_right, &heads, inside) {
            if meddlers.add_left(left) {
                mark |= NEEDS_LEFT;
            }
        }
        mark
    }
}

/// The pairs of some halves that join no later than `inside`.
fn lower<'m, 'a>(
    pairs: &'m HashMap<&'a [u8], Vec<(u32, &'a [u8])>>,
    halves: &'m [Vec<u8>],
    inside: u32,
) -> impl Iterator<Item = &'m (u32, &'a [u8])> {
    halves
        .iter()
        .filter_map(|half| pairs.get(half.as_slice()))
        .flatten()
        .filter(move |(rank, _)| *rank <= inside)
}

/// Characters that stand beside others in pairs that may join too early.
#[derive(Default)]
struct Meddlers<'a> {
    characters: HashSet<&'a [u8]>,
    /// All characters that begin so.
    heads: HashSet<&'a [u8]>,
    /// All characters that end so.
    tails: HashSet<&'a [u8]>,
}

impl<'a> Meddlers<'a> {
    /// Of a right half, which begins a character: the first one.
    fn add_right(&mut self, right: &'a [u8]) {
        match right.get(..width(right)) {
            Some(first) => self.characters.insert(first),
            None => self.heads.insert(right),
        };
    }

    /// Of a left half before a character: the last one. False if no text has that half there, as it ends inside a character.
    fn add_left(&mut self, left: &'a [u8]) -> bool {
        let lead = left.iter().rposition(|byte| byte & 0xC0 != 0x80);
        match lead.and_then(|at| left.get(at..)) {
            None => self.tails.insert(left),
            Some(last) if last.len() == width(last) => self.characters.insert(last),
            Some(_) => return false,
        };
        true
    }

    fn holds(&self, character: &[u8]) -> bool {
        self.characters.contains(character)
            || self.heads.iter().any(|head| character.starts_with(head))
            || self.tails.iter().any(|tail| character.ends_with(tail))
    }
}

/// Bytes of the character that a lead byte begins.
fn width(bytes: &[u8]) -> usize {
    match bytes.first() {
        Some(0xF0..) => 4,
        Some(0xE0..) => 3,
        Some(0xC0..) => 2,
        _ => 1,
    }
}
