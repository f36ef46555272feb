//! Exact token counts for byte-pair and Unigram vocabularies.
//!
//! The engine is our own, for three reasons. A compiled [`Vocabulary`] is one flat buffer that is read in place: no
//! load time, no copy per worker, the built-in ones are pages of the binary that all workers share. The splitter is
//! hand-written and never backtracks, where the reference's regular expression overflows its stack on a megabyte of
//! spaces. And merging is linear in the length of a piece, so a megabyte of one letter costs what prose costs.
//!
//! | file | what it does |
//! | --- | --- |
//! | `layout` | the buffer's bytes |
//! | `compile` | rank list to buffer (the build script runs it for the built-in vocabularies) |
//! | `atomic` | characters that merge before anything around them |
//! | `vocabulary` | buffer to lookups |
//! | `class`, `trait_bits`, `traits` | character classes of the patterns, and traits that normal forms need |
//! | `onboard` | the tokenizers that come with Tollgate |
//! | `load` | published files to buffer |
//! | `normalize`, `program` | what happens to a text before it is split: the usual, and whatever files list |
//! | `split` | text to pieces |
//! | `merge`, `unigram` | piece to tokens |
//! | `cache` | what was looked up lately |
//! | `count`, `stream`, `steps` | whole texts, texts that arrive in parts, whole texts with pauses |

mod atomic;
mod cache;
mod class;
mod compile;
mod count;
mod layout;
pub mod load;
mod merge;
mod normalize;
mod onboard;
mod perfect;
mod program;
mod split;
mod steps;
mod stream;
mod trait_bits;
mod traits;
mod unigram;
mod vocabulary;

pub use compile::CompileError;
pub use count::Counter;
pub use normalize::{Normalizer, Prefix};
pub use onboard::{NAMES, builtin_by_name};
#[cfg(feature = "onboard")]
pub use onboard::{compile_on_board, is_compiled_on_board, on_board_checksum};
pub use split::Pattern;
pub use steps::StepCounter;
pub use stream::StreamCounter;
pub use vocabulary::{Vocabulary, VocabularyError};

/// Cache-line aligned, as the tables in it are.
#[repr(C, align(64))]
struct Aligned<B: ?Sized>(B);

static O200K_BASE: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(
    env!("OUT_DIR"),
    "/o200k_base.vocabulary"
)));

/// The vocabulary that is part of every binary: OpenAI's o200k_base (GPT-4o, GPT-4.1, GPT-5, o-series). It stands in for
/// any other that is not at hand. Free to make, shared by all processes that run the binary.
///
/// # Errors
/// None in a correctly built binary; a header that this build cannot read.
pub fn builtin() -> Result<Vocabulary<'static>, VocabularyError> {
    Vocabulary::from_trusted_bytes(&O200K_BASE.0)
}

/// Compiles a list of token bytes and ranks, in any order, to a buffer for [`Vocabulary::from_bytes`].
///
/// Exact for any ranks, also where a join ranks below its halves or where merging never reaches a token. Takes seconds
/// for 200,000 tokens: for a daemon, not for a worker.
///
/// # Errors
/// See [`CompileError`].
pub fn compile(tokens: &[(Vec<u8>, u32)], pattern: Pattern) -> Result<Vec<u8>, CompileError> {
    let pairing = compile::Pairing {
        tokens,
        joins: compile::Joins::ByRank,
        fallback: None,
    };
    let settings = compile::Settings {
        pattern: pattern.id(),
        ..compile::Settings::default()
    };
    compile::compile(&pairing, &settings)
}
