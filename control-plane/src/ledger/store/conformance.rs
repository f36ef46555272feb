//! What every store must do, as tests.

use super::super::Line;
use super::*;
use tollgate_shm::{Class, Event};

fn counters(n: i64) -> Counters {
    let mut c = Counters::default();
    for (i, slot) in c.0.iter_mut().enumerate() {
        *slot = n * (i as i64 + 1);
    }
    c
}

fn row(row: u32, n: i64) -> BookedRow {
    BookedRow {
        row,
        channel: format!("c{row}"),
        model: "m".into(),
        booked: counters(n),
    }
}

fn delta(minute: u64, channel: &str, n: i64) -> Delta {
    Delta {
        minute,
        channel: channel.into(),
        model: "m".into(),
        counters: counters(n),
    }
}

/// A line that ended then; every field says something else.
fn request(time_ms: u64, channel: &str, class: Class) -> Lines {
    let n = time_ms as u32;
    let event = Event {
        request_id: [!time_ms, time_ms],
        generation: 1 + n,
        status: 200 + class as u16,
        class: class as u8,
        source: 2,
        input_tokens: 2 + n,
        output_tokens: 3 + n,
        cached_tokens: 4 + n,
        reasoning_tokens: 5 + n,
        latency_us: 6 + n,
        first_token_us: if n.is_multiple_of(2) { 7 } else { u32::MAX },
        debt_tokens: 8 + n,
        flags: n & 15,
        limit_key: if class == Class::Limit {
            u64::MAX - time_ms
        } else {
            0
        },
        rule_hash: if class == Class::Rule {
            1 << 63 | time_ms
        } else {
            0
        },
        reserved: [9 + n, 10 + n],
        estimated_tokens: 11 + n,
        counted_tokens: 12 + n,
        ..Event::default()
    };
    let mut lines = Lines::default();
    let line = Line {
        event,
        time_ms,
        who: lines.add_who(channel, "m"),
        deployment: if class == Class::Ok {
            lines.add_deployment("d".into())
        } else {
            u32::MAX
        },
        group: if time_ms.is_multiple_of(3) {
            lines.add_group("e".into(), format!("g{}", time_ms % 2))
        } else {
            u32::MAX
        },
    };
    lines.requests.push(line);
    lines
}

fn requests(lines: impl IntoIterator<Item = Lines>) -> Lines {
    let mut all = Lines::default();
    for mut one in lines {
        let (who, deployments) = (all.who.len() as u32, all.deployments.len() as u32);
        let groups = all.groups.len() as u32;
        for line in &mut one.requests {
            line.who += who;
            line.deployment = line.deployment.saturating_add(deployments);
            line.group = line.group.saturating_add(groups);
        }
        all.groups.append(&mut one.groups);
        all.who.append(&mut one.who);
        all.deployments.append(&mut one.deployments);
        all.requests.append(&mut one.requests);
    }
    all
}

fn record(time_ms: u64, channel: &str, class: Class) -> RequestRecord {
    request(time_ms, channel, class).records().next().unwrap()
}

fn all(step: u64) -> UsageQuery {
    UsageQuery {
        step,
        from: 0,
        to: u64::MAX,
        channel: None,
        model: None,
        limit: 100,
    }
}

/// Runs all of it against fresh stores.
pub fn run<S: Store>(fresh: impl Fn() -> S) {
    positions_are_those_of_the_last_commit(fresh());
    another_region_begins_anew(fresh());
    a_former_region_goes_on_where_it_was_left(fresh());
    usage_adds_up_in_every_step(fresh());
    requests_page_newest_first(fresh());
    requests_are_found_wherever_they_stand(fresh());
    pruning_keeps_what_it_should(fresh());
    requests_are_found_by_group(fresh());
    results_add_up_in_every_step(fresh());
    what_deployments_served_adds_up_in_every_step(fresh());
    what_shadows_matched_adds_up(fresh());
}

