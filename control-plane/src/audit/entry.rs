//! What a row of the audit log says.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::Change;

/// What became of a try.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// It was done.
    #[default]
    Ok,
    /// It was not allowed.
    Denied,
    /// It failed, perhaps half way.
    Failed,
}

/// What was changed, without secrets.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Detail {
    /// What there was; null for nothing, or if it is too long.
    pub before: Option<Value>,
    /// What there is; null for nothing, or if it is too long.
    pub after: Option<Value>,
    /// The difference.
    pub diff: Vec<Change>,
}

/// A row's content.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Entry {
    /// When, Unix milliseconds.
    pub at_ms: u64,
    /// Name of the account; empty if nobody proved who they are.
    pub actor: String,
    /// How they proved it: `session`, `token`, `break_glass`, `local`; empty if they did not.
    pub via: String,
    /// Where they came from; empty if that is not known.
    pub address: String,
    /// HTTP method.
    pub method: String,
    /// Path of the request, as it was sent.
    pub path: String,
    /// Resource.
    pub resource: String,
    /// Action.
    pub action: String,
    /// Which one; empty for all or none.
    pub target: String,
    /// What became of it.
    pub outcome: Outcome,
    /// HTTP status of the answer.
    pub status: u16,
    /// How many further tries like this one within a minute the row stands for.
    pub repeated: u64,
    /// What was changed, or why it was denied.
    pub detail: Option<Detail>,
    /// Why it was denied or failed; if it was done, why, in the words of who did it, if they gave any.
    pub reason: String,
}

/// A row of the audit log.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
#[schemars(rename = "AuditRow")]
pub struct Row {
    /// Its number, from 1 on, without gaps.
    pub seq: u64,
    /// Its content.
    #[serde(flatten)]
    pub entry: Entry,
    /// Hash of it and of all before, in hexadecimal.
    pub hash: String,
}

/// The hash before the first row.
pub(super) const GENESIS: [u8; 32] = [0; 32];

/// The hash of a row.
pub(super) fn hash(previous: &[u8; 32], seq: u64, text: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(previous);
    hash.update(seq.to_le_bytes());
    hash.update((text.len() as u64).to_le_bytes());
    hash.update(text);
    hash.finalize().into()
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}
