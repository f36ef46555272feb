//! Entries by their ids, made once per version of their documents. The text itself is not copied.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;
use serde_json::value::RawValue;
use tollgate_policy::Kind;
use xxhash_rust::xxh3::xxh3_64;

use super::sort::{Facet, Sort};
use crate::config::{Document, DocumentSet};

/// Where an entry stands, and what lists need to know of it.
#[derive(Clone, Debug)]
pub(in crate::api) struct Listed {
    pub id: String,
    pub name: String,
    pub enabled: bool,
    pub priority: i64,
    /// Values by the number of their facet.
    facets: Vec<(u8, String)>,
    /// Its document, by number.
    document: usize,
    /// Its place in the document's list.
    pub index: usize,
    /// Its text in the document.
    pub span: Range<usize>,
    /// Its version.
    pub etag: String,
}

impl Listed {
    /// Whether one of its values for that facet is this one.
    pub fn has(&self, facet: usize, wanted: &str) -> bool {
        self.facets
            .iter()
            .any(|(n, value)| usize::from(*n) == facet && value == wanted)
    }
}

/// The entries of a kind.
#[derive(Debug, Default)]
pub(in crate::api) struct Index {
    pub documents: Vec<Document>,
    pub entries: Vec<Listed>,
    by_id: HashMap<String, usize>,
}

/// A version of an entry.
pub(super) fn etag_of(text: &[u8]) -> String {
    format!("{:016x}", xxh3_64(text))
}

/// The place of the list of a document, and of each entry in it; `None` if the document is none.
pub(super) fn spans(bytes: &[u8], kind: Kind) -> Option<(Range<usize>, Vec<Range<usize>>)> {
    let top: HashMap<String, &RawValue> = serde_json::from_slice(bytes).ok()?;
    let list = top.get(kind.name())?;
    let place = |raw: &RawValue| {
        let start = raw.get().as_ptr().addr() - bytes.as_ptr().addr();
        start..start + raw.get().len()
    };
    if kind == Kind::Settings {
        return Some((place(list), vec![place(list)]));
    }
    let entries: Vec<&RawValue> = serde_json::from_str(list.get()).ok()?;
    Some((place(list), entries.into_iter().map(place).collect()))
}

fn facets(value: &Value, sort: &Sort) -> Vec<(u8, String)> {
    let mut found = Vec::new();
    let text = |value: Option<&Value>| value.and_then(Value::as_str).map(str::to_owned);
    for (n, (_, facet)) in (0u8..).zip(sort.facets) {
        let each = |field: &str| value.get(field).and_then(Value::as_array).into_iter().flatten();
        match facet {
            Facet::Field(field) => found.extend(text(value.get(field)).map(|t| (n, t))),
            Facet::Each(field) => found.extend(each(field).filter_map(|v| text(Some(v))).map(|t| (n, t))),
            Facet::OfEach(list, field) => {
                found.extend(each(list).filter_map(|v| text(v.get(field))).map(|t| (n, t)));
            }
        }
    }
    found
}

impl Index {
    /// Looks through documents.
    pub fn new(documents: Vec<Document>, sort: &Sort) -> Index {
        let mut index = Index {
            documents,
            ..Index::default()
        };
        for (number, document) in index.documents.iter().enumerate() {
            let places = spans(&document.bytes, sort.kind)
                .map(|(_, places)| places)
                .unwrap_or_default();
            for (place, span) in places.into_iter().enumerate() {
                let text = document.bytes.get(span.clone()).unwrap_or_default();
                let value: Value = serde_json::from_slice(text).unwrap_or_default();
                // What has no id cannot be asked for; validation says what is wrong with it.
                let known_by = value.get(sort.id).and_then(Value::as_str);
                let Some(id) = known_by.or(sort.is_single().then_some(sort.one)) else {
                    continue;
                };
                let label = value
                    .get("name")
                    .and_then(Value::as_str)
                    .filter(|n| !n.is_empty());
                index.by_id.entry(id.to_owned()).or_insert(index.entries.len());
                index.entries.push(Listed {
                    id: id.to_owned(),
                    name: label.unwrap_or(id).to_owned(),
                    enabled: value.get("enabled").and_then(Value::as_bool).unwrap_or(true),
                    priority: value.get("priority").and_then(Value::as_i64).unwrap_or(0),
                    facets: facets(&value, sort),
                    document: number,
                    index: place,
                    etag: etag_of(text),
                    span,
                });
            }
        }
        index
    }

    /// The entry of that id.
    pub fn get(&self, id: &str) -> Option<&Listed> {
        self.entries.get(*self.by_id.get(id)?)
    }

    /// An entry's document.
    pub fn document(&self, entry: &Listed) -> Option<&Document> {
        self.documents.get(entry.document)
    }

    /// An entry's text.
    pub fn text(&self, entry: &Listed) -> &[u8] {
        self.document(entry)
            .and_then(|d| d.bytes.get(entry.span.clone()))
            .unwrap_or_default()
    }
}

fn documents(set: &DocumentSet, kind: Kind) -> Vec<Document> {
    set.documents
        .iter()
        .filter(|d| d.kind() == Some(kind))
        .cloned()
        .collect()
}

/// The last index of each kind.
#[derive(Clone, Default)]
pub struct Indexes(Arc<Mutex<HashMap<&'static str, Arc<Index>>>>);

impl Indexes {
    /// The index of a set's documents. Takes some microseconds per entry where they have changed.
    pub(in crate::api) fn of(&self, set: &DocumentSet, sort: &Sort) -> Arc<Index> {
        let documents = documents(set, sort.kind);
        let known = self.lock().get(sort.kind.name()).cloned();
        let same = |index: &Arc<Index>| {
            index.documents.len() == documents.len()
                && index
                    .documents
                    .iter()
                    .zip(&documents)
                    .all(|(a, b)| a.name == b.name && a.etag == b.etag)
        };
        if let Some(index) = known.filter(same) {
            return index;
        }
        let index = Arc::new(Index::new(documents, sort));
        self.lock().insert(sort.kind.name(), Arc::clone(&index));
        index
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<&'static str, Arc<Index>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_are_found_where_they_stand() {
        let text = "{ \"channels\" : [ {\"code\":\"a\",\"tags\":[\"x\",\"y\"]},\n {\"name\":\"no code\"}, { \"code\": \"b\" , \"enabled\":false} ] }";
        let other = Document::new(
            "tollgate.channels.2.json",
            &b"{\"channels\": [{\"code\": \"c\", \"extends\": \"t\"}]}"[..],
        );
        let broken = Document::new("tollgate.channels.3.json", &b"{\"channels\": ["[..]);
        let documents = vec![
            Document::new("tollgate.channels.json", text.as_bytes()),
            other,
            broken,
        ];
        let index = Index::new(documents, &Sort::CHANNELS);
        let seen: Vec<_> = index
            .entries
            .iter()
            .map(|e| (e.id.as_str(), e.index, e.enabled))
            .collect();
        assert_eq!(seen, [("a", 0, true), ("b", 2, false), ("c", 0, true)]);
        let b = index.get("b").unwrap();
        assert_eq!(index.text(b), b"{ \"code\": \"b\" , \"enabled\":false}");
        assert_eq!(
            index.document(index.get("c").unwrap()).unwrap().name,
            "tollgate.channels.2.json"
        );
        assert!(index.get("a").unwrap().has(1, "y") && !index.get("a").unwrap().has(0, "y"));
        assert!(index.get("c").unwrap().has(0, "t"));
        assert!(index.get("d").is_none());
    }
}
