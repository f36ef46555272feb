//! Who is calling: from the request's head alone, so that a stranger's body is never read.

use std::borrow::Cow;

use sha2::{Digest, Sha256};
use tollgate_meter::Api;
use tollgate_policy::ChannelView;
use tollgate_policy::snapshot::SourceView;
use tollgate_shm::Class;

use super::context::{Charged, Context, Stage};
use super::facts;
use super::gemini::{self, GeminiRequest};
use super::reply::{ErrorKind, Reply};
use super::response::Response;
use super::worker::{Generation, WorkerState};
use crate::ngx::process;
use crate::ngx::request::{Header, PoolText, Request};

/// What one walk over the header lines finds.
#[derive(Default)]
struct Found<'a> {
    key: Option<Cow<'a, [u8]>>,
    anthropic: bool,
    request_id: Option<&'a [u8]>,
    has_request_id: bool,
    traceparent: Option<&'a [u8]>,
    has_traceparent: bool,
    upgrade: bool,
}

/// Why a caller was not let in.
enum Stranger {
    NoChannel,
    Unknown,
    Disabled,
    NoKey,
    BadKey,
}

/// Starts a request: finds its channel and checks the key. `Err` means that there is no configuration to decide by;
/// a refusal stands in the context's `reply`.
pub(crate) fn begin(w: &mut WorkerState, request: &Request) -> Result<Context, Reply> {
    let now = process::now_ms();
    let mut api = Api::from_path(std::str::from_utf8(request.path()).unwrap_or_default());
    let Some(generation) = w.current(now) else {
        let message = "the gateway has no configuration yet; the daemon `tollgate serve` publishes one";
        return Err(
            Reply::error(api, 503, ErrorKind::Unavailable, "no_configuration", message, "")
                .header(b"Retry-After", "1".to_owned()),
        );
    };
    let id_number = [w.random(), w.random()];
    let mut found = Found::default();
    for header in request.headers() {
        match header.name {
            b"authorization" | b"x-api-key" | b"api-key" | b"x-goog-api-key" => {
                found.key = found.key.or_else(|| key_in(&header).map(Cow::Borrowed));
            }
            b"anthropic-version" => found.anthropic = true,
            // The client's is passed on if it is the only one and fit.
            b"x-request-id" => {
                let first = !std::mem::replace(&mut found.has_request_id, true);
                found.request_id = Some(header.value).filter(|id| first && is_plain_id(id));
            }
            b"upgrade" if header.value.eq_ignore_ascii_case(b"websocket") => found.upgrade = true,
            b"traceparent" => {
                let first = !std::mem::replace(&mut found.has_traceparent, true);
                found.traceparent = Some(header.value).filter(|value| first && is_traceparent(value));
            }
            _ => {}
        }
    }
    if api == Api::Models && found.anthropic {
        api = Api::AnthropicModels;
    } else if api == Api::Models && request.header(b"x-goog-api-key").is_some() {
        api = Api::GeminiModels;
    }
    found.key = found.key.or_else(|| key_in_query(request, api));
    let mut request_id = hex(id_number);
    if let Some(given) = found.request_id
        && let Some(slot) = request_id.get_mut(..given.len())
    {
        slot.copy_from_slice(given);
    }

    let result = identify(&generation, request, &found);
    let (channel, stranger) = match result {
        Ok(channel) => (Some(channel), None),
        Err(stranger) => (None, Some(stranger)),
    };
    let upgrade = found.upgrade;
    let traceparent = found
        .traceparent
        .and_then(|given| given.try_into().ok())
        .unwrap_or_else(|| traceparent(id_number));

    let mut context = Context {
        stage: Stage::Identified,
        api,
        upstream_api: api,
        stream: false,
        hide_usage: false,
        input_exact: false,
        proxied: false,
        settled: false,
        ended: false,
        cut: false,
        overdue: false,
        stopped: false,
        degraded: None,
        output_bounded: false,
        attempts: 0,
        class: Class::Internal,
        channel,
        model: None,
        first_model: None,
        fallbacks: 0,
        tried: [0; 4],
        version: None,
        pinned: None,
        route: None,
        group: None,
        session: None,
        most_attempts: 1,
        affinity: None,
        quota: None,
        quota_retry_ms: None,
        attempt_ms: 0,
        attempt_status: 0,
        attempt_failure: None,
        deployment: None,
        usage: None,
        grant: None,
        answers: 1,
        input: 0,
        output_limit: None,
        request_id,
        id_number,
        traceparent,
        start_ms: now,
        first_byte_ms: None,
        deadline_ms: 0,
        upgrade,
        upstream_status: 0,
        limit_key: 0,
        limit: None,
        rule: None,
        remarks: None,
        original_path: None,
        upstream: None,
        log_level: 0,
        credential: 0,
        upstream_head: PoolText::EMPTY,
        reply: None,
        translation: None,
        gemini: None,
        short_since_ms: None,
        running: None,
        undecided: None,
        response: Response::Opaque,
        charged: Charged::default(),
        output: Default::default(),
        generation,
    };
    if api.is_gemini() {
        context.gemini = GeminiRequest::of(request).map(Box::new);
    }
    if let Some((message, retry_after_s)) = context.generation.maintenance() {
        let (id, kind) = (context.request_id(), ErrorKind::Unavailable);
        let reply = Reply::error(context.api, 503, kind, "maintenance", message, id)
            .header(b"Retry-After", retry_after_s.to_string());
        context.reply = Some(Box::new(context.refuse(Class::Rule, reply)));
        return Ok(context);
    }
    if let Some(stranger) = stranger
        && !(matches!(stranger, Stranger::NoChannel) && channel_may_stand_in_body(&context.generation))
    {
        let reply = refusal(&context, &stranger);
        context.reply = Some(Box::new(context.refuse(Class::Client, reply)));
    }
    Ok(context)
}

