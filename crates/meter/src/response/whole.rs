//! Reads an answer or an event that lies in memory whole.

use super::found::{Found, TextSink};
use super::role::Role;
use crate::json::{Cursor, Fault, Part, RawStr};

/// Reads the value that is next in the light of its role. Without `TEXT` the texts are skipped and `sink` gets nothing.
pub(super) fn value<const TEXT: bool, S: TextSink + ?Sized>(
    cursor: &mut Cursor<'_>,
    role: Role,
    found: &mut Found,
    sink: &mut S,
) -> Result<(), Fault> {
    if role == Role::Ignore || (!TEXT && role.holds_text()) {
        return cursor.skip();
    }
    match cursor.peek() {
        b'"' => {
            let text = cursor.string()?;
            if role.is_text() {
                found.text |= !text.raw.is_empty();
                emit(text, sink);
            } else {
                let mut scratch = String::new();
                found.string(role, text.decoded(&mut scratch));
            }
            Ok(())
        }
        b'{' if role == Role::Loose => loose(cursor, found, sink),
        b'[' if role == Role::Loose => loose(cursor, found, sink),
        b'{' => {
            found.object(role);
            let mut scratch = String::new();
            cursor.members(|cursor, key| {
                value::<TEXT, S>(cursor, role.member(key.decoded(&mut scratch)), found, sink)
            })
        }
        b'[' => {
            if matches!(role, Role::Error) {
                found.error = true;
            }
            let element = role.element();
            if element == Role::Ignore {
                return cursor.skip();
            }
            cursor.elements(|cursor, _| value::<TEXT, S>(cursor, element, found, sink))
        }
        b'-' | b'0'..=b'9' => {
            let number = cursor.number()?;
            if role == Role::Loose {
                found.text = true;
                emit(
                    RawStr {
                        raw: number,
                        escaped: false,
                    },
                    sink,
                );
            } else {
                found.number(role, number);
            }
            Ok(())
        }
        _ => {
            let literal = cursor.literal()?;
            found.literal(role, literal == b"null");
            Ok(())
        }
    }
}

/// JSON that the model wrote as such: its keys, strings and numbers.
fn loose<S: TextSink + ?Sized>(
    cursor: &mut Cursor<'_>,
    found: &mut Found,
    sink: &mut S,
) -> Result<(), Fault> {
    cursor.walk(|part| match part {
        Part::Key(text) | Part::String(text) => {
            found.text |= !text.raw.is_empty();
            emit(text, sink);
        }
        Part::Number(number) => {
            found.text = true;
            emit(
                RawStr {
                    raw: number,
                    escaped: false,
                },
                sink,
            );
        }
        Part::Literal | Part::ArrayStart => {}
    })
}

pub(super) fn emit<S: TextSink + ?Sized>(text: RawStr<'_>, sink: &mut S) {
    if text.raw.is_empty() {
        return;
    }
    let mut scratch = String::new();
    sink.text(text.text(&mut scratch));
}
