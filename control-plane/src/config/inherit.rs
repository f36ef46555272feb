//! What an instance has of its own: `tollgate.instance.<id>.json` over the documents that all instances share.
//!
//! ```json
//! { "instance": { "settings": { "api": { "listen": "10.0.0.7:9180" } },
//!                 "providers": { "openai": { "base_url": "https://eu.example.com/v1" } } } }
//! ```
//!
//! `settings` and each entry of `providers` and `models` are merge patches (RFC 7396) over what stands in the shared
//! documents: objects are merged field by field, everything else is replaced as a whole, lists included, and `null` takes
//! a field away, so that its default counts. An entry that no shared document has is an error: an instance changes what
//! the cluster has and adds nothing of its own. Channels, rules and limits cannot be overridden, because they are what
//! the instances must agree on.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::{Map, Value};
use tollgate_policy::{Kind, Problem};

use super::{Document, DocumentSet};

/// Kinds whose entries can be overridden, and the field that names an entry.
const ENTRIES: [(Kind, &str); 2] = [(Kind::Providers, "id"), (Kind::Models, "name")];

/// A value that an instance has of its own.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Override {
    /// Where it is: `settings.api.listen`, `providers[openai].base_url`.
    pub path: String,
    /// The document that it is from.
    pub document: String,
    /// The instance's value; `null` if it takes the cluster's away.
    pub value: Value,
    /// The document that the cluster's value is from; empty if it is a default.
    pub inherited_document: String,
    /// The cluster's value; `null` for the default.
    pub inherited: Value,
}

/// The documents as one instance sees them.
#[derive(Clone, Debug, Default)]
pub struct Effective {
    /// Without any instance's own document, and with this one's values.
    pub documents: Vec<Document>,
    /// What differs from the cluster's.
    pub overrides: Vec<Override>,
    /// What is wrong with the instance's document.
    pub problems: Vec<Problem>,
}

/// The instance that a document is about, if it is that kind of document.
pub fn instance_of(name: &str) -> Option<&str> {
    let stem = name.strip_suffix(".json")?;
    let stem = stem.strip_prefix("tollgate.").unwrap_or(stem);
    stem.strip_prefix("instance.").filter(|id| !id.is_empty())
}

/// The name of an instance's own document.
pub fn document_of(instance: &str) -> String {
    format!("tollgate.instance.{instance}.json")
}

/// The documents of a set as its instance sees them.
pub fn effective(set: &DocumentSet) -> Effective {
    let (own, shared): (Vec<Document>, Vec<Document>) = set
        .documents
        .iter()
        .cloned()
        .partition(|d| instance_of(&d.name).is_some());
    let mut found = Effective {
        documents: shared,
        ..Effective::default()
    };
    let Some(instance) = set.instance.as_deref() else {
        return found;
    };
    let own: Vec<&Document> = own
        .iter()
        .filter(|d| instance_of(&d.name) == Some(instance))
        .collect();
    match own.as_slice() {
        [] => {}
        [document] => found.merge(document),
        [first, second, ..] => found.problems.push(Problem::error(
            &*second.name,
            "",
            format!("the instance has a document already, `{}`", first.name),
        )),
    }
    found
}

impl Effective {
    fn merge(&mut self, own: &Document) {
        let wrong = |path: &str, reason: String| Problem::error(&*own.name, path, reason);
        let top: Map<String, Value> = match serde_json::from_slice(&own.bytes) {
            Ok(Value::Object(top)) => top,
            Ok(_) => {
                return self
                    .problems
                    .push(wrong("", "expected an object with the key `instance`".into()));
            }
            Err(error) => {
                let place = format!("line {} column {}", error.line(), error.column());
                return self.problems.push(wrong(&place, "not JSON".into()));
            }
        };
        for (key, content) in top {
            match content {
                Value::Object(parts) if key == "instance" => {
                    for (part, patch) in parts {
                        self.merge_part(own, &part, patch);
                    }
                }
                _ if key == "instance" => {
                    self.problems.push(wrong("instance", "expected an object".into()));
                }
                _ => self.problems.push(wrong(&key, format!("unknown field `{key}`"))),
            }
        }
    }

    fn merge_part(&mut self, own: &Document, part: &str, patch: Value) {
        let at = format!("instance.{part}");
        let entries = ENTRIES.into_iter().find(|(kind, _)| kind.name() == part);
        match (patch, entries) {
            (Value::Object(patch), None) if part == Kind::Settings.name() => self.merge_settings(own, patch),
            (Value::Object(patches), Some((kind, id))) => {
                for (entry, patch) in patches {
                    self.merge_entry(own, kind, id, &entry, patch);
                }
            }
            (_, Some(_)) => self
                .problems
                .push(Problem::error(&*own.name, at, "expected an object")),
            (_, None) if part == Kind::Settings.name() => {
                self.problems
                    .push(Problem::error(&*own.name, at, "expected an object"));
            }
            (_, None) => {
                let reason =
                    format!("an instance cannot override `{part}`: expected settings, providers or models");
                self.problems.push(Problem::error(&*own.name, at, reason));
            }
        }
    }

