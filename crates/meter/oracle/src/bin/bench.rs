//! Tokenizer throughput beside three other engines in one run: `make bench-meter`. `bench FILE...` times tokenizers in files
//! (see `subject::from_file`), beside `tokenizers`, and nothing else.
//!
//! Natural texts come from this system's manuals and programs and are cut into distinct documents of 8 KB; a first
//! megabyte warms up, the rest is timed. Adversarial texts are one megabyte each (64 KB for the others, which are slow or
//! worse on more) and counted cold, by a counter that was just made. Time is this thread's CPU time, best of a few
//! passes; MB are 10^6 bytes.
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
use tollgate_meter::tokenizer::{Counter, Encoding, NAMES, StreamCounter, builtin};
use tollgate_meter_oracle::compare::counter;
use tollgate_meter_oracle::corpus::from_folders;
use tollgate_meter_oracle::subject::{Oracle, Subject, from_file, on_board};
use tollgate_meter_oracle::texts::{Rng, adversarial, chinese};

/// Bytes of one document.
const DOCUMENT: usize = 8192;
/// Bytes of each natural kind that are timed.
const TIMED: usize = 4_000_000;

/// Nanoseconds that this thread has run.
fn cpu_time() -> u64 {
    let stat = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    let nanoseconds = stat.split(' ').next().and_then(|field| field.parse().ok());
    nanoseconds.expect("a Linux with scheduler statistics")
}

/// The scheduler counts in ticks: what takes less than this is done several times.
const LEAST: u64 = 60_000_000;

/// MB/s of the best pass.
fn rate(bytes: usize, passes: usize, mut pass: impl FnMut()) -> f64 {
    let best = (0..passes)
        .map(|_| {
            let (start, mut times) = (cpu_time(), 0);
            loop {
                pass();
                times += 1;
                let taken = cpu_time() - start;
                if taken >= LEAST {
                    return taken as f64 / f64::from(times);
                }
            }
        })
        .fold(f64::INFINITY, f64::min);
    bytes as f64 * 1e3 / best
}

fn documents(text: &str) -> Vec<String> {
    let (mut list, mut rest) = (Vec::new(), text);
    while !rest.is_empty() && list.len() * DOCUMENT < TIMED + 1_000_000 {
        let (part, after) = rest.split_at(rest.floor_char_boundary(DOCUMENT));
        list.push(part.to_owned());
        rest = after;
    }
    list
}

/// Files of a kind below a folder, one after the other.
fn files(folder: &str, suffix: &str) -> String {
    fn walk(folder: &Path, suffix: &str, text: &mut String) {
        let mut entries: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().collect();
        entries.sort_by_key(|entry| entry.file_name());
        for entry in entries {
            let path = entry.path();
            if path.is_dir() && !path.is_symlink() {
                walk(&path, suffix, text);
            } else if path.to_string_lossy().ends_with(suffix) && text.len() < 2 * TIMED {
                text.push_str(&fs::read_to_string(&path).unwrap_or_default());
            }
        }
    }
    let mut text = String::new();
    walk(Path::new(folder), suffix, &mut text);
    text
}

/// Without roff's requests and escapes: what is left of a manual is prose.
fn prose(documents: &[String]) -> String {
    documents
        .iter()
        .flat_map(|document| document.lines())
        .filter(|line| !line.starts_with(['.', '\'']))
        .flat_map(|line| [line, "\n"])
        .collect::<String>()
        .replace("\\-", "-")
        .replace("\\fB", "")
        .replace("\\fI", "")
        .replace("\\fR", "")
}

fn natural() -> Vec<(&'static str, Vec<String>)> {
    let manuals = |folder: &str| {
        prose(&from_folders(
            &[&Path::new("/usr/share/man").join(folder)],
            40_000_000,
        ))
    };
    let english = manuals("man1") + &manuals("man3");
    // The manuals that there are in Chinese are few: generated text makes up the rest.
    let mut rng = Rng::new(8);
    let zh = manuals("zh_CN") + &chinese(&mut rng, TIMED);
    let others: String = ["de", "fr", "ja", "ru", "es", "ko", "uk", "tr", "pl"]
        .iter()
        .flat_map(|folder| documents(&manuals(folder)).into_iter().take(70))
        .collect();
    let code = files("/usr/lib", ".py");
    let json: String = english
        .lines()
        .filter(|line| line.len() > 20)
        .zip(0..)
        .map(|(line, number): (&str, u32)| {
            let content = serde_json::Value::from(line);
            format!(
                "{{\"role\":\"{}\",\"content\":{content},\"id\":{},\"score\":{}.{}}},",
                ["user", "assistant", "tool"][number as usize % 3],
                number.wrapping_mul(2_654_435_761),
                number % 10,
                number % 997
            )
        })
        .collect();
    [
        ("English", english),
        ("Chinese", zh),
        ("code", code),
        ("JSON", json),
        ("9 languages", others),
    ]
    .into_iter()
    .map(|(name, text)| (name, documents(&text)))
    .filter(|(_, documents)| documents.len() * DOCUMENT > 1_500_000)
    .collect()
}

/// Warms up on the first megabyte and times the rest.
fn time(documents: &[String], passes: usize, mut count: impl FnMut(&str)) -> f64 {
    let (warm, timed) = documents.split_at(1_000_000 / DOCUMENT);
    warm.iter().for_each(|text| count(text));
    let bytes = timed.iter().map(String::len).sum();
    rate(bytes, passes, || timed.iter().for_each(|text| count(text)))
}

/// Anonymous memory of this process in KB.
fn anonymous() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    line.and_then(|line| line.trim().trim_end_matches(" kB").parse().ok())
        .unwrap_or(0)
}

