//! Load generator and upstream in one thread that never sleeps while a load runs.
//!
//! A peer that sleeps is woken by the kernel at the expense of who writes to it, 2 µs and more on a virtual machine, and
//! the slower a gateway is, the more often its peers sleep. Behind a real network nobody pays that. So that all
//! gateways do the same work for a request, nobody sleeps here: the thread asks `epoll` without waiting, and yields.

use rustix::event::Timespec;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use std::collections::VecDeque;
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::OwnedFd;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

const LISTENER: u64 = u64::MAX;
/// How long the thread waits for events while no load runs; commands are looked for that often.
const IDLE: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 2_000_000,
};
const NOW: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 0,
};
/// How long after its end a load waits for the last answers.
const LAST_ANSWERS: Duration = Duration::from_secs(10);

/// A load: each connection sends one request after the other.
#[derive(Clone, Debug)]
pub struct Order {
    /// Where to.
    pub address: SocketAddr,
    /// The request's bytes, head and body.
    pub request: Vec<u8>,
    /// Requests that now and then take its place, in turn.
    pub others: Vec<Vec<u8>>,
    /// How often: every so many requests one of them. Their latencies are not taken.
    pub every: u64,
    /// Requests a second, at random times (a Poisson process, the same in each run); 0 for a closed loop, in which each
    /// connection sends as soon as it is answered.
    pub rate: u64,
    /// Connections.
    pub connections: usize,
    /// How long.
    pub time: Duration,
    /// How long the upstream takes for each answer.
    pub thinks: Duration,
}

impl Order {
    /// A closed loop of one request, over an upstream that answers at once.
    pub fn of(address: SocketAddr, request: Vec<u8>, connections: usize, time: Duration) -> Self {
        Self {
            address,
            request,
            others: Vec::new(),
            every: 0,
            rate: 0,
            connections,
            time,
            thinks: Duration::ZERO,
        }
    }
}

/// What came of a load.
#[derive(Clone, Debug, Default)]
pub struct Outcome {
    /// Answers with status 200.
    pub answers: u64,
    /// Other answers, and requests without one; with the last one's head.
    pub failures: u64,
    /// How the last failure looked.
    pub failure: String,
    /// From the first request to the last answer.
    pub elapsed: Duration,
    /// Nanoseconds from sending to the last byte, sorted.
    pub latencies: Vec<u32>,
}

impl Outcome {
    /// A quantile of the latency, microseconds.
    pub fn latency(&self, quantile: f64) -> f64 {
        let last = self.latencies.len().saturating_sub(1) as f64;
        let index = (last * quantile).round() as usize;
        self.latencies
            .get(index)
            .map_or(f64::NAN, |it| f64::from(*it) / 1e3)
    }
}

/// The running thread; ends when dropped.
#[derive(Debug)]
pub struct Generator {
    address: SocketAddr,
    orders: Option<Sender<Order>>,
    outcomes: Receiver<Outcome>,
    thread: Option<JoinHandle<()>>,
}

impl Generator {
    /// Starts an upstream on a free port that gives this answer to every request.
    ///
    /// # Panics
    /// If it cannot listen.
    pub fn start(answer: Vec<u8>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("the upstream listens");
        listener
            .set_nonblocking(true)
            .expect("a listener that does not block");
        let address = listener.local_addr().expect("an address");
        let (orders, commands) = mpsc::channel();
        let (results, outcomes) = mpsc::channel();
        let thread = std::thread::spawn(move || Engine::new(listener, answer).run(&commands, &results));
        Self {
            address,
            orders: Some(orders),
            outcomes,
            thread: Some(thread),
        }
    }

    /// Where the upstream listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Runs a load to its end.
    ///
    /// # Panics
    /// If the thread has died.
    pub fn run(&self, order: Order) -> Outcome {
        let orders = self.orders.as_ref().expect("it runs until it is dropped");
        orders.send(order).expect("the generator's thread runs");
        self.outcomes.recv().expect("the generator's thread runs")
    }
}

