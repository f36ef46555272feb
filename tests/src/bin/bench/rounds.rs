//! Interleaved rounds of plain requests: CPU time under load, latency at one connection.

use crate::Plan;
use crate::gateways::{Bench, Kind, Running};
use crate::load::{self, Sample};
use rustix::process::Signal;
use std::time::Duration;
use tollgate_tests::process;

/// Connections under load: the worker is never idle for want of requests.
const CONNECTIONS: usize = 64;

/// One line of the table of requests, medians over the rounds.
#[derive(Clone, Debug)]
pub struct Cost {
    /// What it is called.
    pub title: String,
    /// CPU time ÷ that of the bare nginx of the same binary in the same round; none if that does not take part.
    pub ratio: Option<f64>,
    /// The smallest and the largest of the rounds' ratios.
    pub spread: Option<(f64, f64)>,
    /// CPU time of a request, microseconds.
    pub cpu: f64,
    /// Part of it outside the worker.
    pub others: f64,
    /// CPU time of a request beside its path (the daemon), microseconds.
    pub beside: f64,
    /// Requests a second.
    pub rate: f64,
    /// Part of the time in which the worker was on its CPU.
    pub busy: f64,
    /// Part of the time in which something else was on the worker's CPU.
    pub taken: f64,
}

/// Latency added at one connection, microseconds, medians over the rounds.
#[derive(Clone, Debug)]
pub struct Latency {
    /// What it is called.
    pub title: String,
    /// Median of the latency.
    pub p50: f64,
    /// Its 99th percentile.
    pub p99: f64,
    /// Medians of the differences to bare nginx in the same round: of p50 and of p99.
    pub added: Option<(f64, f64)>,
}

struct Row<'a> {
    gateway: &'a Running,
    body: &'a [u8],
    title: String,
    base: Kind,
}

fn rows<'a>(bench: &'a Bench, running: &'a [Running]) -> Vec<Row<'a>> {
    let mut rows = Vec::new();
    for gateway in running {
        let row = |body: &'a [u8], suffix: &str| Row {
            gateway,
            body,
            title: format!("{}{suffix}", gateway.kind.title()),
            base: gateway.kind.base(),
        };
        rows.push(row(&bench.unnamed, ""));
        if gateway.kind == Kind::On {
            rows.push(row(&bench.named, ", client names `max_tokens`"));
        }
    }
    rows
}

fn run(bench: &Bench, rows: &[Row<'_>], plan: &Plan, connections: usize) -> Vec<Vec<Sample>> {
    for row in rows {
        load::post(bench, row.gateway, row.body, connections, Duration::from_secs(1));
    }
    let mut samples = vec![Vec::new(); rows.len()];
    for round in 1..=plan.rounds {
        eprintln!(
            "bench: {connections} connections, round {round} of {}",
            plan.rounds
        );
        for (row, samples) in rows.iter().zip(&mut samples) {
            let time = Duration::from_secs(plan.seconds);
            let paused = (connections == 1).then(|| Paused::new(row.gateway));
            samples.push(load::post(bench, row.gateway, row.body, connections, time));
            drop(paused);
        }
    }
    samples
}

/// The daemon stands still while latency is taken: it shares the generator's core, and a delay of the generator is not
/// one of the gateway. What it misses waits on the ring.
struct Paused<'a>(&'a [u32]);

impl<'a> Paused<'a> {
    fn new(gateway: &'a Running) -> Self {
        let pids = match gateway.kind {
            Kind::Cluster => &gateway.path,
            _ => &gateway.beside,
        };
        pids.iter().for_each(|pid| process::signal(*pid, Signal::STOP));
        Self(pids)
    }
}

impl Drop for Paused<'_> {
    fn drop(&mut self) {
        self.0.iter().for_each(|pid| process::signal(*pid, Signal::CONT));
    }
}

/// Pairs of a row's and its base's samples, round by round.
fn paired<'a>(
    rows: &[Row<'_>],
    samples: &'a [Vec<Sample>],
    index: usize,
) -> Option<impl Iterator<Item = (&'a Sample, &'a Sample)> + use<'a>> {
    let base = rows.iter().position(|row| row.gateway.kind == rows[index].base)?;
    Some(samples[index].iter().zip(&samples[base]))
}

/// CPU time under load.
pub fn requests(bench: &Bench, running: &[Running], plan: &Plan) -> Vec<Cost> {
    let rows = rows(bench, running);
    let samples = run(bench, &rows, plan, CONNECTIONS);
    let of = |index: usize, figure: fn(&Sample) -> f64| median(samples[index].iter().map(figure));
    let cost = |(index, row): (usize, &Row<'_>)| {
        let mut ratios: Vec<f64> = paired(&rows, &samples, index)
            .into_iter()
            .flatten()
            .map(|(own, base)| own.each() / base.each())
            .collect();
        ratios.sort_by(f64::total_cmp);
        Cost {
            title: row.title.clone(),
            ratio: (!ratios.is_empty()).then(|| median(ratios.iter().copied())),
            spread: ratios.first().copied().zip(ratios.last().copied()),
            cpu: of(index, Sample::each),
            others: of(index, |sample| sample.others / sample.requests * 1e6),
            beside: of(index, |sample| sample.beside / sample.requests * 1e6),
            rate: of(index, |sample| sample.requests / sample.seconds),
            busy: of(index, |sample| (sample.cpu - sample.others) / sample.seconds),
            taken: of(index, |sample| sample.waited / sample.seconds),
        }
    };
    rows.iter().enumerate().map(cost).collect()
}

/// Latency at one connection.
pub fn latency(bench: &Bench, running: &[Running], plan: &Plan) -> Vec<Latency> {
    let rows = rows(bench, running);
    let samples = run(bench, &rows, plan, 1);
    let added = |index: usize, figure: fn(&Sample) -> f64| {
        paired(&rows, &samples, index)
            .map(|pairs| median(pairs.map(|(own, base)| figure(own) - figure(base))))
    };
    rows.iter()
        .enumerate()
        .map(|(index, row)| Latency {
            title: row.title.clone(),
            p50: median(samples[index].iter().map(|sample| sample.p50)),
            p99: median(samples[index].iter().map(|sample| sample.p99)),
            added: added(index, |sample| sample.p50).zip(added(index, |sample| sample.p99)),
        })
        .collect()
}

/// The middle one, or the mean of the two in the middle.
pub fn median(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    match (values.len() % 2, values.get(middle)) {
        (1, Some(value)) => *value,
        (_, Some(upper)) => (upper + values[middle - 1]) / 2.0,
        (_, None) => f64::NAN,
    }
}

#[cfg(test)]
mod tests {
    use super::median;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median([3.0, 1.0, 2.0].into_iter()), 2.0);
        assert_eq!(median([4.0, 1.0, 2.0, 3.0].into_iter()), 2.5);
        assert!(median(std::iter::empty()).is_nan());
    }
}
