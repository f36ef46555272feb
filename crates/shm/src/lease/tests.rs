use super::*;
use crate::{Demand, Enforcement, Metric, RefusalKind, Settlement, Sizes, Worker};
use proptest::prelude::*;

const T0: u64 = 1_700_000_000_000;

fn region() -> (tempfile::TempDir, Region) {
    let dir = tempfile::tempdir().unwrap();
    let sizes = Sizes {
        counters: 256,
        inflight: 64,
        ring: 64,
        usage: 64,
    };
    let region = Region::open_or_create(dir.path(), sizes).unwrap();
    (dir, region)
}

fn limit(algorithm: Algorithm, max: u64) -> LimitSpec {
    LimitSpec {
        key: 160 + algorithm as u64 * 16,
        metric: match algorithm {
            Algorithm::Concurrency => Metric::Connections,
            _ => Metric::InputTokens,
        },
        algorithm,
        enforcement: Enforcement::Strict,
        max,
        window_ms: 60_000,
        burst: max,
        max_delay_ms: 1_000,
        open_when_full: false,
        cluster: true,
    }
}

fn demand(limits: &[LimitSpec], input: u64) -> Demand<'_> {
    Demand {
        limits,
        counters: None,
        input,
        input_exact: true,
        output: 0,
        expected_output: 0,
        min_output: 16,
        usage: None,
        price: [0, 0],
        may_wait: true,
    }
}

fn words(allowance: u64, standing: u64, fence_ms: u64) -> LeaseWords {
    LeaseWords {
        allowance,
        standing,
        fence_ms,
        standing_span_ms: 10_000,
    }
}

const ALL: [Algorithm; 5] = [
    Algorithm::SlidingWindow,
    Algorithm::FixedWindow,
    Algorithm::TokenBucket,
    Algorithm::LeakyBucket,
    Algorithm::Concurrency,
];

/// The row of the only limit that is short.
fn short_row(r: &Region) -> CounterIndex {
    let mut found = Vec::new();
    r.take_shortages(|i| found.push(i));
    assert_eq!(found.len(), 1);
    found[0]
}

#[test]
fn a_row_without_a_lease_asks_waits_and_then_admits_up_to_its_allowance() {
    for algorithm in ALL {
        let (_dir, r) = region();
        let mut w = r.attach_worker().unwrap();
        let limits = [limit(algorithm, 100)];
        let short = r.reserve(&mut w, T0, &demand(&limits, 1)).unwrap_err();
        assert_eq!(short.kind, RefusalKind::LeaseShort, "{algorithm:?}");
        let row = short_row(&r);
        assert_eq!(r.take_wanted(row), 1);
        assert_eq!(r.take_wanted(row), 0);
        let view = r.lease_view(row).unwrap();
        assert_eq!(
            (view.algorithm, view.max, view.window_ms),
            (algorithm, 100, 60_000)
        );
        assert_eq!(r.leased_row(view.key), Some(row));
        r.raise_lease(row, T0, &words(40, 5, T0 + 1_000));
        assert_eq!(r.leased_rows().collect::<Vec<_>>(), [row]);
        if algorithm == Algorithm::LeakyBucket {
            continue;
        }
        for _ in 0..40 {
            r.reserve(&mut w, T0, &demand(&limits, 1)).unwrap();
        }
        assert_eq!(
            r.reserve(&mut w, T0, &demand(&limits, 1)).unwrap_err().kind,
            RefusalKind::LeaseShort
        );
        assert_eq!(r.lease_in_use(row, T0), 40);
        // Who has waited, or need not, is refused.
        r.set_dry(row, T0 + 100);
        assert_eq!(
            r.reserve(&mut w, T0, &demand(&limits, 1)).unwrap_err().kind,
            RefusalKind::Limit
        );
        assert_eq!(r.take_wanted(row), 1);
    }
}

