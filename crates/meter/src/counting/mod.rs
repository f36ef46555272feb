//! How one model's texts are counted: by a tokenizer or by ratios per kind of character, with what patterns take out of
//! a text before, times a factor. Whole texts and texts in pieces come to the same.
//!
//! Everything is added up in thousandths of a token, and rounded up once, when a request's input or an answer is whole.
//!
//! Patterns look at a text line by line, and at lines of more than 8 KB in parts of at most 8 KB, so that a stream needs to
//! keep no more than that.

mod class;
mod steps;
#[cfg(test)]
mod tests;

use regex::{Regex, RegexBuilder};

pub use class::CharacterClass;
pub(crate) use steps::TextSteps;

use crate::tokenizer::{Counter, StepCounter, StreamCounter};
use crate::{TextSink, TokenCounter};

/// Longest part of a line that patterns look at, bytes.
const LINE: usize = 8 * 1024;
/// Memory that one pattern may take, bytes, compiled and while it matches.
const PATTERN_BYTES: usize = 1 << 18;
/// Bytes of text that a token has where nothing better is known.
const BYTES_PER_TOKEN: u64 = 4;
/// Units that [`ModelCounter`] counts a token as.
pub const UNITS: u64 = 1_000;

/// A tokenizer at work, whoever owns its vocabulary.
pub trait Engine {
    /// Tokens of a whole text.
    fn count(&mut self, text: &str) -> u64;
    /// As [`StreamCounter::push`].
    fn push(&mut self, stream: &mut StreamCounter, text: &str);
    /// As [`StreamCounter::finish`].
    fn finish(&mut self, stream: StreamCounter) -> u64;
    /// As [`StepCounter::feed`].
    fn feed(&mut self, steps: &mut StepCounter, part: &str, last: bool);
    /// As [`StepCounter::step`].
    fn step(&mut self, steps: &mut StepCounter, left: &mut usize) -> Option<u64>;
}

impl Engine for Counter<'_> {
    fn count(&mut self, text: &str) -> u64 {
        TokenCounter::count(self, text)
    }

    fn push(&mut self, stream: &mut StreamCounter, text: &str) {
        stream.push(self, text);
    }

    fn finish(&mut self, stream: StreamCounter) -> u64 {
        stream.finish(self)
    }

    fn feed(&mut self, steps: &mut StepCounter, part: &str, last: bool) {
        steps.feed(self, part, last);
    }

    fn step(&mut self, steps: &mut StepCounter, left: &mut usize) -> Option<u64> {
        steps.step(self, left)
    }
}

/// What a pattern takes out of a text, and what each match counts, in thousandths of a token.
#[derive(Debug, Clone)]
pub struct TextPattern {
    regex: Regex,
    units: u64,
}

/// Why a pattern cannot be used. It has to be written otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PatternError(String);

impl std::fmt::Display for PatternError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "unusable pattern: {}", self.0)
    }
}

impl std::error::Error for PatternError {}

impl TextPattern {
    /// A pattern (syntax of the `regex` crate) whose matches count `units` thousandths of a token each.
    ///
    /// # Errors
    /// If it is no expression, needs too much memory, or matches the empty text.
    pub fn new(pattern: &str, units: u32) -> Result<Self, PatternError> {
        let regex = RegexBuilder::new(pattern)
            .size_limit(PATTERN_BYTES)
            .dfa_size_limit(PATTERN_BYTES)
            .build()
            .map_err(|error| PatternError(error.to_string()))?;
        if regex.is_match("") {
            return Err(PatternError("it matches the empty text".to_owned()));
        }
        Ok(Self {
            regex,
            units: units.into(),
        })
    }
}

