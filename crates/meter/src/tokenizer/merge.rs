//! Byte-pair encoding of one piece: join the neighbours of lowest rank, leftmost first, until none can be joined.
//!
//! A piece of up to [`WINDOW`] bytes is a row of nodes, each with the key (rank, position) of the join with its right
//! neighbour; the lowest key of every 16 nodes is kept beside them, and the lowest of 16 such groups, so
//! that a join looks at a few dozen numbers. Most pieces are no more than one such group: these do without links, as
//! the bits of a number say which nodes are left.
//!
//! # Long pieces
//! A sequence of tokens is the encoding of its bytes if, and only if, each two neighbours are the encoding of theirs:
//! were there a first join across a border, nothing would have crossed the two tokens' outer borders before, and
//! encoding these two alone would do the same join. So a long piece is encoded window by window, each one beginning
//! where a token of the previous window begins; if it begins with the same token, everything before that token is
//! final. If not, an earlier token is tried; if no window agrees, the piece is begun again with larger windows. No text
//! is known that needs it; time then still grows as the length times its logarithm.
#![expect(
    clippy::indexing_slicing,
    reason = "node numbers are below the node count, which is at most the arrays' length; both are set in `merge`"
)]

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::atomic::ATOMIC_NEXT_LEAD;
use super::cache::{CharacterCache, NO_CHARACTER, PairCache};
use super::layout::{ATOMIC, MEDDLES, NEEDS_LEFT, NEEDS_RIGHT, RANK_LIMIT};
use super::vocabulary::Vocabulary;

/// Bytes that can be merged at once.
pub(super) const WINDOW: usize = 1024;
/// Bytes of a long piece that are tried at once at first: cheaper than [`WINDOW`], but too few for tokens of a hundred
/// bytes, as in runs of spaces.
pub(super) const FIRST_WINDOW: usize = GROUP * GROUP;
/// Tokens of a window below which larger ones are worth while.
const FEW: usize = 12;
/// How many tokens before a window's end the next one begins, in the order in which that is tried: the last token is cut
/// short, the one before it has probably met its final neighbour. The last token itself only helps where a window has
/// no more than two.
const BACK: [usize; 4] = [2, 4, 10, 1];
/// Nodes that share one entry of `lows`.
const GROUP: usize = 16;
/// Width of a node number in a key.
const NODE_BITS: u32 = 11;
/// The key of a node that cannot be joined with the next one.
const NO_JOIN: i32 = i32::MAX;

const _: () = assert!(WINDOW < 1 << NODE_BITS && WINDOW.is_multiple_of(GROUP * GROUP));

/// A token and where it begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token {
    pub start: usize,
    pub rank: u32,
}

/// Where merging a long piece has come to: the last window's tokens and its end, and space for the next one's.
#[derive(Debug, Clone, Default)]
struct Windows {
    held: Vec<Token>,
    tried: Vec<Token>,
    end: usize,
    /// Which of [`BACK`] was right for the last window: texts that repeat themselves need the same each time.
    back: usize,
}

/// A long piece that is counted with pauses.
#[derive(Debug, Clone, Default)]
pub(super) struct LongPiece {
    /// Bytes merged at once; 0 before the first.
    window: usize,
    windows: Windows,
    /// Tokens before the last window; all of them at the end.
    pub(super) count: u64,
}

impl LongPiece {
    /// Bytes that the next window takes.
    pub(super) fn step(&self) -> usize {
        if !self.windows.held.is_empty() && self.windows.held.len() < FEW {
            return self.window.max(WINDOW);
        }
        self.window.max(FIRST_WINDOW)
    }
}

/// Scratch space for merging (about 15 KB), and the joins and characters of one vocabulary seen lately (160 KB).
pub(super) struct Merger {
    /// Join with the next node: `rank << NODE_BITS | node`.
    keys: [i32; WINDOW],
    /// Lowest key of each group.
    lows: [i32; WINDOW / GROUP],
    /// Lowest of [`GROUP`] groups.
    tops: [i32; WINDOW / GROUP / GROUP],
    ranks: [u32; WINDOW],
    starts: [u16; WINDOW],
    next: [u16; WINDOW],
    prev: [u16; WINDOW],
    pairs: PairCache,
    characters: CharacterCache,
}

