//! A sealed credential: 1 byte version ‖ 24 bytes nonce ‖ ciphertext with its tag (XChaCha20-Poly1305,
//! draft-irtf-cfrg-xchacha-03), the provider's id as associated data: a ciphertext that is copied to another provider
//! does not open.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use zeroize::Zeroizing;

use super::{MasterKey, SealError};

/// First byte of a sealed credential.
pub const SEALED_VERSION: u8 = 1;
/// Bytes of the nonce.
pub const NONCE: usize = 24;
/// Longest credential, bytes: what still fits into a request header.
pub const MAX_SECRET: usize = 8_192;

impl MasterKey {
    /// Seals a provider's credential.
    ///
    /// # Errors
    /// If it is too long or the system gives no random numbers.
    pub fn seal(&self, provider: &str, secret: &[u8]) -> Result<Vec<u8>, SealError> {
        if secret.len() > MAX_SECRET {
            return Err(SealError::TooLong);
        }
        let mut nonce = [0; NONCE];
        getrandom::fill(&mut nonce).map_err(|_| SealError::Random)?;
        let payload = Payload {
            msg: secret,
            aad: provider.as_bytes(),
        };
        let cipher = XChaCha20Poly1305::new(self.bytes().into());
        let sealed = cipher
            .encrypt(XNonce::from_slice(&nonce), payload)
            .map_err(|_| SealError::TooLong)?;
        Ok([&[SEALED_VERSION][..], &nonce, &sealed].concat())
    }

    /// Opens a provider's sealed credential.
    ///
    /// # Errors
    /// If it is not one, or was sealed with another key or for another provider.
    pub fn open(&self, provider: &str, sealed: &[u8]) -> Result<Zeroizing<Vec<u8>>, SealError> {
        let (version, rest) = sealed.split_first().ok_or(SealError::Malformed)?;
        let (nonce, ciphertext) = rest.split_at_checked(NONCE).ok_or(SealError::Malformed)?;
        if *version != SEALED_VERSION {
            return Err(SealError::Malformed);
        }
        let open = |key: &[u8; 32]| {
            let payload = Payload {
                msg: ciphertext,
                aad: provider.as_bytes(),
            };
            let cipher = XChaCha20Poly1305::new(key.into());
            cipher.decrypt(XNonce::from_slice(nonce), payload).ok()
        };
        let opened = self.ring().find_map(open);
        opened.map(Zeroizing::new).ok_or(SealError::Refused)
    }

    /// Seals a credential as documents hold it: in base64.
    ///
    /// # Errors
    /// As [`MasterKey::seal`].
    pub fn seal_text(&self, provider: &str, secret: &str) -> Result<String, SealError> {
        self.seal(provider, secret.as_bytes()).map(|s| STANDARD.encode(s))
    }

    /// The bytes of a sealed credential in a document, after checking that they open.
    ///
    /// # Errors
    /// As [`MasterKey::open`].
    pub fn check_text(&self, provider: &str, text: &str) -> Result<Vec<u8>, SealError> {
        let sealed = STANDARD.decode(text.trim()).map_err(|_| SealError::Malformed)?;
        self.open(provider, &sealed)?;
        Ok(sealed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_for_its_provider_and_key_only() {
        let key = MasterKey::from_bytes([7; 32]);
        let sealed = key.seal("openai", b"sk-123").unwrap();
        assert_eq!(sealed.len(), 1 + NONCE + 6 + 16);
        assert!(!sealed.windows(6).any(|w| w == b"sk-123"));
        assert_eq!(key.open("openai", &sealed).unwrap().as_slice(), b"sk-123");
        assert_ne!(sealed, key.seal("openai", b"sk-123").unwrap(), "nonces differ");
        assert_eq!(key.open("other", &sealed), Err(SealError::Refused));
        let other = MasterKey::from_bytes([8; 32]);
        assert_eq!(other.open("openai", &sealed), Err(SealError::Refused));
        for i in 0..sealed.len() {
            let mut damaged = sealed.clone();
            damaged[i] ^= 1;
            assert!(key.open("openai", &damaged).is_err(), "byte {i}");
            assert!(key.open("openai", &sealed[..i]).is_err(), "cut at {i}");
        }
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("master.key");
        let first = MasterKey::read_or_create(&file).unwrap();
        MasterKey::read_or_create(&dir.path().join("master.key.new")).unwrap();
        let new = MasterKey::read(&dir.path().join("master.key.new")).unwrap();
        let both = first.clone().with_beside(&file);
        let by_new = new.seal("openai", b"sk-123").unwrap();
        assert!(first.open("openai", &by_new).is_err() && both.open("openai", &by_new).is_ok());
        assert!(both.alone().open("openai", &by_new).is_err());
        let by_both = both.seal("openai", b"sk-123").unwrap();
        assert!(first.open("openai", &by_both).is_ok() && new.open("openai", &by_both).is_err());
        assert_eq!(both.names().1, [first.names().0, new.names().0]);
        assert_eq!(key.seal("p", &[0; MAX_SECRET + 1]), Err(SealError::TooLong));
        let text = key.seal_text("p", "s").unwrap();
        assert!(key.check_text("p", &format!("{text}\n")).is_ok());
        assert_eq!(key.check_text("p", "?"), Err(SealError::Malformed));
    }

    /// The module opens what the daemon seals: the format is fixed.
    #[test]
    fn the_format_is_what_it_was() {
        let key = MasterKey::from_bytes(std::array::from_fn(|i| i as u8));
        let text = "AQABAgMEBQYHCAkKCwwNDg8QERITFBUWFw==";
        let mut sealed = STANDARD.decode(text).unwrap();
        let nonce: [u8; NONCE] = std::array::from_fn(|i| i as u8);
        let payload = Payload {
            msg: b"sk-sample",
            aad: b"openai",
        };
        let cipher = XChaCha20Poly1305::new(key.bytes().into());
        sealed.extend(cipher.encrypt(XNonce::from_slice(&nonce), payload).unwrap());
        assert_eq!(key.open("openai", &sealed).unwrap().as_slice(), b"sk-sample");
    }
}
