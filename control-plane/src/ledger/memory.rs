//! A store in memory: what the others are compared with, and what state machines are tested on.

use std::collections::BTreeMap;

use super::{
    Batch, BookedRow, Counters, Keep, Position, RequestQuery, RequestRecord, Results, ResultsPoint,
    ResultsQuery, STEPS, Served, ServedQuery, ShadowHits, ShadowQuery, Store, StoreError, UsagePoint,
    UsageQuery,
};

/// Everything in maps.
#[derive(Default)]
pub struct MemoryStore {
    region: Option<u64>,
    tails: BTreeMap<usize, u64>,
    rows: BTreeMap<u32, BookedRow>,
    /// Where other regions were left.
    former: BTreeMap<u64, Position>,
    usage: BTreeMap<(u64, u64, String, String), Counters>,
    groups: BTreeMap<(u64, u64, String, String), Results>,
    served: BTreeMap<(u64, u64, Served), Results>,
    shadows: BTreeMap<ShadowHits, u64>,
    requests: BTreeMap<i64, RequestRecord>,
}

impl Store for MemoryStore {
    fn position(&mut self, region: u64) -> Result<Position, StoreError> {
        if self.region != Some(region) {
            return Ok(self.former.get(&region).cloned().unwrap_or_default());
        }
        Ok(Position {
            tails: self.tails.iter().map(|(k, v)| (*k, *v)).collect(),
            rows: self.rows.values().cloned().collect(),
        })
    }

    fn commit(&mut self, batch: &Batch) -> Result<(), StoreError> {
        if self.region != Some(batch.region) {
            if let Some(former) = self.region {
                let left = self.position(former)?;
                self.former.insert(former, left);
            }
            let known = self.former.remove(&batch.region).unwrap_or_default();
            self.region = Some(batch.region);
            self.tails = known.tails.into_iter().collect();
            self.rows = known.rows.into_iter().map(|row| (row.row, row)).collect();
        }
        self.tails.extend(batch.tails.iter().copied());
        self.rows.extend(batch.rows.iter().map(|r| (r.row, r.clone())));
        for d in &batch.deltas {
            for step in STEPS {
                let bucket = d.minute.checked_div(step).map_or(0, |n| n * step);
                let key = (step, bucket, d.channel.clone(), d.model.clone());
                let sum = self.usage.entry(key).or_default();
                *sum = sum.plus(&d.counters);
            }
        }
        for d in &batch.groups {
            for step in STEPS {
                let bucket = d.minute.checked_div(step).map_or(0, |n| n * step);
                let key = (step, bucket, d.experiment.clone(), d.group.clone());
                let sum = self.groups.entry(key).or_default();
                *sum = sum.plus(&d.results);
            }
        }
        for d in &batch.served {
            for step in STEPS {
                let bucket = d.minute.checked_div(step).map_or(0, |n| n * step);
                let sum = self.served.entry((step, bucket, d.served.clone())).or_default();
                *sum = sum.plus(&d.results);
            }
        }
        for d in &batch.shadows {
            *self.shadows.entry(d.of.clone()).or_default() += d.hits;
        }
        for r in batch.requests.records() {
            let number = self.requests.last_key_value().map_or(1, |(n, _)| n + 1);
            self.requests.insert(number, r);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), StoreError> {
        Ok(())
    }

    fn usage(&mut self, q: &UsageQuery) -> Result<Vec<UsagePoint>, StoreError> {
        let wanted = |name: &Option<String>, got: &String| name.as_ref().is_none_or(|n| n == got);
        let points = self
            .usage
            .iter()
            .filter(|((step, bucket, channel, model), _)| {
                *step == q.step
                    && (q.from..q.to).contains(bucket)
                    && wanted(&q.channel, channel)
                    && wanted(&q.model, model)
            })
            .map(|((_, bucket, channel, model), counters)| UsagePoint {
                bucket: *bucket,
                channel: channel.clone(),
                model: model.clone(),
                counters: *counters,
            });
        Ok(points.take(q.limit).collect())
    }

    fn results(&mut self, q: &ResultsQuery) -> Result<Vec<ResultsPoint>, StoreError> {
        let points = self.groups.iter().filter(|((step, bucket, experiment, _), _)| {
            *step == q.step
                && (q.from..q.to).contains(bucket)
                && q.experiment.as_ref().is_none_or(|e| e == experiment)
        });
        let point = |((_, bucket, experiment, group), results): (&(u64, u64, String, String), &Results)| {
            ResultsPoint {
                bucket: *bucket,
                experiment: experiment.clone(),
                group: group.clone(),
                results: *results,
            }
        };
        Ok(points.map(point).take(q.limit).collect())
    }

    fn served(
        &mut self,
        q: &ServedQuery,
        each: &mut dyn FnMut(u64, &Served, &Results),
    ) -> Result<(), StoreError> {
        for ((step, bucket, served), results) in &self.served {
            let inside = *step == q.step && (q.from..q.to).contains(bucket);
            if inside && q.model.as_ref().is_none_or(|m| *m == served.model) {
                each(*bucket, served, results);
            }
        }
        Ok(())
    }

    fn shadows(&mut self, q: &ShadowQuery, each: &mut dyn FnMut(&ShadowHits, u64)) -> Result<(), StoreError> {
        for (of, hits) in &self.shadows {
            if of.rule == q.rule && (q.from..q.to).contains(&of.bucket) {
                each(of, *hits);
            }
        }
        Ok(())
    }

    fn requests(&mut self, q: &RequestQuery) -> Result<Vec<(i64, RequestRecord)>, StoreError> {
        let wanted = |name: &Option<String>, got: &String| name.as_ref().is_none_or(|n| n == got);
        let lines = self.requests.iter().rev().filter(|(n, r)| {
            q.before.is_none_or(|b| **n < b)
                && wanted(&q.channel, &r.channel)
                && wanted(&q.model, &r.model)
                && wanted(&q.class, &r.class)
                && wanted(&q.experiment, &r.experiment)
                && wanted(&q.group, &r.group)
        });
        Ok(lines.take(q.limit).map(|(n, r)| (*n, r.clone())).collect())
    }

    fn prune(&mut self, keep: &Keep) -> Result<(), StoreError> {
        self.usage.retain(|(step, bucket, ..), _| match step {
            60 => *bucket >= keep.minutes_from,
            600 => *bucket >= keep.ten_minutes_from,
            _ => true,
        });
        self.groups.retain(|(step, bucket, ..), _| match step {
            60 => *bucket >= keep.minutes_from,
            600 => *bucket >= keep.ten_minutes_from,
            _ => true,
        });
        self.served.retain(|(step, bucket, _), _| match step {
            60 => *bucket >= keep.minutes_from,
            600 => *bucket >= keep.ten_minutes_from,
            _ => true,
        });
        self.shadows.retain(|of, _| of.bucket >= keep.ten_minutes_from);
        let newest = self.requests.last_key_value().map_or(0, |(n, _)| *n);
        self.requests
            .retain(|n, r| r.time_ms >= keep.requests_from_ms && *n > newest - keep.requests as i64);
        Ok(())
    }
}

#[test]
fn conforms() {
    super::store::conformance::run(MemoryStore::default);
}
