//! The list of routes.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use schemars::{Schema, SchemaGenerator, json_schema};
use tollgate_policy::documents as doc;

use super::AppState;
use super::extract::{Body, Path, Query};
use super::guard::Trail;
use super::resources::{self, CreateQuery, Item, ListQuery, Page, WriteQuery, Written};
use super::route::{Access, Reach, Route};
use super::{
    accounts, audit, deployments, documents, emergency, explain, health, inflight, instance, limits, live,
    openapi, requests, roles, schema, series, session, tokenizers, tokens, usage,
};
use crate::accounts::{AccountChange, AccountView, Action, NewAccount, NewToken, Principal, Resource, Role};
use crate::audit::{Row, Verdict};
use resources::sort::Sort;

use Action::{Create, Delete, Execute, Read, Update};

/// Longest whole document.
const MAX_DOCUMENT: usize = 256 << 20;

const fn may(resource: Resource, action: Action) -> Access {
    Access::May(resource, action)
}

const fn own(resource: Resource, action: Action) -> Access {
    Access::Own(resource, action)
}

/// JSON whose fields the text says.
fn object(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object" })
}

/// A new entry's answer: where it is, and what it is.
fn created(place: &str, written: Written) -> Response {
    let id = percent(&written.id);
    let status = if written.written {
        StatusCode::CREATED
    } else {
        StatusCode::OK
    };
    let location = [(header::LOCATION, format!("{}{place}/{id}", super::BASE))];
    (status, location, written).into_response()
}

