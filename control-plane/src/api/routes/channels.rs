//! Routes of channels and of models' deployments, which can do more than other entries.

use axum::extract::State;
use axum::http::HeaderMap;
use axum::{Extension, Json};
use tollgate_policy::documents as doc;

use super::entries::{created, entries, percent};
use super::{may, object};
use crate::accounts::Action::{Create, Delete, Read, Update};
use crate::accounts::{Principal, Resource};
use crate::api::extract::{Body, Path, Query};
use crate::api::guard::Trail;
use crate::api::resources::sort::Sort;
use crate::api::resources::{self, CreateQuery, Item, ListQuery, Page, WriteQuery, Written};
use crate::api::route::Route;
use crate::api::{AppState, limits, session};

pub(super) fn channels() -> Vec<Route> {
    let resource = Resource::Channels;
    let mut all: Vec<Route> = Vec::new();
    // Before `/channels/{id}`, so that readers find it; the router does not mind.
    all.push(
        Route::post(
            "/channels/effective",
            may(resource, Read),
            "Says what a channel would come to with its templates, and where each value is written",
            async |State(state): State<AppState>, Extension(who): Extension<Principal>, Body(body): Body| {
                resources::preview(state, who, &body).await.map(Json)
            },
        )
        .takes::<doc::Channel>()
        .gives::<resources::Effective>(),
    );
    all.extend(entries!(
        Sort::CHANNELS,
        doc::Channel,
        "/channels",
        "/channels/{id}",
        "channels",
        "a channel"
    ));
    all.extend([
        Route::get(
            "/channels/{id}/effective",
            may(resource, Read),
            "Says what a channel comes to with its templates, and where each value is written",
            async |State(state): State<AppState>,
                   Extension(who): Extension<Principal>,
                   Path(id): Path<String>| {
                resources::effective(state, who, id).await.map(Json)
            },
        )
        .gives::<resources::Effective>(),
        Route::post(
            "/channels/{id}/keys",
            may(resource, Update),
            "Makes a key for a channel; it is shown once",
            async |State(state): State<AppState>,
                   Extension(who): Extension<Principal>,
                   Extension(trail): Extension<Trail>,
                   Path(id): Path<String>,
                   Body(body): Body| {
                let wanted = if body.is_empty() {
                    resources::NewKey::default()
                } else {
                    session::decoded(&body)?
                };
                resources::make_key((state, who, trail), id, wanted).await
            },
        )
        .takes::<resources::NewKey>()
        .gives::<resources::MadeKey>()
        .status(201),
        Route::post(
            "/channels/{id}/keys/{key}/rotate",
            may(resource, Update),
            "Makes a key in place of another one, which expires",
            async |State(state): State<AppState>,
                   Extension(who): Extension<Principal>,
                   Extension(trail): Extension<Trail>,
                   Path((id, key)): Path<(String, String)>,
                   Body(body): Body| {
                let wanted = if body.is_empty() {
                    resources::Rotation::default()
                } else {
                    session::decoded(&body)?
                };
                resources::rotate_key((state, who, trail), id, key, wanted).await
            },
        )
        .takes::<resources::Rotation>()
        .gives::<resources::MadeKey>()
        .status(201),
        Route::delete(
            "/channels/{id}/keys/{key}",
            may(resource, Update),
            "Removes a channel's key",
            async |State(state): State<AppState>,
                   Extension(who): Extension<Principal>,
                   Extension(trail): Extension<Trail>,
                   Path((id, key)): Path<(String, String)>| {
                resources::remove_key((state, who, trail), id, key).await
            },
        )
        .gives::<Written>(),
        Route::get(
            "/channels/{id}/limits",
            may(Resource::Limits, Read),
            "Says how full a channel's limits are",
            limits::of_channel,
        )
        .query::<limits::OfModel>()
        .gives::<limits::ChannelLimits>(),
    ]);
    all.into_iter().map(Route::narrowed).collect()
}

pub(super) fn nested() -> Vec<Route> {
    let resource = Resource::Models;
    vec![
        Route::get(
            "/models/{id}/deployments",
            may(resource, Read),
            "Lists a model's deployments",
            async |State(state): State<AppState>, Path(model): Path<String>| {
                resources::deployments(state, model).await.map(Json)
            },
        )
        .gives::<Page>()
        .harmless(),
        Route::post(
            "/models/{id}/deployments",
            may(resource, Update),
            "Adds a deployment to a model",
            async |State(state): State<AppState>,
                   Extension(who): Extension<Principal>,
                   Extension(trail): Extension<Trail>,
                   Path(model): Path<String>,
                   Query(query): Query<WriteQuery>,
                   Body(body): Body| {
                let place = format!("/models/{}/deployments", percent(&model));
                let written = resources::make_deployment((state, who, trail), model, query, &body).await;
                written.map(|w| created(&place, w))
            },
        )
        .query::<WriteQuery>()
        .takes::<doc::Deployment>()
        .gives::<Written>()
        .status(201),
        Route::get(
            "/models/{id}/deployments/{deployment}",
            may(resource, Read),
            "Reads a deployment",
            async |State(state): State<AppState>, Path((model, id)): Path<(String, String)>| {
                resources::deployment(state, model, id).await
            },
        )
        .gives::<Item>()
        .harmless(),
        Route::put(
            "/models/{id}/deployments/{deployment}",
            may(resource, Update),
            "Replaces a deployment",
            async |State(state): State<AppState>,
                   Extension(who): Extension<Principal>,
                   Extension(trail): Extension<Trail>,
                   Path(place): Path<(String, String)>,
                   Query(query): Query<WriteQuery>,
                   headers: HeaderMap,
                   Body(body): Body| {
                resources::replace_deployment((state, who, trail), place, query, &headers, &body).await
            },
        )
        .query::<WriteQuery>()
        .if_match()
        .takes::<doc::Deployment>()
        .gives::<Written>(),
        Route::patch(
            "/models/{id}/deployments/{deployment}",
            may(resource, Update),
            "Changes fields of a deployment (JSON merge patch)",
            async |State(state): State<AppState>,
                   Extension(who): Extension<Principal>,
                   Extension(trail): Extension<Trail>,
                   Path(place): Path<(String, String)>,
                   Query(query): Query<WriteQuery>,
                   headers: HeaderMap,
                   Body(body): Body| {
                resources::patch_deployment((state, who, trail), place, query, &headers, &body).await
            },
        )
        .query::<WriteQuery>()
        .if_match()
        .takes_schema(object)
        .gives::<Written>(),
        Route::delete(
            "/models/{id}/deployments/{deployment}",
            may(resource, Update),
            "Removes a deployment",
            async |State(state): State<AppState>,
                   Extension(who): Extension<Principal>,
                   Extension(trail): Extension<Trail>,
                   Path(place): Path<(String, String)>,
                   Query(query): Query<WriteQuery>,
                   headers: HeaderMap| {
                resources::remove_deployment((state, who, trail), place, query, &headers).await
            },
        )
        .query::<WriteQuery>()
        .if_match()
        .gives::<Written>(),
    ]
}
