//! Keys of channels: made here, shown once, kept as digests.

use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};
use tollgate_policy::Span;

use super::list::visible;
use super::ordered::Json;
use super::plan::{Job, Known};
use super::sort::Sort;
use super::write::run;
use crate::accounts::{Principal, random_text};
use crate::api::error::FieldProblem;
use crate::api::guard::Trail;
use crate::api::{ApiError, AppState};

/// How a key begins, so that scanners of leaked secrets find it.
const PREFIX: &str = "tgk_";

/// A key that is asked for.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct NewKey {
    /// What it is called; `key1`, `key2`, … by default.
    id: Option<String>,
    /// When it expires, RFC 3339.
    expires_at: Option<String>,
}

/// A key that is to replace another.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct Rotation {
    /// What the new one is called.
    id: Option<String>,
    /// How long the old one stays good, `24h`; not at all by default.
    grace: Option<String>,
    /// When the new one expires, RFC 3339.
    expires_at: Option<String>,
}

/// A key that was made.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::api) struct MadeKey {
    /// What it is called.
    id: String,
    /// The key itself; nobody can show it again.
    key: String,
    /// The channel's new version.
    etag: Option<String>,
    /// Whether it is in force already.
    in_force: bool,
    /// Generation in force.
    generation: u64,
}

fn text(text: impl Into<String>) -> Json {
    Json::Scalar(Value::String(text.into()))
}

fn keys_of(channel: &mut Json) -> Result<&mut Vec<Json>, ApiError> {
    match channel.entry("keys", Json::Array(Vec::new())) {
        Some(Json::Array(keys)) => Ok(keys),
        _ => Err(ApiError::conflict("the channel's `keys` are no list")),
    }
}

fn is(key: &Json, id: &str) -> bool {
    key.text("id") == Some(id)
}

fn fresh_id(keys: &[Json]) -> String {
    let taken = |id: &str| keys.iter().any(|k| is(k, id));
    (1..)
        .map(|n| format!("key{n}"))
        .find(|id| !taken(id))
        .unwrap_or_default()
}

/// The instant so many milliseconds from now, RFC 3339.
fn from_now(ms: u64) -> Result<String, ApiError> {
    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default();
    let seconds = now.as_secs().saturating_add(ms / 1_000);
    Ok(rfc3339(seconds))
}

