//! Hugging Face's `tokenizer.json` with a Unigram model: SentencePiece's tokens with their scores.
//!
//! Texts pass the steps of the file's `normalizer` one after the other (see `program`). The pre-tokenizers that such files have
//! make words that begin with U+2581, or leave a text whole.

use std::collections::HashMap;

use serde_json::Value;

use super::huggingface::{File, Vocab, described, flat, is_space_pattern, kind, unsupported};
use super::ranks::base64;
use super::{LoadError, PROBES, source_checksum};
use crate::counter::TokenCounter;
use crate::tokenizer::compile::{Settings, append, finish};
use crate::tokenizer::layout::{HEADER_FIELDS, HEADER_SIZE, METASPACE, field};
use crate::tokenizer::program::{self, Kind};
use crate::tokenizer::unigram::{self, LONGEST};
use crate::tokenizer::{Counter, Pattern, Prefix, StreamCounter, Vocabulary};

/// What SentencePiece writes for a space.
const SPACE: &str = "\u{2581}";
/// What an unknown character's score is below the lowest.
const PENALTY: f64 = 10.0;
/// No score is larger or smaller: sums over megabytes stay finite.
const LARGEST_SCORE: f64 = 1e9;

/// How texts become pieces.
pub(super) struct Steps {
    pub program: Vec<program::Source>,
    /// U+2581 and space are the same.
    pub metaspace: bool,
    pub prefix: Prefix,
    pub pattern: Pattern,
}

/// A Unigram model with all that is to know of it.
pub(super) struct Model<'a> {
    pub vocab: &'a [(String, f64)],
    pub unknown: usize,
    pub byte_fallback: bool,
    pub steps: Steps,
}

/// Compiles a `tokenizer.json` with a Unigram model.
pub(super) fn compile(parsed: &File, file: &[u8]) -> Result<Vec<u8>, LoadError> {
    let Vocab::Scores(vocab) = &parsed.model.vocab else {
        return Err(unsupported("model", "Unigram whose vocab is no list of scores"));
    };
    let unknown = parsed
        .model
        .unk_id
        .ok_or_else(|| unsupported("model", "Unigram without unk_id"))?;
    Model {
        vocab,
        unknown,
        byte_fallback: parsed.model.byte_fallback,
        steps: Steps::read(parsed)?,
    }
    .build(file)
}

