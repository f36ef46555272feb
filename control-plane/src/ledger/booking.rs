//! Turns what a region shows into what a ledger must hold. Pure: no clock, no I/O.
//!
//! Each row of the usage table has a *booked* sum. An event is booked to the minute it names. The difference between
//! a row's counters and its booked sum is looked at with two readings: counters read *before* the events can only be
//! too small, counters read *after* them only too large, so a request that is half-way (counted, its event not yet
//! written, or the other way round) does not look like a difference in the wrong direction. What lasts in every look
//! over [`SETTLE_MS`] is booked to the present minute. Booked sums therefore converge to the counters exactly, in
//! both directions and whatever happened to the events.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, HashMap, hash_map};

use tollgate_shm::Event;

use super::{
    Batch, BookedRow, Counters, Delta, GroupDelta, Line, Lines, Position, Results, Served, ServedDelta,
    ShadowDelta, ShadowHits, Snapshots,
};

/// How long a difference must last to be booked, milliseconds.
pub const SETTLE_MS: u64 = 2_000;

/// Events that claim to be older than this, or from the future, are booked to the present minute. Milliseconds.
const OLDEST_MS: u64 = 24 * 3_600_000;

/// Looks up the names behind numbers.
pub trait Names: Snapshots {
    /// Channel code and model of a row of the usage table.
    fn row(&self, row: u32) -> Option<(String, String)>;
}

/// A row of the usage table as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reading {
    /// Number of the row.
    pub row: u32,
    /// Its channel code.
    pub channel: String,
    /// Its model.
    pub model: String,
    /// Its counters.
    pub counters: Counters,
}

/// Events of one worker slot's ring.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SlotEvents {
    /// The slot.
    pub slot: usize,
    /// Position after these events.
    pub tail: u64,
    /// The events, oldest first.
    pub events: Vec<Event>,
}

/// What was seen of a region in one look.
#[derive(Clone, Copy)]
pub struct Seen<'a> {
    /// Region time, Unix milliseconds: names the minute.
    pub now_ms: u64,
    /// A monotonic clock, milliseconds: measures how long something lasts.
    pub clock_ms: u64,
    /// Counters read before the events; `None` when this look only takes events.
    pub before: Option<&'a [Reading]>,
    /// What was read from the rings.
    pub events: &'a [SlotEvents],
    /// Counters read after the events, asked for single rows.
    pub after: &'a dyn Fn(u32) -> Option<Counters>,
    /// Names.
    pub names: &'a dyn Names,
    /// Whether requests are logged.
    pub log_requests: bool,
}

#[derive(Clone, Debug)]
struct Watch {
    since_ms: u64,
    /// What every look since then agrees is missing (positive) or too much (negative).
    lasting: Counters,
}

#[derive(Clone, Debug, Default)]
struct Row {
    channel: String,
    model: String,
    booked: Counters,
    watch: Option<Watch>,
}

/// The state: positions and booked sums of one region.
#[derive(Clone, Debug)]
pub struct Booking {
    region: u64,
    tails: BTreeMap<usize, u64>,
    rows: BTreeMap<u32, Row>,
    /// Rows that the last plan corrects; their watches end when it is committed.
    corrected: Vec<u32>,
    /// Memory of a former batch's lines: a hundred kilobytes that need not be asked for in each batch.
    spare: Vec<Line>,
}

/// Of two differences, what both agree on.
fn agreed(a: i64, b: i64) -> i64 {
    match (a > 0, b > 0) {
        (true, true) => a.min(b),
        (false, false) => a.max(b),
        _ => 0,
    }
}

/// Events of one row that ended in the same minute.
struct Sum {
    at_ms: u64,
    row: u32,
    /// Whether the row has a name: without one (the table was full) nothing else knows of these requests, the events
    /// are all there is.
    named: bool,
    /// Place of its names among the batch's lines.
    who: u32,
    counters: Counters,
}

