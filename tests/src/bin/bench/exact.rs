//! What it costs to count every input exactly, and how long others wait for large ones.

use crate::Plan;
use crate::gateways::{Bench, CHANNEL, NEAR, Running, Upstream, with_text};
use crate::generator::Order;
use crate::load;
use crate::rounds::median;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use tollgate_tests::http;

/// One request in so many is large.
pub const LARGE_EVERY: u64 = 50;
/// How long the upstream takes, and requests a second: two and four large ones among them, far below what a core can count.
/// An upstream that answers at once shows every microsecond that a small request waits; one that takes a fiftieth of a second
/// is still faster than any model that writes an answer.
const POINTS: [(Duration, u64); 4] = [
    (Duration::ZERO, 100),
    (Duration::ZERO, 200),
    (Duration::from_millis(20), 100),
    (Duration::from_millis(20), 200),
];
/// A closed loop over an upstream that answers at once.
const AT_ONCE: (Duration, u64) = (Duration::ZERO, 0);
const CONNECTIONS: usize = 64;
const MIB: usize = 1 << 20;

/// Medians over the rounds.
#[derive(Clone, Debug)]
pub struct Exact {
    /// What it is called.
    pub title: String,
    /// CPU time of a small request by its upper bound and counted, microseconds.
    pub cpu: [f64; 2],
    /// How long small requests take beside large ones.
    pub beside: Vec<Beside>,
}

/// 99th percentiles of small requests, microseconds, and medians of their ratios within a round.
#[derive(Clone, Debug)]
pub struct Beside {
    /// How long the upstream takes.
    pub thinks: Duration,
    /// Requests a second.
    pub rate: u64,
    /// Bare nginx without large ones.
    pub bare: f64,
    /// Tollgate without large ones.
    pub alone: f64,
    /// Large ones that pass bare nginx, to bare nginx without them.
    pub through_bare: (f64, f64),
    /// Large ones that pass by their upper bound, to Tollgate without them.
    pub by_bound: (f64, f64),
    /// Large ones that are counted exactly, to Tollgate without them.
    pub counted: (f64, f64),
}

/// Measures each gateway that counts.
pub async fn measure(bench: &Bench, running: &[Running], plan: &Plan) -> Vec<Exact> {
    let counting = || {
        running
            .iter()
            .filter(|gateway| gateway.kind.is_tollgate() && gateway.kind.shares_region())
    };
    // Once for all of them: they share a region.
    if let Some(gateway) = counting().next() {
        let claim = http::send(gateway.nginx.address(), &Upstream::Claim.request(gateway.kind)).await;
        let claim = claim.expect("the gateway answers");
        assert_eq!(claim.status(), 200, "{}", claim.text());
    }
    let bare = |of: &Running| running.iter().find(|gateway| gateway.kind == of.kind.base());
    counting()
        .filter_map(|gateway| Some(one(bench, gateway, bare(gateway)?, plan)))
        .collect()
}

fn one(bench: &Bench, gateway: &Running, bare: &Running, plan: &Plan) -> Exact {
    let time = Duration::from_secs(plan.seconds);
    let small = |channel| load::request(&bench.unnamed, channel);
    let large = |channel| -> Vec<Vec<u8>> {
        [" ".repeat(MIB), "-".repeat(MIB), letters(MIB)]
            .iter()
            .map(|text| load::request(&with_text(text), channel))
            .collect()
    };
    let run = |gateway: &Running, request: Vec<u8>, others: Vec<Vec<u8>>, (thinks, rate)| {
        let order = Order {
            address: gateway.nginx.address(),
            request,
            every: if others.is_empty() { 0 } else { LARGE_EVERY },
            others,
            rate,
            connections: CONNECTIONS,
            // A 99th percentile of a slow rate wants its hundreds, too.
            time: if rate == 0 { time } else { 2 * time },
            thinks,
        };
        load::run(bench, gateway, order)
    };
    let _awake = Awake::keep();
    let mut cpu = Vec::new();
    let mut waits = vec![Vec::new(); POINTS.len()];
    for round in 1..=plan.rounds {
        eprintln!("bench: exact counts, round {round} of {}", plan.rounds);
        cpu.push([
            run(gateway, small(CHANNEL), Vec::new(), AT_ONCE).each(),
            run(gateway, small(NEAR), Vec::new(), AT_ONCE).each(),
        ]);
        for (point, waits) in POINTS.into_iter().zip(&mut waits) {
            waits.push(
                [
                    run(bare, small(CHANNEL), Vec::new(), point),
                    run(gateway, small(CHANNEL), Vec::new(), point),
                    run(bare, small(CHANNEL), large(CHANNEL), point),
                    run(gateway, small(CHANNEL), large(CHANNEL), point),
                    run(gateway, small(CHANNEL), large(NEAR), point),
                ]
                .map(|sample| sample.p99),
            );
        }
    }
    Exact {
        title: gateway.kind.title().to_owned(),
        cpu: [0, 1].map(|way| median(cpu.iter().map(|it| it[way]))),
        beside: POINTS
            .into_iter()
            .zip(&waits)
            .map(|(point, waits)| beside(point, waits))
            .collect(),
    }
}

/// Keeps the gateway's core from sleeping, by a loop that any other work interrupts. Between requests of a slow rate a
/// virtual CPU is taken away, and milliseconds until it is back hide what is measured here.
struct Awake(Child);

impl Awake {
    fn keep() -> Self {
        let mut command = Command::new("chrt");
        command.args([
            "--idle",
            "0",
            "taskset",
            "-c",
            "0",
            "sh",
            "-c",
            "while :; do :; done",
        ]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        Self(command.spawn().expect("chrt and taskset are there"))
    }
}

impl Drop for Awake {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn beside((thinks, rate): (Duration, u64), rounds: &[[f64; 5]]) -> Beside {
    let p99 = |of: usize| median(rounds.iter().map(|it| it[of]));
    let to = |of: usize, alone: usize| (p99(of), median(rounds.iter().map(|it| it[of] / it[alone])));
    Beside {
        thinks,
        rate,
        bare: p99(0),
        alone: p99(1),
        through_bare: to(2, 0),
        by_bound: to(3, 1),
        counted: to(4, 1),
    }
}

/// Letters without any pattern.
fn letters(bytes: usize) -> String {
    let mut state = 1_u32;
    (0..bytes)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            char::from(b'a' + u8::try_from((state >> 16) % 26).expect("a letter"))
        })
        .collect()
}
