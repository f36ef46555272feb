//! Writes a chat completion's request as a request of Gemini's generateContent.
//!
//! Gemini matches results to calls by the function's name and order; ids are given back only if Gemini had made them,
//! which a thought signature beside them tells.

use std::collections::HashMap;

use super::schema::{self, Names};
use crate::json::{Array, Json, Kind, Object, escape, quoted};
use crate::openai::{
    Chat, DataUrl, Effort, Format, Part, Role, ToolChoice, arguments_object, for_each_call, for_each_message,
    for_each_part, for_each_tool,
};
use crate::refusal::{At, Refusal};
use crate::request::{Ask, Options, Thinking, Translated, required};
use crate::response::MADE_UP_TOOL_ID;

const HEADERS: &[(&str, &str)] = &[("content-type", "application/json")];

/// Bytes of all tools together: their schemas are walked level by level, which must not hold up a worker.
const MAX_TOOLS: usize = 1 << 20;

/// What the provider documents for calls whose signature is not at hand, e.g. because another model made them.
const SKIP_SIGNATURE: &str = "skip_thought_signature_validator";

pub(crate) fn write_request(chat: &Chat<'_>, options: &Options<'_>) -> Result<Translated, Refusal> {
    if !chat.parallel_tool_calls && chat.tools.is_some() {
        let at = At::ROOT.key("parallel_tool_calls");
        return Err(at.refuse("parallel calls cannot be turned off on this deployment"));
    }
    let mut body = Vec::with_capacity(1024 + chat.messages.raw().len());
    let mut object = Object::open(&mut body);
    let history = History::read(chat, options)?;
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

fn is_old(model: &str) -> bool {
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

/// The messages as contents and as parts of the system instruction, each with commas between.
struct History {
    system: Vec<u8>,
    turns: Vec<u8>,
}

impl History {
    fn read(chat: &Chat<'_>, options: &Options<'_>) -> Result<Self, Refusal> {
        let mut system = Vec::new();
        let mut turns = Turns {
            out: Vec::with_capacity(chat.messages.raw().len() + 256),
            role: None,
        };
        let mut names = HashMap::new();
        let demands_signatures = !is_old(options.model);
        for_each_message(chat.messages, |message, at| {
            let content_at = at.key("content");
            match message.role {
                Role::System => for_each_part(
                    required(message.content, at, "content")?,
                    &content_at,
                    |part, at| match part {
                        Part::Text { text, .. } if text.is_empty() => Ok(()),
                        Part::Text { .. } => {
                            if !system.is_empty() {
                                system.push(b',');
                            }
                            write_part(part, at, &mut system)
                        }
                        _ => Err(at.refuse("a system message can only be text")),
                    },
                ),
                Role::User => for_each_part(
                    required(message.content, at, "content")?,
                    &content_at,
                    |part, at| turns.part("user", part, at),
                ),
                Role::Assistant => {
                    if let Some(content) = message.content {
                        for_each_part(content, &content_at, |part, at| turns.part("model", part, at))?;
                    }
                    if let Some(text) = message.refusal {
                        turns.part(
                            "model",
                            Part::Text {
                                text,
                                cache_control: None,
                            },
                            at,
                        )?;
                    }
                    let mut first = true;
                    let Some(calls) = message.tool_calls else {
                        return Ok(());
                    };
                    for_each_call(calls, at, |call, at| {
                        let arguments = arguments_object(call.arguments, at)?;
                        let own_id = call.signature.is_some() && !call.id.raw().starts_with(MADE_UP_TOOL_ID);
                        let own_id = own_id.then_some(call.id);
                        names.insert(call.id.text(), (call.name, own_id));
                        let mut part = Object::open(turns.part_of("model"));
                        let mut written = Object::open(part.key("functionCall"));
                        if let Some(id) = own_id {
                            written.string("id", id);
                        }
                        written.string("name", call.name).raw("args", &arguments);
                        written.close();
                        match call.signature {
                            Some(signature) => {
                                part.string("thoughtSignature", signature);
                            }
                            // Of parallel calls only the first has one.
                            None if first && demands_signatures => {
                                part.text("thoughtSignature", SKIP_SIGNATURE);
                            }
                            None => {}
                        }
                        first = false;
                        part.close();
                        Ok(())
                    })
                }
                Role::Tool => {
                    let id = required(message.tool_call_id, at, "tool_call_id")?;
                    let Some((name, own_id)) = names.get(&id.text()) else {
                        return Err(at
                            .key("tool_call_id")
                            .refuse("names no call of an earlier message"));
                    };
                    let mut text = String::new();
                    let mut images = Vec::new();
                    if let Some(content) = message.content {
                        for_each_part(content, &content_at, |part, at| match part {
                            Part::Text { text: more, .. } => {
                                text.push_str(&more.text());
                                Ok(())
                            }
                            _ => {
                                images.push(b',');
                                write_part(part, at, &mut images)
                            }
                        })?;
                    }
                    let out = turns.part_of("user");
                    let mut part = Object::open(out);
                    let mut response = Object::open(part.key("functionResponse"));
                    if let Some(id) = own_id {
                        response.string("id", *id);
                    }
                    response.string("name", *name);
                    let out = response.key("response");
                    match Json::parse(text.as_bytes()) {
                        Ok(json) if json.kind() == Kind::Object => {
                            out.extend_from_slice(json.raw().as_bytes())
                        }
                        _ => {
                            let mut result = Object::open(out);
                            result.text("result", &text);
                            result.close();
                        }
                    }
                    response.close();
                    part.close();
                    turns.out.append(&mut images);
                    Ok(())
                }
            }
        })?;
        if turns.role.is_none() {
            return Err(At::ROOT
                .key("messages")
                .refuse("must contain something besides system messages"));
        }
        turns.out.extend_from_slice(b"]}");
        Ok(Self {
            system,
            turns: turns.out,
        })
    }
}

struct Turns {
    out: Vec<u8>,
    role: Option<&'static str>,
}

impl Turns {
    /// Begins a part of a turn, and the turn if the last one was the other side's.
    fn part_of(&mut self, role: &'static str) -> &mut Vec<u8> {
        if self.role == Some(role) {
            self.out.push(b',');
        } else {
            if self.role.is_some() {
                self.out.extend_from_slice(b"]},");
            }
            self.out.extend_from_slice(b"{\"role\":\"");
            self.out.extend_from_slice(role.as_bytes());
            self.out.extend_from_slice(b"\",\"parts\":[");
            self.role = Some(role);
        }
        &mut self.out
    }

    fn part(&mut self, role: &'static str, part: Part<'_>, at: &At<'_>) -> Result<(), Refusal> {
        match part {
            Part::Text { text, .. } if text.is_empty() => Ok(()),
            _ => write_part(part, at, self.part_of(role)),
        }
    }
}

fn write_part(part: Part<'_>, at: &At<'_>, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let mut written = Object::open(out);
    match part {
        Part::Text { text, .. } => {
            written.string("text", text);
        }
        Part::Image { url, .. } => {
            let at = at.key("image_url");
            write_url(&url.text(), &at.key("url"), &mut written)?;
        }
        Part::File { data, .. } => {
            let at = at.key("file");
            write_url(&data.text(), &at.key("file_data"), &mut written)?;
        }
        Part::Audio { data, format } => {
            let media_type = match &*format.text() {
                "wav" => "audio/wav",
                "mp3" => "audio/mp3",
                _ => {
                    let at = at.key("input_audio");
                    return Err(at.key("format").refuse("must be wav or mp3"));
                }
            };
            write_inline(media_type, &data.text(), &mut written);
        }
    }
    written.close();
    Ok(())
}

/// Gemini fetches nothing but its own files and Cloud Storage; other URLs would have to be fetched by the gateway, which
/// does not do that for a client.
fn write_url(url: &str, at: &At<'_>, part: &mut Object<'_>) -> Result<(), Refusal> {
    const OWN_FILES: &str = "https://generativelanguage.googleapis.com/";
    if let Some(DataUrl { media_type, data }) = DataUrl::parse(url) {
        if media_type.is_empty() {
            return Err(at.refuse("must name its media type"));
        }
        write_inline(media_type, data, part);
        Ok(())
    } else if url.starts_with("gs://") || url.starts_with(OWN_FILES) {
        let mut file = Object::open(part.key("fileData"));
        file.text("fileUri", url);
        file.close();
        Ok(())
    } else {
        Err(at.refuse("must be a data: URL in base64 on this deployment, or one of the provider's own files"))
    }
}

fn write_inline(media_type: &str, data: &str, part: &mut Object<'_>) {
    let mut inline = Object::open(part.key("inlineData"));
    inline.text("mimeType", media_type);
    let out = inline.key("data");
    out.push(b'"');
    escape(data, out);
    out.push(b'"');
    inline.close();
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
