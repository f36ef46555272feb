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
    let [prompt, completion, prompt_details, completion_details] = json.pick([
        "prompt_tokens",
        "completion_tokens",
        "prompt_tokens_details",
        "completion_tokens_details",
    ]);
    let count = |value: Option<Json<'_>>| value.and_then(Json::u64).unwrap_or_default();
    let [read, written] = prompt_details
        .map(|details| details.pick_u64(["cached_tokens", "cache_write_tokens"]))
        .unwrap_or_default();
    let (read, written) = (read.unwrap_or_default(), written.unwrap_or_default());
    Usage {
        input: count(prompt).saturating_sub(read).saturating_sub(written),
        cache_read: read,
        cache_write: written,
        output: count(completion),
        reasoning: completion_details.and_then(|details| details.get_u64("reasoning_tokens")),
    }
}

/// What is no string is empty.
fn string(json: Option<Json<'_>>) -> Str<'_> {
    json.and_then(Json::str).unwrap_or_default()
}

/// What a message and a delta have in common; returns the calls of tools.
fn read_texts<'a>(message: Json<'a>, emit: &mut impl FnMut(Piece<'a>)) -> Option<Json<'a>> {
    let [content, reasoning, other_reasoning, refusal, calls] = message.pick([
        "content",
        "reasoning_content",
        "reasoning",
        "refusal",
        "tool_calls",
    ]);
    if let Some(reasoning) = reasoning.or(other_reasoning).and_then(Json::str) {
        emit(Piece::Reasoning(reasoning));
    }
    if let Some(content) = content {
        if let Some(text) = content.str() {
            emit(Piece::Text(text));
        }
        for part in content.elements() {
            if let Some(text) = part.get_str("text") {
                emit(Piece::Text(text));
            }
        }
    }
    if let Some(refusal) = refusal.and_then(Json::str) {
        emit(Piece::Refusal(refusal));
    }
    calls
}

fn arguments(json: Json<'_>) -> Option<Arguments<'_>> {
    match json.kind() {
        Kind::Object => Some(Arguments::Whole(json)),
        _ => json.str().map(Arguments::Fragment),
    }
}

/// Reads a whole completion; of several choices only the first.
pub(crate) fn read_whole<'a>(json: Json<'a>, emit: &mut impl FnMut(Piece<'a>)) -> Result<(), Fault> {
    let [error, choices, id, model, figures] = json.pick(["error", "choices", "id", "model", "usage"]);
    if error.is_some() {
        return Err(read_error(Protocol::OpenAiChat, None, json.raw().as_bytes()));
    }
    let choice = choices.and_then(|choices| choices.elements().next());
    let [message, reason] = choice
        .map(|choice| choice.pick(["message", "finish_reason"]))
        .unwrap_or_default();
    let message = message.ok_or_else(|| Fault::malformed("the deployment's answer has no choices"))?;
    emit(Piece::Start {
        id: string(id),
        model: string(model),
    });
    let mut slot = 0;
    for call in read_texts(message, emit).into_iter().flat_map(Json::elements) {
        let [id, function] = call.pick(["id", "function"]);
        let Some(function) = function else { continue };
        let [name, part] = function.pick(["name", "arguments"]);
        emit(Piece::Tool {
            slot,
            id: string(id),
            name: string(name),
            signature: Str::EMPTY,
        });
        if let Some(part) = part.and_then(arguments) {
            emit(Piece::Arguments { slot, part });
        }
        slot += 1;
    }
    if let Some(json) = figures {
        emit(Piece::Usage(usage(json)));
    }
    emit(Piece::Finish(
        reason.and_then(Json::str).map_or(Finish::Stop, finish),
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
        let [error, choices, id, model, figures] = json.pick(["error", "choices", "id", "model", "usage"]);
        if error.is_some() {
            return Err(read_error(Protocol::OpenAiChat, None, event.data));
        }
        for choice in choices.into_iter().flat_map(Json::elements) {
            let [index, delta, reason] = choice.pick(["index", "delta", "finish_reason"]);
            if index.is_some_and(|index| index.u64() != Some(0)) {
                continue;
            }
            if !std::mem::replace(&mut self.started, true) {
                emit(Piece::Start {
                    id: string(id),
                    model: string(model),
                });
            }
            if let Some(delta) = delta {
                for call in read_texts(delta, emit).into_iter().flat_map(Json::elements) {
                    self.call(call, emit)?;
                }
            }
            if let Some(reason) = reason.and_then(Json::str) {
                self.finished = true;
                emit(Piece::Finish(finish(reason)));
            }
        }
        if let Some(json) = figures {
            emit(Piece::Usage(usage(json)));
        }
        Ok(Progress::More)
    }

    fn call(&mut self, call: Json<'_>, emit: &mut impl FnMut(Piece<'_>)) -> Result<(), Fault> {
        let [index, id, function] = call.pick(["index", "id", "function"]);
        let index = index.and_then(Json::u64).unwrap_or(0);
        let id = string(id);
        let [name, part] = function
            .map(|function| function.pick(["name", "arguments"]))
            .unwrap_or_default();
        let name = string(name);
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
        match part.and_then(arguments) {
            Some(Arguments::Fragment(fragment)) if fragment.is_empty() => {}
            Some(part) => emit(Piece::Arguments { slot, part }),
            None => {}
        }
        Ok(())
    }
}