/// Unix seconds as RFC 3339, by the civil calendar (Howard Hinnant's `civil_from_days`).
fn rfc3339(seconds: u64) -> String {
    let (days, second) = (seconds / 86_400, seconds % 86_400);
    let z = days + 719_468;
    let (era, of_era) = (z / 146_097, z % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let day = of_era - (365 * year + year / 4 - year / 100);
    let m = (5 * day + 2) / 153;
    let (day, month) = (day - (153 * m + 2) / 5 + 1, if m < 10 { m + 3 } else { m - 9 });
    let year = year + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (second / 3_600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

struct Made {
    key: String,
    sha256: String,
}

fn make() -> Result<Made, ApiError> {
    let key = format!("{PREFIX}{}", random_text(32)?);
    let sha256 = Sha256::digest(&key).iter().map(|b| format!("{b:02x}")).collect();
    Ok(Made { key, sha256 })
}

fn entry(id: &str, made: &Made, expires_at: Option<&String>) -> Json {
    let mut fields = vec![
        ("id".to_owned(), text(id)),
        ("sha256".to_owned(), text(made.sha256.clone())),
    ];
    fields.extend(expires_at.map(|at| ("expires_at".to_owned(), text(at.clone()))));
    Json::Object(fields)
}

type Context = (AppState, Principal, Trail);
type Change = Box<dyn Fn(&mut Vec<Json>) -> Result<(), ApiError> + Send + Sync>;

async fn change(
    (state, who, trail): &Context,
    code: String,
    change: Change,
) -> Result<super::Written, ApiError> {
    let sort = Sort::CHANNELS;
    visible(&sort, who, &code)?;
    let edit = Box::new(move |present: Option<&Json>| {
        let mut channel = present.cloned().unwrap_or(Json::Object(Vec::new()));
        change(keys_of(&mut channel)?)?;
        Ok(Some(channel))
    });
    run(
        state,
        trail,
        Job {
            sort,
            id: code,
            known: Known::Present,
            document: None,
            edit,
            dry_run: false,
        },
    )
    .await
}

/// Makes a key for a channel.
pub(in crate::api) async fn make_key(
    context: Context,
    code: String,
    wanted: NewKey,
) -> Result<(StatusCode, axum::Json<MadeKey>), ApiError> {
    add(context, code, None, wanted.id, None, wanted.expires_at).await
}

/// Makes a key in place of another one.
pub(in crate::api) async fn rotate_key(
    context: Context,
    code: String,
    old: String,
    wanted: Rotation,
) -> Result<(StatusCode, axum::Json<MadeKey>), ApiError> {
    let grace = wanted.grace.as_deref().map(Span::parse).transpose();
    let grace = grace.map_err(|reason| ApiError::invalid_fields(vec![FieldProblem::at("grace", reason)]))?;
    let until = from_now(grace.map_or(0, |g| g.as_millis()))?;
    add(
        context,
        code,
        Some(old),
        wanted.id,
        Some(until),
        wanted.expires_at,
    )
    .await
}

async fn add(
    context: Context,
    code: String,
    old: Option<String>,
    id: Option<String>,
    until: Option<String>,
    expires_at: Option<String>,
) -> Result<(StatusCode, axum::Json<MadeKey>), ApiError> {
    let made = make()?;
    let (sha256, key) = (made.sha256.clone(), made.key.clone());
    let edit: Change = Box::new(move |keys| {
        let id = id.clone().unwrap_or_else(|| fresh_id(keys));
        if keys.iter().any(|k| is(k, &id)) {
            return Err(ApiError::conflict(format!(
                "the channel has a key `{id}` already"
            )));
        }
        if let Some(old) = &old {
            let Some(key) = keys.iter_mut().find(|k| is(k, old)) else {
                return Err(ApiError::not_found(format!("the channel has no key `{old}`")));
            };
            key.merge(&Json::Object(vec![(
                "expires_at".to_owned(),
                text(until.clone().unwrap_or_default()),
            )]));
        }
        keys.push(entry(&id, &made, expires_at.as_ref()));
        Ok(())
    });
    let written = change(&context, code, edit).await?;
    // Its id was chosen when it was written.
    let value: Value = written
        .value
        .as_ref()
        .and_then(|v| serde_json::from_str(v.get()).ok())
        .unwrap_or_default();
    let keys = value.get("keys").and_then(Value::as_array).into_iter().flatten();
    let id = keys
        .filter(|k| k.get("sha256").and_then(Value::as_str) == Some(&sha256))
        .find_map(|k| k.get("id")?.as_str());
    let made = MadeKey {
        id: id.unwrap_or_default().to_owned(),
        key,
        etag: written.etag.clone(),
        in_force: written.in_force,
        generation: written.generation,
    };
    Ok((StatusCode::CREATED, axum::Json(made)))
}

/// Removes a key.
pub(in crate::api) async fn remove_key(
    context: Context,
    code: String,
    id: String,
) -> Result<super::Written, ApiError> {
    let edit: Change = Box::new(move |keys| {
        let before = keys.len();
        keys.retain(|k| !is(k, &id));
        if keys.len() == before {
            return Err(ApiError::not_found(format!("the channel has no key `{id}`")));
        }
        Ok(())
    });
    change(&context, code, edit).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_written_as_the_calendar_says() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_735_689_599, "2024-12-31T23:59:59Z"),
            (4_107_542_399, "2100-02-28T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
        }
    }
}
