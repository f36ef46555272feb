//! Deployments of a model, as entries of their own.

use axum::http::HeaderMap;
use serde_json::value::RawValue;

use super::answer::{Item, Page, Written};
use super::index::etag_of;
use super::list::{missing, present};
use super::ordered::Json;
use super::plan::{Edit, Job, Known};
use super::sort::Sort;
use super::write::{WriteQuery, merging, run, sent};
use crate::accounts::Principal;
use crate::api::error::FieldProblem;
use crate::api::guard::Trail;
use crate::api::{ApiError, AppState};
use crate::audit::changes;

type Context = (AppState, Principal, Trail);

fn id_of(deployment: &Json, model: &str) -> String {
    let default = || format!("{model}/{}", deployment.text("provider").unwrap_or_default());
    deployment.text("id").map_or_else(default, str::to_owned)
}

fn text_of(deployment: &Json) -> String {
    deployment.to_value().to_string()
}

fn etag(deployment: &Json) -> String {
    etag_of(text_of(deployment).as_bytes())
}

fn list_of(model: &Json) -> Vec<Json> {
    match model.get("deployments") {
        Some(Json::Array(list)) => list.clone(),
        _ => Vec::new(),
    }
}

fn item(deployment: &Json, model: &str, document: &str, index: usize) -> Item {
    Item {
        id: id_of(deployment, model),
        etag: etag(deployment),
        document: document.to_owned(),
        index,
        value: RawValue::from_string(text_of(deployment)).unwrap_or_else(|_| RawValue::NULL.to_owned()),
    }
}

async fn all(state: &AppState, model: &str) -> Result<Vec<Item>, ApiError> {
    let sort = Sort::MODELS;
    let index = present(state, sort).await?;
    let entry = index.get(model).ok_or_else(|| missing(&sort, model))?;
    let document = index.document(entry).map(|d| d.name.clone()).unwrap_or_default();
    let parsed = Json::parse(index.text(entry)).map_err(ApiError::internal)?;
    let items = list_of(&parsed);
    Ok(items
        .iter()
        .enumerate()
        .map(|(n, d)| item(d, model, &document, n))
        .collect())
}

/// All deployments of a model.
pub(in crate::api) async fn deployments(state: AppState, model: String) -> Result<Page, ApiError> {
    let items = all(&state, &model).await?;
    let status = state.status();
    let n = items.len();
    Ok(Page {
        items,
        total: n,
        matched: n,
        next: None,
        in_force: status.in_force,
        generation: status.generation(),
    })
}

fn no_deployment(model: &str, id: &str) -> ApiError {
    ApiError::not_found(format!("the model `{model}` has no deployment `{id}`"))
}

/// One deployment.
pub(in crate::api) async fn deployment(state: AppState, model: String, id: String) -> Result<Item, ApiError> {
    let found = all(&state, &model).await?.into_iter().find(|d| d.id == id);
    found.ok_or_else(|| no_deployment(&model, &id))
}

