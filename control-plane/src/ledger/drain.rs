//! Moves what a region shows into a store: the loop around [`Booking`].

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use tollgate_shm::{Region, UsageIndex};

use crate::counting::Learner;

use super::{
    Batch, Booking, Counters, Names, Reading, Seen, Served, SlotEvents, Snapshots, Store, StoreError,
};

/// Events taken from one ring in one step; what is left comes in the next.
const MOST: usize = 4_096;

/// Names behind numbers: rows from the region, everything else from whoever knows the snapshots.
pub struct RegionNames<'a> {
    /// The region.
    pub region: &'a Region,
    /// Whoever knows the snapshots.
    pub snapshots: &'a dyn Snapshots,
}

impl Names for RegionNames<'_> {
    fn row(&self, row: u32) -> Option<(String, String)> {
        let totals = self.region.usage(UsageIndex::from_number(row))?;
        Some((totals.channel, totals.model))
    }
}

impl Snapshots for RegionNames<'_> {
    fn deployment(&self, generation: u32, index: u32) -> Option<Served> {
        self.snapshots.deployment(generation, index)
    }
    fn group(&self, generation: u32, index: u32) -> Option<(String, String)> {
        self.snapshots.group(generation, index)
    }
}

/// How the drain goes; for metrics.
#[derive(Debug, Default)]
pub struct DrainStatus {
    /// Events booked since the start.
    pub events: AtomicU64,
    /// Batches committed since the start.
    pub commits: AtomicU64,
    /// Commits that failed since the start.
    pub failures: AtomicU64,
}

/// A store being filled from a region.
pub struct Drain<S> {
    region: Arc<Region>,
    store: S,
    booking: Booking,
    /// What is read, kept for its memory.
    events: Vec<SlotEvents>,
    status: Arc<DrainStatus>,
    learner: Option<Arc<Learner>>,
}

impl<S: Store> Drain<S> {
    /// Goes on where the store says this region was left.
    pub fn new(region: Arc<Region>, mut store: S) -> Result<Drain<S>, StoreError> {
        let position = store.position(region.id())?;
        Ok(Drain {
            booking: Booking::resume(region.id(), position),
            region,
            store,
            events: Vec::new(),
            status: Arc::new(DrainStatus::default()),
            learner: None,
        })
    }

    /// Also gives the learner what workers have counted beside the upstream.
    #[must_use]
    pub fn teaching(mut self, learner: Arc<Learner>) -> Drain<S> {
        self.learner = Some(learner);
        self
    }

    /// How it goes.
    pub fn status(&self) -> Arc<DrainStatus> {
        Arc::clone(&self.status)
    }

    /// The store, for pruning.
    pub fn store(&mut self) -> &mut S {
        &mut self.store
    }

    /// Books what the rings hold and, with `compare`, looks for differences to the usage table. `clock_ms` is any
    /// monotonic clock. Returns the events booked. After an error nothing has moved: call again.
    pub fn step(
        &mut self,
        clock_ms: u64,
        compare: bool,
        log_requests: bool,
        snapshots: &dyn Snapshots,
    ) -> Result<usize, StoreError> {
        let before = compare.then(|| self.readings());
        self.read_events();
        let names = RegionNames {
            region: &self.region,
            snapshots,
        };
        let region = &self.region;
        let batch = self.booking.plan(&Seen {
            now_ms: self.region.now_ms(),
            clock_ms,
            before: before.as_deref(),
            events: &self.events,
            after: &|row| {
                let totals = region.usage(UsageIndex::from_number(row))?;
                Some(Counters::from_totals(&totals))
            },
            names: &names,
            log_requests,
        });
        let done = self.commit(&batch);
        self.booking.reuse(batch);
        done?;
        self.teach();
        let booked = self.events.iter().map(|s| s.events.len()).sum();
        self.status.events.fetch_add(booked as u64, Relaxed);
        Ok(booked)
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), StoreError> {
        if batch.is_empty() {
            return self.store.flush();
        }
        if let Err(error) = self.store.commit(batch) {
            self.status.failures.fetch_add(1, Relaxed);
            return Err(error);
        }
        self.status.commits.fetch_add(1, Relaxed);
        self.booking.committed(batch);
        // Only now may the workers write over these events.
        for (slot, tail) in &batch.tails {
            self.region.consume_events(*slot, *tail);
        }
        Ok(())
    }

    fn teach(&self) {
        let Some(learner) = &self.learner else { return };
        let events = self.events.iter().flat_map(|slot| &slot.events);
        for event in events.filter(|event| event.sample[0] > 0) {
            if let Some(totals) = self.region.usage(UsageIndex::from_number(event.usage)) {
                let [texts, beside] = event.sample;
                learner.learn(&totals.model, texts, beside, event.input_tokens);
            }
        }
    }

    fn readings(&self) -> Vec<Reading> {
        let reading = |(index, totals): (UsageIndex, tollgate_shm::UsageTotals)| Reading {
            row: index.number(),
            counters: Counters::from_totals(&totals),
            channel: totals.channel,
            model: totals.model,
        };
        self.region.all_usage().into_iter().map(reading).collect()
    }

    fn read_events(&mut self) {
        self.events
            .resize_with(self.region.ring_tails().len(), SlotEvents::default);
        for (slot, read) in self.events.iter_mut().enumerate() {
            read.slot = slot;
            read.events.clear();
            let from = self.booking.tail(slot);
            read.tail = self.region.read_events(slot, from, MOST, &mut read.events);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::memory::MemoryStore;
    use super::super::{Counter, RequestQuery, UsageQuery};
    use super::*;
    use tollgate_shm::{Class, Event, Sizes, UsageDelta};

    #[test]
    fn events_reach_the_store_and_lost_ones_are_made_up_for() {
        let dir = tempfile::tempdir().unwrap();
        let sizes = Sizes {
            counters: 64,
            inflight: 64,
            ring: 64,
            usage: 64,
        };
        let region = Arc::new(Region::open_or_create(dir.path(), sizes).unwrap());
        let worker = region.attach_worker().unwrap();
        let row = region.usage_index(b"wechat001", b"gpt-4o").unwrap();
        let mut drain = Drain::new(Arc::clone(&region), MemoryStore::default()).unwrap();
        let request = || {
            let delta = UsageDelta {
                input_tokens: 10,
                ..UsageDelta::of(Class::Ok)
            };
            region.add_usage(row, &delta);
            region.push_event(
                &worker,
                &Event {
                    time_ms: region.now_ms(),
                    usage: row.number(),
                    input_tokens: 10,
                    deployment: u32::MAX,
                    ..Event::default()
                },
            )
        };
        let pushed = (0..100).filter(|_| request()).count();
        assert_eq!(pushed, 64, "the ring holds 64");
        let nobody = crate::config::ConfigStatus::default();
        assert_eq!(drain.step(0, true, true, &nobody).unwrap(), 64);
        assert_eq!(region.ring_depth(), 0);
        assert!(request());
        drain.step(100, false, true, &nobody).unwrap();
        drain.step(3_000, true, true, &nobody).unwrap();
        let all = UsageQuery {
            step: 0,
            from: 0,
            to: u64::MAX,
            channel: Some("wechat001".into()),
            model: None,
            limit: 10,
        };
        let usage = drain.store().usage(&all).unwrap();
        assert_eq!(usage[0].counters.get(Counter::InputTokens), 1_010);
        assert_eq!(usage[0].counters.requests(), 101);
        let log = RequestQuery {
            limit: 1_000,
            ..RequestQuery::default()
        };
        assert_eq!(drain.store().requests(&log).unwrap().len(), 65);
    }
}
