//! The tokenizers that come with Tollgate.
//!
//! One is part of every binary ([`super::builtin`]); the others are only in binaries with the feature `onboard`, which is
//! for the daemon: cl100k_base compiled, as many models count with it from the first request on, the rest as rank lists.
//! It puts them into files that workers map.

use super::{Vocabulary, VocabularyError, builtin};

/// Names of all tokenizers on board.
pub const NAMES: [&str; 8] = [
    "o200k_base",
    "o200k_harmony",
    "cl100k_base",
    "p50k_base",
    "r50k_base",
    "qwen",
    "deepseek",
    "glm",
];

/// The vocabulary of a name, if it is part of every binary.
///
/// # Errors
/// As [`builtin`].
pub fn builtin_by_name(name: &str) -> Option<Result<Vocabulary<'static>, VocabularyError>> {
    match name {
        // Harmony has other special tokens, which count as ordinary text here.
        "o200k_base" | "o200k_harmony" => Some(builtin()),
        _ => None,
    }
}

#[cfg(feature = "onboard")]
mod ranks {
    use super::super::load::{LoadError, packed_ranks, source_checksum};
    use super::super::{Aligned, Normalizer, Pattern, Vocabulary};

    /// OpenAI's cl100k_base: GPT-3.5, GPT-4, text-embedding-3.
    static CL100K_BASE: &Aligned<[u8]> = &Aligned(*include_bytes!(concat!(
        env!("OUT_DIR"),
        "/cl100k_base.vocabulary"
    )));

    /// The buffer of a vocabulary that needs no compiling.
    fn compiled(name: &str) -> Option<&'static [u8]> {
        (name == "cl100k_base").then_some(&CL100K_BASE.0)
    }

    /// A packed rank list and how its texts are split and normalized.
    struct Entry {
        name: &'static str,
        ranks: &'static [u8],
        pattern: Pattern,
        normalizer: Normalizer,
        /// Tokens are spelled in GPT-2's alphabet.
        spelled: bool,
    }

    const ENTRIES: [Entry; 5] = [
        Entry {
            name: "p50k_base",
            ranks: include_bytes!(concat!(env!("OUT_DIR"), "/p50k_base.ranks")),
            pattern: Pattern::Gpt2,
            normalizer: Normalizer::None,
            spelled: false,
        },
        Entry {
            name: "r50k_base",
            ranks: include_bytes!(concat!(env!("OUT_DIR"), "/r50k_base.ranks")),
            pattern: Pattern::Gpt2,
            normalizer: Normalizer::None,
            spelled: false,
        },
        Entry {
            name: "qwen",
            ranks: splintr_vocab_qwen::QWEN3_VOCAB_PACKED,
            pattern: Pattern::Qwen2,
            normalizer: Normalizer::Nfc,
            spelled: false,
        },
        Entry {
            name: "deepseek",
            ranks: splintr_vocab_deepseek::DEEPSEEK_V3_VOCAB_PACKED,
            pattern: Pattern::DeepSeek,
            normalizer: Normalizer::None,
            spelled: true,
        },
        Entry {
            name: "glm",
            ranks: splintr_vocab_glm::GLM4_VOCAB_PACKED,
            pattern: Pattern::Llama3,
            normalizer: Normalizer::None,
            spelled: false,
        },
    ];

    fn entry(name: &str) -> Option<&'static Entry> {
        ENTRIES.iter().find(|entry| entry.name == name)
    }

    /// Whether [`compile_on_board`] has this one compiled already.
    pub fn is_compiled_on_board(name: &str) -> bool {
        compiled(name).is_some()
    }

    /// Compiles a tokenizer on board that is not built in: half a second to two of one core, unless it is compiled already.
    ///
    /// # Errors
    /// None in a correctly built binary.
    pub fn compile_on_board(name: &str) -> Option<Result<Vec<u8>, LoadError>> {
        if let Some(buffer) = compiled(name) {
            return Some(Ok(buffer.to_vec()));
        }
        entry(name).map(|entry| packed_ranks(entry.ranks, entry.pattern, entry.normalizer, entry.spelled))
    }

    /// The checksum that a buffer made by [`compile_on_board`] carries.
    pub fn on_board_checksum(name: &str) -> Option<u64> {
        if let Some(buffer) = compiled(name) {
            return Vocabulary::from_trusted_bytes(buffer)
                .ok()
                .map(|vocabulary| vocabulary.source());
        }
        entry(name).map(|entry| source_checksum(entry.ranks))
    }
}

#[cfg(feature = "onboard")]
pub use ranks::{compile_on_board, is_compiled_on_board, on_board_checksum};
