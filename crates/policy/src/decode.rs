//! JSON trees into document types, with every problem found in one go.
//!
//! serde stops at the first misfit. So a misfit is reported, taken out of the tree, and the rest is tried again: an
//! unknown field is dropped, a value of the wrong type is dropped with its key or list item. What list items are
//! dropped is remembered, so that later problems still name the indexes the operator sees.

use crate::{documents::Kind, problem::Problem, suggest};
use serde::de::DeserializeOwned;
use serde_json::Value;
use serde_path_to_error::Segment;
use std::{fmt::Write, sync::Arc};

/// Misfits that are reported per entry before the rest of it is given up.
const MAX_MISFITS: usize = 64;

/// Where an entry of a document stands, to name problems in it.
#[derive(Clone, Debug)]
pub struct Location {
    /// File name as it was given.
    pub document: Arc<str>,
    /// The document's kind.
    pub kind: Kind,
    /// Position in the document's list; `None` for settings, which are one object.
    pub index: Option<u32>,
    /// List items that were dropped while decoding: the list's path, and the item's index in it.
    dropped: Vec<(String, usize)>,
}

impl Location {
    pub(crate) fn new(document: &Arc<str>, kind: Kind, index: Option<u32>) -> Self {
        Self {
            document: document.clone(),
            kind,
            index,
            dropped: Vec::new(),
        }
    }

    /// `path` below this entry, as the operator sees it: `channels[3].limits[0].window`.
    pub fn path(&self, path: &str) -> String {
        let mut full = self.kind.name().to_owned();
        if let Some(index) = self.index {
            let _ = write!(full, "[{index}]");
        }
        if !path.is_empty() {
            if !path.starts_with('[') {
                full.push('.');
            }
            full.push_str(&self.undropped(path));
        }
        full
    }

    /// An error at `path` below this entry.
    pub(crate) fn error(&self, path: &str, reason: impl Into<String>) -> Problem {
        Problem::error(&*self.document, self.path(path), reason)
    }

    /// A warning at `path` below this entry.
    pub(crate) fn warning(&self, path: &str, reason: impl Into<String>) -> Problem {
        Problem::warning(&*self.document, self.path(path), reason)
    }

    /// Turns the indexes of what is left into the indexes of what was written.
    fn undropped(&self, path: &str) -> String {
        if self.dropped.is_empty() {
            return path.to_owned();
        }
        let mut written = String::with_capacity(path.len());
        let mut rest = path;
        while let Some((before, after)) = rest.split_once('[') {
            written.push_str(before);
            let Some((index, tail)) = after.split_once(']') else {
                break;
            };
            match index.parse() {
                Ok(index) => {
                    let index = self.written_index(&written, index);
                    let _ = write!(written, "[{index}]");
                }
                Err(_) => {
                    let _ = write!(written, "[{index}]");
                }
            }
            rest = tail;
        }
        written.push_str(rest);
        written
    }

    fn written_index(&self, list: &str, left: usize) -> usize {
        let mut dropped: Vec<usize> = self
            .dropped
            .iter()
            .filter(|(path, _)| path == list)
            .map(|(_, index)| *index)
            .collect();
        dropped.sort_unstable();
        dropped.into_iter().fold(
            left,
            |index, dropped| if dropped <= index { index + 1 } else { index },
        )
    }
}

/// Decodes one entry. Problems are reported; `None` if what is left after them is not enough to go on with.
pub(crate) fn entry<T: DeserializeOwned>(
    mut tree: Value,
    at: &mut Location,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    // Nearly always nothing is wrong, and keeping track of paths is what costs.
    if let Ok(value) = T::deserialize(&tree) {
        return Some(value);
    }
    let mut reported: Vec<String> = Vec::new();
    for _ in 0..MAX_MISFITS {
        let error = match serde_path_to_error::deserialize::<_, T>(&tree) {
            Ok(value) => return Some(value),
            Err(error) => error,
        };
        let steps: Vec<Step> = error.path().iter().filter_map(Step::of).collect();
        let left = path_text(&steps);
        let path = at.undropped(&left);
        let reason = error.inner().to_string();
        let missing = quoted_after(&reason, "missing field");
        // A required field whose value was dropped for its type is missing now; once is enough.
        let known = missing.is_some_and(|field| reported.contains(&join(&path, field)));
        if !known {
            let (reason, hint) = explain(&reason, at.kind);
            problems.push(at.error(&left, reason).hint(hint));
            reported.push(path);
        }
        drop_step(&mut tree, &steps, at)?;
    }
    problems.push(at.error(
        "",
        "too many problems in this entry; the rest of it was not looked at",
    ));
    None
}

#[derive(Clone, Debug)]
enum Step {
    Key(String),
    Index(usize),
}

impl Step {
    fn of(segment: &Segment) -> Option<Self> {
        match segment {
            Segment::Seq { index } => Some(Step::Index(*index)),
            Segment::Map { key } => Some(Step::Key(key.clone())),
            // A variant name is a key in the tree.
            Segment::Enum { variant } => Some(Step::Key(variant.clone())),
            Segment::Unknown => None,
        }
    }
}

fn join(path: &str, field: &str) -> String {
    if path.is_empty() {
        field.to_owned()
    } else {
        format!("{path}.{field}")
    }
}

fn path_text(steps: &[Step]) -> String {
    let mut path = String::new();
    for step in steps {
        match step {
            Step::Key(key) => {
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(key);
            }
            Step::Index(index) => {
                let _ = write!(path, "[{index}]");
            }
        }
    }
    path
}

