//! One limit, used up by a crowd while nothing is broken: which kinds, how many clients, how many instances.

use super::{Cluster, Crowd, MAX, Order, Style, Verdict, documents};
use serde_json::{Value, json};
use std::fmt;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How the limit counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A window that slides.
    Sliding,
    /// A window that begins at multiples of its length.
    Fixed,
    /// A bucket that refills in an hour.
    Bucket,
}

/// A case. Its limit is a channel's of its own, so that cases share instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Case {
    /// How the limit counts.
    pub kind: Kind,
    /// Which answers clients want.
    pub style: Style,
    /// Instances.
    pub instances: usize,
    /// Clients at once.
    pub parallel: usize,
}

/// A bucket gains so little in a case that it does not let a request through.
const REFILL: Duration = Duration::from_secs(3_600);

impl Case {
    /// All of `make bench-accuracy` for so many instances.
    pub fn all(instances: usize) -> Vec<Self> {
        let mut all = Vec::new();
        for kind in [Kind::Sliding, Kind::Fixed, Kind::Bucket] {
            for style in [Style::Plain, Style::Streaming] {
                for parallel in [1, 50, 500] {
                    all.push(Self {
                        kind,
                        style,
                        instances,
                        parallel,
                    });
                }
            }
        }
        all
    }

    /// Instances for these cases.
    pub async fn cluster(instances: usize, cases: &[Self]) -> Cluster {
        let limited = cases.iter().fold(documents(), |documents, case| {
            documents.limited(&case.to_string(), case.limit())
        });
        Cluster::start(instances, &limited).await
    }

    fn limit(self) -> Value {
        let (algorithm, window) = match self.kind {
            Kind::Sliding => ("sliding_window", "10m".to_owned()),
            Kind::Fixed => ("fixed_window", window_in_its_middle()),
            Kind::Bucket => ("token_bucket", "1h".to_owned()),
        };
        json!([{ "metric": "total_tokens", "max": MAX, "window": window, "algorithm": algorithm }])
    }

    /// Plays it on running instances.
    pub async fn play(&self, cluster: &Cluster) -> Verdict {
        let order = Order {
            channel: self.to_string(),
            parallel: self.parallel,
            style: self.style,
            pause: Duration::ZERO,
        };
        let before = cluster.used();
        let begun = Instant::now();
        Crowd::start(cluster, &order).saturate(cluster).await;
        let gained = match self.kind {
            Kind::Bucket => MAX as f64 * begun.elapsed().as_secs_f64() / REFILL.as_secs_f64(),
            Kind::Sliding | Kind::Fixed => 0.0,
        };
        Verdict {
            most: MAX + gained as u64,
            ..Verdict::new(&self.to_string(), cluster.used() - before)
        }
    }
}

impl fmt::Display for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            Kind::Sliding => "sliding",
            Kind::Fixed => "fixed",
            Kind::Bucket => "bucket",
        };
        let style = match self.style {
            Style::Plain => "plain",
            Style::Streaming => "stream",
            Style::Both => "both",
        };
        write!(f, "{kind}-{style}-{}x{}", self.instances, self.parallel)
    }
}

/// A window's length of which half is still to come now: none may end within a case. Windows begin at multiples of their length.
fn window_in_its_middle() -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs());
    let left = |minutes: &u64| minutes * 60 - now % (minutes * 60);
    let minutes = (20..60).max_by_key(left).unwrap_or(60);
    format!("{minutes}m")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fixed_window_has_time_left() {
        let window = window_in_its_middle();
        let minutes: u64 = window.trim_end_matches('m').parse().unwrap();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        assert!(minutes * 60 - now % (minutes * 60) > 600);
    }
}
