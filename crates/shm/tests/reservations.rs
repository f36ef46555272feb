//! What a reservation over several limits promises, with threads standing in for workers.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test code"
)]

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use tollgate_shm::{
    Algorithm, Demand, Enforcement, LimitSpec, Metric, RefusalKind, Region, Settlement, Sizes,
};

const T0: u64 = 1_700_000_000_000;

fn region() -> (tempfile::TempDir, Region) {
    let dir = tempfile::tempdir().unwrap();
    let sizes = Sizes {
        counters: 256,
        inflight: 4_096,
        ring: 64,
        usage: 64,
    };
    let region = Region::open_or_create(dir.path(), sizes).unwrap();
    (dir, region)
}

fn limit(key: u64, metric: Metric, algorithm: Algorithm, max: u64) -> LimitSpec {
    LimitSpec {
        key: key * 16,
        metric,
        algorithm,
        enforcement: Enforcement::Strict,
        max,
        window_ms: 60_000,
        burst: max,
        max_delay_ms: 1_000,
        open_when_full: false,
        cluster: false,
    }
}

fn demand(limits: &[LimitSpec], input: u64, output: u64) -> Demand<'_> {
    Demand {
        limits,
        counters: None,
        input,
        input_exact: true,
        output,
        expected_output: output,
        min_output: 16,
        usage: None,
        may_wait: false,
        price: [0, 0],
    }
}

#[test]
fn output_is_clamped_to_what_is_left_and_refused_below_the_minimum() {
    let (_dir, r) = region();
    let mut w = r.attach_worker().unwrap();
    for algorithm in [
        Algorithm::SlidingWindow,
        Algorithm::FixedWindow,
        Algorithm::TokenBucket,
    ] {
        let limits = [limit(10 + algorithm as u64, Metric::OutputTokens, algorithm, 100)];
        let a = r.reserve(&mut w, T0, &demand(&limits, 5, 60)).unwrap();
        let b = r.reserve(&mut w, T0, &demand(&limits, 5, 60)).unwrap();
        assert_eq!((a.output, b.output), (60, 40));
        let no = r.reserve(&mut w, T0, &demand(&limits, 5, 60)).unwrap_err();
        assert_eq!((no.kind, no.limit, no.level.used), (RefusalKind::Limit, 0, 100));
        assert!(no.retry_ms > 0);
        r.settle(
            &mut w,
            a.row,
            T0,
            Settlement {
                input: 5,
                output: 45,
                cost: 0,
            },
        );
        let no = r.reserve(&mut w, T0, &demand(&limits, 5, 60)).unwrap_err();
        assert_eq!(
            no.level.left(),
            if algorithm == Algorithm::TokenBucket {
                14
            } else {
                15
            }
        );
        r.settle(
            &mut w,
            b.row,
            T0,
            Settlement {
                input: 5,
                output: 20,
                cost: 0,
            },
        );
        let c = r.reserve(&mut w, T0, &demand(&limits, 5, 60)).unwrap();
        assert!((33..=35).contains(&c.output), "{}", c.output);
        r.settle(&mut w, c.row, T0, Settlement::default());
    }
    assert!(r.inflight(10).is_empty());
}

#[test]
fn total_limit_counts_both_and_nothing_is_kept_when_one_limit_refuses() {
    let (_dir, r) = region();
    let mut w = r.attach_worker().unwrap();
    let limits = [
        limit(1, Metric::Connections, Algorithm::Concurrency, 10),
        limit(2, Metric::Requests, Algorithm::SlidingWindow, 10),
        limit(3, Metric::InputTokens, Algorithm::FixedWindow, 1_000),
        limit(4, Metric::TotalTokens, Algorithm::SlidingWindow, 100),
    ];
    let a = r.reserve(&mut w, T0, &demand(&limits, 40, 1_000)).unwrap();
    assert_eq!(a.output, 60);
    let no = r.reserve(&mut w, T0, &demand(&limits, 40, 1_000)).unwrap_err();
    assert_eq!(no.limit, 3);
    let used: Vec<_> = limits.iter().map(|l| r.level(l, T0).used).collect();
    assert_eq!(used, [1, 1, 40, 100]);
    assert_eq!(
        r.settle(
            &mut w,
            a.row,
            T0,
            Settlement {
                input: 40,
                output: 10,
                cost: 0,
            }
        ),
        0
    );
    let used: Vec<_> = limits.iter().map(|l| r.level(l, T0).used).collect();
    assert_eq!(used, [0, 1, 40, 50]);
    assert_eq!(
        r.settle(&mut w, a.row, T0, Settlement::default()),
        0,
        "settling twice changes nothing"
    );
    assert_eq!(r.level(&limits[3], T0).used, 50);
}

#[test]
fn what_exceeds_a_reservation_is_debt_when_strict_and_usage_when_soft() {
    let (_dir, r) = region();
    let mut w = r.attach_worker().unwrap();
    let strict = [limit(1, Metric::OutputTokens, Algorithm::SlidingWindow, 100)];
    let a = r.reserve(&mut w, T0, &demand(&strict, 0, 50)).unwrap();
    assert_eq!(
        r.settle(
            &mut w,
            a.row,
            T0,
            Settlement {
                input: 0,
                output: 130,
                cost: 0,
            }
        ),
        80
    );
    assert_eq!(
        (r.level(&strict[0], T0).used, r.level(&strict[0], T0).debt),
        (130, 80)
    );
    assert!(r.reserve(&mut w, T0 + 40_000, &demand(&strict, 0, 50)).is_err());
    let later = T0 + 200_000;
    assert_eq!(
        r.reserve(&mut w, later, &demand(&strict, 0, 50)).unwrap().output,
        20,
        "80 of 100 were used before"
    );

    let soft = [LimitSpec {
        enforcement: Enforcement::Soft,
        ..limit(2, Metric::OutputTokens, Algorithm::SlidingWindow, 100)
    }];
    let d = Demand {
        expected_output: 10,
        ..demand(&soft, 0, 4_000)
    };
    let a = r.reserve(&mut w, T0, &d).unwrap();
    assert_eq!((a.output, r.level(&soft[0], T0).used), (4_000, 10));
    r.settle(
        &mut w,
        a.row,
        T0,
        Settlement {
            input: 0,
            output: 130,
            cost: 0,
        },
    );
    assert_eq!((r.level(&soft[0], T0).used, r.level(&soft[0], T0).debt), (130, 0));
}

