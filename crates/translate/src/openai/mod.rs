//! OpenAI chat completions: answers read and written, requests read and written.

mod chat;
mod from_anthropic;
mod history;
mod message;
mod parts;
mod read;
mod write;

pub(crate) use chat::{Chat, Effort, Format, ToolChoice, for_each_tool};
pub(crate) use from_anthropic::write_request;
pub(crate) use message::{
    DataUrl, Part, Role, arguments_object, for_each_call, for_each_message, for_each_part,
};
pub(crate) use read::{StreamReader, read_whole};
pub(crate) use write::{StreamWriter, WholeWriter, write_error_event};
