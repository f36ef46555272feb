//! Answers as they pass: usage, text and errors from JSON bodies and event streams, and clean early ends.

mod body;
mod ending;
mod event;
mod found;
mod role;
mod sse;
#[cfg(test)]
mod tests;
mod usage;
mod whole;

pub use body::{Answer, JsonWatch};
pub use ending::{Ending, write_early_end, write_error_event};
pub use event::{EventFacts, EventKind, Phase, StreamState, inspect};
pub use found::{NoText, Short, TextBytes, TextSink};
pub use sse::{SsePiece, SseReader, SseSplitter};
pub use usage::Usage;
