use serde_json::{Value, json};

use super::*;
use crate::Api;

mod properties;

fn usage(input: u64, output: u64) -> Usage {
    Usage {
        input: Some(input),
        output: Some(output),
        ..Usage::default()
    }
}

/// The whole body at once, byte by byte, and through the fast way.
fn answers(body: &Value, api: Api) -> (Answer, String) {
    let text = serde_json::to_vec_pretty(body).unwrap();
    let (answer, read) = split(&text, api, &[]);
    let every: Vec<usize> = (0..text.len()).collect();
    assert_eq!(split(&text, api, &every), (answer, read.clone()));
    let mut sink = String::new();
    let whole = JsonWatch::whole(&text, api, &mut sink);
    assert_eq!(
        (whole.usage, whole.model, whole.error, whole.malformed),
        (answer.usage, answer.model, answer.error, false)
    );
    if !whole.error && !whole.usage.is_some_and(|usage| usage.is_complete()) {
        assert_eq!(sink, read);
    } else {
        assert_eq!(sink, "");
    }
    (answer, read)
}

/// Feeds `body` cut at the given places.
fn split(body: &[u8], api: Api, cuts: &[usize]) -> (Answer, String) {
    let mut watch = JsonWatch::new(api);
    let mut sink = String::new();
    let mut start = 0;
    for &cut in cuts {
        watch.feed(&body[start..cut], &mut sink);
        start = cut;
    }
    watch.feed(&body[start..], &mut sink);
    (watch.finish(&mut sink), sink)
}

#[test]
fn gemini_bodies_arrays_and_events() {
    let part = |text: &str| json!({"candidates": [{"content": {"role": "model", "parts": [{"text": text}]}, "index": 0}]});
    let last = json!({"candidates": [{"content": {"role": "model", "parts": [
            {"thought": true, "text": "hm"}, {"functionCall": {"name": "f", "args": {"city": "Paris"}}},
            {"inlineData": {"mimeType": "image/png", "data": "AAAA"}}]}, "finishReason": "STOP"}],
        "usageMetadata": {"promptTokenCount": 20, "toolUsePromptTokenCount": 3, "candidatesTokenCount": 7,
            "thoughtsTokenCount": 5, "cachedContentTokenCount": 16, "totalTokenCount": 35,
            "promptTokensDetails": [{"modality": "TEXT", "tokenCount": 20}]},
        "modelVersion": "gemini-2.5-pro", "responseId": "r1"});
    let expected = Usage {
        cached: 16,
        reasoning: 5,
        ..usage(23, 12)
    };
    let (answer, _) = answers(&last, Api::Other);
    assert_eq!(answer.usage, Some(expected));
    assert_eq!(answer.model.unwrap().as_str(), "gemini-2.5-pro");
    let (answer, text) = answers(&json!([part("Hé"), part("llo"), last]), Api::Other);
    assert_eq!(
        (answer.usage, text.as_str()),
        (Some(expected), "HéllohmcityParisf")
    );
    let (answer, text) = answers(&json!([part("no usage")]), Api::Other);
    assert_eq!((answer.usage, text.as_str()), (None, "no usage"));
    // Before there are candidates, thoughts are all the output; countTokens knows the prompt only.
    let (answer, _) = answers(
        &json!({"usageMetadata": {"promptTokenCount": 4, "thoughtsTokenCount": 9}}),
        Api::Other,
    );
    assert_eq!(answer.usage.unwrap().output, Some(9));
    let (answer, _) = answers(&json!({"totalTokens": 31}), Api::Other);
    assert_eq!(answer.usage.unwrap().input, Some(31));

    let (mut state, mut text) = (StreamState::new(), String::new());
    let mut event = |body: &Value, text: &mut String| {
        inspect(
            format!("data: {body}\r\n\r\n").as_bytes(),
            Api::Other,
            &mut state,
            text,
        )
    };
    assert_eq!(event(&part("Hi"), &mut text).kind, EventKind::Delta);
    let facts = event(&last, &mut text);
    assert_eq!((facts.kind, facts.usage), (EventKind::Finish, Some(expected)));
    assert_eq!(text, "HihmcityParisf");
    assert_eq!((state.phase(), state.id()), (Phase::Stopped, "r1"));
}

