//! The protocol under every order of messages, losses, crashes and restarts: production's holder and ledger in a machine of
//! states. Small enough for every build; `make model-lease` runs the ignored ones, which explore more.

#![allow(clippy::indexing_slicing, clippy::panic, missing_docs, reason = "test code")]

#[path = "model/state.rs"]
mod state;

use state::{Config, Flaw};
use stateright::{Checker, Model};

const SMALL: Config = Config {
    nodes: 2,
    max: 1,
    standing: 1,
    last_tick: 4,
    reports: 2,
    duplicates: 0,
    crashes: 0,
    restarts: 0,
    flaw: Flaw::None,
};

/// Whether I1 holds everywhere.
fn holds(config: Config) -> bool {
    let name = format!("{config:?}");
    let checker = config.checker().threads(2).spawn_dfs().join();
    println!(
        "{} states, depth {}: {name}",
        checker.unique_state_count(),
        checker.max_depth()
    );
    checker.discovery("I1 no overrun").is_none()
}

#[test]
fn messages_late_lost_and_in_any_order_break_nothing() {
    assert!(holds(SMALL));
}

#[test]
fn every_seeded_flaw_is_found() {
    let longer = Config {
        last_tick: 5,
        ..SMALL
    };
    for flaw in [
        Flaw::ReturnBeforeLower,
        Flaw::NoHold,
        Flaw::FenceFromAnswer,
        Flaw::NoStanding,
    ] {
        assert!(!holds(Config { flaw, ..longer }), "{flaw:?}");
    }
    assert!(!holds(Config {
        reports: 3,
        flaw: Flaw::NoSequence,
        ..longer
    }));
    assert!(!holds(Config {
        last_tick: 1,
        restarts: 1,
        flaw: Flaw::NoQuarantine,
        ..longer
    }));
}

#[test]
#[ignore = "minutes"]
fn large_duplicates() {
    assert!(holds(Config {
        duplicates: 1,
        last_tick: 5,
        ..SMALL
    }));
}

#[test]
#[ignore = "minutes"]
fn large_crashes_of_daemons_and_instances() {
    assert!(holds(Config {
        crashes: 1,
        last_tick: 5,
        ..SMALL
    }));
}

#[test]
#[ignore = "minutes"]
fn large_restarts_of_redis_with_lost_writes() {
    assert!(holds(Config {
        restarts: 1,
        last_tick: 3,
        ..SMALL
    }));
}

#[test]
#[ignore = "minutes"]
fn large_two_units_in_parts() {
    assert!(holds(Config {
        max: 2,
        last_tick: 3,
        ..SMALL
    }));
}

#[test]
#[ignore = "minutes"]
fn large_three_instances() {
    assert!(holds(Config {
        nodes: 3,
        last_tick: 3,
        reports: 1,
        crashes: 1,
        restarts: 1,
        ..SMALL
    }));
}