#[test]
fn the_fence_leaves_the_standing_share_and_then_nothing() {
    let (_dir, r) = region();
    let mut w = r.attach_worker().unwrap();
    let limits = [limit(Algorithm::SlidingWindow, 100)];
    let row = r.locate(&limits).unwrap()[0];
    r.raise_lease(row, T0, &words(50, 7, T0 + 1_000));
    let cap = |now| r.counter_row(row).unwrap().cap(&limits[0], now);
    assert_eq!(
        [T0, T0 + 999, T0 + 1_000, T0 + 10_999, T0 + 11_000].map(cap),
        [50, 50, 7, 7, 0]
    );
    assert!(r.reserve(&mut w, T0 + 1_000, &demand(&limits, 8)).is_err());
    assert!(r.reserve(&mut w, T0 + 1_000, &demand(&limits, 7)).is_ok());
}

#[test]
fn what_is_decided_without_a_lease_is_told() {
    let (_dir, r) = region();
    let mut worker = r.attach_worker().unwrap();
    let limits = [limit(Algorithm::SlidingWindow, 100)];
    let asked = demand(&limits, 10);
    r.reserve(&mut worker, T0, &asked).unwrap_err();
    assert!(r.decided_degraded(&asked, T0), "it never had a lease");
    let row = short_row(&r);
    r.raise_lease(row, T0, &words(50, 20, T0 + 1_000));
    r.reserve(&mut worker, T0, &asked).unwrap();
    assert!(!r.decided_degraded(&asked, T0 + 999));
    assert!(r.decided_degraded(&asked, T0 + 1_000));
    assert_eq!(r.degraded_requests(), 2);
    let own = [LimitSpec {
        cluster: false,
        ..limits[0]
    }];
    assert!(
        !r.decided_degraded(&demand(&own, 10), T0 + 1_000),
        "its own limit"
    );
}

#[test]
fn who_is_refused_by_an_allowance_comes_back_soon_unless_little_is_left() {
    let (_dir, r) = region();
    let mut worker = r.attach_worker().unwrap();
    let limits = [limit(Algorithm::SlidingWindow, 100)];
    let asked = Demand {
        may_wait: false,
        ..demand(&limits, 60)
    };
    let refused = |worker: &mut Worker| r.reserve(worker, T0, &asked).unwrap_err();
    assert_eq!(
        (refused(&mut worker).kind, refused(&mut worker).retry_ms),
        (RefusalKind::Limit, 1)
    );
    let row = short_row(&r);
    r.raise_lease(row, T0, &words(60, 20, T0 + 1_000));
    r.reserve(&mut worker, T0, &asked).unwrap();
    r.set_dry(row, T0 + 400);
    assert_eq!(refused(&mut worker).retry_ms, 400);
    r.set_tight(row, true);
    assert!(
        refused(&mut worker).retry_ms >= 60_000,
        "until it has left the window"
    );
}

#[test]
fn lowering_keeps_what_is_in_use_and_debt() {
    for algorithm in [
        Algorithm::SlidingWindow,
        Algorithm::FixedWindow,
        Algorithm::TokenBucket,
        Algorithm::Concurrency,
    ] {
        let (_dir, r) = region();
        let mut w = r.attach_worker().unwrap();
        let limits = [limit(algorithm, 100)];
        let row = r.locate(&limits).unwrap()[0];
        r.raise_lease(row, T0, &words(80, 0, T0 + 60_000));
        for _ in 0..30 {
            r.reserve(&mut w, T0, &demand(&limits, 1)).unwrap();
        }
        let lowered = r.lower_lease(row, T0, &words(10, 0, T0 + 60_000));
        assert_eq!((lowered.covered, lowered.free_at_ms), (30, T0), "{algorithm:?}");
        assert!(r.reserve(&mut w, T0, &demand(&limits, 1)).is_err());
        // Looked at again, as long as it drains: what is in use is above the allowance now.
        let again = r.lower_lease(row, T0, &words(10, 0, T0 + 60_000));
        assert_eq!(again.covered, 30, "{algorithm:?}");
        // Raised again, nothing has been forgotten and nothing counts twice.
        r.raise_lease(row, T0, &words(50, 0, T0 + 60_000));
        let mut more = 0;
        while r.reserve(&mut w, T0, &demand(&limits, 1)).is_ok() {
            more += 1;
        }
        assert!((19..=20).contains(&more), "{algorithm:?}: {more}");
        if algorithm == Algorithm::SlidingWindow {
            r.counter_row(row).unwrap().debt.store(25, SeqCst);
            let lowered = r.lower_lease(row, T0, &words(10, 0, T0 + 60_000));
            assert_eq!(lowered.covered, 75);
        }
    }
}

