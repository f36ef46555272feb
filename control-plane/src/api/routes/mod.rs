//! The list of routes.

mod alerts;
mod channels;
mod emergency;
mod entries;
mod people;
mod running;

use schemars::{Schema, SchemaGenerator, json_schema};

use super::route::{Access, Reach, Route};
use crate::accounts::{Action, Resource};

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

/// Every route.
pub(super) fn all() -> Vec<Route> {
    let mut all = Vec::new();
    all.extend(people::signing_in());
    all.extend(people::who_may());
    all.extend(entries::configuration());
    all.extend(channels::channels());
    all.extend(channels::nested());
    all.extend(running::running());
    all.extend(alerts::alerts());
    all.extend(emergency::emergency());
    all
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
