//! From the files in which vocabularies are published to compiled buffers. For a daemon: this takes seconds and memory.
//!
//! | file | format |
//! | --- | --- |
//! | `ranks` | tiktoken rank files: base64 bytes and a rank per line |
//! | `sentencepiece` | SentencePiece's `.model`, of byte-pair models |
//! | `tekken` | Mistral's `tekken.json` |
//! | `huggingface`, `unigram` | Hugging Face's `tokenizer.json` |
//!
//! Special and added tokens are left out: their spellings count as ordinary text. What a format may ask for and the engine
//! does not do is refused by its name, never ignored. A buffer is only handed out once it has encoded a text in many
//! scripts into tokens that spell that text again.

mod huggingface;
mod ranks;
mod sentencepiece;
mod tekken;
mod unigram;

use std::collections::HashMap;

use super::compile::{CompileError, Joins, Pairing, Settings, compile};
use super::normalize::{Normalizer, Prefix};
use super::{Counter, Pattern, Vocabulary};
use crate::counter::TokenCounter;

pub use huggingface::tokenizer_json;
#[cfg(feature = "onboard")]
pub(super) use ranks::packed_ranks;
pub use ranks::rank_file;
pub use sentencepiece::sentencepiece_model;
pub use tekken::tekken_json;

/// Why a file does not become a vocabulary. The file is at fault, or asks for what this build cannot do; trying again
/// does not help.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum LoadError {
    /// Not the format that it should be; what is wrong with it.
    Syntax(String),
    /// A feature that the engine does not have, by its name in the file.
    Unsupported(String),
    /// The tokens make no vocabulary.
    Compile(CompileError),
    /// The compiled vocabulary does not encode texts back to themselves; the text it failed with.
    Probe(String),
}

impl std::fmt::Display for LoadError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Syntax(problem) => write!(f, "not a readable tokenizer file: {problem}"),
            Self::Unsupported(feature) => write!(f, "unsupported tokenizer feature: {feature}"),
            Self::Compile(_) => write!(f, "the tokens make no vocabulary"),
            Self::Probe(text) => write!(f, "the tokens of a probe do not spell it again: {text:?}"),
        }
    }
}

impl std::error::Error for LoadError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Compile(error) => Some(error),
            _ => None,
        }
    }
}

impl From<CompileError> for LoadError {
    fn from(error: CompileError) -> Self {
        Self::Compile(error)
    }
}

/// The checksum that a buffer compiled from this file carries, see [`Vocabulary::source`]: tells whether a compiled
/// vocabulary is still current without compiling again.
pub fn source_checksum(file: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(file)
}

/// What all formats come down to.
#[derive(Default)]
struct Parts {
    tokens: Vec<(Vec<u8>, u32)>,
    /// Ids of left and right half and of the result, in order of priority; none if all tokens join by rank.
    merges: Option<Vec<(u32, u32, u32)>>,
    /// Whether pieces that are tokens are not merged; without a list of merges they never are.
    whole_pieces: bool,
    /// Tokens of single bytes, if texts begin as characters.
    fallback: Option<Vec<(u8, u32)>>,
    flags: u32,
    normalizer: Normalizer,
    prefix: Prefix,
}

impl Parts {
    fn build(&self, pattern: Pattern, file: &[u8]) -> Result<Vec<u8>, LoadError> {
        let buffer = compile(
            &Pairing {
                tokens: &self.tokens,
                joins: match &self.merges {
                    None => Joins::ByRank,
                    Some(pairs) => Joins::Listed {
                        pairs,
                        whole_pieces: self.whole_pieces,
                    },
                },
                fallback: self.fallback.as_deref(),
            },
            &Settings {
                pattern: pattern.id(),
                flags: self.flags,
                normalizer: self.normalizer.id(),
                prefix: self.prefix.id(),
                source: source_checksum(file),
            },
        )?;
        self.probe(&buffer)?;
        Ok(buffer)
    }

    /// Encodes texts of many kinds and compares what their tokens spell.
    fn probe(&self, buffer: &[u8]) -> Result<(), LoadError> {
        let vocabulary =
            Vocabulary::from_bytes(buffer).map_err(|error| LoadError::Probe(error.to_string()))?;
        let mut spelled: HashMap<u32, &[u8]> = self
            .tokens
            .iter()
            .map(|(bytes, id)| (*id, bytes.as_slice()))
            .collect();
        let bytes: Vec<u8> = (0..=u8::MAX).collect();
        for (byte, id) in self.fallback.iter().flatten() {
            spelled.extend(
                bytes
                    .get(usize::from(*byte)..)
                    .and_then(|rest| Some((*id, rest.get(..1)?))),
            );
        }
        let mut counter = Counter::new(vocabulary);
        for text in PROBES {
            let ids = counter.encode(text);
            let again: Vec<u8> = ids
                .iter()
                .flat_map(|id| spelled.get(id).copied().unwrap_or_default())
                .copied()
                .collect();
            let mut scratch = String::new();
            let prepared = counter.vocabulary().preparation().apply(text, true, &mut scratch);
            if again != prepared.as_bytes() || counter.count(text) != ids.len() as u64 {
                return Err(LoadError::Probe((*text).to_owned()));
            }
        }
        Ok(())
    }
}

/// Scripts, numbers, code, white space, emoji, combining marks, controls, special tokens' spellings.
const PROBES: &[&str] = &[
    "",
    " ",
    "The quick brown fox's jump over 12345 lazy dogs isn't THAT hard, is it?",
    "  indented\tcode {\n    return x[0] == \"\\n\" && y != 3.14e-10; // why?\r\n}\n\n\n  ",
    "自由软件是一种用户可以自由地运行、拷贝、分发、学习、修改并改进的软件。2024年",
    "ひらがなとカタカナ、漢字。한국어 문장입니다. ภาษาไทย हिन्दी में عربي עברית Ελληνικά Русский Việt Nam",
    "e\u{301} \u{212b} \u{fb01} \u{1f468}\u{200d}\u{1f469}\u{200d}\u{1f467}\u{1f1e9}\u{1f1ea} \u{0}\u{7f}\u{feff}\u{10ffff}",
    "<|endoftext|><s>[INST]<think></think>\u{2581}\u{2581}x",
    "aGVsbG8gd29ybGQsIHRoaXMgaXMgYmFzZTY0IQ==aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa----------------",
];
