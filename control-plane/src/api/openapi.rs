//! The API's description, made from the list of routes and the types that handlers take and give.

use axum::Json;
use axum::http::header;
use axum::response::IntoResponse;
use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, SchemaGenerator};
use serde_json::{Map, Value, json};

use super::error::Body as Problem;
use super::route::{Access, Content, Route};
use super::routes;

/// The OpenAPI 3.1 document.
pub fn document() -> Value {
    let mut schemas = Schemas::new();
    let problem = schema_of::<Problem>(&mut schemas.gives);
    let mut paths: Map<String, Value> = Map::new();
    for route in routes::all() {
        let path = route.path.replace("{*", "{");
        let operation = operation(&route, &path, &mut schemas, &problem);
        let item = paths.entry(path).or_insert_with(|| json!({}));
        if let Some(item) = item.as_object_mut() {
            item.insert(route.method.as_str().to_ascii_lowercase(), operation);
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": "Tollgate admin API",
            "version": env!("CARGO_PKG_VERSION"),
            "license": { "name": "Apache-2.0", "identifier": "Apache-2.0" },
            "description": "Errors are problem documents (RFC 9457). Browsers sign in and send a cookie, and with every \
                change the session's `csrf` as `X-CSRF-Token`; machines send a bearer token.",
        },
        "jsonSchemaDialect": "https://json-schema.org/draft/2020-12/schema",
        "servers": [{ "url": super::BASE }],
        "security": [{ "bearer": [] }, { "session": [], "csrf": [] }],
        "paths": paths,
        "components": {
            "schemas": schemas.definitions(),
            "securitySchemes": {
                "bearer": { "type": "http", "scheme": "bearer" },
                "session": { "type": "apiKey", "in": "cookie", "name": super::guard::COOKIE },
                "csrf": { "type": "apiKey", "in": "header", "name": "X-CSRF-Token" },
            },
        },
    })
}

/// Schemas of what is taken, where fields with defaults may be missing, and of what is given, where they never are.
struct Schemas {
    takes: SchemaGenerator,
    gives: SchemaGenerator,
}

impl Schemas {
    fn new() -> Schemas {
        let settings =
            SchemaSettings::draft2020_12().with(|s| s.definitions_path = "/components/schemas".into());
        Schemas {
            takes: settings.clone().for_deserialize().into_generator(),
            gives: settings.for_serialize().into_generator(),
        }
    }

    /// All by their names. A type that is both taken and given is described as it is taken.
    fn definitions(mut self) -> Map<String, Value> {
        let mut all = self.gives.take_definitions(true);
        all.extend(self.takes.take_definitions(true));
        all
    }
}

fn schema_of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Value {
    generator.subschema_for::<T>().to_value()
}

/// `GET /channels/{id}` is `get_channels_id`.
fn operation_id(route: &Route) -> String {
    let words = route
        .path
        .split(|c: char| !c.is_ascii_alphanumeric())
        .filter(|w| !w.is_empty());
    let mut id = route.method.as_str().to_ascii_lowercase();
    for word in words {
        id.push('_');
        id.push_str(word);
    }
    id
}

