//! `tollgate backup`: archives of everything that makes a gateway what it is.

use std::path::{Path, PathBuf};

use clap::{Args as ClapArgs, Subcommand};
use serde_json::Value;

use super::client::{Daemon, part, with_query};
use super::config::utc;
use super::entries::json_of;
use super::serve::master_key;
use super::table::table;
use super::{Failure, print};
use crate::backup::Archive;
use crate::secrets::{MasterKey, create_private};

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Write all documents, accounts, roles and tokens into a file
    Make(Make),
    /// List the backups that the daemon makes by itself (`backup` of the settings)
    List(List),
    /// Write one of those into a file
    Fetch(Fetch),
    /// Say whether an archive is whole, and what it holds; needs no daemon, but its master key
    Verify(Verify),
    /// Bring the documents of an archive back as one version
    Restore(Restore),
}

#[derive(Debug, ClapArgs)]
pub(super) struct Make {
    /// The file; `-` for standard output
    file: PathBuf,
    #[command(flatten)]
    daemon: Daemon,
}

#[derive(Debug, ClapArgs)]
pub(super) struct List {
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: Daemon,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Fetch {
    /// Its name
    name: String,
    /// The file; `-` for standard output
    file: PathBuf,
    #[command(flatten)]
    daemon: Daemon,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Verify {
    /// The archive
    file: PathBuf,
    /// File with the master key
    #[arg(
        long,
        value_name = "FILE",
        env = "TOLLGATE_MASTER_KEY_FILE",
        default_value = "/var/lib/tollgate/master.key"
    )]
    master_key_file: PathBuf,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Restore {
    /// The archive
    file: PathBuf,
    /// Accounts, roles and tokens too
    #[arg(long)]
    accounts: bool,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    daemon: Daemon,
}

fn written(file: &Path, archive: &Value) -> Result<(), Failure> {
    let text = serde_json::to_string(archive)?;
    if file.as_os_str() == "-" {
        return print(&format!("{text}\n"));
    }
    create_private(file, text.as_bytes()).map_err(|e| format!("{}: {e}", file.display()))?;
    let documents = archive.pointer("/content/documents").and_then(Value::as_object);
    print(&format!(
        "{} documents\n",
        documents.map_or(0, serde_json::Map::len)
    ))
}

fn listed(answer: &Value) -> String {
    let number = |file: &Value, field: &str| file.get(field).and_then(Value::as_u64).unwrap_or(0);
    let row = |file: &Value| {
        let name = file.get("name").and_then(Value::as_str).unwrap_or_default();
        vec![
            name.to_owned(),
            utc(number(file, "created_at_ms")),
            number(file, "bytes").to_string(),
        ]
    };
    let items = answer.get("items").and_then(Value::as_array);
    table(
        &["NAME", "MADE", "BYTES"],
        &items.into_iter().flatten().map(row).collect::<Vec<_>>(),
    )
}

fn names(answer: &Value, field: &str) -> String {
    let list = answer.get(field).and_then(Value::as_array).into_iter().flatten();
    let names: Vec<&str> = list.filter_map(Value::as_str).collect();
    if names.is_empty() {
        "none".into()
    } else {
        names.join(", ")
    }
}

pub(super) fn run(command: &Command) -> Result<(), Failure> {
    match command {
        Command::Make(args) => written(&args.file, &args.daemon.client()?.get("/backup")?),
        Command::List(args) => {
            let answer = args.daemon.client()?.get("/backups")?;
            if args.json {
                return print(&format!("{answer:#}\n"));
            }
            print(&listed(&answer))
        }
        Command::Fetch(args) => {
            let path = format!("/backups/{}", part(&args.name));
            written(&args.file, &args.daemon.client()?.get(&path)?)
        }
        Command::Verify(args) => {
            let key = match master_key()? {
                Some(key) => key,
                None => MasterKey::read(&args.master_key_file)?,
            };
            let archive: Archive = serde_json::from_value(json_of(&args.file)?)?;
            archive.verify(&key)?;
            let content = &archive.content;
            print(&format!(
                "whole: made {} by version {}, {} documents, {} accounts, roles and tokens\n",
                utc(content.created_at_ms),
                content.version,
                content.documents.len(),
                content.accounts.len()
            ))
        }
        Command::Restore(args) => {
            let flag = |on: bool| on.then(|| "true".to_owned());
            let query = [("dry_run", flag(args.dry_run)), ("accounts", flag(args.accounts))];
            let path = with_query("/backup/restore", &query);
            let answer = args.daemon.client()?.post(&path, &json_of(&args.file)?)?;
            let word = if args.dry_run { "would change" } else { "changed" };
            print(&format!(
                "{word}: {}\nleft as they are: {}\naccounts, roles and tokens: {}\n",
                names(&answer, "changed"),
                names(&answer, "left"),
                answer.get("accounts").and_then(Value::as_u64).unwrap_or(0)
            ))
        }
    }
}
