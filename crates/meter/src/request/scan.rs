//! The pass over a request body.

use super::error::{ScanError, ScanErrorKind, ScanFault};
use super::facts::{GenerationConfig, MaxTokens, RequestFacts, StreamOptions, Text};
use super::field::{FieldPath, Wanted};
use super::formula::{InputTally, Part};
use super::input::{Image, InputSink, InputWalk, expect_start};
use crate::Api;
use crate::json::{Cursor, Integer, Pause, RawStr, decode_lossy, integer};

/// The number of a top-level key that may stand only once: the gateway reads it, and parsers differ in which of two they
/// take. `scan` itself reads those below [`FIRST_INPUT`].
fn interpreted(key: &[u8]) -> Option<u32> {
    Some(match key {
        b"model" => 0,
        b"stream" => 1,
        b"max_tokens" => 2,
        b"max_completion_tokens" => 3,
        b"max_output_tokens" => 4,
        b"n" => 5,
        b"best_of" => 6,
        b"stream_options" => 7,
        b"messages" => 8,
        b"prompt" => 9,
        b"input" => 10,
        b"suffix" => 11,
        b"system" => 12,
        b"instructions" => 13,
        b"tools" => 14,
        b"functions" => 15,
        b"tool_choice" => 16,
        b"function_call" => 17,
        b"response_format" => 18,
        b"text" => 19,
        b"documents" => 20,
        b"previous_response_id" => 21,
        b"conversation" => 22,
        // Gemini's parser takes both spellings of a name.
        b"generationConfig" | b"generation_config" => 23,
        b"contents" => 24,
        b"systemInstruction" | b"system_instruction" => 25,
        b"toolConfig" | b"tool_config" => 26,
        b"cachedContent" | b"cached_content" => 27,
        b"generateContentRequest" | b"generate_content_request" => 28,
        _ => return None,
    })
}

/// The first key of the input, which [`InputWalk`] reads.
const FIRST_INPUT: u32 = 8;
/// The number of `generationConfig`.
const GENERATION_CONFIG: u32 = 23;

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
    interpreted(folded.as_bytes()).is_some()
}

impl InputSink for InputTally {
    fn text(&mut self, text: RawStr<'_>) {
        // Decoding never lengthens: `\n` is 2 bytes for 1, `\uXXXX` 6 for at most 3.
        self.token_text(text.raw);
    }

    fn token_text(&mut self, token: &[u8]) {
        self.text_bytes = self
            .text_bytes
            .saturating_add(u64::try_from(token.len()).unwrap_or(u64::MAX));
    }

    fn part(&mut self, part: Part) {
        InputTally::part(self, part);
    }

    fn ids(&mut self, tokens: u64) {
        self.fixed = self.fixed.saturating_add(tokens);
    }

    fn audio(&mut self, base64: &[u8]) {
        self.audio_characters = self
            .audio_characters
            .saturating_add(u64::try_from(base64.len()).unwrap_or(u64::MAX));
    }

    fn image(&mut self, _image: Image<'_>) {
        self.images = self.images.saturating_add(1);
    }

    fn estimated(&mut self, tokens: u64) {
        self.ids(tokens);
    }
}

/// Reads a whole JSON body in one pass: what the gateway interprets goes to `out` (which is cleared first), with the
/// fields in `wanted` in their order. Needs buffers only for escapes in keys, for the model's name and for wanted
/// fields, and keeps them in `out`: from the second body on it allocates nothing.
///
/// # Errors
/// On anything that is not strict JSON in UTF-8 (RFC 8259, nesting up to 128), on a duplicate of an interpreted or
/// wanted key, on an interpreted key in another case, and on interpreted fields of a wrong type or range. `null` is as
/// good as absent for optional fields. `out` is then incomplete.
pub fn scan(body: &[u8], api: Api, wanted: &[FieldPath], out: &mut RequestFacts) -> Result<(), ScanError> {
    scan_with(body, api, wanted, out, Pause::NEVER)
}

/// The same with pauses, for a body that takes longer than others should wait: `pause` is called again and again, some
/// tens of microseconds apart at most (a number of a hundred thousand digits, or a key of that size, is read in one go).
///
/// # Errors
/// As [`scan`].
pub fn scan_pausing(
    body: &[u8],
    api: Api,
    wanted: &[FieldPath],
    out: &mut RequestFacts,
    pause: &dyn Fn(),
) -> Result<(), ScanError> {
    scan_with(body, api, wanted, out, Pause::calling(pause))
}

