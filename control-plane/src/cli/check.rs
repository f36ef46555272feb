//! `tollgate check` and `tollgate schema`.

use std::fmt::Write;
use std::net::SocketAddr;
use std::path::PathBuf;

use clap::Args as ClapArgs;
use serde_json::json;
use tollgate_policy::{Documents, Kind, Problem};

use super::serve::master_key;
use super::{Failure, print};
use crate::config::{ConfigSource, Directory, DocumentSet, parse_set};
use crate::schedule::now_ms;
use crate::secrets::MasterKey;
use crate::security::{Api, Finding, Risk, of_documents, of_state, ordered};

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Folder of documents
    dir: PathBuf,
    /// Fail on warnings too
    #[arg(long)]
    strict: bool,
    /// As JSON
    #[arg(long)]
    json: bool,
    /// Say what is not as safe as it could be; exit code 1 if something is as bad as --fail-on says
    #[arg(long)]
    security: bool,
    #[command(flatten)]
    safety: Safety,
}

#[derive(Debug, ClapArgs)]
#[command(next_help_heading = "With --security")]
struct Safety {
    /// The least risk that makes the check fail
    #[arg(
        long,
        value_enum,
        value_name = "RISK",
        default_value = "medium",
        requires = "security"
    )]
    fail_on: Risk,
    /// The daemon's state folder, to look at keys, accounts, tokens and the audit log too
    #[arg(long, value_name = "DIR", env = "TOLLGATE_STATE", requires = "security")]
    state: Option<PathBuf>,
    /// Address of the admin API; the settings' by default
    #[arg(long, value_name = "ADDR", env = "TOLLGATE_LISTEN", requires = "security")]
    listen: Option<SocketAddr>,
    /// The admin API's certificate, if it speaks TLS
    #[arg(long, value_name = "FILE", env = "TOLLGATE_TLS_CERT", requires = "security")]
    tls_cert: Option<PathBuf>,
}

/// The documents of a folder.
pub(super) fn read(dir: &std::path::Path) -> Result<DocumentSet, Failure> {
    let source = Directory::watch(dir).map_err(|e| format!("cannot read {}: {e}", dir.display()))?;
    let set = DocumentSet::clone(&source.documents().borrow());
    Ok(set)
}

fn findings(documents: &Documents, safety: &Safety) -> Result<Vec<Finding>, Failure> {
    let api = Api {
        listen: safety.listen,
        tls: safety.tls_cert.is_some(),
    };
    let now_ms = now_ms();
    let now_s = i64::try_from(now_ms / 1_000).unwrap_or(i64::MAX);
    let mut found = of_documents(documents, api, now_s);
    if let Some(folder) = &safety.state {
        // Without the key the rest is still worth looking at.
        let key = match master_key()? {
            Some(key) => Some(key),
            None => MasterKey::read(&folder.join("master.key")).ok(),
        };
        found.extend(of_state(folder, key.as_ref(), now_ms)?);
    }
    Ok(ordered(found))
}

fn listed(findings: &[Finding]) -> String {
    let mut text = String::new();
    for finding in findings {
        let place = [finding.place.as_str(), finding.path.as_str()];
        let place = place
            .into_iter()
            .filter(|p| !p.is_empty())
            .collect::<Vec<_>>()
            .join(" ");
        let risk = finding.risk.name();
        let _ = writeln!(
            text,
            "{risk:<6} {} {place}: {}; {}",
            finding.code, finding.what, finding.advice
        );
    }
    let count = |risk: Risk| findings.iter().filter(|f| f.risk == risk).count();
    let (high, medium, low) = (count(Risk::High), count(Risk::Medium), count(Risk::Low));
    let _ = writeln!(text, "risks: {high} high, {medium} medium, {low} low");
    text
}

pub(super) fn run(args: &Args) -> Result<bool, Failure> {
    let (documents, problems) = parse_set(&read(&args.dir)?);
    let errors = problems.iter().filter(|p| Problem::is_error(p)).count();
    let warnings = problems.len() - errors;
    let found = match args.security {
        true => Some(findings(&documents, &args.safety)?),
        false => None,
    };
    if args.json {
        let mut report = json!({ "errors": errors, "warnings": warnings, "problems": problems });
        if let (Some(found), Some(report)) = (&found, report.as_object_mut()) {
            report.insert("findings".into(), json!(found));
        }
        print(&format!("{report:#}\n"))?;
    } else {
        let mut text = String::new();
        for problem in &problems {
            let _ = writeln!(text, "{problem}");
        }
        text.push_str(&found.as_deref().map(listed).unwrap_or_default());
        let _ = writeln!(
            text,
            "{} channels, {} models, {} providers, {} rules: {errors} errors, {warnings} warnings",
            documents.channels.len(),
            documents.models.len(),
            documents.providers.len(),
            documents.rules.len()
        );
        print(&text)?;
    }
    let risky = |f: &Finding| f.risk >= args.safety.fail_on;
    let safe = !found.is_some_and(|found| found.iter().any(risky));
    Ok(safe && errors == 0 && !(args.strict && warnings > 0))
}

#[derive(Debug, ClapArgs)]
pub(super) struct SchemaArgs {
    /// channels, models, providers, rules, templates, rule_templates, tokenizers or settings
    #[arg(value_parser = kind)]
    kind: Kind,
}

fn kind(name: &str) -> Result<Kind, String> {
    Kind::from_name(name).ok_or_else(|| format!("there are {}", Kind::ALL.map(Kind::name).join(", ")))
}

pub(super) fn schema(args: &SchemaArgs) -> Result<(), Failure> {
    let schema = serde_json::to_string_pretty(&tollgate_policy::schema(args.kind))?;
    print(&format!("{schema}\n"))
}
