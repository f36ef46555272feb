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
#[path = "booking/tests.rs"]
mod tests;
