//! The key that credentials are sealed with. The nginx master reads the same file before it forks.
//!
//! Beside `FILE` may lie `FILE.new`, which a rotation is about to put in its place, and `FILE.old`, which it has replaced: what they
//! have sealed opens too, so that instances that share documents can change the key one after the other.

use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// Bytes of a key.
const LENGTH: usize = 32;
/// Longest file that is taken as a key.
const MAX_FILE: u64 = 4_096;

/// What keys that only open are called, behind the name of the one that seals.
pub const BESIDE: [&str; 2] = [".new", ".old"];

/// A 32-byte key, with others that only open. Prints as `***`; wiped when dropped.
#[derive(Clone)]
pub struct MasterKey {
    key: Zeroizing<[u8; LENGTH]>,
    others: Vec<Zeroizing<[u8; LENGTH]>>,
}

impl std::fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("MasterKey(***)")
    }
}

/// Why there is no master key.
#[derive(Debug)]
pub enum KeyError {
    /// The file cannot be read or created.
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Not 32 bytes in any of the forms.
    Malformed {
        /// Where it was read from.
        origin: String,
    },
    /// The file may be read by everyone on this host.
    Exposed {
        /// The file.
        path: PathBuf,
    },
}

impl std::fmt::Display for KeyError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            KeyError::Io { path, source } => {
                write!(f, "cannot use the master key {}: {source}", path.display())
            }
            KeyError::Malformed { origin } => write!(
                f,
                "the master key in {origin} is malformed: expected 32 bytes, raw, in hexadecimal or in base64"
            ),
            KeyError::Exposed { path } => write!(
                f,
                "the master key {} may be read by everyone; change its mode to 0600",
                path.display()
            ),
        }
    }
}
impl std::error::Error for KeyError {}

/// Why something could not be sealed or opened. Says nothing about the content.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SealError {
    /// The system gave no random numbers.
    Random,
    /// Longer than [`super::MAX_SECRET`].
    TooLong,
    /// Not a sealed credential of this version.
    Malformed,
    /// Sealed with another master key, for another provider, or changed since.
    Refused,
}

impl std::fmt::Display for SealError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            SealError::Random => "the system gave no random numbers",
            SealError::TooLong => "it is too long",
            SealError::Malformed => "it is not a credential sealed by this version",
            SealError::Refused => {
                "it was sealed with another master key or for another provider, or is damaged"
            }
        })
    }
}
impl std::error::Error for SealError {}

impl MasterKey {
    /// A key from its bytes.
    pub fn from_bytes(bytes: [u8; LENGTH]) -> MasterKey {
        MasterKey {
            key: Zeroizing::new(bytes),
            others: Vec::new(),
        }
    }

    pub(super) fn bytes(&self) -> &[u8; LENGTH] {
        &self.key
    }

    /// All that open, the one that seals first.
    pub(super) fn ring(&self) -> impl Iterator<Item = &[u8; LENGTH]> {
        std::iter::once(&self.key).chain(&self.others).map(|key| &**key)
    }

    /// Without those that only open.
    #[must_use]
    pub fn alone(&self) -> MasterKey {
        MasterKey::from_bytes(*self.key)
    }

