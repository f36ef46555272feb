//! Writes Anthropic's messages as those of a chat.
//!
//! Results of tools become messages of their own, ahead of what else the turn says: they must follow the calls. Their
//! images, which a tool message cannot carry, follow in the user's message.

use super::parts::Parts;
use crate::anthropic::{Block, for_each_block};
use crate::json::{Json, Object, Str};
use crate::refusal::{At, Refusal};
use crate::request::{for_each_member, required, string, unknown};

/// The messages written so far, with commas between.
#[derive(Default)]
pub(super) struct Messages {
    pub(super) out: Vec<u8>,
    pub(super) last_is_assistant: bool,
}

impl Messages {
    fn begin(&mut self) -> Object<'_> {
        if !self.out.is_empty() {
            self.out.push(b',');
        }
        Object::open(&mut self.out)
    }

    /// A system prompt's blocks become one text, with an empty line between.
    pub(super) fn system(&mut self, content: Json<'_>, at: &At<'_>) -> Result<(), Refusal> {
        let mut text = Vec::new();
        for_each_block(content, at, |block, at| match block {
            Block::Text(more) => {
                if !text.is_empty() {
                    text.extend_from_slice(b"\\n\\n");
                }
                text.extend_from_slice(more.raw().as_bytes());
                Ok(())
            }
            _ => Err(at.key("type").refuse("a system prompt can only be text")),
        })?;
        if !text.is_empty() {
            let mut message = self.begin();
            let out = message.text("role", "system").key("content");
            out.push(b'"');
            out.append(&mut text);
            out.push(b'"');
            message.close();
        }
        Ok(())
    }

    pub(super) fn message(&mut self, message: Json<'_>, at: &At<'_>) -> Result<(), Refusal> {
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
            "user" => self.user(content, &content_at)?,
            "assistant" => return self.assistant(content, &content_at),
            "system" => self.system(content, &content_at)?,
            _ => return Err(at.key("role").refuse("must be user, assistant or system")),
        }
        self.last_is_assistant = false;
        Ok(())
    }

    fn user(&mut self, content: Json<'_>, at: &At<'_>) -> Result<(), Refusal> {
        let mut parts = Parts::default();
        for_each_block(content, at, |block, at| match block {
            Block::ToolResult {
                id,
                content,
                is_error,
            } => self.tool_result(id, content, is_error, at, &mut parts),
            Block::Text(text) => {
                parts.text(text);
                Ok(())
            }
            Block::Image(source) => parts.image(source, at),
            Block::Document(document) => parts.document(document, at),
            Block::ToolUse { .. } => Err(at.key("type").refuse("only the assistant can call tools")),
            Block::Thinking => Err(at.key("type").refuse("only the assistant can think")),
        })?;
        if !parts.is_empty() {
            let mut message = self.begin();
            parts.write(message.text("role", "user").key("content"));
            message.close();
        }
        Ok(())
    }

    fn tool_result(
        &mut self,
        id: Str<'_>,
        content: Option<Json<'_>>,
        is_error: bool,
        at: &At<'_>,
        rest: &mut Parts,
    ) -> Result<(), Refusal> {
        let mut text = Vec::new();
        if is_error {
            text.extend_from_slice(b"Error: ");
        }
        let images_before = rest.count;
        if let Some(content) = content {
            for_each_block(content, &at.key("content"), |block, at| match block {
                Block::Text(more) => {
                    text.extend_from_slice(more.raw().as_bytes());
                    Ok(())
                }
                Block::Image(source) => rest.image(source, at),
                Block::Document(document) => rest.document(document, at),
                _ => Err(at.key("type").refuse("cannot be part of a tool's result")),
            })?;
        }
        if text.is_empty() && rest.count > images_before {
            text.extend_from_slice(b"(see the next message)");
        }
        let mut message = self.begin();
        message.text("role", "tool").string("tool_call_id", id);
        let out = message.key("content");
        out.push(b'"');
        out.append(&mut text);
        out.push(b'"');
        message.close();
        Ok(())
    }

    fn assistant(&mut self, content: Json<'_>, at: &At<'_>) -> Result<(), Refusal> {
        let mut text = Vec::new();
        let mut calls = Vec::new();
        for_each_block(content, at, |block, at| {
            match block {
                Block::Text(more) => text.extend_from_slice(more.raw().as_bytes()),
                Block::ToolUse { id, name, input } => {
                    if !calls.is_empty() {
                        calls.push(b',');
                    }
                    let mut call = Object::open(&mut calls);
                    call.string("id", id).text("type", "function");
                    let mut function = Object::open(call.key("function"));
                    function.string("name", name).text("arguments", input.raw());
                    function.close();
                    call.close();
                }
                // Thinking is signed for its own provider.
                Block::Thinking => {}
                Block::Image(_) | Block::Document(_) | Block::ToolResult { .. } => {
                    return Err(at.key("type").refuse("cannot be said by the assistant"));
                }
            }
            Ok(())
        })?;
        if text.is_empty() && calls.is_empty() {
            return Ok(());
        }
        let mut message = self.begin();
        message.text("role", "assistant");
        if text.is_empty() {
            message.raw("content", "null");
        } else {
            let out = message.key("content");
            out.push(b'"');
            out.append(&mut text);
            out.push(b'"');
        }
        if !calls.is_empty() {
            let out = message.key("tool_calls");
            out.push(b'[');
            out.append(&mut calls);
            out.push(b']');
        }
        message.close();
        self.last_is_assistant = true;
        Ok(())
    }
}
