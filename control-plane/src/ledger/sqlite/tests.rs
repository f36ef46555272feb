//! Tests of the embedded store.

use super::super::{COUNTERS, Delta, Line, Lines};
use super::*;

fn one_line() -> Lines {
    let mut lines = Lines::default();
    let who = lines.add_who("c", "m");
    lines.requests.push(Line {
        event: tollgate_shm::Event::default(),
        time_ms: 1,
        who,
        deployment: u32::MAX,
        group: u32::MAX,
    });
    lines
}

#[test]
fn conforms() {
    super::super::store::conformance::run(|| {
        SqliteStore::with(Connection::open_in_memory().unwrap()).unwrap()
    });
}

#[test]
fn a_failed_batch_leaves_nothing_behind() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.db");
    let mut store = SqliteStore::open(&path).unwrap();
    store
        .db
        .execute_batch(
            "CREATE TRIGGER no BEFORE INSERT ON request_lines BEGIN SELECT RAISE(ABORT, 'full'); END;",
        )
        .unwrap();
    let batch = Batch {
        region: 1,
        tails: vec![(0, 1)],
        rows: vec![BookedRow::default()],
        deltas: vec![Delta {
            minute: 60,
            channel: "c".into(),
            model: "m".into(),
            counters: Counters([1; COUNTERS]),
        }],
        groups: Vec::new(),
        served: Vec::new(),
        shadows: Vec::new(),
        requests: one_line(),
    };
    let error = store.commit(&batch).unwrap_err();
    assert!(error.to_string().contains("write to the ledger: full"), "{error}");
    assert_eq!(store.position(1).unwrap(), Position::default());
    store.db.execute_batch("DROP TRIGGER no").unwrap();
    store.commit(&batch).unwrap();
    let reader = SqliteReader::open(&path).unwrap();
    let all = UsageQuery {
        step: 60,
        from: 0,
        to: u64::MAX,
        channel: None,
        model: None,
        limit: 9,
    };
    assert_eq!(reader.usage(&all).unwrap().len(), 1);
    drop(store);
    let mut again = SqliteStore::open(&path).unwrap();
    assert_eq!(again.position(1).unwrap().tails, [(0, 1)]);
}

/// What a store has been told and what it says, compared.
struct Twin {
    path: std::path::PathBuf,
    store: SqliteStore,
    model: super::super::memory::MemoryStore,
    booked: i64,
    /// What was copied, and where the copy stands.
    copy: BTreeMap<(u64, u64, String, String), Counters>,
    through: u64,
}

impl Twin {
    fn batch(&mut self, region: u64, who: &[(u8, i64)]) -> Batch {
        self.booked += 1;
        let mut batch = Batch {
            region,
            tails: vec![(1, self.booked.cast_unsigned())],
            requests: one_line(),
            ..Batch::default()
        };
        for (i, (who, n)) in who.iter().enumerate() {
            let counters = Counters([*n; COUNTERS]);
            let (channel, model) = (format!("c{}", who % 5), format!("m{}", who % 3));
            batch.rows.push(BookedRow {
                row: u32::from(who % 15),
                channel: channel.clone(),
                model: model.clone(),
                booked: Counters([self.booked; COUNTERS]),
            });
            // Hours and days apart, so that all lengths of packed buckets come about.
            let begin = [0, 600, 3_600, 90_000].get(usize::from(who >> 4)).copied();
            let minute = begin.unwrap_or(0) + 60 * (i as u64 % 2);
            batch.deltas.push(Delta {
                minute,
                channel,
                model,
                counters,
            });
        }
        batch
    }

    fn check(&mut self, region: u64) {
        let reader = SqliteReader::open(&self.path).unwrap();
        for step in super::super::STEPS {
            for channel in [None, Some("c1".to_owned())] {
                let query = UsageQuery {
                    step,
                    from: 0,
                    to: u64::MAX,
                    channel,
                    model: None,
                    limit: 7,
                };
                assert_eq!(reader.usage(&query).unwrap(), self.model.usage(&query).unwrap());
            }
        }
        self.check_series(&reader);
        self.copy(&reader);
        let mut position = self.store.position(region).unwrap();
        position.rows.sort_by_key(|r| r.row);
        assert_eq!(position, self.model.position(region).unwrap());
    }
}

