//! What is read from packed buckets is what the tables and the journal hold, whatever is packed at the moment.

use std::collections::BTreeMap;

use proptest::prelude::*;
use tollgate_shm::Event;

use crate::ledger::sqlite::{SeriesQuery, ServedLine, ShadowSums, SqliteReader, SqliteStore};
use crate::ledger::{
    Batch, Counters, Keep, Results, Served, ServedDelta, ServedQuery, ShadowDelta, ShadowHits, ShadowQuery,
    Store,
};

fn keep(now: u64) -> Keep {
    Keep {
        now,
        minutes_from: 0,
        ten_minutes_from: 0,
        requests_from_ms: 0,
        requests: 10,
    }
}

fn results(latency_us: u32) -> Results {
    let mut results = Results::default();
    results.add_event(&Event {
        latency_us,
        ..Event::default()
    });
    results
}

/// Of three days, minutes apart.
fn batch(adds: &[(u16, u8)]) -> Batch {
    let mut batch = Batch {
        region: 1,
        ..Batch::default()
    };
    for (at, who) in adds {
        let minute = u64::from(*at) % (3 * 1_440) * 60;
        batch.served.push(ServedDelta {
            minute,
            served: Served {
                deployment: format!("m{}/{}", who % 2, who % 5),
                model: format!("m{}", who % 2),
                version: format!("v{}", who % 3),
            },
            results: results(u32::from(*who) * 1_000),
        });
        batch.shadows.push(ShadowDelta {
            of: ShadowHits {
                bucket: minute / 600 * 600,
                rule: u64::from(who % 2),
                channel: format!("c{}", who % 7),
                deeds: u16::from(who % 3),
            },
            hits: u64::from(*who),
        });
    }
    batch
}

/// What the store's rows add up to.
fn served(store: &mut SqliteStore, q: &SeriesQuery, by_version: bool) -> Vec<ServedLine> {
    let mut lines: BTreeMap<Served, ServedLine> = BTreeMap::new();
    let wanted = ServedQuery {
        step: q.stored(),
        from: q.from,
        to: q.to,
        model: q.model.clone(),
    };
    store
        .served(&wanted, &mut |bucket, served, results| {
            let mut served = served.clone();
            if by_version {
                served.deployment.clear();
            }
            let line = lines.entry(served.clone()).or_insert_with(|| ServedLine {
                served,
                points: vec![Counters::default(); q.buckets()],
                total: Results::default(),
            });
            line.total = line.total.plus(results);
            let sum = &mut line.points[q.place(bucket).unwrap()];
            *sum = sum.plus(&results.counters);
        })
        .unwrap();
    let mut lines: Vec<ServedLine> = lines.into_values().collect();
    lines.sort_by_key(|line| std::cmp::Reverse(line.total.counters.requests()));
    lines
}

fn shadow(store: &mut SqliteStore, rule: u64, q: &SeriesQuery, sees: impl Fn(&str) -> bool) -> ShadowSums {
    let mut sums = ShadowSums {
        points: vec![0; q.buckets()],
        ..ShadowSums::default()
    };
    let wanted = ShadowQuery {
        rule,
        from: q.from,
        to: q.to,
    };
    store
        .shadows(&wanted, &mut |of, hits| {
            if sees(&of.channel) {
                *sums.deeds.entry(of.deeds).or_default() += hits;
                *sums.channels.entry(of.channel.clone()).or_default() += hits;
                sums.points[q.place(of.bucket).unwrap()] += hits;
            }
        })
        .unwrap();
    sums
}

