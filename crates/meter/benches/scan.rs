//! What reading one body costs, beside parsers that others use: `cargo bench -p tollgate-meter --bench scan`.
//!
//! Readers of one body take turns, and each figure is the best of many short rounds, so that other work on the machine
//! shows less. `-- NAME CALLS` reads one body again and again instead, for counting instructions:
//! `valgrind --tool=callgrind --toggle-collect='scan::measured' target/release/deps/scan-... request-1k 1000`.

use std::hint::black_box;
use std::time::Instant;

use serde::de::IgnoredAny;
use tollgate_meter::Api;
use tollgate_meter::request::{RequestFacts, scan};
use tollgate_meter::response::{JsonWatch, NoText, StreamState, TextBytes, inspect};

/// Rounds of which the best counts.
const ROUNDS: u32 = 60;
/// Bytes that a reader gets in one round.
const ROUND_BYTES: usize = 1 << 20;

const EVENT_HEAD: &str = "data: ";
const EVENT_TAIL: &str = "\n\n";

/// What a body is to the gateway.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Request,
    /// An answer that lies in memory whole.
    Answer,
    /// An answer that comes in pieces of this many bytes.
    Pieces(usize),
    /// One event of a stream, its `data:` included.
    Event(Api),
}

struct Body {
    name: &'static str,
    kind: Kind,
    bytes: Vec<u8>,
}

fn prose(bytes: usize) -> String {
    let sentence = "The ferry to the island leaves from the second pier at nine, and the way back takes an hour longer. ";
    sentence.chars().cycle().take(bytes).collect()
}

/// A chat request whose messages hold `texts`.
fn request(texts: &[String]) -> Vec<u8> {
    let messages: Vec<_> = texts
        .iter()
        .map(|text| serde_json::json!({ "role": "user", "content": text }))
        .collect();
    serde_json::json!({ "model": "gpt-4o", "temperature": 0.2, "max_tokens": 256, "messages": messages })
        .to_string()
        .into_bytes()
}

/// A chat completion.
fn answer(text: &str) -> Vec<u8> {
    serde_json::json!({
        "id": "chatcmpl-000000000000", "object": "chat.completion", "created": 1_700_000_000, "model": "gpt-4o",
        "choices": [{ "index": 0, "finish_reason": "stop", "message": { "role": "assistant", "content": text } }],
        "usage": { "prompt_tokens": 228, "completion_tokens": 70, "total_tokens": 298 },
    })
    .to_string()
    .into_bytes()
}

/// Text that is half escapes: source code with quotes, tabs and line ends.
fn code(bytes: usize) -> String {
    let lines = "\tif (name == \"x\\n\") {\n\t\treturn \"\\\"\";\n\t}\n";
    lines.chars().cycle().take(bytes).collect()
}

fn event(data: &str) -> Vec<u8> {
    format!("{EVENT_HEAD}{data}{EVENT_TAIL}").into_bytes()
}

fn bodies() -> Vec<Body> {
    let body = |name, kind, bytes| Body { name, kind, bytes };
    let unicode: String = "你好，世界。今天天气很好。"
        .chars()
        .cycle()
        .take(1600)
        .flat_map(|character| format!("\\u{:04x}", u32::from(character)).into_bytes())
        .map(char::from)
        .collect();
    let unicode = format!("{{\"model\":\"gpt-4o\",\"messages\":[{}]}}", {
        vec![format!("{{\"role\":\"user\",\"content\":\"{unicode}\"}}"); 10].join(",")
    });
    let words = |count: usize, bytes: usize| vec![prose(bytes); count];
    vec![
        body("request-1k", Kind::Request, request(&[prose(56), prose(820)])),
        body("request-100k", Kind::Request, request(&words(10, 10_000))),
        body("request-100k-short", Kind::Request, request(&words(1_750, 24))),
        body("request-100k-chinese", Kind::Request, {
            let text: String = "你好，世界。今天天气很好。".chars().cycle().take(3300).collect();
            request(&vec![text; 10])
        }),
        body(
            "request-100k-code",
            Kind::Request,
            request(&vec![code(7_000); 10]),
        ),
        body("request-100k-lines", Kind::Request, {
            request(&vec![format!("{}\n", prose(44)).repeat(210); 10])
        }),
        body("request-100k-unicode", Kind::Request, unicode.into_bytes()),
        body("answer-600", Kind::Answer, answer(&prose(350))),
        body("answer-100k", Kind::Answer, answer(&prose(100_000))),
        body("answer-100k-code", Kind::Answer, answer(&code(70_000))),
        body("answer-600-pieces", Kind::Pieces(200), answer(&prose(350))),
        body("answer-100k-pieces", Kind::Pieces(4096), answer(&prose(100_000))),
        body(
            "event-openai",
            Kind::Event(Api::ChatCompletions),
            event(
                r#"{"id":"chatcmpl-9abcdefghijklmnopqrstuvwx","object":"chat.completion.chunk","created":1700000000,"model":"gpt-4o-2024-08-06","service_tier":"default","system_fingerprint":"fp_0123456789","choices":[{"index":0,"delta":{"content":" hello"},"logprobs":null,"finish_reason":null}],"usage":null}"#,
            ),
        ),
        body(
            "event-anthropic",
            Kind::Event(Api::AnthropicMessages),
            event(
                r#"{"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":" hello"}}"#,
            ),
        ),
        body(
            "event-responses",
            Kind::Event(Api::Responses),
            event(
                r#"{"type":"response.output_text.delta","item_id":"msg_0123456789abcdef","output_index":0,"content_index":0,"delta":" hello","logprobs":[],"sequence_number":17}"#,
            ),
        ),
    ]
}

