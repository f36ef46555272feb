//! What our token ids are compared with, and the texts they are compared on.
//!
//! | file | what it has |
//! | --- | --- |
//! | `subject` | each tokenizer on board, and those of files, with the oracles that know it |
//! | `expressions` | the published split expressions |
//! | `corpus` | texts: what a Debian system holds, and seeded generators |
//! | `texts` | the generators that the crate's own tests use, too |
//! | `natural` | natural texts of a few kinds, for figures of speed |
//! | `timing` | figures of speed |
//! | `compare` | one text: whole, counted, and in random parts |
#![forbid(unsafe_code)]
#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    missing_docs,
    reason = "for tests and measurements: what is not as it must be ends them"
)]

pub mod compare;
pub mod corpus;
pub mod expressions;
pub mod natural;
pub mod subject;
#[allow(clippy::should_implement_trait, reason = "its `next` never ends")]
#[path = "../../tests/tokenizer/texts.rs"]
pub mod texts;
pub mod timing;
