//! What comes back: usage and text are read as they pass, and a stream that reaches its reservation is ended cleanly.

use std::ops::Range;

use tollgate_meter::counting::{ModelCounter, TextCount};
use tollgate_meter::response::{
    Ending, EventKind, JsonWatch, SseSplitter, StreamState, TextSink, Usage, inspect, write_early_end,
    write_error_event,
};

use super::attempt::MOST_ERROR;
use super::context::Context;
use super::reply::{ErrorKind, Reply};
use super::worker::WorkerState;
use super::{gemini, stop, translate};

/// Largest event that is kept until it is whole; a larger one passes unread, counted by its bytes.
const MAX_EVENT: usize = 256 * 1024;
/// Bytes a token stands for where text cannot be counted.
const BYTES_PER_TOKEN: u64 = 4;

/// How an answer is watched.
pub(crate) enum Response {
    /// Not at all: an upgrade, a kind that carries no usage.
    Opaque,
    /// An error that is passed on: how many bytes of it.
    Error(u64),
    /// A successful answer that cannot be read: compressed although it was not to be, or of a kind we do not know.
    Unread {
        bytes: u64,
        encoded: bool,
    },
    Json(Box<Json>),
    Sse(Box<Sse>),
}

/// What the filters have to do with an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Mode {
    Pass,
    Json,
    Sse,
    /// Held until it is complete, then translated.
    Whole,
    /// An error page of nginx's own, which the gateway's error takes the place of.
    Replace,
}

#[derive(Default)]
pub(crate) struct Json {
    /// Made when the body does not come in one piece.
    watch: Option<Box<JsonWatch>>,
    pub usage: Option<Usage>,
    pub text: TextCount,
    complete: bool,
}

#[derive(Default)]
pub(crate) struct Sse {
    splitter: SseSplitter,
    pub state: StreamState,
    carry: Vec<u8>,
    oversized: bool,
    pub text: TextCount,
    /// Bytes that passed unread.
    pub unread_bytes: u64,
}

/// A part of what goes on to the client.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Piece {
    /// Bytes of the chunk that was shown.
    Range(Range<usize>),
    /// Bytes of our own.
    Owned(Vec<u8>),
}

/// What becomes of one chunk of a stream. What no piece covers is kept for later or dropped.
#[derive(Default)]
pub(crate) struct Plan {
    pub pieces: Vec<Piece>,
    /// The stream ends here; whatever the upstream still sends is not wanted.
    pub cut: bool,
}

impl Plan {
    pub fn clear(&mut self) {
        self.pieces.clear();
        self.cut = false;
    }

    /// Whether the chunk of this length passes as it is.
    pub fn is_identity(&self, len: usize) -> bool {
        !self.cut && matches!(self.pieces.as_slice(), [Piece::Range(r)] if r.start == 0 && r.end == len)
    }

    fn pass(&mut self, range: Range<usize>) {
        match self.pieces.last_mut() {
            Some(Piece::Range(last)) if last.end == range.start => last.end = range.end,
            _ if range.is_empty() => {}
            _ => self.pieces.push(Piece::Range(range)),
        }
    }
}

/// Counts text as it comes.
struct Count<'c, 'a> {
    counter: Option<&'c mut ModelCounter<'a>>,
    text: &'c mut TextCount,
}

impl TextSink for Count<'_, '_> {
    fn text(&mut self, text: &str) {
        if let Some(counter) = self.counter.as_deref_mut() {
            counter.push(self.text, text);
        }
    }
}

