//! Names in Redis, and how counters are written there. `docs/redis.md` says the same to operators.

use serde_json::{Map, Value};
use tollgate_policy::hash_name;

use crate::ledger::{COUNTER_NAMES, Counters};

/// Hash tags that channels are spread over.
pub const TAGS: usize = 16;

/// How long totals are kept after the channel's last use, milliseconds.
pub const TOTALS_MS: u64 = 400 * 86_400_000;

/// The tag of a channel.
pub fn tag_of(channel: &str) -> usize {
    (hash_name(channel.as_bytes()).wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 60) as usize % TAGS
}

fn tagged(tag: usize, rest: &str) -> String {
    format!("{{u{tag:x}}}:{rest}")
}

/// How far each ledger's changes have come: a hash.
pub fn records(tag: usize) -> String {
    tagged(tag, "ledgers")
}

/// The channels that have usage: a set.
pub fn channels(tag: usize) -> String {
    tagged(tag, "channels")
}

/// A kind of buckets, and the hash that some of them lie in. Totals come last in a run of the script: whether a channel is used
/// shows in the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Span {
    /// Minutes of an hour.
    Minutes,
    /// Ten minutes of a day.
    Tens,
    /// All time.
    Total,
}

impl Span {
    /// That of a step of the ledger.
    pub fn of(step: u64) -> Option<Span> {
        match step {
            0 => Some(Span::Total),
            60 => Some(Span::Minutes),
            600 => Some(Span::Tens),
            _ => None,
        }
    }

    /// Seconds that one hash is about; 0 for all time.
    pub fn length(self) -> u64 {
        match self {
            Span::Total => 0,
            Span::Minutes => 3_600,
            Span::Tens => 86_400,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Span::Total => "usage",
            Span::Minutes => "minutes",
            Span::Tens => "tens",
        }
    }

    /// The hash with the buckets around `begin`, which is a multiple of the length.
    pub fn hash(self, channel: &str, begin: u64) -> String {
        let tag = tag_of(channel);
        match self {
            Span::Total => tagged(tag, &format!("usage:{channel}")),
            _ => tagged(tag, &format!("{}:{begin}:{channel}", self.name())),
        }
    }

    /// Which of these hashes there are: a sorted set by begin.
    pub fn index(self, channel: &str) -> String {
        tagged(tag_of(channel), &format!("times:{}:{channel}", self.name()))
    }
}

/// A field of a hash: bucket (not for all time), ledger, model.
pub fn field(span: Span, bucket: u64, ledger: u64, model: &str) -> String {
    match span {
        Span::Total => format!("{ledger:016x} {model}"),
        _ => format!("{bucket} {ledger:016x} {model}"),
    }
}

/// Bucket and model of a field; `None` if it is none of ours.
pub fn read_field(span: Span, field: &str) -> Option<(u64, &str)> {
    let (bucket, rest) = match span {
        Span::Total => (0, field),
        _ => {
            let (bucket, rest) = field.split_once(' ')?;
            (bucket.parse().ok()?, rest)
        }
    };
    let (_, model) = rest.split_once(' ')?;
    Some((bucket, model))
}

/// Counters by name, so that versions with other counters understand each other; zeros are left out.
pub fn value(counters: &Counters) -> String {
    let there = COUNTER_NAMES.iter().zip(counters.0).filter(|(_, n)| *n != 0);
    let fields: Map<String, Value> = there.map(|(name, n)| ((*name).to_owned(), n.into())).collect();
    Value::Object(fields).to_string()
}

/// Counters of a value; what is not known is left out.
pub fn read_value(text: &[u8]) -> Option<Counters> {
    let fields: Map<String, Value> = serde_json::from_slice(text).ok()?;
    let mut counters = Counters::default();
    for (name, slot) in COUNTER_NAMES.iter().zip(&mut counters.0) {
        *slot = fields.get(*name).and_then(Value::as_i64).unwrap_or(0);
    }
    Some(counters)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::COUNTERS;

    #[test]
    fn fields_and_values_come_back() {
        for model in ["gpt-4o", "a model {x}", ""] {
            for (span, bucket) in [(Span::Total, 0), (Span::Minutes, 120), (Span::Tens, 600)] {
                let text = field(span, bucket, 7, model);
                assert_eq!(read_field(span, &text), Some((bucket, model)));
            }
        }
        let mut counters = Counters([0; COUNTERS]);
        counters.0[3] = i64::MAX;
        counters.0[5] = -7;
        assert_eq!(read_value(value(&counters).as_bytes()), Some(counters));
        assert_eq!(
            read_value(br#"{"ok":2,"what a later version counts":1}"#).map(|c| c.0[0]),
            Some(2)
        );
        assert_eq!(read_value(b"nonsense"), None);
    }

    #[test]
    fn all_keys_of_a_channel_have_one_tag_and_channels_have_many() {
        let mut seen = std::collections::BTreeSet::new();
        for n in 0..200 {
            let channel = format!("c{n}:{{x}}");
            let tag = tag_of(&channel);
            seen.insert(tag);
            let start = format!("{{u{tag:x}}}:");
            for span in [Span::Total, Span::Minutes, Span::Tens] {
                assert!(span.hash(&channel, 3_600).starts_with(&start));
                assert!(span.index(&channel).starts_with(&start));
            }
            assert!(records(tag).starts_with(&start) && channels(tag).starts_with(&start));
        }
        assert_eq!(seen.len(), TAGS);
    }
}
