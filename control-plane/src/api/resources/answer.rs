//! What is answered about entries.

use axum::Json;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use serde_json::value::RawValue;
use tollgate_policy::Kind;

use super::index::{Index, Listed};
use super::sort::Sort;
use crate::api::error::FieldProblem;
use crate::config::redacted;

/// An entry.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(in crate::api) struct Item {
    /// What it is known by.
    pub id: String,
    /// Its version: send it as `If-Match`.
    pub etag: String,
    /// The document that it stands in.
    pub document: String,
    /// Its place in the document's list.
    pub index: usize,
    /// The entry itself, credentials taken out.
    #[schemars(with = "Value")]
    pub value: Box<RawValue>,
}

/// A page of entries.
#[derive(Debug, Serialize, JsonSchema)]
pub(in crate::api) struct Page {
    pub items: Vec<Item>,
    /// How many there are that the caller may see.
    pub total: usize,
    /// How many of them match.
    pub matched: usize,
    /// `after` of the next page; null on the last one.
    pub next: Option<String>,
    /// Whether the documents as they are now are in force.
    pub in_force: bool,
    /// Generation in force.
    pub generation: u64,
}

/// What became of a change.
#[derive(Clone, Debug, Serialize, JsonSchema)]
pub(in crate::api) struct Written {
    /// What it is known by.
    pub id: String,
    /// Its new version; null if it was removed.
    pub etag: Option<String>,
    /// The document that it stands in.
    pub document: String,
    /// Its place in the document's list; null if it was removed.
    pub index: Option<usize>,
    /// The entry itself, credentials taken out; null if it was removed.
    #[schemars(with = "Value")]
    pub value: Option<Box<RawValue>>,
    /// Whether it was written; not for a dry run.
    pub written: bool,
    /// Whether it is in force already.
    pub in_force: bool,
    /// Generation in force.
    pub generation: u64,
    /// Warnings.
    pub problems: Vec<FieldProblem>,
}

/// JSON null.
fn null() -> Box<RawValue> {
    RawValue::NULL.to_owned()
}

fn raw(text: &[u8]) -> Box<RawValue> {
    String::from_utf8(text.to_vec())
        .ok()
        .and_then(|text| RawValue::from_string(text).ok())
        .unwrap_or_else(null)
}

/// An entry's text as it may be shown.
pub(super) fn shown(text: &[u8], kind: Kind) -> Box<RawValue> {
    if !kind.holds_secrets() {
        return raw(text);
    }
    let whole = match kind {
        Kind::Settings => [b"{\"settings\":", text, b"}"].concat(),
        _ => [b"{\"providers\":[", text, b"]}"].concat(),
    };
    let Some(whole) = redacted(&whole) else {
        return null();
    };
    let inner = super::index::spans(&whole, kind).and_then(|(_, places)| whole.get(places.first()?.clone()));
    inner.map_or_else(null, raw)
}

impl Item {
    /// An entry as it may be shown.
    pub fn new(index: &Index, entry: &Listed, sort: &Sort) -> Item {
        Item {
            id: entry.id.clone(),
            etag: entry.etag.clone(),
            document: index.document(entry).map(|d| d.name.clone()).unwrap_or_default(),
            index: entry.index,
            value: shown(index.text(entry), sort.kind),
        }
    }

    /// Its value, without the order of its fields.
    pub fn to_value(&self) -> Value {
        serde_json::from_str(self.value.get()).unwrap_or_default()
    }
}

impl IntoResponse for Item {
    fn into_response(self) -> Response {
        let etag = format!("\"{}\"", self.etag);
        ([(header::ETAG, etag)], Json(self)).into_response()
    }
}

impl IntoResponse for Written {
    fn into_response(self) -> Response {
        match &self.etag {
            Some(etag) => {
                let etag = format!("\"{etag}\"");
                ([(header::ETAG, etag)], Json(self)).into_response()
            }
            None => Json(self).into_response(),
        }
    }
}