    fn merge_settings(&mut self, own: &Document, patch: Map<String, Value>) {
        let kind = Kind::Settings;
        let place = self.documents.iter().position(|d| d.kind() == Some(kind));
        let shared = place.and_then(|i| self.documents.get(i));
        let from = shared.map(|d| d.name.clone()).unwrap_or_default();
        let mut tree = match shared.map(|d| serde_json::from_slice(&d.bytes)) {
            None => Value::Object(Map::from_iter([(
                kind.name().to_owned(),
                Value::Object(Map::new()),
            )])),
            Some(Ok(tree)) => tree,
            // The shared document's own problem, and reported as such.
            Some(Err(_)) => return,
        };
        let Some(settings) = tree.get_mut(kind.name()) else {
            return;
        };
        note(&mut self.overrides, kind.name(), own, &from, &patch, settings);
        merge(settings, Value::Object(patch));
        let name = if from.is_empty() {
            "tollgate.settings.json".to_owned()
        } else {
            from
        };
        let merged = Document::new(name, tree.to_string().into_bytes());
        match place.and_then(|i| self.documents.get_mut(i)) {
            Some(document) => *document = merged,
            None => self.documents.push(merged),
        }
    }

    fn merge_entry(&mut self, own: &Document, kind: Kind, id: &str, entry: &str, patch: Value) {
        let at = format!("instance.{}.{entry}", kind.name());
        let Value::Object(patch) = patch else {
            let reason = "expected an object";
            return self.problems.push(Problem::error(&*own.name, at, reason));
        };
        if patch.contains_key(id) {
            let reason = format!("`{id}` cannot be overridden");
            return self
                .problems
                .push(Problem::error(&*own.name, format!("{at}.{id}"), reason));
        }
        for document in self.documents.iter_mut().filter(|d| d.kind() == Some(kind)) {
            let Ok(mut tree) = serde_json::from_slice::<Value>(&document.bytes) else {
                continue;
            };
            let list = tree.get_mut(kind.name()).and_then(Value::as_array_mut);
            let named = |value: &&mut Value| value.get(id).and_then(Value::as_str) == Some(entry);
            let Some(value) = list.and_then(|l| l.iter_mut().find(named)) else {
                continue;
            };
            let path = format!("{}[{entry}]", kind.name());
            note(&mut self.overrides, &path, own, &document.name, &patch, value);
            merge(value, Value::Object(patch));
            *document = Document::new(document.name.clone(), tree.to_string().into_bytes());
            return;
        }
        let reason = format!("there is no `{entry}` among the shared {}", kind.name());
        self.problems.push(Problem::error(&*own.name, at, reason));
    }

    /// Says of problems with a value that an instance has of its own in which document it stands.
    pub fn relocate(&self, problems: &mut [Problem]) {
        let own: BTreeMap<&str, &str> = self
            .overrides
            .iter()
            .filter(|o| o.path.starts_with("settings."))
            .map(|o| (o.path.as_str(), o.document.as_str()))
            .collect();
        for problem in problems {
            let of = own.iter().find(|(path, _)| {
                let rest = problem.path.strip_prefix(**path);
                rest.is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
            });
            if let Some((_, document)) = of {
                (*document).clone_into(&mut problem.document);
                problem.path = format!("instance.{}", problem.path);
            }
        }
    }
}

/// RFC 7396.
fn merge(target: &mut Value, patch: Value) {
    let Value::Object(patch) = patch else {
        *target = patch;
        return;
    };
    if !target.is_object() {
        *target = Value::Object(Map::new());
    }
    let Some(fields) = target.as_object_mut() else {
        return;
    };
    for (name, value) in patch {
        if value.is_null() {
            fields.remove(&name);
        } else {
            merge(fields.entry(name).or_insert(Value::Null), value);
        }
    }
}