/// Events summed up by minute and row, and their lines. Nothing here is done by name, and nothing allocated by event.
#[derive(Default)]
struct Events {
    sums: Vec<Sum>,
    places: HashMap<(u64, u32), usize>,
    /// Places in `served` by generation and number.
    deployments: HashMap<(u32, u32), u32>,
    /// Deployments that anybody still knows, with their place in `lines.deployments`; `u32::MAX` if no line has it yet.
    served: Vec<(Served, u32)>,
    /// By minute and place in `served`.
    served_results: HashMap<(u64, u32), usize>,
    served_sums: Vec<(u64, u32, Results)>,
    /// Places in `lines.groups` by generation and number; `u32::MAX` for those that nobody knows any more.
    groups: HashMap<(u32, u32), u32>,
    /// By minute and place in `lines.groups`.
    results: BTreeMap<(u64, u32), Results>,
    /// What rules in shadow mode have matched: by ten minutes, rule, row and deeds.
    shadows: HashMap<(u64, u64, u32, u16), u64>,
    lines: Lines,
}

impl Events {
    /// The place of a deployment; `u32::MAX` if nobody knows it any more.
    fn deployment(&mut self, number: (u32, u32), names: &dyn Names) -> u32 {
        let served = &mut self.served;
        *self.deployments.entry(number).or_insert_with(|| {
            let Some(known) = names.deployment(number.0, number.1) else {
                return u32::MAX;
            };
            // Generations have numbers of their own for what is one deployment.
            let place = served.iter().position(|(one, _)| *one == known);
            let place = place.unwrap_or_else(|| {
                served.push((known, u32::MAX));
                served.len() - 1
            });
            u32::try_from(place).unwrap_or(u32::MAX)
        })
    }

    /// Adds the event to the results of its deployment.
    fn add_served(&mut self, event: &Event, at_ms: u64, place: u32) {
        let minute = at_ms / 60_000 * 60;
        let (sums, next) = (&mut self.served_sums, self.served_results.len());
        let at = *self.served_results.entry((minute, place)).or_insert_with(|| {
            sums.push((minute, place, Results::default()));
            next
        });
        if let Some((.., results)) = sums.get_mut(at) {
            results.add_event(event);
        }
    }

    /// Its place among the deployments of lines.
    fn line_deployment(&mut self, place: u32) -> u32 {
        let Some((served, line)) = self.served.get_mut(place as usize) else {
            return u32::MAX;
        };
        if *line == u32::MAX {
            *line = self.lines.add_deployment(served.deployment.clone());
        }
        *line
    }

    fn served_deltas(&self) -> Vec<ServedDelta> {
        let delta = |(minute, place, results): &(u64, u32, Results)| {
            let (served, _) = self.served.get(*place as usize)?;
            Some(ServedDelta {
                minute: *minute,
                served: served.clone(),
                results: *results,
            })
        };
        self.served_sums.iter().filter_map(delta).collect()
    }

    /// Adds the event to the results of its group, and returns the group's place.
    fn add_group(&mut self, event: &Event, at_ms: u64, names: &dyn Names) -> u32 {
        let Some(index) = event.group.checked_sub(1) else {
            return u32::MAX;
        };
        let lines = &mut self.lines;
        let place = *self.groups.entry((event.generation, index)).or_insert_with(|| {
            match names.group(event.generation, index) {
                None => u32::MAX,
                // Generations have numbers of their own for what is one group.
                Some(known) => match lines.groups.iter().position(|named| *named == known) {
                    Some(place) => u32::try_from(place).unwrap_or(u32::MAX),
                    None => lines.add_group(known.0, known.1),
                },
            }
        });
        if place != u32::MAX {
            let minute = at_ms / 60_000 * 60;
            self.results.entry((minute, place)).or_default().add_event(event);
        }
        place
    }

    fn group_deltas(&self) -> Vec<GroupDelta> {
        let delta = |((minute, place), results): (&(u64, u32), &Results)| {
            let (experiment, group) = self.lines.groups.get(*place as usize)?.clone();
            Some(GroupDelta {
                minute: *minute,
                experiment,
                group,
                results: *results,
            })
        };
        self.results.iter().filter_map(delta).collect()
    }
}

#[derive(Default)]
struct Deltas(BTreeMap<(u64, String, String), Counters>);

impl Deltas {
    fn add(&mut self, at_ms: u64, channel: &str, model: &str, counters: &Counters) {
        let minute = at_ms / 60_000 * 60;
        let sum = self
            .0
            .entry((minute, channel.to_owned(), model.to_owned()))
            .or_default();
        *sum = sum.plus(counters);
    }

