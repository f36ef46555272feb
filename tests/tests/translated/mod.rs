//! The protocols as these tests speak them: requests, answers, deployments.

#![allow(dead_code, reason = "each test file uses its part")]

use serde_json::{Value, json};
use tollgate_tests::http::{Request, Response};
use tollgate_tests::mock::{MockLlm, Record};

/// What a client or a deployment speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    OpenAi,
    Anthropic,
    Gemini,
}

/// A client's protocol and a deployment's.
#[derive(Clone, Copy, Debug)]
pub struct Pair {
    pub client: Protocol,
    pub upstream: Protocol,
}

pub const PAIRS: [Pair; 4] = [
    Pair {
        client: Protocol::OpenAi,
        upstream: Protocol::Anthropic,
    },
    Pair {
        client: Protocol::OpenAi,
        upstream: Protocol::Gemini,
    },
    Pair {
        client: Protocol::Anthropic,
        upstream: Protocol::OpenAi,
    },
    Pair {
        client: Protocol::Anthropic,
        upstream: Protocol::Gemini,
    },
];

/// The smallest PNG there is.
const PNG: &str =
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAQAAAC1HAwCAAAAC0lEQVR42mNk+A8AAQUBAScY42YAAAAASUVORK5CYII=";

impl Protocol {
    pub fn name(self) -> &'static str {
        match self {
            Self::OpenAi => "openai",
            Self::Anthropic => "anthropic",
            Self::Gemini => "gemini",
        }
    }

    pub fn is_anthropic(self) -> bool {
        self == Self::Anthropic
    }

    /// A name of a model that takes what these tests send.
    fn model(self) -> &'static str {
        match self {
            Self::OpenAi => "gpt-4o",
            Self::Anthropic => "claude-sonnet-4-5",
            Self::Gemini => "gemini-2.5-flash",
        }
    }

    fn post(self, body: &Value) -> Request {
        match self {
            Self::Anthropic => Request::post("/v1/messages", body)
                .header("anthropic-version", "2023-06-01")
                .header("anthropic-beta", "some-beta"),
            _ => Request::post("/v1/chat/completions", body).header("openai-organization", "org-1"),
        }
        .channel("c")
    }

    pub fn request(self, model: &str, max_tokens: u64, stream: bool) -> Request {
        let messages = json!([{ "role": "user", "content": " hello the water" }]);
        let mut body =
            json!({ "model": model, "max_tokens": max_tokens, "messages": messages, "stream": stream });
        if stream && !self.is_anthropic() {
            body["stream_options"] = json!({ "include_usage": true });
        }
        self.post(&body)
    }

    pub fn with_tool_and_image(self, model: &str, stream: bool) -> Request {
        let schema = json!({ "type": "object", "properties": { "city": { "type": "string" },
            "days": { "type": "integer" } }, "required": ["city"] });
        let (tool, image) = match self {
            Self::Anthropic => (
                json!({ "name": "weather", "description": "d", "input_schema": schema }),
                json!({ "type": "image", "source": { "type": "base64", "media_type": "image/png", "data": PNG } }),
            ),
            _ => (
                json!({ "type": "function",
                    "function": { "name": "weather", "description": "d", "parameters": schema } }),
                json!({ "type": "image_url", "image_url": { "url": format!("data:image/png;base64,{PNG}") } }),
            ),
        };
        let content = json!([{ "type": "text", "text": " hello" }, image]);
        self.post(
            &json!({ "model": model, "max_tokens": 50, "stream": stream, "tools": [tool],
            "messages": [{ "role": "user", "content": content }] }),
        )
    }

    pub fn stop(self) -> &'static str {
        if self.is_anthropic() { "end_turn" } else { "stop" }
    }

    pub fn tool_stop(self) -> &'static str {
        if self.is_anthropic() {
            "tool_use"
        } else {
            "tool_calls"
        }
    }

    pub fn cut(self) -> &'static str {
        if self.is_anthropic() {
            "max_tokens"
        } else {
            "length"
        }
    }

    /// The output maximum of a request body.
    pub fn max_tokens(self, body: &Value) -> u64 {
        match self {
            Self::Gemini => &body["generationConfig"]["maxOutputTokens"],
            _ => &body["max_tokens"],
        }
        .as_u64()
        .unwrap_or_else(|| panic!("no maximum in {body}"))
    }

    pub fn has_image(self, body: &Value) -> bool {
        let text = body.to_string();
        let kind = match self {
            Self::OpenAi => "image_url",
            Self::Anthropic => "\"type\":\"image\"",
            Self::Gemini => "inlineData",
        };
        text.contains(kind) && text.contains(PNG)
    }
}

