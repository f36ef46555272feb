//! Gemini generateContent: answers read, requests written.

mod from_openai;
mod history;
mod read;
mod schema;

pub(crate) use from_openai::write_request;
pub(crate) use read::{StreamReader, read_whole};
