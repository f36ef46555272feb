//! Statistics per channel × model: counters that only grow, so that whoever remembers an earlier reading knows
//! exactly what came since, whatever the event ring lost.

use crate::atomic::{AtomicU64, Relaxed, SeqCst};
use crate::layout::{USAGE_COUNTERS, UsageRow};
use crate::region::Region;

/// Buckets of a latency histogram.
pub const HISTOGRAM_BUCKETS: usize = 40;
const PROBES: usize = 256;

/// A channel × model's row.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Hash, PartialOrd, Ord)]
pub struct UsageIndex(u32);

impl UsageIndex {
    /// Its number, for events and stores.
    pub fn number(self) -> u32 {
        self.0
    }
    /// The row with this number.
    pub fn from_number(number: u32) -> UsageIndex {
        UsageIndex(number)
    }
    pub(crate) fn to_word(this: Option<UsageIndex>) -> u64 {
        this.map_or(0, |i| u64::from(i.0) + 1)
    }
    pub(crate) fn from_word(word: u64) -> Option<UsageIndex> {
        u32::try_from(word.checked_sub(1)?).ok().map(UsageIndex)
    }
}

/// How a request ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum Class {
    /// Answered by the upstream with success.
    Ok = 0,
    /// The request itself was wrong: malformed, unknown model, bad key.
    Client = 1,
    /// A rule or a missing permission.
    Rule = 2,
    /// A limit.
    Limit = 3,
    /// The upstream failed.
    Upstream = 4,
    /// A time-out.
    Timeout = 5,
    /// The client went away.
    Abort = 6,
    /// The gateway failed, or its worker died.
    Internal = 7,
}

impl Class {
    /// All classes, by number.
    pub const ALL: [Class; 8] = [
        Class::Ok,
        Class::Client,
        Class::Rule,
        Class::Limit,
        Class::Upstream,
        Class::Timeout,
        Class::Abort,
        Class::Internal,
    ];

    /// Name in metrics and stores.
    pub fn name(self) -> &'static str {
        match self {
            Class::Ok => "ok",
            Class::Client => "client",
            Class::Rule => "rule",
            Class::Limit => "limit",
            Class::Upstream => "upstream",
            Class::Timeout => "timeout",
            Class::Abort => "abort",
            Class::Internal => "internal",
        }
    }

    /// The class with this number.
    pub fn from_number(n: u64) -> Option<Class> {
        Class::ALL.into_iter().nth(usize::try_from(n).ok()?)
    }
}

/// What one request adds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UsageDelta {
    /// How it ended.
    pub class: Class,
    /// Input tokens charged.
    pub input_tokens: u64,
    /// Output tokens charged.
    pub output_tokens: u64,
    /// Part of the input that the upstream served from its cache.
    pub cached_tokens: u64,
    /// Part of the output spent on reasoning.
    pub reasoning_tokens: u64,
    /// Part of all tokens that is an estimate, not a count.
    pub estimated_tokens: u64,
    /// Part of all tokens that was counted here because the upstream did not say.
    pub counted_tokens: u64,
    /// Tokens used beyond the reservation.
    pub debt_tokens: u64,
    /// What the channel pays, in millionths of the currency's unit.
    pub bill: u64,
    /// What the provider takes, likewise.
    pub cost: u64,
    /// Whether the upstream's usage contradicted our own count.
    pub suspicious: bool,
    /// Microseconds from the request to the end of the answer; `None` if not proxied.
    pub latency_us: Option<u64>,
    /// Microseconds until the first byte of the answer.
    pub first_token_us: Option<u64>,
}

impl UsageDelta {
    /// A request that ended this way and used nothing.
    pub fn of(class: Class) -> UsageDelta {
        UsageDelta {
            class,
            input_tokens: 0,
            output_tokens: 0,
            cached_tokens: 0,
            reasoning_tokens: 0,
            estimated_tokens: 0,
            counted_tokens: 0,
            debt_tokens: 0,
            bill: 0,
            cost: 0,
            suspicious: false,
            latency_us: None,
            first_token_us: None,
        }
    }
}