fn parameters(route: &Route, path: &str) -> Vec<Value> {
    let mut all: Vec<Value> = path
        .split('{')
        .skip(1)
        .filter_map(|part| part.split_once('}'))
        .map(|(name, _)| {
            let schema = match name {
                "seq" | "number" => json!({ "type": "integer", "minimum": 0 }),
                _ => json!({ "type": "string", "minLength": 1 }),
            };
            json!({ "name": name, "in": "path", "required": true, "schema": schema })
        })
        .collect();
    if route.doc.if_match {
        all.push(json!({
            "name": "If-Match", "in": "header", "required": true, "schema": { "type": "string" },
            "description": "The version that the client knows: the `etag`, or `*` for any.",
        }));
    }
    if let Some(make) = route.doc.query {
        // Parameters stand by themselves: no references.
        let mut inline = SchemaSettings::draft2020_12()
            .with(|s| s.inline_subschemas = true)
            .into_generator();
        let schema = make(&mut inline).to_value();
        let required = schema
            .get("required")
            .and_then(Value::as_array)
            .cloned()
            .unwrap_or_default();
        let fields = schema
            .get("properties")
            .and_then(Value::as_object)
            .cloned()
            .unwrap_or_default();
        for (name, mut schema) in fields {
            let description = schema.as_object_mut().and_then(|s| s.remove("description"));
            let needed = required.iter().any(|r| r == &name);
            all.push(json!({
                "name": name, "in": "query", "required": needed, "schema": without_null(schema),
                "description": description.unwrap_or_default(),
            }));
        }
    }
    all
}

/// A parameter is there or not; it cannot be null.
fn without_null(mut schema: Value) -> Value {
    if let Some(kind) = schema.get_mut("type") {
        let named: Vec<Value> = kind
            .as_array()
            .into_iter()
            .flatten()
            .filter(|k| *k != "null")
            .cloned()
            .collect();
        if let [one] = named.as_slice() {
            *kind = one.clone();
        }
    }
    if let Some(any) = schema.get("anyOf").and_then(Value::as_array)
        && let [one, null] = any.as_slice()
        && null == &json!({ "type": "null" })
    {
        return one.clone();
    }
    schema
}

fn content(content: Content, generator: &mut SchemaGenerator) -> Value {
    match content {
        Content::Json(make) => {
            let schema = make(generator).to_value();
            json!({ "application/json": { "schema": schema } })
        }
        Content::Events(make) => {
            // OpenAPI 3.1 has no word for events: the body is text, and `x-event` says what each one holds.
            let schema = make(generator).to_value();
            json!({ "text/event-stream": { "schema": { "type": "string" }, "x-event": schema } })
        }
        Content::Other(kind) => json!({ kind: { "schema": { "type": "string" } } }),
    }
}

fn operation(route: &Route, path: &str, schemas: &mut Schemas, problem: &Value) -> Value {
    let error = |description: &str| {
        json!({
            "description": description,
            "content": { "application/problem+json": { "schema": problem } },
        })
    };
    let mut done = json!({ "description": "done" });
    if let (Some(gives), Some(done)) = (route.doc.gives, done.as_object_mut()) {
        done.insert("content".into(), content(gives, &mut schemas.gives));
    }
    let mut responses = Map::new();
    responses.insert(route.doc.status.to_string(), done.clone());
    // A dry run creates nothing.
    if route.doc.status == 201 && route.doc.query.is_some() {
        responses.insert("200".into(), done);
    }
    responses.insert(
        "4XX".into(),
        error("the request is wrong, not allowed, or comes too late"),
    );
    responses.insert("503".into(), error("not ready yet"));
    let (tag, needs) = match route.rule.deed() {
        Some((resource, action)) => (
            resource.name(),
            Some(format!("{}:{}", resource.name(), action.name())),
        ),
        None => ("open", None),
    };
    let mut operation = json!({
        "operationId": operation_id(route),
        "summary": route.doc.summary,
        "tags": [route.doc.tag.unwrap_or(tag)],
        "parameters": parameters(route, path),
        "responses": responses,
    });
    if let Some(fields) = operation.as_object_mut() {
        match route.rule.access {
            Access::Open => drop(fields.insert("security".into(), json!([]))),
            Access::Own(..) => drop(fields.insert("x-permission".into(), "signed in".into())),
            Access::May(..) => drop(fields.insert("x-permission".into(), needs.into())),
        }
        if let Some(takes) = route.doc.takes {
            let required =
                route.method != "POST" || !route.path.contains("/keys") && !route.path.ends_with("/password");
            fields.insert(
                "requestBody".into(),
                json!({ "required": required, "content": content(takes, &mut schemas.takes) }),
            );
        }
    }
    operation
}