/// A mock behind a provider of one protocol, with a key of its own.
pub struct Party {
    pub id: &'static str,
    pub protocol: Protocol,
    pub mock: MockLlm,
}

impl Party {
    pub async fn start(id: &'static str, protocol: Protocol) -> Self {
        Self {
            id,
            protocol,
            mock: MockLlm::start().await,
        }
    }

    pub fn key(&self) -> String {
        format!("sk-of-{}-0123456789", self.id)
    }

    pub fn provider(&self) -> Value {
        let credentials = match self.protocol {
            Protocol::OpenAi => json!({ "type": "bearer", "key": self.key() }),
            Protocol::Anthropic => json!({ "type": "x_api_key", "key": self.key() }),
            Protocol::Gemini => json!({ "type": "header", "name": "x-goog-api-key", "key": self.key() }),
        };
        json!({ "id": self.id, "protocol": self.protocol.name(), "base_url": self.mock.url(),
            "credentials": credentials })
    }

    pub fn deployment(&self, weight: u64, options: &str) -> Value {
        json!({ "id": self.id, "provider": self.id, "weight": weight,
            "upstream_model": self.upstream_model(options) })
    }

    fn upstream_model(&self, options: &str) -> String {
        format!("{}?{options}", self.protocol.model())
    }

    /// The request is one of this party's protocol and has nothing of any other.
    pub fn assert_own(&self, record: &Record, options: &str, stream: bool) {
        let model = self.upstream_model(options);
        let body = record.json().unwrap();
        let (path, in_body) = match self.protocol {
            Protocol::OpenAi => ("/v1/chat/completions".to_owned(), Some(&*model)),
            Protocol::Anthropic => ("/v1/messages".to_owned(), Some(&*model)),
            Protocol::Gemini => {
                let method = if stream {
                    "streamGenerateContent?alt=sse"
                } else {
                    "generateContent"
                };
                let encoded = model.replace('?', "%3F").replace('=', "%3D").replace('&', "%26");
                (format!("/v1beta/models/{encoded}:{method}"), None)
            }
        };
        assert_eq!(record.target, path);
        assert_eq!(body.get("model").and_then(Value::as_str), in_body, "{body}");
        let bearer = format!("Bearer {}", self.key());
        for (header, of, value) in [
            ("authorization", Protocol::OpenAi, &*bearer),
            ("x-api-key", Protocol::Anthropic, &*self.key()),
            ("x-goog-api-key", Protocol::Gemini, &*self.key()),
            ("anthropic-version", Protocol::Anthropic, "2023-06-01"),
        ] {
            let expected = (of == self.protocol).then_some(value);
            assert_eq!(record.header(header), expected, "{header} of {record:?}");
        }
        let length = record.body.len().to_string();
        assert_eq!(record.header("content-length"), Some(&*length));
        assert_eq!(record.header("channelcode"), None);
        let (openai, anthropic) = (
            record.header("openai-organization"),
            record.header("anthropic-beta"),
        );
        match self.protocol {
            Protocol::OpenAi => assert_eq!(anthropic, None),
            Protocol::Anthropic => assert_eq!(openai, None),
            Protocol::Gemini => assert_eq!((openai, anthropic), (None, None)),
        }
    }
}

