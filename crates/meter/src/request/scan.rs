//! The pass over a request body.

use super::error::{ScanError, ScanErrorKind, ScanFault};
use super::facts::{MaxTokens, RequestFacts, StreamOptions, Text};
use super::field::{FieldPath, Wanted};
use super::image::ImagePrice;
use super::input::{Image, InputSink, InputWalk, expect_start};
use crate::Api;
use crate::json::{Cursor, Integer, RawStr, integer};

/// Top-level keys that may stand only once: the gateway reads them, and parsers differ in which of two they take.
const INTERPRETED: [&[u8]; 23] = [
    b"model",
    b"stream",
    b"max_tokens",
    b"max_completion_tokens",
    b"max_output_tokens",
    b"n",
    b"best_of",
    b"stream_options",
    b"messages",
    b"prompt",
    b"input",
    b"suffix",
    b"system",
    b"instructions",
    b"tools",
    b"functions",
    b"tool_choice",
    b"function_call",
    b"response_format",
    b"text",
    b"documents",
    b"previous_response_id",
    b"conversation",
];

/// Whether a key is an interpreted one to a parser that ignores case, as Go's does (which also takes U+017F for `s` and
/// U+212A for `k`): such a server would follow `Model` where the gateway has judged `model`.
fn is_disguised(key: &[u8]) -> bool {
    let plain = |byte: &u8| byte.is_ascii() && !byte.is_ascii_uppercase();
    if key.iter().all(plain) || key.len() > 64 {
        return false;
    }
    let folded: String = String::from_utf8_lossy(key)
        .chars()
        .map(|character| match character {
            '\u{17f}' => 's',
            '\u{212a}' => 'k',
            other => other.to_ascii_lowercase(),
        })
        .collect();
    INTERPRETED.contains(&folded.as_bytes())
}

/// Adds up what the input can cost at most.
#[derive(Default)]
struct Bound {
    tokens: u64,
    images: u32,
}

impl InputSink for Bound {
    fn text(&mut self, text: RawStr<'_>) {
        // Decoding never lengthens: `\n` is 2 bytes for 1, `\uXXXX` 6 for at most 3.
        self.token_text(text.raw);
    }

    fn token_text(&mut self, token: &[u8]) {
        self.overhead(u64::try_from(token.len()).unwrap_or(u64::MAX));
    }

    fn overhead(&mut self, tokens: u64) {
        self.tokens = self.tokens.saturating_add(tokens);
    }

    fn image(&mut self, _image: Image<'_>) {
        self.images = self.images.saturating_add(1);
    }

    fn estimated(&mut self, tokens: u64) {
        self.overhead(tokens);
    }
}

/// Reads a whole JSON body in one pass: what the gateway interprets goes to `out` (which is cleared first), with the
/// fields in `wanted` in their order. Allocates only for escapes in keys, for the model's name and for wanted strings,
/// and reuses those buffers.
///
/// # Errors
/// On anything that is not strict JSON in UTF-8 (RFC 8259, nesting up to 128), on a duplicate of an interpreted or
/// wanted key, on an interpreted key in another case, and on interpreted fields of a wrong type or range. `null` is as
/// good as absent for optional fields. `out` is then incomplete.
pub fn scan(body: &[u8], api: Api, wanted: &[FieldPath], out: &mut RequestFacts) -> Result<(), ScanError> {
    out.clear();
    check_utf8(body)?;
    scan_members(body, api, wanted, out).map_err(|fault| fault.locate(body))
}

fn check_utf8(body: &[u8]) -> Result<(), ScanError> {
    if simdutf8::basic::from_utf8(body).is_ok() {
        return Ok(());
    }
    let at = std::str::from_utf8(body).map_or_else(|error| error.valid_up_to(), str::len);
    Err(ScanFault::new(ScanErrorKind::Utf8, at).locate(body))
}

