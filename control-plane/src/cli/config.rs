//! `tollgate config`: versions of the configuration, through a running daemon.

use std::fmt::Write;
use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use serde_json::{Map, Value, json};
use tollgate_policy::Kind;
use tollgate_policy::documents::Instant;

use super::client::{Client, Daemon, part};
use super::table::table;
use super::{Failure, check, print};
use crate::config::instance_of;

#[derive(Debug, ClapArgs)]
pub(super) struct ConfigArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// List versions, newest first
    History(History),
    /// Show what a version changed, or what differs between two
    Diff(Diff),
    /// Publish the documents of a version again, byte for byte, as a new version
    Rollback(Rollback),
    /// Seal the documents' credentials by the master key that the instance has now
    Reseal(Reseal),
    /// Write all documents into a folder, credentials taken out; publishing them puts the stored ones back
    Export(Export),
    /// Publish the documents of a folder later
    Schedule(Schedule),
    /// List what is published later, and what was lately
    Scheduled(Scheduled),
    /// Do not publish something later
    Cancel(Cancel),
    /// Publish the documents of a folder as one version; large lists are spread over shards where that is needed
    Publish(Publish),
}

#[derive(Debug, ClapArgs)]
struct History {
    #[command(flatten)]
    daemon: Daemon,
    /// How many
    #[arg(short = 'n', long, default_value_t = 20)]
    limit: usize,
    /// Only versions before this one
    #[arg(long, value_name = "VERSION")]
    before: Option<u64>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, ClapArgs)]
struct Diff {
    #[command(flatten)]
    daemon: Daemon,
    /// The version; with a second one, the older of the two
    #[arg(value_name = "VERSION")]
    number: u64,
    /// The newer version
    #[arg(value_name = "NEWER")]
    other: Option<u64>,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, ClapArgs)]
struct Reseal {
    #[command(flatten)]
    daemon: Daemon,
    /// Also if an instance cannot open them then; it goes on with the documents that it has
    #[arg(long)]
    force: bool,
    /// Why
    #[arg(short, long, default_value = "")]
    message: String,
}

#[derive(Debug, ClapArgs)]
struct Rollback {
    #[command(flatten)]
    daemon: Daemon,
    /// The version
    #[arg(value_name = "VERSION")]
    number: u64,
    /// Why
    #[arg(short, long, default_value = "")]
    message: String,
}

#[derive(Debug, ClapArgs)]
struct Publish {
    #[command(flatten)]
    daemon: Daemon,
    /// Folder of documents
    dir: PathBuf,
    /// Why
    #[arg(short, long, default_value = "")]
    message: String,
    /// Publish only if this is the present version
    #[arg(long, value_name = "VERSION")]
    base: Option<u64>,
    /// Only say what would change
    #[arg(long)]
    dry_run: bool,
}

#[derive(Debug, ClapArgs)]
struct Export {
    #[command(flatten)]
    daemon: Daemon,
    /// The folder; made if it is not there
    dir: PathBuf,
}

#[derive(Debug, ClapArgs)]
struct Schedule {
    #[command(flatten)]
    daemon: Daemon,
    /// Folder of documents
    dir: PathBuf,
    /// When: `2027-01-01T02:00:00+08:00`
    #[arg(long, value_name = "TIME", value_parser = instant)]
    at: Instant,
    /// Why
    #[arg(short, long, default_value = "")]
    message: String,
}

#[derive(Debug, ClapArgs)]
struct Scheduled {
    #[command(flatten)]
    daemon: Daemon,
    /// As JSON
    #[arg(long)]
    json: bool,
}

#[derive(Debug, ClapArgs)]
struct Cancel {
    #[command(flatten)]
    daemon: Daemon,
    /// Its id
    id: String,
}

fn instant(text: &str) -> Result<Instant, String> {
    serde_json::from_value(text.into()).map_err(|e: serde_json::Error| e.to_string())
}

fn text<'a>(value: &'a Value, name: &str) -> &'a str {
    value.get(name).and_then(Value::as_str).unwrap_or_default()
}

fn list<'a>(value: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    value.get(name).and_then(Value::as_array).into_iter().flatten()
}

/// `2026-05-01 12:34:56Z`, from days since 1970 (Howard Hinnant's `civil_from_days`).
pub(super) fn utc(unix_ms: u64) -> String {
    let seconds = unix_ms / 1_000;
    let days = seconds / 86_400 + 719_468;
    let era = days / 146_097;
    let day_of_era = days % 146_097;
    let year_of_era = (day_of_era - day_of_era / 1_460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3_600 % 24, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}Z")
}

