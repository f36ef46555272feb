//! Golden files: what each pair makes of requests, whole answers, streams and errors.
//!
//! `tests/golden/<pair>/<kind>/<name>.in.*` is the input, `<name>.out.*` what must come out. A name may say more: an
//! answer's `status-<n>` is its HTTP status, a stream's `-nousage` that the client has not asked for usage,
//! `-nothinking` that it has not asked for thinking. A request's `model` is taken as the upstream's name. With
//! `TOLLGATE_BLESS=1` the outputs are written anew; read the difference before you keep them.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a broken expectation is a failed test"
)]

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};
use tollgate_translate::{
    Ask, Context, Options, Pair, Refusal, Sampling, StreamTranslator, Thinking, Translated,
    translate_request, translate_response,
};

const PAIRS: [(Pair, &str); 4] = [
    (Pair::OpenAiToAnthropic, "openai-to-anthropic"),
    (Pair::OpenAiToGemini, "openai-to-gemini"),
    (Pair::AnthropicToOpenAi, "anthropic-to-openai"),
    (Pair::AnthropicToGemini, "anthropic-to-gemini"),
];

fn folder(pair: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(pair)
}

fn inputs(pair: &str, kind: &str) -> Vec<(String, Vec<u8>, PathBuf)> {
    let mut found: Vec<_> = fs::read_dir(folder(pair).join(kind))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter_map(|path| {
            let file = path.file_name().unwrap().to_str().unwrap();
            let (name, extension) = file.split_once(".in.")?;
            let out = path.with_file_name(format!("{name}.out.{extension}"));
            Some((name.to_owned(), fs::read(&path).unwrap(), out))
        })
        .collect();
    assert!(found.len() > 4, "golden files of {pair}/{kind} are missing");
    found.sort();
    found
}

fn compare(found: &str, path: &Path) {
    if std::env::var_os("TOLLGATE_BLESS").is_some() {
        fs::write(path, found).unwrap();
    }
    let expected = fs::read_to_string(path).unwrap_or_default();
    assert_eq!(found, expected, "differs from {}", path.display());
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap() + "\n"
}

fn context(name: &str) -> Context {
    Context {
        id: "request-1".to_owned(),
        model: None,
        created: 1_700_000_000,
        ask: Ask {
            include_usage: !name.ends_with("-nousage"),
            thinking: !name.ends_with("-nothinking"),
        },
    }
}

fn translate(pair: Pair, request: &[u8]) -> Result<Translated, Refusal> {
    let parsed: Value = serde_json::from_slice(request).unwrap();
    let model = parsed.get("model").and_then(Value::as_str).unwrap_or("model");
    translate_request(pair, request, &Options::new(model))
}

fn stream(pair: Pair, name: &str, chunks: &[&[u8]]) -> String {
    let mut translator = StreamTranslator::new(pair, context(name));
    let mut out = Vec::new();
    for chunk in chunks {
        translator.push(chunk, &mut out);
    }
    translator.end(&mut out);
    let length = out.len();
    translator.push(b"data: {}\n\n", &mut out);
    translator.end(&mut out);
    assert!(
        translator.ended() && out.len() == length,
        "{name} writes after its end"
    );
    String::from_utf8(out).unwrap()
}

#[test]
fn requests() {
    for (pair, folder) in PAIRS {
        for (name, input, out) in inputs(folder, "request") {
            let translated =
                translate(pair, &input).unwrap_or_else(|refusal| panic!("{folder}/{name}: {refusal}"));
            let body: Value = serde_json::from_slice(&translated.body).unwrap();
            let found = json!({
                "path": translated.path,
                "stream": translated.stream,
                "headers": translated.headers,
                "ask": format!("{:?}", translated.ask),
                "body": body,
            });
            compare(&pretty(&found), &out);
        }
    }
}