/// Changes one deployment of the model's list, with the same checks as an entry of a document.
async fn change(
    (state, _, trail): &Context,
    model: String,
    id: Option<String>,
    known: Known,
    dry_run: bool,
    change: Edit,
) -> Result<Written, ApiError> {
    let (name, wanted) = (model.clone(), id.clone());
    let edit = Box::new(move |present: Option<&Json>| {
        let mut value = present.cloned().unwrap_or(Json::Object(Vec::new()));
        let mut list = list_of(&value);
        let place = wanted
            .as_ref()
            .and_then(|id| list.iter().position(|d| id_of(d, &name) == *id));
        let old = place.and_then(|n| list.get(n));
        let id = wanted.clone().unwrap_or_default();
        match (&known, old) {
            (Known::Present, None) => return Err(no_deployment(&name, &id)),
            (Known::Version(_), None) => {
                let detail = format!("the deployment `{id}` is not there any more");
                return Err(ApiError::edited(detail, serde_json::Value::Null, Vec::new()));
            }
            (Known::Version(known), Some(old)) if *known != etag(old) => {
                let yours = change(Some(old))?.map_or(serde_json::Value::Null, |j| j.to_value());
                let diff = changes(&old.to_value(), &yours);
                let current = serde_json::json!(item(old, &name, "", place.unwrap_or_default()));
                return Err(ApiError::edited(
                    "the deployment was changed meanwhile",
                    current,
                    diff,
                ));
            }
            _ => {}
        }
        let fresh = change(old)?;
        if let Some(fresh) = &fresh {
            let new_id = id_of(fresh, &name);
            if place.is_none() && list.iter().any(|d| id_of(d, &name) == new_id) {
                return Err(ApiError::conflict(format!(
                    "there is a deployment `{new_id}` already; give it an `id`"
                )));
            }
            if place.is_some() && new_id != id {
                let reason = format!("must stay `{id}`: it is what the deployment is known by");
                return Err(ApiError::invalid_fields(vec![FieldProblem::at("id", reason)]));
            }
        }
        match (place, fresh) {
            (Some(n), Some(fresh)) => list.splice(n..=n, [fresh]).for_each(drop),
            (Some(n), None) => drop(list.remove(n)),
            (None, Some(fresh)) => list.push(fresh),
            (None, None) => {}
        }
        value.merge(&Json::Object(vec![("deployments".to_owned(), Json::Array(list))]));
        Ok(Some(value))
    });
    let sort = Sort::MODELS;
    let job = Job {
        sort,
        id: model.clone(),
        known: Known::Present,
        document: None,
        edit,
        dry_run,
    };
    let written = run(state, trail, job).await?;
    Ok(of_deployment(written, &model, id.as_deref()))
}

/// The answer about a model as one about its deployment.
fn of_deployment(written: Written, model: &str, id: Option<&str>) -> Written {
    let value = written
        .value
        .as_ref()
        .and_then(|v| Json::parse(v.get().as_bytes()).ok());
    let list = value.as_ref().map(list_of).unwrap_or_default();
    // A new one stands last.
    let found = match id {
        Some(id) => list.iter().position(|d| id_of(d, model) == id),
        None => list.len().checked_sub(1),
    };
    let shown = found.and_then(|n| Some(item(list.get(n)?, model, &written.document, n)));
    Written {
        id: shown
            .as_ref()
            .map(|i| i.id.clone())
            .or(id.map(str::to_owned))
            .unwrap_or_default(),
        etag: shown.as_ref().map(|i| i.etag.clone()),
        index: shown.as_ref().map(|i| i.index),
        value: shown.map(|i| i.value),
        ..written
    }
}

/// Adds a deployment to a model.
pub(in crate::api) async fn make_deployment(
    context: Context,
    model: String,
    query: WriteQuery,
    body: &[u8],
) -> Result<Written, ApiError> {
    let value = sent(body)?;
    let edit: Edit = Box::new(move |_| Ok(Some(value.clone())));
    change(&context, model, None, Known::Absent, query.dry_run, edit).await
}

/// Replaces a deployment.
pub(in crate::api) async fn replace_deployment(
    context: Context,
    (model, id): (String, String),
    query: WriteQuery,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Written, ApiError> {
    let value = sent(body)?;
    let edit: Edit = Box::new(move |_| Ok(Some(value.clone())));
    change(
        &context,
        model,
        Some(id),
        Known::from_headers(headers)?,
        query.dry_run,
        edit,
    )
    .await
}

/// Changes fields of a deployment.
pub(in crate::api) async fn patch_deployment(
    context: Context,
    (model, id): (String, String),
    query: WriteQuery,
    headers: &HeaderMap,
    body: &[u8],
) -> Result<Written, ApiError> {
    let edit = merging(sent(body)?);
    change(
        &context,
        model,
        Some(id),
        Known::from_headers(headers)?,
        query.dry_run,
        edit,
    )
    .await
}

/// Removes a deployment.
pub(in crate::api) async fn remove_deployment(
    context: Context,
    (model, id): (String, String),
    query: WriteQuery,
    headers: &HeaderMap,
) -> Result<Written, ApiError> {
    let edit: Edit = Box::new(|_| Ok(None));
    change(
        &context,
        model,
        Some(id),
        Known::from_headers(headers)?,
        query.dry_run,
        edit,
    )
    .await
}
