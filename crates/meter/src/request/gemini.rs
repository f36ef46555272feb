//! The input of Gemini's requests. Its parser takes a name in camel case and with underscores; so does this.

use super::error::ScanFault;
use super::formula::Part as Priced;
use super::input::{
    DOCUMENT, DOCUMENT_CHARACTERS, Image, ImageData, InputSink, InputWalk, expect_start, length, once,
};
use crate::json::{Cursor, RawStr};

impl<S: InputSink> InputWalk<'_, S> {
    /// Reads the value of a top-level member.
    pub(super) fn gemini_member(&mut self, cursor: &mut Cursor<'_>, key: &[u8]) -> Result<(), ScanFault> {
        match key {
            b"contents" if cursor.peek() == b'[' => cursor.elements(|cursor, _| self.gemini_content(cursor)),
            b"contents" | b"systemInstruction" | b"system_instruction" => self.gemini_content(cursor),
            b"tools" if cursor.peek() == b'[' => self.gemini_tools(cursor),
            b"toolConfig" | b"tool_config" => self.schema(cursor),
            b"cachedContent" | b"cached_content" => {
                self.hidden |= cursor.peek() != b'n';
                Ok(cursor.skip()?)
            }
            b"generationConfig" | b"generation_config" if cursor.peek() == b'{' => {
                let mut scratch = String::new();
                cursor.members(|cursor, key| match key.decoded(&mut scratch) {
                    b"responseSchema"
                    | b"response_schema"
                    | b"responseJsonSchema"
                    | b"response_json_schema" => self.schema(cursor),
                    _ => Ok(cursor.skip()?),
                })
            }
            // What countTokens may ask about instead of contents.
            b"generateContentRequest" | b"generate_content_request" if cursor.peek() == b'{' => {
                let mut scratch = String::new();
                cursor.members(|cursor, key| match key.decoded(&mut scratch) {
                    b"generateContentRequest" | b"generate_content_request" => Ok(cursor.skip()?),
                    key => self.gemini_member(cursor, key),
                })
            }
            _ => Ok(cursor.skip()?),
        }
    }

    /// Every function that is declared is a tool, and so is every tool of the provider's own.
    fn gemini_tools(&mut self, cursor: &mut Cursor<'_>) -> Result<(), ScanFault> {
        cursor.elements(|cursor, index| {
            if index == 0 {
                self.sink.part(Priced::Tools);
            }
            if cursor.peek() != b'{' {
                return self.strings(cursor);
            }
            let mut scratch = String::new();
            cursor.members(|cursor, key| match key.decoded(&mut scratch) {
                b"functionDeclarations" | b"function_declarations" if cursor.peek() == b'[' => cursor
                    .elements(|cursor, _| {
                        self.sink.part(Priced::Tool);
                        self.schema(cursor)
                    }),
                _ => {
                    self.sink.part(Priced::Tool);
                    self.schema(cursor)
                }
            })
        })
    }

    /// A content: role and parts.
    fn gemini_content(&mut self, cursor: &mut Cursor<'_>) -> Result<(), ScanFault> {
        if cursor.peek() == b'n' {
            return Ok(cursor.literal().map(|_| ())?);
        }
        expect_start(cursor, b"{", "an object")?;
        self.sink.part(Priced::Message);
        let mut scratch = String::new();
        cursor.members(|cursor, key| match key.decoded(&mut scratch) {
            b"parts" if cursor.peek() == b'[' => cursor.elements(|cursor, _| self.gemini_part(cursor)),
            b"parts" => self.gemini_part(cursor),
            b"role" => Ok(cursor.skip()?),
            _ => self.strings(cursor),
        })
    }

    fn gemini_part(&mut self, cursor: &mut Cursor<'_>) -> Result<(), ScanFault> {
        if cursor.peek() != b'{' {
            return self.strings(cursor);
        }
        let mut scratch = String::new();
        cursor.members(|cursor, key| match key.decoded(&mut scratch) {
            b"inlineData" | b"inline_data" if cursor.peek() == b'{' => self.gemini_blob(cursor),
            b"fileData" | b"file_data" => {
                self.hidden = true;
                self.sink.estimated(DOCUMENT);
                Ok(cursor.skip()?)
            }
            b"functionCall" | b"function_call" | b"functionResponse" | b"function_response" => {
                self.json(cursor)
            }
            b"thought" | b"thoughtSignature" | b"thought_signature" | b"videoMetadata"
            | b"video_metadata" => Ok(cursor.skip()?),
            _ => self.strings(cursor),
        })
    }

    /// A medium in base64.
    fn gemini_blob(&mut self, cursor: &mut Cursor<'_>) -> Result<(), ScanFault> {
        let mut data: Option<RawStr<'_>> = None;
        let mut media: &[u8] = b"";
        let mut seen = 0_u8;
        let mut scratch = String::new();
        cursor.members(|cursor, key| {
            let bit = match key.decoded(&mut scratch) {
                b"mimeType" | b"mime_type" => 1,
                b"data" => 2,
                _ => return Ok(cursor.skip()?),
            };
            once(cursor, &mut seen, bit)?;
            expect_start(cursor, b"\"", "a string")?;
            let text = cursor.string()?;
            if bit == 1 {
                media = text.raw;
            } else {
                data = Some(text);
            }
            Ok::<(), ScanFault>(())
        })?;
        let Some(data) = data else { return Ok(()) };
        if media.starts_with(b"image/") {
            self.sink.image(Image {
                data: ImageData::Base64(data.raw),
                low_detail: false,
            });
        } else if media.starts_with(b"audio/") {
            self.sink.audio(data.raw);
        } else {
            self.sink
                .estimated(length(data.raw.len().div_ceil(DOCUMENT_CHARACTERS)).max(DOCUMENT));
        }
        Ok(())
    }
}