#[test]
fn numbers_keep_their_digits() {
    let request = fs::read(folder("openai-to-anthropic").join("request/tools.in.json")).unwrap();
    let body = translate(Pair::OpenAiToAnthropic, &request).unwrap().body;
    let text = String::from_utf8(body).unwrap();
    assert!(
        text.contains(r#""big": 12345678901234567890, "f": 1.0"#),
        "{text}"
    );
}

#[test]
fn refusals_name_the_field() {
    for (pair, name) in PAIRS {
        let cases: Vec<Value> =
            serde_json::from_slice(&fs::read(folder(name).join("refusals.json")).unwrap()).unwrap();
        assert!(cases.len() > 20);
        for case in cases {
            let request = case["request"].to_string();
            let refusal = match translate(pair, request.as_bytes()) {
                Err(refusal) => refusal,
                Ok(translated) => {
                    panic!(
                        "{name} accepts {request} as {}",
                        String::from_utf8_lossy(&translated.body)
                    )
                }
            };
            assert_eq!(
                refusal.path,
                case["path"].as_str().unwrap(),
                "{name}: {request}: {refusal}"
            );
            assert!(!refusal.reason.is_empty());
            let body: Value = serde_json::from_slice(&refusal.body(pair.client())).unwrap();
            assert!(body["error"]["message"].as_str().unwrap().contains(&refusal.path));
        }
    }
}

#[test]
fn answers() {
    for (pair, folder) in PAIRS {
        for (name, input, out) in inputs(folder, "answer") {
            let status = name
                .strip_prefix("status-")
                .map_or(200, |status| status.parse().unwrap());
            let answer = translate_response(pair, status, &input, &context(&name));
            let body: Value = serde_json::from_slice(&answer.body).unwrap();
            compare(&pretty(&json!({ "status": answer.status, "body": body })), &out);
        }
    }
}

#[test]
fn streams() {
    for (pair, folder) in PAIRS {
        for (name, input, out) in inputs(folder, "stream") {
            compare(&stream(pair, &name, &[&input]), &out);
        }
    }
}

#[test]
fn streams_do_not_depend_on_cuts_or_line_ends() {
    for (pair, folder) in PAIRS {
        for (name, input, _) in inputs(folder, "stream") {
            let whole = stream(pair, &name, &[&input]);
            let text = String::from_utf8(input).unwrap().replace("\r\n", "\n");
            for ending in ["\n", "\r\n", "\r"] {
                let text = text.replace('\n', ending);
                let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
                assert_eq!(
                    stream(pair, &name, &bytes),
                    whole,
                    "{folder}/{name} byte by byte, {ending:?}"
                );
            }
            let text = text.replace('\n', "\r\n");
            for cut in 0..=text.len() {
                let (before, after) = text.as_bytes().split_at(cut);
                assert_eq!(
                    stream(pair, &name, &[before, after]),
                    whole,
                    "{folder}/{name} cut at {cut}"
                );
            }
        }
    }
}

/// Each upstream event's translation is there as soon as the event's last byte is.
#[test]
fn streams_hold_nothing_back() {
    for (pair, folder) in PAIRS {
        for (name, input, _) in inputs(folder, "stream")
            .into_iter()
            .filter(|(name, ..)| name == "text")
        {
            let text = String::from_utf8(input).unwrap().replace("\r\n", "\n");
            let mut translator = StreamTranslator::new(pair, context(&name));
            for event in text.split_inclusive("\n\n") {
                let mut out = Vec::new();
                translator.push(event.as_bytes(), &mut out);
                let out = String::from_utf8(out).unwrap();
                if event.contains("Hé") {
                    assert!(out.contains("Hé"), "{folder}/{name} delays {event}");
                }
                assert!(out.is_empty() || out.ends_with("\n\n"));
            }
        }
    }
}

#[test]
fn an_endless_event_ends_the_stream_with_an_error() {
    for (pair, folder) in PAIRS {
        let mut translator = StreamTranslator::new(pair, context("x"));
        let mut out = Vec::new();
        translator.push(b"data: {\"", &mut out);
        let megabyte = vec![b'x'; 1 << 20];
        for _ in 0..17 {
            translator.push(&megabyte, &mut out);
        }
        assert!(translator.ended());
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.contains("longer than 16 MiB") && text.matches("data:").count() == 1,
            "{folder}: {text}"
        );
    }
}

