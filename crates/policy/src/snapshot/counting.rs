//! How models are counted, in place.

use super::{CountingRecord, PatternRecord, Section, Snapshot, flag};
use crate::counting::{CLASSES, PARTS};
use crate::documents::Images;
use std::fmt;

/// How one model is counted.
#[derive(Clone, Copy)]
pub struct CountingView<'a> {
    snapshot: Snapshot<'a>,
    record: &'a CountingRecord,
}

impl<'a> CountingView<'a> {
    pub(super) fn new(snapshot: Snapshot<'a>, record: &'a CountingRecord) -> Self {
        Self { snapshot, record }
    }

    /// The rule's name; empty if the defaults count.
    pub fn rule(&self) -> &'a str {
        self.snapshot.text(self.record.rule)
    }

    /// Version of all that decides a count: changes if and only if something of it does. 24 bits, never 0.
    pub fn version(&self) -> u32 {
        self.record.version.get()
    }

    /// The tokenizer that counts; if there are ratios, none does.
    pub fn tokenizer(&self) -> &'a str {
        self.snapshot.text(self.record.tokenizer)
    }

    /// The tokenizer that was wanted.
    pub fn wanted_tokenizer(&self) -> &'a str {
        self.snapshot.text(self.record.wanted)
    }

    /// The compiled vocabulary's file name, and the checksum of what it was compiled from; `None` for tokenizers that are
    /// part of the binary.
    pub fn vocabulary(&self) -> Option<(&'a str, u64)> {
        let file = self.snapshot.text(self.record.file);
        (!file.is_empty()).then(|| (file, self.record.source.get()))
    }

    /// Whether counts are estimates: the tokenizer is not the model's own.
    pub fn is_estimate(&self) -> bool {
        self.record.flags & flag::ESTIMATE != 0
    }

    /// Whether the factor is learned from what upstreams report.
    pub fn learns(&self) -> bool {
        self.record.flags & flag::LEARNS != 0
    }

    /// Thousandths of a token per character, in the order of the meter's classes.
    pub fn ratios(&self) -> Option<[u32; CLASSES]> {
        (self.record.flags & flag::RATIOS != 0).then(|| self.record.ratios.map(|ratio| ratio.get()))
    }

    /// Patterns, and what a match counts in thousandths of a token.
    pub fn patterns(&self) -> impl ExactSizeIterator<Item = (&'a str, u32)> + use<'a> {
        let snapshot = self.snapshot;
        snapshot
            .run::<PatternRecord>(Section::Patterns, self.record.patterns)
            .iter()
            .map(move |record| (snapshot.text(record.pattern), record.units.get()))
    }

    /// Thousandths.
    pub fn factor(&self) -> u32 {
        self.record.factor.get()
    }

    /// Least tokens of texts that are not empty.
    pub fn minimum(&self) -> u64 {
        self.record.minimum.get()
    }

    /// Most tokens of texts; 0 for no maximum.
    pub fn maximum(&self) -> u64 {
        self.record.maximum.get()
    }

    /// Thousandths of a token that a byte of text has at most, before the factor.
    pub fn most_per_byte(&self) -> u32 {
        self.record.most_per_byte.get()
    }

    /// Tokens beside the texts, in the order of the meter's parts.
    pub fn parts(&self) -> [u32; PARTS] {
        self.record.parts.map(|part| part.get())
    }

    /// Tokens of a second of audio.
    pub fn audio_second(&self) -> u32 {
        self.record.audio_second.get()
    }

    /// What an image costs.
    pub fn images(&self) -> Images {
        let [a, b] = self.record.images.map(|figure| figure.get());
        match self.record.images_kind {
            0 => Images::Fixed { tokens: a },
            1 => Images::Tiles { base: a, per_tile: b },
            2 => Images::Patches { cap: a, percent: b },
            3 => Images::Areas { cap: a },
            _ => Images::Crops { per_crop: a, most: b },
        }
    }

    /// Thousandths of our own count above which an upstream's usage is called suspicious.
    pub fn suspicious_factor(&self) -> u32 {
        self.record.suspicious_factor.get()
    }
}

pub(crate) fn images_code(images: Images) -> (u8, [u32; 2]) {
    match images {
        Images::Fixed { tokens } => (0, [tokens, 0]),
        Images::Tiles { base, per_tile } => (1, [base, per_tile]),
        Images::Patches { cap, percent } => (2, [cap, percent]),
        Images::Areas { cap } => (3, [cap, 0]),
        Images::Crops { per_crop, most } => (4, [per_crop, most]),
    }
}

impl fmt::Debug for CountingView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CountingView")
            .field("rule", &self.rule())
            .field("tokenizer", &self.tokenizer())
            .field("version", &self.version())
            .finish_non_exhaustive()
    }
}
