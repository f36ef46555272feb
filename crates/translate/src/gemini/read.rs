//! Reads Gemini's answers. Parts that a chat completion cannot carry (generated images, executed code) and the
//! signatures of texts are left out; the signature of a function call is kept, because Gemini 3 demands it back.
//!
//! A stream is a row of whole `GenerateContentResponse` objects and has no last event: it ends when the connection
//! does, properly if a `finishReason` has come.

use crate::Protocol;
use crate::answer::{Arguments, Fault, Finish, Piece, Progress, Usage};
use crate::error::read_error;
use crate::json::{Json, Str};
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
    let count = |name| json.get_u64(name).unwrap_or_default();
    let cached = count("cachedContentTokenCount");
    Usage {
        input: count("promptTokenCount")
            .saturating_add(count("toolUsePromptTokenCount"))
            .saturating_sub(cached),
        cache_read: cached,
        cache_write: 0,
        output: count("candidatesTokenCount").saturating_add(count("thoughtsTokenCount")),
        reasoning: json.get_u64("thoughtsTokenCount"),
    }
}

fn start(json: Json<'_>) -> Piece<'_> {
    Piece::Start {
        id: json.get_str("responseId").unwrap_or_default(),
        model: json.get_str("modelVersion").unwrap_or_default(),
    }
}

/// Reads one response object; returns why the answer ended, if it says so.
fn read_response<'a>(json: Json<'a>, tools: &mut usize, emit: &mut impl FnMut(Piece<'a>)) -> Option<Finish> {
    let candidate = json
        .get("candidates")
        .and_then(|candidates| candidates.elements().next());
    let parts = candidate
        .and_then(|candidate| candidate.get("content"))
        .and_then(|content| content.get("parts"));
    for part in parts.into_iter().flat_map(Json::elements) {
        if let Some(call) = part.get("functionCall") {
            let slot = *tools;
            *tools += 1;
            emit(Piece::Tool {
                slot,
                id: call.get_str("id").unwrap_or_default(),
                name: call.get_str("name").unwrap_or_default(),
                signature: part.get_str("thoughtSignature").unwrap_or_default(),
            });
            let args = call.get("args").unwrap_or(Json::EMPTY_OBJECT);
            emit(Piece::Arguments {
                slot,
                part: Arguments::Whole(args),
            });
        } else if let Some(text) = part.get_str("text") {
            let thought = part.get("thought").and_then(Json::bool) == Some(true);
            emit(if thought {
                Piece::Reasoning(text)
            } else {
                Piece::Text(text)
            });
        }
    }
    if let Some(json) = json.get("usageMetadata") {
        emit(Piece::Usage(usage(json)));
    }
    let blocked = json
        .get("promptFeedback")
        .and_then(|feedback| feedback.get("blockReason"));
    match candidate {
        Some(candidate) => candidate.get_str("finishReason").and_then(finish),
        None => blocked.map(|_| Finish::Filtered),
    }
}

/// Reads a whole answer.
pub(crate) fn read_whole<'a>(json: Json<'a>, emit: &mut impl FnMut(Piece<'a>)) -> Result<(), Fault> {
    if json.get("candidates").is_none() && json.get("promptFeedback").is_none() {
        return Err(Fault::malformed("the deployment's answer has no candidates"));
    }
    emit(start(json));
    let finish = read_response(json, &mut 0, emit);
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
        if json.elements().next().unwrap_or(json).get("error").is_some() {
            return Err(read_error(Protocol::Gemini, None, event.data));
        }
        if !std::mem::replace(&mut self.started, true) {
            emit(start(json));
        }
        if let Some(finish) = read_response(json, &mut self.tools, emit) {
            self.finished = true;
            emit(Piece::Finish(finish));
        }
        Ok(Progress::More)
    }
}