/// Notes every value of a patch that is not an object, beside what it replaces.
fn note(
    into: &mut Vec<Override>,
    path: &str,
    own: &Document,
    from: &str,
    patch: &Map<String, Value>,
    shared: &Value,
) {
    for (name, value) in patch {
        let path = format!("{path}.{name}");
        let inherited = shared.get(name).cloned().unwrap_or_default();
        // The text of a credential is nobody's business.
        let secret = path.contains(".credentials");
        match value {
            Value::Object(inner) if !secret => note(into, &path, own, from, inner, &inherited),
            _ => into.push(Override {
                document: own.name.clone(),
                value: if secret { "***".into() } else { value.clone() },
                inherited_document: if inherited.is_null() {
                    String::new()
                } else {
                    from.to_owned()
                },
                inherited: if secret { "***".into() } else { inherited },
                path,
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn set(instance: &str, documents: &[(&str, Value)]) -> DocumentSet {
        DocumentSet {
            documents: documents
                .iter()
                .map(|(name, value)| Document::new(*name, value.to_string().into_bytes()))
                .collect(),
            instance: Some(instance.to_owned()),
            ..DocumentSet::default()
        }
    }

    fn content(found: &Effective, name: &str) -> Value {
        let document = found.documents.iter().find(|d| d.name == name).unwrap();
        serde_json::from_slice(&document.bytes).unwrap()
    }

    #[test]
    fn an_instance_has_the_cluster_s_values_and_its_own() {
        let settings =
            json!({"settings": {"api": {"listen": "a:1"}, "trusted_proxies": ["10.0.0.0/8", "::1"], "x": 1}});
        let providers = json!({"providers": [{"id": "p", "base_url": "https://one"}, {"id": "q"}]});
        let own = json!({"instance": {
            "settings": {"api": {"listen": "b:2"}, "trusted_proxies": ["::2"], "x": null, "y": 3},
            "providers": {"p": {"base_url": "https://two"}}}});
        let documents = [
            ("tollgate.settings.json", settings.clone()),
            ("providers.json", providers.clone()),
            ("tollgate.instance.one.json", own),
        ];
        let found = effective(&set("one", &documents));
        assert!(found.problems.is_empty(), "{:?}", found.problems);
        assert_eq!(found.documents.len(), 2);
        assert_eq!(
            content(&found, "tollgate.settings.json"),
            json!({"settings": {"api": {"listen": "b:2"}, "trusted_proxies": ["::2"], "y": 3}})
        );
        assert_eq!(
            content(&found, "providers.json"),
            json!({"providers": [{"id": "p", "base_url": "https://two"}, {"id": "q"}]})
        );
        let shown: Vec<_> = found
            .overrides
            .iter()
            .map(|o| {
                (
                    o.path.as_str(),
                    &o.value,
                    &o.inherited,
                    o.inherited_document.as_str(),
                )
            })
            .collect();
        assert_eq!(
            shown,
            [
                (
                    "providers[p].base_url",
                    &json!("https://two"),
                    &json!("https://one"),
                    "providers.json"
                ),
                (
                    "settings.api.listen",
                    &json!("b:2"),
                    &json!("a:1"),
                    "tollgate.settings.json"
                ),
                (
                    "settings.trusted_proxies",
                    &json!(["::2"]),
                    &json!(["10.0.0.0/8", "::1"]),
                    "tollgate.settings.json"
                ),
                ("settings.x", &Value::Null, &json!(1), "tollgate.settings.json"),
                ("settings.y", &json!(3), &Value::Null, ""),
            ]
        );
        // Another instance has the cluster's values, and so has whoever is no instance.
        for other in [Some("two".to_owned()), None] {
            let mut of_other = set("", &documents);
            of_other.instance = other;
            let found = effective(&of_other);
            assert_eq!(content(&found, "tollgate.settings.json"), settings);
            assert_eq!(content(&found, "providers.json"), providers);
            assert!(found.overrides.is_empty() && found.problems.is_empty());
        }
    }

    #[test]
    fn settings_that_nobody_shares_are_the_instance_s_own() {
        let own = json!({"instance": {"settings": {"api": {"listen": "b:2"}}}});
        let found = effective(&set("one", &[("instance.one.json", own)]));
        assert_eq!(
            content(&found, "tollgate.settings.json"),
            json!({"settings": {"api": {"listen": "b:2"}}})
        );
    }

    #[test]
    fn what_cannot_be_overridden_is_said() {
        for (own, path, word) in [
            (json!([]), "", "object"),
            (json!({"instanse": {}}), "instanse", "unknown"),
            (json!({"instance": []}), "instance", "object"),
            (
                json!({"instance": {"channels": {}}}),
                "instance.channels",
                "cannot",
            ),
            (
                json!({"instance": {"settings": 1}}),
                "instance.settings",
                "object",
            ),
            (
                json!({"instance": {"providers": {"q": {}}}}),
                "instance.providers.q",
                "no `q`",
            ),
            (
                json!({"instance": {"providers": {"p": 1}}}),
                "instance.providers.p",
                "object",
            ),
            (
                json!({"instance": {"providers": {"p": {"id": "z"}}}}),
                "instance.providers.p.id",
                "cannot",
            ),
        ] {
            let documents = [
                ("providers.json", json!({"providers": [{"id": "p"}]})),
                ("instance.one.json", own.clone()),
            ];
            let found = effective(&set("one", &documents));
            let [problem] = found.problems.as_slice() else {
                panic!("{own}: {:?}", found.problems);
            };
            assert_eq!(
                (problem.document.as_str(), problem.path.as_str()),
                ("instance.one.json", path)
            );
            assert!(problem.reason.contains(word), "{problem}");
        }
    }

    #[test]
    fn a_problem_is_shown_where_the_value_stands() {
        let documents = [
            ("settings.json", json!({"settings": {"region": {"counters": 1}}})),
            (
                "instance.one.json",
                json!({"instance": {"settings": {"api": {"listen": "x"}}}}),
            ),
        ];
        let found = effective(&set("one", &documents));
        let mut problems = [
            Problem::error("settings.json", "settings.api.listen", "no address"),
            Problem::error("settings.json", "settings.region.counters", "too few"),
        ];
        found.relocate(&mut problems);
        assert_eq!(problems[0].document, "instance.one.json");
        assert_eq!(problems[0].path, "instance.settings.api.listen");
        assert_eq!(problems[1].document, "settings.json");
    }
}
