//! Tokenizers with the oracles that know them.

use std::borrow::Cow;
use std::collections::HashMap;
use std::path::Path;
use std::sync::LazyLock;

use regex_syntax::hir::{Class, HirKind};
use serde_json::value::RawValue;
use serde_json::{Value, json};
use tiktoken_rs::CoreBPE;
use tokenizers::pipeline::{EncodeOptions, PipelineTokenizer};
use tollgate_meter::tokenizer::load::{rank_file, tekken_json, tokenizer_json};
use tollgate_meter::tokenizer::{NAMES, Normalizer, Pattern, compile_on_board};
use unicode_normalization::UnicodeNormalization;

use crate::expressions::{DEEPSEEK, GPT2, KIMI, LLAMA3, O200K, QWEN2, QWEN35};

/// Another engine with the same vocabulary.
pub enum Oracle {
    /// tiktoken's Rust code; the flag is for vocabularies whose published code normalizes to NFC first.
    Tiktoken(Box<CoreBPE>, bool),
    /// Hugging Face's `tokenizers`; the flag is for vocabularies that know no classes of characters.
    HuggingFace(Box<PipelineTokenizer>, bool),
}

impl Oracle {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Tiktoken(..) => "tiktoken-rs",
            Self::HuggingFace(..) => "tokenizers",
        }
    }

    /// The text, without what this oracle is known to see otherwise than the vocabularies' own code.
    pub fn comparable<'t>(&self, text: &'t str) -> Cow<'t, str> {
        match self {
            Self::Tiktoken(..) | Self::HuggingFace(_, true) => Cow::Borrowed(text),
            // Its character tables are those of a later Unicode, in which some unassigned characters are letters, and
            // to it U+017F is no spelling of the s in a contraction (to its predecessors and to tiktoken, it is).
            Self::HuggingFace(_, false) => {
                if text.chars().any(|c| c == '\u{17f}' || is_unassigned(c)) {
                    let kept = |c| if c == '\u{17f}' { 's' } else { '\u{fffd}' };
                    Cow::Owned(
                        text.chars()
                            .map(|c| {
                                if c == '\u{17f}' || is_unassigned(c) {
                                    kept(c)
                                } else {
                                    c
                                }
                            })
                            .collect(),
                    )
                } else {
                    Cow::Borrowed(text)
                }
            }
        }
    }

    pub fn encode(&self, text: &str) -> Vec<u32> {
        match self {
            Self::Tiktoken(encoding, false) => encoding.encode_ordinary(text),
            Self::Tiktoken(encoding, true) => encoding.encode_ordinary(&text.nfc().collect::<String>()),
            Self::HuggingFace(pipeline, _) => {
                let mut out = Vec::new();
                let options = EncodeOptions {
                    encode_special_tokens: true,
                    ..EncodeOptions::no_specials()
                };
                pipeline
                    .encode_into(text, &options, &mut out)
                    .expect("the oracle encodes");
                out.iter().map(|token| token.id()).collect()
            }
        }
    }
}

fn is_unassigned(character: char) -> bool {
    static UNASSIGNED: LazyLock<Vec<(char, char)>> = LazyLock::new(|| {
        let Ok(HirKind::Class(Class::Unicode(set))) =
            regex_syntax::parse(r"\p{Cn}").map(|hir| hir.into_kind())
        else {
            panic!("a class of characters");
        };
        set.ranges()
            .iter()
            .map(|range| (range.start(), range.end()))
            .collect()
    });
    let at = UNASSIGNED.partition_point(|range| range.1 < character);
    UNASSIGNED.get(at).is_some_and(|range| range.0 <= character)
}

/// A tokenizer of ours and what knows it besides.
pub struct Subject {
    pub name: String,
    /// Compiled; empty for those that are built in.
    pub buffer: Vec<u8>,
    pub oracles: Vec<Oracle>,
}

type Ranks = Vec<(Vec<u8>, u32)>;

/// The compiled vocabulary of a tokenizer on board; empty for those that are built in.
pub fn buffer(name: &str) -> Vec<u8> {
    assert!(NAMES.contains(&name), "{name} is on board");
    let buffer = compile_on_board(name).transpose();
    buffer.expect("tokenizers on board compile").unwrap_or_default()
}

