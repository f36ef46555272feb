//! Prints what scanning costs: `cargo run --release -p tollgate-meter --example speed`.
//!
//! Each figure is the best of several rounds, so that other work on the machine shows less.

use std::hint::black_box;
use std::time::Instant;

use tollgate_meter::request::{FieldPath, RequestFacts, Rewrite, scan};
use tollgate_meter::response::{JsonWatch, NoText, SsePiece, SseReader, StreamState, TextBytes, inspect};
use tollgate_meter::{Api, TokenCounter};

const ROUNDS: u32 = 15;

/// Nanoseconds of one call, best of the rounds.
fn time(calls: u32, mut call: impl FnMut()) -> f64 {
    let mut best = f64::INFINITY;
    for _ in 0..ROUNDS {
        let start = Instant::now();
        for _ in 0..calls {
            call();
        }
        best = best.min(start.elapsed().as_secs_f64() * 1e9 / f64::from(calls));
    }
    best
}

#[expect(clippy::cast_precision_loss, reason = "sizes of a few megabytes")]
fn report(name: &str, bytes: usize, nanoseconds: f64) {
    println!(
        "{name:<52} {bytes:>8} B {nanoseconds:>10.0} ns {:>8.0} MB/s",
        bytes as f64 * 1e3 / nanoseconds
    );
}

fn chat(text: &str, messages: usize) -> String {
    let message = format!("{{\"role\":\"user\",\"content\":\"{text}\"}}");
    let messages = vec![message; messages].join(",");
    format!(
        "{{\"model\":\"gpt-4o\",\"stream\":true,\"max_tokens\":256,\"temperature\":0.7,\"messages\":[{messages}]}}"
    )
}

struct Bytes;

impl TokenCounter for Bytes {
    fn count(&mut self, text: &str) -> u64 {
        text.len() as u64
    }
}

fn requests() {
    let words = "The quick brown fox jumps over the lazy dog. ";
    let bodies = [
        ("scan 1 KB chat", chat(&words.repeat(10), 2)),
        ("scan 100 KB chat, 10 long messages", chat(&words.repeat(220), 10)),
        (
            "scan 100 KB chat, 1,600 messages of 20 bytes",
            chat(&words[..20], 1600),
        ),
        (
            "scan 100 KB chat, a newline escape every 45 bytes",
            chat(&format!("{words}\\n").repeat(210), 10),
        ),
        (
            "scan 100 KB chat, \\uXXXX only",
            chat(&"\\u4f60\\u597d".repeat(800), 10),
        ),
        (
            "scan 100 KB chat, Chinese in UTF-8",
            chat(&"你好，世界。今天天气很好。".repeat(250), 10),
        ),
    ];
    let mut facts = RequestFacts::new();
    for (name, body) in &bodies {
        let nanoseconds = time(300, || {
            let _ = black_box(scan(
                black_box(body.as_bytes()),
                Api::ChatCompletions,
                &[],
                &mut facts,
            ));
        });
        report(name, body.len(), nanoseconds);
    }
    let Some((_, body)) = bodies.first() else { return };
    let wanted: Vec<FieldPath> = ["max_tokens", "messages.0.role", "metadata.user", "temperature"]
        .iter()
        .filter_map(|path| FieldPath::parse(path).ok())
        .collect();
    let nanoseconds = time(2000, || {
        let _ = black_box(scan(
            black_box(body.as_bytes()),
            Api::ChatCompletions,
            &wanted,
            &mut facts,
        ));
    });
    report("scan 1 KB chat, 4 wanted fields", body.len(), nanoseconds);
    let mut out = Vec::new();
    let nanoseconds = time(2000, || {
        let mut rewrite = Rewrite::new(&facts);
        rewrite.set_model("upstream-model");
        rewrite.limit_output(100, tollgate_meter::request::MaxTokensName::MaxTokens);
        rewrite.include_usage();
        out.clear();
        rewrite.write_into(black_box(body.as_bytes()), &mut out);
    });
    report(
        "rewrite 1 KB chat: model, max_tokens, usage",
        body.len(),
        nanoseconds,
    );
    if let Some((_, body)) = bodies.get(3) {
        let nanoseconds = time(100, || {
            let count = tollgate_meter::request::count_input(
                black_box(body.as_bytes()),
                Api::ChatCompletions,
                &tollgate_meter::request::Formula::default(),
                &mut Bytes,
            );
            let _ = black_box(count);
        });
        report(
            "count 100 KB chat with escapes, free tokenizer",
            body.len(),
            nanoseconds,
        );
    }
}

