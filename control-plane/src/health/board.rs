//! What was found, for whoever wants to see it.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use schemars::JsonSchema;
use serde::Serialize;
use tollgate_policy::documents::{HealthCheck, ProbeKind};
use tollgate_shm::Verdict;

use super::plan::{Key, Target};
use super::probe::Finding;
use super::standing::{Change, Outcome, Standing, verdict_name};
use super::told::Told;

/// Probes that are remembered of each target.
pub const KEPT: usize = 100;

/// One probe.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "ProbeEntry")]
pub struct Entry {
    /// When it ended, region time in milliseconds.
    pub at_ms: u64,
    /// `http`, `tcp` or `completion`.
    pub kind: &'static str,
    /// What it found.
    pub outcome: Outcome,
    /// How long it took, microseconds.
    pub latency_us: u64,
    /// Why.
    pub reason: String,
    /// The verdict after it.
    pub verdict: &'static str,
}

/// Probes of a target since the daemon began to probe it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "ProbeCounts")]
pub struct Counts {
    /// Those that found it working.
    pub passed: u64,
    /// Those that did not.
    pub failed: u64,
    /// Those that could not tell.
    pub undecided: u64,
    /// Input tokens that the provider reported for completions.
    pub input_tokens: u64,
    /// Output tokens that it reported.
    pub output_tokens: u64,
}

/// What is known of a target.
#[derive(Clone, Debug)]
pub struct Probed {
    /// How it is probed.
    pub kind: ProbeKind,
    /// Its provider.
    pub provider: String,
    /// The deployments that this is about.
    pub deployments: Vec<String>,
    /// Whether each deployment has probes of its own.
    pub per_deployment: bool,
    /// What is held of it.
    pub standing: Standing,
    /// How often it was probed, and what that cost.
    pub counts: Counts,
    /// The last probe.
    pub last: Option<Entry>,
}

struct Record {
    target: Target,
    standing: Standing,
    counts: Counts,
    history: VecDeque<Entry>,
    /// The last undecided reason that was logged.
    told: Option<String>,
}

impl Record {
    fn remember(&mut self, entry: Entry) {
        if self.history.len() >= KEPT {
            self.history.pop_front();
        }
        self.history.push_back(entry);
    }

    fn probed(&self) -> Probed {
        Probed {
            kind: self.target.check.kind,
            provider: self.target.provider.clone(),
            deployments: self.target.deployments.clone(),
            per_deployment: self.target.check.per_deployment(),
            standing: self.standing.clone(),
            counts: self.counts,
            last: self.history.back().cloned(),
        }
    }
}

#[derive(Default)]
struct Inner {
    records: BTreeMap<Key, Record>,
    /// Target of each deployment.
    of: BTreeMap<String, Key>,
}

/// What the prober knows. Clones share it.
#[derive(Clone, Default)]
pub struct Board {
    inner: Arc<Mutex<Inner>>,
}

/// What a finding led to.
pub(super) struct Noted {
    pub verdict: Verdict,
    /// The new verdict and why, if it changed.
    pub change: Option<(Change, String)>,
    /// Why the verdict is what it is.
    pub reason: String,
    /// Whether an undecided probe says something that was not said before.
    pub news: bool,
}

impl Board {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a deployment; `None` if it is not probed.
    pub fn of(&self, deployment: &str) -> Option<Probed> {
        let inner = self.lock();
        inner.records.get(inner.of.get(deployment)?).map(Record::probed)
    }

    /// A deployment's probes, oldest first; `None` if it is not probed.
    pub fn history(&self, deployment: &str) -> Option<Vec<Entry>> {
        let inner = self.lock();
        let record = inner.records.get(inner.of.get(deployment)?)?;
        Some(record.history.iter().cloned().collect())
    }

    /// All targets.
    pub fn all(&self) -> Vec<Probed> {
        self.lock().records.values().map(Record::probed).collect()
    }

    /// Takes these targets for all that there are. One that is asked otherwise than before keeps its verdict; of one
    /// that is another endpoint, nothing is known.
    pub(super) fn replace(&self, targets: &[Target], now_ms: u64) {
        let mut inner = self.lock();
        let mut old = std::mem::take(&mut inner.records);
        inner.of.clear();
        for target in targets {
            let key = target.key();
            let fresh = || Record {
                target: target.clone(),
                standing: Standing::unknown(now_ms, "not probed yet"),
                counts: Counts::default(),
                history: VecDeque::new(),
                told: None,
            };
            let record = match old.remove(&key) {
                None => fresh(),
                Some(mut record) => {
                    if !same_subject(&record.target, target) {
                        record.standing = Standing::unknown(now_ms, "another endpoint: not probed yet");
                    } else if record.target.check != target.check {
                        // What was found the old way does not add up with what is found the new way.
                        record.standing.in_row = 0;
                        record.standing.last = None;
                    }
                    record.target = target.clone();
                    record
                }
            };
            for deployment in &target.deployments {
                inner.of.insert(deployment.clone(), key.clone());
            }
            inner.records.insert(key, record);
        }
    }

