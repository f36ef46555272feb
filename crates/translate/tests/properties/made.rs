//! Answers that are made up, written as each upstream protocol would.

use proptest::prelude::*;
use serde_json::{Value, json};

/// An answer.
#[derive(Debug, Clone)]
pub struct Made {
    pub reasoning: Vec<String>,
    pub text: Vec<String>,
    pub calls: Vec<(String, Value)>,
    /// Index into the reasons that all protocols share: complete, too long, filtered.
    pub reason: usize,
    pub input: u64,
    pub cached: u64,
    pub output: u64,
    pub thought: u64,
}

pub fn arguments() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        ".{0,12}".prop_map(Value::from),
    ];
    let value = leaf.prop_recursive(3, 12, 4, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            prop::collection::btree_map(".{0,6}", inner, 0..4).prop_map(|map| json!(map)),
        ]
    });
    prop::collection::btree_map(".{0,6}", value, 0..4).prop_map(|map| json!(map))
}

pub fn made() -> impl Strategy<Value = Made> {
    let texts = || prop::collection::vec("(.|\n|\"|\\\\|😀){0,10}", 0..4);
    let calls = prop::collection::vec(("[a-z_]{1,8}", arguments()), 0..4);
    (
        texts(),
        texts(),
        calls,
        0..3_usize,
        0..5000_u64,
        0..5000_u64,
        0..5000_u64,
        0..100_u64,
    )
        .prop_map(
            |(reasoning, text, calls, reason, input, cached, output, thought)| Made {
                reasoning,
                text,
                calls,
                reason,
                input,
                cached,
                output: output + thought,
                thought,
            },
        )
}

/// Cuts a text into pieces of the given numbers of characters.
pub fn fragments(text: &str, cuts: &[usize]) -> Vec<String> {
    let mut chars = text.chars();
    let mut out: Vec<String> = cuts
        .iter()
        .map(|length| chars.by_ref().take(*length).collect())
        .collect();
    out.push(chars.collect());
    out
}

pub fn named(events: &[Value]) -> String {
    events
        .iter()
        .map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap()))
        .collect()
}

pub fn unnamed(events: &[Value]) -> String {
    events.iter().map(|event| format!("data: {event}\n\n")).collect()
}

pub fn anthropic(made: &Made, cuts: &[usize]) -> (Value, String) {
    let reason = match made.reason {
        0 if made.calls.is_empty() => "end_turn",
        0 => "tool_use",
        1 => "max_tokens",
        _ => "refusal",
    };
    let usage = json!({
        "input_tokens": made.input, "cache_read_input_tokens": made.cached, "cache_creation_input_tokens": 0,
        "output_tokens": made.output, "output_tokens_details": {"thinking_tokens": made.thought},
    });
    let mut blocks = Vec::new();
    let mut events = vec![json!({"type": "message_start", "message": {
        "id": "msg_1", "model": "m", "content": [], "usage": {"input_tokens": made.input, "output_tokens": 1},
    }})];
    let mut block = |block: Value, start: Value, deltas: Vec<Value>| {
        let index = blocks.len();
        blocks.push(block);
        events.push(json!({"type": "content_block_start", "index": index, "content_block": start}));
        for delta in deltas {
            events.push(json!({"type": "content_block_delta", "index": index, "delta": delta}));
        }
        events.push(json!({"type": "content_block_stop", "index": index}));
    };
    if !made.reasoning.is_empty() {
        let deltas = made
            .reasoning
            .iter()
            .map(|text| json!({"type": "thinking_delta", "thinking": text}))
            .collect();
        block(
            json!({"type": "thinking", "thinking": made.reasoning.concat(), "signature": "s"}),
            json!({"type": "thinking", "thinking": "", "signature": ""}),
            deltas,
        );
    }
    if !made.text.is_empty() {
        let deltas = made
            .text
            .iter()
            .map(|text| json!({"type": "text_delta", "text": text}))
            .collect();
        block(
            json!({"type": "text", "text": made.text.concat()}),
            json!({"type": "text", "text": ""}),
            deltas,
        );
    }
    for (number, (name, input)) in made.calls.iter().enumerate() {
        let id = format!("toolu_{number}");
        let deltas = fragments(&input.to_string(), cuts)
            .iter()
            .map(|part| json!({"type": "input_json_delta", "partial_json": part}))
            .collect();
        block(
            json!({"type": "tool_use", "id": id, "name": name, "input": input}),
            json!({"type": "tool_use", "id": id, "name": name, "input": {}}),
            deltas,
        );
    }
    let whole = json!({
        "id": "msg_1", "type": "message", "role": "assistant", "model": "m", "content": blocks,
        "stop_reason": reason, "stop_sequence": null, "usage": usage,
    });
    events.push(json!({"type": "message_delta", "delta": {"stop_reason": reason}, "usage": usage}));
    events.push(json!({"type": "message_stop"}));
    (whole, named(&events))
}

