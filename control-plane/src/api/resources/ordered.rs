//! JSON that keeps the order of its fields, and a printer for people.

use std::fmt;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::Value;

/// Longest text that stands on one line.
const WIDTH: usize = 100;

/// A JSON value.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Json {
    Object(Vec<(String, Json)>),
    Array(Vec<Json>),
    Scalar(Value),
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Json, D::Error> {
        struct Any;
        impl<'de> Visitor<'de> for Any {
            type Value = Json;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("JSON")
            }
            fn visit_bool<E>(self, v: bool) -> Result<Json, E> {
                Ok(Json::Scalar(v.into()))
            }
            fn visit_i64<E>(self, v: i64) -> Result<Json, E> {
                Ok(Json::Scalar(v.into()))
            }
            fn visit_u64<E>(self, v: u64) -> Result<Json, E> {
                Ok(Json::Scalar(v.into()))
            }
            fn visit_f64<E>(self, v: f64) -> Result<Json, E> {
                Ok(Json::Scalar(v.into()))
            }
            fn visit_str<E>(self, v: &str) -> Result<Json, E> {
                Ok(Json::Scalar(v.into()))
            }
            fn visit_unit<E>(self) -> Result<Json, E> {
                Ok(Json::Scalar(Value::Null))
            }
            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Json, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = seq.next_element()? {
                    list.push(item);
                }
                Ok(Json::Array(list))
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Json, A::Error> {
                let mut fields = Vec::new();
                while let Some(field) = map.next_entry()? {
                    fields.push(field);
                }
                Ok(Json::Object(fields))
            }
        }
        deserializer.deserialize_any(Any)
    }
}

impl Json {
    /// From text.
    pub fn parse(text: &[u8]) -> Result<Json, serde_json::Error> {
        serde_json::from_slice(text)
    }

    /// Without the order; of fields that stand twice the last counts.
    pub fn to_value(&self) -> Value {
        match self {
            Json::Object(fields) => fields
                .iter()
                .map(|(name, v)| (name.clone(), v.to_value()))
                .collect(),
            Json::Array(list) => list.iter().map(Json::to_value).collect(),
            Json::Scalar(value) => value.clone(),
        }
    }

    /// A field of an object.
    pub fn get(&self, name: &str) -> Option<&Json> {
        match self {
            Json::Object(fields) => fields.iter().find(|(n, _)| n == name).map(|(_, v)| v),
            _ => None,
        }
    }

    /// A field that is a text.
    pub fn text(&self, name: &str) -> Option<&str> {
        match self.get(name) {
            Some(Json::Scalar(Value::String(text))) => Some(text),
            _ => None,
        }
    }

    /// A field of an object, which is made if it is not there; `None` if this is no object.
    pub fn entry(&mut self, name: &str, default: Json) -> Option<&mut Json> {
        let Json::Object(fields) = self else {
            return None;
        };
        if !fields.iter().any(|(n, _)| n == name) {
            fields.push((name.to_owned(), default));
        }
        fields.iter_mut().find(|(n, _)| n == name).map(|(_, v)| v)
    }

    /// Applies a merge patch (RFC 7396).
    pub fn merge(&mut self, patch: &Json) {
        let Json::Object(changes) = patch else {
            *self = patch.clone();
            return;
        };
        if !matches!(self, Json::Object(_)) {
            *self = Json::Object(Vec::new());
        }
        let Json::Object(fields) = self else {
            return;
        };
        for (name, change) in changes {
            if *change == Json::Scalar(Value::Null) {
                fields.retain(|(n, _)| n != name);
            } else if let Some((_, present)) = fields.iter_mut().find(|(n, _)| n == name) {
                present.merge(change);
            } else {
                let mut fresh = Json::Object(Vec::new());
                fresh.merge(change);
                fields.push((name.clone(), fresh));
            }
        }
    }

    /// On one line.
    fn line(&self, out: &mut String) {
        match self {
            Json::Object(fields) if fields.is_empty() => out.push_str("{}"),
            Json::Object(fields) => {
                for (n, (name, value)) in fields.iter().enumerate() {
                    out.push_str(if n == 0 { "{ " } else { ", " });
                    out.push_str(&Value::from(name.as_str()).to_string());
                    out.push_str(": ");
                    value.line(out);
                }
                out.push_str(" }");
            }
            Json::Array(list) => {
                out.push('[');
                for (n, value) in list.iter().enumerate() {
                    if n > 0 {
                        out.push_str(", ");
                    }
                    value.line(out);
                }
                out.push(']');
            }
            Json::Scalar(value) => out.push_str(&value.to_string()),
        }
    }

