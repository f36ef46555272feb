//! What it costs to count every input exactly, and how long others wait for large ones.

use crate::Plan;
use crate::gateways::{Bench, CHANNEL, NEAR, Running, Upstream, with_text};
use crate::generator::Order;
use crate::load::{self, Sample};
use crate::rounds::median;
use std::time::Duration;
use tollgate_tests::http;

/// One request in so many is large.
pub const LARGE_EVERY: u64 = 50;
/// Requests a second with large ones among them: four large ones, far below what a core can count.
pub const RATE: u64 = 200;
const CONNECTIONS: usize = 64;
const MIB: usize = 1 << 20;

/// Medians over the rounds.
#[derive(Clone, Debug)]
pub struct Exact {
    /// What it is called.
    pub title: String,
    /// CPU time of a small request by its upper bound and counted, microseconds.
    pub cpu: [f64; 2],
    /// 99th percentile of small requests, microseconds: beside large ones that bare nginx passes on, beside large ones that
    /// pass by their bound, beside large ones that are counted, and without large ones.
    pub p99: [f64; 4],
    /// Of the second to the first, of the third to the second, of the third to the first, of the first to bare nginx
    /// without large ones.
    pub ratios: [f64; 4],
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
    let run = |gateway: &Running, request: Vec<u8>, others: Vec<Vec<u8>>, rate: u64| {
        let order = Order {
            address: gateway.nginx.address(),
            request,
            every: if others.is_empty() { 0 } else { LARGE_EVERY },
            others,
            rate,
            connections: CONNECTIONS,
            time,
        };
        load::run(bench, gateway, order)
    };
    let mut samples: Vec<[Sample; 7]> = Vec::new();
    for round in 1..=plan.rounds {
        eprintln!("bench: exact counts, round {round} of {}", plan.rounds);
        samples.push([
            run(gateway, small(CHANNEL), Vec::new(), 0),
            run(gateway, small(NEAR), Vec::new(), 0),
            run(gateway, small(CHANNEL), Vec::new(), RATE),
            run(gateway, small(CHANNEL), large(CHANNEL), RATE),
            run(gateway, small(CHANNEL), large(NEAR), RATE),
            run(bare, small(CHANNEL), large(CHANNEL), RATE),
            run(bare, small(CHANNEL), Vec::new(), RATE),
        ]);
    }
    let of = |figure: fn(&[Sample; 7]) -> f64| median(samples.iter().map(figure));
    Exact {
        title: gateway.kind.title().to_owned(),
        cpu: [of(|it| it[0].each()), of(|it| it[1].each())],
        p99: [
            of(|it| it[5].p99),
            of(|it| it[3].p99),
            of(|it| it[4].p99),
            of(|it| it[2].p99),
        ],
        ratios: [
            of(|it| it[3].p99 / it[5].p99),
            of(|it| it[4].p99 / it[3].p99),
            of(|it| it[4].p99 / it[5].p99),
            of(|it| it[5].p99 / it[6].p99),
        ],
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
