//! What a client ends up with, from a whole answer or put together from a stream as the providers' SDKs do.

use serde_json::{Map, Value, json};

/// What a client has in the end, in one shape for all protocols.
#[derive(Debug, Default, PartialEq)]
pub struct Seen {
    pub reasoning: String,
    pub text: String,
    pub calls: Vec<(String, String, Value)>,
    pub reason: String,
    pub usage: Map<String, Value>,
}

pub fn events(stream: &str) -> Vec<&str> {
    assert!(stream.is_empty() || stream.ends_with("\n\n"));
    stream
        .split_terminator("\n\n")
        .map(|event| {
            let data = event.lines().last().unwrap();
            let data = data
                .strip_prefix("data: ")
                .unwrap_or_else(|| panic!("no data in {event:?}"));
            if let Some(name) = event.strip_prefix("event: ") {
                let name = name.lines().next().unwrap();
                assert_eq!(serde_json::from_str::<Value>(data).unwrap()["type"], name);
            }
            data
        })
        .collect()
}

pub fn openai_usage(usage: &Value) -> Map<String, Value> {
    let mut seen = Map::new();
    seen.insert("prompt".into(), usage["prompt_tokens"].clone());
    seen.insert(
        "cached".into(),
        usage["prompt_tokens_details"]["cached_tokens"].clone(),
    );
    seen.insert("output".into(), usage["completion_tokens"].clone());
    seen.insert(
        "thought".into(),
        usage["completion_tokens_details"]["reasoning_tokens"].clone(),
    );
    assert_eq!(
        usage["total_tokens"].as_u64().unwrap(),
        usage["prompt_tokens"].as_u64().unwrap() + usage["completion_tokens"].as_u64().unwrap()
    );
    seen
}

pub fn anthropic_usage(usage: &Value) -> Map<String, Value> {
    let count = |name: &str| usage[name].as_u64().unwrap();
    let mut seen = Map::new();
    let prompt =
        count("input_tokens") + count("cache_read_input_tokens") + count("cache_creation_input_tokens");
    seen.insert("prompt".into(), json!(prompt));
    seen.insert("cached".into(), usage["cache_read_input_tokens"].clone());
    seen.insert("output".into(), usage["output_tokens"].clone());
    seen.insert(
        "thought".into(),
        usage["output_tokens_details"]["thinking_tokens"].clone(),
    );
    seen
}

pub fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

pub fn seen_in_completion(body: &Value) -> Seen {
    let choice = &body["choices"][0];
    let message = &choice["message"];
    let calls = message["tool_calls"].as_array().cloned().unwrap_or_default();
    Seen {
        reasoning: text_of(&message["reasoning_content"]),
        text: text_of(&message["content"]),
        calls: calls
            .iter()
            .map(|call| {
                let arguments =
                    serde_json::from_str(call["function"]["arguments"].as_str().unwrap()).unwrap();
                (
                    text_of(&call["id"]),
                    text_of(&call["function"]["name"]),
                    arguments,
                )
            })
            .collect(),
        reason: text_of(&choice["finish_reason"]),
        usage: openai_usage(&body["usage"]),
    }
}

pub fn seen_in_chunks(stream: &str) -> Seen {
    let mut seen = Seen::default();
    let mut arguments: Vec<String> = Vec::new();
    let mut all = events(stream);
    assert_eq!(all.pop(), Some("[DONE]"));
    for (number, event) in all.iter().enumerate() {
        let chunk: Value = serde_json::from_str(event).unwrap();
        assert_eq!((&chunk["id"], &chunk["model"]), (&json!("msg_1"), &json!("m")));
        if number == 0 {
            assert_eq!(chunk["choices"][0]["delta"]["role"], "assistant");
        }
        let Some(choice) = chunk["choices"].get(0) else {
            seen.usage = openai_usage(&chunk["usage"]);
            continue;
        };
        assert!(seen.reason.is_empty(), "something follows the end: {event}");
        let delta = &choice["delta"];
        seen.text += delta["content"].as_str().unwrap_or_default();
        seen.reasoning += delta["reasoning_content"].as_str().unwrap_or_default();
        for call in delta["tool_calls"].as_array().cloned().unwrap_or_default() {
            let index = usize::try_from(call["index"].as_u64().unwrap()).unwrap();
            if index == seen.calls.len() {
                seen.calls.push((
                    text_of(&call["id"]),
                    text_of(&call["function"]["name"]),
                    Value::Null,
                ));
                arguments.push(String::new());
            }
            arguments[index] += call["function"]["arguments"].as_str().unwrap();
        }
        seen.reason = text_of(&choice["finish_reason"]);
    }
    for (call, arguments) in seen.calls.iter_mut().zip(arguments) {
        call.2 = serde_json::from_str(&arguments).unwrap();
    }
    seen
}

pub fn seen_in_message(body: &Value) -> Seen {
    let mut seen = Seen {
        reason: text_of(&body["stop_reason"]),
        ..Seen::default()
    };
    for block in body["content"].as_array().unwrap() {
        match block["type"].as_str().unwrap() {
            "text" => seen.text += block["text"].as_str().unwrap(),
            "thinking" => seen.reasoning += block["thinking"].as_str().unwrap(),
            _ => seen.calls.push((
                text_of(&block["id"]),
                text_of(&block["name"]),
                block["input"].clone(),
            )),
        }
    }
    seen.usage = anthropic_usage(&body["usage"]);
    seen
}

pub fn seen_in_events(stream: &str) -> Seen {
    let mut message = Value::Null;
    let mut partial = String::new();
    let mut open = None;
    for event in events(stream) {
        let event: Value = serde_json::from_str(event).unwrap();
        let index = event["index"].as_u64();
        match event["type"].as_str().unwrap() {
            "message_start" => message = event["message"].clone(),
            "content_block_start" => {
                assert_eq!(
                    (open, index),
                    (None, Some(message["content"].as_array().unwrap().len() as u64))
                );
                open = index;
                partial.clear();
                message["content"]
                    .as_array_mut()
                    .unwrap()
                    .push(event["content_block"].clone());
            }
            "content_block_delta" => {
                assert_eq!(open, index);
                let block = message["content"].as_array_mut().unwrap().last_mut().unwrap();
                for name in ["text", "thinking"] {
                    if let Some(more) = event["delta"][name].as_str() {
                        block[name] = json!(text_of(&block[name]) + more);
                    }
                }
                partial += event["delta"]["partial_json"].as_str().unwrap_or_default();
            }
            "content_block_stop" => {
                assert_eq!(open.take(), index);
                let block = message["content"].as_array_mut().unwrap().last_mut().unwrap();
                if !partial.is_empty() {
                    block["input"] = serde_json::from_str(&partial).unwrap();
                }
            }
            "message_delta" => {
                assert_eq!(open, None);
                message["stop_reason"] = event["delta"]["stop_reason"].clone();
                message["usage"] = event["usage"].clone();
            }
            "message_stop" => return seen_in_message(&message),
            other => panic!("unexpected event {other}"),
        }
    }
    panic!("no message_stop in {stream}")
}
