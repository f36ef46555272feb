//! What differs between two versions of a document, in the document's own terms: entries by their name instead of their
//! place, one line per value.

use schemars::JsonSchema;
use serde::Serialize;
use serde_json::Value;
use tollgate_policy::Kind;

use super::redacted;

/// The fields that name an entry of a list, in the order in which they are looked for.
const NAMES: [&str; 3] = ["code", "id", "name"];
/// Most values that are told one by one.
pub const MOST: usize = 200;

/// A value that differs.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct Difference {
    /// Where: `channels[wechat001].limits[0].max`.
    pub path: String,
    /// Its value before; nothing if it was not there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub old: Option<Value>,
    /// Its value after; nothing if it is gone.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub new: Option<Value>,
}

/// What differs between two versions of one document.
#[derive(Clone, Debug, PartialEq, Serialize, JsonSchema)]
pub struct DocumentDiff {
    /// Its name.
    pub document: String,
    /// `added`, `removed` or `changed`.
    pub change: &'static str,
    /// The values, at most `MOST`.
    pub differences: Vec<Difference>,
    /// Values that are not listed.
    pub more: usize,
}

/// Compares two versions of a document; `None` if they are the same, byte for byte. Credentials are taken out first.
pub fn diff(name: &str, old: Option<&[u8]>, new: Option<&[u8]>) -> Option<DocumentDiff> {
    if old == new {
        return None;
    }
    let change = match (old, new) {
        (None, _) => "added",
        (_, None) => "removed",
        _ => "changed",
    };
    let mut found = DocumentDiff {
        document: name.to_owned(),
        change,
        differences: Vec::new(),
        more: 0,
    };
    if let (Some(old), Some(new)) = (old, new) {
        match (tree(name, old), tree(name, new)) {
            (Some(a), Some(b)) => {
                compare(&mut found, "", Some(&a), Some(&b));
                // What was taken out, or how the text is written.
                if found.differences.is_empty() {
                    let secrets = Kind::from_file_name(name).is_some_and(Kind::holds_secrets);
                    let what = if secrets {
                        "a credential, or the layout of the text"
                    } else {
                        "the layout of the text"
                    };
                    found.push("", None, Some(&what.into()));
                }
            }
            _ => {
                let size = |bytes: &[u8]| Value::from(format!("{} bytes that cannot be shown", bytes.len()));
                found.push("", Some(&size(old)), Some(&size(new)));
            }
        }
    }
    Some(found)
}

fn tree(name: &str, bytes: &[u8]) -> Option<Value> {
    if Kind::from_file_name(name).is_some_and(Kind::holds_secrets) {
        return serde_json::from_slice(&redacted(bytes)?).ok();
    }
    serde_json::from_slice(bytes).ok()
}

impl DocumentDiff {
    fn push(&mut self, path: &str, old: Option<&Value>, new: Option<&Value>) {
        if self.differences.len() >= MOST {
            self.more += 1;
            return;
        }
        self.differences.push(Difference {
            path: path.to_owned(),
            old: old.cloned(),
            new: new.cloned(),
        });
    }
}

/// The name of a list's entry, if all entries have one of the same kind.
fn naming<'a>(list: &'a [Value], other: &'a [Value]) -> Option<&'static str> {
    let named = |name: &str, value: &'a Value| value.get(name).is_some_and(Value::is_string);
    NAMES
        .into_iter()
        .find(|name| list.iter().chain(other).all(|value| named(name, value)))
}

fn compare(into: &mut DocumentDiff, path: &str, old: Option<&Value>, new: Option<&Value>) {
    if old == new {
        return;
    }
    match (old, new) {
        (Some(Value::Object(a)), Some(Value::Object(b))) => {
            let gone = a.keys().filter(|key| !b.contains_key(*key));
            for key in gone.chain(b.keys()) {
                let path = if path.is_empty() {
                    key.clone()
                } else {
                    format!("{path}.{key}")
                };
                compare(into, &path, a.get(key), b.get(key));
            }
        }
        (Some(Value::Array(a)), Some(Value::Array(b))) => match naming(a, b) {
            Some(field) => by_name(into, path, field, a, b),
            None => {
                for index in 0..a.len().max(b.len()) {
                    compare(into, &format!("{path}[{index}]"), a.get(index), b.get(index));
                }
            }
        },
        _ => into.push(path, old, new),
    }
}