fn scan_members(
    body: &[u8],
    api: Api,
    wanted: &[FieldPath],
    out: &mut RequestFacts,
) -> Result<(), ScanFault> {
    let mut bound = Bound::default();
    let mut input = InputWalk::new(&mut bound, api);
    input.begin();
    let mut values = std::mem::take(&mut out.wanted);
    values.resize(wanted.len(), None);
    let mut spare = std::mem::take(&mut out.spare);
    let mut scratch = std::mem::take(&mut out.scratch);
    let mut fields = Wanted::new(wanted, &mut values, &mut spare);
    let mut seen = 0_u32;
    let mut members = 0_usize;

    let mut cursor = Cursor::new(body);
    cursor.skip_whitespace();
    expect_start(&cursor, b"{", "an object")?;
    out.object_start = cursor.at() + 1;
    let result = cursor
        .members(|cursor, key| {
            members += 1;
            let key = key.decoded(&mut scratch);
            let value = *cursor;
            if let Some(bit) = INTERPRETED.iter().position(|&name| name == key) {
                if seen & (1 << bit) != 0 {
                    return Err(ScanFault::new(ScanErrorKind::DuplicateKey, cursor.at()));
                }
                seen |= 1 << bit;
            } else if is_disguised(key) {
                return Err(ScanFault::new(ScanErrorKind::KeyCase, cursor.at()));
            }
            match key {
                b"model" => model(cursor, out)?,
                b"stream" => stream(cursor, out)?,
                b"max_tokens" => max_tokens(cursor, out, 0)?,
                b"max_completion_tokens" => max_tokens(cursor, out, 1)?,
                b"max_output_tokens" => max_tokens(cursor, out, 2)?,
                b"n" => out.n = optional_count(cursor, 1)?.unwrap_or(1),
                b"best_of" => out.best_of = optional_count(cursor, 1)?.unwrap_or(1),
                b"stream_options" => stream_options(cursor, out)?,
                _ => input.member(cursor, key)?,
            }
            fields.top_member(value, key)
        })
        .and_then(|()| Ok(cursor.end()?));
    let (prompts, hidden) = (input.prompts, input.hidden);
    out.wanted = values;
    out.spare = spare;
    out.scratch = scratch;
    result?;

    out.api = Some(api);
    out.object_empty = members == 0;
    out.prompts = prompts;
    out.hidden_input = hidden;
    out.images = bound.images;
    out.image_price = ImagePrice::of(api, out.model.as_ref().map_or("", |model| model.value.as_str()));
    out.input_bound = bound
        .tokens
        .saturating_add(u64::from(bound.images).saturating_mul(out.image_price.upper_bound()));
    Ok(())
}

fn model(cursor: &mut Cursor<'_>, out: &mut RequestFacts) -> Result<(), ScanFault> {
    expect_start(cursor, b"\"", "a string")?;
    let start = cursor.at();
    let text = cursor.string()?;
    let mut value = out.spare.pop().unwrap_or_default();
    value.clear();
    let mut scratch = String::new();
    value.push_str(text.text(&mut scratch));
    out.model = Some(Text {
        span: start..cursor.at(),
        value,
    });
    Ok(())
}

fn stream(cursor: &mut Cursor<'_>, out: &mut RequestFacts) -> Result<(), ScanFault> {
    let start = cursor.at();
    out.stream = boolean(cursor)?;
    out.stream_span = Some(start..cursor.at());
    Ok(())
}

/// `null` is false.
fn boolean(cursor: &mut Cursor<'_>) -> Result<bool, ScanFault> {
    expect_start(cursor, b"tfn", "true or false")?;
    Ok(cursor.literal()? == b"true")
}

/// An integer of at least `minimum`, or `None` for `null`.
fn optional_count(cursor: &mut Cursor<'_>, minimum: u64) -> Result<Option<u64>, ScanFault> {
    let at = cursor.at();
    if cursor.peek() == b'n' {
        cursor.literal()?;
        return Ok(None);
    }
    expect_start(cursor, b"-0123456789", "an integer")?;
    let kind = match integer(cursor.number()?) {
        Integer::Value(value) if value >= minimum => return Ok(Some(value)),
        Integer::Value(_) | Integer::Negative => ScanErrorKind::TooSmall(minimum),
        Integer::Fraction => ScanErrorKind::Fraction,
        Integer::TooLarge => ScanErrorKind::TooLarge,
    };
    Err(ScanFault::new(kind, at))
}

fn max_tokens(cursor: &mut Cursor<'_>, out: &mut RequestFacts, name: usize) -> Result<(), ScanFault> {
    let start = cursor.at();
    let value = optional_count(cursor, 0)?;
    if let Some(slot) = out.max_tokens.get_mut(name) {
        *slot = Some(MaxTokens {
            value,
            span: start..cursor.at(),
        });
    }
    Ok(())
}

fn stream_options(cursor: &mut Cursor<'_>, out: &mut RequestFacts) -> Result<(), ScanFault> {
    let start = cursor.at();
    expect_start(cursor, b"{n", "an object")?;
    if cursor.peek() == b'n' {
        cursor.literal()?;
        let span = start..cursor.at();
        out.stream_options = Some(StreamOptions {
            span,
            object: false,
            empty: true,
            include_usage: None,
        });
        return Ok(());
    }
    let mut include_usage = None;
    let mut empty = true;
    let mut scratch = String::new();
    cursor.members(|cursor, key| {
        empty = false;
        if key.decoded(&mut scratch) != b"include_usage" {
            return Ok(cursor.skip()?);
        }
        if include_usage.is_some() {
            return Err(ScanFault::new(ScanErrorKind::DuplicateKey, cursor.at()));
        }
        let start = cursor.at();
        include_usage = Some((boolean(cursor)?, start..cursor.at()));
        Ok::<(), ScanFault>(())
    })?;
    let span = start..cursor.at();
    out.stream_options = Some(StreamOptions {
        span,
        object: true,
        empty,
        include_usage,
    });
    Ok(())
}
