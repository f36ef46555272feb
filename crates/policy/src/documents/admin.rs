//! Settings of what is done beside serving requests: backups.

use super::Span;
use schemars::JsonSchema;
use serde::Deserialize;

/// Backups that an instance makes by itself, into `backups` of its state folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "BackupSettings")]
pub struct Backup {
    /// Time between two of them, 1m..=366d.
    pub every: Span,
    /// How many are kept, 1..=1,000; the oldest go first.
    pub keep: u32,
}

impl Default for Backup {
    fn default() -> Self {
        Self {
            every: Span::from_millis(86_400_000),
            keep: 14,
        }
    }
}
