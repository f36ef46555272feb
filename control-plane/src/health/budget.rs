//! How many completions a provider is asked for in a minute.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

/// Spaces probes evenly, by provider.
#[derive(Default)]
pub(super) struct Budget {
    /// The next free slot.
    free: BTreeMap<String, Instant>,
}

impl Budget {
    /// Takes the next slot, which is never before `now`.
    pub fn take(&mut self, provider: &str, per_minute: u32, now: Instant) -> Instant {
        let gap = Duration::from_secs(60) / per_minute.max(1);
        let free = self.free.entry(provider.to_owned()).or_insert(now);
        let slot = (*free).max(now);
        *free = slot + gap;
        slot
    }

    /// Forgets providers that are not probed any more. One that was asked a moment ago is remembered, so that an edit
    /// back and forth does not double its budget.
    pub fn prune(&mut self, now: Instant) {
        self.free.retain(|_, free| *free > now);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn never_more_than_so_many_in_any_minute() {
        let mut budget = Budget::default();
        let start = Instant::now();
        let slots: Vec<Instant> = (0..50)
            .map(|i| budget.take("p", 6, start + Duration::from_secs(i)))
            .collect();
        for (i, slot) in slots.iter().enumerate() {
            let within = slots
                .iter()
                .filter(|s| **s >= *slot && s.duration_since(*slot) < Duration::from_secs(60));
            assert!(within.count() <= 6, "from slot {i}");
        }
        assert_eq!(slots[0], start);
        assert_eq!(budget.take("q", 6, start), start, "each provider has its own");
        budget.prune(start + Duration::from_secs(5));
        assert_eq!(budget.take("q", 6, start), start + Duration::from_secs(10));
        budget.prune(start + Duration::from_secs(3_600));
        assert!(budget.free.is_empty());
    }
}
