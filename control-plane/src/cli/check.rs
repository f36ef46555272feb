//! `tollgate check` and `tollgate schema`.

use std::fmt::Write;
use std::path::PathBuf;

use clap::Args as ClapArgs;
use tollgate_policy::{Kind, Problem};

use super::{Failure, print};
use crate::config::{ConfigSource, Directory, DocumentSet, parse_set};

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Folder of documents
    dir: PathBuf,
    /// Fail on warnings too
    #[arg(long)]
    strict: bool,
}

/// The documents of a folder.
pub(super) fn read(dir: &std::path::Path) -> Result<DocumentSet, Failure> {
    let source = Directory::watch(dir).map_err(|e| format!("cannot read {}: {e}", dir.display()))?;
    let set = DocumentSet::clone(&source.documents().borrow());
    Ok(set)
}

pub(super) fn run(args: &Args) -> Result<bool, Failure> {
    let (documents, problems) = parse_set(&read(&args.dir)?);
    let mut text = String::new();
    for problem in &problems {
        let _ = writeln!(text, "{problem}");
    }
    let errors = problems.iter().filter(|p| Problem::is_error(p)).count();
    let warnings = problems.len() - errors;
    let _ = writeln!(
        text,
        "{} channels, {} models, {} providers, {} rules: {errors} errors, {warnings} warnings",
        documents.channels.len(),
        documents.models.len(),
        documents.providers.len(),
        documents.rules.len()
    );
    print(&text)?;
    Ok(errors == 0 && !(args.strict && warnings > 0))
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