#[inline]
fn join_key(pairs: &mut PairCache, vocabulary: &Vocabulary<'_>, left: u32, right: u32, node: usize) -> i32 {
    let rank = pairs.merged(vocabulary, left, right);
    if rank < RANK_LIMIT {
        ((rank << NODE_BITS) | node as u32).cast_signed()
    } else {
        NO_JOIN
    }
}

impl Merger {
    pub(super) fn new() -> Self {
        Self {
            keys: [NO_JOIN; WINDOW],
            lows: [NO_JOIN; WINDOW / GROUP],
            tops: [NO_JOIN; WINDOW / GROUP / GROUP],
            ranks: [0; WINDOW],
            starts: [0; WINDOW],
            next: [0; WINDOW],
            prev: [0; WINDOW],
            pairs: PairCache::new(),
            characters: CharacterCache::new(),
        }
    }

    /// Number of tokens of a piece.
    pub(super) fn count(&mut self, vocabulary: &Vocabulary<'_>, piece: &[u8]) -> u64 {
        if piece.len() <= FIRST_WINDOW {
            return self.merge(vocabulary, piece).count();
        }
        let mut window = FIRST_WINDOW;
        loop {
            let mut count = 0;
            if self.merge_long(vocabulary, piece, window, |tokens| count += tokens.len() as u64) {
                return count;
            }
            window *= 4;
        }
    }

    /// Appends the ranks of a piece's tokens; `window` is where to begin, see the module's description.
    pub(super) fn encode(
        &mut self,
        vocabulary: &Vocabulary<'_>,
        piece: &[u8],
        mut window: usize,
        out: &mut Vec<u32>,
    ) {
        let before = out.len();
        while !self.merge_long(vocabulary, piece, window, |tokens| {
            out.extend(tokens.iter().map(|token| token.rank))
        }) {
            out.truncate(before);
            window *= 4;
        }
    }

    /// Merges a piece in windows of at most `window` bytes and shows its tokens in order, in batches.
    ///
    /// Returns false if two windows did not meet: what was shown is then worthless, and a larger window is needed. One
    /// that holds the whole piece always succeeds.
    fn merge_long(
        &mut self,
        vocabulary: &Vocabulary<'_>,
        piece: &[u8],
        window: usize,
        mut batch: impl FnMut(&[Token]),
    ) -> bool {
        let mut windows = self.first_window(vocabulary, piece, window);
        while windows.end < piece.len() {
            if !self.next_window(vocabulary, piece, window, &mut windows, &mut batch) {
                return false;
            }
        }
        batch(&windows.held);
        true
    }

    fn first_window(&mut self, vocabulary: &Vocabulary<'_>, piece: &[u8], window: usize) -> Windows {
        let mut windows = Windows {
            end: window_end(vocabulary, piece, 0, window),
            ..Windows::default()
        };
        self.tokens(vocabulary, piece, 0, windows.end, &mut windows.held);
        windows
    }

    /// Merges the next window and shows the tokens that are final before it; false if it does not meet the former one.
    fn next_window(
        &mut self,
        vocabulary: &Vocabulary<'_>,
        piece: &[u8],
        window: usize,
        Windows {
            held,
            tried,
            end,
            back,
        }: &mut Windows,
        batch: &mut impl FnMut(&[Token]),
    ) -> bool {
        // Where tokens are long, a small window is mostly done over again.
        let window = if held.len() < FEW {
            window.max(WINDOW)
        } else {
            window
        };
        let met = (0..BACK.len()).find_map(|turn| {
            let choice = (*back + turn) % BACK.len();
            let restart = held.len().checked_sub(BACK[choice]).filter(|at| *at > 0)?;
            let start = held[restart].start;
            *end = window_end(vocabulary, piece, start, window);
            self.tokens(vocabulary, piece, start, *end, tried);
            (tried.first() == held.get(restart)).then_some((restart, choice))
        });
        let Some((restart, choice)) = met else {
            return false;
        };
        *back = choice;
        batch(&held[..restart]);
        std::mem::swap(held, tried);
        true
    }

    /// Counts on in a piece, which must be the same for one `long`: one window. True at the piece's end.
    pub(super) fn count_on(
        &mut self,
        vocabulary: &Vocabulary<'_>,
        piece: &[u8],
        long: &mut LongPiece,
    ) -> bool {
        let LongPiece {
            window,
            windows,
            count,
        } = long;
        if windows.held.is_empty() {
            *window = if *window == 0 { FIRST_WINDOW } else { *window * 4 };
            *windows = self.first_window(vocabulary, piece, *window);
        } else if !self.next_window(vocabulary, piece, *window, windows, &mut |tokens| {
            *count += tokens.len() as u64;
        }) {
            // Begun again, with larger windows.
            (*count, *windows) = (0, Windows::default());
            return false;
        }
        let ended = windows.end == piece.len();
        if ended {
            *count += windows.held.len() as u64;
        }
        ended
    }

