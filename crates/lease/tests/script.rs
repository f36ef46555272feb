//! The script in a real Redis does what the ledger does.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    missing_docs,
    reason = "test code"
)]

mod redis;

use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};
use redis::{Client, Redis, Value, cluster};
use tollgate_lease::script::{CLOCK, SCRIPT, answer, arguments, channel, keys, notice};
use tollgate_lease::{Era, Ledger, Report};

/// The script with a clock and a process of the test's choice.
fn with_clock() -> String {
    assert!(SCRIPT.contains(CLOCK));
    SCRIPT.replace(CLOCK, "local now, run = tonumber(ARGV[13]), ARGV[14]")
}

#[derive(Clone, Copy, Debug)]
struct Step {
    pause: u64,
    restart: bool,
    seq_back: bool,
    report: Report,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let small = prop_oneof![3 => 0u64..60, 1 => Just(0), 1 => (1u64 << 38)..(1 << 39)];
    let report = (
        1u64..5,
        small.clone(),
        small.clone(),
        0u64..30,
        small,
        1u64..900,
        0u64..900,
        0u64..3_000,
    )
        .prop_map(
            |(id, have, want, standing, max, ttl, hold, standing_ttl)| Report {
                id,
                seq: 0,
                have,
                want,
                need: want / 2,
                standing,
                max,
                ttl,
                hold,
                standing_ttl,
            },
        );
    let step = (
        0u64..700,
        prop::bool::weighted(0.05),
        prop::bool::weighted(0.1),
        report,
    )
        .prop_map(|(pause, restart, seq_back, report)| Step {
            pause,
            restart,
            seq_back,
            report,
        });
    prop::collection::vec(step, 1..25)
}

struct Side {
    client: Client,
    listener: Client,
    script: String,
    limit: u64,
}

/// Runs the same reports through both.
fn agree(side: &mut Side, steps: &[Step]) -> Result<(), TestCaseError> {
    side.limit = side
        .limit
        .wrapping_mul(0x9e37_79b9_7f4a_7c15)
        .wrapping_add(12_345);
    let [key, era_key] = keys("tollgate", side.limit);
    side.client.call(&["DEL", &key]);
    side.client.call(&["DEL", &era_key]);
    let (mut ledger, mut era): (Ledger, Option<Era<String>>) = Default::default();
    let (mut now, mut run, mut seq) = (1_700_000_000_000, "a0".to_owned(), 0);
    for step in steps {
        now += step.pause;
        if step.restart {
            run.push('1');
        }
        seq += 1;
        let report = Report {
            seq: if step.seq_back { seq / 2 } else { seq },
            ..step.report
        };
        let (expected, told) = ledger.report(&mut era, now, &run, &report);
        let mut words = vec![
            "EVAL".to_owned(),
            side.script.clone(),
            "2".into(),
            key.clone(),
            era_key.clone(),
        ];
        words.extend(arguments("tollgate", side.limit, &report));
        words.extend([now.to_string(), run.clone()]);
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        let got = side.client.call(&words);
        prop_assert_eq!(answer(&got.numbers()), Some(expected), "{:?}", step);
        if let Some(told) = told {
            let Value::List(message) = side.listener.read() else {
                panic!("no message");
            };
            prop_assert_eq!(notice(message[2].text()), Some((side.limit, told)));
        }
    }
    Ok(())
}

fn conforms(client: Client, mut listener: Client, cases: u32) {
    listener.call(&["SUBSCRIBE", &channel("tollgate")]);
    let mut side = Side {
        client,
        listener,
        script: with_clock(),
        limit: 7,
    };
    let mut runner = TestRunner::new(Config {
        cases,
        failure_persistence: None,
        ..Config::default()
    });
    let side = std::cell::RefCell::new(&mut side);
    runner
        .run(&steps(), |steps| agree(&mut side.borrow_mut(), &steps))
        .unwrap();
}

#[test]
fn the_script_is_the_ledger() {
    let redis = Redis::start(&[]);
    conforms(redis.client(), redis.client(), 300);
}

#[test]
fn the_script_is_the_ledger_in_a_cluster_of_three() {
    let nodes = cluster();
    conforms(nodes[0].client(), nodes[1].client(), 60);
}

/// With Redis' own clock and process: an unknown process grants nothing for one ttl, and a restart begins that anew.
#[test]
fn a_restart_of_redis_is_seen_and_begins_a_quarantine() {
    let report = |seq, want| Report {
        id: 1,
        seq,
        have: 0,
        want,
        need: want,
        standing: 0,
        max: 100,
        ttl: 300,
        hold: 1_000,
        standing_ttl: 0,
    };
    let ask = |client: &mut Client, report: &Report| {
        let [key, era] = keys("tollgate", 5);
        let mut words = vec!["EVAL".to_owned(), SCRIPT.to_owned(), "2".into(), key, era];
        words.extend(arguments("tollgate", 5, report));
        let words: Vec<&str> = words.iter().map(String::as_str).collect();
        answer(&client.call(&words).numbers()).unwrap()
    };
    let dir = tempfile::tempdir().unwrap();
    let aof = [
        "--appendonly",
        "yes",
        "--appendfsync",
        "always",
        "--dir",
        dir.path().to_str().unwrap(),
    ];
    let redis = Redis::start(&aof);
    let mut client = redis.client();
    let first = ask(&mut client, &report(1, 40));
    assert_eq!((first.granted, first.quarantine), (0, 300));
    std::thread::sleep(std::time::Duration::from_millis(310));
    let second = ask(&mut client, &report(2, 40));
    assert_eq!((second.granted, second.left, second.quarantine), (40, 60, 0));
    assert!(ask(&mut client, &report(2, 40)).stale);
    let touched = client.call(&[
        "EVAL",
        SCRIPT,
        "2",
        &keys("tollgate", 5)[1],
        &keys("tollgate", 5)[1],
    ]);
    assert_eq!(touched.numbers().len(), 1);
    drop(redis);

    let redis = Redis::start(&aof);
    let mut client = redis.client();
    let other = Report {
        id: 2,
        ..report(1, 40)
    };
    let after = ask(&mut client, &other);
    assert_eq!(
        (after.granted, after.quarantine, after.left),
        (0, 300, 60),
        "nothing was lost, but who knows"
    );
    std::thread::sleep(std::time::Duration::from_millis(310));
    assert_eq!(
        ask(
            &mut client,
            &Report {
                seq: 2,
                want: 80,
                ..other
            }
        )
        .granted,
        60
    );
}