#[test]
fn a_leaky_queue_returns_its_rate_when_it_has_passed() {
    let (_dir, r) = region();
    let mut w = r.attach_worker().unwrap();
    let limits = [LimitSpec {
        window_ms: 1_000,
        ..limit(Algorithm::LeakyBucket, 100)
    }];
    let row = r.locate(&limits).unwrap()[0];
    r.raise_lease(row, T0, &words(10, 0, T0 + 60_000));
    for _ in 0..5 {
        r.reserve(&mut w, T0, &demand(&limits, 1)).unwrap();
    }
    let lowered = r.lower_lease(row, T0, &words(2, 0, T0 + 60_000));
    assert_eq!((lowered.covered, lowered.free_at_ms), (2, T0 + 500));
}

#[test]
fn a_refund_after_a_move_counts_in_the_rate_of_then_and_now() {
    for (first, second) in [(10, 80), (80, 60)] {
        let (_dir, r) = region();
        let mut w = r.attach_worker().unwrap();
        let limits = [limit(Algorithm::TokenBucket, 100)];
        let row = r.locate(&limits).unwrap()[0];
        r.raise_lease(row, T0, &words(first, 0, T0 + 60_000));
        let a = r.reserve(&mut w, T0, &demand(&limits, 4)).unwrap();
        let b = r.reserve(&mut w, T0, &demand(&limits, 6)).unwrap();
        assert_eq!(r.lease_in_use(row, T0), 10);
        if second > first {
            r.raise_lease(row, T0, &words(second, 0, T0 + 60_000));
        } else {
            assert_eq!(
                r.lower_lease(row, T0, &words(second, 0, T0 + 60_000)).covered,
                second
            );
        }
        assert!((10..=11).contains(&r.lease_in_use(row, T0)));
        r.settle(&mut w, a.row, T0, Settlement::default());
        assert!((6..=7).contains(&r.lease_in_use(row, T0)));
        r.settle(
            &mut w,
            b.row,
            T0,
            Settlement {
                input: 9,
                output: 0,
                cost: 0,
            },
        );
        assert!((9..=11).contains(&r.lease_in_use(row, T0)));
    }
}

#[test]
fn a_bucket_keeps_its_units_over_a_new_region() {
    let (_d1, a) = region();
    let (_d2, b) = region();
    let mut w = a.attach_worker().unwrap();
    let limits = [limit(Algorithm::TokenBucket, 100)];
    let now = a.now_ms();
    let row = a.locate(&limits).unwrap()[0];
    a.raise_lease(row, now, &words(40, 0, now + 60_000));
    a.reserve(&mut w, now, &demand(&limits, 30)).unwrap();
    assert_eq!(b.restore_counters(&a.export_counters()), 1);
    let row = b.locate(&limits).unwrap()[0];
    b.raise_lease(row, now, &words(50, 0, now + 60_000));
    assert!(
        (29..=31).contains(&b.lease_in_use(row, now)),
        "{}",
        b.lease_in_use(row, now)
    );
}

#[test]
fn a_sleeping_daemon_wakes_for_a_shortage() {
    let (_dir, r) = region();
    let mut w = r.attach_worker().unwrap();
    let limits = [limit(Algorithm::SlidingWindow, 100)];
    let before = std::time::Instant::now();
    std::thread::scope(|s| {
        let sleeper = s.spawn(|| r.wait_for_shortage(std::time::Duration::from_secs(30)));
        while r.header().lease_sleeping.load(SeqCst) == 0 {
            std::thread::yield_now();
        }
        r.reserve(&mut w, T0, &demand(&limits, 1)).unwrap_err();
        sleeper.join().unwrap();
    });
    // Nobody sleeps over a shortage that is already there.
    r.wait_for_shortage(std::time::Duration::from_secs(30));
    assert!(before.elapsed() < std::time::Duration::from_secs(20));
    short_row(&r);
}