/// A row's readings. All grow only.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct UsageTotals {
    /// Channel code; empty where none was known.
    pub channel: String,
    /// Model name; empty where none was known.
    pub model: String,
    /// Requests by [`Class`] number.
    pub classes: [u64; 8],
    /// See [`UsageDelta`].
    pub input_tokens: u64,
    /// See [`UsageDelta`].
    pub output_tokens: u64,
    /// See [`UsageDelta`].
    pub cached_tokens: u64,
    /// See [`UsageDelta`].
    pub reasoning_tokens: u64,
    /// See [`UsageDelta`].
    pub estimated_tokens: u64,
    /// See [`UsageDelta`].
    pub counted_tokens: u64,
    /// See [`UsageDelta`].
    pub debt_tokens: u64,
    /// See [`UsageDelta`].
    pub bill: u64,
    /// See [`UsageDelta`].
    pub cost: u64,
    /// Requests whose upstream usage contradicted our count.
    pub suspicious: u64,
    /// Total of all latencies, microseconds.
    pub latency_us_sum: u64,
    /// Requests by latency, see [`bucket_upper_us`].
    pub latency: Vec<u64>,
    /// Requests by time to the first byte.
    pub first_token: Vec<u64>,
}

impl UsageTotals {
    /// Requests of all classes.
    pub fn requests(&self) -> u64 {
        self.classes.iter().sum()
    }
}

/// The bucket of a duration: two per doubling, from 128 µs on.
pub fn bucket_of(us: u64) -> usize {
    if us <= 128 {
        return 0;
    }
    let octave = 63 - us.leading_zeros() as usize; // >= 7
    let half = us >> (octave - 1) & 1;
    ((octave - 7) * 2 + half as usize + 1).min(HISTOGRAM_BUCKETS - 1)
}

/// Upper bound of a bucket in microseconds; the last one is open.
pub fn bucket_upper_us(bucket: usize) -> u64 {
    match bucket {
        0 => 128,
        b if b >= HISTOGRAM_BUCKETS - 1 => u64::MAX,
        b if b % 2 == 1 => 192 << ((b - 1) / 2),
        b => 256 << (b / 2 - 1),
    }
}

fn key_of(channel: &[u8], model: &[u8]) -> u64 {
    let mut h = 0xcbf2_9ce4_8422_2325u64;
    for b in channel.iter().chain(&[0xff]).chain(model) {
        h = (h ^ u64::from(*b)).wrapping_mul(0x0000_0100_0000_01b3);
    }
    (h ^ h >> 29).max(1)
}

fn write_name(words: &[AtomicU64], len: &AtomicU64, name: &[u8]) {
    let name = name.get(..words.len() * 8).unwrap_or(name);
    for (word, chunk) in words.iter().zip(name.chunks(8)) {
        let mut bytes = [0; 8];
        for (to, from) in bytes.iter_mut().zip(chunk) {
            *to = *from;
        }
        word.store(u64::from_le_bytes(bytes), Relaxed);
    }
    len.store(name.len() as u64, Relaxed);
}

fn read_name(words: &[AtomicU64], len: &AtomicU64) -> String {
    let bytes: Vec<u8> = words.iter().flat_map(|w| w.load(Relaxed).to_le_bytes()).collect();
    let len = (len.load(Relaxed) as usize).min(bytes.len());
    String::from_utf8_lossy(bytes.get(..len).unwrap_or_default()).into_owned()
}

impl UsageRow {
    /// Everyone who finds the row unnamed writes the same bytes, so it does not matter who dies over it.
    fn name(&self, channel: &[u8], model: &[u8]) {
        if self.named.load(SeqCst) == 0 {
            write_name(&self.channel, &self.channel_len, channel);
            write_name(&self.model, &self.model_len, model);
            self.named.store(1, SeqCst);
        }
    }
}

impl Region {
    /// The row of a channel × model, claimed at first use; `None` when the table is full (counted).
    pub fn usage_index(&self, channel: &[u8], model: &[u8]) -> Option<UsageIndex> {
        let key = key_of(channel, model);
        let rows = self.usage_rows();
        let mask = rows.len().wrapping_sub(1);
        for i in 0..PROBES.min(rows.len()) {
            let index = (key as usize).wrapping_add(i) & mask;
            let row = rows.get(index)?;
            let mut seen = row.key.load(SeqCst);
            if seen == 0 {
                seen = match row.key.compare_exchange(0, key, SeqCst, SeqCst) {
                    Ok(_) => {
                        self.header().usage_used.fetch_add(1, Relaxed);
                        key
                    }
                    Err(other) => other,
                };
            }
            if seen == key {
                row.name(channel, model);
                return u32::try_from(index).ok().map(UsageIndex);
            }
        }
        self.header().usage_refused.fetch_add(1, Relaxed);
        None
    }

