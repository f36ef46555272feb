//! Anthropic messages: answers read and written, requests read and written.

mod ask;
mod block;
mod from_openai;
mod history;
mod read;
mod write;

pub(crate) use ask::{NO_EQUIVALENT, Request, Thought, ToolChoice, for_each_tool};
pub(crate) use block::{Block, for_each_block};
pub(crate) use from_openai::write_request;
pub(crate) use read::{StreamReader, read_whole};
pub(crate) use write::{StreamWriter, WholeWriter, write_error_event};
