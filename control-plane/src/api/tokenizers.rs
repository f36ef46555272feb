//! How models are counted, and counting by hand.

use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tollgate_meter::Api;
use tollgate_meter::tokenizer::NAMES;
use tollgate_policy::{CountingInput, Documents, Problem, Snapshot, compile};

use super::extract::{Body, Path};
use super::limits::no_configuration;
use super::{ApiError, AppState};
use crate::counting::{Counted, Counting, Learned, What, count};

/// What was learned of a model from its upstream's own usage.
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "LearnedCounting")]
struct Taught {
    /// Answers that it was learned from.
    samples: u64,
    /// Tokens of the upstream per token of ours.
    factor: f64,
    /// Mean relative error of a request's count by that factor.
    error: f64,
}

impl From<Learned> for Taught {
    fn from(learned: Learned) -> Taught {
        Taught {
            samples: learned.samples,
            factor: learned.factor,
            error: learned.error,
        }
    }
}

/// How a model is counted.
#[derive(Serialize, JsonSchema)]
struct ModelCounting {
    /// The model's name.
    model: String,
    /// Its counting rule; empty for the defaults.
    rule: String,
    /// Version of all that decides the count, 6 hexadecimal digits.
    version: String,
    /// The tokenizer that counts; empty for ratios per character.
    tokenizer: String,
    /// The tokenizer that was wanted.
    wanted_tokenizer: String,
    /// Whether counts are estimates.
    estimated: bool,
    /// What the texts' tokens are multiplied by.
    factor: f64,
    /// What was learned; null if nothing was, or is not to be.
    learned: Option<Taught>,
}

/// Tokenizers, and how models are counted.
#[derive(Serialize, JsonSchema)]
pub(super) struct TokenizerList {
    /// Generation in force.
    generation: u64,
    models: Vec<ModelCounting>,
    /// Tokenizers that the program brings.
    on_board: Vec<&'static str>,
    /// Tokenizers of the operator's files.
    files: Vec<String>,
}

/// A count.
#[derive(Serialize, JsonSchema)]
pub(super) struct CountAnswer {
    counted: Counted,
    /// What was learned of the model; null if nothing was, or is not to be.
    learned: Option<Taught>,
}

/// Every model's rule as it is in force, with what was learned; and the tokenizers there are.
pub(super) async fn list(State(state): State<AppState>) -> Result<Json<TokenizerList>, ApiError> {
    let status = state.status();
    let active = status.active().ok_or_else(no_configuration)?;
    let snapshot = active.snapshot().ok_or_else(no_configuration)?;
    let models: Vec<ModelCounting> = snapshot
        .models()
        .filter_map(|model| {
            let view = model.counting()?;
            let learned = state.counting.learner.of(model.name()).filter(|_| view.learns());
            Some(ModelCounting {
                model: model.name().to_owned(),
                rule: view.rule().to_owned(),
                version: format!("{:06x}", view.version()),
                tokenizer: view.tokenizer().to_owned(),
                wanted_tokenizer: view.wanted_tokenizer().to_owned(),
                estimated: view.is_estimate(),
                factor: f64::from(view.factor()) / 1_000.0,
                learned: learned.map(Taught::from),
            })
        })
        .collect();
    let files = state.counting.tokenizers.files();
    Ok(Json(TokenizerList {
        generation: active.generation(),
        models,
        on_board: NAMES.to_vec(),
        files: files.keys().cloned().collect(),
    }))
}

/// What to count.
#[derive(Debug, Deserialize, JsonSchema)]
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
) -> Result<Json<CountAnswer>, ApiError> {
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
) -> Result<CountAnswer, ApiError> {
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
    Ok(CountAnswer {
        counted,
        learned: learned.map(Taught::from),
    })
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