impl Drop for Generator {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// One end of a connection to the gateway.
struct Peer {
    stream: TcpStream,
    buffer: Vec<u8>,
    role: Role,
    /// What the socket did not take yet, from `sent` on.
    unsent: Vec<u8>,
    sent: usize,
}

enum Role {
    /// The gateway's connection to the upstream.
    Upstream,
    /// A client's, with what it waits for.
    Client(Option<Waiting>),
}

/// A request that was sent.
#[derive(Clone, Copy)]
struct Waiting {
    since: Instant,
    timed: bool,
}

struct Load {
    sent: u64,
    /// When the next request is due, at the load's rate.
    next: Duration,
    random: u64,
    /// Connections whose turn has not come yet.
    idle: Vec<usize>,
    order: Order,
    start: Instant,
    waiting: usize,
    outcome: Outcome,
}

impl Load {
    /// Time to the next request.
    fn gap(&mut self) -> Duration {
        self.random = self
            .random
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        let part = ((self.random >> 11) + 1) as f64 / (1_u64 << 53) as f64;
        Duration::from_secs_f64(-part.ln() / self.order.rate as f64)
    }
}

struct Engine {
    epoll: OwnedFd,
    listener: TcpListener,
    answer: Vec<u8>,
    peers: Vec<Option<Peer>>,
    /// Those with something unsent.
    writing: Vec<usize>,
    /// Upstream's connections that are to be answered, and when.
    thinking: VecDeque<(Instant, usize)>,
    load: Option<Load>,
}

impl Engine {
    fn new(listener: TcpListener, answer: Vec<u8>) -> Self {
        let epoll = epoll::create(CreateFlags::CLOEXEC).expect("an epoll instance");
        epoll::add(&epoll, &listener, EventData::new_u64(LISTENER), EventFlags::IN)
            .expect("the listener is watched");
        Self {
            epoll,
            listener,
            answer,
            peers: Vec::new(),
            writing: Vec::new(),
            thinking: VecDeque::new(),
            load: None,
        }
    }

    fn run(mut self, orders: &Receiver<Order>, results: &Sender<Outcome>) {
        let mut events: Vec<Event> = Vec::with_capacity(256);
        loop {
            if self.load.is_none() {
                match orders.try_recv() {
                    Ok(order) => self.begin(order),
                    Err(mpsc::TryRecvError::Empty) => {}
                    Err(mpsc::TryRecvError::Disconnected) => return,
                }
            }
            let timeout = if self.load.is_some() { &NOW } else { &IDLE };
            events.clear();
            match epoll::wait(
                &self.epoll,
                rustix::buffer::spare_capacity(&mut events),
                Some(timeout),
            ) {
                Ok(_) => {}
                Err(error) => assert!(error == rustix::io::Errno::INTR, "epoll: {error}"),
            }
            if events.is_empty() {
                // Redis and the daemon live on this core too.
                std::thread::yield_now();
            }
            for event in &events {
                match event.data.u64() {
                    LISTENER => self.accept(),
                    index => self.readable(usize::try_from(index).expect("an index")),
                }
            }
            self.write_on();
            self.answer_due();
            self.send_due();
            if let Some(outcome) = self.ended() {
                let _ = results.send(outcome);
            }
        }
    }

    fn begin(&mut self, order: Order) {
        self.load = Some(Load {
            sent: 0,
            next: Duration::ZERO,
            random: 1,
            idle: Vec::new(),
            start: Instant::now(),
            waiting: 0,
            outcome: Outcome::default(),
            order: order.clone(),
        });
        for _ in 0..order.connections {
            let mut stream = TcpStream::connect(order.address).expect("the gateway accepts");
            stream.write_all(&order.request).expect("a request is sent");
            let waiting = Waiting {
                since: Instant::now(),
                timed: true,
            };
            self.watch(stream, Role::Client(Some(waiting)));
            self.load.iter_mut().for_each(|load| load.waiting += 1);
        }
    }

    /// The outcome, once time is up and every request is answered.
    fn ended(&mut self) -> Option<Outcome> {
        let load = self.load.as_ref()?;
        let late = load.start.elapsed() > load.order.time + LAST_ANSWERS;
        let early = load.start.elapsed() < load.order.time;
        if early || (load.waiting > 0 && !late) {
            return None;
        }
        let mut load = self.load.take()?;
        for peer in &mut self.peers {
            peer.take_if(|peer| matches!(peer.role, Role::Client(_)));
        }
        load.outcome.failures += load.waiting as u64;
        load.outcome.elapsed = load.start.elapsed();
        load.outcome.latencies.sort_unstable();
        Some(load.outcome)
    }

    fn accept(&mut self) {
        while let Ok((stream, _)) = self.listener.accept() {
            self.watch(stream, Role::Upstream);
        }
    }

