//! Metering without I/O: what a request asks for, what a response used, and how texts count as tokens.
#![forbid(unsafe_code)]

mod api;
mod counter;
pub mod counting;
mod json;
pub mod request;
pub mod response;
pub mod tokenizer;

pub use api::{Api, GeminiCall};
pub use counter::TokenCounter;
pub use json::SyntaxError;
pub use response::TextSink;
