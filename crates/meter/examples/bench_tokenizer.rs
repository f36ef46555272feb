//! Tokenizer throughput beside the reference: `cargo run --release -p tollgate-meter --example bench_tokenizer`.
//!
//! Texts are distinct generated documents of 8 KB, so that no cache sees one twice; the worst texts are one megabyte
//! each (64 KB for the reference, which is slow or panics on more). MB/s on one thread, best of several passes.

use std::hint::black_box;
use std::time::{Duration, Instant};

use tollgate_meter::TokenCounter;
use tollgate_meter::tokenizer::{Counter, Encoding, builtin};

#[path = "../tests/tokenizer/texts.rs"]
#[allow(dead_code)]
mod texts;

fn best(passes: usize, mut pass: impl FnMut()) -> Duration {
    (0..passes)
        .map(|_| {
            let start = Instant::now();
            pass();
            start.elapsed()
        })
        .min()
        .unwrap_or_default()
}

fn rate(bytes: usize, time: Duration) -> f64 {
    bytes as f64 / time.as_secs_f64() / 1e6
}

fn main() {
    let files: Vec<String> = std::env::args().skip(1).collect();
    for encoding in [Encoding::O200kBase, Encoding::Cl100kBase] {
        let reference = match encoding {
            Encoding::Cl100kBase => tiktoken_rs::cl100k_base_singleton(),
            _ => tiktoken_rs::o200k_base_singleton(),
        };
        let Ok(vocabulary) = builtin(encoding) else {
            return eprintln!("{encoding:?} cannot be read");
        };
        let mut counter = Counter::new(vocabulary);
        println!(
            "{encoding:?} ({} bytes)\n{:<24}{:>10}{:>14}{:>12}",
            vocabulary.size(),
            "text",
            "MB/s",
            "tiktoken-rs",
            "bytes/token"
        );

        let mut documents: Vec<(String, Vec<String>)> = ["english", "chinese", "code", "json", "mixed"]
            .map(|name| (name.to_owned(), Vec::new()))
            .into();
        for (name, text) in texts::natural_like(0..250, 8192) {
            if let Some((_, list)) = documents.iter_mut().find(|(kind, _)| kind == name) {
                list.push(text);
            }
        }
        for file in &files {
            let Ok(text) = std::fs::read_to_string(file) else {
                return eprintln!("{file} cannot be read");
            };
            let mut list = Vec::new();
            let mut rest = text.as_str();
            while !rest.is_empty() {
                let (part, after) = rest.split_at(rest.floor_char_boundary(8192));
                list.push(part.to_owned());
                rest = after;
            }
            documents.push((file.rsplit('/').next().unwrap_or(file).to_owned(), list));
        }
        for (name, list) in &documents {
            let bytes: usize = list.iter().map(String::len).sum();
            let mut tokens = 0;
            let ours = best(25, || tokens = list.iter().map(|text| counter.count(text)).sum());
            let theirs = best(3, || {
                black_box(
                    list.iter()
                        .map(|text| reference.count_ordinary(text))
                        .sum::<usize>(),
                );
            });
            println!(
                "{name:<24}{:>10.0}{:>14.0}{:>12.2}",
                rate(bytes, ours),
                rate(bytes, theirs),
                bytes as f64 / tokens as f64
            );
        }
        let (long, short) = (texts::adversarial(1_000_000), texts::adversarial(64_000));
        for ((name, text), (_, short)) in long.iter().zip(&short) {
            let mut tokens = 0;
            let ours = best(5, || tokens = counter.count(text));
            let theirs = best(1, || {
                black_box(reference.count_ordinary(short));
            });
            println!(
                "{name:<24}{:>10.0}{:>14.0}{:>12.2}",
                rate(text.len(), ours),
                rate(short.len(), theirs),
                text.len() as f64 / tokens as f64
            );
        }
    }
}
