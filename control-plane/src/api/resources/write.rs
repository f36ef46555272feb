//! Changing entries: planned on the documents as they are, validated together with all others, written if nobody else
//! has written meanwhile.

use std::sync::Arc;
use std::time::Duration;

use axum::http::{HeaderMap, header};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use tollgate_policy::Problem;

use super::answer::{Item, Written, shown};
use super::edit::{self, NotEditable};
use super::index::Index;
use super::list::{missing, visible};
use super::ordered::Json;
use super::sort::Sort;
use crate::accounts::Principal;
use crate::api::documents::prepared;
use crate::api::error::FieldProblem;
use crate::api::guard::Trail;
use crate::api::{ApiError, AppState};
use crate::audit::changes;
use crate::config::{Document, DocumentSet, Etag, PutError, parse_set};

/// Longest wait for a written document to be looked at.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often a change is planned anew because others have written other entries of the document.
const TRIES: usize = 8;

/// How an entry is added.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct CreateQuery {
    /// Only say what would happen.
    #[serde(default)]
    pub dry_run: bool,
    /// The document that it is to stand in; the shortest of its kind by default.
    pub document: Option<String>,
}

/// How an entry is changed.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(in crate::api) struct WriteQuery {
    /// Only say what would happen.
    #[serde(default)]
    pub dry_run: bool,
}

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
struct Plan {
    document: Document,
    /// The version of the document that it replaces.
    expected: Option<Etag>,
    before: Option<Value>,
    problems: Vec<FieldProblem>,
    written: Written,
    after: Option<Value>,
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
    fn plan(&self, state: &AppState, set: &DocumentSet, index: &Index) -> Result<Plan, ApiError> {
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

/// Makes a change.
pub(super) async fn run(state: &AppState, trail: &Trail, job: Job) -> Result<Written, ApiError> {
    trail.target(job.id.clone());
    let job = Arc::new(job);
    let mut config = state.config.clone();
    for _ in 0..TRIES {
        let set = Arc::clone(&config.borrow_and_update().documents);
        let (planned, of) = (Arc::clone(&job), state.clone());
        let done = tokio::task::spawn_blocking(move || {
            let index = of.indexes.of(&set, &planned.sort);
            let plan = planned.plan(&of, &set, &index)?;
            if planned.dry_run {
                return Ok(Some(plan));
            }
            match of
                .source
                .put(&plan.document.name, &plan.document.bytes, plan.expected.as_ref())
            {
                Ok(()) => Ok(Some(plan)),
                Err(PutError::Changed { .. }) => Ok(None),
                Err(error) => Err(ApiError::from(error)),
            }
        });
        if let Some(plan) = done.await?? {
            return Ok(finish(state, trail, plan, job.dry_run).await);
        }
        // Somebody wrote something else there: plan anew once it has been looked at.
        let _ = tokio::time::timeout(PATIENCE, config.changed()).await;
    }
    Err(ApiError::conflict(
        "others are changing the document all the time; try again",
    ))
}

/// Waits until what was written has been looked at.
async fn finish(state: &AppState, trail: &Trail, plan: Plan, dry_run: bool) -> Written {
    let mut written = Written {
        problems: plan.problems,
        ..plan.written
    };
    if dry_run {
        trail.nothing();
    } else {
        trail.changed(plan.before, plan.after);
        let mut config = state.config.clone();
        let (name, etag) = (&plan.document.name, &plan.document.etag);
        let seen = config.wait_for(|s| s.documents.get(name).is_some_and(|d| d.etag == *etag));
        let seen = tokio::time::timeout(PATIENCE, seen).await;
        written.written = true;
        written.in_force = matches!(seen, Ok(Ok(status)) if status.in_force);
    }
    written.generation = state.status().generation();
    written
}

/// The entry that was sent.
pub(super) fn sent(body: &[u8]) -> Result<Json, ApiError> {
    let json = Json::parse(body).map_err(|e| ApiError::bad_request(format!("the body is not JSON: {e}")))?;
    match json {
        Json::Object(_) => Ok(json),
        _ => Err(ApiError::invalid_fields(vec![FieldProblem::at(
            "",
            "expected an object",
        )])),
    }
}

/// Adds an entry.
pub(in crate::api) async fn create(
    sort: Sort,
    (state, who, trail): (AppState, Principal, Trail),
    query: CreateQuery,
    body: &[u8],
) -> Result<Written, ApiError> {
    let value = sent(body)?;
    let Some(id) = value.text(sort.id).map(str::to_owned) else {
        let reason = format!("must be a text: it is what the {} is known by", sort.one);
        return Err(ApiError::invalid_fields(vec![FieldProblem::at(sort.id, reason)]));
    };
    if sort.is_limited() && !who.sees(&id) {
        return Err(ApiError::forbidden(format!(
            "`{id}` is not among the channels that this account may see"
        )));
    }
    let edit: Edit = Box::new(move |_| Ok(Some(value.clone())));
    let job = Job {
        sort,
        id,
        known: Known::Absent,
        document: query.document,
        edit,
        dry_run: query.dry_run,
    };
    run(&state, &trail, job).await
}

/// Replaces an entry.
pub(in crate::api) async fn replace(
    sort: Sort,
    (state, who, trail): (AppState, Principal, Trail),
    (id, query): (String, WriteQuery),
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Written, ApiError> {
    visible(&sort, &who, &id)?;
    let value = sent(body)?;
    let edit: Edit = Box::new(move |_| Ok(Some(value.clone())));
    let known = Known::from_headers(headers)?;
    run(
        &state,
        &trail,
        Job {
            sort,
            id,
            known,
            document: None,
            edit,
            dry_run: query.dry_run,
        },
    )
    .await
}

/// Changes fields of an entry.
pub(in crate::api) async fn patch(
    sort: Sort,
    (state, who, trail): (AppState, Principal, Trail),
    (id, query): (String, WriteQuery),
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Written, ApiError> {
    visible(&sort, &who, &id)?;
    let mut change = sent(body)?;
    if sort.kind == tollgate_policy::Kind::Providers {
        one_credential(&mut change);
    }
    let known = Known::from_headers(headers)?;
    run(
        &state,
        &trail,
        Job {
            sort,
            id,
            known,
            document: None,
            edit: merging(change),
            dry_run: query.dry_run,
        },
    )
    .await
}

/// A credential that is given takes the place of the one there is, in whatever form that stands.
fn one_credential(change: &mut Json) {
    const FORMS: [&str; 3] = ["key", "encrypted", "key_ref"];
    let Some(Json::Object(_)) = change.get("credentials") else {
        return;
    };
    if let Some(credentials) = change.entry("credentials", Json::Scalar(Value::Null))
        && FORMS.iter().any(|form| credentials.text(form).is_some())
    {
        for form in FORMS {
            credentials.entry(form, Json::Scalar(Value::Null));
        }
    }
}

fn merging(change: Json) -> Edit {
    Box::new(move |present| {
        let mut value = present.cloned().unwrap_or(Json::Object(Vec::new()));
        value.merge(&change);
        Ok(Some(value))
    })
}

/// Sets one field of an entry, whatever its version.
pub(in crate::api) async fn set_field(
    sort: Sort,
    (state, who, trail): (AppState, Principal, Trail),
    id: String,
    field: &str,
    value: Value,
) -> Result<Written, ApiError> {
    visible(&sort, &who, &id)?;
    let change = Json::Object(vec![(field.to_owned(), Json::Scalar(value))]);
    let job = Job {
        sort,
        id,
        known: Known::Present,
        document: None,
        edit: merging(change),
        dry_run: false,
    };
    run(&state, &trail, job).await
}

/// Puts an entry there, whatever there was.
pub(in crate::api) async fn put(
    sort: Sort,
    (state, _, trail): (AppState, Principal, Trail),
    id: &str,
    value: &Value,
) -> Result<Written, ApiError> {
    let value = sent(value.to_string().as_bytes())?;
    let index = super::list::present(&state, sort).await?;
    let known = if index.get(id).is_some() {
        Known::Present
    } else {
        Known::Absent
    };
    let edit: Edit = Box::new(move |_| Ok(Some(value.clone())));
    run(
        &state,
        &trail,
        Job {
            sort,
            id: id.to_owned(),
            known,
            document: None,
            edit,
            dry_run: false,
        },
    )
    .await
}

/// Removes an entry.
pub(in crate::api) async fn remove(
    sort: Sort,
    (state, who, trail): (AppState, Principal, Trail),
    (id, query): (String, WriteQuery),
    headers: &HeaderMap,
) -> Result<Written, ApiError> {
    visible(&sort, &who, &id)?;
    let known = Known::from_headers(headers)?;
    let edit: Edit = Box::new(|_| Ok(None));
    run(
        &state,
        &trail,
        Job {
            sort,
            id,
            known,
            document: None,
            edit,
            dry_run: query.dry_run,
        },
    )
    .await
}