    /// With those that lie beside its file. One that cannot be used is said and left.
    #[must_use]
    pub fn with_beside(mut self, file: &Path) -> MasterKey {
        for suffix in BESIDE {
            let path = beside(file, suffix);
            match MasterKey::read(&path) {
                Ok(other) => self.others.push(other.key),
                Err(KeyError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
                Err(error) => tracing::warn!(%error, "what this key has sealed does not open"),
            }
        }
        self
    }

    /// What tells keys apart and says nothing of them: of the one that seals, and of all that open.
    pub fn names(&self) -> (String, Vec<String>) {
        let name = |key: &[u8; LENGTH]| -> String {
            let digest = MasterKey::from_bytes(*key).derived("name");
            digest.iter().take(4).map(|b| format!("{b:02x}")).collect()
        };
        let all: Vec<String> = self.ring().map(name).collect();
        (all.first().cloned().unwrap_or_default(), all)
    }

    /// A key for another purpose, from which this one cannot be told.
    pub fn derived(&self, purpose: &str) -> Zeroizing<[u8; LENGTH]> {
        let mut hash = Sha256::new();
        for part in [
            b"tollgate derived key" as &[u8],
            self.key.as_slice(),
            purpose.as_bytes(),
        ] {
            hash.update((part.len() as u64).to_le_bytes());
            hash.update(part);
        }
        Zeroizing::new(hash.finalize().into())
    }

    /// A new random key.
    ///
    /// # Errors
    /// If the system gives no random numbers.
    pub fn random() -> Result<MasterKey, SealError> {
        let mut bytes = Zeroizing::new([0; LENGTH]);
        getrandom::fill(bytes.as_mut()).map_err(|_| SealError::Random)?;
        Ok(MasterKey::from_bytes(*bytes))
    }

    /// Reads a key written as 32 raw bytes, 64 hexadecimal digits or base64, blanks around it allowed.
    pub fn parse(text: &[u8]) -> Option<MasterKey> {
        if let Ok(raw) = <[u8; LENGTH]>::try_from(text) {
            return Some(MasterKey::from_bytes(raw));
        }
        let text = text.trim_ascii();
        let bytes = if text.len() == 2 * LENGTH {
            from_hex(text)?
        } else {
            Zeroizing::new(STANDARD.decode(text).ok()?)
        };
        let bytes = Zeroizing::new(<[u8; LENGTH]>::try_from(bytes.as_slice()).ok()?);
        Some(MasterKey::from_bytes(*bytes))
    }

    /// Reads a key file.
    ///
    /// # Errors
    /// If it cannot be read, is malformed, or is open to everyone.
    pub fn read(path: &Path) -> Result<MasterKey, KeyError> {
        let fail = |source| KeyError::Io {
            path: path.to_owned(),
            source,
        };
        let file = std::fs::File::open(path).map_err(fail)?;
        let meta = file.metadata().map_err(fail)?;
        if meta.permissions().mode() & 0o007 != 0 {
            return Err(KeyError::Exposed {
                path: path.to_owned(),
            });
        }
        let mut text = Zeroizing::new(Vec::new());
        file.take(MAX_FILE).read_to_end(&mut text).map_err(fail)?;
        MasterKey::parse(&text).ok_or_else(|| KeyError::Malformed {
            origin: path.display().to_string(),
        })
    }

    /// Reads a key file, creating it with a new key and mode 0600 if there is none.
    ///
    /// # Errors
    /// As [`MasterKey::read`].
    pub fn read_or_create(path: &Path) -> Result<MasterKey, KeyError> {
        let fail = |source| KeyError::Io {
            path: path.to_owned(),
            source,
        };
        let key = MasterKey::random().map_err(|e| fail(io::Error::other(e)))?;
        let hex: Zeroizing<String> = Zeroizing::new(key.bytes().iter().map(|b| format!("{b:02x}")).collect());
        match create_private(path, format!("{}\n", *hex).as_bytes()) {
            Ok(()) => Ok(key),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => MasterKey::read(path),
            Err(e) => Err(fail(e)),
        }
    }
}

/// The file of this name with something behind it.
pub fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    PathBuf::from(name)
}

/// Writes a new file that only its owner can read. Whole or not at all, and never over an existing one.
///
/// # Errors
/// If it is there already, or cannot be written.
pub fn create_private(path: &Path, content: &[u8]) -> io::Result<()> {
    if path.exists() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let mut temp = path.as_os_str().to_owned();
    temp.push(format!(".{}", std::process::id()));
    let temp = PathBuf::from(temp);
    let _ = std::fs::remove_file(&temp);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&temp)?;
    let written = file
        .write_all(content)
        .and_then(|()| file.sync_all())
        .and_then(|()| std::fs::hard_link(&temp, path));
    let _ = std::fs::remove_file(&temp);
    written
}

fn from_hex(text: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let digit = |b: &u8| char::from(*b).to_digit(16);
    let pairs = text.as_chunks::<2>().0.iter();
    let bytes = pairs.map(|[high, low]| u8::try_from(digit(high)? << 4 | digit(low)?).ok());
    bytes.collect::<Option<Vec<u8>>>().map(Zeroizing::new)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_read_in_three_forms() {
        let raw: [u8; 32] = std::array::from_fn(|i| i as u8 * 7 + 1);
        let hex: String = raw.iter().map(|b| format!("{b:02X}")).collect();
        let base64 = STANDARD.encode(raw);
        for text in [
            &raw[..],
            format!(" {hex}\n").as_bytes(),
            format!("{base64}\n").as_bytes(),
        ] {
            assert_eq!(MasterKey::parse(text).unwrap().bytes(), &raw);
        }
        for bad in [
            "",
            "abc",
            &"g".repeat(64),
            &"a".repeat(63),
            &STANDARD.encode([1; 31]),
        ] {
            assert!(MasterKey::parse(bad.as_bytes()).is_none(), "{bad}");
        }
        assert_eq!(format!("{:?}", MasterKey::from_bytes(raw)), "MasterKey(***)");
    }

    #[test]
    fn a_key_is_created_once_private_and_read_again() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("master.key");
        let key = MasterKey::read_or_create(&path).unwrap();
        assert_eq!(
            std::fs::metadata(&path).unwrap().permissions().mode() & 0o777,
            0o600
        );
        assert_eq!(MasterKey::read_or_create(&path).unwrap().bytes(), key.bytes());
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o644)).unwrap();
        assert!(matches!(MasterKey::read(&path), Err(KeyError::Exposed { .. })));
        std::fs::write(&path, "short").unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o640)).unwrap();
        let error = MasterKey::read_or_create(&path).unwrap_err().to_string();
        assert!(error.contains("malformed") && !error.contains("short"), "{error}");
    }
}
