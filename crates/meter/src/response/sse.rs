//! Where server-sent events end, and what their lines say (WHATWG HTML, "Server-sent events").

use memchr::memchr2;

/// Finds event boundaries in a byte stream cut anywhere; two bytes of state.
///
/// An event ends after its empty line. Lines end with LF, CRLF or CR. When a chunk ends with the CR of an event's
/// empty line, the event is over at once (waiting for a LF would delay it); the LF, if it comes, is the first byte of
/// the next event, where the reader of its lines ignores it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SseSplitter {
    line_empty: bool,
    after_cr: bool,
}

impl Default for SseSplitter {
    fn default() -> Self {
        Self {
            line_empty: true,
            after_cr: false,
        }
    }
}

impl SseSplitter {
    /// At the beginning of a stream.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads `bytes`, which follow those of the last call. `Some(end)`: an event ends before `bytes[end]`; call again
    /// with `bytes[end..]`. `None`: all of `bytes` belongs to an event that goes on.
    pub fn next_boundary(&mut self, bytes: &[u8]) -> Option<usize> {
        let mut at = 0;
        if self.after_cr {
            at = usize::from(bytes.first()? == &b'\n');
            self.after_cr = false;
        }
        loop {
            let rest = bytes.get(at..)?;
            let Some(offset) = memchr2(b'\n', b'\r', rest) else {
                self.line_empty &= rest.is_empty();
                return None;
            };
            let empty = self.line_empty && offset == 0;
            let carriage = rest.get(offset) == Some(&b'\r');
            at += offset + 1;
            self.line_empty = true;
            if carriage {
                match bytes.get(at) {
                    Some(b'\n') => at += 1,
                    Some(_) => {}
                    None => self.after_cr = true,
                }
            }
            if empty {
                return Some(at);
            }
        }
    }
}

/// One piece of a stream, as [`SseReader`] shows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SsePiece<'a> {
    /// A whole event with its empty line.
    Event(&'a [u8]),
    /// Bytes of an event that is larger than the bound: to be passed on unread.
    Oversized(&'a [u8]),
    /// What the stream ended with: an event without its empty line, which clients ignore.
    Unfinished(&'a [u8]),
}

/// Splits a stream into events and keeps the one that is not finished, up to a bound.
#[derive(Debug)]
pub struct SseReader {
    splitter: SseSplitter,
    carry: Vec<u8>,
    bound: usize,
    oversized: bool,
}

impl SseReader {
    /// Keeps at most `bound` bytes of an unfinished event; a larger event passes in pieces, unread.
    #[must_use]
    pub const fn new(bound: usize) -> Self {
        let splitter = SseSplitter {
            line_empty: true,
            after_cr: false,
        };
        Self {
            splitter,
            carry: Vec::new(),
            bound,
            oversized: false,
        }
    }

    /// Takes the next chunk and shows the pieces that are complete with it, in order and without loss: the pieces
    /// joined are the stream. Copies only the tail of a chunk that ends within an event.
    pub fn feed(&mut self, chunk: &[u8], mut piece: impl FnMut(SsePiece<'_>)) {
        let mut rest = chunk;
        while let Some(end) = self.splitter.next_boundary(rest) {
            let (event, later) = rest.split_at(end);
            rest = later;
            if self.oversized {
                self.oversized = false;
                piece(SsePiece::Oversized(event));
            } else if self.carry.len() + event.len() > self.bound {
                self.give_up(event, &mut piece);
                self.oversized = false;
            } else if self.carry.is_empty() {
                piece(SsePiece::Event(event));
            } else {
                self.carry.extend_from_slice(event);
                piece(SsePiece::Event(&self.carry));
                self.carry.clear();
            }
        }
        if rest.is_empty() {
            return;
        }
        if self.oversized {
            piece(SsePiece::Oversized(rest));
        } else if self.carry.len() + rest.len() > self.bound {
            self.give_up(rest, &mut piece);
        } else {
            self.carry.extend_from_slice(rest);
        }
    }

    fn give_up(&mut self, rest: &[u8], piece: &mut impl FnMut(SsePiece<'_>)) {
        self.oversized = true;
        if !self.carry.is_empty() {
            piece(SsePiece::Oversized(&self.carry));
            // The memory of a rare giant is not kept for the life of the stream.
            self.carry = Vec::new();
        }
        piece(SsePiece::Oversized(rest));
    }

    /// Bytes of the unfinished event that are held now.
    #[must_use]
    pub const fn carried(&self) -> usize {
        self.carry.len()
    }

    /// The end of the stream: shows what is left.
    pub fn finish(&mut self, mut piece: impl FnMut(SsePiece<'_>)) {
        if !self.carry.is_empty() {
            piece(SsePiece::Unfinished(&self.carry));
            self.carry = Vec::new();
        }
    }
}

/// The fields of one event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct EventLines<'a> {
    /// The last `event` field.
    pub(super) name: &'a [u8],
    pub(super) data: Data<'a>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) enum Data<'a> {
    /// Comments, other fields or nothing.
    #[default]
    None,
    One(&'a [u8]),
    /// Several `data` lines, joined with LF. Rare: the one case that allocates.
    Joined(Vec<u8>),
}

impl Data<'_> {
    pub(super) fn bytes(&self) -> Option<&[u8]> {
        match self {
            Self::None => None,
            Self::One(data) => Some(data),
            Self::Joined(data) => Some(data),
        }
    }
}

impl<'a> EventLines<'a> {
    pub(super) fn parse(event: &'a [u8]) -> Self {
        let mut lines = Self::default();
        let mut rest = event.strip_prefix(b"\xef\xbb\xbf").unwrap_or(event);
        while !rest.is_empty() {
            let end = memchr2(b'\n', b'\r', rest).unwrap_or(rest.len());
            let line = rest.get(..end).unwrap_or_default();
            // The LF of a CRLF makes one more empty line here, which means nothing inside an event.
            rest = rest.get(end + 1..).unwrap_or_default();
            if let Some(value) = field(line, b"data") {
                lines.data = match std::mem::take(&mut lines.data) {
                    Data::None => Data::One(value),
                    Data::One(first) => Data::Joined([first, value].join(&b'\n')),
                    Data::Joined(mut joined) => {
                        joined.push(b'\n');
                        joined.extend_from_slice(value);
                        Data::Joined(joined)
                    }
                };
            } else if let Some(value) = field(line, b"event") {
                lines.name = value;
            }
        }
        lines
    }
}

fn field<'a>(line: &'a [u8], name: &[u8]) -> Option<&'a [u8]> {
    let rest = line.strip_prefix(name)?;
    match rest.strip_prefix(b":") {
        Some(value) => Some(value.strip_prefix(b" ").unwrap_or(value)),
        None => rest.is_empty().then_some(rest),
    }
}
