//! A deployment that speaks another protocol than the client: requests are translated on the way there, answers on the
//! way back. What is metered is always the upstream's side.

use tollgate_meter::Api;
use tollgate_policy::documents::Protocol;
use tollgate_translate::{
    Ask, Context as AnswerContext, ErrorKind, Options, Pair, Refusal, StreamTranslator, error_body,
    translate_request, translate_response,
};

use super::context::Context;
use super::identify::now_unix;
use super::response::{Mode, Piece, Plan, Response};
use crate::ngx::request::{PoolText, Request};

/// Largest whole answer that is translated; it is held until it is complete.
const MAX_ANSWER: usize = 16 * 1024 * 1024;

/// How a deployment can serve a request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Way {
    /// It speaks the client's protocol, or is not known to speak another.
    Native,
    Translated(Pair),
    Unable,
}

/// How a deployment of a provider with this protocol serves requests of this API.
pub(super) fn way(api: Api, protocol: Protocol) -> Way {
    match (api, protocol) {
        (Api::Other, _) | (_, Protocol::Other) => Way::Native,
        // The lists are the gateway's own; what else is done with models is passed on.
        (Api::Models | Api::AnthropicModels, _) => Way::Native,
        (Api::AnthropicMessages | Api::AnthropicCountTokens, Protocol::Anthropic) => Way::Native,
        (Api::ChatCompletions | Api::Completions | Api::Responses | Api::Embeddings, Protocol::Openai) => {
            Way::Native
        }
        (Api::ChatCompletions, Protocol::Anthropic) => Way::Translated(Pair::OpenAiToAnthropic),
        (Api::ChatCompletions, Protocol::Gemini) => Way::Translated(Pair::OpenAiToGemini),
        (Api::AnthropicMessages, Protocol::Openai) => Way::Translated(Pair::AnthropicToOpenAi),
        (Api::AnthropicMessages, Protocol::Gemini) => Way::Translated(Pair::AnthropicToGemini),
        (api, Protocol::Gemini) if api.is_gemini() => Way::Native,
        _ => Way::Unable,
    }
}

/// As in the documents.
pub(super) fn name(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Openai => "openai",
        Protocol::Anthropic => "anthropic",
        Protocol::Gemini => "gemini",
        Protocol::Other => "other",
    }
}

/// The shape of a translated attempt's answers, for the meter.
const fn upstream_api(pair: Pair) -> Api {
    match pair {
        Pair::OpenAiToAnthropic => Api::AnthropicMessages,
        Pair::OpenAiToGemini | Pair::AnthropicToGemini => Api::GeminiGenerate,
        Pair::AnthropicToOpenAi => Api::ChatCompletions,
    }
}

/// Header lines that mean something to one protocol only.
fn belongs_to_protocol(name: &[u8]) -> bool {
    name.starts_with(b"anthropic-") || name.starts_with(b"openai-")
}

/// Why a request cannot go to a deployment.
pub(super) enum Misfit {
    /// The deployment's protocol cannot express it; another deployment may.
    Refused(Refusal),
    Failed(&'static str),
}

impl From<&'static str> for Misfit {
    fn from(reason: &'static str) -> Misfit {
        Misfit::Failed(reason)
    }
}

/// What is kept of a request from its first translation on: a later attempt may need the original again.
pub(crate) struct Translation {
    /// That of the current attempt, if it is a translated one.
    pair: Option<Pair>,
    /// The body in the client's protocol, without the channel code.
    body: PoolText,
    args: PoolText,
    quoted: bool,
    /// The client's header lines that belong to its protocol, as they continue a block of such lines.
    client_lines: Vec<u8>,
    /// Whether usage was asked for by us and not by the client, in `body`.
    hide_usage: bool,
    path: String,
    headers: &'static [(&'static str, &'static str)],
    ask: Ask,
    stream: bool,
    answer: Answer,
    failed: bool,
}

enum Answer {
    None,
    Stream(Box<StreamTranslator>),
    Whole {
        body: Vec<u8>,
        /// Why the body is not kept.
        unusable: Option<&'static str>,
    },
}

impl Translation {
    fn of(request: &Request, context: &Context) -> Option<Translation> {
        let args = request.args();
        Some(Translation {
            pair: None,
            body: request.body_text()?,
            args: request.text(args.len(), |write| write(args))?,
            quoted: request.is_quoted(),
            client_lines: Vec::new(),
            hide_usage: context.hide_usage,
            path: String::new(),
            headers: &[],
            ask: Ask::default(),
            stream: false,
            answer: Answer::None,
            failed: false,
        })
    }

