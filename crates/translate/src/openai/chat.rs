//! Reads a request of chat completions: the fields that mean the same to every upstream, checked; fields that no
//! upstream of another protocol has are refused or, if they change nothing that the client could notice, left out.

use crate::json::{Json, Kind, Str};
use crate::refusal::{At, Refusal};
use crate::request::{boolean, count, for_each_element, for_each_member, number, required, string, unknown};

/// How much to think.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Effort {
    None,
    Minimal,
    Low,
    Medium,
    High,
    XHigh,
    Max,
}

#[derive(Clone, Copy)]
pub(crate) enum ToolChoice<'a> {
    Auto,
    None,
    Required,
    Named(Str<'a>),
}

#[derive(Clone, Copy)]
pub(crate) enum Format<'a> {
    Text,
    JsonObject,
    Schema(Json<'a>),
}

/// A request, its messages and tools still unread.
pub(crate) struct Chat<'a> {
    pub(crate) messages: Json<'a>,
    pub(crate) max_tokens: Option<u64>,
    pub(crate) temperature: Option<Json<'a>>,
    pub(crate) top_p: Option<Json<'a>>,
    pub(crate) top_k: Option<Json<'a>>,
    pub(crate) presence_penalty: Option<Json<'a>>,
    pub(crate) frequency_penalty: Option<Json<'a>>,
    pub(crate) seed: Option<Json<'a>>,
    /// A string or an array of strings.
    pub(crate) stop: Option<Json<'a>>,
    pub(crate) stream: bool,
    pub(crate) include_usage: bool,
    pub(crate) tools: Option<Json<'a>>,
    pub(crate) tool_choice: Option<ToolChoice<'a>>,
    pub(crate) parallel_tool_calls: bool,
    pub(crate) format: Format<'a>,
    pub(crate) effort: Option<Effort>,
    pub(crate) user: Option<Str<'a>>,
}

const NO_EQUIVALENT: &str = "has no equivalent in this deployment's protocol";

impl<'a> Chat<'a> {
    pub(crate) fn read(body: Json<'a>) -> Result<Self, Refusal> {
        let mut chat = Self {
            messages: body,
            max_tokens: None,
            temperature: None,
            top_p: None,
            top_k: None,
            presence_penalty: None,
            frequency_penalty: None,
            seed: None,
            stop: None,
            stream: false,
            include_usage: false,
            tools: None,
            tool_choice: None,
            parallel_tool_calls: true,
            format: Format::Text,
            effort: None,
            user: None,
        };
        let mut messages = None;
        let mut old_max = None;
        let mut safety_identifier = None;
        for_each_member(body, &At::ROOT, |key, value, at| {
            match key {
                "messages" => messages = Some(value),
                "max_completion_tokens" => chat.max_tokens = Some(count(value, at)?),
                "max_tokens" => old_max = Some(count(value, at)?),
                "temperature" => chat.temperature = Some(number(value, at)?),
                "top_p" => chat.top_p = Some(number(value, at)?),
                "top_k" => chat.top_k = Some(number(value, at)?),
                "presence_penalty" => chat.presence_penalty = nonzero(value, at)?,
                "frequency_penalty" => chat.frequency_penalty = nonzero(value, at)?,
                "seed" => chat.seed = Some(number(value, at)?),
                "stop" => chat.stop = Some(stop(value, at)?),
                "stream" => chat.stream = boolean(value, at)?,
                "stream_options" => {
                    chat.include_usage = value.get("include_usage").and_then(Json::bool) == Some(true);
                }
                "tools" => chat.tools = Some(value).filter(|tools| tools.elements().next().is_some()),
                "tool_choice" => chat.tool_choice = Some(tool_choice(value, at)?),
                "parallel_tool_calls" => chat.parallel_tool_calls = boolean(value, at)?,
                "response_format" => chat.format = format(value, at)?,
                "reasoning_effort" => chat.effort = Some(effort(value, at)?),
                "user" => chat.user = Some(string(value, at)?),
                "safety_identifier" => safety_identifier = Some(string(value, at)?),
                _ => refuse_or_drop(key, value, at)?,
            }
            Ok(())
        })?;
        chat.messages = required(messages, &At::ROOT, "messages")?;
        chat.max_tokens = chat.max_tokens.or(old_max);
        chat.user = chat.user.or(safety_identifier);
        Ok(chat)
    }
}

