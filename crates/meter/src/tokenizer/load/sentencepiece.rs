//! SentencePiece's own `.model` files (protocol buffers), of byte-pair models that leave texts as they are: Llama 2, Mistral v1
//! to v3 and their kin.
//!
//! Neighbours join if what they join to is a piece, that of the highest score first, leftmost first. Control pieces and those of
//! bytes are in no text; bytes stand in for characters that are no pieces.
//!
//! Unigram models are refused: SentencePiece normalizes their texts and rounds their scores otherwise than Hugging Face does
//! with the `tokenizer.json` made of them, and models are mostly served with the latter.

use std::collections::HashMap;

use super::huggingface::{fallback_byte, unsupported};
use super::{LoadError, Parts};
use crate::tokenizer::layout::METASPACE;
use crate::tokenizer::{Pattern, Prefix};

/// What SentencePiece writes for a space.
const SPACE: char = '\u{2581}';

/// Compiles a `.model` file.
///
/// # Errors
/// See [`LoadError`].
pub fn sentencepiece_model(file: &[u8]) -> Result<Vec<u8>, LoadError> {
    let model = Model::read(file).ok_or_else(|| LoadError::Syntax("not a SentencePiece model".to_owned()))?;
    for (wanted, feature) in [
        (model.kind == BPE, "a model that is no BPE"),
        (model.byte_fallback, "characters without byte_fallback"),
        (model.charsmap.is_empty(), "a table of characters"),
        (!model.removes_spaces, "remove_extra_whitespaces"),
        (model.escapes_spaces, "spaces that are not escaped"),
        (!model.suffix, "treat_whitespace_as_suffix"),
    ] {
        if !wanted {
            return Err(unsupported("SentencePiece", feature));
        }
    }
    let mut parts = Parts {
        flags: METASPACE,
        prefix: if model.prefix {
            Prefix::Always
        } else {
            Prefix::None
        },
        ..Parts::default()
    };
    let mut fallback = Vec::new();
    let mut scored: HashMap<&str, (u32, f32)> = HashMap::new();
    for (piece, id) in model.pieces.iter().zip(0..) {
        match piece.kind {
            NORMAL => {
                if piece.text.contains(' ') || scored.insert(piece.text, (id, piece.score)).is_some() {
                    return Err(LoadError::Syntax(format!(
                        "piece {id} holds a space or is there twice"
                    )));
                }
                parts
                    .tokens
                    .push((piece.text.replace(SPACE, " ").into_bytes(), id));
            }
            BYTE => fallback.push((
                fallback_byte(piece.text)
                    .ok_or_else(|| LoadError::Syntax(format!("piece {id} is of no byte")))?,
                id,
            )),
            UNKNOWN | CONTROL => {}
            // Special tokens that are not called so; like all of them, they are ordinary text here.
            USER_DEFINED if piece.text.starts_with(['[', '<']) => {}
            _ => {
                return Err(unsupported(
                    "SentencePiece",
                    &format!("piece {:?}, which is user-defined or unused", piece.text),
                ));
            }
        }
    }
    let mut merges = Vec::new();
    for (text, (id, score)) in &scored {
        for (middle, _) in text.char_indices().skip(1) {
            let (left, right) = text.split_at(middle);
            if let (Some((left, _)), Some((right, _))) = (scored.get(left), scored.get(right)) {
                merges.push((*score, *id, *left, *right));
            }
        }
    }
    // Among joins of one score the leftmost is done first, whatever it joins to. In a run of one character, which is all that has
    // pieces of one score in published models, that is the longest: what stands further right is shorter still.
    let letters = |id: u32| {
        model
            .pieces
            .get(id as usize)
            .map_or("", |piece| piece.text)
            .chars()
    };
    merges.sort_by_cached_key(|(score, id, left, right)| {
        (
            std::cmp::Reverse(OrderedScore(*score)),
            std::cmp::Reverse(letters(*id).count()),
            *id,
            *left,
            *right,
        )
    });
    for pair in merges.windows(2) {
        if let [(score, id, ..), (other, other_id, ..)] = pair
            && score == other
            && id != other_id
            && letters(*id)
                .chain(letters(*other_id))
                .any(|letter| Some(letter) != letters(*id).next())
        {
            return Err(unsupported("SentencePiece", "pieces of equal scores"));
        }
    }
    parts.merges = Some(
        merges
            .into_iter()
            .map(|(_, id, left, right)| (left, right, id))
            .collect(),
    );
    parts.fallback = Some(fallback);
    parts.build(Pattern::Spaces, file)
}