    /// Tokens of `piece[base..end]` taken alone.
    fn tokens(
        &mut self,
        vocabulary: &Vocabulary<'_>,
        piece: &[u8],
        base: usize,
        end: usize,
        out: &mut Vec<Token>,
    ) {
        out.clear();
        let bytes = &piece[base..end];
        if bytes.len() > WINDOW {
            return merge_any(vocabulary, &mut self.characters, bytes, base, out);
        }
        match self.merge(vocabulary, bytes) {
            Merged::Few(mut left) => {
                while left != 0 {
                    out.push(self.token(base, left.trailing_zeros() as usize));
                    left &= left - 1;
                }
            }
            Merged::Many(count) => {
                let mut node = 0;
                for _ in 0..count {
                    out.push(self.token(base, node));
                    node = usize::from(self.next[node]);
                }
            }
        }
    }

    fn token(&self, base: usize, node: usize) -> Token {
        Token {
            start: base + usize::from(self.starts[node]),
            rank: self.ranks[node],
        }
    }

    /// Merges at most [`WINDOW`] bytes.
    fn merge(&mut self, vocabulary: &Vocabulary<'_>, bytes: &[u8]) -> Merged {
        let nodes = self.fill(vocabulary, bytes);
        if nodes <= GROUP {
            return Merged::Few(self.join_few(vocabulary, nodes));
        }
        for node in 0..nodes {
            self.next[node] = node as u16 + 1;
            self.prev[node] = (node as u16).saturating_sub(1);
        }
        let groups = nodes.div_ceil(GROUP);
        for group in 0..groups {
            self.lows[group] = lowest(&self.keys, group);
        }
        if groups <= GROUP {
            return Merged::Many(self.join_all::<false>(vocabulary, nodes, groups));
        }
        self.lows[groups..groups.next_multiple_of(GROUP)].fill(NO_JOIN);
        let tops = groups.div_ceil(GROUP);
        for top in 0..tops {
            self.tops[top] = lowest(&self.lows, top);
        }
        Merged::Many(self.join_all::<true>(vocabulary, nodes, tops))
    }

    /// Joins within one group until nothing joins and returns the nodes that are left, as bits.
    fn join_few(&mut self, vocabulary: &Vocabulary<'_>, nodes: usize) -> u32 {
        let mut left = (1u32 << nodes) - 1;
        let mut best = lowest(&self.keys, 0);
        while best != NO_JOIN {
            let node = best as usize & (GROUP - 1);
            let rank = (best >> NODE_BITS).cast_unsigned();
            let behind = left & (u32::MAX << 1 << node);
            left ^= behind & behind.wrapping_neg();
            let (after, before) = (left & (u32::MAX << 1 << node), left & !(u32::MAX << node));
            self.keys[node] = NO_JOIN;
            self.keys[behind.trailing_zeros() as usize & (GROUP - 1)] = NO_JOIN;
            self.ranks[node] = rank;
            let (mut right_key, mut left_key) = (NO_JOIN, NO_JOIN);
            let before_node = before.checked_ilog2().unwrap_or(0) as usize & (GROUP - 1);
            // The others' lowest is found while the two new joins are looked up.
            if before != 0 {
                self.keys[before_node] = NO_JOIN;
            }
            let others = lowest(&self.keys, 0);
            if after != 0 {
                let right = self.ranks[after.trailing_zeros() as usize & (GROUP - 1)];
                right_key = join_key(&mut self.pairs, vocabulary, rank, right, node);
                self.keys[node] = right_key;
            }
            if before != 0 {
                let rank_before = self.ranks[before_node];
                left_key = join_key(&mut self.pairs, vocabulary, rank_before, rank, before_node);
                self.keys[before_node] = left_key;
            }
            best = others.min(right_key).min(left_key);
        }
        left
    }

