//! Values put together for the script: one part for each hash that they go into.

use std::collections::BTreeMap;

use super::keys::{self, Span, TOTALS_MS};
use crate::ledger::UsagePoint;

/// Fields in one run of the script: it must not keep Redis from others for long.
const MOST: usize = 500;

/// How long the cluster's series are kept, seconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// Minutes.
    pub minutes: u64,
    /// Ten minutes.
    pub tens: u64,
}

impl Kept {
    /// How long buckets of this span are kept; `None` for as long as the channel is used.
    pub fn of(self, span: Span) -> Option<u64> {
        match span {
            Span::Total => None,
            Span::Minutes => Some(self.minutes),
            Span::Tens => Some(self.tens),
        }
    }

    /// Where the buckets of this span begin that are kept still.
    pub fn from(self, span: Span, now: u64) -> u64 {
        self.of(span).map_or(0, |kept| now.saturating_sub(kept))
    }
}

/// What one run of the script writes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Run {
    /// Without the prefix.
    pub keys: Vec<String>,
    /// See the script.
    pub arguments: Vec<Vec<u8>>,
}

/// Fields of a hash and their values.
type Fields = Vec<(String, String)>;

/// Puts values of one tag together. What is too old to be kept is left out.
pub fn runs(ledger: u64, values: &[(Span, &UsagePoint)], kept: Kept, now: u64) -> Vec<Run> {
    let mut parts: BTreeMap<(&str, Span, u64), Fields> = BTreeMap::new();
    for (span, point) in values {
        if point.bucket < kept.from(*span, now) {
            continue;
        }
        let begin = point
            .bucket
            .checked_div(span.length())
            .map_or(0, |n| n * span.length());
        let field = keys::field(*span, point.bucket, ledger, &point.model);
        parts
            .entry((&point.channel, *span, begin))
            .or_default()
            .push((field, keys::value(&point.counters)));
    }
    let mut runs = Vec::new();
    let (mut run, mut fields) = (Run::default(), 0);
    for ((channel, span, begin), values) in parts {
        for some in values.chunks(MOST) {
            if fields + some.len() > MOST && fields > 0 {
                runs.push(std::mem::take(&mut run));
                fields = 0;
            }
            fields += some.len();
            run.add(channel, span, begin, some, kept, now);
        }
    }
    if fields > 0 {
        runs.push(run);
    }
    runs
}

impl Run {
    fn add(
        &mut self,
        channel: &str,
        span: Span,
        begin: u64,
        values: &[(String, String)],
        kept: Kept,
        now: u64,
    ) {
        let ms = |seconds: u64| seconds.saturating_mul(1_000);
        let (member, ttl, index_ttl) = match kept.of(span) {
            None => (String::new(), TOTALS_MS, TOTALS_MS),
            // Its last bucket may be written to at the end of the hash's time.
            Some(kept) => (
                begin.to_string(),
                ms(kept + span.length()),
                ms(kept + span.length()),
            ),
        };
        let from = kept.from(span, now).saturating_sub(span.length());
        self.keys.push(span.hash(channel, begin));
        self.keys.push(span.index(channel));
        let numbers = [begin, ttl, index_ttl, from, values.len() as u64].map(|n| n.to_string().into_bytes());
        self.arguments.push(channel.as_bytes().to_vec());
        self.arguments.push(member.into_bytes());
        self.arguments.extend(numbers);
        for (field, value) in values {
            self.arguments.push(field.as_bytes().to_vec());
            self.arguments.push(value.as_bytes().to_vec());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Counters;

    fn point(bucket: u64, channel: &str, model: &str) -> UsagePoint {
        UsagePoint {
            bucket,
            channel: channel.into(),
            model: model.into(),
            counters: Counters::default(),
        }
    }

    #[test]
    fn runs_are_bounded_and_leave_out_what_is_too_old() {
        let kept = Kept {
            minutes: 3_600,
            tens: 86_400,
        };
        let now = 1_000_000;
        let points: Vec<UsagePoint> = (0..1_200)
            .map(|n| point(now - n % 60 * 60, "c", &format!("m{n}")))
            .collect();
        let mut values: Vec<_> = points.iter().map(|p| (Span::Minutes, p)).collect();
        let (old, total) = (point(now - 3_601, "c", "old"), point(0, "c", "m"));
        values.push((Span::Minutes, &old));
        values.push((Span::Total, &total));
        let runs = runs(7, &values, kept, now);
        let texts = |run: &Run| {
            run.arguments
                .iter()
                .map(|a| String::from_utf8(a.clone()).unwrap())
                .collect::<Vec<_>>()
        };
        let fields = |run: &Run| texts(run).iter().filter(|t| *t == "{}").count();
        assert_eq!(runs.iter().map(fields).sum::<usize>(), 1_201);
        assert!(runs.len() >= 3 && runs.iter().all(|run| fields(run) <= MOST));
        assert!(
            !runs
                .iter()
                .any(|run| texts(run).iter().any(|t| t.ends_with(" old")))
        );
    }
}
