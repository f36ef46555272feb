//! A strict JSON reader (RFC 8259) that pulls values off a byte slice: no tree, no allocation.

mod cursor;
mod lex;
mod number;
mod path;
mod pause;
mod text;

pub(crate) use cursor::{Cursor, MAX_DEPTH, Part, RawStr};
pub(crate) use lex::find_special;
pub(crate) use number::{Integer, integer, is_number};
pub(crate) use path::path_at;
#[cfg(test)]
pub(crate) use pause::EVERY;
pub(crate) use pause::Pause;
pub(crate) use text::{decode_lossy, push_json_string, separable, simple_escape};

/// What is wrong with a text that claims to be JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SyntaxError {
    /// The text ends inside a value.
    Truncated,
    /// Another token was due here; the text says which.
    Expected(&'static str),
    /// A raw control character (below U+0020) inside a string.
    ControlCharacter,
    /// A backslash followed by something that is no escape.
    Escape,
    /// A number that RFC 8259 does not allow (`01`, `1.`, `+1`, ...).
    Number,
    /// Arrays and objects nested deeper than 128.
    TooDeep,
    /// More than white space after the end of the value.
    TrailingData,
}

impl std::fmt::Display for SyntaxError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Truncated => f.write_str("unexpected end"),
            Self::Expected(what) => write!(f, "expected {what}"),
            Self::ControlCharacter => f.write_str("control character in a string"),
            Self::Escape => f.write_str("invalid escape in a string"),
            Self::Number => f.write_str("invalid number"),
            Self::TooDeep => write!(f, "nested deeper than {MAX_DEPTH}"),
            Self::TrailingData => f.write_str("data after the end of the value"),
        }
    }
}

/// A syntax error and the byte it was found at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) error: SyntaxError,
    pub(crate) at: usize,
}
