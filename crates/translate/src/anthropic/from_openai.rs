//! Writes a chat completion's request as a request of Anthropic's messages.

use super::history::History;
use crate::json::{Array, Json, Object};
use crate::openai::{Chat, Effort, Format, ToolChoice, for_each_tool};
use crate::refusal::{At, Refusal};
use crate::request::{Ask, Options, Sampling, Thinking, Translated};

const HEADERS: &[(&str, &str)] = &[
    ("content-type", "application/json"),
    ("anthropic-version", "2023-06-01"),
];

/// The least budget of thinking that the protocol allows.
const MIN_BUDGET: u64 = 1024;

pub(crate) fn write_request(chat: &Chat<'_>, options: &Options<'_>) -> Result<Translated, Refusal> {
    refuse_untranslatable(chat)?;
    let max_tokens = options
        .max_tokens
        .or(chat.max_tokens)
        .unwrap_or(options.default_max_tokens);
    let mut body = Vec::with_capacity(1024 + chat.messages.raw().len());
    let mut object = Object::open(&mut body);
    object
        .text("model", options.model)
        .number("max_tokens", max_tokens);
    let history = History::read(chat)?;
    if !history.system.is_empty() {
        let out = object.key("system");
        out.push(b'[');
        out.extend_from_slice(&history.system);
        out.push(b']');
    }
    let out = object.key("messages");
    out.push(b'[');
    out.extend_from_slice(&history.turns);
    out.push(b']');
    write_sampling(chat, options, &mut object)?;
    if let Some(stop) = chat.stop {
        write_stop(stop, object.key("stop_sequences"));
    }
    write_tools(chat, &mut object)?;
    write_output(chat, options, max_tokens, history.ends_with_result, &mut object)?;
    if let Some(user) = chat.user {
        let mut metadata = Object::open(object.key("metadata"));
        metadata.string("user_id", user);
        metadata.close();
    }
    if chat.stream {
        object.raw("stream", "true");
    }
    object.close();
    Ok(Translated {
        body,
        path: "/v1/messages".to_owned(),
        stream: chat.stream,
        headers: HEADERS,
        ask: Ask {
            include_usage: chat.include_usage,
            thinking: false,
        },
    })
}

/// What Gemini can do and Anthropic cannot.
fn refuse_untranslatable(chat: &Chat<'_>) -> Result<(), Refusal> {
    for (name, value) in [
        ("presence_penalty", chat.presence_penalty),
        ("frequency_penalty", chat.frequency_penalty),
    ] {
        if value.is_some() {
            return Err(At::ROOT
                .key(name)
                .refuse("has no equivalent in this deployment's protocol"));
        }
    }
    if matches!(chat.format, Format::JsonObject) {
        let format = At::ROOT.key("response_format");
        return Err(format
            .key("type")
            .refuse("json_object is not possible on this deployment; json_schema is"));
    }
    Ok(())
}

fn write_sampling(chat: &Chat<'_>, options: &Options<'_>, object: &mut Object<'_>) -> Result<(), Refusal> {
    let takes = match options.sampling {
        Sampling::Omit => return Ok(()),
        Sampling::Send => true,
        // Claude Opus 4.7 and what came after refuse them.
        Sampling::Auto => is_old(options.model) || options.model.contains("-4-6"),
    };
    for (name, value) in [
        ("temperature", chat.temperature),
        ("top_p", chat.top_p),
        ("top_k", chat.top_k),
    ] {
        let Some(value) = value else { continue };
        let at = At::ROOT.key(name);
        if takes && name == "temperature" && value.f64().is_some_and(|value| !(0.0..=1.0).contains(&value)) {
            return Err(at.refuse("must be between 0 and 1 on this deployment"));
        } else if takes {
            object.raw(name, value.raw());
        } else if name == "top_k" || value.f64() != Some(1.0) {
            return Err(at.refuse("this deployment's model takes no sampling parameters"));
        }
    }
    Ok(())
}

fn write_stop(stop: Json<'_>, out: &mut Vec<u8>) {
    if stop.str().is_some() {
        let mut array = Array::open(out);
        array.item().extend_from_slice(stop.raw().as_bytes());
        array.close();
    } else {
        out.extend_from_slice(stop.raw().as_bytes());
    }
}