    /// Where the current attempt goes below the provider's base, if it is a translated one.
    pub(super) fn path(&self) -> Option<&str> {
        self.pair.map(|_| self.path.as_str())
    }

    /// Whether the current attempt is a translated one.
    pub(super) fn is_active(&self) -> bool {
        self.pair.is_some()
    }

    /// The request in the client's protocol.
    pub(super) fn original(&self) -> &[u8] {
        self.body.bytes()
    }

    /// Whether an answer came that could not be passed on.
    pub(super) fn has_failed(&self) -> bool {
        self.failed
    }

    /// Header lines for this attempt beside the usual ones.
    pub(super) fn write_lines(&self, write: &mut dyn FnMut(&[u8])) {
        if self.pair.is_none() {
            return write(&self.client_lines);
        }
        for (name, value) in self.headers {
            for piece in ["\r\n", name, ": ", value] {
                write(piece.as_bytes());
            }
        }
    }

    fn hide_client_lines(&mut self, request: &mut Request) {
        for header in request.headers().filter(|h| belongs_to_protocol(h.name)) {
            for piece in [&b"\r\n"[..], header.name, b": ", header.value] {
                self.client_lines.extend_from_slice(piece);
            }
        }
        request.hide_headers(belongs_to_protocol);
    }
}

impl Context {
    /// The translation of the current attempt.
    pub(super) fn translated(&mut self) -> Option<(&mut Translation, Pair)> {
        let translation = self.translation.as_deref_mut()?;
        let pair = translation.pair?;
        Some((translation, pair))
    }
}

/// Puts the request into the deployment's protocol. The request stays as it was if that cannot be.
pub(super) fn there(
    request: &mut Request,
    context: &mut Context,
    pair: Pair,
    deployment: u32,
) -> Result<(), Misfit> {
    let generation = std::rc::Rc::clone(&context.generation);
    let deployment = generation
        .snapshot()
        .deployment(deployment)
        .ok_or("the deployment is gone")?;
    let model = context.model_view().ok_or("the model is gone")?;
    let options = Options {
        max_tokens: context.output_limit,
        default_max_tokens: model.default_max_tokens().min(model.max_output_tokens()),
        ..Options::new(deployment.upstream_model())
    };
    if context.translation.is_none() {
        let translation = Translation::of(request, context).ok_or("the request's body cannot be kept")?;
        context.translation = Some(Box::new(translation));
    }
    let Some(translation) = context.translation.as_deref_mut() else {
        return Err("no translation".into());
    };
    let made = translate_request(pair, translation.original(), &options).map_err(Misfit::Refused)?;
    request.replace_body(&made.body).ok_or("out of memory")?;
    translation.hide_client_lines(request);
    translation.pair = Some(pair);
    translation.path = made.path;
    translation.headers = made.headers;
    translation.ask = Ask {
        include_usage: made.ask.include_usage && !translation.hide_usage,
        ..made.ask
    };
    translation.stream = made.stream;
    translation.answer = Answer::None;
    context.upstream_api = upstream_api(pair);
    // The translator gives out usage as the client asked.
    context.hide_usage = false;
    Ok(())
}

/// Gives the request the client's own body and arguments back, for an attempt that is not translated.
pub(super) fn undo(request: &mut Request, context: &mut Context) -> Option<()> {
    let Some(translation) = context.translation.as_deref_mut() else {
        return Some(());
    };
    if translation.pair.take().is_some() {
        request.install_body(&translation.body)?;
        request.set_args(translation.args.bytes())?;
        request.set_quoted(translation.quoted);
    }
    context.hide_usage = translation.hide_usage;
    context.upstream_api = context.api;
    Some(())
}

/// Where a translated request goes: its path below the provider's base. A base that names a version has the last word.
pub(super) fn target(prefix: &str, path: &str) -> String {
    let versioned = prefix.rsplit('/').next().is_some_and(is_version);
    let rest = path
        .strip_prefix('/')
        .filter(|_| versioned)
        .and_then(|p| p.find('/').map(|end| p.split_at(end)))
        .filter(|(first, _)| is_version(first))
        .map_or(path, |(_, rest)| rest);
    format!("{prefix}{rest}")
}

fn is_version(segment: &str) -> bool {
    segment
        .strip_prefix('v')
        .is_some_and(|v| v.starts_with(|c: char| c.is_ascii_digit()))
}

fn answer_context(id: &str, ask: Ask) -> AnswerContext {
    AnswerContext {
        id: id.to_owned(),
        model: None,
        created: now_unix().unsigned_abs(),
        ask,
    }
}