fn what_shadows_matched_adds_up(mut s: impl Store) {
    let delta = |bucket: u64, rule: u64, channel: &str, deeds: u16, hits: u64| ShadowDelta {
        of: ShadowHits {
            bucket,
            rule,
            channel: channel.into(),
            deeds,
        },
        hits,
    };
    let far = u64::MAX;
    for shadows in [
        vec![
            delta(0, 7, "a", 1, 3),
            delta(600, 7, "a", 1, 4),
            delta(600, 7, "a", 0xffff, 5),
        ],
        vec![
            delta(600, 7, "a", 1, 6),
            delta(600, 7, "", 1, 1),
            delta(600, far, "a", 1, 100),
        ],
        vec![delta(1200, 7, "b", 1, 8)],
    ] {
        s.commit(&Batch {
            region: 1,
            shadows,
            ..Batch::default()
        })
        .unwrap();
    }
    let read = |s: &mut dyn Store, rule: u64, from: u64, to: u64| {
        let mut sums = std::collections::BTreeMap::new();
        s.shadows(&ShadowQuery { rule, from, to }, &mut |of, hits| {
            assert_eq!(of.rule, rule);
            *sums.entry((of.bucket, of.channel.clone(), of.deeds)).or_insert(0) += hits;
        })
        .unwrap();
        sums.into_iter()
            .map(|((bucket, channel, deeds), hits)| (bucket, channel, deeds, hits))
            .collect::<Vec<_>>()
    };
    let hit = |bucket: u64, channel: &str, deeds: u16, hits: u64| (bucket, channel.to_owned(), deeds, hits);
    assert_eq!(
        read(&mut s, 7, 600, 1200),
        [hit(600, "", 1, 1), hit(600, "a", 1, 10), hit(600, "a", 0xffff, 5)]
    );
    assert_eq!(read(&mut s, far, 0, far), [hit(600, "a", 1, 100)]);
    assert!(read(&mut s, 8, 0, far).is_empty());
    for _ in 0..3 {
        s.prune(&Keep {
            now: 0,
            minutes_from: 0,
            ten_minutes_from: 1200,
            requests_from_ms: 0,
            requests: 0,
        })
        .unwrap();
    }
    assert_eq!(read(&mut s, 7, 0, far), [hit(1200, "b", 1, 8)]);
    assert!(read(&mut s, far, 0, far).is_empty());
}

