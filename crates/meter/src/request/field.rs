//! Fields that rules name: paths into the body and the scalars found there.

use super::error::{ScanErrorKind, ScanFault};
use super::facts::Buffers;
use crate::json::Cursor;

/// Longest path, in segments.
const MAX_SEGMENTS: usize = 16;

/// A path into a JSON body: keys and array indexes with dots between, `messages.0.role`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct FieldPath {
    segments: Vec<Segment>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Segment {
    key: String,
    /// The same segment as an array index, if it is one.
    index: Option<usize>,
}

/// Why a text is no [`FieldPath`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldPathError {
    /// The path or one of its segments is empty.
    EmptySegment,
    /// More than 16 segments.
    TooLong,
}

impl std::fmt::Display for FieldPathError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::EmptySegment => f.write_str("a path has no empty segments"),
            Self::TooLong => write!(f, "a path has at most {MAX_SEGMENTS} segments"),
        }
    }
}

impl std::error::Error for FieldPathError {}

impl FieldPath {
    /// Parses a dotted path. A segment of digits is an index in an array and a key in an object.
    ///
    /// # Errors
    /// On empty segments and more than 16 of them.
    pub fn parse(path: &str) -> Result<Self, FieldPathError> {
        let segments: Vec<Segment> = path
            .split('.')
            .map(|key| Segment {
                key: key.to_owned(),
                index: key
                    .bytes()
                    .all(|byte| byte.is_ascii_digit())
                    .then(|| key.parse().ok())
                    .flatten(),
            })
            .collect();
        if segments.iter().any(|segment| segment.key.is_empty()) {
            return Err(FieldPathError::EmptySegment);
        }
        if segments.len() > MAX_SEGMENTS {
            return Err(FieldPathError::TooLong);
        }
        Ok(Self { segments })
    }

    pub(super) fn key_is(&self, level: usize, key: &[u8]) -> bool {
        self.segments
            .get(level)
            .is_some_and(|segment| segment.key.as_bytes() == key)
    }

    fn index_is(&self, level: usize, index: usize) -> bool {
        self.segments
            .get(level)
            .is_some_and(|segment| segment.index == Some(index))
    }

    pub(super) fn ends_at(&self, level: usize) -> bool {
        self.segments.len() == level
    }
}

/// A value that a rule can compare.
#[derive(Debug, Clone, PartialEq)]
pub enum Scalar {
    /// `null`.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// Any number, as the nearest double (infinite beyond its range).
    Number(f64),
    /// A decoded string.
    String(String),
    /// An array or an object.
    Other,
}

/// A path whose beginning matches the containers that are open.
#[derive(Debug, Clone, Copy)]
pub(super) struct Candidate {
    wanted: usize,
    /// Whether the object being read already had this candidate's key.
    seen: bool,
}

/// Collects the wanted fields of one body.
pub(super) struct Wanted<'w, 'o> {
    paths: &'w [FieldPath],
    values: &'o mut [Option<Scalar>],
    /// `candidates` is the stack of the candidates that match the containers from the top down to the one being read.
    pub(super) buffers: &'o mut Buffers,
}

impl<'w, 'o> Wanted<'w, 'o> {
    pub(super) fn new(
        paths: &'w [FieldPath],
        values: &'o mut [Option<Scalar>],
        buffers: &'o mut Buffers,
    ) -> Self {
        buffers.candidates.clear();
        buffers
            .candidates
            .extend((0..paths.len()).map(|wanted| Candidate { wanted, seen: false }));
        Self {
            paths,
            values,
            buffers,
        }
    }

    /// Looks at a top-level member; `cursor` stands at its value, which has been checked already.
    pub(super) fn top_member(&mut self, mut cursor: Cursor<'_>, key: &[u8]) -> Result<(), ScanFault> {
        let count = self.paths.len();
        if count > 0 {
            self.descend(&mut cursor, 0, (0, count), Step::Key(key))?;
        }
        Ok(())
    }

    /// Reads one child value if a candidate in the range names it; says whether it was read.
    fn descend(
        &mut self,
        cursor: &mut Cursor<'_>,
        level: usize,
        (start, end): (usize, usize),
        step: Step<'_>,
    ) -> Result<bool, ScanFault> {
        for position in start..end {
            let Some(candidate) = self.buffers.candidates.get(position).copied() else {
                break;
            };
            let Some(path) = self.paths.get(candidate.wanted) else {
                break;
            };
            let matches = match step {
                Step::Key(key) => path.key_is(level, key),
                Step::Index(index) => path.index_is(level, index),
            };
            if matches {
                if candidate.seen {
                    return Err(ScanFault::new(ScanErrorKind::DuplicateKey, cursor.at()));
                }
                if let Some(candidate) = self.buffers.candidates.get_mut(position) {
                    candidate.seen = true;
                }
                self.buffers.candidates.push(Candidate {
                    wanted: candidate.wanted,
                    seen: false,
                });
            }
        }
        if self.buffers.candidates.len() == end {
            return Ok(false);
        }
        let result = self.value(cursor, level + 1, (end, self.buffers.candidates.len()));
        self.buffers.candidates.truncate(end);
        result.map(|()| true)
    }

    fn value(
        &mut self,
        cursor: &mut Cursor<'_>,
        level: usize,
        (start, end): (usize, usize),
    ) -> Result<(), ScanFault> {
        let mut deeper = false;
        for position in start..end {
            let Some(wanted) = self
                .buffers
                .candidates
                .get(position)
                .map(|candidate| candidate.wanted)
            else {
                break;
            };
            if self.paths.get(wanted).is_some_and(|path| path.ends_at(level)) {
                let scalar = self.scalar(*cursor)?;
                if let Some(value) = self.values.get_mut(wanted) {
                    *value = Some(scalar);
                }
            } else {
                deeper = true;
            }
        }
        match cursor.peek() {
            b'{' if deeper => cursor.members(|cursor, key| {
                let mut scratch = std::mem::take(&mut self.buffers.text);
                let read = self.descend(cursor, level, (start, end), Step::Key(key.decoded(&mut scratch)));
                self.buffers.text = scratch;
                if read? { Ok(()) } else { Ok(cursor.skip()?) }
            }),
            b'[' if deeper => cursor.elements(|cursor, index| {
                let read = self.descend(cursor, level, (start, end), Step::Index(index))?;
                if read { Ok(()) } else { Ok(cursor.skip()?) }
            }),
            _ => Ok(cursor.skip()?),
        }
    }

    fn scalar(&mut self, mut cursor: Cursor<'_>) -> Result<Scalar, ScanFault> {
        Ok(match cursor.peek() {
            b'{' | b'[' => Scalar::Other,
            b'"' => {
                let mut text = self.buffers.string();
                text.push_str(cursor.string()?.text(&mut self.buffers.text));
                Scalar::String(text)
            }
            b't' => Scalar::Bool(true),
            b'f' => Scalar::Bool(false),
            b'n' => Scalar::Null,
            _ => {
                let number = cursor.number()?;
                let number = std::str::from_utf8(number)
                    .ok()
                    .and_then(|text| text.parse().ok());
                Scalar::Number(number.unwrap_or(f64::NAN))
            }
        })
    }
}

#[derive(Clone, Copy)]
enum Step<'k> {
    Key(&'k [u8]),
    Index(usize),
}
