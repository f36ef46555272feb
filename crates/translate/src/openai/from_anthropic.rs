//! Writes a request of Anthropic's messages as a request of chat completions.

use super::history::Messages;
use crate::anthropic::{NO_EQUIVALENT, Request, Thought, ToolChoice, for_each_tool};
use crate::json::{Array, Json, Object};
use crate::refusal::{At, Refusal};
use crate::request::{Ask, Options, Thinking, Translated, for_each_element, required};

const HEADERS: &[(&str, &str)] = &[("content-type", "application/json")];

pub(crate) fn write_request(body: Json<'_>, options: &Options<'_>) -> Result<Translated, Refusal> {
    let request = Request::read(body)?;
    if request.top_k.is_some() {
        return Err(At::ROOT.key("top_k").refuse(NO_EQUIVALENT));
    }
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
            thinking: request.thinks(),
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
    for_each_tool(tools, |tool, _| {
        let mut written = Object::open(array.item());
        let mut function = Object::open(written.text("type", "function").key("function"));
        function.string("name", tool.name);
        if let Some(description) = tool.description {
            function.string("description", description);
        }
        function.raw("parameters", tool.schema.raw());
        if tool.strict {
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
    let choice = ToolChoice::read(choice, at)?;
    match choice.name {
        Some(name) => {
            let mut named = Object::open(object.key("tool_choice"));
            let mut function = Object::open(named.text("type", "function").key("function"));
            function.string("name", name);
            function.close();
            named.close();
        }
        None => {
            let word = if choice.kind == "any" {
                "required"
            } else {
                choice.kind
            };
            object.text("tool_choice", word);
        }
    }
    if !choice.parallel {
        object.raw("parallel_tool_calls", "false");
    }
    Ok(())
}