    fn into_vec(self) -> Vec<Delta> {
        let delta = |((minute, channel, model), counters)| Delta {
            minute,
            channel,
            model,
            counters,
        };
        self.0.into_iter().map(delta).collect()
    }
}

impl Booking {
    /// Goes on where a store says that this region was left.
    pub fn resume(region: u64, position: Position) -> Booking {
        let row = |r: BookedRow| {
            let row = Row {
                channel: r.channel,
                model: r.model,
                booked: r.booked,
                watch: None,
            };
            (r.row, row)
        };
        Booking {
            region,
            tails: position.tails.into_iter().collect(),
            rows: position.rows.into_iter().map(row).collect(),
            corrected: Vec::new(),
            spare: Vec::new(),
        }
    }

    /// Where to read a slot's ring from.
    pub fn tail(&self, slot: usize) -> u64 {
        self.tails.get(&slot).copied().unwrap_or(0)
    }

    fn sum_up(&mut self, seen: &Seen<'_>) -> Events {
        let mut all = Events::default();
        if seen.log_requests {
            let count = seen.events.iter().map(|s| s.events.len()).sum();
            all.lines.requests = std::mem::take(&mut self.spare);
            all.lines.requests.reserve_exact(count);
        }
        let (mut last, mut last_place) = ((u32::MAX, u32::MAX), u32::MAX);
        for event in seen.events.iter().flat_map(|s| &s.events) {
            let at_ms = if event.time_ms > seen.now_ms || event.time_ms + OLDEST_MS < seen.now_ms {
                seen.now_ms
            } else {
                event.time_ms
            };
            if event.is_shadow() {
                let bucket = at_ms / 600_000 * 600;
                let key = (bucket, event.rule_hash, event.usage, event.shadow_deeds());
                *all.shadows.entry(key).or_default() += 1;
                continue;
            }
            let place = match all.places.entry((at_ms / 60_000, event.usage)) {
                hash_map::Entry::Occupied(known) => *known.get(),
                hash_map::Entry::Vacant(new) => {
                    let row = self.named(event.usage, seen.names);
                    let named = row.is_some();
                    let who = match row {
                        _ if !seen.log_requests => 0,
                        Some(row) => all.lines.add_who(&row.channel, &row.model),
                        None => all.lines.add_who("", ""),
                    };
                    all.sums.push(Sum {
                        at_ms,
                        row: event.usage,
                        named,
                        who,
                        counters: Counters::default(),
                    });
                    *new.insert(all.sums.len() - 1)
                }
            };
            let group = match event.is_attempt() {
                true => u32::MAX,
                false => all.add_group(event, at_ms, seen.names),
            };
            let Some(sum) = all.sums.get_mut(place) else {
                continue;
            };
            if !event.is_attempt() {
                sum.counters.add_event(event);
            }
            let who = sum.who;
            let mut deployment = u32::MAX;
            if event.deployment != u32::MAX {
                let number = (event.generation, event.deployment);
                if number != last {
                    last = number;
                    last_place = all.deployment(number, seen.names);
                }
                deployment = last_place;
                if !event.is_attempt() && deployment != u32::MAX {
                    all.add_served(event, at_ms, deployment);
                }
            }
            if !seen.log_requests {
                continue;
            }
            let line = Line {
                event: *event,
                time_ms: at_ms,
                who,
                deployment: all.line_deployment(deployment),
                group,
            };
            all.lines.requests.push(line);
        }
        all
    }

