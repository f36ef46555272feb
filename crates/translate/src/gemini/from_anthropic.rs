//! Writes a request of Anthropic's messages as a request of Gemini's generateContent.

use super::anthropic_history::History;
use super::schema::{self, Names};
use super::{HEADERS, is_old, path, tools};
use crate::anthropic::{Request, Thought, ToolChoice, for_each_tool};
use crate::json::{Json, Object};
use crate::refusal::{At, Refusal};
use crate::request::{Ask, Options, Thinking, Translated, required};

pub(crate) fn write_request(body: Json<'_>, options: &Options<'_>) -> Result<Translated, Refusal> {
    let request = Request::read(body)?;
    let mut out = Vec::with_capacity(1024 + body.raw().len());
    let mut object = Object::open(&mut out);
    let messages = required(request.messages, &At::ROOT, "messages")?;
    let history = History::read(request.system, messages, options.model)?;
    if !history.system.is_empty() {
        let mut system = Object::open(object.key("systemInstruction"));
        let parts = system.key("parts");
        parts.push(b'[');
        parts.extend_from_slice(&history.system);
        parts.push(b']');
        system.close();
    }
    let contents = object.key("contents");
    contents.push(b'[');
    contents.extend_from_slice(&history.turns);
    contents.push(b']');
    if let Some(list) = request.tools {
        write_tools(list, request.tool_choice, &mut object)?;
    }
    write_config(&request, options, &mut object)?;
    object.close();
    Ok(Translated {
        body: out,
        path: path(options.model, request.stream),
        stream: request.stream,
        headers: HEADERS,
        ask: Ask {
            include_usage: true,
            thinking: request.thinks(),
        },
    })
}

fn write_tools(list: Json<'_>, choice: Option<Json<'_>>, object: &mut Object<'_>) -> Result<(), Refusal> {
    tools::check(list)?;
    let mut array = tools::open(object);
    for_each_tool(list, |tool, at| {
        let parameters = Some((tool.schema, at.key("input_schema")));
        tools::declare(&mut array, tool.name, tool.description, parameters)
    })?;
    array.close();
    tools::close(object);
    let Some(choice) = choice else { return Ok(()) };
    let at = At::ROOT.key("tool_choice");
    let choice = ToolChoice::read(choice, &at)?;
    if !choice.parallel {
        return Err(at
            .key("disable_parallel_tool_use")
            .refuse("parallel calls cannot be turned off on this deployment"));
    }
    let mode = match choice.kind {
        "auto" => "AUTO",
        "none" => "NONE",
        _ => "ANY",
    };
    tools::choose(mode, choice.name, object);
    Ok(())
}

fn write_config(
    request: &Request<'_>,
    options: &Options<'_>,
    object: &mut Object<'_>,
) -> Result<(), Refusal> {
    const NAMES: Names = Names {
        open_api: "responseSchema",
        json_schema: "responseJsonSchema",
    };
    let mut config = Object::open(object.key("generationConfig"));
    if let Some(max_tokens) = options.max_tokens.or(request.max_tokens) {
        config.number("maxOutputTokens", max_tokens);
    }
    for (name, value) in [
        ("temperature", request.temperature),
        ("topP", request.top_p),
        ("topK", request.top_k),
        ("stopSequences", request.stop_sequences),
    ] {
        if let Some(value) = value {
            config.raw(name, value.raw());
        }
    }
    if let Some(schema) = request.schema {
        config.text("responseMimeType", "application/json");
        let format = At::ROOT.key("output_config");
        let format = format.key("format");
        schema::write(schema, &NAMES, &format.key("schema"), &mut config)?;
    }
    write_thinking(request, options, &mut config);
    config.close();
    Ok(())
}

/// A budget stays one where the model thinks by budgets, and becomes a level where it thinks by levels; an effort the
/// other way round. Thinking that adapts is the model's own choice.
fn write_thinking(request: &Request<'_>, options: &Options<'_>, config: &mut Object<'_>) {
    let style = match options.thinking {
        Thinking::Auto if is_old(options.model) => Thinking::Budget,
        Thinking::Auto => Thinking::Level,
        style => style,
    };
    if style == Thinking::Off || (request.thinking.is_none() && request.effort.is_none()) {
        return;
    }
    let level = match (request.thinking, request.effort) {
        (Some(Thought::Off), _) => Some("minimal"),
        (Some(Thought::Budget(0..4096)), _) | (_, Some("low")) => Some("low"),
        (Some(Thought::Budget(4096..16384)), _) | (_, Some("medium")) => Some("medium"),
        (Some(Thought::Budget(_)), _) | (_, Some(_)) => Some("high"),
        (_, None) => None,
    };
    let mut thinking = Object::open(config.key("thinkingConfig"));
    if style == Thinking::Budget {
        let budget = match (request.thinking, level) {
            (Some(Thought::Off), _) => Some(0),
            (Some(Thought::Budget(budget)), _) => Some(budget),
            (_, Some("low")) => Some(1024),
            (_, Some("medium")) => Some(8192),
            (_, Some(_)) => Some(24576),
            (_, None) => None,
        };
        match budget {
            Some(budget) => thinking.number("thinkingBudget", budget),
            // As much as the model sees fit.
            None => thinking.raw("thinkingBudget", "-1"),
        };
    } else if let Some(level) = level {
        thinking.text("thinkingLevel", level);
    }
    if request.thinks() {
        thinking.raw("includeThoughts", "true");
    }
    thinking.close();
}
