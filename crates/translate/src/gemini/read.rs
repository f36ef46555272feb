//! Reads Gemini's answers. Parts that a chat completion cannot carry (generated images, executed code) and the
//! signatures of texts are left out; the signature of a function call is kept, because Gemini 3 demands it back.
//!
//! A stream is a row of whole `GenerateContentResponse` objects and has no last event: it ends when the connection
//! does, properly if a `finishReason` has come.

use crate::Protocol;
use crate::answer::{Arguments, Fault, Finish, Piece, Progress, Usage};
use crate::error::read_error;
use crate::json::{Json, Kind, Str};
use crate::sse::Event;

fn finish(reason: Str<'_>) -> Option<Finish> {
    Some(match &*reason.text() {
        "FINISH_REASON_UNSPECIFIED" => return None,
        "MAX_TOKENS" => Finish::Length,
        "SAFETY"
        | "RECITATION"
        | "LANGUAGE"
        | "BLOCKLIST"
        | "PROHIBITED_CONTENT"
        | "SPII"
        | "IMAGE_SAFETY"
        | "IMAGE_PROHIBITED_CONTENT"
        | "IMAGE_RECITATION"
        | "MODEL_ARMOR" => Finish::Filtered,
        _ => Finish::Stop,
    })
}

/// `promptTokenCount` includes what came from a cache; thoughts are counted apart from the candidates.
fn usage(json: Json<'_>) -> Usage {
    let [prompt, tool_prompt, cached, candidates, thoughts] = json.pick_u64([
        "promptTokenCount",
        "toolUsePromptTokenCount",
        "cachedContentTokenCount",
        "candidatesTokenCount",
        "thoughtsTokenCount",
    ]);
    let cached = cached.unwrap_or_default();
    Usage {
        input: prompt
            .unwrap_or_default()
            .saturating_add(tool_prompt.unwrap_or_default())
            .saturating_sub(cached),
        cache_read: cached,
        cache_write: 0,
        output: candidates
            .unwrap_or_default()
            .saturating_add(thoughts.unwrap_or_default()),
        reasoning: thoughts,
    }
}

/// A response object's members.
struct Response<'a> {
    candidate: Option<Json<'a>>,
    blocked: bool,
    usage: Option<Json<'a>>,
    start: Piece<'a>,
}

impl<'a> Response<'a> {
    fn read(json: Json<'a>) -> Result<Self, Fault> {
        let [error, candidates, feedback, usage, id, model] = json.pick([
            "error",
            "candidates",
            "promptFeedback",
            "usageMetadata",
            "responseId",
            "modelVersion",
        ]);
        if error.is_some() || json.kind() == Kind::Array {
            return Err(read_error(Protocol::Gemini, None, json.raw().as_bytes()));
        }
        let text = |json: Option<Json<'a>>| json.and_then(Json::str).unwrap_or_default();
        Ok(Self {
            candidate: candidates.and_then(|candidates| candidates.elements().next()),
            blocked: feedback.is_some_and(|feedback| feedback.get("blockReason").is_some()),
            usage,
            start: Piece::Start {
                id: text(id),
                model: text(model),
            },
        })
    }

    /// Gives out what the response says; returns why the answer ended, if it has.
    fn emit(&self, tools: &mut usize, emit: &mut impl FnMut(Piece<'a>)) -> Option<Finish> {
        let [content, reason] = self
            .candidate
            .map(|candidate| candidate.pick(["content", "finishReason"]))
            .unwrap_or_default();
        let parts = content.and_then(|content| content.get("parts"));
        for part in parts.into_iter().flat_map(Json::elements) {
            let [text, thought, call, signature] =
                part.pick(["text", "thought", "functionCall", "thoughtSignature"]);
            if let Some(call) = call {
                let slot = *tools;
                *tools += 1;
                let [id, name] = call.pick_str(["id", "name"]);
                emit(Piece::Tool {
                    slot,
                    id,
                    name,
                    signature: signature.and_then(Json::str).unwrap_or_default(),
                });
                let args = call.get("args").unwrap_or(Json::EMPTY_OBJECT);
                emit(Piece::Arguments {
                    slot,
                    part: Arguments::Whole(args),
                });
            } else if let Some(text) = text.and_then(Json::str) {
                let thought = thought.and_then(Json::bool) == Some(true);
                emit(if thought {
                    Piece::Reasoning(text)
                } else {
                    Piece::Text(text)
                });
            }
        }
        if let Some(json) = self.usage {
            emit(Piece::Usage(usage(json)));
        }
        if self.candidate.is_none() && self.blocked {
            return Some(Finish::Filtered);
        }
        reason.and_then(Json::str).and_then(finish)
    }
}

/// Reads a whole answer.
pub(crate) fn read_whole<'a>(json: Json<'a>, emit: &mut impl FnMut(Piece<'a>)) -> Result<(), Fault> {
    let response = Response::read(json)?;
    if response.candidate.is_none() && !response.blocked {
        return Err(Fault::malformed("the deployment's answer has no candidates"));
    }
    emit(response.start);
    let finish = response.emit(&mut 0, emit);
    emit(Piece::Finish(finish.unwrap_or(Finish::Stop)));
    Ok(())
}

/// Reads a stream, event by event.
#[derive(Default)]
pub(crate) struct StreamReader {
    started: bool,
    finished: bool,
    tools: usize,
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
        let response = Response::read(json)?;
        if !std::mem::replace(&mut self.started, true) {
            emit(response.start);
        }
        if let Some(finish) = response.emit(&mut self.tools, emit) {
            self.finished = true;
            emit(Piece::Finish(finish));
        }
        Ok(Progress::More)
    }
}
