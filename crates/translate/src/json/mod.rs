//! JSON that is checked once and then walked where it lies: no tree, no allocation, exact numbers, strings copied
//! as they are escaped. What is asked for a second time is skipped over a second time, which is cheap because strings
//! are skipped at vector speed; walks go only as deep as the protocols do.

mod write;

use std::borrow::Cow;
use std::fmt;

use memchr::{memchr, memchr2};
use serde_json::value::RawValue;

pub(crate) use write::{Array, Object, escape, quoted};

/// Why a text is not JSON; lines and columns as `serde_json` counts them. Contains nothing of the text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SyntaxError(String);

impl fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SyntaxError {}

/// One valid JSON value, without white space around it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Json<'a>(&'a str);

/// The inside of a JSON string, escaped as it stands.
#[derive(Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Str<'a>(&'a str);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

impl<'a> Json<'a> {
    pub(crate) const EMPTY_OBJECT: Json<'static> = Json("{}");

    pub(crate) fn parse(text: &'a [u8]) -> Result<Self, SyntaxError> {
        match serde_json::from_slice::<&RawValue>(text) {
            Ok(raw) => Ok(Self(raw.get())),
            Err(error) => Err(SyntaxError(error.to_string())),
        }
    }

    /// The value's text.
    pub(crate) const fn raw(self) -> &'a str {
        self.0
    }

    pub(crate) fn kind(self) -> Kind {
        match self.0.as_bytes().first() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'"') => Kind::String,
            Some(b't' | b'f') => Kind::Bool,
            Some(b'n') | None => Kind::Null,
            Some(_) => Kind::Number,
        }
    }

    pub(crate) fn is_null(self) -> bool {
        self.kind() == Kind::Null
    }

    pub(crate) fn str(self) -> Option<Str<'a>> {
        let inside = self.0.strip_prefix('"')?.strip_suffix('"')?;
        Some(Str(inside))
    }

    pub(crate) fn bool(self) -> Option<bool> {
        match self.0 {
            "true" => Some(true),
            "false" => Some(false),
            _ => None,
        }
    }

    pub(crate) fn u64(self) -> Option<u64> {
        self.0.parse().ok()
    }

    pub(crate) fn f64(self) -> Option<f64> {
        if self.kind() == Kind::Number {
            self.0.parse().ok()
        } else {
            None
        }
    }

    /// The members of an object in their order; none if it is no object.
    pub(crate) fn members(self) -> Members<'a> {
        Members {
            text: self.0,
            at: if self.kind() == Kind::Object {
                1
            } else {
                self.0.len()
            },
        }
    }

    /// The elements of an array; none if it is no array.
    pub(crate) fn elements(self) -> Elements<'a> {
        Elements {
            text: self.0,
            at: if self.kind() == Kind::Array {
                1
            } else {
                self.0.len()
            },
        }
    }

    /// The members of these names, found in one pass. Of duplicates the last, as most parsers choose; `null` counts as
    /// absent.
    pub(crate) fn pick<const N: usize>(self, names: [&str; N]) -> [Option<Self>; N] {
        let mut found = [None; N];
        for (key, value) in self.members() {
            let key = key.text();
            for (name, slot) in names.iter().zip(found.iter_mut()) {
                if key == *name {
                    *slot = Some(value).filter(|value| !value.is_null());
                    break;
                }
            }
        }
        found
    }

    /// The member of that name, as [`Self::pick`] finds it.
    pub(crate) fn get(self, name: &str) -> Option<Self> {
        let [found] = self.pick([name]);
        found
    }

    /// A member that is a string.
    pub(crate) fn get_str(self, name: &str) -> Option<Str<'a>> {
        self.get(name).and_then(Self::str)
    }

    /// A member that is a number without sign, fraction and exponent.
    pub(crate) fn get_u64(self, name: &str) -> Option<u64> {
        self.get(name).and_then(Self::u64)
    }

    /// [`Self::pick`] for strings; what is no string is empty.
    pub(crate) fn pick_str<const N: usize>(self, names: [&str; N]) -> [Str<'a>; N] {
        self.pick(names)
            .map(|found| found.and_then(Self::str).unwrap_or_default())
    }

    /// [`Self::pick`] for numbers without sign, fraction and exponent.
    pub(crate) fn pick_u64<const N: usize>(self, names: [&str; N]) -> [Option<u64>; N] {
        self.pick(names).map(|found| found.and_then(Self::u64))
    }
}

impl<'a> Str<'a> {
    pub(crate) const EMPTY: Str<'static> = Str("");

