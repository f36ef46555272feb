//! The counters of all limits on the disk, so that a reboot does not empty the windows.
//!
//! Format, little-endian words of 64 bits: magic, version, region id, region time in milliseconds, number of words,
//! the words of [`Region::export_counters`], XXH3-64 of everything before.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use tollgate_shm::{Region, write_atomically};
use xxhash_rust::xxh3::xxh3_64;

const MAGIC: u64 = u64::from_le_bytes(*b"TGCOUNTR");
const VERSION: u64 = 1;

/// A checkpoint file cannot be used.
#[derive(Debug)]
pub enum CheckpointError {
    /// It cannot be read.
    Io(io::Error),
    /// It is not one, or is damaged.
    Damaged,
    /// It was written by another version.
    Version(u64),
}

impl std::fmt::Display for CheckpointError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            CheckpointError::Io(e) => write!(f, "the counters' checkpoint cannot be read: {e}"),
            CheckpointError::Damaged => f.write_str("the counters' checkpoint is damaged"),
            CheckpointError::Version(v) => {
                write!(
                    f,
                    "the counters' checkpoint has version {v}, this program uses {VERSION}"
                )
            }
        }
    }
}
impl std::error::Error for CheckpointError {}

/// Writes and restores the checkpoint of a region.
pub struct Checkpoint {
    path: PathBuf,
    /// Hash of the words that were written last.
    written: Option<u64>,
}

fn bytes_of(words: impl IntoIterator<Item = u64>) -> Vec<u8> {
    words.into_iter().flat_map(u64::to_le_bytes).collect()
}

impl Checkpoint {
    /// The checkpoint in this file.
    pub fn new(path: PathBuf) -> Checkpoint {
        Checkpoint { path, written: None }
    }

    /// Writes the counters if they have changed. Returns whether they had.
    ///
    /// # Errors
    /// If the file cannot be written; the former one is still there then.
    pub fn write(&mut self, region: &Region) -> io::Result<bool> {
        let words = region.export_counters();
        let head = [MAGIC, VERSION, region.id(), region.now_ms(), words.len() as u64];
        let content = bytes_of(words);
        let hash = xxh3_64(&content);
        if self.written == Some(hash) {
            return Ok(false);
        }
        let mut bytes = bytes_of(head);
        bytes.extend(content);
        let check = xxh3_64(&bytes);
        bytes.extend(check.to_le_bytes());
        write_atomically(&self.path, &bytes)?;
        self.written = Some(hash);
        Ok(true)
    }

    /// Fills a new region from the file, once. Returns how many counters were restored; 0 if the region needs nothing
    /// or there is no file.
    ///
    /// # Errors
    /// If there is a file that cannot be used. The region counts as restored all the same: nothing better will come.
    pub fn restore(&self, region: &Region) -> Result<usize, CheckpointError> {
        if region.restored() {
            return Ok(0);
        }
        let read = Checkpoint::read(&self.path);
        let restored = match &read {
            Ok(Some((id, words))) if *id != region.id() => region.restore_counters(words),
            _ => 0,
        };
        region.set_restored();
        read.map(|_| restored)
    }

    fn read(path: &Path) -> Result<Option<(u64, Vec<u64>)>, CheckpointError> {
        let bytes = match fs::read(path) {
            Ok(bytes) => bytes,
            Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(e) => return Err(CheckpointError::Io(e)),
        };
        let (content, check) = bytes.split_last_chunk::<8>().ok_or(CheckpointError::Damaged)?;
        if xxh3_64(content) != u64::from_le_bytes(*check) {
            return Err(CheckpointError::Damaged);
        }
        let words: Vec<u64> = content
            .as_chunks::<8>()
            .0
            .iter()
            .map(|w| u64::from_le_bytes(*w))
            .collect();
        match words.as_slice() {
            [MAGIC, VERSION, id, _, count, rest @ ..] if *count == rest.len() as u64 => {
                Ok(Some((*id, rest.to_vec())))
            }
            [MAGIC, version, ..] if *version != VERSION => Err(CheckpointError::Version(*version)),
            _ => Err(CheckpointError::Damaged),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tollgate_shm::{Algorithm, Enforcement, LimitSpec, Metric, Sizes};

    fn region(dir: &Path) -> Region {
        let sizes = Sizes {
            counters: 64,
            inflight: 64,
            ring: 64,
            usage: 64,
        };
        Region::open_or_create(dir, sizes).unwrap()
    }

    fn limit() -> LimitSpec {
        LimitSpec {
            key: 16,
            metric: Metric::InputTokens,
            algorithm: Algorithm::SlidingWindow,
            enforcement: Enforcement::Strict,
            max: 1_000,
            window_ms: 3_600_000,
            burst: 1_000,
            max_delay_ms: 0,
            open_when_full: false,
            cluster: false,
        }
    }

    #[test]
    fn usage_survives_a_reboot_and_a_restart_changes_nothing() {
        let (first, second, state) = (
            tempfile::tempdir().unwrap(),
            tempfile::tempdir().unwrap(),
            tempfile::tempdir().unwrap(),
        );
        let path = state.path().join("counters.ckpt");
        let old = region(first.path());
        let mut checkpoint = Checkpoint::new(path.clone());
        assert_eq!(checkpoint.restore(&old).unwrap(), 0);
        old.restore_usage(&limit(), old.now_ms(), 70);
        assert!(checkpoint.write(&old).unwrap());
        assert!(!checkpoint.write(&old).unwrap(), "nothing has changed");
        let new = region(second.path());
        assert_eq!(Checkpoint::new(path.clone()).restore(&new).unwrap(), 1);
        assert_eq!(new.level(&limit(), new.now_ms()).used, 70);
        assert_eq!(Checkpoint::new(path).restore(&new).unwrap(), 0, "only once");
        assert_eq!(new.level(&limit(), new.now_ms()).used, 70);
    }

    #[test]
    fn a_damaged_checkpoint_is_refused_and_the_region_goes_on_empty() {
        let (dir, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let path = state.path().join("counters.ckpt");
        let r = region(dir.path());
        r.restore_usage(&limit(), r.now_ms(), 70);
        Checkpoint::new(path.clone()).write(&r).unwrap();
        let whole = fs::read(&path).unwrap();
        for at in [0, 8, 20, whole.len() - 1] {
            let mut bytes = whole.clone();
            bytes[at] ^= 1;
            fs::write(&path, bytes).unwrap();
            assert!(matches!(Checkpoint::read(&path), Err(CheckpointError::Damaged)));
        }
        for len in [0, 7, 8, 47, whole.len() - 1] {
            fs::write(&path, &whole[..len]).unwrap();
            assert!(matches!(Checkpoint::read(&path), Err(CheckpointError::Damaged)));
        }
        let other = tempfile::tempdir().unwrap();
        let new = region(other.path());
        assert!(Checkpoint::new(path).restore(&new).is_err());
        assert!(new.restored());
    }
}