    /// For people: what is short stands on one line, everything else on lines of its own, further in than `indent`.
    pub fn pretty(&self, indent: &str) -> String {
        let mut out = String::new();
        self.print(indent, &mut out);
        out
    }

    fn print(&self, indent: &str, out: &mut String) {
        let mut line = String::new();
        self.line(&mut line);
        if line.len() + indent.len() <= WIDTH {
            out.push_str(&line);
            return;
        }
        let inner = format!("{indent}  ");
        let (open, close) = match self {
            Json::Object(fields) => {
                out.push('{');
                for (n, (name, value)) in fields.iter().enumerate() {
                    let comma = if n == 0 { "" } else { "," };
                    out.push_str(&format!("{comma}\n{inner}{}: ", Value::from(name.as_str())));
                    value.print(&inner, out);
                }
                (true, '}')
            }
            Json::Array(list) => {
                out.push('[');
                for (n, value) in list.iter().enumerate() {
                    let comma = if n == 0 { "" } else { "," };
                    out.push_str(&format!("{comma}\n{inner}"));
                    value.print(&inner, out);
                }
                (true, ']')
            }
            Json::Scalar(_) => (false, ' '),
        };
        if open {
            out.push_str(&format!("\n{indent}{close}"));
        } else {
            out.push_str(&line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn json(text: &str) -> Json {
        Json::parse(text.as_bytes()).unwrap()
    }

    #[test]
    fn a_patch_keeps_the_order_and_follows_the_rfc() {
        let mut value = json(r#"{"z": 1, "a": {"x": 1, "y": [1, 2]}, "m": "t"}"#);
        value.merge(&json(
            r#"{"a": {"x": null, "w": {"n": null, "k": 1}}, "m": null, "y": [3]}"#,
        ));
        let mut line = String::new();
        value.line(&mut line);
        assert_eq!(
            line,
            r#"{ "z": 1, "a": { "y": [1, 2], "w": { "k": 1 } }, "y": [3] }"#
        );
        // Examples of RFC 7396, appendix A.
        for (target, patch, result) in [
            (r#"{"a":"b"}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":["b"]}"#, r#"{"a":"c"}"#, r#"{"a":"c"}"#),
            (r#"{"a":[{"b":"c"}]}"#, r#"{"a":[1]}"#, r#"{"a":[1]}"#),
            (r#"["a","b"]"#, r#"["c","d"]"#, r#"["c","d"]"#),
            (r#"{"a":"foo"}"#, "null", "null"),
            (r#"{"e":null}"#, r#"{"a":1}"#, r#"{"e":null,"a":1}"#),
            ("[1,2]", r#"{"a":"b","c":null}"#, r#"{"a":"b"}"#),
            ("{}", r#"{"a":{"bb":{"ccc":null}}}"#, r#"{"a":{"bb":{}}}"#),
        ] {
            let mut value = json(target);
            value.merge(&json(patch));
            assert_eq!(value, json(result), "{target} {patch}");
        }
    }

    #[test]
    fn what_is_printed_reads_back() {
        let text = r#"{"code":"a","limits":[{"metric":"input_tokens","max":10000,"window":"10m"},{"metric":"output_tokens","max":8000,"window":"10m","model":"gpt-4o"}],"f":1.5,"q":"\"\\\n"}"#;
        let value = json(text);
        let printed = value.pretty("  ");
        assert!(
            printed.lines().count() > 3 && printed.lines().all(|l| l.len() <= WIDTH),
            "{printed}"
        );
        assert_eq!(json(&printed), value);
    }

    proptest! {
        #[test]
        fn any_value_reads_back(depth in 0usize..6, texts in proptest::collection::vec(".{0,30}", 1..8)) {
            let mut value = Json::Array(texts.iter().map(|t| Json::Scalar(t.as_str().into())).collect());
            for n in 0..depth {
                let name = texts[n % texts.len()].clone();
                value = Json::Object(vec![(name, value.clone()), (format!("k{n}"), value)]);
            }
            prop_assert_eq!(&Json::parse(value.pretty("    ").as_bytes()).unwrap(), &value);
        }
    }
}