/// The head of the answer is there.
pub(crate) fn response_started(
    context: &mut Context,
    status: u16,
    content_type: &[u8],
    encoded: bool,
    now: u64,
) -> Mode {
    context.first_byte_ms.get_or_insert(now);
    context.upstream_status = status;
    let is = |kind: &[u8]| {
        content_type
            .get(..kind.len())
            .is_some_and(|t| t.eq_ignore_ascii_case(kind))
    };
    if context.translation.is_some()
        && let Some(mode) = translate::started(context, status, is(b"text/event-stream"), encoded)
    {
        return mode;
    }
    if !(200..300).contains(&status) {
        if status >= 400 {
            context.response = Response::Error(0);
        }
        return Mode::Pass;
    }
    if encoded {
        context.response = Response::Unread {
            bytes: 0,
            encoded: true,
        };
        return Mode::Pass;
    }
    if is(b"text/event-stream") {
        gemini::started(context);
        context.response = Response::Sse(Box::default());
        Mode::Sse
    } else if is(b"application/json") {
        context.response = Response::Json(Box::default());
        Mode::Json
    } else {
        context.response = Response::Unread {
            bytes: 0,
            encoded: false,
        };
        Mode::Pass
    }
}

/// Bytes of an answer that passes unread; false if it is an error that does not end.
pub(crate) fn note_unread(context: &mut Context, length: u64) -> bool {
    match &mut context.response {
        Response::Unread { bytes, .. } => *bytes += length,
        Response::Error(bytes) => {
            *bytes += length;
            return *bytes <= MOST_ERROR;
        }
        Response::Opaque | Response::Json(_) | Response::Sse(_) => {}
    }
    true
}

/// Bytes of an answer that is held until it is complete; false if there are too many.
pub(crate) fn keep_whole(w: &mut WorkerState, context: &mut Context, bytes: &[u8]) -> bool {
    note_unread(context, bytes.len() as u64);
    watch_json(w, context, bytes);
    translate::keep(context, bytes)
}

/// Bytes of a JSON answer.
pub(crate) fn watch_json(w: &mut WorkerState, context: &mut Context, bytes: &[u8]) {
    let api = context.upstream_api;
    let counting = context.counting();
    let Response::Json(json) = &mut context.response else {
        return;
    };
    if json.complete || bytes.is_empty() {
        return;
    }
    let mut counter = counting.as_deref().map(|c| w.tokenizers.counter(c));
    let Json {
        watch,
        usage,
        text,
        complete,
    } = json.as_mut();
    let mut sink = Count {
        counter: counter.as_mut(),
        text,
    };
    if watch.is_none() {
        // Most answers come whole, and a JSON value that parses to its end is whole.
        let answer = JsonWatch::whole(bytes, api, &mut sink);
        if !answer.malformed {
            *usage = answer.usage;
            *complete = true;
            return;
        }
        *sink.text = TextCount::new();
    }
    watch
        .get_or_insert_with(|| Box::new(JsonWatch::new(api)))
        .feed(bytes, &mut sink);
}

impl Json {
    /// Whether what has come is not JSON, or not all of it.
    pub fn is_malformed(&self) -> bool {
        self.watch.as_deref().is_some_and(|watch| !watch.is_whole())
    }

    /// Usage and locally counted output, at the end.
    pub fn finish(&mut self, counter: Option<&mut ModelCounter<'_>>) -> (Option<Usage>, u64) {
        let Some(counter) = counter else {
            return (self.usage, 0);
        };
        if let Some(mut watch) = self.watch.take() {
            let answer = watch.finish(&mut Count {
                counter: Some(&mut *counter),
                text: &mut self.text,
            });
            self.usage = answer.usage;
        }
        (self.usage, counter.finish(std::mem::take(&mut self.text)))
    }
}

