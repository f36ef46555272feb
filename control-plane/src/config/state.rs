//! What the daemon remembers of its configuration in the state folder: the last snapshot that was in force, and what
//! it was made of.

use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::FlockOperation;
use serde::{Deserialize, Serialize};
use tollgate_policy::Snapshot;
use tollgate_shm::write_atomically;

/// The state folder (`/var/lib/tollgate`), locked against other daemons as long as a clone of this lives.
#[derive(Clone, Debug)]
pub struct StateFolder {
    path: PathBuf,
    _lock: Arc<File>,
}

/// The last good configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LastGood {
    /// Its generation; generations grow over restarts.
    pub generation: u64,
    /// What it was compiled from; an equal fingerprint needs no new generation.
    pub fingerprint: String,
}

impl StateFolder {
    /// The folder, created with mode 0750 if need be.
    ///
    /// # Errors
    /// If it cannot be created, or another process uses it (`WouldBlock`): two would spoil each other's ledger.
    pub fn open(path: &Path) -> io::Result<StateFolder> {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new().recursive(true).mode(0o750).create(path)?;
        let lock = File::create(path.join("lock"))?;
        rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive)?;
        Ok(StateFolder {
            path: path.to_owned(),
            _lock: Arc::new(lock),
        })
    }

    /// A file in it.
    pub fn file(&self, name: &str) -> PathBuf {
        self.path.join(name)
    }

    /// The last snapshot that was in force; nginx uses it when it starts before the daemon.
    pub fn snapshot(&self) -> PathBuf {
        self.file("snapshot.last")
    }

    /// What is known of the last good configuration; nothing if the file is missing or unreadable.
    pub fn last_good(&self) -> LastGood {
        fs::read(self.file("generation.json"))
            .ok()
            .and_then(|bytes| serde_json::from_slice(&bytes).ok())
            .unwrap_or_default()
    }

    /// Remembers a configuration. Called before its generation is published, so that its number is never used again.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn remember(&self, last: &LastGood) -> io::Result<()> {
        let bytes = serde_json::to_vec(last)?;
        write_atomically(&self.file("generation.json"), &bytes)
    }

    /// The last snapshot, if it is whole and readable by this version.
    pub fn last_snapshot(&self) -> Option<Vec<u8>> {
        let bytes = fs::read(self.snapshot()).ok()?;
        let whole = Snapshot::open(&bytes).is_ok_and(|s| s.verify().is_ok());
        whole.then_some(bytes)
    }

    /// Replaces the last snapshot.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn remember_snapshot(&self, bytes: &[u8]) -> io::Result<()> {
        write_atomically(&self.snapshot(), bytes)
    }
}
