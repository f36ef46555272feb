//! The exact count of a request's input.

use super::error::{ScanError, ScanFault};
use super::image::{ImagePrice, base64_size, data_url_size};
use super::input::{Image, ImageData, InputSink, InputWalk, expect_start};
use crate::json::{Cursor, RawStr};
use crate::{Api, TokenCounter};

/// The input tokens of a request by the documented formulas.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct InputCount {
    /// Tokens; saturating.
    pub tokens: u64,
    /// Images among them.
    pub images: u32,
    /// Whether a part was only estimated: a document, audio, encrypted reasoning, or an image of unknown size.
    pub estimated: bool,
    /// Whether the upstream adds input that the body does not show.
    pub hidden_input: bool,
}

struct Exact<'c> {
    counter: &'c mut dyn TokenCounter,
    scratch: String,
    count: InputCount,
    /// Sizes of the images: their price depends on the model, whose name may come last.
    images: Vec<(Option<(u32, u32)>, bool)>,
}

impl InputSink for Exact<'_> {
    fn text(&mut self, text: RawStr<'_>) {
        let tokens = self.counter.count(text.text(&mut self.scratch));
        self.overhead(tokens);
    }

    fn token_text(&mut self, token: &[u8]) {
        self.text(RawStr {
            raw: token,
            escaped: false,
        });
    }

    fn overhead(&mut self, tokens: u64) {
        self.count.tokens = self.count.tokens.saturating_add(tokens);
    }

    fn image(&mut self, image: Image<'_>) {
        let size = match image.data {
            ImageData::Url(url) => data_url_size(url),
            ImageData::Base64(data) => base64_size(data),
            ImageData::Unknown => None,
        };
        self.count.estimated |= size.is_none();
        self.count.images = self.count.images.saturating_add(1);
        self.images.push((size, image.low_detail));
    }

    fn estimated(&mut self, tokens: u64) {
        self.count.estimated = true;
        self.overhead(tokens);
    }
}

/// Counts the input of a body that [`super::scan()`] has accepted: decodes the texts, counts each with `counter`, adds
/// the overheads of the API's formula and the images by their sizes (those that cannot be read cost the upper bound).
///
/// # Errors
/// The syntax and type errors of [`super::scan()`]; duplicates of top-level keys are not looked for again.
pub fn count_input(body: &[u8], api: Api, counter: &mut dyn TokenCounter) -> Result<InputCount, ScanError> {
    count_members(body, api, counter).map_err(|fault| fault.locate(body))
}

fn count_members(body: &[u8], api: Api, counter: &mut dyn TokenCounter) -> Result<InputCount, ScanFault> {
    let mut exact = Exact {
        counter,
        scratch: String::new(),
        count: InputCount::default(),
        images: Vec::new(),
    };
    let mut model = String::new();
    let mut scratch = String::new();
    let mut input = InputWalk::new(&mut exact, api);
    input.begin();
    let mut cursor = Cursor::new(body);
    cursor.skip_whitespace();
    expect_start(&cursor, b"{", "an object")?;
    cursor.members(|cursor, key| {
        match key.decoded(&mut scratch) {
            b"model" if cursor.peek() == b'"' => {
                let mut decoded = String::new();
                model = cursor.string()?.text(&mut decoded).to_owned();
                Ok(())
            }
            // `scan` reads these itself.
            b"stream"
            | b"max_tokens"
            | b"max_completion_tokens"
            | b"max_output_tokens"
            | b"n"
            | b"best_of"
            | b"stream_options" => Ok(cursor.skip()?),
            key => input.member(cursor, key),
        }
    })?;
    cursor.end()?;
    let hidden_input = input.hidden;
    let price = ImagePrice::of(api, &model);
    let mut count = exact.count;
    for (size, low_detail) in exact.images {
        count.tokens = count.tokens.saturating_add(price.cost(size, low_detail));
    }
    Ok(InputCount {
        hidden_input,
        ..count
    })
}
