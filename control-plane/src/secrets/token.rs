//! The API's bearer token.

use std::io;
use std::path::{Path, PathBuf};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use subtle::ConstantTimeEq;
use zeroize::Zeroizing;

use super::master_key::create_private;

/// Shortest token that is accepted, bytes.
const SHORTEST: usize = 16;

/// The token. Prints as `***`; compared in constant time.
#[derive(Clone)]
pub struct ApiToken(Zeroizing<String>);

impl std::fmt::Debug for ApiToken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ApiToken(***)")
    }
}

/// Why there is no token.
#[derive(Debug)]
pub enum TokenError {
    /// The file cannot be read or created.
    Io {
        /// The file.
        path: PathBuf,
        /// The system's answer.
        source: io::Error,
    },
    /// Shorter than 16 characters, or not visible ASCII.
    Weak {
        /// The file.
        path: PathBuf,
    },
}

impl std::fmt::Display for TokenError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            TokenError::Io { path, source } => {
                write!(f, "cannot use the API token {}: {source}", path.display())
            }
            TokenError::Weak { path } => write!(
                f,
                "the API token in {} must be at least {SHORTEST} visible ASCII characters",
                path.display()
            ),
        }
    }
}
impl std::error::Error for TokenError {}

impl ApiToken {
    /// A token from its text.
    pub fn new(text: &str) -> ApiToken {
        ApiToken(Zeroizing::new(text.to_owned()))
    }

    /// Reads the token's file.
    ///
    /// # Errors
    /// If it cannot be read or the token is too weak.
    pub fn read(path: &Path) -> Result<ApiToken, TokenError> {
        let text = std::fs::read_to_string(path).map_err(|source| TokenError::Io {
            path: path.to_owned(),
            source,
        })?;
        let text = Zeroizing::new(text);
        let token = text.trim();
        if token.len() < SHORTEST || !token.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(TokenError::Weak {
                path: path.to_owned(),
            });
        }
        Ok(ApiToken::new(token))
    }

    /// Reads the token's file, creating it with a random token and mode 0600 if there is none.
    ///
    /// # Errors
    /// As [`ApiToken::read`].
    pub fn read_or_create(path: &Path) -> Result<ApiToken, TokenError> {
        let fail = |source| TokenError::Io {
            path: path.to_owned(),
            source,
        };
        let mut bytes = Zeroizing::new([0u8; 32]);
        getrandom::fill(bytes.as_mut()).map_err(|_| fail(io::Error::other("no random numbers")))?;
        let text = Zeroizing::new(URL_SAFE_NO_PAD.encode(bytes.as_slice()));
        match create_private(path, format!("{}\n", *text).as_bytes()) {
            Ok(()) => Ok(ApiToken(text)),
            Err(e) if e.kind() == io::ErrorKind::AlreadyExists => ApiToken::read(path),
            Err(e) => Err(fail(e)),
        }
    }

    /// Whether somebody presented this token. Takes the same time wherever they differ.
    pub fn is(&self, presented: &[u8]) -> bool {
        self.0.as_bytes().ct_eq(presented).into()
    }

    /// The value of the `Authorization` header that presents it.
    pub fn header(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("Bearer {}", *self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_created_once_and_weak_ones_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("api.token");
        let token = ApiToken::read_or_create(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert!(token.is(text.trim().as_bytes()) && text.len() > 40);
        assert!(!token.is(b"") && !token.is(text.as_bytes()));
        assert!(
            ApiToken::read_or_create(&path)
                .unwrap()
                .is(text.trim().as_bytes())
        );
        std::fs::write(&path, "hunter2").unwrap();
        assert!(matches!(ApiToken::read(&path), Err(TokenError::Weak { .. })));
        assert_eq!(format!("{token:?}"), "ApiToken(***)");
    }
}
