//! Writes answers as a client of OpenAI's chat completions expects them. Reasoning goes into `reasoning_content`, which
//! OpenAI's own API does not have but most servers and clients do; Gemini's thought signatures go where Google's own
//! OpenAI-compatible endpoint puts them, so that a client that sends its history back whole sends them along.

use crate::Protocol;
use crate::answer::{Arguments, Fault, Finish, Piece, Usage};
use crate::error::write_error;
use crate::json::{self, Array, Object, Str};
use crate::response::Context;

const fn finish_reason(finish: Finish, called: bool) -> &'static str {
    match finish {
        Finish::Length => "length",
        Finish::Filtered => "content_filter",
        Finish::Tools => "tool_calls",
        // Gemini has no reason of its own for calls.
        Finish::Stop if called => "tool_calls",
        Finish::Stop => "stop",
    }
}

fn write_usage(usage: &Usage, out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    object
        .number("prompt_tokens", usage.prompt())
        .number("completion_tokens", usage.output)
        .number("total_tokens", usage.prompt().saturating_add(usage.output));
    let mut details = Object::open(object.key("prompt_tokens_details"));
    details.number("cached_tokens", usage.cache_read);
    if usage.cache_write > 0 {
        details.number("cache_write_tokens", usage.cache_write);
    }
    details.close();
    let mut details = Object::open(object.key("completion_tokens_details"));
    details.number("reasoning_tokens", usage.reasoning.unwrap_or(0));
    details.close();
    object.close();
}

/// Opens an answer's object with what every chunk repeats.
fn write_head(kind: &str, id: Str<'_>, model: Str<'_>, context: &Context, out: &mut Vec<u8>) {
    let mut object = Object::open(out);
    if id.is_empty() {
        object.text("id", &format!("chatcmpl-tg_{:016x}", context.seed()));
    } else {
        object.string("id", id);
    }
    object.text("object", kind).number("created", context.created);
    match &context.model {
        Some(name) => object.text("model", name),
        None => object.string("model", model),
    };
}

/// Writes a call up to its arguments' value; the `function` object stays open.
fn write_call_head(
    slot: usize,
    id: Str<'_>,
    name: Str<'_>,
    signature: Str<'_>,
    context: &Context,
    out: &mut Object<'_>,
) {
    if id.is_empty() {
        out.text("id", &context.tool_id(slot));
    } else {
        out.string("id", id);
    }
    out.text("type", "function");
    if !signature.is_empty() {
        let mut extra = Object::open(out.key("extra_content"));
        let mut google = Object::open(extra.key("google"));
        google.string("thought_signature", signature);
        google.close();
        extra.close();
    }
    let out = out.key("function");
    let mut function = Object::open(out);
    function.string("name", name);
    function.key("arguments");
}

fn write_arguments(part: Arguments<'_>, out: &mut Vec<u8>) {
    match part {
        Arguments::Fragment(fragment) => out.extend_from_slice(fragment.raw().as_bytes()),
        Arguments::Whole(json) => json::escape(json.raw(), out),
    }
}

/// Collects a whole completion.
pub(crate) struct WholeWriter<'c> {
    context: &'c Context,
    out: Vec<u8>,
    content: Vec<u8>,
    refusal: Vec<u8>,
    reasoning: Vec<u8>,
    /// The calls, the last one still open, as escaped JSON.
    calls: Vec<u8>,
    finish: Finish,
    usage: Option<Usage>,
}

impl<'c> WholeWriter<'c> {
    pub(crate) fn new(context: &'c Context) -> Self {
        Self {
            context,
            out: Vec::with_capacity(1024),
            content: Vec::new(),
            refusal: Vec::new(),
            reasoning: Vec::new(),
            calls: Vec::new(),
            finish: Finish::Stop,
            usage: None,
        }
    }

    pub(crate) fn piece(&mut self, piece: Piece<'_>) {
        match piece {
            Piece::Start { id, model } => {
                write_head("chat.completion", id, model, self.context, &mut self.out)
            }
            Piece::Text(text) => self.content.extend_from_slice(text.raw().as_bytes()),
            Piece::Refusal(text) => self.refusal.extend_from_slice(text.raw().as_bytes()),
            Piece::Reasoning(text) => self.reasoning.extend_from_slice(text.raw().as_bytes()),
            Piece::Tool {
                slot,
                id,
                name,
                signature,
            } => {
                if !self.calls.is_empty() {
                    self.calls.extend_from_slice(b"\"}},");
                }
                let mut call = Object::open(&mut self.calls);
                write_call_head(slot, id, name, signature, self.context, &mut call);
                self.calls.push(b'"');
            }
            Piece::Arguments { part, .. } => write_arguments(part, &mut self.calls),
            Piece::Finish(finish) => self.finish = finish,
            Piece::Usage(usage) => self.usage = Some(usage),
        }
    }

    pub(crate) fn finish(mut self) -> Vec<u8> {
        fn quoted(text: &[u8], out: &mut Vec<u8>) {
            out.push(b'"');
            out.extend_from_slice(text);
            out.push(b'"');
        }
        let called = !self.calls.is_empty();
        let mut out = self.out;
        out.extend_from_slice(b",\"choices\":[{\"index\":0,\"message\":");
        let mut message = Object::open(&mut out);
        message.text("role", "assistant");
        if self.content.is_empty() && (called || !self.refusal.is_empty()) {
            message.raw("content", "null");
        } else {
            quoted(&self.content, message.key("content"));
        }
        if self.refusal.is_empty() {
            message.raw("refusal", "null");
        } else {
            quoted(&self.refusal, message.key("refusal"));
        }
        if !self.reasoning.is_empty() {
            quoted(&self.reasoning, message.key("reasoning_content"));
        }
        if called {
            self.calls.extend_from_slice(b"\"}}");
            let mut calls = Array::open(message.key("tool_calls"));
            calls.item().append(&mut self.calls);
            calls.close();
        }
        message.close();
        out.extend_from_slice(b",\"logprobs\":null,\"finish_reason\":\"");
        out.extend_from_slice(finish_reason(self.finish, called).as_bytes());
        out.extend_from_slice(b"\"}]");
        if let Some(usage) = &self.usage {
            out.extend_from_slice(b",\"usage\":");
            write_usage(usage, &mut out);
        }
        out.push(b'}');
        out
    }
}

