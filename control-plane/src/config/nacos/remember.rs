//! The documents that were last in force, on the disk: what an instance goes by when it starts without Nacos.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use tollgate_shm::write_atomically;

use crate::config::{Document, DocumentSet};

#[derive(Serialize, Deserialize)]
struct Remembered {
    version: Option<u64>,
    documents: BTreeMap<String, String>,
}

/// A file with the documents.
pub(super) struct Memory {
    path: PathBuf,
    instance: Option<String>,
}

impl Memory {
    pub fn new(path: PathBuf, instance: Option<String>) -> Memory {
        Memory { path, instance }
    }

    /// What was last in force, if that is known.
    pub fn recall(&self) -> Option<DocumentSet> {
        let bytes = std::fs::read(&self.path).ok()?;
        let found: Remembered = serde_json::from_slice(&bytes).ok()?;
        let documents = found.documents.into_iter();
        Some(DocumentSet {
            documents: documents
                .map(|(name, text)| Document::new(name, text.into_bytes()))
                .collect(),
            instance: self.instance.clone(),
            version: found.version,
            ..DocumentSet::default()
        })
    }

    /// Remembers a set.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn keep(&self, set: &DocumentSet) -> std::io::Result<()> {
        let text = |d: &Document| String::from_utf8(d.bytes.to_vec()).map_err(std::io::Error::other);
        let documents = set
            .documents
            .iter()
            .map(|d| Ok((d.name.clone(), text(d)?)))
            .collect::<std::io::Result<_>>()?;
        let bytes = serde_json::to_vec(&Remembered {
            version: set.version,
            documents,
        })?;
        write_atomically(&self.path, &bytes)
    }
}
