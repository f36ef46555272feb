//! Random texts that prove something, and their digests.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest, Sha256};

use super::RecordsError;

/// `bytes` random bytes as text that needs no quoting anywhere.
///
/// # Errors
/// If the system gives no random numbers.
pub fn random_text(bytes: usize) -> Result<String, RecordsError> {
    let mut random = vec![0; bytes];
    getrandom::fill(&mut random).map_err(|e| RecordsError {
        action: "get random numbers",
        source: e.to_string().into(),
    })?;
    Ok(URL_SAFE_NO_PAD.encode(random))
}

/// SHA-256 of a purpose and a text, in hexadecimal. Random texts need no slow hash.
pub(super) fn digest(purpose: &str, text: &str) -> String {
    let mut hash = Sha256::new();
    hash.update(purpose);
    hash.update([0]);
    hash.update(text);
    hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
}