    pub(crate) const fn raw(self) -> &'a str {
        self.0
    }

    pub(crate) const fn is_empty(self) -> bool {
        self.0.is_empty()
    }

    /// Whether the string, unescaped, equals `text`.
    pub(crate) fn is(self, text: &str) -> bool {
        if self.0 == text {
            // An escape in the raw text would be a backslash, which no name that is asked for contains.
            return memchr(b'\\', text.as_bytes()).is_none();
        }
        memchr(b'\\', self.0.as_bytes()).is_some() && self.text() == text
    }

    /// The string unescaped; half a surrogate pair becomes U+FFFD.
    pub(crate) fn text(self) -> Cow<'a, str> {
        let bytes = self.0.as_bytes();
        let plain = if bytes.len() <= SHORT {
            !bytes.contains(&b'\\')
        } else {
            memchr(b'\\', bytes).is_none()
        };
        if plain {
            return Cow::Borrowed(self.0);
        }
        let mut out = String::with_capacity(self.0.len());
        let mut rest = self.0;
        while let Some((before, after)) = rest.split_once('\\') {
            out.push_str(before);
            rest = unescape_one(after, &mut out);
        }
        out.push_str(rest);
        Cow::Owned(out)
    }
}

/// Decodes what follows a backslash and returns the rest.
fn unescape_one<'t>(after: &'t str, out: &mut String) -> &'t str {
    let mut chars = after.chars();
    match chars.next() {
        Some('n') => out.push('\n'),
        Some('t') => out.push('\t'),
        Some('r') => out.push('\r'),
        Some('b') => out.push('\u{8}'),
        Some('f') => out.push('\u{c}'),
        Some('u') => return unescape_unit(chars.as_str(), out),
        Some(other) => out.push(other),
        None => {}
    }
    chars.as_str()
}

fn hex4(text: &str) -> Option<(u32, &str)> {
    let (digits, rest) = text.split_at_checked(4)?;
    u32::from_str_radix(digits, 16).ok().map(|unit| (unit, rest))
}

fn unescape_unit<'t>(text: &'t str, out: &mut String) -> &'t str {
    let Some((unit, rest)) = hex4(text) else {
        out.push(char::REPLACEMENT_CHARACTER);
        return text;
    };
    if (0xD800..0xDC00).contains(&unit)
        && let Some((low, after)) = rest.strip_prefix("\\u").and_then(hex4)
        && (0xDC00..0xE000).contains(&low)
    {
        let code = 0x1_0000 + ((unit - 0xD800) << 10) + (low - 0xDC00);
        out.push(char::from_u32(code).unwrap_or(char::REPLACEMENT_CHARACTER));
        return after;
    }
    out.push(char::from_u32(unit).unwrap_or(char::REPLACEMENT_CHARACTER));
    rest
}

/// Bytes of a string that are looked at one by one.
const SHORT: usize = 16;

#[inline]
fn byte(text: &str, at: usize) -> u8 {
    text.as_bytes().get(at).copied().unwrap_or(0)
}

fn skip_space(text: &str, mut at: usize) -> usize {
    while matches!(byte(text, at), b' ' | b'\n' | b'\r' | b'\t') {
        at += 1;
    }
    at
}

/// `at` stands behind the opening quote; returns the position behind the closing one.
fn skip_string(text: &str, mut at: usize) -> usize {
    loop {
        // Names, words and what stands between two escapes are shorter than the call of a vectorised search takes.
        for _ in 0..SHORT {
            match byte(text, at) {
                b'"' => return at + 1,
                b'\\' => at += 2,
                _ => at += 1,
            }
        }
        let Some(rest) = text.as_bytes().get(at..) else {
            return text.len();
        };
        match memchr2(b'"', b'\\', rest) {
            Some(found) => at += found,
            None => return text.len(),
        }
    }
}

/// Returns the position behind the value that begins at `at`.
fn skip_value(text: &str, mut at: usize) -> usize {
    let mut depth = 0_usize;
    loop {
        match byte(text, at) {
            b'"' => at = skip_string(text, at + 1),
            b'{' | b'[' => {
                depth += 1;
                at += 1;
                continue;
            }
            b'}' | b']' => {
                depth = depth.saturating_sub(1);
                at += 1;
            }
            b',' | b':' | b' ' | b'\n' | b'\r' | b'\t' => {
                at += 1;
                continue;
            }
            _ => {
                while !matches!(
                    byte(text, at),
                    b',' | b'}' | b']' | b' ' | b'\n' | b'\r' | b'\t' | 0
                ) {
                    at += 1;
                }
            }
        }
        if depth == 0 || at >= text.len() {
            return at.min(text.len());
        }
    }
}

/// Iterates over an object's members.
pub(crate) struct Members<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Iterator for Members<'a> {
    type Item = (Str<'a>, Json<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        let mut at = skip_space(self.text, self.at);
        if byte(self.text, at) == b',' {
            at = skip_space(self.text, at + 1);
        }
        if byte(self.text, at) != b'"' {
            return None;
        }
        let key_end = skip_string(self.text, at + 1);
        let key = self.text.get(at + 1..key_end.saturating_sub(1))?;
        let colon = skip_space(self.text, key_end);
        let start = skip_space(self.text, colon + 1);
        let end = skip_value(self.text, start);
        self.at = end;
        Some((Str(key), Json(self.text.get(start..end)?)))
    }
}

