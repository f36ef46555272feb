//! The folder of backups that were made by themselves: one file each, named by its time.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use schemars::JsonSchema;
use serde::Serialize;
use tollgate_shm::write_atomically;

use super::{Archive, ArchiveError};

const PREFIX: &str = "tollgate-backup-";
const SUFFIX: &str = ".json";

/// A backup in the folder.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct BackupFile {
    /// Name of the file.
    pub name: String,
    /// When it was made, Unix milliseconds.
    pub created_at_ms: u64,
    /// Its length.
    pub bytes: u64,
}

/// The folder.
#[derive(Clone, Debug)]
pub struct BackupFolder(PathBuf);

fn time_of(name: &str) -> Option<u64> {
    name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX)?.parse().ok()
}

impl BackupFolder {
    /// At this place; it is made when it is needed.
    pub fn new(path: &Path) -> BackupFolder {
        BackupFolder(path.to_owned())
    }

    /// Its backups, newest first.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn list(&self) -> io::Result<Vec<BackupFile>> {
        let entries = match fs::read_dir(&self.0) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            entries => entries?,
        };
        let mut found = Vec::new();
        for entry in entries {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            if let Some(created_at_ms) = time_of(&name) {
                found.push(BackupFile {
                    created_at_ms,
                    bytes: entry.metadata()?.len(),
                    name,
                });
            }
        }
        found.sort_by_key(|file| std::cmp::Reverse(file.created_at_ms));
        Ok(found)
    }

    /// Reads a backup.
    ///
    /// # Errors
    /// `NotFound` if there is none of that name; `InvalidData` if it is damaged.
    pub fn read(&self, name: &str) -> io::Result<Archive> {
        if time_of(name).is_none() {
            return Err(io::ErrorKind::NotFound.into());
        }
        Ok(serde_json::from_slice(&fs::read(self.0.join(name))?)?)
    }

    /// Removes a backup; whether it was there.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn remove(&self, name: &str) -> io::Result<bool> {
        if time_of(name).is_none() {
            return Ok(false);
        }
        match fs::remove_file(self.0.join(name)) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(false),
            done => done.map(|()| true),
        }
    }

    /// Writes a backup, for its owner alone.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, archive: &Archive) -> io::Result<BackupFile> {
        use std::os::unix::fs::{DirBuilderExt, PermissionsExt};
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.0)?;
        let bytes = serde_json::to_vec(archive)?;
        let created_at_ms = archive.content.created_at_ms;
        let name = format!("{PREFIX}{created_at_ms}{SUFFIX}");
        let path = self.0.join(&name);
        write_atomically(&path, &bytes)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(BackupFile {
            name,
            created_at_ms,
            bytes: bytes.len() as u64,
        })
    }

    /// Removes all but the newest `keep`; how many.
    ///
    /// # Errors
    /// If one cannot be removed.
    pub fn prune(&self, keep: usize) -> io::Result<usize> {
        let mut removed = 0;
        for file in self.list()?.iter().skip(keep) {
            removed += usize::from(self.remove(&file.name)?);
        }
        Ok(removed)
    }
}

impl From<io::Error> for ArchiveError {
    fn from(error: io::Error) -> ArchiveError {
        ArchiveError::Json(serde_json::Error::io(error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::archive::Content;
    use std::collections::BTreeMap;

    fn archive(created_at_ms: u64) -> Archive {
        Archive {
            content: Content {
                format: super::super::FORMAT.into(),
                version: "0".into(),
                created_at_ms,
                documents: BTreeMap::new(),
                accounts: Vec::new(),
            },
            code: "x".into(),
        }
    }

    #[test]
    fn the_newest_stay_and_nothing_else_is_touched() {
        let dir = tempfile::tempdir().unwrap();
        let folder = BackupFolder::new(&dir.path().join("backups"));
        assert_eq!((folder.list().unwrap(), folder.prune(3).unwrap()), (vec![], 0));
        for at in [900, 1_000, 200, 30] {
            folder.write(&archive(at)).unwrap();
        }
        fs::write(dir.path().join("backups/notes.json"), "mine").unwrap();
        assert_eq!(folder.prune(2).unwrap(), 2);
        let left: Vec<u64> = folder.list().unwrap().iter().map(|f| f.created_at_ms).collect();
        assert_eq!(left, [1_000, 900]);
        assert!(dir.path().join("backups/notes.json").exists());
        let newest = folder.list().unwrap().remove(0).name;
        assert_eq!(folder.read(&newest).unwrap().content.created_at_ms, 1_000);
        use std::os::unix::fs::PermissionsExt;
        let mode = fs::metadata(dir.path().join("backups").join(&newest)).unwrap();
        assert_eq!(mode.permissions().mode() & 0o777, 0o600);
        for bad in [
            "notes.json",
            "../x",
            "tollgate-backup-.json",
            "tollgate-backup-1/../2.json",
        ] {
            assert_eq!(
                folder.read(bad).unwrap_err().kind(),
                io::ErrorKind::NotFound,
                "{bad}"
            );
            assert!(!folder.remove(bad).unwrap(), "{bad}");
        }
        assert!(folder.remove(&newest).unwrap() && !folder.remove(&newest).unwrap());
    }
}
