use super::super::memory::MemoryStore;
use super::super::{Store, UsageQuery};
use super::*;
use proptest::prelude::*;

/// A region as far as booking can see it.
#[derive(Default, Clone)]
struct World {
    id: u64,
    rows: BTreeMap<u32, Counters>,
    /// All events ever pushed, by slot; those before `consumed` are gone from the ring.
    rings: [Vec<Event>; 2],
    consumed: [u64; 2],
    now_ms: u64,
}

const RING: usize = 4;

impl Names for World {
    fn row(&self, row: u32) -> Option<(String, String)> {
        self.rows
            .contains_key(&row)
            .then(|| (format!("c{row}"), "m".into()))
    }
}

impl Snapshots for World {
    fn deployment(&self, generation: u32, index: u32) -> Option<Served> {
        (generation < 9).then(|| Served {
            deployment: format!("d{}", index % 2),
            model: "m".into(),
            version: "v1".into(),
        })
    }
    fn group(&self, generation: u32, index: u32) -> Option<(String, String)> {
        (generation < 9).then(|| ("e".into(), format!("g{}", index % 2)))
    }
}

impl World {
    fn count(&mut self, row: u32, tokens: u32) {
        let c = Counters::from_event(&self.event(row, tokens));
        let sum = self.rows.entry(row).or_default();
        *sum = sum.plus(&c);
    }
    fn event(&self, row: u32, tokens: u32) -> Event {
        Event {
            time_ms: self.now_ms,
            usage: row,
            input_tokens: tokens,
            output_tokens: 1,
            ..Event::default()
        }
    }
    fn push(&mut self, slot: usize, event: Event) {
        if self.rings[slot].len() - (self.consumed[slot] as usize) < RING {
            self.rings[slot].push(event);
        }
    }
    fn readings(&self) -> Vec<Reading> {
        let reading = |(row, counters): (&u32, &Counters)| Reading {
            row: *row,
            channel: format!("c{row}"),
            model: "m".into(),
            counters: *counters,
        };
        self.rows.iter().map(reading).collect()
    }
    fn read(&self, booking: &Booking) -> Vec<SlotEvents> {
        let slot = |slot: usize| {
            let from = booking.tail(slot).max(self.consumed[slot]) as usize;
            SlotEvents {
                slot,
                tail: self.rings[slot].len() as u64,
                events: self.rings[slot][from..].to_vec(),
            }
        };
        vec![slot(0), slot(1)]
    }
}

fn look(world: &World, booking: &mut Booking, before: Option<&[Reading]>) -> Batch {
    let events = world.read(booking);
    booking.plan(&Seen {
        now_ms: world.now_ms,
        clock_ms: world.now_ms,
        before,
        events: &events,
        after: &|row| world.rows.get(&row).copied(),
        names: world,
        log_requests: true,
    })
}

fn resume(world: &World, store: &mut MemoryStore) -> Booking {
    Booking::resume(world.id, store.position(world.id).unwrap())
}

fn finish(world: &mut World, batch: &Batch) {
    for (slot, tail) in &batch.tails {
        world.consumed[*slot] = world.consumed[*slot].max(*tail);
    }
}

fn whole_step(world: &mut World, booking: &mut Booking, store: &mut MemoryStore) -> Batch {
    let before = world.readings();
    let batch = look(world, booking, Some(&before));
    store.commit(&batch).unwrap();
    booking.committed(&batch);
    finish(world, &batch);
    batch
}

fn totals(store: &mut MemoryStore, step: u64) -> BTreeMap<String, Counters> {
    let all = UsageQuery {
        step,
        from: 0,
        to: u64::MAX,
        channel: None,
        model: None,
        limit: usize::MAX,
    };
    let mut sums: BTreeMap<String, Counters> = BTreeMap::new();
    for p in store.usage(&all).unwrap() {
        let sum = sums.entry(p.channel).or_default();
        *sum = sum.plus(&p.counters);
    }
    sums.retain(|_, c| !c.is_zero());
    sums
}

#[test]
fn an_event_is_booked_to_its_own_minute_and_logged() {
    let mut world = World {
        now_ms: 600_000,
        ..World::default()
    };
    world.count(7, 5);
    let event = world.event(7, 5);
    world.push(0, event);
    world.now_ms += 180_000;
    let mut store = MemoryStore::default();
    let mut booking = resume(&world, &mut store);
    let batch = whole_step(&mut world, &mut booking, &mut store);
    assert_eq!(batch.deltas.len(), 1);
    assert_eq!((batch.deltas[0].minute, &*batch.deltas[0].channel), (600, "c7"));
    assert_eq!(batch.requests.records().next().unwrap().deployment, "d0");
    assert_eq!(batch.tails, [(0, 1)]);
    assert!(whole_step(&mut world, &mut booking, &mut store).is_empty());
}

