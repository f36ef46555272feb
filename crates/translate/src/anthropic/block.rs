//! Reads the blocks of contents in requests of Anthropic's messages.

use super::ask::NO_EQUIVALENT;
use crate::json::{Json, Kind, Str};
use crate::refusal::{At, Refusal};
use crate::request::{for_each_element, only, required};

/// One block of a content.
pub(crate) enum Block<'a> {
    Text(Str<'a>),
    Image(Json<'a>),
    Document(Json<'a>),
    ToolUse {
        id: Str<'a>,
        name: Str<'a>,
        input: Json<'a>,
    },
    ToolResult {
        id: Str<'a>,
        content: Option<Json<'a>>,
        is_error: bool,
    },
    Thinking,
}

pub(crate) fn for_each_block<'a>(
    content: Json<'a>,
    at: &At<'_>,
    mut each: impl FnMut(Block<'a>, &At<'_>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    match content.kind() {
        Kind::String => each(Block::Text(content.str().unwrap_or_default()), at),
        Kind::Array => for_each_element(content, at, |block, at| each(read_block(block, at)?, at)),
        _ => Err(at.refuse("must be a string or an array")),
    }
}

fn read_block<'a>(block: Json<'a>, at: &At<'_>) -> Result<Block<'a>, Refusal> {
    let text = |name| required(block.get_str(name), at, name);
    let only = |known: &[&str]| only(block, known, at);
    match &*text("type")?.text() {
        "text" => {
            only(&["type", "text", "cache_control", "citations"])?;
            Ok(Block::Text(text("text")?))
        }
        "image" => {
            only(&["type", "source", "cache_control", "transformations"])?;
            Ok(Block::Image(required(block.get("source"), at, "source")?))
        }
        "document" => {
            only(&["type", "source", "title", "cache_control", "citations"])?;
            let enabled = block
                .get("citations")
                .and_then(|citations| citations.get("enabled"));
            if enabled.and_then(Json::bool) == Some(true) {
                return Err(at.key("citations").refuse(NO_EQUIVALENT));
            }
            Ok(Block::Document(block))
        }
        "tool_use" => {
            only(&["type", "id", "name", "input", "cache_control", "caller"])?;
            Ok(Block::ToolUse {
                id: text("id")?,
                name: text("name")?,
                input: required(block.get("input"), at, "input")?,
            })
        }
        "tool_result" => {
            only(&["type", "tool_use_id", "content", "is_error", "cache_control"])?;
            Ok(Block::ToolResult {
                id: text("tool_use_id")?,
                content: block.get("content"),
                is_error: block.get("is_error").and_then(Json::bool) == Some(true),
            })
        }
        "thinking" | "redacted_thinking" => Ok(Block::Thinking),
        _ => Err(at.key("type").refuse(NO_EQUIVALENT)),
    }
}
