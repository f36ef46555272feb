//! The head: how many rows there are and the hash of the last one, in a file apart from them.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use hmac::{Hmac, Mac};
use serde::{Deserialize, Serialize};
use sha2::Sha256;
use tollgate_shm::write_atomically;
use zeroize::Zeroizing;

use super::entry::hex;
use crate::secrets::MasterKey;

#[derive(Serialize, Deserialize)]
struct Stored {
    rows: u64,
    hash: String,
    code: String,
}

/// What the file says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Head {
    /// There is none.
    Missing,
    /// It is not what a daemon with this master key wrote.
    Foreign,
    /// This many rows, the last with this hash in hexadecimal.
    Rows(u64, String),
}

/// The file.
pub(super) struct HeadFile {
    path: PathBuf,
    key: Zeroizing<[u8; 32]>,
}

impl HeadFile {
    pub fn new(path: &Path, key: &MasterKey) -> HeadFile {
        HeadFile {
            path: path.to_owned(),
            key: key.derived("audit head"),
        }
    }

    fn mac(&self, rows: u64, hash: &str) -> Option<Hmac<Sha256>> {
        let mut mac = Hmac::<Sha256>::new_from_slice(self.key.as_slice()).ok()?;
        mac.update(&rows.to_le_bytes());
        mac.update(hash.as_bytes());
        Some(mac)
    }

    pub fn read(&self) -> io::Result<Head> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Head::Missing),
            Err(e) => return Err(e),
        };
        let Ok(stored) = serde_json::from_slice::<Stored>(&bytes) else {
            return Ok(Head::Foreign);
        };
        let right = self
            .mac(stored.rows, &stored.hash)
            .is_some_and(|mac| hex(&mac.finalize().into_bytes()) == stored.code);
        Ok(if right {
            Head::Rows(stored.rows, stored.hash)
        } else {
            Head::Foreign
        })
    }

    pub fn write(&self, rows: u64, hash: &str) -> io::Result<()> {
        let mac = self
            .mac(rows, hash)
            .ok_or_else(|| io::Error::other("no key for the head's code"))?;
        let stored = Stored {
            rows,
            hash: hash.to_owned(),
            code: hex(&mac.finalize().into_bytes()),
        };
        write_atomically(&self.path, &serde_json::to_vec(&stored)?)
    }
}
