//! Differences between two JSON values, and taking secrets out of them.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Most changes that are told.
const MOST: usize = 500;
/// What is shown in place of a secret.
const HIDDEN: &str = "***";

/// One place that differs.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Change {
    /// Where: `limits[0].max`.
    pub path: String,
    /// What there was; absent if there was nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Value>,
    /// What there is; absent if there is nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Value>,
}

/// Whether a field of this name holds a secret.
fn is_secret(name: &str) -> bool {
    matches!(
        name,
        "key"
            | "encrypted"
            | "password"
            | "secret"
            | "token"
            | "sha256"
            | "api_key"
            | "authorization"
            | "current"
            | "new"
    )
}

/// The value without its secrets.
pub fn redacted(value: &Value) -> Value {
    match value {
        Value::Object(fields) => {
            let shown = fields.iter().map(|(name, value)| {
                let shown = if is_secret(name) && value.is_string() {
                    HIDDEN.into()
                } else {
                    redacted(value)
                };
                (name.clone(), shown)
            });
            Value::Object(shown.collect())
        }
        Value::Array(list) => list.iter().map(redacted).collect(),
        other => other.clone(),
    }
}

/// Where two values differ, secrets hidden. That a secret has changed shows, from what to what does not.
pub fn changes(before: &Value, after: &Value) -> Vec<Change> {
    let mut found = Vec::new();
    compare(before, after, &mut String::new(), false, &mut found);
    found
}

fn shown(value: &Value, secret: bool) -> Value {
    if secret && value.is_string() {
        HIDDEN.into()
    } else {
        redacted(value)
    }
}

fn compare(before: &Value, after: &Value, path: &mut String, secret: bool, found: &mut Vec<Change>) {
    if before == after || found.len() >= MOST {
        return;
    }
    match (before, after) {
        (Value::Object(before), Value::Object(after)) => {
            let names = before
                .keys()
                .chain(after.keys().filter(|name| !before.contains_key(*name)));
            for name in names {
                let length = path.len();
                if !path.is_empty() {
                    path.push('.');
                }
                path.push_str(name);
                step(before.get(name), after.get(name), path, is_secret(name), found);
                path.truncate(length);
            }
        }
        (Value::Array(before), Value::Array(after)) => {
            for index in 0..before.len().max(after.len()) {
                let length = path.len();
                path.push_str(&format!("[{index}]"));
                step(before.get(index), after.get(index), path, secret, found);
                path.truncate(length);
            }
        }
        _ => step_into(Some(before), Some(after), path, secret, found),
    }
}

fn step(
    before: Option<&Value>,
    after: Option<&Value>,
    path: &mut String,
    secret: bool,
    found: &mut Vec<Change>,
) {
    match (before, after) {
        (Some(before), Some(after)) => compare(before, after, path, secret, found),
        (before, after) => step_into(before, after, path, secret, found),
    }
}

fn step_into(
    before: Option<&Value>,
    after: Option<&Value>,
    path: &str,
    secret: bool,
    found: &mut Vec<Change>,
) {
    if found.len() < MOST {
        found.push(Change {
            path: path.to_owned(),
            from: before.map(|v| shown(v, secret)),
            to: after.map(|v| shown(v, secret)),
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn differences_are_found_where_they_are() {
        let before = json!({"code": "a", "limits": [{"max": 5}, {"max": 7}], "tags": ["x"], "gone": 1});
        let after = json!({"code": "a", "limits": [{"max": 6}], "tags": ["x", "y"], "fresh": {"a": 1}});
        let found = changes(&before, &after);
        let told: Vec<String> = found
            .iter()
            .map(|c| {
                format!(
                    "{}: {:?} {:?}",
                    c.path,
                    c.from.as_ref().map(Value::to_string),
                    c.to.as_ref().map(Value::to_string)
                )
            })
            .collect();
        assert_eq!(
            told,
            [
                "gone: Some(\"1\") None",
                "limits[0].max: Some(\"5\") Some(\"6\")",
                "limits[1]: Some(\"{\\\"max\\\":7}\") None",
                "tags[1]: None Some(\"\\\"y\\\"\")",
                "fresh: None Some(\"{\\\"a\\\":1}\")",
            ]
        );
        assert!(changes(&before, &before).is_empty());
    }

    #[test]
    fn secrets_are_hidden_but_their_change_shows() {
        let with = |key: &str| json!({"id": "p", "credentials": {"type": "bearer", "key": key}, "keys": [{"id": "k", "sha256": key}]});
        let found = changes(&with("sk-1"), &with("sk-2"));
        assert_eq!(found.len(), 2);
        assert!(!format!("{found:?}").contains("sk-"), "{found:?}");
        let added = changes(&json!({}), &with("sk-3"));
        assert!(
            !format!("{added:?}{}", redacted(&with("sk-3"))).contains("sk-"),
            "{added:?}"
        );
    }
}
