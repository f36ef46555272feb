//! Writes answers as an Anthropic client expects them.
//!
//! A stream's input tokens are known only at its end (OpenAI reports usage last), so `message_start` says 0 and
//! `message_delta` brings all figures, which the protocol allows: they are cumulative.

use crate::Protocol;
use crate::answer::{Arguments, Fault, Finish, Piece, Usage};
use crate::error::write_error;
use crate::json::{self, Array, Json, Object, Str};
use crate::response::Context;

const fn stop_reason(finish: Finish, called: bool) -> &'static str {
    match finish {
        Finish::Length => "max_tokens",
        Finish::Filtered => "refusal",
        Finish::Tools => "tool_use",
        // Some servers compatible with OpenAI's say `stop` although they call tools.
        Finish::Stop if called => "tool_use",
        Finish::Stop => "end_turn",
    }
}

fn write_usage(usage: &Usage, out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    object
        .number("input_tokens", usage.input)
        .number("cache_creation_input_tokens", usage.cache_write)
        .number("cache_read_input_tokens", usage.cache_read)
        .number("output_tokens", usage.output);
    if let Some(reasoning) = usage.reasoning {
        let mut details = Object::open(object.key("output_tokens_details"));
        details.number("thinking_tokens", reasoning);
        details.close();
    }
    object.close();
}

fn write_id(id: Str<'_>, context: &Context, object: &mut Object<'_>) {
    if id.is_empty() {
        object.text("id", &format!("msg_tg_{:016x}", context.seed()));
    } else {
        object.string("id", id);
    }
}

fn write_model(model: Str<'_>, context: &Context, object: &mut Object<'_>) {
    match &context.model {
        Some(name) => object.text("model", name),
        None => object.string("model", model),
    };
}

fn write_tool_head(slot: usize, id: Str<'_>, name: Str<'_>, context: &Context, block: &mut Object<'_>) {
    block.text("type", "tool_use");
    if id.is_empty() {
        block.text("id", &context.tool_id(slot));
    } else {
        block.string("id", id);
    }
    block.string("name", name);
}

/// The kinds of blocks that are written; texts of one kind that follow each other share a block.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Block {
    Text,
    Thinking,
    Tool(usize),
}

/// Collects a whole message.
pub(crate) struct WholeWriter<'c> {
    context: &'c Context,
    head: Vec<u8>,
    /// The blocks that are complete, with commas between.
    blocks: Vec<u8>,
    open: Option<Block>,
    /// The open block's text, or the arguments of the call as an escaped string.
    text: Vec<u8>,
    whole_arguments: bool,
    called: bool,
    refused: bool,
    finish: Finish,
    usage: Usage,
}

impl<'c> WholeWriter<'c> {
    pub(crate) fn new(context: &'c Context) -> Self {
        Self {
            context,
            head: Vec::new(),
            blocks: Vec::with_capacity(512),
            open: None,
            text: Vec::new(),
            whole_arguments: false,
            called: false,
            refused: false,
            finish: Finish::Stop,
            usage: Usage::default(),
        }
    }

    pub(crate) fn piece(&mut self, piece: Piece<'_>) {
        match piece {
            Piece::Start { id, model } => {
                let mut object = Object::open(&mut self.head);
                write_id(id, self.context, &mut object);
                object.text("type", "message").text("role", "assistant");
                write_model(model, self.context, &mut object);
            }
            Piece::Text(text) => self.append(Block::Text, text),
            Piece::Refusal(text) => {
                self.refused |= !text.is_empty();
                self.append(Block::Text, text);
            }
            Piece::Reasoning(text) => {
                if self.context.ask.thinking {
                    self.append(Block::Thinking, text);
                }
            }
            Piece::Tool { slot, id, name, .. } => {
                self.close_block();
                self.called = true;
                self.begin_block(Block::Tool(slot));
                let mut block = Object::open(&mut self.blocks);
                write_tool_head(slot, id, name, self.context, &mut block);
                block.key("input");
            }
            Piece::Arguments { part, .. } => match part {
                Arguments::Fragment(fragment) => self.text.extend_from_slice(fragment.raw().as_bytes()),
                Arguments::Whole(json) => {
                    self.whole_arguments = true;
                    self.blocks.extend_from_slice(json.raw().as_bytes());
                }
            },
            Piece::Finish(finish) => self.finish = finish,
            Piece::Usage(usage) => self.usage = usage,
        }
    }

