//! `tollgate top`: channels and what is left of their limits.

use std::fmt::Write;
use std::time::Duration;

use clap::Args as ClapArgs;
use serde_json::Value;

use super::client::{Client, Daemon};
use super::status::{duration, number};
use super::{Failure, print};

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    #[command(flatten)]
    daemon: Daemon,
    /// Print one table and end
    #[arg(long)]
    once: bool,
    /// Seconds between two tables
    #[arg(long, default_value_t = 1.0, value_parser = interval)]
    interval: f64,
    /// Channels to show
    #[arg(long, default_value_t = 20)]
    channels: usize,
}

fn interval(text: &str) -> Result<f64, String> {
    let seconds: f64 = text.parse().map_err(|_| "a number of seconds")?;
    if (0.1..=3_600.0).contains(&seconds) {
        Ok(seconds)
    } else {
        Err("between 0.1 and 3600 seconds".into())
    }
}

const BAR: u64 = 20;

fn bar(used: u64, max: u64) -> String {
    let full = if max == 0 {
        BAR
    } else {
        (u128::from(used) * u128::from(BAR) / u128::from(max)).min(BAR.into()) as u64
    };
    (0..BAR).map(|i| if i < full { '#' } else { '.' }).collect()
}

fn rows(out: &mut String, name: &str, limits: Option<&Vec<Value>>) {
    let text = |limit: &Value, field: &str| {
        limit
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let mut name = name;
    for limit in limits.into_iter().flatten() {
        let (used, max) = (number(limit, "/used"), number(limit, "/max"));
        let reset = number(limit, "/reset_ms");
        let model = text(limit, "model");
        let label = match model.as_str() {
            "" => text(limit, "name"),
            model if text(limit, "name").ends_with(model) => text(limit, "name"),
            model => format!("{} {model}", text(limit, "name")),
        };
        let _ = writeln!(
            out,
            "{name:<20} {label:<32} {} {used:>12} {:>12} {max:>12} {:>8}",
            bar(used, max),
            number(limit, "/left"),
            if reset == 0 {
                "-".to_owned()
            } else {
                duration(reset)
            }
        );
        name = "";
    }
}

fn table(client: &Client, channels: usize) -> Result<String, Failure> {
    let limits = client.get(&format!("/limits?limit={channels}"))?;
    let instance = client.get("/instance")?;
    let workers = instance
        .get("workers")
        .and_then(Value::as_array)
        .map_or(0, Vec::len);
    let requests: u64 = instance
        .get("workers")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .map(|w| number(w, "/requests"))
        .sum();
    let total = number(&limits, "/total");
    let mut out = String::new();
    let _ = writeln!(
        out,
        "generation {}, {workers} workers, {requests} requests, {} events waiting, {total} channels\n",
        number(&limits, "/generation"),
        number(&instance, "/ring/depth")
    );
    let _ = writeln!(
        out,
        "{:<20} {:<32} {:<20} {:>12} {:>12} {:>12} {:>8}",
        "channel", "limit", "", "used", "left", "max", "reset"
    );
    let shown = limits.get("channels").and_then(Value::as_array);
    for channel in shown.into_iter().flatten() {
        let code = channel.get("channel").and_then(Value::as_str).unwrap_or_default();
        rows(&mut out, code, channel.get("limits").and_then(Value::as_array));
    }
    rows(
        &mut out,
        "(all channels)",
        limits.get("global").and_then(Value::as_array),
    );
    if total > channels as u64 {
        let _ = writeln!(out, "… and {} more channels", total - channels as u64);
    }
    Ok(out)
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let client = args.daemon.client()?;
    if args.once {
        return print(&table(&client, args.channels)?);
    }
    loop {
        // A daemon that is being restarted comes back.
        let text = table(&client, args.channels).unwrap_or_else(|e| format!("{e}\n"));
        print(&format!("\x1b[H\x1b[2J{text}"))?;
        std::thread::sleep(Duration::from_secs_f64(args.interval));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_table_row_says_what_is_used_and_left() {
        let mut out = String::new();
        let limits = vec![
            json!({"name": "input_tokens/10m", "model": "", "used": 50, "left": 50, "max": 100, "reset_ms": 61_000}),
            json!({"name": "requests/1s:m", "model": "m", "used": 0, "left": 0, "max": 0, "reset_ms": 0}),
        ];
        rows(&mut out, "wechat001", Some(&limits));
        let lines: Vec<&str> = out.lines().collect();
        assert!(
            lines[0].starts_with("wechat001")
                && lines[0].contains("##########..........")
                && lines[0].contains("1m01s")
        );
        assert!(
            lines[1].starts_with(' ')
                && lines[1].contains("requests/1s:m ")
                && lines[1].contains("####################")
        );
        assert!(interval("0").is_err() && interval("x").is_err() && interval("0.5").is_ok());
    }
}