impl Model<'_> {
    /// The vocabulary's buffer, once it has encoded texts of many kinds.
    pub(super) fn build(&self, file: &[u8]) -> Result<Vec<u8>, LoadError> {
        let lowest = self.check()?;
        let bytes = if self.byte_fallback { self.bytes()? } else { None };
        let tokens: Vec<_> = self
            .vocab
            .iter()
            .map(|(token, score)| (self.spelled(token), *score))
            .collect();
        let mut out = vec![0; HEADER_SIZE];
        let mut fields = [0; HEADER_FIELDS];
        // The tables of pairs are there and empty.
        fields[field::FILTER_LOG2] = 3;
        fields[field::FILTER_AT] = append(&mut out, [0]);
        fields[field::BYTES_AT] = append(&mut out, [0; 1024]);
        fields[field::TOKENS] = self.vocab.len() as u32;
        let source = unigram::Source {
            tokens: &tokens,
            unknown: self.unknown as u32,
            unknown_score: lowest - PENALTY,
            bytes,
        };
        fields[field::UNIGRAM_AT] = unigram::build(&mut out, &source)
            .ok_or_else(|| unsupported("model", "Unigram with more than eight million places in its trie"))?;
        if !self.steps.program.is_empty() {
            let built = program::build(&mut out, &self.steps.program);
            fields[field::PROGRAM_AT] = built.at;
            fields[field::GROWTH] = built.growth;
        }
        let settings = Settings {
            pattern: self.steps.pattern.id(),
            flags: if self.steps.metaspace { METASPACE } else { 0 },
            prefix: self.steps.prefix.id(),
            source: source_checksum(file),
            ..Settings::default()
        };
        let buffer = finish(out, fields, &settings);
        self.probe(&buffer, bytes.as_ref())?;
        Ok(buffer)
    }

    /// What a text has in place of a token; none if no text has it.
    fn spelled(&self, token: &str) -> Option<Vec<u8>> {
        match self.steps.metaspace {
            false => Some(token.into()),
            true if token.contains(' ') => None,
            true => Some(token.replace(SPACE, " ").into_bytes()),
        }
    }

    /// Refuses what the engine would count otherwise; the lowest score.
    fn check(&self) -> Result<f64, LoadError> {
        let (unknown, _) = self
            .vocab
            .get(self.unknown)
            .ok_or_else(|| LoadError::Syntax("unk_id is none of the tokens".to_owned()))?;
        let mut lowest = f64::INFINITY;
        for (token, score) in self.vocab {
            if !score.is_finite() || score.abs() > LARGEST_SCORE {
                return Err(unsupported("model", &format!("score of {token:?}")));
            }
            if token.len() > LONGEST {
                return Err(unsupported(
                    "model",
                    &format!("token of more than {LONGEST} bytes"),
                ));
            }
            // A run of unknown tokens is looked up as a whole by the library: it must never be a token.
            if !unknown.is_empty() && token != unknown && token.contains(unknown) {
                return Err(unsupported(
                    "model",
                    &format!("{token:?}, which contains the unknown token"),
                ));
            }
            lowest = lowest.min(*score);
        }
        // A space stands in for it, which has other bytes.
        let marked = self.vocab.iter().any(|(token, _)| token == SPACE);
        if self.byte_fallback && self.steps.metaspace && !marked {
            return Err(unsupported("model", "byte_fallback without a token for U+2581"));
        }
        if lowest >= PENALTY {
            return Err(unsupported("model", "scores of which none is below ten"));
        }
        Ok(lowest)
    }

    /// Ids of the tokens of all bytes; none if there are no such tokens.
    fn bytes(&self) -> Result<Option<[u32; 256]>, LoadError> {
        let ids: HashMap<&str, u32> = self
            .vocab
            .iter()
            .zip(0..)
            .map(|((token, _), id)| (token.as_str(), id))
            .collect();
        let mut bytes = [0; 256];
        let mut missing = 0;
        for (byte, id) in (0..=u8::MAX).zip(&mut bytes) {
            match ids.get(format!("<0x{byte:02X}>").as_str()) {
                Some(found) => *id = *found,
                None => missing += 1,
            }
        }
        match missing {
            0 => Ok(Some(bytes)),
            256 => Ok(None),
            _ => Err(unsupported("model", "byte_fallback with some bytes only")),
        }
    }

    /// Encodes texts of many kinds, compares what their tokens spell where all is known, and counts them whole and in parts.
    fn probe(&self, buffer: &[u8], bytes: Option<&[u32; 256]>) -> Result<(), LoadError> {
        let vocabulary =
            Vocabulary::from_bytes(buffer).map_err(|error| LoadError::Probe(error.to_string()))?;
        let mut counter = Counter::new(vocabulary);
        for text in PROBES {
            let ids = counter.encode(text);
            let mut spelled = Vec::new();
            for id in &ids {
                let byte = bytes.and_then(|bytes| (0..=u8::MAX).zip(bytes).find(|(_, known)| *known == id));
                match (byte, self.vocab.get(*id as usize)) {
                    (Some((byte, _)), _) => spelled.push(byte),
                    (None, Some((token, _))) => spelled.extend(self.spelled(token).unwrap_or_default()),
                    (None, None) => return Err(LoadError::Probe((*text).to_owned())),
                }
            }
            let known = !ids.contains(&(self.unknown as u32));
            let mut stream = StreamCounter::new();
            for part in text.split_inclusive(' ') {
                stream.push(&mut counter, part);
            }
            let count = ids.len() as u64;
            if known && spelled != counter.prepared(text).as_bytes()
                || counter.count(text) != count
                || stream.finish(&mut counter) != count
            {
                return Err(LoadError::Probe((*text).to_owned()));
            }
        }
        Ok(())
    }
}

impl Steps {
    fn read(file: &File) -> Result<Self, LoadError> {
        let mut program = Vec::new();
        for step in flat(&file.normalizer, "normalizers") {
            normalizer(step, &mut program)?;
        }
        let marks_spaces = program
            .last()
            .is_some_and(|step| *step == program::Source::new(Kind::Replace, " ", SPACE));
        let steps = flat(&file.pre_tokenizer, "pretokenizers");
        let (mut prefix, mut metaspace, mut pattern) = (Prefix::None, true, Pattern::Whole);
        match steps.as_slice() {
            [] => metaspace = marks_spaces,
            // No spaces are left to split at.
            [split] if marks_spaces && kind(split) == "Split" && is_space_pattern(split) => {}
            [split] if marks_spaces && begins_with_markers(split) => pattern = Pattern::EachSpace,
            [step] if kind(step) == "Metaspace" => {
                let (scheme, splits) = metaspace_settings(step)?;
                prefix = if scheme == "never" {
                    Prefix::None
                } else {
                    Prefix::UnlessThere
                };
                if splits {
                    pattern = Pattern::EachSpace;
                }
            }
            [words, step] if kind(words) == "WhitespaceSplit" && kind(step) == "Metaspace" => {
                if metaspace_settings(step)? != ("always", true) {
                    return Err(unsupported(
                        "pre_tokenizer",
                        "WhitespaceSplit and a Metaspace that is not prepended always, or does not split",
                    ));
                }
                program.push(program::Source::plain(Kind::Words));
                pattern = Pattern::EachSpace;
            }
            _ => return Err(unsupported("pre_tokenizer", &file.pre_tokenizer.to_string())),
        }
        // That U+2581 is a space again is said by the flag.
        if metaspace && program.last() == Some(&program::Source::new(Kind::Replace, " ", SPACE)) {
            program.pop();
        }
        Ok(Self {
            program,
            metaspace,
            prefix,
            pattern,
        })
    }
}