/// A rule for texts. What it says of a tokenizer is in the hands of whoever makes a [`ModelCounter`] of it.
#[derive(Debug, Clone)]
pub struct TextRule {
    /// Thousandths of a token per character, by [`CharacterClass`]; `None` to count with a tokenizer.
    pub ratios: Option<[u32; CharacterClass::COUNT]>,
    /// Taken out of a text before the rest is counted; the first that matches earliest wins.
    pub patterns: Vec<TextPattern>,
    /// Thousandths.
    pub factor: u32,
    /// Least tokens of an input or an answer that has text.
    pub minimum: u64,
    /// Most tokens of an input's or an answer's texts; 0 for no maximum.
    pub maximum: u64,
    /// The most thousandths of a token that a byte of text can have, before the factor.
    pub most_per_byte: u32,
}

impl Default for TextRule {
    fn default() -> Self {
        Self {
            ratios: None,
            patterns: Vec::new(),
            factor: 1_000,
            minimum: 0,
            maximum: 0,
            most_per_byte: 1_000,
        }
    }
}

impl TextRule {
    /// Tokens that so many units make.
    #[must_use]
    pub fn tokens(&self, units: u64) -> u64 {
        if units == 0 {
            return 0;
        }
        let tokens = if self.factor == 1_000 {
            units.div_ceil(UNITS)
        } else {
            let exact = (u128::from(units) * u128::from(self.factor)).div_ceil(1_000_000);
            u64::try_from(exact).unwrap_or(u64::MAX)
        };
        let most = if self.maximum == 0 { u64::MAX } else { self.maximum };
        tokens.max(self.minimum).min(most)
    }

    /// The most tokens that texts of so many bytes can have.
    #[must_use]
    pub fn most(&self, bytes: u64) -> u64 {
        self.tokens(bytes.saturating_mul(self.most_per_byte.into()))
    }

    /// Whether a text's tokens are those of the tokenizer and nothing else.
    fn is_plain(&self) -> bool {
        self.ratios.is_none() && self.patterns.is_empty()
    }
}

/// A text as far as it has been counted: an answer that streams.
#[derive(Debug, Clone, Default)]
pub struct TextCount {
    stream: StreamCounter,
    /// A line that has not ended yet, if there are patterns.
    line: String,
    /// Thousandths, without what is in `stream`.
    units: u64,
    /// Bytes so far.
    bytes: u64,
}

impl TextCount {
    /// Nothing counted yet.
    #[must_use]
    pub const fn new() -> Self {
        Self {
            stream: StreamCounter::new(),
            line: String::new(),
            units: 0,
            bytes: 0,
        }
    }

    /// Bytes of text so far.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// About as many tokens as there are so far, without the tokenizer: never far off, for notes in passing.
    #[must_use]
    pub fn about(&self, rule: &TextRule) -> u64 {
        let waiting = (self.stream.pending() + self.line.len()) as u64 / BYTES_PER_TOKEN;
        rule.tokens(
            self.units
                .saturating_add((self.stream.counted() + waiting).saturating_mul(UNITS)),
        )
    }
}

/// One model's rule and a tokenizer to follow it with.
pub struct ModelCounter<'a> {
    rule: &'a TextRule,
    /// `None` only if the rule has ratios, or no tokenizer can be had.
    engine: Option<&'a mut dyn Engine>,
}

impl<'a> ModelCounter<'a> {
    /// A counter by `rule`, with `engine` as its tokenizer.
    pub fn new(rule: &'a TextRule, engine: Option<&'a mut dyn Engine>) -> Self {
        Self { rule, engine }
    }

    /// The rule.
    #[must_use]
    pub fn rule(&self) -> &TextRule {
        self.rule
    }

    /// Counts the next part of a text.
    pub fn push(&mut self, count: &mut TextCount, text: &str) {
        count.bytes = count.bytes.saturating_add(text.len() as u64);
        if self.rule.is_plain() {
            match self.engine.as_deref_mut() {
                Some(engine) => engine.push(&mut count.stream, text),
                None => count.units += guessed(text),
            }
        } else if self.rule.patterns.is_empty() {
            count.units = count.units.saturating_add(self.units(text));
        } else {
            count.line.push_str(text);
            let mut at = 0;
            while let Some(end) = line_end(count.line.get(at..).unwrap_or_default(), false) {
                let line = count.line.get(at..at + end).unwrap_or_default();
                count.units = count.units.saturating_add(self.line_units(line));
                at += end;
            }
            count.line.drain(..at);
        }
    }