fn what_deployments_served_adds_up_in_every_step(mut s: impl Store) {
    let served = |deployment: &str, version: &str| Served {
        deployment: deployment.into(),
        model: deployment.split('/').next().unwrap_or_default().into(),
        version: version.into(),
    };
    let results = |n: u32| {
        let mut results = Results::default();
        for us in 1..=n {
            results.add_event(&Event {
                class: (us % 8) as u8,
                output_tokens: us,
                latency_us: us * 1_000,
                first_token_us: us * 500,
                ..Event::default()
            });
        }
        results
    };
    let delta = |minute: u64, deployment: &str, version: &str, n: u32| ServedDelta {
        minute,
        served: served(deployment, version),
        results: results(n),
    };
    for deltas in [
        vec![
            delta(0, "m/a", "1", 3),
            delta(60, "m/a", "1", 5),
            delta(60, "m/a", "2", 7),
        ],
        vec![delta(60, "m/a", "1", 11), delta(600, "n/b", "", 13)],
    ] {
        s.commit(&Batch {
            region: 1,
            served: deltas,
            ..Batch::default()
        })
        .unwrap();
    }
    let mut read = |step: u64, to: u64, model: Option<&str>| {
        let mut sums: std::collections::BTreeMap<(u64, Served), Results> = Default::default();
        let query = ServedQuery {
            step,
            from: 0,
            to,
            model: model.map(str::to_owned),
        };
        s.served(&query, &mut |bucket, served, results| {
            let sum = sums.entry((bucket, served.clone())).or_default();
            *sum = sum.plus(results);
        })
        .unwrap();
        sums.into_iter().collect::<Vec<_>>()
    };
    let both = results(5).plus(&results(11));
    assert_eq!(
        read(60, 600, None),
        [
            ((0, served("m/a", "1")), results(3)),
            ((60, served("m/a", "1")), both),
            ((60, served("m/a", "2")), results(7)),
        ]
    );
    let first = results(3).plus(&both);
    assert_eq!(
        read(600, 601, None),
        [
            ((0, served("m/a", "1")), first),
            ((0, served("m/a", "2")), results(7)),
            ((600, served("n/b", "")), results(13)),
        ]
    );
    assert_eq!(read(0, 1, Some("n")), [((0, served("n/b", "")), results(13))]);
    assert!(read(60, 601, Some("x")).is_empty());
    s.prune(&Keep {
        now: 0,
        minutes_from: 60,
        ten_minutes_from: 600,
        requests_from_ms: 0,
        requests: 10,
    })
    .unwrap();
    let mut left = |step| {
        let mut buckets = std::collections::BTreeSet::new();
        let query = ServedQuery {
            step,
            from: 0,
            to: u64::MAX,
            model: None,
        };
        s.served(&query, &mut |bucket, _, _| {
            buckets.insert(bucket);
        })
        .unwrap();
        buckets.into_iter().collect::<Vec<_>>()
    };
    assert_eq!(
        (left(60), left(600), left(0)),
        (vec![60, 600], vec![600], vec![0])
    );
}

fn requests_are_found_by_group(mut s: impl Store) {
    let lines = (0..2_000).map(|n| request(n, "a", Class::Ok));
    s.commit(&Batch {
        region: 1,
        requests: requests(lines),
        ..Batch::default()
    })
    .unwrap();
    let mut found = |experiment: Option<&str>, group: Option<&str>| {
        let query = RequestQuery {
            experiment: experiment.map(str::to_owned),
            group: group.map(str::to_owned),
            limit: 10_000,
            ..RequestQuery::default()
        };
        let lines = s.requests(&query).unwrap();
        lines
            .into_iter()
            .map(|(_, line)| line.time_ms)
            .collect::<Vec<_>>()
    };
    let of = |wanted: fn(&u64) -> bool| (0..2_000).rev().filter(wanted).collect::<Vec<_>>();
    assert_eq!(found(Some("e"), None), of(|n| n % 3 == 0));
    assert_eq!(found(Some("e"), Some("g1")), of(|n| n % 6 == 3));
    assert_eq!(found(None, Some("g0")), of(|n| n % 6 == 0));
    assert!(found(Some("f"), None).is_empty() && found(None, Some("g2")).is_empty());
    assert_eq!(found(None, None).len(), 2_000);
}