#[test]
fn bodies_of_every_api() {
    let (answer, text) = answers(
        &json!({"id": "chatcmpl-1", "object": "chat.completion", "created": 1, "model": "gpt-4o-2024", "choices": [
            {"index": 0, "message": {"role": "assistant", "content": "Hé\"llo\n😀", "refusal": null, "tool_calls": [
                {"id": "c", "type": "function", "function": {"name": "f", "arguments": "{\"a\":1}"}}]},
             "finish_reason": "stop", "logprobs": {"content": [{"token": "no", "text": "no"}]}}],
            "usage": {"prompt_tokens": 19, "completion_tokens": 10, "total_tokens": 29,
                "prompt_tokens_details": {"cached_tokens": 4, "audio_tokens": 1},
                "completion_tokens_details": {"reasoning_tokens": 6, "audio_tokens": 2, "accepted_prediction_tokens": 0}}}),
        Api::ChatCompletions,
    );
    assert_eq!(
        answer.usage,
        Some(Usage {
            cached: 4,
            audio_input: 1,
            reasoning: 6,
            audio_output: 2,
            ..usage(19, 10)
        })
    );
    assert_eq!(answer.model.unwrap().as_str(), "gpt-4o-2024");
    // Keys come sorted: `arguments` before `name`.
    assert_eq!(text, "Hé\"llo\n😀{\"a\":1}f");

    let (answer, text) = answers(
        &json!({"choices": [{"text": "a"}, {"text": "b"}]}),
        Api::Completions,
    );
    assert_eq!((answer.usage, text.as_str(), answer.text), (None, "ab", true));

    let (answer, text) = answers(
        &json!({"data": [{"embedding": [0.1, -2e-3], "index": 0}], "usage": {"prompt_tokens": 8, "total_tokens": 8}}),
        Api::Embeddings,
    );
    assert_eq!((answer.usage, text.as_str()), (Some(usage(8, 0)), ""));

    let (answer, text) = answers(
        &json!({"id": "resp_1", "error": null, "output": [
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "think"}]},
            {"type": "message", "content": [{"type": "output_text", "text": "hello", "annotations": [{"text": "no"}]}]},
            {"type": "function_call", "arguments": "{}", "name": "f"}],
            "text": {"format": {"type": "text"}},
            "usage": {"input_tokens": 36, "input_tokens_details": {"cached_tokens": 2}, "output_tokens": 87,
                "output_tokens_details": {"reasoning_tokens": 7}, "total_tokens": 123}}),
        Api::Responses,
    );
    assert_eq!(
        answer.usage,
        Some(Usage {
            cached: 2,
            reasoning: 7,
            ..usage(36, 87)
        })
    );
    assert_eq!((text.as_str(), answer.error), ("thinkhello{}f", false));

    let (answer, text) = answers(
        &json!({"type": "message", "content": [{"type": "text", "text": "hi"},
            {"type": "tool_use", "name": "f", "input": {"k": [1, "v", true, {"z": -2.5}]}}], "stop_reason": "end_turn",
            "usage": {"input_tokens": 10, "cache_creation_input_tokens": 100, "cache_read_input_tokens": 1000,
                "cache_creation": {"ephemeral_5m_input_tokens": 100}, "output_tokens": 5}}),
        Api::AnthropicMessages,
    );
    assert_eq!(
        answer.usage,
        Some(Usage {
            cached: 1000,
            cache_creation: 100,
            ..usage(1110, 5)
        })
    );
    assert_eq!(text, "hik1vz-2.5f");

    let (answer, _) = answers(&json!({"input_tokens": 14}), Api::AnthropicCountTokens);
    assert_eq!(
        answer.usage,
        Some(Usage {
            input: Some(14),
            ..Usage::default()
        })
    );

    let (answer, _) = answers(
        &json!({"error": {"message": "no", "code": "x"}}),
        Api::ChatCompletions,
    );
    assert!(answer.error);
    let (answer, _) = answers(
        &json!({"type": "error", "error": {"type": "overloaded_error"}}),
        Api::AnthropicMessages,
    );
    assert!(answer.error);
}