/// Takes the node at `steps` out of `tree`. Where the path does not lead to a node (an enum without a body), the
/// nearest node above it goes. `None` if that is the entry itself.
fn drop_step(tree: &mut Value, steps: &[Step], at: &mut Location) -> Option<()> {
    let mut steps = steps;
    loop {
        let (last, parents) = steps.split_last()?;
        let mut node = Some(&mut *tree);
        for step in parents {
            node = node.and_then(|node| match step {
                Step::Key(key) => node.get_mut(key.as_str()),
                Step::Index(index) => node.get_mut(*index),
            });
        }
        match (node, last) {
            (Some(Value::Object(map)), Step::Key(key)) if map.contains_key(key.as_str()) => {
                map.remove(key.as_str());
                return Some(());
            }
            (Some(Value::Array(list)), Step::Index(index)) if *index < list.len() => {
                list.remove(*index);
                let list_path = at.undropped(&path_text(parents));
                let index = at.written_index(&list_path, *index);
                at.dropped.push((list_path, index));
                return Some(());
            }
            _ => steps = parents,
        }
    }
}

fn quoted_after<'a>(text: &'a str, start: &str) -> Option<&'a str> {
    text.strip_prefix(start)?.split('`').nth(1)
}

/// serde's words in ours, with a suggestion; values are left out, because one of them may be a pasted credential.
fn explain(reason: &str, kind: Kind) -> (String, Option<String>) {
    if let Some(field) = quoted_after(reason, "unknown field") {
        let hint = suggest::did_you_mean(field, reason.split('`').skip(3).step_by(2));
        return (format!("unknown field `{field}`"), hint);
    }
    if let Some(found) = quoted_after(reason, "unknown variant") {
        let known: Vec<&str> = reason.split('`').skip(3).step_by(2).collect();
        let expected = format!("expected one of {}", known.join(", "));
        let hint = suggest::did_you_mean(found, known.iter().copied());
        return if kind == Kind::Providers {
            (format!("unknown value: {expected}"), hint)
        } else {
            (format!("unknown value `{}`: {expected}", shortened(found)), hint)
        };
    }
    for start in ["invalid type: ", "invalid value: "] {
        if let Some(rest) = reason.strip_prefix(start)
            && let Some((found, expected)) = rest.rsplit_once(", expected ")
        {
            let found = match found.split([' ', '`']).next().unwrap_or("another type") {
                "string" => "a string",
                "integer" | "floating" => found,
                "boolean" => "a boolean",
                "map" => "an object",
                "sequence" => "a list",
                "null" | "unit" => "null",
                other => other,
            };
            return (format!("expected {}, found {found}", wanted(expected)), None);
        }
    }
    (reason.to_owned(), None)
}

fn wanted(expected: &str) -> &str {
    match expected {
        "u64" | "u32" | "u16" | "usize" => "a whole number, zero or more",
        "i32" | "i64" => "a whole number",
        "a sequence" => "a list",
        "a map" => "an object",
        other if other.starts_with("struct ") => "an object",
        other => other,
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(64).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde::Deserialize;
    use serde_json::json;

    #[derive(Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    struct Item {
        size: u64,
        #[serde(default)]
        #[allow(dead_code)]
        colour: Option<Colour>,
    }

    #[derive(Deserialize, Debug)]
    #[serde(rename_all = "snake_case")]
    enum Colour {
        Red,
        Green,
    }

    #[derive(Deserialize, Debug)]
    #[serde(deny_unknown_fields)]
    struct Thing {
        #[allow(dead_code)]
        name: String,
        items: Vec<Item>,
    }

    fn decode(tree: Value) -> (Option<Thing>, Vec<(String, String)>, Location) {
        let mut at = Location::new(&"f.json".into(), Kind::Channels, Some(2));
        let mut problems = Vec::new();
        let thing = entry::<Thing>(tree, &mut at, &mut problems);
        (
            thing,
            problems.into_iter().map(|p| (p.path, p.reason)).collect(),
            at,
        )
    }

    #[test]
    fn every_misfit_is_found_and_keeps_its_index() {
        let (thing, problems, at) = decode(json!({
            "name": "n", "colour": 1,
            "items": [{"size": "x"}, {"size": 1, "colour": "redd"}, {"sise": 3}, {"size": 4, "extra": {}}, {"size": -5}]
        }));
        let paths: Vec<&str> = problems.iter().map(|(path, _)| path.as_str()).collect();
        assert_eq!(
            paths,
            [
                "channels[2].colour",
                "channels[2].items[0].size",
                "channels[2].items[1].colour",
                "channels[2].items[2].sise",
                "channels[2].items[2]",
                "channels[2].items[3].extra",
                "channels[2].items[4].size",
            ]
        );
        let sizes: Vec<u64> = thing.unwrap().items.iter().map(|item| item.size).collect();
        assert_eq!(sizes, [1, 4]);
        // What is left at index 1 was written at index 3.
        assert_eq!(at.path("items[1].size"), "channels[2].items[3].size");
    }

    #[test]
    fn an_entry_without_its_required_field_is_given_up() {
        let (thing, problems, _) = decode(json!({ "items": [] }));
        assert!(thing.is_none());
        assert_eq!(
            problems,
            [("channels[2]".to_owned(), "missing field `name`".to_owned())]
        );
        let (thing, problems, _) = decode(json!({ "name": 7, "items": [] }));
        assert!(thing.is_none());
        assert_eq!(problems.len(), 1, "{problems:?}");
        assert_eq!(problems[0].0, "channels[2].name");
    }

    #[test]
    fn values_are_not_repeated() {
        let (_, problems, _) = decode(json!({ "name": "n", "items": "sk-secret" }));
        assert!(
            problems.iter().all(|(_, reason)| !reason.contains("sk-secret")),
            "{problems:?}"
        );
    }
}
