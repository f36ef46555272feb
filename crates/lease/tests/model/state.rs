//! The protocol as a machine of states for `stateright`: holders, ledger and answers are production's; rows, windows, network and
//! time are the simplest that can go wrong in the same ways. Network: messages may be lost (never delivered), late, twice, in
//! any order. A node's clock and Redis' clock have nothing in common but their speed.

use std::collections::BTreeSet;

use stateright::{Model, Property};
use tollgate_lease::{Answer, Era, Holder, Ledger, Report, RowChange, Terms};

/// What can be built wrong; each is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Flaw {
    None,
    /// What is lowered is returned before the row knows.
    ReturnBeforeLower,
    /// A lease that expired comes back at once.
    NoHold,
    /// The fence counts from the answer instead of from before the question.
    FenceFromAnswer,
    /// Old reports count as well.
    NoSequence,
    /// A Redis that may have lost writes grants as ever.
    NoQuarantine,
    /// The standing share is not counted beyond the lease.
    NoStanding,
}

#[derive(Clone, Debug)]
pub struct Config {
    pub nodes: usize,
    pub max: u64,
    pub standing: u64,
    pub last_tick: u64,
    pub reports: u8,
    pub duplicates: u8,
    pub crashes: u8,
    pub restarts: u8,
    pub flaw: Flaw,
}

/// Ticks that make up a window.
const WINDOW: usize = 2;
const TERMS: Terms = Terms {
    ttl: 1,
    margin: 0,
    hold: WINDOW as u64,
    standing_ttl: 2,
    attempts: 0,
};
/// Redis' clock minus that of the nodes.
const OFFSET: u64 = 100;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Node {
    pub up: bool,
    pub daemon: Option<Holder>,
    pub allowance: u64,
    pub standing: u64,
    pub fence: u64,
    /// Units admitted in this tick and the ones before.
    pub used: [u64; WINDOW],
    /// Its usage counts: since Redis last lost writes it has reported in time, by the report that it waits for. An older one
    /// that arrives late says less than it holds; whose own report does not arrive is one of those whose part is bounded
    /// and shown.
    pub known: bool,
    reports: u8,
}

impl Node {
    fn in_use(&self) -> u64 {
        self.used.iter().sum()
    }

    fn limit(&self, now: u64) -> u64 {
        if now < self.fence {
            self.allowance
        } else if now < self.fence + TERMS.standing_span() {
            self.standing
        } else {
            0
        }
    }

    /// Whether nothing is left of any lease: nothing in use, nothing that may be used, and nothing that may be reported as held.
    fn has_nothing(&self, now: u64) -> bool {
        self.in_use() == 0 && now >= self.fence + TERMS.hold.max(TERMS.standing_span())
    }