/// The head of a translated attempt's answer is there. `None`: the attempt is not translated.
pub(super) fn started(context: &mut Context, status: u16, is_stream: bool, encoded: bool) -> Option<Mode> {
    let id = context.request_id().to_owned();
    let (translation, pair) = context.translated()?;
    let success = (200..300).contains(&status);
    if success && !encoded && is_stream && translation.stream {
        let made = StreamTranslator::new(pair, answer_context(&id, translation.ask));
        translation.answer = Answer::Stream(Box::new(made));
        context.response = Response::Sse(Box::default());
        return Some(Mode::Sse);
    }
    translation.answer = Answer::Whole {
        body: Vec::new(),
        unusable: encoded.then_some("the deployment's answer is compressed and cannot be translated"),
    };
    context.response = match (success, encoded) {
        (false, _) => Response::Opaque,
        (true, true) => Response::Unread {
            bytes: 0,
            encoded: true,
        },
        (true, false) => Response::Json(Box::default()),
    };
    Some(Mode::Whole)
}

/// Keeps a piece of a whole answer; false if there is too much of it.
pub(super) fn keep(context: &mut Context, bytes: &[u8]) -> bool {
    let Some((
        Translation {
            answer: Answer::Whole { body, unusable },
            ..
        },
        _,
    )) = context.translated()
    else {
        return true;
    };
    if unusable.is_none() && body.len().saturating_add(bytes.len()) > MAX_ANSWER {
        *unusable = Some("the deployment's answer is longer than 16 MiB");
        *body = Vec::new();
        return false;
    }
    if unusable.is_none() {
        body.extend_from_slice(bytes);
    }
    true
}

/// The whole answer for the client: status and body. `broken`: the upstream broke off.
pub(crate) fn whole_answer(context: &mut Context, broken: bool) -> (u16, Vec<u8>) {
    let id = context.request_id().to_owned();
    let status = context.upstream_status;
    let Some((translation, pair)) = context.translated() else {
        return (502, Vec::new());
    };
    let Answer::Whole { body, unusable } = std::mem::replace(&mut translation.answer, Answer::None) else {
        return (502, Vec::new());
    };
    let success = (200..300).contains(&status);
    let unusable = unusable.or(broken.then_some("the upstream broke off its answer"));
    let answer = match unusable {
        Some(message) if success => {
            let code = Some("upstream_error");
            let body = error_body(pair.client(), ErrorKind::BadUpstream, code, message, None);
            return {
                translation.failed = true;
                (502, body)
            };
        }
        // What cannot be read of an error is left out: its status says enough.
        Some(_) => translate_response(pair, status, b"", &answer_context(&id, translation.ask)),
        None => translate_response(pair, status, &body, &answer_context(&id, translation.ask)),
    };
    translation.failed = success && answer.status >= 300;
    (answer.status, answer.body)
}

/// Turns what would go on of a chunk into the client's events.
pub(super) fn translate_plan(context: &mut Context, chunk: &[u8], plan: &mut Plan) {
    let ended = context.ended;
    let Some((translation, _)) = context.translated() else {
        return;
    };
    let Answer::Stream(stream) = &mut translation.answer else {
        return;
    };
    let mut out = Vec::new();
    for piece in plan.pieces.drain(..) {
        match piece {
            Piece::Range(range) => stream.push(chunk.get(range).unwrap_or_default(), &mut out),
            Piece::Owned(bytes) => stream.push(&bytes, &mut out),
        }
    }
    if plan.cut {
        stream.end(&mut out);
    } else if stream.ended() && !ended {
        // The client has got an error event: what else may come is of no use to it.
        translation.failed = true;
        plan.cut = true;
    }
    if !out.is_empty() {
        plan.pieces.push(Piece::Owned(out));
    }
}

/// The upstream's stream is over: its rest and what the client's protocol ends with. `None`: not translated.
pub(super) fn stream_end(context: &mut Context, rest: Option<&[u8]>) -> Option<Vec<u8>> {
    let (translation, _) = context.translated()?;
    let Answer::Stream(stream) = &mut translation.answer else {
        return None;
    };
    let mut out = Vec::new();
    stream.push(rest.unwrap_or_default(), &mut out);
    stream.end(&mut out);
    Some(out)
}

/// The upstream died in mid-stream: the client's error event. `None`: not translated.
pub(super) fn stream_broken(context: &mut Context, code: &str, message: &str) -> Option<Vec<u8>> {
    let kind = if context.stopped {
        ErrorKind::Overloaded
    } else {
        ErrorKind::BadUpstream
    };
    let (translation, _) = context.translated()?;
    let Answer::Stream(stream) = &mut translation.answer else {
        return None;
    };
    let mut out = Vec::new();
    stream.abort(kind, code, message, &mut out);
    Some(out)
}