fn by_name(into: &mut DocumentDiff, path: &str, field: &str, a: &[Value], b: &[Value]) {
    use std::collections::BTreeMap;
    let name = |value: &Value| {
        value
            .get(field)
            .and_then(Value::as_str)
            .unwrap_or_default()
            .to_owned()
    };
    let old: BTreeMap<String, &Value> = a.iter().map(|v| (name(v), v)).collect();
    let new: BTreeMap<String, &Value> = b.iter().map(|v| (name(v), v)).collect();
    let before = into.differences.len() + into.more;
    for key in old.keys().filter(|k| !new.contains_key(*k)).chain(new.keys()) {
        compare(
            into,
            &format!("{path}[{key}]"),
            old.get(key).copied(),
            new.get(key).copied(),
        );
    }
    if into.differences.len() + into.more == before {
        // Nothing but the order, or entries of the same name.
        into.push(path, Some(&"another order".into()), Some(&"another order".into()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn shown(old: &Value, new: &Value) -> Vec<String> {
        let found = diff(
            "channels.json",
            Some(old.to_string().as_bytes()),
            Some(new.to_string().as_bytes()),
        );
        let show = |v: &Option<Value>| v.as_ref().map_or("-".to_owned(), Value::to_string);
        found.map_or(Vec::new(), |d| {
            d.differences
                .iter()
                .map(|d| format!("{} {} {}", d.path, show(&d.old), show(&d.new)))
                .collect()
        })
    }

    #[test]
    fn entries_go_by_their_name_and_values_stand_alone() {
        let old = json!({"channels": [
            {"code": "a", "limits": [{"metric": "requests", "max": 1}]}, {"code": "b"}]});
        let new = json!({"channels": [
            {"code": "c"}, {"code": "a", "limits": [{"metric": "requests", "max": 2}], "tags": ["x"]}]});
        assert_eq!(
            shown(&old, &new),
            [
                r#"channels[b] {"code":"b"} -"#,
                "channels[a].limits[0].max 1 2",
                r#"channels[a].tags - ["x"]"#,
                r#"channels[c] - {"code":"c"}"#,
            ]
        );
        assert!(shown(&old, &old).is_empty());
    }

    #[test]
    fn another_order_or_layout_is_a_difference_too() {
        let (old, new) = (
            json!({"channels": [{"code": "a"}, {"code": "b"}]}),
            json!({"channels": [{"code": "b"}, {"code": "a"}]}),
        );
        assert_eq!(shown(&old, &new), [r#"channels "another order" "another order""#]);
        let spaced = diff("rules.json", Some(b"{\"rules\":[]}"), Some(b"{ \"rules\": [] }")).unwrap();
        assert_eq!(spaced.differences.len(), 1);
        assert_eq!(diff("rules.json", None, Some(b"1")).unwrap().change, "added");
        assert_eq!(diff("rules.json", Some(b"1"), None).unwrap().change, "removed");
    }

    #[test]
    fn credentials_are_not_shown_and_long_lists_end() {
        let provider = |key: &str| {
            json!({"providers": [{"id": "p", "credentials": {"type": "bearer", "key": key}}]})
                .to_string()
                .into_bytes()
        };
        let found = diff(
            "providers.json",
            Some(&provider("sk-one")),
            Some(&provider("sk-two")),
        )
        .unwrap();
        let text = serde_json::to_string(&found).unwrap();
        assert!(!text.contains("sk-") && text.contains("credential"), "{text}");
        let many = |n: usize| json!({"rules": (0..300).map(|i| i * n).collect::<Vec<_>>()}).to_string();
        let found = diff("rules.json", Some(many(1).as_bytes()), Some(many(2).as_bytes())).unwrap();
        assert_eq!((found.differences.len(), found.more), (MOST, 99));
    }
}
