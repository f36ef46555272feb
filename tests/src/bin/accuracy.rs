//! `make bench-accuracy`: how exactly limits hold over several instances, in all cases and under all faults.
//!
//! One line each; the same lines go to `target/accuracy.txt`. Fails if a limit is exceeded, or less than 95 % of what is not
//! stranded is used.

use std::process::ExitCode;
use std::time::Duration;
use tollgate_tests::cluster::{Case, SCENES, Schedule, Verdict};
use tollgate_tests::programs;

const USAGE: &str = "usage: tollgate-accuracy [--parts cases,faults,random] [--only PART_OF_A_NAME] [--seeds 1-20] [--lasts 30]
  --only   plays what has this in its name
  --seeds  random schedules: one, or the first and the last
  --lasts  seconds that an instance stays cut off after its leases have ended";

/// Numbers of instances in the cases.
const INSTANCES: [usize; 3] = [1, 3, 5];
/// How long other faults go on after the leases they hit have ended.
const LASTS: Duration = Duration::from_secs(2);

struct Plan {
    parts: Vec<String>,
    only: String,
    seeds: std::ops::RangeInclusive<u64>,
    cut_off: Duration,
}

impl Plan {
    fn read(mut arguments: impl Iterator<Item = String>) -> Option<Self> {
        let mut plan = Self {
            parts: ["cases", "faults", "random"].map(str::to_owned).to_vec(),
            only: String::new(),
            seeds: 1..=20,
            cut_off: Duration::from_secs(30),
        };
        while let Some(argument) = arguments.next() {
            let value = arguments.next()?;
            match argument.as_str() {
                "--parts" => plan.parts = value.split(',').map(str::to_owned).collect(),
                "--only" => plan.only = value,
                "--seeds" => {
                    let (first, last) = value.split_once('-').unwrap_or((value.as_str(), value.as_str()));
                    plan.seeds = first.parse().ok()?..=last.parse().ok()?;
                }
                "--lasts" => plan.cut_off = Duration::from_secs(value.parse().ok()?),
                _ => return None,
            }
        }
        Some(plan)
    }

    fn has(&self, part: &str) -> bool {
        self.parts.iter().any(|name| name == part)
    }

    fn wants(&self, name: &str) -> bool {
        name.contains(&self.only)
    }
}

#[derive(Default)]
struct Table {
    lines: String,
    wrong: Vec<String>,
}

impl Table {
    fn add(&mut self, verdict: &Verdict) {
        let line = verdict.line();
        println!("{line}");
        self.lines += &line;
        self.lines.push('\n');
        self.wrong.extend(verdict.check().err());
    }
}

fn main() -> ExitCode {
    let Some(plan) = Plan::read(std::env::args().skip(1)) else {
        eprintln!("{USAGE}");
        return ExitCode::FAILURE;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .expect("a runtime");
    let table = runtime.block_on(run(&plan));
    let path = programs::root().join("target/accuracy.txt");
    std::fs::write(&path, &table.lines).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    for wrong in &table.wrong {
        eprintln!("wrong: {wrong}");
    }
    if table.wrong.is_empty() && !table.lines.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

async fn run(plan: &Plan) -> Table {
    let mut table = Table::default();
    for instances in INSTANCES.into_iter().filter(|_| plan.has("cases")) {
        let mut cases = Case::all(instances);
        cases.retain(|case| plan.wants(&case.to_string()));
        if cases.is_empty() {
            continue;
        }
        let cluster = Case::cluster(instances, &cases).await;
        for case in cases {
            table.add(&case.play(&cluster).await);
        }
        cluster.stop().await;
    }
    for scene in SCENES
        .iter()
        .filter(|scene| plan.has("faults") && plan.wants(scene.name))
    {
        let more = if scene.name == "instance-cut-off" {
            plan.cut_off
        } else {
            LASTS
        };
        table.add(&scene.play(more).await);
    }
    for seed in plan.seeds.clone().filter(|_| plan.has("random")) {
        let schedule = Schedule::new(seed);
        if plan.wants(&format!("random-{seed}")) {
            eprintln!("{schedule}");
            table.add(&schedule.play().await);
        }
    }
    table
}
