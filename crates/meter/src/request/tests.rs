use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::{Api, TokenCounter};

/// The worst counter that the bound covers: one token a byte.
struct Bytes;

impl TokenCounter for Bytes {
    fn count(&mut self, text: &str) -> u64 {
        text.len() as u64
    }
}

const ANTHROPIC: Formula = Formula {
    parts: [6, 3, 1, 346, 53, 3, 1, 1],
    image: ImagePrice::Areas { cap: 1568 },
    audio_second: 10,
};

/// Remembers what it was asked to count; a token per text.
#[derive(Default)]
struct Texts(Vec<String>);

impl TokenCounter for Texts {
    fn count(&mut self, text: &str) -> u64 {
        self.0.push(text.to_owned());
        1
    }
}

fn facts(body: &str, api: Api) -> Result<RequestFacts, ScanError> {
    let mut facts = RequestFacts::new();
    scan(body.as_bytes(), api, &[], &mut facts).map(|()| facts)
}

fn chat(body: &str) -> RequestFacts {
    facts(body, Api::ChatCompletions).unwrap()
}

/// The bound for a counter of at most one token a byte.
fn bound(facts: &RequestFacts) -> u64 {
    facts.input.bound(&Formula::default(), |bytes| bytes)
}

fn refusal(body: &str) -> String {
    facts(body, Api::ChatCompletions).unwrap_err().to_string()
}

fn counted(body: &Value, api: Api) -> (Vec<String>, InputCount) {
    let mut texts = Texts::default();
    let formula = if api.is_anthropic() {
        ANTHROPIC
    } else {
        Formula::default()
    };
    let count = count_input(body.to_string().as_bytes(), api, &formula, &mut texts).unwrap();
    (texts.0, count)
}

