//! `tollgate account`: accounts, by means of the daemon's own token, for whoever has lost a password.

use clap::{Args as ClapArgs, Subcommand};
use serde_json::{Value, json};

use super::client::Daemon;
use super::{Failure, print};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List accounts
    List(List),
    /// Add an account; prints the password that is made up for it
    Add(Add),
    /// Give an account another password, which is made up and printed; ends its sessions
    Password(Name),
    /// Remove an account and its tokens
    Remove(Name),
}

#[derive(Debug, ClapArgs)]
pub(super) struct List {
    #[command(flatten)]
    daemon: Daemon,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Add {
    /// Its name
    name: String,
    /// Its roles: admin, operator, auditor, viewer, or custom ones
    #[arg(long, required = true)]
    role: Vec<String>,
    /// Globs of the channels that it may see and change; all by default
    #[arg(long)]
    channels: Vec<String>,
    #[command(flatten)]
    daemon: Daemon,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Name {
    /// Its name
    name: String,
    #[command(flatten)]
    daemon: Daemon,
}

/// A name that is one part of a path.
fn checked(name: &str) -> Result<&str, Failure> {
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-' | b'@');
    if !name.is_empty() && name.bytes().all(plain) {
        Ok(name)
    } else {
        Err(format!("`{name}` is no name of an account").into())
    }
}

fn text<'v>(value: &'v Value, field: &str) -> &'v str {
    value.get(field).and_then(Value::as_str).unwrap_or_default()
}

fn texts(value: &Value, field: &str) -> String {
    let list = value.get(field).and_then(Value::as_array).into_iter().flatten();
    list.filter_map(Value::as_str).collect::<Vec<_>>().join(",")
}

pub(super) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::List(args) => {
            let answer = args.daemon.client()?.get("/accounts")?;
            let mut out = format!("{:<24} {:<8} {:<24} CHANNELS\n", "NAME", "ENABLED", "ROLES");
            for account in answer
                .get("items")
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
            {
                let enabled = account.get("enabled").and_then(Value::as_bool).unwrap_or(false);
                out.push_str(&format!(
                    "{:<24} {enabled:<8} {:<24} {}\n",
                    text(account, "name"),
                    texts(account, "roles"),
                    texts(account, "channels")
                ));
            }
            print(&out)
        }
        Command::Add(args) => {
            let mut wanted = json!({ "name": args.name, "roles": args.role });
            if !args.channels.is_empty()
                && let Some(fields) = wanted.as_object_mut()
            {
                fields.insert("channels".into(), json!(args.channels));
            }
            let made = args.daemon.client()?.post("/accounts", &wanted)?;
            print(&format!("{}\n", text(&made, "password")))
        }
        Command::Password(args) => {
            let path = format!("/accounts/{}/password", checked(&args.name)?);
            let made = args.daemon.client()?.post(&path, &json!({}))?;
            print(&format!("{}\n", text(&made, "password")))
        }
        Command::Remove(args) => {
            let path = format!("/accounts/{}", checked(&args.name)?);
            args.daemon.client()?.delete(&path).map(drop)
        }
    }
}