/// The fields that are neither translated nor needed. The list of what is left out is in the README.
fn refuse_or_drop(key: &str, value: Json<'_>, at: &At<'_>) -> Result<(), Refusal> {
    let harmless = match key {
        // The deployment's own name of the model is used. The rest concerns OpenAI's platform, not the answer; a
        // prediction makes an answer faster, not different.
        "model"
        | "store"
        | "metadata"
        | "service_tier"
        | "prompt_cache_key"
        | "prompt_cache_options"
        | "prompt_cache_retention"
        | "prediction" => true,
        "n" => value.u64() == Some(1),
        "logprobs" => value.bool() == Some(false),
        "top_logprobs" => value.u64() == Some(0),
        "logit_bias" => value.kind() == Kind::Object && value.members().next().is_none(),
        "modalities" => value
            .elements()
            .all(|modality| modality.str().is_some_and(|name| name.is("text"))),
        "verbosity" => value.str().is_some_and(|level| level.is("medium")),
        "audio" | "web_search_options" | "moderation" => false,
        "functions" | "function_call" => {
            return Err(at.refuse("is deprecated and not translated: use tools and tool_choice"));
        }
        _ => return Err(unknown(at)),
    };
    if harmless {
        Ok(())
    } else {
        Err(at.refuse(NO_EQUIVALENT))
    }
}

fn nonzero<'a>(value: Json<'a>, at: &At<'_>) -> Result<Option<Json<'a>>, Refusal> {
    Ok(Some(number(value, at)?).filter(|number| number.f64() != Some(0.0)))
}

fn stop<'a>(value: Json<'a>, at: &At<'_>) -> Result<Json<'a>, Refusal> {
    if value.kind() != Kind::String {
        for_each_element(value, at, |element, at| string(element, at).map(|_| ()))?;
    }
    Ok(value)
}

fn effort(value: Json<'_>, at: &At<'_>) -> Result<Effort, Refusal> {
    Ok(match &*string(value, at)?.text() {
        "none" => Effort::None,
        "minimal" => Effort::Minimal,
        "low" => Effort::Low,
        "medium" => Effort::Medium,
        "high" => Effort::High,
        "xhigh" => Effort::XHigh,
        "max" => Effort::Max,
        _ => return Err(at.refuse("must be none, minimal, low, medium, high, xhigh or max")),
    })
}

fn tool_choice<'a>(value: Json<'a>, at: &At<'_>) -> Result<ToolChoice<'a>, Refusal> {
    if let Some(word) = value.str() {
        return match &*word.text() {
            "auto" => Ok(ToolChoice::Auto),
            "none" => Ok(ToolChoice::None),
            "required" => Ok(ToolChoice::Required),
            _ => Err(at.refuse("must be auto, none, required or a function")),
        };
    }
    let kind = value.get_str("type").unwrap_or_default();
    let name = value
        .get("function")
        .and_then(|function| function.get_str("name"));
    match name {
        Some(name) if kind.is("function") => Ok(ToolChoice::Named(name)),
        _ => Err(at
            .key("type")
            .refuse("only function can be chosen on this deployment")),
    }
}

fn format<'a>(value: Json<'a>, at: &At<'_>) -> Result<Format<'a>, Refusal> {
    let kind = required(value.get_str("type"), at, "type")?;
    if kind.is("text") {
        Ok(Format::Text)
    } else if kind.is("json_object") {
        Ok(Format::JsonObject)
    } else if kind.is("json_schema") {
        let at = at.key("json_schema");
        let schema = value.get("json_schema").and_then(|format| format.get("schema"));
        Ok(Format::Schema(required(schema, &at, "schema")?))
    } else {
        Err(at.key("type").refuse(NO_EQUIVALENT))
    }
}

/// A function that may be called.
pub(crate) struct Tool<'a> {
    pub(crate) name: Str<'a>,
    pub(crate) description: Option<Str<'a>>,
    pub(crate) parameters: Option<Json<'a>>,
    pub(crate) strict: bool,
    /// An extension that some clients send for Anthropic's prompt caching.
    pub(crate) cache_control: Option<Json<'a>>,
}

pub(crate) fn for_each_tool<'a>(
    tools: Json<'a>,
    mut each: impl FnMut(&Tool<'a>, &At<'_>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    for_each_element(tools, &At::ROOT.key("tools"), |tool, at| {
        if tool.get_str("type").is_some_and(|kind| !kind.is("function")) {
            return Err(at.key("type").refuse("only function tools can be translated"));
        }
        let mut function = None;
        let mut cache_control = None;
        for_each_member(tool, at, |key, value, at| {
            match key {
                "type" => {}
                "function" => function = Some(value),
                "cache_control" => cache_control = Some(value),
                _ => return Err(unknown(at)),
            }
            Ok(())
        })?;
        let function = required(function, at, "function")?;
        let at = at.key("function");
        let mut found = Tool {
            name: Str::EMPTY,
            description: None,
            parameters: None,
            strict: false,
            cache_control,
        };
        for_each_member(function, &at, |key, value, at| {
            match key {
                "name" => found.name = string(value, at)?,
                "description" => found.description = Some(string(value, at)?),
                "parameters" if value.kind() == Kind::Object => found.parameters = Some(value),
                "parameters" => return Err(at.refuse("must be an object")),
                "strict" => found.strict = boolean(value, at)?,
                "cache_control" => found.cache_control = Some(value),
                _ => return Err(unknown(at)),
            }
            Ok(())
        })?;
        if found.name.is_empty() {
            return Err(at.key("name").refuse("is missing"));
        }
        each(&found, &at)
    })
}
