//! Anthropic messages: answers read and written, requests written.

mod from_openai;
mod read;
mod write;

pub(crate) use from_openai::write_request;
pub(crate) use read::{StreamReader, read_whole};
pub(crate) use write::{StreamWriter, WholeWriter, write_error_event};
