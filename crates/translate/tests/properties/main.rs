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

mod made;
mod seen;

use made::{Made, anthropic, arguments, gemini, made, openai};
use proptest::prelude::*;
use seen::{Seen, events, seen_in_chunks, seen_in_completion, seen_in_events, seen_in_message};
use serde_json::{Value, json};
use tollgate_translate::{
    Ask, Context, Options, Pair, Protocol, StreamTranslator, translate_request, translate_response,
};

fn expected(pair: Pair, made: &Made) -> Seen {
    let words = match pair.client() {
        Protocol::AnthropicMessages => ["end_turn", "max_tokens", "refusal", "tool_use"],
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
            let (whole, stream) = match pair.upstream() {
                Protocol::AnthropicMessages => anthropic(&made, &fragment_cuts),
                Protocol::Gemini => gemini(&made),
                Protocol::OpenAiChat => openai(&made, &fragment_cuts),
            };
            let answer = translate_response(pair, 200, whole.to_string().as_bytes(), &context());
            prop_assert_eq!(answer.status, 200);
            let body: Value = serde_json::from_slice(&answer.body).unwrap();
            let stream = translated(pair, stream.replace('\n', ending).as_bytes(), &cuts);
            let (from_whole, from_stream) = match pair.client() {
                Protocol::AnthropicMessages => (seen_in_message(&body), seen_in_events(&stream)),
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
