//! What one event of a stream says.

use super::found::{Found, ID, Short, TextSink, Wants};
use super::role::Role;
use super::sse::EventLines;
use super::usage::Usage;
use super::whole::{self, emit};
use crate::Api;
use crate::json::{Cursor, Fault, RawStr};

/// What must be remembered of a stream between its events: at most 320 bytes, no heap. Kept up by [`inspect`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamState {
    id: Short<ID>,
    created: u64,
    usage: Usage,
    has_usage: bool,
    events: u64,
    last_sequence: u64,
    /// OpenAI choices below 64 that have been seen and that have finished.
    seen_choices: u64,
    finished_choices: u64,
    open_block: Option<u32>,
    phase: Phase,
}

/// How far a stream has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Phase {
    /// No event of the answer yet.
    Waiting,
    /// In the answer.
    Started,
    /// The model has stopped; usage or the last marker may follow.
    Stopped,
    /// The stream's last event has passed.
    Done,
}

impl Default for StreamState {
    fn default() -> Self {
        Self {
            id: Short::EMPTY,
            created: 0,
            usage: Usage::default(),
            has_usage: false,
            events: 0,
            last_sequence: 0,
            seen_choices: 0,
            finished_choices: 0,
            open_block: None,
            phase: Phase::Waiting,
        }
    }
}

impl StreamState {
    /// Before the first event.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The answer's id, empty if none has come. Cut at 128 bytes.
    #[must_use]
    pub fn id(&self) -> &str {
        self.id.as_str()
    }

    /// Unix time of the answer by the upstream, 0 if it has not said.
    #[must_use]
    pub const fn created(&self) -> u64 {
        self.created
    }

    /// The usage reported so far, merged.
    #[must_use]
    pub fn usage(&self) -> Option<Usage> {
        self.has_usage.then_some(self.usage)
    }

    /// Events that carried data.
    #[must_use]
    pub const fn events(&self) -> u64 {
        self.events
    }

    /// How far the stream has come.
    #[must_use]
    pub const fn phase(&self) -> Phase {
        self.phase
    }

    /// The content block that is open in an Anthropic stream.
    pub(super) const fn open_block(&self) -> Option<u32> {
        self.open_block
    }

    pub(super) const fn last_sequence(&self) -> u64 {
        self.last_sequence
    }

    /// Indexes of the choices that have begun and not finished; choice 0 if none has begun.
    pub(super) fn open_choices(&self) -> impl Iterator<Item = u32> {
        let seen = if self.seen_choices == 0 {
            1
        } else {
            self.seen_choices
        };
        let open = seen & !self.finished_choices;
        (0..64).filter(move |bit| open >> bit & 1 == 1)
    }
}

/// What kind of event it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventKind {
    /// The first event of an answer without content (Anthropic `message_start`, `response.created`).
    Start,
    /// A piece of the answer, or the frame of one.
    Delta,
    /// The model has stopped (`finish_reason`, `message_delta`, `response.completed`).
    Finish,
    /// OpenAI's extra chunk with usage and no choices: to be taken out if the client did not ask for it.
    UsageOnly,
    /// The last event: `[DONE]`, `message_stop`.
    Done,
    /// An error report.
    Error,
    /// Comments, keep-alives, `ping`: no data of the answer.
    Comment,
    /// Anything else, unreadable data included.
    Other,
}

/// One event's facts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EventFacts {
    /// What kind of event it is.
    pub kind: EventKind,
    /// The usage in this very event; [`StreamState::usage`] has all of it merged.
    pub usage: Option<Usage>,
    /// The first choice, content block or output item that the event speaks of.
    pub index: Option<u32>,
    /// Whether text was given to the sink.
    pub text: bool,
    /// Whether the data was not JSON.
    pub malformed: bool,
}

impl EventFacts {
    const fn of(kind: EventKind) -> Self {
        Self {
            kind,
            usage: None,
            index: None,
            text: false,
            malformed: false,
        }
    }
}

/// Reads one whole event as [`super::SseSplitter`] cuts it. Texts go to `sink`, what later events need to `state`.
/// Allocates only if `data` is spread over lines or a text has escapes.
pub fn inspect<S: TextSink + ?Sized>(
    event: &[u8],
    api: Api,
    state: &mut StreamState,
    sink: &mut S,
) -> EventFacts {
    let lines = EventLines::parse(event);
    let Some(data) = lines.data.bytes() else {
        return EventFacts::of(EventKind::Comment);
    };
    let data = data.trim_ascii();
    state.events = state.events.saturating_add(1);
    if data == b"[DONE]" {
        state.phase = Phase::Done;
        return EventFacts::of(EventKind::Done);
    }
    let mut found = Found {
        wants: if state.id.is_empty() || state.created == 0 {
            Wants::Identity
        } else {
            Wants::Nothing
        },
        ..Found::default()
    };
    let read = match api {
        Api::AnthropicMessages | Api::AnthropicCountTokens | Api::AnthropicModels => {
            anthropic(data, lines.name, state, &mut found, sink)
        }
        Api::Responses => responses(data, lines.name, state, &mut found, sink),
        _ => openai(data, state, &mut found, sink),
    };
    let usage = found.usage();
    if let Some(usage) = &usage {
        state.usage.merge(usage);
        state.has_usage = true;
    }
    if let Some(id) = found.id
        && state.id.is_empty()
    {
        state.id = id;
    }
    if let Some(created) = found.created
        && state.created == 0
    {
        state.created = created;
    }
    let kind = match read {
        Ok(kind) => kind,
        Err(_) => EventKind::Other,
    };
    state.phase = state.phase.max(match kind {
        EventKind::Start | EventKind::Delta => Phase::Started,
        EventKind::Finish | EventKind::UsageOnly | EventKind::Error => Phase::Stopped,
        EventKind::Done => Phase::Done,
        EventKind::Comment | EventKind::Other => Phase::Waiting,
    });
    EventFacts {
        kind,
        usage,
        index: found.index,
        text: found.text,
        malformed: read.is_err(),
    }
}

