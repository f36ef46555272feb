//! Writes a chat completion's request as a request of Gemini's generateContent.

use super::history::History;
use super::schema::{self, Names};
use super::{HEADERS, is_old, path, tools};
use crate::json::{Array, Kind, Object};
use crate::openai::{Chat, Effort, Format, ToolChoice, for_each_tool};
use crate::refusal::{At, Refusal};
use crate::request::{Ask, Options, Thinking, Translated};

pub(crate) fn write_request(chat: &Chat<'_>, options: &Options<'_>) -> Result<Translated, Refusal> {
    if !chat.parallel_tool_calls && chat.tools.is_some() {
        let at = At::ROOT.key("parallel_tool_calls");
        return Err(at.refuse("parallel calls cannot be turned off on this deployment"));
    }
    let mut body = Vec::with_capacity(1024 + chat.messages.raw().len());
    let mut object = Object::open(&mut body);
    let history = History::read(chat, options.model)?;
    if !history.system.is_empty() {
        let mut system = Object::open(object.key("systemInstruction"));
        let out = system.key("parts");
        out.push(b'[');
        out.extend_from_slice(&history.system);
        out.push(b']');
        system.close();
    }
    let out = object.key("contents");
    out.push(b'[');
    out.extend_from_slice(&history.turns);
    out.push(b']');
    write_tools(chat, &mut object)?;
    write_config(chat, options, &mut object)?;
    object.close();
    Ok(Translated {
        body,
        path: path(options.model, chat.stream),
        stream: chat.stream,
        headers: HEADERS,
        ask: Ask {
            include_usage: chat.include_usage,
            thinking: false,
        },
    })
}

fn write_tools(chat: &Chat<'_>, object: &mut Object<'_>) -> Result<(), Refusal> {
    let Some(tools) = chat.tools else { return Ok(()) };
    tools::check(tools)?;
    let mut array = tools::open(object);
    for_each_tool(tools, |tool, at| {
        let parameters = tool
            .parameters
            .map(|parameters| (parameters, at.key("parameters")));
        tools::declare(&mut array, tool.name, tool.description, parameters)
    })?;
    array.close();
    tools::close(object);
    if let Some(choice) = chat.tool_choice {
        let (mode, name) = match choice {
            ToolChoice::Auto => ("AUTO", None),
            ToolChoice::None => ("NONE", None),
            ToolChoice::Required => ("ANY", None),
            ToolChoice::Named(name) => ("ANY", Some(name)),
        };
        tools::choose(mode, name, object);
    }
    Ok(())
}

fn write_config(chat: &Chat<'_>, options: &Options<'_>, object: &mut Object<'_>) -> Result<(), Refusal> {
    const NAMES: Names = Names {
        open_api: "responseSchema",
        json_schema: "responseJsonSchema",
    };
    let mut config = Object::open(object.key("generationConfig"));
    if let Some(max_tokens) = options.max_tokens.or(chat.max_tokens) {
        config.number("maxOutputTokens", max_tokens);
    }
    for (name, value) in [
        ("temperature", chat.temperature),
        ("topP", chat.top_p),
        ("topK", chat.top_k),
        ("presencePenalty", chat.presence_penalty),
        ("frequencyPenalty", chat.frequency_penalty),
        ("seed", chat.seed),
    ] {
        if let Some(value) = value {
            config.raw(name, value.raw());
        }
    }
    if let Some(stop) = chat.stop {
        let out = config.key("stopSequences");
        if stop.kind() == Kind::String {
            let mut array = Array::open(out);
            array.item().extend_from_slice(stop.raw().as_bytes());
            array.close();
        } else {
            out.extend_from_slice(stop.raw().as_bytes());
        }
    }
    match chat.format {
        Format::Text => {}
        Format::JsonObject => {
            config.text("responseMimeType", "application/json");
        }
        Format::Schema(schema) => {
            config.text("responseMimeType", "application/json");
            let format = At::ROOT.key("response_format");
            let format = format.key("json_schema");
            schema::write(schema, &NAMES, &format.key("schema"), &mut config)?;
        }
    }
    if let Some(effort) = chat.effort {
        write_thinking(effort, options, &mut config);
    }
    config.close();
    Ok(())
}

/// Budgets and levels as in the provider's own OpenAI-compatible endpoint. Gemini 3 and later cannot stop thinking:
/// `none` becomes their least level. Whoever asks for reasoning gets to see its summary.
fn write_thinking(effort: Effort, options: &Options<'_>, config: &mut Object<'_>) {
    let style = match options.thinking {
        Thinking::Auto if is_old(options.model) => Thinking::Budget,
        Thinking::Auto => Thinking::Level,
        style => style,
    };
    if style == Thinking::Off {
        return;
    }
    let mut thinking = Object::open(config.key("thinkingConfig"));
    if style == Thinking::Budget {
        let budget = match effort {
            Effort::None => 0,
            Effort::Minimal | Effort::Low => 1024,
            Effort::Medium => 8192,
            Effort::High | Effort::XHigh | Effort::Max => 24576,
        };
        thinking.number("thinkingBudget", budget);
    } else {
        let level = match effort {
            Effort::None | Effort::Minimal => "minimal",
            Effort::Low => "low",
            Effort::Medium => "medium",
            Effort::High | Effort::XHigh | Effort::Max => "high",
        };
        thinking.text("thinkingLevel", level);
    }
    if effort != Effort::None {
        thinking.raw("includeThoughts", "true");
    }
    thinking.close();
}
