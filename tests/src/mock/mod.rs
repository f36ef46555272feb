//! A model endpoint for tests: OpenAI's and Anthropic's APIs, plain and streamed, well-behaved or as mean as asked
//! for, and a count of what it really received and sent.
//!
//! See [`behaviour`] for the options. `GET /mock/stats`, `GET /mock/requests` and `POST /mock/reset` give the counts to
//! programs outside; inside a test [`MockLlm`] gives them directly. `POST /mock/release` lets held streams go on, those
//! to come included.

mod answer;
mod ask;
pub mod behaviour;
mod process;
mod server;
mod stats;
mod stream;
mod wire;
pub mod words;

pub use ask::{Api, base_model};
pub use process::MockProcess;
pub use stats::{End, Record, Stats, Tally, digest};

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::thread::JoinHandle;
use tokio::net::{TcpListener, TcpSocket};
use tokio::sync::oneshot;

/// A running mock on its own thread; stops when dropped.
#[derive(Debug)]
pub struct MockLlm {
    address: SocketAddr,
    shared: server::Shared,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl MockLlm {
    /// Starts on a free port of the loopback interface and keeps the last 10,000 requests.
    ///
    /// # Panics
    /// If it cannot listen.
    pub async fn start() -> Self {
        Self::start_on(0).await
    }

    /// Starts on a given port, for a mock that comes back.
    ///
    /// # Panics
    /// If the port is taken.
    pub async fn start_on(port: u16) -> Self {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let shared = server::Shared::new(Stats::new(10_000));
        let (stop, stopped) = oneshot::channel();
        let (ready, listening) = oneshot::channel();
        let serving = shared.clone();
        let thread = std::thread::spawn(move || {
            let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
                Ok(runtime) => runtime,
                Err(error) => return drop(ready.send(Err(error))),
            };
            runtime.block_on(async {
                match listen(address) {
                    Ok(listener) => {
                        let _ = ready.send(listener.local_addr());
                        tokio::select! {
                            () = server::serve(listener, serving) => {}
                            _ = stopped => {}
                        }
                    }
                    Err(error) => drop(ready.send(Err(error))),
                }
            });
        });
        let address = listening
            .await
            .expect("the mock's thread runs")
            .expect("the mock listens");
        Self {
            address,
            shared,
            stop: Some(stop),
            thread: Some(thread),
        }
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// `http://address`, without a path.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Completion tokens of answers whose request does not say how many; 16 at the start.
    pub fn default_tokens(&self, tokens: u64) {
        self.shared.set_default_tokens(tokens);
    }

    /// What it received and sent.
    pub fn stats(&self) -> &Stats {
        &self.shared.stats
    }

    /// Stops it; open connections end. Also done by dropping.
    pub fn stop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

impl Drop for MockLlm {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Serves until the process ends, with `threads` threads, keeping the last `keep` requests: the program `mock-llm`.
///
/// # Errors
/// If the address cannot be listened on.
pub fn run(address: SocketAddr, threads: usize, keep: usize) -> io::Result<()> {
    let mut builder = if threads > 1 {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        builder.worker_threads(threads);
        builder
    } else {
        tokio::runtime::Builder::new_current_thread()
    };
    builder.enable_all().build()?.block_on(async {
        let listener = listen(address)?;
        println!("mock-llm listens on http://{}", listener.local_addr()?);
        server::serve(listener, server::Shared::new(Stats::new(keep))).await;
        Ok(())
    })
}

fn listen(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = if address.is_ipv4() {
        TcpSocket::new_v4()?
    } else {
        TcpSocket::new_v6()?
    };
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    // Thousands may connect at once; the kernel caps this at net.core.somaxconn.
    socket.listen(65_535)
}
