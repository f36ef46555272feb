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
use tollgate_lease::script::{
    CLOCK, SCRIPT, TAGS, answer, arguments, channel, era_key, keys, notice, tag_of,
};
use tollgate_lease::{Era, Ledger, Report};

/// The script with a clock and a process of the test's choice.
fn with_clock() -> String {
    assert!(SCRIPT.contains(CLOCK));
    SCRIPT.replace(
        CLOCK,
        "local run, now = table.remove(ARGV), tonumber(table.remove(ARGV))",
    )
}

#[derive(Clone, Copy, Debug)]
struct Step {
    pause: u64,
    restart: bool,
    seq_back: bool,
    /// Which of the limits of one tag these are about: bits.
    limits: usize,
    report: Report,
}

/// Limits of one tag that are reported on together.
const TOGETHER: usize = 3;

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
        1usize..1 << TOGETHER,
        report,
    )
        .prop_map(|(pause, restart, seq_back, limits, report)| Step {
            pause,
            restart,
            seq_back,
            limits,
            report,
        });
    prop::collection::vec(step, 1..25)
}

struct Side {
    client: Client,
    listener: Client,
    script: String,
    next: u64,
}

impl Side {
    /// Limits of one tag that nothing is known of, the tag neither.
    fn limits(&mut self) -> Vec<u64> {
        let tag = self.next % TAGS;
        let limits = (self.next..).filter(|limit| tag_of(*limit) == tag);
        let limits: Vec<u64> = limits.take(TOGETHER).collect();
        self.next = limits.iter().fold(self.next, |next, limit| next.max(limit + 1));
        self.client.call(&["DEL", &era_key("tollgate", tag)]);
        limits
    }

    fn eval(&mut self, keys: &[String], arguments: &[String]) -> Value {
        let count = keys.len().to_string();
        let mut words = vec!["EVAL", &self.script, &count];
        words.extend(keys.iter().chain(arguments).map(String::as_str));
        self.client.call(&words)
    }
}

/// Runs the same reports through both.
fn agree(side: &mut Side, steps: &[Step]) -> Result<(), TestCaseError> {
    let limits = side.limits();
    let tag = tag_of(limits[0]);
    let mut ledgers = vec![Ledger::default(); limits.len()];
    let mut era: Option<Era<String>> = None;
    let (mut now, mut run, mut seq) = (1_700_000_000_000, "a0".to_owned(), 0);
    for step in steps {
        now += step.pause;
        if step.restart {
            run.push('1');
        }
        seq += 1;
        let (mut reports, mut expected, mut told) = (Vec::new(), Vec::new(), Vec::new());
        for (at, ledger) in ledgers.iter_mut().enumerate() {
            if step.limits & 1 << at == 0 {
                continue;
            }
            let report = Report {
                seq: if step.seq_back { seq / 2 } else { seq },
                want: step.report.want >> at,
                ..step.report
            };
            let (answer, notice) = ledger.report(&mut era, now, &run, &report);
            expected.push(Some(answer));
            told.extend(notice.map(|notice| (limits[at], notice)));
            reports.push((limits[at], report));
        }
        let mut words = arguments(
            "tollgate",
            step.report.id,
            reports.iter().map(|(limit, report)| (*limit, report)),
        );
        words.extend([now.to_string(), run.clone()]);
        let names = keys("tollgate", tag, reports.iter().map(|(limit, _)| *limit));
        let got = side.eval(&names, &words);
        let got: Vec<_> = got.list().iter().map(|one| answer(&one.numbers())).collect();
        prop_assert_eq!(got, expected, "{:?}", step);
        for told in told {
            let message = side.listener.read();
            prop_assert_eq!(notice(message.list()[2].text()), Some(told));
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
        next: 7,
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
        let keys = keys("tollgate", tag_of(5), [5]);
        let arguments = arguments("tollgate", report.id, [(5, report)]);
        let mut words = vec!["EVAL", SCRIPT, "2"];
        words.extend(keys.iter().chain(&arguments).map(String::as_str));
        answer(&client.call(&words).list()[0].numbers()).unwrap()
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
    let touched = client.call(&["EVAL", SCRIPT, "1", &era_key("tollgate", tag_of(5))]);
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