/// What is not zero: line, bucket, and its first counter.
fn used(ranked: Ranked) -> Vec<(String, usize, i64)> {
    let named = |l: RankedLine| (format!("{} {}", l.channel, l.model), l.points);
    let lines = ranked.lines.into_iter().map(named);
    let all = lines.chain(ranked.others.map(|points| ("others".to_owned(), points)));
    let mut used = Vec::new();
    for (name, points) in all {
        for (at, counters) in points.iter().enumerate().filter(|(_, c)| !c.is_zero()) {
            assert_eq!(*counters, Counters([counters.0[0]; COUNTERS]));
            used.push((name.clone(), at, counters.0[0]));
        }
    }
    used
}

impl Twin {
    /// Usage over time is the sum of its minutes, whatever of them is packed.
    fn check_series(&mut self, reader: &SqliteReader) {
        let minutes = UsageQuery {
            step: 60,
            from: 0,
            to: u64::MAX,
            channel: None,
            model: None,
            limit: 10_000,
        };
        let minutes = self.model.usage(&minutes).unwrap();
        for (step, channel, model, top) in [
            (60, None, None, 9),
            (600, None, None, 2),
            (3_600, None, Some("m1"), 1),
            (7_200, Some("c1"), None, 9),
            (86_400, None, None, 3),
            (600, None, None, 1),
        ] {
            // One way to group at a time: all of them together take too long.
            let groupings = [
                (false, false, false),
                (true, false, false),
                (false, true, true),
                (true, true, false),
            ];
            let grouping = self.booked.unsigned_abs() as usize % groupings.len();
            if let Some(&(by_channel, by_model, limited)) = groupings.get(grouping) {
                let query = SeriesQuery {
                    step,
                    from: 0,
                    to: 93_601,
                    by_channel,
                    by_model,
                    channel: channel.map(str::to_owned),
                    model: model.map(str::to_owned),
                };
                let sees = |channel: &str| channel != "c2";
                let mut all = Series::new();
                for p in minutes.iter().filter(|p| {
                    channel.is_none_or(|c| c == p.channel)
                        && model.is_none_or(|m| m == p.model)
                        && (!limited || sees(&p.channel))
                }) {
                    let name =
                        |wanted: bool, name: &str| if wanted { name.to_owned() } else { String::new() };
                    let key = (name(by_channel, &p.channel), name(by_model, &p.model));
                    let points = all.entry(key).or_default();
                    let sum = points.entry(p.bucket / step * step).or_default();
                    *sum = sum.plus(&p.counters);
                }
                // Who has nothing is left out or not, which matters where somebody has less than nothing.
                let sum =
                    |points: &BTreeMap<u64, Counters>| points.values().map(Counters::requests).sum::<i64>();
                let top = if all.values().all(|points| sum(points) > 0) {
                    top
                } else {
                    99
                };
                let sees: &dyn Fn(&str) -> bool = &sees;
                let found = reader.series(&query, top, limited.then_some(sees)).unwrap();
                assert_eq!(used(found), used(Ranked::of(all, &query, top)), "{query:?}");
            }
        }
    }

    /// Takes what the copy lacks, which is what has changed and nothing that would be missed.
    fn copy(&mut self, reader: &SqliteReader) {
        let mut values = Vec::new();
        loop {
            match reader.changes(self.through, 5).unwrap() {
                Some(changes) => {
                    values.extend(changes.values);
                    if changes.through == self.through {
                        break;
                    }
                    self.through = changes.through;
                }
                None => {
                    self.through = reader.reach().unwrap().1;
                    for step in super::super::STEPS {
                        let mut last: Option<UsagePoint> = None;
                        loop {
                            let page = reader.page(step, 0, last.as_ref(), 3).unwrap();
                            let Some(end) = page.last() else { break };
                            last = Some(end.clone());
                            values.extend(page.into_iter().map(|point| Changed { seq: 0, step, point }));
                        }
                    }
                }
            }
        }
        for Changed { step, point, .. } in values {
            let key = (step, point.bucket, point.channel, point.model);
            self.copy.insert(key, point.counters);
        }
    }

    /// Removes nothing.
    fn pack(&mut self, now: u64) {
        let keep = Keep {
            now,
            minutes_from: 0,
            ten_minutes_from: 0,
            requests_from_ms: 0,
            requests: u64::MAX >> 1,
        };
        self.store.prune(&keep).unwrap();
    }

    fn check_copy(&mut self) {
        // Marks wait for a second; a pruning does not let them wait.
        self.pack(1_200);
        let reader = SqliteReader::open(&self.path).unwrap();
        self.copy(&reader);
        for step in super::super::STEPS {
            let all = UsageQuery {
                step,
                from: 0,
                to: u64::MAX,
                channel: None,
                model: None,
                limit: 10_000,
            };
            let copied: Vec<UsagePoint> = self
                .copy
                .iter()
                .filter(|((of, ..), _)| *of == step)
                .map(|((_, bucket, channel, model), counters)| UsagePoint {
                    bucket: *bucket,
                    channel: channel.clone(),
                    model: model.clone(),
                    counters: *counters,
                })
                .collect();
            assert_eq!(copied, self.model.usage(&all).unwrap());
        }
        self.store.marking().copied(self.through);
    }
}

