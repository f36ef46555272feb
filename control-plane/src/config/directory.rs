//! Documents as `*.json` files in a folder.
//!
//! The folder is looked at every 20 ms (a dozen `stat` calls, some 20 µs): that works on every file system and through
//! every way of replacing a file, and stays well inside the 100 ms that a change may take to the workers. A file
//! whose time stamp is younger than [`RACY`] is read again even if the stamp does not change, because two writes can
//! fall into one tick of the file system's clock.

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

use super::{ConfigSource, Document, DocumentSet, Etag, PutError};

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
    dir: PathBuf,
    documents: watch::Sender<Arc<DocumentSet>>,
    /// Held while a document is compared and replaced; others who write into the folder do not know it.
    writing: Mutex<()>,
    watcher: Option<(Sender<()>, JoinHandle<()>)>,
}

impl Directory {
    /// Reads the folder and begins to watch it.
    ///
    /// # Errors
    /// If the folder cannot be read or no thread be started.
    pub fn watch(dir: &Path) -> io::Result<Directory> {
        let stamps = stamps(dir)?;
        let documents = watch::Sender::new(Arc::new(read(dir, &stamps)));
        let (stop, stopped) = channel();
        let watched = Watched {
            dir: dir.to_owned(),
            documents: documents.clone(),
            taken: stamps,
            failed: false,
        };
        let thread = std::thread::Builder::new()
            .name("config".into())
            .spawn(move || watched.run(&stopped))?;
        Ok(Directory {
            dir: dir.to_owned(),
            documents,
            writing: Mutex::new(()),
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
    dir: PathBuf,
    documents: watch::Sender<Arc<DocumentSet>>,
    taken: Stamps,
    failed: bool,
}

impl Watched {
    fn run(mut self, stopped: &std::sync::mpsc::Receiver<()>) {
        let mut before: Option<Stamps> = None;
        let mut restless = 0;
        while stopped.recv_timeout(PERIOD) == Err(RecvTimeoutError::Timeout) {
            let now = match stamps(&self.dir) {
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
            let set = read(&self.dir, &now);
            self.taken = now;
            self.failed = false;
            self.documents.send_if_modified(|present| {
                let differs = **present != set;
                if differs {
                    *present = Arc::new(set);
                }
                differs
            });
        }
    }

    /// The documents are what they were, but nobody can say whether they still are.
    fn fail(&mut self, error: &io::Error) {
        if !self.failed {
            self.failed = true;
            let reason = format!("the folder cannot be read: {error}");
            let mut set = DocumentSet::clone(&self.documents.borrow());
            set.problems = vec![Problem::error("", "", reason)];
            self.documents.send_replace(Arc::new(set));
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
        self.documents.subscribe()
    }

    fn put(&self, name: &str, bytes: &[u8], expected: Option<&Etag>) -> Result<(), PutError> {
        let failed = |source| PutError::Failed { source };
        let _writing = self
            .writing
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        let path = self.dir.join(name);
        let present = match fs::read(&path) {
            Ok(bytes) => Some(Etag::of(&bytes)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => None,
            Err(e) => return Err(failed(e)),
        };
        if present.as_ref() != expected {
            return Err(PutError::Changed { present });
        }
        replace(&path, bytes).map_err(failed)
    }

    fn describe(&self) -> String {
        format!("the folder {}", self.dir.display())
    }
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
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    async fn until(source: &Directory, what: impl Fn(&DocumentSet) -> bool) {
        let mut documents = source.documents();
        tokio::time::timeout(Duration::from_secs(30), documents.wait_for(|set| what(set)))
            .await
            .expect("the folder's change was not seen")
            .unwrap();
    }

    fn content<'a>(set: &'a DocumentSet, name: &str) -> Option<&'a [u8]> {
        set.get(name).map(|d| &*d.bytes)
    }

    #[tokio::test]
    async fn every_change_of_the_folder_is_seen() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str| dir.path().join(name);
        fs::write(file("channels.json"), "1").unwrap();
        fs::write(file(".hidden.json"), "x").unwrap();
        fs::write(file("readme.txt"), "x").unwrap();
        let source = Directory::watch(dir.path()).unwrap();
        let names = |set: &DocumentSet| set.documents.iter().map(|d| d.name.clone()).collect::<Vec<_>>();
        assert_eq!(names(&source.documents().borrow()), ["channels.json"]);
        // The same size, right after the first: only the content differs.
        for i in 0..5 {
            let text = format!("{i}");
            fs::write(file("channels.json"), &text).unwrap();
            until(&source, |set| {
                content(set, "channels.json") == Some(text.as_bytes())
            })
            .await;
        }
        fs::write(file("new"), "3").unwrap();
        fs::rename(file("new"), file("models.json")).unwrap();
        until(&source, |set| names(set) == ["channels.json", "models.json"]).await;
        fs::remove_file(file("channels.json")).unwrap();
        until(&source, |set| names(set) == ["models.json"]).await;
        fs::create_dir(file("other")).unwrap();
        fs::write(file("other/rules.json"), "4").unwrap();
        std::os::unix::fs::symlink(file("other/rules.json"), file("rules.json")).unwrap();
        until(&source, |set| content(set, "rules.json") == Some(b"4")).await;
        fs::remove_dir_all(dir.path()).unwrap();
        until(&source, |set| !set.problems.is_empty()).await;
        assert_eq!(
            names(&source.documents().borrow()).len(),
            2,
            "what was read stays"
        );
    }

    #[test]
    fn a_document_is_replaced_only_if_it_is_the_version_that_was_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("rules.json");
        let source = Directory::watch(dir.path()).unwrap();
        source.put("rules.json", b"1", None).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o604)).unwrap();
        assert!(matches!(
            source.put("rules.json", b"2", None),
            Err(PutError::Changed { present: Some(_) })
        ));
        source.put("rules.json", b"2", Some(&Etag::of(b"1"))).unwrap();
        assert!(source.put("rules.json", b"3", Some(&Etag::of(b"1"))).is_err());
        assert_eq!(fs::read(&path).unwrap(), b"2");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o604);
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
