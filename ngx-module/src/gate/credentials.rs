//! Provider credentials: sealed by the daemon, opened in the worker that needs them.
//!
//! Format of a sealed credential: version 1 (one byte), nonce (24 bytes), ciphertext and tag of XChaCha20-Poly1305, with
//! the provider's id as associated data.

use std::io;
use std::path::Path;

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use tollgate_policy::session::SessionSigner;

const VERSION: u8 = 1;
const NONCE: usize = 24;

/// The key that opens credentials, and those beside it that do too while it is changed (`….new`, `….old`). Never shown.
#[derive(Clone)]
pub(crate) struct MasterKey {
    key: [u8; 32],
    others: Vec<[u8; 32]>,
}

impl MasterKey {
    /// Reads 32 bytes, raw or as 64 hexadecimal digits; of what lies beside it, what can be read.
    pub fn read(path: &Path) -> io::Result<MasterKey> {
        let beside = |suffix: &str| {
            let mut name = path.as_os_str().to_owned();
            name.push(suffix);
            MasterKey::bytes(Path::new(&name)).ok()
        };
        Ok(MasterKey {
            key: MasterKey::bytes(path)?,
            others: [".new", ".old"].into_iter().filter_map(beside).collect(),
        })
    }

    fn bytes(path: &Path) -> io::Result<[u8; 32]> {
        let bytes = std::fs::read(path)?;
        let bad = || {
            io::Error::new(
                io::ErrorKind::InvalidData,
                "must hold 32 bytes, raw or as 64 hexadecimal digits",
            )
        };
        if let Ok(raw) = <[u8; 32]>::try_from(bytes.as_slice()) {
            return Ok(raw);
        }
        let text = std::str::from_utf8(&bytes).map_err(|_| bad())?.trim();
        if text.len() != 64 {
            return Err(bad());
        }
        let mut key = [0; 32];
        for (byte, digits) in key.iter_mut().zip(text.as_bytes().chunks(2)) {
            let digits = std::str::from_utf8(digits).map_err(|_| bad())?;
            *byte = u8::from_str_radix(digits, 16).map_err(|_| bad())?;
        }
        Ok(key)
    }

    /// What signs cookies.
    pub fn signer(&self) -> Option<SessionSigner> {
        SessionSigner::new(&self.key)
    }

    /// Opens a provider's credential; `None` if it was sealed with another key or for another provider.
    pub fn open(&self, provider: &str, sealed: &[u8]) -> Option<String> {
        let (version, rest) = sealed.split_first()?;
        if *version != VERSION {
            return None;
        }
        let (nonce, ciphertext) = rest.split_at_checked(NONCE)?;
        let open = |key: &[u8; 32]| {
            let payload = Payload {
                msg: ciphertext,
                aad: provider.as_bytes(),
            };
            let cipher = XChaCha20Poly1305::new(key.into());
            cipher.decrypt(XNonce::from_slice(nonce), payload).ok()
        };
        let plain = std::iter::once(&self.key).chain(&self.others).find_map(open)?;
        String::from_utf8(plain).ok()
    }
}
