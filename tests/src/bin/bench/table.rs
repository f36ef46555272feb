//! The tables, ratios first.

use crate::Plan;
use crate::cluster::Figures;
use crate::exact::{Exact, LARGE_EVERY};
use crate::limit_test::Held;
use crate::memory::StreamMemory;
use crate::rounds::{Cost, Latency};
use crate::routing::{DEPLOYMENTS, Routed};
use crate::streams::EventCost;
use std::fmt::Write as _;
use tollgate_tests::programs;

/// The report under construction.
#[derive(Debug)]
pub struct Report {
    text: String,
    load: String,
}

impl Report {
    /// Notes the machine's state before anything runs.
    pub fn begin(plan: &Plan) -> Self {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "`make bench`: {} rounds of {} s, medians; {}.",
            plan.rounds,
            plan.seconds,
            machine()
        );
        Self {
            text,
            load: load_average(),
        }
    }

    /// CPU time per request.
    pub fn requests(&mut self, costs: &[Cost]) {
        self.push(
            "\n## CPU per request\n\n1 KB chat request without `max_tokens`, 600-byte answer, one worker, 64 connections. \
             *Spread*: smallest and largest ratio of a round. *Daemon*: beside the request's path, not in the ratio. \
             *Taken*: time in which something else held the worker's core.\n\n\
             | gateway | ÷ bare nginx | spread | µs CPU / request | of it Redis | daemon | requests/s | worker busy | taken |\n\
             | --- | --: | --: | --: | --: | --: | --: | --: | --: |\n",
        );
        for cost in costs {
            let ratio = cost.ratio.map_or("".to_owned(), |ratio| format!("{ratio:.2}"));
            let spread = cost
                .spread
                .map_or("".to_owned(), |(least, most)| format!("{least:.2}–{most:.2}"));
            let _ = writeln!(
                self.text,
                "| {} | {ratio} | {spread} | {:.1} | {} | {} | {:.0} | {:.0} % | {:.1} % |",
                cost.title,
                cost.cpu,
                some(cost.others),
                some(cost.beside),
                cost.rate,
                cost.busy * 100.0,
                cost.taken * 100.0
            );
        }
    }

    /// Latency at one connection.
    pub fn latency(&mut self, latencies: &[Latency]) {
        self.push(
            "\n## Latency at one connection\n\nBy the load generator's clock, µs.\n\n\
             | gateway | added, median | added, p99 | median | p99 |\n| --- | --: | --: | --: | --: |\n",
        );
        for it in latencies {
            let (p50, p99) = it.added.map_or((String::new(), String::new()), |(p50, p99)| {
                (format!("{p50:+.0}"), format!("{p99:+.0}"))
            });
            let _ = writeln!(
                self.text,
                "| {} | {p50} | {p99} | {:.0} | {:.0} |",
                it.title, it.p50, it.p99
            );
        }
    }

    /// What counting exactly costs.
    pub fn exact(&mut self, figures: &[Exact]) {
        for it in figures {
            let _ = writeln!(
                self.text,
                "\n## Exact counts, {}\n\nThe caller has used four fifths of its limits: every input is counted before it is \
                 admitted.\n\n| 1 KB requests | µs CPU / request |\n| --- | --: |\n| upper bound does (the default) | {:.1} |\n\
                 | counted exactly | {:.1} ({:.2} times) |\n\n\
                 99th percentile of small requests, µs, without large ones and while one in {LARGE_EVERY} is a megabyte of the worst \
                 text (spaces, hyphens, random letters); *times*: to the same gateway without large ones, in the same round.\n\n\
                 | upstream, ms | requests/s | bare nginx | Tollgate | large through bare nginx | times | large by upper bound | times \
                 | large counted exactly | times |\n| --: | --: | --: | --: | --: | --: | --: | --: | --: | --: |",
                it.title,
                it.cpu[0],
                it.cpu[1],
                it.cpu[1] / it.cpu[0],
            );
            for at in &it.beside {
                let _ = write!(
                    self.text,
                    "| {} | {} | {:.0} | {:.0} |",
                    at.thinks.as_millis(),
                    at.rate,
                    at.bare,
                    at.alone
                );
                for (p99, times) in [at.through_bare, at.by_bound, at.counted] {
                    let _ = write!(self.text, " {p99:.0} | {times:.2} |");
                }
                let _ = writeln!(self.text);
            }
        }
    }

    /// What choosing a deployment costs.
    pub fn routing(&mut self, lines: &[Routed]) {
        let _ = write!(
            self.text,
            "\n## Choosing among {DEPLOYMENTS} deployments\n\n1 KB requests of 200 callers, all limits on, CPU per request.\n\n\
             | how | ÷ single | µs CPU / request |\n| --- | --: | --: |\n"
        );
        for it in lines {
            let _ = writeln!(self.text, "| {} | {:.3} | {:.2} |", it.title, it.ratio, it.cpu);
        }
    }

    /// What limits over all instances cost besides CPU time.
    pub fn cluster(&mut self, figures: &Figures) {
        self.push(
            "\n## Limits over all instances\n\nLatency at one connection of a channel with leases in hand, one worker, interleaved; \
             µs by the load generator's clock.\n\n| Redis | median | p99 | p99, smallest and largest round |\n\
             | --- | --: | --: | --: |\n",
        );
        for it in &figures.latencies {
            let _ = writeln!(
                self.text,
                "| {} | {:.0} | {:.0} | {:.0}–{:.0} |",
                it.title, it.p50, it.p99, it.spread.0, it.spread.1
            );
        }
        self.push("\n| channels | requests/s | Redis commands / 1,000 requests |\n| --- | --: | --: |\n");
        for it in &figures.commands {
            let _ = writeln!(
                self.text,
                "| {} | {:.0} | {:.2} |",
                it.title, it.rate, it.per_thousand
            );
        }
    }

    /// CPU time per streamed event.
    pub fn streams(&mut self, costs: &[EventCost]) {
        self.push(
            "\n## CPU per streamed event\n\n32 parallel streams of 200 events, each event its own packet.\n\n\
             | gateway | added, µs | µs CPU / event |\n| --- | --: | --: |\n",
        );
        for cost in costs {
            let added = cost.added.map_or(String::new(), |added| format!("{added:+.2}"));
            let _ = writeln!(self.text, "| {} | {added} | {:.2} |", cost.title, cost.cpu);
        }
    }

    /// Memory of open streams.
    pub fn memory(&mut self, lines: &[StreamMemory], streams: usize) {
        let _ = write!(
            self.text,
            "\n## Memory of an open stream\n\n{streams} streams on one worker, growth of its proportional set size.\n\n\
             | gateway | added, KB | KB / stream |\n| --- | --: | --: |\n"
        );
        for line in lines {
            let added = line
                .added
                .map_or(String::new(), |added| format!("{:+.2}", added / 1024.0));
            let _ = writeln!(
                self.text,
                "| {} | {added} | {:.1} |",
                line.title,
                line.bytes / 1024.0
            );
        }
    }

    /// How the limit was held.
    pub fn limits(&mut self, held: &[Held]) {
        self.push(
            "\n## The limit test that was passed before timing\n\n50 clients against 10,000 tokens in 10 minutes.\n\n\
             | gateway | admitted ÷ limit, by the upstream's count |\n| --- | --: |\n",
        );
        for it in held {
            let _ = writeln!(self.text, "| {} | {:.3} |", it.title, it.used);
        }
    }

    /// Prints it and writes `target/bench.md`.
    ///
    /// # Panics
    /// If the file cannot be written.
    pub fn finish(mut self) {
        let _ = writeln!(
            self.text,
            "\nLoad average of the machine before: {}, after: {}.",
            self.load,
            load_average()
        );
        println!("{}", self.text);
        let path = programs::root().join("target/bench.md");
        std::fs::create_dir_all(programs::root().join("target")).expect("the folder target");
        std::fs::write(&path, &self.text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    }

    fn push(&mut self, text: &str) {
        self.text.push_str(text);
    }
}

fn some(microseconds: f64) -> String {
    if microseconds < 0.05 {
        String::new()
    } else {
        format!("{microseconds:.1}")
    }
}

fn machine() -> String {
    let text = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = text
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown CPU", |(_, name)| name);
    let cores = text.lines().filter(|line| line.starts_with("processor")).count();
    format!("{model}, {cores} cores")
}

fn load_average() -> String {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split(' ').take(3).collect::<Vec<_>>().join(" ")
}
