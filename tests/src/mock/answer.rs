//! The bytes of an answer, and how many tokens stand in each piece of it.

use super::ask::{Api, Ask};
use super::behaviour::UsageReport;
use super::stream::Stream;
use super::words;
use serde_json::{Value, json};
use std::fmt::Write as _;

/// A part of the body that is sent, delayed and counted as a whole: one event of a stream, or the plain body.
#[derive(Clone, Debug)]
pub struct Piece {
    /// The bytes before compression, cutting and framing.
    pub bytes: Vec<u8>,
    /// Completion tokens in it.
    pub tokens: u64,
    /// Usage reported in it: input and output tokens.
    pub reported: Option<(u64, u64)>,
}

/// The whole answer.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Status code.
    pub status: u16,
    /// `Content-Type`
    pub content_type: &'static str,
    /// Further header lines, each with its line end.
    pub headers: String,
    /// The body.
    pub pieces: Vec<Piece>,
    /// Repeated without end after the first text event (`endless=yes`): its index among the pieces.
    pub repeat: Option<usize>,
}

/// Members are written as real endpoints order them: these first, the others by name, `usage` last.
const FIRST: &[&str] = &[
    "type",
    "id",
    "object",
    "created",
    "created_at",
    "model",
    "index",
    "role",
];

pub(super) fn render(value: &Value) -> String {
    let mut out = String::new();
    render_into(value, &mut out);
    out
}

fn render_into(value: &Value, out: &mut String) {
    match value {
        Value::Object(members) => {
            let rank = |key: &str| match key {
                "usage" => FIRST.len() + 1,
                _ => FIRST
                    .iter()
                    .position(|first| *first == key)
                    .unwrap_or(FIRST.len()),
            };
            let mut keys: Vec<&String> = members.keys().collect();
            keys.sort_by_key(|key| rank(key));
            for (position, key) in keys.into_iter().enumerate() {
                out.push(if position == 0 { '{' } else { ',' });
                let _ = write!(out, "{}:", Value::from(key.as_str()));
                render_into(&members[key], out);
            }
            out.push_str(if members.is_empty() { "{}" } else { "}" });
        }
        Value::Array(list) => {
            out.push('[');
            for (position, item) in list.iter().enumerate() {
                if position > 0 {
                    out.push(',');
                }
                render_into(item, out);
            }
            out.push(']');
        }
        other => {
            let _ = write!(out, "{other}");
        }
    }
}

pub(super) const ID: &str = "mock-0123456789abcdef";

pub(super) fn now() -> u64 {
    std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .map_or(0, |elapsed| elapsed.as_secs())
}

/// An error in the shape of the API.
pub fn error(api: Option<Api>, status: u16, message: &str) -> Answer {
    let kind = match status {
        401 => "authentication_error",
        429 => "rate_limit_error",
        400..500 => "invalid_request_error",
        _ => "api_error",
    };
    let body = if api == Some(Api::Gemini) {
        json!({ "error": { "code": status, "message": message, "status": "UNAVAILABLE" } })
    } else if api.is_some_and(Api::is_anthropic) {
        json!({ "type": "error", "error": { "type": kind, "message": message } })
    } else {
        json!({ "error": { "message": message, "type": kind, "param": null, "code": null } })
    };
    plain(status, &body, 0, None)
}

fn plain(status: u16, body: &Value, tokens: u64, reported: Option<(u64, u64)>) -> Answer {
    Answer {
        status,
        content_type: "application/json",
        headers: String::new(),
        pieces: vec![Piece {
            bytes: render(body).into_bytes(),
            tokens,
            reported,
        }],
        repeat: None,
    }
}