fn check(store: &mut SqliteStore, reader: &SqliteReader) {
    for (step, from, to) in [
        (600, 0, 259_200),
        (600, 6_600, 90_001),
        (3_600, 3_600, 200_000),
        (86_400, 0, 259_200),
        (86_400, 86_400, 230_001),
        (60, 60, 9_000),
        (7_200, 0, 180_000),
    ] {
        let q = SeriesQuery {
            step,
            from,
            to,
            ..SeriesQuery::default()
        };
        for (by_version, model) in [(false, None), (true, None), (true, Some("m1".to_owned()))] {
            let q = SeriesQuery { model, ..q.clone() };
            let all = served(store, &q, by_version);
            let found = reader.served(&q, by_version, 100).unwrap();
            assert_eq!((&found.lines, &found.others), (&all, &None), "{q:?}");
            let first = reader.served(&q, by_version, 1).unwrap();
            assert_eq!(first.lines[..], all[..all.len().min(1)]);
            let rest: Vec<_> = all.iter().skip(1).collect();
            assert_eq!(first.others.is_some(), !rest.is_empty());
            if let Some(others) = first.others {
                let total = rest.iter().fold(Results::default(), |sum, l| sum.plus(&l.total));
                assert_eq!(others.total, total);
                let points = rest.iter().flat_map(|l| &l.points);
                let of = |all: Counters, one: &Counters| all.plus(one);
                assert_eq!(
                    others.points.iter().fold(Counters::default(), of),
                    points.fold(Counters::default(), of)
                );
            }
        }
        if step % 600 == 0 {
            for rule in 0..3 {
                let all = shadow(store, rule, &q, |_| true);
                assert_eq!(reader.shadow(rule, &q, None).unwrap(), all, "{q:?}");
                let sees = |channel: &str| channel < "c3";
                let some = shadow(store, rule, &q, sees);
                assert_eq!(reader.shadow(rule, &q, Some(&sees)).unwrap(), some, "{q:?}");
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn packed_buckets_say_what_the_tables_hold(
        moves in proptest::collection::vec((0u8..6, proptest::collection::vec((any::<u16>(), any::<u8>()), 0..12)), 1..12),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.db");
        let mut store = SqliteStore::open(&path).unwrap();
        let reader = SqliteReader::open(&path).unwrap();
        for (kind, adds) in moves {
            store.commit(&batch(&adds)).unwrap();
            match kind {
                0 => store = SqliteStore::open(&path).unwrap(),
                1 => store.prune(&keep(100_000)).unwrap(),
                2 => store.prune(&keep(1 << 20)).unwrap(),
                _ => {}
            }
            check(&mut store, &reader);
        }
        store.prune(&keep(1 << 20)).unwrap();
        check(&mut store, &reader);
    }
}

#[test]
fn everything_that_has_ended_is_packed_and_what_is_pruned_leaves() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.db");
    let mut store = SqliteStore::open(&path).unwrap();
    let all: Vec<(u16, u8)> = (0..432).map(|n| (n * 10, 3)).collect();
    store.commit(&batch(&all)).unwrap();
    let reader = rusqlite::Connection::open(&path).unwrap();
    let counts = |table: &str| -> Vec<(i64, i64)> {
        let sql = format!("SELECT step, COUNT(*) FROM {table} GROUP BY step ORDER BY step");
        let mut counts = reader.prepare(&sql).unwrap();
        let counts = counts.query_map([], |r| Ok((r.get(0)?, r.get(1)?))).unwrap();
        counts.map(Result::unwrap).collect()
    };
    // A pruning takes only so long.
    let whole = [(600, 432), (3_600, 72), (86_400, 3)];
    for _ in 0..200 {
        store.prune(&keep(3 * 86_400 + 60)).unwrap();
    }
    assert_eq!(
        (counts("served_packed"), counts("shadow_packed")),
        (whole.to_vec(), whole.to_vec())
    );
    let later = Keep {
        ten_minutes_from: 86_400 + 3_600,
        ..keep(3 * 86_400 + 60)
    };
    store.prune(&later).unwrap();
    let left = [(600, 432 - 150), (3_600, 72 - 25), (86_400, 1)];
    assert_eq!(
        (counts("served_packed"), counts("shadow_packed")),
        (left.to_vec(), left.to_vec())
    );
    // What is added later takes away what no longer says all.
    store.commit(&batch(&[(1_440 * 2, 1)])).unwrap();
    store.commit(&batch(&[])).unwrap();
    assert_eq!(counts("served_packed"), [(600, 281), (3_600, 46)]);
}
