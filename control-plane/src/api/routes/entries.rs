//! Routes of the sorts of entries that are alike.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use tollgate_policy::documents as doc;

use super::{may, object};
use crate::accounts::Action::{Create, Delete, Read, Update};
use crate::accounts::{Principal, Resource};
use crate::api::extract::{Body, Path, Query};
use crate::api::guard::Trail;
use crate::api::resources::sort::Sort;
use crate::api::resources::{self, CreateQuery, Item, ListQuery, Page, WriteQuery, Written};
use crate::api::route::{Reach, Route};
use crate::api::{AppState, BASE, documents, publish, reseal, schedules, schema, versions};

/// Longest whole document.
const MAX_DOCUMENT: usize = 256 << 20;

/// A new entry's answer: where it is, and what it is.
pub(super) fn created(place: &str, written: Written) -> Response {
    let id = percent(&written.id);
    let status = if written.written {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let location = [(header::LOCATION, format!("{}{place}/{id}", BASE))];
    (status, location, written).into_response()
}

/// As a part of a path.
pub(super) fn percent(id: &str) -> String {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_' | b'~');
    id.bytes()
        .map(|b| {
            if plain(b) {
                char::from(b).to_string()
            } else {
                format!("%{b:02X}")
            }
        })
        .collect()
}

/// The routes of a sort of entries.
macro_rules! entries {
    ($sort:expr, $type:ty, $all:literal, $one:literal, $many:literal, $single:literal) => {
        [
            Route::get(
                $all,
                may($sort.resource, Read),
                concat!("Lists ", $many),
                async |State(state): State<AppState>,
                       Extension(who): Extension<Principal>,
                       Query(query): Query<ListQuery>| {
                    resources::page($sort, state, who, query).await.map(Json)
                },
            )
            .query::<ListQuery>()
            .gives::<Page>(),
            Route::post(
                $all,
                may($sort.resource, Create),
                concat!("Adds ", $single),
                async |State(state): State<AppState>,
                       Extension(who): Extension<Principal>,
                       Extension(trail): Extension<Trail>,
                       Query(query): Query<CreateQuery>,
                       Body(body): Body| {
                    let written = resources::create($sort, (state, who, trail), query, &body).await;
                    written.map(|w| created($all, w))
                },
            )
            .query::<CreateQuery>()
            .takes::<$type>()
            .gives::<Written>()
            .status(201),
            Route::get(
                $one,
                may($sort.resource, Read),
                concat!("Reads ", $single),
                async |State(state): State<AppState>,
                       Extension(who): Extension<Principal>,
                       Path(id): Path<String>| { resources::one($sort, state, who, id).await },
            )
            .gives::<Item>(),
            Route::put(
                $one,
                may($sort.resource, Update),
                concat!("Replaces ", $single),
                async |State(state): State<AppState>,
                       Extension(who): Extension<Principal>,
                       Extension(trail): Extension<Trail>,
                       Path(id): Path<String>,
                       Query(query): Query<WriteQuery>,
                       headers: HeaderMap,
                       Body(body): Body| {
                    resources::replace($sort, (state, who, trail), (id, query), &headers, &body).await
                },
            )
            .query::<WriteQuery>()
            .if_match()
            .takes::<$type>()
            .gives::<Written>(),
            Route::patch(
                $one,
                may($sort.resource, Update),
                concat!("Changes fields of ", $single, " (JSON merge patch)"),
                async |State(state): State<AppState>,
                       Extension(who): Extension<Principal>,
                       Extension(trail): Extension<Trail>,
                       Path(id): Path<String>,
                       Query(query): Query<WriteQuery>,
                       headers: HeaderMap,
                       Body(body): Body| {
                    resources::patch($sort, (state, who, trail), (id, query), &headers, &body).await
                },
            )
            .query::<WriteQuery>()
            .if_match()
            .takes_schema(object)
            .gives::<Written>(),
            Route::delete(
                $one,
                may($sort.resource, Delete),
                concat!("Removes ", $single),
                async |State(state): State<AppState>,
                       Extension(who): Extension<Principal>,
                       Extension(trail): Extension<Trail>,
                       Path(id): Path<String>,
                       Query(query): Query<WriteQuery>,
                       headers: HeaderMap| {
                    resources::remove($sort, (state, who, trail), (id, query), &headers).await
                },
            )
            .query::<WriteQuery>()
            .if_match()
            .gives::<Written>(),
        ]
    };
}

pub(super) use entries;

pub(super) fn configuration() -> Vec<Route> {
    let mut all: Vec<Route> = Vec::new();
    all.extend(entries!(
        Sort::TEMPLATES,
        doc::Template,
        "/templates",
        "/templates/{id}",
        "templates",
        "a template"
    ));
    all.extend(entries!(
        Sort::MODELS,
        doc::Model,
        "/models",
        "/models/{id}",
        "models",
        "a model"
    ));
    for route in &mut all {
        if route.method == "GET" {
            route.rule.reach = Reach::Harmless;
        }
    }
    all.extend(entries!(
        Sort::PROVIDERS,
        doc::Provider,
        "/providers",
        "/providers/{id}",
        "providers",
        "a provider"
    ));
    all.extend(entries!(
        Sort::RULES,
        doc::Rule,
        "/rules",
        "/rules/{id}",
        "rules",
        "a rule"
    ));
    all.extend(entries!(
        Sort::RULE_TEMPLATES,
        doc::RuleTemplate,
        "/rule-templates",
        "/rule-templates/{id}",
        "rule templates",
        "a rule template"
    ));
    all.extend(entries!(
        Sort::COUNTING_RULES,
        doc::CountingRule,
        "/counting-rules",
        "/counting-rules/{id}",
        "counting rules",
        "a counting rule"
    ));
    let settings = Resource::Settings;
    let whole = Resource::Documents;
    all.extend([
        Route::get(
            "/settings",
            may(settings, Read),
            "Reads the settings",
            async |State(state): State<AppState>| resources::read_settings(state).await,
        )
        .gives::<Item>(),
        Route::put(
            "/settings",
            may(settings, Update),
            "Replaces the settings",
            async |State(state): State<AppState>,
                   Extension(who): Extension<Principal>,
                   Extension(trail): Extension<Trail>,
                   Query(query): Query<WriteQuery>,
                   headers: HeaderMap,
                   Body(body): Body| {
                resources::replace_settings((state, who, trail), query, &headers, &body).await
            },
        )
        .query::<WriteQuery>()
        .if_match()
        .takes::<doc::Settings>()
        .gives::<Written>(),
        Route::patch(
            "/settings",
            may(settings, Update),
            "Changes some settings (JSON merge patch)",
            async |State(state): State<AppState>,
                   Extension(who): Extension<Principal>,
                   Extension(trail): Extension<Trail>,
                   Query(query): Query<WriteQuery>,
                   headers: HeaderMap,
                   Body(body): Body| {
                resources::patch_settings((state, who, trail), query, &headers, &body).await
            },
        )
        .query::<WriteQuery>()
        .if_match()
        .takes_schema(object)
        .gives::<Written>(),
        Route::get(
            "/documents",
            may(whole, Read),
            "Lists documents and everything that is wrong with them",
            documents::list,
        )
        .gives::<documents::DocumentList>(),
        Route::post(
            "/documents/validate",
            may(whole, Read),
            "Validates documents, writes nothing",
            documents::check,
        )
        .takes::<documents::Candidates>()
        .gives::<documents::Validation>()
        .up_to(MAX_DOCUMENT),
        Route::post(
            "/documents/reseal",
            may(whole, Update),
            "Seals the documents' credentials by the master key that this instance has now",
            reseal::reseal,
        )
        .takes::<reseal::Wanted>()
        .gives::<publish::Published>(),
        Route::get(
            "/documents/{name}",
            may(whole, Read),
            "Reads a document, its credentials taken out",
            documents::read,
        )
        .gives_schema(object),
        Route::put(
            "/documents/{name}",
            may(whole, Update),
            "Writes a document",
            documents::write,
        )
        .query::<documents::WriteQuery>()
        .takes_schema(object)
        .gives::<documents::DocumentWritten>()
        .up_to(MAX_DOCUMENT),
        Route::get(
            "/versions",
            may(whole, Read),
            "Lists versions of the configuration, newest first",
            versions::list,
        )
        .query::<versions::ListQuery>()
        .gives::<versions::VersionList>(),
        Route::post(
            "/versions",
            may(whole, Update),
            "Publishes documents as one version",
            publish::publish,
        )
        .takes::<publish::Publication>()
        .gives::<publish::Published>()
        .up_to(MAX_DOCUMENT),
        Route::get(
            "/versions/{number}",
            may(whole, Read),
            "Reads a version: author, time, message, documents",
            versions::one,
        )
        .gives::<versions::OneVersion>(),
        Route::get(
            "/versions/{number}/diff",
            may(whole, Read),
            "Says what a version changed, or how it differs from another",
            versions::difference,
        )
        .query::<versions::DiffQuery>()
        .gives::<versions::VersionDiff>(),
        Route::get(
            "/versions/{number}/documents/{name}",
            may(whole, Read),
            "Reads a document as it was in a version, its credentials taken out",
            versions::document,
        )
        .gives_schema(object),
        Route::post(
            "/versions/{number}/rollback",
            may(whole, Update),
            "Publishes the documents of a version again, as a new version",
            publish::rollback,
        )
        .takes::<publish::Rollback>()
        .gives::<publish::Published>(),
        Route::get(
            "/schedules",
            may(whole, Read),
            "Lists changes that are published later, and those that were lately",
            schedules::list,
        )
        .gives::<schedules::ScheduleList>(),
        Route::post(
            "/schedules",
            may(whole, Update),
            "Keeps documents until it is time to publish them",
            schedules::create,
        )
        .takes::<schedules::NewSchedule>()
        .gives::<schedules::Schedule>()
        .status(201)
        .up_to(8 << 20),
        Route::get(
            "/schedules/{id}",
            may(whole, Read),
            "Reads a change that is published later, and what it would change",
            schedules::one,
        )
        .gives::<schedules::OneSchedule>(),
        Route::delete(
            "/schedules/{id}",
            may(whole, Update),
            "Cancels a change that is published later",
            schedules::cancel,
        )
        .gives::<schedules::Schedule>(),
        Route::get(
            "/schema/{kind}",
            may(whole, Read),
            "Reads the JSON Schema of a kind of document",
            schema::read,
        )
        .gives_schema(object)
        .harmless(),
    ]);
    all
}