fn results_add_up_in_every_step(mut s: impl Store) {
    let results = |n: u32| {
        let mut results = Results::default();
        for us in 1..=n {
            results.add_event(&Event {
                class: (us % 8) as u8,
                input_tokens: us,
                latency_us: us * 1_000,
                first_token_us: if us % 2 == 0 { us * 500 } else { u32::MAX },
                ..Event::default()
            });
        }
        results
    };
    let delta = |minute: u64, group: &str, n: u32| GroupDelta {
        minute,
        experiment: "e".into(),
        group: group.into(),
        results: results(n),
    };
    for groups in [
        vec![delta(0, "a", 3), delta(60, "a", 5), delta(60, "b", 7)],
        vec![delta(60, "a", 11), delta(600, "a", 13)],
    ] {
        s.commit(&Batch {
            region: 1,
            groups,
            ..Batch::default()
        })
        .unwrap();
    }
    let mut read = |step: u64, experiment: &str| {
        let query = ResultsQuery {
            step,
            from: 0,
            to: 600,
            experiment: Some(experiment.into()),
            limit: 100,
        };
        let points = s.results(&query).unwrap().into_iter();
        points.map(|p| (p.bucket, p.group, p.results)).collect::<Vec<_>>()
    };
    let both = results(5).plus(&results(11));
    assert_eq!(
        read(60, "e"),
        [
            (0, "a".to_owned(), results(3)),
            (60, "a".to_owned(), both),
            (60, "b".to_owned(), results(7))
        ]
    );
    let (all_a, b) = (results(3).plus(&both), results(7));
    assert_eq!(
        read(600, "e"),
        [(0, "a".to_owned(), all_a), (0, "b".to_owned(), b)]
    );
    assert_eq!(read(0, "e")[0].2, all_a.plus(&results(13)));
    assert!(read(60, "f").is_empty());
    s.prune(&Keep {
        now: 0,
        minutes_from: 60,
        ten_minutes_from: 600,
        requests_from_ms: 0,
        requests: 10,
    })
    .unwrap();
    let mut left = |step| {
        let query = ResultsQuery {
            step,
            from: 0,
            to: u64::MAX,
            experiment: None,
            limit: 2,
        };
        s.results(&query)
            .unwrap()
            .iter()
            .map(|p| p.bucket)
            .collect::<Vec<_>>()
    };
    assert_eq!(
        (left(60), left(600), left(0)),
        (vec![60, 60], vec![600], vec![0, 0])
    );
}

fn positions_are_those_of_the_last_commit(mut s: impl Store) {
    assert_eq!(s.position(u64::MAX).unwrap(), Position::default());
    let batch = Batch {
        region: u64::MAX,
        tails: vec![(0, 5), (3, u64::MAX)],
        rows: vec![row(1, 1), row(2, -2)],
        ..Batch::default()
    };
    s.commit(&batch).unwrap();
    let batch = Batch {
        region: u64::MAX,
        tails: vec![(0, 9)],
        rows: vec![row(2, 7)],
        ..Batch::default()
    };
    s.commit(&batch).unwrap();
    let mut p = s.position(u64::MAX).unwrap();
    p.tails.sort_unstable();
    p.rows.sort_by_key(|r| r.row);
    assert_eq!(p.tails, [(0, 9), (3, u64::MAX)]);
    assert_eq!(p.rows, [row(1, 1), row(2, 7)]);
}

fn another_region_begins_anew(mut s: impl Store) {
    let mut batch = Batch {
        region: 1,
        tails: vec![(0, 5)],
        rows: vec![row(1, 1)],
        deltas: vec![delta(60, "a", 1)],
        ..Batch::default()
    };
    s.commit(&batch).unwrap();
    assert_eq!(s.position(2).unwrap(), Position::default());
    batch.region = 2;
    batch.tails = vec![(1, 1)];
    s.commit(&batch).unwrap();
    assert_eq!(s.position(2).unwrap().tails, [(1, 1)]);
    assert_eq!(
        s.usage(&all(0)).unwrap()[0].counters,
        counters(2),
        "usage outlives its region"
    );
}