#[test]
fn the_gateway_may_end_a_stream_itself() {
    for (pair, folder) in PAIRS {
        let mut translator = StreamTranslator::new(pair, context("x"));
        let mut out = Vec::new();
        translator.abort(
            tollgate_translate::ErrorKind::Timeout,
            "upstream_timeout",
            "too slow",
            &mut out,
        );
        translator.abort(
            tollgate_translate::ErrorKind::Timeout,
            "upstream_timeout",
            "too slow",
            &mut out,
        );
        let text = String::from_utf8(out).unwrap();
        assert!(
            text.ends_with("\n\n") && text.matches("too slow").count() == 1,
            "{folder}: {text}"
        );
    }
}

#[test]
fn the_client_sees_the_model_that_it_asked_for() {
    let answer = fs::read(folder("openai-to-anthropic").join("answer/text.in.json")).unwrap();
    let context = Context {
        model: Some("public-\"name\"".to_owned()),
        ..context("x")
    };
    let answer = translate_response(Pair::OpenAiToAnthropic, 200, &answer, &context);
    let body: Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(body["model"], "public-\"name\"");
}

#[test]
fn the_reserved_maximum_replaces_the_asked_one() {
    for (pair, request, field) in [
        (
            Pair::OpenAiToAnthropic,
            r#"{"messages":[{"role":"user","content":"x"}],"max_tokens":900}"#,
            "max_tokens",
        ),
        (
            Pair::AnthropicToOpenAi,
            r#"{"messages":[{"role":"user","content":"x"}],"max_tokens":900}"#,
            "max_tokens",
        ),
    ] {
        let options = Options {
            max_tokens: Some(77),
            ..Options::new("m")
        };
        let body: Value = serde_json::from_slice(
            &translate_request(pair, request.as_bytes(), &options)
                .unwrap()
                .body,
        )
        .unwrap();
        assert_eq!(body[field], 77);
    }
}

#[test]
fn the_operator_decides_what_becomes_of_sampling_parameters() {
    let request = br#"{"messages":[{"role":"user","content":"x"}],"temperature":0.5}"#;
    for (sampling, sent) in [(Sampling::Send, true), (Sampling::Omit, false)] {
        let options = Options {
            sampling,
            ..Options::new("claude-opus-5")
        };
        let body = translate_request(Pair::OpenAiToAnthropic, request, &options)
            .unwrap()
            .body;
        assert_eq!(String::from_utf8(body).unwrap().contains("temperature"), sent);
    }
}

#[test]
fn the_operator_decides_how_thinking_is_asked_for() {
    let request =
        br#"{"messages":[{"role":"user","content":"x"}],"reasoning_effort":"low","max_tokens":9000}"#;
    for (pair, thinking, expected) in [
        (Pair::OpenAiToAnthropic, Thinking::Off, ""),
        (
            Pair::OpenAiToAnthropic,
            Thinking::Budget,
            r#""thinking":{"type":"enabled","budget_tokens":1024}"#,
        ),
        (
            Pair::OpenAiToAnthropic,
            Thinking::Level,
            r#""output_config":{"effort":"low"}"#,
        ),
        (Pair::OpenAiToGemini, Thinking::Off, ""),
        (Pair::OpenAiToGemini, Thinking::Budget, r#""thinkingBudget":1024"#),
        (Pair::OpenAiToGemini, Thinking::Level, r#""thinkingLevel":"low""#),
    ] {
        let options = Options {
            thinking,
            ..Options::new("some-model")
        };
        let body = String::from_utf8(translate_request(pair, request, &options).unwrap().body).unwrap();
        assert!(body.contains(expected), "{body}");
        assert_eq!(
            body.contains("think") || body.contains("effort"),
            thinking != Thinking::Off,
            "{body}"
        );
    }
}