fn channel_may_stand_in_body(generation: &Generation) -> bool {
    generation
        .snapshot()
        .settings()
        .channel_sources()
        .any(|s| matches!(s, SourceView::Body(_)))
}

fn refusal(context: &Context, stranger: &Stranger) -> Reply {
    let (status, kind, code, message) = match stranger {
        Stranger::NoChannel => (
            401,
            ErrorKind::Authentication,
            "channel_required",
            "the request names no channel and carries no API key",
        ),
        Stranger::Unknown => (
            401,
            ErrorKind::Authentication,
            "unknown_channel",
            "no such channel",
        ),
        Stranger::Disabled => (
            403,
            ErrorKind::Permission,
            "channel_disabled",
            "the channel is disabled",
        ),
        Stranger::NoKey => (
            401,
            ErrorKind::Authentication,
            "api_key_required",
            "the channel needs an API key",
        ),
        Stranger::BadKey => (
            401,
            ErrorKind::Authentication,
            "invalid_api_key",
            "the API key is not valid for the channel",
        ),
    };
    Reply::error(context.api, status, kind, code, message, context.request_id())
}

/// The channel by the configured sources, in their order.
fn identify(generation: &Generation, request: &Request, found: &Found<'_>) -> Result<u32, Stranger> {
    let snapshot = generation.snapshot();
    // Made at most once, and only if some source or channel asks for it.
    let cell = std::cell::OnceCell::new();
    let digest = || {
        cell.get_or_init(|| {
            found
                .key
                .as_deref()
                .map(|key| <[u8; 32]>::from(Sha256::digest(key)))
        })
        .as_ref()
    };
    for source in snapshot.settings().channel_sources() {
        let code: Option<Cow<'_, [u8]>> = match source {
            SourceView::Header(name) => request
                .headers()
                .find(|h| h.name.eq_ignore_ascii_case(name.as_bytes()))
                .map(|h| Cow::Borrowed(h.value)),
            SourceView::Query(name) => {
                facts::query(request.args(), name).map(|v| Cow::Owned(v.into_owned().into_bytes()))
            }
            SourceView::Cookie(name) => request
                .header(b"cookie")
                .and_then(|c| facts::cookie(c, name))
                .map(Cow::Borrowed),
            SourceView::Body(_) => None,
            SourceView::ApiKey => {
                if let Some((channel, key)) = digest().and_then(|d| snapshot.channel_by_key(d)) {
                    return check(&channel, Some(key.valid_at(now_unix())));
                }
                None
            }
        };
        if let Some(code) = code.filter(|c| !c.is_empty()) {
            let channel = snapshot.channel_by_code(&code).ok_or(Stranger::Unknown)?;
            return admit(&channel, digest);
        }
    }
    // The body may still name a channel that the key belongs to.
    Err(if found.key.is_some() && !channel_may_stand_in_body(generation) {
        Stranger::BadKey
    } else {
        Stranger::NoChannel
    })
}

