//! Walks the parts of a body that a model reads and tells a sink what costs tokens there. The upper bound and the
//! exact count are two sinks of the same walk, so that they cannot disagree on what counts.
//!
//! What a part costs is the model's [`super::Formula`]; what is a part is the same for all models: every string value of a
//! message, a tool's or schema's keys that are no keywords and all its values, at any nesting.

use super::error::{ScanErrorKind, ScanFault};
use super::formula::Part as Priced;
use crate::Api;
use crate::json::{Cursor, Integer, Part, RawStr, integer};

/// Receives what costs tokens.
pub(super) trait InputSink {
    /// A string that the model reads.
    fn text(&mut self, text: RawStr<'_>);
    /// A bare JSON token (a number) that the model reads.
    fn token_text(&mut self, token: &[u8]);
    /// A part that has its price in the formula.
    fn part(&mut self, part: Priced);
    /// Token ids.
    fn ids(&mut self, tokens: u64);
    /// Audio, as base64.
    fn audio(&mut self, base64: &[u8]);
    /// An image, whose price depends on the model.
    fn image(&mut self, image: Image<'_>);
    /// A medium whose cost can only be estimated from its size.
    fn estimated(&mut self, tokens: u64);
}

/// An image of the input.
#[derive(Debug, Clone, Copy)]
pub(super) struct Image<'a> {
    /// The raw URL or base64.
    pub(super) data: ImageData<'a>,
    pub(super) low_detail: bool,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum ImageData<'a> {
    Url(&'a [u8]),
    Base64(&'a [u8]),
    Unknown,
}

/// A file or other medium by reference, and the least that one sent inline costs.
pub(super) const DOCUMENT: u64 = 3000;
/// Base64 characters of an inline document (12 bytes of it) per token, a cautious figure for PDF.
pub(super) const DOCUMENT_CHARACTERS: usize = 16;
/// Characters of a medium's URL, or of its data, per token.
const MEDIUM_CHARACTERS: usize = 266;
/// Encrypted reasoning: 4 bytes a token, base64.
const REASONING_CHARACTERS: usize = 5;
/// Nesting of content in content (tool results in messages); deeper ones are counted as plain strings.
const MAX_NESTING: u32 = 6;

/// Keywords of tool definitions and JSON Schema that renderings for models drop or shorten.
fn is_schema_keyword(key: &[u8]) -> bool {
    matches!(
        key,
        b"type"
            | b"function"
            | b"name"
            | b"description"
            | b"parameters"
            | b"input_schema"
            | b"properties"
            | b"required"
            | b"additionalProperties"
            | b"strict"
            | b"items"
            | b"enum"
            | b"anyOf"
            | b"schema"
            | b"$schema"
            | b"json_schema"
            | b"cache_control"
    )
}

fn wrong<T>(cursor: &Cursor<'_>, wanted: &'static str) -> Result<T, ScanFault> {
    Err(ScanFault::new(ScanErrorKind::WrongType(wanted), cursor.at()))
}

/// Tells a wrong type from broken syntax: a value of another type must still be a value.
pub(super) fn expect_start(
    cursor: &Cursor<'_>,
    starts: &[u8],
    wanted: &'static str,
) -> Result<(), ScanFault> {
    let next = cursor.peek();
    if starts.contains(&next) {
        return Ok(());
    }
    if matches!(next, b'"' | b'{' | b'[' | b'-' | b'0'..=b'9' | b't' | b'f' | b'n') {
        return wrong(cursor, wanted);
    }
    Err(cursor.expected("a value").into())
}

pub(super) fn length(count: usize) -> u64 {
    u64::try_from(count).unwrap_or(u64::MAX)
}

/// Walks one body's input.
pub(super) struct InputWalk<'s, S> {
    pub(super) sink: &'s mut S,
    pub(super) api: Api,
    scratch: String,
    pub(super) prompts: u64,
    pub(super) hidden: bool,
}

impl<'s, S: InputSink> InputWalk<'s, S> {
    pub(super) const fn new(sink: &'s mut S, api: Api) -> Self {
        Self {
            sink,
            api,
            scratch: String::new(),
            prompts: 1,
            hidden: false,
        }
    }

    /// What a request costs whatever it says.
    pub(super) fn begin(&mut self) {
        match self.api {
            Api::ChatCompletions
            | Api::Responses
            | Api::AnthropicMessages
            | Api::AnthropicCountTokens
            | Api::GeminiGenerate
            | Api::GeminiCountTokens => {
                self.sink.part(Priced::Request);
            }
            _ => {}
        }
    }

    /// Reads the value of a top-level member.
    pub(super) fn member(&mut self, cursor: &mut Cursor<'_>, key: &[u8]) -> Result<(), ScanFault> {
        let chat = self.api == Api::ChatCompletions;
        let responses = self.api == Api::Responses;
        let anthropic = self.api.is_anthropic();
        if matches!(self.api, Api::GeminiGenerate | Api::GeminiCountTokens) {
            return self.gemini_member(cursor, key);
        }
        match key {
            b"messages" if chat || anthropic => self.messages(cursor),
            b"prompt" if self.api == Api::Completions => self.prompt(cursor),
            b"input" if self.api == Api::Embeddings => self.prompt(cursor),
            b"suffix" if self.api == Api::Completions => self.content(cursor, 0),
            b"system" if anthropic => self.content(cursor, 0),
            b"instructions" if responses => self.content(cursor, 0),
            b"input" if responses => match cursor.peek() {
                b'[' => self.messages(cursor),
                b'n' => Ok(cursor.literal().map(|_| ())?),
                _ => {
                    self.sink.part(Priced::Message);
                    self.content(cursor, 0)
                }
            },
            b"previous_response_id" | b"conversation" | b"prompt" if responses => {
                self.hidden |= cursor.peek() != b'n';
                self.strings(cursor)
            }
            b"tools" | b"functions" if chat || responses || anthropic => self.tools(cursor),
            b"tool_choice" | b"function_call" if chat || responses => self.schema(cursor),
            b"response_format" if chat => self.schema(cursor),
            b"text" if responses => self.schema(cursor),
            b"output_config" | b"output_format" if anthropic => self.schema(cursor),
            b"documents" if chat => self.strings(cursor),
            b"mcp_servers" if anthropic => {
                self.hidden = true;
                Ok(cursor.skip()?)
            }
            b"model" => Ok(cursor.skip()?),
            _ if self.api.takes_any_body() => self.strings(cursor),
            _ => Ok(cursor.skip()?),
        }
    }

    fn messages(&mut self, cursor: &mut Cursor<'_>) -> Result<(), ScanFault> {
        expect_start(cursor, b"[", "an array of messages")?;
        cursor.elements(|cursor, _| {
            expect_start(cursor, b"{", "an object")?;
            self.sink.part(Priced::Message);
            self.node(cursor, 0)
        })
    }

    /// A message, an item of `input`, or a part of a message's content: the kinds share their keys.
    fn node(&mut self, cursor: &mut Cursor<'_>, nesting: u32) -> Result<(), ScanFault> {
        let mut scratch = std::mem::take(&mut self.scratch);
        let mut images = [None; 2];
        let mut low_detail = false;
        let mut seen = 0_u8;
        let result = cursor.members(|cursor, key| match key.decoded(&mut scratch) {
            b"role" if nesting == 0 => {
                expect_start(cursor, b"\"", "a string")?;
                self.sink.text(cursor.string()?);
                Ok(())
            }
            b"name" => {
                if cursor.peek() == b'"' {
                    self.sink.part(Priced::Name);
                }
                self.strings(cursor)
            }
            b"type" | b"status" | b"cache_control" | b"signature" | b"index" => Ok(cursor.skip()?),
            b"id" if self.api == Api::Responses => Ok(cursor.skip()?),
            b"content" | b"output" | b"summary" => self.content(cursor, nesting),
            b"input" => self.json(cursor),
            b"detail" => {
                low_detail |= cursor.peek() == b'"' && Cursor::string(&mut { *cursor })?.raw == b"low";
                Ok(cursor.skip()?)
            }
            b"image_url" if matches!(cursor.peek(), b'"' | b'{') => {
                once(cursor, &mut seen, 1)?;
                images[0] = Some(image_reference(cursor, &mut low_detail)?);
                Ok(())
            }
            b"image" if matches!(cursor.peek(), b'"' | b'{') => {
                once(cursor, &mut seen, 4)?;
                images[1] = Some(image_reference(cursor, &mut low_detail)?);
                Ok(())
            }
            b"source" if cursor.peek() == b'{' => {
                once(cursor, &mut seen, 2)?;
                self.source(cursor, nesting)
            }
            b"input_audio" | b"audio" if cursor.peek() == b'{' => self.audio(cursor),
            b"file" | b"video_url" | b"video" | b"audio_url" if cursor.peek() == b'{' => {
                cursor.members(|cursor, key| self.file_member(cursor, key))
            }
            b"file_data" | b"file_id" | b"file_url" | b"filename" | b"video" | b"video_url"
            | b"audio_url" => self.file_member(cursor, key),
            b"encrypted_content" | b"data" if cursor.peek() == b'"' => {
                let text = cursor.string()?;
                self.sink
                    .estimated(length(text.raw.len().div_ceil(REASONING_CHARACTERS)));
                Ok(())
            }
            _ => self.strings(cursor),
        });
        self.scratch = scratch;
        for data in images.into_iter().flatten() {
            self.sink.image(Image { data, low_detail });
        }
        result
    }

    /// Text, `null`, one part or an array of parts.
    fn content(&mut self, cursor: &mut Cursor<'_>, nesting: u32) -> Result<(), ScanFault> {
        if nesting >= MAX_NESTING {
            return self.strings(cursor);
        }
        match cursor.peek() {
            b'"' => {
                self.sink.text(cursor.string()?);
                Ok(())
            }
            b'n' => Ok(cursor.literal().map(|_| ())?),
            b'{' => self.node(cursor, nesting + 1),
            b'[' => cursor.elements(|cursor, _| match cursor.peek() {
                b'{' => self.node(cursor, nesting + 1),
                b'"' => {
                    self.sink.text(cursor.string()?);
                    Ok(())
                }
                _ => expect_start(cursor, b"{\"", "an object or a string"),
            }),
            _ => expect_start(cursor, b"\"[{", "a string or an array of parts"),
        }
    }

    /// Anthropic's `source` of an image or a document.
    fn source(&mut self, cursor: &mut Cursor<'_>, nesting: u32) -> Result<(), ScanFault> {
        let mut data: Option<RawStr<'_>> = None;
        let mut url = false;
        let mut seen = 0_u8;
        let mut kind: &[u8] = b"";
        let mut media: &[u8] = b"";
        let mut scratch = String::new();
        cursor.members(|cursor, key| {
            let key = key.decoded(&mut scratch);
            let bit = match key {
                b"type" => 1,
                b"media_type" => 2,
                b"data" => 4,
                b"url" | b"file_id" => 8,
                b"content" => return self.content(cursor, nesting + 1),
                _ => return Ok(cursor.skip()?),
            };
            once(cursor, &mut seen, bit)?;
            expect_start(cursor, b"\"", "a string")?;
            let text = cursor.string()?;
            match bit {
                1 => kind = text.raw,
                2 => media = text.raw,
                4 => data = Some(text),
                _ => url = true,
            }
            Ok::<(), ScanFault>(())
        })?;
        match data {
            // Base64 of a picture; anything that calls itself text is counted as such.
            Some(data) if kind == b"base64" && media.starts_with(b"image/") => {
                self.sink.image(Image {
                    data: ImageData::Base64(data.raw),
                    low_detail: false,
                });
            }
            Some(data) if kind == b"base64" => {
                self.sink
                    .estimated(length(data.raw.len().div_ceil(DOCUMENT_CHARACTERS)).max(DOCUMENT));
            }
            Some(data) => self.sink.text(data),
            None => {}
        }
        // Whether a URL is a picture or a document, the enclosing part says, maybe later: take the dearer.
        if url {
            self.hidden = true;
            self.sink.estimated(DOCUMENT);
            self.sink.image(Image {
                data: ImageData::Unknown,
                low_detail: false,
            });
        }
        Ok(())
    }

    fn audio(&mut self, cursor: &mut Cursor<'_>) -> Result<(), ScanFault> {
        let mut scratch = String::new();
        cursor.members(|cursor, key| {
            if key.decoded(&mut scratch) == b"data" && cursor.peek() == b'"' {
                let data = cursor.string()?;
                self.sink.audio(data.raw);
                return Ok(());
            }
            self.strings(cursor)
        })
    }

    fn file_member(&mut self, cursor: &mut Cursor<'_>, key: RawStr<'_>) -> Result<(), ScanFault> {
        let mut scratch = String::new();
        if cursor.peek() != b'"' {
            return self.strings(cursor);
        }
        let text = cursor.string()?;
        match key.decoded(&mut scratch) {
            b"filename" => self.sink.text(text),
            b"file_data" => {
                let tokens = length(text.raw.len().div_ceil(DOCUMENT_CHARACTERS)).max(DOCUMENT);
                self.sink.estimated(tokens);
            }
            b"file_id" | b"file_url" | b"video" | b"video_url" | b"audio_url" | b"url" => {
                self.hidden = true;
                self.sink
                    .estimated(length(text.raw.len().div_ceil(MEDIUM_CHARACTERS)).max(DOCUMENT));
            }
            _ => self.sink.text(text),
        }
        Ok(())
    }

    /// Text, texts, token ids, or arrays of token ids (completions and embeddings).
    fn prompt(&mut self, cursor: &mut Cursor<'_>) -> Result<(), ScanFault> {
        const WANTED: &str = "a string, an array of strings, or token ids";
        match cursor.peek() {
            b'"' => {
                self.sink.text(cursor.string()?);
                Ok(())
            }
            b'n' => Ok(cursor.literal().map(|_| ())?),
            b'[' => {
                let mut ids = 0_u64;
                let mut prompts = 0_u64;
                cursor.elements(|cursor, _| {
                    match cursor.peek() {
                        b'-' | b'0'..=b'9' => {
                            ids += 1;
                            return token_id(cursor);
                        }
                        b'"' => self.sink.text(cursor.string()?),
                        b'[' => cursor.elements(|cursor, _| {
                            self.sink.ids(1);
                            token_id(cursor)
                        })?,
                        b'{' => self.node(cursor, 0)?,
                        _ => return expect_start(cursor, b"\"", WANTED),
                    }
                    prompts += 1;
                    Ok(())
                })?;
                self.sink.ids(ids);
                // A flat list of ids is one prompt.
                self.prompts = prompts.saturating_add(u64::from(ids > 0)).max(1);
                Ok(())
            }
            _ => expect_start(cursor, b"\"", WANTED),
        }
    }

    fn tools(&mut self, cursor: &mut Cursor<'_>) -> Result<(), ScanFault> {
        if cursor.peek() == b'n' {
            return Ok(cursor.literal().map(|_| ())?);
        }
        expect_start(cursor, b"[", "an array")?;
        cursor.elements(|cursor, index| {
            if index == 0 {
                self.sink.part(Priced::Tools);
            }
            self.sink.part(Priced::Tool);
            self.schema(cursor)
        })
    }

    /// A tool definition or a schema: keys that are no keywords and all values.
    pub(super) fn schema(&mut self, cursor: &mut Cursor<'_>) -> Result<(), ScanFault> {
        let Self { sink, scratch, .. } = self;
        Ok(cursor.walk(|part| match part {
            Part::Key(key) => {
                if !is_schema_keyword(key.decoded(scratch)) {
                    sink.part(Priced::SchemaKey);
                    sink.text(key);
                }
            }
            Part::String(text) => {
                sink.part(Priced::SchemaValue);
                sink.text(text);
            }
            Part::Number(number) => {
                sink.part(Priced::SchemaValue);
                sink.token_text(number);
            }
            Part::Literal => sink.part(Priced::SchemaValue),
            Part::ArrayStart => {}
        })?)
    }

    /// Every string value of whatever is next.
    pub(super) fn strings(&mut self, cursor: &mut Cursor<'_>) -> Result<(), ScanFault> {
        Ok(cursor.walk(|part| {
            if let Part::String(text) = part {
                self.sink.text(text);
            }
        })?)
    }

    /// JSON that the model reads as such (a tool call's arguments): keys, values, and 1 for the punctuation of each.
    pub(super) fn json(&mut self, cursor: &mut Cursor<'_>) -> Result<(), ScanFault> {
        Ok(cursor.walk(|part| match part {
            Part::Key(text) | Part::String(text) => {
                self.sink.part(Priced::JsonValue);
                self.sink.text(text);
            }
            Part::Number(number) => {
                self.sink.part(Priced::JsonValue);
                self.sink.token_text(number);
            }
            Part::Literal => self.sink.part(Priced::JsonValue),
            Part::ArrayStart => {}
        })?)
    }
}

fn token_id(cursor: &mut Cursor<'_>) -> Result<(), ScanFault> {
    expect_start(cursor, b"-0123456789", "a token id")?;
    let at = cursor.at();
    match integer(cursor.number()?) {
        Integer::Value(_) => Ok(()),
        _ => Err(ScanFault::new(ScanErrorKind::WrongType("a token id"), at)),
    }
}

/// A key that decides how the rest is counted must stand once.
pub(super) fn once(cursor: &Cursor<'_>, seen: &mut u8, bit: u8) -> Result<(), ScanFault> {
    if *seen & bit != 0 {
        return Err(ScanFault::new(ScanErrorKind::DuplicateKey, cursor.at()));
    }
    *seen |= bit;
    Ok(())
}

/// OpenAI's `image_url`: a URL, or an object with `url` and `detail`.
fn image_reference<'a>(cursor: &mut Cursor<'a>, low_detail: &mut bool) -> Result<ImageData<'a>, ScanFault> {
    if cursor.peek() == b'"' {
        return Ok(ImageData::Url(cursor.string()?.raw));
    }
    let mut data = ImageData::Unknown;
    let mut seen = 0_u8;
    let mut scratch = String::new();
    cursor.members(|cursor, key| {
        let bit = match key.decoded(&mut scratch) {
            b"url" => 1,
            b"detail" => 2,
            _ => return Ok(cursor.skip()?),
        };
        once(cursor, &mut seen, bit)?;
        if cursor.peek() == b'n' {
            return Ok(cursor.literal().map(|_| ())?);
        }
        expect_start(cursor, b"\"", "a string")?;
        let text = cursor.string()?;
        if bit == 1 {
            data = ImageData::Url(text.raw);
        } else {
            *low_detail |= text.raw == b"low";
        }
        Ok::<(), ScanFault>(())
    })?;
    Ok(data)
}
