//! Tokens and scores to the section of a vocabulary buffer.

use std::collections::BTreeMap;

use super::super::compile::append;
use super::{BASE_BITS, BASE_SHIFT, BYTES, FIRST_BASE, THERE, TOKEN_SHIFT};

/// Units of a block: children stand in that of their base.
const BLOCK: usize = 256;
/// Blocks that are searched for room.
const OPEN: usize = 16;
/// Searches without success after which a block is given up.
const PATIENCE: u32 = 24;

/// A Unigram vocabulary to be built.
pub(in crate::tokenizer) struct Source<'a> {
    /// Spelling and score of each id; those without a spelling are in no text.
    pub tokens: &'a [(Option<Vec<u8>>, f64)],
    pub unknown: u32,
    pub unknown_score: f64,
    /// Ids of the tokens of single bytes, if unknown characters are spelled in them.
    pub bytes: Option<[u32; 256]>,
}

/// Appends a vocabulary's section to a buffer and returns where it stands; none if the trie is too large.
pub(in crate::tokenizer) fn build(out: &mut Vec<u8>, source: &Source<'_>) -> Option<u32> {
    // Of tokens that are spelled alike, the last one counts.
    let spelled: BTreeMap<&[u8], u32> = source
        .tokens
        .iter()
        .zip(0..)
        .filter_map(|((spelling, _), id)| Some((spelling.as_deref().filter(|bytes| !bytes.is_empty())?, id)))
        .collect();
    let longest = spelled.keys().map(|bytes| bytes.len()).max().unwrap_or(0);
    let list: Vec<(&[u8], u32)> = spelled.into_iter().collect();
    let mut trie = Trie::default();
    let root = trie.fill(&list)?;
    let scores = source
        .tokens
        .iter()
        .flat_map(|(_, score)| score.to_bits().to_le_bytes());
    let units_at = append(out, trie.units.iter().flat_map(|unit| unit.to_le_bytes()));
    let scores_at = append(out, scores);
    let bytes = source.bytes.unwrap_or([0; 256]);
    let bytes_at = append(out, bytes.iter().flat_map(|id| id.to_le_bytes()));
    let unknown_spelling = source
        .tokens
        .get(source.unknown as usize)
        .and_then(|token| token.0.as_ref());
    let head: Vec<u8> = [
        units_at,
        trie.units.len() as u32,
        scores_at,
        source.tokens.len() as u32,
        root as u32,
        longest as u32,
        source.unknown,
        if source.bytes.is_some() { BYTES } else { 0 },
        unknown_spelling.map_or(0, |bytes| bytes.len() as u32),
        bytes_at,
    ]
    .into_iter()
    .flat_map(u32::to_le_bytes)
    .chain(source.unknown_score.to_bits().to_le_bytes())
    .collect();
    Some(append(out, head))
}

/// A double array on its way.
#[derive(Default)]
struct Trie {
    units: Vec<u64>,
    /// Bases that are given out: no two nodes share one, so that a label tells whose child a unit is.
    bases: Vec<bool>,
    /// Blocks that are searched for room, and how often one was in vain.
    open: Vec<(usize, u32)>,
}

impl Trie {
    /// Fills the array with sorted tokens and returns the root's base.
    fn fill(&mut self, list: &[(&[u8], u32)]) -> Option<usize> {
        self.grow();
        self.open.clear();
        self.grow();
        let mut root = FIRST_BASE;
        // Tokens that share so many bytes, and the unit of these.
        let mut todo = vec![(list, 0, None)];
        while let Some((tokens, depth, unit)) = todo.pop() {
            let below = match tokens.first() {
                Some((bytes, _)) if bytes.len() == depth => tokens.get(1..).unwrap_or_default(),
                _ => tokens,
            };
            if below.is_empty() {
                continue;
            }
            let label = |token: &(&[u8], u32)| token.0.get(depth).copied().unwrap_or(0);
            let groups: Vec<&[(&[u8], u32)]> = below
                .chunk_by(|left, right| label(left) == label(right))
                .collect();
            let labels: Vec<u8> = groups
                .iter()
                .filter_map(|group| group.first().map(label))
                .collect();
            let base = self.place(&labels);
            if base >> BASE_BITS != 0 {
                return None;
            }
            match unit {
                None => root = base,
                Some(unit) => self.set(unit, |old| old | (base as u64) << BASE_SHIFT),
            }
            for (group, label) in groups.into_iter().zip(labels) {
                let child = base ^ usize::from(label);
                let own = group
                    .first()
                    .filter(|(bytes, _)| bytes.len() == depth + 1)
                    .map_or(0, |(_, id)| u64::from(*id) + 1);
                self.set(child, |_| THERE | u64::from(label) | own << TOKEN_SHIFT);
                todo.push((group, depth + 1, Some(child)));
            }
        }
        Some(root)
    }

    fn set(&mut self, at: usize, change: impl FnOnce(u64) -> u64) {
        if let Some(unit) = self.units.get_mut(at) {
            *unit = change(*unit);
        }
    }

    fn grow(&mut self) {
        self.open.push((self.units.len(), 0));
        self.units.resize(self.units.len() + BLOCK, 0);
        self.bases.resize(self.units.len(), false);
        if self.open.len() > OPEN {
            self.open.remove(0);
        }
    }

    /// A base of which these children's units are free.
    fn place(&mut self, labels: &[u8]) -> usize {
        let first = labels.first().copied().unwrap_or(0);
        loop {
            let found = self.open.iter_mut().find_map(|(block, failures)| {
                let free = |at: usize| self.units.get(at) == Some(&0);
                let base = (*block..*block + BLOCK)
                    .filter(|at| free(*at))
                    .map(|at| at ^ usize::from(first))
                    .find(|base| {
                        self.bases.get(*base) == Some(&false)
                            && labels.iter().all(|label| free(base ^ usize::from(*label)))
                    });
                *failures += u32::from(base.is_none());
                base
            });
            self.open.retain(|(_, failures)| *failures < PATIENCE);
            match found {
                Some(base) => {
                    if let Some(given) = self.bases.get_mut(base) {
                        *given = true;
                    }
                    return base;
                }
                None => self.grow(),
            }
        }
    }
}
