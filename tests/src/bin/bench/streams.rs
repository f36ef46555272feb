//! CPU time of a streamed event.

use crate::Plan;
use crate::gateways::{Running, Upstream};
use crate::load::Clock;
use crate::rounds::median;
use tollgate_tests::load::Load;

/// Text events of one stream.
const EVENTS: f64 = 200.0;
const PARALLEL: usize = 32;
/// A stream takes some 0.5 s: two for each second that a round may take.
const STREAMS_A_SECOND: u64 = 64;

/// One line of the table of streams, medians over the rounds.
#[derive(Clone, Debug)]
pub struct EventCost {
    /// What it is called.
    pub title: String,
    /// CPU time of an event, microseconds.
    pub cpu: f64,
    /// Above bare nginx of the same binary in the same round.
    pub added: Option<f64>,
}

/// Streams through each gateway, in interleaved rounds.
pub async fn measure(running: &[Running], plan: &Plan) -> Vec<EventCost> {
    let mut costs = vec![Vec::new(); running.len()];
    for round in 1..=plan.rounds {
        eprintln!("bench: streams, round {round} of {}", plan.rounds);
        for (gateway, costs) in running.iter().zip(&mut costs) {
            costs.push(run(gateway, STREAMS_A_SECOND * plan.seconds).await);
        }
    }
    let base = |gateway: &Running| running.iter().position(|it| it.kind == gateway.kind.base());
    running
        .iter()
        .zip(&costs)
        .map(|(gateway, own)| EventCost {
            title: gateway.kind.title().to_owned(),
            cpu: median(own.iter().copied()),
            added: base(gateway)
                .map(|base| median(own.iter().zip(&costs[base]).map(|(own, base)| own - base))),
        })
        .collect()
}

async fn run(gateway: &Running, streams: u64) -> f64 {
    let request = Upstream::Stream.request(gateway.kind);
    let before = Clock::read(gateway);
    let report = Load::new(gateway.nginx.address())
        .parallel(PARALLEL)
        .requests(streams)
        .run(
            move |_| request.clone(),
            |_, answer| assert!(answer.text().contains("[DONE]"), "{}", answer.text()),
        )
        .await;
    let (worker, others, _, _) = Clock::read(gateway).since(&before);
    assert_eq!(
        report.status(200),
        streams,
        "{}: {report:?}",
        gateway.kind.title()
    );
    (worker + others) / (streams as f64 * EVENTS) * 1e6
}