/// As a part of a path.
fn percent(id: &str) -> String {
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

/// Every route.
pub(super) fn all() -> Vec<Route> {
    let mut all = Vec::new();
    all.extend(signing_in());
    all.extend(who_may());
    all.extend(configuration());
    all.extend(channels());
    all.extend(nested());
    all.extend(running());
    all
}

fn signing_in() -> Vec<Route> {
    vec![
        Route::get(
            "/health",
            Access::Open,
            "Says whether the daemon does its work",
            health::read,
        )
        .gives_schema(object)
        .tag("health"),
        Route::get("/openapi.json", Access::Open, "Describes this API", openapi::read)
            .gives_schema(object)
            .tag("docs"),
        Route::get("/docs", Access::Open, "Shows this API to people", openapi::page)
            .gives_type("text/html")
            .tag("docs"),
        Route::get("/session", Access::Open, "Says who is signed in", session::read)
            .gives::<session::Session>()
            .tag("session"),
        Route::post("/login", Access::Open, "Signs in", session::login)
            .takes::<session::Login>()
            .gives::<session::Session>()
            .up_to(8 << 10)
            .tag("session"),
        Route::post(
            "/logout",
            own(Resource::Accounts, Read),
            "Signs out",
            session::logout,
        )
        .harmless()
        .status(204)
        .tag("session"),
        Route::put(
            "/session/password",
            own(Resource::Accounts, Update),
            "Changes one's own password",
            session::password,
        )
        .takes::<session::NewPassword>()
        .harmless()
        .status(204)
        .up_to(8 << 10)
        .tag("session"),
    ]
}

fn who_may() -> Vec<Route> {
    use Resource::{Accounts, Audit, Roles, Tokens};
    vec![
        Route::get("/accounts", may(Accounts, Read), "Lists accounts", accounts::list)
            .gives::<accounts::AccountList>(),
        Route::post(
            "/accounts",
            may(Accounts, Create),
            "Adds an account",
            accounts::create,
        )
        .takes::<NewAccount>()
        .gives::<accounts::CreatedAccount>()
        .status(201),
        Route::get(
            "/accounts/{name}",
            may(Accounts, Read),
            "Reads an account",
            accounts::one,
        )
        .gives::<AccountView>(),
        Route::patch(
            "/accounts/{name}",
            may(Accounts, Update),
            "Changes an account",
            accounts::change,
        )
        .takes::<AccountChange>()
        .gives::<AccountView>(),
        Route::delete(
            "/accounts/{name}",
            may(Accounts, Delete),
            "Removes an account",
            accounts::remove,
        )
        .status(204),
        Route::post(
            "/accounts/{name}/password",
            may(Accounts, Update),
            "Gives an account another password",
            accounts::reset,
        )
        .takes::<accounts::Reset>()
        .gives::<accounts::SetPassword>(),
        Route::delete(
            "/accounts/{name}/sessions",
            may(Accounts, Update),
            "Ends an account's sessions",
            accounts::end_sessions,
        )
        .status(204),
        Route::get("/roles", may(Roles, Read), "Lists roles", roles::list).gives::<roles::RoleList>(),
        Route::post("/roles", may(Roles, Create), "Adds a role", roles::create)
            .takes::<roles::NewRole>()
            .gives::<Role>()
            .status(201),
        Route::get("/roles/{name}", may(Roles, Read), "Reads a role", roles::one).gives::<Role>(),
        Route::put(
            "/roles/{name}",
            may(Roles, Update),
            "Replaces a role",
            roles::replace,
        )
        .takes::<roles::NewRole>()
        .gives::<Role>(),
        Route::delete(
            "/roles/{name}",
            may(Roles, Delete),
            "Removes a role",
            roles::remove,
        )
        .status(204),
        Route::get("/tokens", own(Tokens, Read), "Lists API tokens", tokens::list)
            .query::<tokens::Whose>()
            .gives::<tokens::TokenList>()
            .narrowed(),
        Route::post(
            "/tokens",
            own(Tokens, Create),
            "Makes an API token of one's own",
            tokens::create,
        )
        .takes::<NewToken>()
        .gives::<tokens::CreatedToken>()
        .status(201)
        .narrowed(),
        Route::delete(
            "/tokens/{id}",
            own(Tokens, Delete),
            "Revokes an API token",
            tokens::revoke,
        )
        .status(204)
        .narrowed(),
        Route::get(
            "/audit",
            may(Audit, Read),
            "Lists rows of the audit log, newest first",
            audit::list,
        )
        .query::<audit::Wanted>()
        .gives::<audit::AuditPage>(),
        Route::get(
            "/audit/verify",
            may(Audit, Read),
            "Follows the audit log's chain",
            audit::verify,
        )
        .gives::<Verdict>(),
        Route::get(
            "/audit/{seq}",
            may(Audit, Read),
            "Reads a row of the audit log",
            audit::one,
        )
        .gives::<Row>(),
    ]
}

fn configuration() -> Vec<Route> {
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
        .gives_schema(object),
        Route::post(
            "/documents/validate",
            may(whole, Read),
            "Validates documents, writes nothing",
            documents::check,
        )
        .takes::<documents::Candidates>()
        .gives_schema(object)
        .up_to(MAX_DOCUMENT),
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
        .gives_schema(object)
        .up_to(MAX_DOCUMENT),
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

fn channels() -> Vec<Route> {
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
        .gives_schema(object),
    ]);
    all.into_iter().map(Route::narrowed).collect()
}

