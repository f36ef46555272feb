//! Everything that was ever published: a record per version, and each content once, under its hash.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tollgate_shm::write_atomically;

use super::version::{Edit, Expected, FORMAT, Version};
use super::{DocumentSet, Etag};

/// A version cannot be had.
#[derive(Debug)]
pub enum VersionsError {
    /// Its record, or a content that it names, is not there any more.
    Missing(String),
    /// It is there, and not what it should be.
    Damaged(String),
    /// It was written by a later version of this program.
    Newer(String),
    /// The place where it is kept failed; worth a retry.
    Failed(String),
}

impl std::fmt::Display for VersionsError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            VersionsError::Missing(what) => write!(f, "{what} is not kept any more"),
            VersionsError::Damaged(what) => write!(f, "{what} is damaged"),
            VersionsError::Newer(what) => write!(f, "{what} was written by a later version of tollgate"),
            VersionsError::Failed(why) => write!(f, "the versions cannot be read: {why}"),
        }
    }
}
impl std::error::Error for VersionsError {}

/// Versions, newest last. All of it may block.
pub trait Versions: Send + Sync {
    /// The present version; `None` if nothing was published yet.
    ///
    /// # Errors
    /// See [`VersionsError`].
    fn head(&self) -> Result<Option<Version>, VersionsError>;

    /// A version by its number.
    ///
    /// # Errors
    /// See [`VersionsError`].
    fn version(&self, number: u64) -> Result<Version, VersionsError>;

    /// A content by its hash.
    ///
    /// # Errors
    /// See [`VersionsError`].
    fn content(&self, etag: &Etag) -> Result<Arc<[u8]>, VersionsError>;
}

/// Up to `limit` versions before the number `before` (the present one included by default), newest first. What is not
/// kept any more ends the list.
///
/// # Errors
/// If the first of them cannot be had.
pub fn list(
    versions: &dyn Versions,
    before: Option<u64>,
    limit: usize,
) -> Result<Vec<Version>, VersionsError> {
    let Some(head) = versions.head()? else {
        return Ok(Vec::new());
    };
    let newest = before.map_or(head.number, |n| n.saturating_sub(1).min(head.number));
    let mut found = Vec::new();
    for number in (1..=newest).rev().take(limit) {
        match versions.version(number) {
            Ok(version) => found.push(version),
            Err(VersionsError::Missing(_)) => break,
            Err(error) if found.is_empty() => return Err(error),
            Err(_) => break,
        }
    }
    Ok(found)
}

/// What has to be edited so that the present documents become those of a version again, byte for byte.
///
/// # Errors
/// If one of them is not kept any more.
pub fn edits_back_to(
    versions: &dyn Versions,
    present: &DocumentSet,
    target: &Version,
) -> Result<Vec<Edit>, VersionsError> {
    let mut edits = Vec::new();
    for (name, etag) in &target.documents {
        let there = present.get(name).map(|d| &d.etag);
        if there != Some(etag) {
            edits.push(Edit {
                name: name.clone(),
                bytes: Some(versions.content(etag)?),
                expected: Expected::exactly(there),
            });
        }
    }
    for document in &present.documents {
        if !target.documents.contains_key(&document.name) {
            edits.push(Edit {
                name: document.name.clone(),
                bytes: None,
                expected: Expected::Exactly(document.etag.clone()),
            });
        }
    }
    Ok(edits)
}

/// Reads a version's record.
pub fn decode(what: &str, bytes: &[u8]) -> Result<Version, VersionsError> {
    let tree: serde_json::Value =
        serde_json::from_slice(bytes).map_err(|_| VersionsError::Damaged(what.to_owned()))?;
    let format = tree.get("format").and_then(serde_json::Value::as_u64);
    if format.is_some_and(|f| f > u64::from(FORMAT)) {
        return Err(VersionsError::Newer(what.to_owned()));
    }
    serde_json::from_value(tree).map_err(|_| VersionsError::Damaged(what.to_owned()))
}

/// Versions in a folder: `head.json`, `version.<n>.json`, `content.<hash>`. Contents and records never change once
/// they are there; the head moves last.
pub struct VersionFolder {
    dir: PathBuf,
}

impl VersionFolder {
    /// The versions in a folder, which is made with mode 0750 if need be: contents hold sealed credentials.
    ///
    /// # Errors
    /// If it cannot be made.
    pub fn open(dir: &Path) -> io::Result<VersionFolder> {
        use std::os::unix::fs::DirBuilderExt;
        fs::DirBuilder::new().recursive(true).mode(0o750).create(dir)?;
        Ok(VersionFolder { dir: dir.to_owned() })
    }

    fn read(&self, name: &str, what: &str) -> Result<Vec<u8>, VersionsError> {
        fs::read(self.dir.join(name)).map_err(|e| match e.kind() {
            io::ErrorKind::NotFound => VersionsError::Missing(what.to_owned()),
            _ => VersionsError::Failed(format!("{}: {e}", self.dir.join(name).display())),
        })
    }

