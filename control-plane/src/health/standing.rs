//! From findings to a verdict: rise and fall.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use tollgate_policy::documents::HealthCheck;
use tollgate_shm::Verdict;

/// What a probe found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[schemars(rename = "ProbeOutcome")]
pub enum Outcome {
    /// It works.
    Passed,
    /// It does not.
    Failed,
    /// Neither: the probe could not be made, or the provider was too busy for it (429).
    Undecided,
}

impl Outcome {
    /// Name in the API and in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Outcome::Passed => "passed",
            Outcome::Failed => "failed",
            Outcome::Undecided => "undecided",
        }
    }
}

/// A verdict that is not what it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Change {
    /// Before.
    pub from: Verdict,
    /// Now.
    pub to: Verdict,
}

/// What is held of a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// The verdict.
    pub verdict: Verdict,
    /// Since when, region time in milliseconds.
    pub since_ms: u64,
    /// Why it became that.
    pub reason: String,
    /// Findings in a row that agree, undecided ones left out.
    pub in_row: u32,
    /// What they agree on; `None` before the first.
    pub last: Option<Outcome>,
}

impl Standing {
    /// Before the first probe.
    pub fn unknown(now_ms: u64, reason: &str) -> Standing {
        Standing {
            verdict: Verdict::Unknown,
            since_ms: now_ms,
            reason: reason.to_owned(),
            in_row: 0,
            last: None,
        }
    }

    /// Takes a finding into account.
    pub fn note(
        &mut self,
        outcome: Outcome,
        reason: &str,
        check: &HealthCheck,
        now_ms: u64,
    ) -> Option<Change> {
        if outcome == Outcome::Undecided {
            return None;
        }
        self.in_row = if self.last == Some(outcome) {
            self.in_row.saturating_add(1)
        } else {
            1
        };
        self.last = Some(outcome);
        let (to, needed) = match (outcome, self.verdict) {
            (Outcome::Passed, Verdict::Unknown) => (Verdict::Healthy, 1),
            (Outcome::Passed, _) => (Verdict::Healthy, check.healthy_after),
            _ => (Verdict::Unhealthy, check.unhealthy_after),
        };
        if to == self.verdict || self.in_row < needed {
            return None;
        }
        let change = Change {
            from: self.verdict,
            to,
        };
        self.verdict = to;
        self.since_ms = now_ms;
        self.reason = match self.in_row {
            1 => format!("a probe {}: {reason}", outcome.name()),
            n => format!("{n} probes in a row {}, the last: {reason}", outcome.name()),
        };
        Some(change)
    }
}

/// Name of a verdict in the API.
pub fn verdict_name(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Unknown => "unknown",
        Verdict::Healthy => "healthy",
        Verdict::Unhealthy => "unhealthy",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Outcome::{Failed, Passed, Undecided};

    fn check(unhealthy_after: u32, healthy_after: u32) -> HealthCheck {
        let text = serde_json::json!({"path": "/", "unhealthy_after": unhealthy_after, "healthy_after": healthy_after});
        serde_json::from_value(text).unwrap()
    }

    /// Verdicts after each of the findings.
    fn verdicts(check: &HealthCheck, outcomes: &[Outcome]) -> Vec<&'static str> {
        let mut standing = Standing::unknown(0, "");
        outcomes
            .iter()
            .map(|outcome| {
                standing.note(*outcome, "x", check, 1);
                verdict_name(standing.verdict)
            })
            .collect()
    }

    #[test]
    fn falls_after_failures_in_a_row_and_rises_after_passes_in_a_row() {
        let seen = verdicts(
            &check(3, 2),
            &[
                Passed, Failed, Failed, Passed, Failed, Failed, Failed, Passed, Failed, Passed, Passed,
            ],
        );
        let (h, u) = ("healthy", "unhealthy");
        assert_eq!(seen, [h, h, h, h, h, h, u, u, u, u, h]);
    }

    #[test]
    fn of_the_unknown_one_pass_is_enough_and_one_failure_is_not() {
        assert_eq!(verdicts(&check(2, 5), &[Passed]), ["healthy"]);
        assert_eq!(
            verdicts(&check(2, 5), &[Failed, Failed, Passed]),
            ["unknown", "unhealthy", "unhealthy"]
        );
        assert_eq!(
            verdicts(&check(2, 5), &[Failed, Passed, Failed]),
            ["unknown", "healthy", "healthy"]
        );
    }

    #[test]
    fn the_undecided_neither_counts_nor_interrupts() {
        assert_eq!(
            verdicts(&check(2, 1), &[Undecided, Undecided]),
            ["unknown", "unknown"]
        );
        let seen = verdicts(&check(2, 1), &[Failed, Undecided, Failed, Undecided, Passed]);
        assert_eq!(seen, ["unknown", "unknown", "unhealthy", "unhealthy", "healthy"]);
    }

    #[test]
    fn a_change_is_told_once_with_its_reason_and_time() {
        let check = check(2, 1);
        let mut standing = Standing::unknown(5, "not probed yet");
        assert_eq!((standing.since_ms, &*standing.reason), (5, "not probed yet"));
        assert_eq!(standing.note(Failed, "status 503", &check, 10), None);
        let change = standing.note(Failed, "status 500", &check, 20).unwrap();
        assert_eq!((change.from, change.to), (Verdict::Unknown, Verdict::Unhealthy));
        assert_eq!(standing.since_ms, 20);
        assert_eq!(standing.reason, "2 probes in a row failed, the last: status 500");
        for now in 21..30 {
            assert_eq!(standing.note(Failed, "status 502", &check, now), None);
        }
        assert_eq!((standing.since_ms, standing.in_row), (20, 11));
        assert!(standing.note(Passed, "status 200", &check, 40).is_some());
        assert_eq!(standing.reason, "a probe passed: status 200");
    }
}
