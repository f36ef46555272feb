use super::*;

const TERMS: Terms = Terms {
    ttl: 1_000,
    margin: 100,
    hold: 5_000,
    standing_ttl: 60_000,
    attempts: 500,
};

fn granted(seq: u64, granted: u64, standing: u64) -> Answer {
    Answer {
        seq,
        granted,
        standing,
        ..Answer::default()
    }
}

#[test]
fn the_fence_counts_from_before_the_question() {
    let mut holder = Holder::resume(1, TERMS, 0, 0, 0, 0);
    let report = holder.report(10_000, 40, 40, 5, 100);
    assert_eq!((report.have, report.want, report.seq), (0, 40, 10_000));
    assert!(holder.answered(report.seq, &granted(report.seq, 40, 5)).is_some());
    assert_eq!((holder.row(), holder.held(), holder.standing()), (40, 40, 5));
    assert_eq!(holder.fence(), 10_900);
}

#[test]
fn a_lease_is_renewed_with_a_third_left_and_with_more_where_two_attempts_would_not_fit() {
    let left = |attempts| {
        let mut holder = Holder::resume(1, Terms { attempts, ..TERMS }, 0, 0, 0, 0);
        let report = holder.report(10_000, 40, 40, 0, 100);
        holder.answered(report.seq, &granted(report.seq, 40, 0));
        assert!(holder.may_renew_at() < holder.renew_at());
        holder.fence() - holder.renew_at()
    };
    assert_eq!((left(0), left(300), left(400), left(5_000)), (300, 300, 400, 450));
}

#[test]
fn only_the_last_answer_counts_and_a_stale_one_raises_the_number() {
    let mut holder = Holder::resume(1, TERMS, 0, 0, 0, 0);
    let first = holder.report(10_000, 40, 40, 0, 100);
    let second = holder.report(10_000, 40, 40, 0, 100);
    assert!(second.seq > first.seq);
    assert_eq!(holder.answered(first.seq, &granted(first.seq, 40, 0)), None);
    assert_eq!(holder.held(), 0);
    let stale = Answer {
        stale: true,
        seq: 99_999,
        ..Answer::default()
    };
    assert_eq!(holder.answered(second.seq, &stale), None);
    assert_eq!(holder.report(10_001, 0, 0, 0, 100).seq, 100_000);
}

#[test]
fn what_is_in_use_is_not_returned_and_a_queue_only_in_time() {
    let mut holder = Holder::resume(1, TERMS, 40, 10, 10_900, 0);
    holder.lowered(10_100, 5, 25, 10_100);
    assert_eq!((holder.row(), holder.held(), holder.standing()), (5, 25, 5));
    holder.lowered(10_200, 5, 5, 10_700);
    assert_eq!((holder.held(), holder.return_at()), (25, Some(10_700)));
    assert_eq!(holder.report(10_300, 0, 0, 0, 100).have, 25);
    assert_eq!(holder.report(10_700, 0, 0, 0, 100).have, 5);
}

#[test]
fn a_standing_share_is_counted_as_long_as_the_row_has_it() {
    let mut holder = Holder::resume(1, TERMS, 40, 10, 10_900, 0);
    assert_eq!(holder.report(10_100, 0, 0, 3, 100).standing, 10);
    holder.lower_standing(3);
    assert_eq!(holder.report(10_200, 0, 0, 3, 100).standing, 3);
}

#[test]
fn back_from_a_fence_everything_is_held_until_all_has_left() {
    let mut holder = Holder::resume(1, TERMS, 40, 10, 10_900, 0);
    assert_eq!(holder.back(15_899, 40), None);
    assert_eq!((holder.held(), holder.row()), (40, 40));
    assert_eq!(holder.back(15_900, 8), Some(RowChange::Cut));
    assert_eq!((holder.held(), holder.row()), (10, 10));
    assert_eq!(holder.back(10_900 + 59_000, 8), Some(RowChange::Cut));
    assert_eq!((holder.held(), holder.row(), holder.standing()), (8, 0, 0));
}

#[test]
fn a_successor_reports_what_is_in_use() {
    let mut holder = Holder::resume(1, TERMS, 5, 10, 10_900, 30);
    assert_eq!(holder.held(), 30);
    assert_eq!(holder.report(10_100, 0, 0, 0, 100).have, 30);
}
