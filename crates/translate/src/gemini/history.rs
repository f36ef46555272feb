//! Writes the messages of a chat as Gemini's contents.
//!
//! Gemini matches results to calls by the function's name and order; ids are given back only if Gemini had made them,
//! which a thought signature beside them tells.

use std::collections::HashMap;

use super::is_old;
use crate::json::{Json, Kind, Object, escape};
use crate::openai::{
    Chat, DataUrl, Part, Role, arguments_object, for_each_call, for_each_message, for_each_part,
};
use crate::refusal::{At, Refusal};
use crate::request::required;
use crate::response::MADE_UP_TOOL_ID;
use crate::turns::Turns;

/// What the provider documents for calls whose signature is not at hand, e.g. because another model made them.
pub(super) const SKIP_SIGNATURE: &str = "skip_thought_signature_validator";

/// The messages as contents and as parts of the system instruction, each with commas between.
pub(super) struct History {
    pub(super) system: Vec<u8>,
    pub(super) turns: Vec<u8>,
}

impl History {
    pub(super) fn read(chat: &Chat<'_>, model: &str) -> Result<Self, Refusal> {
        let mut system = Vec::new();
        let mut turns = Turns::new("parts", chat.messages.raw().len() + 256);
        let mut names = HashMap::new();
        let demands_signatures = !is_old(model);
        for_each_message(chat.messages, |message, at| {
            let content_at = at.key("content");
            match message.role {
                Role::System => for_each_part(
                    required(message.content, at, "content")?,
                    &content_at,
                    |part, at| match part {
                        Part::Text { text, .. } if text.is_empty() => Ok(()),
                        Part::Text { .. } => {
                            if !system.is_empty() {
                                system.push(b',');
                            }
                            write_part(part, at, &mut system)
                        }
                        _ => Err(at.refuse("a system message can only be text")),
                    },
                ),
                Role::User => for_each_part(
                    required(message.content, at, "content")?,
                    &content_at,
                    |part, at| turns.part("user", part, at, write_part),
                ),
                Role::Assistant => {
                    if let Some(content) = message.content {
                        for_each_part(content, &content_at, |part, at| {
                            turns.part("model", part, at, write_part)
                        })?;
                    }
                    if let Some(text) = message.refusal {
                        turns.part(
                            "model",
                            Part::Text {
                                text,
                                cache_control: None,
                            },
                            at,
                            write_part,
                        )?;
                    }
                    let mut first = true;
                    let Some(calls) = message.tool_calls else {
                        return Ok(());
                    };
                    for_each_call(calls, at, |call, at| {
                        let arguments = arguments_object(call.arguments, at)?;
                        let own_id = call.signature.is_some() && !call.id.raw().starts_with(MADE_UP_TOOL_ID);
                        let own_id = own_id.then_some(call.id);
                        names.insert(call.id.text(), (call.name, own_id));
                        let mut part = Object::open(turns.begin("model"));
                        let mut written = Object::open(part.key("functionCall"));
                        if let Some(id) = own_id {
                            written.string("id", id);
                        }
                        written.string("name", call.name).raw("args", &arguments);
                        written.close();
                        match call.signature {
                            Some(signature) => {
                                part.string("thoughtSignature", signature);
                            }
                            // Of parallel calls only the first has one.
                            None if first && demands_signatures => {
                                part.text("thoughtSignature", SKIP_SIGNATURE);
                            }
                            None => {}
                        }
                        first = false;
                        part.close();
                        Ok(())
                    })
                }
                Role::Tool => {
                    let id = required(message.tool_call_id, at, "tool_call_id")?;
                    let Some((name, own_id)) = names.get(&id.text()) else {
                        return Err(at
                            .key("tool_call_id")
                            .refuse("names no call of an earlier message"));
                    };
                    let mut text = String::new();
                    let mut images = Vec::new();
                    if let Some(content) = message.content {
                        for_each_part(content, &content_at, |part, at| match part {
                            Part::Text { text: more, .. } => {
                                text.push_str(&more.text());
                                Ok(())
                            }
                            _ => {
                                images.push(b',');
                                write_part(part, at, &mut images)
                            }
                        })?;
                    }
                    let out = turns.begin("user");
                    let mut part = Object::open(out);
                    let mut response = Object::open(part.key("functionResponse"));
                    if let Some(id) = own_id {
                        response.string("id", *id);
                    }
                    response.string("name", *name);
                    write_result(&text, "result", response.key("response"));
                    response.close();
                    part.close();
                    turns.append(&mut images);
                    Ok(())
                }
            }
        })?;
        Ok(Self {
            system,
            turns: turns.finish()?,
        })
    }
}

/// A tool's result has to be an object: any other text goes under a key.
pub(super) fn write_result(text: &str, key: &str, out: &mut Vec<u8>) {
    match Json::parse(text.as_bytes()) {
        Ok(json) if json.kind() == Kind::Object => out.extend_from_slice(json.raw().as_bytes()),
        _ => {
            let mut result = Object::open(out);
            result.text(key, text);
            result.close();
        }
    }
}

fn write_part(part: Part<'_>, at: &At<'_>, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let mut written = Object::open(out);
    match part {
        Part::Text { text, .. } => {
            written.string("text", text);
        }
        Part::Image { url, .. } => {
            let at = at.key("image_url");
            write_url(&url.text(), &at.key("url"), &mut written)?;
        }
        Part::File { data, .. } => {
            let at = at.key("file");
            write_url(&data.text(), &at.key("file_data"), &mut written)?;
        }
        Part::Audio { data, format } => {
            let media_type = match &*format.text() {
                "wav" => "audio/wav",
                "mp3" => "audio/mp3",
                _ => {
                    let at = at.key("input_audio");
                    return Err(at.key("format").refuse("must be wav or mp3"));
                }
            };
            write_inline(media_type, &data.text(), &mut written);
        }
    }
    written.close();
    Ok(())
}

/// Gemini fetches nothing but its own files and Cloud Storage; other URLs would have to be fetched by the gateway, which
/// does not do that for a client.
pub(super) fn write_url(url: &str, at: &At<'_>, part: &mut Object<'_>) -> Result<(), Refusal> {
    const OWN_FILES: &str = "https://generativelanguage.googleapis.com/";
    if let Some(DataUrl { media_type, data }) = DataUrl::parse(url) {
        if media_type.is_empty() {
            return Err(at.refuse("must name its media type"));
        }
        write_inline(media_type, data, part);
        Ok(())
    } else if url.starts_with("gs://") || url.starts_with(OWN_FILES) {
        let mut file = Object::open(part.key("fileData"));
        file.text("fileUri", url);
        file.close();
        Ok(())
    } else {
        Err(at.refuse("must be a data: URL in base64 on this deployment, or one of the provider's own files"))
    }
}

pub(super) fn write_inline(media_type: &str, data: &str, part: &mut Object<'_>) {
    let mut inline = Object::open(part.key("inlineData"));
    inline.text("mimeType", media_type);
    let out = inline.key("data");
    out.push(b'"');
    escape(data, out);
    out.push(b'"');
    inline.close();
}
