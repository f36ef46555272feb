//! Counts one kind of text with one tokenizer again and again, for a profiler: `profile TOKENIZER TEXT [PASSES]`.
//!
//! `TEXT` is the name of a natural kind or of an adversarial text, as `make bench-meter` prints it. Natural texts are counted
//! by a warm counter, adversarial ones each time by a new one.
#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a program for people at a terminal"
)]

use std::hint::black_box;

use tollgate_meter::TokenCounter;
use tollgate_meter::tokenizer::Counter;
use tollgate_meter_oracle::compare::counter_of;
use tollgate_meter_oracle::natural::natural;
use tollgate_meter_oracle::subject::buffer;
use tollgate_meter_oracle::texts::adversarial;
use tollgate_meter_oracle::timing::Best;

fn main() {
    let mut arguments = std::env::args().skip(1);
    let (name, kind) = arguments
        .next()
        .zip(arguments.next())
        .expect("TOKENIZER and TEXT");
    let passes = arguments
        .next()
        .map_or(10, |text| text.parse().expect("a number"));
    let buffer = buffer(&name);
    let mut counter = counter_of(&name, &buffer);
    let mut tokens = 0;
    let best = if let Some((_, text)) = adversarial(1_000_000).into_iter().find(|(name, _)| *name == kind) {
        let vocabulary = *counter.vocabulary();
        let mut best = Best::new(text.len());
        for _ in 0..passes {
            best.measure(|| tokens = black_box(Counter::new(vocabulary).count(&text)));
        }
        best
    } else {
        let (_, documents) = natural()
            .into_iter()
            .find(|(name, _)| *name == kind)
            .expect("a known text");
        let mut best = Best::new(documents.iter().map(String::len).sum());
        for _ in 0..passes {
            best.measure(|| tokens = documents.iter().map(|text| counter.count(text)).sum());
        }
        best
    };
    println!("{name}, {kind}: {tokens} tokens, {:.1} MB/s", best.rate());
}