fn main() {
    let kinds = natural();
    let files: Vec<String> = std::env::args().skip(1).collect();
    if !files.is_empty() {
        let subjects = files.iter().map(|file| from_file(Path::new(file)));
        return table(&kinds, &adversarial(1_000_000), subjects);
    }
    fresh(&kinds);
    let subject = on_board("o200k_base");
    let (Some(Oracle::Tiktoken(tiktoken, _)), Some(hugging_face)) =
        (subject.oracles.first(), subject.oracles.get(1))
    else {
        return println!("the oracles are not those that this program knows");
    };
    let mut ours = counter(&subject);
    println!(
        "o200k_base, MB/s\n{:<22}{:>8}{:>10}{:>13}{:>12}{:>12}",
        "text", "ours", "streamed", "tiktoken-rs", "bpe-openai", "tokenizers"
    );
    for (name, documents) in &kinds {
        let counted = time(documents, 5, |text| {
            black_box(ours.count(text));
        });
        let streamed = time(documents, 3, |text| {
            let mut stream = StreamCounter::new();
            let mut rest = text;
            while !rest.is_empty() {
                let (part, after) = rest.split_at(rest.ceil_char_boundary(rest.len().min(40)));
                stream.push(&mut ours, part);
                rest = after;
            }
            black_box(stream.finish(&mut ours));
        });
        let theirs = [
            time(documents, 2, |text| {
                black_box(tiktoken.count_ordinary(text));
            }),
            time(documents, 2, |text| {
                black_box(bpe_openai::o200k_base().count(text));
            }),
            time(documents, 2, |text| {
                black_box(hugging_face.encode(text));
            }),
        ];
        println!(
            "{name:<22}{counted:>8.0}{streamed:>10.0}{:>13.0}{:>12.0}{:>12.0}",
            theirs[0], theirs[1], theirs[2]
        );
    }
    println!("\nadversarial, cold, one megabyte (others: 64 KB, warm)");
    let (long, short) = (adversarial(1_000_000), adversarial(64_000));
    let mut worst = (f64::INFINITY, "");
    for ((name, text), (_, short)) in long.iter().zip(&short) {
        let vocabulary = builtin(Encoding::O200kBase).expect("built in");
        let cold = rate(text.len(), 2, || {
            black_box(Counter::new(vocabulary).count(text));
        });
        let theirs = [
            rate(short.len(), 1, || {
                black_box(tiktoken.count_ordinary(short));
            }),
            rate(short.len(), 1, || {
                black_box(bpe_openai::o200k_base().count(short.as_str()));
            }),
            rate(short.len(), 1, || {
                black_box(hugging_face.encode(short));
            }),
        ];
        if cold < worst.0 {
            worst = (cold, name);
        }
        println!(
            "{name:<22}{cold:>8.0}{:>10}{:>13.0}{:>12.0}{:>12.0}",
            "", theirs[0], theirs[1], theirs[2]
        );
    }
    println!("worst of ours: {} at {:.0} MB/s\n", worst.1, worst.0);
    table(&kinds, &long, NAMES.iter().map(|name| on_board(name)));
}

/// Speeds of many tokenizers; of those in files, those of their oracle in a second line.
fn table(kinds: &[(&str, Vec<String>)], long: &[(&str, String)], subjects: impl Iterator<Item = Subject>) {
    print!("{:<20}{:>9}", "ours, MB/s", "KB");
    kinds.iter().for_each(|(name, _)| print!("{name:>13}"));
    println!("{:>26}", "worst");
    for subject in subjects {
        let mut ours = counter(&subject);
        print!("{:<20}{:>9}", subject.name, ours.vocabulary().size() / 1024);
        for (_, documents) in kinds {
            let counted = time(documents, 3, |text| {
                black_box(ours.count(text));
            });
            print!("{counted:>13.0}");
        }
        let worst = long
            .iter()
            .map(|(name, text)| {
                let vocabulary = *ours.vocabulary();
                let cold = rate(text.len(), 1, || {
                    black_box(Counter::new(vocabulary).count(text));
                });
                (cold, *name)
            })
            .min_by(|a, b| a.0.total_cmp(&b.0));
        let (speed, text) = worst.unwrap_or_default();
        println!("{:>26}", format!("{text} {speed:.0}"));
        if let (Some(oracle), true) = (subject.oracles.first(), subject.name.contains('.')) {
            print!("{:<29}", "  its library");
            for (_, documents) in kinds {
                let counted = time(documents, 1, |text| {
                    black_box(oracle.encode(text));
                });
                print!("{counted:>13.1}");
            }
            println!();
        }
    }
}

/// What a worker pays for its first count, and what a counter holds for itself.
fn fresh(kinds: &[(&str, Vec<String>)]) {
    let Some((_, documents)) = kinds.first() else {
        return;
    };
    let first = &documents[0][..documents[0].floor_char_boundary(1024)];
    let before = anonymous();
    let start = Instant::now();
    let mut counter = Counter::new(builtin(Encoding::O200kBase).expect("built in"));
    black_box(counter.count(first));
    let ready = start.elapsed();
    for text in kinds.iter().flat_map(|(_, documents)| documents) {
        black_box(counter.count(text));
    }
    println!(
        "first count of 1 KB in a fresh process: {:.2} ms; private memory after {:.0} MB of text: {} KB\n",
        ready.as_secs_f64() * 1e3,
        kinds
            .iter()
            .flat_map(|(_, documents)| documents)
            .map(String::len)
            .sum::<usize>() as f64
            / 1e6,
        anonymous().saturating_sub(before)
    );
}