const BPE: u64 = 2;
const NORMAL: u64 = 1;
const UNKNOWN: u64 = 2;
const CONTROL: u64 = 3;
const USER_DEFINED: u64 = 4;
const BYTE: u64 = 6;

/// A score that can be sorted by.
#[derive(PartialEq)]
struct OrderedScore(f32);

impl Eq for OrderedScore {}

impl PartialOrd for OrderedScore {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for OrderedScore {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.total_cmp(&other.0)
    }
}

struct Piece<'a> {
    text: &'a str,
    score: f32,
    kind: u64,
}

/// What of a file matters here.
struct Model<'a> {
    pieces: Vec<Piece<'a>>,
    kind: u64,
    byte_fallback: bool,
    suffix: bool,
    charsmap: &'a [u8],
    prefix: bool,
    removes_spaces: bool,
    escapes_spaces: bool,
}

impl<'a> Model<'a> {
    /// Field numbers and defaults as in SentencePiece's `sentencepiece_model.proto`.
    fn read(file: &'a [u8]) -> Option<Self> {
        let mut model = Self {
            pieces: Vec::new(),
            kind: 1,
            byte_fallback: false,
            suffix: false,
            charsmap: &[],
            prefix: true,
            removes_spaces: true,
            escapes_spaces: true,
        };
        for field in Fields(file) {
            let (number, value) = field?;
            match (number, value) {
                (1, Value::Bytes(piece)) => model.pieces.push(Piece::read(piece)?),
                (2, Value::Bytes(trainer)) => {
                    for field in Fields(trainer) {
                        match field? {
                            (3, Value::Number(kind)) => model.kind = kind,
                            (24, Value::Number(suffix)) => model.suffix = suffix != 0,
                            (35, Value::Number(fallback)) => model.byte_fallback = fallback != 0,
                            _ => {}
                        }
                    }
                }
                (3, Value::Bytes(normalizer)) => {
                    for field in Fields(normalizer) {
                        match field? {
                            (2, Value::Bytes(charsmap)) => model.charsmap = charsmap,
                            (3, Value::Number(prefix)) => model.prefix = prefix != 0,
                            (4, Value::Number(removes)) => model.removes_spaces = removes != 0,
                            (5, Value::Number(escapes)) => model.escapes_spaces = escapes != 0,
                            _ => {}
                        }
                    }
                }
                _ => {}
            }
        }
        (!model.pieces.is_empty()).then_some(model)
    }
}

impl<'a> Piece<'a> {
    fn read(bytes: &'a [u8]) -> Option<Self> {
        let mut piece = Self {
            text: "",
            score: 0.0,
            kind: NORMAL,
        };
        for field in Fields(bytes) {
            match field? {
                (1, Value::Bytes(text)) => piece.text = std::str::from_utf8(text).ok()?,
                (2, Value::Word(score)) => piece.score = f32::from_bits(score),
                (3, Value::Number(kind)) => piece.kind = kind,
                _ => {}
            }
        }
        Some(piece)
    }
}

enum Value<'a> {
    Number(u64),
    Word(u32),
    Long,
    Bytes(&'a [u8]),
}

/// The fields of a message; ends with `None` inside where it is broken.
struct Fields<'a>(&'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Option<u64> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (first, rest) = self.0.split_first()?;
            self.0 = rest;
            value |= u64::from(first & 0x7F) << shift;
            if *first < 0x80 {
                return Some(value);
            }
        }
        None
    }

    fn field(&mut self) -> Option<(u64, Value<'a>)> {
        let key = self.varint()?;
        let value = match key & 7 {
            0 => Value::Number(self.varint()?),
            1 => {
                self.0 = self.0.get(8..)?;
                Value::Long
            }
            2 => {
                let length = usize::try_from(self.varint()?).ok()?;
                let (bytes, rest) = self.0.split_at_checked(length)?;
                self.0 = rest;
                Value::Bytes(bytes)
            }
            5 => {
                let (word, rest) = self.0.split_first_chunk::<4>()?;
                self.0 = rest;
                Value::Word(u32::from_le_bytes(*word))
            }
            _ => return None,
        };
        Some((key >> 3, value))
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Option<(u64, Value<'a>)>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_none() {
            self.0 = &[];
        }
        Some(field)
    }
}