    fn write(&mut self, holder: &Holder) {
        self.allowance = holder.row();
        self.standing = holder.standing();
        self.fence = holder.fence();
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Message {
    Report(Report),
    Answer(u64, u64, Answer),
}

/// Whether a message is under way that tells of a node's lease, or may bring one that Redis has lost.
fn is_talked_of(network: &BTreeSet<Message>, node: u64) -> bool {
    network.iter().any(|message| match message {
        Message::Report(report) => report.id == node,
        Message::Answer(id, ..) => *id == node,
    })
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    pub now: u64,
    pub nodes: Vec<Node>,
    ledger: Ledger,
    era: Option<Era<u8>>,
    run: u8,
    /// When the running Redis was first asked.
    since: Option<u64>,
    saved: Option<(Ledger, Option<Era<u8>>)>,
    network: BTreeSet<Message>,
    duplicates: u8,
    crashes: u8,
    restarts: u8,
}

impl State {
    /// Answers that a node would drop: to commands that it has given up.
    fn forget_answers(&mut self, node: usize) {
        self.network
            .retain(|m| !matches!(m, Message::Answer(id, ..) if *id == node as u64));
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    Tick,
    Take(usize),
    /// A report, with `lower` after lowering the row as far as it goes.
    Send {
        node: usize,
        want: u64,
        lower: bool,
    },
    Deliver(Message),
    Duplicate(Message),
    KillDaemon(usize),
    StartDaemon(usize),
    KillNode(usize),
    Save,
    Restart,
}

impl Config {
    fn holder(&self, id: usize, node: &Node) -> Holder {
        Holder::resume(
            id as u64,
            TERMS,
            node.allowance,
            node.standing,
            node.fence,
            node.in_use(),
        )
    }

    fn deliver(&self, state: &mut State, message: &Message) {
        match message {
            Message::Report(report) => {
                let mut report = *report;
                if self.flaw == Flaw::NoHold {
                    report.hold = 0;
                }
                if self.flaw == Flaw::NoStanding {
                    report.standing_ttl = 0;
                }
                if self.flaw == Flaw::NoSequence
                    && let Some(record) = state.ledger.records.get_mut(&report.id)
                {
                    record.seq = 0;
                }
                let now = state.now + OFFSET;
                if self.flaw == Flaw::NoQuarantine {
                    state.era = Some(Era {
                        run: state.run,
                        since: 0,
                    });
                }
                let (answer, _) = state.ledger.report(&mut state.era, now, &state.run, &report);
                // The first report after a restart begins the time in which all have to report.
                let since = *state.since.get_or_insert(state.now);
                let node = &mut state.nodes[report.id as usize];
                let waits = node.daemon.as_ref().and_then(Holder::waits_for) == Some(report.seq);
                if waits && state.now < since + TERMS.ttl && !answer.stale {
                    node.known = true;
                }
                // What the holder would drop need not be delivered.
                if waits {
                    state
                        .network
                        .insert(Message::Answer(report.id, report.seq, answer));
                }
            }
            Message::Answer(id, seq, answer) => {
                let node = &mut state.nodes[*id as usize];
                let Some(mut holder) = node.daemon.take() else {
                    return;
                };
                if let Some(change) = holder.answered(*seq, answer) {
                    assert_eq!(change, RowChange::Raise);
                    node.write(&holder);
                    if self.flaw == Flaw::FenceFromAnswer {
                        node.fence = state.now + TERMS.ttl;
                    }
                }
                node.daemon = Some(holder);
            }
        }
    }
}

impl Model for Config {
    type State = State;
    type Action = Action;

    fn init_states(&self) -> Vec<State> {
        let node = Node {
            up: true,
            daemon: None,
            allowance: 0,
            standing: 0,
            fence: 0,
            used: [0; WINDOW],
            known: true,
            reports: 0,
        };
        let mut state = State {
            // Everything is long past at the beginning.
            now: 10,
            nodes: vec![node; self.nodes],
            ledger: Ledger::default(),
            era: Some(Era { run: 0, since: 0 }),
            run: 0,
            since: Some(0),
            saved: None,
            network: BTreeSet::new(),
            duplicates: 0,
            crashes: 0,
            restarts: 0,
        };
        for id in 0..self.nodes {
            state.nodes[id].daemon = Some(self.holder(id, &state.nodes[id]));
        }
        vec![state]
    }

    fn actions(&self, state: &State, actions: &mut Vec<Action>) {
        if state.now < 10 + self.last_tick {
            actions.push(Action::Tick);
        }
        for (id, node) in state.nodes.iter().enumerate() {
            if !node.up {
                continue;
            }
            if node.in_use() < node.limit(state.now) {
                actions.push(Action::Take(id));
            }
            match &node.daemon {
                Some(holder) => {
                    if node.reports < self.reports {
                        let send = |want, lower| Action::Send {
                            node: id,
                            want,
                            lower,
                        };
                        actions.extend([send(self.max, false), send(0, false)]);
                        if holder.row() > 0 {
                            actions.push(send(0, true));
                        }
                    }
                    if state.crashes < self.crashes {
                        actions.push(Action::KillDaemon(id));
                        actions.push(Action::KillNode(id));
                    }
                }
                None => actions.push(Action::StartDaemon(id)),
            }
        }
        for message in &state.network {
            actions.push(Action::Deliver(*message));
            if state.duplicates < self.duplicates {
                actions.push(Action::Duplicate(*message));
            }
        }
        if state.restarts < self.restarts {
            if state.saved.is_none() {
                actions.push(Action::Save);
            }
            actions.push(Action::Restart);
        }
    }

    fn next_state(&self, last: &State, action: Action) -> Option<State> {
        let mut state = last.clone();
        let now = state.now;
        match action {
            Action::Tick => {
                state.now += 1;
                for (id, node) in (0..).zip(&mut state.nodes) {
                    node.used.rotate_right(1);
                    node.used[0] = 0;
                    // Nothing is left of what was admitted before Redis lost its writes, nor may anything be by them.
                    node.known |= node.has_nothing(state.now) && !is_talked_of(&state.network, id);
                }
            }
            Action::Take(id) => {
                let node = &mut state.nodes[id];
                node.used[0] += node.limit(now) - node.in_use();
            }
            Action::Send {
                node: id,
                want,
                lower,
            } => {
                state.forget_answers(id);
                let node = &mut state.nodes[id];
                let mut holder = node.daemon.take()?;
                if now >= node.fence
                    && let Some(change) = holder.back(now, node.in_use())
                {
                    assert_eq!(change, RowChange::Cut);
                    node.write(&holder);
                }
                if lower {
                    holder.lowered(now, 0, node.in_use(), now);
                    if self.flaw != Flaw::ReturnBeforeLower {
                        node.allowance = 0;
                        node.standing = 0;
                    }
                }
                let report = holder.report(now, want, want, self.standing, self.max);
                node.daemon = Some(holder);
                node.reports += 1;
                state.network.insert(Message::Report(report));
            }
            Action::Deliver(message) => {
                state.network.remove(&message);
                self.deliver(&mut state, &message);
            }
            Action::Duplicate(message) => {
                state.duplicates += 1;
                self.deliver(&mut state, &message);
            }
            Action::KillDaemon(id) => {
                state.crashes += 1;
                state.nodes[id].daemon = None;
                state.forget_answers(id);
            }
            Action::StartDaemon(id) => {
                let node = &state.nodes[id];
                state.nodes[id].daemon = Some(self.holder(id, node));
            }
            Action::KillNode(id) => {
                state.crashes += 1;
                state.nodes[id].up = false;
                state.nodes[id].daemon = None;
                state.nodes[id].reports = 0;
                state.forget_answers(id);
            }
            Action::Save => state.saved = Some((state.ledger.clone(), state.era.clone())),
            Action::Restart => {
                state.restarts += 1;
                state.run += 1;
                state.since = None;
                (state.ledger, state.era) = state.saved.clone().unwrap_or_default();
                let network = &state.network;
                for (id, node) in (0..).zip(&mut state.nodes) {
                    node.known = node.has_nothing(now) && !is_talked_of(network, id);
                }
            }
        }
        Some(state)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        vec![
            Property::always("I1 no overrun", |model: &Config, state: &State| {
                let known = state.nodes.iter().filter(|n| n.known);
                // What is in use, and what may be at this very moment.
                let could = |n: &Node| n.in_use().max(if n.up { n.limit(state.now) } else { 0 });
                known.map(could).sum::<u64>() <= model.max
            }),
            Property::sometimes(
                "everything can be used by one",
                |model: &Config, state: &State| state.nodes.iter().any(|n| n.in_use() == model.max),
            ),
            Property::sometimes("it can move", |model: &Config, state: &State| {
                state
                    .nodes
                    .iter()
                    .filter(|n| n.in_use() == model.max / 2 && n.allowance > 0)
                    .count()
                    > 1
            }),
        ]
    }
}