fn listed(answer: &Value) -> String {
    let in_force = answer.get("in_force").and_then(Value::as_u64);
    let mut out = String::new();
    for version in list(answer, "versions") {
        let number = version.get("number").and_then(Value::as_u64);
        let at = version.get("unix_ms").and_then(Value::as_u64).unwrap_or(0);
        let changed: Vec<&str> = list(version, "changed").filter_map(Value::as_str).collect();
        let _ = writeln!(
            out,
            "{}{:>6}  {}  {}  {}",
            if number == in_force { '*' } else { ' ' },
            number.unwrap_or(0),
            utc(at),
            text(version, "author"),
            text(version, "message"),
        );
        let _ = writeln!(out, "         {}", changed.join(", "));
    }
    if out.is_empty() {
        out.push_str("nothing has been published yet\n");
    }
    out
}

/// Differences of documents, one value a line.
fn differences<'a>(documents: impl Iterator<Item = &'a Value>) -> String {
    let mut out = String::new();
    for document in documents {
        let _ = writeln!(out, "{} {}", text(document, "change"), text(document, "document"));
        for difference in list(document, "differences") {
            let path = text(difference, "path");
            let _ = match (difference.get("old"), difference.get("new")) {
                (None, Some(new)) => writeln!(out, "  + {path}: {new}"),
                (Some(old), None) => writeln!(out, "  - {path}: {old}"),
                (Some(old), Some(new)) => writeln!(out, "  ~ {path}: {old} -> {new}"),
                (None, None) => Ok(()),
            };
        }
        let more = document.get("more").and_then(Value::as_u64).unwrap_or(0);
        if more > 0 {
            let _ = writeln!(out, "  and {more} more");
        }
    }
    if out.is_empty() {
        out.push_str("no difference\n");
    }
    out
}

fn published(answer: &Value) -> String {
    let mut out = differences(list(answer, "diff"));
    if answer.get("published").and_then(Value::as_bool) != Some(true) {
        out.push_str("nothing was published\n");
        return out;
    }
    let in_force = answer.get("in_force").and_then(Value::as_bool) == Some(true);
    let _ = writeln!(
        out,
        "version {} is published{}",
        answer.get("version").and_then(Value::as_u64).unwrap_or(0),
        if in_force {
            " and in force"
        } else {
            ", but not in force here yet"
        }
    );
    out
}

/// Writes all documents into a folder.
fn export(client: &Client, dir: &std::path::Path) -> Result<(), Failure> {
    let fail = |e: std::io::Error| format!("{}: {e}", dir.display());
    std::fs::create_dir_all(dir).map_err(fail)?;
    let answer = client.get("/documents")?;
    let mut out = String::new();
    for document in list(&answer, "documents") {
        let name = text(document, "name");
        if name.contains('/') || name.starts_with('.') {
            return Err(format!("`{name}` is no name of a document").into());
        }
        let content = client.get(&format!("/documents/{}", part(name)))?;
        std::fs::write(dir.join(name), format!("{content:#}\n")).map_err(fail)?;
        let _ = writeln!(out, "{name}");
    }
    print(&out)
}

fn scheduled(answer: &Value) -> String {
    let row = |draft: &Value| {
        let documents: Vec<&str> = list(draft, "documents").filter_map(Value::as_str).collect();
        let version = draft.get("version").and_then(Value::as_u64);
        vec![
            text(draft, "id").to_owned(),
            utc(draft.get("at_ms").and_then(Value::as_u64).unwrap_or(0)),
            text(draft, "state").to_owned(),
            text(draft, "author").to_owned(),
            version.map_or_else(|| text(draft, "reason").to_owned(), |n| format!("version {n}")),
            documents.join(","),
        ]
    };
    let heads = ["ID", "AT", "STATE", "AUTHOR", "OUTCOME", "DOCUMENTS"];
    table(&heads, &list(answer, "items").map(row).collect::<Vec<_>>())
}