    /// Joins until nothing joins and returns the number of tokens. What is lowest of all is searched among the first
    /// `searched` of `tops` if `DEEP`, of `lows` if not.
    fn join_all<const DEEP: bool>(
        &mut self,
        vocabulary: &Vocabulary<'_>,
        nodes: usize,
        searched: usize,
    ) -> usize {
        let mut count = nodes;
        loop {
            let lows = if DEEP {
                &self.tops[..searched]
            } else {
                &self.lows[..searched]
            };
            let mut best = lows.iter().copied().fold(NO_JOIN, i32::min);
            if best == NO_JOIN {
                return count;
            }
            let mut first_changed = usize::MAX;
            // Joins of one rank come in rows, leftmost first: as long as the next node has the same rank and nothing
            // lower came up, it is the next one, and the groups need neither be searched nor kept right.
            let last_changed = loop {
                count -= 1;
                let node = best as usize & ((1 << NODE_BITS) - 1);
                let rank = (best >> NODE_BITS).cast_unsigned();
                let gone = usize::from(self.next[node]);
                let after = usize::from(self.next[gone]);
                self.ranks[node] = rank;
                self.next[node] = after as u16;
                self.keys[gone] = NO_JOIN;
                let (mut right, mut left, mut following) = (NO_JOIN, NO_JOIN, NO_JOIN);
                if after < nodes {
                    self.prev[after] = node as u16;
                    following = self.keys[after];
                    right = join_key(&mut self.pairs, vocabulary, rank, self.ranks[after], node);
                }
                self.keys[node] = right;
                let before = usize::from(self.prev[node]);
                if node > 0 {
                    left = join_key(&mut self.pairs, vocabulary, self.ranks[before], rank, before);
                    self.keys[before] = left;
                }
                first_changed = first_changed.min(before);
                if following >> NODE_BITS != best >> NODE_BITS || right < following || left < following {
                    break gone;
                }
                best = following;
            };
            self.keep_lows::<DEEP>(first_changed / GROUP, last_changed / GROUP);
        }
    }

    /// Makes the lowest keys right of the groups from `first` to `last`, whose keys were changed.
    #[inline]
    fn keep_lows<const DEEP: bool>(&mut self, first: usize, last: usize) {
        for group in first..=last {
            self.lows[group] = lowest(&self.keys, group);
        }
        if DEEP {
            for top in first / GROUP..=last / GROUP {
                self.tops[top] = lowest(&self.lows, top);
            }
        }
    }

    /// One node per byte, or per atomic character (see `atomic`), with ranks, beginnings and keys; returns their number.
    #[inline]
    fn fill(&mut self, vocabulary: &Vocabulary<'_>, bytes: &[u8]) -> usize {
        let (mut nodes, mut at, mut before) = (0, 0, 0);
        while at < bytes.len() {
            let (rank, len) = if bytes[at] < 0xC0 {
                (vocabulary.byte_rank(bytes[at]), 1)
            } else {
                first_part(vocabulary, &mut self.characters, bytes, at)
            };
            self.ranks[nodes] = rank;
            self.starts[nodes] = at as u16;
            if nodes > 0 {
                self.keys[nodes - 1] = join_key(&mut self.pairs, vocabulary, before, rank, nodes - 1);
            }
            before = rank;
            nodes += 1;
            at += len;
        }
        for key in &mut self.keys[nodes.saturating_sub(1)..nodes.max(1).next_multiple_of(GROUP)] {
            *key = NO_JOIN;
        }
        nodes
    }
}

/// What merging left.
enum Merged {
    /// These nodes, as bits.
    Few(u32),
    /// So many, which begin at node 0 and follow `next`.
    Many(usize),
}

impl Merged {
    fn count(&self) -> u64 {
        match self {
            Self::Few(left) => u64::from(left.count_ones()),
            Self::Many(count) => *count as u64,
        }
    }
}

/// Where a window from `start` on ends: in vocabularies of characters, not inside one.
fn window_end(vocabulary: &Vocabulary<'_>, piece: &[u8], start: usize, window: usize) -> usize {
    let mut end = piece.len().min(start + window);
    if vocabulary.characters() {
        while end > start + 4 && piece.get(end).is_some_and(|byte| byte & 0xC0 == 0x80) {
            end -= 1;
        }
    }
    end
}

