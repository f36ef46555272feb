//! Reads a request of Anthropic's messages: the fields that another protocol may have, checked; its messages and tools
//! are read by those who write them.

use crate::json::{Json, Kind, Str};
use crate::refusal::{At, Refusal};
use crate::request::{boolean, count, for_each_element, for_each_member, number, required, string, unknown};

pub(crate) const NO_EQUIVALENT: &str = "has no equivalent in this deployment's protocol";

/// What the client says about thinking.
#[derive(Clone, Copy)]
pub(crate) enum Thought {
    Off,
    Budget(u64),
    Adaptive,
}

/// A request, its messages and tools still unread.
#[derive(Default)]
pub(crate) struct Request<'a> {
    pub(crate) messages: Option<Json<'a>>,
    pub(crate) system: Option<Json<'a>>,
    pub(crate) max_tokens: Option<u64>,
    pub(crate) temperature: Option<Json<'a>>,
    pub(crate) top_p: Option<Json<'a>>,
    pub(crate) top_k: Option<Json<'a>>,
    pub(crate) stop_sequences: Option<Json<'a>>,
    pub(crate) stream: bool,
    pub(crate) tools: Option<Json<'a>>,
    pub(crate) tool_choice: Option<Json<'a>>,
    pub(crate) user: Option<Str<'a>>,
    pub(crate) thinking: Option<Thought>,
    pub(crate) effort: Option<&'static str>,
    pub(crate) schema: Option<Json<'a>>,
}

impl<'a> Request<'a> {
    pub(crate) fn read(body: Json<'a>) -> Result<Self, Refusal> {
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
                "top_k" => request.top_k = Some(number(value, at)?),
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
                "container" | "mcp_servers" | "inference_geo" => {
                    return Err(at.refuse(NO_EQUIVALENT));
                }
                _ => return Err(unknown(at)),
            }
            Ok(())
        })?;
        Ok(request)
    }

    /// Whether the client wants to see thinking.
    pub(crate) const fn thinks(&self) -> bool {
        matches!(self.thinking, Some(Thought::Adaptive | Thought::Budget(_)))
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

/// Which tools may or must be called.
pub(crate) struct ToolChoice<'a> {
    /// `auto`, `any`, `tool` or `none`.
    pub(crate) kind: &'static str,
    /// Of `tool`.
    pub(crate) name: Option<Str<'a>>,
    /// Whether several calls may come at once.
    pub(crate) parallel: bool,
}

impl<'a> ToolChoice<'a> {
    pub(crate) fn read(choice: Json<'a>, at: &At<'_>) -> Result<Self, Refusal> {
        let kind = match &*required(choice.get_str("type"), at, "type")?.text() {
            "auto" => "auto",
            "none" => "none",
            "any" => "any",
            "tool" => "tool",
            _ => return Err(at.key("type").refuse("must be auto, any, tool or none")),
        };
        let name = if kind == "tool" {
            Some(required(choice.get_str("name"), at, "name")?)
        } else {
            None
        };
        let single = choice.get("disable_parallel_tool_use").and_then(Json::bool) == Some(true);
        Ok(Self {
            kind,
            name,
            parallel: !single || kind == "none",
        })
    }
}

/// A tool that the client runs.
pub(crate) struct Tool<'a> {
    pub(crate) name: Str<'a>,
    pub(crate) description: Option<Str<'a>>,
    pub(crate) schema: Json<'a>,
    pub(crate) strict: bool,
}

pub(crate) fn for_each_tool<'a>(
    tools: Json<'a>,
    mut each: impl FnMut(&Tool<'a>, &At<'_>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
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
        let tool = Tool {
            name: required(name, at, "name")?,
            description,
            schema: required(schema, at, "input_schema")?,
            strict,
        };
        each(&tool, at)
    })
}