    fn begin_block(&mut self, block: Block) {
        if !self.blocks.is_empty() {
            self.blocks.push(b',');
        }
        self.open = Some(block);
    }

    fn append(&mut self, block: Block, text: Str<'_>) {
        if text.is_empty() {
            return;
        }
        if self.open != Some(block) {
            self.close_block();
            self.begin_block(block);
        }
        self.text.extend_from_slice(text.raw().as_bytes());
    }

    fn close_block(&mut self) {
        match self.open.take() {
            None => return,
            Some(Block::Tool(_)) => {
                if !std::mem::take(&mut self.whole_arguments) {
                    write_arguments(&self.text, &mut self.blocks);
                }
                self.blocks.push(b'}');
            }
            Some(block) => {
                let mut object = Object::open(&mut self.blocks);
                let name = if block == Block::Text { "text" } else { "thinking" };
                object.text("type", name);
                let out = object.key(name);
                out.push(b'"');
                out.extend_from_slice(&self.text);
                out.push(b'"');
                if block == Block::Thinking {
                    object.text("signature", "");
                }
                object.close();
            }
        }
        self.text.clear();
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        self.close_block();
        let mut out = self.head;
        if out.is_empty() {
            out.push(b'{');
        } else {
            out.push(b',');
        }
        out.extend_from_slice(b"\"content\":[");
        out.append(&mut self.blocks);
        out.extend_from_slice(b"],\"stop_reason\":\"");
        let finish = if self.refused {
            Finish::Filtered
        } else {
            self.finish
        };
        out.extend_from_slice(stop_reason(finish, self.called).as_bytes());
        out.extend_from_slice(b"\",\"stop_sequence\":null,\"usage\":");
        write_usage(&self.usage, &mut out);
        out.push(b'}');
        out
    }
}

/// Writes the arguments of a call, which a model has written and which may thus be anything, as the object that
/// `input` has to be: what is no object goes under the key `arguments` as the text that it is.
fn write_arguments(escaped: &[u8], out: &mut Vec<u8>) {
    let mut quoted = Vec::with_capacity(escaped.len() + 2);
    quoted.push(b'"');
    quoted.extend_from_slice(escaped);
    quoted.push(b'"');
    let text = Json::parse(&quoted)
        .ok()
        .and_then(Json::str)
        .map(Str::text)
        .unwrap_or_default();
    match Json::parse(text.as_bytes()) {
        Ok(json) if json.kind() == json::Kind::Object => out.extend_from_slice(json.raw().as_bytes()),
        _ if text.trim().is_empty() => out.extend_from_slice(b"{}"),
        _ => {
            let mut object = Object::open(out);
            object.text("arguments", &text);
            object.close();
        }
    }
}

/// Writes a stream.
pub(crate) struct StreamWriter {
    context: Context,
    /// The open block and its index.
    open: Option<(Block, u64)>,
    /// Index of the next block.
    next: u64,
    /// The index of each tool call's block, for fragments that come after another call has begun.
    tool_indexes: Vec<u64>,
    refused: bool,
    finish: Finish,
    usage: Usage,
}

