//! Changes of documents that are published later.

use std::sync::Arc;

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::{Extension, Json};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tollgate_policy::Problem;

use super::error::FieldProblem;
use super::extract::{Body, Path};
use super::guard::Trail;
use super::publish::{Texts, author, edits};
use super::session::decoded;
use super::{ApiError, AppState};
use crate::accounts::{Principal, Via, random_text};
use crate::config::{DocumentDiff, DocumentSet, diff, edited, parse_set};
use crate::schedule::{Cancelled, Draft, KeptEdit, Schedules, State as Progress, now_ms};

/// Most drafts that wait at a time.
const MOST_WAITING: usize = 500;
/// Longest text of a draft's documents together: drafts stand in the store that instances share.
const MOST_BYTES: usize = 4 << 20;
/// How far ahead a draft may be.
const FURTHEST_MS: u64 = 366 * 86_400_000;

/// A change that is published later.
#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewSchedule {
    /// When, Unix milliseconds.
    at_ms: u64,
    /// Content by document name, or by kind for all documents of that kind; an object, its text as a string, or `null`
    /// to take it away.
    #[schemars(with = "std::collections::BTreeMap<String, Value>")]
    documents: Texts,
    /// Why.
    #[serde(default)]
    message: String,
}

/// A change that is published later.
#[derive(Serialize, JsonSchema)]
pub(super) struct Schedule {
    id: String,
    /// When it is to be published, Unix milliseconds.
    at_ms: u64,
    /// Who wants it.
    author: String,
    /// Why.
    message: String,
    /// When it was made, Unix milliseconds.
    created_at_ms: u64,
    /// The documents that it changes.
    documents: Vec<String>,
    /// How far it has come.
    #[schemars(extend("enum" = ["waiting", "running", "published", "refused", "cancelled"]))]
    state: &'static str,
    /// The version that it has become; null unless it was published.
    version: Option<u64>,
    /// The instance that has published it or does it now.
    instance: Option<String>,
    /// Why it was refused, or who cancelled it.
    reason: Option<String>,
    /// What was wrong with the documents.
    problems: Vec<String>,
    /// When it ended, Unix milliseconds; null if it has not.
    ended_at_ms: Option<u64>,
}

/// Changes that are published later, and those that were lately.
#[derive(Serialize, JsonSchema)]
pub(super) struct ScheduleList {
    /// In the order of their time.
    items: Vec<Schedule>,
}

/// A change that is published later, and what it changes.
#[derive(Serialize, JsonSchema)]
pub(super) struct OneSchedule {
    #[serde(flatten)]
    schedule: Schedule,
    /// Documents that were changed since it was made; it would be refused. Empty unless it waits.
    conflicts: Vec<String>,
    /// How its documents differ from the present ones. Empty unless it waits.
    diff: Vec<DocumentDiff>,
}

impl Schedule {
    fn of(draft: &Draft) -> Schedule {
        let mut schedule = Schedule {
            id: draft.id.clone(),
            at_ms: draft.at_ms,
            author: draft.author.clone(),
            message: draft.message.clone(),
            created_at_ms: draft.created_ms,
            documents: draft.edits.iter().map(|e| e.name.clone()).collect(),
            state: "waiting",
            version: None,
            instance: None,
            reason: None,
            problems: Vec::new(),
            ended_at_ms: draft.ended_ms(),
        };
        match &draft.state {
            Progress::Waiting => {}
            Progress::Running { instance, .. } => {
                schedule.state = "running";
                schedule.instance = Some(instance.clone());
            }
            Progress::Published {
                version, instance, ..
            } => {
                schedule.state = "published";
                schedule.version = Some(*version);
                schedule.instance = Some(instance.clone());
            }
            Progress::Refused { reason, problems, .. } => {
                schedule.state = "refused";
                schedule.reason = Some(reason.clone());
                schedule.problems.clone_from(problems);
            }
            Progress::Cancelled { by, .. } => {
                schedule.state = "cancelled";
                schedule.reason = Some(format!("cancelled by {by}"));
            }
        }
        schedule
    }
}

async fn blocking<T: Send + 'static>(
    state: &AppState,
    work: impl FnOnce(&Schedules) -> Result<T, ApiError> + Send + 'static,
) -> Result<T, ApiError> {
    let schedules = state.schedules.clone();
    tokio::task::spawn_blocking(move || work(&schedules)).await?
}

fn missing(id: &str) -> ApiError {
    ApiError::not_found(format!("there is no scheduled change `{id}`"))
}

/// All of them.
pub(super) async fn list(State(state): State<AppState>) -> Result<Json<ScheduleList>, ApiError> {
    blocking(&state, |schedules| {
        let items = schedules
            .list()?
            .iter()
            .map(|(draft, _)| Schedule::of(draft))
            .collect();
        Ok(Json(ScheduleList { items }))
    })
    .await
}