    /// Adds one request.
    pub fn add_usage(&self, index: UsageIndex, d: &UsageDelta) {
        let Some(row) = self.usage_rows().get(index.0 as usize) else {
            return;
        };
        let add = |slot: usize, n: u64| {
            if n > 0
                && let Some(counter) = row.counters.get(slot)
            {
                counter.fetch_add(n, Relaxed);
            }
        };
        let tokens = [
            d.input_tokens,
            d.output_tokens,
            d.cached_tokens,
            d.reasoning_tokens,
            d.estimated_tokens,
            d.counted_tokens,
            d.debt_tokens,
            u64::from(d.suspicious),
            d.latency_us.unwrap_or(0),
            d.bill,
            d.cost,
        ];
        for (i, n) in tokens.into_iter().enumerate() {
            add(8 + i, n);
        }
        for (table, us) in [(&row.latency, d.latency_us), (&row.first_token, d.first_token_us)] {
            if let Some(slot) = us.and_then(|us| table.get(bucket_of(us))) {
                slot.fetch_add(1, Relaxed);
            }
        }
        // The request itself last: whoever sees it counted sees its tokens too.
        if let Some(counter) = row.counters.get(d.class as usize) {
            counter.fetch_add(1, SeqCst);
        }
    }

    /// A row's readings; `None` for a row that is not in use.
    pub fn usage(&self, index: UsageIndex) -> Option<UsageTotals> {
        let row = self.usage_rows().get(index.0 as usize)?;
        if row.key.load(SeqCst) == 0 || row.named.load(SeqCst) == 0 {
            return None;
        }
        let mut counters = [0; USAGE_COUNTERS];
        for (to, from) in counters.iter_mut().zip(&row.counters) {
            *to = from.load(SeqCst);
        }
        let [
            c0,
            c1,
            c2,
            c3,
            c4,
            c5,
            c6,
            c7,
            input,
            output,
            cached,
            reasoning,
            estimated,
            counted,
            debt,
            odd,
            us,
            bill,
            cost,
            ..,
        ] = counters;
        Some(UsageTotals {
            channel: read_name(&row.channel, &row.channel_len),
            model: read_name(&row.model, &row.model_len),
            classes: [c0, c1, c2, c3, c4, c5, c6, c7],
            input_tokens: input,
            output_tokens: output,
            cached_tokens: cached,
            reasoning_tokens: reasoning,
            estimated_tokens: estimated,
            counted_tokens: counted,
            debt_tokens: debt,
            bill,
            cost,
            suspicious: odd,
            latency_us_sum: us,
            latency: row.latency.iter().map(|w| w.load(Relaxed)).collect(),
            first_token: row.first_token.iter().map(|w| w.load(Relaxed)).collect(),
        })
    }

    /// All rows in use.
    pub fn all_usage(&self) -> Vec<(UsageIndex, UsageTotals)> {
        (0..self.sizes().usage)
            .map(UsageIndex)
            .filter_map(|i| Some((i, self.usage(i)?)))
            .collect()
    }
}

#[cfg(test)]
#[cfg(not(loom))]
mod tests {
    use super::*;

    #[test]
    fn buckets_are_in_order_and_bounds_belong_to_them() {
        let mut last = 0;
        for us in (0..200_000_000u64).step_by(997) {
            let b = bucket_of(us);
            assert!(b >= last && us <= bucket_upper_us(b), "{us} {b}");
            assert!(b == 0 || us > bucket_upper_us(b - 1) - 1, "{us} {b}");
            last = b;
        }
    }

    #[test]
    fn totals_add_up_over_threads() {
        let dir = tempfile::tempdir().unwrap();
        let sizes = crate::Sizes {
            counters: 64,
            inflight: 64,
            ring: 64,
            usage: 64,
        };
        let r = Region::open_or_create(dir.path(), sizes).unwrap();
        std::thread::scope(|s| {
            for _ in 0..4 {
                s.spawn(|| {
                    for _ in 0..1_000 {
                        let i = r.usage_index("渠道".as_bytes(), b"gpt-4o").unwrap();
                        let d = UsageDelta {
                            input_tokens: 3,
                            latency_us: Some(500),
                            ..UsageDelta::of(Class::Ok)
                        };
                        r.add_usage(i, &d);
                    }
                });
            }
        });
        let all = r.all_usage();
        assert_eq!(all.len(), 1);
        let t = &all[0].1;
        assert_eq!((t.channel.as_str(), t.model.as_str()), ("渠道", "gpt-4o"));
        assert_eq!(
            (t.requests(), t.input_tokens, t.latency[bucket_of(500)]),
            (4_000, 12_000, 4_000)
        );
        let long = "m".repeat(300);
        let i = r.usage_index(b"c", long.as_bytes()).unwrap();
        assert_eq!(r.usage(i).unwrap().model.len(), 128);
    }
}
