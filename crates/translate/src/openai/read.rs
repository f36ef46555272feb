//! Reads answers of OpenAI's chat completions and of the servers compatible with it, which differ: reasoning under two
//! names, arguments as objects, calls without ids or all under index 0, `stop` although tools are called.

use crate::Protocol;
use crate::answer::{Arguments, Fault, Finish, Piece, Progress, Usage};
use crate::error::read_error;
use crate::json::{Json, Kind, Str};
use crate::sse::Event;

/// Tool calls in one streamed answer; more are a fault of the upstream.
const MAX_TOOLS: usize = 1024;

fn finish(reason: Str<'_>) -> Finish {
    match &*reason.text() {
        "length" => Finish::Length,
        "tool_calls" | "function_call" => Finish::Tools,
        "content_filter" => Finish::Filtered,
        _ => Finish::Stop,
    }
}

fn usage(json: Json<'_>) -> Usage {
    let cached = json
        .get("prompt_tokens_details")
        .and_then(|details| details.get_u64("cached_tokens"))
        .unwrap_or_default();
    Usage {
        input: json
            .get_u64("prompt_tokens")
            .unwrap_or_default()
            .saturating_sub(cached),
        cache_read: cached,
        cache_write: 0,
        output: json.get_u64("completion_tokens").unwrap_or_default(),
        reasoning: json
            .get("completion_tokens_details")
            .and_then(|details| details.get_u64("reasoning_tokens")),
    }
}

fn start(json: Json<'_>) -> Piece<'_> {
    Piece::Start {
        id: json.get_str("id").unwrap_or_default(),
        model: json.get_str("model").unwrap_or_default(),
    }
}

/// What a message and a delta have in common.
fn read_texts<'a>(message: Json<'a>, emit: &mut impl FnMut(Piece<'a>)) {
    let reasoning = message
        .get_str("reasoning_content")
        .or_else(|| message.get_str("reasoning"));
    if let Some(reasoning) = reasoning {
        emit(Piece::Reasoning(reasoning));
    }
    if let Some(content) = message.get("content") {
        if let Some(text) = content.str() {
            emit(Piece::Text(text));
        }
        for part in content.elements() {
            if let Some(text) = part.get_str("text") {
                emit(Piece::Text(text));
            }
        }
    }
    if let Some(refusal) = message.get_str("refusal") {
        emit(Piece::Refusal(refusal));
    }
}

fn arguments(json: Json<'_>) -> Option<Arguments<'_>> {
    match json.kind() {
        Kind::Object => Some(Arguments::Whole(json)),
        _ => json.str().map(Arguments::Fragment),
    }
}

/// Reads a whole completion; of several choices only the first.
pub(crate) fn read_whole<'a>(json: Json<'a>, emit: &mut impl FnMut(Piece<'a>)) -> Result<(), Fault> {
    let choice = json.get("choices").and_then(|choices| choices.elements().next());
    let message = choice.and_then(|choice| choice.get("message"));
    let (Some(choice), Some(message)) = (choice, message) else {
        return Err(Fault::malformed("the deployment's answer has no choices"));
    };
    emit(start(json));
    read_texts(message, emit);
    for (slot, call) in message
        .get("tool_calls")
        .into_iter()
        .flat_map(Json::elements)
        .enumerate()
    {
        let Some(function) = call.get("function") else {
            continue;
        };
        emit(Piece::Tool {
            slot,
            id: call.get_str("id").unwrap_or_default(),
            name: function.get_str("name").unwrap_or_default(),
            signature: Str::EMPTY,
        });
        if let Some(part) = function.get("arguments").and_then(arguments) {
            emit(Piece::Arguments { slot, part });
        }
    }
    if let Some(json) = json.get("usage") {
        emit(Piece::Usage(usage(json)));
    }
    emit(Piece::Finish(
        choice.get_str("finish_reason").map_or(Finish::Stop, finish),
    ));
    Ok(())
}

/// Reads a stream, event by event.
#[derive(Default)]
pub(crate) struct StreamReader {
    started: bool,
    finished: bool,
    /// The tool calls so far, by slot: the upstream's index and id.
    tools: Vec<(u64, String)>,
}

impl StreamReader {
    /// Whether the reason of the end is known, or the upstream has said that it ends.
    pub(crate) const fn finished(&self) -> bool {
        self.finished
    }

    pub(crate) fn event(
        &mut self,
        event: &Event<'_>,
        emit: &mut impl FnMut(Piece<'_>),
    ) -> Result<Progress, Fault> {
        if event.data.trim_ascii() == b"[DONE]" {
            self.finished |= self.started;
            return Ok(Progress::Done);
        }
        let json = Json::parse(event.data)
            .map_err(|_| Fault::malformed("an event of the deployment's stream is not JSON"))?;
        if json.get("error").is_some() {
            return Err(read_error(Protocol::OpenAiChat, None, event.data));
        }
        let choice = json
            .get("choices")
            .into_iter()
            .flat_map(Json::elements)
            .find(|choice| choice.get_u64("index").unwrap_or(0) == 0);
        if let Some(choice) = choice {
            if !std::mem::replace(&mut self.started, true) {
                emit(start(json));
            }
            if let Some(delta) = choice.get("delta") {
                read_texts(delta, emit);
                for call in delta.get("tool_calls").into_iter().flat_map(Json::elements) {
                    self.call(call, emit)?;
                }
            }
            if let Some(reason) = choice.get_str("finish_reason") {
                self.finished = true;
                emit(Piece::Finish(finish(reason)));
            }
        }
        if let Some(json) = json.get("usage") {
            emit(Piece::Usage(usage(json)));
        }
        Ok(Progress::More)
    }

    fn call(&mut self, call: Json<'_>, emit: &mut impl FnMut(Piece<'_>)) -> Result<(), Fault> {
        let index = call.get_u64("index").unwrap_or(0);
        let id = call.get_str("id").unwrap_or_default();
        let function = call.get("function");
        let name = function
            .and_then(|function| function.get_str("name"))
            .unwrap_or_default();
        let known = self.tools.iter().rposition(|(at, _)| *at == index);
        // A new id together with a name begins another call even under an index that has been used.
        let same = known.filter(|&slot| {
            id.is_empty() || name.is_empty() || self.tools.get(slot).is_some_and(|(_, known)| id.is(known))
        });
        let slot = match same {
            Some(slot) => slot,
            None => {
                let slot = self.tools.len();
                if slot >= MAX_TOOLS {
                    return Err(Fault::malformed("the deployment's stream calls too many tools"));
                }
                self.tools.push((index, id.text().into_owned()));
                emit(Piece::Tool {
                    slot,
                    id,
                    name,
                    signature: Str::EMPTY,
                });
                slot
            }
        };
        match function
            .and_then(|function| function.get("arguments"))
            .and_then(arguments)
        {
            Some(Arguments::Fragment(fragment)) if fragment.is_empty() => {}
            Some(part) => emit(Piece::Arguments { slot, part }),
            None => {}
        }
        Ok(())
    }
}