fn write_tools(chat: &Chat<'_>, object: &mut Object<'_>) -> Result<(), Refusal> {
    let Some(tools) = chat.tools else { return Ok(()) };
    let mut array = Array::open(object.key("tools"));
    for_each_tool(tools, |tool, _| {
        let mut written = Object::open(array.item());
        written.string("name", tool.name);
        if let Some(description) = tool.description {
            written.string("description", description);
        }
        written.raw(
            "input_schema",
            tool.parameters
                .map_or(r#"{"type":"object","properties":{}}"#, Json::raw),
        );
        if tool.strict {
            written.raw("strict", "true");
        }
        if let Some(cache_control) = tool.cache_control {
            written.raw("cache_control", cache_control.raw());
        }
        written.close();
        Ok(())
    })?;
    array.close();
    let kind = match chat.tool_choice {
        None if chat.parallel_tool_calls => return Ok(()),
        None | Some(ToolChoice::Auto) => "auto",
        Some(ToolChoice::None) => "none",
        Some(ToolChoice::Required) => "any",
        Some(ToolChoice::Named(_)) => "tool",
    };
    let mut choice = Object::open(object.key("tool_choice"));
    choice.text("type", kind);
    if let Some(ToolChoice::Named(name)) = chat.tool_choice {
        choice.string("name", name);
    }
    if !chat.parallel_tool_calls && kind != "none" {
        choice.raw("disable_parallel_tool_use", "true");
    }
    choice.close();
    Ok(())
}

/// Whether a model is Claude 4.5 or older, by its name in the provider's own API or at one of the clouds.
fn is_old(model: &str) -> bool {
    const UP_TO_4_5: [&str; 8] = ["@", ":", "-0", "-1", "-2025", "-5", ".1", ".5"];
    let version = model
        .split("claude-")
        .nth(1)
        .and_then(|name| name.split_once("-4"))
        .map(|(_, version)| version);
    model.contains("claude-3")
        || version
            .is_some_and(|version| version.is_empty() || UP_TO_4_5.iter().any(|old| version.starts_with(old)))
}

/// Claude up to 4.5 thinks by a budget; what came after decides itself, guided by an effort.
fn style(options: &Options<'_>) -> Thinking {
    match options.thinking {
        Thinking::Auto if is_old(options.model) => Thinking::Budget,
        Thinking::Auto => Thinking::Level,
        style => style,
    }
}

const fn level(effort: Effort) -> &'static str {
    match effort {
        Effort::None | Effort::Minimal | Effort::Low => "low",
        Effort::Medium => "medium",
        Effort::High => "high",
        Effort::XHigh => "xhigh",
        Effort::Max => "max",
    }
}

const fn budget(effort: Effort) -> u64 {
    match effort {
        Effort::None => 0,
        Effort::Minimal | Effort::Low => 1024,
        Effort::Medium => 8192,
        Effort::High => 24576,
        Effort::XHigh | Effort::Max => 32768,
    }
}

/// Writes `thinking` and `output_config`.
fn write_output(
    chat: &Chat<'_>,
    options: &Options<'_>,
    max_tokens: u64,
    ends_with_result: bool,
    object: &mut Object<'_>,
) -> Result<(), Refusal> {
    let forced = chat.tools.is_some()
        && matches!(
            chat.tool_choice,
            Some(ToolChoice::Required | ToolChoice::Named(_))
        );
    let style = style(options);
    let mut thinks = false;
    let mut effort = None;
    match (style, chat.effort) {
        (Thinking::Off | Thinking::Auto, _) | (_, None) | (Thinking::Budget, Some(Effort::None)) => {}
        (Thinking::Level, Some(Effort::None)) => {
            object.raw("thinking", r#"{"type":"disabled"}"#);
        }
        (Thinking::Level, Some(wanted)) => {
            // A forced call excludes thinking; the effort then still applies to the call.
            if !forced {
                object.raw("thinking", r#"{"type":"adaptive"}"#);
                thinks = true;
            }
            effort = Some(level(wanted));
        }
        (Thinking::Budget, Some(wanted)) => {
            // Half of the output stays for the answer. In the middle of a round of tools the protocol demands the
            // signed thinking of the turn's beginning, which a chat completion cannot carry: then nothing is thought.
            let budget = budget(wanted).min(max_tokens / 2);
            if budget >= MIN_BUDGET && !ends_with_result {
                if forced {
                    return Err(At::ROOT.key("tool_choice").refuse(
                        "a call cannot be forced together with reasoning_effort on this deployment",
                    ));
                }
                let mut thinking = Object::open(object.key("thinking"));
                thinking.text("type", "enabled").number("budget_tokens", budget);
                thinking.close();
                thinks = true;
            }
        }
    }
    let cold = chat
        .temperature
        .and_then(Json::f64)
        .is_some_and(|value| value < 1.0);
    if thinks && cold && options.sampling != Sampling::Omit {
        return Err(At::ROOT
            .key("temperature")
            .refuse("cannot be combined with reasoning_effort on this deployment"));
    }
    let schema = if let Format::Schema(schema) = chat.format {
        Some(schema)
    } else {
        None
    };
    if effort.is_some() || schema.is_some() {
        let mut config = Object::open(object.key("output_config"));
        if let Some(effort) = effort {
            config.text("effort", effort);
        }
        if let Some(schema) = schema {
            let mut format = Object::open(config.key("format"));
            format.text("type", "json_schema").raw("schema", schema.raw());
            format.close();
        }
        config.close();
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::{Options, Thinking, style};

    #[test]
    fn the_style_of_thinking_follows_from_the_name() {
        for old in [
            "claude-3-7-sonnet-20250219",
            "claude-sonnet-4-20250514",
            "claude-opus-4",
            "claude-opus-4-1",
            "claude-sonnet-4-5-20250929",
            "claude-haiku-4-5",
            "anthropic.claude-sonnet-4-20250514-v1:0",
            "claude-opus-4@20250514",
        ] {
            assert_eq!(style(&Options::new(old)), Thinking::Budget, "{old}");
        }
        for new in [
            "claude-opus-4-6",
            "claude-sonnet-4-6",
            "claude-opus-5",
            "claude-opus-4-7-20260101",
            "other",
        ] {
            assert_eq!(style(&Options::new(new)), Thinking::Level, "{new}");
        }
    }
}
