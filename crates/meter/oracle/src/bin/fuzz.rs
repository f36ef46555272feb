//! Millions of small texts, each through a tokenizer on board and its oracle: `make fuzz-meter`.
//!
//! `fuzz [EXECUTIONS [SEED]]`. Texts are made of what was found to matter: soups of all classes, runs, chains of tokens, and
//! mutations of earlier texts. Ends at the first difference, which it shows, or at a panic, which shows itself.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    reason = "a program for people at a terminal"
)]

use std::process::ExitCode;
use std::time::Instant;

use tollgate_meter::tokenizer::NAMES;
use tollgate_meter_oracle::compare::{compare, counter};
use tollgate_meter_oracle::subject::on_board;
use tollgate_meter_oracle::texts::{Rng, soup};

/// Texts kept for mutation.
const POOL: usize = 4096;
/// Longest text, in bytes.
const LONGEST: usize = 120;

fn main() -> ExitCode {
    let mut arguments = std::env::args().skip(1);
    let mut number = |default: u64| {
        arguments
            .next()
            .map_or(default, |text| text.parse().expect("a number"))
    };
    let (executions, seed) = (number(10_000_000), number(1));
    let subjects: Vec<_> = NAMES
        .iter()
        .filter(|name| **name != "o200k_harmony")
        .map(|name| on_board(name))
        .collect();
    let mut counters: Vec<_> = subjects.iter().map(counter).collect();
    let mut rng = Rng::new(seed);
    let mut pool: Vec<String> = (0..POOL).map(|_| soup(&mut rng, 16)).collect();
    let start = Instant::now();
    for done in 0..executions {
        let text = next(&mut rng, &pool);
        let at = done as usize % subjects.len();
        let oracles = &subjects[at].oracles;
        let oracle = &oracles[rng.below(oracles.len())];
        if let Err(difference) = compare(oracle, &mut counters[at], &text, &mut rng) {
            println!("execution {done}, {}: {difference}", subjects[at].name);
            return ExitCode::FAILURE;
        }
        let place = rng.below(POOL);
        pool[place] = text;
        if (done + 1) % 250_000 == 0 || done + 1 == executions {
            println!(
                "{} executions, {:.0} s, no difference",
                done + 1,
                start.elapsed().as_secs_f64()
            );
        }
    }
    ExitCode::SUCCESS
}

fn next(rng: &mut Rng, pool: &[String]) -> String {
    let mut text = pool[rng.below(pool.len())].clone();
    for _ in 0..1 + rng.below(4) {
        let at = text.floor_char_boundary(rng.below(text.len() + 1));
        let end = text.ceil_char_boundary((at + rng.below(12)).min(text.len()));
        match rng.below(8) {
            0 => drop(text.drain(at..end)),
            1 => {
                let part = text[at..end].repeat(1 + rng.below(12));
                text.insert_str(at, &part);
            }
            2 => {
                let other = &pool[rng.below(pool.len())];
                let from = other.floor_char_boundary(rng.below(other.len() + 1));
                text.insert_str(at, &other[from..]);
            }
            3 => text.insert(at, char::from_u32(rng.below(0x11_0000) as u32).unwrap_or(' ')),
            4 => text.insert(at, char::from(rng.below(128) as u8)),
            5 => text = soup(rng, 24),
            _ => {
                let length = 4 + rng.below(8);
                text.insert_str(at, &soup(rng, length));
            }
        }
    }
    text.truncate(text.floor_char_boundary(LONGEST));
    text
}
