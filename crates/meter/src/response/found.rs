//! What the readers of answers collect.

use super::role::Role;
use super::usage::{RawUsage, Usage};
use crate::json::{Integer, integer};

/// Receives the text of an answer as it passes, decoded, in pieces of any length.
pub trait TextSink {
    /// The next piece. Texts of several choices come interleaved as the upstream sends them.
    fn text(&mut self, text: &str);
}

impl<S: TextSink + ?Sized> TextSink for &mut S {
    fn text(&mut self, text: &str) {
        (**self).text(text);
    }
}

/// A sink for those who need no text.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct NoText;

impl TextSink for NoText {
    fn text(&mut self, _text: &str) {}
}

/// Counts bytes: an upper bound of tokens for byte-level tokenizers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct TextBytes(
    /// Bytes seen, saturating.
    pub u64,
);

impl TextSink for TextBytes {
    fn text(&mut self, text: &str) {
        self.0 = self
            .0
            .saturating_add(u64::try_from(text.len()).unwrap_or(u64::MAX));
    }
}

impl TextSink for String {
    fn text(&mut self, text: &str) {
        self.push_str(text);
    }
}

/// A short text held in place; longer ones are cut at a character.
#[derive(Clone, Copy)]
pub struct Short<const N: usize> {
    length: u8,
    bytes: [u8; N],
}

impl<const N: usize> Short<N> {
    pub(super) const EMPTY: Self = Self {
        length: 0,
        bytes: [0; N],
    };

    pub(super) fn push(&mut self, byte: u8) {
        if let Some(slot) = self.bytes.get_mut(usize::from(self.length)) {
            *slot = byte;
            self.length = self.length.saturating_add(1);
        }
    }

    /// Appends what fits.
    pub(super) fn extend(&mut self, bytes: &[u8]) {
        let start = usize::from(self.length);
        let length = bytes.len().min(N.min(255).saturating_sub(start));
        if let (Some(to), Some(from)) = (self.bytes.get_mut(start..start + length), bytes.get(..length)) {
            to.copy_from_slice(from);
            self.length = u8::try_from(start + length).unwrap_or(u8::MAX);
        }
    }

    pub(super) fn set(&mut self, text: &[u8]) {
        let length = text.len().min(N).min(255);
        if let (Some(to), Some(from)) = (self.bytes.get_mut(..length), text.get(..length)) {
            to.copy_from_slice(from);
        }
        self.length = u8::try_from(length).unwrap_or(u8::MAX);
    }

    pub(super) const fn clear(&mut self) {
        self.length = 0;
    }

    pub(super) const fn is_empty(&self) -> bool {
        self.length == 0
    }

    pub(super) const fn is_full(&self) -> bool {
        self.length as usize >= N
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..usize::from(self.length)).unwrap_or_default()
    }

    /// The text, up to the first byte that is not UTF-8.
    #[must_use]
    pub fn as_str(&self) -> &str {
        let bytes = self.as_bytes();
        match std::str::from_utf8(bytes) {
            Ok(text) => text,
            Err(error) => bytes
                .get(..error.valid_up_to())
                .and_then(|valid| std::str::from_utf8(valid).ok())
                .unwrap_or_default(),
        }
    }
}

impl<const N: usize> Default for Short<N> {
    fn default() -> Self {
        Self::EMPTY
    }
}

impl<const N: usize> PartialEq for Short<N> {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl<const N: usize> Eq for Short<N> {}

impl<const N: usize> std::fmt::Debug for Short<N> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Debug::fmt(self.as_str(), f)
    }
}

/// Longest model name that is remembered, bytes.
pub(super) const MODEL: usize = 96;
/// Longest id that is remembered, bytes.
pub(super) const ID: usize = 128;

/// What the reader will use of the values that stand in every answer and event.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Wants {
    /// None of them: an event after the first, which repeats them.
    #[default]
    Nothing,
    /// `model`: an answer in one body.
    Model,
    /// `id` and `created`: the first event of a stream.
    Identity,
}

/// Scalars of interest, whoever found them.
#[derive(Default)]
pub(super) struct Found {
    pub(super) usage: RawUsage,
    pub(super) model: Option<Short<MODEL>>,
    pub(super) id: Option<Short<ID>>,
    pub(super) created: Option<u64>,
    pub(super) wants: Wants,
    pub(super) index: Option<u32>,
    pub(super) choice: bool,
    pub(super) error: bool,
    pub(super) finish: bool,
    pub(super) text: bool,
    pub(super) malformed: bool,
}

impl Found {
    pub(super) const fn object(&mut self, role: Role) {
        match role {
            Role::Usage => self.usage.present = true,
            Role::Choice | Role::Candidate => self.choice = true,
            Role::Error => self.error = true,
            _ => {}
        }
    }

    /// A string that is not text; `value` is its decoded content (its beginning at least).
    pub(super) fn string(&mut self, role: Role, value: &[u8]) {
        match role {
            Role::Id if self.wants == Wants::Identity => self.id.get_or_insert_default().set(value),
            Role::Model if self.wants == Wants::Model => self.model.get_or_insert_default().set(value),
            Role::Finish => self.finish = true,
            Role::Error => self.error = true,
            Role::Figure(_) => self.usage.malformed(),
            _ => {}
        }
    }

    pub(super) fn number(&mut self, role: Role, number: &[u8]) {
        match role {
            Role::Figure(figure) => {
                // `count_tokens` has its figure without a usage object around it.
                self.usage.present = true;
                self.usage.number(figure, number);
            }
            Role::Created if self.wants == Wants::Identity => {
                if let Integer::Value(value) = integer(number) {
                    self.created = Some(value);
                }
            }
            Role::Index => {
                if let Integer::Value(value) = integer(number)
                    && self.index.is_none()
                {
                    self.index = u32::try_from(value).ok();
                }
            }
            Role::Error => self.error = true,
            _ => {}
        }
    }

    pub(super) fn literal(&mut self, role: Role, null: bool) {
        match role {
            Role::Error if !null => self.error = true,
            Role::Figure(_) if !null => self.usage.malformed(),
            _ => {}
        }
    }

    pub(super) fn usage(&self) -> Option<Usage> {
        self.usage.usage()
    }
}
