//! What an answer consists of, whichever protocol it came in: the pieces that readers give out and writers take.

use crate::error::ErrorKind;
use crate::json::{Json, Str};

/// A piece of an answer, in the order in which a stream brings them. Whole answers are read into the same pieces.
#[derive(Clone, Copy)]
pub(crate) enum Piece<'a> {
    /// The answer's id and the upstream's name of the model; empty if not given. Comes first, once.
    Start { id: Str<'a>, model: Str<'a> },
    /// More of the text.
    Text(Str<'a>),
    /// More of a refusal's text (OpenAI's `refusal`).
    Refusal(Str<'a>),
    /// More of the reasoning that the upstream shows.
    Reasoning(Str<'a>),
    /// A tool call begins. `slot` counts the answer's calls from 0; an empty id is to be made up.
    Tool {
        slot: usize,
        id: Str<'a>,
        name: Str<'a>,
        signature: Str<'a>,
    },
    /// More of a call's arguments.
    Arguments { slot: usize, part: Arguments<'a> },
    /// Why the answer ended.
    Finish(Finish),
    /// What it used; a later one replaces an earlier one.
    Usage(Usage),
}

/// Arguments of a tool call.
#[derive(Clone, Copy)]
pub(crate) enum Arguments<'a> {
    /// A part of the arguments' JSON text, as a JSON string carries it.
    Fragment(Str<'a>),
    /// All of them, as an object.
    Whole(Json<'a>),
}

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Finish {
    /// It was complete, or a stop sequence came up.
    Stop,
    /// The maximum of output tokens or the context's size was reached.
    Length,
    /// Tools shall be called.
    Tools,
    /// A filter or the model itself refused.
    Filtered,
}

/// Tokens of one answer. Whichever protocol reports them, `input` is without what was read from or written to a cache,
/// and `output` includes `reasoning`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Usage {
    pub(crate) input: u64,
    pub(crate) cache_read: u64,
    pub(crate) cache_write: u64,
    pub(crate) output: u64,
    pub(crate) reasoning: Option<u64>,
}

impl Usage {
    /// All input tokens.
    pub(crate) const fn prompt(&self) -> u64 {
        self.input
            .saturating_add(self.cache_read)
            .saturating_add(self.cache_write)
    }
}

/// An upstream's answer that cannot be read, or the error that it reports instead.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) kind: ErrorKind,
    pub(crate) code: Option<String>,
    pub(crate) message: String,
}

impl Fault {
    /// The upstream does not keep to its protocol.
    pub(crate) fn malformed(message: &str) -> Self {
        Self {
            kind: ErrorKind::BadUpstream,
            code: Some("bad_upstream_answer".to_owned()),
            message: message.to_owned(),
        }
    }
}

/// Whether a stream goes on after an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Progress {
    More,
    /// The upstream has said that this was all.
    Done,
}
