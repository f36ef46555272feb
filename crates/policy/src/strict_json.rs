//! JSON into a tree, with duplicate object keys reported instead of silently overridden.

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use std::{cell::RefCell, fmt};

/// A parsed document and the paths of keys that its objects name twice (the first one counts).
pub(crate) struct Parsed {
    pub value: Value,
    pub duplicates: Vec<String>,
}

/// Why a text is no JSON document.
pub(crate) struct SyntaxError {
    pub line: usize,
    pub column: usize,
    pub reason: String,
}

/// Parses `bytes`; nesting is limited to 128 levels, numbers to what JSON numbers of Rust hold (`1e999` is an error).
pub(crate) fn parse(bytes: &[u8]) -> Result<Parsed, SyntaxError> {
    // A byte order mark is what some editors write; it is not JSON, and it is not worth an outage either.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let duplicates = RefCell::new(Vec::new());
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    let value = Node {
        place: None,
        duplicates: &duplicates,
    }
    .deserialize(&mut deserializer)
    .and_then(|value| deserializer.end().map(|()| value))
    .map_err(|error| {
        let text = error.to_string();
        let reason = text.split(" at line ").next().unwrap_or(&text).to_owned();
        SyntaxError {
            line: error.line(),
            column: error.column(),
            reason,
        }
    })?;
    Ok(Parsed {
        value,
        duplicates: duplicates.into_inner(),
    })
}

/// Where the parser stands: a chain of stack frames, so that paths cost nothing until one is needed.
#[derive(Clone, Copy)]
enum Step<'p> {
    Key(&'p str),
    Index(usize),
}

#[derive(Clone, Copy)]
struct Place<'p> {
    parent: Option<&'p Place<'p>>,
    step: Step<'p>,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent {
            parent.fmt(f)?;
        }
        match self.step {
            Step::Key(key) if self.parent.is_some() => write!(f, ".{key}"),
            Step::Key(key) => f.write_str(key),
            Step::Index(index) => write!(f, "[{index}]"),
        }
    }
}

struct Node<'p> {
    place: Option<&'p Place<'p>>,
    duplicates: &'p RefCell<Vec<String>>,
}

impl<'de> DeserializeSeed<'de> for Node<'_> {
    type Value = Value;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Node<'_> {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("any JSON value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        Number::from_f64(value)
            .map(Value::Number)
            .ok_or_else(|| E::custom("number out of range"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        loop {
            let place = Place {
                parent: self.place,
                step: Step::Index(list.len()),
            };
            match items.next_element_seed(Node {
                place: Some(&place),
                duplicates: self.duplicates,
            })? {
                Some(item) => list.push(item),
                None => return Ok(Value::Array(list)),
            }
        }
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut map = Map::new();
        while let Some(key) = entries.next_key::<String>()? {
            let place = Place {
                parent: self.place,
                step: Step::Key(&key),
            };
            let value = entries.next_value_seed(Node {
                place: Some(&place),
                duplicates: self.duplicates,
            })?;
            if map.contains_key(&key) {
                self.duplicates.borrow_mut().push(place.to_string());
            } else {
                map.insert(key, value);
            }
        }
        Ok(Value::Object(map))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn duplicate_keys_are_named() {
        let parsed = parse(br#"{"a":{"b":[{"c":1,"d":2,"c":3}]},"a":0}"#).ok().unwrap();
        assert_eq!(parsed.duplicates, ["a.b[0].c", "a"]);
        assert_eq!(parsed.value["a"]["b"][0]["c"], 1);
    }

    #[test]
    fn syntax_errors_have_a_place() {
        let error = parse(b"{\n  \"a\": ]\n}").err().unwrap();
        assert_eq!((error.line, error.column), (2, 8));
        assert!(!error.reason.contains("line"), "{}", error.reason);
        for bad in [
            &b"1e999"[..],
            b"",
            b"{} x",
            b"\"\xff\"",
            "[".repeat(100_000).as_bytes(),
            b"{\"a\":1,}",
        ] {
            assert!(parse(bad).is_err());
        }
        assert!(parse(b"\xef\xbb\xbf{}").is_ok());
    }
}