fn scan_with(
    body: &[u8],
    api: Api,
    wanted: &[FieldPath],
    out: &mut RequestFacts,
    pause: Pause<'_>,
) -> Result<(), ScanError> {
    out.clear();
    if let Some(at) = not_utf8(body, pause) {
        return Err(ScanFault::new(ScanErrorKind::Utf8, at).locate(body, pause));
    }
    // Out of `out` while it is filled, and back whatever happens.
    let mut values = std::mem::take(&mut out.wanted);
    let mut buffers = out.buffers.0.take().unwrap_or_default();
    values.resize(wanted.len(), None);
    let fields = Wanted::new(wanted, &mut values, &mut buffers);
    let result = scan_members(body, api, fields, out, pause);
    out.wanted = values;
    out.buffers.0 = Some(buffers);
    result.map_err(|fault| fault.locate(body, pause))
}

/// Bytes whose encoding is checked at once.
const CHECKED: usize = 128 * 1024;

/// Where a body is not UTF-8.
fn not_utf8(body: &[u8], mut pause: Pause<'_>) -> Option<usize> {
    let mut start = 0;
    while start < body.len() {
        let mut end = body.len().min(start + CHECKED);
        // Back to where a character begins, unless there is none near: then the part is no UTF-8.
        for _ in 0..3 {
            end -= usize::from(body.get(end).is_some_and(|byte| byte & 0xc0 == 0x80));
        }
        let part = body.get(start..end).unwrap_or_default();
        if simdutf8::basic::from_utf8(part).is_err() {
            let valid = std::str::from_utf8(part).map_or_else(|error| error.valid_up_to(), str::len);
            return Some(start + valid);
        }
        start = end;
        pause.at(start);
    }
    None
}

fn scan_members(
    body: &[u8],
    api: Api,
    mut fields: Wanted<'_, '_>,
    out: &mut RequestFacts,
    pause: Pause<'_>,
) -> Result<(), ScanFault> {
    let mut tally = InputTally::default();
    let mut input = InputWalk::new(&mut tally, api);
    input.begin();
    let mut scratch = std::mem::take(&mut fields.buffers.key);
    let mut seen = 0_u32;
    let mut members = 0_usize;

    let gemini = matches!(api, Api::GeminiGenerate | Api::GeminiCountTokens);
    let mut cursor = Cursor::pausing(body, pause);
    cursor.skip_whitespace();
    expect_start(&cursor, b"{", "an object")?;
    out.object_start = cursor.at() + 1;
    cursor.members(|cursor, key| {
        members += 1;
        let key = key.decoded(&mut scratch);
        let value = *cursor;
        let number = interpreted(key);
        match number {
            Some(number) => {
                if seen & (1 << number) != 0 {
                    return Err(ScanFault::new(ScanErrorKind::DuplicateKey, cursor.at()));
                }
                seen |= 1 << number;
            }
            None if is_disguised(key) => {
                return Err(ScanFault::new(ScanErrorKind::KeyCase, cursor.at()));
            }
            None => {}
        }
        match number.unwrap_or(FIRST_INPUT) {
            // To Gemini only the model means something, and that stands in the path.
            1..FIRST_INPUT if gemini => cursor.skip()?,
            GENERATION_CONFIG if gemini => {
                generation_config(cursor, out)?;
                input.member(&mut { value }, key)?;
            }
            0 => out.model = Some(model(cursor, fields.buffers.string())?),
            1 => stream(cursor, out)?,
            2 => max_tokens(cursor, out, 0)?,
            3 => max_tokens(cursor, out, 1)?,
            4 => max_tokens(cursor, out, 2)?,
            5 => out.n = optional_count(cursor, 1)?.unwrap_or(1),
            6 => out.best_of = optional_count(cursor, 1)?.unwrap_or(1),
            7 => stream_options(cursor, out)?,
            FIRST_INPUT.. => input.member(cursor, key)?,
        }
        fields.top_member(value, key)
    })?;
    cursor.end()?;
    fields.buffers.key = scratch;

    out.api = Some(api);
    out.object_empty = members == 0;
    out.prompts = input.prompts;
    out.hidden_input = input.hidden;
    out.input = tally;
    Ok(())
}

