//! `make bench`: what the gateway costs, against bare nginx and against gateways in Lua, in the same run.
//!
//! How it measures is written in `bench/README.md`. The table goes to the standard output and to `target/bench.md`.

mod cluster;
mod exact;
mod gateways;
mod generator;
mod limit_test;
mod load;
mod memory;
mod rounds;
mod routing;
mod streams;
mod table;

use gateways::{Bench, Kind};
use std::process::ExitCode;

const USAGE: &str = "usage: bench [--quick] [--rounds 5] [--seconds 3] [--streams 2000] \
[--only bare,off,on,cluster,debian-bare,debian-on,lua-dict,lua-redis] \
[--parts requests,latency,exact,routing,cluster,streams,memory]";

/// What to measure and how long.
#[derive(Debug)]
pub struct Plan {
    /// Interleaved rounds.
    pub rounds: usize,
    /// Seconds of load for each gateway in each round.
    pub seconds: u64,
    /// Streams held open for the memory of one.
    pub streams: usize,
    /// Gateways that take part.
    pub kinds: Vec<Kind>,
    /// Which tables are made: `requests`, `latency`, `exact`, `routing`, `cluster`, `streams`, `memory`.
    pub parts: Vec<String>,
}

impl Plan {
    fn read(mut arguments: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut plan = Self {
            rounds: 5,
            seconds: 3,
            streams: 2000,
            kinds: Kind::available(),
            parts: [
                "requests", "latency", "exact", "routing", "cluster", "streams", "memory",
            ]
            .map(str::to_owned)
            .to_vec(),
        };
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or(USAGE);
            let number = |text: String| text.parse::<u64>().map_err(|_| USAGE).map(|n| n.max(1));
            match argument.as_str() {
                "--quick" => (plan.rounds, plan.seconds, plan.streams) = (1, 1, 200),
                "--rounds" => plan.rounds = usize::try_from(number(value()?)?).map_err(|_| USAGE)?,
                "--seconds" => plan.seconds = number(value()?)?,
                "--streams" => plan.streams = usize::try_from(number(value()?)?).map_err(|_| USAGE)?,
                "--only" => {
                    let list = value()?;
                    let names: Vec<&str> = list.split(',').collect();
                    plan.kinds.retain(|kind| names.contains(&kind.name()));
                }
                "--parts" => plan.parts = value()?.split(',').map(str::to_owned).collect(),
                _ => return Err(USAGE.to_owned()),
            }
        }
        if plan.kinds.is_empty() {
            return Err(USAGE.to_owned());
        }
        Ok(plan)
    }

    fn has(&self, part: &str) -> bool {
        self.parts.iter().any(|name| name == part)
    }
}

fn main() -> ExitCode {
    let plan = match Plan::read(std::env::args().skip(1)) {
        Ok(plan) => plan,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::FAILURE;
        }
    };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    runtime.block_on(run(&plan));
    ExitCode::SUCCESS
}

async fn run(plan: &Plan) {
    let mut report = table::Report::begin(plan);
    let bench = Bench::prepare(plan).await;
    if plan.has("memory") {
        report.memory(&memory::measure(&bench, plan).await, plan.streams);
    }
    let mut running = Vec::new();
    for kind in &plan.kinds {
        running.push(bench.start(*kind, 4096).await);
    }
    report.limits(&limit_test::all(&bench, &running).await);
    if plan.has("requests") {
        report.requests(&rounds::requests(&bench, &running, plan));
    }
    if plan.has("latency") {
        report.latency(&rounds::latency(&bench, &running, plan));
    }
    if plan.has("exact") {
        report.exact(&exact::measure(&bench, &running, plan).await);
    }
    if plan.has("routing") {
        report.routing(&routing::measure(&bench, &running, plan));
    }
    if plan.has("cluster")
        && let Some(figures) = cluster::measure(&bench, &running, plan).await
    {
        report.cluster(&figures);
    }
    if plan.has("streams") {
        report.streams(&streams::measure(&running, plan).await);
    }
    for gateway in running {
        gateway.nginx.stop().await;
    }
    bench.stop().await;
    report.finish();
}