/// One of them, and what it changes.
pub(super) async fn one(
    State(state): State<AppState>,
    Path(id): Path<String>,
) -> Result<Json<OneSchedule>, ApiError> {
    let present = Arc::clone(&state.status().documents);
    blocking(&state, move |schedules| {
        let (draft, _) = schedules.one(&id)?.ok_or_else(|| missing(&id))?;
        let waits = draft.state == Progress::Waiting;
        let (conflicts, diff) = if waits {
            against(&present, &draft)
        } else {
            Default::default()
        };
        Ok(Json(OneSchedule {
            schedule: Schedule::of(&draft),
            conflicts,
            diff,
        }))
    })
    .await
}

/// What a draft conflicts with, and what it would change.
fn against(present: &DocumentSet, draft: &Draft) -> (Vec<String>, Vec<DocumentDiff>) {
    let (mut conflicts, mut differences) = (Vec::new(), Vec::new());
    for edit in draft.edits.iter().map(KeptEdit::edit) {
        let there = present.get(&edit.name);
        if !edit.expected.holds(there.map(|d| &d.etag)) {
            conflicts.push(edit.name.clone());
        }
        differences.extend(diff(&edit.name, there.map(|d| &*d.bytes), edit.bytes.as_deref()));
    }
    (conflicts, differences)
}

/// Keeps a change until its time has come. It must be valid now; it is looked at again then.
pub(super) async fn create(
    State(state): State<AppState>,
    Extension(who): Extension<Principal>,
    Extension(trail): Extension<Trail>,
    headers: HeaderMap,
    Body(body): Body,
) -> Result<(StatusCode, Json<Schedule>), ApiError> {
    let wanted: NewSchedule = decoded(&body)?;
    let now = now_ms();
    if !(now..now + FURTHEST_MS).contains(&wanted.at_ms) {
        let reason = "must lie in the future, within a year; Unix milliseconds";
        return Err(ApiError::invalid_fields(vec![FieldProblem::at("at_ms", reason)]));
    }
    if state.source.versions().is_none() {
        return Err(ApiError::conflict("this configuration is for reading only"));
    }
    let set = Arc::clone(&state.status().documents);
    let edits = edits(&state, &set, &wanted.documents)?;
    if edits.is_empty() {
        return Err(ApiError::invalid_fields(vec![FieldProblem::at(
            "documents",
            "must not be empty",
        )]));
    }
    let bytes: usize = edits
        .iter()
        .filter_map(|e| e.bytes.as_ref())
        .map(|b| b.len())
        .sum();
    if bytes > MOST_BYTES {
        let detail = format!("the documents have {bytes} bytes; {MOST_BYTES} can be scheduled");
        return Err(ApiError::too_large(detail));
    }
    let candidate = edited(&set, &edits);
    let problems = tokio::task::spawn_blocking(move || parse_set(&candidate).1).await?;
    if problems.iter().any(Problem::is_error) {
        return Err(ApiError::invalid(problems));
    }
    let kept: Option<Vec<KeptEdit>> = edits.iter().map(KeptEdit::of).collect();
    let draft = Draft {
        id: random_text(9)?,
        at_ms: wanted.at_ms,
        author: author(&headers, &trail)?,
        account: (who.via != Via::BreakGlass).then(|| who.name.clone()),
        message: wanted.message,
        created_ms: now,
        edits: kept.ok_or_else(|| ApiError::bad_request("a document is no text"))?,
        state: Progress::Waiting,
    };
    let shown = Schedule::of(&draft);
    trail.target(format!("scheduled change {}", draft.id));
    trail.changed(None, Some(json!(shown)));
    blocking(&state, move |schedules| {
        let waiting = schedules
            .list()?
            .iter()
            .filter(|(d, _)| d.ended_ms().is_none())
            .count();
        if waiting >= MOST_WAITING {
            return Err(ApiError::conflict(format!(
                "{waiting} changes are waiting already"
            )));
        }
        schedules.put(&draft, None)?;
        Ok(())
    })
    .await?;
    Ok((StatusCode::CREATED, Json(shown)))
}

/// Sees to it that a change is not published.
pub(super) async fn cancel(
    State(state): State<AppState>,
    Extension(trail): Extension<Trail>,
    Path(id): Path<String>,
) -> Result<Json<Schedule>, ApiError> {
    trail.target(format!("scheduled change {id}"));
    let by = trail.who().to_owned();
    let draft = blocking(&state, move |schedules| match schedules.cancel(&id, &by)? {
        Cancelled::Done(draft) => Ok(draft),
        Cancelled::Missing => Err(missing(&id)),
        Cancelled::TooLate => Err(ApiError::conflict(
            "its time has come; it cannot be cancelled any more",
        )),
    })
    .await?;
    Ok(Json(Schedule::of(&draft)))
}
