//! Translation between the wire protocols of model providers, without I/O: a client that speaks one protocol uses a
//! deployment that speaks another.
//!
//! | pair | requests | answers |
//! | --- | --- | --- |
//! | OpenAI chat completions → Anthropic messages | [`translate_request`] | [`translate_response`], [`StreamTranslator`] |
//! | OpenAI chat completions → Gemini generateContent | the same | the same |
//! | Anthropic messages → OpenAI chat completions | the same | the same |
//! | Anthropic messages → Gemini generateContent | the same | the same |
//!
//! A request is translated field by field. What the other protocol cannot express is refused with the field's path
//! ([`Refusal`]); what may be left out without harm is on the lists in the crate's README, and nothing else is left out.
//! An answer goes through one small model (`answer::Piece`): each upstream protocol is read into pieces, whole or
//! streamed, and each client protocol is written from pieces, whole or streamed, so a stream and a whole answer cannot
//! mean different things.
//!
//! Texts are never decoded on the way: an escaped JSON string is copied as it stands.
//!
//! Wire formats after the providers' references: OpenAI "Create chat completion" and "Chat completion chunk"; Anthropic
//! "Create a Message" (version 2023-06-01, which still has the sampling parameters), "Streaming messages", "Stop reasons and fallback", "Structured outputs", "Adaptive thinking",
//! "Errors"; Gemini "Generating content" (v1beta), "Function calling", "Gemini thinking", "Thought signatures",
//! "OpenAI compatibility".
#![forbid(unsafe_code)]

mod answer;
mod anthropic;
mod error;
mod gemini;
mod json;
mod openai;
mod pair;
mod refusal;
mod request;
mod response;
mod sse;
mod stream;
mod turns;

pub use error::{ErrorKind, error_body};
pub use gemini::{GeminiArray, gemini_path};
pub use json::SyntaxError;
pub use pair::{Pair, Protocol};
pub use refusal::Refusal;
pub use request::{Ask, Options, Sampling, Thinking, Translated, translate_request};
pub use response::{Answer, Context, translate_response};
pub use stream::{MAX_EVENT, StreamTranslator};
