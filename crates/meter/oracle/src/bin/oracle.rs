//! Compares every tokenizer on board with its oracles on hundreds of megabytes: `make oracle`.
//!
//! `oracle [MEGABYTES [NAME|FILE...]]`: only these tokenizers on board, or in files (see `subject::from_file`).
//! Ends with an error if anything differs. A text on which one oracle stands alone, against us and another oracle, is shown
//! and counted apart: `tokenizers` 1.0.0-rc.3 is known to join a few pieces of GLM's otherwise than by rank.
#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a program for people at a terminal"
)]

use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

use tollgate_meter::tokenizer::NAMES;
use tollgate_meter_oracle::compare::{compare, counter};
use tollgate_meter_oracle::corpus::{from_folders, generated};
use tollgate_meter_oracle::subject::{Subject, from_file, on_board};
use tollgate_meter_oracle::texts::Rng;

/// Differences shown of one tokenizer.
const SHOWN: usize = 5;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let megabytes: usize = arguments
        .first()
        .map_or(210, |text| text.parse().expect("a number of megabytes"));
    let files = arguments.get(1..).unwrap_or_default();
    let limit = megabytes * 1_000_000;
    let share = Path::new("/usr/share");
    let folders = ["man", "doc", "locale", "i18n"].map(|name| share.join(name));
    let mut documents = from_folders(&folders.each_ref().map(|folder| folder.as_path()), limit / 10 * 6);
    let found: usize = documents.iter().map(String::len).sum();
    documents.extend(generated(1, limit.saturating_sub(found)));
    let bytes: usize = documents.iter().map(String::len).sum();
    println!(
        "{} documents, {:.1} MB: {:.1} MB from /usr/share, the rest generated",
        documents.len(),
        bytes as f64 / 1e6,
        found as f64 / 1e6
    );
    let mut failed = false;
    let load = |at: usize| match files.get(at) {
        Some(name) if NAMES.contains(&name.as_str()) => on_board(name),
        Some(file) => from_file(Path::new(file)),
        None => on_board(NAMES.get(at).expect("a name")),
    };
    for at in 0..if files.is_empty() {
        NAMES.len()
    } else {
        files.len()
    } {
        failed |= !run(&load(at), &documents, bytes);
    }
    ExitCode::from(u8::from(failed))
}

/// Compares one tokenizer and tells whether all was equal.
fn run(subject: &Subject, documents: &[String], bytes: usize) -> bool {
    let mut equal = true;
    for oracle in &subject.oracles {
        let start = Instant::now();
        let mut counter = counter(subject);
        let (mut rng, mut differences, mut alone) = (Rng::new(5), 0, 0);
        for text in documents {
            if let Err(difference) = compare(oracle, &mut counter, text, &mut rng) {
                differences += 1;
                let others = subject.oracles.iter().filter(|o| o.name() != oracle.name());
                let agreeing = others.filter(|other| compare(other, &mut counter, text, &mut rng).is_ok());
                let is_alone = agreeing.count() > 0;
                alone += usize::from(is_alone);
                if differences <= SHOWN {
                    let but = if is_alone { " (it stands alone)" } else { "" };
                    println!("  {} {}{but}: {difference}", subject.name, oracle.name());
                }
            }
        }
        println!(
            "{:<16} {:<12} {:>7.1} MB {differences:>6} documents differ, {alone} by this oracle alone  ({:.0} s)",
            subject.name,
            oracle.name(),
            bytes as f64 / 1e6,
            start.elapsed().as_secs_f64()
        );
        equal &= differences == alone;
    }
    equal
}
