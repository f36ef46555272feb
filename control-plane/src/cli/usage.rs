//! `tollgate usage`, `tollgate channel usage`, `tollgate model usage`: what was used, from a running daemon.

use clap::{Args as ClapArgs, ValueEnum};
use serde_json::Value;
use tollgate_policy::documents::Span;

use super::client::{Daemon, with_query};
use super::config::utc;
use super::table::table;
use super::{Failure, print};
use crate::schedule::now_ms;

/// What usage is told apart by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub(super) enum By {
    /// Time
    #[default]
    Time,
    /// Channel
    Channel,
    /// Model
    Model,
    /// Model and version; this instance's alone, as what follows
    Version,
    /// Deployment
    Deployment,
    /// Group of an experiment
    Group,
}

impl By {
    /// Its name in the API, and the fields that name a row.
    fn names(self) -> (&'static str, &'static [&'static str]) {
        match self {
            By::Time => ("none", &[]),
            By::Channel => ("channel", &["channel"]),
            By::Model => ("model", &["model"]),
            By::Version => ("version", &["model", "version"]),
            By::Deployment => ("deployment", &["deployment"]),
            By::Group => ("group", &["experiment", "group"]),
        }
    }
}

#[derive(Debug, ClapArgs)]
pub(super) struct Range {
    /// How far back: `24h`, `7d`
    #[arg(long, value_name = "SPAN", default_value = "24h", value_parser = Span::parse)]
    since: Span,
    /// Length of a row when told apart by time: `1h`; multiples of `10m` reach back furthest
    #[arg(long, value_name = "SPAN", default_value = "1h", value_parser = Span::parse)]
    step: Span,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: Daemon,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Only this channel
    #[arg(long)]
    channel: Option<String>,
    /// Only this model
    #[arg(long)]
    model: Option<String>,
    /// What usage is told apart by
    #[arg(long, value_enum, default_value_t)]
    by: By,
    #[command(flatten)]
    range: Range,
}

#[derive(Debug, ClapArgs)]
pub(super) struct One {
    /// Its code or name
    id: String,
    #[command(flatten)]
    range: Range,
}

const COUNTERS: [(&str, &str); 6] = [
    ("REQUESTS", "requests"),
    ("OK", "ok"),
    ("REFUSED", "limit"),
    ("INPUT", "input_tokens"),
    ("OUTPUT", "output_tokens"),
    ("BILL", "bill_micro"),
];

/// A counter as people read it: millionths as units.
fn cell(name: &str, n: i64) -> String {
    if name == "bill_micro" {
        let sign = if n < 0 { "-" } else { "" };
        let n = n.unsigned_abs();
        format!("{sign}{}.{:06}", n / 1_000_000, n % 1_000_000)
    } else {
        n.to_string()
    }
}

fn cells(total: &Value) -> impl Iterator<Item = String> {
    let number = |name: &str| total.get(name).and_then(Value::as_i64).unwrap_or(0);
    COUNTERS.map(|(_, name)| cell(name, number(name))).into_iter()
}

/// A row per bucket of the first series.
fn by_time(answer: &Value) -> Vec<Vec<String>> {
    let times = answer.get("times").and_then(Value::as_array);
    let values = answer.pointer("/series/0/values");
    let at = |name: &str, n: usize| values?.get(name)?.get(n)?.as_i64();
    let row = |(n, time): (usize, &Value)| {
        let begin = utc(time.as_u64().unwrap_or(0) * 1_000);
        let counters = COUNTERS.map(|(_, name)| cell(name, at(name, n).unwrap_or(0)));
        std::iter::once(begin).chain(counters).collect()
    };
    times.into_iter().flatten().enumerate().map(row).collect()
}

/// A row per series, and one for all others.
fn by_name(answer: &Value, fields: &[&str]) -> Vec<Vec<String>> {
    let series = answer
        .get("series")
        .and_then(Value::as_array)
        .into_iter()
        .flatten();
    let row = |line: &Value, names: &mut dyn Iterator<Item = String>| -> Vec<String> {
        names
            .chain(cells(line.get("total").unwrap_or(&Value::Null)))
            .collect()
    };
    let named = |line: &Value, field: &str| line.get(field).and_then(Value::as_str).unwrap_or("-").to_owned();
    let mut rows: Vec<Vec<String>> = series
        .map(|line| row(line, &mut fields.iter().map(|field| named(line, field))))
        .collect();
    if let Some(others) = answer.get("others").filter(|others| !others.is_null()) {
        let mut names = (0..fields.len()).map(|n| if n == 0 { "(others)" } else { "" }.to_owned());
        rows.push(row(others, &mut names));
    }
    rows
}

fn show(range: &Range, by: By, channel: Option<&str>, model: Option<&str>) -> Result<(), Failure> {
    let now = now_ms() / 1_000;
    let step = match by {
        By::Time => range.step.as_millis() / 1_000,
        // One bucket for all of it, of whole ten minutes.
        _ => (range.since.as_millis() / 1_000).div_ceil(600) * 600,
    };
    let (group, fields) = by.names();
    let from = now.saturating_sub(range.since.as_millis() / 1_000);
    let path = with_query(
        "/usage/series",
        &[
            ("from", Some(from.to_string())),
            ("to", Some((now + 1).to_string())),
            ("step", Some(step.to_string())),
            ("group_by", Some(group.to_owned())),
            ("top", Some("100".to_owned())),
            ("channel", channel.map(str::to_owned)),
            ("model", model.map(str::to_owned)),
        ],
    );
    let answer = range.daemon.client()?.get(&path)?;
    if range.json {
        return print(&format!("{answer:#}\n"));
    }
    let rows = match by {
        By::Time => by_time(&answer),
        _ => by_name(&answer, fields),
    };
    let mut heads: Vec<String> = match by {
        By::Time => vec!["FROM".to_owned()],
        _ => fields.iter().map(|field| field.to_uppercase()).collect(),
    };
    heads.extend(COUNTERS.iter().map(|(head, _)| (*head).to_owned()));
    let heads: Vec<&str> = heads.iter().map(String::as_str).collect();
    print(&table(&heads, &rows))
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    show(
        &args.range,
        args.by,
        args.channel.as_deref(),
        args.model.as_deref(),
    )
}

pub(super) fn of_channel(args: &One) -> Result<(), Failure> {
    show(&args.range, By::Time, Some(&args.id), None)
}

pub(super) fn of_model(args: &One) -> Result<(), Failure> {
    show(&args.range, By::Time, None, Some(&args.id))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn usage_reads_by_time_and_by_name() {
        let answer = json!({"times": [0, 3600], "series": [{"channel": "a",
            "total": {"requests": 3, "bill_micro": 1_500_000},
            "values": {"requests": [1, 2], "bill_micro": [-250_000, 7]}}],
            "others": {"total": {"requests": 9}}});
        let rows = by_time(&answer);
        assert_eq!(rows[1][..2], ["1970-01-01 01:00:00Z", "2"]);
        assert_eq!(
            (rows[0][6].as_str(), rows[1][6].as_str()),
            ("-0.250000", "0.000007")
        );
        let rows = by_name(&answer, &["channel"]);
        assert_eq!((rows[0][0].as_str(), rows[0][6].as_str()), ("a", "1.500000"));
        assert_eq!(rows[1][..2], ["(others)", "9"]);
        let rows = by_name(&answer, &["channel", "version"]);
        assert_eq!(rows[0][..3], ["a", "-", "3"]);
        assert_eq!(rows[1][..3], ["(others)", "", "9"]);
    }
}
