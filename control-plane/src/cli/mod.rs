//! The command line.

mod account;
mod audit;
mod check;
mod client;
mod cluster;
mod config;
mod count;
mod drain;
mod explain;
mod keys;
mod serve;
mod status;
mod top;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Parser, Subcommand};

/// An AI gateway inside nginx: its daemon and its tools.
#[derive(Debug, Parser)]
#[command(name = "tollgate", version, about, propagate_version = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the daemon
    Serve(Box<serve::Args>),
    /// Validate a folder of documents; exit code 1 if one has an error
    Check(check::Args),
    /// Say what would become of a request, and why
    Explain(explain::Args),
    /// Count the tokens of a text or a request as a model's
    Count(count::Args),
    /// Show the state of a running daemon and its workers
    Status(status::Args),
    /// Versions of the configuration: list, compare, publish, bring back
    Config(config::ConfigArgs),
    /// Take this instance out of the cluster, or in again; what is in flight ends by itself
    Drain(drain::DrainArgs),
    /// Show channels and what is left of their limits, again and again
    Top(top::Args),
    /// Print the JSON Schema of a kind of document
    Schema(check::SchemaArgs),
    /// Accounts of the admin API
    #[command(subcommand)]
    Account(account::Command),
    /// The audit log
    #[command(subcommand)]
    Audit(audit::Command),
    /// Encrypt a provider's credential (read from standard input) for a document
    Seal(keys::SealArgs),
    /// Print the SHA-256 of a channel's key (read from standard input) for a document
    HashKey,
}

/// What went wrong, for standard error; the exit code is 1.
type Failure = Box<dyn std::error::Error>;

/// Runs the command that the process was called with.
pub fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Serve(args) => serve::run(*args),
        Command::Check(args) => return exit(check::run(&args)),
        Command::Explain(args) => return exit(explain::run(&args)),
        Command::Count(args) => count::run(&args),
        Command::Status(args) => status::run(&args),
        Command::Config(args) => config::run(&args),
        Command::Drain(args) => return exit(drain::run(&args)),
        Command::Top(args) => top::run(&args),
        Command::Schema(args) => check::schema(&args),
        Command::Account(command) => account::run(&command),
        Command::Audit(command) => return exit(audit::run(&command)),
        Command::Seal(args) => keys::seal(&args),
        Command::HashKey => keys::hash(),
    };
    exit(result.map(|()| true))
}

fn exit(result: Result<bool, Failure>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            let _ = writeln!(io::stderr(), "tollgate: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Writes to standard output; whoever reads may go away at any time.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}