#[test]
fn an_event_is_added_to_its_group_and_deployment_whatever_the_generation_calls_them() {
    let mut world = World {
        now_ms: 600_000,
        ..World::default()
    };
    world.count(7, 5);
    for (generation, group) in [(1, 1), (2, 3), (2, 2), (9, 1)] {
        let event = Event {
            generation,
            group,
            deployment: group - 1,
            ..world.event(7, 5)
        };
        world.rings[0].push(event);
    }
    let mut store = MemoryStore::default();
    let mut booking = resume(&world, &mut store);
    let batch = whole_step(&mut world, &mut booking, &mut store);
    let sums: Vec<_> = batch
        .groups
        .iter()
        .map(|g| (g.minute, &*g.experiment, &*g.group, g.results.counters.requests()))
        .collect();
    assert_eq!(sums, [(600, "e", "g0", 2), (600, "e", "g1", 1)]);
    let served: Vec<_> = batch
        .served
        .iter()
        .map(|s| (s.minute, &*s.served.deployment, s.results.counters.requests()))
        .collect();
    assert_eq!(served, [(600, "d0", 2), (600, "d1", 1)]);
    let lines: Vec<_> = batch
        .requests
        .records()
        .map(|r| (r.experiment, r.group))
        .collect();
    let named = |group: &str| ("e".to_owned(), group.to_owned());
    // What nobody knows any more has no group.
    assert_eq!(lines, [named("g0"), named("g0"), named("g1"), Default::default()]);
}

#[test]
fn what_a_shadow_would_have_done_is_summed_up_and_is_no_request() {
    let mut world = World {
        now_ms: 1_260_000,
        ..World::default()
    };
    // Two rows of one channel are one there; here each row has its own.
    for (row, rule, deeds) in [(1, 5, 1), (1, 5, 1), (1, 6, 8), (2, 5, 1)] {
        world.count(row, 5);
        let request = world.event(row, 5);
        world.rings[0].push(request.shadow(rule, deeds));
        world.rings[0].push(request);
    }
    let late = Event {
        time_ms: 1_199_999,
        ..world.event(1, 5)
    };
    world.rings[1].push(late.shadow(5, 1));
    let mut store = MemoryStore::default();
    let mut booking = resume(&world, &mut store);
    let batch = whole_step(&mut world, &mut booking, &mut store);
    let sums: Vec<_> = batch
        .shadows
        .iter()
        .map(|s| (s.of.bucket, s.of.rule, &*s.of.channel, s.of.deeds, s.hits))
        .collect();
    assert_eq!(
        sums,
        [
            (600, 5, "c1", 1, 1),
            (1200, 5, "c1", 1, 2),
            (1200, 5, "c2", 1, 1),
            (1200, 6, "c1", 8, 1)
        ]
    );
    let requests: i64 = batch.deltas.iter().map(|d| d.counters.requests()).sum();
    assert_eq!((requests, batch.requests.requests.len()), (4, 4));
    assert!(whole_step(&mut world, &mut booking, &mut store).is_empty());
}

#[test]
fn a_lost_event_is_booked_once_it_has_lasted_and_not_before() {
    let mut world = World {
        now_ms: 60_000,
        ..World::default()
    };
    world.count(1, 5);
    let mut store = MemoryStore::default();
    let mut booking = resume(&world, &mut store);
    for _ in 0..4 {
        assert!(whole_step(&mut world, &mut booking, &mut store).is_empty());
        world.now_ms += 500;
    }
    let batch = whole_step(&mut world, &mut booking, &mut store);
    assert_eq!(batch.deltas[0].counters, world.rows[&1]);
    assert!(batch.requests.is_empty());
    for _ in 0..10 {
        world.now_ms += 500;
        assert!(whole_step(&mut world, &mut booking, &mut store).is_empty());
    }
    // The event comes after all: booked, found to be too much, taken back.
    let late = world.event(1, 5);
    world.push(0, late);
    for _ in 0..6 {
        whole_step(&mut world, &mut booking, &mut store);
        world.now_ms += 500;
    }
    assert_eq!(totals(&mut store, 0)["c1"], world.rows[&1]);
}

#[test]
fn an_event_without_a_row_is_booked_by_itself() {
    let mut world = World {
        now_ms: 60_000,
        ..World::default()
    };
    let event = world.event(9, 5);
    world.push(1, event);
    let mut store = MemoryStore::default();
    let mut booking = resume(&world, &mut store);
    let batch = whole_step(&mut world, &mut booking, &mut store);
    assert_eq!((&*batch.deltas[0].channel, batch.rows.len()), ("", 0));
}

