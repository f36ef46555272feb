//! Turns what documents say about a credential into the ciphertext that goes into a snapshot.

use std::fs;
use std::path::PathBuf;

use sha2::{Digest, Sha256};
use tollgate_policy::SecretRef;
use zeroize::Zeroizing;

use super::MasterKey;

/// Where credentials lie that documents name by `key_ref`: one file each, as a service manager hands them over.
#[derive(Clone, Debug)]
pub struct CredentialFolder(pub PathBuf);

impl CredentialFolder {
    /// A named credential, for the daemon's own use.
    ///
    /// # Errors
    /// A text that says why it cannot be had.
    pub fn named(&self, name: &str) -> Result<Zeroizing<String>, String> {
        self.read(name)
    }

    fn read(&self, name: &str) -> Result<Zeroizing<String>, String> {
        let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
        if name.is_empty() || name.starts_with('.') || !name.bytes().all(plain) {
            return Err(format!(
                "`{name}` is no name of a credential: letters, digits, `.`, `_` and `-`"
            ));
        }
        match fs::read_to_string(self.0.join(name)) {
            Ok(text) => {
                let text = Zeroizing::new(text);
                Ok(Zeroizing::new(text.trim_end_matches(['\r', '\n']).to_owned()))
            }
            Err(e) => Err(format!("the credential `{name}` cannot be read: {e}")),
        }
    }
}

/// The master key and the folder of named credentials.
#[derive(Clone, Debug)]
pub struct Sealer {
    /// Seals.
    pub key: MasterKey,
    /// Named credentials.
    pub folder: CredentialFolder,
}

impl Sealer {
    /// Changes with the master key and with the content of these named credentials; says nothing about either.
    pub fn fingerprint<'n>(&self, names: impl Iterator<Item = &'n str>) -> String {
        let mut hash = Sha256::new();
        hash.update(b"tollgate credentials\0");
        hash.update(self.key.bytes());
        for name in names {
            let content = self.folder.read(name);
            let text = content.as_ref().map_or("", |t| t.as_str());
            for part in [name, text] {
                hash.update(part.len().to_le_bytes());
                hash.update(part);
            }
        }
        hash.finalize().iter().map(|b| format!("{b:02x}")).collect()
    }

    /// The ciphertext for a provider's credential.
    ///
    /// # Errors
    /// Why there is none, without the credential.
    pub fn seal(&self, provider: &str, secret: SecretRef<'_>) -> Result<Vec<u8>, String> {
        match secret {
            SecretRef::Plain(text) => self
                .key
                .seal(provider, text.as_bytes())
                .map_err(|e| e.to_string()),
            SecretRef::Encrypted(text) => self.key.check_text(provider, text).map_err(|e| e.to_string()),
            SecretRef::Reference(name) => {
                let text = self.folder.read(name)?;
                self.key
                    .seal(provider, text.as_bytes())
                    .map_err(|e| e.to_string())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_form_becomes_ciphertext_that_opens() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("openai-key"), "sk-9\n").unwrap();
        let key = MasterKey::from_bytes([1; 32]);
        let sealer = Sealer {
            key: key.clone(),
            folder: CredentialFolder(dir.path().to_owned()),
        };
        let text = key.seal_text("p", "sk-9").unwrap();
        for secret in [
            SecretRef::Plain("sk-9"),
            SecretRef::Encrypted(&text),
            SecretRef::Reference("openai-key"),
        ] {
            let sealed = sealer.seal("p", secret).unwrap();
            assert_eq!(key.open("p", &sealed).unwrap().as_slice(), b"sk-9", "{secret:?}");
        }
        let before = sealer.fingerprint(["openai-key"].into_iter());
        assert_eq!(before, sealer.fingerprint(["openai-key"].into_iter()));
        fs::write(dir.path().join("openai-key"), "sk-10\n").unwrap();
        assert_ne!(before, sealer.fingerprint(["openai-key"].into_iter()));
        for name in ["", "..", "../etc/passwd", "a/b", "missing", ".hidden"] {
            assert!(sealer.seal("p", SecretRef::Reference(name)).is_err(), "{name}");
        }
        let error = sealer
            .seal("p", SecretRef::Encrypted("sk-plain-pasted"))
            .unwrap_err();
        assert!(!error.contains("sk-"), "{error}");
    }
}