fn nested() -> Vec<Route> {
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

fn running() -> Vec<Route> {
    use Resource::{CountingRules, Deployments, Emergency, Explain, Instance, Limits, Requests, Usage};
    vec![
        Route::get(
            "/usage",
            may(Usage, Read),
            "Reads usage per channel and model",
            usage::read,
        )
        .query::<usage::Wanted>()
        .gives_schema(object)
        .narrowed(),
        Route::get(
            "/limits",
            may(Limits, Read),
            "Says how full the limits of all channels are",
            limits::all,
        )
        .query::<limits::Page>()
        .gives_schema(object)
        .narrowed(),
        Route::get(
            "/instance",
            may(Instance, Read),
            "Says how this instance is",
            instance::read,
        )
        .gives_schema(object),
        Route::get(
            "/deployments",
            may(Deployments, Read),
            "Lists deployments as they stand",
            deployments::all,
        )
        .query::<deployments::Wanted>()
        .gives_schema(object)
        .harmless(),
        Route::get(
            "/deployments/{*id}",
            may(Deployments, Read),
            "Says how a deployment stands",
            deployments::one,
        )
        .gives_schema(object)
        .harmless(),
        Route::get(
            "/inflight",
            may(Requests, Read),
            "Lists requests being served now",
            inflight::read,
        )
        .query::<inflight::Wanted>()
        .gives_schema(object)
        .narrowed(),
        Route::get(
            "/requests",
            may(Requests, Read),
            "Lists requests of the past, newest first",
            requests::read,
        )
        .query::<requests::Wanted>()
        .gives_schema(object)
        .narrowed(),
        Route::get(
            "/requests/{number}",
            may(Requests, Read),
            "Reads one request of the past",
            requests::one,
        )
        .gives_schema(object)
        .narrowed(),
        Route::get(
            "/usage/series",
            may(Usage, Read),
            "Reads usage over time, for charts",
            series::read,
        )
        .query::<series::Wanted>()
        .gives::<series::Answer>()
        .narrowed(),
        Route::get(
            "/live",
            may(Usage, Read),
            "Follows what the gateway does (LiveSample, once a second)",
            live::read,
        )
        .query::<live::Wanted>()
        .gives_events::<live::Sample>()
        .narrowed(),
        Route::post(
            "/emergency/channels/{id}/block",
            may(Emergency, Execute),
            "Refuses all requests of a channel",
            emergency::block,
        )
        .gives::<Written>()
        .narrowed(),
        Route::post(
            "/emergency/channels/{id}/unblock",
            may(Emergency, Execute),
            "Serves a channel again",
            emergency::unblock,
        )
        .gives::<Written>()
        .narrowed(),
        Route::post(
            "/emergency/maintenance",
            may(Emergency, Execute),
            "Refuses all requests, or serves them again",
            emergency::maintenance,
        )
        .takes::<emergency::Maintenance>()
        .gives::<Written>(),
        Route::get(
            "/tokenizers",
            may(CountingRules, Read),
            "Lists tokenizers, and how models are counted",
            tokenizers::list,
        )
        .gives_schema(object)
        .harmless(),
        Route::post(
            "/tokenizers/{name}/count",
            may(CountingRules, Read),
            "Counts a text or a request",
            tokenizers::count_one,
        )
        .takes::<tokenizers::CountRequest>()
        .gives_schema(object)
        .up_to(64 << 20)
        .harmless(),
        Route::post(
            "/explain",
            may(Explain, Read),
            "Says what would become of a request, and why",
            explain::answer,
        )
        .takes_schema(object)
        .gives_schema(object)
        .up_to(64 << 20),
    ]
}

/// What can be told of a route without its handler; for tests that go through all of them.
#[derive(Clone, Debug)]
pub struct Sketch {
    /// HTTP method.
    pub method: String,
    /// Path with its parts in braces.
    pub path: String,
    /// What it needs; `None` if it is open to everybody.
    pub needs: Option<(Resource, Action)>,
    /// Whether that is only what it is called in the audit log, because it concerns the caller's own.
    pub own: bool,
    /// Whether accounts that are limited to some channels are refused.
    pub concerns_all: bool,
    /// Longest body.
    pub max_body: usize,
    /// Whether it takes JSON.
    pub takes_json: bool,
}

/// Every route.
pub fn sketches() -> Vec<Sketch> {
    let sketch = |route: Route| Sketch {
        method: route.method.to_string(),
        path: format!("{}{}", super::BASE, route.path),
        needs: route.rule.deed(),
        own: matches!(route.rule.access, Access::Own(..)),
        concerns_all: route.rule.reach == Reach::Everything,
        max_body: route.rule.max_body,
        takes_json: route.doc.takes.is_some(),
    };
    all().into_iter().map(sketch).collect()
}
