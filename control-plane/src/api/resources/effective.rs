//! What a channel comes to with its templates, and where each value was written.

use std::collections::HashMap;
use std::sync::Arc;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use tollgate_policy::documents::Enforcement;
use tollgate_policy::{ChannelOrigins, Documents, Kind, Origin, Problem, Source};

use super::index::Index;
use super::list::{missing, visible};
use super::sort::Sort;
use super::write::sent;
use crate::accounts::Principal;
use crate::api::error::FieldProblem;
use crate::api::{ApiError, AppState};
use crate::config::DocumentSet;

/// The name of the document that the channel alone stands in while it is looked at.
const ALONE: &str = "tollgate.channels.json";

/// A limit as it was written.
#[derive(Debug, Serialize, JsonSchema)]
struct WrittenLimit {
    /// The limit; what of it is not valid stands there as it was written.
    value: Value,
    /// Where it was written.
    origin: Origin,
}

/// A limit that applies to a channel.
#[derive(Debug, Serialize, JsonSchema)]
struct EffectiveLimit {
    /// What it is called.
    name: String,
    /// The limit as it was written.
    value: Value,
    /// Strict or soft, after all defaults.
    enforcement: Enforcement,
    /// Where it was written.
    origin: Origin,
    /// Inherited limits that it replaces, the nearest first.
    replaces: Vec<WrittenLimit>,
}

/// What a channel comes to.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::api) struct Effective {
    #[serde(flatten)]
    channel: Channel,
    /// Its limits.
    limits: Vec<EffectiveLimit>,
    /// Limits over everything, which its requests meet too.
    global_limits: Vec<WrittenLimit>,
}

/// What a channel comes to, without its limits.
#[derive(Debug, Serialize, JsonSchema)]
struct Channel {
    code: String,
    /// Templates that it extends, the nearest first.
    chain: Vec<String>,
    enabled: bool,
    allow: tollgate_policy::Valued<Option<Vec<String>>>,
    deny: Vec<tollgate_policy::Valued<String>>,
    tags: Vec<tollgate_policy::Valued<String>>,
    abort_policy: tollgate_policy::Valued<tollgate_policy::documents::AbortPolicy>,
    enforcement: tollgate_policy::Valued<Enforcement>,
}

/// Where the channel really stands.
struct Place {
    document: Option<String>,
    index: usize,
}

/// The value at a place such as `templates[1].limits[0]`.
fn at<'v>(value: &'v Value, path: &str) -> Option<&'v Value> {
    path.split(['.', '['])
        .try_fold(value, |value, step| match step.strip_suffix(']') {
            Some(index) => value.get(index.parse::<usize>().ok()?),
            None => value.get(step),
        })
}

struct Texts(HashMap<String, Value>);

impl Texts {
    fn written(&self, origin: &Origin) -> Value {
        let found = || at(self.0.get(origin.document.as_deref()?)?, origin.path.as_deref()?).cloned();
        found().unwrap_or_default()
    }
}

/// The origin with the channel's real place.
fn placed(mut origin: Origin, place: &Place) -> Origin {
    if origin.kind == Source::Channel {
        origin.document.clone_from(&place.document);
        let real = format!("channels[{}]", place.index);
        origin.path = origin.path.map(|path| path.replacen("channels[0]", &real, 1));
    }
    origin
}

fn worked_out(set: &DocumentSet, code: &str, channel: &[u8], place: &Place) -> Result<Effective, ApiError> {
    let alone = [b"{\"channels\":[", channel, b"]}"].concat();
    let mut files: Vec<(String, &[u8])> = vec![(ALONE.to_owned(), &alone)];
    let others = set
        .documents
        .iter()
        .filter(|d| matches!(d.kind(), Some(Kind::Templates | Kind::Settings)));
    files.extend(others.map(|d| (d.name.clone(), &*d.bytes)));
    let (documents, problems) = Documents::parse(&files);
    let of_channel = |p: &&Problem| p.document == ALONE && p.is_error();
    let found = documents.channel_origins(code).ok_or_else(|| {
        let told = problems.iter().filter(of_channel).map(|p| FieldProblem {
            field: p
                .path
                .strip_prefix("channels[0]")
                .map(|f| f.trim_start_matches('.').to_owned()),
            ..FieldProblem::of(p)
        });
        ApiError::invalid_fields(told.collect())
    })?;
    let parsed = files
        .iter()
        .filter_map(|(name, bytes)| Some((name.clone(), serde_json::from_slice(bytes).ok()?)));
    let texts = Texts(parsed.collect());
    let written = |origin: Origin| WrittenLimit {
        value: texts.written(&origin),
        origin: placed(origin, place),
    };
    let settings = documents.settings.as_ref();
    let global = settings.into_iter().flat_map(|s| {
        (0..s.value.limits.len()).map(|n| Origin {
            kind: Source::Settings,
            name: None,
            document: Some(s.at.document.to_string()),
            path: Some(s.at.path(&format!("limits[{n}]"))),
        })
    });
    let global_limits = global.map(written).collect();
    let ChannelOrigins {
        code,
        chain,
        enabled,
        allow,
        deny,
        tags,
        abort_policy,
        limits,
        enforcement,
    } = found;
    let limits = limits
        .into_iter()
        .map(|l| EffectiveLimit {
            name: l.name,
            enforcement: l.enforcement,
            value: texts.written(&l.origin),
            origin: placed(l.origin, place),
            replaces: l.replaces.into_iter().map(written).collect(),
        })
        .collect();
    let put = |mut v: tollgate_policy::Valued<String>| {
        v.origin = placed(v.origin, place);
        v
    };
    macro_rules! put_one {
        ($valued:expr) => {
            tollgate_policy::Valued {
                value: $valued.value,
                origin: placed($valued.origin, place),
            }
        };
    }
    let channel = Channel {
        code,
        chain,
        enabled,
        allow: put_one!(allow),
        deny: deny.into_iter().map(put).collect(),
        tags: tags.into_iter().map(put).collect(),
        abort_policy: put_one!(abort_policy),
        enforcement: put_one!(enforcement),
    };
    Ok(Effective {
        channel,
        limits,
        global_limits,
    })
}

/// What a channel comes to.
pub(in crate::api) async fn effective(
    state: AppState,
    who: Principal,
    code: String,
) -> Result<Effective, ApiError> {
    let sort = Sort::CHANNELS;
    visible(&sort, &who, &code)?;
    let set = Arc::clone(&state.status().documents);
    tokio::task::spawn_blocking(move || {
        let index: Arc<Index> = state.indexes.of(&set, &sort);
        let entry = index.get(&code).ok_or_else(|| missing(&sort, &code))?;
        let place = Place {
            document: index.document(entry).map(|d| d.name.clone()),
            index: entry.index,
        };
        worked_out(&set, &code, index.text(entry), &place)
    })
    .await?
}

/// What a channel would come to that is not written yet.
pub(in crate::api) async fn preview(
    state: AppState,
    who: Principal,
    body: &[u8],
) -> Result<Effective, ApiError> {
    let sort = Sort::CHANNELS;
    let sent = sent(body)?;
    let code = sent.text(sort.id).unwrap_or_default().to_owned();
    if code.is_empty() {
        return Err(ApiError::invalid_fields(vec![FieldProblem::at(
            sort.id,
            "must be a text",
        )]));
    }
    visible(&sort, &who, &code)?;
    let set = Arc::clone(&state.status().documents);
    let body = body.to_vec();
    let place = Place {
        document: None,
        index: 0,
    };
    tokio::task::spawn_blocking(move || worked_out(&set, &code, &body, &place)).await?
}