    fn watch(&mut self, stream: TcpStream, role: Role) {
        stream.set_nodelay(true).expect("no delay");
        stream
            .set_nonblocking(true)
            .expect("a connection that does not block");
        let index = self.peers.iter().position(Option::is_none).unwrap_or_else(|| {
            self.peers.push(None);
            self.peers.len() - 1
        });
        let data = EventData::new_u64(index as u64);
        epoll::add(&self.epoll, &stream, data, EventFlags::IN).expect("a connection is watched");
        self.peers[index] = Some(Peer {
            stream,
            buffer: Vec::with_capacity(16 * 1024),
            role,
            unsent: Vec::new(),
            sent: 0,
        });
    }

    /// Sends on what sockets did not take at once.
    fn write_on(&mut self) {
        let mut writing = std::mem::take(&mut self.writing);
        writing.retain(|&index| {
            let Some(Some(peer)) = self.peers.get_mut(index) else {
                return false;
            };
            match peer.stream.write(&peer.unsent[peer.sent..]) {
                Ok(length) => peer.sent += length,
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => {
                    self.lost(index, &error.to_string());
                    return false;
                }
            }
            self.peers[index]
                .as_ref()
                .is_some_and(|peer| peer.sent < peer.unsent.len())
        });
        self.writing = writing;
    }

    fn readable(&mut self, index: usize) {
        let Some(Some(peer)) = self.peers.get_mut(index) else {
            return;
        };
        let mut bytes = [0; 64 * 1024];
        match peer.stream.read(&mut bytes) {
            Ok(0) => return self.lost(index, "closed"),
            Ok(length) => peer.buffer.extend_from_slice(&bytes[..length]),
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(error) => return self.lost(index, &error.to_string()),
        }
        let Some(end) = message_end(&peer.buffer) else {
            return;
        };
        assert_eq!(end, peer.buffer.len(), "nobody pipelines");
        let thinks = self
            .load
            .as_ref()
            .map_or(Duration::ZERO, |load| load.order.thinks);
        let sent = match &mut peer.role {
            Role::Upstream if !thinks.is_zero() => {
                self.thinking.push_back((Instant::now() + thinks, index));
                Ok(())
            }
            Role::Upstream => peer.stream.write_all(&self.answer),
            Role::Client(waiting) => {
                let Some(load) = &mut self.load else {
                    return;
                };
                let now = Instant::now();
                if let Some(Waiting { since, .. }) = waiting.take().filter(|waiting| waiting.timed) {
                    let taken = now.duration_since(since).as_nanos();
                    load.outcome
                        .latencies
                        .push(u32::try_from(taken).unwrap_or(u32::MAX));
                }
                load.waiting -= 1;
                if peer.buffer.starts_with(b"HTTP/1.1 200 ") {
                    load.outcome.answers += 1;
                } else {
                    load.outcome.failures += 1;
                    load.outcome.failure = String::from_utf8_lossy(&peer.buffer).into_owned();
                }
                if now.duration_since(load.start) >= load.order.time {
                    Ok(())
                } else if load.order.rate > 0 {
                    load.idle.push(index);
                    Ok(())
                } else {
                    peer.buffer.clear();
                    return self.send(index);
                }
            }
        };
        peer.buffer.clear();
        if let Err(error) = sent {
            self.lost(index, &error.to_string());
        }
    }

    /// Answers for which the upstream has thought long enough. A connection that is gone by now answers nothing.
    fn answer_due(&mut self) {
        while let Some((_, index)) = self.thinking.pop_front_if(|(due, _)| *due <= Instant::now()) {
            if let Some(Some(peer)) = self.peers.get_mut(index)
                && matches!(peer.role, Role::Upstream)
                && let Err(error) = peer.stream.write_all(&self.answer)
            {
                self.lost(index, &error.to_string());
            }
        }
    }

    /// Sends what is due by now at the load's rate.
    fn send_due(&mut self) {
        while let Some(load) = &mut self.load {
            let elapsed = load.start.elapsed();
            if load.order.rate == 0 || elapsed >= load.order.time || elapsed < load.next {
                return;
            }
            let Some(index) = load.idle.pop() else { return };
            let gap = load.gap();
            load.next += gap;
            self.send(index);
        }
    }

    /// Sends the next request over a client's connection.
    fn send(&mut self, index: usize) {
        let (Some(load), Some(Some(peer))) = (&mut self.load, self.peers.get_mut(index)) else {
            return;
        };
        load.sent += 1;
        load.waiting += 1;
        let order = &load.order;
        let turn = load
            .sent
            .checked_div(order.every)
            .filter(|_| load.sent.is_multiple_of(order.every));
        let other = turn.and_then(|turn| {
            let count = u64::try_from(order.others.len()).expect("a number");
            order
                .others
                .get(usize::try_from(turn.checked_rem(count)?).expect("an index"))
        });
        peer.role = Role::Client(Some(Waiting {
            since: Instant::now(),
            timed: other.is_none(),
        }));
        let request = other.unwrap_or(&order.request);
        match peer.stream.write(request) {
            Ok(length) if length < request.len() => {
                (peer.unsent, peer.sent) = (request[length..].to_vec(), 0);
                self.writing.push(index);
            }
            Ok(_) => {}
            Err(error) => self.lost(index, &error.to_string()),
        }
    }

