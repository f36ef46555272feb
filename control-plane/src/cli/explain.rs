//! `tollgate explain`.

use std::fmt::Write;
use std::net::IpAddr;
use std::path::PathBuf;

use clap::Args as ClapArgs;
use serde_json::{Value, json};
use tollgate_policy::{
    CompileInput, CountingInput, Problem, RuleSet, SecretRef, Snapshot, VocabularyFile, compile,
};

use super::client::Daemon;
use super::{Failure, check, print};
use crate::config::{Resolver, Upstream, ask, parse_set};
use crate::counting::Counting;
use crate::explain::{ExplainRequest, explain};
use crate::live::Unused;

/// The most that a vocabulary of any kind can grow a text, see `Vocabulary::most_tokens`.
const MOST_GROWTH: u32 = 19;

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// Folder of documents; without it, the daemon at --url is asked, which also knows what is used
    dir: Option<PathBuf>,
    #[command(flatten)]
    daemon: Daemon,
    /// A header line, `name: value` or `name=value`; may be repeated
    #[arg(short = 'H', long = "header", value_name = "LINE")]
    headers: Vec<String>,
    /// File with the body; `-` for standard input
    #[arg(long, value_name = "FILE")]
    body: Option<PathBuf>,
    /// The body itself
    #[arg(short = 'd', long, value_name = "JSON", conflicts_with = "body")]
    data: Option<String>,
    /// Path, with the query
    #[arg(long, default_value = "/v1/chat/completions")]
    path: String,
    /// Method
    #[arg(long, default_value = "POST")]
    method: String,
    /// Address of the client
    #[arg(long, default_value = "127.0.0.1")]
    client_ip: IpAddr,
    /// As JSON
    #[arg(long)]
    json: bool,
}

fn header(line: &str) -> Result<(String, String), Failure> {
    let at = line
        .find([':', '='])
        .ok_or_else(|| format!("`{line}` is no header: expected `name: value`"))?;
    let (name, value) = line.split_at(at);
    Ok((
        name.trim().to_owned(),
        value.get(1..).unwrap_or_default().trim().to_owned(),
    ))
}

impl Args {
    fn body(&self) -> Result<String, Failure> {
        Ok(match (&self.body, &self.data) {
            (Some(path), _) if path.as_os_str() == "-" => std::io::read_to_string(std::io::stdin())?,
            (Some(path), _) => std::fs::read_to_string(path)?,
            (None, Some(text)) => text.clone(),
            (None, None) => String::new(),
        })
    }

    fn request(&self) -> Result<ExplainRequest, Failure> {
        Ok(ExplainRequest {
            method: self.method.clone(),
            path: self.path.clone(),
            headers: self.headers.iter().map(|l| header(l)).collect::<Result<_, _>>()?,
            body: Value::String(self.body()?),
            client_ip: self.client_ip,
            time: None,
        })
    }
}

/// Compiles the documents of a folder, without credentials and with only those addresses that need no name server.
pub(super) fn compiled(dir: &std::path::Path, counting: &Counting) -> Result<Vec<u8>, Failure> {
    let (documents, problems) = parse_set(&check::read(dir)?);
    if problems.iter().any(Problem::is_error) {
        let all: Vec<String> = problems.iter().map(ToString::to_string).collect();
        return Err(all.join("\n").into());
    }
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    let mut resolver = Resolver::default();
    let upstreams = Upstream::all(&documents);
    resolver.learn(runtime.block_on(ask(
        resolver.unknown(&upstreams),
        &documents.settings().resolver.nameservers,
    )));
    let addresses = resolver.addresses(&upstreams);
    // Compiled when something is counted with it; until then, that it can be had is enough.
    let vocabulary = |name: &str| {
        counting.tokenizers.has(name).then(|| VocabularyFile {
            file: format!("{name}.tgv"),
            source: 0,
            growth: MOST_GROWTH,
        })
    };
    compile(
        &documents,
        &CompileInput {
            generation: 1,
            created_unix_ms: 0,
            resolved: &|id| addresses.get(id).cloned().unwrap_or_default(),
            authorities: &|_| Ok(Vec::new()),
            counting: CountingInput {
                vocabulary: &vocabulary,
                ..CountingInput::default()
            },
            seal: &|_: &str, _: SecretRef<'_>| Ok(Vec::new()),
        },
    )
    .map_err(|problems| {
        problems
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("\n")
            .into()
    })
}

fn offline(dir: &std::path::Path, request: &ExplainRequest) -> Result<Value, Failure> {
    let counting = Counting::offline(dir);
    let bytes = compiled(dir, &counting)?;
    let snapshot = Snapshot::open(&bytes)?;
    let rules = RuleSet::decode(snapshot.rules_blob())?;
    let explanation = explain(snapshot, &rules, request, &Unused, &counting.tokenizers);
    Ok(json!({ "explanation": explanation }))
}

pub(super) fn run(args: &Args) -> Result<bool, Failure> {
    let request = args.request()?;
    let answer = match &args.dir {
        Some(dir) => offline(dir, &request)?,
        None => {
            let body = json!({
                "method": request.method, "path": request.path, "headers": request.headers,
                "body": request.body, "client_ip": request.client_ip,
            });
            args.daemon.client()?.post("/explain", &body)?
        }
    };
    let explanation = answer.get("explanation").unwrap_or(&Value::Null);
    if args.json {
        print(&format!("{}\n", serde_json::to_string_pretty(explanation)?))?;
    } else {
        print(&(described(explanation) + &own_values(&answer)))?;
    }
    Ok(explanation.get("admitted") == Some(&Value::Bool(true)))
}