/// Iterates over an array's elements.
pub(crate) struct Elements<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Iterator for Elements<'a> {
    type Item = Json<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut at = skip_space(self.text, self.at);
        if byte(self.text, at) == b',' {
            at = skip_space(self.text, at + 1);
        }
        if at >= self.text.len() || byte(self.text, at) == b']' {
            return None;
        }
        let end = skip_value(self.text, at);
        self.at = end;
        Some(Json(self.text.get(at..end)?))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::Value;

    use super::write::number;
    use super::{Array, Json, Kind, Object, Str, escape};

    fn rebuild(json: Json<'_>) -> Value {
        match json.kind() {
            Kind::Null => Value::Null,
            Kind::Bool => Value::Bool(json.bool().unwrap()),
            Kind::Number => serde_json::from_str(json.raw()).unwrap(),
            Kind::String => Value::String(json.str().unwrap().text().into_owned()),
            Kind::Array => Value::Array(json.elements().map(rebuild).collect()),
            Kind::Object => Value::Object(
                json.members()
                    .map(|(key, value)| (key.text().into_owned(), rebuild(value)))
                    .collect(),
            ),
        }
    }

    fn json() -> impl Strategy<Value = Value> {
        let leaf = prop_oneof![
            Just(Value::Null),
            any::<bool>().prop_map(Value::Bool),
            any::<i64>().prop_map(Value::from),
            (-1e9..1e9).prop_map(Value::from),
            ".*".prop_map(Value::from),
        ];
        leaf.prop_recursive(5, 64, 8, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
                prop::collection::btree_map(".*", inner, 0..6)
                    .prop_map(|map| Value::Object(map.into_iter().collect())),
            ]
        })
    }

    proptest! {
        #[test]
        fn walking_finds_what_serde_json_finds(value in json(), pretty: bool) {
            let text = if pretty { serde_json::to_string_pretty(&value) } else { serde_json::to_string(&value) }.unwrap();
            // Read again, because reading a number may round it.
            let value: Value = serde_json::from_str(&text).unwrap();
            prop_assert_eq!(rebuild(Json::parse(text.as_bytes()).unwrap()), value);
        }

        #[test]
        fn escaping_is_undone_by_unescaping(text in ".*") {
            let mut out = vec![b'"'];
            escape(&text, &mut out);
            out.push(b'"');
            prop_assert_eq!(&serde_json::from_slice::<String>(&out).unwrap(), &text);
            let parsed = Json::parse(&out).unwrap();
            prop_assert_eq!(parsed.str().unwrap().text(), text);
        }

        #[test]
        fn any_bytes_are_refused_or_walked(bytes: Vec<u8>) {
            if let Ok(json) = Json::parse(&bytes) {
                let _ = rebuild(json);
            }
        }

        #[test]
        fn numbers_are_written_as_they_are(value: u64) {
            let mut out = Vec::new();
            number(value, &mut out);
            prop_assert_eq!(String::from_utf8(out).unwrap(), value.to_string());
        }
    }

    #[test]
    fn escapes_decode_as_the_grammar_says() {
        for (raw, text) in [
            (r#""a\"\\\/\b\f\n\r\tz""#, "a\"\\/\u{8}\u{c}\n\r\tz"),
            (r#""\u00e9\ud83d\ude00""#, "é😀"),
            (r#""\ud83d""#, "\u{fffd}"),
            (r#""\ud83dx\ude00""#, "\u{fffd}x\u{fffd}"),
            (r#""\ud83d\u0041""#, "\u{fffd}A"),
        ] {
            assert_eq!(Json::parse(raw.as_bytes()).unwrap().str().unwrap().text(), text);
        }
    }

    #[test]
    fn keys_match_through_escapes_and_the_last_duplicate_counts() {
        let json = Json::parse(br#"{"a":1,"\u0061":2,"b":null}"#).unwrap();
        assert_eq!(json.get_u64("a"), Some(2));
        assert!(json.get("b").is_none());
        assert!(!Str("a\\n").is("a\\n"));
    }

    #[test]
    fn what_is_not_json_is_refused() {
        for text in ["", "{", "{\"a\":1,}", "01", "\"\u{1}\"", "[1] x", "nul"] {
            assert!(Json::parse(text.as_bytes()).is_err(), "{text}");
        }
        assert!(Json::parse(b"\"\xff\"").is_err());
    }

    #[test]
    fn deep_nesting_needs_no_stack() {
        let mut text = vec![b'['; 200_000];
        text.extend(vec![b']'; 200_000]);
        let json = Json::parse(&text).unwrap();
        assert_eq!(json.elements().count(), 1);
    }

    #[test]
    fn objects_and_arrays_are_written_with_commas_between() {
        let mut out = Vec::new();
        let mut object = Object::open(&mut out);
        object.number("a", 1).text("b", "x\"").string("c", Str("\\n"));
        let mut array = Array::open(object.key("d"));
        array.item().push(b'1');
        array.item().push(b'2');
        array.close();
        object.close();
        assert_eq!(out, br#"{"a":1,"b":"x\"","c":"\n","d":[1,2]}"#);
    }
}
