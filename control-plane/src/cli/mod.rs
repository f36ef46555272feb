//! The command line.

mod account;
mod alerts;
mod audit;
mod backup;
mod check;
mod client;
mod cluster;
mod config;
mod count;
mod drain;
mod emergency;
mod entries;
mod explain;
mod instance;
mod keys;
mod serve;
mod status;
mod table;
mod top;
mod usage;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::{Args as ClapArgs, CommandFactory, Parser, Subcommand};
use clap_complete::Shell;
use entries::Sort;

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
    /// The cluster's instances: list, weigh, drain, add, remove
    #[command(subcommand)]
    Instance(instance::Command),
    /// What is wrong: list, acknowledge, silence, try a receiver
    #[command(subcommand, visible_alias = "alert")]
    Alerts(alerts::Command),
    /// Act in an emergency: block a channel, end streams, reset or top up limits, maintenance
    #[command(subcommand)]
    Emergency(emergency::Command),
    /// Show channels and what is left of their limits, again and again
    Top(top::Args),
    /// Print the JSON Schema of a kind of document
    Schema(check::SchemaArgs),
    /// Print the OpenAPI document of the admin API; needs no running daemon
    Openapi,
    /// Channels
    #[command(subcommand)]
    Channel(ChannelCommand),
    /// Models
    #[command(subcommand)]
    Model(ModelCommand),
    /// Deployments of a model
    Deployment(Deployments),
    /// Providers
    #[command(subcommand)]
    Provider(entries::Command),
    /// Rules
    #[command(subcommand)]
    Rule(entries::Command),
    /// Templates of channels
    #[command(subcommand)]
    Template(entries::Command),
    /// Rules with parameters
    #[command(subcommand)]
    RuleTemplate(entries::Command),
    /// Rules for counting tokens
    #[command(subcommand, visible_alias = "counting-rule")]
    Tokenizer(entries::Command),
    /// What was used
    Usage(usage::Args),
    /// Backups
    #[command(subcommand)]
    Backup(backup::Command),
    /// Accounts of the admin API
    #[command(subcommand)]
    Account(account::Command),
    /// The audit log
    #[command(subcommand)]
    Audit(audit::Command),
    /// Encrypt a provider's credential (read from standard input) for a document
    Seal(keys::SealArgs),
    /// Make another master key, and seal with it what the old one has sealed in a folder of documents; the daemon must not run
    RotateKey(keys::RotateArgs),
    /// Print the SHA-256 of a channel's key (read from standard input) for a document
    HashKey,
    /// Print a script that completes this command line: `source <(tollgate completion bash)`
    Completion {
        /// The shell
        shell: Shell,
    },
}

#[derive(Debug, Subcommand)]
enum ChannelCommand {
    #[command(flatten)]
    Entry(entries::Command),
    /// What it has used
    Usage(usage::One),
}

#[derive(Debug, Subcommand)]
enum ModelCommand {
    #[command(flatten)]
    Entry(entries::Command),
    /// What was used of it
    Usage(usage::One),
}

#[derive(Debug, ClapArgs)]
struct Deployments {
    /// The model
    model: String,
    #[command(subcommand)]
    command: entries::Command,
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
        Command::Instance(command) => instance::run(&command),
        Command::Alerts(command) => alerts::run(&command),
        Command::Emergency(command) => emergency::run(&command),
        Command::Top(args) => top::run(&args),
        Command::Schema(args) => check::schema(&args),
        Command::Openapi => openapi(),
        Command::Channel(ChannelCommand::Entry(command)) => command.run(Sort::CHANNELS),
        Command::Channel(ChannelCommand::Usage(args)) => usage::of_channel(&args),
        Command::Model(ModelCommand::Entry(command)) => command.run(Sort::MODELS),
        Command::Model(ModelCommand::Usage(args)) => usage::of_model(&args),
        Command::Deployment(args) => args.command.run_deployments(&args.model),
        Command::Provider(command) => command.run(Sort::PROVIDERS),
        Command::Rule(command) => command.run(Sort::RULES),
        Command::Template(command) => command.run(Sort::TEMPLATES),
        Command::RuleTemplate(command) => command.run(Sort::RULE_TEMPLATES),
        Command::Tokenizer(command) => command.run(Sort::COUNTING_RULES),
        Command::Usage(args) => usage::run(&args),
        Command::Backup(command) => backup::run(&command),
        Command::Completion { shell } => completion(shell),
        Command::Account(command) => account::run(&command),
        Command::Audit(command) => return exit(audit::run(&command)),
        Command::Seal(args) => keys::seal(&args),
        Command::RotateKey(args) => keys::rotate(&args),
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

fn completion(shell: Shell) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Cli::command(), "tollgate", &mut script);
    print(&String::from_utf8(script)?)
}

fn openapi() -> Result<(), Failure> {
    let document = serde_json::to_string_pretty(&crate::api::openapi())?;
    print(&format!("{document}\n"))
}

/// Writes to standard output; whoever reads may go away at any time.
fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        other => Ok(other?),
    }
}