/// A tokenizer on board, with all oracles or only with the quicker ones to load.
pub fn on_board(name: &str) -> Subject {
    let buffer = buffer(name);
    let oracles = match name {
        "o200k_base" | "o200k_harmony" => {
            let own = if name == "o200k_base" {
                tiktoken_rs::o200k_base()
            } else {
                tiktoken_rs::o200k_harmony()
            };
            let own = own.expect("tiktoken's own");
            let json = hugging_face(&tiktoken_ranks(&own), &[O200K], None);
            vec![Oracle::Tiktoken(Box::new(own), false), pipeline(&json)]
        }
        "cl100k_base" => {
            // Its expression is not among those that the other oracle knows.
            vec![Oracle::Tiktoken(
                Box::new(tiktoken_rs::cl100k_base().expect("tiktoken's own")),
                false,
            )]
        }
        "p50k_base" | "r50k_base" => {
            let own = if name == "p50k_base" {
                tiktoken_rs::p50k_base()
            } else {
                tiktoken_rs::r50k_base()
            };
            let own = own.expect("tiktoken's own");
            let json = hugging_face(&tiktoken_ranks(&own), &[], None);
            vec![Oracle::Tiktoken(Box::new(own), false), pipeline(&json)]
        }
        "qwen" => {
            let ranks = packed(splintr_vocab_qwen::QWEN3_VOCAB_PACKED);
            let json = hugging_face(&ranks, &[QWEN2], Some("NFC"));
            vec![tiktoken(&ranks, QWEN2, true), pipeline(&json)]
        }
        "glm" => {
            let ranks = packed(splintr_vocab_glm::GLM4_VOCAB_PACKED);
            let json = hugging_face(&ranks, &[LLAMA3], None);
            vec![tiktoken(&ranks, LLAMA3, false), pipeline(&json)]
        }
        _ => {
            let alphabet = alphabet();
            let byte = |c: char| {
                alphabet
                    .iter()
                    .position(|letter| *letter == c)
                    .map(|byte| byte as u8)
            };
            let ranks = packed(splintr_vocab_deepseek::DEEPSEEK_V3_VOCAB_PACKED)
                .into_iter()
                .filter_map(|(bytes, rank)| {
                    let text = String::from_utf8(bytes).expect("a spelled token");
                    Some((text.chars().map(byte).collect::<Option<Vec<u8>>>()?, rank))
                })
                .collect();
            // Three splits are no single expression.
            let spelled = DEEPSEEK.map(|expression| expression.replace("\\r", "\r").replace("\\n", "\n"));
            let expressions = spelled.each_ref().map(String::as_str);
            vec![pipeline(&hugging_face(&ranks, &expressions, None))]
        }
    };
    Subject {
        name: name.to_owned(),
        buffer,
        oracles,
    }
}

/// A tokenizer in a file: `NAME.json` is Hugging Face's or Mistral's, `NAME.PATTERN.tiktoken` a rank file, `PATTERN` one of
/// our patterns, with `+nfc` behind it if texts are normalized. `onboard.NAME.json` compares what is on board under that
/// name with the model's own file.
pub fn from_file(path: &Path) -> Subject {
    let file = std::fs::read(path).expect("a readable file");
    let mut name = path
        .file_name()
        .map_or_else(String::new, |name| name.to_string_lossy().into_owned());
    let (buffer, oracle) = if let Some(stem) = name.strip_suffix(".tiktoken") {
        let pattern = stem.split_once('.').map_or("", |parts| parts.1);
        let (pattern, nfc) = pattern
            .strip_suffix("+nfc")
            .map_or((pattern, false), |pattern| (pattern, true));
        let pattern = Pattern::from_name(pattern).expect("a known pattern in the file's name");
        let normalizer = if nfc { Normalizer::Nfc } else { Normalizer::None };
        let buffer = rank_file(&file, pattern, normalizer).expect("a usable rank file");
        let expression = match pattern {
            Pattern::O200k => O200K,
            Pattern::Llama3 => LLAMA3,
            Pattern::Qwen2 => QWEN2,
            Pattern::Qwen35 => QWEN35,
            Pattern::Kimi => KIMI,
            Pattern::Gpt2 => GPT2,
            other => panic!("no expression for {}", other.name()),
        };
        (buffer, tiktoken(&lines(&file), expression, nfc))
    } else if let Ok(buffer) = tekken_json(&file) {
        let parsed: Value = serde_json::from_slice(&file).expect("JSON");
        let expression = parsed["config"]["pattern"]
            .as_str()
            .expect("a pattern")
            .to_owned();
        let size = |name: &str| parsed["config"][name].as_u64().expect("a size");
        let ordinary = size("default_vocab_size") - size("default_num_special_tokens");
        let ranks: Ranks = (0..ordinary as u32)
            .zip(parsed["vocab"].as_array().expect("a list"))
            .map(|(rank, token)| (base64(token["token_bytes"].as_str().unwrap_or_default()), rank))
            .collect();
        (buffer, tiktoken(&ranks, &expression, false))
    } else {
        let on_board = name
            .strip_prefix("onboard.")
            .and_then(|name| name.strip_suffix(".json"));
        let buffer = match on_board.map(str::to_owned) {
            Some(on_board) => {
                name = on_board;
                compile_on_board(&name)
                    .transpose()
                    .expect("it compiles")
                    .unwrap_or_default()
            }
            None => tokenizer_json(&file).unwrap_or_else(|error| panic!("{name}: {error:?}")),
        };
        let text = std::str::from_utf8(&file).expect("UTF-8");
        (buffer, without_added(text))
    };
    Subject {
        name,
        buffer,
        oracles: vec![oracle],
    }
}