fn openai<S: TextSink + ?Sized>(
    data: &[u8],
    state: &mut StreamState,
    found: &mut Found,
    sink: &mut S,
) -> Result<EventKind, Fault> {
    let mut cursor = Cursor::new(data);
    whole::value::<true, S>(&mut cursor, Role::OpenAi, found, sink)?;
    cursor.end()?;
    if found.choice {
        // An event that bears several choices finishes them together; none of the known servers sends such.
        let bit = 1_u64.checked_shl(found.index.unwrap_or(0)).unwrap_or(0);
        state.seen_choices |= bit;
        if found.finish {
            state.finished_choices |= bit;
        }
    }
    Ok(if found.error {
        EventKind::Error
    } else if found.choice && found.finish {
        EventKind::Finish
    } else if found.choice {
        EventKind::Delta
    } else if found.usage.present {
        EventKind::UsageOnly
    } else {
        EventKind::Other
    })
}

fn anthropic<S: TextSink + ?Sized>(
    data: &[u8],
    name: &[u8],
    state: &mut StreamState,
    found: &mut Found,
    sink: &mut S,
) -> Result<EventKind, Fault> {
    let mut cursor = Cursor::new(data);
    let mut kind = name;
    let mut scratch = String::new();
    cursor.members(|cursor, key| {
        let role = match key.decoded(&mut scratch) {
            b"type" if cursor.peek() == b'"' => {
                kind = cursor.string()?.raw;
                return Ok(());
            }
            b"message" => Role::AnthropicEnvelope,
            b"content_block" | b"delta" => Role::Part,
            b"usage" => Role::Usage,
            b"error" => Role::Error,
            b"index" => Role::Index,
            _ => Role::Ignore,
        };
        whole::value::<true, S>(cursor, role, found, sink)
    })?;
    cursor.end()?;
    Ok(match kind {
        b"message_start" => EventKind::Start,
        b"content_block_start" => {
            state.open_block = found.index;
            EventKind::Delta
        }
        b"content_block_delta" => EventKind::Delta,
        b"content_block_stop" => {
            state.open_block = None;
            EventKind::Delta
        }
        b"message_delta" => EventKind::Finish,
        b"message_stop" => EventKind::Done,
        b"ping" => EventKind::Comment,
        _ if found.error => EventKind::Error,
        _ => EventKind::Other,
    })
}

/// OpenAI responses: `delta` is text in events named `*.delta`, but for audio and images; the `*.done` events and the
/// final `response` repeat what the deltas have said.
fn responses<S: TextSink + ?Sized>(
    data: &[u8],
    name: &[u8],
    state: &mut StreamState,
    found: &mut Found,
    sink: &mut S,
) -> Result<EventKind, Fault> {
    let mut cursor = Cursor::new(data);
    let mut kind = name;
    let mut delta: Option<RawStr<'_>> = None;
    let mut scratch = String::new();
    cursor.members(|cursor, key| {
        let role = match key.decoded(&mut scratch) {
            b"type" if cursor.peek() == b'"' => {
                kind = cursor.string()?.raw;
                return Ok(());
            }
            b"delta" if cursor.peek() == b'"' => {
                delta = Some(cursor.string()?);
                return Ok(());
            }
            b"sequence_number" if cursor.peek().is_ascii_digit() => {
                if let crate::json::Integer::Value(number) = crate::json::integer(cursor.number()?) {
                    state.last_sequence = number;
                }
                return Ok(());
            }
            b"response" => Role::ResponsesEnvelope,
            b"error" => Role::Error,
            b"output_index" => Role::Index,
            _ => Role::Ignore,
        };
        whole::value::<true, S>(cursor, role, found, sink)
    })?;
    cursor.end()?;
    let text = kind.ends_with(b".delta") && !kind.ends_with(b"audio.delta");
    if let Some(delta) = delta
        && text
    {
        found.text |= !delta.raw.is_empty();
        emit(delta, sink);
    }
    Ok(match kind {
        b"response.created" | b"response.in_progress" | b"response.queued" => EventKind::Start,
        b"response.completed" | b"response.incomplete" => {
            state.phase = Phase::Done;
            EventKind::Finish
        }
        b"response.failed" => {
            state.phase = Phase::Done;
            EventKind::Error
        }
        _ if kind.starts_with(b"response.") => EventKind::Delta,
        _ if found.error || kind == b"error" => EventKind::Error,
        _ => EventKind::Other,
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn state_stays_small() {
        assert!(
            size_of::<super::StreamState>() <= 320,
            "{}",
            size_of::<super::StreamState>()
        );
    }
}
