//! I2: under saturation at least 95 % of a limit gets used, over 1, 3 and 5 instances that run production's keepers against the
//! ledger, with a network in between. Time is simulated, so every run is the same.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "test code"
)]

use std::collections::VecDeque;
use std::ops::Range;

use tollgate_lease::{Answer, Era, Keeper, Ledger, Lowered, Notice, Policy, Report, Row, Terms, Words};

const WINDOW: u64 = 20_000;
const TERMS: Terms = Terms {
    ttl: 3_000,
    margin: 300,
    hold: WINDOW,
    standing_ttl: 60_000,
    attempts: 2 * TIMEOUT,
};
/// How long an answer is waited for.
const TIMEOUT: u64 = 250;
/// One way between an instance and Redis, milliseconds.
const WAY: u64 = 1;
const LEASE_WAIT: u64 = 50;

/// An exact sliding window.
#[derive(Default)]
struct Window {
    words: Words,
    admitted: VecDeque<(u64, u64)>,
    wanted: u64,
    dry: u64,
}

impl Window {
    fn limit(&self, now: u64) -> u64 {
        if now < self.words.fence {
            self.words.allowance
        } else if now < self.words.fence + self.words.standing_span {
            self.words.standing
        } else {
            0
        }
    }

    fn take(&mut self, now: u64, units: u64) -> bool {
        while self.admitted.front().is_some_and(|(at, _)| at + WINDOW <= now) {
            self.admitted.pop_front();
        }
        if self.in_use(now) + units <= self.limit(now) {
            self.admitted.push_back((now, units));
            return true;
        }
        let missing = self.in_use(now) + units - self.limit(now);
        self.wanted = self.wanted.max(missing);
        false
    }
}

impl Row for Window {
    fn in_use(&self, now: u64) -> u64 {
        let live = self.admitted.iter().filter(|(at, _)| at + WINDOW > now);
        live.map(|(_, units)| units).sum()
    }
    fn take_wanted(&mut self) -> u64 {
        std::mem::take(&mut self.wanted)
    }
    fn lower(&mut self, now: u64, words: Words) -> Lowered {
        let covered = self.in_use(now).max(words.allowance);
        self.words = words;
        Lowered {
            covered,
            free_at: now,
        }
    }
    fn raise(&mut self, _: u64, words: Words) {
        self.words = words;
    }
    fn cut(&mut self, words: Words) {
        self.words = words;
    }
    fn dry_until(&mut self, at: u64) {
        self.dry = at;
    }
    fn tight(&mut self, _: bool) {}
}

enum Message {
    Report(Report),
    Answer(usize, u64, Answer),
    Notice(Notice),
}

struct Client {
    /// The next try, and since when it has been waiting for an allowance.
    at: u64,
    units: u64,
    waiting: Option<u64>,
    gone: bool,
}

struct World {
    now: u64,
    max: u64,
    nodes: Vec<(Window, Keeper)>,
    ledger: Ledger,
    era: Option<Era<u8>>,
    /// Which process Redis is.
    run: u8,
    network: VecDeque<(u64, Message)>,
    /// When what is sent to Redis is lost.
    away: Range<u64>,
    /// The number of each node's last report.
    sent: Vec<u64>,
    commands: u64,
    seed: u64,
    most: u64,
}

impl World {
    fn new(nodes: usize, max: u64) -> World {
        let node = |id| {
            let window = Window::default();
            let keeper = Keeper::resume(id, Policy::Share(20), TERMS, 0, Words::default(), &window);
            (window, keeper)
        };
        World {
            now: 100_000,
            max,
            nodes: (0..nodes as u64).map(node).collect(),
            ledger: Ledger::default(),
            era: Some(Era { run: 0, since: 0 }),
            run: 0,
            network: VecDeque::new(),
            away: 0..0,
            sent: vec![0; nodes],
            commands: 0,
            seed: 1,
            most: 0,
        }
    }

    fn random(&mut self) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed
    }

    /// One millisecond of daemons and Redis.
    fn tick(&mut self) {
        self.now += 1;
        let now = self.now;
        while self.network.front().is_some_and(|(at, _)| *at <= now) {
            let (_, message) = self.network.pop_front().unwrap();
            match message {
                Message::Report(_) if self.away.contains(&now) => {}
                Message::Report(report) => {
                    self.commands += 1;
                    let (answer, notice) = self.ledger.report(&mut self.era, now + 5_000, &self.run, &report);
                    let back = Message::Answer(report.id as usize, report.seq, answer);
                    self.network.push_back((now + WAY, back));
                    if let Some(notice) = notice {
                        self.network.push_back((now + WAY, Message::Notice(notice)));
                    }
                }
                Message::Answer(id, seq, answer) => {
                    let (window, keeper) = &mut self.nodes[id];
                    keeper.answered(now, seq, &answer, window);
                }
                Message::Notice(notice) => {
                    for (window, keeper) in &mut self.nodes {
                        keeper.noticed(now, &notice, window);
                    }
                }
            }
        }
        for ((window, keeper), sent) in self.nodes.iter_mut().zip(&mut self.sent) {
            if keeper.under_way().is_some_and(|at| now > at + TIMEOUT) {
                keeper.lost(*sent);
            }
            if let Some(report) = keeper.step(now, self.max, window) {
                *sent = report.seq;
                self.network.push_back((now + WAY, Message::Report(report)));
            }
        }
        let used = self.nodes.iter().map(|(w, _)| w.in_use(now)).sum();
        self.most = self.most.max(used);
        assert!(used <= self.max, "{used} of {} at {now}", self.max);
    }

    /// Redis comes back empty.
    fn lose(&mut self) {
        self.ledger = Ledger::default();
        self.run += 1;
    }

    /// `clients` at each of the first `loaded` instances; each tries until it is refused with nothing in flight.
    fn saturate(&mut self, loaded: usize, clients: usize) -> u64 {
        let mut all: Vec<Vec<Client>> = Vec::new();
        for _ in 0..loaded {
            let client = |_| Client {
                at: self.now + 1 + self.random() % 20,
                units: 1 + self.random() % (self.max / 100).max(1),
                waiting: None,
                gone: false,
            };
            all.push((0..clients).map(client).collect());
        }
        while all.iter().flatten().any(|c| !c.gone) {
            self.tick();
            for (node, clients) in all.iter_mut().enumerate() {
                for client in clients.iter_mut().filter(|c| !c.gone) {
                    let now = self.now;
                    if client.at > now {
                        continue;
                    }
                    if self.nodes[node].0.take(now, client.units) {
                        client.waiting = None;
                        client.at = now + 5 + self.random() % 20;
                        client.units = 1 + self.random() % (self.max / 100).max(1);
                        continue;
                    }
                    let since = *client.waiting.get_or_insert(now);
                    client.at = now + 2;
                    client.gone = now >= since + LEASE_WAIT || now < self.nodes[node].0.dry;
                }
            }
        }
        self.nodes.iter().map(|(w, _)| w.in_use(self.now)).sum()
    }
}

