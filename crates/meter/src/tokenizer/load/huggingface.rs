//! Hugging Face's `tokenizer.json`: byte-level BPE, and SentencePiece-like BPE with byte fallback. Unigram models are read
//! beside, in `unigram`.

use std::collections::{HashMap, HashSet};

use serde::Deserialize;
use serde_json::Value;

use super::{LoadError, Parts, unigram};
use crate::tokenizer::layout::METASPACE;
use crate::tokenizer::{Normalizer, Pattern, Prefix};

/// What SentencePiece writes for a space.
const SPACE: &str = "\u{2581}";

#[derive(Deserialize)]
pub(super) struct File {
    #[serde(default)]
    added_tokens: Vec<Added>,
    #[serde(default)]
    pub(super) normalizer: Value,
    #[serde(default)]
    pub(super) pre_tokenizer: Value,
    pub(super) model: Model,
}

#[derive(Deserialize)]
struct Added {
    content: String,
}

#[derive(Deserialize)]
pub(super) struct Model {
    #[serde(default, rename = "type")]
    kind: Option<String>,
    #[serde(default)]
    dropout: Option<f64>,
    #[serde(default)]
    continuing_subword_prefix: Option<String>,
    #[serde(default)]
    end_of_word_suffix: Option<String>,
    #[serde(default)]
    pub(super) byte_fallback: bool,
    #[serde(default)]
    ignore_merges: bool,
    #[serde(default)]
    pub(super) unk_id: Option<usize>,
    pub(super) vocab: Vocab,
    #[serde(default)]
    merges: Vec<Merge>,
}

/// BPE's or Unigram's; other models have other things, which are only recognized so as to be refused by name.
#[derive(Deserialize)]
#[serde(untagged)]
pub(super) enum Vocab {
    Ids(HashMap<String, u32>),
    Scores(Vec<(String, f64)>),
    Other(serde::de::IgnoredAny),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Pair(String, String),
    Line(String),
}

impl Merge {
    fn halves(&self) -> Option<(&str, &str)> {
        match self {
            Self::Pair(left, right) => Some((left, right)),
            Self::Line(line) => line.split_once(' '),
        }
    }
}

/// Compiles a `tokenizer.json`.
///
/// # Errors
/// See [`LoadError`].
pub fn tokenizer_json(file: &[u8]) -> Result<Vec<u8>, LoadError> {
    let parsed: File = serde_json::from_slice(file).map_err(|error| LoadError::Syntax(error.to_string()))?;
    let model = &parsed.model;
    match (model.kind.as_deref(), &model.vocab) {
        (Some("Unigram"), _) | (None, Vocab::Scores(_)) => return unigram::compile(&parsed, file),
        (Some("BPE") | None, _) => {}
        (Some(other), _) => return Err(unsupported("model", other)),
    }
    let steps = Steps::read(&parsed)?;
    let Vocab::Ids(vocab) = &model.vocab else {
        return Err(unsupported("model", "one whose vocab is no map"));
    };
    if model.dropout.is_some_and(|dropout| dropout > 0.0) {
        return Err(unsupported("model", "dropout"));
    }
    for (name, affix) in [
        ("continuing_subword_prefix", &model.continuing_subword_prefix),
        ("end_of_word_suffix", &model.end_of_word_suffix),
    ] {
        if affix.as_deref().is_some_and(|affix| !affix.is_empty()) {
            return Err(unsupported("model", name));
        }
    }
    let mut parts = Parts {
        normalizer: steps.normalizer,
        prefix: steps.prefix,
        whole_pieces: model.ignore_merges,
        ..Parts::default()
    };
    let added: HashSet<&str> = parsed
        .added_tokens
        .iter()
        .map(|token| token.content.as_str())
        .collect();
    if steps.pattern.is_spaced() {
        if !model.byte_fallback {
            return Err(unsupported("model", "characters without byte_fallback"));
        }
        if model.ignore_merges {
            return Err(unsupported("model", "ignore_merges without a split"));
        }
        parts.flags = METASPACE;
        let mut fallback = Vec::new();
        for (token, id) in vocab {
            if let Some(byte) = fallback_byte(token) {
                fallback.push((byte, *id));
            } else if !token.is_empty() && !token.contains(' ') {
                parts.tokens.push((token.replace(SPACE, " ").into_bytes(), *id));
            }
        }
        parts.fallback = Some(fallback);
    } else {
        let alphabet = byte_alphabet();
        for (token, id) in vocab {
            // Tokens that spell no bytes, and added ones where whole pieces are looked up, are never met in a text.
            let bytes: Option<Vec<u8>> = token.chars().map(|c| alphabet.get(&c).copied()).collect();
            if let Some(bytes) = bytes
                && !bytes.is_empty()
                && !(bytes.len() > 1 && added.contains(token.as_str()))
            {
                parts.tokens.push((bytes, *id));
            }
        }
    }
    parts.tokens.sort_unstable_by_key(|token| token.1);
    let mut merges = Vec::with_capacity(model.merges.len());
    let mut joined = String::new();
    for (merge, place) in model.merges.iter().zip(0..) {
        let bad = || LoadError::Syntax(format!("merge {place} is not of two tokens to a third"));
        let (left, right) = merge.halves().ok_or_else(bad)?;
        joined.clear();
        joined.extend([left, right]);
        let id = |token: &str| vocab.get(token).copied().ok_or_else(bad);
        merges.push((id(left)?, id(right)?, id(&joined)?));
    }
    parts.merges = Some(merges);
    parts.build(steps.pattern, file)
}