    /// Works out what to commit. Nothing counts as booked until [`Booking::committed`] is told.
    pub fn plan(&mut self, seen: &Seen<'_>) -> Batch {
        let mut deltas = Deltas::default();
        let mut changed: BTreeMap<u32, Counters> = BTreeMap::new();
        self.corrected.clear();
        let events = self.sum_up(seen);
        let shadows = self.shadow_deltas(&events, seen.names);
        for sum in events.sums.iter().filter(|sum| !sum.counters.is_zero()) {
            let row = if sum.named { self.rows.get(&sum.row) } else { None };
            let (channel, model) = match row {
                Some(row) => {
                    let booked = changed.entry(sum.row).or_insert(row.booked);
                    *booked = booked.plus(&sum.counters);
                    (row.channel.as_str(), row.model.as_str())
                }
                None => ("", ""),
            };
            deltas.add(sum.at_ms, channel, model, &sum.counters);
        }
        for reading in seen.before.unwrap_or_default() {
            let row = self.rows.entry(reading.row).or_insert_with(|| Row {
                channel: reading.channel.clone(),
                model: reading.model.clone(),
                ..Row::default()
            });
            let booked = changed.get(&reading.row).copied().unwrap_or(row.booked);
            let Some(correction) = row.look(reading, booked, seen) else {
                continue;
            };
            deltas.add(seen.now_ms, &row.channel, &row.model, &correction);
            changed.insert(reading.row, booked.plus(&correction));
            self.corrected.push(reading.row);
        }
        let rows = changed.into_iter().filter_map(|(number, booked)| {
            let row = self.rows.get(&number)?;
            Some(BookedRow {
                row: number,
                channel: row.channel.clone(),
                model: row.model.clone(),
                booked,
            })
        });
        let rows = rows.collect();
        let moved = seen.events.iter().filter(|s| s.tail != self.tail(s.slot));
        Batch {
            region: self.region,
            tails: moved.map(|s| (s.slot, s.tail)).collect(),
            rows,
            deltas: deltas.into_vec(),
            groups: events.group_deltas(),
            served: events.served_deltas(),
            shadows,
            requests: events.lines,
        }
    }

    /// A batch of [`Booking::plan`] is durable: go on from there.
    pub fn committed(&mut self, batch: &Batch) {
        self.tails.extend(batch.tails.iter().copied());
        for done in &batch.rows {
            if let Some(row) = self.rows.get_mut(&done.row) {
                row.booked = done.booked;
            }
        }
        for number in std::mem::take(&mut self.corrected) {
            if let Some(row) = self.rows.get_mut(&number) {
                row.watch = None;
            }
        }
    }

    /// Takes back the memory of a batch that is done with.
    pub fn reuse(&mut self, batch: Batch) {
        self.spare = batch.requests.requests;
        self.spare.clear();
    }

    /// Rows of one channel are one.
    fn shadow_deltas(&mut self, events: &Events, names: &dyn Names) -> Vec<ShadowDelta> {
        let mut sums: BTreeMap<ShadowHits, u64> = BTreeMap::new();
        for ((bucket, rule, row, deeds), hits) in &events.shadows {
            let channel = self.named(*row, names).map_or("", |row| &row.channel);
            let of = ShadowHits {
                bucket: *bucket,
                rule: *rule,
                channel: channel.to_owned(),
                deeds: *deeds,
            };
            *sums.entry(of).or_default() += hits;
        }
        let delta = |(of, hits)| ShadowDelta { of, hits };
        sums.into_iter().map(delta).collect()
    }

    fn named(&mut self, number: u32, names: &dyn Names) -> Option<&mut Row> {
        match self.rows.entry(number) {
            Entry::Occupied(known) => Some(known.into_mut()),
            Entry::Vacant(new) => {
                let (channel, model) = names.row(number)?;
                Some(new.insert(Row {
                    channel,
                    model,
                    ..Row::default()
                }))
            }
        }
    }
}

impl Row {
    /// Compares the counters with what is booked; returns what has lasted long enough.
    fn look(&mut self, reading: &Reading, booked: Counters, seen: &Seen<'_>) -> Option<Counters> {
        let missing = reading
            .counters
            .minus(&booked)
            .zip(&Counters::default(), i64::max);
        let mut difference = missing;
        if reading.counters != booked.plus(&missing) {
            let after = (seen.after)(reading.row).unwrap_or(reading.counters);
            let surplus = after.minus(&booked).zip(&Counters::default(), i64::min);
            difference = difference.plus(&surplus);
        }
        if let Some(watch) = &mut self.watch {
            watch.lasting = watch.lasting.zip(&difference, agreed);
            if !watch.lasting.is_zero() {
                let due = seen.clock_ms.saturating_sub(watch.since_ms) >= SETTLE_MS;
                return due.then_some(watch.lasting);
            }
        }
        self.watch = (!difference.is_zero()).then_some(Watch {
            since_ms: seen.clock_ms,
            lasting: difference,
        });
        None
    }
}

#[cfg(test)]
mod tests {
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
}
