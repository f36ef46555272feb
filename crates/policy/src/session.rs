//! The cookie that keeps a caller with one deployment: made, signed and read. Pure; the time comes from the caller.
//!
//! Value: `1.` and, in base64 for URLs, when it ends (Unix seconds, 4 bytes), the deployment's mark (8 bytes) and the
//! first 16 bytes of HMAC-SHA256 over the model's name, its length before it, and these twelve. The mark is an HMAC of
//! the deployment's id: who has a cookie learns neither an id nor whether a guess is one.

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use hmac::{Hmac, Mac};
use sha2::Sha256;

type Sha = Hmac<Sha256>;

const VERSION: &str = "1.";
const SIGNED: usize = 12;
const SIGNATURE: usize = 16;

/// Signs and reads cookies. Whoever has the same master key makes the same ones.
#[derive(Clone)]
pub struct SessionSigner {
    sign: Sha,
    mark: Sha,
}

impl std::fmt::Debug for SessionSigner {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SessionSigner(…)")
    }
}

/// What a cookie says that this signer has made for the model.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionCookie {
    /// The deployment's, see [`SessionSigner::mark`].
    pub mark: u64,
    /// From then on it says nothing, Unix seconds.
    pub ends_unix: u32,
}

/// The name of a model's cookie, by the hash of the model's name.
pub fn cookie_name(model: u64) -> String {
    format!("tollgate_session_{:08x}", model >> 32)
}

impl SessionSigner {
    /// A signer with keys that are derived from the master key and good for nothing else.
    pub fn new(master_key: &[u8; 32]) -> Option<Self> {
        let derived = |purpose: &[u8]| {
            let mut derive = Sha::new_from_slice(master_key).ok()?;
            derive.update(purpose);
            Sha::new_from_slice(&derive.finalize().into_bytes()).ok()
        };
        Some(Self {
            sign: derived(b"tollgate session cookie 1: sign")?,
            mark: derived(b"tollgate session cookie 1: mark")?,
        })
    }

    /// What stands for a deployment in cookies.
    pub fn mark(&self, deployment: &str) -> u64 {
        let mut mark = self.mark.clone();
        mark.update(deployment.as_bytes());
        let whole = mark.finalize().into_bytes();
        u64::from_be_bytes(std::array::from_fn(|i| whole.get(i).copied().unwrap_or(0)))
    }

    fn signature(&self, model: &str, signed: &[u8]) -> Sha {
        let mut sign = self.sign.clone();
        sign.update(&(model.len() as u64).to_be_bytes());
        sign.update(model.as_bytes());
        sign.update(signed);
        sign
    }

    /// The value of a cookie.
    pub fn write(&self, model: &str, cookie: SessionCookie) -> String {
        let mut bytes = Vec::with_capacity(SIGNED + SIGNATURE);
        bytes.extend_from_slice(&cookie.ends_unix.to_be_bytes());
        bytes.extend_from_slice(&cookie.mark.to_be_bytes());
        let signature = self.signature(model, &bytes).finalize().into_bytes();
        bytes.extend(signature.iter().take(SIGNATURE));
        format!("{VERSION}{}", URL_SAFE_NO_PAD.encode(bytes))
    }

    /// What a cookie's value says; `None` if it was not made by this signer for this model, or has ended.
    pub fn read(&self, model: &str, value: &[u8], now_unix: i64) -> Option<SessionCookie> {
        let mut bytes = [0; SIGNED + SIGNATURE];
        let text = value.strip_prefix(VERSION.as_bytes())?;
        let read = URL_SAFE_NO_PAD.decode_slice(text, &mut bytes).ok()?;
        let (signed, signature) = bytes.get(..read)?.split_at_checked(SIGNED)?;
        if signature.len() != SIGNATURE {
            return None;
        }
        self.signature(model, signed)
            .verify_truncated_left(signature)
            .ok()?;
        let (ends, mark) = signed.split_at_checked(4)?;
        let cookie = SessionCookie {
            ends_unix: u32::from_be_bytes(ends.try_into().ok()?),
            mark: u64::from_be_bytes(mark.try_into().ok()?),
        };
        (now_unix < i64::from(cookie.ends_unix)).then_some(cookie)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn signer(byte: u8) -> SessionSigner {
        SessionSigner::new(&[byte; 32]).unwrap()
    }

    fn cookie(ends_unix: u32) -> SessionCookie {
        let mark = signer(1).mark("gpt-4o/azure-east");
        SessionCookie { mark, ends_unix }
    }

    #[test]
    fn a_cookie_is_read_back_until_it_ends() {
        let value = signer(1).write("gpt-4o", cookie(1_000));
        assert_eq!(
            signer(1).read("gpt-4o", value.as_bytes(), 999),
            Some(cookie(1_000))
        );
        assert_eq!(signer(1).read("gpt-4o", value.as_bytes(), 1_000), None);
        assert_eq!(value.len(), 40);
        assert!(
            value
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        );
    }

    #[test]
    fn what_another_made_is_refused() {
        let value = signer(1).write("gpt-4o", cookie(1_000));
        assert_eq!(signer(2).read("gpt-4o", value.as_bytes(), 0), None);
        assert_eq!(signer(1).read("gpt-4", value.as_bytes(), 0), None);
        assert_ne!(signer(1).mark("a"), signer(2).mark("a"));
        assert_ne!(signer(1).mark("a"), signer(1).mark("b"));
    }

    #[test]
    fn every_changed_byte_is_noticed() {
        let value = signer(1).write("gpt-4o", cookie(u32::MAX)).into_bytes();
        for at in 0..value.len() {
            for byte in b"AZaz09-_." {
                let mut forged = value.clone();
                forged[at] = *byte;
                assert_eq!(
                    signer(1).read("gpt-4o", &forged, 0).is_some(),
                    forged == value,
                    "{at}"
                );
            }
        }
        for length in 0..value.len() {
            assert_eq!(signer(1).read("gpt-4o", &value[..length], 0), None);
        }
        assert_eq!(signer(1).read("gpt-4o", &[&value[..], b"AAAA"].concat(), 0), None);
    }

    proptest! {
        #[test]
        fn garbage_is_nothing(value in proptest::collection::vec(any::<u8>(), 0..80)) {
            prop_assert_eq!(signer(1).read("m", &value, 0), None);
        }
    }
}
