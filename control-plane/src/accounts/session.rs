//! Browser sessions.

use serde::{Deserialize, Serialize};

use super::secret::digest;

/// A session ends when it is not used for this long.
pub const IDLE_MS: u64 = 2 * 3_600_000;
/// A session ends so long after its login at the latest.
pub const ABSOLUTE_MS: u64 = 12 * 3_600_000;
/// A use is noted at most so often.
pub(super) const NOTED_EVERY_MS: u64 = 60_000;

/// A session as it is stored, under the digest of its secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Session {
    pub account: String,
    pub epoch: u64,
    pub created_ms: u64,
    pub used_ms: u64,
}

impl Session {
    pub fn ends_ms(&self) -> u64 {
        let absolute = self.created_ms.saturating_add(ABSOLUTE_MS);
        self.used_ms.saturating_add(IDLE_MS).min(absolute)
    }
}

/// Key of the session with this secret.
pub(super) fn key(secret: &str) -> String {
    digest("tollgate session", secret)
}

/// What a changing request with this session must repeat. Another site can make a browser send the cookie, but can
/// neither read the secret nor this.
pub(super) fn csrf(secret: &str) -> String {
    digest("tollgate csrf", secret)
}
