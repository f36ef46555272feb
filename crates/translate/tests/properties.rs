//! Properties over made-up answers and over damaged input.
//!
//! An answer is made up once and written as each upstream protocol would, whole and as a stream; what the client ends up
//! with, whole or put together from the stream as its SDK does, must be that answer.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a broken expectation is a failed test"
)]

use proptest::prelude::*;
use serde_json::{Map, Value, json};
use tollgate_translate::{
    Ask, Context, Options, Pair, StreamTranslator, translate_request, translate_response,
};

#[derive(Debug, Clone)]
struct Made {
    reasoning: Vec<String>,
    text: Vec<String>,
    calls: Vec<(String, Value)>,
    /// Index into the reasons that all protocols share: complete, too long, filtered.
    reason: usize,
    input: u64,
    cached: u64,
    output: u64,
    thought: u64,
}

fn arguments() -> impl Strategy<Value = Value> {
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

fn made() -> impl Strategy<Value = Made> {
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
fn fragments(text: &str, cuts: &[usize]) -> Vec<String> {
    let mut chars = text.chars();
    let mut out: Vec<String> = cuts
        .iter()
        .map(|length| chars.by_ref().take(*length).collect())
        .collect();
    out.push(chars.collect());
    out
}

fn named(events: &[Value]) -> String {
    events
        .iter()
        .map(|event| format!("event: {}\ndata: {event}\n\n", event["type"].as_str().unwrap()))
        .collect()
}

fn unnamed(events: &[Value]) -> String {
    events.iter().map(|event| format!("data: {event}\n\n")).collect()
}

fn anthropic(made: &Made, cuts: &[usize]) -> (Value, String) {
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

fn gemini(made: &Made) -> (Value, String) {
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

fn openai(made: &Made, cuts: &[usize]) -> (Value, String) {
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

/// What a client has in the end, in one shape for all protocols.
#[derive(Debug, Default, PartialEq)]
struct Seen {
    reasoning: String,
    text: String,
    calls: Vec<(String, String, Value)>,
    reason: String,
    usage: Map<String, Value>,
}

fn events(stream: &str) -> Vec<&str> {
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

fn openai_usage(usage: &Value) -> Map<String, Value> {
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

fn anthropic_usage(usage: &Value) -> Map<String, Value> {
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

fn text_of(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn seen_in_completion(body: &Value) -> Seen {
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

fn seen_in_chunks(stream: &str) -> Seen {
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

fn seen_in_message(body: &Value) -> Seen {
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

fn seen_in_events(stream: &str) -> Seen {
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

fn expected(pair: Pair, made: &Made) -> Seen {
    let words = match pair {
        Pair::AnthropicToOpenAi => ["end_turn", "max_tokens", "refusal", "tool_use"],
        _ => ["stop", "length", "content_filter", "tool_calls"],
    };
    let word = if made.reason == 0 && !made.calls.is_empty() {
        words[3]
    } else {
        words[made.reason]
    };
    let usage = json!({
        "prompt": made.input + made.cached, "cached": made.cached, "output": made.output, "thought": made.thought,
    });
    Seen {
        reasoning: made.reasoning.concat(),
        text: made.text.concat(),
        calls: made
            .calls
            .iter()
            .enumerate()
            .map(|(number, (name, input))| (format!("toolu_{number}"), name.clone(), input.clone()))
            .collect(),
        reason: word.to_owned(),
        usage: usage.as_object().unwrap().clone(),
    }
}

fn context() -> Context {
    Context {
        id: "r".to_owned(),
        model: None,
        created: 1,
        ask: Ask {
            include_usage: true,
            thinking: true,
        },
    }
}

/// Translates a stream that comes in pieces cut at the given places.
fn translated(pair: Pair, stream: &[u8], cuts: &[prop::sample::Index]) -> String {
    let mut at: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
    at.extend([0, stream.len()]);
    at.sort_unstable();
    let mut translator = StreamTranslator::new(pair, context());
    let mut out = Vec::new();
    for piece in at.windows(2) {
        translator.push(&stream[piece[0]..piece[1]], &mut out);
    }
    translator.end(&mut out);
    String::from_utf8(out).unwrap()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn a_stream_says_what_the_whole_answer_says(
        made in made(),
        fragment_cuts in prop::collection::vec(0..6_usize, 0..4),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ending in prop_oneof![Just("\n"), Just("\r"), Just("\r\n")],
    ) {
        for pair in Pair::ALL {
            let (whole, stream) = match pair {
                Pair::OpenAiToAnthropic => anthropic(&made, &fragment_cuts),
                Pair::OpenAiToGemini => gemini(&made),
                Pair::AnthropicToOpenAi => openai(&made, &fragment_cuts),
            };
            let answer = translate_response(pair, 200, whole.to_string().as_bytes(), &context());
            prop_assert_eq!(answer.status, 200);
            let body: Value = serde_json::from_slice(&answer.body).unwrap();
            let stream = translated(pair, stream.replace('\n', ending).as_bytes(), &cuts);
            let (from_whole, from_stream) = match pair {
                Pair::AnthropicToOpenAi => (seen_in_message(&body), seen_in_events(&stream)),
                _ => (seen_in_completion(&body), seen_in_chunks(&stream)),
            };
            let expected = expected(pair, &made);
            prop_assert_eq!(&from_whole, &expected, "whole, {:?}", pair);
            prop_assert_eq!(&from_stream, &expected, "stream, {:?}", pair);
        }
    }
}

/// By the grammar alone: a number may be larger than any type.
fn is_json(text: &[u8]) -> bool {
    serde_json::from_slice::<&serde_json::value::RawValue>(text).is_ok()
}

/// All golden inputs of a kind.
fn inputs(kind: &str) -> Vec<Vec<u8>> {
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden");
    let mut found = Vec::new();
    for pair in std::fs::read_dir(root).unwrap() {
        for entry in std::fs::read_dir(pair.unwrap().path().join(kind)).unwrap() {
            let path = entry.unwrap().path();
            if path.to_str().unwrap().contains(".in.") {
                found.push(std::fs::read(path).unwrap());
            }
        }
    }
    found.sort();
    assert!(found.len() > 12);
    found
}

/// Replaces some bytes of the input.
fn damage(mut input: Vec<u8>, damage: &[(prop::sample::Index, u8)]) -> Vec<u8> {
    for (at, byte) in damage {
        if !input.is_empty() {
            let at = at.index(input.len());
            input[at] = *byte;
        }
    }
    input
}

/// Puts another value in a random place of a document.
fn mutate(value: &mut Value, place: &mut impl Iterator<Item = usize>, other: &Value) {
    let step = place.next();
    match value {
        Value::Array(items) if !items.is_empty() && step.is_some() => {
            let at = step.unwrap() % items.len();
            mutate(&mut items[at], place, other);
        }
        Value::Object(members) if !members.is_empty() && step.is_some() => {
            let at = step.unwrap() % members.len();
            mutate(members.values_mut().nth(at).unwrap(), place, other);
        }
        _ => *value = other.clone(),
    }
}

fn byte() -> impl Strategy<Value = u8> {
    prop_oneof![any::<u8>(), prop::sample::select(b"{}[]\",:\\\n\r 0-ue".to_vec())]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn damaged_streams_stay_well_formed(
        which in any::<prop::sample::Index>(),
        bytes in prop::collection::vec((any::<prop::sample::Index>(), byte()), 0..6),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..4),
    ) {
        let input = damage(which.get(&inputs("stream")).clone(), &bytes);
        for pair in Pair::ALL {
            let out = translated(pair, &input, &cuts);
            prop_assert_eq!(&out, &translated(pair, &input, &[]), "the cuts matter");
            let events = events(&out);
            let last = events.last().unwrap();
            prop_assert!(last.contains("\"error\"") || *last == "[DONE]" || last.contains("message_stop"), "{}", last);
            for event in &events {
                prop_assert!(*event == "[DONE]" || is_json(event.as_bytes()), "{}", event);
            }
        }
    }

    #[test]
    fn damaged_answers_give_json(
        which in any::<prop::sample::Index>(),
        bytes in prop::collection::vec((any::<prop::sample::Index>(), byte()), 0..6),
        status in 0..1000_u16,
    ) {
        let input = damage(which.get(&inputs("answer")).clone(), &bytes);
        for pair in Pair::ALL {
            for status in [status, 200] {
                let answer = translate_response(pair, status, &input, &context());
                prop_assert!(answer.status >= 200);
                let body: std::collections::BTreeMap<String, &serde_json::value::RawValue> =
                    serde_json::from_slice(&answer.body).unwrap();
                prop_assert_eq!(body.contains_key("error"), answer.status >= 300, "{} {:?}", answer.status, body);
            }
        }
    }

    #[test]
    fn any_request_is_translated_or_refused(
        which in any::<prop::sample::Index>(),
        bytes in prop::collection::vec((any::<prop::sample::Index>(), byte()), 0..4),
        place in prop::collection::vec(any::<usize>(), 0..7),
        other in arguments(),
    ) {
        let input = which.get(&inputs("request")).clone();
        let mut document: Value = serde_json::from_slice(&input).unwrap();
        mutate(&mut document, &mut place.into_iter(), &other);
        for request in [damage(input, &bytes), document.to_string().into_bytes()] {
            for pair in Pair::ALL {
                match translate_request(pair, &request, &Options::new("m")) {
                    Ok(translated) => {
                        let is_object = translated.body.starts_with(b"{");
                        prop_assert!(is_object && is_json(&translated.body));
                    }
                    Err(refusal) => {
                        prop_assert!(!refusal.reason.is_empty());
                        let body = refusal.body(pair.client());
                        prop_assert!(is_json(&body));
                    }
                }
            }
        }
    }

    #[test]
    fn any_bytes_are_survived(bytes: Vec<u8>, status: u16) {
        for pair in Pair::ALL {
            let _ = translate_request(pair, &bytes, &Options::new("m"));
            let _ = translate_response(pair, status, &bytes, &context());
            let _ = translated(pair, &bytes, &[]);
        }
    }
}
