//! Workers as real processes that are killed with SIGKILL at arbitrary instructions.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "test code"
)]

use std::path::Path;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use tollgate_shm::{
    Algorithm, Class, Demand, Enforcement, Event, LimitSpec, Metric, Region, Settlement, Sizes, UsageDelta,
};

const DIR: &str = "TOLLGATE_TEST_REGION";

fn limits() -> [LimitSpec; 4] {
    let base = LimitSpec {
        key: 16,
        metric: Metric::Connections,
        algorithm: Algorithm::Concurrency,
        enforcement: Enforcement::Strict,
        max: 20,
        window_ms: 3_600_000,
        burst: 0,
        max_delay_ms: 0,
        open_when_full: false,
        cluster: false,
    };
    [
        base,
        LimitSpec {
            key: 32,
            metric: Metric::Requests,
            algorithm: Algorithm::SlidingWindow,
            max: 1 << 38,
            ..base
        },
        LimitSpec {
            key: 48,
            metric: Metric::InputTokens,
            algorithm: Algorithm::FixedWindow,
            max: 1 << 38,
            ..base
        },
        LimitSpec {
            key: 64,
            metric: Metric::OutputTokens,
            algorithm: Algorithm::SlidingWindow,
            max: 1 << 38,
            ..base
        },
    ]
}

/// Not a test of its own: the child process. Runs only when the parent test starts it.
#[test]
fn child() {
    let Ok(dir) = std::env::var(DIR) else { return };
    let region = Region::open(Path::new(&dir)).unwrap();
    let mut worker = region.attach_worker().expect("a slot");
    let usage = region.usage_index(b"c", b"m");
    let limits = limits();
    let mut held = Vec::new();
    for i in 0u64.. {
        let demand = Demand {
            limits: &limits,
            counters: None,
            input: 7,
            input_exact: true,
            output: 100,
            expected_output: 100,
            min_output: 1,
            usage,
            may_wait: false,
            price: [0, 0],
        };
        if let Ok(grant) = region.reserve(&mut worker, region.now_ms(), &demand) {
            region.note_produced(grant.row, 3);
            held.push(grant);
        }
        if i % 2 == 1
            && let Some(grant) = held.pop()
        {
            region.settle(
                &mut worker,
                grant.row,
                region.now_ms(),
                Settlement {
                    input: 7,
                    output: 9,
                    cost: 0,
                },
            );
            if let Some(usage) = usage {
                region.add_usage(
                    usage,
                    &UsageDelta {
                        output_tokens: 9,
                        ..UsageDelta::of(Class::Ok)
                    },
                );
            }
            region.push_event(
                &worker,
                &Event {
                    time_ms: i,
                    rule_hash: i * 3,
                    ..Event::default()
                },
            );
        }
    }
}

fn spawn(dir: &Path) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "child", "--nocapture"])
        .env(DIR, dir)
        .stdout(std::process::Stdio::null())
        .spawn()
        .unwrap()
}

#[test]
fn nothing_leaks_and_the_region_stays_usable() {
    let dir = tempfile::tempdir().unwrap();
    let sizes = Sizes {
        counters: 256,
        inflight: 1_024,
        ring: 256,
        usage: 64,
    };
    let region = Region::open_or_create(dir.path(), sizes).unwrap();
    let limits = limits();
    let mut reclaimed = 0;
    let mut seen_workers = 0;
    for round in 0..12u64 {
        let mut children: Vec<_> = (0..3).map(|_| spawn(dir.path())).collect();
        let deadline = Instant::now() + Duration::from_secs(60);
        while region.workers().iter().filter(|w| w.alive).count() < 3 {
            assert!(Instant::now() < deadline, "the children did not attach");
            std::thread::yield_now();
        }
        seen_workers += 3;
        // Different instants in their loops: spin a little, by a different amount each round.
        let until = Instant::now() + Duration::from_millis(5 + round * 3);
        while Instant::now() < until {
            let busy = region.level(&limits[0], region.now_ms()).used;
            assert!(
                busy <= 20 + 3,
                "concurrency {busy} is above its maximum by more than tries in progress"
            );
        }
        for child in &mut children {
            child.kill().unwrap();
            child.wait().unwrap();
        }
        let swept = region.sweep_dead_workers();
        reclaimed += swept.requests;
        assert_eq!(
            region.level(&limits[0], region.now_ms()).used,
            0,
            "connections leaked"
        );
        assert!(region.inflight(10).is_empty(), "rows leaked");
        assert!(region.workers().is_empty(), "slots leaked");
        let mut events = Vec::new();
        for (slot, tail) in region.ring_tails().into_iter().enumerate() {
            let tail = region.read_events(slot, tail, 10_000, &mut events);
            region.consume_events(slot, tail);
        }
        assert!(
            events.iter().all(|e| e.rule_hash == e.time_ms * 3),
            "a torn event"
        );
    }
    assert!(reclaimed > 0 && seen_workers == 36);
    // Windows: a reclaimed request keeps its 100 although only 3 were noted. What is charged differs from that and from
    // what was used by no more than the one request that each kill interrupted.
    let now = region.now_ms();
    let usage = region.all_usage();
    let totals = &usage[0].1;
    let used = region.level(&limits[3], now).used;
    let known = totals.output_tokens + 97 * reclaimed;
    assert!(used <= known + 100 * (seen_workers + 36), "{used} {known}");
    assert!(used + (97 + 9) * seen_workers >= known, "{used} {known}");
    let mut worker = region.attach_worker().unwrap();
    let demand = Demand {
        limits: &limits,
        counters: None,
        input: 7,
        input_exact: true,
        output: 100,
        expected_output: 100,
        min_output: 1,
        usage: None,
        may_wait: false,
        price: [0, 0],
    };
    for _ in 0..20 {
        assert!(region.reserve(&mut worker, now, &demand).is_ok());
    }
    assert!(region.reserve(&mut worker, now, &demand).is_err());
}
