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
    for (name, field) in [
        ("input_tokens", &mut usage.input),
        ("cache_read_input_tokens", &mut usage.cache_read),
        ("cache_creation_input_tokens", &mut usage.cache_write),
        ("output_tokens", &mut usage.output),
    ] {
        if let Some(value) = json.get_u64(name) {
            *field = value;
        }
    }
    if let Some(thinking) = json
        .get("output_tokens_details")
        .and_then(|details| details.get_u64("thinking_tokens"))
    {
        usage.reasoning = Some(thinking);
    }
}

/// Reads a whole message.
pub(crate) fn read_whole<'a>(json: Json<'a>, emit: &mut impl FnMut(Piece<'a>)) -> Result<(), Fault> {
    let content = json
        .get("content")
        .ok_or_else(|| Fault::malformed("the deployment's answer has no content"))?;
    emit(Piece::Start {
        id: json.get_str("id").unwrap_or_default(),
        model: json.get_str("model").unwrap_or_default(),
    });
    let mut slot = 0;
    for block in content.elements() {
        let Some(kind) = block.get_str("type") else {
            continue;
        };
        if kind.is("text") {
            emit(Piece::Text(block.get_str("text").unwrap_or_default()));
        } else if kind.is("thinking") {
            emit(Piece::Reasoning(block.get_str("thinking").unwrap_or_default()));
        } else if kind.is("tool_use") {
            emit(tool(slot, block));
            if let Some(input) = block.get("input") {
                emit(Piece::Arguments {
                    slot,
                    part: Arguments::Whole(input),
                });
            }
            slot += 1;
        }
    }
    if let Some(json) = json.get("usage") {
        let mut usage = Usage::default();
        update(&mut usage, json);
        emit(Piece::Usage(usage));
    }
    emit(Piece::Finish(
        json.get_str("stop_reason").map_or(Finish::Stop, finish),
    ));
    Ok(())
}

fn tool(slot: usize, block: Json<'_>) -> Piece<'_> {
    Piece::Tool {
        slot,
        id: block.get_str("id").unwrap_or_default(),
        name: block.get_str("name").unwrap_or_default(),
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
        // The event's name repeats the data's type; servers that leave one of them out exist.
        let kind = json.get_str("type").map(Str::text);
        match kind
            .as_deref()
            .unwrap_or_else(|| std::str::from_utf8(event.name).unwrap_or_default())
        {
            "message_start" => {
                let message = json.get("message");
                if let Some(usage) = message.and_then(|message| message.get("usage")) {
                    update(&mut self.usage, usage);
                }
                let text = |name| {
                    message
                        .and_then(|message| message.get_str(name))
                        .unwrap_or_default()
                };
                emit(Piece::Start {
                    id: text("id"),
                    model: text("model"),
                });
            }
            "content_block_start" => {
                if let Some(block) = json.get("content_block") {
                    self.block_start(json.get_u64("index").unwrap_or(0), block, emit);
                }
            }
            "content_block_delta" => {
                if let Some(delta) = json.get("delta") {
                    self.delta(json.get_u64("index").unwrap_or(0), delta, emit);
                }
            }
            "content_block_stop" => {
                // A call without arguments brings only empty fragments.
                if let Some((_, false)) = self.open_tool.take() {
                    emit(Piece::Arguments {
                        slot: self.tools - 1,
                        part: Arguments::Whole(Json::EMPTY_OBJECT),
                    });
                }
            }
            "message_delta" => {
                if let Some(usage) = json.get("usage") {
                    update(&mut self.usage, usage);
                    emit(Piece::Usage(self.usage));
                }
                if let Some(reason) = json.get("delta").and_then(|delta| delta.get_str("stop_reason")) {
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
        let Some(kind) = block.get_str("type") else { return };
        if kind.is("tool_use") {
            let slot = self.tools;
            self.tools += 1;
            emit(tool(slot, block));
            let whole = block
                .get("input")
                .filter(|input| input.members().next().is_some());
            if let Some(input) = whole {
                emit(Piece::Arguments {
                    slot,
                    part: Arguments::Whole(input),
                });
            }
            self.open_tool = Some((index, whole.is_some()));
        } else if kind.is("text") {
            emit(Piece::Text(block.get_str("text").unwrap_or_default()));
        } else if kind.is("thinking") {
            emit(Piece::Reasoning(block.get_str("thinking").unwrap_or_default()));
        }
    }

    fn delta(&mut self, index: u64, delta: Json<'_>, emit: &mut impl FnMut(Piece<'_>)) {
        let Some(kind) = delta.get_str("type") else { return };
        if kind.is("text_delta") {
            emit(Piece::Text(delta.get_str("text").unwrap_or_default()));
        } else if kind.is("thinking_delta") {
            emit(Piece::Reasoning(delta.get_str("thinking").unwrap_or_default()));
        } else if kind.is("input_json_delta")
            && let Some((open, any)) = &mut self.open_tool
            && *open == index
        {
            let fragment = delta.get_str("partial_json").unwrap_or_default();
            if !fragment.is_empty() {
                *any = true;
                emit(Piece::Arguments {
                    slot: self.tools - 1,
                    part: Arguments::Fragment(fragment),
                });
            }
        }
    }
}