/// A `tokenizer.json` given as a value.
pub fn from_json(name: &str, json: &Value) -> Subject {
    let text = json.to_string();
    let buffer = tokenizer_json(text.as_bytes()).unwrap_or_else(|error| panic!("{name}: {error:?}"));
    Subject {
        name: name.to_owned(),
        buffer,
        oracles: vec![without_added(&text)],
    }
}

/// The oracle of a `tokenizer.json`, to which spellings of added tokens are ordinary text, as they are to us.
fn without_added(text: &str) -> Oracle {
    let mut json: Value = serde_json::from_str(text).expect("JSON");
    json["added_tokens"] = json!([]);
    json["post_processor"] = Value::Null;
    if !json["model"]["vocab"].is_array() {
        return pipeline(&json);
    }
    // Scores that are written anew are read as others: serde_json does not round to the nearest.
    json["model"]["vocab"] = json!([]);
    let canonical = tokenizers::canonicalize_str(&json.to_string()).expect("a canonical form");
    let file: HashMap<String, &RawValue> = serde_json::from_str(text).expect("an object");
    let model: HashMap<String, &RawValue> = serde_json::from_str(file["model"].get()).expect("an object");
    let vocab = format!("\"vocab\": {}", model["vocab"].get());
    let whole = canonical.replacen("\"vocab\": []", &vocab, 1);
    let pipeline = tokenizers::from_json(&whole).unwrap_or_else(|error| panic!("the oracle loads: {error}"));
    Oracle::HuggingFace(Box::new(pipeline), true)
}

/// The ordinary tokens of one of tiktoken's encodings.
fn tiktoken_ranks(encoding: &CoreBPE) -> Ranks {
    let special = encoding.special_tokens();
    (0..250_000)
        .filter_map(|rank| Some((encoding.decode_bytes(&[rank]).ok()?, rank)))
        .filter(|(bytes, _)| !std::str::from_utf8(bytes).is_ok_and(|text| special.contains(text)))
        .collect()
}

/// `SPLNTRV1`, count, then rank and length in LEB128 and the bytes of each token.
fn packed(file: &[u8]) -> Ranks {
    let (mut at, mut ranks) = (12, Vec::new());
    let number = |at: &mut usize| {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = file[*at];
            *at += 1;
            value |= u32::from(byte & 0x7F) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    };
    while at < file.len() {
        let rank = number(&mut at);
        let len = number(&mut at) as usize;
        ranks.push((file[at..at + len].to_vec(), rank));
        at += len;
    }
    ranks
}

fn lines(file: &[u8]) -> Ranks {
    std::str::from_utf8(file)
        .expect("ASCII")
        .lines()
        .filter_map(|line| line.split_once(' '))
        .map(|(bytes, rank)| (base64(bytes), rank.parse().expect("a rank")))
        .collect()
}

fn base64(text: &str) -> Vec<u8> {
    let digit = |c: u8| {
        b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
            .iter()
            .position(|d| *d == c)
            .unwrap_or(0) as u32
    };
    let kept = text.trim_end_matches('=');
    let bits: Vec<u32> = kept.bytes().map(digit).collect();
    let mut bytes: Vec<u8> = bits
        .chunks(4)
        .flat_map(|chunk| {
            let word = (0..4).fold(0, |word, at| word << 6 | chunk.get(at).copied().unwrap_or(0));
            [(word >> 16) as u8, (word >> 8) as u8, word as u8]
        })
        .collect();
    bytes.truncate(kept.len() * 3 / 4);
    bytes
}