/// Reads the body as the module does.
#[inline(never)]
fn measured(body: &Body, (facts, stream): &mut (RequestFacts, StreamState)) {
    let bytes = black_box(body.bytes.as_slice());
    match body.kind {
        Kind::Request => {
            let _ = black_box(scan(bytes, Api::ChatCompletions, &[], facts));
        }
        Kind::Answer => {
            black_box(JsonWatch::whole(bytes, Api::ChatCompletions, &mut NoText));
        }
        Kind::Pieces(length) => {
            let mut watch = JsonWatch::new(Api::ChatCompletions);
            let mut text = TextBytes::default();
            for piece in bytes.chunks(length) {
                watch.feed(piece, &mut text);
            }
            black_box(watch.finish(&mut text));
        }
        Kind::Event(api) => {
            let mut text = TextBytes::default();
            black_box(inspect(bytes, api, stream, &mut text));
        }
    }
}

/// Nanoseconds of one call in this round.
fn time(calls: usize, call: &mut dyn FnMut()) -> f64 {
    let start = Instant::now();
    for _ in 0..calls {
        call();
    }
    start.elapsed().as_secs_f64() * 1e9 / number(calls)
}

#[expect(clippy::cast_precision_loss, reason = "sizes of a few megabytes")]
fn number(count: usize) -> f64 {
    count as f64
}

/// Megabytes a second of: this crate, a tree, a check without a tree, a SIMD parser's tape (copy included: it writes
/// into its input).
fn rates(body: &Body) -> [f64; 4] {
    let mut bytes = body.bytes.as_slice();
    if let Kind::Event(_) = body.kind {
        // The others read JSON only.
        bytes = bytes
            .get(EVENT_HEAD.len()..bytes.len() - EVENT_TAIL.len())
            .unwrap_or_default();
    }
    let calls = (ROUND_BYTES / bytes.len()).max(1);
    let mut state = (RequestFacts::new(), StreamState::new());
    let mut copy = Vec::new();
    let mut buffers = simd_json::Buffers::new(bytes.len());
    let mut readers: [&mut dyn FnMut(); 4] = [
        &mut || measured(body, &mut state),
        &mut || {
            let _ = black_box(serde_json::from_slice::<serde_json::Value>(black_box(bytes)));
        },
        &mut || {
            let _ = black_box(serde_json::from_slice::<IgnoredAny>(black_box(bytes)));
        },
        &mut || {
            copy.clear();
            copy.extend_from_slice(black_box(bytes));
            let _ = black_box(simd_json::to_tape_with_buffers(&mut copy, &mut buffers));
        },
    ];
    let mut best = [f64::INFINITY; 4];
    for _ in 0..ROUNDS {
        for (reader, best) in readers.iter_mut().zip(&mut best) {
            *best = best.min(time(calls, reader));
        }
    }
    best.map(|nanoseconds| number(bytes.len()) * 1e3 / nanoseconds)
}

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let bodies = bodies();
    if let [name, calls] = arguments.as_slice()
        && let Ok(calls) = calls.parse::<u32>()
    {
        let mut state = (RequestFacts::new(), StreamState::new());
        for body in bodies.iter().filter(|body| body.name == name) {
            for _ in 0..calls {
                measured(body, &mut state);
            }
        }
        return;
    }
    println!(
        "{:<22} {:>8} {:>10} {:>12} {:>12} {:>12} {:>12}",
        "body", "bytes", "ns", "ours MB/s", "Value", "IgnoredAny", "simd-json"
    );
    for body in &bodies {
        let [ours, tree, ignored, simd] = rates(body);
        println!(
            "{:<22} {:>8} {:>10.0} {ours:>12.0} {tree:>12.0} {ignored:>12.0} {simd:>12.0}",
            body.name,
            body.bytes.len(),
            number(body.bytes.len()) * 1e3 / ours,
        );
    }
}
