//! Tokenizer throughput beside three other engines in one run: `make bench-meter`.
//!
//! Natural texts come from this system's manuals and programs and are cut into distinct documents of 8 KB; a first
//! megabyte warms up, the rest is timed. Adversarial texts are one megabyte each (64 KB for the others, which are slow or
//! worse on more) and counted cold, by a counter that was just made. Time is this thread's CPU time, best of rounds that
//! go over all texts before any comes again; MB are 10^6 bytes. Last, what a new worker has to do for each tokenizer, and
//! the memory of its own that it keeps beside the tables that all share (and the most it had while it counted megabytes in
//! one go, which a worker never does: a text that is normalized first is there twice). `bench ROUNDS` makes more of them. `bench [ROUNDS] FILE...`
//! times tokenizers in files (see `subject::from_file`), beside their oracle, and nothing else.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a program for people at a terminal"
)]

use std::fs;
use std::hint::black_box;
use std::path::Path;
use std::time::Instant;

use tollgate_meter::TokenCounter;
use tollgate_meter::tokenizer::{Counter, NAMES, StreamCounter, Vocabulary};
use tollgate_meter_oracle::compare::{counter, counter_of};
use tollgate_meter_oracle::natural::{DOCUMENT, natural};
use tollgate_meter_oracle::subject::{Oracle, Subject, buffer, from_file, on_board};
use tollgate_meter_oracle::texts::adversarial;
use tollgate_meter_oracle::timing::Best;
use tollgate_shm::MappedFile;

