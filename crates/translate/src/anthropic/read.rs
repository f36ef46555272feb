//! Reads Anthropic's answers. Blocks of kinds that the client's protocols do not know (server tools, citations,
//! signatures, redacted thinking) are left out; unknown events are ignored, as the provider asks of clients.

use crate::Protocol;
use crate::answer::{Arguments, Fault, Finish, Piece, Progress, Usage};
use crate::error::read_error;
use crate::json::{Json, Str};
use crate::sse::Event;

fn finish(reason: Str<'_>) -> Finish {
    match &*reason.text() {
        "max_tokens" | "model_context_window_exceeded" => Finish::Length,
        "tool_use" => Finish::Tools,
        "refusal" => Finish::Filtered,
        _ => Finish::Stop,
    }
}

/// Updates what is known by a `usage` object; the figures in a stream are cumulative and not repeated in each event.
fn update(usage: &mut Usage, json: Json<'_>) {
    let [input, read, write, output, details] = json.pick([
        "input_tokens",
        "cache_read_input_tokens",
        "cache_creation_input_tokens",
        "output_tokens",
        "output_tokens_details",
    ]);
    for (value, field) in [
        (input, &mut usage.input),
        (read, &mut usage.cache_read),
        (write, &mut usage.cache_write),
        (output, &mut usage.output),
    ] {
        if let Some(value) = value.and_then(Json::u64) {
            *field = value;
        }
    }
    if let Some(thinking) = details.and_then(|details| details.get_u64("thinking_tokens")) {
        usage.reasoning = Some(thinking);
    }
}

/// Reads a whole message.
pub(crate) fn read_whole<'a>(json: Json<'a>, emit: &mut impl FnMut(Piece<'a>)) -> Result<(), Fault> {
    let [error, content, id, model, usage, reason] =
        json.pick(["error", "content", "id", "model", "usage", "stop_reason"]);
    if error.is_some() {
        return Err(read_error(
            Protocol::AnthropicMessages,
            None,
            json.raw().as_bytes(),
        ));
    }
    let content = content.ok_or_else(|| Fault::malformed("the deployment's answer has no content"))?;
    emit(Piece::Start {
        id: string(id),
        model: string(model),
    });
    let mut slot = 0;
    for block in content.elements() {
        let [kind, text, thinking, input] = block.pick(["type", "text", "thinking", "input"]);
        let kind = string(kind);
        if kind.is("text") {
            emit(Piece::Text(string(text)));
        } else if kind.is("thinking") {
            emit(Piece::Reasoning(string(thinking)));
        } else if kind.is("tool_use") {
            emit(tool(slot, block));
            if let Some(input) = input {
                emit(Piece::Arguments {
                    slot,
                    part: Arguments::Whole(input),
                });
            }
            slot += 1;
        }
    }
    if let Some(json) = usage {
        let mut usage = Usage::default();
        update(&mut usage, json);
        emit(Piece::Usage(usage));
    }
    emit(Piece::Finish(
        reason.and_then(Json::str).map_or(Finish::Stop, finish),
    ));
    Ok(())
}

/// What is no string is empty.
fn string(json: Option<Json<'_>>) -> Str<'_> {
    json.and_then(Json::str).unwrap_or_default()
}

fn tool(slot: usize, block: Json<'_>) -> Piece<'_> {
    let [id, name] = block.pick_str(["id", "name"]);
    Piece::Tool {
        slot,
        id,
        name,
        signature: Str::EMPTY,
    }
}

/// Reads a stream, event by event.
#[derive(Default)]
pub(crate) struct StreamReader {
    usage: Usage,
    /// Tool calls so far.
    tools: usize,
    /// The block that is open is a tool call: its index in the stream, and whether arguments have come.
    open_tool: Option<(u64, bool)>,
    finished: bool,
}

impl StreamReader {
    /// Whether the reason of the end is known.
    pub(crate) const fn finished(&self) -> bool {
        self.finished
    }

    pub(crate) fn event(
        &mut self,
        event: &Event<'_>,
        emit: &mut impl FnMut(Piece<'_>),
    ) -> Result<Progress, Fault> {
        let json = Json::parse(event.data)
            .map_err(|_| Fault::malformed("an event of the deployment's stream is not JSON"))?;
        let [kind, index, delta, block, message, usage] =
            json.pick(["type", "index", "delta", "content_block", "message", "usage"]);
        let index = index.and_then(Json::u64).unwrap_or(0);
        // The event's name repeats the data's type; servers that leave one of them out exist.
        let kind = kind.and_then(Json::str).map(Str::text);
        match kind
            .as_deref()
            .unwrap_or_else(|| std::str::from_utf8(event.name).unwrap_or_default())
        {
            "content_block_delta" => {
                if let Some(delta) = delta {
                    self.delta(index, delta, emit);
                }
            }
            "message_start" => {
                let [id, model, usage] = message
                    .map(|message| message.pick(["id", "model", "usage"]))
                    .unwrap_or_default();
                if let Some(usage) = usage {
                    update(&mut self.usage, usage);
                }
                emit(Piece::Start {
                    id: string(id),
                    model: string(model),
                });
            }
            "content_block_start" => {
                if let Some(block) = block {
                    self.block_start(index, block, emit);
                }
            }
            "content_block_stop" => {
                // A call without arguments brings only empty fragments.
                if let Some((_, false)) = self.open_tool.take() {
                    emit(Piece::Arguments {
                        slot: self.tools.saturating_sub(1),
                        part: Arguments::Whole(Json::EMPTY_OBJECT),
                    });
                }
            }
            "message_delta" => {
                if let Some(usage) = usage {
                    update(&mut self.usage, usage);
                    emit(Piece::Usage(self.usage));
                }
                if let Some(reason) = delta.and_then(|delta| delta.get_str("stop_reason")) {
                    self.finished = true;
                    emit(Piece::Finish(finish(reason)));
                }
            }
            "message_stop" => return Ok(Progress::Done),
            "error" => return Err(read_error(Protocol::AnthropicMessages, None, event.data)),
            _ => {}
        }
        Ok(Progress::More)
    }

    fn block_start(&mut self, index: u64, block: Json<'_>, emit: &mut impl FnMut(Piece<'_>)) {
        let [kind, text, thinking, input] = block.pick(["type", "text", "thinking", "input"]);
        let kind = string(kind);
        if kind.is("tool_use") {
            let slot = self.tools;
            self.tools += 1;
            emit(tool(slot, block));
            let whole = input.filter(|input| input.members().next().is_some());
            if let Some(input) = whole {
                emit(Piece::Arguments {
                    slot,
                    part: Arguments::Whole(input),
                });
            }
            self.open_tool = Some((index, whole.is_some()));
        } else if kind.is("text") {
            emit(Piece::Text(string(text)));
        } else if kind.is("thinking") {
            emit(Piece::Reasoning(string(thinking)));
        }
    }

    fn delta(&mut self, index: u64, delta: Json<'_>, emit: &mut impl FnMut(Piece<'_>)) {
        let [kind, text, thinking, fragment] = delta.pick_str(["type", "text", "thinking", "partial_json"]);
        if kind.is("text_delta") {
            emit(Piece::Text(text));
        } else if kind.is("thinking_delta") {
            emit(Piece::Reasoning(thinking));
        } else if kind.is("input_json_delta")
            && let Some((open, any)) = &mut self.open_tool
            && *open == index
            && !fragment.is_empty()
        {
            *any = true;
            emit(Piece::Arguments {
                slot: self.tools.saturating_sub(1),
                part: Arguments::Fragment(fragment),
            });
        }
    }
}