/// Checks a channel that was found by its code: a code alone proves nothing unless the channel is trusted.
fn admit<'d>(
    channel: &ChannelView<'_>,
    digest: impl FnOnce() -> Option<&'d [u8; 32]>,
) -> Result<u32, Stranger> {
    if channel.keys().len() == 0 && channel.trusted() {
        return check(channel, None);
    }
    let digest = digest().ok_or(Stranger::NoKey)?;
    let valid = channel
        .find_key(digest)
        .is_some_and(|key| key.valid_at(now_unix()));
    check(channel, Some(valid))
}

fn check(channel: &ChannelView<'_>, key: Option<bool>) -> Result<u32, Stranger> {
    if key == Some(false) {
        return Err(Stranger::BadKey);
    }
    if channel.enabled() {
        Ok(channel.index())
    } else {
        Err(Stranger::Disabled)
    }
}

/// The client's key in a header line, if it is one that carries keys.
fn key_in<'a>(header: &Header<'a>) -> Option<&'a [u8]> {
    match header.name {
        b"authorization" => strip_bearer(header.value),
        b"x-api-key" | b"api-key" | b"x-goog-api-key" => Some(header.value),
        _ => None,
    }
}

/// The client's key in the query, where the API has a place for it there.
fn key_in_query<'a>(request: &'a Request, api: Api) -> Option<Cow<'a, [u8]>> {
    if !api.is_gemini() {
        return None;
    }
    let key = facts::query(request.args(), gemini::KEY)?
        .into_owned()
        .into_bytes();
    (!key.is_empty()).then_some(Cow::Owned(key))
}

/// The channel that a body field names, for configurations with such a source.
pub(super) fn from_body(context: &Context, request: &Request, code: &str) -> Result<u32, Reply> {
    let digest = request
        .headers()
        .find_map(|header| key_in(&header))
        .map(Cow::Borrowed)
        .or_else(|| key_in_query(request, context.api))
        .map(|key| <[u8; 32]>::from(Sha256::digest(key)));
    let snapshot = context.generation.snapshot();
    let found = snapshot
        .channel_by_code(code.as_bytes())
        .ok_or(Stranger::Unknown)
        .and_then(|c| admit(&c, || digest.as_ref()));
    found.map_err(|stranger| refusal(context, &stranger))
}

pub(super) fn no_channel(context: &Context) -> Reply {
    refusal(context, &Stranger::NoChannel)
}

pub(super) fn now_unix() -> i64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |d| d.as_secs() as i64)
}

fn strip_bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(7)?;
    scheme.eq_ignore_ascii_case(b"bearer ").then(|| rest.trim_ascii())
}

/// A client's own request id is passed on when it is exactly as long as ours and harmless.
fn is_plain_id(value: &[u8]) -> bool {
    value.len() == 32
        && value
            .iter()
            .all(|b| b.is_ascii_alphanumeric() || *b == b'-' || *b == b'_')
}

/// W3C Trace Context, version 00: `00-<32 hex>-<16 hex>-<2 hex>`.
fn is_traceparent(value: &[u8]) -> bool {
    value.len() == 55
        && value.iter().enumerate().all(|(i, b)| match i {
            2 | 35 | 52 => *b == b'-',
            _ => b.is_ascii_digit() || (b'a'..=b'f').contains(b),
        })
}

fn hex(words: [u64; 2]) -> [u8; 32] {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digit = |byte: u8, shift: u32| {
        DIGITS
            .get(usize::from(byte >> shift & 15))
            .copied()
            .unwrap_or(b'0')
    };
    let mut out = [0; 32];
    let bytes = words.map(u64::to_be_bytes);
    for (pair, byte) in out.as_chunks_mut::<2>().0.iter_mut().zip(bytes.as_flattened()) {
        *pair = [digit(*byte, 4), digit(*byte, 0)];
    }
    out
}

fn traceparent(id: [u64; 2]) -> [u8; 55] {
    let mut out = *b"00-00000000000000000000000000000000-0000000000000000-01";
    let [_, low] = id;
    // The span is derived from the id: one request, one span of ours.
    let span = hex([low.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1, 0]);
    if let Some(slot) = out.get_mut(3..35) {
        slot.copy_from_slice(&hex(id));
    }
    if let (Some(slot), Some(span)) = (out.get_mut(36..52), span.get(..16)) {
        slot.copy_from_slice(span);
    }
    out
}