/// Bytes of an event stream: decides what goes on. Whole events leave at once; the beginning of one stays.
pub(crate) fn watch_sse(w: &mut WorkerState, context: &mut Context, chunk: &[u8], plan: &mut Plan) {
    plan.clear();
    let (api, hide_usage, answers) = (context.upstream_api, context.hide_usage, context.answers);
    let counting = context.counting();
    let approximate = counting.as_ref().is_none_or(|c| c.estimate);
    let granted = context.grant.filter(|_| context.output_bounded).map(|g| g.output);
    // Where our count can differ from the model's own, an honest stream must not be cut short for it.
    let bound = granted.map(|g| {
        if approximate || answers > 1 {
            g + g / 4 + 16
        } else {
            g
        }
    });
    let cut_already = context.cut;
    let mut ended = false;
    let mut cut = false;
    {
        let Response::Sse(sse) = &mut context.response else {
            return plan.pass(0..chunk.len());
        };
        let mut counter = counting.as_deref().map(|c| w.tokenizers.counter(c));
        let mut at = 0;
        while at < chunk.len() && !cut && !cut_already {
            let rest = chunk.get(at..).unwrap_or_default();
            let Some(length) = sse.splitter.next_boundary(rest) else {
                sse.keep(rest, at, plan);
                break;
            };
            let end = at + length;
            let whole = chunk.get(at..end).unwrap_or_default();
            if sse.oversized {
                sse.oversized = false;
                sse.unread_bytes += whole.len() as u64;
                plan.pass(at..end);
                at = end;
                continue;
            }
            let carried = !sse.carry.is_empty();
            if carried {
                sse.carry.extend_from_slice(whole);
            }
            let most = |bytes| counting.as_ref().map_or(bytes, |c| c.rule.most(bytes));
            let bytes = sse.text.bytes();
            let near = bound.is_some_and(|b| most(bytes + whole.len() as u64) > b);
            let before = near.then(|| sse.text.clone());
            let event: &[u8] = if carried { &sse.carry } else { whole };
            let mut sink = Count {
                counter: counter.as_mut(),
                text: &mut sse.text,
            };
            let facts = inspect(event, api, &mut sse.state, &mut sink);
            ended |= facts.kind == EventKind::Done;
            if let (Some(bound), Some(before), Some(counter)) = (bound, before, counter.as_mut())
                && sse.text.bytes() > bytes
                && counter.finish(sse.text.clone()) > bound
            {
                sse.text = before;
                cut = true;
                break;
            }
            if facts.kind == EventKind::UsageOnly && hide_usage {
                sse.carry.clear();
            } else if carried {
                plan.pieces.push(Piece::Owned(std::mem::take(&mut sse.carry)));
            } else {
                plan.pass(at..end);
            }
            at = end;
        }
    }
    context.ended |= ended;
    if cut {
        context.cut = true;
        context.ended = true;
        plan.cut = true;
        plan.pieces.push(Piece::Owned(early_end(w, context)));
    }
    if cut_already {
        plan.cut = true;
    }
    if context.translation.is_some() {
        translate::translate_plan(context, chunk, plan);
    }
    if context.gemini.is_some() {
        gemini::array_plan(context, chunk, plan);
    }
    note_progress(w, context);
}

impl Sse {
    /// The beginning of an event that is not complete.
    fn keep(&mut self, rest: &[u8], at: usize, plan: &mut Plan) {
        if self.oversized || self.carry.len() + rest.len() > MAX_EVENT {
            self.oversized = true;
            self.unread_bytes += (self.carry.len() + rest.len()) as u64;
            if !self.carry.is_empty() {
                plan.pieces.push(Piece::Owned(std::mem::take(&mut self.carry)));
            }
            plan.pass(at..at + rest.len());
        } else {
            self.carry.extend_from_slice(rest);
        }
    }

    /// Output tokens counted so far, and those that are an estimate.
    fn count(&self, counter: Option<&mut ModelCounter<'_>>) -> (u64, u64) {
        let counted = counter.map_or(0, |c| c.finish(self.text.clone()));
        (counted, self.unread_bytes / BYTES_PER_TOKEN)
    }

    /// The same at the end.
    pub fn finish(&mut self, counter: Option<&mut ModelCounter<'_>>) -> (u64, u64) {
        let text = std::mem::take(&mut self.text);
        let counted = counter.map_or(0, |c| c.finish(text));
        (counted, self.unread_bytes / BYTES_PER_TOKEN)
    }
}

/// Should this worker die, the request is charged what has been produced by now.
fn note_progress(w: &WorkerState, context: &Context) {
    if let (Some(attached), Some(grant), Response::Sse(sse)) =
        (&w.attached, &context.grant, &context.response)
    {
        let produced = context.counting().map_or(0, |c| sse.text.about(&c.rule));
        attached.region.note_produced(grant.row, produced);
    }
}