pub(super) fn unsupported(place: &str, feature: &str) -> LoadError {
    LoadError::Unsupported(format!("{place}: {feature}"))
}

/// The byte of a `<0xAB>` token.
pub(super) fn fallback_byte(token: &str) -> Option<u8> {
    let digits = token.strip_prefix("<0x")?.strip_suffix('>')?;
    (digits.len() == 2).then(|| u8::from_str_radix(digits, 16).ok())?
}

/// GPT-2's alphabet: each byte that prints in Latin-1 stands for itself, the others for U+0100 and up in their order.
pub(super) fn byte_alphabet() -> HashMap<char, u8> {
    let mut others = 0x100..;
    (0..=u8::MAX)
        .filter_map(|byte| match byte {
            b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => Some((char::from(byte), byte)),
            _ => Some((char::from_u32(others.next()?)?, byte)),
        })
        .collect()
}

/// What is done to a text before it meets the model.
struct Steps {
    normalizer: Normalizer,
    prefix: Prefix,
    pattern: Pattern,
}

impl Steps {
    fn read(file: &File) -> Result<Self, LoadError> {
        let (mut normalizer, mut prefix, mut metaspace) = (Normalizer::None, Prefix::None, false);
        for step in flat(&file.normalizer, "normalizers") {
            match kind(step) {
                "NFC" if !metaspace => normalizer = Normalizer::Nfc,
                "NFKC" if !metaspace => normalizer = Normalizer::Nfkc,
                "Replace" if is_space_pattern(step) && step["content"] == SPACE => metaspace = true,
                "Prepend" if step["prepend"] == SPACE => prefix = Prefix::Always,
                other => return Err(unsupported("normalizer", &described(other, step))),
            }
        }
        let steps = flat(&file.pre_tokenizer, "pretokenizers");
        let mut pattern = Pattern::Spaces;
        match steps.as_slice() {
            [] if metaspace => {}
            // After the replacement there are no spaces left to split at.
            [split] if metaspace && kind(split) == "Split" && is_space_pattern(split) => {}
            [step] if kind(step) == "Metaspace" && prefix == Prefix::None => {
                if step
                    .get("replacement")
                    .is_some_and(|replacement| replacement != SPACE)
                {
                    return Err(unsupported("pre_tokenizer", "Metaspace with another replacement"));
                }
                prefix = match step["prepend_scheme"].as_str() {
                    Some("always" | "first") => Prefix::UnlessThere,
                    None if step["add_prefix_space"] != false => Prefix::UnlessThere,
                    None | Some("never") => Prefix::None,
                    Some(other) => {
                        return Err(unsupported("pre_tokenizer", &format!("prepend_scheme {other}")));
                    }
                };
                if step["split"] != false {
                    pattern = Pattern::EachSpace;
                }
            }
            [splits @ .., last] if kind(last) == "ByteLevel" && !metaspace && prefix == Prefix::None => {
                if last["add_prefix_space"] == true {
                    prefix = Prefix::UnlessThere;
                }
                pattern = byte_level_pattern(splits, last["use_regex"] != false)?;
            }
            _ => return Err(unsupported("pre_tokenizer", &file.pre_tokenizer.to_string())),
        }
        Ok(Self {
            normalizer,
            prefix,
            pattern,
        })
    }
}