/// Name and documents of each natural kind.
type Kinds = Vec<(&'static str, Vec<String>)>;

fn main() {
    let mut files: Vec<String> = std::env::args().skip(1).collect();
    let rounds = files.first().and_then(|first| first.parse().ok());
    if rounds.is_some() {
        files.remove(0);
    }
    let rounds = rounds.unwrap_or(9);
    let kinds = natural();
    let long = adversarial(1_000_000);
    if !files.is_empty() {
        return in_files(&files, &kinds, &long, rounds);
    }
    others(&kinds, &long, rounds);
    on_boards(&kinds, &long, rounds);
}

/// Warms up on the first megabyte.
fn warm(documents: &[String], mut count: impl FnMut(&str)) -> &[String] {
    let (warm, timed) = documents.split_at(1_000_000 / DOCUMENT);
    warm.iter().for_each(|text| count(text));
    timed
}

fn size(documents: &[String]) -> usize {
    documents.iter().map(String::len).sum()
}

/// Warm MB/s of documents, best of a few passes.
fn rate(documents: &[String], passes: usize, mut count: impl FnMut(&str)) -> f64 {
    let timed = warm(documents, &mut count);
    let mut best = Best::new(size(timed));
    for _ in 0..passes {
        best.measure(|| timed.iter().for_each(|text| count(text)));
    }
    best.rate()
}

/// o200k_base beside other engines.
fn others(kinds: &Kinds, long: &[(&'static str, String)], rounds: usize) {
    let subject = on_board("o200k_base");
    let (Some(Oracle::Tiktoken(tiktoken, _)), Some(hugging_face)) =
        (subject.oracles.first(), subject.oracles.get(1))
    else {
        return println!("the oracles are not those that this program knows");
    };
    let bpe = bpe_openai::o200k_base();
    let mut ours = counter(&subject);
    println!(
        "o200k_base, MB/s\n{:<22}{:>8}{:>10}{:>13}{:>12}{:>12}",
        "text", "ours", "streamed", "tiktoken-rs", "bpe-openai", "tokenizers"
    );
    for (name, documents) in kinds {
        let rates = [
            rate(documents, rounds, |text| {
                black_box(ours.count(text));
            }),
            rate(documents, rounds, |text| {
                black_box(streamed(&mut ours, text));
            }),
            rate(documents, 2, |text| {
                black_box(tiktoken.count_ordinary(text));
            }),
            rate(documents, 2, |text| {
                black_box(bpe.count(text));
            }),
            rate(documents, 2, |text| {
                black_box(hugging_face.encode(text));
            }),
        ];
        println!(
            "{name:<22}{:>8.0}{:>10.0}{:>13.0}{:>12.0}{:>12.0}",
            rates[0], rates[1], rates[2], rates[3], rates[4]
        );
    }
    println!("\nadversarial, cold, one megabyte (others: 64 KB, warm)");
    let vocabulary = *ours.vocabulary();
    for ((name, text), (_, short)) in long.iter().zip(adversarial(64_000)) {
        let cold = cold(vocabulary, text, rounds.min(3));
        let theirs = |mut count: Box<dyn FnMut() + '_>| {
            let mut best = Best::new(short.len());
            (0..3).for_each(|_| best.measure(&mut count));
            best.rate()
        };
        let theirs = [
            theirs(Box::new(|| {
                black_box(tiktoken.count_ordinary(&short));
            })),
            theirs(Box::new(|| {
                black_box(bpe.count(short.as_str()));
            })),
            theirs(Box::new(|| {
                black_box(hugging_face.encode(&short));
            })),
        ];
        println!(
            "{name:<22}{cold:>8.0}{:>10}{:>13.0}{:>12.0}{:>12.0}",
            "", theirs[0], theirs[1], theirs[2]
        );
    }
}

/// Counts a text that comes in parts of 40 bytes.
fn streamed(counter: &mut Counter<'_>, text: &str) -> u64 {
    let (mut stream, mut rest) = (StreamCounter::new(), text);
    while !rest.is_empty() {
        let (part, after) = rest.split_at(rest.ceil_char_boundary(rest.len().min(40)));
        stream.push(counter, part);
        rest = after;
    }
    stream.finish(counter)
}

/// MB/s of new counters.
fn cold(vocabulary: Vocabulary<'_>, text: &str, passes: usize) -> f64 {
    let mut best = Best::new(text.len());
    for _ in 0..passes {
        best.measure(|| {
            black_box(Counter::new(vocabulary).count(text));
        });
    }
    best.rate()
}

/// Every tokenizer on board, without others beside it.
fn on_boards(kinds: &Kinds, long: &[(&'static str, String)], rounds: usize) {
    let buffers = NAMES.map(buffer);
    let counters = NAMES
        .iter()
        .zip(&buffers)
        .map(|(name, buffer)| (*name, counter_of(name, buffer)))
        .collect();
    table(counters, kinds, long, rounds);
    fresh(&buffers, kinds, long);
}

/// What a worker has to do before it counts with a tokenizer, and the memory that this worker alone needs for it after all
/// kinds of texts. Files are mapped and verified anew, as by a new process; their pages are in the page cache.
fn fresh(buffers: &[Vec<u8>], kinds: &Kinds, long: &[(&'static str, String)]) {
    const HELLO: &str = "How many tokens are these? 这有多少个标记？";
    let folder = tempfile::tempdir().expect("a folder");
    println!(
        "\n{:<28}{:>13}{:>13}{:>25}",
        "a new worker", "ready, ms", "its own, KB", "most meanwhile, KB"
    );
    let (mut all_ms, mut all_kb) = (0.0, 0.0);
    for (name, buffer) in NAMES.iter().zip(buffers) {
        let path = folder.path().join(name);
        if !buffer.is_empty() {
            fs::write(&path, buffer).expect("a file");
        }
        let mut ready_ms = f64::MAX;
        let (mut own, mut most) = (0, 0);
        for _ in 0..5 {
            let mut kept = None;
            let began = Instant::now();
            let mapped = (!buffer.is_empty()).then(|| MappedFile::open(&path).expect("a file to map"));
            let taken = allocation_counter::measure(|| {
                let mut counter = counter_of(name, mapped.as_deref().unwrap_or_default());
                black_box(counter.count(HELLO));
                ready_ms = ready_ms.min(began.elapsed().as_secs_f64() * 1_000.0);
                for text in kinds.iter().flat_map(|(_, texts)| texts.iter().take(50)) {
                    black_box(counter.count(text));
                }
                for (_, text) in long {
                    black_box(counter.count(text));
                }
                kept = Some(counter);
            });
            own = own.max(taken.bytes_current);
            most = most.max(taken.bytes_max);
            drop(kept);
        }
        let own_kb = own as f64 / 1024.0;
        println!(
            "{name:<28}{ready_ms:>13.2}{own_kb:>13.0}{:>25.0}",
            most as f64 / 1024.0
        );
        (all_ms, all_kb) = (all_ms + ready_ms, all_kb + own_kb);
    }
    println!("{:<28}{all_ms:>13.2}{all_kb:>13.0}", "all of them");
}

/// Tokenizers in files, then the engines they are compared with.
fn in_files(files: &[String], kinds: &Kinds, long: &[(&'static str, String)], rounds: usize) {
    let subjects: Vec<Subject> = files.iter().map(|file| from_file(Path::new(file))).collect();
    let counters = subjects
        .iter()
        .map(|subject| (subject.name.as_str(), counter(subject)))
        .collect();
    table(counters, kinds, long, rounds);
    println!("\ntheirs, MB/s");
    for subject in &subjects {
        for oracle in &subject.oracles {
            print!("{:<26}{:>11}", subject.name, oracle.name());
            for (_, documents) in kinds {
                let rate = rate(documents, 1, |text| {
                    black_box(oracle.encode(text));
                });
                print!("{rate:>13.1}");
            }
            println!();
        }
    }
}

/// Speeds of many tokenizers.
fn table(
    mut counters: Vec<(&str, Counter<'_>)>,
    kinds: &Kinds,
    long: &[(&'static str, String)],
    rounds: usize,
) {
    let mut warm_rates: Vec<Vec<Best>> = vec![Vec::new(); counters.len()];
    let mut cold_rates: Vec<Vec<Best>> =
        vec![long.iter().map(|(_, text)| Best::new(text.len())).collect(); counters.len()];
    for _ in 0..rounds {
        for ((_, counter), rates) in counters.iter_mut().zip(&mut warm_rates) {
            for (at, (_, documents)) in kinds.iter().enumerate() {
                let timed = warm(documents, |text| {
                    black_box(counter.count(text));
                });
                if rates.len() == at {
                    rates.push(Best::new(size(timed)));
                }
                rates[at].measure(|| {
                    for text in timed {
                        black_box(counter.count(text));
                    }
                });
            }
        }
        for ((_, counter), rates) in counters.iter().zip(&mut cold_rates) {
            for ((_, text), best) in long.iter().zip(rates) {
                best.measure(|| {
                    black_box(Counter::new(*counter.vocabulary()).count(text));
                });
            }
        }
    }
    print!("\n{:<28}{:>9}", "ours, MB/s", "KB");
    kinds.iter().for_each(|(name, _)| print!("{name:>13}"));
    println!("   the three worst texts, cold");
    for ((name, counter), (warm_rates, cold_rates)) in counters.iter().zip(warm_rates.iter().zip(&cold_rates))
    {
        print!("{name:<28}{:>9}", counter.vocabulary().size() / 1024);
        warm_rates.iter().for_each(|best| print!("{:>13.0}", best.rate()));
        let mut rates: Vec<_> = long
            .iter()
            .zip(cold_rates)
            .map(|((text, _), best)| (best.rate(), text))
            .collect();
        rates.sort_by(|a, b| a.0.total_cmp(&b.0));
        let worst: Vec<_> = rates
            .iter()
            .take(3)
            .map(|(rate, text)| format!("{text} {rate:.0}"))
            .collect();
        println!("   {}", worst.join(", "));
    }
}
