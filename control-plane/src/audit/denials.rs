//! Denied tries come in floods: a try like one of the last minute is counted instead of written.

use std::collections::HashMap;

use super::{Entry, Outcome};

/// How long tries are gathered, milliseconds.
const GATHERED_MS: u64 = 60_000;
/// Kinds of tries that are told apart at a time; all others are one kind.
const MOST: usize = 500;

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Kind {
    actor: String,
    address: String,
    method: String,
    path: String,
    status: u16,
}

/// Tries of the last minute.
#[derive(Default)]
pub(super) struct Denials(HashMap<Kind, Entry>);

impl Denials {
    /// Takes a denied try; it is to be written if it is the first of its kind.
    pub fn take(&mut self, mut entry: Entry) -> Option<Entry> {
        let mut kind = Kind {
            actor: entry.actor.clone(),
            address: entry.address.clone(),
            method: entry.method.clone(),
            path: entry.path.clone(),
            status: entry.status,
        };
        if self.0.len() >= MOST && !self.0.contains_key(&kind) {
            let many = "many kinds of tries at once";
            kind = Kind {
                actor: String::new(),
                address: String::new(),
                method: String::new(),
                path: String::new(),
                status: 0,
            };
            entry = Entry {
                at_ms: entry.at_ms,
                reason: many.into(),
                outcome: Outcome::Denied,
                ..Entry::default()
            };
        }
        if let Some(known) = self.0.get_mut(&kind) {
            known.repeated += 1;
            return None;
        }
        self.0.insert(kind, entry.clone());
        Some(entry)
    }

    /// Kinds whose minute is over; those that were repeated are to be written.
    pub fn ended(&mut self, now_ms: u64) -> Vec<Entry> {
        let over = |e: &Entry| now_ms.saturating_sub(e.at_ms) >= GATHERED_MS;
        let mut ended: Vec<Entry> = self
            .0
            .extract_if(|_, e| over(e))
            .map(|(_, e)| e)
            .filter(|e| e.repeated > 0)
            .collect();
        ended.sort_by_key(|e| e.at_ms);
        ended
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn denied(path: &str, at_ms: u64) -> Entry {
        Entry {
            at_ms,
            path: path.into(),
            outcome: Outcome::Denied,
            status: 403,
            ..Entry::default()
        }
    }

    #[test]
    fn a_flood_becomes_two_rows() {
        let mut denials = Denials::default();
        assert!(denials.take(denied("/a", 0)).is_some());
        for n in 1..1_000 {
            assert!(denials.take(denied("/a", n)).is_none());
        }
        assert!(denials.take(denied("/b", 0)).is_some());
        assert!(denials.ended(59_999).is_empty());
        let ended = denials.ended(60_000);
        assert_eq!(ended.len(), 1, "what came once was written already");
        assert_eq!((ended[0].path.as_str(), ended[0].repeated), ("/a", 999));
        assert!(denials.take(denied("/a", 60_000)).is_some());
    }

    #[test]
    fn kinds_without_number_become_one() {
        let mut denials = Denials::default();
        let written = (0..5_000)
            .filter_map(|n| denials.take(denied(&format!("/{n}"), 0)))
            .count();
        assert_eq!(written, MOST + 1);
    }
}