/// The answer to a request.
pub fn answer(ask: &Ask) -> Answer {
    let behaviour = &ask.behaviour;
    if behaviour.status != 200 {
        let mut answer = error(Some(ask.api), behaviour.status, "the mock was asked to fail");
        if let (Some(body), Some(piece)) = (&behaviour.body, answer.pieces.first_mut()) {
            piece.bytes = body.clone().into_bytes();
        }
        if let Some(seconds) = behaviour.retry_after {
            answer.headers = format!("Retry-After: {seconds}\r\n");
        }
        return answer;
    }
    match (ask.api, ask.stream) {
        (Api::Models, _) => plain(200, &models(), 0, None),
        (Api::CountTokens, _) => plain(200, &json!({ "input_tokens": ask.prompt_tokens }), 0, None),
        (Api::Embeddings, _) => embeddings(ask),
        (_, false) => completion(ask),
        (_, true) => Stream::new(ask).answer(),
    }
}

fn models() -> Value {
    json!({ "object": "list", "data": [{ "id": "mock", "object": "model", "created": 0, "owned_by": "tollgate" }] })
}

fn embeddings(ask: &Ask) -> Answer {
    let data: Vec<Value> = (0..ask.inputs)
        .map(|index| json!({ "object": "embedding", "index": index, "embedding": [0.25, -0.5, 0.75, 0.125] }))
        .collect();
    let mut body = json!({ "object": "list", "data": data, "model": ask.model });
    let reported = report(ask, ask.prompt_tokens, 0);
    if let Some((input, _)) = reported {
        body["usage"] = json!({ "prompt_tokens": input, "total_tokens": input });
    } else if ask.behaviour.usage == UsageReport::Null {
        body["usage"] = Value::Null;
    }
    plain(200, &body, 0, reported)
}

/// The numbers that are reported, if any are.
pub(super) fn report(ask: &Ask, input: u64, output: u64) -> Option<(u64, u64)> {
    match ask.behaviour.usage {
        UsageReport::No | UsageReport::Null => None,
        UsageReport::Yes | UsageReport::Always => Some((input, output)),
        UsageReport::Lie(factor) => {
            // Saturates: a float beyond the range becomes the nearest number.
            let lie = |truth: u64| (truth as f64 * factor).round() as u64;
            Some((lie(input), lie(output)))
        }
    }
}

/// The `usage` member in the API's spelling; `None`: leave it out.
pub(super) fn usage_value(ask: &Ask, reported: Option<(u64, u64)>) -> Option<Value> {
    let Some((input, output)) = reported else {
        return (ask.behaviour.usage == UsageReport::Null).then_some(Value::Null);
    };
    let total = input.saturating_add(output);
    Some(match ask.api {
        Api::Messages => {
            json!({ "input_tokens": input, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
            "output_tokens": output })
        }
        Api::Gemini => {
            json!({ "promptTokenCount": input, "candidatesTokenCount": output, "totalTokenCount": total })
        }
        Api::Responses => json!({ "input_tokens": input, "input_tokens_details": { "cached_tokens": 0 },
            "output_tokens": output, "output_tokens_details": { "reasoning_tokens": 0 }, "total_tokens": total }),
        _ => json!({ "prompt_tokens": input, "completion_tokens": output, "total_tokens": total }),
    })
}

pub(super) fn with_usage(mut body: Value, ask: &Ask, reported: Option<(u64, u64)>) -> Value {
    if let Some(usage) = usage_value(ask, reported) {
        body[if ask.api == Api::Gemini {
            "usageMetadata"
        } else {
            "usage"
        }] = usage;
    }
    body
}

pub(super) fn response_object(ask: &Ask, status: &str, cut: bool, text: Option<&str>) -> Value {
    let output = text.map_or_else(|| json!([]), |text| json!([message_item(text, "completed")]));
    json!({
        "id": format!("resp_{ID}"), "object": "response", "created_at": now(), "status": status, "error": null,
        "incomplete_details": if cut { json!({ "reason": "max_output_tokens" }) } else { Value::Null },
        "instructions": null, "metadata": {}, "model": ask.model, "output": output, "parallel_tool_calls": true,
        "temperature": 1.0, "tool_choice": "auto", "tools": [], "top_p": 1.0, "usage": null,
    })
}

