//! A version of the configuration, and a change that makes the next one.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};

use super::{Document, DocumentSet, Etag};

/// Newest format of a version's record that this program reads.
pub const FORMAT: u32 = 1;

/// One version of the whole configuration, as it is kept: which documents, each by the hash of its content. In Nacos the
/// record of the present version is the manifest.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// Format of this record.
    pub format: u32,
    /// 1, 2, 3, …
    pub number: u64,
    /// Who published it.
    pub author: String,
    /// When, milliseconds since 1970.
    pub unix_ms: u64,
    /// Why.
    #[serde(default)]
    pub message: String,
    /// Drawn anew for each publication: two that claim the same number can be told from each other.
    pub nonce: String,
    /// The documents by name.
    pub documents: BTreeMap<String, Etag>,
}

impl Version {
    /// The version after `before` that consists of these documents.
    pub fn after(
        before: Option<&Version>,
        author: &str,
        message: &str,
        documents: BTreeMap<String, Etag>,
    ) -> Version {
        Version {
            format: FORMAT,
            number: before.map_or(0, |v| v.number) + 1,
            author: author.to_owned(),
            unix_ms: unix_ms(),
            message: message.to_owned(),
            nonce: nonce(),
            documents,
        }
    }

    /// Names of documents that differ between two versions, those that are only in one included.
    pub fn changed(&self, before: Option<&Version>) -> Vec<String> {
        let none = BTreeMap::new();
        let old = before.map_or(&none, |v| &v.documents);
        let mut names: Vec<String> = self
            .documents
            .iter()
            .filter(|(name, etag)| old.get(*name) != Some(etag))
            .map(|(name, _)| name.clone())
            .collect();
        names.extend(
            old.keys()
                .filter(|name| !self.documents.contains_key(*name))
                .cloned(),
        );
        names.sort();
        names
    }
}

/// The documents of a set by the hash of their content.
pub fn etags(set: &DocumentSet) -> BTreeMap<String, Etag> {
    set.documents
        .iter()
        .map(|d| (d.name.clone(), d.etag.clone()))
        .collect()
}

fn unix_ms() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |d| u64::try_from(d.as_millis()).unwrap_or(u64::MAX))
}

/// 64 random bits as hexadecimal digits.
pub fn nonce() -> String {
    let mut bytes = [0; 8];
    match getrandom::fill(&mut bytes) {
        Ok(()) => format!("{:016x}", u64::from_le_bytes(bytes)),
        // Not a secret, only different from others'.
        Err(_) => format!("{:08x}{:08x}", std::process::id(), unix_ms() & 0xffff_ffff),
    }
}

/// What a writer knows of a document that it replaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Expected {
    /// It does not matter.
    Anything,
    /// That it is not there.
    Absent,
    /// That it is this version.
    Exactly(Etag),
}

impl Expected {
    /// This version, or that there is none.
    pub fn exactly(etag: Option<&Etag>) -> Expected {
        etag.map_or(Expected::Absent, |etag| Expected::Exactly(etag.clone()))
    }

    /// Whether it is so.
    pub fn holds(&self, present: Option<&Etag>) -> bool {
        match self {
            Expected::Anything => true,
            Expected::Absent => present.is_none(),
            Expected::Exactly(etag) => present == Some(etag),
        }
    }
}

/// What happens to one document.
#[derive(Clone, PartialEq, Eq)]
pub struct Edit {
    /// Its name.
    pub name: String,
    /// Its new content; `None` takes it away.
    pub bytes: Option<Arc<[u8]>>,
    /// What the writer knows of it.
    pub expected: Expected,
}

impl std::fmt::Debug for Edit {
    // The content may hold a credential.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Edit")
            .field("name", &self.name)
            .field("bytes", &self.bytes.as_ref().map(|b| b.len()))
            .field("expected", &self.expected)
            .finish()
    }
}

/// The documents as they would be after some edits, whatever these expect.
pub fn edited(set: &DocumentSet, edits: &[Edit]) -> DocumentSet {
    let start = DocumentSet {
        problems: Vec::new(),
        ..set.clone()
    };
    edits.iter().fold(start, |set, edit| match &edit.bytes {
        Some(bytes) => set.with(Document::new(edit.name.clone(), Arc::clone(bytes))),
        None => set.without(&edit.name),
    })
}

/// What becomes one version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Who wants it.
    pub author: String,
    /// Why.
    pub message: String,
    /// Each document at most once.
    pub edits: Vec<Edit>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_says_what_it_changed() {
        let documents = |list: &[(&str, &str)]| {
            let list = list.iter();
            list.map(|(name, text)| ((*name).to_owned(), Etag::of(text.as_bytes())))
                .collect()
        };
        let first = Version::after(None, "a", "", documents(&[("x", "1"), ("y", "1"), ("z", "1")]));
        let second = Version::after(
            Some(&first),
            "a",
            "",
            documents(&[("w", "1"), ("x", "1"), ("y", "2")]),
        );
        assert_eq!((first.number, second.number), (1, 2));
        assert_eq!(first.changed(None), ["x", "y", "z"]);
        assert_eq!(second.changed(Some(&first)), ["w", "y", "z"]);
        assert_ne!(first.nonce, second.nonce);
    }

    #[test]
    fn what_a_writer_knows_is_compared_with_what_is_there() {
        let (one, two) = (Etag::of(b"1"), Etag::of(b"2"));
        assert!(Expected::Anything.holds(None) && Expected::Anything.holds(Some(&one)));
        assert!(Expected::exactly(None).holds(None) && !Expected::exactly(None).holds(Some(&one)));
        assert!(Expected::exactly(Some(&one)).holds(Some(&one)));
        assert!(
            !Expected::exactly(Some(&one)).holds(Some(&two)) && !Expected::exactly(Some(&one)).holds(None)
        );
    }
}
