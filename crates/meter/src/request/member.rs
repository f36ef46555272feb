//! Takes one member out of a body: a field that is the gateway's and not the upstream's.

use super::error::ScanFault;
use super::field::FieldPath;
use crate::json::Cursor;
use std::ops::Range;

/// The body without the member that `path` names, its comma included; `None` if there is no such member (paths through
/// arrays are not followed) or the body is not JSON.
#[must_use]
pub fn without_member(body: &[u8], path: &FieldPath) -> Option<Vec<u8>> {
    let mut cursor = Cursor::new(body);
    cursor.skip_whitespace();
    let mut found = None;
    find(&mut cursor, path, 0, &mut found).ok()?;
    let member = with_comma(body, found?);
    let mut out = Vec::with_capacity(body.len());
    out.extend_from_slice(body.get(..member.start)?);
    out.extend_from_slice(body.get(member.end..)?);
    Some(out)
}

fn find(
    cursor: &mut Cursor<'_>,
    path: &FieldPath,
    level: usize,
    found: &mut Option<Range<usize>>,
) -> Result<(), ScanFault> {
    if cursor.peek() != b'{' {
        return Ok(cursor.skip()?);
    }
    let mut scratch = String::new();
    // Where the last member's key could begin at the earliest: after the brace or the last value.
    let mut start = cursor.at() + 1;
    cursor.members(|cursor, key| {
        let begin = start;
        let read = if path.key_is(level, key.decoded(&mut scratch)) {
            if path.ends_at(level + 1) {
                cursor.skip()?;
                *found = Some(begin..cursor.at());
                Ok(())
            } else {
                find(cursor, path, level + 1, found)
            }
        } else {
            Ok(cursor.skip()?)
        };
        start = cursor.at();
        read
    })
}

/// `span` reaches from the byte after the opening brace or the former value to the end of the value: with the comma
/// before it, if there is one. The first member takes the comma behind it.
fn with_comma(body: &[u8], span: Range<usize>) -> Range<usize> {
    let comma = |at: usize| {
        let rest = body.get(at..).unwrap_or_default();
        let blank = rest.iter().take_while(|byte| byte.is_ascii_whitespace()).count();
        (rest.get(blank) == Some(&b',')).then_some(at + blank + 1)
    };
    if comma(span.start).is_some() {
        span
    } else {
        span.start..comma(span.end).unwrap_or(span.end)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_goes_with_its_comma() {
        for (body, path, left) in [
            (r#"{"a":1}"#, "a", Some("{}")),
            (r#"{ "a" : 1 , "b":2}"#, "a", Some(r#"{ "b":2}"#)),
            (r#"{"b":2 , "a":{"x":[1,2]} }"#, "a", Some(r#"{"b":2 }"#)),
            (r#"{"b":2,"a":"},","c":3}"#, "a", Some(r#"{"b":2,"c":3}"#)),
            (
                r#"{"m":{"a":1,"b":2},"a":3}"#,
                "m.a",
                Some(r#"{"m":{"b":2},"a":3}"#),
            ),
            (r#"{"m":{"b":2,"\u0061":1}}"#, "m.a", Some(r#"{"m":{"b":2}}"#)),
            (r#"{"m":[{"a":1}],"b":{"a":1}}"#, "m.a", None),
            (r#"{"b":2}"#, "a", None),
            (r#"["a"]"#, "a", None),
            (r#"{"a":1"#, "a", None),
            ("", "a", None),
        ] {
            let path = FieldPath::parse(path).unwrap();
            let out = without_member(body.as_bytes(), &path);
            assert_eq!(out.as_deref(), left.map(str::as_bytes), "{body}");
        }
    }
}
