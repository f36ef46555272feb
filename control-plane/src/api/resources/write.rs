//! Changing entries: a plan is made, and written if nobody else has written meanwhile.

use std::sync::Arc;
use std::time::Duration;

use axum::http::HeaderMap;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;

use super::answer::Written;
use super::list::visible;
use super::ordered::Json;
use super::plan::{Edit, Job, Known, Plan};
use super::sort::Sort;
use crate::accounts::Principal;
use crate::api::error::FieldProblem;
use crate::api::guard::Trail;
use crate::api::{ApiError, AppState};
use crate::config::{Change, Edit as DocumentEdit, Expected, PutError};

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

/// Makes a change.
pub(super) async fn run(state: &AppState, trail: &Trail, job: Job) -> Result<Written, ApiError> {
    trail.target(job.id.clone());
    let (job, message) = {
        let message = trail.message(job.message());
        (Arc::new(job), message)
    };
    let mut config = state.config.clone();
    for _ in 0..TRIES {
        let set = Arc::clone(&config.borrow_and_update().documents);
        let (planned, of, author) = (Arc::clone(&job), state.clone(), trail.who().to_owned());
        let message = message.clone();
        let done = tokio::task::spawn_blocking(move || {
            let index = of.indexes.of(&set, &planned.sort);
            let plan = planned.plan(&of, &set, &index)?;
            if planned.dry_run {
                return Ok(Some((plan, None)));
            }
            let change = Change {
                author: author.clone(),
                message,
                edits: vec![DocumentEdit {
                    name: plan.document.name.clone(),
                    bytes: Some(Arc::clone(&plan.document.bytes)),
                    expected: Expected::exactly(plan.expected.as_ref()),
                }],
            };
            match of.source.publish(&change) {
                Ok(version) => Ok(Some((plan, Some(version.number)))),
                Err(PutError::Changed { .. }) => Ok(None),
                Err(error) => Err(ApiError::from(error)),
            }
        });
        if let Some((plan, version)) = done.await?? {
            return Ok(finish(state, trail, plan, version).await);
        }
        // Somebody wrote something else there: plan anew once it has been looked at.
        let _ = tokio::time::timeout(PATIENCE, config.changed()).await;
    }
    Err(ApiError::conflict(
        "others are changing the document all the time; try again",
    ))
}

/// Waits until the version that was written has been looked at, or a later one; there is none after a dry run.
async fn finish(state: &AppState, trail: &Trail, plan: Plan, version: Option<u64>) -> Written {
    let mut written = Written {
        problems: plan.problems,
        ..plan.written
    };
    if let Some(version) = version {
        trail.changed(plan.before, plan.after);
        let mut config = state.config.clone();
        let seen = config.wait_for(|s| s.documents.version.is_some_and(|v| v >= version));
        let seen = tokio::time::timeout(PATIENCE, seen).await;
        written.written = true;
        written.in_force = matches!(seen, Ok(Ok(status)) if status.in_force);
    } else {
        trail.nothing();
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

/// Merges fields into an entry (RFC 7396).
pub(super) fn merging(change: Json) -> Edit {
    Box::new(move |present| {
        let mut value = present.cloned().unwrap_or(Json::Object(Vec::new()));
        value.merge(&change);
        Ok(Some(value))
    })
}

/// What a deed does to an entry as it stands: a merge patch (RFC 7396).
pub(in crate::api) type Deed = Box<dyn Fn(&Value) -> Result<Value, ApiError> + Send + Sync>;

/// Changes an entry, whatever its version; of settings, of which there is one, also where nothing is written yet.
pub(in crate::api) async fn amend(
    sort: Sort,
    (state, who, trail): (AppState, Principal, Trail),
    id: String,
    deed: Deed,
) -> Result<Written, ApiError> {
    visible(&sort, &who, &id)?;
    let begun = sort.is_single() && super::list::present(&state, sort).await?.entries.is_empty();
    let edit: Edit = Box::new(move |present| {
        let mut value = present.cloned().unwrap_or(Json::Object(Vec::new()));
        let patch = deed(&value.to_value())?;
        value.merge(&sent(patch.to_string().as_bytes())?);
        Ok(Some(value))
    });
    let job = Job {
        sort,
        id,
        known: if begun { Known::Absent } else { Known::Present },
        document: None,
        edit,
        dry_run: false,
    };
    run(&state, &trail, job).await
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