fn tiktoken(ranks: &Ranks, expression: &str, nfc: bool) -> Oracle {
    let encoder = ranks.iter().cloned().collect();
    let encoding = CoreBPE::new(encoder, rustc_hash::FxHashMap::default(), expression);
    Oracle::Tiktoken(Box::new(encoding.expect("a usable expression")), nfc)
}

fn pipeline(json: &Value) -> Oracle {
    let canonical = tokenizers::canonicalize_str(&json.to_string()).expect("a canonical form");
    let pipeline =
        tokenizers::from_json(&canonical).unwrap_or_else(|error| panic!("the oracle loads: {error}"));
    Oracle::HuggingFace(Box::new(pipeline), false)
}

/// GPT-2's letter for each byte.
pub fn alphabet() -> Vec<char> {
    let mut others = 0x100..;
    (0..=u8::MAX)
        .map(|byte| match byte {
            b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
            _ => others.next().and_then(char::from_u32).expect("a character"),
        })
        .collect()
}

/// A `tokenizer.json` of a rank list: every pair of tokens that is a token is a merge, in order of its rank. Without
/// expressions, `ByteLevel`'s own is used.
fn hugging_face(ranks: &Ranks, expressions: &[&str], normalizer: Option<&str>) -> Value {
    let by_bytes: HashMap<&[u8], u32> = ranks
        .iter()
        .map(|(bytes, rank)| (bytes.as_slice(), *rank))
        .collect();
    let alphabet = alphabet();
    let spelled =
        |bytes: &[u8]| -> String { bytes.iter().map(|byte| alphabet[usize::from(*byte)]).collect() };
    let mut merges: Vec<(u32, u32, u32, String, String)> = Vec::new();
    for (bytes, rank) in ranks {
        for at in 1..bytes.len() {
            let (left, right) = bytes.split_at(at);
            if let (Some(a), Some(b)) = (by_bytes.get(left), by_bytes.get(right)) {
                merges.push((*rank, *a, *b, spelled(left), spelled(right)));
            }
        }
    }
    merges.sort_unstable();
    let merges: Vec<[String; 2]> = merges
        .into_iter()
        .map(|(.., left, right)| [left, right])
        .collect();
    let vocab: serde_json::Map<String, Value> = ranks
        .iter()
        .map(|(bytes, rank)| (spelled(bytes), json!(rank)))
        .collect();
    let mut steps: Vec<Value> = expressions
        .iter()
        .map(|expression| {
            json!({"type": "Split", "pattern": {"Regex": expression}, "behavior": "Isolated", "invert": false})
        })
        .collect();
    steps.push(json!({
        "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": expressions.is_empty()
    }));
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": normalizer.map(|name| json!({"type": name})),
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": steps},
        "post_processor": null,
        "decoder": {"type": "ByteLevel", "add_prefix_space": true, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": false, "ignore_merges": true,
            "vocab": vocab, "merges": merges
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::compare::counter;

    /// The definition: of all neighbours that form a token those of lowest rank join first, leftmost first.
    fn by_definition(ranks: &HashMap<Vec<u8>, u32>, piece: &str) -> Vec<u32> {
        let mut parts: Vec<Vec<u8>> = piece.bytes().map(|byte| vec![byte]).collect();
        loop {
            let joined = |at: usize| [parts[at].as_slice(), parts[at + 1].as_slice()].concat();
            let best = (0..parts.len().saturating_sub(1))
                .filter_map(|at| Some((*ranks.get(&joined(at))?, at)))
                .min();
            let Some((_, at)) = best else { break };
            parts[at] = joined(at);
            parts.remove(at + 1);
        }
        parts.iter().map(|part| ranks[part]).collect()
    }

    #[test]
    fn a_piece_on_which_a_library_stands_alone_is_counted_by_the_definition() {
        let text = "元的件排列方向";
        let ranks = packed(splintr_vocab_glm::GLM4_VOCAB_PACKED).into_iter().collect();
        let glm = on_board("glm");
        assert_eq!(counter(&glm).encode(text), by_definition(&ranks, text));
    }
}
