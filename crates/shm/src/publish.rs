//! Snapshot files: one immutable file per generation, mapped read-only by everyone who uses it.

use std::fs::{self, File};
use std::io::{self, Write};
use std::ops::Deref;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::ptr::NonNull;

use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};

/// Generations whose files are kept, so that a worker that has just read the number still finds its file.
const KEPT: u64 = 4;

/// A file mapped read-only. It must never be changed or truncated after it was published: files here are
/// written under another name and renamed.
pub struct MappedFile {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is read-only and lives until drop.
unsafe impl Send for MappedFile {}
// SAFETY: as above.
unsafe impl Sync for MappedFile {}

impl MappedFile {
    /// Maps a whole file; an empty one is an error.
    pub fn open(path: &Path) -> io::Result<MappedFile> {
        let file = File::open(path)?;
        let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
        if len == 0 {
            return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the file is empty"));
        }
        // SAFETY: a fresh private read-only mapping aliases no Rust object.
        let base = unsafe {
            mmap(
                std::ptr::null_mut(),
                len,
                ProtFlags::READ,
                MapFlags::SHARED,
                file.as_fd(),
                0,
            )?
        };
        let base = NonNull::new(base.cast()).ok_or_else(|| io::Error::other("mapped at address 0"))?;
        Ok(MappedFile { base, len })
    }
}

impl Deref for MappedFile {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        // SAFETY: base..base+len is our own mapping; files are published complete and never modified (see above).
        unsafe { std::slice::from_raw_parts(self.base.as_ptr(), self.len) }
    }
}

impl Drop for MappedFile {
    fn drop(&mut self) {
        // SAFETY: our own mapping, and no slice of it outlives self.
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len) };
    }
}

/// The snapshots in a region's folder.
pub struct SnapshotFiles {
    dir: PathBuf,
}

impl SnapshotFiles {
    /// Snapshots in this folder.
    pub fn new(dir: &Path) -> SnapshotFiles {
        SnapshotFiles { dir: dir.to_owned() }
    }

    /// Where a generation's file is.
    pub fn path(&self, generation: u64) -> PathBuf {
        self.dir.join(format!("snapshot.{generation}"))
    }

    /// Writes a generation's file, complete or not at all.
    pub fn write(&self, generation: u64, bytes: &[u8]) -> io::Result<()> {
        write_atomically(&self.path(generation), bytes)
    }

    /// Maps a generation's file.
    pub fn open(&self, generation: u64) -> io::Result<MappedFile> {
        MappedFile::open(&self.path(generation))
    }

    /// Removes files of generations that are well before `current`. Mappings of them stay valid.
    pub fn clean_up(&self, current: u64) -> io::Result<()> {
        for entry in fs::read_dir(&self.dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let generation = name
                .to_str()
                .and_then(|n| n.strip_prefix("snapshot."))
                .and_then(|n| n.parse::<u64>().ok());
            if generation.is_some_and(|g| g + KEPT <= current) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }
}

/// Writes a file under a temporary name, flushes it to the disk and renames it.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut temp = path.as_os_str().to_owned();
    temp.push(format!(".{}", std::process::id()));
    let temp = PathBuf::from(temp);
    let mut file = File::create(&temp)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(&temp, path)
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn a_mapping_outlives_its_file() {
        let dir = tempfile::tempdir().unwrap();
        let files = SnapshotFiles::new(dir.path());
        for g in 1..=9 {
            files.write(g, &[g as u8; 5000]).unwrap();
        }
        let old = files.open(2).unwrap();
        files.clean_up(9).unwrap();
        assert!(files.open(2).is_err());
        assert_eq!(files.open(6).unwrap()[..], [6; 5000]);
        assert_eq!(old[4999], 2);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 4);
    }
}
