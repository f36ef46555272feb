//! The vector of counters that a channel × model has in the region's usage table, in its events and in the ledger.

use tollgate_shm::{Class, Event, UsageTotals};

/// Components of [`Counters`].
pub const COUNTERS: usize = 19;

/// Names of the components, as columns of the ledger and as fields of the API. The first eight are requests by
/// [`Class`].
pub const COUNTER_NAMES: [&str; COUNTERS] = [
    "ok",
    "client",
    "rule",
    "limit",
    "upstream",
    "timeout",
    "abort",
    "internal",
    "input_tokens",
    "output_tokens",
    "cached_tokens",
    "reasoning_tokens",
    "estimated_tokens",
    "counted_tokens",
    "debt_tokens",
    "suspicious",
    "latency_us",
    "bill_micro",
    "cost_micro",
];

/// A component by name; its number is its place in [`COUNTER_NAMES`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Counter {
    /// Requests that ended this way.
    Requests(Class),
    /// Input tokens charged.
    InputTokens,
    /// Output tokens charged.
    OutputTokens,
    /// Sum of the time that requests took.
    LatencyUs,
}

impl Counter {
    fn place(self) -> usize {
        match self {
            Counter::Requests(class) => class as usize,
            Counter::InputTokens => 8,
            Counter::OutputTokens => 9,
            Counter::LatencyUs => 16,
        }
    }
}

/// Usage of a channel × model. Signed, because a correction may take back what was booked too early.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters(pub [i64; COUNTERS]);

fn signed(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

impl Counters {
    /// A row's readings in the region.
    pub fn from_totals(totals: &UsageTotals) -> Counters {
        let [ok, client, rule, limit, upstream, timeout, abort, internal] = totals.classes;
        Counters(
            [
                ok,
                client,
                rule,
                limit,
                upstream,
                timeout,
                abort,
                internal,
                totals.input_tokens,
                totals.output_tokens,
                totals.cached_tokens,
                totals.reasoning_tokens,
                totals.estimated_tokens,
                totals.counted_tokens,
                totals.debt_tokens,
                totals.suspicious,
                totals.latency_us_sum,
                totals.bill,
                totals.cost,
            ]
            .map(signed),
        )
    }

    /// What one event adds.
    pub fn from_event(event: &Event) -> Counters {
        let mut counters = Counters::default();
        counters.add_event(event);
        counters
    }

    /// Adds what one event adds.
    pub fn add_event(&mut self, event: &Event) {
        let class = Class::from_number(event.class.into()).unwrap_or(Class::Internal);
        let (classes, rest) = self.0.split_at_mut(Class::ALL.len());
        if let Some(requests) = classes.get_mut(class as usize) {
            *requests = requests.saturating_add(1);
        }
        let amounts = [
            event.input_tokens,
            event.output_tokens,
            event.cached_tokens,
            event.reasoning_tokens,
            event.estimated_tokens,
            event.counted_tokens,
            event.debt_tokens,
            event.flags >> 1 & 1,
            event.latency_us,
            event.bill,
            event.cost,
        ];
        for (sum, n) in rest.iter_mut().zip(amounts) {
            *sum = sum.saturating_add(i64::from(n));
        }
    }

    /// One component.
    pub fn get(&self, counter: Counter) -> i64 {
        self.0.get(counter.place()).copied().unwrap_or(0)
    }

    /// Requests of all classes.
    pub fn requests(&self) -> i64 {
        self.0.iter().take(8).sum()
    }

    /// Whether nothing is in it.
    pub fn is_zero(&self) -> bool {
        self.0.iter().all(|n| *n == 0)
    }

    /// Component by component.
    #[must_use]
    pub fn zip(&self, other: &Counters, f: impl Fn(i64, i64) -> i64) -> Counters {
        let mut out = *self;
        for (to, from) in out.0.iter_mut().zip(&other.0) {
            *to = f(*to, *from);
        }
        out
    }

    /// The sum.
    #[must_use]
    pub fn plus(&self, other: &Counters) -> Counters {
        self.zip(other, i64::saturating_add)
    }

    /// The difference.
    #[must_use]
    pub fn minus(&self, other: &Counters) -> Counters {
        self.zip(other, i64::saturating_sub)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tollgate_shm::{Region, Sizes, UsageDelta};

    #[test]
    fn an_event_and_the_usage_table_agree_on_every_component() {
        let dir = tempfile::tempdir().unwrap();
        let sizes = Sizes {
            counters: 64,
            inflight: 64,
            ring: 64,
            usage: 64,
        };
        let region = Region::open_or_create(dir.path(), sizes).unwrap();
        let row = region.usage_index(b"c", b"m").unwrap();
        for class in Class::ALL {
            let n = class as u64 + 1;
            region.add_usage(
                row,
                &UsageDelta {
                    class,
                    input_tokens: n,
                    output_tokens: 2 * n,
                    cached_tokens: 3 * n,
                    reasoning_tokens: 4 * n,
                    estimated_tokens: 5 * n,
                    counted_tokens: 6 * n,
                    debt_tokens: 7 * n,
                    bill: 9 * n,
                    cost: 10 * n,
                    suspicious: true,
                    latency_us: Some(8 * n),
                    first_token_us: None,
                },
            );
        }
        let from_events = Class::ALL
            .into_iter()
            .map(|class| {
                let n = class as u32 + 1;
                Counters::from_event(&Event {
                    class: class as u8,
                    input_tokens: n,
                    output_tokens: 2 * n,
                    cached_tokens: 3 * n,
                    reasoning_tokens: 4 * n,
                    estimated_tokens: 5 * n,
                    counted_tokens: 6 * n,
                    debt_tokens: 7 * n,
                    flags: 0b10,
                    latency_us: 8 * n,
                    bill: 9 * n,
                    cost: 10 * n,
                    ..Event::default()
                })
            })
            .fold(Counters::default(), |sum, c| sum.plus(&c));
        assert_eq!(Counters::from_totals(&region.usage(row).unwrap()), from_events);
        assert_eq!(from_events.requests(), 8);
        assert_eq!(from_events.get(Counter::InputTokens), 36);
        assert_eq!(from_events.get(Counter::Requests(Class::Internal)), 1);
    }
}