#[test]
fn absurd_times_are_booked_now() {
    let mut world = World {
        now_ms: 10 * OLDEST_MS,
        ..World::default()
    };
    for time_ms in [0, u64::MAX - OLDEST_MS] {
        let event = Event {
            time_ms,
            ..world.event(1, 1)
        };
        world.count(1, 1);
        world.push(0, event);
    }
    let mut store = MemoryStore::default();
    let mut booking = resume(&world, &mut store);
    let batch = whole_step(&mut world, &mut booking, &mut store);
    assert_eq!(batch.deltas.len(), 1);
    assert_eq!(batch.deltas[0].minute, world.now_ms / 1_000);
}

#[derive(Clone, Copy, Debug)]
enum Move {
    /// Counted and its event written (the ring may be full).
    Request {
        slot: usize,
        row: u32,
        tokens: u32,
    },
    /// The worker dies between its two writes.
    CountOnly {
        row: u32,
        tokens: u32,
    },
    /// The event goes first; counted in the next `Count`, if any.
    EventFirst {
        slot: usize,
        row: u32,
        tokens: u32,
    },
    Count,
    Wait {
        ms: u64,
    },
    Step,
    /// Events only, as between two comparisons.
    Drain,
    /// The daemon dies after reading, after committing, or after consuming.
    Crash {
        at: u8,
    },
    /// The commit fails; the daemon lives on.
    CommitFails,
    /// The region is gone (a reboot) and made anew.
    NewRegion,
}

fn moves() -> impl Strategy<Value = Move> {
    let (slot, row, tokens) = (0usize..2, 0u32..3, 0u32..100);
    prop_oneof![
        8 => (slot.clone(), row.clone(), tokens.clone())
            .prop_map(|(slot, row, tokens)| Move::Request { slot, row, tokens }),
        1 => (row.clone(), tokens.clone()).prop_map(|(row, tokens)| Move::CountOnly { row, tokens }),
        1 => (slot, row, tokens).prop_map(|(slot, row, tokens)| Move::EventFirst { slot, row, tokens }),
        2 => Just(Move::Count),
        2 => (0u64..2_500).prop_map(|ms| Move::Wait { ms }),
        4 => Just(Move::Step),
        2 => Just(Move::Drain),
        2 => (0u8..3).prop_map(|at| Move::Crash { at }),
        1 => Just(Move::CommitFails),
        1 => Just(Move::NewRegion),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]
    #[test]
    fn totals_converge_to_the_counters(moves in proptest::collection::vec(moves(), 1..120)) {
        let mut world = World { id: 1, now_ms: 1_000_000, ..World::default() };
        let mut store = MemoryStore::default();
        let mut booking = resume(&world, &mut store);
        let mut uncounted: Vec<(u32, u32)> = Vec::new();
        let mut old: BTreeMap<String, Counters> = BTreeMap::new();
        for m in moves {
            match m {
                Move::Request { slot, row, tokens } => {
                    world.count(row, tokens);
                    let e = world.event(row, tokens);
                    world.push(slot, e);
                }
                Move::CountOnly { row, tokens } => world.count(row, tokens),
                Move::EventFirst { slot, row, tokens } => {
                    // A row has its name before anything is written about it.
                    world.rows.entry(row).or_default();
                    let e = world.event(row, tokens);
                    world.push(slot, e);
                    uncounted.push((row, tokens));
                }
                Move::Count => {
                    if let Some((row, tokens)) = uncounted.pop() {
                        world.count(row, tokens);
                    }
                }
                Move::Wait { ms } => world.now_ms += ms,
                Move::Step => {
                    whole_step(&mut world, &mut booking, &mut store);
                }
                Move::Drain => {
                    let batch = look(&world, &mut booking, None);
                    store.commit(&batch).unwrap();
                    booking.committed(&batch);
                    finish(&mut world, &batch);
                }
                Move::Crash { at } => {
                    let before = world.readings();
                    let batch = look(&world, &mut booking, Some(&before));
                    if at > 0 {
                        store.commit(&batch).unwrap();
                    }
                    if at > 1 {
                        finish(&mut world, &batch);
                    }
                    booking = resume(&world, &mut store);
                }
                Move::CommitFails => {
                    let before = world.readings();
                    look(&world, &mut booking, Some(&before));
                }
                Move::NewRegion => {
                    // A reboot: whatever is booked of the old region stays, the rest is gone with it.
                    old = totals(&mut store, 0);
                    uncounted.clear();
                    world = World { id: world.id + 1, now_ms: world.now_ms, ..World::default() };
                    booking = resume(&world, &mut store);
                }
            }
        }
        for _ in 0..14 {
            whole_step(&mut world, &mut booking, &mut store);
            world.now_ms += 500;
        }
        let mut want = old;
        for (row, counters) in &world.rows {
            let sum = want.entry(format!("c{row}")).or_default();
            *sum = sum.plus(counters);
        }
        want.retain(|_, c| !c.is_zero());
        for step in super::super::STEPS {
            prop_assert_eq!(&totals(&mut store, step), &want);
        }
        let quiet = whole_step(&mut world, &mut booking, &mut store);
        prop_assert!(quiet.is_empty());
    }
}
