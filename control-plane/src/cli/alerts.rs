//! `tollgate alerts`: what is wrong, who looks at it, and who is not to be told.

use std::collections::BTreeMap;

use clap::Subcommand;
use serde_json::{Value, json};

use super::client::{Daemon, part, with_query};
use super::status::number;
use super::table::table;
use super::{Failure, print};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List alerts of the whole cluster, those that fire first
    List {
        /// Only those in this state
        #[arg(long, value_parser = ["pending", "firing", "resolved"])]
        state: Option<String>,
        /// Only those of this severity
        #[arg(long, value_parser = ["info", "warning", "critical"])]
        severity: Option<String>,
        /// As JSON
        #[arg(long)]
        json: bool,
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Say that somebody looks at an alert: receivers are not told of it again until it is over
    Ack {
        /// Its id
        id: String,
        /// Take that back
        #[arg(long)]
        off: bool,
        /// For those who look later, and for the audit log
        #[arg(
            long,
            short = 'm',
            value_name = "TEXT",
            default_value = "",
            hide_default_value = true
        )]
        comment: String,
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Keep receivers from being told for a while
    Silence {
        /// Only of this rule
        #[arg(long)]
        rule: Option<String>,
        /// Only of alerts with this label; the value is a glob
        #[arg(long = "label", value_name = "NAME=GLOB")]
        labels: Vec<String>,
        /// For how long, such as 2h
        #[arg(long = "for", value_name = "SPAN", required_unless_present = "end")]
        lasting: Option<String>,
        /// End the silence of this id
        #[arg(long, value_name = "ID", conflicts_with_all = ["rule", "labels", "lasting"])]
        end: Option<String>,
        /// Why
        #[arg(
            long,
            short = 'm',
            value_name = "TEXT",
            default_value = "",
            hide_default_value = true
        )]
        comment: String,
        #[command(flatten)]
        daemon: Daemon,
    },
    /// Send a receiver a message that only shows that messages arrive
    Test {
        /// Its name
        receiver: String,
        #[command(flatten)]
        daemon: Daemon,
    },
}

pub(super) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::List {
            state,
            severity,
            json,
            daemon,
        } => {
            let wanted = [("state", state.clone()), ("severity", severity.clone())];
            let found = daemon.client()?.get(&with_query("/alerts", &wanted))?;
            if *json {
                return print(&format!("{}\n", serde_json::to_string_pretty(&found)?));
            }
            print(&listed(&found))
        }
        Command::Ack {
            id,
            off,
            comment,
            daemon,
        } => {
            let path = format!("/alerts/{}/ack", part(id));
            let client = daemon.client()?;
            if *off {
                client.delete(&path)?;
                return print("nobody looks at it\n");
            }
            let alert = client.post(&path, &json!({ "comment": comment }))?;
            print(&format!("{} looks at it\n", text(&alert, "/acknowledged/by")))
        }
        Command::Silence {
            end: Some(id),
            daemon,
            ..
        } => {
            daemon
                .client()?
                .delete(&format!("/alerts/silences/{}", part(id)))?;
            print("receivers are told again\n")
        }
        Command::Silence {
            rule,
            labels,
            lasting,
            comment,
            daemon,
            ..
        } => {
            let labels: BTreeMap<&str, &str> = labels
                .iter()
                .map(|label| {
                    let pair = label.split_once('=');
                    pair.ok_or_else(|| format!("`{label}` is no NAME=GLOB"))
                })
                .collect::<Result<_, _>>()?;
            let body = json!({ "rule": rule, "labels": labels, "for": lasting, "comment": comment });
            let silence = daemon.client()?.post("/alerts/silences", &body)?;
            let id = text(&silence, "/id");
            print(&format!("{id}: receivers are not told\n"))
        }
        Command::Test { receiver, daemon } => {
            let path = format!("/alerts/receivers/{}/test", part(receiver));
            let trial = daemon.client()?.post(&path, &json!({}))?;
            if trial.get("accepted") == Some(&Value::Bool(true)) {
                return print(&format!(
                    "{receiver} took it after {} ms\n",
                    number(&trial, "/took_ms")
                ));
            }
            let error = text(&trial, "/error");
            Err(format!("{receiver} did not take it: {error}").into())
        }
    }
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn since(found: &Value, alert: &Value) -> String {
    let from = number(alert, "/ended_ms").max(number(alert, "/started_ms"));
    let seconds = number(found, "/now_ms").saturating_sub(from) / 1_000;
    match seconds {
        0..=119 => format!("{seconds}s"),
        120..=7_199 => format!("{}m", seconds / 60),
        7_200..=172_799 => format!("{}h", seconds / 3_600),
        _ => format!("{}d", seconds / 86_400),
    }
}

fn listed(found: &Value) -> String {
    let alerts = || found["alerts"].as_array().into_iter().flatten();
    let rows: Vec<Vec<String>> = alerts()
        .map(|alert| {
            let word = |name: &str| alert[name].as_str().unwrap_or_default().to_owned();
            let note = match (text(alert, "/acknowledged/by"), text(alert, "/silence")) {
                ("", "") => String::new(),
                ("", _) => " (silenced)".to_owned(),
                (by, _) => format!(" ({by} looks at it)"),
            };
            vec![
                word("id"),
                word("state"),
                word("severity"),
                since(found, alert),
                word("rule"),
                format!("{}{note}", word("summary")),
            ]
        })
        .collect();
    let mut out = if rows.is_empty() {
        "no alerts\n".to_owned()
    } else {
        table(&["ID", "STATE", "SEVERITY", "SINCE", "RULE", "WHAT"], &rows)
    };
    for receiver in found["receivers"].as_array().into_iter().flatten() {
        if let Some(error) = receiver["error"].as_str().filter(|error| !error.is_empty()) {
            let name = receiver["name"].as_str().unwrap_or_default();
            out.push_str(&format!("receiver {name} cannot be told: {error}\n"));
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn alerts_are_listed_with_who_looks_and_who_cannot_be_told() {
        let found = json!({ "now_ms": 10_000_000, "alerts": [
            { "id": "a1", "state": "firing", "severity": "critical", "rule": "model_down", "started_ms": 9_400_000,
              "ended_ms": null, "summary": "model m is down", "acknowledged": { "by": "mia" }, "silence": null },
            { "id": "b2", "state": "resolved", "severity": "warning", "rule": "error_rate", "started_ms": 1_000,
              "ended_ms": 9_990_000, "summary": "it failed", "acknowledged": null, "silence": null }],
            "receivers": [{ "name": "ops", "error": "answered 500" }, { "name": "chat", "error": "" }] });
        let text = listed(&found);
        assert!(
            text.contains("a1  firing    critical  10m    model_down  model m is down (mia looks at it)"),
            "{text}"
        );
        assert!(text.contains("10s    error_rate  it failed\n"), "{text}");
        assert!(
            text.ends_with("receiver ops cannot be told: answered 500\n"),
            "{text}"
        );
        assert_eq!(listed(&json!({ "alerts": [] })), "no alerts\n");
    }
}
