//! Requests: options of a translation, and what it gives.

use crate::json::{Json, Kind, Str};
use crate::openai::Chat;
use crate::refusal::{At, Refusal};
use crate::{Pair, anthropic, gemini, openai};

/// How a deployment's model is told how much to think.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Thinking {
    /// By the model's name: Claude up to 4.5 and Gemini up to 2.5 by a budget, later ones by a level; OpenAI's GPT-3.5
    /// and GPT-4 families not at all, every other model of an OpenAI-type deployment by `reasoning_effort`.
    #[default]
    Auto,
    /// The model does not think: what the client says about it is left out.
    Off,
    /// By a number of tokens (Anthropic's `budget_tokens`, Gemini's `thinkingBudget`).
    Budget,
    /// By a level (Anthropic's adaptive thinking with `effort`, Gemini's `thinkingLevel`, OpenAI's `reasoning_effort`).
    Level,
}

/// Whether a deployment's model takes `temperature`, `top_p` and `top_k`. Claude from Opus 4.7 on refuses them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Sampling {
    /// By the model's name. For a model that takes none, a value that changes nothing (1) is left out and any other is
    /// refused.
    #[default]
    Auto,
    /// They are sent as they are.
    Send,
    /// They are left out: the operator would rather have an answer with other sampling than none.
    Omit,
}

/// What a translation needs to know about the deployment.
#[derive(Debug, Clone, Copy)]
pub struct Options<'o> {
    /// The model's name at the provider.
    pub model: &'o str,
    /// Maximum of output tokens that replaces whatever the client asked for: what the gateway has reserved.
    pub max_tokens: Option<u64>,
    /// Maximum of output tokens for a request that names none, where the protocol demands one (Anthropic).
    pub default_max_tokens: u64,
    /// How thinking is asked for.
    pub thinking: Thinking,
    /// What becomes of `temperature`, `top_p` and `top_k` (OpenAI to Anthropic; the others always take them).
    pub sampling: Sampling,
}

impl<'o> Options<'o> {
    /// Options for a model, with a default of 4096 output tokens.
    #[must_use]
    pub const fn new(model: &'o str) -> Self {
        Self {
            model,
            max_tokens: None,
            default_max_tokens: 4096,
            thinking: Thinking::Auto,
            sampling: Sampling::Auto,
        }
    }
}

/// What the client asked for that concerns the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Ask {
    /// OpenAI's `stream_options.include_usage`.
    pub include_usage: bool,
    /// Anthropic's `thinking`: without it no thinking blocks are given out.
    pub thinking: bool,
}

/// A translated request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Translated {
    /// The JSON body.
    pub body: Vec<u8>,
    /// Path and query below the provider's host, as the provider's public API has it; percent-encoded.
    pub path: String,
    /// Whether a success will be a stream of server-sent events, for [`crate::StreamTranslator`]. An error never is one:
    /// its body is for [`crate::translate_response`].
    pub stream: bool,
    /// Header fields that the upstream's protocol demands, credentials apart. Those of the client's protocol
    /// (`anthropic-version`, `anthropic-beta`, `openai-organization`, ...) must not be sent along.
    pub headers: &'static [(&'static str, &'static str)],
    /// For [`crate::Context::ask`].
    pub ask: Ask,
}

/// Translates a request.
///
/// # Errors
///
/// A [`Refusal`] that names the field which is malformed or which the upstream's protocol cannot express.
pub fn translate_request(pair: Pair, body: &[u8], options: &Options<'_>) -> Result<Translated, Refusal> {
    let json = Json::parse(body).map_err(|error| At::ROOT.refuse(format!("is not JSON: {error}")))?;
    if json.kind() != Kind::Object {
        return Err(At::ROOT.refuse("must be a JSON object"));
    }
    match pair {
        Pair::OpenAiToAnthropic => anthropic::write_request(&Chat::read(json)?, options),
        Pair::OpenAiToGemini => gemini::write_request(&Chat::read(json)?, options),
        Pair::AnthropicToOpenAi => openai::write_request(json, options),
        Pair::AnthropicToGemini => gemini::write_request_of_anthropic(json, options),
    }
}

/// Calls `each` for every member that is not `null`, with its name unescaped and its place.
pub(crate) fn for_each_member<'a>(
    object: Json<'a>,
    at: &At<'_>,
    mut each: impl FnMut(&str, Json<'a>, &At<'_>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    if object.kind() != Kind::Object {
        return Err(at.refuse("must be an object"));
    }
    for (key, value) in object.members() {
        if !value.is_null() {
            let key = key.text();
            each(&key, value, &at.key(&key))?;
        }
    }
    Ok(())
}

/// Calls `each` for every element, with its place.
pub(crate) fn for_each_element<'a>(
    array: Json<'a>,
    at: &At<'_>,
    mut each: impl FnMut(Json<'a>, &At<'_>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    if array.kind() != Kind::Array {
        return Err(at.refuse("must be an array"));
    }
    array
        .elements()
        .enumerate()
        .try_for_each(|(index, element)| each(element, &at.index(index)))
}

pub(crate) fn string<'a>(json: Json<'a>, at: &At<'_>) -> Result<Str<'a>, Refusal> {
    json.str().ok_or_else(|| at.refuse("must be a string"))
}

pub(crate) fn boolean(json: Json<'_>, at: &At<'_>) -> Result<bool, Refusal> {
    json.bool().ok_or_else(|| at.refuse("must be true or false"))
}

pub(crate) fn count(json: Json<'_>, at: &At<'_>) -> Result<u64, Refusal> {
    json.u64()
        .ok_or_else(|| at.refuse("must be a whole number that is not negative"))
}

pub(crate) fn number<'a>(json: Json<'a>, at: &At<'_>) -> Result<Json<'a>, Refusal> {
    if json.kind() == Kind::Number {
        Ok(json)
    } else {
        Err(at.refuse("must be a number"))
    }
}

/// Refuses members that are neither `null` nor among `known`.
pub(crate) fn only(object: Json<'_>, known: &[&str], at: &At<'_>) -> Result<(), Refusal> {
    for_each_member(object, at, |key, _, at| {
        if known.contains(&key) {
            Ok(())
        } else {
            Err(unknown(at))
        }
    })
}

pub(crate) fn unknown(at: &At<'_>) -> Refusal {
    at.refuse("is not known to the gateway's translation")
}

/// What a member must be there for.
pub(crate) fn required<T>(value: Option<T>, at: &At<'_>, name: &str) -> Result<T, Refusal> {
    value.ok_or_else(|| at.key(name).refuse("is missing"))
}
