//! Passwords: argon2id, and passwords that are made up.

use argon2::password_hash::{PasswordHash, PasswordHasher, PasswordVerifier, SaltString};
use argon2::{Algorithm, Argon2, Params, Version};

use super::RecordsError;

/// Shortest password, characters. Length is what counts; rules about kinds of characters do not.
pub(super) const SHORTEST: usize = 10;
/// Longest password, bytes: nobody types more, and hashing takes time.
pub(super) const LONGEST: usize = 256;

/// 19 MiB, two passes, one lane: the first choice of OWASP's password storage cheat sheet.
const MEMORY_KIB: u32 = 19 * 1_024;
const PASSES: u32 = 2;

/// Hashes and verifies. One at a time takes about 20 ms of a core and 19 MiB; callers bound how many run at once.
pub struct Hasher {
    argon: Argon2<'static>,
    /// What the password of a name that does not exist is compared with, so that it takes as long.
    nobody: String,
}

fn failed(error: impl std::fmt::Display) -> RecordsError {
    RecordsError {
        action: "hash a password",
        source: error.to_string().into(),
    }
}

impl Hasher {
    /// A hasher with the usual cost.
    ///
    /// # Errors
    /// If the system gives no random numbers.
    pub fn new() -> Result<Hasher, RecordsError> {
        let params = Params::new(MEMORY_KIB, PASSES, 1, None).map_err(failed)?;
        let mut hasher = Hasher {
            argon: Argon2::new(Algorithm::Argon2id, Version::V0x13, params),
            nobody: String::new(),
        };
        hasher.nobody = hasher.hash("nobody has this password")?;
        Ok(hasher)
    }

    /// The hash of a password, with a salt of its own, in PHC form.
    ///
    /// # Errors
    /// If the system gives no random numbers.
    pub fn hash(&self, password: &str) -> Result<String, RecordsError> {
        let mut salt = [0; 16];
        getrandom::fill(&mut salt).map_err(failed)?;
        let salt = SaltString::encode_b64(&salt).map_err(failed)?;
        let hash = self
            .argon
            .hash_password(password.as_bytes(), &salt)
            .map_err(failed)?;
        Ok(hash.to_string())
    }

    /// Whether the password is the one that was hashed; takes as long for a name without a hash.
    pub fn verify(&self, password: &str, hash: Option<&str>) -> bool {
        let parsed = PasswordHash::new(hash.unwrap_or(&self.nobody));
        let right = parsed.is_ok_and(|hash| self.argon.verify_password(password.as_bytes(), &hash).is_ok());
        right && hash.is_some()
    }
}

/// A password that is made up: 20 characters of an alphabet without look-alikes, 99 bits.
///
/// # Errors
/// If the system gives no random numbers.
pub fn generated() -> Result<String, RecordsError> {
    const ALPHABET: &[u8; 31] = b"abcdefghjkmnpqrstuvwxyz23456789";
    let mut password = String::with_capacity(23);
    while password.len() < 23 {
        let mut bytes = [0; 32];
        getrandom::fill(&mut bytes).map_err(failed)?;
        // What lies beyond a multiple of the alphabet's length is thrown away: each letter is as likely as another.
        for letter in bytes
            .iter()
            .filter(|b| **b < 248)
            .filter_map(|b| ALPHABET.get(usize::from(b % 31)))
        {
            if password.len() == 23 {
                break;
            }
            if password.len() % 6 == 5 {
                password.push('-');
            }
            password.push(char::from(*letter));
        }
    }
    Ok(password)
}

/// What is wrong with a new password.
pub(super) fn fault(password: &str, name: &str) -> Option<&'static str> {
    if password.chars().count() < SHORTEST {
        Some("must have at least 10 characters")
    } else if password.len() > LONGEST {
        Some("must have at most 256 bytes")
    } else if password.eq_ignore_ascii_case(name) {
        Some("must not be the account's name")
    } else {
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_verify_and_nobody_has_none() {
        let hasher = Hasher::new().unwrap();
        let hash = hasher.hash("correct horse battery").unwrap();
        assert!(hash.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{hash}");
        assert_ne!(
            hash,
            hasher.hash("correct horse battery").unwrap(),
            "salts differ"
        );
        assert!(hasher.verify("correct horse battery", Some(&hash)));
        assert!(!hasher.verify("correct horse batterx", Some(&hash)));
        assert!(!hasher.verify("nobody has this password", None));
        assert!(!hasher.verify("x", Some("not a hash")));
    }

    #[test]
    fn made_up_passwords_are_long_and_differ() {
        let password = generated().unwrap();
        assert_eq!(
            (password.len(), password.matches('-').count()),
            (23, 3),
            "{password}"
        );
        assert_ne!(password, generated().unwrap());
        assert_eq!(fault(&password, "admin"), None);
        assert!(fault("short", "admin").is_some());
        assert!(fault(&"x".repeat(257), "admin").is_some());
        assert!(fault("Administrator", "administrator").is_some());
    }
}
