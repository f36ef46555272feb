//! Where documents come from.

use std::sync::Arc;

use tokio::sync::watch;
use tollgate_policy::{Kind, Problem};
use xxhash_rust::xxh3::xxh3_128;

/// A document's version: a hash of its bytes.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Etag(String);

impl Etag {
    /// The version of these bytes.
    pub fn of(bytes: &[u8]) -> Etag {
        Etag(format!("{:032x}", xxh3_128(bytes)))
    }

    /// As text, without quotes.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One document as it was read.
#[derive(Clone, PartialEq, Eq)]
pub struct Document {
    /// File name or data id, without folders.
    pub name: String,
    /// The content.
    pub bytes: Arc<[u8]>,
    /// Its version.
    pub etag: Etag,
}

impl std::fmt::Debug for Document {
    // The content may hold a credential.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Document")
            .field("name", &self.name)
            .field("bytes", &self.bytes.len())
            .field("etag", &self.etag)
            .finish()
    }
}

impl Document {
    /// A document of this name and content.
    pub fn new(name: impl Into<String>, bytes: impl Into<Arc<[u8]>>) -> Document {
        let bytes = bytes.into();
        Document {
            name: name.into(),
            etag: Etag::of(&bytes),
            bytes,
        }
    }

    /// Its kind, if it is of a known one.
    pub fn kind(&self) -> Option<Kind> {
        Kind::from_file_name(&self.name)
    }
}

/// All documents of a configuration, as they were at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DocumentSet {
    /// Ordered by name.
    pub documents: Vec<Document>,
    /// What could not be read.
    pub problems: Vec<Problem>,
}

impl DocumentSet {
    /// The document of that name.
    pub fn get(&self, name: &str) -> Option<&Document> {
        self.documents.iter().find(|d| d.name == name)
    }

    /// The set with one document replaced or added.
    #[must_use]
    pub fn with(&self, document: Document) -> DocumentSet {
        let mut set = self.clone();
        match set.documents.iter_mut().find(|d| d.name == document.name) {
            Some(old) => *old = document,
            None => {
                set.documents.push(document);
                set.documents.sort_by(|a, b| a.name.cmp(&b.name));
            }
        }
        set
    }
}

/// Why a document was not written. None of them is worth a retry without a look at the document.
#[derive(Debug)]
pub enum PutError {
    /// It is not the version that the writer knew.
    Changed {
        /// Its present version; `None` if it is not there.
        present: Option<Etag>,
    },
    /// This source is for reading only.
    ReadOnly,
    /// The source failed.
    Failed {
        /// Why.
        source: std::io::Error,
    },
}

impl std::fmt::Display for PutError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PutError::Changed { .. } => f.write_str("the document was changed meanwhile"),
            PutError::ReadOnly => f.write_str("the configuration is for reading only"),
            PutError::Failed { source } => write!(f, "the document cannot be written: {source}"),
        }
    }
}
impl std::error::Error for PutError {}

/// A place that documents come from, watched for changes.
pub trait ConfigSource: Send + Sync {
    /// The documents, as they change. The first set is there from the beginning.
    fn documents(&self) -> watch::Receiver<Arc<DocumentSet>>;

    /// Writes a document if it still is the version `expected` (`None`: if it is not there). May block.
    ///
    /// # Errors
    /// See [`PutError`].
    fn put(&self, name: &str, bytes: &[u8], expected: Option<&Etag>) -> Result<(), PutError>;

    /// What operators call it.
    fn describe(&self) -> String;
}

/// Documents that never change: the compiled-in sample, and tests.
pub struct Fixed {
    documents: watch::Sender<Arc<DocumentSet>>,
}

impl Fixed {
    /// A source with these documents.
    pub fn new(documents: Vec<Document>) -> Fixed {
        let set = DocumentSet {
            documents,
            problems: Vec::new(),
        };
        Fixed {
            documents: watch::Sender::new(Arc::new(set)),
        }
    }
}

impl ConfigSource for Fixed {
    fn documents(&self) -> watch::Receiver<Arc<DocumentSet>> {
        self.documents.subscribe()
    }

    fn put(&self, _: &str, _: &[u8], _: Option<&Etag>) -> Result<(), PutError> {
        Err(PutError::ReadOnly)
    }

    fn describe(&self) -> String {
        "the sample configuration".into()
    }
}