fn event(name: &str, out: &mut Vec<u8>, write: impl FnOnce(&mut Object<'_>)) {
    out.extend_from_slice(b"event: ");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\ndata: ");
    let mut object = Object::open(out);
    object.text("type", name);
    write(&mut object);
    object.close();
    out.extend_from_slice(b"\n\n");
}

fn delta(index: u64, kind: &str, field: &str, out: &mut Vec<u8>, write: impl FnOnce(&mut Vec<u8>)) {
    event("content_block_delta", out, |object| {
        object.number("index", index);
        let mut delta = Object::open(object.key("delta"));
        delta.text("type", kind);
        let out = delta.key(field);
        out.push(b'"');
        write(out);
        out.push(b'"');
        delta.close();
    });
}

impl StreamWriter {
    pub(crate) const fn new(context: Context) -> Self {
        Self {
            context,
            open: None,
            next: 0,
            tool_indexes: Vec::new(),
            refused: false,
            finish: Finish::Stop,
            usage: Usage {
                input: 0,
                cache_read: 0,
                cache_write: 0,
                output: 0,
                reasoning: None,
            },
        }
    }

    pub(crate) fn piece(&mut self, piece: Piece<'_>, out: &mut Vec<u8>) {
        match piece {
            Piece::Start { id, model } => self.start(id, model, out),
            Piece::Text(text) => self.append(Block::Text, text, out),
            Piece::Refusal(text) => {
                self.refused |= !text.is_empty();
                self.append(Block::Text, text, out);
            }
            Piece::Reasoning(text) => {
                if self.context.ask.thinking {
                    self.append(Block::Thinking, text, out);
                }
            }
            Piece::Tool { slot, id, name, .. } => {
                let index = self.begin(Block::Tool(slot), out);
                self.tool_indexes.push(index);
                event("content_block_start", out, |object| {
                    object.number("index", index);
                    let mut block = Object::open(object.key("content_block"));
                    write_tool_head(slot, id, name, &self.context, &mut block);
                    block.raw("input", "{}");
                    block.close();
                });
            }
            Piece::Arguments { slot, part } => {
                let Some(&index) = self.tool_indexes.get(slot) else {
                    return;
                };
                delta(index, "input_json_delta", "partial_json", out, |out| match part {
                    Arguments::Fragment(fragment) => out.extend_from_slice(fragment.raw().as_bytes()),
                    Arguments::Whole(json) => json::escape(json.raw(), out),
                });
            }
            Piece::Finish(finish) => {
                self.close(out);
                self.finish = finish;
            }
            Piece::Usage(usage) => self.usage = usage,
        }
    }

    fn start(&self, id: Str<'_>, model: Str<'_>, out: &mut Vec<u8>) {
        event("message_start", out, |object| {
            let mut message = Object::open(object.key("message"));
            write_id(id, &self.context, &mut message);
            message.text("type", "message").text("role", "assistant");
            write_model(model, &self.context, &mut message);
            Array::open(message.key("content")).close();
            message.raw("stop_reason", "null").raw("stop_sequence", "null");
            write_usage(&Usage::default(), message.key("usage"));
            message.close();
        });
    }

    fn append(&mut self, block: Block, text: Str<'_>, out: &mut Vec<u8>) {
        if text.is_empty() {
            return;
        }
        let (name, kind) = if block == Block::Text {
            ("text", "text_delta")
        } else {
            ("thinking", "thinking_delta")
        };
        let index = match self.open {
            Some((open, index)) if open == block => index,
            _ => {
                let index = self.begin(block, out);
                event("content_block_start", out, |object| {
                    object.number("index", index);
                    let mut content = Object::open(object.key("content_block"));
                    content.text("type", name).text(name, "");
                    if block == Block::Thinking {
                        content.text("signature", "");
                    }
                    content.close();
                });
                index
            }
        };
        delta(index, kind, name, out, |out| {
            out.extend_from_slice(text.raw().as_bytes())
        });
    }

    fn begin(&mut self, block: Block, out: &mut Vec<u8>) -> u64 {
        self.close(out);
        let index = self.next;
        self.next += 1;
        self.open = Some((block, index));
        index
    }

    fn close(&mut self, out: &mut Vec<u8>) {
        if let Some((_, index)) = self.open.take() {
            event("content_block_stop", out, |object| {
                object.number("index", index);
            });
        }
    }

    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        self.close(out);
        let finish = if self.refused {
            Finish::Filtered
        } else {
            self.finish
        };
        event("message_delta", out, |object| {
            let mut delta = Object::open(object.key("delta"));
            delta.text("stop_reason", stop_reason(finish, !self.tool_indexes.is_empty()));
            delta.raw("stop_sequence", "null");
            delta.close();
            write_usage(&self.usage, object.key("usage"));
        });
        event("message_stop", out, |_| {});
    }
}

/// The event that ends a stream that cannot go on.
pub(crate) fn write_error_event(fault: &Fault, out: &mut Vec<u8>) {
    out.extend_from_slice(b"event: error\ndata: ");
    write_error(
        Protocol::AnthropicMessages,
        fault.kind,
        fault.code.as_deref(),
        &fault.message,
        None,
        out,
    );
    out.extend_from_slice(b"\n\n");
}
