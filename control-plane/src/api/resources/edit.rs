//! Changes of a document's text, one entry at a time.

use std::ops::Range;

use tollgate_policy::Kind;

use super::index::spans;
use super::ordered::Json;

/// Why a document cannot be edited.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotEditable;

/// What stands before `at` on its line, if that is nothing but blanks.
fn indent(bytes: &[u8], at: usize) -> Option<String> {
    let before = bytes.get(..at)?;
    let line = before.iter().rposition(|b| *b == b'\n').map_or(0, |n| n + 1);
    let text = before.get(line..)?;
    text.iter()
        .all(|b| matches!(b, b' ' | b'\t'))
        .then(|| String::from_utf8_lossy(text).into_owned())
}

fn spliced(bytes: &[u8], span: Range<usize>, text: &str) -> Vec<u8> {
    let mut out = Vec::with_capacity(bytes.len() + text.len());
    out.extend_from_slice(bytes.get(..span.start).unwrap_or_default());
    out.extend_from_slice(text.as_bytes());
    out.extend_from_slice(bytes.get(span.end..).unwrap_or_default());
    out
}

/// The document with an entry replaced.
pub(super) fn replaced(bytes: &[u8], span: Range<usize>, value: &Json) -> Vec<u8> {
    let indent = indent(bytes, span.start).unwrap_or_default();
    spliced(bytes, span, &value.pretty(&indent))
}

/// The document with an entry added at the end of its list.
pub(super) fn appended(bytes: &[u8], kind: Kind, value: &Json) -> Result<Vec<u8>, NotEditable> {
    let (list, entries) = spans(bytes, kind).ok_or(NotEditable)?;
    if let Some(last) = entries.last() {
        let text = match indent(bytes, last.start) {
            Some(indent) => format!(",\n{indent}{}", value.pretty(&indent)),
            None => format!(", {}", value.pretty("  ")),
        };
        return Ok(spliced(bytes, last.end..last.end, &text));
    }
    let text = format!("[\n    {}\n  ]", value.pretty("    "));
    Ok(spliced(bytes, list, &text))
}

/// The document without an entry.
pub(super) fn removed(bytes: &[u8], kind: Kind, index: usize) -> Result<Vec<u8>, NotEditable> {
    let (_, entries) = spans(bytes, kind).ok_or(NotEditable)?;
    let span = entries.get(index).ok_or(NotEditable)?;
    let next = entries.get(index + 1);
    let before = index.checked_sub(1).and_then(|n| entries.get(n));
    let span = match (before, next) {
        (_, Some(next)) => span.start..next.start,
        (Some(before), None) => before.end..span.end,
        (None, None) => span.clone(),
    };
    Ok(spliced(bytes, span, ""))
}

/// A new document with one entry.
pub(super) fn begun(kind: Kind, value: &Json) -> Vec<u8> {
    if kind == Kind::Settings {
        return format!("{{\n  \"settings\": {}\n}}\n", value.pretty("  ")).into_bytes();
    }
    format!(
        "{{\n  \"{}\": [\n    {}\n  ]\n}}\n",
        kind.name(),
        value.pretty("    ")
    )
    .into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = "{\n  \"rules\": [\n    { \"name\": \"a\" },\n    { \"name\":   \"b\" },\n    {\"name\": \"c\"}\n  ]\n}\n";

    fn json(text: &str) -> Json {
        Json::parse(text.as_bytes()).unwrap()
    }

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn the_rest_of_the_text_stays_as_it_was_written() {
        let (_, entries) = spans(TEXT.as_bytes(), Kind::Rules).unwrap();
        let b = entries[1].clone();
        let out = text(replaced(
            TEXT.as_bytes(),
            b,
            &json(r#"{"name":"b","priority":7}"#),
        ));
        assert_eq!(
            out,
            TEXT.replace("{ \"name\":   \"b\" }", "{ \"name\": \"b\", \"priority\": 7 }")
        );
        let out = text(appended(TEXT.as_bytes(), Kind::Rules, &json(r#"{"name":"d"}"#)).unwrap());
        assert_eq!(
            out,
            TEXT.replace("{\"name\": \"c\"}", "{\"name\": \"c\"},\n    { \"name\": \"d\" }")
        );
        for (index, gone) in [
            (0, "{ \"name\": \"a\" },\n    "),
            (1, "{ \"name\":   \"b\" },\n    "),
            (2, ",\n    {\"name\": \"c\"}"),
        ] {
            assert_eq!(
                text(removed(TEXT.as_bytes(), Kind::Rules, index).unwrap()),
                TEXT.replace(gone, "")
            );
        }
        assert!(removed(TEXT.as_bytes(), Kind::Rules, 3).is_err());
        assert!(appended(b"{\"rules\": 1}", Kind::Rules, &json("{}")).is_err());
    }

    proptest! {
        #[test]
        fn any_order_of_edits_leaves_the_list_that_it_should(
            edits in proptest::collection::vec((0u8..3, 0usize..6, "[a-z\"\\\\]{0,90}"), 0..24),
            compact in any::<bool>(),
        ) {
            let mut bytes = if compact { b"{\"rules\":[]}".to_vec() } else { begun(Kind::Rules, &json("{\"name\": \"x\"}")) };
            let mut expected: Vec<Json> = if compact { vec![] } else { vec![json("{\"name\": \"x\"}")] };
            for (what, at, word) in edits {
                let value = Json::Object(vec![("name".into(), Json::Scalar(word.as_str().into()))]);
                let places = spans(&bytes, Kind::Rules).unwrap().1;
                match what {
                    0 => {
                        bytes = appended(&bytes, Kind::Rules, &value).unwrap();
                        expected.push(value);
                    }
                    1 if at < expected.len() => {
                        bytes = replaced(&bytes, places[at].clone(), &value);
                        expected[at] = value;
                    }
                    2 if at < expected.len() => {
                        bytes = removed(&bytes, Kind::Rules, at).unwrap();
                        expected.remove(at);
                    }
                    _ => {}
                }
            }
            prop_assert_eq!(Json::parse(&bytes).unwrap(), Json::Object(vec![("rules".into(), Json::Array(expected))]));
        }
    }
}