/// The documents of a folder: by kind where all of a kind is one document, so that a source with small documents can
/// spread it.
fn documents(dir: &std::path::Path) -> Result<Map<String, Value>, Failure> {
    let set = check::read(dir)?;
    if let Some(problem) = set.problems.first() {
        return Err(problem.to_string().into());
    }
    let mut documents = Map::new();
    for document in &set.documents {
        let kind = Kind::from_file_name(&document.name);
        if kind.is_none() && instance_of(&document.name).is_none() {
            return Err(format!("{}: not a document of a known kind", document.name).into());
        }
        let alone = set.documents.iter().filter(|d| d.kind() == kind).count() == 1;
        let key = match kind.filter(|_| alone) {
            Some(kind) => kind.name().to_owned(),
            None => document.name.clone(),
        };
        let text = String::from_utf8(document.bytes.to_vec())
            .map_err(|_| format!("{}: not a text", document.name))?;
        documents.insert(key, Value::String(text));
    }
    Ok(documents)
}

pub(super) fn run(args: &ConfigArgs) -> Result<(), Failure> {
    match &args.command {
        Command::History(args) => {
            let before = args.before.map(|n| format!("&before={n}")).unwrap_or_default();
            let path = format!("/versions?limit={}{before}", args.limit);
            let answer = args.daemon.client()?.get(&path)?;
            if args.json {
                return print(&format!("{answer:#}\n"));
            }
            print(&listed(&answer))
        }
        Command::Diff(args) => {
            let path = match args.other {
                Some(newer) => format!("/versions/{newer}/diff?from={}", args.number),
                None => format!("/versions/{}/diff", args.number),
            };
            let answer = args.daemon.client()?.get(&path)?;
            if args.json {
                return print(&format!("{answer:#}\n"));
            }
            print(&differences(list(&answer, "documents")))
        }
        Command::Rollback(args) => {
            let path = format!("/versions/{}/rollback", args.number);
            let answer = args
                .daemon
                .client()?
                .post(&path, &json!({ "message": args.message }))?;
            print(&published(&answer))
        }
        Command::Reseal(args) => {
            let body = json!({ "message": args.message, "force": args.force });
            let answer = args.daemon.client()?.post("/documents/reseal", &body)?;
            if answer.get("published").and_then(Value::as_bool) == Some(false) {
                return print("nothing to do: all credentials are sealed by this key\n");
            }
            print(&published(&answer))
        }
        Command::Export(args) => export(&args.daemon.client()?, &args.dir),
        Command::Schedule(args) => {
            let at_ms = args.at.0.saturating_mul(1_000);
            let body = json!({ "documents": documents(&args.dir)?, "message": args.message, "at_ms": at_ms });
            let made = args.daemon.client()?.post("/schedules", &body)?;
            print(&format!("{}\n", text(&made, "id")))
        }
        Command::Scheduled(args) => {
            let answer = args.daemon.client()?.get("/schedules")?;
            if args.json {
                return print(&format!("{answer:#}\n"));
            }
            print(&scheduled(&answer))
        }
        Command::Cancel(args) => {
            let path = format!("/schedules/{}", part(&args.id));
            args.daemon.client()?.delete(&path).map(drop)
        }
        Command::Publish(args) => {
            let mut body = json!({
                "documents": documents(&args.dir)?, "message": args.message, "dry_run": args.dry_run,
            });
            if let (Some(base), Some(object)) = (args.base, body.as_object_mut()) {
                object.insert("base".into(), base.into());
            }
            print(&published(&args.daemon.client()?.post("/versions", &body)?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        assert_eq!(utc(0), "1970-01-01 00:00:00Z");
        assert_eq!(utc(951_782_400_000), "2000-02-29 00:00:00Z");
        assert_eq!(utc(1_798_761_599_999), "2026-12-31 23:59:59Z");
    }

    #[test]
    fn versions_and_differences_read_well() {
        let answer = json!({"in_force": 2, "versions": [
            {"number": 2, "unix_ms": 0, "author": "mia", "message": "more", "changed": ["a", "b"]}]});
        assert_eq!(
            listed(&answer),
            "*     2  1970-01-01 00:00:00Z  mia  more\n         a, b\n"
        );
        let found = json!([{"document": "a", "change": "changed", "more": 3, "differences": [
            {"path": "x", "old": 1, "new": 2}, {"path": "y", "new": "n"}, {"path": "z", "old": null}]}]);
        assert_eq!(
            differences(found.as_array().into_iter().flatten()),
            "changed a\n  ~ x: 1 -> 2\n  + y: \"n\"\n  - z: null\n  and 3 more\n"
        );
    }
}
