//! `tollgate channel|model|… list|get|set|create|delete`: entries of documents, through a running daemon.

use std::io::{Read, Write};
use std::path::PathBuf;

use clap::{Args as ClapArgs, Subcommand};
use serde_json::{Map, Value, json};
use ureq::http::Method;

use super::client::{Client, Daemon, part, with_query};
use super::table::table;
use super::{Failure, print};

/// A column of a list.
type Column = (&'static str, fn(&Value) -> String);

/// A sort of entries.
#[derive(Clone, Copy)]
pub(super) struct Sort {
    path: &'static str,
    /// What is shown of an entry's `value`, after its id.
    columns: &'static [Column],
}

fn text(value: &Value, field: &str) -> String {
    match value.get(field) {
        None | Some(Value::Null) => String::new(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    }
}

fn enabled(value: &Value) -> String {
    let on = value.get("enabled").and_then(Value::as_bool).unwrap_or(true);
    if on { "yes".into() } else { "no".into() }
}

fn count(value: &Value, field: &str) -> String {
    let list = value.get(field).and_then(Value::as_array);
    list.map_or(0, Vec::len).to_string()
}

fn of_each(value: &Value, list: &str, field: &str) -> String {
    let entries = value.get(list).and_then(Value::as_array).into_iter().flatten();
    entries
        .map(|entry| text(entry, field))
        .collect::<Vec<_>>()
        .join(",")
}

impl Sort {
    pub const CHANNELS: Sort = Sort {
        path: "/channels",
        columns: &[
            ("NAME", |v| text(v, "name")),
            ("ENABLED", enabled),
            ("EXTENDS", |v| text(v, "extends")),
            ("KEYS", |v| count(v, "keys")),
            ("LIMITS", |v| count(v, "limits")),
        ],
    };
    pub const MODELS: Sort = Sort {
        path: "/models",
        columns: &[
            ("DEPLOYMENTS", |v| count(v, "deployments")),
            ("PROVIDERS", |v| of_each(v, "deployments", "provider")),
            ("LIMITS", |v| count(v, "limits")),
        ],
    };
    pub const PROVIDERS: Sort = Sort {
        path: "/providers",
        columns: &[
            ("PROTOCOL", |v| text(v, "protocol")),
            ("ENABLED", enabled),
            ("BASE URL", |v| text(v, "base_url")),
        ],
    };
    pub const RULES: Sort = Sort {
        path: "/rules",
        columns: &[
            ("PRIORITY", |v| text(v, "priority")),
            ("ENABLED", enabled),
            ("TEMPLATE", |v| text(v, "template")),
        ],
    };
    pub const TEMPLATES: Sort = Sort {
        path: "/templates",
        columns: &[
            ("EXTENDS", |v| text(v, "extends")),
            ("LIMITS", |v| count(v, "limits")),
        ],
    };
    pub const RULE_TEMPLATES: Sort = Sort {
        path: "/rule-templates",
        columns: &[("PARAMETERS", |v| count(v, "parameters"))],
    };
    pub const COUNTING_RULES: Sort = Sort {
        path: "/counting-rules",
        columns: &[
            ("MODELS", |v| text(v, "models")),
            ("TOKENIZER", |v| text(v, "tokenizer")),
        ],
    };
    pub const DEPLOYMENTS: Sort = Sort {
        path: "/models",
        columns: &[
            ("PROVIDER", |v| text(v, "provider")),
            ("UPSTREAM MODEL", |v| text(v, "upstream_model")),
            ("VERSION", |v| text(v, "version")),
            ("WEIGHT", |v| text(v, "weight")),
            ("ENABLED", enabled),
        ],
    };
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// List them
    List(List),
    /// Show one as JSON
    Get(Get),
    /// Change fields of one: FIELD=VALUE, or a JSON merge patch from a file
    Set(Set),
    /// Add one from JSON
    Create(Create),
    /// Remove one
    Delete(Delete),
}

#[derive(Debug, ClapArgs)]
pub(super) struct List {
    /// Only those with this text in their id or name
    #[arg(long)]
    search: Option<String>,
    /// How many at most; all by default
    #[arg(short = 'n', long)]
    limit: Option<usize>,
    /// As JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    daemon: Daemon,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Get {
    /// Its code, name or id
    id: String,
    /// With its version and where it stands
    #[arg(long)]
    whole: bool,
    #[command(flatten)]
    daemon: Daemon,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Set {
    /// Its code, name or id
    id: String,
    /// What to change: `enabled=false`, `models.allow=["gpt-*"]`; `null` takes a field away
    #[arg(value_name = "FIELD=VALUE", required_unless_present = "file")]
    fields: Vec<String>,
    /// File with a JSON merge patch; `-` for standard input
    #[arg(short, long, value_name = "FILE", conflicts_with = "fields")]
    file: Option<PathBuf>,
    /// The version that is to be changed; the present one by default
    #[arg(long, value_name = "ETAG")]
    if_match: Option<String>,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    daemon: Daemon,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Create {
    /// File with it, as JSON; `-` for standard input
    #[arg(value_name = "FILE", default_value = "-")]
    file: PathBuf,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    daemon: Daemon,
}

#[derive(Debug, ClapArgs)]
pub(super) struct Delete {
    /// Its code, name or id
    id: String,
    /// The version that is to be removed; the present one by default
    #[arg(long, value_name = "ETAG")]
    if_match: Option<String>,
    /// Only say what would happen
    #[arg(long)]
    dry_run: bool,
    #[command(flatten)]
    daemon: Daemon,
}

/// JSON of a file, or of standard input.
pub(super) fn json_of(file: &std::path::Path) -> Result<Value, Failure> {
    let mut text = String::new();
    if file.as_os_str() == "-" {
        std::io::stdin().read_to_string(&mut text)?;
    } else {
        text = std::fs::read_to_string(file).map_err(|e| format!("{}: {e}", file.display()))?;
    }
    serde_json::from_str(&text).map_err(|e| format!("{}: {e}", file.display()).into())
}

/// `a.b=VALUE` as a merge patch; a value that is no JSON is a text.
fn patched(patch: &mut Map<String, Value>, field: &str) -> Result<(), Failure> {
    let (path, value) = field
        .split_once('=')
        .ok_or_else(|| format!("`{field}` is not FIELD=VALUE"))?;
    let value = serde_json::from_str(value).unwrap_or_else(|_| value.into());
    let (path, last) = path.rsplit_once('.').unwrap_or(("", path));
    let mut inner = patch;
    for step in path.split('.').filter(|step| !step.is_empty()) {
        let next = inner.entry(step).or_insert_with(|| json!({}));
        inner = next
            .as_object_mut()
            .ok_or_else(|| format!("`{step}` is set twice"))?;
    }
    inner.insert(last.to_owned(), value);
    Ok(())
}

fn patch(set: &Set) -> Result<Value, Failure> {
    if let Some(file) = &set.file {
        return json_of(file);
    }
    let mut patch = Map::new();
    for field in &set.fields {
        patched(&mut patch, field)?;
    }
    Ok(Value::Object(patch))
}

/// A client at the path of some entries.
pub(super) struct Place {
    client: Client,
    path: String,
    columns: &'static [Column],
}

impl Place {
    fn one(&self, id: &str) -> String {
        format!("{}/{}", self.path, part(id))
    }

    /// The version that is known, or the present one.
    fn version(&self, id: &str, known: Option<&str>) -> Result<String, Failure> {
        if let Some(known) = known {
            return Ok(known.to_owned());
        }
        Ok(text(&self.client.get(&self.one(id))?, "etag"))
    }

    fn list(&self, args: &List) -> Result<(), Failure> {
        const PAGE: usize = 500;
        let most = args.limit.unwrap_or(usize::MAX);
        let (mut items, mut after) = (Vec::new(), None);
        loop {
            let limit = PAGE.min(most - items.len());
            let query = [
                ("search", args.search.clone()),
                ("limit", Some(limit.to_string())),
                ("after", after),
            ];
            // A model's deployments come all at once.
            let paged = !self.path.ends_with("/deployments");
            let path = with_query(&self.path, if paged { &query } else { &[] });
            let mut page = self.client.get(&path)?;
            if let Some(found) = page.get_mut("items").and_then(Value::as_array_mut) {
                items.append(found);
            }
            after = page.get("next").and_then(Value::as_str).map(str::to_owned);
            if after.is_none() || items.len() >= most {
                break;
            }
        }
        items.truncate(most);
        if args.json {
            return print(&format!("{:#}\n", Value::Array(items)));
        }
        let heads: Vec<&str> = std::iter::once("ID")
            .chain(self.columns.iter().map(|(head, _)| *head))
            .collect();
        let row = |item: &Value| {
            let value = item.get("value").unwrap_or(&Value::Null);
            let cells = self.columns.iter().map(|(_, show)| show(value));
            std::iter::once(text(item, "id")).chain(cells).collect()
        };
        print(&table(&heads, &items.iter().map(row).collect::<Vec<_>>()))
    }

    fn written(&self, answer: &Value, done: &str) -> Result<(), Failure> {
        let problems = answer.get("problems").and_then(Value::as_array);
        for problem in problems.into_iter().flatten() {
            let line = format!("{}: {}", text(problem, "path"), text(problem, "reason"));
            writeln!(std::io::stderr(), "tollgate: {line}")?;
        }
        let is = |field: &str| answer.get(field).and_then(Value::as_bool) == Some(true);
        let state = match (is("written"), is("in_force")) {
            (false, _) => "would be ",
            (true, true) => "",
            (true, false) => "not in force yet: ",
        };
        print(&format!("{state}{done} {}\n", text(answer, "id")))
    }

    fn dry(path: String, dry_run: bool) -> String {
        with_query(&path, &[("dry_run", dry_run.then(|| "true".to_owned()))])
    }

    /// Does what the command says.
    pub fn run(&self, command: &Command) -> Result<(), Failure> {
        match command {
            Command::List(args) => self.list(args),
            Command::Get(args) => {
                let item = self.client.get(&self.one(&args.id))?;
                let shown = if args.whole {
                    Some(&item)
                } else {
                    item.get("value")
                };
                print(&format!("{:#}\n", shown.unwrap_or(&Value::Null)))
            }
            Command::Set(args) => {
                let version = self.version(&args.id, args.if_match.as_deref())?;
                let path = Place::dry(self.one(&args.id), args.dry_run);
                let patch = patch(args)?;
                let answer = self
                    .client
                    .send(&Method::PATCH, &path, Some(&version), Some(&patch))?;
                self.written(&answer, "changed")
            }
            Command::Create(args) => {
                let path = Place::dry(self.path.clone(), args.dry_run);
                let answer = self.client.post(&path, &json_of(&args.file)?)?;
                self.written(&answer, "added")
            }
            Command::Delete(args) => {
                let version = self.version(&args.id, args.if_match.as_deref())?;
                let path = Place::dry(self.one(&args.id), args.dry_run);
                let answer = self.client.send(&Method::DELETE, &path, Some(&version), None)?;
                self.written(&answer, "removed")
            }
        }
    }
}

impl Command {
    fn daemon(&self) -> &Daemon {
        match self {
            Command::List(args) => &args.daemon,
            Command::Get(args) => &args.daemon,
            Command::Set(args) => &args.daemon,
            Command::Create(args) => &args.daemon,
            Command::Delete(args) => &args.daemon,
        }
    }

    /// Does it with entries of this sort.
    pub fn run(&self, sort: Sort) -> Result<(), Failure> {
        let place = Place {
            client: self.daemon().client()?,
            path: sort.path.to_owned(),
            columns: sort.columns,
        };
        place.run(self)
    }

    /// Does it with a model's deployments.
    pub fn run_deployments(&self, model: &str) -> Result<(), Failure> {
        let place = Place {
            client: self.daemon().client()?,
            path: format!("{}/{}/deployments", Sort::DEPLOYMENTS.path, part(model)),
            columns: Sort::DEPLOYMENTS.columns,
        };
        place.run(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_become_a_merge_patch() {
        let mut patch = Map::new();
        for field in [
            "enabled=false",
            "models.allow=[\"gpt-*\"]",
            "models.deny=null",
            "name=Team 7",
            "note=a=b",
        ] {
            patched(&mut patch, field).unwrap();
        }
        assert_eq!(
            Value::Object(patch.clone()),
            json!({"enabled": false, "models": {"allow": ["gpt-*"], "deny": null}, "name": "Team 7", "note": "a=b"})
        );
        assert!(patched(&mut patch, "enabled").is_err());
        assert!(patched(&mut patch, "name.x=1").is_err());
    }
}