    /// Takes note of a finding; `None` if the target is gone.
    pub(super) fn note(
        &self,
        key: &Key,
        finding: &Finding,
        check: &HealthCheck,
        now_ms: u64,
    ) -> Option<Noted> {
        let mut inner = self.lock();
        let record = inner.records.get_mut(key)?;
        let change = record
            .standing
            .note(finding.outcome, &finding.reason, check, now_ms)
            .map(|change| (change, record.standing.reason.clone()));
        let counts = &mut record.counts;
        match finding.outcome {
            Outcome::Passed => counts.passed += 1,
            Outcome::Failed => counts.failed += 1,
            Outcome::Undecided => counts.undecided += 1,
        }
        counts.input_tokens = counts.input_tokens.saturating_add(finding.tokens.0);
        counts.output_tokens = counts.output_tokens.saturating_add(finding.tokens.1);
        record.remember(Entry {
            at_ms: now_ms,
            kind: check.kind.name(),
            outcome: finding.outcome,
            latency_us: u64::try_from(finding.took.as_micros()).unwrap_or(u64::MAX),
            reason: finding.reason.clone(),
            verdict: verdict_name(record.standing.verdict),
        });
        if change.is_some() {
            record.told = None;
        }
        let news = finding.outcome == Outcome::Undecided && record.told.as_ref() != Some(&finding.reason);
        if news {
            record.told = Some(finding.reason.clone());
        }
        Some(Noted {
            verdict: record.standing.verdict,
            reason: record.standing.reason.clone(),
            change,
            news,
        })
    }

    /// Takes another instance's word; `None` if the target is gone, otherwise the new verdict and why, if it changed.
    pub(super) fn take_word(&self, key: &Key, told: &Told, now_ms: u64) -> Option<Option<Change>> {
        let mut inner = self.lock();
        let record = inner.records.get_mut(key)?;
        let (from, to) = (record.standing.verdict, told.verdict());
        let change = (from != to).then_some(Change { from, to });
        if change.is_some() {
            record.standing.verdict = to;
            record.standing.since_ms = now_ms;
        }
        record.standing.reason = format!("{} says: {}", told.from, told.reason);
        // Whoever probes next begins to count.
        record.standing.in_row = 0;
        record.standing.last = None;
        record.remember(Entry {
            at_ms: now_ms,
            kind: record.target.check.kind.name(),
            outcome: told.outcome,
            latency_us: told.latency_us,
            reason: format!("{} says: {}", told.from, told.found),
            verdict: verdict_name(to),
        });
        Some(change)
    }

    /// What is held of a deployment.
    pub(super) fn verdict(&self, deployment: &str) -> Verdict {
        let inner = self.lock();
        let record = inner.of.get(deployment).and_then(|key| inner.records.get(key));
        record.map_or(Verdict::Unknown, |r| r.standing.verdict)
    }
}

/// Whether a verdict on one says something about the other.
fn same_subject(old: &Target, new: &Target) -> bool {
    old.endpoint == new.endpoint && old.upstream_model == new.upstream_model
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn target(endpoint: &str, check: serde_json::Value) -> Target {
        Target {
            provider: "p".into(),
            deployments: vec!["m/p".into(), "n/p".into()],
            upstream_model: String::new(),
            check: serde_json::from_value(check).unwrap(),
            endpoint: endpoint.into(),
        }
    }

    fn finding(outcome: Outcome, reason: &str) -> Finding {
        Finding {
            outcome,
            reason: reason.into(),
            took: Duration::from_micros(1_500),
            tokens: (3, 1),
        }
    }

    #[test]
    fn history_is_bounded_and_shared_by_a_providers_deployments() {
        let board = Board::default();
        let t = target("http://a", serde_json::json!({"path": "/"}));
        board.replace(std::slice::from_ref(&t), 1);
        for n in 0..250 {
            board.note(&t.key(), &finding(Outcome::Passed, "status 200"), &t.check, n);
        }
        let history = board.history("n/p").unwrap();
        assert_eq!(history.len(), KEPT);
        assert_eq!((history[0].at_ms, history[99].at_ms), (150, 249));
        assert_eq!((history[0].latency_us, history[0].verdict), (1_500, "healthy"));
        let probed = board.of("m/p").unwrap();
        assert_eq!(
            (
                probed.counts.passed,
                probed.counts.input_tokens,
                probed.counts.output_tokens
            ),
            (250, 750, 250)
        );
        assert!(board.history("other").is_none());
    }

    #[test]
    fn another_question_keeps_the_verdict_and_another_endpoint_does_not() {
        let board = Board::default();
        let t = target("http://a", serde_json::json!({"path": "/", "unhealthy_after": 1}));
        board.replace(std::slice::from_ref(&t), 1);
        board.note(&t.key(), &finding(Outcome::Failed, "status 500"), &t.check, 2);
        assert_eq!(board.verdict("m/p"), Verdict::Unhealthy);
        let asked_otherwise = target("http://a", serde_json::json!({"path": "/health"}));
        board.replace(std::slice::from_ref(&asked_otherwise), 3);
        assert_eq!(board.verdict("m/p"), Verdict::Unhealthy);
        assert_eq!(board.of("m/p").unwrap().standing.in_row, 0);
        let moved = target("http://b", serde_json::json!({"path": "/health"}));
        board.replace(std::slice::from_ref(&moved), 4);
        assert_eq!(board.verdict("m/p"), Verdict::Unknown);
        board.replace(&[], 5);
        assert!(board.of("m/p").is_none() && board.all().is_empty());
        assert!(
            board
                .note(&t.key(), &finding(Outcome::Failed, "x"), &t.check, 6)
                .is_none()
        );
    }

    #[test]
    fn what_cannot_be_probed_is_news_once() {
        let board = Board::default();
        let t = target("http://a", serde_json::json!({"path": "/"}));
        board.replace(std::slice::from_ref(&t), 1);
        let news = |outcome, reason| {
            board
                .note(&t.key(), &finding(outcome, reason), &t.check, 2)
                .unwrap()
                .news
        };
        assert!(news(Outcome::Undecided, "status 429"));
        assert!(!news(Outcome::Undecided, "status 429"));
        assert!(news(Outcome::Undecided, "no credential"));
        assert!(!news(Outcome::Failed, "status 500"));
    }
}
