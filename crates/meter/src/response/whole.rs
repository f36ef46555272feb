//! Reads an answer or an event that lies in memory whole.

use super::found::{Found, TextSink};
use super::role::Role;
use crate::json::{Cursor, Fault, MAX_DEPTH, Part, RawStr};

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
    if matches!(cursor.peek(), b'{' | b'[') {
        return container::<TEXT, S>(cursor, role, found, sink);
    }
    scalar(cursor, role, &mut String::new(), found, sink)
}

/// The same for what may be an object or an array.
#[inline(never)]
fn container<const TEXT: bool, S: TextSink + ?Sized>(
    at: &mut Cursor<'_>,
    role: Role,
    found: &mut Found,
    sink: &mut S,
) -> Result<(), Fault> {
    // A copy, so that its fields may live in registers.
    let mut cursor = *at;
    let mut role = role;
    // Roles of the open containers, and one bit for each, the innermost lowest: 1 = object.
    let mut roles = [Role::Ignore; MAX_DEPTH as usize];
    let mut objects = 0_u128;
    let mut open = 0_usize;
    let mut scratch = String::new();
    loop {
        let bracket = cursor.peek();
        let entered = match bracket {
            _ if role == Role::Ignore || (!TEXT && role.holds_text()) => {
                cursor.skip()?;
                false
            }
            b'{' | b'[' if role == Role::Loose => {
                cursor = loose(cursor, found, sink)?;
                false
            }
            b'{' => {
                found.object(role);
                !cursor.open()?
            }
            b'[' => {
                found.error |= role == Role::Error;
                if role.element() == Role::Ignore {
                    cursor.skip()?;
                    false
                } else {
                    !cursor.open()?
                }
            }
            _ => {
                scalar(&mut cursor, role, &mut scratch, found, sink)?;
                false
            }
        };
        if entered {
            if let Some(slot) = roles.get_mut(open) {
                *slot = role;
            }
            objects = (objects << 1) | u128::from(bracket == b'{');
            open += 1;
        }
        // A container that was entered has a first child; else the next one is looked for.
        let mut more = entered;
        while !more {
            if open == 0 {
                *at = cursor;
                return Ok(());
            }
            more = cursor.another(objects & 1 == 1)?;
            if !more {
                objects >>= 1;
                open -= 1;
            }
        }
        let parent = roles.get(open - 1).copied().unwrap_or(Role::Ignore);
        role = if objects & 1 == 1 {
            parent.member(cursor.key()?.decoded(&mut scratch))
        } else {
            parent.element()
        };
    }
}

/// Reads a string, number or literal.
#[inline(always)]
fn scalar<S: TextSink + ?Sized>(
    cursor: &mut Cursor<'_>,
    role: Role,
    scratch: &mut String,
    found: &mut Found,
    sink: &mut S,
) -> Result<(), Fault> {
    match cursor.peek() {
        b'"' => {
            let text = cursor.string()?;
            if role.is_text() {
                found.text |= !text.raw.is_empty();
                emit(text, sink);
            } else {
                found.string(role, text.decoded(scratch));
            }
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
        }
        _ => {
            let literal = cursor.literal()?;
            found.literal(role, literal == b"null");
        }
    }
    Ok(())
}

/// JSON that the model wrote as such: its keys, strings and numbers.
fn loose<'a, S: TextSink + ?Sized>(
    mut cursor: Cursor<'a>,
    found: &mut Found,
    sink: &mut S,
) -> Result<Cursor<'a>, Fault> {
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
    })?;
    Ok(cursor)
}

pub(super) fn emit<S: TextSink + ?Sized>(text: RawStr<'_>, sink: &mut S) {
    if text.raw.is_empty() {
        return;
    }
    let mut scratch = String::new();
    sink.text(text.text(&mut scratch));
}
