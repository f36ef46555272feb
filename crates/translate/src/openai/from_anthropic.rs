//! Writes a request of Anthropic's messages as a request of chat completions.
//!
//! Results of tools become messages of their own, ahead of what else the turn says: they must follow the calls. Their
//! images, which a tool message cannot carry, follow in the user's message.

use crate::json::{Array, Json, Kind, Object, Str, escape, quoted};
use crate::refusal::{At, Refusal};
use crate::request::{
    Ask, Options, Thinking, Translated, boolean, count, for_each_element, for_each_member, number, only,
    required, string, unknown,
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
    let mut messages = Messages {
        out: Vec::with_capacity(body.raw().len() + 256),
        last_is_assistant: false,
    };
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

/// The messages written so far, with commas between.
struct Messages {
    out: Vec<u8>,
    last_is_assistant: bool,
}

impl Messages {
    fn begin(&mut self) -> Object<'_> {
        if !self.out.is_empty() {
            self.out.push(b',');
        }
        Object::open(&mut self.out)
    }

    /// A system prompt's blocks become one text, with an empty line between.
    fn system(&mut self, content: Json<'_>, at: &At<'_>) -> Result<(), Refusal> {
        let mut text = Vec::new();
        for_each_block(content, at, |block, at| match block {
            Block::Text(more) => {
                if !text.is_empty() {
                    text.extend_from_slice(b"\\n\\n");
                }
                text.extend_from_slice(more.raw().as_bytes());
                Ok(())
            }
            _ => Err(at.key("type").refuse("a system prompt can only be text")),
        })?;
        if !text.is_empty() {
            let mut message = self.begin();
            let out = message.text("role", "system").key("content");
            out.push(b'"');
            out.append(&mut text);
            out.push(b'"');
            message.close();
        }
        Ok(())
    }

    fn message(&mut self, message: Json<'_>, at: &At<'_>) -> Result<(), Refusal> {
        let (mut role, mut content) = (None, None);
        for_each_member(message, at, |key, value, at| {
            match key {
                "role" => role = Some(string(value, at)?),
                "content" => content = Some(value),
                "id" | "type" | "model" | "stop_reason" | "stop_sequence" | "stop_details" | "usage"
                | "cache_control" => {}
                _ => return Err(unknown(at)),
            }
            Ok(())
        })?;
        let content = required(content, at, "content")?;
        let content_at = at.key("content");
        match &*required(role, at, "role")?.text() {
            "user" => self.user(content, &content_at)?,
            "assistant" => return self.assistant(content, &content_at),
            "system" => self.system(content, &content_at)?,
            _ => return Err(at.key("role").refuse("must be user, assistant or system")),
        }
        self.last_is_assistant = false;
        Ok(())
    }

    fn user(&mut self, content: Json<'_>, at: &At<'_>) -> Result<(), Refusal> {
        let mut parts = Parts::default();
        for_each_block(content, at, |block, at| match block {
            Block::ToolResult {
                id,
                content,
                is_error,
            } => self.tool_result(id, content, is_error, at, &mut parts),
            Block::Text(text) => {
                parts.text(text);
                Ok(())
            }
            Block::Image(source) => parts.image(source, at),
            Block::Document(document) => parts.document(document, at),
            Block::ToolUse { .. } => Err(at.key("type").refuse("only the assistant can call tools")),
            Block::Thinking => Err(at.key("type").refuse("only the assistant can think")),
        })?;
        if !parts.is_empty() {
            let mut message = self.begin();
            parts.write(message.text("role", "user").key("content"));
            message.close();
        }
        Ok(())
    }

    fn tool_result(
        &mut self,
        id: Str<'_>,
        content: Option<Json<'_>>,
        is_error: bool,
        at: &At<'_>,
        rest: &mut Parts,
    ) -> Result<(), Refusal> {
        let mut text = Vec::new();
        if is_error {
            text.extend_from_slice(b"Error: ");
        }
        let images_before = rest.count;
        if let Some(content) = content {
            for_each_block(content, &at.key("content"), |block, at| match block {
                Block::Text(more) => {
                    text.extend_from_slice(more.raw().as_bytes());
                    Ok(())
                }
                Block::Image(source) => rest.image(source, at),
                Block::Document(document) => rest.document(document, at),
                _ => Err(at.key("type").refuse("cannot be part of a tool's result")),
            })?;
        }
        if text.is_empty() && rest.count > images_before {
            text.extend_from_slice(b"(see the next message)");
        }
        let mut message = self.begin();
        message.text("role", "tool").string("tool_call_id", id);
        let out = message.key("content");
        out.push(b'"');
        out.append(&mut text);
        out.push(b'"');
        message.close();
        Ok(())
    }

    fn assistant(&mut self, content: Json<'_>, at: &At<'_>) -> Result<(), Refusal> {
        let mut text = Vec::new();
        let mut calls = Vec::new();
        for_each_block(content, at, |block, at| {
            match block {
                Block::Text(more) => text.extend_from_slice(more.raw().as_bytes()),
                Block::ToolUse { id, name, input } => {
                    if !calls.is_empty() {
                        calls.push(b',');
                    }
                    let mut call = Object::open(&mut calls);
                    call.string("id", id).text("type", "function");
                    let mut function = Object::open(call.key("function"));
                    function.string("name", name).text("arguments", input.raw());
                    function.close();
                    call.close();
                }
                // Thinking is signed for its own provider.
                Block::Thinking => {}
                Block::Image(_) | Block::Document(_) | Block::ToolResult { .. } => {
                    return Err(at.key("type").refuse("cannot be said by the assistant"));
                }
            }
            Ok(())
        })?;
        if text.is_empty() && calls.is_empty() {
            return Ok(());
        }
        let mut message = self.begin();
        message.text("role", "assistant");
        if text.is_empty() {
            message.raw("content", "null");
        } else {
            let out = message.key("content");
            out.push(b'"');
            out.append(&mut text);
            out.push(b'"');
        }
        if !calls.is_empty() {
            let out = message.key("tool_calls");
            out.push(b'[');
            out.append(&mut calls);
            out.push(b']');
        }
        message.close();
        self.last_is_assistant = true;
        Ok(())
    }
}

