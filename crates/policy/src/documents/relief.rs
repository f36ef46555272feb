//! What an emergency has changed about a limit, beside the limit: it stays as it was written, wherever it is inherited from.

use super::{Limit, Moment};
use schemars::JsonSchema;
use serde::Deserialize;

/// A limit that was reset or topped up.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Relief {
    /// The limit's name, as refusals call it.
    pub limit: String,
    /// What was used before counts no more.
    pub reset: Option<Moment>,
    /// By how much the maximum is higher until `until`.
    #[serde(default)]
    pub add: u64,
    /// End of `add`.
    pub until: Option<Moment>,
}

impl Relief {
    /// What it adds to the maximum at `now_ms`, Unix milliseconds.
    pub fn added(&self, now_ms: u64) -> u64 {
        if self.until.is_some_and(|until| now_ms < until.0) {
            self.add
        } else {
            0
        }
    }

    /// The entry of a list that is about `limit`.
    pub fn of<'a>(list: &'a [Relief], limit: &Limit) -> Option<&'a Relief> {
        if list.is_empty() {
            return None;
        }
        let name = limit.display_name();
        list.iter().find(|relief| relief.limit == name)
    }
}