fn early_end(w: &mut WorkerState, context: &Context) -> Vec<u8> {
    let mut out = Vec::new();
    let Response::Sse(sse) = &context.response else {
        return out;
    };
    let counting = context.counting();
    let mut counter = counting.as_deref().map(|c| w.tokenizers.counter(c));
    let usage = Usage {
        input: Some(context.input),
        output: Some(sse.count(counter.as_mut()).0),
        ..Usage::default()
    };
    let now = super::identify::now_unix().unsigned_abs();
    let model = context.model_view().map_or("", |m| m.name());
    let ending = Ending {
        model,
        now,
        usage,
        include_usage: !context.hide_usage,
    };
    write_early_end(context.upstream_api, &sse.state, &ending, &mut out);
    out
}

/// nginx is about to send an error page of its own (the upstream cannot be reached, the body is too large): the same in
/// the shape of the API that was called.
pub(crate) fn failure(context: &Context, status: u16) -> String {
    let (code, message) = match status {
        _ if context.stopped => (stop::CODE, stop::MESSAGE),
        400 => ("bad_request", "the request is malformed"),
        408 => ("request_timeout", "the request's body did not arrive in time"),
        413 => ("body_too_large", "the request's body is too large"),
        502 => (
            "upstream_unreachable",
            "no deployment of the model could be reached or gave a valid answer",
        ),
        504 => ("upstream_timeout", "the deployment did not answer in time"),
        503 => ("unavailable", "the gateway cannot serve the request now"),
        _ => ("gateway_error", "the gateway failed to serve the request"),
    };
    Reply::error(
        context.api,
        status,
        ErrorKind::of_status(status),
        code,
        message,
        context.request_id(),
    )
    .body
}

/// Whether the request has used up the time that its model gives it.
pub(crate) fn is_overdue(context: &Context, now_ms: u64) -> bool {
    context.deadline_ms != 0 && now_ms > context.deadline_ms
}

/// The stream has come to its regular end: what is left of an event without its empty line passes as it is, since many
/// clients read lines, unless it is the usage that the client did not ask for.
pub(crate) fn last_event(w: &mut WorkerState, context: &mut Context) -> Option<Vec<u8>> {
    let rest = unfinished_event(w, context);
    if context.translation.is_some()
        && let Some(out) = translate::stream_end(context, rest.as_deref())
    {
        return Some(out);
    }
    gemini::array_end(context, rest.as_deref()).or(rest)
}

fn unfinished_event(w: &mut WorkerState, context: &mut Context) -> Option<Vec<u8>> {
    let api = context.upstream_api;
    let counting = context.counting();
    let Response::Sse(sse) = &mut context.response else {
        return None;
    };
    let rest = std::mem::take(&mut sse.carry);
    if rest.is_empty() || context.cut {
        return None;
    }
    let mut counter = counting.as_deref().map(|c| w.tokenizers.counter(c));
    let mut sink = Count {
        counter: counter.as_mut(),
        text: &mut sse.text,
    };
    let facts = inspect(&rest, api, &mut sse.state, &mut sink);
    (facts.kind != EventKind::UsageOnly || !context.hide_usage).then_some(rest)
}

/// The upstream died in mid-stream: what to tell the client before the connection closes.
pub(crate) fn broken_stream(context: &mut Context) -> Option<Vec<u8>> {
    let (code, message) = if context.stopped {
        (stop::CODE, stop::MESSAGE)
    } else {
        ("upstream_error", "the upstream broke off its answer")
    };
    if context.translation.is_some()
        && !context.ended
        && let Some(out) = translate::stream_broken(context, code, message)
    {
        return Some(out);
    }
    let Response::Sse(sse) = &mut context.response else {
        return None;
    };
    if context.ended {
        return None;
    }
    sse.carry = Vec::new();
    let mut out = Vec::new();
    write_error_event(context.api, &sse.state, code, message, &mut out);
    gemini::array_end(context, Some(&out)).or(Some(out))
}
