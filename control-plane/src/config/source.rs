//! Where documents come from.

use std::sync::Arc;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tollgate_policy::{Kind, Problem};
use xxhash_rust::xxh3::xxh3_128;

use super::version::{Change, Edit, Expected, Version};
use super::versions::{Versions, VersionsError};

/// A document's version: a hash of its bytes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Etag(String);

impl Etag {
    /// The version of these bytes.
    pub fn of(bytes: &[u8]) -> Etag {
        Etag(format!("{:032x}", xxh3_128(bytes)))
    }

    /// An etag as it was told, if it can be one.
    pub fn parse(text: &str) -> Option<Etag> {
        let hex = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
        hex.then(|| Etag(text.to_ascii_lowercase()))
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
    /// The instance whose override takes part, see [`super::effective`]; the others' overrides do not.
    pub instance: Option<String>,
    /// The published version that these documents are; `None` if they are none, such as files edited by hand that
    /// nobody has looked at yet.
    pub version: Option<u64>,
}

impl DocumentSet {
    /// Whether the documents and whatever kept them from being read are the same, version or not.
    pub fn same_content(&self, other: &DocumentSet) -> bool {
        self.documents == other.documents
            && self.problems == other.problems
            && self.instance == other.instance
    }

    /// The set without a document.
    #[must_use]
    pub fn without(&self, name: &str) -> DocumentSet {
        let mut set = self.clone();
        set.documents.retain(|d| d.name != name);
        set
    }

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

/// Why nothing was published. Only [`PutError::Busy`] and [`PutError::Failed`] are worth a retry without a look at the
/// documents.
#[derive(Debug)]
pub enum PutError {
    /// A document is not the version that the writer knew.
    Changed {
        /// Which one.
        document: String,
        /// Its present version; `None` if it is not there.
        present: Option<Etag>,
    },
    /// This source is for reading only.
    ReadOnly,
    /// A document is larger than the source takes.
    TooLarge {
        /// Which one.
        document: String,
        /// Its size in bytes.
        bytes: usize,
        /// The most that the source takes.
        most: usize,
    },
    /// Others publish all the time.
    Busy,
    /// The source failed.
    Failed {
        /// Why.
        source: std::io::Error,
    },
}

impl std::fmt::Display for PutError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            PutError::Changed { document, .. } => write!(f, "`{document}` was changed meanwhile"),
            PutError::ReadOnly => f.write_str("the configuration is for reading only"),
            PutError::TooLarge {
                document,
                bytes,
                most,
            } => write!(
                f,
                "`{document}` has {bytes} bytes, and the source takes {most} at most; spread its list over shards, \
                 `tollgate.KIND.SHARD.json` (publishing a whole kind does that by itself)"
            ),
            PutError::Busy => f.write_str("others are publishing; try again"),
            PutError::Failed { source } => write!(f, "the documents cannot be written: {source}"),
        }
    }
}
impl std::error::Error for PutError {}

impl From<std::io::Error> for PutError {
    fn from(source: std::io::Error) -> PutError {
        PutError::Failed { source }
    }
}

impl From<VersionsError> for PutError {
    fn from(error: VersionsError) -> PutError {
        PutError::Failed {
            source: std::io::Error::other(error.to_string()),
        }
    }
}

/// A place that documents come from, watched for changes, with all that was ever published there. Everything but
/// [`ConfigSource::documents`] may block.
pub trait ConfigSource: Send + Sync {
    /// The documents, as they change. The first set is there from the beginning.
    fn documents(&self) -> watch::Receiver<Arc<DocumentSet>>;

    /// Publishes a change as one version: all of it or nothing, and only if every document that it touches still is
    /// what the writer knew. Returns the version, which is the present one if the change changes nothing.
    ///
    /// # Errors
    /// See [`PutError`].
    fn publish(&self, change: &Change) -> Result<Version, PutError>;

    /// Told of each set that has taken effect. If its documents were edited at the source itself, they become a version, and
    /// [`ConfigSource::documents`] says so.
    fn adopt(&self, set: &Arc<DocumentSet>) {
        let _ = set;
    }

    /// Everything that was ever published; `None` if nothing can be.
    fn versions(&self) -> Option<&dyn Versions>;

    /// The documents that were last in force, from before this process; for a start with documents that are wrong.
    fn last_good(&self) -> Option<DocumentSet> {
        None
    }

    /// The largest document that can be published, in bytes.
    fn largest(&self) -> usize {
        usize::MAX
    }

    /// How it is with the server behind the source, if there is one.
    fn health(&self) -> Option<SourceHealth> {
        None
    }

    /// What operators call it.
    fn describe(&self) -> String;

    /// Replaces a document if it still is the version `expected` (`None`: if it is not there).
    ///
    /// # Errors
    /// See [`PutError`].
    fn put(
        &self,
        name: &str,
        bytes: &[u8],
        expected: Option<&Etag>,
        message: &str,
    ) -> Result<Version, PutError> {
        self.publish(&Change {
            author: "tollgate".into(),
            message: message.into(),
            edits: vec![Edit {
                name: name.into(),
                bytes: Some(bytes.into()),
                expected: Expected::exactly(expected),
            }],
        })
    }
}

/// How it is with the server behind a source.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
pub struct SourceHealth {
    /// Whether the last question was answered.
    pub reachable: bool,
    /// Why not.
    pub reason: String,
    /// Milliseconds since the last answer; `None` if there was none.
    pub answered_ms_ago: Option<u64>,
    /// Questions asked.
    pub requests: u64,
    /// Questions that were not answered, or not as they should.
    pub failures: u64,
    /// Sum of the time that answers took, in microseconds.
    pub waited_us: u64,
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
            ..DocumentSet::default()
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

    fn publish(&self, _: &Change) -> Result<Version, PutError> {
        Err(PutError::ReadOnly)
    }

    fn versions(&self) -> Option<&dyn Versions> {
        None
    }

    fn describe(&self) -> String {
        "the sample configuration".into()
    }
}
