//! What the mock received and what it really sent.

use serde_json::{Value, json};
use std::collections::{BTreeMap, VecDeque};
use std::hash::{DefaultHasher, Hasher as _};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Bytes of a body that are kept in a record.
const KEPT_BODY: usize = 64 * 1024;

/// Sums over requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Requests that were read completely.
    pub requests: u64,
    /// Of these, those whose answer was sent completely.
    pub completed: u64,
    /// Of these, those whose client went away before that.
    pub aborted: u64,
    /// Of these, those that were answered with an error status or a fault, as asked.
    pub failed: u64,
    /// Being answered right now.
    pub in_flight: u64,
    /// The most that were answered at once.
    pub max_in_flight: u64,
    /// True input tokens of the requests that were answered with 200.
    pub prompt_tokens: u64,
    /// Completion tokens whose events or bodies were written to the socket completely; those that are
    /// being written count already.
    pub completion_tokens: u64,
    /// Input tokens that were told in `usage`.
    pub reported_prompt_tokens: u64,
    /// Output tokens that were told in `usage`.
    pub reported_completion_tokens: u64,
}

impl Tally {
    fn ended(&mut self, end: End) -> &mut u64 {
        match end {
            End::Completed => &mut self.completed,
            End::Aborted => &mut self.aborted,
            End::Failed => &mut self.failed,
        }
    }

    fn to_json(&self) -> Value {
        json!({
            "requests": self.requests, "completed": self.completed, "aborted": self.aborted, "failed": self.failed,
            "in_flight": self.in_flight, "max_in_flight": self.max_in_flight,
            "prompt_tokens": self.prompt_tokens, "completion_tokens": self.completion_tokens,
            "reported_prompt_tokens": self.reported_prompt_tokens,
            "reported_completion_tokens": self.reported_completion_tokens,
        })
    }
}

/// One request as it arrived, and what became of it.
#[derive(Clone, Debug)]
pub struct Record {
    /// Counts requests since the start, from 0.
    pub number: u64,
    /// Arrival, milliseconds since 1970.
    pub at_unix_ms: u64,
    /// Method.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// Header fields in their order, names as they were written.
    pub headers: Vec<(String, String)>,
    /// The body, at most its first 64 KiB.
    pub body: Vec<u8>,
    /// Length and [`digest`] of all of it.
    pub whole: (usize, u64),
    /// True input tokens, if it was answered with 200.
    pub prompt_tokens: u64,
    /// Completion tokens written.
    pub completion_tokens: u64,
    /// How it ended; `None` while it is being answered.
    pub end: Option<End>,
}

impl Record {
    /// The first header field of that name, in any letter case.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers
            .iter()
            .find(|(key, _)| key.eq_ignore_ascii_case(name))
            .map(|(_, value)| value.as_str())
    }

    /// The body as JSON.
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(&self.body).ok()
    }

    fn to_json(&self) -> Value {
        json!({
            "number": self.number, "at_unix_ms": self.at_unix_ms, "method": self.method, "target": self.target,
            "headers": self.headers, "body": String::from_utf8_lossy(&self.body), "prompt_tokens": self.prompt_tokens,
            "completion_tokens": self.completion_tokens,
            "end": self.end.map(|end| format!("{end:?}").to_lowercase()),
        })
    }
}

/// How a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// Sent to the last byte.
    Completed,
    /// The client went away.
    Aborted,
    /// A fault or an error status that was asked for.
    Failed,
}

#[derive(Debug, Default)]
struct Inner {
    total: Tally,
    by_model: BTreeMap<String, Tally>,
    by_credential: BTreeMap<String, Tally>,
    connections: u64,
    open_connections: u64,
    number: u64,
    records: VecDeque<Record>,
    keep: usize,
}

/// Shared by all connections of one mock.
#[derive(Clone, Debug)]
pub struct Stats(Arc<Mutex<Inner>>);

/// One request's entry; dropped unfinished (its task ended with the connection) it counts as aborted.
#[derive(Debug)]
pub(super) struct Entry {
    stats: Stats,
    number: u64,
    model: String,
    credential: Option<String>,
    end: Option<End>,
}

