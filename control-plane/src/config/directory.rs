//! Documents as `*.json` files in a folder.
//!
//! The folder is looked at every 20 ms (a dozen `stat` calls, some 20 µs): that works on every file system and through
//! every way of replacing a file, and stays well inside the 100 ms that a change may take to the workers. A file
//! whose time stamp is younger than [`RACY`] is read again even if the stamp does not change, because two writes can
//! fall into one tick of the file system's clock.
//!
//! What is published through us is written, and becomes a version, while the watcher waits: nobody sees the half of it.
//! What was edited in the folder itself becomes a version when it has taken effect.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, SystemTime};

use tokio::sync::watch;
use tollgate_policy::Problem;

use super::version::{Change, Version, etags};
use super::versions::{VersionFolder, Versions, contents};
use super::{ConfigSource, Document, DocumentSet, PutError};

/// Time between two looks.
const PERIOD: Duration = Duration::from_millis(20);
/// A file that changes with every look is taken as it is after this many of them.
const RESTLESS: u32 = 5;
/// See the module's text.
const RACY: Duration = Duration::from_millis(200);
/// Longest document.
const MAX_BYTES: u64 = 512 << 20;

#[derive(Clone, Debug, PartialEq, Eq)]
struct Stamp {
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

type Stamps = BTreeMap<String, Stamp>;

/// A folder of documents.
pub struct Directory {
    shared: Arc<Shared>,
    watcher: Option<(Sender<()>, JoinHandle<()>)>,
}

struct Shared {
    dir: PathBuf,
    instance: Option<String>,
    documents: watch::Sender<Arc<DocumentSet>>,
    /// Held while documents are compared and replaced; others who write into the folder do not know it.
    writing: Mutex<()>,
    versions: Option<VersionFolder>,
}

impl Shared {
    fn lock(&self) -> std::sync::MutexGuard<'_, ()> {
        self.writing
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// The documents as they are now.
    fn read(&self, stamps: &Stamps) -> DocumentSet {
        let mut set = read(&self.dir, stamps);
        set.instance.clone_from(&self.instance);
        set.version = self.version_of(&set);
        set
    }

    /// The present version's number if these are its documents.
    fn version_of(&self, set: &DocumentSet) -> Option<u64> {
        let head = self.versions.as_ref()?.head().ok()??;
        (head.documents == etags(set)).then_some(head.number)
    }

    fn announce(&self, set: DocumentSet) {
        self.documents.send_if_modified(|present| {
            let differs = **present != set;
            if differs {
                *present = Arc::new(set);
            }
            differs
        });
    }
}

impl Directory {
    /// Reads the folder and begins to watch it. Nothing can be published in it.
    ///
    /// # Errors
    /// If the folder cannot be read or no thread be started.
    pub fn watch(dir: &Path) -> io::Result<Directory> {
        Directory::open(dir, None, None)
    }

    /// As [`Directory::watch`], for the instance of that name, and with a folder for versions: documents can be
    /// published.
    ///
    /// # Errors
    /// As [`Directory::watch`].
    pub fn open(
        dir: &Path,
        versions: Option<VersionFolder>,
        instance: Option<String>,
    ) -> io::Result<Directory> {
        let taken = stamps(dir)?;
        let shared = Arc::new(Shared {
            dir: dir.to_owned(),
            instance,
            documents: watch::Sender::default(),
            writing: Mutex::new(()),
            versions,
        });
        shared.announce(shared.read(&taken));
        let (stop, stopped) = channel();
        let watched = Watched {
            shared: Arc::clone(&shared),
            taken,
            failed: false,
        };
        let thread = std::thread::Builder::new()
            .name("config".into())
            .spawn(move || watched.run(&stopped))?;
        Ok(Directory {
            shared,
            watcher: Some((stop, thread)),
        })
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.watcher.take() {
            drop(stop);
            let _ = thread.join();
        }
    }
}

struct Watched {
    shared: Arc<Shared>,
    taken: Stamps,
    failed: bool,
}

impl Watched {
    fn run(mut self, stopped: &std::sync::mpsc::Receiver<()>) {
        let mut before: Option<Stamps> = None;
        let mut restless = 0;
        while stopped.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
            let shared = Arc::clone(&self.shared);
            let writing = shared.lock();
            let now = match stamps(&shared.dir) {
                Ok(now) => now,
                Err(error) => {
                    self.fail(&error);
                    continue;
                }
            };
            if now == self.taken && !self.failed && !is_racy(&now) {
                before = None;
                continue;
            }
            // Half-written files: wait until two looks agree, but not for ever.
            restless += 1;
            if before.as_ref() != Some(&now) && now != self.taken && restless < RESTLESS {
                before = Some(now);
                continue;
            }
            (before, restless) = (None, 0);
            let set = shared.read(&now);
            self.taken = now;
            self.failed = false;
            shared.announce(set);
            drop(writing);
        }
    }