    /// Counts what waits and returns the tokens of the whole text.
    pub fn finish(&mut self, count: TextCount) -> u64 {
        let TextCount {
            stream, line, units, ..
        } = count;
        let mut units = units.saturating_add(self.line_units(&line));
        if let Some(engine) = self.engine.as_deref_mut() {
            units = units.saturating_add(engine.finish(stream).saturating_mul(UNITS));
        }
        self.rule.tokens(units)
    }

    /// Tokens of a whole text.
    pub fn text(&mut self, text: &str) -> u64 {
        let units = self.count(text);
        self.rule.tokens(units)
    }

    /// Units of a line, or of a part of one.
    fn line_units(&mut self, line: &str) -> u64 {
        if line.is_empty() {
            return 0;
        }
        let rule = self.rule;
        let (mut at, mut units) = (0, 0_u64);
        loop {
            let rest = line.get(at..).unwrap_or_default();
            let first = rule
                .patterns
                .iter()
                .filter_map(|pattern| Some((pattern.regex.find_at(line, at)?, pattern.units)))
                .filter(|(found, _)| !found.is_empty())
                .min_by_key(|(found, _)| found.start());
            let Some((found, each)) = first else {
                return units.saturating_add(self.units(rest));
            };
            units = units
                .saturating_add(self.units(line.get(at..found.start()).unwrap_or_default()))
                .saturating_add(each);
            at = found.end();
        }
    }

    /// Units of a text by ratios or tokenizer.
    fn units(&mut self, text: &str) -> u64 {
        match (&self.rule.ratios, self.engine.as_deref_mut()) {
            (Some(ratios), _) => class::units(ratios, text),
            (None, _) if text.is_empty() => 0,
            (None, Some(engine)) => engine.count(text).saturating_mul(UNITS),
            (None, None) => guessed(text),
        }
    }
}

/// Units that count as thousandths of a token: [`TokenCounter::tokens`] makes tokens of the sum.
impl TokenCounter for ModelCounter<'_> {
    fn count(&mut self, text: &str) -> u64 {
        if self.rule.patterns.is_empty() {
            return self.units(text);
        }
        let (mut rest, mut units) = (text, 0_u64);
        while let Some(end) = line_end(rest, true) {
            let (line, after) = rest.split_at(end);
            units = units.saturating_add(self.line_units(line));
            rest = after;
        }
        units
    }

    fn tokens(&self, units: u64) -> u64 {
        self.rule.tokens(units)
    }
}

/// A sink that counts what an answer says.
pub struct CountText<'c, 'a> {
    /// What counts; without it only bytes are.
    pub counter: &'c mut ModelCounter<'a>,
    /// The answer's text so far.
    pub count: &'c mut TextCount,
}

impl TextSink for CountText<'_, '_> {
    fn text(&mut self, text: &str) {
        self.counter.push(self.count, text);
    }
}

fn guessed(text: &str) -> u64 {
    (text.len() as u64).saturating_mul(UNITS) / BYTES_PER_TOKEN
}

/// Where the first line of a text ends, or the part of it that is looked at alone; `None` if more text may change that.
fn line_end(text: &str, whole: bool) -> Option<usize> {
    let part = text.floor_char_boundary(LINE);
    let feed = memchr::memchr(b'\n', text.as_bytes().get(..part).unwrap_or_default());
    match feed {
        Some(at) => Some(at + 1),
        None if text.len() > LINE => Some(part),
        None => (whole && !text.is_empty()).then_some(text.len()),
    }
}