/// What the instance that was asked has of its own, beside what all share.
fn own_values(answer: &Value) -> String {
    let mut out = String::new();
    let list = answer.get("overrides").and_then(Value::as_array);
    for own in list.into_iter().flatten() {
        let text = |name: &str| own.get(name).and_then(Value::as_str).unwrap_or_default();
        let json = |name: &str| own.get(name).cloned().unwrap_or_default();
        let from = text("inherited_document");
        let _ = writeln!(
            out,
            "override   {} = {} (from {}; {}: {})",
            text("path"),
            json("value"),
            text("document"),
            if from.is_empty() { "by default" } else { from },
            json("inherited"),
        );
    }
    out
}

fn described(e: &Value) -> String {
    let at = |path: &str| e.pointer(path).filter(|v| !v.is_null());
    let text = |path: &str| match at(path) {
        Some(Value::String(s)) => s.clone(),
        Some(other) => other.to_string(),
        None => "-".to_owned(),
    };
    let list = |path: &str| at(path).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut out = String::new();
    let _ = match at("/admitted") {
        Some(Value::Bool(true)) => writeln!(out, "admitted"),
        _ => writeln!(
            out,
            "refused by {}: {} {}: {}",
            text("/decided_by"),
            text("/status"),
            text("/code"),
            text("/message")
        ),
    };
    let _ = writeln!(
        out,
        "channel    {} (from {}, key {})",
        text("/channel/code"),
        text("/channel/source"),
        text("/channel/key")
    );
    for rule in list("/rules") {
        let name = rule.get("rule").and_then(Value::as_str).unwrap_or_default();
        let what = match (rule.get("matched"), rule.get("failed").and_then(Value::as_str)) {
            (Some(Value::Bool(true)), _) => "matched".to_owned(),
            (Some(Value::Bool(false)), Some(failed)) => format!("did not match: {failed}"),
            (Some(Value::Bool(false)), None) => "did not match".to_owned(),
            _ => "not looked at".to_owned(),
        };
        let _ = writeln!(out, "rule       {name}: {what}");
    }
    if at("/model").is_some() {
        let _ = writeln!(
            out,
            "model      {} (asked for {}), permitted: {}",
            text("/model/name"),
            text("/model/asked"),
            text("/model/permitted")
        );
    }
    if at("/experiment").is_some() {
        let _ = match at("/experiment/group") {
            Some(_) => writeln!(
                out,
                "experiment {}, by {}: group {}",
                text("/experiment/name"),
                text("/experiment/by"),
                text("/experiment/group")
            ),
            None => writeln!(
                out,
                "experiment {}: {}",
                text("/experiment/name"),
                text("/experiment/reason")
            ),
        };
    }
    if at("/route").is_some() {
        let _ = writeln!(out, "route      the channel's own for {}", text("/route/model"));
    }
    if at("/version").is_some() {
        let _ = writeln!(out, "version    {}", text("/version"));
    }
    if at("/input").is_some() {
        let _ = writeln!(
            out,
            "input      {} tokens (bound {}, estimated: {})",
            text("/input/tokens"),
            text("/input/bound"),
            text("/input/estimated")
        );
        let rule = match text("/input/rule") {
            empty if empty.is_empty() => "the defaults".to_owned(),
            rule => format!("rule {rule}"),
        };
        let _ = writeln!(
            out,
            "counted    by {rule}, version {}, with {}",
            text("/input/version"),
            text("/input/tokenizer")
        );
        let _ = writeln!(
            out,
            "output     {} tokens wanted, {} reserved",
            text("/output/wanted"),
            text("/output/reserved")
        );
    }
    for limit in list("/limits") {
        let get = |name: &str| limit.get(name).and_then(Value::as_u64).unwrap_or(0);
        let name = limit.get("name").and_then(Value::as_str).unwrap_or_default();
        let scope = limit.get("scope").and_then(Value::as_str).unwrap_or_default();
        let fits = limit.get("fits") == Some(&Value::Bool(true));
        let _ = writeln!(
            out,
            "limit      {name} ({scope}): {} + {} = {} of {}{}",
            get("used"),
            get("wanted"),
            get("after"),
            get("max"),
            if fits { "" } else { ", does not fit" }
        );
    }
    for d in list("/deployments") {
        let get = |name: &str| d.get(name).and_then(Value::as_str).unwrap_or_default();
        let share = d.get("share").and_then(Value::as_f64).unwrap_or(0.0);
        let _ = writeln!(
            out,
            "deployment {} at {}: {:.0} %",
            get("id"),
            get("provider"),
            share * 100.0
        );
    }
    let fallback: Vec<String> = list("/fallback")
        .iter()
        .filter_map(|name| name.as_str().map(str::to_owned))
        .collect();
    if !fallback.is_empty() {
        let _ = writeln!(out, "then       {}", fallback.join(", "));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_lines_read_in_both_forms() {
        let pair = |a: &str, b: &str| (a.to_owned(), b.to_owned());
        assert_eq!(header("A: b:c").unwrap(), pair("A", "b:c"));
        assert_eq!(header("channelcode=x=y").unwrap(), pair("channelcode", "x=y"));
        assert!(header("nothing").is_err());
    }
}
