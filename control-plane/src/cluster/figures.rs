//! What metrics tell of limits over all instances.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::{Mutex, PoisonError};
use std::time::Instant;

use super::trouble::{LinkError, Trouble};

/// What is wrong with Redis now.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its kind.
    pub trouble: Trouble,
    /// In words.
    pub text: String,
    /// Since when.
    pub since: Instant,
}

/// Counters that only grow, and gauges.
#[derive(Debug, Default)]
pub struct Figures {
    /// Whether limits are shared at all, and whether Redis answers.
    pub configured: AtomicU64,
    /// See above.
    pub connected: AtomicU64,
    /// Reports sent.
    pub reports: AtomicU64,
    /// Commands that they went out in.
    pub commands: AtomicU64,
    /// Reports without a usable answer.
    pub failures: AtomicU64,
    /// Times that a worker found an allowance short.
    pub shortages: AtomicU64,
    /// Answers that gave less than was needed.
    pub unmet: AtomicU64,
    /// Connections made.
    pub connections: AtomicU64,
    /// Microseconds that answers took, all together.
    pub waited_us: AtomicU64,
    /// Limits of which a lease is held.
    pub held: AtomicU64,
    /// Limits whose lease has ended for want of an answer.
    pub fenced: AtomicU64,
    /// Limits of which nothing is granted for now.
    pub quarantined: AtomicU64,
    /// Units that count for instances whose lease has ended, over the limits held here.
    pub stranded: AtomicU64,
    /// How far region time is from Redis' clock, milliseconds.
    pub clock_offset_ms: AtomicU64,
    /// Failures by [`Trouble`].
    failures_by: [AtomicU64; Trouble::ALL.len()],
    found: Mutex<Option<Found>>,
    /// When Redis last took this instance's sign of life, region time in milliseconds; 0 for never.
    pub beat_ms: AtomicU64,
    /// Other living instances with this one's name.
    pub namesakes: AtomicU64,
    /// What of Redis' settings does not suit.
    unsuitable: Mutex<Vec<String>>,
}

impl Figures {
    /// Counts a failure. Returns whether it is news: no trouble before, or of another kind.
    pub fn troubled(&self, error: &LinkError) -> bool {
        let trouble = error.trouble();
        for (kind, count) in Trouble::ALL.iter().zip(&self.failures_by) {
            count.fetch_add(u64::from(*kind == trouble), Relaxed);
        }
        let mut found = self.found.lock().unwrap_or_else(PoisonError::into_inner);
        let since = found.as_ref().map_or_else(Instant::now, |f| f.since);
        let news = found.as_ref().is_none_or(|f| f.trouble != trouble);
        *found = Some(Found {
            trouble,
            text: error.to_string(),
            since,
        });
        news
    }

    /// Redis does what it should. Returns what was wrong before.
    pub fn well(&self) -> Option<Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// What is wrong now.
    pub fn found(&self) -> Option<Found> {
        self.found.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Failures so far, by kind.
    pub fn failures_by_kind(&self) -> impl Iterator<Item = (Trouble, u64)> + '_ {
        let counts = self.failures_by.iter().map(|count| count.load(Relaxed));
        Trouble::ALL.into_iter().zip(counts)
    }

    /// What of Redis' settings does not suit, in an operator's words; nothing if that is not known.
    pub fn unsuitable(&self) -> Vec<String> {
        self.unsuitable
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// Notes what was found at a connection.
    pub fn set_unsuitable(&self, found: Vec<String>) {
        *self.unsuitable.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }

    /// Name, kind, text and value of each.
    pub fn all(&self) -> [(&'static str, &'static str, &'static str, u64); 15] {
        let get = |word: &AtomicU64| word.load(Relaxed);
        [
            (
                "tollgate_cluster_configured",
                "gauge",
                "Whether limits hold over all instances.",
                get(&self.configured),
            ),
            (
                "tollgate_redis_connected",
                "gauge",
                "Whether Redis answers.",
                get(&self.connected),
            ),
            (
                "tollgate_lease_reports_total",
                "counter",
                "Reports on leases sent to Redis.",
                get(&self.reports),
            ),
            (
                "tollgate_lease_commands_total",
                "counter",
                "Commands that these reports went out in.",
                get(&self.commands),
            ),
            (
                "tollgate_lease_failures_total",
                "counter",
                "Reports without a usable answer.",
                get(&self.failures),
            ),
            (
                "tollgate_lease_shortages_total",
                "counter",
                "Times that an allowance was found short.",
                get(&self.shortages),
            ),
            (
                "tollgate_lease_unmet_total",
                "counter",
                "Answers that gave less than was needed.",
                get(&self.unmet),
            ),
            (
                "tollgate_redis_connections_total",
                "counter",
                "Connections to Redis made.",
                get(&self.connections),
            ),
            (
                "tollgate_redis_wait_microseconds_total",
                "counter",
                "Time that Redis' answers took.",
                get(&self.waited_us),
            ),
            (
                "tollgate_lease_held",
                "gauge",
                "Limits of which a lease is held.",
                get(&self.held),
            ),
            (
                "tollgate_lease_fenced",
                "gauge",
                "Limits whose lease has ended for want of an answer; the policy applies.",
                get(&self.fenced),
            ),
            (
                "tollgate_lease_quarantined",
                "gauge",
                "Limits of which nothing is granted for now, since Redis may have lost writes.",
                get(&self.quarantined),
            ),
            (
                "tollgate_lease_stranded_units",
                "gauge",
                "Units that still count for instances whose lease has ended.",
                get(&self.stranded),
            ),
            (
                "tollgate_instance_namesakes",
                "gauge",
                "Other living instances over this Redis that have this instance's name; each needs one of its own.",
                get(&self.namesakes),
            ),
            (
                "tollgate_redis_clock_offset_milliseconds",
                "gauge",
                "How far this instance's clock is from Redis'.",
                get(&self.clock_offset_ms),
            ),
        ]
    }
}