#[test]
fn saturation_uses_at_least_95_percent() {
    for max in [100, 1_000, 100_000] {
        for nodes in [1, 3, 5] {
            for clients in [1, 50, 500] {
                let mut world = World::new(nodes, max);
                let used = world.saturate(nodes, clients);
                let ratio = used as f64 / max as f64;
                println!(
                    "case max {max} instances {nodes} parallel {clients} ratio {ratio:.3} commands {}",
                    world.commands
                );
                assert!(ratio >= 0.95, "{max} {nodes} {clients}: {ratio}");
            }
        }
    }
}

#[test]
fn one_busy_instance_of_three_uses_at_least_95_percent() {
    for clients in [1, 50] {
        let mut world = World::new(3, 10_000);
        let used = world.saturate(1, clients);
        assert!(used >= 9_500, "{used}");
    }
}

/// The whole limit moves from one instance to another once its usage has left.
#[test]
fn the_limit_follows_the_traffic() {
    let mut world = World::new(3, 10_000);
    assert!(world.saturate(1, 50) >= 9_500);
    for _ in 0..WINDOW + 15_000 {
        world.tick();
    }
    assert_eq!(
        world.ledger.counted(world.now + 5_000),
        0,
        "what is idle goes back"
    );
    assert!(world.saturate(3, 20) >= 9_500);
}

/// Steady traffic below the limit asks for renewals only.
#[test]
fn steady_traffic_needs_few_commands() {
    let mut world = World::new(3, 90_000);
    let mut requests = 0;
    let mut before = 0;
    for ms in 0..3 * WINDOW {
        world.tick();
        for node in 0..3 {
            // 1,000 requests a second at each, of one unit.
            let now = world.now;
            if world.nodes[node].0.take(now, 1) {
                requests += 1;
            }
        }
        if ms == 2 * WINDOW {
            before = world.commands;
            requests = 0;
        }
    }
    let commands = world.commands - before;
    println!("{commands} commands for {requests} requests");
    assert!(requests > 50_000);
    assert!(commands * 1_000 <= requests, "{commands} for {requests}");
}

/// Redis may go at any moment: what the last third of a lease leaves beside one attempt ends no lease.
#[test]
fn a_pause_of_redis_ends_no_lease() {
    let pause = (TERMS.ttl - TERMS.margin) / 3 - TIMEOUT - 4 * WAY;
    let mut world = World::new(3, 90_000);
    let (mut lost, mut fenced) = (0, 0);
    for ms in 0..3 * WINDOW {
        if ms > TERMS.ttl && ms % 2_311 == 0 {
            world.away = world.now..world.now + pause;
            lost += 1;
        }
        world.tick();
        let now = world.now;
        for (window, _) in &mut world.nodes {
            window.take(now, 1);
            fenced += u64::from(ms > TERMS.ttl && now >= window.words.fence);
        }
    }
    assert!(
        lost > 20 && fenced == 0,
        "{lost} pauses, {fenced} ms without a lease"
    );
}

/// After a loss nothing is granted for a lease's length; not a moment longer, however often instances were refused meanwhile.
#[test]
fn a_limit_is_granted_again_when_the_quarantine_ends() {
    let mut world = World::new(3, 10_000);
    let held = |world: &World| -> u64 { world.nodes.iter().map(|(w, _)| w.words.allowance).sum() };
    let take = |world: &mut World| {
        world.tick();
        let now = world.now;
        for node in 0..3 {
            world.nodes[node].0.take(now, 4);
        }
    };
    while held(&world) < 5_000 {
        take(&mut world);
    }
    world.lose();
    // What was under way.
    for _ in 0..2 * WAY {
        take(&mut world);
    }
    let before = held(&world);
    // By Redis' clock.
    let ends = |world: &World| {
        world
            .era
            .as_ref()
            .filter(|e| e.run > 0)
            .map(|e| e.since + TERMS.ttl)
    };
    while held(&world) <= before {
        take(&mut world);
        let late = ends(&world).is_some_and(|end| world.now + 5_000 > end + 50);
        assert!(!late, "{before} of 10,000 are held");
    }
    assert!(ends(&world).is_some_and(|end| world.now + 5_000 >= end));
}
