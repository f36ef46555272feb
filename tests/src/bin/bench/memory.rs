//! Memory of an open stream: each gateway is started anew, so that no earlier load has left room in its heap.

use crate::Plan;
use crate::gateways::{Bench, Kind, Upstream};
use std::net::SocketAddr;
use tollgate_tests::http::{Connection, Request};
use tollgate_tests::process;

/// Streams opened at once.
const BATCH: usize = 50;
/// Pieces read of each before it counts as open.
const PIECES: usize = 2;
/// Streams opened before the memory is first read: what a worker takes once, for whatever number of streams, is no stream's.
const FIRST: usize = 4 * BATCH;

/// One line of the table of memory.
#[derive(Clone, Debug)]
pub struct StreamMemory {
    /// What it is called.
    pub title: String,
    /// Memory of a stream, bytes.
    pub bytes: f64,
    /// Above bare nginx of the same binary.
    pub added: Option<f64>,
}

/// Opens the streams on bare nginx and on the gateway.
pub async fn measure(bench: &Bench, plan: &Plan) -> Vec<StreamMemory> {
    let mut measured: Vec<(Kind, f64)> = Vec::new();
    for kind in [Kind::Bare, Kind::On, Kind::DebianBare, Kind::DebianOn] {
        if plan.kinds.contains(&kind) {
            eprintln!("bench: memory of {} streams, {}", plan.streams, kind.name());
            measured.push((kind, run(bench, kind, plan.streams).await));
        }
    }
    let base = |kind: Kind| measured.iter().find(|(it, _)| *it == kind.base());
    measured
        .iter()
        .map(|(kind, bytes)| StreamMemory {
            title: kind.title().to_owned(),
            bytes: *bytes,
            added: base(*kind).map(|(_, base)| bytes - base),
        })
        .collect()
}

async fn run(bench: &Bench, kind: Kind, streams: usize) -> f64 {
    // A fifth more than two connections a stream, or nginx cuts those that wait.
    let connections = u32::try_from((FIRST + streams) * 5 / 2 + 256).unwrap_or(u32::MAX);
    let gateway = bench.start(kind, connections).await;
    let request = Upstream::Open.request(kind);
    let mut before = 0;
    let mut open = Vec::with_capacity(FIRST + streams);
    while open.len() < FIRST + streams {
        if open.len() == FIRST {
            before = process::memory(gateway.worker());
        }
        let batch = BATCH.min(FIRST + streams - open.len());
        let tasks: Vec<_> = (0..batch)
            .map(|_| tokio::spawn(begin(gateway.nginx.address(), request.clone())))
            .collect();
        for task in tasks {
            open.push(task.await.expect("a stream begins"));
        }
    }
    let grown = process::memory(gateway.worker()).saturating_sub(before);
    drop(open);
    gateway.nginx.stop().await;
    grown as f64 / streams as f64
}

async fn begin(address: SocketAddr, request: Request) -> Connection {
    let mut connection = Connection::open(address).await.expect("the gateway accepts");
    let head = connection.send(&request).await.expect("the stream's head");
    assert_eq!(head.status, 200);
    for _ in 0..PIECES {
        connection
            .piece()
            .await
            .expect("the stream goes on")
            .expect("an event");
    }
    connection
}