    /// The documents are what they were, but nobody can say whether they still are.
    fn fail(&mut self, error: &io::Error) {
        if !self.failed {
            self.failed = true;
            let reason = format!("the folder cannot be read: {error}");
            let mut set = DocumentSet::clone(&self.shared.documents.borrow());
            set.problems = vec![Problem::error("", "", reason)];
            self.shared.documents.send_replace(Arc::new(set));
        }
    }
}

fn is_racy(stamps: &Stamps) -> bool {
    let now = SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .unwrap_or_default();
    let age = |(seconds, nanos): (i64, i64)| {
        let at = Duration::new(seconds.try_into().unwrap_or(0), nanos.try_into().unwrap_or(0));
        now.saturating_sub(at)
    };
    stamps.values().any(|s| age(s.modified.max(s.changed)) < RACY)
}

fn stamps(dir: &Path) -> io::Result<Stamps> {
    let mut found = Stamps::new();
    for entry in fs::read_dir(dir)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        if name.starts_with('.') || !name.ends_with(".json") {
            continue;
        }
        // Followed, so that a mounted folder of links works; a file that is gone by now is gone.
        let Ok(meta) = fs::metadata(entry.path()) else {
            continue;
        };
        if meta.is_file() {
            let stamp = Stamp {
                inode: meta.ino(),
                size: meta.size(),
                modified: (meta.mtime(), meta.mtime_nsec()),
                changed: (meta.ctime(), meta.ctime_nsec()),
            };
            found.insert(name, stamp);
        }
    }
    Ok(found)
}

