//! Routes: each is declared once, with who may use it and what it takes and gives. Router, access, audit and OpenAPI are
//! all made from this, so that a route without a rule cannot be written.

use axum::Router;
use axum::extract::DefaultBodyLimit;
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware::from_fn_with_state;
use axum::routing::{MethodFilter, MethodRouter, on};
use schemars::{JsonSchema, Schema, SchemaGenerator};

use super::guard::{Guard, guard};
use super::{AppState, BASE};
use crate::accounts::{Action, Resource};

/// Longest body unless a route says otherwise.
const MAX_BODY: usize = 1 << 20;

/// Who may use a route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Access {
    /// Everybody.
    Open,
    /// Everybody who has signed in, for what is their own.
    Own(Resource, Action),
    /// Who may do this.
    May(Resource, Action),
}

/// What an account that is limited to some channels may do with a route that its roles allow.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reach {
    /// Nothing: it shows or changes what concerns all channels.
    Everything,
    /// The handler shows and changes only the account's channels.
    Channels,
    /// All: it says nothing about channels.
    Harmless,
}

/// The rule of a route.
#[derive(Clone, Copy, Debug)]
pub(super) struct Rule {
    pub access: Access,
    pub reach: Reach,
    /// Longest body, bytes.
    pub max_body: usize,
}

impl Rule {
    /// What the route does, for the audit log.
    pub fn deed(&self) -> Option<(Resource, Action)> {
        match self.access {
            Access::Open => None,
            Access::Own(resource, action) | Access::May(resource, action) => Some((resource, action)),
        }
    }
}

type MakeSchema = fn(&mut SchemaGenerator) -> Schema;

/// What a body consists of.
#[derive(Clone, Copy)]
pub(super) enum Content {
    /// JSON of this schema.
    Json(MakeSchema),
    /// Server-sent events, each with JSON of this schema.
    Events(MakeSchema),
    /// Something else of this type.
    Other(&'static str),
}

/// What the OpenAPI says about a route.
#[derive(Clone)]
pub(super) struct Doc {
    pub summary: &'static str,
    pub query: Option<MakeSchema>,
    pub takes: Option<Content>,
    pub gives: Option<Content>,
    pub status: u16,
    /// Whether `If-Match` is needed.
    pub if_match: bool,
    /// Group, if it is not the resource.
    pub tag: Option<&'static str>,
}

/// A route.
pub(super) struct Route {
    pub method: Method,
    pub path: &'static str,
    pub rule: Rule,
    pub doc: Doc,
    handler: MethodRouter<AppState>,
}

fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

impl Route {
    fn new<H, T>(
        method: Method,
        filter: MethodFilter,
        path: &'static str,
        access: Access,
        summary: &'static str,
        handler: H,
    ) -> Route
    where
        H: Handler<T, AppState>,
        T: 'static,
    {
        Route {
            method,
            path,
            rule: Rule {
                access,
                reach: Reach::Everything,
                max_body: MAX_BODY,
            },
            doc: Doc {
                summary,
                query: None,
                takes: None,
                gives: None,
                status: 200,
                if_match: false,
                tag: None,
            },
            handler: on(filter, handler),
        }
    }

    /// GET of a path below `/api/v1`.
    pub fn get<H, T>(path: &'static str, access: Access, summary: &'static str, handler: H) -> Route
    where
        H: Handler<T, AppState>,
        T: 'static,
    {
        Route::new(Method::GET, MethodFilter::GET, path, access, summary, handler)
    }

    /// POST.
    pub fn post<H, T>(path: &'static str, access: Access, summary: &'static str, handler: H) -> Route
    where
        H: Handler<T, AppState>,
        T: 'static,
    {
        Route::new(Method::POST, MethodFilter::POST, path, access, summary, handler)
    }

    /// PUT.
    pub fn put<H, T>(path: &'static str, access: Access, summary: &'static str, handler: H) -> Route
    where
        H: Handler<T, AppState>,
        T: 'static,
    {
        Route::new(Method::PUT, MethodFilter::PUT, path, access, summary, handler)
    }

    /// PATCH.
    pub fn patch<H, T>(path: &'static str, access: Access, summary: &'static str, handler: H) -> Route
    where
        H: Handler<T, AppState>,
        T: 'static,
    {
        Route::new(Method::PATCH, MethodFilter::PATCH, path, access, summary, handler)
    }

    /// DELETE.
    pub fn delete<H, T>(path: &'static str, access: Access, summary: &'static str, handler: H) -> Route
    where
        H: Handler<T, AppState>,
        T: 'static,
    {
        Route::new(
            Method::DELETE,
            MethodFilter::DELETE,
            path,
            access,
            summary,
            handler,
        )
    }

    /// The handler narrows what it shows and does to the account's channels.
    pub fn narrowed(mut self) -> Route {
        self.rule.reach = Reach::Channels;
        self
    }

    /// It says nothing about channels.
    pub fn harmless(mut self) -> Route {
        self.rule.reach = Reach::Harmless;
        self
    }

    /// Takes bodies of this length.
    pub fn up_to(mut self, max_body: usize) -> Route {
        self.rule.max_body = max_body;
        self
    }

    /// Takes these query parameters.
    pub fn query<T: JsonSchema>(mut self) -> Route {
        self.doc.query = Some(schema_of::<T>);
        self
    }

    /// Takes JSON.
    pub fn takes<T: JsonSchema>(mut self) -> Route {
        self.doc.takes = Some(Content::Json(schema_of::<T>));
        self
    }

    /// Takes JSON of a schema that is written by hand.
    pub fn takes_schema(mut self, schema: MakeSchema) -> Route {
        self.doc.takes = Some(Content::Json(schema));
        self
    }

    /// Gives JSON.
    pub fn gives<T: JsonSchema>(mut self) -> Route {
        self.doc.gives = Some(Content::Json(schema_of::<T>));
        self
    }

    /// Gives JSON of a schema that is written by hand.
    pub fn gives_schema(mut self, schema: MakeSchema) -> Route {
        self.doc.gives = Some(Content::Json(schema));
        self
    }

    /// Gives server-sent events.
    pub fn gives_events<T: JsonSchema>(mut self) -> Route {
        self.doc.gives = Some(Content::Events(schema_of::<T>));
        self
    }

    /// Gives something else than JSON.
    pub fn gives_type(mut self, content_type: &'static str) -> Route {
        self.doc.gives = Some(Content::Other(content_type));
        self
    }

    /// Answers with this status if all is well.
    pub fn status(mut self, status: u16) -> Route {
        self.doc.status = status;
        self
    }

    /// Needs the version that the client knows.
    pub fn if_match(mut self) -> Route {
        self.doc.if_match = true;
        self
    }

    /// Stands in this group.
    pub fn tag(mut self, tag: &'static str) -> Route {
        self.doc.tag = Some(tag);
        self
    }

    /// Adds the route to a router, with its guard before it.
    pub fn mount(self, router: Router<AppState>, state: &AppState) -> Router<AppState> {
        let guarded = Guard {
            state: state.clone(),
            rule: self.rule,
        };
        let handler = self
            .handler
            .route_layer(DefaultBodyLimit::max(self.rule.max_body))
            .route_layer(from_fn_with_state(guarded, guard));
        router.route(&format!("{BASE}{}", self.path), handler)
    }
}