proptest::proptest! {
    #![proptest_config(proptest::prelude::ProptestConfig::with_cases(48))]
    #[test]
    fn tables_and_journal_are_exact_at_every_moment(
        moves in proptest::collection::vec(
            (0u8..10, proptest::collection::vec((0u8..64, -9i64..99), 0..9)), 1..40),
    ) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("t.db");
        let store = SqliteStore::open(&path).unwrap();
        let mut twin = Twin {
            path, store, model: Default::default(), booked: 0, copy: BTreeMap::new(), through: 0,
        };
        let mut region = 1;
        let mut wanted = false;
        for (kind, who) in moves {
            twin.store.marking().want(wanted);
            match kind {
                // The commit fails at its end.
                0 => {
                    let batch = twin.batch(region, &who);
                    let trigger = "CREATE TEMP TRIGGER no BEFORE INSERT ON request_lines BEGIN
                        SELECT RAISE(ABORT, 'full'); END";
                    twin.store.db.execute_batch(trigger).unwrap();
                    twin.store.commit(&batch).unwrap_err();
                    twin.store.db.execute_batch("DROP TRIGGER no").unwrap();
                }
                // The daemon is killed and comes back.
                1 => twin.store = SqliteStore::open(&twin.path).unwrap(),
                2 => region += 1,
                3 | 4 => {
                    if let Some(known) = &mut twin.store.known {
                        known.journal.hurry();
                    }
                }
                5 => wanted = !wanted,
                6 => twin.pack(700),
                7 => twin.pack(200_000),
                _ => {}
            }
            twin.store.marking().want(wanted);
            let batch = twin.batch(region, &who);
            twin.store.commit(&batch).unwrap();
            twin.model.commit(&batch).unwrap();
            twin.check(region);
            if kind == 7 {
                twin.pack(200_000);
                twin.check(region);
            }
            if wanted && kind % 2 == 0 {
                twin.check_copy();
            }
        }
    }
}

#[test]
fn what_is_pruned_leaves_packed_buckets_too() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.db");
    let mut store = SqliteStore::open(&path).unwrap();
    let delta = |minute| Delta {
        minute,
        channel: "c".into(),
        model: "m".into(),
        counters: Counters([1; COUNTERS]),
    };
    let batch = Batch {
        region: 1,
        deltas: (0..300).map(|n| delta(n * 600)).collect(),
        ..Batch::default()
    };
    store.commit(&batch).unwrap();
    let mut keep = Keep {
        now: 300 * 600 + 60,
        minutes_from: 0,
        ten_minutes_from: 0,
        requests_from_ms: 0,
        requests: 10,
    };
    let packed = |store: &SqliteStore| -> Vec<(i64, i64)> {
        let sql = "SELECT step, COUNT(*) FROM usage_packed GROUP BY step ORDER BY step";
        let mut counts = store.db.prepare(sql).unwrap();
        let counts = counts.query_map([], |r| Ok((r.get(0)?, r.get(1)?))).unwrap();
        counts.map(Result::unwrap).collect()
    };
    // Folding takes three deltas at a time in tests.
    for _ in 0..150 {
        store.prune(&keep).unwrap();
    }
    assert_eq!(packed(&store), [(60, 300), (600, 300), (3_600, 50), (86_400, 2)]);
    keep.minutes_from = 290 * 600;
    keep.ten_minutes_from = 86_400;
    store.prune(&keep).unwrap();
    assert_eq!(packed(&store), [(60, 10), (600, 156), (3_600, 26), (86_400, 1)]);
    let reader = SqliteReader::open(&path).unwrap();
    let query = SeriesQuery {
        step: 86_400,
        from: 0,
        to: 200_000,
        ..SeriesQuery::default()
    };
    let found = reader.series(&query, 1, None).unwrap();
    let requests: Vec<_> = found.lines[0].points.iter().map(Counters::requests).collect();
    assert_eq!(requests, [0, 8 * 144, 8 * 12]);
}

#[test]
fn a_ledger_of_another_version_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("t.db");
    drop(SqliteStore::open(&path).unwrap());
    Connection::open(&path)
        .unwrap()
        .pragma_update(None, "user_version", 99)
        .unwrap();
    let error = SqliteStore::open(&path).err().unwrap();
    assert!(error.to_string().contains("version 99"), "{error}");
}