pub fn gemini(made: &Made) -> (Value, String) {
    let reason = ["STOP", "MAX_TOKENS", "SAFETY"][made.reason];
    let usage = json!({
        "promptTokenCount": made.input + made.cached, "cachedContentTokenCount": made.cached,
        "candidatesTokenCount": made.output - made.thought, "thoughtsTokenCount": made.thought,
    });
    let mut parts = Vec::new();
    parts.extend(
        made.reasoning
            .iter()
            .map(|text| json!({"text": text, "thought": true})),
    );
    parts.extend(made.text.iter().map(|text| json!({"text": text})));
    parts.extend(
        made.calls
            .iter()
            .enumerate()
            .map(|(number, (name, args))| json!({"functionCall": {"id": format!("toolu_{number}"), "name": name, "args": args}})),
    );
    let response = |parts: &[Value], reason: Option<&str>| {
        let mut candidate = json!({"content": {"role": "model", "parts": parts}, "index": 0});
        if let Some(reason) = reason {
            candidate["finishReason"] = json!(reason);
        }
        json!({"candidates": [candidate], "usageMetadata": usage, "modelVersion": "m", "responseId": "msg_1"})
    };
    let mut events: Vec<Value> = parts
        .iter()
        .map(|part| response(std::slice::from_ref(part), None))
        .collect();
    events.push(response(&[], Some(reason)));
    (response(&parts, Some(reason)), unnamed(&events))
}

pub fn openai(made: &Made, cuts: &[usize]) -> (Value, String) {
    let reason = match made.reason {
        0 if made.calls.is_empty() => "stop",
        0 => "tool_calls",
        1 => "length",
        _ => "content_filter",
    };
    let usage = json!({
        "prompt_tokens": made.input + made.cached, "completion_tokens": made.output,
        "total_tokens": made.input + made.cached + made.output,
        "prompt_tokens_details": {"cached_tokens": made.cached},
        "completion_tokens_details": {"reasoning_tokens": made.thought},
    });
    let mut message = json!({"role": "assistant", "content": made.text.concat(), "refusal": null});
    let chunk = |delta: Value, reason: Option<&str>| {
        json!({"id": "msg_1", "object": "chat.completion.chunk", "created": 1, "model": "m",
               "choices": [{"index": 0, "delta": delta, "finish_reason": reason}], "usage": null})
    };
    let mut events = vec![chunk(json!({"role": "assistant", "content": ""}), None)];
    if !made.reasoning.is_empty() {
        message["reasoning_content"] = json!(made.reasoning.concat());
        events.extend(
            made.reasoning
                .iter()
                .map(|text| chunk(json!({"reasoning_content": text}), None)),
        );
    }
    events.extend(made.text.iter().map(|text| chunk(json!({"content": text}), None)));
    for (number, (name, input)) in made.calls.iter().enumerate() {
        let id = format!("toolu_{number}");
        let call =
            json!({"id": id, "type": "function", "function": {"name": name, "arguments": input.to_string()}});
        let calls = message
            .as_object_mut()
            .unwrap()
            .entry("tool_calls")
            .or_insert_with(|| json!([]));
        calls.as_array_mut().unwrap().push(call);
        events.push(chunk(
            json!({"tool_calls": [{"index": number, "id": id, "type": "function", "function": {"name": name, "arguments": ""}}]}),
            None,
        ));
        for part in fragments(&input.to_string(), cuts) {
            events.push(chunk(
                json!({"tool_calls": [{"index": number, "function": {"arguments": part}}]}),
                None,
            ));
        }
    }
    events.push(chunk(json!({}), Some(reason)));
    events.push(json!({"id": "msg_1", "object": "chat.completion.chunk", "choices": [], "usage": usage}));
    let whole = json!({
        "id": "msg_1", "object": "chat.completion", "created": 1, "model": "m",
        "choices": [{"index": 0, "message": message, "finish_reason": reason}], "usage": usage,
    });
    (whole, unnamed(&events) + "data: [DONE]\n\n")
}