fn a_former_region_goes_on_where_it_was_left(mut s: impl Store) {
    let batch = |region, tails: &[(usize, u64)], rows: &[BookedRow]| Batch {
        region,
        tails: tails.to_vec(),
        rows: rows.to_vec(),
        deltas: vec![delta(60, "a", 1)],
        ..Batch::default()
    };
    let sorted = |mut p: Position| {
        p.tails.sort_unstable();
        p.rows.sort_by_key(|r| r.row);
        p
    };
    let at = |tails: &[(usize, u64)], rows: &[BookedRow]| Position {
        tails: tails.to_vec(),
        rows: rows.to_vec(),
    };
    s.commit(&batch(1, &[(0, 5)], &[row(1, 1), row(2, 2)])).unwrap();
    s.commit(&batch(1, &[(0, 6)], &[row(2, 3)])).unwrap();
    s.commit(&batch(u64::MAX, &[(1, 1)], &[row(1, 9)])).unwrap();
    let left = at(&[(0, 6)], &[row(1, 1), row(2, 3)]);
    assert_eq!(sorted(s.position(1).unwrap()), left);
    // What is not touched when it goes on is known still, and so is the other one.
    s.commit(&batch(1, &[(2, 4)], &[row(3, 3)])).unwrap();
    let on = at(&[(0, 6), (2, 4)], &[row(1, 1), row(2, 3), row(3, 3)]);
    assert_eq!(sorted(s.position(1).unwrap()), on);
    assert_eq!(s.position(u64::MAX).unwrap(), at(&[(1, 1)], &[row(1, 9)]));
    // There and back again.
    s.commit(&batch(u64::MAX, &[(1, 2)], &[])).unwrap();
    assert_eq!(s.position(u64::MAX).unwrap(), at(&[(1, 2)], &[row(1, 9)]));
    assert_eq!(sorted(s.position(1).unwrap()), on);
    assert_eq!(s.position(3).unwrap(), Position::default());
}

fn usage_adds_up_in_every_step(mut s: impl Store) {
    let deltas = vec![
        delta(600, "a", 1),
        delta(660, "a", 2),
        delta(1200, "a", 4),
        delta(600, "b", 8),
        delta(600, "b", -1),
    ];
    let batch = Batch {
        region: 1,
        deltas,
        ..Batch::default()
    };
    s.commit(&batch).unwrap();
    let points = |v: Vec<UsagePoint>| {
        v.into_iter()
            .map(|p| {
                assert_eq!(p.model, "m");
                assert_eq!(p.counters, counters(p.counters.0[0]));
                (p.bucket, p.channel, p.counters.0[0])
            })
            .collect::<Vec<_>>()
    };
    let want = |v: &[(u64, &str, i64)]| {
        v.iter()
            .map(|(t, c, n)| (*t, (*c).to_owned(), *n))
            .collect::<Vec<_>>()
    };
    assert_eq!(
        points(s.usage(&all(0)).unwrap()),
        want(&[(0, "a", 7), (0, "b", 7)])
    );
    assert_eq!(
        points(s.usage(&all(60)).unwrap()),
        want(&[(600, "a", 1), (600, "b", 7), (660, "a", 2), (1200, "a", 4)])
    );
    assert_eq!(
        points(s.usage(&all(600)).unwrap()),
        want(&[(600, "a", 3), (600, "b", 7), (1200, "a", 4)])
    );
    let some = UsageQuery {
        from: 660,
        to: 1200,
        channel: Some("a".into()),
        ..all(60)
    };
    assert_eq!(points(s.usage(&some).unwrap()), want(&[(660, "a", 2)]));
    let other = UsageQuery {
        model: Some("x".into()),
        ..all(60)
    };
    assert!(s.usage(&other).unwrap().is_empty());
    let few = UsageQuery { limit: 2, ..all(60) };
    assert_eq!(s.usage(&few).unwrap().len(), 2);
}

fn requests_page_newest_first(mut s: impl Store) {
    let requests = requests((1..=5).map(|t| request(t, if t % 2 == 0 { "even" } else { "odd" }, Class::Ok)));
    s.commit(&Batch {
        requests,
        ..Batch::default()
    })
    .unwrap();
    let query = RequestQuery {
        limit: 2,
        ..RequestQuery::default()
    };
    let first = s.requests(&query).unwrap();
    assert_eq!(
        first.iter().map(|(_, r)| r.clone()).collect::<Vec<_>>(),
        [record(5, "odd", Class::Ok), record(4, "even", Class::Ok)]
    );
    let next = RequestQuery {
        before: Some(first[1].0),
        limit: 10,
        channel: Some("odd".into()),
        ..query
    };
    let rest = s.requests(&next).unwrap();
    assert_eq!(rest.iter().map(|(_, r)| r.time_ms).collect::<Vec<_>>(), [3, 1]);
    let none = RequestQuery {
        class: Some("limit".into()),
        limit: 10,
        ..RequestQuery::default()
    };
    assert!(s.requests(&none).unwrap().is_empty());
}