#[test]
fn an_upper_bound_is_good_enough_while_much_is_left() {
    let (_dir, r) = region();
    let mut w = r.attach_worker().unwrap();
    let limits = [limit(Algorithm::SlidingWindow, 1_000)];
    let row = r.locate(&limits).unwrap()[0];
    r.raise_lease(row, T0, &words(100, 0, T0 + 60_000));
    let bound = |input| Demand {
        input_exact: false,
        may_wait: false,
        ..demand(&limits, input)
    };
    r.reserve(&mut w, T0, &bound(70)).unwrap();
    r.reserve(&mut w, T0, &bound(20)).unwrap();
    r.set_tight(row, true);
    assert_eq!(
        r.reserve(&mut w, T0, &bound(1)).unwrap_err().kind,
        RefusalKind::NeedsExactInput
    );
    r.reserve(&mut w, T0, &demand(&limits, 10)).unwrap();
}

#[derive(Clone, Copy, Debug)]
enum Move {
    Take(usize, u64),
    Pass(u64),
    Shift(usize, usize, u64),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let step = prop_oneof![
        6 => (0usize..3, 1u64..8).prop_map(|(i, n)| Move::Take(i, n)),
        3 => (1u64..6_000).prop_map(Move::Pass),
        2 => (0usize..3, 0usize..3, 0u64..40).prop_map(|(a, b, n)| Move::Shift(a, b, n)),
    ];
    proptest::collection::vec(step, 1..120)
}

proptest! {
    /// I1 for a token bucket that three instances share and whose parts move: over any span at most burst + rate * span.
    #[test]
    fn moving_buckets_pass_no_more_than_one(steps in moves()) {
        let regions: Vec<_> = (0..3).map(|_| region()).collect();
        let limits = [LimitSpec { burst: 90, ..limit(Algorithm::TokenBucket, 60) }];
        let mut now = T0;
        let mut parts = [20u64; 3];
        let mut workers = Vec::new();
        for ((_, r), part) in regions.iter().zip(parts) {
            let row = r.locate(&limits).unwrap()[0];
            r.raise_lease(row, now, &words(part, 0, now + 10_000_000));
            workers.push((r.attach_worker().unwrap(), row));
        }
        let mut log: Vec<(u64, u64)> = Vec::new();
        for step in steps {
            match step {
                Move::Take(i, n) => {
                    let (w, _) = &mut workers[i];
                    if let Ok(grant) = regions[i].1.reserve(w, now, &demand(&limits, n)) {
                        log.push((now, n));
                        regions[i].1.settle(w, grant.row, now, Settlement { input: n, output: 0, cost: 0 });
                    }
                }
                Move::Pass(ms) => now += ms,
                Move::Shift(a, b, n) if a != b => {
                    let to = parts[a].saturating_sub(n);
                    let fence = now + 10_000_000;
                    let covered = regions[a].1.lower_lease(workers[a].1, now, &words(to, 0, fence)).covered;
                    // Units are rounded up; a holder never keeps more than it had.
                    let covered = covered.min(parts[a]);
                    regions[a].1.raise_lease(workers[a].1, now, &words(covered, 0, fence));
                    parts[b] += parts[a] - covered;
                    parts[a] = covered;
                    regions[b].1.raise_lease(workers[b].1, now, &words(parts[b], 0, fence));
                }
                Move::Shift(..) => {}
            }
        }
        for i in 0..log.len() {
            let mut total = 0;
            for (at, n) in &log[i..] {
                total += n;
                prop_assert!(total <= 90 + (at - log[i].0) * 60 / 60_000 + 1);
            }
        }
    }
}