    /// Keeps a version and makes it the present one. `contents` are those of its documents that may be new.
    ///
    /// # Errors
    /// If something cannot be written; the head is still the former one then.
    pub fn keep(&self, version: &Version, contents: &[(Etag, Arc<[u8]>)]) -> io::Result<()> {
        for (etag, bytes) in contents {
            let path = self.dir.join(format!("content.{}", etag.as_str()));
            if !path.exists() {
                write_atomically(&path, bytes)?;
            }
        }
        let record = serde_json::to_vec_pretty(version)?;
        write_atomically(
            &self.dir.join(format!("version.{}.json", version.number)),
            &record,
        )?;
        write_atomically(&self.dir.join("head.json"), &record)
    }

    /// The documents of the present version.
    ///
    /// # Errors
    /// If one is missing.
    pub fn present(&self) -> Result<Option<DocumentSet>, VersionsError> {
        let Some(head) = self.head()? else {
            return Ok(None);
        };
        let mut set = DocumentSet {
            version: Some(head.number),
            ..DocumentSet::default()
        };
        for (name, etag) in &head.documents {
            let bytes = self.content(etag)?;
            set.documents.push(super::Document::new(name.clone(), bytes));
        }
        Ok(Some(set))
    }
}

impl Versions for VersionFolder {
    fn head(&self) -> Result<Option<Version>, VersionsError> {
        match self.read("head.json", "the present version") {
            Ok(bytes) => decode("the present version", &bytes).map(Some),
            Err(VersionsError::Missing(_)) => Ok(None),
            Err(error) => Err(error),
        }
    }

    fn version(&self, number: u64) -> Result<Version, VersionsError> {
        let what = format!("version {number}");
        decode(&what, &self.read(&format!("version.{number}.json"), &what)?)
    }

    fn content(&self, etag: &Etag) -> Result<Arc<[u8]>, VersionsError> {
        let what = format!("the content {}", etag.as_str());
        let bytes = self.read(&format!("content.{}", etag.as_str()), &what)?;
        if Etag::of(&bytes) != *etag {
            return Err(VersionsError::Damaged(what));
        }
        Ok(bytes.into())
    }
}

/// Contents of a set by their hash.
pub fn contents(set: &DocumentSet) -> Vec<(Etag, Arc<[u8]>)> {
    let unique: BTreeMap<&Etag, &Arc<[u8]>> = set.documents.iter().map(|d| (&d.etag, &d.bytes)).collect();
    unique
        .into_iter()
        .map(|(etag, bytes)| (etag.clone(), Arc::clone(bytes)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::super::version::etags;
    use super::*;
    use crate::config::Document;

    fn set(list: &[(&str, &str)]) -> DocumentSet {
        DocumentSet {
            documents: list
                .iter()
                .map(|(name, text)| Document::new(*name, text.as_bytes()))
                .collect(),
            ..DocumentSet::default()
        }
    }

    fn keep(folder: &VersionFolder, set: &DocumentSet) -> Version {
        let version = Version::after(folder.head().unwrap().as_ref(), "me", "why", etags(set));
        folder.keep(&version, &contents(set)).unwrap();
        version
    }

    #[test]
    fn versions_are_kept_and_listed_newest_first() {
        let dir = tempfile::tempdir().unwrap();
        let folder = VersionFolder::open(&dir.path().join("versions")).unwrap();
        assert_eq!(folder.head().unwrap(), None);
        assert!(list(&folder, None, 10).unwrap().is_empty());
        let one = keep(&folder, &set(&[("a", "1"), ("b", "1")]));
        let two = keep(&folder, &set(&[("a", "2"), ("c", "1")]));
        assert_eq!(folder.head().unwrap(), Some(two.clone()));
        assert_eq!(list(&folder, None, 10).unwrap(), [two.clone(), one.clone()]);
        assert_eq!(list(&folder, Some(2), 10).unwrap(), std::slice::from_ref(&one));
        assert_eq!(list(&folder, None, 1).unwrap(), std::slice::from_ref(&two));
        assert!(matches!(folder.version(3), Err(VersionsError::Missing(_))));
        let edits = edits_back_to(&folder, &folder.present().unwrap().unwrap(), &one).unwrap();
        let shown: Vec<_> = edits
            .iter()
            .map(|e| (e.name.as_str(), e.bytes.as_deref()))
            .collect();
        assert_eq!(
            shown,
            [("a", Some(&b"1"[..])), ("b", Some(&b"1"[..])), ("c", None)]
        );
    }

    #[test]
    fn what_is_damaged_or_newer_is_not_taken_for_something_else() {
        let dir = tempfile::tempdir().unwrap();
        let folder = VersionFolder::open(dir.path()).unwrap();
        let one = keep(&folder, &set(&[("a", "1")]));
        let content = dir
            .path()
            .join(format!("content.{}", one.documents["a"].as_str()));
        fs::write(content, "2").unwrap();
        assert!(matches!(folder.present(), Err(VersionsError::Damaged(_))));
        let record = dir.path().join("version.1.json");
        fs::write(&record, "{").unwrap();
        assert!(matches!(folder.version(1), Err(VersionsError::Damaged(_))));
        fs::write(&record, r#"{"format": 2, "all": "else"}"#).unwrap();
        assert!(matches!(folder.version(1), Err(VersionsError::Newer(_))));
    }
}
