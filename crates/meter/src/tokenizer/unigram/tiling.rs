//! The best way through a piece, in one pass that goes only forward.
//!
//! Only the number of tokens is wanted, so a place need not remember how it was reached, only how many tokens that took.
//! What is kept is a ring of as many places as the longest token has bytes, whatever the length of the text.
#![expect(
    clippy::indexing_slicing,
    reason = "places in the ring are masked by its length, a power of two"
)]

use super::Unigram;

/// How the tokens on the way to a place end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Run {
    /// Not with the unknown token.
    None,
    /// With the unknown token, spelled out in the text.
    Spelled,
    /// With unknown characters.
    Unknown,
}

/// The best way to a place.
#[derive(Debug, Clone, Copy)]
struct Place {
    score: f64,
    tokens: u32,
    run: Run,
}

/// A place that nothing has led to yet: any way is better.
const UNREACHED: Place = Place {
    score: f64::NEG_INFINITY,
    tokens: 0,
    run: Run::None,
};

/// The beginning of a piece.
const BEGINNING: Place = Place {
    score: 0.0,
    tokens: 0,
    run: Run::None,
};

/// The ways through a piece, as far as it was walked.
#[derive(Debug, Clone)]
pub(in crate::tokenizer) struct Tiling {
    ring: Box<[Place]>,
    /// Bytes of the piece that were walked over.
    at: usize,
}

impl Tiling {
    /// At the beginning of a piece.
    pub(in crate::tokenizer) fn new(unigram: &Unigram<'_>) -> Self {
        let places = (unigram.longest() + 1).next_power_of_two();
        let mut ring = vec![UNREACHED; places].into_boxed_slice();
        ring[0] = BEGINNING;
        Self { ring, at: 0 }
    }

    /// Walks on in the piece over about `bytes` bytes of `rest`, which is what follows and goes to the end of the piece, or at
    /// least as many bytes further as the longest token has. Returns how many it were.
    pub(in crate::tokenizer) fn walk(&mut self, unigram: &Unigram<'_>, rest: &[u8], bytes: usize) -> usize {
        let mask = self.ring.len() - 1;
        let (end, mut walked) = (bytes.min(rest.len()), 0);
        while walked < end {
            let at = self.at + walked;
            let here = std::mem::replace(&mut self.ring[at & mask], UNREACHED);
            walked += unigram.edges(&rest[walked..], |length, id, score| {
                let place = &mut self.ring[(at + length) & mask];
                let score = here.score + score;
                if score > place.score {
                    (place.score, place.tokens, place.run) = (score, here.tokens + 1, Run::None);
                    if id.is_none_or(|id| id == unigram.unknown) {
                        (place.tokens, place.run) = unknown(unigram, here, id.is_some(), length);
                    }
                }
            });
        }
        self.at += walked;
        walked
    }

    /// Number of tokens of the piece, which ends where it was walked to. What follows is another piece.
    pub(in crate::tokenizer) fn finish(&mut self) -> u64 {
        let mask = self.ring.len() - 1;
        let end = std::mem::replace(&mut self.ring[self.at & mask], UNREACHED);
        self.ring[0] = BEGINNING;
        self.at = 0;
        u64::from(end.tokens)
    }
}

/// Tokens on the way to a place behind the unknown token, which is spelled out or stands for a character, and how that way
/// ends.
fn unknown(unigram: &Unigram<'_>, here: Place, spelled: bool, length: usize) -> (u32, Run) {
    let fused = here.run != Run::None;
    if unigram.bytes.is_none() {
        return (here.tokens + u32::from(!fused), Run::Unknown);
    }
    let length = length as u32;
    match here.run {
        Run::None if spelled => (here.tokens + 1, Run::Spelled),
        Run::None => (here.tokens + length, Run::Unknown),
        // What was one token is part of a run now, and spelled in bytes.
        Run::Spelled => (here.tokens + unigram.spelled + length - 1, Run::Unknown),
        Run::Unknown => (here.tokens + length, Run::Unknown),
    }
}
