//! Reads the messages of a chat: roles, parts of contents, tool calls.

use std::borrow::Cow;

use crate::json::{Json, Kind, Str};
use crate::refusal::{At, Refusal};
use crate::request::{for_each_element, for_each_member, only, required, string, unknown};

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// `system` and `developer`.
    System,
    User,
    Assistant,
    Tool,
}

/// One message.
#[derive(Clone, Copy)]
pub(crate) struct Message<'a> {
    pub(crate) role: Role,
    /// A string or an array of parts.
    pub(crate) content: Option<Json<'a>>,
    pub(crate) refusal: Option<Str<'a>>,
    pub(crate) tool_calls: Option<Json<'a>>,
    pub(crate) tool_call_id: Option<Str<'a>>,
}

/// One part of a content.
#[derive(Clone, Copy)]
pub(crate) enum Part<'a> {
    Text {
        text: Str<'a>,
        cache_control: Option<Json<'a>>,
    },
    Image {
        url: Str<'a>,
        cache_control: Option<Json<'a>>,
    },
    Audio {
        data: Str<'a>,
        format: Str<'a>,
    },
    File {
        name: Option<Str<'a>>,
        data: Str<'a>,
    },
}

/// One call of a function.
#[derive(Clone, Copy)]
pub(crate) struct Call<'a> {
    pub(crate) id: Str<'a>,
    pub(crate) name: Str<'a>,
    pub(crate) arguments: Str<'a>,
    /// Gemini's thought signature, where Google's OpenAI-compatible endpoint and our own answers put it.
    pub(crate) signature: Option<Str<'a>>,
}

pub(crate) fn for_each_message<'a>(
    messages: Json<'a>,
    mut each: impl FnMut(&Message<'a>, &At<'_>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    for_each_element(messages, &At::ROOT.key("messages"), |json, at| {
        let mut role = None;
        let mut message = Message {
            role: Role::User,
            content: None,
            refusal: None,
            tool_calls: None,
            tool_call_id: None,
        };
        for_each_member(json, at, |key, value, at| {
            match key {
                "role" => {
                    role = Some(match &*string(value, at)?.text() {
                        "system" | "developer" => Role::System,
                        "user" => Role::User,
                        "assistant" => Role::Assistant,
                        "tool" => Role::Tool,
                        _ => return Err(at.refuse("must be system, developer, user, assistant or tool")),
                    });
                }
                "content" => message.content = Some(value),
                "refusal" => message.refusal = Some(string(value, at)?),
                "tool_calls" => message.tool_calls = Some(value),
                "tool_call_id" => message.tool_call_id = Some(string(value, at)?),
                // Reasoning of earlier turns cannot be given back: the other protocols want it signed. The rest is what
                // clients keep of an answer.
                "name" | "reasoning_content" | "reasoning" | "reasoning_details" | "annotations"
                | "extra_content" => {}
                "audio" => return Err(at.refuse("audio cannot be translated")),
                "function_call" => return Err(at.refuse("is deprecated and not translated: use tool_calls")),
                _ => return Err(unknown(at)),
            }
            Ok(())
        })?;
        message.role = required(role, at, "role")?;
        each(&message, at)
    })
}

/// Calls `each` for every part of a content; a string is one part. `at` is the content's place.
pub(crate) fn for_each_part<'a>(
    content: Json<'a>,
    at: &At<'_>,
    mut each: impl FnMut(Part<'a>, &At<'_>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    match content.kind() {
        Kind::String => each(
            Part::Text {
                text: content.str().unwrap_or_default(),
                cache_control: None,
            },
            at,
        ),
        Kind::Array => for_each_element(content, at, |part, at| each(read_part(part, at)?, at)),
        _ => Err(at.refuse("must be a string or an array")),
    }
}

