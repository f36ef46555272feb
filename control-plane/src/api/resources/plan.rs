//! A change of an entry, worked out and validated on documents as they are.

use axum::http::{HeaderMap, header};
use serde_json::Value;
use tollgate_policy::Problem;

use super::answer::{Item, Written, shown};
use super::edit::{self, NotEditable};
use super::index::Index;
use super::list::missing;
use super::ordered::Json;
use super::sort::Sort;
use crate::api::documents::prepared;
use crate::api::error::FieldProblem;
use crate::api::{ApiError, AppState};
use crate::audit::changes;
use crate::config::{Document, DocumentSet, Etag, parse_set};

/// What the client knows of the entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Known {
    /// That it is not there.
    Absent,
    /// That it is there.
    Present,
    /// Its version.
    Version(String),
}

impl Known {
    /// From `If-Match`, which changes must have.
    pub fn from_headers(headers: &HeaderMap) -> Result<Known, ApiError> {
        let value = headers
            .get(header::IF_MATCH)
            .ok_or_else(ApiError::needs_version)?;
        let text = value
            .to_str()
            .map_err(|_| ApiError::bad_request("`If-Match` is no ETag"))?
            .trim();
        Ok(match text.trim_start_matches("W/").trim_matches('"') {
            "*" => Known::Present,
            version => Known::Version(version.to_owned()),
        })
    }
}

/// Makes the new entry of the present one; `None` for none.
pub(super) type Edit = Box<dyn Fn(Option<&Json>) -> Result<Option<Json>, ApiError> + Send + Sync>;

/// A change to make.
pub(super) struct Job {
    pub sort: Sort,
    pub id: String,
    pub known: Known,
    /// Where a new entry is to stand.
    pub document: Option<String>,
    pub edit: Edit,
    pub dry_run: bool,
}

/// A change worked out on documents as they are.
pub(super) struct Plan {
    pub document: Document,
    /// The version of the document that it replaces.
    pub expected: Option<Etag>,
    pub before: Option<Value>,
    pub after: Option<Value>,
    pub problems: Vec<FieldProblem>,
    pub written: Written,
}

fn not_editable(_: NotEditable) -> ApiError {
    ApiError::conflict("the document is not what it should be; see GET /api/v1/documents")
}

fn value_of(text: &[u8]) -> Value {
    serde_json::from_slice(text).unwrap_or_default()
}

/// The document that a new entry goes into.
fn target(
    set: &DocumentSet,
    sort: &Sort,
    wanted: Option<&str>,
) -> Result<(String, Option<Document>), ApiError> {
    let of_kind = set.documents.iter().filter(|d| d.kind() == Some(sort.kind));
    match wanted {
        Some(name) => {
            let found = of_kind.clone().find(|d| d.name == name);
            let found = found.ok_or_else(|| {
                ApiError::invalid_fields(vec![FieldProblem::at(
                    "document",
                    "there is no such document of this kind",
                )])
            })?;
            Ok((found.name.clone(), Some(found.clone())))
        }
        None => Ok(match of_kind.min_by_key(|d| d.bytes.len()) {
            Some(found) => (found.name.clone(), Some(found.clone())),
            None => (format!("tollgate.{}.json", sort.kind.name()), None),
        }),
    }
}

impl Job {
    /// What the version of the configuration says that this makes.
    pub fn message(&self) -> String {
        let deed = match self.known {
            Known::Absent => "add",
            Known::Present | Known::Version(_) => "change",
        };
        format!("{deed} the {} {}", self.sort.one, self.id)
    }

