//! Writes a request of Anthropic's messages as a request of chat completions.

use super::history::Messages;
use crate::json::{Array, Json, Kind, Object, Str};
use crate::refusal::{At, Refusal};
use crate::request::{
    Ask, Options, Thinking, Translated, boolean, count, for_each_element, for_each_member, number, required,
    string, unknown,
};

const HEADERS: &[(&str, &str)] = &[("content-type", "application/json")];

const NO_EQUIVALENT: &str = "has no equivalent in this deployment's protocol";

/// What the client says about thinking.
#[derive(Clone, Copy)]
enum Thought {
    Off,
    Budget(u64),
    Adaptive,
}

/// A request, its messages and tools still unread.
#[derive(Default)]
struct Request<'a> {
    messages: Option<Json<'a>>,
    system: Option<Json<'a>>,
    max_tokens: Option<u64>,
    temperature: Option<Json<'a>>,
    top_p: Option<Json<'a>>,
    stop_sequences: Option<Json<'a>>,
    stream: bool,
    tools: Option<Json<'a>>,
    tool_choice: Option<Json<'a>>,
    user: Option<Str<'a>>,
    thinking: Option<Thought>,
    effort: Option<&'static str>,
    schema: Option<Json<'a>>,
}

impl<'a> Request<'a> {
    fn read(body: Json<'a>) -> Result<Self, Refusal> {
        let mut request = Self::default();
        for_each_member(body, &At::ROOT, |key, value, at| {
            match key {
                "messages" => request.messages = Some(value),
                "system" => request.system = Some(value),
                "max_tokens" => match count(value, at)? {
                    0 => {
                        return Err(
                            at.refuse("0 (filling the prompt cache) has no equivalent on this deployment")
                        );
                    }
                    max => request.max_tokens = Some(max),
                },
                "temperature" => request.temperature = Some(number(value, at)?),
                "top_p" => request.top_p = Some(number(value, at)?),
                "stop_sequences" => {
                    for_each_element(value, at, |element, at| string(element, at).map(|_| ()))?;
                    request.stop_sequences = Some(value).filter(|list| list.elements().next().is_some());
                }
                "stream" => request.stream = boolean(value, at)?,
                "tools" => request.tools = Some(value).filter(|tools| tools.elements().next().is_some()),
                "tool_choice" => request.tool_choice = Some(value),
                "metadata" => request.user = value.get_str("user_id"),
                "thinking" => request.thinking = Some(thought(value, at)?),
                "output_config" => for_each_member(value, at, |key, value, at| {
                    match key {
                        "effort" => request.effort = Some(effort(value, at)?),
                        "format" => request.schema = Some(schema(value, at)?),
                        _ => return Err(unknown(at)),
                    }
                    Ok(())
                })?,
                "output_format" => request.schema = Some(schema(value, at)?),
                // The deployment's own name of the model is used; caching, capacity and the clearing of old thinking
                // concern the provider's platform, not the answer.
                "model" | "cache_control" | "service_tier" | "speed" | "diagnostics"
                | "context_management" => {}
                "top_k" | "container" | "mcp_servers" | "inference_geo" => {
                    return Err(at.refuse(NO_EQUIVALENT));
                }
                _ => return Err(unknown(at)),
            }
            Ok(())
        })?;
        Ok(request)
    }
}

fn thought(value: Json<'_>, at: &At<'_>) -> Result<Thought, Refusal> {
    match &*required(value.get_str("type"), at, "type")?.text() {
        "disabled" => Ok(Thought::Off),
        "adaptive" | "between_tools" => Ok(Thought::Adaptive),
        "enabled" => {
            let at = at.key("budget_tokens");
            Ok(Thought::Budget(count(
                value
                    .get("budget_tokens")
                    .ok_or_else(|| at.refuse("is missing"))?,
                &at,
            )?))
        }
        _ => Err(at
            .key("type")
            .refuse("must be enabled, adaptive, between_tools or disabled")),
    }
}

fn effort(value: Json<'_>, at: &At<'_>) -> Result<&'static str, Refusal> {
    Ok(match &*string(value, at)?.text() {
        "low" => "low",
        "medium" => "medium",
        "high" => "high",
        "xhigh" => "xhigh",
        "max" => "max",
        _ => return Err(at.refuse("must be low, medium, high, xhigh or max")),
    })
}

fn schema<'a>(value: Json<'a>, at: &At<'_>) -> Result<Json<'a>, Refusal> {
    if required(value.get_str("type"), at, "type")?.is("json_schema") {
        required(value.get("schema"), at, "schema")
    } else {
        Err(at.key("type").refuse("must be json_schema"))
    }
}