/// What a client makes of an answer.
#[derive(Debug, Default)]
pub struct Answer {
    pub text: String,
    pub finish: String,
    pub tool: Option<(String, Value)>,
    pub usage: Option<(u64, u64)>,
}

/// Reads a success as the client's library would.
pub fn read(client: Protocol, stream: bool, answer: &Response) -> Answer {
    assert_eq!(answer.status(), 200, "{}", answer.text());
    match (client.is_anthropic(), stream) {
        (false, false) => chat(&answer.json()),
        (false, true) => chat_stream(answer),
        (true, false) => message(&answer.json()),
        (true, true) => message_stream(answer),
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn usage(value: &Value, names: [&str; 2]) -> Option<(u64, u64)> {
    Some((value[names[0]].as_u64()?, value[names[1]].as_u64()?))
}

const CHAT_USAGE: [&str; 2] = ["prompt_tokens", "completion_tokens"];
const MESSAGE_USAGE: [&str; 2] = ["input_tokens", "output_tokens"];

fn arguments(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error} in {text:?}"))
}

fn chat(body: &Value) -> Answer {
    assert_eq!(body["object"], "chat.completion");
    let choice = &body["choices"][0];
    let call = &choice["message"]["tool_calls"][0]["function"];
    Answer {
        text: text(&choice["message"]["content"]),
        finish: text(&choice["finish_reason"]),
        tool: call["name"]
            .as_str()
            .map(|name| (name.to_owned(), arguments(&text(&call["arguments"])))),
        usage: usage(&body["usage"], CHAT_USAGE),
    }
}

fn chat_stream(answer: &Response) -> Answer {
    let events = answer.events();
    assert!(
        events.last().is_some_and(|event| event.is_done()),
        "{}",
        answer.text()
    );
    let mut read = Answer::default();
    let mut call = (String::new(), String::new());
    for event in events.iter().filter(|event| !event.is_done()) {
        let chunk = event.json();
        assert_eq!(chunk["object"], "chat.completion.chunk", "{}", answer.text());
        let choice = &chunk["choices"][0];
        read.text += &text(&choice["delta"]["content"]);
        read.finish += &text(&choice["finish_reason"]);
        let function = &choice["delta"]["tool_calls"][0]["function"];
        call.0 += &text(&function["name"]);
        call.1 += &text(&function["arguments"]);
        read.usage = read.usage.or(usage(&chunk["usage"], CHAT_USAGE));
    }
    read.tool = (!call.0.is_empty()).then(|| (call.0, arguments(&call.1)));
    read
}

fn message(body: &Value) -> Answer {
    assert_eq!(body["type"], "message");
    let blocks = body["content"].as_array().expect("a content");
    let tool = blocks.iter().find(|block| block["type"] == "tool_use");
    Answer {
        text: blocks.iter().map(|block| text(&block["text"])).collect(),
        finish: text(&body["stop_reason"]),
        tool: tool.map(|block| (text(&block["name"]), block["input"].clone())),
        usage: usage(&body["usage"], MESSAGE_USAGE),
    }
}

fn message_stream(answer: &Response) -> Answer {
    let events = answer.events();
    let mut read = Answer::default();
    let mut call = (String::new(), String::new());
    for event in &events {
        let value = event.json();
        assert_eq!(event.name.as_deref(), value["type"].as_str());
        call.0 += &text(&value["content_block"]["name"]);
        read.text += &text(&value["delta"]["text"]);
        call.1 += &text(&value["delta"]["partial_json"]);
        read.finish += &text(&value["delta"]["stop_reason"]);
        if value["type"] == "message_delta" {
            read.usage = usage(&value["usage"], MESSAGE_USAGE);
        }
    }
    assert_eq!(
        events.last().map(|event| event.json()["type"].clone()),
        Some("message_stop".into()),
        "{}",
        answer.text()
    );
    read.tool = (!call.0.is_empty()).then(|| (call.0, arguments(&call.1)));
    read
}
