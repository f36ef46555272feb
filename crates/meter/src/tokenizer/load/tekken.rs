//! Mistral's `tekken.json`: base64 bytes per rank, and how many of the ids that come first are special.

use serde::Deserialize;

use super::huggingface::known_pattern;
use super::ranks::base64;
use super::{LoadError, Parts};

#[derive(Deserialize)]
struct File {
    config: Config,
    vocab: Vec<Token>,
}

#[derive(Deserialize)]
struct Config {
    pattern: String,
    default_vocab_size: usize,
    default_num_special_tokens: usize,
}

#[derive(Deserialize)]
struct Token {
    rank: u32,
    token_bytes: String,
}

/// Compiles a `tekken.json`. Ids are ranks: those that a model sees are higher by the number of special tokens.
///
/// # Errors
/// See [`LoadError`].
pub fn tekken_json(file: &[u8]) -> Result<Vec<u8>, LoadError> {
    let parsed: File = serde_json::from_slice(file).map_err(|error| LoadError::Syntax(error.to_string()))?;
    let pattern = known_pattern(&[&parsed.config.pattern])
        .ok_or_else(|| LoadError::Unsupported(format!("pattern {}", parsed.config.pattern)))?;
    let ordinary = parsed
        .config
        .default_vocab_size
        .saturating_sub(parsed.config.default_num_special_tokens);
    let tokens: Option<Vec<_>> = parsed
        .vocab
        .into_iter()
        .filter(|token| (token.rank as usize) < ordinary)
        .map(|token| Some((base64(token.token_bytes.as_bytes())?, token.rank)))
        .collect();
    Parts {
        tokens: tokens.ok_or_else(|| LoadError::Syntax("token_bytes is not base64".to_owned()))?,
        ..Parts::default()
    }
    .build(pattern, file)
}