#[test]
fn absurd_figures_are_ignored_and_flagged() {
    for bad in [
        "-5",
        "1e999",
        "1.5",
        "\"12\"",
        "true",
        "9223372036854775808",
        "{}",
    ] {
        let body = format!(r#"{{"usage":{{"prompt_tokens":{bad},"completion_tokens":3}}}}"#);
        let want = Usage {
            output: Some(3),
            malformed: bad != "{}",
            ..Usage::default()
        };
        assert_eq!(
            split(body.as_bytes(), Api::ChatCompletions, &[20]).0.usage,
            Some(want),
            "{bad}"
        );
        let whole = JsonWatch::whole(body.as_bytes(), Api::ChatCompletions, &mut NoText);
        assert_eq!(whole.usage, Some(want), "{bad}");
    }
    for (body, want) in [
        (r#"{"usage":null}"#, None),
        (r#"{"usage":"much"}"#, None),
        (r#"{"usage":[1]}"#, None),
        (r#"{"usage":{}}"#, Some(Usage::default())),
        (r#"{"choices":[{"message":{"usage":{"prompt_tokens":7}}}]}"#, None),
        (
            r#"{"usage":{"prompt_tokens":null,"total_tokens":10,"completion_tokens":4.0}}"#,
            Some(usage(6, 4)),
        ),
        (
            r#"{"\u0075sage":{"prompt_tokens":1,"completion_tokens":2e0}}"#,
            Some(usage(1, 2)),
        ),
        (
            r#"{"usage":{"prompt_tokens":1,"completion_tokens":2},"usage":{}}"#,
            Some(usage(1, 2)),
        ),
    ] {
        let every: Vec<usize> = (0..body.len()).collect();
        assert_eq!(
            split(body.as_bytes(), Api::ChatCompletions, &every).0.usage,
            want,
            "{body}"
        );
        assert_eq!(
            JsonWatch::whole(body.as_bytes(), Api::ChatCompletions, &mut NoText).usage,
            want,
            "{body}"
        );
    }
}

#[test]
fn broken_bodies_keep_what_was_found() {
    let body = br#"{"usage":{"prompt_tokens":1,"completion_tokens":2},"choices":[{"message":{"content":"par"#;
    let (answer, text) = split(body, Api::ChatCompletions, &[40]);
    assert_eq!(
        (answer.usage, answer.malformed, text.as_str()),
        (Some(usage(1, 2)), true, "par")
    );
    for bad in [
        "",
        "<html>",
        "{} {}",
        "[1 2]",
        "{\"a\":tru}",
        "{\"a\":01}",
        "\"\\x\"",
        "\"\n\"",
        "{]",
        "[}",
        "{\"a\":1,}",
    ] {
        assert!(split(bad.as_bytes(), Api::Other, &[]).0.malformed, "{bad}");
        assert!(
            JsonWatch::whole(bad.as_bytes(), Api::Other, &mut NoText).malformed,
            "{bad}"
        );
    }
    let deep = "[".repeat(100_000);
    assert!(split(deep.as_bytes(), Api::Other, &[]).0.malformed);
}

fn event(data: &Value) -> String {
    format!("data: {data}\n\n")
}

fn named(name: &str, mut data: Value) -> String {
    data.as_object_mut()
        .unwrap()
        .insert("type".to_owned(), name.into());
    format!("event: {name}\ndata: {data}\n\n")
}

fn chat_chunk(choices: Value) -> Value {
    json!({"id": "chatcmpl-7", "object": "chat.completion.chunk", "created": 1700, "model": "m", "choices": choices})
}

fn chat_stream() -> String {
    let delta = |delta: Value| {
        event(&chat_chunk(
            json!([{"index": 0, "delta": delta, "finish_reason": null}]),
        ))
    };
    let mut last = chat_chunk(json!([]));
    last["usage"] = json!({"prompt_tokens": 5, "completion_tokens": 3, "total_tokens": 8});
    [
        ": keep-alive\n\n".to_owned(),
        delta(json!({"role": "assistant", "content": ""})),
        delta(json!({"content": "Hel"})),
        delta(json!({"content": "lo \"ünï\"\n"})),
        delta(json!({"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": "{}"}}]})),
        event(&chat_chunk(
            json!([{"index": 0, "delta": {}, "finish_reason": "stop"}]),
        )),
        event(&last),
        "data: [DONE]\n\n".to_owned(),
    ]
    .concat()
}

fn anthropic_stream() -> String {
    [
        named(
            "message_start",
            json!({"message": {"id": "msg_1", "model": "claude", "content": [], "usage":
            {"input_tokens": 25, "cache_read_input_tokens": 5, "output_tokens": 1}}}),
        ),
        named(
            "content_block_start",
            json!({"index": 0, "content_block": {"type": "text", "text": ""}}),
        ),
        named("ping", json!({})),
        named(
            "content_block_delta",
            json!({"index": 0, "delta": {"type": "text_delta", "text": "Hi"}}),
        ),
        named("content_block_stop", json!({"index": 0})),
        named(
            "content_block_start",
            json!({"index": 1, "content_block": {"type": "tool_use", "name": "f", "input": {}}}),
        ),
        named(
            "content_block_delta",
            json!({"index": 1, "delta": {"type": "input_json_delta", "partial_json": "{\"a\""}}),
        ),
        named(
            "content_block_delta",
            json!({"index": 1, "delta": {"type": "signature_delta", "signature": "xx"}}),
        ),
        named("content_block_stop", json!({"index": 1})),
        named(
            "message_delta",
            json!({"delta": {"stop_reason": "tool_use"}, "usage": {"output_tokens": 15}}),
        ),
        named("message_stop", json!({})),
    ]
    .concat()
}

fn responses_stream() -> String {
    let response =
        json!({"id": "resp_9", "created_at": 44, "model": "m", "error": null, "usage": null, "output": []});
    let mut last = response.clone();
    last["output"] = json!([{"type": "message", "content": [{"type": "output_text", "text": "Hey"}]}]);
    last["usage"] = json!({"input_tokens": 11, "output_tokens": 22, "total_tokens": 33,
        "output_tokens_details": {"reasoning_tokens": 3}});
    [
        named(
            "response.created",
            json!({"response": response, "sequence_number": 0}),
        ),
        named(
            "response.output_item.added",
            json!({"item": {"type": "message", "content": []}, "output_index": 0}),
        ),
        named(
            "response.output_text.delta",
            json!({"delta": "He", "output_index": 0, "sequence_number": 5}),
        ),
        named(
            "response.output_text.delta",
            json!({"delta": "y", "output_index": 0, "sequence_number": 6}),
        ),
        named(
            "response.audio.delta",
            json!({"delta": "AAAA", "sequence_number": 7}),
        ),
        named(
            "response.output_text.done",
            json!({"text": "Hey", "output_index": 0, "sequence_number": 8}),
        ),
        named(
            "response.completed",
            json!({"response": last, "sequence_number": 9}),
        ),
    ]
    .concat()
}

struct Stream {
    facts: Vec<EventFacts>,
    state: StreamState,
    text: String,
    /// The pieces joined: must be what came in.
    passed: Vec<u8>,
    oversized: usize,
}

impl Stream {
    fn kinds(&self) -> Vec<EventKind> {
        self.facts.iter().map(|facts| facts.kind).collect()
    }
}

fn read(stream: &[u8], api: Api, cuts: &[usize], bound: usize) -> Stream {
    let mut reader = SseReader::new(bound);
    let mut out = Stream {
        facts: Vec::new(),
        state: StreamState::new(),
        text: String::new(),
        passed: Vec::new(),
        oversized: 0,
    };
    let mut piece = |piece: SsePiece<'_>| match piece {
        SsePiece::Event(bytes) => {
            out.passed.extend_from_slice(bytes);
            out.facts.push(inspect(bytes, api, &mut out.state, &mut out.text));
        }
        SsePiece::Oversized(bytes) => {
            out.passed.extend_from_slice(bytes);
            out.oversized += bytes.len();
        }
        SsePiece::Unfinished(bytes) => out.passed.extend_from_slice(bytes),
    };
    let mut start = 0;
    for &cut in cuts {
        reader.feed(&stream[start..cut], &mut piece);
        assert!(reader.carried() <= bound);
        start = cut;
    }
    reader.feed(&stream[start..], &mut piece);
    reader.finish(&mut piece);
    out
}

#[test]
fn golden_streams() {
    use EventKind::{Comment, Delta, Done, Finish, Start, UsageOnly};
    let chat = read(chat_stream().as_bytes(), Api::ChatCompletions, &[], 1 << 18);
    assert_eq!(
        chat.kinds(),
        [Comment, Delta, Delta, Delta, Delta, Finish, UsageOnly, Done]
    );
    assert_eq!(chat.text, "Hello \"ünï\"\n{}f");
    assert_eq!(chat.state.usage(), Some(usage(5, 3)));
    assert_eq!(
        (chat.state.id(), chat.state.created(), chat.state.phase()),
        ("chatcmpl-7", 1700, Phase::Done)
    );
    assert_eq!(chat.state.events(), 7);

    let completion = [
        event(&json!({"id": "cmpl-1", "object": "text_completion", "choices": [{"index": 1, "text": "ab", "finish_reason": null}]})),
        event(&json!({"id": "cmpl-1", "choices": [{"index": 1, "text": "", "finish_reason": "length"}],
            "usage": {"prompt_tokens": 1, "completion_tokens": 2}})),
    ]
    .concat();
    let completion = read(completion.as_bytes(), Api::Completions, &[], 1 << 18);
    assert_eq!(completion.kinds(), [Delta, Finish]);
    assert_eq!(
        (completion.text.as_str(), completion.facts[1].usage),
        ("ab", Some(usage(1, 2)))
    );
    assert_eq!(
        (completion.facts[0].index, completion.facts[0].text),
        (Some(1), true)
    );

    let anthropic = read(
        anthropic_stream().as_bytes(),
        Api::AnthropicMessages,
        &[],
        1 << 18,
    );
    assert_eq!(
        anthropic.kinds(),
        [
            Start, Delta, Comment, Delta, Delta, Delta, Delta, Delta, Delta, Finish, Done
        ]
    );
    assert_eq!(anthropic.text, "Hif{\"a\"");
    assert_eq!(
        anthropic.state.usage(),
        Some(Usage {
            cached: 5,
            ..usage(30, 15)
        })
    );
    assert_eq!(anthropic.state.id(), "msg_1");

    let responses = read(responses_stream().as_bytes(), Api::Responses, &[], 1 << 18);
    assert_eq!(
        responses.kinds(),
        [Start, Delta, Delta, Delta, Delta, Delta, Finish]
    );
    assert_eq!(responses.text, "Hey");
    assert_eq!(
        responses.state.usage(),
        Some(Usage {
            reasoning: 3,
            ..usage(11, 22)
        })
    );
    assert_eq!(
        (responses.state.id(), responses.state.phase()),
        ("resp_9", Phase::Done)
    );
}

#[test]
fn odd_events() {
    let facts = |event: &str, api| inspect(event.as_bytes(), api, &mut StreamState::new(), &mut NoText);
    let chat = Api::ChatCompletions;
    for (event, kind, malformed) in [
        ("\n", EventKind::Comment, false),
        (":\n\n", EventKind::Comment, false),
        ("retry: 5\nid: 3\n\n", EventKind::Comment, false),
        ("data\n\n", EventKind::Other, true),
        ("data: {\n\n", EventKind::Other, true),
        ("data:[DONE]\r\n\r\n", EventKind::Done, false),
        ("\u{feff}data: [DONE]\n\n", EventKind::Done, false),
        ("\ndata: [DONE]\r\r", EventKind::Done, false),
        (
            "data: {\"error\":{\"message\":\"x\"}}\n\n",
            EventKind::Error,
            false,
        ),
        (
            "data: {\"error\":null,\"choices\":[]}\n\n",
            EventKind::Other,
            false,
        ),
        (
            "data: {\"choices\":[],\"prompt_filter_results\":[]}\n\n",
            EventKind::Other,
            false,
        ),
        (
            "data: {\"choices\":[],\"usage\":null}\n\n",
            EventKind::Other,
            false,
        ),
        (
            "data: {\"choices\":\ndata: [],\ndata:\"usage\":{}}\n\n",
            EventKind::UsageOnly,
            false,
        ),
        ("database: {}\n\n", EventKind::Comment, false),
    ] {
        let found = facts(event, chat);
        assert_eq!((found.kind, found.malformed), (kind, malformed), "{event:?}");
    }
    let anthropic = Api::AnthropicMessages;
    let error = "event: error\ndata: {\"type\":\"error\",\"error\":{\"type\":\"overloaded_error\"}}\n\n";
    assert_eq!(facts(error, anthropic).kind, EventKind::Error);
    let failed = "data: {\"type\":\"response.failed\",\"response\":{\"id\":\"r\",\"usage\":{\"input_tokens\":1,\"output_tokens\":2}}}\n\n";
    assert_eq!(
        (
            facts(failed, Api::Responses).kind,
            facts(failed, Api::Responses).usage
        ),
        (EventKind::Error, Some(usage(1, 2)))
    );
    let groq = "data: {\"choices\":[{\"index\":0,\"finish_reason\":\"stop\"}],\"x_groq\":{\"usage\":{\"prompt_tokens\":1,\"completion_tokens\":2}}}\n\n";
    assert_eq!(
        (facts(groq, chat).kind, facts(groq, chat).usage),
        (EventKind::Finish, Some(usage(1, 2)))
    );
}

#[test]
fn a_giant_event_passes_unread() {
    let mut stream = chat_stream().into_bytes();
    let giant = event(&chat_chunk(
        json!([{"index": 0, "delta": {"content": "x".repeat(10 << 20)}}]),
    ));
    let small = stream.len();
    stream.splice(0..0, giant.bytes());
    let cuts: Vec<usize> = (4096..stream.len()).step_by(4096).collect();
    let read = read(&stream, Api::ChatCompletions, &cuts, 1 << 18);
    assert_eq!(read.oversized, stream.len() - small);
    assert_eq!(read.facts.len(), 8);
    assert_eq!(read.state.usage(), Some(usage(5, 3)));
    assert!(read.passed == stream);
}

/// What a client reads: the JSON of every `data` line.
fn data(out: &[u8]) -> Vec<Value> {
    let text = std::str::from_utf8(out).unwrap();
    assert!(text.ends_with("\n\n"));
    text.split("\n\n")
        .filter(|event| !event.is_empty())
        .map(|event| {
            let (name, line) = match event.split_once('\n') {
                Some((name, line)) => (name.strip_prefix("event: "), line),
                None => (None, event),
            };
            let data = line.strip_prefix("data: ").unwrap();
            if data == "[DONE]" {
                return Value::from("[DONE]");
            }
            let data: Value = serde_json::from_str(data).unwrap();
            if let Some(name) = name {
                assert_eq!(data["type"], name);
            }
            data
        })
        .collect()
}

fn ending(include_usage: bool) -> Ending<'static> {
    Ending {
        model: "my\"model",
        now: 99,
        usage: Usage {
            cached: 1,
            ..usage(5, 7)
        },
        include_usage,
    }
}

/// Ends `stream` after `events` events and reads the end as a client would.
fn end_after(stream: &str, api: Api, events: usize, include_usage: bool) -> (Vec<Value>, Stream) {
    let prefix: String = stream.split_inclusive("\n\n").take(events).collect();
    let state = read(prefix.as_bytes(), api, &[], 1 << 18).state;
    let mut out = Vec::new();
    write_early_end(api, &state, &ending(include_usage), &mut out);
    let data = data(&out);
    let whole = read(&[prefix.as_bytes(), &out].concat(), api, &[], 1 << 18);
    assert!(whole.facts.iter().all(|facts| !facts.malformed));
    assert_eq!(whole.state.phase(), Phase::Done);
    (data, whole)
}

#[test]
fn early_ends() {
    let (data, read) = end_after(&chat_stream(), Api::ChatCompletions, 3, true);
    assert_eq!(data.len(), 3);
    assert_eq!(
        (&data[0]["id"], &data[0]["created"], &data[0]["model"]),
        (&"chatcmpl-7".into(), &1700.into(), &"my\"model".into())
    );
    assert_eq!(
        data[0]["choices"],
        json!([{"index": 0, "delta": {}, "logprobs": null, "finish_reason": "length"}])
    );
    assert_eq!(
        (&data[1]["choices"], &data[1]["usage"]["total_tokens"]),
        (&json!([]), &12.into())
    );
    assert_eq!(data[2], "[DONE]");
    assert_eq!(
        read.state.usage(),
        Some(Usage {
            cached: 1,
            ..usage(5, 7)
        })
    );
    // After its own `finish_reason` only the marker is missing.
    assert_eq!(
        end_after(&chat_stream(), Api::ChatCompletions, 6, false).0,
        ["[DONE]"]
    );
    // Before the first event there is no id.
    let (data, _) = end_after("", Api::ChatCompletions, 0, false);
    assert_eq!(
        (&data[0]["id"], &data[0]["created"]),
        (&"chatcmpl-tollgate".into(), &99.into())
    );

    let two = [0, 1, 1]
        .map(|index| event(&chat_chunk(json!([{"index": index, "delta": {"content": "x"}}]))))
        .concat();
    let (data, _) = end_after(&two, Api::ChatCompletions, 3, false);
    assert_eq!(
        (
            &data[0]["choices"][0]["index"],
            &data[1]["choices"][0]["index"],
            data.len()
        ),
        (&0.into(), &1.into(), 3)
    );

    let (data, _) = end_after("", Api::Completions, 0, false);
    assert_eq!(
        (&data[0]["object"], &data[0]["choices"][0]["text"]),
        (&"text_completion".into(), &"".into())
    );

    let (data, read) = end_after(&anthropic_stream(), Api::AnthropicMessages, 4, false);
    let types: Vec<&str> = data.iter().map(|data| data["type"].as_str().unwrap()).collect();
    assert_eq!(types, ["content_block_stop", "message_delta", "message_stop"]);
    assert_eq!(
        (&data[0]["index"], &data[1]["delta"]["stop_reason"]),
        (&0.into(), &"max_tokens".into())
    );
    assert_eq!(read.state.usage().unwrap().output, Some(7));
    let (data, _) = end_after(&anthropic_stream(), Api::AnthropicMessages, 5, false);
    assert_eq!(data.len(), 2);
    let (data, _) = end_after("", Api::AnthropicMessages, 0, false);
    assert_eq!(
        (&data[0]["type"], &data[0]["message"]["usage"]["input_tokens"]),
        (&"message_start".into(), &4.into())
    );

    let (data, read) = end_after(&responses_stream(), Api::Responses, 3, false);
    assert_eq!(
        (&data[0]["sequence_number"], &data[0]["response"]["id"]),
        (&6.into(), &"resp_9".into())
    );
    assert_eq!(
        data[0]["response"]["incomplete_details"]["reason"],
        "max_output_tokens"
    );
    assert_eq!(
        read.state.usage(),
        Some(Usage {
            cached: 1,
            ..usage(5, 7)
        })
    );

    let done = read_all(&chat_stream(), Api::ChatCompletions);
    let mut out = Vec::new();
    write_early_end(Api::ChatCompletions, &done, &ending(true), &mut out);
    assert!(out.is_empty());
}

fn read_all(stream: &str, api: Api) -> StreamState {
    read(stream.as_bytes(), api, &[], 1 << 18).state
}

#[test]
fn error_events() {
    for api in [Api::ChatCompletions, Api::AnthropicMessages, Api::Responses] {
        let mut out = Vec::new();
        write_error_event(
            api,
            &StreamState::new(),
            "upstream_error",
            "broke \"off\"\n",
            &mut out,
        );
        let data = data(&out);
        let error = if api == Api::Responses {
            &data[0]
        } else {
            &data[0]["error"]
        };
        assert_eq!(error["message"], "broke \"off\"\n");
        assert_eq!(
            inspect(&out, api, &mut StreamState::new(), &mut NoText).kind,
            EventKind::Error
        );
    }
}
