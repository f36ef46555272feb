//! Adds up what all instances have written.

use std::collections::{BTreeMap, HashMap};

use super::keys::{self, Span, TAGS};
use crate::ledger::{Counters, Series, SeriesQuery, UsagePoint, UsageQuery};
use crate::shared::{Shared, SharedError};

/// Channels asked for at once.
const AT_ONCE: usize = 256;

/// Reads the whole cluster's usage.
#[derive(Clone)]
pub struct UsageReader {
    shared: Shared,
}

/// Which channels are wanted.
type Sees<'a> = &'a (dyn Fn(&str) -> bool + Sync);

impl UsageReader {
    /// A reader of what is written over this connection.
    pub fn new(shared: Shared) -> UsageReader {
        UsageReader { shared }
    }

    /// Whether there is a Redis to read from.
    pub fn is_configured(&self) -> bool {
        self.shared.is_configured()
    }

    /// Usage, ordered by bucket, channel and model, as [`crate::ledger::Store::usage`] gives it for one ledger.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn usage(&self, q: &UsageQuery, sees: Sees<'_>) -> Result<Vec<UsagePoint>, SharedError> {
        let mut points: BTreeMap<(u64, String, String), Counters> = BTreeMap::new();
        let span = Span::of(q.step).unwrap_or(Span::Minutes);
        let model = q.model.as_deref();
        self.read(span, (q.from, q.to), q.channel.as_deref(), sees, &mut |found| {
            if model.is_none_or(|m| m == found.model) {
                let key = (found.bucket, found.channel, found.model);
                let sum = points.entry(key).or_default();
                *sum = sum.plus(&found.counters);
            }
        })
        .await?;
        let point = |((bucket, channel, model), counters)| UsagePoint {
            bucket,
            channel,
            model,
            counters,
        };
        Ok(points.into_iter().map(point).take(q.limit).collect())
    }

    /// Usage over time, as [`crate::ledger::SqliteReader::series`] gives it for one ledger.
    ///
    /// # Errors
    /// If Redis does not answer.
    pub async fn series(&self, q: &SeriesQuery, sees: Sees<'_>) -> Result<Series, SharedError> {
        let mut series = Series::new();
        let span = Span::of(q.stored()).unwrap_or(Span::Minutes);
        let model = q.model.as_deref();
        self.read(span, (q.from, q.to), q.channel.as_deref(), sees, &mut |found| {
            if model.is_some_and(|m| m != found.model) {
                return;
            }
            let name = |wanted: bool, name: String| if wanted { name } else { String::new() };
            let key = (name(q.by_channel, found.channel), name(q.by_model, found.model));
            let bucket = found.bucket.checked_div(q.step).map_or(0, |n| n * q.step);
            let sum = series.entry(key).or_default().entry(bucket).or_default();
            *sum = sum.plus(&found.counters);
        })
        .await?;
        Ok(series)
    }

    async fn channels(
        &self,
        tag: usize,
        wanted: Option<&str>,
        sees: Sees<'_>,
    ) -> Result<Vec<String>, SharedError> {
        if let Some(wanted) = wanted {
            let there = keys::tag_of(wanted) == tag && sees(wanted);
            return Ok(there.then(|| wanted.to_owned()).into_iter().collect());
        }
        let key = self.shared.key(&keys::channels(tag));
        let mut all: Vec<String> = self.shared.query(redis::cmd("SMEMBERS").arg(key)).await?;
        all.retain(|channel| sees(channel));
        Ok(all)
    }

    async fn read(
        &self,
        span: Span,
        (from, to): (u64, u64),
        channel: Option<&str>,
        sees: Sees<'_>,
        each: &mut (dyn FnMut(UsagePoint) + Send),
    ) -> Result<(), SharedError> {
        for tag in 0..TAGS {
            let channels = self.channels(tag, channel, sees).await?;
            for some in channels.chunks(AT_ONCE) {
                let hashes = self.hashes(span, (from, to), some).await?;
                for hashes in hashes.chunks(AT_ONCE) {
                    self.take(span, (from, to), hashes, each).await?;
                }
            }
        }
        Ok(())
    }

    /// The hashes that hold something of these channels and times, each with its channel.
    async fn hashes<'a>(
        &self,
        span: Span,
        (from, to): (u64, u64),
        channels: &'a [String],
    ) -> Result<Vec<(&'a str, String)>, SharedError> {
        if span == Span::Total {
            return Ok(channels.iter().map(|c| (c.as_str(), span.hash(c, 0))).collect());
        }
        let mut pipe = redis::pipe();
        for channel in channels {
            pipe.cmd("ZRANGEBYSCORE")
                .arg(self.shared.key(&span.index(channel)))
                .arg(from.saturating_sub(span.length() - 1))
                .arg(format!("({}", to.min(1 << 52)));
        }
        let found: Vec<Vec<u64>> = self.shared.pipe(&pipe).await?;
        let of = |(channel, begins): (&'a String, Vec<u64>)| {
            let hash = move |begin| (channel.as_str(), span.hash(channel, begin));
            begins.into_iter().map(hash)
        };
        Ok(channels.iter().zip(found).flat_map(of).collect())
    }

    async fn take(
        &self,
        span: Span,
        (from, to): (u64, u64),
        hashes: &[(&str, String)],
        each: &mut (dyn FnMut(UsagePoint) + Send),
    ) -> Result<(), SharedError> {
        let mut pipe = redis::pipe();
        for (_, hash) in hashes {
            pipe.cmd("HGETALL").arg(self.shared.key(hash));
        }
        let found: Vec<HashMap<String, Vec<u8>>> = self.shared.pipe(&pipe).await?;
        for ((channel, _), fields) in hashes.iter().zip(found) {
            for (field, value) in fields {
                let Some((bucket, model)) = keys::read_field(span, &field) else {
                    continue;
                };
                if span != Span::Total && !(from..to).contains(&bucket) {
                    continue;
                }
                if let Some(counters) = keys::read_value(&value) {
                    each(UsagePoint {
                        bucket,
                        channel: (*channel).to_owned(),
                        model: model.to_owned(),
                        counters,
                    });
                }
            }
        }
        Ok(())
    }
}
