//! A set of documents that has been looked at: what does not change until the next one comes.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tollgate_policy::documents::{Documents, Settings};
use tollgate_policy::{Kind, Problem, hash_name, validate};
use tollgate_shm::Sizes;
use xxhash_rust::xxh3::Xxh3;

use super::resolve::Upstream;
use super::{
    Change, ConfigSource, Document, DocumentSet, Edit, Effective, Expected, Override, effective,
    region_sizes, sealed,
};
use crate::health::{Target, targets};
use crate::secrets::MasterKey;

/// Parses and validates a set as its instance sees it. All problems, those of reading included.
pub fn parse_set(set: &DocumentSet) -> (Documents, Vec<Problem>) {
    parse_effective(set, &effective(set))
}

fn parse_effective(set: &DocumentSet, effective: &Effective) -> (Documents, Vec<Problem>) {
    let files: Vec<(String, &[u8])> = effective
        .documents
        .iter()
        .map(|d| (d.name.clone(), &*d.bytes))
        .collect();
    let (documents, found) = Documents::parse(&files);
    let mut problems = set.problems.clone();
    problems.extend(found);
    problems.extend(validate(&documents));
    effective.relocate(&mut problems);
    problems.extend(effective.problems.iter().cloned());
    (documents, problems)
}

/// What is remembered of a set. The documents themselves are not: they take ten times the room of their text.
pub(super) struct Parsed {
    /// The set as it was read.
    pub read: Arc<DocumentSet>,
    /// The same with its credentials sealed.
    pub set: Arc<DocumentSet>,
    /// Hash of its names and content.
    pub content: u128,
    /// Everything found in it.
    pub problems: Vec<Problem>,
    /// Its providers.
    pub upstreams: Vec<Upstream>,
    /// Whom it wants to be probed.
    pub targets: Arc<Vec<Target>>,
    /// Tokenizers that its models want, see [`Documents::tokenizers`].
    pub tokenizers: Vec<(String, bool)>,
    /// Its settings.
    pub settings: Arc<Settings>,
    /// Names of its rules by the hash that events carry.
    pub rules: Arc<BTreeMap<u64, String>>,
    /// What the instance has of its own.
    pub overrides: Arc<Vec<Override>>,
    /// See [`Documents::ends_of_relief`].
    pub ends_of_relief: Vec<u64>,
    /// How long it took.
    pub took: Duration,
}

impl Parsed {
    /// Seals, parses and validates a set.
    pub fn new(
        read: Arc<DocumentSet>,
        source: &dyn ConfigSource,
        key: &MasterKey,
        sizes: Sizes,
    ) -> (Parsed, Documents) {
        let began = Instant::now();
        let mut set = Arc::clone(&read);
        let mut notes = seal_documents(&mut set, source, key);
        let effective = effective(&set);
        let (documents, mut problems) = parse_effective(&set, &effective);
        problems.append(&mut notes);
        problems.extend(other_sizes(&documents, sizes));
        let rules = documents.rules.iter().map(|r| r.value.name.clone());
        let parsed = Parsed {
            read,
            content: hash_of(&effective.documents),
            set,
            problems,
            upstreams: Upstream::all(&documents),
            targets: Arc::new(targets(&documents)),
            tokenizers: documents.tokenizers(),
            settings: Arc::new(documents.settings()),
            rules: Arc::new(rules.map(|n| (hash_name(n.as_bytes()), n)).collect()),
            overrides: Arc::new(effective.overrides),
            ends_of_relief: documents.ends_of_relief(),
            took: began.elapsed(),
        };
        (parsed, documents)
    }

    /// How many limits that were topped up have their written maximum again at that time, and when the next one has.
    pub fn relief_at(&self, now_ms: u64) -> (usize, Option<u64>) {
        let ended = self.ends_of_relief.partition_point(|end| *end <= now_ms);
        (ended, self.ends_of_relief.get(ended).copied())
    }

    /// Takes note that the same documents have become a version.
    pub fn renumber(&mut self, read: Arc<DocumentSet>) {
        let mut set = DocumentSet::clone(&self.set);
        set.version = read.version;
        (self.read, self.set) = (read, Arc::new(set));
    }
}

fn hash_of(documents: &[Document]) -> u128 {
    let mut hash = Xxh3::new();
    for d in documents {
        for part in [d.name.as_bytes(), &*d.bytes] {
            hash.update(&part.len().to_le_bytes());
            hash.update(part);
        }
    }
    hash.digest128()
}

/// Replaces credentials in the clear by sealed ones, in the source if it lets us: in all documents at once, so that no version ever
/// holds one that stood in another document than the first.
fn seal_documents(set: &mut Arc<DocumentSet>, source: &dyn ConfigSource, key: &MasterKey) -> Vec<Problem> {
    let mut notes = Vec::new();
    let mut next = DocumentSet::clone(set);
    let mut edits = Vec::new();
    for document in &set.documents {
        if !document.kind().is_some_and(Kind::holds_secrets) {
            continue;
        }
        let bytes = match sealed(&document.bytes, key) {
            Ok(None) => continue,
            Ok(Some(bytes)) => bytes,
            Err(error) => {
                let reason = format!("cannot seal a credential: {error}");
                notes.push(Problem::error(document.name.clone(), "", reason));
                continue;
            }
        };
        edits.push(Edit {
            name: document.name.clone(),
            bytes: Some(bytes.as_slice().into()),
            expected: Expected::exactly(Some(&document.etag)),
        });
        next = next.with(Document::new(document.name.clone(), bytes));
    }
    if edits.is_empty() {
        return notes;
    }
    let names: Vec<String> = edits.iter().map(|edit| edit.name.clone()).collect();
    let change = Change {
        author: "tollgate".into(),
        message: "sealed credentials that stood in the clear".into(),
        edits,
    };
    match source.publish(&change) {
        Ok(version) => {
            for document in names {
                tracing::info!(document, "replaced credentials in the clear by sealed ones");
            }
            next.version = (super::etags(&next) == version.documents).then_some(version.number);
            *set = Arc::new(next);
        }
        Err(error) => {
            let reason = format!("holds a credential in the clear, and {error}");
            notes.extend(
                names
                    .into_iter()
                    .map(|name| Problem::warning(name, "", reason.clone())),
            );
        }
    }
    notes
}

/// A region keeps the sizes that it was made with.
fn other_sizes(documents: &Documents, present: Sizes) -> Option<Problem> {
    let settings = documents.settings.as_ref()?;
    let wanted = region_sizes(&settings.value);
    // Sizes are rounded up to powers of two.
    let differs = |wanted: u32, present: u32| wanted > present || wanted.saturating_mul(2) <= present;
    let other = differs(wanted.counters, present.counters)
        || differs(wanted.inflight, present.inflight)
        || differs(wanted.ring, present.ring)
        || differs(wanted.usage, present.usage);
    let reason = "the region has other sizes; they take effect when it is made anew, with nginx and the daemon stopped";
    let document = settings.at.document.to_string();
    other.then(|| Problem::warning(document, settings.at.path("region"), reason))
}