/// The document.
pub(super) async fn read() -> impl IntoResponse {
    ([(header::CACHE_CONTROL, "no-cache")], Json(document()))
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}

/// The document for people: plain HTML that needs no script and no other host.
pub(super) async fn page() -> impl IntoResponse {
    let document = document();
    let mut rows = String::new();
    for route in routes::all() {
        let needs = match (route.rule.access, route.rule.deed()) {
            (Access::Open, _) | (_, None) => "everybody".to_owned(),
            (Access::Own(..), _) => "who is signed in".to_owned(),
            (Access::May(..), Some((resource, action))) => format!("{}:{}", resource.name(), action.name()),
        };
        let id = operation_id(&route);
        let pointer = route.path.replace("{*", "{");
        let operation = document
            .get("paths")
            .and_then(|p| p.get(&pointer)?.get(route.method.as_str().to_ascii_lowercase()))
            .map(|o| serde_json::to_string_pretty(o).unwrap_or_default())
            .unwrap_or_default();
        rows.push_str(&format!(
            "<details id=\"{id}\"><summary><b>{}</b> <code>{}{}</code> {} <small>{}</small></summary><pre>{}</pre></details>\n",
            route.method,
            super::BASE,
            escaped(&pointer),
            escaped(route.doc.summary),
            escaped(&needs),
            escaped(&operation),
        ));
    }
    let schemas = document
        .pointer("/components/schemas")
        .and_then(Value::as_object)
        .cloned()
        .unwrap_or_default();
    for (name, schema) in schemas {
        rows.push_str(&format!(
            "<details id=\"{0}\"><summary><b>schema</b> <code>{0}</code></summary><pre>{1}</pre></details>\n",
            escaped(&name),
            escaped(&serde_json::to_string_pretty(&schema).unwrap_or_default()),
        ));
    }
    let html = format!(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta name=\"viewport\" content=\"width=device-width\">\
         <title>Tollgate admin API</title><style>body{{font:15px/1.5 system-ui,sans-serif;max-width:70rem;margin:2rem auto;\
         padding:0 1rem;color-scheme:light dark}}summary{{cursor:pointer;padding:.2rem 0}}small{{opacity:.7}}pre{{overflow:auto;\
         background:color-mix(in srgb,currentColor 8%,transparent);padding:.8rem;border-radius:.4rem}}</style>\
         <h1>Tollgate admin API</h1><p>OpenAPI 3.1: <a href=\"openapi.json\">openapi.json</a></p>\n{rows}</html>"
    );
    let policy = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'";
    (
        [
            (header::CONTENT_TYPE, "text/html; charset=utf-8"),
            (header::CONTENT_SECURITY_POLICY, policy),
        ],
        html,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is left of a schema if it does not matter which fields must be there.
    fn bare(mut schema: Value) -> Value {
        if let Some(fields) = schema.as_object_mut() {
            for word in ["required", "default", "additionalProperties"] {
                fields.remove(word);
            }
            fields.values_mut().for_each(|value| *value = bare(value.take()));
        }
        schema
    }

    #[test]
    fn a_name_means_the_same_in_what_is_taken_and_what_is_given() {
        let mut schemas = Schemas::new();
        for route in routes::all() {
            let path = route.path.replace("{*", "{");
            operation(&route, &path, &mut schemas, &Value::Null);
        }
        let gives = schemas.gives.take_definitions(true);
        let takes = schemas.takes.take_definitions(true);
        let mut both = 0;
        for (name, given) in gives {
            if let Some(taken) = takes.get(&name) {
                both += 1;
                assert_eq!(bare(given), bare(taken.clone()), "{name}");
            }
            assert!(
                !name.ends_with('2') || name.starts_with("Valued"),
                "{name} stands for two types"
            );
        }
        assert!(both > 3, "{both}");
    }
}