    /// The document with the change in it, and what it replaces.
    fn bytes(&self, state: &AppState, set: &DocumentSet, index: &Index) -> Result<Changed, ApiError> {
        let sort = &self.sort;
        let entry = index.get(&self.id);
        let present = entry.map(|e| index.text(e));
        let parsed = present
            .map(Json::parse)
            .transpose()
            .map_err(|_| not_editable(NotEditable))?;
        match (&self.known, entry) {
            (Known::Absent, Some(_)) => {
                return Err(ApiError::conflict(format!(
                    "there is a {} `{}` already",
                    sort.one, self.id
                )));
            }
            (Known::Present, None) => return Err(missing(sort, &self.id)),
            (Known::Version(_), None) => {
                let detail = format!("the {} `{}` is not there any more", sort.one, self.id);
                return Err(ApiError::edited(detail, Value::Null, Vec::new()));
            }
            (Known::Version(known), Some(entry)) if *known != entry.etag => {
                let item = Item::new(index, entry, sort);
                let yours = (self.edit)(parsed.as_ref())?.map_or(Value::Null, |j| j.to_value());
                let diff = changes(&item.to_value(), &yours);
                let detail = format!("the {} is version \"{}\" now", sort.one, entry.etag);
                return Err(ApiError::edited(detail, serde_json::json!(item), diff));
            }
            _ => {}
        }
        let fresh = (self.edit)(parsed.as_ref())?;
        if let Some(fresh) = &fresh
            && !sort.is_single()
            && fresh.text(sort.id) != Some(&self.id)
        {
            let reason = format!(
                "must be `{}`: it is what the {} is known by; make a new one instead",
                self.id, sort.one
            );
            return Err(ApiError::invalid_fields(vec![FieldProblem::at(sort.id, reason)]));
        }
        let (name, old) = match entry {
            Some(entry) => {
                let document = index.document(entry).cloned();
                (
                    document.as_ref().map(|d| d.name.clone()).unwrap_or_default(),
                    document,
                )
            }
            None => target(set, sort, self.document.as_deref())?,
        };
        let bytes = match (&old, entry, &fresh) {
            (Some(old), Some(entry), Some(fresh)) => edit::replaced(&old.bytes, entry.span.clone(), fresh),
            (Some(old), Some(entry), None) => {
                edit::removed(&old.bytes, sort.kind, entry.index).map_err(not_editable)?
            }
            (Some(old), None, Some(fresh)) => {
                edit::appended(&old.bytes, sort.kind, fresh).map_err(not_editable)?
            }
            (None, _, Some(fresh)) => edit::begun(sort.kind, fresh),
            (_, None, None) | (None, _, None) => return Err(missing(sort, &self.id)),
        };
        let bytes = prepared(state, Some(sort.kind), &name, &bytes, old.as_ref())?;
        let before = present.map(value_of);
        Ok(Changed {
            document: Document::new(name, bytes),
            old: old.map(|d| d.etag),
            before,
        })
    }

    /// Works the change out, and validates it.
    pub fn plan(&self, state: &AppState, set: &DocumentSet, index: &Index) -> Result<Plan, ApiError> {
        let Changed {
            document,
            old,
            before,
        } = self.bytes(state, set, index)?;
        let sort = &self.sort;
        let candidate = DocumentSet {
            problems: Vec::new(),
            ..set.with(document.clone())
        };
        let (_, found) = parse_set(&candidate);
        let index = Index::new(vec![document.clone()], sort);
        let entry = index.get(&self.id);
        let prefix = entry.map(|e| match sort.is_single() {
            true => sort.kind.name().to_owned(),
            false => format!("{}[{}]", sort.kind.name(), e.index),
        });
        let problems: Vec<FieldProblem> = found
            .iter()
            .map(|p| in_entry(p, &document.name, prefix.as_deref()))
            .collect();
        if found.iter().any(Problem::is_error) {
            return Err(ApiError::invalid_fields(problems));
        }
        // Warnings about others are theirs.
        let problems = problems.into_iter().filter(|p| p.field.is_some()).collect();
        let after = entry.map(|e| value_of(index.text(e)));
        let written = Written {
            id: self.id.clone(),
            etag: entry.map(|e| e.etag.clone()),
            document: document.name.clone(),
            index: entry.map(|e| e.index),
            value: entry.map(|e| shown(index.text(e), sort.kind)),
            written: false,
            in_force: false,
            generation: 0,
            problems: Vec::new(),
        };
        Ok(Plan {
            document,
            expected: old,
            before,
            after,
            problems,
            written,
        })
    }
}

/// A document with a change in it.
struct Changed {
    document: Document,
    old: Option<Etag>,
    before: Option<Value>,
}

/// The problem, with its place in the entry.
fn in_entry(problem: &Problem, document: &str, prefix: Option<&str>) -> FieldProblem {
    let below = prefix
        .filter(|_| problem.document == document)
        .and_then(|p| problem.path.strip_prefix(p));
    let field = below.filter(|rest| rest.is_empty() || rest.starts_with(['.', '[']));
    FieldProblem {
        field: field.map(|f| f.trim_start_matches('.').to_owned()),
        ..FieldProblem::of(problem)
    }
}