fn read_part<'a>(part: Json<'a>, at: &At<'_>) -> Result<Part<'a>, Refusal> {
    let [kind, text, refusal, image, audio, file, cache_control] = part.pick([
        "type",
        "text",
        "refusal",
        "image_url",
        "input_audio",
        "file",
        "cache_control",
    ]);
    let kind = required(kind.and_then(Json::str), at, "type")?.text();
    let (own, value) = match &*kind {
        "text" => ("text", text),
        "refusal" => ("refusal", refusal),
        "image_url" => ("image_url", image),
        "input_audio" => ("input_audio", audio),
        "file" => ("file", file),
        _ => {
            return Err(at
                .key("type")
                .refuse("has no equivalent in this deployment's protocol"));
        }
    };
    // Besides its own member each kind may carry marks for prompt caches.
    only(
        part,
        &["type", own, "cache_control", "prompt_cache_breakpoint"],
        at,
    )?;
    let value = required(value, at, own)?;
    let at = at.key(own);
    match own {
        "text" => Ok(Part::Text {
            text: string(value, &at)?,
            cache_control,
        }),
        // What the model has refused is said again as the text that it is.
        "refusal" => Ok(Part::Text {
            text: string(value, &at)?,
            cache_control: None,
        }),
        "image_url" => {
            only(value, &["url", "detail"], &at)?;
            Ok(Part::Image {
                url: required(value.get_str("url"), &at, "url")?,
                cache_control,
            })
        }
        "input_audio" => {
            let [data, format] = value
                .pick(["data", "format"])
                .map(|found| found.and_then(Json::str));
            Ok(Part::Audio {
                data: required(data, &at, "data")?,
                format: required(format, &at, "format")?,
            })
        }
        _ => {
            only(value, &["file_id", "filename", "file_data"], &at)?;
            if value.get("file_id").is_some() {
                return Err(at
                    .key("file_id")
                    .refuse("files kept at another provider cannot be read"));
            }
            let data = required(value.get_str("file_data"), &at, "file_data")?;
            Ok(Part::File {
                name: value.get_str("filename"),
                data,
            })
        }
    }
}

pub(crate) fn for_each_call<'a>(
    calls: Json<'a>,
    at: &At<'_>,
    mut each: impl FnMut(&Call<'a>, &At<'_>) -> Result<(), Refusal>,
) -> Result<(), Refusal> {
    for_each_element(calls, &at.key("tool_calls"), |call, at| {
        if call.get_str("type").is_some_and(|kind| !kind.is("function")) {
            return Err(at.key("type").refuse("only calls of functions can be translated"));
        }
        let function = required(call.get("function"), at, "function")?;
        let signature = call.get("extra_content").and_then(|extra| extra.get("google"));
        let found = Call {
            id: required(call.get_str("id"), at, "id")?,
            name: required(function.get_str("name"), &at.key("function"), "name")?,
            arguments: function.get_str("arguments").unwrap_or_default(),
            signature: signature.and_then(|google| google.get_str("thought_signature")),
        };
        each(&found, at)
    })
}

/// A call's arguments as the text of the JSON object that they have to be; `at` is the call's place.
pub(crate) fn arguments_object<'a>(arguments: Str<'a>, at: &At<'_>) -> Result<Cow<'a, str>, Refusal> {
    let text = arguments.text();
    if text.trim().is_empty() {
        return Ok(Cow::Borrowed("{}"));
    }
    match Json::parse(text.as_bytes()) {
        Ok(json) if json.kind() == Kind::Object => Ok(text),
        _ => {
            let function = at.key("function");
            Err(function
                .key("arguments")
                .refuse("must be a JSON object, written as a string"))
        }
    }
}

/// The parts of a `data:` URL with base64 data (RFC 2397).
pub(crate) struct DataUrl<'u> {
    pub(crate) media_type: &'u str,
    pub(crate) data: &'u str,
}

impl<'u> DataUrl<'u> {
    /// `None` if it is no `data:` URL, or its data is not base64.
    pub(crate) fn parse(url: &'u str) -> Option<Self> {
        let scheme = url.get(..5)?;
        let (head, data) = url.get(5..)?.split_once(',')?;
        let head = head
            .strip_suffix(";base64")
            .filter(|_| scheme.eq_ignore_ascii_case("data:"))?;
        let media_type = head.split(';').next().unwrap_or_default();
        let media_type = match media_type {
            "image/jpg" => "image/jpeg",
            other => other,
        };
        Some(Self { media_type, data })
    }
}
