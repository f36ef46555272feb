//! API tokens: what machines present. `tgt_<id>_<secret>`; the id names the token, only a digest of the whole is kept.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::roles::Wanted;
use super::secret::digest;
use super::{Permissions, RecordsError, random_text};

/// How a token begins, so that scanners of leaked secrets find it.
const PREFIX: &str = "tgt_";

/// A token as it is stored.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Token {
    pub id: String,
    pub account: String,
    pub label: String,
    pub digest: String,
    pub permissions: Option<Permissions>,
    pub channels: Option<Vec<String>>,
    pub created_at_ms: u64,
    pub expires_at_ms: Option<u64>,
    pub last_used_ms: Option<u64>,
}

/// A token as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "Token")]
pub struct TokenView {
    /// Its id.
    pub id: String,
    /// Whose it is.
    pub account: String,
    /// What it is for.
    pub label: String,
    /// What it may do, as far as its account may; all of that if null.
    pub permissions: Option<Permissions>,
    /// Globs of the channels that it may see, as far as its account may; all of those if null.
    pub channels: Option<Vec<String>>,
    /// Unix milliseconds.
    pub created_at_ms: u64,
    /// Unix milliseconds; null for never.
    pub expires_at_ms: Option<u64>,
    /// Unix milliseconds, to the minute.
    pub last_used_ms: Option<u64>,
}

/// A token that is asked for.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewToken {
    /// What it is for.
    pub label: String,
    /// After how long it expires, `90d`; null for never.
    #[serde(default)]
    pub expires_in: Option<String>,
    /// What it may do; all that the account may by default.
    #[serde(default)]
    pub permissions: Option<Wanted>,
    /// Globs of the channels that it may see; all that the account may by default.
    #[serde(default)]
    pub channels: Option<Vec<String>>,
}

impl Token {
    pub fn view(&self) -> TokenView {
        TokenView {
            id: self.id.clone(),
            account: self.account.clone(),
            label: self.label.clone(),
            permissions: self.permissions.clone(),
            channels: self.channels.clone(),
            created_at_ms: self.created_at_ms,
            expires_at_ms: self.expires_at_ms,
            last_used_ms: self.last_used_ms,
        }
    }

    pub fn is(&self, text: &str) -> bool {
        use subtle::ConstantTimeEq;
        self.digest.as_bytes().ct_eq(digest_of(text).as_bytes()).into()
    }
}

/// A new token's id and text.
pub(super) fn generate() -> Result<(String, String), RecordsError> {
    let id: String = digest("id", &random_text(16)?).chars().take(12).collect();
    let text = format!("{PREFIX}{id}_{}", random_text(32)?);
    Ok((id, text))
}

pub(super) fn digest_of(text: &str) -> String {
    digest("tollgate token", text)
}

/// The id in a token's text.
pub(super) fn id_of(text: &str) -> Option<&str> {
    let (id, _) = text.strip_prefix(PREFIX)?.split_once('_')?;
    Some(id)
}