/// Rank and length of what merging begins with at `at`: a byte, or an atomic character (see `atomic`).
#[inline]
fn first_part(
    vocabulary: &Vocabulary<'_>,
    characters: &mut CharacterCache,
    bytes: &[u8],
    at: usize,
) -> (u32, usize) {
    let byte = bytes[at];
    if byte >= 0xC0 {
        let wide = width(byte);
        let candidate = vocabulary.characters()
            || ((at == 0 || !bytes[at - 1].is_ascii())
                && bytes.get(at + wide).is_none_or(|next| *next >= ATOMIC_NEXT_LEAD));
        if candidate && let Some(character) = bytes.get(at..at + wide) {
            let marked = characters.marked_rank(vocabulary, character);
            if marked & ATOMIC != 0
                && (marked & NEEDS_RIGHT == 0 || lets_be(vocabulary, characters, bytes, at + wide))
                && (marked & NEEDS_LEFT == 0
                    || at == 0
                    || lets_be(vocabulary, characters, bytes, last_start(bytes, at)))
            {
                return (marked & (RANK_LIMIT - 1), wide);
            }
        }
    }
    (vocabulary.byte_rank(byte), 1)
}

/// Whether the character at `at` is known not to join with a part of its neighbour: a token that does not meddle, or the
/// end.
fn lets_be(vocabulary: &Vocabulary<'_>, characters: &mut CharacterCache, bytes: &[u8], at: usize) -> bool {
    let Some(&lead) = bytes.get(at) else { return true };
    let character = bytes.get(at..at + width(lead));
    character.is_some_and(|character| {
        lead >= 0xC0 && characters.marked_rank(vocabulary, character) & (MEDDLES | NO_CHARACTER) == 0
    })
}

/// Where the character before `at` begins, or the continuation byte that is as far back as it could.
fn last_start(bytes: &[u8], at: usize) -> usize {
    let mut start = at.saturating_sub(1);
    while start > 0 && at - start < 4 && bytes[start] & 0xC0 == 0x80 {
        start -= 1;
    }
    start
}

/// Bytes of the character that begins with a lead byte.
#[inline]
fn width(lead: u8) -> usize {
    2 + usize::from(lead >= 0xE0) + usize::from(lead >= 0xF0)
}

/// The lowest of a group's values.
#[inline]
fn lowest(values: &[i32], group: usize) -> i32 {
    values[group * GROUP..group * GROUP + GROUP]
        .iter()
        .copied()
        .fold(NO_JOIN, i32::min)
}

/// Merges any number of bytes with a heap: the last resort for texts that no window settles.
fn merge_any(
    vocabulary: &Vocabulary<'_>,
    characters: &mut CharacterCache,
    bytes: &[u8],
    base: usize,
    out: &mut Vec<Token>,
) {
    const GONE: u32 = u32::MAX;
    let (mut ranks, mut starts, mut at) = (Vec::new(), Vec::new(), 0);
    while at < bytes.len() {
        let (rank, len) = first_part(vocabulary, characters, bytes, at);
        ranks.push(rank);
        starts.push(base + at);
        at += len;
    }
    let nodes = ranks.len();
    let mut next: Vec<usize> = (1..=nodes).collect();
    let mut prev: Vec<usize> = (0..nodes).map(|node| node.wrapping_sub(1)).collect();
    let mut joins = vec![RANK_LIMIT; nodes];
    let mut heap = BinaryHeap::new();
    for node in 1..nodes {
        let rank = vocabulary.merged(ranks[node - 1], ranks[node]);
        if rank < RANK_LIMIT {
            joins[node - 1] = rank;
            heap.push(Reverse((rank, node - 1)));
        }
    }
    while let Some(Reverse((rank, node))) = heap.pop() {
        // Entries are not taken out when a join changes; the current one is in `joins`.
        if joins[node] != rank {
            continue;
        }
        let gone = next[node];
        let after = next[gone];
        (ranks[node], next[node]) = (rank, after);
        (ranks[gone], joins[gone], joins[node]) = (GONE, RANK_LIMIT, RANK_LIMIT);
        if after < nodes {
            prev[after] = node;
            joins[node] = vocabulary.merged(rank, ranks[after]);
            if joins[node] < RANK_LIMIT {
                heap.push(Reverse((joins[node], node)));
            }
        }
        if node > 0 {
            let before = prev[node];
            joins[before] = vocabulary.merged(ranks[before], rank);
            if joins[before] < RANK_LIMIT {
                heap.push(Reverse((joins[before], before)));
            }
        }
    }
    let kept = starts.iter().zip(&ranks).filter(|(_, rank)| **rank != GONE);
    out.extend(kept.map(|(&start, &rank)| Token { start, rank }));
}
