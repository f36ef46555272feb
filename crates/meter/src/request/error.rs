//! Why a body was refused.

use crate::json::{self, Fault, Pause, SyntaxError};

/// What is wrong with a request body. All of it is the client's fault and is answered with 400; a retry of the same
/// bytes fails again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ScanErrorKind {
    /// Not JSON.
    Syntax(SyntaxError),
    /// Not UTF-8.
    Utf8,
    /// A key that the gateway reads stands twice in one object: parsers differ in which one they take.
    DuplicateKey,
    /// A key that the gateway reads in other letters (`Model`): some parsers take it for the same key.
    KeyCase,
    /// A value of another type was due; the text says which.
    WrongType(&'static str),
    /// A count below its minimum, which is given.
    TooSmall(u64),
    /// A count with a fraction.
    Fraction,
    /// A count above 2^53 - 1, which parsers read differently.
    TooLarge,
}

impl std::fmt::Display for ScanErrorKind {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Syntax(error) => write!(f, "invalid JSON: {error}"),
            Self::Utf8 => f.write_str("invalid UTF-8"),
            Self::DuplicateKey => f.write_str("duplicate key"),
            Self::KeyCase => f.write_str("key must be in lower case"),
            Self::WrongType(wanted) => write!(f, "must be {wanted}"),
            Self::TooSmall(minimum) => write!(f, "must be at least {minimum}"),
            Self::Fraction => f.write_str("must be an integer"),
            Self::TooLarge => f.write_str("too large"),
        }
    }
}

/// A refused body: what, at which byte, in which field. Never holds a value of the body, only names of fields.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ScanError {
    /// What is wrong.
    pub kind: ScanErrorKind,
    /// Byte offset into the body.
    pub offset: usize,
    /// Dotted path of the field, empty for the body itself; at most about 130 bytes, control characters escaped.
    pub path: String,
}

impl std::fmt::Display for ScanError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{} (at byte {})", self.kind, self.offset)
    }
}

impl std::error::Error for ScanError {}

/// The error before its path is worked out.
#[derive(Debug, Clone, Copy)]
pub(super) struct ScanFault {
    pub(super) kind: ScanErrorKind,
    pub(super) at: usize,
}

impl ScanFault {
    #[cold]
    pub(super) const fn new(kind: ScanErrorKind, at: usize) -> Self {
        Self { kind, at }
    }

    #[cold]
    pub(super) fn locate(self, body: &[u8], pause: Pause<'_>) -> ScanError {
        ScanError {
            kind: self.kind,
            offset: self.at,
            path: json::path_at(body, self.at, pause),
        }
    }
}

impl From<Fault> for ScanFault {
    fn from(fault: Fault) -> Self {
        Self {
            kind: ScanErrorKind::Syntax(fault.error),
            at: fault.at,
        }
    }
}