/// Whether a `Split` makes pieces that begin with U+2581.
fn begins_with_markers(step: &Value) -> bool {
    kind(step) == "Split"
        && step
            .pointer("/pattern/String")
            .is_some_and(|pattern| pattern == SPACE)
        && step["behavior"] == "MergedWithNext"
        && step["invert"] != true
}

/// A `Metaspace`'s scheme, and whether it splits.
fn metaspace_settings(step: &Value) -> Result<(&str, bool), LoadError> {
    if step["replacement"] != SPACE {
        return Err(unsupported("pre_tokenizer", "Metaspace with another replacement"));
    }
    let scheme = match &step["prepend_scheme"] {
        Value::Null => "always",
        scheme => scheme.as_str().unwrap_or_default(),
    };
    if !["always", "first", "never"].contains(&scheme) {
        return Err(unsupported("pre_tokenizer", &format!("prepend_scheme {scheme}")));
    }
    if step["add_prefix_space"] == false && scheme != "never" {
        return Err(unsupported(
            "pre_tokenizer",
            &format!("add_prefix_space false with prepend_scheme {scheme}"),
        ));
    }
    Ok((scheme, step["split"] != false))
}

/// Appends a step of a `normalizer` to a program.
fn normalizer(step: &Value, program: &mut Vec<program::Source>) -> Result<(), LoadError> {
    let plain = match kind(step) {
        "NFC" => Kind::Nfc,
        "NFKC" => Kind::Nfkc,
        "NFD" => Kind::Nfd,
        "NFKD" => Kind::Nfkd,
        "Nmt" => Kind::Nmt,
        "Lowercase" => Kind::Lowercase,
        "StripAccents" => Kind::StripAccents,
        "Strip" => {
            for (side, strip) in [("strip_left", Kind::StripLeft), ("strip_right", Kind::StripRight)] {
                match step[side].as_bool() {
                    Some(true) => program.push(program::Source::plain(strip)),
                    Some(false) => {}
                    None => return Err(LoadError::Syntax(format!("Strip without {side}"))),
                }
            }
            return Ok(());
        }
        "Replace" => {
            let content = step["content"]
                .as_str()
                .ok_or_else(|| LoadError::Syntax("Replace without content".to_owned()))?;
            let string = step.pointer("/pattern/String").and_then(Value::as_str);
            let expression = step.pointer("/pattern/Regex").and_then(Value::as_str);
            program.push(match (string, expression) {
                (Some(string), None) if !string.is_empty() => {
                    program::Source::new(Kind::Replace, string, content)
                }
                (None, Some(" {2,}")) => program::Source::new(Kind::Collapse, "", content),
                _ => return Err(unsupported("normalizer", &described("Replace", step))),
            });
            return Ok(());
        }
        "Prepend" => {
            let content = step["prepend"]
                .as_str()
                .ok_or_else(|| LoadError::Syntax("Prepend without prepend".to_owned()))?;
            program.push(program::Source::new(Kind::Prepend, "", content));
            return Ok(());
        }
        "Precompiled" => {
            let charsmap = step["precompiled_charsmap"]
                .as_str()
                .and_then(|text| base64(text.as_bytes()))
                .ok_or_else(|| LoadError::Syntax("precompiled_charsmap is not base64".to_owned()))?;
            program.push(
                program::Source::charsmap(&charsmap)
                    .map_err(|problem| LoadError::Syntax(problem.to_owned()))?,
            );
            return Ok(());
        }
        other => return Err(unsupported("normalizer", &described(other, step))),
    };
    program.push(program::Source::plain(plain));
    Ok(())
}
