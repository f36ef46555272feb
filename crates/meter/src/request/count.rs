//! The exact count of a request's input.

use super::audio;
use super::error::{ScanError, ScanFault};
use super::formula::{Formula, Part};
use super::image::{base64_size, data_url_size};
use super::input::{Image, ImageData, InputSink, InputWalk, expect_start};
use crate::json::{Cursor, Pause, RawStr};
use crate::{Api, TokenCounter};

/// The input tokens of a request by the documented formulas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InputCount {
    /// Tokens; saturating.
    pub tokens: u64,
    /// What the counter made of the texts, in its units.
    pub text_units: u64,
    /// Tokens of everything else.
    pub beside_texts: u64,
    /// Images among them.
    pub images: u32,
    /// Whether a part was only estimated: a document, audio, encrypted reasoning, or an image of unknown size.
    pub estimated: bool,
    /// Whether the upstream adds input that the body does not show.
    pub hidden_input: bool,
}

/// What a request costs beside its texts, by a formula.
pub(super) struct Beside<'f> {
    formula: &'f Formula,
    pub(super) count: InputCount,
}

impl<'f> Beside<'f> {
    pub(super) fn new(formula: &'f Formula) -> Self {
        Self {
            formula,
            count: InputCount::default(),
        }
    }

    pub(super) fn add(&mut self, tokens: u64) {
        self.count.beside_texts = self.count.beside_texts.saturating_add(tokens);
    }

    pub(super) fn part(&mut self, part: Part) {
        self.add(self.formula.part(part));
    }

    pub(super) fn audio(&mut self, base64: &[u8]) {
        let (milliseconds, guessed) = audio::duration(base64);
        self.count.estimated |= guessed;
        self.add(self.formula.audio(milliseconds));
    }

    pub(super) fn image(&mut self, image: &Image<'_>) {
        let size = match image.data {
            ImageData::Url(url) => data_url_size(url),
            ImageData::Base64(data) => base64_size(data),
            ImageData::Unknown => None,
        };
        self.count.estimated |= size.is_none();
        self.count.images = self.count.images.saturating_add(1);
        self.add(self.formula.image.cost(size, image.low_detail));
    }

    pub(super) fn estimated(&mut self, tokens: u64) {
        self.count.estimated = true;
        self.add(tokens);
    }
}

struct Exact<'c> {
    counter: &'c mut dyn TokenCounter,
    scratch: String,
    beside: Beside<'c>,
}

impl InputSink for Exact<'_> {
    fn text(&mut self, text: RawStr<'_>) {
        let units = self.counter.count(text.text(&mut self.scratch));
        self.beside.count.add_text(units);
    }

    fn token_text(&mut self, token: &[u8]) {
        self.text(RawStr {
            raw: token,
            escaped: false,
        });
    }

    fn part(&mut self, part: Part) {
        self.beside.part(part);
    }

    fn ids(&mut self, tokens: u64) {
        self.beside.add(tokens);
    }

    fn audio(&mut self, base64: &[u8]) {
        self.beside.audio(base64);
    }

    fn image(&mut self, image: Image<'_>) {
        self.beside.image(&image);
    }

    fn estimated(&mut self, tokens: u64) {
        self.beside.estimated(tokens);
    }
}

impl InputCount {
    pub(super) fn add_text(&mut self, units: u64) {
        self.text_units = self.text_units.saturating_add(units);
    }

    /// All texts are counted.
    pub(super) fn finish(mut self, counter: &dyn TokenCounter) -> Self {
        self.tokens = counter.tokens(self.text_units).saturating_add(self.beside_texts);
        self
    }
}

/// Counts the input of a body that [`super::scan()`] has accepted: decodes the texts, counts each with `counter`, adds
/// what the formula says of everything else (images by their sizes; those that cannot be read cost the upper bound).
///
/// # Errors
/// The syntax and type errors of [`super::scan()`]; duplicates of top-level keys are not looked for again.
pub fn count_input(
    body: &[u8],
    api: Api,
    formula: &Formula,
    counter: &mut dyn TokenCounter,
) -> Result<InputCount, ScanError> {
    let mut exact = Exact {
        counter,
        scratch: String::new(),
        beside: Beside::new(formula),
    };
    exact.beside.count.hidden_input = walk(body, api, &mut exact, Pause::NEVER)?;
    Ok(exact.beside.count.finish(exact.counter))
}

/// Shows a body's input to a sink. Returns whether there is input that the body does not show.
pub(super) fn walk<S: InputSink>(
    body: &[u8],
    api: Api,
    sink: &mut S,
    pause: Pause<'_>,
) -> Result<bool, ScanError> {
    walk_members(body, api, sink, pause).map_err(|fault| fault.locate(body, pause))
}

fn walk_members<S: InputSink>(
    body: &[u8],
    api: Api,
    sink: &mut S,
    pause: Pause<'_>,
) -> Result<bool, ScanFault> {
    let mut scratch = String::new();
    let mut input = InputWalk::new(sink, api);
    input.begin();
    let mut cursor = Cursor::pausing(body, pause);
    cursor.skip_whitespace();
    expect_start(&cursor, b"{", "an object")?;
    cursor.members(|cursor, key| match key.decoded(&mut scratch) {
        // `scan` reads these itself.
        b"stream"
        | b"max_tokens"
        | b"max_completion_tokens"
        | b"max_output_tokens"
        | b"n"
        | b"best_of"
        | b"stream_options" => Ok(cursor.skip()?),
        key => input.member(cursor, key),
    })?;
    cursor.end()?;
    Ok(input.hidden)
}