/// One block of a content.
enum Block<'a> {
    Text(Str<'a>),
    Image(Json<'a>),
    Document(Json<'a>),
    ToolUse {
        id: Str<'a>,
        name: Str<'a>,
        input: Json<'a>,
    },
    ToolResult {
        id: Str<'a>,
        content: Option<Json<'a>>,
        is_error: bool,
    },
    Thinking,
}

fn for_each_block<'a>(
    content: Json<'a>,
    at: &At<'_>,
    mut each: impl FnMut(Block<'a>, &At<'_>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    match content.kind() {
        Kind::String => each(Block::Text(content.str().unwrap_or_default()), at),
        Kind::Array => for_each_element(content, at, |block, at| each(read_block(block, at)?, at)),
        _ => Err(at.refuse("must be a string or an array")),
    }
}

fn read_block<'a>(block: Json<'a>, at: &At<'_>) -> Result<Block<'a>, Refusal> {
    let text = |name| required(block.get_str(name), at, name);
    let only = |known: &[&str]| only(block, known, at);
    match &*text("type")?.text() {
        "text" => {
            only(&["type", "text", "cache_control", "citations"])?;
            Ok(Block::Text(text("text")?))
        }
        "image" => {
            only(&["type", "source", "cache_control", "transformations"])?;
            Ok(Block::Image(required(block.get("source"), at, "source")?))
        }
        "document" => {
            only(&["type", "source", "title", "cache_control", "citations"])?;
            let enabled = block
                .get("citations")
                .and_then(|citations| citations.get("enabled"));
            if enabled.and_then(Json::bool) == Some(true) {
                return Err(at.key("citations").refuse(NO_EQUIVALENT));
            }
            Ok(Block::Document(block))
        }
        "tool_use" => {
            only(&["type", "id", "name", "input", "cache_control", "caller"])?;
            Ok(Block::ToolUse {
                id: text("id")?,
                name: text("name")?,
                input: required(block.get("input"), at, "input")?,
            })
        }
        "tool_result" => {
            only(&["type", "tool_use_id", "content", "is_error", "cache_control"])?;
            Ok(Block::ToolResult {
                id: text("tool_use_id")?,
                content: block.get("content"),
                is_error: block.get("is_error").and_then(Json::bool) == Some(true),
            })
        }
        "thinking" | "redacted_thinking" => Ok(Block::Thinking),
        _ => Err(at.key("type").refuse(NO_EQUIVALENT)),
    }
}

/// A user's content: a string if it is one text, else an array of parts.
#[derive(Default)]
struct Parts {
    out: Vec<u8>,
    /// The first part's text as it stands in `out`, if there is no other part.
    single: Option<std::ops::Range<usize>>,
    count: usize,
}

impl Parts {
    const fn is_empty(&self) -> bool {
        self.count == 0
    }

    fn part(&mut self, kind: &str) -> Object<'_> {
        if self.count > 0 {
            self.out.push(b',');
        }
        self.count += 1;
        self.single = None;
        let mut part = Object::open(&mut self.out);
        part.text("type", kind);
        part
    }

    fn text(&mut self, text: Str<'_>) {
        if text.is_empty() {
            return;
        }
        let mut part = self.part("text");
        quoted(text, part.key("text"));
        part.close();
        if self.count == 1 {
            let end = self.out.len() - 1;
            self.single = Some(end - text.raw().len() - 2..end);
        }
    }

    fn image(&mut self, source: Json<'_>, at: &At<'_>) -> Result<(), Refusal> {
        let at = at.key("source");
        let kind = required(source.get_str("type"), &at, "type")?;
        let mut part = self.part("image_url");
        let mut image = Object::open(part.key("image_url"));
        if kind.is("base64") {
            write_data_url(source, &at, image.key("url"))?;
        } else if kind.is("url") {
            image.string("url", required(source.get_str("url"), &at, "url")?);
        } else {
            return Err(at.key("type").refuse("must be base64 or url on this deployment"));
        }
        image.close();
        part.close();
        Ok(())
    }

    fn document(&mut self, document: Json<'_>, at: &At<'_>) -> Result<(), Refusal> {
        let source = required(document.get("source"), at, "source")?;
        let at = at.key("source");
        let kind = required(source.get_str("type"), &at, "type")?;
        if kind.is("text") {
            self.text(required(source.get_str("data"), &at, "data")?);
        } else if kind.is("base64") {
            let mut part = self.part("file");
            let mut file = Object::open(part.key("file"));
            match document.get_str("title") {
                Some(title) => file.string("filename", title),
                None => file.text("filename", "document.pdf"),
            };
            write_data_url(source, &at, file.key("file_data"))?;
            file.close();
            part.close();
        } else {
            return Err(at.key("type").refuse("must be base64 or text on this deployment"));
        }
        Ok(())
    }

    fn write(self, out: &mut Vec<u8>) {
        if let Some(text) = self.single.and_then(|range| self.out.get(range)) {
            out.extend_from_slice(text);
        } else {
            out.push(b'[');
            out.extend_from_slice(&self.out);
            out.push(b']');
        }
    }
}

fn write_data_url(source: Json<'_>, at: &At<'_>, out: &mut Vec<u8>) -> Result<(), Refusal> {
    let media_type = required(source.get_str("media_type"), at, "media_type")?;
    let data = required(source.get_str("data"), at, "data")?;
    out.extend_from_slice(b"\"data:");
    escape(&media_type.text(), out);
    out.extend_from_slice(b";base64,");
    out.extend_from_slice(data.raw().as_bytes());
    out.push(b'"');
    Ok(())
}