fn answers() {
    let answer = |text: &str| {
        format!(
            "{{\"id\":\"chatcmpl-9\",\"object\":\"chat.completion\",\"created\":1700000000,\"model\":\"gpt-4o\",\
             \"choices\":[{{\"index\":0,\"message\":{{\"role\":\"assistant\",\"content\":\"{text}\",\"refusal\":null}},\
             \"logprobs\":null,\"finish_reason\":\"stop\"}}],\"usage\":{{\"prompt_tokens\":19,\"completion_tokens\":10,\
             \"total_tokens\":29,\"prompt_tokens_details\":{{\"cached_tokens\":0,\"audio_tokens\":0}},\
             \"completion_tokens_details\":{{\"reasoning_tokens\":0,\"audio_tokens\":0}}}}}}"
        )
    };
    for (name, body) in [
        ("600 B answer", answer(&"word ".repeat(34))),
        ("100 KB answer", answer(&"word ".repeat(20_000))),
    ] {
        let calls = if body.len() > 1000 { 300 } else { 3000 };
        let nanoseconds = time(calls, || {
            black_box(JsonWatch::whole(
                black_box(body.as_bytes()),
                Api::ChatCompletions,
                &mut NoText,
            ));
        });
        report(&format!("{name}, whole"), body.len(), nanoseconds);
        for chunk in [4096, 100] {
            let nanoseconds = time(calls, || {
                let mut watch = JsonWatch::new(Api::ChatCompletions);
                let mut text = TextBytes::default();
                for chunk in black_box(body.as_bytes()).chunks(chunk) {
                    watch.feed(chunk, &mut text);
                }
                black_box(watch.finish(&mut text));
            });
            report(
                &format!("{name}, chunks of {chunk} B, text counted"),
                body.len(),
                nanoseconds,
            );
        }
    }
}

fn events() {
    let openai = "data: {\"id\":\"chatcmpl-9abcdefghijklmnopqrstuvwx\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\
        \"model\":\"gpt-4o-2024-08-06\",\"service_tier\":\"default\",\"system_fingerprint\":\"fp_0123456789\",\"choices\":[{\"index\":0,\
        \"delta\":{\"content\":\" hello\"},\"logprobs\":null,\"finish_reason\":null}],\"usage\":null}\n\n";
    let anthropic = "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"index\":0,\"delta\":{\"type\":\"text_delta\",\
        \"text\":\" hello\"}}\n\n";
    let responses = "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"item_id\":\"msg_0123456789abcdef\",\
        \"output_index\":0,\"content_index\":0,\"delta\":\" hello\",\"logprobs\":[],\"sequence_number\":17}\n\n";
    for (name, event, api) in [
        ("OpenAI chat", openai, Api::ChatCompletions),
        ("Anthropic", anthropic, Api::AnthropicMessages),
        ("OpenAI responses", responses, Api::Responses),
    ] {
        let mut state = StreamState::new();
        let mut text = TextBytes::default();
        let nanoseconds = time(3000, || {
            black_box(inspect(black_box(event.as_bytes()), api, &mut state, &mut text));
        });
        report(&format!("{name} delta event, inspect"), event.len(), nanoseconds);
        let mut reader = SseReader::new(1 << 18);
        let nanoseconds = time(3000, || {
            reader.feed(black_box(event.as_bytes()), |piece| {
                if let SsePiece::Event(event) = piece {
                    black_box(inspect(event, api, &mut state, &mut text));
                }
            });
        });
        report(
            &format!("{name} delta event, split and inspect"),
            event.len(),
            nanoseconds,
        );
    }
}

fn main() {
    requests();
    answers();
    events();
}
