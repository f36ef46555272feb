//! How models are counted, and counting by hand.

use axum::Json;
use axum::extract::State;
use serde::Deserialize;
use serde_json::{Value, json};
use tollgate_meter::Api;
use tollgate_meter::tokenizer::NAMES;
use tollgate_policy::{CountingInput, Documents, Problem, Snapshot, compile};

use super::extract::{Body, Path};
use super::limits::no_configuration;
use super::{ApiError, AppState};
use crate::counting::{Counting, What, count};

/// Every model's rule as it is in force, with what was learned; and the tokenizers there are.
pub(super) async fn list(State(state): State<AppState>) -> Result<Json<Value>, ApiError> {
    let status = state.status();
    let active = status.active().ok_or_else(no_configuration)?;
    let snapshot = active.snapshot().ok_or_else(no_configuration)?;
    let models: Vec<Value> = snapshot
        .models()
        .filter_map(|model| {
            let view = model.counting()?;
            let learned = state.counting.learner.of(model.name()).filter(|_| view.learns());
            Some(json!({
                "model": model.name(),
                "rule": view.rule(),
                "version": format!("{:06x}", view.version()),
                "tokenizer": view.tokenizer(),
                "wanted_tokenizer": view.wanted_tokenizer(),
                "estimated": view.is_estimate(),
                "factor": f64::from(view.factor()) / 1_000.0,
                "learned": learned.map(|l| json!({ "samples": l.samples, "factor": l.factor, "error": l.error })),
            }))
        })
        .collect();
    let files = state.counting.tokenizers.files();
    Ok(Json(json!({
        "generation": active.generation(),
        "models": models,
        "on_board": NAMES,
        "files": files.keys().collect::<Vec<_>>(),
    })))
}

/// What to count.
#[derive(Debug, Deserialize, schemars::JsonSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct CountRequest {
    /// A text by itself.
    #[serde(default)]
    text: Option<String>,
    /// A request's body, instead of a text.
    #[serde(default)]
    body: Option<Value>,
    /// The path that the request would go to.
    #[serde(default = "chat")]
    path: String,
    /// A counting rule to try that is not published; its `models` do not matter.
    #[serde(default)]
    rule: Option<Value>,
}

fn chat() -> String {
    "/v1/chat/completions".to_owned()
}

/// Counts a text or a request by the rule of a model, or with a tokenizer by its name.
pub(super) async fn count_one(
    State(state): State<AppState>,
    Path(name): Path<String>,
    Body(body): Body,
) -> Result<Json<Value>, ApiError> {
    let request: CountRequest = serde_json::from_slice(&body)
        .map_err(|e| ApiError::bad_request(format!("not a request to count: {e}")))?;
    let status = state.status();
    let counting = state.counting.clone();
    tokio::task::spawn_blocking(move || {
        let active = status.active().ok_or_else(no_configuration)?;
        let snapshot = active.snapshot().ok_or_else(no_configuration)?;
        answer(snapshot, &counting, &name, &request)
    })
    .await?
    .map(Json)
}

fn answer(
    snapshot: Snapshot<'_>,
    counting: &Counting,
    name: &str,
    request: &CountRequest,
) -> Result<Value, ApiError> {
    let bytes;
    let what = match (&request.text, &request.body) {
        (Some(text), None) => What::Text(text),
        (None, Some(body)) => {
            bytes = body
                .as_str()
                .map_or_else(|| body.to_string(), str::to_owned)
                .into_bytes();
            What::Request {
                api: Api::from_path(&request.path),
                body: &bytes,
            }
        }
        _ => return Err(ApiError::bad_request("give either `text` or `body`")),
    };
    let model = snapshot.model(name.as_bytes());
    let upstream = model.and_then(|model| {
        let first = model.deployments().next()?;
        Some(first.upstream_model().to_owned())
    });
    let known = NAMES.contains(&name) || counting.tokenizers.has(name);
    let draft;
    let view = match (model, &request.rule) {
        (Some(model), None) => model.counting(),
        (None, _) if !known => {
            return Err(ApiError::not_found(format!(
                "`{name}` is neither a model nor a tokenizer"
            )));
        }
        (model, rule) => {
            draft = drafted(
                counting,
                name,
                upstream.as_deref(),
                model.is_none(),
                rule.as_ref(),
            )?;
            let snapshot = Snapshot::open(&draft).map_err(ApiError::internal)?;
            snapshot.model(name.as_bytes()).and_then(|model| model.counting())
        }
    };
    let view = view.ok_or_else(no_configuration)?;
    let counted = count(&view, &counting.tokenizers, what).map_err(ApiError::bad_request)?;
    let learned = counting.learner.of(name).filter(|_| view.learns());
    let error = learned.map(|l| json!({ "samples": l.samples, "error": l.error }));
    Ok(json!({ "counted": counted, "learned": error }))
}

/// A snapshot of one model with a rule that is not published, or with nothing but a tokenizer.
fn drafted(
    counting: &Counting,
    name: &str,
    upstream: Option<&str>,
    tokenizer: bool,
    rule: Option<&Value>,
) -> Result<Vec<u8>, ApiError> {
    let mut model =
        json!({ "name": name, "deployments": [{ "provider": "draft", "upstream_model": upstream }] });
    if tokenizer && let Some(model) = model.as_object_mut() {
        model.insert("tokenizer".to_owned(), json!(name));
    }
    let mut rules = Vec::new();
    if let Some(rule) = rule {
        let mut rule = rule.clone();
        let object = rule
            .as_object_mut()
            .ok_or_else(|| ApiError::bad_request("`rule` is no object"))?;
        object.insert("models".to_owned(), json!([name]));
        object.entry("name").or_insert_with(|| json!("draft"));
        rules.push(rule);
    }
    let texts = [
        ("tokenizers", json!({ "tokenizers": rules })),
        ("models", json!({ "models": [model] })),
        (
            "providers",
            json!({ "providers": [{ "id": "draft", "protocol": "other", "base_url": "http://127.0.0.1" }] }),
        ),
    ]
    .map(|(kind, document)| (format!("tollgate.{kind}.json"), document.to_string().into_bytes()));
    let files: Vec<(String, &[u8])> = texts.iter().map(|(n, b)| (n.clone(), b.as_slice())).collect();
    let (documents, problems) = Documents::parse(&files);
    if problems.iter().any(Problem::is_error) {
        return Err(ApiError::invalid(problems));
    }
    let wanted = documents.tokenizers();
    let mut look = counting.tokenizers.look(&wanted);
    for name in &look.missing {
        counting.tokenizers.compile(name);
    }
    if !look.missing.is_empty() {
        look = counting.tokenizers.look(&wanted);
    }
    compile(
        &documents,
        &tollgate_policy::CompileInput {
            generation: 1,
            created_unix_ms: 0,
            resolved: &|_| Vec::new(),
            authorities: &|_| Ok(Vec::new()),
            counting: CountingInput {
                vocabulary: &|name| look.ready.get(name).cloned(),
                learned: &|model| counting.learner.factor(model),
            },
            seal: &|_, _| Ok(Vec::new()),
        },
    )
    .map_err(ApiError::invalid)
}
