//! `tollgate status`.

use std::fmt::Write;

use clap::Args as ClapArgs;
use serde_json::Value;

use super::client::Daemon;
use super::{Failure, print};

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    daemon: Daemon,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn number(value: &Value, path: &str) -> u64 {
    value.pointer(path).and_then(Value::as_u64).unwrap_or(0)
}

fn text<'a>(value: &'a Value, path: &str) -> &'a str {
    value.pointer(path).and_then(Value::as_str).unwrap_or_default()
}

pub(super) fn duration(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms}ms"),
        1_000..60_000 => format!("{:.1}s", ms as f64 / 1e3),
        60_000..3_600_000 => format!("{}m{:02}s", ms / 60_000, ms / 1_000 % 60),
        _ => format!("{}h{:02}m", ms / 3_600_000, ms / 60_000 % 60),
    }
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let client = args.daemon.client()?;
    let mut state = client.get("/instance")?;
    let deployments = client.get("/deployments?trouble=true")?;
    if args.json {
        if let (Some(state), Some(found)) = (state.as_object_mut(), deployments.get("deployments")) {
            state.insert("deployments_in_trouble".into(), found.clone());
        }
        return print(&format!("{}\n", serde_json::to_string_pretty(&state)?));
    }
    print(&(described(&state) + &troubled(&deployments)))
}

fn described(state: &Value) -> String {
    let mut out = String::new();
    let in_force = state.get("documents_in_force").and_then(Value::as_bool) == Some(true);
    let _ = writeln!(
        out,
        "tollgate {}, up {}, generation {} ({})",
        text(state, "/version"),
        duration(number(state, "/uptime_ms")),
        number(state, "/generation"),
        if in_force {
            "the documents are in force"
        } else {
            "the documents have errors and are not in force"
        }
    );
    for problem in state
        .get("problems")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let (document, path) = (text(problem, "/document"), text(problem, "/path"));
        let _ = writeln!(
            out,
            "  {} {document} {path}: {}",
            text(problem, "/severity"),
            text(problem, "/reason")
        );
    }
    let _ = writeln!(
        out,
        "region {}: counters {}/{}, usage {}/{}, {} MB",
        text(state, "/region/path"),
        number(state, "/region/gauges/counters_used"),
        number(state, "/region/sizes/counters"),
        number(state, "/region/gauges/usage_used"),
        number(state, "/region/sizes/usage"),
        number(state, "/region/bytes") >> 20
    );
    let _ = writeln!(
        out,
        "ledger: {} events booked, {} waiting, {} dropped by full rings, {} failures",
        number(state, "/ledger/events"),
        number(state, "/ring/depth"),
        number(state, "/ring/dropped"),
        number(state, "/ledger/failures")
    );
    let workers = state.get("workers").and_then(Value::as_array);
    if workers.is_none_or(Vec::is_empty) {
        out.push_str(
            "no worker is attached: nginx is not running, or has no `tollgate_region` of this folder\n",
        );
    }
    for worker in workers.into_iter().flatten() {
        let _ = writeln!(
            out,
            "worker {} (pid {}): {} requests, generation {}, up {}, {} MB{}",
            number(worker, "/slot"),
            number(worker, "/pid"),
            number(worker, "/requests"),
            number(worker, "/generation"),
            duration(number(worker, "/uptime_ms")),
            number(worker, "/resident_bytes") >> 20,
            if number(worker, "/panics") > 0 {
                ", has had panics"
            } else {
                ""
            }
        );
    }
    out
}

/// One line for each deployment that gets no requests now, and why.
fn troubled(state: &Value) -> String {
    let mut out = String::new();
    let found = state.get("deployments").and_then(Value::as_array);
    let _ = writeln!(
        out,
        "deployments: {} of {} in trouble",
        found.map_or(0, Vec::len),
        number(state, "/total")
    );
    for deployment in found.into_iter().flatten() {
        let _ = write!(
            out,
            "  {} {}",
            text(deployment, "/id"),
            text(deployment, "/state")
        );
        let wait = number(deployment, "/breaker/retry_in_ms").max(number(deployment, "/cooling_for_ms"));
        if wait > 0 {
            let _ = write!(out, " for {}", duration(wait));
        }
        let reason = text(deployment, "/reason");
        if !reason.is_empty() {
            let _ = write!(out, ": {reason}");
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_and_missing_fields_read_well() {
        assert_eq!(
            [5, 1_500, 61_000, 3_660_000].map(duration),
            ["5ms", "1.5s", "1m01s", "1h01m"]
        );
        assert!(described(&serde_json::json!({})).contains("no worker is attached"));
        assert_eq!(
            troubled(&serde_json::json!({})),
            "deployments: 0 of 0 in trouble\n"
        );
        let broken = serde_json::json!({"total": 3, "deployments": [{"id": "m/p", "state": "broken",
            "breaker": {"retry_in_ms": 1_500}, "reason": "5 failures in a row, the last: connect"}]});
        assert_eq!(
            troubled(&broken),
            "deployments: 1 of 3 in trouble\n  m/p broken for 1.5s: 5 failures in a row, the last: connect\n"
        );
    }
}
