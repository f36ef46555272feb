//! Writes Anthropic's messages as Gemini's contents.
//!
//! Gemini matches results to calls by the function's name and order; ids are made up by it or by the gateway, and never
//! sent back, because their thought signatures have no place in Anthropic's blocks.

use std::collections::HashMap;

use super::history::{SKIP_SIGNATURE, write_inline, write_result, write_url};
use super::is_old;
use crate::anthropic::{Block, for_each_block};
use crate::json::{Json, Kind, Object, Str};
use crate::refusal::{At, Refusal};
use crate::request::{for_each_element, for_each_member, required, string, unknown};
use crate::turns::Turns;

/// The messages as contents and as parts of the system instruction, each with commas between.
pub(super) struct History<'a> {
    pub(super) system: Vec<u8>,
    pub(super) turns: Vec<u8>,
    names: HashMap<String, Str<'a>>,
    demands_signatures: bool,
}

impl<'a> History<'a> {
    pub(super) fn read(system: Option<Json<'a>>, messages: Json<'a>, model: &str) -> Result<Self, Refusal> {
        let mut history = Self {
            system: Vec::new(),
            turns: Vec::new(),
            names: HashMap::new(),
            demands_signatures: !is_old(model),
        };
        if let Some(system) = system {
            history.system(system, &At::ROOT.key("system"))?;
        }
        let mut turns = Turns::new("parts", messages.raw().len() + 256);
        let mut last_is_assistant = false;
        for_each_element(messages, &At::ROOT.key("messages"), |message, at| {
            history.message(message, at, &mut turns, &mut last_is_assistant)
        })?;
        if last_is_assistant {
            return Err(At::ROOT.key("messages").refuse(
                "must not end with the assistant's: a begun answer cannot be continued on this deployment",
            ));
        }
        history.turns = turns.finish()?;
        Ok(history)
    }

    fn system(&mut self, content: Json<'a>, at: &At<'_>) -> Result<(), Refusal> {
        for_each_block(content, at, |block, at| match block {
            Block::Text(text) if text.is_empty() => Ok(()),
            Block::Text(text) => {
                if !self.system.is_empty() {
                    self.system.push(b',');
                }
                write_text(text, &mut self.system);
                Ok(())
            }
            _ => Err(at.key("type").refuse("a system prompt can only be text")),
        })
    }

    fn message(
        &mut self,
        message: Json<'a>,
        at: &At<'_>,
        turns: &mut Turns,
        last_is_assistant: &mut bool,
    ) -> Result<(), Refusal> {
        let (mut role, mut content) = (None, None);
        for_each_member(message, at, |key, value, at| {
            match key {
                "role" => role = Some(string(value, at)?),
                "content" => content = Some(value),
                "id" | "type" | "model" | "stop_reason" | "stop_sequence" | "stop_details" | "usage"
                | "cache_control" => {}
                _ => return Err(unknown(at)),
            }
            Ok(())
        })?;
        let content = required(content, at, "content")?;
        let content_at = at.key("content");
        match &*required(role, at, "role")?.text() {
            "user" => {
                *last_is_assistant = false;
                self.user(content, &content_at, turns)
            }
            "assistant" => {
                *last_is_assistant = true;
                self.assistant(content, &content_at, turns)
            }
            "system" => self.system(content, &content_at),
            _ => Err(at.key("role").refuse("must be user, assistant or system")),
        }
    }

    fn user(&self, content: Json<'a>, at: &At<'_>, turns: &mut Turns) -> Result<(), Refusal> {
        for_each_block(content, at, |block, at| match block {
            Block::ToolResult {
                id,
                content,
                is_error,
            } => self.tool_result(id, content, is_error, at, turns),
            Block::Text(text) if text.is_empty() => Ok(()),
            Block::Text(_) | Block::Image(_) | Block::Document(_) => {
                write_block(&block, at, turns.begin("user"))
            }
            Block::ToolUse { .. } => Err(at.key("type").refuse("only the assistant can call tools")),
            Block::Thinking => Err(at.key("type").refuse("only the assistant can think")),
        })
    }