fn read(dir: &Path, stamps: &Stamps) -> DocumentSet {
    let mut set = DocumentSet::default();
    for (name, stamp) in stamps {
        if stamp.size > MAX_BYTES {
            let reason = format!(
                "{} bytes are more than a document may have ({MAX_BYTES})",
                stamp.size
            );
            set.problems.push(Problem::error(name, "", reason));
            continue;
        }
        match fs::read(dir.join(name)) {
            Ok(bytes) => set.documents.push(Document::new(name, bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            Err(e) => set
                .problems
                .push(Problem::error(name, "", format!("cannot be read: {e}"))),
        }
    }
    set
}

impl ConfigSource for Directory {
    fn documents(&self) -> watch::Receiver<Arc<DocumentSet>> {
        self.shared.documents.subscribe()
    }

    fn publish(&self, change: &Change) -> Result<Version, PutError> {
        let shared = &*self.shared;
        let versions = shared.versions.as_ref().ok_or(PutError::ReadOnly)?;
        let _writing = shared.lock();
        let before = shared.read(&stamps(&shared.dir)?);
        let mut after = before.clone();
        for edit in &change.edits {
            let present = before.get(&edit.name).map(|d| d.etag.clone());
            if !edit.expected.holds(present.as_ref()) {
                let document = edit.name.clone();
                return Err(PutError::Changed { document, present });
            }
            after = match &edit.bytes {
                Some(bytes) => after.with(Document::new(edit.name.clone(), Arc::clone(bytes))),
                None => after.without(&edit.name),
            };
        }
        let head = versions.head()?;
        let documents = etags(&after);
        if let Some(head) = head.as_ref().filter(|h| h.documents == documents) {
            write_all(&shared.dir, &before, &after)?;
            return Ok(head.clone());
        }
        let version = Version::after(head.as_ref(), &change.author, &change.message, documents);
        write_all(&shared.dir, &before, &after)?;
        if let Err(error) = versions.keep(&version, &contents(&after)) {
            write_all(&shared.dir, &after, &before)?;
            return Err(error.into());
        }
        after.version = Some(version.number);
        shared.announce(after);
        Ok(version)
    }

    fn adopt(&self, set: &Arc<DocumentSet>) {
        let shared = &*self.shared;
        let Some(versions) = shared.versions.as_ref().filter(|_| set.version.is_none()) else {
            return;
        };
        let _writing = shared.lock();
        let present = DocumentSet::clone(&shared.documents.borrow());
        let documents = etags(set);
        // Something else is there by now, and will take effect or not.
        if etags(&present) != documents {
            return;
        }
        let kept = versions.head().map_err(io::Error::other).and_then(|head| {
            let known = head.as_ref().filter(|h| h.documents == documents);
            if let Some(known) = known {
                return Ok(known.number);
            }
            let names = Version::after(head.as_ref(), "", "", documents.clone()).changed(head.as_ref());
            let message = format!("edited in the folder: {}", names.join(", "));
            let version = Version::after(head.as_ref(), "folder", &message, documents.clone());
            versions.keep(&version, &contents(set))?;
            Ok(version.number)
        });
        match kept {
            Ok(number) => shared.announce(DocumentSet {
                version: Some(number),
                ..present
            }),
            Err(error) => tracing::error!(%error, "what is in force could not be kept as a version"),
        }
    }

    fn versions(&self) -> Option<&dyn Versions> {
        self.shared.versions.as_ref().map(|v| v as &dyn Versions)
    }

    fn last_good(&self) -> Option<DocumentSet> {
        let mut set = self.shared.versions.as_ref()?.present().ok()??;
        set.instance.clone_from(&self.shared.instance);
        Some(set)
    }

    fn describe(&self) -> String {
        format!("the folder {}", self.shared.dir.display())
    }
}

/// Makes the folder's documents those of `after`; if that fails half-way, those of `before` again.
fn write_all(dir: &Path, before: &DocumentSet, after: &DocumentSet) -> io::Result<()> {
    let mut done: Vec<&str> = Vec::new();
    let names = after.documents.iter().chain(&before.documents).map(|d| &d.name);
    let write = |name: &str, to: &DocumentSet| match to.get(name) {
        Some(document) => replace(&dir.join(name), &document.bytes),
        None => fs::remove_file(dir.join(name)),
    };
    for name in names {
        let same = before.get(name).map(|d| &d.etag) == after.get(name).map(|d| &d.etag);
        if same || done.contains(&name.as_str()) {
            continue;
        }
        if let Err(error) = write(name, after) {
            for name in done {
                if let Err(error) = write(name, before) {
                    tracing::error!(document = name, %error, "could not be put back");
                }
            }
            return Err(error);
        }
        done.push(name);
    }
    Ok(())
}

/// Writes a file as a whole and keeps its mode. A link is followed, so that the link stays one.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let target = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let folder = target.parent().unwrap_or(Path::new("."));
    let name = target.file_name().unwrap_or_default().to_string_lossy();
    let temp = folder.join(format!(".{name}.{}", std::process::id()));
    let permissions = fs::metadata(&target).map(|m| m.permissions());
    let _ = fs::remove_file(&temp);
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o640)
        .open(&temp)?;
    let written = file.write_all(bytes).and_then(|()| {
        if let Ok(permissions) = permissions {
            file.set_permissions(permissions)?;
        }
        file.sync_all()?;
        fs::rename(&temp, &target)
    });
    if written.is_err() {
        let _ = fs::remove_file(&temp);
    }
    written
}

#[cfg(test)]
mod tests;