fn model(cursor: &mut Cursor<'_>, mut value: String) -> Result<Text, ScanFault> {
    expect_start(cursor, b"\"", "a string")?;
    let start = cursor.at();
    let text = cursor.string()?;
    let span = start..cursor.at();
    match std::str::from_utf8(text.raw) {
        Ok(plain) if !text.escaped => value.push_str(plain),
        _ => decode_lossy(text.raw, &mut value),
    }
    Ok(Text { span, value })
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

/// Gemini's `generationConfig`: how many answers of which length.
fn generation_config(cursor: &mut Cursor<'_>, out: &mut RequestFacts) -> Result<(), ScanFault> {
    let start = cursor.at();
    expect_start(cursor, b"{n", "an object")?;
    let object = cursor.peek() == b'{';
    let mut empty = true;
    if object {
        let mut seen = [false; 2];
        let mut scratch = String::new();
        cursor.members(|cursor, key| {
            empty = false;
            let which = match key.decoded(&mut scratch) {
                b"maxOutputTokens" | b"max_output_tokens" => 0,
                b"candidateCount" | b"candidate_count" => 1,
                _ => return Ok(cursor.skip()?),
            };
            if seen
                .get_mut(which)
                .is_some_and(|seen| std::mem::replace(seen, true))
            {
                return Err(ScanFault::new(ScanErrorKind::DuplicateKey, cursor.at()));
            }
            if which == 0 {
                max_tokens(cursor, out, 2)
            } else {
                out.n = optional_count(cursor, 1)?.unwrap_or(1);
                Ok(())
            }
        })?;
    } else {
        cursor.literal()?;
    }
    out.generation_config = Some(GenerationConfig {
        span: start..cursor.at(),
        object,
        empty,
    });
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::json::EVERY;
    use std::cell::Cell;

    /// Bodies that are long in each way that a body can be.
    fn long_bodies(length: usize) -> Vec<String> {
        let of = |unit: &str| unit.repeat(length / unit.len());
        let text = |unit: &str| {
            let text = of(unit);
            format!(r#"{{"messages":[{{"role":"user","content":"{text}"}}],"model":"m"}}"#)
        };
        let list = |unit: &str| {
            let list = of(unit);
            format!(r#"{{"model":"m","messages":[],"x":[{list}0],"stream":true}}"#)
        };
        vec![
            text("word "),
            text("\\n"),
            text("\\u00e9"),
            text("\u{4f60}\u{597d}"),
            text("a\u{1f600}"),
            text("\u{e9}"),
            list("1,"),
            list("[[[]]],"),
            list("\"\","),
            list("{\"a\":{\"b\":null}},"),
            format!("{{{}\"model\":\"m\",\"messages\":[]}}", of(" \n")),
            format!("{{{}\"model\":\"m\"}}", of("\"key\":1,")),
            format!(
                r#"{{"model":"m","messages":[{}{{"role":"user","content":"x"}}]}}"#,
                of(r#"{"role":"user","content":"x"},"#)
            ),
        ]
    }

    fn both(body: &[u8]) -> (Result<(), ScanError>, usize) {
        let wanted = [FieldPath::parse("messages.0.content").unwrap()];
        let (mut plain, mut pausing) = (RequestFacts::new(), RequestFacts::new());
        let pauses = Cell::new(0);
        let expected = scan(body, Api::ChatCompletions, &wanted, &mut plain);
        let result = scan_pausing(body, Api::ChatCompletions, &wanted, &mut pausing, &|| {
            pauses.set(pauses.get() + 1);
        });
        assert_eq!(result, expected);
        if result.is_ok() {
            assert_eq!(format!("{plain:?}"), format!("{pausing:?}"));
        }
        (result, pauses.get())
    }

    #[test]
    fn long_bodies_are_read_with_pauses_and_to_the_same_end() {
        for body in long_bodies(1_000_000) {
            let (result, pauses) = both(body.as_bytes());
            let what: String = body.chars().take(60).collect();
            assert_eq!(result, Ok(()), "{what}");
            assert!(pauses >= body.len() / EVERY, "{pauses} pauses in {what}");
        }
    }

    #[test]
    fn what_is_wrong_is_found_at_the_same_byte() {
        for body in long_bodies(300_000) {
            // Cut off, and with a byte in it that is no UTF-8, around the places where parts end.
            for at in [
                1,
                EVERY,
                5 * EVERY - 1,
                CHECKED - 1,
                CHECKED,
                CHECKED + 1,
                2 * CHECKED,
                299_990,
            ] {
                let cut = body.as_bytes().get(..at).unwrap();
                assert!(both(cut).0.is_err());
                for wrong in [b"\xff".as_slice(), b"\x80\x80\x80\x80\x80", b"\xf0\x9f", b"\x00"] {
                    let mut body = body.clone().into_bytes();
                    body.splice(at..at + wrong.len(), wrong.iter().copied());
                    let utf8 = std::str::from_utf8(&body).err().map(|error| error.valid_up_to());
                    let (result, _) = both(&body);
                    if let Some(valid) = utf8 {
                        let error = result.unwrap_err();
                        assert_eq!((error.kind, error.offset), (ScanErrorKind::Utf8, valid));
                    }
                }
            }
        }
    }

    #[test]
    fn an_error_at_a_long_end_is_located_with_pauses() {
        let body = format!(r#"{{"a":[{}!]}}"#, "1,".repeat(300_000));
        let (result, pauses) = both(body.as_bytes());
        assert_eq!(result.unwrap_err().path, "a.300000");
        assert!(pauses >= 2 * body.len() / EVERY, "{pauses}");
    }
}