    fn tool_result(
        &self,
        id: Str<'a>,
        content: Option<Json<'a>>,
        is_error: bool,
        at: &At<'_>,
        turns: &mut Turns,
    ) -> Result<(), Refusal> {
        let mut text = String::new();
        let mut media = Vec::new();
        if let Some(content) = content {
            for_each_block(content, &at.key("content"), |block, at| match block {
                Block::Text(more) => {
                    text.push_str(&more.text());
                    Ok(())
                }
                Block::Image(_) | Block::Document(_) => {
                    media.push(b',');
                    write_block(&block, at, &mut media)
                }
                _ => Err(at.key("type").refuse("cannot be part of a tool's result")),
            })?;
        }
        let Some(name) = self.names.get(&*id.text()) else {
            return Err(at
                .key("tool_use_id")
                .refuse("names no call of an earlier message"));
        };
        let mut part = Object::open(turns.begin("user"));
        let mut response = Object::open(part.key("functionResponse"));
        response.string("name", *name);
        let out = response.key("response");
        if is_error {
            let mut result = Object::open(out);
            result.text("error", &text);
            result.close();
        } else {
            write_result(&text, "result", out);
        }
        response.close();
        part.close();
        turns.append(&mut media);
        Ok(())
    }

    fn assistant(&mut self, content: Json<'a>, at: &At<'_>, turns: &mut Turns) -> Result<(), Refusal> {
        let mut first = true;
        for_each_block(content, at, |block, at| {
            match block {
                Block::Text(text) if text.is_empty() => {}
                Block::Text(text) => write_text(text, turns.begin("model")),
                Block::ToolUse { id, name, input } => {
                    if input.kind() != Kind::Object {
                        return Err(at.key("input").refuse("must be an object"));
                    }
                    self.names.insert(id.text().into_owned(), name);
                    let mut part = Object::open(turns.begin("model"));
                    let mut call = Object::open(part.key("functionCall"));
                    call.string("name", name).raw("args", input.raw());
                    call.close();
                    // Of parallel calls only the first has one.
                    if std::mem::take(&mut first) && self.demands_signatures {
                        part.text("thoughtSignature", SKIP_SIGNATURE);
                    }
                    part.close();
                }
                // Thinking is signed for its own provider.
                Block::Thinking => {}
                Block::Image(_) | Block::Document(_) | Block::ToolResult { .. } => {
                    return Err(at.key("type").refuse("cannot be said by the assistant"));
                }
            }
            Ok(())
        })
    }
}

fn write_text(text: Str<'_>, out: &mut Vec<u8>) {
    let mut part = Object::open(out);
    part.string("text", text);
    part.close();
}

/// Writes a text, an image or a document as one part.
fn write_block(block: &Block<'_>, at: &At<'_>, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let (source, kinds) = match block {
        Block::Text(text) => {
            write_text(*text, out);
            return Ok(());
        }
        Block::Image(source) => (*source, "must be base64 or url on this deployment"),
        Block::Document(document) => (
            required(document.get("source"), at, "source")?,
            "must be base64, text or url on this deployment",
        ),
        _ => return Err(at.key("type").refuse("cannot stand here")),
    };
    let at = at.key("source");
    let kind = required(source.get_str("type"), &at, "type")?;
    let mut part = Object::open(out);
    if kind.is("base64") {
        let media_type = required(source.get_str("media_type"), &at, "media_type")?;
        let data = required(source.get_str("data"), &at, "data")?;
        write_inline(&media_type.text(), &data.text(), &mut part);
    } else if kind.is("url") {
        let url = required(source.get_str("url"), &at, "url")?;
        write_url(&url.text(), &at.key("url"), &mut part)?;
    } else if kind.is("text") && matches!(block, Block::Document(_)) {
        part.string("text", required(source.get_str("data"), &at, "data")?);
    } else {
        return Err(at.key("type").refuse(kinds));
    }
    part.close();
    Ok(())
}