#[test]
fn reads_what_the_gateway_needs() {
    let body = r#" {"mod\u0065l" : "gpt-\u0034o","stream":true, "max_tokens":1e3,"n":2,"messages":[{"role":"user","content":"hi\n"}],"stream_options":{"include_usage":false}}"#;
    let facts = chat(body);
    let model = facts.model.clone().unwrap();
    assert_eq!(model.value, "gpt-4o");
    assert_eq!(&body[model.span], r#""gpt-\u0034o""#);
    assert!(facts.stream);
    assert_eq!(&body[facts.stream_span.clone().unwrap()], "true");
    assert_eq!(facts.max_output(), Some(1000));
    assert_eq!(facts.max_tokens_name(), Some(MaxTokensName::MaxTokens));
    assert_eq!(&body[facts.max_tokens[0].clone().unwrap().span], "1e3");
    assert_eq!(
        (facts.n, facts.best_of, facts.prompts, facts.answers()),
        (2, 1, 1, 2)
    );
    let options = facts.stream_options.clone().unwrap();
    assert_eq!(&body[options.span], r#"{"include_usage":false}"#);
    assert_eq!(&body[options.include_usage.unwrap().1], "false");
    assert_eq!((facts.object_start, facts.object_empty), (2, false));
    // 3 once, 3 for the message, `user`, `hi\n` as its four raw bytes.
    assert_eq!(bound(&facts), 3 + 3 + 4 + 4);
}

#[test]
fn null_is_absent() {
    let facts = chat(r#"{"stream":null,"max_tokens":null,"n":null,"stream_options":null,"tools":null}"#);
    assert_eq!((facts.stream, facts.max_output(), facts.n), (false, None, 1));
    assert!(!facts.include_usage());
    assert!(chat("{}").object_empty);
}

#[test]
fn refusals_name_the_field_and_the_byte() {
    for (body, message) in [
        (r#"{"model":1}"#, "model: must be a string (at byte 9)"),
        (
            r#"{"model":"a","mod\u0065l":"b"}"#,
            "model: duplicate key (at byte 26)",
        ),
        (
            r#"{"messages":[],"messages":[]}"#,
            "messages: duplicate key (at byte 26)",
        ),
        (
            r#"{"model":"a","Model":"b"}"#,
            "Model: key must be in lower case (at byte 21)",
        ),
        (
            "{\"me\u{17f}\u{17f}ages\":1}",
            "me\u{17f}\u{17f}ages: key must be in lower case (at byte 14)",
        ),
        (
            r#"{"MAX_TOKENS":1}"#,
            "MAX_TOKENS: key must be in lower case (at byte 14)",
        ),
        (
            r#"{"max_tokens":"10"}"#,
            "max_tokens: must be an integer (at byte 14)",
        ),
        (
            r#"{"max_tokens":-1}"#,
            "max_tokens: must be at least 0 (at byte 14)",
        ),
        (
            r#"{"max_tokens":1.5}"#,
            "max_tokens: must be an integer (at byte 14)",
        ),
        (r#"{"max_tokens":1e999}"#, "max_tokens: too large (at byte 14)"),
        (
            r#"{"max_tokens":9223372036854775808}"#,
            "max_tokens: too large (at byte 14)",
        ),
        (
            r#"{"max_completion_tokens":[1]}"#,
            "max_completion_tokens: must be an integer (at byte 25)",
        ),
        (r#"{"n":0}"#, "n: must be at least 1 (at byte 5)"),
        (
            r#"{"stream":"true"}"#,
            "stream: must be true or false (at byte 10)",
        ),
        (
            r#"{"stream_options":true}"#,
            "stream_options: must be an object (at byte 18)",
        ),
        (
            r#"{"stream_options":{"include_usage":true,"include_usage":false}}"#,
            "stream_options.include_usage: duplicate key (at byte 56)",
        ),
        (
            r#"{"messages":{}}"#,
            "messages: must be an array of messages (at byte 12)",
        ),
        (
            r#"{"messages":[1]}"#,
            "messages.0: must be an object (at byte 13)",
        ),
        (
            r#"{"messages":[{},{"role":7}]}"#,
            "messages.1.role: must be a string (at byte 24)",
        ),
        (
            r#"{"messages":[{"content":true}]}"#,
            "messages.0.content: must be a string or an array of parts (at byte 24)",
        ),
        (
            r#"{"messages":[{"content":[{"image_url":{"url":"a","url":"b"}}]}]}"#,
            "messages.0.content.0.image_url.url: duplicate key (at byte 55)",
        ),
        (
            r#"{"messages":[{"content":"a"#,
            "messages.0.content: invalid JSON: unexpected end (at byte 26)",
        ),
        ("[]", "must be an object (at byte 0)"),
        ("", "invalid JSON: unexpected end (at byte 0)"),
        (
            "{} x",
            "invalid JSON: data after the end of the value (at byte 3)",
        ),
        (
            r#"{"max_tokens":x}"#,
            "max_tokens: invalid JSON: expected a value (at byte 14)",
        ),
    ] {
        assert_eq!(refusal(body), message, "{body}");
    }
    let deep = format!("{{\"metadata\":{}", "[".repeat(1_000_000));
    assert!(
        refusal(&deep).contains("nested deeper than 128"),
        "{}",
        refusal(&deep)
    );
    let mut bytes = br#"{"user":"abc"}"#.to_vec();
    bytes[9] = 0xff;
    let error = scan(&bytes, Api::Other, &[], &mut RequestFacts::new()).unwrap_err();
    assert_eq!(error.to_string(), "user: invalid UTF-8 (at byte 9)");
}

#[test]
fn duplicates_of_what_nobody_reads_pass() {
    chat(r#"{"user":"a","user":"b","metadata":{"x":1,"x":2}}"#);
}

#[test]
fn wanted_fields() {
    let paths: Vec<FieldPath> = [
        "messages.0.role",
        "messages.1.content",
        "temperature",
        "metadata.a.b",
        "metadata",
        "missing.x",
        "user",
        "ok",
        "none",
        "metadata.a",
    ]
    .iter()
    .map(|path| FieldPath::parse(path).unwrap())
    .collect();
    let body = r#"{"temperature":0.7,"messages":[{"role":"sys\u0074em"},{"role":"user","content":["x"]}],
        "metadata":{"z":[{}],"a":{"b":"c"}},"user":"u\n","ok":true,"none":null}"#;
    let mut facts = RequestFacts::new();
    for _ in 0..2 {
        scan(body.as_bytes(), Api::ChatCompletions, &paths, &mut facts).unwrap();
        let text = |text: &str| Some(Scalar::String(text.to_owned()));
        assert_eq!(
            facts.wanted,
            [
                text("system"),
                Some(Scalar::Other),
                Some(Scalar::Number(0.7)),
                text("c"),
                Some(Scalar::Other),
                None,
                text("u\n"),
                Some(Scalar::Bool(true)),
                Some(Scalar::Null),
                Some(Scalar::Other),
            ]
        );
    }
    for body in [
        r#"{"user":1,"us\u0065r":2}"#,
        r#"{"metadata":{"a":{"b":1,"b":2}}}"#,
        r#"{"metadata":{"a":{},"a":{"b":2}}}"#,
        r#"{"metadata":1,"metadata":{"a":{"b":2}}}"#,
        r#"{"messages":[{"role":"a","role":"b"}]}"#,
    ] {
        let error = scan(body.as_bytes(), Api::ChatCompletions, &paths, &mut facts).unwrap_err();
        assert_eq!(error.kind, ScanErrorKind::DuplicateKey, "{body}");
    }
    scan(
        br#"{"messages":[{},{"role":"a","role":"b"}]}"#,
        Api::ChatCompletions,
        &paths,
        &mut facts,
    )
    .unwrap();
}

#[test]
fn field_paths_parse() {
    assert_eq!(FieldPath::parse("a..b"), Err(FieldPathError::EmptySegment));
    assert_eq!(FieldPath::parse(""), Err(FieldPathError::EmptySegment));
    assert_eq!(
        FieldPath::parse(&["a"; 17].join(".")),
        Err(FieldPathError::TooLong)
    );
    assert!(FieldPath::parse(&["a"; 16].join(".")).is_ok());
}

#[test]
fn chat_formula() {
    let (texts, count) = counted(
        &json!({"model": "gpt-4o", "messages": [
            {"role": "system", "content": "be\nbrief", "name": "boss"},
            {"role": "user", "content": [{"type": "text", "text": "hi"}]},
        ]}),
        Api::ChatCompletions,
    );
    assert_eq!(texts, ["be\nbrief", "boss", "system", "hi", "user"]);
    assert_eq!(
        count,
        InputCount {
            tokens: 3 + 2 * 3 + 1 + 5,
            text_units: 5,
            beside_texts: 3 + 2 * 3 + 1,
            ..InputCount::default()
        }
    );
}

#[test]
fn tools_count_by_their_texts() {
    let (texts, count) = counted(
        &json!({"messages": [], "tools": [{"type": "function", "function": {"name": "weather", "parameters":
            {"type": "object", "properties": {"city": {"type": "string", "enum": ["A", 5]}}}}}]}),
        Api::ChatCompletions,
    );
    assert_eq!(
        texts,
        ["weather", "city", "A", "5", "string", "object", "function"]
    );
    assert_eq!(count.tokens, 3 + 12 + 7 + 3 + 6 + 7);
}

#[test]
fn images_cost_by_size() {
    let png = "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAABAAAAAQACAYAAAAAAA";
    let message = |part: Value| json!({"model": "gpt-4o", "messages": [{"role": "user", "content": [part]}]});
    let tokens = |part: Value| {
        let (texts, count) = counted(&message(part), Api::ChatCompletions);
        assert_eq!(texts, ["user"]);
        assert_eq!(count.images, 1);
        count.tokens - 7
    };
    assert_eq!(
        tokens(json!({"type": "image_url", "image_url": {"url": png}})),
        765
    );
    assert_eq!(
        tokens(json!({"type": "image_url", "image_url": {"url": png, "detail": "low"}})),
        85
    );
    assert_eq!(
        tokens(json!({"type": "image_url", "image_url": {"url": "https://example.com/x.png"}})),
        1445
    );
    let long = format!("{png}{}", "A".repeat(1_000_000));
    assert_eq!(
        tokens(json!({"type": "image_url", "image_url": {"url": long}})),
        765
    );
    let facts = chat(&message(json!({"type": "image_url", "image_url": {"url": long}})).to_string());
    assert_eq!((facts.input.images, bound(&facts)), (1, 3 + 3 + 4 + 1445));

    let data = png.split_once(',').unwrap().1;
    let (_, count) = counted(
        &json!({"messages": [{"role": "user", "content": [{"type": "image", "source":
            {"type": "base64", "media_type": "image/png", "data": data}}]}], "model": "claude-sonnet-4-5"}),
        Api::AnthropicMessages,
    );
    assert_eq!(count.tokens, 6 + 3 + 1 + 37 * 37);

    let (_, count) = counted(
        &json!({"model": "gpt-4o", "input": [{"role": "user", "content": [
            {"type": "input_image", "image_url": png, "detail": "low"}]}]}),
        Api::Responses,
    );
    assert_eq!(count.tokens, 3 + 3 + 1 + 85);
}

#[test]
fn text_in_disguise_is_text() {
    for part in [
        json!({"type": "text", "text": "data:image/png;base64,secret"}),
        json!({"type": "unknown", "whatever": {"deep": ["data:image/png;base64,secret"]}}),
        json!({"type": "document", "source": {"type": "text", "data": "data:image/png;base64,secret"}}),
    ] {
        let (texts, _) = counted(
            &json!({"messages": [{"content": [part]}]}),
            Api::AnthropicMessages,
        );
        assert_eq!(texts, ["data:image/png;base64,secret"]);
    }
}

#[test]
fn prompts_of_every_shape() {
    for (prompt, api, most, prompts) in [
        (json!("abc"), Api::Completions, 3, 1),
        (json!(["abc", "de"]), Api::Completions, 5, 2),
        (json!([1, 2, 300]), Api::Completions, 3, 1),
        (json!([[1, 2], [3]]), Api::Completions, 3, 2),
        (json!(null), Api::Completions, 0, 1),
        (json!([]), Api::Embeddings, 0, 1),
        (json!(["a", "b", "c"]), Api::Embeddings, 3, 3),
    ] {
        let key = if api == Api::Embeddings { "input" } else { "prompt" };
        let body = json!({key: prompt, "best_of": 2}).to_string();
        let facts = facts(&body, api).unwrap();
        assert_eq!((bound(&facts), facts.prompts), (most, prompts), "{body}");
        assert_eq!(facts.answers(), 2 * prompts);
    }
    for bad in [
        r#"{"prompt":[true]}"#,
        r#"{"prompt":{}}"#,
        r#"{"prompt":[1.5]}"#,
        r#"{"prompt":[["a"]]}"#,
    ] {
        assert!(
            matches!(
                facts(bad, Api::Completions).unwrap_err().kind,
                ScanErrorKind::WrongType(_)
            ),
            "{bad}"
        );
    }
}

#[test]
fn responses_and_anthropic_inputs() {
    let (texts, count) = counted(
        &json!({"instructions": "be kind", "input": "hello", "previous_response_id": "resp_1"}),
        Api::Responses,
    );
    assert_eq!(texts, ["hello", "be kind", "resp_1"]);
    assert!(count.hidden_input);
    let (texts, _) = counted(
        &json!({"input": [
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "q"}]},
            {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{\"a\":1}"},
            {"type": "function_call_output", "call_id": "c", "output": "r"},
        ]}),
        Api::Responses,
    );
    assert_eq!(texts, ["q", "user", "{\"a\":1}", "c", "f", "c", "r"]);
    let (texts, _) = counted(
        &json!({"system": [{"type": "text", "text": "sys"}], "messages": [
            {"role": "assistant", "content": [{"type": "tool_use", "id": "t", "name": "f", "input": {"k": ["v", 10]}}]},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "t", "content": [{"type": "text", "text": "r"}]}]},
        ]}),
        Api::AnthropicMessages,
    );
    assert_eq!(
        texts,
        ["t", "k", "v", "10", "f", "assistant", "r", "t", "user", "sys"]
    );
}

#[test]
fn other_apis_count_all_strings() {
    let facts = facts(
        r#"{"model":"tts","input":"hello","n":1,"x":{"y":["z"]}}"#,
        Api::Other,
    )
    .unwrap();
    assert_eq!(bound(&facts), 6);
}

fn rewritten(body: &str, change: impl FnOnce(&mut Rewrite<'_>)) -> String {
    let mut facts = RequestFacts::new();
    scan(body.as_bytes(), Api::ChatCompletions, &[], &mut facts).unwrap();
    let mut rewrite = Rewrite::new(&facts);
    change(&mut rewrite);
    let mut out = Vec::new();
    rewrite.write_into(body.as_bytes(), &mut out);
    assert_eq!(out.len(), rewrite.len(body.len()));
    assert_eq!(rewrite.is_empty(), out == body.as_bytes());
    String::from_utf8(out).unwrap()
}

#[test]
fn rewrites_in_place() {
    let all = |rewrite: &mut Rewrite<'_>| {
        rewrite.set_model("up\"stream");
        rewrite.limit_output(500, MaxTokensName::MaxTokens);
        rewrite.limit_output(100, MaxTokensName::MaxTokens);
        rewrite.include_usage();
        rewrite.include_usage();
    };
    for (body, want) in [
        (
            "{}",
            r#"{"model":"up\"stream","max_tokens":100,"stream_options":{"include_usage":true}}"#,
        ),
        (
            r#" { "model":"m" , "max_tokens": 200,"stream_options" : {} }"#,
            r#" { "model":"up\"stream" , "max_tokens": 100,"stream_options" : {"include_usage":true} }"#,
        ),
        (
            r#"{"stream_options":{"x":1},"max_tokens":null,"model":"m"}"#,
            r#"{"stream_options":{"include_usage":true,"x":1},"max_tokens":100,"model":"up\"stream"}"#,
        ),
        (
            r#"{"stream_options":{"include_usage":null},"max_completion_tokens":300,"max_tokens":50,"model":"m"}"#,
            r#"{"stream_options":{"include_usage":true},"max_completion_tokens":100,"max_tokens":50,"model":"up\"stream"}"#,
        ),
        (
            r#"{"stream_options":null,"max_output_tokens":null}"#,
            r#"{"model":"up\"stream","max_tokens":100,"stream_options":{"include_usage":true},"max_output_tokens":null}"#,
        ),
    ] {
        assert_eq!(rewritten(body, all), want);
    }
    // A maximum in a spelling that the API does not know limits nothing.
    assert_eq!(
        rewritten(r#"{"max_output_tokens":9}"#, |rewrite| rewrite
            .limit_output(5, MaxTokensName::MaxTokens)),
        r#"{"max_tokens":5,"max_output_tokens":5}"#
    );
    assert_eq!(chat(r#"{"max_output_tokens":9}"#).max_output(), None);
    assert_eq!(
        facts(r#"{"max_output_tokens":9}"#, Api::Responses)
            .unwrap()
            .max_output(),
        Some(9)
    );
    let same = r#"{"model":"m","max_tokens":5,"stream_options":{"include_usage":true}}"#;
    let unchanged = rewritten(same, |rewrite| {
        rewrite.set_model("m");
        rewrite.limit_output(5, MaxTokensName::MaxTokens);
        rewrite.include_usage();
    });
    assert_eq!(unchanged, same);
}

fn text() -> impl Strategy<Value = Value> {
    prop_oneof![
        "[a-z ]{0,12}",
        "[\\PC\\n\"\\\\]{0,12}",
        "data:image/png;base64,[A-Za-z0-9+/]{0,80}"
    ]
    .prop_map(Value::from)
}

/// Values with the keys that the walk knows, in sensible and in senseless places.
fn content() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        4 => text(),
        1 => Just(Value::Null),
        1 => any::<bool>().prop_map(Value::from),
        1 => (0_u32..1000).prop_map(Value::from),
        1 => any::<i32>().prop_map(|number| Value::from(f64::from(number) / 8.0)),
    ];
    let key = prop::sample::select(vec![
        "role",
        "name",
        "type",
        "text",
        "content",
        "image_url",
        "url",
        "detail",
        "source",
        "data",
        "media_type",
        "input_audio",
        "file",
        "file_data",
        "file_id",
        "input",
        "tool_calls",
        "output",
        "summary",
        "image",
        "encrypted_content",
        "parameters",
        "properties",
        "enum",
        "function",
        "description",
        "other",
    ]);
    leaf.prop_recursive(5, 40, 5, move |inner| {
        prop_oneof![
            1 => prop::collection::vec(inner.clone(), 0..4).prop_map(Value::from),
            3 => prop::collection::btree_map(key.clone(), inner, 0..5).prop_map(|map| Value::Object(
                map.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
            )),
        ]
    })
}

fn apis() -> impl Strategy<Value = Api> {
    prop::sample::select(vec![
        Api::ChatCompletions,
        Api::Completions,
        Api::Responses,
        Api::Embeddings,
        Api::AnthropicMessages,
        Api::AnthropicCountTokens,
        Api::Other,
    ])
}

fn bodies() -> impl Strategy<Value = Value> {
    let message = prop::collection::btree_map(
        prop::sample::select(vec!["role", "name", "content", "tool_calls", "output", "type"]),
        prop_oneof![2 => text(), 2 => content()],
        0..5,
    )
    .prop_map(|map| {
        Value::Object(
            map.into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect(),
        )
    });
    let part = prop_oneof![
        2 => text(),
        2 => content(),
        3 => prop::collection::vec(message, 0..4).prop_map(Value::from),
    ];
    let keys = prop::sample::select(vec![
        "messages",
        "prompt",
        "input",
        "suffix",
        "system",
        "instructions",
        "tools",
        "functions",
        "tool_choice",
        "response_format",
        "text",
        "documents",
        "conversation",
        "user",
    ]);
    (
        prop::collection::btree_map(keys, part, 0..6),
        prop::option::of(prop::sample::select(vec![
            "gpt-4o",
            "gpt-4o-mini",
            "claude-4-7",
            "gpt-5-nano",
            "m\"\n",
        ])),
        prop::option::of(prop_oneof![
            Just(Value::Null),
            (0_u64..5000).prop_map(Value::from)
        ]),
        prop::option::of(prop_oneof![
            Just(Value::Null),
            (0_u64..5000).prop_map(Value::from)
        ]),
        prop::option::of(prop_oneof![
            Just(Value::Null),
            Just(json!({})),
            Just(json!({"x": [1]})),
            any::<bool>().prop_map(|include| json!({"include_usage": include, "a": {}}))
        ]),
    )
        .prop_map(|(parts, model, max, completion, options)| {
            let mut object: serde_json::Map<String, Value> = parts
                .into_iter()
                .map(|(key, value)| (key.to_owned(), value))
                .collect();
            let members = [
                ("model", model.map(Value::from)),
                ("max_tokens", max),
                ("max_completion_tokens", completion),
                ("stream_options", options),
            ];
            object.extend(
                members
                    .into_iter()
                    .filter_map(|(key, value)| Some((key.to_owned(), value?))),
            );
            Value::Object(object)
        })
}

/// ASCII only: every other character as `\uXXXX`.
fn escaped(json: &str) -> String {
    let mut out = String::new();
    let mut units = [0; 2];
    for character in json.chars() {
        if character.is_ascii() {
            out.push(character);
        } else {
            for unit in character.encode_utf16(&mut units) {
                out.push_str(&format!("\\u{unit:04x}"));
            }
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn bound_is_never_below_the_count(body in bodies(), api in apis(), pretty: bool, ascii: bool) {
        let mut text = if pretty { serde_json::to_string_pretty(&body).unwrap() } else { body.to_string() };
        if ascii {
            text = escaped(&text);
        }
        let mut facts = RequestFacts::new();
        match scan(text.as_bytes(), api, &[], &mut facts) {
            Ok(()) => {
                let count = count_input(text.as_bytes(), api, &Formula::default(), &mut Bytes).unwrap();
                prop_assert!(count.tokens <= bound(&facts), "{} > {}", count.tokens, bound(&facts));
                prop_assert_eq!(count.images, facts.input.images);
                prop_assert_eq!(count.hidden_input, facts.hidden_input);
            }
            Err(error) => prop_assert!(matches!(error.kind, ScanErrorKind::WrongType(_)), "{}", error),
        }
    }

    /// Nothing of one body stays in the facts of the next, whatever either of them is.
    #[test]
    fn facts_that_are_used_again_are_as_good_as_new(
        bodies in prop::collection::vec((bodies(), apis(), any::<prop::sample::Index>(), any::<bool>()), 1..5),
    ) {
        let wanted = ["messages.0.content", "user", "model", "metadata.a"].map(|path| FieldPath::parse(path).unwrap());
        let mut used = RequestFacts::new();
        for (body, api, cut, whole) in bodies {
            let mut text = body.to_string().into_bytes();
            if !whole {
                text.truncate(cut.index(text.len()));
            }
            let mut new = RequestFacts::new();
            let expected = scan(&text, api, &wanted, &mut new);
            prop_assert_eq!(scan(&text, api, &wanted, &mut used), expected.clone());
            if expected.is_ok() {
                prop_assert_eq!(&used, &new);
            }
            used.clear();
            prop_assert_eq!(&used, &RequestFacts::new());
        }
    }

    #[test]
    fn rewriting_changes_only_what_it_should(body in bodies(), max in 0_u64..5000, model in ".{1,10}", pretty: bool) {
        let text = if pretty { serde_json::to_string_pretty(&body).unwrap() } else { body.to_string() };
        let mut facts = RequestFacts::new();
        // `Other` takes any content.
        scan(text.as_bytes(), Api::Other, &[], &mut facts).unwrap();
        let mut rewrite = Rewrite::new(&facts);
        rewrite.set_model(&model);
        rewrite.limit_output(max, MaxTokensName::MaxCompletionTokens);
        rewrite.include_usage();
        let mut out = Vec::new();
        rewrite.write_into(text.as_bytes(), &mut out);
        prop_assert_eq!(out.len(), rewrite.len(text.len()));

        let mut want = body.clone();
        let object = want.as_object_mut().unwrap();
        object.insert("model".to_owned(), model.clone().into());
        let mut named = false;
        for name in ["max_tokens", "max_completion_tokens"] {
            if let Some(value) = object.get(name).and_then(Value::as_u64) {
                named = true;
                object.insert(name.to_owned(), value.min(max).into());
            }
        }
        if !named {
            object.insert("max_completion_tokens".to_owned(), max.into());
        }
        let options = object.entry("stream_options").or_insert(Value::Null);
        if options.is_null() {
            *options = json!({});
        }
        options.as_object_mut().unwrap().insert("include_usage".to_owned(), true.into());
        prop_assert_eq!(serde_json::from_slice::<Value>(&out).unwrap(), want);

        // The result is a body that the scan reads the same way: no key was doubled.
        let mut again = RequestFacts::new();
        scan(&out, Api::Other, &[], &mut again).unwrap();
        prop_assert_eq!(&again.model.clone().unwrap().value, &model);
        prop_assert!(again.max_output().unwrap() <= max && again.include_usage());
    }

    /// Wanted fields agree with `serde_json`'s pointers.
    #[test]
    fn wanted_fields_agree_with_a_tree(body in content(), seed: u64) {
        let text = json!({"a": body, "b": 1}).to_string();
        let tree: Value = serde_json::from_str(&text).unwrap();
        let mut pointers = Vec::new();
        collect(&tree, String::new(), &mut pointers);
        pointers.retain(|pointer| pointer.matches('/').count() <= 16);
        let paths: Vec<FieldPath> =
            pointers.iter().map(|pointer| FieldPath::parse(&pointer[1..].replace('/', ".")).unwrap()).collect();
        // In another order than the document's.
        let mut order: Vec<usize> = (0..paths.len()).collect();
        order.sort_by_key(|index| (*index as u64).wrapping_mul(seed | 1));
        let wanted: Vec<FieldPath> = order.iter().map(|&index| paths[index].clone()).collect();
        let mut facts = RequestFacts::new();
        scan(text.as_bytes(), Api::ChatCompletions, &wanted, &mut facts).unwrap();
        for (found, index) in facts.wanted.iter().zip(order) {
            let want = match tree.pointer(&pointers[index]).unwrap() {
                Value::Null => Scalar::Null,
                Value::Bool(value) => Scalar::Bool(*value),
                Value::Number(value) => Scalar::Number(value.as_f64().unwrap()),
                Value::String(value) => Scalar::String(value.clone()),
                _ => Scalar::Other,
            };
            prop_assert_eq!(found.as_ref(), Some(&want));
        }
    }

    #[test]
    fn broken_bodies_never_panic(body in bodies(), api in apis(), at: prop::sample::Index, byte: u8, cut: bool) {
        let mut text = body.to_string().into_bytes();
        let at = at.index(text.len());
        if cut { text.truncate(at) } else { text[at] = byte }
        let wanted = [FieldPath::parse("messages.0.content.0.text").unwrap(), FieldPath::parse("tools.0").unwrap()];
        let mut facts = RequestFacts::new();
        if scan(&text, api, &wanted, &mut facts).is_ok() {
            prop_assert!(count_input(&text, api, &Formula::default(), &mut Bytes).unwrap().tokens <= bound(&facts));
        }
        let _ = count_input(&text, api, &Formula::default(), &mut Bytes);
    }
}

fn collect(value: &Value, path: String, out: &mut Vec<String>) {
    if !path.is_empty() {
        out.push(path.clone());
    }
    match value {
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                collect(item, format!("{path}/{index}"), out);
            }
        }
        Value::Object(members) => {
            for (key, member) in members {
                collect(member, format!("{path}/{key}"), out);
            }
        }
        _ => {}
    }
}