#[test]
fn an_upper_bound_is_accepted_with_room_to_spare_only() {
    let (_dir, r) = region();
    let mut w = r.attach_worker().unwrap();
    let limits = [limit(1, Metric::InputTokens, Algorithm::SlidingWindow, 1_000)];
    let bound = |input| Demand {
        input_exact: false,
        ..demand(&limits, input, 0)
    };
    assert!(r.reserve(&mut w, T0, &bound(700)).is_ok());
    assert_eq!(
        r.reserve(&mut w, T0, &bound(100)).unwrap_err().kind,
        RefusalKind::NeedsExactInput
    );
    assert!(r.reserve(&mut w, T0, &demand(&limits, 300, 0)).is_ok());
}

/// Threads reserve, use part and settle; the sum of what was really used never exceeds the maximum, and all of it
/// gets used in the end.
#[test]
fn many_workers_never_exceed_and_leave_nothing_unused() {
    for algorithm in [Algorithm::SlidingWindow, Algorithm::FixedWindow] {
        let (_dir, r) = region();
        let limits = [
            limit(1, Metric::Connections, Algorithm::Concurrency, 64),
            limit(2, Metric::InputTokens, algorithm, 20_000),
            limit(3, Metric::OutputTokens, algorithm, 10_000),
        ];
        let (input, output) = (AtomicU64::new(0), AtomicU64::new(0));
        std::thread::scope(|s| {
            for t in 0..4u64 {
                let (r, limits, input, output) = (&r, &limits, &input, &output);
                s.spawn(move || {
                    let mut w = r.attach_worker().unwrap();
                    let mut held = Vec::new();
                    let mut idle_refusals = 0;
                    let mut i = t;
                    while idle_refusals < 3 {
                        i += 1;
                        let wanted = 20 + i % 60;
                        match r.reserve(&mut w, T0 + i % 7, &demand(limits, 5 + i % 20, wanted)) {
                            Ok(grant) => {
                                assert!(grant.output <= wanted);
                                held.push((grant, 5 + i % 20));
                                idle_refusals = 0;
                            }
                            Err(_) if held.is_empty() => idle_refusals += 1,
                            Err(_) => {}
                        }
                        if i % 3 == 0
                            && let Some((grant, n)) = held.pop()
                        {
                            let used = grant.output / 2;
                            input.fetch_add(n, SeqCst);
                            output.fetch_add(used, SeqCst);
                            r.settle(
                                &mut w,
                                grant.row,
                                T0,
                                Settlement {
                                    input: n,
                                    output: used,
                                    cost: 0,
                                },
                            );
                        }
                    }
                    w.detach(r);
                });
            }
        });
        let (input, output) = (input.load(SeqCst), output.load(SeqCst));
        assert!(input <= 20_000 && output <= 10_000, "{input} {output}");
        assert!(output >= 9_900 || input >= 19_900, "{input} {output}");
        assert_eq!(r.level(&limits[0], T0).used, 0);
        assert_eq!(r.level(&limits[2], T0).used, output);
    }
}

#[test]
fn a_limit_of_money_takes_input_and_output_at_their_prices_and_clamps_the_output() {
    let (_dir, r) = region();
    let mut w = r.attach_worker().unwrap();
    let limits = [limit(9, Metric::Cost, Algorithm::SlidingWindow, 1_000)];
    let ask = |input, output| Demand {
        // 2 and 10 millionths a token.
        price: [2_000_000, 10_000_000],
        ..demand(&limits, input, output)
    };
    let all = r.reserve(&mut w, T0, &ask(100, 50)).unwrap();
    assert_eq!((all.output, r.level(&limits[0], T0).used), (50, 700));
    // 300 are left: 50 × 2 for the input leave 20 tokens.
    let clamped = r.reserve(&mut w, T0, &ask(50, 50)).unwrap();
    assert_eq!((clamped.output, r.level(&limits[0], T0).used), (20, 1_000));
    let refused = r.reserve(&mut w, T0, &ask(1, 1)).unwrap_err();
    assert_eq!(refused.kind, RefusalKind::Limit);
    let settled = |cost| Settlement {
        input: 0,
        output: 0,
        cost,
    };
    assert_eq!(r.settle(&mut w, all.row, T0, settled(650)), 0);
    assert_eq!(r.level(&limits[0], T0).used, 950);
    // More than was reserved is a debt.
    assert_eq!(r.settle(&mut w, clamped.row, T0, settled(310)), 10);
    assert_eq!(r.level(&limits[0], T0).used, 960);
}

#[test]
fn what_is_free_is_not_limited_by_money() {
    let (_dir, r) = region();
    let mut w = r.attach_worker().unwrap();
    let limits = [limit(9, Metric::Cost, Algorithm::SlidingWindow, 5)];
    let free = demand(&limits, 1 << 30, 1 << 30);
    assert_eq!(r.reserve(&mut w, T0, &free).unwrap().output, 1 << 30);
    assert_eq!(r.level(&limits[0], T0).used, 0);
}