/// More lines than any store keeps together, in batches of uneven sizes.
fn requests_are_found_wherever_they_stand(mut s: impl Store) {
    let class = |n: u64| Class::ALL[(n % 1_009 % 8) as usize];
    let channel = |n: u64| {
        if n.is_multiple_of(701) {
            "rare".to_owned()
        } else {
            format!("c{}", n % 7)
        }
    };
    let (mut n, mut size) = (0, 1);
    while n < 5_000 {
        let batch = Batch {
            region: 1,
            requests: requests((n..n + size).map(|n| request(n, &channel(n), class(n)))),
            ..Batch::default()
        };
        s.commit(&batch).unwrap();
        n += size;
        size = size * 7 % 1_013 + 1;
    }
    let newest = n;
    let mut pages = |channel: Option<&str>, class: Option<&str>, limit| {
        let mut query = RequestQuery {
            channel: channel.map(Into::into),
            class: class.map(Into::into),
            limit,
            ..RequestQuery::default()
        };
        let mut found = Vec::new();
        loop {
            let page = s.requests(&query).unwrap();
            assert!(page.len() <= limit);
            let Some((last, _)) = page.last() else {
                return found;
            };
            query.before = Some(*last);
            found.extend(page.into_iter().map(|(_, r)| r));
        }
    };
    for (wanted, named) in [
        (None, None),
        (Some("rare"), None),
        (None, Some(Class::Rule)),
        (Some("c3"), Some(Class::Limit)),
    ] {
        let of = |n: &u64| wanted.is_none_or(|w| w == channel(*n)) && named.is_none_or(|c| c == class(*n));
        let want: Vec<_> = (0..newest)
            .rev()
            .filter(of)
            .map(|n| record(n, &channel(n), class(n)))
            .collect();
        assert!(!want.is_empty());
        for limit in [7, 600, 10_000] {
            assert_eq!(pages(wanted, named.map(Class::name), limit), want);
        }
    }
    assert!(pages(Some("nobody"), None, 9).is_empty());
}

fn pruning_keeps_what_it_should(mut s: impl Store) {
    let batch = Batch {
        region: 1,
        tails: vec![(0, 3)],
        rows: vec![row(1, 1)],
        deltas: (0..30).map(|i| delta(i * 60, "a", 1)).collect(),
        groups: Vec::new(),
        served: Vec::new(),
        shadows: Vec::new(),
        requests: requests((0..30).map(|i| request(i, "a", Class::Ok))),
    };
    s.commit(&batch).unwrap();
    let keep = Keep {
        now: 0,
        minutes_from: 1200,
        ten_minutes_from: 600,
        requests_from_ms: 10,
        requests: 1_000,
    };
    for _ in 0..20 {
        s.prune(&keep).unwrap();
    }
    assert_eq!(s.usage(&all(60)).unwrap().len(), 10);
    assert_eq!(s.usage(&all(600)).unwrap().len(), 2);
    assert_eq!(s.usage(&all(0)).unwrap()[0].counters, counters(30));
    let query = RequestQuery {
        limit: 100,
        ..RequestQuery::default()
    };
    assert_eq!(s.requests(&query).unwrap().len(), 20);
    s.prune(&Keep {
        now: 0,
        minutes_from: 0,
        ten_minutes_from: 0,
        requests_from_ms: 0,
        requests: 3,
    })
    .unwrap();
    let left = s.requests(&query).unwrap();
    assert_eq!(
        left.iter().map(|(_, r)| r.time_ms).collect::<Vec<_>>(),
        [29, 28, 27]
    );
    assert_eq!(s.position(1).unwrap().tails, [(0, 3)]);
}
