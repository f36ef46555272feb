//! Sign-ins that have begun: what must come back with the browser. They stand in the store that accounts stand in, so that
//! the browser may come back to another instance, and each can be taken once.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use subtle::ConstantTimeEq;

use crate::accounts::{Expected, Record, Records, RecordsError, Table, random_text};
use crate::schedule::now_ms;

/// How long somebody may take at the provider.
const PATIENCE_MS: u64 = 10 * 60_000;

/// A sign-in that has begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Pending {
    /// What the ID token must repeat.
    pub nonce: String,
    /// What proves that whoever exchanges the code is who asked for it.
    pub verifier: String,
    /// Where to go in the dashboard afterwards.
    pub back: String,
    /// Digest of what the browser has as a cookie.
    browser: String,
}

/// What the browser takes along.
pub(super) struct Taken {
    /// In the address.
    pub state: String,
    /// In a cookie.
    pub cookie: String,
}

fn digest(purpose: &str, text: &str) -> String {
    let hash = Sha256::new()
        .chain_update(purpose)
        .chain_update([0])
        .chain_update(text);
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}

/// What the browser will bring back.
pub(super) fn fresh() -> Result<Taken, RecordsError> {
    Ok(Taken {
        state: random_text(32)?,
        cookie: random_text(32)?,
    })
}

/// Remembers a sign-in.
pub(super) fn keep(
    records: &Arc<dyn Records>,
    taken: &Taken,
    (nonce, verifier, back): (String, String, String),
) -> Result<(), RecordsError> {
    let pending = Pending {
        nonce,
        verifier,
        back,
        browser: digest("oidc browser", &taken.cookie),
    };
    let value = serde_json::to_vec(&pending).map_err(|source| RecordsError {
        action: "keep a sign-in",
        source: source.into(),
    })?;
    let now = now_ms();
    let record = Record {
        key: digest("oidc state", &taken.state),
        version: 0,
        value,
        expires_ms: Some(now + PATIENCE_MS),
    };
    records.put(Table::SignIns, &record, Expected::Absent, now)?;
    records.prune(now)
}

/// Takes a sign-in, once; `None` if there is none, or it was begun by another browser.
pub(super) fn take(
    records: &Arc<dyn Records>,
    state: &str,
    cookie: &str,
) -> Result<Option<Pending>, RecordsError> {
    let key = digest("oidc state", state);
    let Some(record) = records.get(Table::SignIns, &key, now_ms())? else {
        return Ok(None);
    };
    // Of two that come at once, one removes it.
    if !records.remove(Table::SignIns, &key)? {
        return Ok(None);
    }
    let pending: Pending = serde_json::from_slice(&record.value).map_err(|source| RecordsError {
        action: "read a sign-in",
        source: source.into(),
    })?;
    let browser = digest("oidc browser", cookie);
    let same = bool::from(browser.as_bytes().ct_eq(pending.browser.as_bytes()));
    Ok(same.then_some(pending))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::accounts::SqliteRecords;

    #[test]
    fn a_sign_in_is_taken_once_by_the_browser_that_began_it() {
        let dir = tempfile::tempdir().unwrap();
        let records: Arc<dyn Records> = Arc::new(SqliteRecords::open(&dir.path().join("a.db")).unwrap());
        let begin = || {
            let taken = fresh().unwrap();
            keep(&records, &taken, ("n".into(), "v".into(), "/".into())).unwrap();
            taken
        };
        let first = begin();
        let found = take(&records, &first.state, &first.cookie).unwrap().unwrap();
        assert_eq!((found.nonce.as_str(), found.verifier.as_str()), ("n", "v"));
        assert_eq!(take(&records, &first.state, &first.cookie).unwrap(), None, "once");
        let second = begin();
        assert_eq!(
            take(&records, &second.state, &first.cookie).unwrap(),
            None,
            "another browser"
        );
        assert_eq!(take(&records, "made up", &first.cookie).unwrap(), None);
        // Neither of what the browser has stands in the file.
        let third = begin();
        for file in ["a.db", "a.db-wal"] {
            let bytes = std::fs::read(dir.path().join(file)).unwrap_or_default();
            for secret in [&third.state, &third.cookie] {
                assert!(!bytes.windows(secret.len()).any(|w| w == secret.as_bytes()));
            }
        }
    }
}