pub(super) fn message_item(text: &str, status: &str) -> Value {
    json!({ "id": format!("msg_{ID}"), "type": "message", "status": status, "role": "assistant",
        "content": [{ "type": "output_text", "text": text, "annotations": [] }] })
}

pub(super) const TOOL_ID: &str = "call_mock_1";

/// The tool that the answer calls.
pub(super) fn called_tool(ask: &Ask) -> Option<&str> {
    ask.tool.as_deref().filter(|_| ask.behaviour.tool)
}

pub(super) fn tool_arguments() -> Value {
    json!({ "city": "Paris", "days": 2 })
}

/// A `GenerateContentResponse` without usage.
pub(super) fn gemini(ask: &Ask, parts: &Value, finish: Option<&str>) -> Value {
    let mut candidate = json!({ "content": { "role": "model", "parts": parts }, "index": 0 });
    if let Some(finish) = finish {
        candidate["finishReason"] = finish.into();
    }
    json!({ "candidates": [candidate], "modelVersion": ask.model, "responseId": ID })
}

fn completion(ask: &Ask) -> Answer {
    let (tokens, cut) = ask.completion();
    let choices = if matches!(ask.api, Api::Messages | Api::Responses | Api::Gemini) {
        1
    } else {
        ask.choices
    };
    let text = words::text(0, tokens);
    let finish = if cut { "length" } else { "stop" };
    let produced = tokens.saturating_mul(choices);
    let reported = report(ask, ask.prompt_tokens, produced);
    let tool = called_tool(ask);
    let body = match ask.api {
        Api::Messages => {
            let mut content = vec![json!({ "type": "text", "text": text })];
            content.extend(tool.map(
                |name| json!({ "type": "tool_use", "id": TOOL_ID, "name": name, "input": tool_arguments() }),
            ));
            let stop = match (tool, cut) {
                (Some(_), _) => "tool_use",
                (None, true) => "max_tokens",
                (None, false) => "end_turn",
            };
            json!({ "id": format!("msg_{ID}"), "type": "message", "role": "assistant", "model": ask.model,
            "content": content, "stop_sequence": null, "stop_reason": stop })
        }
        Api::Gemini => {
            let mut parts = vec![json!({ "text": text })];
            parts.extend(
                tool.map(|name| json!({ "functionCall": { "name": name, "args": tool_arguments() } })),
            );
            gemini(ask, &json!(parts), Some(if cut { "MAX_TOKENS" } else { "STOP" }))
        }
        Api::Responses => response_object(
            ask,
            if cut { "incomplete" } else { "completed" },
            cut,
            Some(&text),
        ),
        Api::Completions => {
            json!({ "id": format!("cmpl-{ID}"), "object": "text_completion", "created": now(),
            "model": ask.model, "choices": (0..choices).map(|index| json!({ "index": index, "text": text,
                "logprobs": null, "finish_reason": finish })).collect::<Vec<_>>() })
        }
        _ => {
            let mut message = json!({ "role": "assistant", "content": text, "refusal": null });
            if let Some(name) = tool {
                message["tool_calls"] = json!([{ "id": TOOL_ID, "type": "function",
                    "function": { "name": name, "arguments": tool_arguments().to_string() } }]);
            }
            let finish = if tool.is_some() { "tool_calls" } else { finish };
            json!({ "id": format!("chatcmpl-{ID}"), "object": "chat.completion", "created": now(), "model": ask.model,
            "choices": (0..choices).map(|index| json!({ "index": index, "logprobs": null, "finish_reason": finish,
                "message": message })).collect::<Vec<_>>() })
        }
    };
    plain(200, &with_usage(body, ask, reported), produced, reported)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer_to(path: &str, body: &Value) -> Answer {
        answer(&Ask::read(path, None, body.to_string().as_bytes(), 16).unwrap())
    }

    fn streamed_text(answer: &Answer, pointer: &str) -> String {
        answer
            .pieces
            .iter()
            .filter_map(|piece| {
                let event = std::str::from_utf8(&piece.bytes).unwrap();
                let data = event.lines().find_map(|line| line.strip_prefix("data: "))?;
                let value: Value = serde_json::from_str(data).ok()?;
                value.pointer(pointer)?.as_str().map(str::to_owned)
            })
            .collect()
    }

    #[test]
    fn a_stream_says_what_the_plain_answer_says() {
        for (path, plain_at, delta_at) in [
            (
                "/v1/chat/completions",
                "/choices/0/message/content",
                "/choices/0/delta/content",
            ),
            ("/v1/completions", "/choices/0/text", "/choices/0/text"),
            ("/v1/messages", "/content/0/text", "/delta/text"),
            ("/v1/responses", "/output/0/content/0/text", "/delta"),
        ] {
            for chunks in [1, 3, 50] {
                let model = format!("mock?tokens=20&chunks={chunks}");
                let body =
                    json!({ "model": model, "max_tokens": 13, "stream_options": { "include_usage": true } });
                let plain = answer_to(path, &body);
                let mut streaming = body.clone();
                streaming["stream"] = json!(true);
                let stream = answer_to(path, &streaming);
                let whole: Value = serde_json::from_slice(&plain.pieces[0].bytes).unwrap();
                let text = whole.pointer(plain_at).unwrap().as_str().unwrap();
                assert_eq!(words::count(text), 13, "{path}");
                assert_eq!(
                    streamed_text(&stream, delta_at),
                    text,
                    "{path} in {chunks} events"
                );
                assert_eq!(plain.pieces[0].tokens, 13);
                assert_eq!(stream.pieces.iter().map(|piece| piece.tokens).sum::<u64>(), 13);
                let told: Vec<_> = stream.pieces.iter().filter_map(|piece| piece.reported).collect();
                assert_eq!(told, [plain.pieces[0].reported.unwrap()], "{path}");
            }
        }
    }

    #[test]
    fn members_stand_in_the_usual_order() {
        let value =
            json!({ "usage": { "a": [] }, "choices": [1, {}], "model": "m\"", "id": "x", "zeta": null });
        let text = render(&value);
        assert_eq!(
            text,
            r#"{"id":"x","model":"m\"","choices":[1,{}],"zeta":null,"usage":{"a":[]}}"#
        );
        assert_eq!(serde_json::from_str::<Value>(&text).unwrap(), value);
    }

    #[test]
    fn every_choice_counts() {
        let body = json!({ "model": "mock?tokens=5", "n": 3, "stream": true });
        let stream = answer_to("/v1/chat/completions", &body);
        assert_eq!(stream.pieces.iter().map(|piece| piece.tokens).sum::<u64>(), 15);
        // Usage was not asked for.
        assert!(stream.pieces.iter().all(|piece| piece.reported.is_none()));
    }

    #[test]
    fn usage_can_lie_or_be_missing() {
        for (option, told) in [("lie:2.5", Some((25, 10))), ("no", None), ("null", None)] {
            let model = format!("mock?tokens=4&prompt_tokens=10&usage={option}");
            let answer = answer_to("/v1/chat/completions", &json!({ "model": model }));
            assert_eq!(answer.pieces[0].reported, told);
            let body: Value = serde_json::from_slice(&answer.pieces[0].bytes).unwrap();
            assert_eq!(body.get("usage").is_some(), option != "no");
        }
    }

    #[test]
    fn a_big_event_is_one_event() {
        let body = json!({ "model": "mock?tokens=2&big_event=60000", "stream": true });
        let stream = answer_to("/v1/chat/completions", &body);
        let largest = stream
            .pieces
            .iter()
            .max_by_key(|piece| piece.bytes.len())
            .unwrap();
        assert!(largest.bytes.len() > 60_000);
        assert_eq!(largest.tokens, 10_000);
    }
}
