use super::*;
use proptest::prelude::*;

fn report(id: u64, seq: u64, have: u64, want: u64) -> Report {
    Report {
        id,
        seq,
        have,
        want,
        need: want,
        standing: 0,
        max: 100,
        ttl: 10,
        hold: 50,
        standing_ttl: 200,
    }
}

fn old() -> Option<Era<u8>> {
    Some(Era { run: 0, since: 0 })
}

#[test]
fn an_expired_lease_counts_until_it_has_left_and_its_standing_share_longer() {
    let (mut ledger, mut era) = (Ledger::default(), old());
    let standing = Report {
        standing: 15,
        ..report(1, 1, 0, 60)
    };
    let (answer, _) = ledger.report(&mut era, 1_000, &0, &standing);
    assert_eq!((answer.granted, answer.standing, answer.left), (60, 15, 40));
    let left =
        |ledger: &mut Ledger, now, seq| ledger.report(&mut old(), now, &0, &report(2, seq, 0, 0)).0.left;
    assert_eq!(left(&mut ledger, 1_059, 1), 40);
    assert_eq!(left(&mut ledger, 1_060, 2), 85);
    assert_eq!(left(&mut ledger, 1_249, 3), 85);
    assert_eq!(left(&mut ledger, 1_250, 4), 100);
}

#[test]
fn what_an_instance_says_it_has_counts_and_old_reports_do_not() {
    let (mut ledger, mut era) = (Ledger::default(), old());
    ledger.report(&mut era, 1_000, &0, &report(1, 5, 0, 60));
    // The answer was lost: it still has nothing.
    let (answer, _) = ledger.report(&mut era, 1_001, &0, &report(1, 6, 0, 10));
    assert_eq!((answer.granted, answer.left), (10, 90));
    let (answer, _) = ledger.report(&mut era, 1_002, &0, &report(1, 5, 0, 60));
    assert_eq!((answer.stale, answer.seq, ledger.counted(1_002)), (true, 6, 10));
}

#[test]
fn in_quarantine_nobody_is_asked_to_return_anything() {
    let (mut ledger, mut era) = (Ledger::default(), None);
    let (answer, notice) = ledger.report(&mut era, 1_000, &0, &report(1, 1, 50, 60));
    assert_eq!((answer.granted, answer.quarantine, notice), (0, 10, None));
    let (answer, notice) = ledger.report(&mut era, 1_010, &0, &report(1, 2, 50, 60));
    assert_eq!((answer.granted, answer.quarantine), (50, 0));
    assert!(matches!(notice, Some(Notice::Short { id: 1, want: 10, .. })));
}

#[test]
fn a_shortage_is_told_and_so_is_room() {
    let (mut ledger, mut era) = (Ledger::default(), old());
    ledger.report(&mut era, 1_000, &0, &report(1, 1, 0, 90));
    let (answer, notice) = ledger.report(&mut era, 1_000, &0, &report(2, 1, 0, 30));
    assert_eq!(answer.granted, 10);
    assert_eq!(
        notice,
        Some(Notice::Short {
            id: 2,
            want: 20,
            have: 10
        })
    );
    let (answer, notice) = ledger.report(&mut era, 1_001, &0, &report(1, 2, 60, 0));
    assert_eq!((answer.lacking, notice), (20, Some(Notice::Room)));
    // Wanting more than is there is no shortage while what is needed is.
    let wide = Report {
        need: 30,
        ..report(2, 2, 10, 500)
    };
    let (answer, notice) = ledger.report(&mut era, 1_002, &0, &wide);
    assert_eq!((answer.granted, notice), (30, None));
}

#[test]
fn the_smallest_maximum_of_those_who_live_holds() {
    let (mut ledger, mut era) = (Ledger::default(), old());
    ledger.report(&mut era, 1_000, &0, &report(1, 1, 0, 50));
    let raised = Report {
        max: 200,
        ..report(2, 1, 0, 100)
    };
    let (answer, _) = ledger.report(&mut era, 1_001, &0, &raised);
    assert_eq!((answer.max, answer.granted), (100, 50));
    let lowered = Report {
        max: 30,
        ..report(1, 2, 50, 0)
    };
    let (answer, _) = ledger.report(&mut era, 1_002, &0, &lowered);
    assert_eq!((answer.max, answer.over), (30, 70));
    // Whose lease has ended has no say.
    let (answer, _) = ledger.report(&mut era, 1_020, &0, &Report { seq: 2, ..raised });
    assert_eq!(answer.max, 200);
}

proptest! {
    /// Whatever is reported: nobody is granted what others are counted for, and nothing in a new era.
    #[test]
    fn grants_never_exceed_what_is_left(
        steps in proptest::collection::vec((0u64..40, 1u64..4, 0u64..40, 0u64..80, 0u8..2), 1..60)
    ) {
        let (mut ledger, mut era) = (Ledger::default(), old());
        let (mut now, mut seq) = (1_000, 0);
        for (pause, id, have, want, run) in steps {
            now += pause;
            seq += 1;
            let report = report(id, seq, have, want);
            let (answer, _) = ledger.report(&mut era, now, &run, &report);
            let others: u64 = ledger.records.iter().filter(|(i, _)| **i != id).map(|(_, r)| r.counted(now)).sum();
            if answer.granted > 0 {
                prop_assert!(others + have + answer.granted <= 100);
                prop_assert!(now >= era.as_ref().unwrap().since + 10);
            }
            prop_assert_eq!(answer.over, (others + have).saturating_sub(100));
            prop_assert_eq!(ledger.counted(now), others + have + answer.granted);
        }
    }
}
