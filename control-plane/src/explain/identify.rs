//! Who is calling, as the module's gate finds it out.

use sha2::{Digest, Sha256};
use tollgate_meter::Api;
use tollgate_meter::request::{FieldPath, RequestFacts, Scalar, scan};
use tollgate_policy::snapshot::SourceView;
use tollgate_policy::{ChannelView, Snapshot};

use super::{ExplainRequest, ExplainedChannel};

/// Why a caller is not let in: status, code, message.
pub(super) type Stranger = (u16, &'static str, &'static str);

const NO_CHANNEL: Stranger = (
    401,
    "channel_required",
    "the request names no channel and carries no API key",
);
const UNKNOWN: Stranger = (401, "unknown_channel", "no such channel");
const DISABLED: Stranger = (403, "channel_disabled", "the channel is disabled");
const NO_KEY: Stranger = (401, "api_key_required", "the channel needs an API key");
const BAD_KEY: Stranger = (401, "invalid_api_key", "the API key is not valid for the channel");

/// The key that a request carries.
fn key(request: &ExplainRequest, api: Api) -> Option<String> {
    let bearer = request.header("authorization").and_then(|value| {
        let (scheme, rest) = value.split_at_checked(7)?;
        scheme.eq_ignore_ascii_case("bearer ").then(|| rest.trim())
    });
    bearer
        .or_else(|| request.header("x-api-key"))
        .or_else(|| request.header("api-key"))
        .or_else(|| request.header("x-goog-api-key"))
        .map(str::to_owned)
        .or_else(|| request.query("key").filter(|_| api.is_gemini()))
}

fn body_field(request: &ExplainRequest, api: Api, path: &str) -> Option<String> {
    let mut facts = RequestFacts::new();
    let path = FieldPath::parse(path).ok()?;
    scan(&request.body_bytes(), api, &[path], &mut facts).ok()?;
    match facts.wanted.first() {
        Some(Some(Scalar::String(text))) => Some(text.clone()),
        _ => None,
    }
}

/// Finds the channel by the configured sources, in their order, and checks the key.
pub(super) fn identify<'a>(
    snapshot: &Snapshot<'a>,
    request: &ExplainRequest,
    api: Api,
    shown: &mut ExplainedChannel,
) -> Result<ChannelView<'a>, Stranger> {
    let digest = key(request, api).map(|k| <[u8; 32]>::from(Sha256::digest(k)));
    let now = request.unix_seconds();
    for source in snapshot.settings().channel_sources() {
        let (code, name) = match source {
            SourceView::Header(n) => (request.header(n).map(str::to_owned), format!("header {n}")),
            SourceView::Query(n) => (request.query(n), format!("query {n}")),
            SourceView::Cookie(n) => (request.cookie(n).map(str::to_owned), format!("cookie {n}")),
            SourceView::Body(n) => (body_field(request, api, n), format!("body {n}")),
            SourceView::ApiKey => {
                if let Some((channel, key)) = digest.as_ref().and_then(|d| snapshot.channel_by_key(d)) {
                    show(shown, &channel, "API key");
                    if !key.valid_at(now) {
                        return Err(BAD_KEY);
                    }
                    shown.key = Some(key.id().to_owned());
                    return enabled(channel);
                }
                continue;
            }
        };
        let Some(code) = code.filter(|c| !c.is_empty()) else {
            continue;
        };
        shown.source = Some(name.clone());
        let channel = snapshot.channel_by_code(code.as_bytes()).ok_or(UNKNOWN)?;
        show(shown, &channel, &name);
        if channel.keys().len() == 0 && channel.trusted() {
            return enabled(channel);
        }
        // What a body says is read only after the head, where keys are looked at no more.
        let digest = digest
            .filter(|_| !matches!(source, SourceView::Body(_)))
            .ok_or(NO_KEY)?;
        let key = channel
            .find_key(&digest)
            .filter(|k| k.valid_at(now))
            .ok_or(BAD_KEY)?;
        shown.key = Some(key.id().to_owned());
        return enabled(channel);
    }
    Err(if digest.is_some() { BAD_KEY } else { NO_CHANNEL })
}

fn show(shown: &mut ExplainedChannel, channel: &ChannelView<'_>, source: &str) {
    shown.code = Some(channel.code().to_owned());
    shown.source = Some(source.to_owned());
}

fn enabled(channel: ChannelView<'_>) -> Result<ChannelView<'_>, Stranger> {
    if channel.enabled() {
        Ok(channel)
    } else {
        Err(DISABLED)
    }
}
