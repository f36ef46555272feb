//! Writes the messages of a chat as Anthropic's turns.
//!
//! System messages, wherever they stand, become blocks of `system` in their order, as in the provider's own
//! OpenAI-compatible endpoint. Messages of one role that follow each other become one turn; so results of parallel calls
//! stand together, as the protocol demands.

use std::borrow::Cow;

use crate::json::{Array, Object, Str, escape};
use crate::openai::{
    Chat, DataUrl, Part, Role, arguments_object, for_each_call, for_each_message, for_each_part,
};
use crate::refusal::{At, Refusal};
use crate::request::required;
use crate::turns::Turns;

/// The messages as turns and as blocks of the system prompt, each with commas between.
pub(super) struct History {
    pub(super) system: Vec<u8>,
    pub(super) turns: Vec<u8>,
    pub(super) ends_with_result: bool,
}

impl History {
    pub(super) fn read(chat: &Chat<'_>) -> Result<Self, Refusal> {
        let mut system = Vec::new();
        let mut turns = Turns::new("content", chat.messages.raw().len() + 256);
        let mut ends_with_result = false;
        for_each_message(chat.messages, |message, at| {
            let content_at = at.key("content");
            match message.role {
                Role::System => {
                    return for_each_part(
                        required(message.content, at, "content")?,
                        &content_at,
                        |part, at| match part {
                            Part::Text { text, .. } if text.is_empty() => Ok(()),
                            Part::Text { .. } => write_part(part, at, comma(&mut system)),
                            _ => Err(at.refuse("a system message can only be text")),
                        },
                    );
                }
                Role::User => {
                    for_each_part(
                        required(message.content, at, "content")?,
                        &content_at,
                        |part, at| turns.part("user", part, at, write_part),
                    )?;
                }
                Role::Assistant => {
                    if let Some(content) = message.content {
                        for_each_part(content, &content_at, |part, at| {
                            turns.part("assistant", part, at, write_part)
                        })?;
                    }
                    if let Some(text) = message.refusal {
                        turns.part(
                            "assistant",
                            Part::Text {
                                text,
                                cache_control: None,
                            },
                            at,
                            write_part,
                        )?;
                    }
                    if let Some(calls) = message.tool_calls {
                        for_each_call(calls, at, |call, at| {
                            let input = arguments_object(call.arguments, at)?;
                            let mut block = Object::open(turns.begin("assistant"));
                            block
                                .text("type", "tool_use")
                                .text("id", &safe_id(call.id))
                                .string("name", call.name);
                            block.raw("input", &input);
                            block.close();
                            Ok(())
                        })?;
                    }
                }
                Role::Tool => {
                    let id = required(message.tool_call_id, at, "tool_call_id")?;
                    let mut block = Object::open(turns.begin("user"));
                    block
                        .text("type", "tool_result")
                        .text("tool_use_id", &safe_id(id));
                    if let Some(content) = message.content {
                        let mut parts = Array::open(block.key("content"));
                        for_each_part(content, &content_at, |part, at| match part {
                            Part::Text { text, .. } if text.is_empty() => Ok(()),
                            _ => write_part(part, at, parts.item()),
                        })?;
                        parts.close();
                    }
                    block.close();
                }
            }
            ends_with_result = message.role == Role::Tool;
            Ok(())
        })?;
        Ok(Self {
            system,
            turns: turns.finish()?,
            ends_with_result,
        })
    }
}

fn comma(out: &mut Vec<u8>) -> &mut Vec<u8> {
    if !out.is_empty() {
        out.push(b',');
    }
    out
}

fn write_part(part: Part<'_>, at: &At<'_>, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let mut block = Object::open(out);
    let cache_control = match part {
        Part::Text { text, cache_control } => {
            block.text("type", "text").string("text", text);
            cache_control
        }
        Part::Image { url, cache_control } => {
            block.text("type", "image");
            write_image_source(url, at, block.key("source"))?;
            cache_control
        }
        Part::File { name, data } => {
            let at = at.key("file");
            let data = data.text();
            let Some(DataUrl {
                media_type: "application/pdf",
                data,
            }) = DataUrl::parse(&data)
            else {
                return Err(at
                    .key("file_data")
                    .refuse("must be a data: URL of a PDF in base64 on this deployment"));
            };
            block.text("type", "document");
            write_base64("application/pdf", data, block.key("source"));
            if let Some(name) = name {
                block.string("title", name);
            }
            None
        }
        Part::Audio { .. } => {
            return Err(at
                .key("type")
                .refuse("audio cannot be translated for this deployment"));
        }
    };
    if let Some(cache_control) = cache_control {
        block.raw("cache_control", cache_control.raw());
    }
    block.close();
    Ok(())
}

fn write_image_source(url: Str<'_>, at: &At<'_>, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let image = at.key("image_url");
    let url = url.text();
    if let Some(DataUrl { media_type, data }) = DataUrl::parse(&url) {
        if !matches!(
            media_type,
            "image/jpeg" | "image/png" | "image/gif" | "image/webp"
        ) {
            return Err(image
                .key("url")
                .refuse("must be a JPEG, PNG, GIF or WebP on this deployment"));
        }
        write_base64(media_type, data, out);
    } else if url.starts_with("https://") || url.starts_with("http://") {
        let mut source = Object::open(out);
        source.text("type", "url").text("url", &url);
        source.close();
    } else {
        return Err(image
            .key("url")
            .refuse("must be an http or https URL or a data: URL in base64"));
    }
    Ok(())
}

fn write_base64(media_type: &str, data: &str, out: &mut Vec<u8>) {
    let mut source = Object::open(out);
    source.text("type", "base64").text("media_type", media_type);
    let out = source.key("data");
    out.push(b'"');
    escape(data, out);
    out.push(b'"');
    source.close();
}

/// The protocol allows letters, digits, `_` and `-` in ids; other bytes are written as `_` and two hex digits, the same
/// way in a call and in its result.
fn safe_id(id: Str<'_>) -> Cow<'_, str> {
    let text = id.text();
    if text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-')
    {
        return text;
    }
    let mut out = String::with_capacity(text.len() + 8);
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || byte == b'_' || byte == b'-' {
            out.push(char::from(byte));
        } else {
            out.push_str(&format!("_{byte:02x}"));
        }
    }
    Cow::Owned(out)
}