    fn lost(&mut self, index: usize, reason: &str) {
        self.thinking.retain(|(_, thinks)| *thinks != index);
        let peer = self.peers[index].take();
        if let (
            Some(Peer {
                role: Role::Client(Some(_)),
                ..
            }),
            Some(load),
        ) = (peer, &mut self.load)
        {
            load.waiting -= 1;
            load.outcome.failures += 1;
            load.outcome.failure = reason.to_owned();
        }
    }
}

/// Where a message with a `Content-Length` ends; none while a part of it is missing.
fn message_end(buffer: &[u8]) -> Option<usize> {
    let head = memchr::memmem::find(buffer, b"\r\n\r\n")? + 4;
    let length = buffer[..head]
        .split(|byte| *byte == b'\n')
        .find_map(|line| {
            let (name, value) = line.split_at_checked(15)?;
            name.eq_ignore_ascii_case(b"content-length:")
                .then(|| std::str::from_utf8(value).ok()?.trim().parse::<usize>().ok())?
        })
        .unwrap_or_else(|| panic!("no length: {}", String::from_utf8_lossy(buffer)));
    (buffer.len() >= head + length).then_some(head + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Small requests for so many milliseconds.
    fn to(generator: &Generator, connections: usize, milliseconds: u64) -> Order {
        let request = b"GET / HTTP/1.1\r\nContent-Length: 0\r\n\r\n".to_vec();
        let time = Duration::from_millis(milliseconds);
        Order::of(generator.address(), request, connections, time)
    }

    #[test]
    fn messages_end_by_their_length() {
        assert_eq!(
            message_end(b"POST / HTTP/1.1\r\ncontent-LENGTH: 3\r\n\r\nab"),
            None
        );
        assert_eq!(
            message_end(b"POST / HTTP/1.1\r\ncontent-LENGTH: 3\r\n\r\nabc"),
            Some(41)
        );
        assert_eq!(message_end(b"POST / HTTP/1.1\r\nContent-Len"), None);
    }

    #[test]
    fn a_load_is_counted() {
        let generator = Generator::start(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec());
        let order = |connections| to(&generator, connections, 50);
        for connections in [1, 8] {
            let outcome = generator.run(order(connections));
            assert!(outcome.answers >= connections as u64, "{outcome:?}");
            assert_eq!(
                (outcome.failures, outcome.latencies.len() as u64),
                (0, outcome.answers)
            );
            assert!(outcome.latency(0.5) <= outcome.latency(0.99));
        }
    }

    #[test]
    fn a_rate_is_kept() {
        let generator = Generator::start(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec());
        let outcome = generator.run(Order {
            rate: 200,
            ..to(&generator, 4, 300)
        });
        // The first of each connection, and 60 in 300 ms: the random times are the same in each run.
        assert!(
            outcome.failures == 0 && (40..=64).contains(&outcome.answers),
            "{outcome:?}"
        );
    }

    #[test]
    fn an_upstream_takes_its_time() {
        let generator = Generator::start(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec());
        let outcome = generator.run(Order {
            thinks: Duration::from_millis(10),
            ..to(&generator, 3, 50)
        });
        assert!(outcome.failures == 0 && outcome.answers >= 3, "{outcome:?}");
        assert!(outcome.latency(0.0) >= 10_000.0, "{outcome:?}");
    }

    #[test]
    fn other_requests_take_their_turns() {
        let generator = Generator::start(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok".to_vec());
        let long = 3_000_000;
        let other = format!(
            "POST / HTTP/1.1\r\nContent-Length: {long}\r\n\r\n{}",
            "x".repeat(long)
        );
        let outcome = generator.run(Order {
            others: vec![other.into_bytes()],
            every: 10,
            ..to(&generator, 2, 100)
        });
        let timed = outcome.latencies.len() as u64;
        assert!(outcome.failures == 0 && timed < outcome.answers, "{outcome:?}");
        assert!(
            timed >= outcome.answers / 10 * 8,
            "{timed} of {}",
            outcome.answers
        );
    }
}