impl Stats {
    /// Keeps the last `keep` requests.
    pub fn new(keep: usize) -> Self {
        Self(Arc::new(Mutex::new(Inner {
            keep,
            ..Inner::default()
        })))
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sums over all requests.
    pub fn total(&self) -> Tally {
        self.lock().total.clone()
    }

    /// Sums over the requests for a model (the name in front of its options).
    pub fn model(&self, name: &str) -> Tally {
        self.lock().by_model.get(name).cloned().unwrap_or_default()
    }

    /// Sums over the requests with a credential: the value of `Authorization` or `x-api-key`.
    pub fn credential(&self, value: &str) -> Tally {
        self.lock().by_credential.get(value).cloned().unwrap_or_default()
    }

    /// Connections accepted since the start, and open now.
    pub fn connections(&self) -> (u64, u64) {
        let inner = self.lock();
        (inner.connections, inner.open_connections)
    }

    /// The last requests, oldest first.
    pub fn records(&self) -> Vec<Record> {
        self.lock().records.iter().cloned().collect()
    }

    /// The newest request.
    pub fn last(&self) -> Option<Record> {
        self.lock().records.back().cloned()
    }

    /// Forgets all sums and records; requests in flight stay counted as such.
    pub fn reset(&self) {
        let mut inner = self.lock();
        inner.records.clear();
        let only_in_flight = |tally: &mut Tally| {
            *tally = Tally {
                in_flight: tally.in_flight,
                max_in_flight: tally.in_flight,
                ..Tally::default()
            };
        };
        only_in_flight(&mut inner.total);
        inner.by_model.values_mut().for_each(only_in_flight);
        inner.by_credential.values_mut().for_each(only_in_flight);
    }

    /// All sums, for `GET /mock/stats`.
    pub fn to_json(&self) -> Value {
        let inner = self.lock();
        let map = |tallies: &BTreeMap<String, Tally>| -> BTreeMap<String, Value> {
            tallies
                .iter()
                .map(|(key, tally)| (key.clone(), tally.to_json()))
                .collect()
        };
        let mut value = inner.total.to_json();
        value["connections"] = json!(inner.connections);
        value["open_connections"] = json!(inner.open_connections);
        value["models"] = json!(map(&inner.by_model));
        value["credentials"] = json!(map(&inner.by_credential));
        value
    }

    /// The last requests, for `GET /mock/requests`.
    pub fn records_json(&self) -> Value {
        self.lock().records.iter().map(Record::to_json).collect()
    }

    pub(super) fn connection_opened(&self) {
        let mut inner = self.lock();
        inner.connections += 1;
        inner.open_connections += 1;
    }

    pub(super) fn connection_closed(&self) {
        self.lock().open_connections -= 1;
    }

    pub(super) fn begin(&self, arrival: Arrival<'_>) -> Entry {
        let mut inner = self.lock();
        let number = inner.number;
        inner.number += 1;
        let find = |name: &str| {
            arrival
                .headers
                .iter()
                .find(|header| header.name.eq_ignore_ascii_case(name))
                .map(|header| text(header.value))
        };
        let credential = find("authorization").or_else(|| find("x-api-key"));
        if inner.keep > 0 {
            if inner.records.len() == inner.keep {
                inner.records.pop_front();
            }
            let record = Record {
                number,
                at_unix_ms: unix_ms(),
                method: arrival.method.to_owned(),
                target: arrival.target.to_owned(),
                headers: arrival
                    .headers
                    .iter()
                    .map(|header| (header.name.to_owned(), text(header.value)))
                    .collect(),
                body: arrival.body[..arrival.body.len().min(KEPT_BODY)].to_vec(),
                whole: (arrival.body.len(), digest(arrival.body)),
                prompt_tokens: arrival.prompt_tokens,
                completion_tokens: 0,
                end: None,
            };
            inner.records.push_back(record);
        }
        let entry = Entry {
            stats: self.clone(),
            number,
            model: arrival.model.to_owned(),
            credential,
            end: None,
        };
        inner.each(&entry, |tally| {
            tally.requests += 1;
            tally.prompt_tokens += arrival.prompt_tokens;
            tally.in_flight += 1;
            tally.max_in_flight = tally.max_in_flight.max(tally.in_flight);
        });
        entry
    }
}

impl Inner {
    fn each(&mut self, entry: &Entry, mut change: impl FnMut(&mut Tally)) {
        change(&mut self.total);
        match self.by_model.get_mut(&entry.model) {
            Some(tally) => change(tally),
            None => change(self.by_model.entry(entry.model.clone()).or_default()),
        }
        if let Some(credential) = &entry.credential {
            match self.by_credential.get_mut(credential) {
                Some(tally) => change(tally),
                None => change(self.by_credential.entry(credential.clone()).or_default()),
            }
        }
    }

