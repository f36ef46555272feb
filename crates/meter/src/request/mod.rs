//! Request bodies: one strict pass for what the gateway must know, an exact count when the bound does not decide, and
//! changes in place.

mod audio;
mod count;
mod error;
mod facts;
mod field;
mod formula;
mod gemini;
mod image;
mod input;
mod member;
mod rewrite;
mod scan;
mod steps;
#[cfg(test)]
mod tests;

pub use count::{InputCount, count_input};
pub use error::{ScanError, ScanErrorKind};
pub use facts::{GenerationConfig, MaxTokens, MaxTokensName, RequestFacts, Span, StreamOptions, Text};
pub use field::{FieldPath, FieldPathError, Scalar};
pub use formula::{Formula, InputTally, Part};
pub use image::ImagePrice;
pub use member::without_member;
pub use rewrite::Rewrite;
pub use scan::{scan, scan_pausing};
pub use steps::InputSteps;
