//! Gemini's own API: the model stands in the path, an API key may stand in the query, and a stream is an array that
//! grows unless the client asks for events. The deployment is always asked for events: only there an answer can be ended
//! early.

use std::borrow::Cow;

use tollgate_meter::{Api, GeminiCall};
use tollgate_translate::{GeminiArray, gemini_path};

use super::context::Context;
use super::facts;
use super::response::{Piece, Plan};
use crate::ngx::request::Request;

/// The query parameter that carries the client's key.
pub(super) const KEY: &str = "key";

/// A model's name as it stands in a body.
pub(super) fn model_in_body(api: Api, name: &str) -> Cow<'_, str> {
    if api.is_gemini() && !name.contains('/') {
        Cow::Owned(format!("models/{name}"))
    } else {
        Cow::Borrowed(name)
    }
}

/// A call that names its model in the path.
pub(crate) struct GeminiRequest {
    version: Box<str>,
    model: Box<str>,
    method: Box<str>,
    stream: bool,
    /// Whether the client wants its stream as an array.
    wants_array: bool,
    /// From the head of such an answer on.
    array: Option<GeminiArray>,
}

impl GeminiRequest {
    pub(super) fn of(request: &Request) -> Option<GeminiRequest> {
        let path = std::str::from_utf8(request.path()).ok()?;
        let call = GeminiCall::parse(path)?;
        let events = facts::query(request.args(), "alt").is_some_and(|alt| alt == "sse");
        Some(GeminiRequest {
            version: call.version.into(),
            model: call.model.into(),
            method: call.method.into(),
            stream: call.is_stream(),
            wants_array: call.is_stream() && !events,
            array: None,
        })
    }

    pub(super) fn model(&self) -> &str {
        &self.model
    }

    pub(super) fn is_stream(&self) -> bool {
        self.stream
    }

    /// Path and query for a deployment, below its provider's base. `args`: the client's, without what is private.
    pub(super) fn target(&self, upstream_model: &str, args: &[u8]) -> String {
        let mut target = gemini_path(&self.version, upstream_model, &self.method);
        let mut mark = '?';
        if self.stream {
            target.push_str("?alt=sse");
            mark = '&';
        }
        let kept = facts::without(args, "alt").unwrap_or_else(|| args.to_vec());
        if !kept.is_empty() {
            target.push(mark);
            target.push_str(&String::from_utf8_lossy(&kept));
        }
        target
    }
}

/// Whether the client gets an array instead of the events that come.
pub(crate) fn wants_array(context: &Context) -> bool {
    context.gemini.as_deref().is_some_and(|gemini| gemini.wants_array)
}

/// The head of a stream of events is there.
pub(super) fn started(context: &mut Context) {
    if let Some(gemini) = context.gemini.as_deref_mut().filter(|gemini| gemini.wants_array) {
        gemini.array = Some(GeminiArray::default());
    }
}

fn array(context: &mut Context) -> Option<&mut GeminiArray> {
    context.gemini.as_deref_mut()?.array.as_mut()
}

/// Turns what would go on of a chunk into elements of the client's array.
pub(super) fn array_plan(context: &mut Context, chunk: &[u8], plan: &mut Plan) {
    let Some(array) = array(context) else { return };
    let mut out = Vec::new();
    for piece in plan.pieces.drain(..) {
        match piece {
            Piece::Range(range) => array.push(chunk.get(range).unwrap_or_default(), &mut out),
            Piece::Owned(bytes) => array.push(&bytes, &mut out),
        }
    }
    if plan.cut {
        array.end(&mut out);
    }
    if !out.is_empty() {
        plan.pieces.push(Piece::Owned(out));
    }
}

/// What is left at a stream's end, its own or ours, as the end of the client's array. `None`: the client gets events.
pub(super) fn array_end(context: &mut Context, rest: Option<&[u8]>) -> Option<Vec<u8>> {
    let array = array(context)?;
    let mut out = Vec::new();
    array.push(rest.unwrap_or_default(), &mut out);
    array.end(&mut out);
    Some(out)
}
