//! `tollgate audit verify`: reads the files themselves, so that nobody has to believe the daemon.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};

use super::serve::master_key;
use super::{Failure, print};
use crate::audit::Audit;
use crate::secrets::MasterKey;

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Follow the audit log's chain; exit code 1 if a row was edited, removed or put elsewhere
    Verify(Args),
}

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// The daemon's state folder, or a copy of it
    #[arg(
        long,
        value_name = "DIR",
        env = "TOLLGATE_STATE",
        default_value = "/var/lib/tollgate"
    )]
    state: PathBuf,
    /// File with the master key; `master.key` in the state folder by default
    #[arg(long, value_name = "FILE", env = "TOLLGATE_MASTER_KEY_FILE")]
    master_key_file: Option<PathBuf>,
}

pub(super) fn run(command: &Command) -> Result<bool, Failure> {
    let Command::Verify(args) = command;
    let file = args
        .master_key_file
        .clone()
        .unwrap_or_else(|| args.state.join("master.key"));
    let key = match master_key()? {
        Some(key) => key,
        None => MasterKey::read(&file)?,
    };
    let verdict = Audit::verify_folder(&args.state, &key)?;
    let mut out = String::new();
    for fault in &verdict.faults {
        match fault.seq {
            0 => out.push_str(&format!("{}\n", fault.reason)),
            seq => out.push_str(&format!("row {seq}: {}\n", fault.reason)),
        }
    }
    let word = if verdict.intact { "intact" } else { "not intact" };
    out.push_str(&format!("{} rows, {word}\n", verdict.rows));
    print(&out)?;
    Ok(verdict.intact)
}