    fn record(&mut self, number: u64) -> Option<&mut Record> {
        let first = self.records.front()?.number;
        self.records
            .get_mut(usize::try_from(number.checked_sub(first)?).ok()?)
    }
}

impl Entry {
    /// Something is about to be written: its completion tokens, and the usage told in it. Before and not after the
    /// write, so that a client that has read it finds it counted.
    pub(super) fn writes(&self, tokens: u64, reported: Option<(u64, u64)>) {
        self.count(tokens, reported, u64::wrapping_add);
    }

    /// It could not be written after all.
    pub(super) fn takes_back(&self, tokens: u64, reported: Option<(u64, u64)>) {
        self.count(tokens, reported, u64::wrapping_sub);
    }

    fn count(&self, tokens: u64, reported: Option<(u64, u64)>, change: fn(u64, u64) -> u64) {
        if tokens == 0 && reported.is_none() {
            return;
        }
        let mut inner = self.stats.lock();
        inner.each(self, |tally| {
            tally.completion_tokens = change(tally.completion_tokens, tokens);
            if let Some((input, output)) = reported {
                tally.reported_prompt_tokens = change(tally.reported_prompt_tokens, input);
                tally.reported_completion_tokens = change(tally.reported_completion_tokens, output);
            }
        });
        if let Some(record) = inner.record(self.number) {
            record.completion_tokens = change(record.completion_tokens, tokens);
        }
    }

    /// How it ends. Said again, it corrects what was said before: the last bytes may fail to leave.
    pub(super) fn end(&mut self, end: End) {
        let before = self.end.replace(end);
        let mut inner = self.stats.lock();
        inner.each(self, |tally| {
            match before {
                Some(before) => *tally.ended(before) = tally.ended(before).saturating_sub(1),
                None => tally.in_flight = tally.in_flight.saturating_sub(1),
            }
            *tally.ended(end) += 1;
        });
        if let Some(record) = inner.record(self.number) {
            record.end = Some(end);
        }
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        if self.end.is_none() {
            self.end(End::Aborted);
        }
    }
}

/// A request that was read completely.
pub(super) struct Arrival<'a> {
    pub method: &'a str,
    pub target: &'a str,
    pub headers: &'a [httparse::Header<'a>],
    pub body: &'a [u8],
    pub model: &'a str,
    pub prompt_tokens: u64,
}

/// A body's digest, the same in every process.
pub fn digest(body: &[u8]) -> u64 {
    let mut hasher = DefaultHasher::new();
    hasher.write(body);
    hasher.finish()
}

fn text(value: &[u8]) -> String {
    String::from_utf8_lossy(value).into_owned()
}

fn unix_ms() -> u64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn arrival<'a>(headers: &'a [httparse::Header<'a>]) -> Arrival<'a> {
        Arrival {
            method: "POST",
            target: "/v1/x",
            headers,
            body: b"{}",
            model: "mock",
            prompt_tokens: 7,
        }
    }

    #[test]
    fn an_entry_ends_exactly_once() {
        let stats = Stats::new(10);
        let headers = [httparse::Header {
            name: "Authorization",
            value: b"Bearer k",
        }];
        let mut first = stats.begin(arrival(&headers));
        let mut second = stats.begin(arrival(&headers));
        first.writes(5, Some((7, 5)));
        first.end(End::Completed);
        drop(first);
        second.writes(3, None);
        second.end(End::Completed);
        // The last write failed.
        second.takes_back(3, None);
        second.end(End::Aborted);
        drop(second);
        let tally = stats.credential("Bearer k");
        assert_eq!(tally, stats.total());
        assert_eq!(
            (tally.requests, tally.completed, tally.aborted, tally.in_flight),
            (2, 1, 1, 0)
        );
        assert_eq!(
            (tally.max_in_flight, tally.prompt_tokens, tally.completion_tokens),
            (2, 14, 5)
        );
        let ends: Vec<_> = stats.records().iter().map(|record| record.end).collect();
        assert_eq!(ends, [Some(End::Completed), Some(End::Aborted)]);
    }

    #[test]
    fn old_records_make_room() {
        let stats = Stats::new(2);
        let entries: Vec<_> = (0..3).map(|_| stats.begin(arrival(&[]))).collect();
        for mut entry in entries {
            entry.end(End::Completed);
        }
        let numbers: Vec<_> = stats.records().iter().map(|record| record.number).collect();
        assert_eq!(numbers, [1, 2]);
        assert_eq!(stats.total().completed, 3);
    }
}
