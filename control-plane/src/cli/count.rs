//! `tollgate count`.

use std::fmt::Write;
use std::path::PathBuf;

use clap::Args as ClapArgs;
use serde_json::{Value, json};
use tollgate_meter::Api;
use tollgate_policy::Snapshot;

use super::client::Daemon;
use super::explain::compiled;
use super::{Failure, print};
use crate::counting::{Counting, What, count};

#[derive(Debug, ClapArgs)]
pub(super) struct Args {
    /// File with a text or a request's body; `-` for standard input
    file: PathBuf,
    /// The model, or a tokenizer's name
    #[arg(short, long)]
    model: String,
    /// Folder of documents; without it, the daemon at --url is asked, which also knows what it has learned
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    #[command(flatten)]
    daemon: Daemon,
    /// Count the file as a text even if it is a JSON object
    #[arg(long)]
    text: bool,
    /// Path that the request goes to
    #[arg(long, default_value = "/v1/chat/completions")]
    path: String,
    /// As JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &Args) -> Result<(), Failure> {
    let content = if args.file.as_os_str() == "-" {
        std::io::read_to_string(std::io::stdin())?
    } else {
        std::fs::read_to_string(&args.file)?
    };
    let is_request = !args.text && content.trim_start().starts_with('{');
    let answer = match &args.dir {
        None => {
            let body = if is_request {
                json!({ "body": content, "path": args.path })
            } else {
                json!({ "text": content })
            };
            args.daemon
                .client()?
                .post(&format!("/tokenizers/{}/count", escaped(&args.model)), &body)?
        }
        Some(dir) => {
            let counting = Counting::offline(dir);
            let bytes = compiled(dir, &counting)?;
            let snapshot = Snapshot::open(&bytes)?;
            let model = snapshot
                .model(args.model.as_bytes())
                .ok_or_else(|| format!("there is no model `{}`", args.model))?;
            let view = model.counting().ok_or("the snapshot has no rule for it")?;
            let what = if is_request {
                What::Request {
                    api: Api::from_path(&args.path),
                    body: content.as_bytes(),
                }
            } else {
                What::Text(&content)
            };
            json!({ "counted": count(&view, &counting.tokenizers, what)? })
        }
    };
    if args.json {
        print(&format!("{}\n", serde_json::to_string_pretty(&answer)?))
    } else {
        print(&described(&answer))
    }
}

/// A name as a part of a path.
fn escaped(name: &str) -> String {
    name.bytes().fold(String::new(), |mut out, byte| {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.') {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
        out
    })
}

fn described(answer: &Value) -> String {
    let at = |path: &str| answer.pointer(path).filter(|v| !v.is_null());
    let number = |path: &str| at(path).and_then(Value::as_u64).unwrap_or(0);
    let text = |path: &str| at(path).and_then(Value::as_str).unwrap_or_default();
    let mut out = String::new();
    let estimated = at("/counted/estimated") == Some(&Value::Bool(true));
    let _ = writeln!(
        out,
        "{} tokens{}",
        number("/counted/tokens"),
        if estimated { " (estimated)" } else { "" }
    );
    let _ = writeln!(
        out,
        "texts      {} tokens, beside them {} ({} images); at most {}",
        number("/counted/text_tokens"),
        number("/counted/beside_texts"),
        number("/counted/images"),
        number("/counted/bound"),
    );
    let tokenizer = match text("/counted/tokenizer") {
        "" => "ratios per character",
        name => name,
    };
    let _ = write!(out, "counted by {tokenizer}");
    if !matches!(text("/counted/wanted_tokenizer"), wanted if wanted == tokenizer || tokenizer.contains(' '))
    {
        let _ = write!(out, " in place of {}", text("/counted/wanted_tokenizer"));
    }
    let factor = at("/counted/factor").and_then(Value::as_f64).unwrap_or(1.0);
    let _ = writeln!(out, " × {factor}");
    if at("/learned").is_some() {
        let error = at("/learned/error").and_then(Value::as_f64).unwrap_or(0.0);
        let _ = writeln!(
            out,
            "learned    from {} requests, {:.1} % off on average",
            number("/learned/samples"),
            error * 100.0
        );
    }
    let rule = match text("/counted/rule") {
        "" => "the defaults",
        rule => rule,
    };
    let _ = writeln!(out, "rule       {rule}, version {}", text("/counted/version"));
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_parts_of_paths() {
        assert_eq!(escaped("gpt-4o_1.x"), "gpt-4o_1.x");
        assert_eq!(escaped("a/b 中"), "a%2Fb%20%E4%B8%AD");
    }
}