/// Writes a stream of chunks.
pub(crate) struct StreamWriter {
    context: Context,
    /// What each chunk begins with, from `data:` to the model.
    head: Vec<u8>,
    called: bool,
    finish_written: bool,
    usage: Option<Usage>,
}

impl StreamWriter {
    pub(crate) const fn new(context: Context) -> Self {
        Self {
            context,
            head: Vec::new(),
            called: false,
            finish_written: false,
            usage: None,
        }
    }

    pub(crate) fn piece(&mut self, piece: Piece<'_>, out: &mut Vec<u8>) {
        match piece {
            Piece::Start { id, model } => self.start(id, model, out),
            Piece::Text(text) => self.text("content", text, out),
            Piece::Refusal(text) => self.text("refusal", text, out),
            Piece::Reasoning(text) => self.text("reasoning_content", text, out),
            Piece::Tool {
                slot,
                id,
                name,
                signature,
            } => {
                self.called = true;
                self.call(slot, out, |call, context| {
                    write_call_head(slot, id, name, signature, context, call);
                    call.raw_end("\"\"}");
                });
            }
            Piece::Arguments { slot, part } => self.call(slot, out, |call, _| {
                let out = call.key("function");
                out.extend_from_slice(b"{\"arguments\":\"");
                write_arguments(part, out);
                out.extend_from_slice(b"\"}");
            }),
            Piece::Finish(finish) => {
                if !std::mem::replace(&mut self.finish_written, true) {
                    self.ensure_started(out);
                    let reason = finish_reason(finish, self.called);
                    self.chunk(out, |_| {}, Some(reason));
                }
            }
            Piece::Usage(usage) => self.usage = Some(usage),
        }
    }

    fn start(&mut self, id: Str<'_>, model: Str<'_>, out: &mut Vec<u8>) {
        if self.head.is_empty() {
            self.head.extend_from_slice(b"data: ");
            write_head("chat.completion.chunk", id, model, &self.context, &mut self.head);
            self.chunk(
                out,
                |delta| {
                    delta.text("role", "assistant").text("content", "");
                },
                None,
            );
        }
    }

    fn text(&mut self, name: &str, text: Str<'_>, out: &mut Vec<u8>) {
        if !text.is_empty() {
            self.ensure_started(out);
            self.chunk(
                out,
                |delta| {
                    delta.string(name, text);
                },
                None,
            );
        }
    }

    /// A chunk with one entry of `tool_calls`.
    fn call(&mut self, slot: usize, out: &mut Vec<u8>, write: impl FnOnce(&mut Object<'_>, &Context)) {
        self.ensure_started(out);
        let context = &self.context;
        self.chunk(
            out,
            |delta| {
                let out = delta.key("tool_calls");
                out.push(b'[');
                let mut call = Object::open(out);
                call.number("index", slot as u64);
                write(&mut call, context);
                call.close();
                out.push(b']');
            },
            None,
        );
    }

    /// An upstream that sends content before it says which answer begins gets a made-up beginning.
    fn ensure_started(&mut self, out: &mut Vec<u8>) {
        if self.head.is_empty() {
            self.start(Str::EMPTY, Str::EMPTY, out);
        }
    }

    fn chunk(&self, out: &mut Vec<u8>, write: impl FnOnce(&mut Object<'_>), reason: Option<&str>) {
        out.extend_from_slice(&self.head);
        out.extend_from_slice(b",\"choices\":[{\"index\":0,\"delta\":");
        let mut delta = Object::open(out);
        write(&mut delta);
        delta.close();
        out.extend_from_slice(b",\"logprobs\":null,\"finish_reason\":");
        match reason {
            Some(reason) => {
                out.push(b'"');
                out.extend_from_slice(reason.as_bytes());
                out.extend_from_slice(b"\"}]");
            }
            None => out.extend_from_slice(b"null}]"),
        }
        out.extend_from_slice(if self.context.ask.include_usage {
            b",\"usage\":null}\n\n"
        } else {
            b"}\n\n"
        });
    }

    pub(crate) fn finish(&mut self, out: &mut Vec<u8>) {
        if self.context.ask.include_usage
            && let Some(usage) = &self.usage
        {
            // Whoever is finished has begun: a reason has been written.
            out.extend_from_slice(&self.head);
            out.extend_from_slice(b",\"choices\":[],\"usage\":");
            write_usage(usage, out);
            out.extend_from_slice(b"}\n\n");
        }
        out.extend_from_slice(b"data: [DONE]\n\n");
    }
}

/// The event that ends a stream that cannot go on. No `[DONE]` follows: the answer is not done.
pub(crate) fn write_error_event(fault: &Fault, out: &mut Vec<u8>) {
    out.extend_from_slice(b"data: ");
    write_error(
        Protocol::OpenAiChat,
        fault.kind,
        fault.code.as_deref(),
        &fault.message,
        None,
        out,
    );
    out.extend_from_slice(b"\n\n");
}