pub(crate) fn write_request(body: Json<'_>, options: &Options<'_>) -> Result<Translated, Refusal> {
    let request = Request::read(body)?;
    let mut out = Vec::with_capacity(1024 + body.raw().len());
    let mut object = Object::open(&mut out);
    object.text("model", options.model);
    let mut messages = Messages::default();
    if let Some(system) = request.system {
        messages.system(system, &At::ROOT.key("system"))?;
    }
    let list = required(request.messages, &At::ROOT, "messages")?;
    for_each_element(list, &At::ROOT.key("messages"), |message, at| {
        messages.message(message, at)
    })?;
    if messages.last_is_assistant {
        let at = At::ROOT.key("messages");
        return Err(at.refuse(
            "must not end with the assistant's: a begun answer cannot be continued on this deployment",
        ));
    }
    if messages.out.is_empty() {
        return Err(At::ROOT.key("messages").refuse("must not be empty"));
    }
    let list = object.key("messages");
    list.push(b'[');
    list.append(&mut messages.out);
    list.push(b']');
    if let Some(max_tokens) = options.max_tokens.or(request.max_tokens) {
        let name = if reasons(options.model) {
            "max_completion_tokens"
        } else {
            "max_tokens"
        };
        object.number(name, max_tokens);
    }
    for (name, value) in [
        ("temperature", request.temperature),
        ("top_p", request.top_p),
        ("stop", request.stop_sequences),
    ] {
        if let Some(value) = value {
            object.raw(name, value.raw());
        }
    }
    if let Some(tools) = request.tools {
        write_tools(tools, &mut object)?;
        if let Some(choice) = request.tool_choice {
            write_tool_choice(choice, &At::ROOT.key("tool_choice"), &mut object)?;
        }
    }
    if let Some(schema) = request.schema {
        let mut format = Object::open(object.key("response_format"));
        let mut named = Object::open(format.text("type", "json_schema").key("json_schema"));
        named
            .text("name", "answer")
            .raw("schema", schema.raw())
            .raw("strict", "true");
        named.close();
        format.close();
    }
    if let Some(effort) = reasoning_effort(&request, options) {
        object.text("reasoning_effort", effort);
    }
    if let Some(user) = request.user {
        object.string("user", user);
    }
    if request.stream {
        object
            .raw("stream", "true")
            .raw("stream_options", r#"{"include_usage":true}"#);
    }
    object.close();
    Ok(Translated {
        body: out,
        path: "/v1/chat/completions".to_owned(),
        stream: request.stream,
        headers: HEADERS,
        ask: Ask {
            include_usage: true,
            thinking: matches!(request.thinking, Some(Thought::Adaptive | Thought::Budget(_))),
        },
    })
}

/// OpenAI's reasoning models, which refuse `max_tokens`; other servers know that name.
fn reasons(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or(model);
    ["o1", "o3", "o4", "gpt-5", "gpt-6"]
        .iter()
        .any(|family| name.starts_with(family))
}

/// OpenAI's models that refuse `reasoning_effort`.
fn never_reasons(model: &str) -> bool {
    let name = model.rsplit('/').next().unwrap_or(model);
    ["gpt-3.5", "gpt-4", "chatgpt-4o"]
        .iter()
        .any(|family| name.starts_with(family))
}

fn reasoning_effort(request: &Request<'_>, options: &Options<'_>) -> Option<&'static str> {
    match options.thinking {
        Thinking::Off => return None,
        Thinking::Auto if never_reasons(options.model) => return None,
        _ => {}
    }
    match request.thinking {
        Some(Thought::Budget(0..4096)) => Some("low"),
        Some(Thought::Budget(4096..16384)) => Some("medium"),
        Some(Thought::Budget(_)) => Some("high"),
        Some(Thought::Adaptive) | None => request.effort,
        // Without thinking, an effort is about the length of the answer only.
        Some(Thought::Off) => None,
    }
}

fn write_tools(tools: Json<'_>, object: &mut Object<'_>) -> Result<(), Refusal> {
    let mut array = Array::open(object.key("tools"));
    for_each_element(tools, &At::ROOT.key("tools"), |tool, at| {
        if tool.get_str("type").is_some_and(|kind| !kind.is("custom")) {
            return Err(at
                .key("type")
                .refuse("tools that the provider runs cannot be translated"));
        }
        let (mut name, mut description, mut schema, mut strict) = (None, None, None, false);
        for_each_member(tool, at, |key, value, at| {
            match key {
                "name" => name = Some(string(value, at)?),
                "description" => description = Some(string(value, at)?),
                "input_schema" if value.kind() == Kind::Object => schema = Some(value),
                "input_schema" => return Err(at.refuse("must be an object")),
                "strict" => strict = boolean(value, at)?,
                "type" | "cache_control" | "eager_input_streaming" | "input_examples" => {}
                "defer_loading" if value.bool() == Some(false) => {}
                "allowed_callers"
                    if value
                        .elements()
                        .all(|caller| caller.str().is_some_and(|name| name.is("direct"))) => {}
                "defer_loading" | "allowed_callers" => return Err(at.refuse(NO_EQUIVALENT)),
                _ => return Err(unknown(at)),
            }
            Ok(())
        })?;
        let mut written = Object::open(array.item());
        let mut function = Object::open(written.text("type", "function").key("function"));
        function.string("name", required(name, at, "name")?);
        if let Some(description) = description {
            function.string("description", description);
        }
        function.raw("parameters", required(schema, at, "input_schema")?.raw());
        if strict {
            function.raw("strict", "true");
        }
        function.close();
        written.close();
        Ok(())
    })?;
    array.close();
    Ok(())
}

fn write_tool_choice(choice: Json<'_>, at: &At<'_>, object: &mut Object<'_>) -> Result<(), Refusal> {
    let kind = required(choice.get_str("type"), at, "type")?.text();
    match &*kind {
        "auto" | "none" => {
            object.text("tool_choice", &kind);
        }
        "any" => {
            object.text("tool_choice", "required");
        }
        "tool" => {
            let name = required(choice.get_str("name"), at, "name")?;
            let mut named = Object::open(object.key("tool_choice"));
            let mut function = Object::open(named.text("type", "function").key("function"));
            function.string("name", name);
            function.close();
            named.close();
        }
        _ => return Err(at.key("type").refuse("must be auto, any, tool or none")),
    }
    if choice.get("disable_parallel_tool_use").and_then(Json::bool) == Some(true) && kind != "none" {
        object.raw("parallel_tool_calls", "false");
    }
    Ok(())
}