/// The steps of a `Sequence` of steps, or the single step; none for null.
pub(super) fn flat<'v>(step: &'v Value, list: &str) -> Vec<&'v Value> {
    match step {
        Value::Null => Vec::new(),
        _ if kind(step) == "Sequence" => step[list]
            .as_array()
            .into_iter()
            .flatten()
            .flat_map(|step| flat(step, list))
            .collect(),
        _ => vec![step],
    }
}

pub(super) fn kind(step: &Value) -> &str {
    step["type"].as_str().unwrap_or_default()
}

/// Whether a step looks for a single space.
pub(super) fn is_space_pattern(step: &Value) -> bool {
    step.pointer("/pattern/String")
        .is_some_and(|pattern| pattern == " ")
}

/// A step by its name, with its settings where these are short.
pub(super) fn described(name: &str, step: &Value) -> String {
    let settings = step.to_string();
    if settings.len() > 200 {
        name.to_owned()
    } else {
        settings
    }
}

/// The pattern that a row of `Split` steps before `ByteLevel` stands for.
fn byte_level_pattern(splits: &[&Value], byte_level_splits: bool) -> Result<Pattern, LoadError> {
    let mut expressions = Vec::with_capacity(splits.len());
    for split in splits {
        // What a pattern of ours matches is all of the text, so it is the same whether matches are kept apart or
        // everything else is taken out.
        let behavior = (split["behavior"].as_str(), split["invert"].as_bool());
        let expression = split.pointer("/pattern/Regex").and_then(Value::as_str);
        match (kind(split), behavior, expression) {
            ("Split", (Some("Isolated"), _) | (Some("Removed"), Some(true)), Some(expression)) => {
                expressions.push(expression);
            }
            (name, ..) => return Err(unsupported("pre_tokenizer", &described(name, split))),
        }
    }
    match (expressions.is_empty(), byte_level_splits) {
        (true, true) => Ok(Pattern::Gpt2),
        (false, false) => known_pattern(&expressions).ok_or_else(|| {
            unsupported(
                "pre_tokenizer",
                &format!("Split by {}", expressions.join(" then ")),
            )
        }),
        _ => Err(unsupported(
            "pre_tokenizer",
            "ByteLevel with use_regex behind a Split, or without either",
        )),
    }
}

/// The pattern that these expressions, one after the other, stand for.
pub(super) fn known_pattern(expressions: &[&str]) -> Option<Pattern> {
    let plain: Vec<String> = expressions
        .iter()
        .map(|expression| expression.replace('\r', "\\r").replace('\n', "\\n"))
        .collect();
    KNOWN
        .iter()
        .find(|(_, known)| known.iter().eq(plain.iter()))
        .map(|(pattern, _)| *pattern)
}

/// Published expressions, and which of our splitters does the same.
const KNOWN: &[(Pattern, &[&str])] = &[
    (
        Pattern::Gpt2,
        &[r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"],
    ),
    (
        Pattern::Llama3,
        &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
    ),
    (
        Pattern::Qwen2,
        &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
    ),
    (
        Pattern::Qwen35,
        &[
            r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
    ),
    (
        Pattern::O200k,
        &[
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
    ),
    (
        Pattern::Tekken,
        &[
            r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
    ),
    (
        Pattern::Kimi,
        &[
            r"[\p{Han}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]+[\p{Ll}\p{Lm}\p{Lo}\p{M}&&[^\p{Han}]]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+",
        ],
    ),
    (
        Pattern::DeepSeek,
        &[
            r"\p{N}{1,3}",
            r"[一-龥぀-ゟ゠-ヿ]+",
            r##"[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_`{|}~][A-Za-z]+|[^\r\n\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"##,
        ],
    ),
];
