//! Everything that can be wrong with documents that decode, all of it at once.

mod alerts;
mod channels;
pub(crate) mod counting;
mod health;
mod limits;
mod models;
mod providers;
mod relief;
mod routing;
mod rules;
mod settings;

use crate::{
    documents::{Documents, Kind, Location},
    effective::{EffectiveChannel, Templates},
    glob::glob_matches,
    problem::Problem,
    rules::PlainRule,
    suggest,
};
use std::{
    collections::{HashMap, HashSet, hash_map},
    fmt,
    fmt::Display,
    hash::Hash,
};

/// Finds every problem of the documents, alone and together, that decoding did not find.
pub fn validate(documents: &Documents) -> Vec<Problem> {
    check(documents).1
}

/// What compilation uses of a validated configuration.
pub(crate) struct Checked<'d> {
    pub channels: Vec<EffectiveChannel<'d>>,
    /// Enabled rules, templates filled in, in no order.
    pub rules: Vec<PlainRule>,
}

pub(crate) fn check(documents: &Documents) -> (Checked<'_>, Vec<Problem>) {
    let mut context = Context::new(documents);
    settings::check(&mut context);
    providers::check(&mut context);
    models::check(&mut context);
    counting::check(&mut context);
    let templates = Templates::resolve(documents, &mut context.problems);
    channels::check_templates(&mut context);
    let channels = channels::check(&mut context, &templates);
    limits::check_worst_case(&mut context, &channels);
    let rules = rules::check(&mut context);
    (Checked { channels, rules }, context.problems)
}

/// The documents, the names that others refer to, and what was found so far.
struct Context<'d> {
    documents: &'d Documents,
    providers: HashSet<&'d str>,
    /// Canonical names.
    models: HashSet<&'d str>,
    aliases: HashMap<&'d str, &'d str>,
    channels: HashSet<&'d str>,
    /// Whose deployment an id is.
    deployments: HashMap<String, &'d str>,
    /// What stands before the paths of problems for now: `deployments[3].`
    within: String,
    problems: Vec<Problem>,
}

impl<'d> Context<'d> {
    fn new(documents: &'d Documents) -> Self {
        let models = documents.models.iter().map(|entry| &entry.value);
        Self {
            documents,
            providers: documents
                .providers
                .iter()
                .map(|entry| entry.value.id.as_str())
                .collect(),
            models: models.clone().map(|model| model.name.as_str()).collect(),
            aliases: models
                .clone()
                .flat_map(|model| {
                    model
                        .aliases
                        .iter()
                        .map(|alias| (alias.as_str(), model.name.as_str()))
                })
                .collect(),
            channels: documents
                .channels
                .iter()
                .map(|entry| entry.value.code.as_str())
                .collect(),
            deployments: models
                .flat_map(|model| {
                    let of = move |d: &crate::documents::Deployment| (d.id(&model.name), model.name.as_str());
                    model.deployments.iter().map(of)
                })
                .collect(),
            within: String::new(),
            problems: Vec::new(),
        }
    }

    fn error(&mut self, at: &Location, path: impl Display, reason: impl Into<String>) {
        self.problems
            .push(at.error(&format!("{}{path}", self.within), reason));
    }

    fn warning(&mut self, at: &Location, path: impl Display, reason: impl Into<String>) {
        self.problems
            .push(at.warning(&format!("{}{path}", self.within), reason));
    }

    /// An error if `model` is not a model's canonical name.
    fn expect_model(&mut self, at: &Location, path: impl Display, model: &str) {
        if let Some(problem) = self.unknown_model(at, path, model) {
            self.problems.push(problem);
        }
    }

    fn unknown_model(&self, at: &Location, path: impl Display, model: &str) -> Option<Problem> {
        let path = format!("{}{path}", self.within);
        if self.models.contains(model) || !self.documents.is_complete(Kind::Models) {
            return None;
        }
        if let Some(name) = self.aliases.get(model) {
            let hint = Some(format!("write `{name}`"));
            return Some(
                at.error(&path, format!("`{model}` is an alias; its name is expected here"))
                    .hint(hint),
            );
        }
        let hint = suggest::did_you_mean(model, self.models.iter().copied());
        Some(at.error(&path, format!("unknown model `{model}`")).hint(hint))
    }

    fn any_model_matches(&self, pattern: &str) -> bool {
        !self.documents.is_complete(Kind::Models)
            || self.models.iter().any(|model| glob_matches(pattern, model))
    }

    /// Reports what stands twice in a list of names.
    fn unique<'l, K: Eq + Hash>(&mut self, items: impl Iterator<Item = Named<'l, K>>) {
        let mut seen = HashMap::with_capacity(items.size_hint().0);
        for Named { key, at, path, what } in items {
            match seen.entry(key) {
                hash_map::Entry::Vacant(free) => {
                    free.insert((at, path));
                }
                hash_map::Entry::Occupied(taken) => {
                    let (first, first_path) = taken.get();
                    let first = first.path(&first_path.to_string());
                    self.problems
                        .push(at.error(&path.to_string(), format!("{what} stands at `{first}` already")));
                }
            }
        }
    }
}

/// Something that must be unique, and where it stands.
struct Named<'l, K> {
    key: K,
    at: &'l Location,
    path: Path,
    what: &'static str,
}

/// A path below an entry, as text only when a problem needs it.
#[derive(Clone, Copy)]
enum Path {
    /// `name`
    Field(&'static str),
    /// `list[index]`
    Item(&'static str, usize),
    /// `list[index].name`
    Of(&'static str, usize, &'static str),
}

impl Display for Path {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Path::Field(name) => f.write_str(name),
            Path::Item(list, index) => write!(f, "{list}[{index}]"),
            Path::Of(list, index, name) => write!(f, "{list}[{index}].{name}"),
        }
    }
}

/// Reports a name that is empty, too long (in bytes) or holds control characters.
fn check_name(context: &mut Context<'_>, at: &Location, path: impl Display, name: &str, longest: usize) {
    if name.is_empty() || name.len() > longest {
        context.error(at, path, format!("must be 1..={longest} bytes"));
    } else if name.chars().any(char::is_control) {
        context.error(at, path, "must not hold control characters");
    } else if name.trim() != name {
        context.error(at, path, "must not begin or end with a space");
    }
}
