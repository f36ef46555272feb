//! Writes a chat completion's request as a request of Gemini's generateContent.

use super::history::History;
use super::schema::{self, Names};
use crate::json::{Array, Kind, Object, quoted};
use crate::openai::{Chat, Effort, Format, ToolChoice, for_each_tool};
use crate::refusal::{At, Refusal};
use crate::request::{Ask, Options, Thinking, Translated};

const HEADERS: &[(&str, &str)] = &[("content-type", "application/json")];

/// Bytes of all tools together: their schemas are walked level by level, which must not hold up a worker.
const MAX_TOOLS: usize = 1 << 20;

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

/// The method's path. A name that says which collection it is in (`tunedModels/x`) stays in that collection.
fn path(model: &str, stream: bool) -> String {
    let mut path = String::from("/v1beta/");
    if !model.contains('/') {
        path.push_str("models/");
    }
    for byte in model.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/@".contains(&byte) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path.push_str(if stream {
        ":streamGenerateContent?alt=sse"
    } else {
        ":generateContent"
    });
    path
}

/// Models before Gemini 3: they think by a budget and demand no signatures.
pub(super) fn is_old(model: &str) -> bool {
    model.contains("gemini-1.") || model.contains("gemini-2.")
}

fn write_tools(chat: &Chat<'_>, object: &mut Object<'_>) -> Result<(), Refusal> {
    const NAMES: Names = Names {
        open_api: "parameters",
        json_schema: "parametersJsonSchema",
    };
    let Some(tools) = chat.tools else { return Ok(()) };
    if tools.raw().len() > MAX_TOOLS {
        return Err(At::ROOT
            .key("tools")
            .refuse("more than 1 MiB of tools is not translated"));
    }
    let out = object.key("tools");
    out.extend_from_slice(b"[{\"functionDeclarations\":");
    let mut array = Array::open(out);
    for_each_tool(tools, |tool, at| {
        let mut written = Object::open(array.item());
        written.string("name", tool.name);
        if let Some(description) = tool.description {
            written.string("description", description);
        }
        if let Some(parameters) = tool
            .parameters
            .filter(|parameters| !schema::is_empty(*parameters))
        {
            schema::write(parameters, &NAMES, &at.key("parameters"), &mut written)?;
        }
        written.close();
        Ok(())
    })?;
    array.close();
    object.raw_end("}]");
    let Some(choice) = chat.tool_choice else {
        return Ok(());
    };
    let mut config = Object::open(object.key("toolConfig"));
    let mut calling = Object::open(config.key("functionCallingConfig"));
    match choice {
        ToolChoice::Auto => calling.text("mode", "AUTO"),
        ToolChoice::None => calling.text("mode", "NONE"),
        ToolChoice::Required => calling.text("mode", "ANY"),
        ToolChoice::Named(name) => {
            let mut names = Array::open(calling.text("mode", "ANY").key("allowedFunctionNames"));
            quoted(name, names.item());
            names.close();
            &mut calling
        }
    };
    calling.close();
    config.close();
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

#[cfg(test)]
mod tests {
    use super::path;

    #[test]
    fn the_path_names_the_model_and_the_method() {
        assert_eq!(
            path("gemini-2.5-flash", false),
            "/v1beta/models/gemini-2.5-flash:generateContent"
        );
        assert_eq!(
            path("tunedModels/x y?", true),
            "/v1beta/tunedModels/x%20y%3F:streamGenerateContent?alt=sse"
        );
    }
}
