//! Vocabularies made up at random, in the shape of published `tokenizer.json` files, against `tokenizers` with the same
//! file: whatever a file combines, its ids are those of its own library, or it is refused.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a broken expectation is a failed test"
)]

use std::collections::HashMap;

use serde_json::{Value, json};
use tollgate_meter_oracle::compare::{compare, counter};
use tollgate_meter_oracle::subject::{alphabet, from_json};
use tollgate_meter_oracle::texts::{Rng, soup};

/// Tokens by spelling, and merges in order.
struct Model {
    vocab: HashMap<String, u32>,
    merges: Vec<[String; 2]>,
}

/// Adds `count` tokens, each of two that are there, as training would: in order, with ids in any order.
fn grow(rng: &mut Rng, base: Vec<String>, letters: &[String], count: usize) -> Model {
    let mut tokens = base.clone();
    let mut merges = Vec::new();
    let mut usable: Vec<String> = letters.to_vec();
    for _ in 0..count * 20 {
        if merges.len() == count {
            break;
        }
        let (left, right) = (
            usable[rng.below(usable.len())].clone(),
            usable[rng.below(usable.len())].clone(),
        );
        let joined = format!("{left}{right}");
        if joined.chars().count() <= 9 && !tokens.contains(&joined) {
            tokens.push(joined.clone());
            usable.push(joined);
            merges.push([left, right]);
        }
    }
    let mut ids: Vec<u32> = (0..tokens.len() as u32).collect();
    for at in (1..ids.len()).rev() {
        ids.swap(at, rng.below(at + 1));
    }
    Model {
        vocab: tokens.into_iter().zip(ids).collect(),
        merges,
    }
}

fn file(model: &Model, normalizer: &Value, pre_tokenizer: &Value, byte_fallback: bool) -> Value {
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": null,
        "model": {
            "type": "BPE", "dropout": null, "unk_token": null, "continuing_subword_prefix": null,
            "end_of_word_suffix": null, "fuse_unk": false, "byte_fallback": byte_fallback, "ignore_merges": false,
            "vocab": model.vocab, "merges": model.merges
        }
    })
}

fn texts(rng: &mut Rng, letters: &[&str]) -> Vec<String> {
    (0..60)
        .map(|round| {
            if round % 4 == 0 {
                soup(rng, 60)
            } else {
                let length = rng.below(90);
                (0..length).map(|_| rng.pick(letters)).collect()
            }
        })
        .collect()
}

fn check(file: &Value, texts: &[String], rng: &mut Rng) {
    let subject = from_json("made up", file);
    let mut counter = counter(&subject);
    for text in texts {
        for oracle in &subject.oracles {
            if let Err(difference) = compare(oracle, &mut counter, text, rng) {
                let normalizer = &file["normalizer"];
                let pre_tokenizer = &file["pre_tokenizer"];
                assert_eq!(
                    difference, "",
                    "{normalizer} {pre_tokenizer} {}",
                    file["model"]["merges"]
                );
            }
        }
    }
}

#[test]
fn byte_level_files_have_their_library_s_ids() {
    let mut rng = Rng::new(11);
    let base: Vec<String> = alphabet().into_iter().map(String::from).collect();
    let letters: Vec<String> = ["a", "b", "c", "Ġ", "Ċ", "1", "'", "s", "Ã", "©", "ä", "¸", "Ń"]
        .map(str::to_owned)
        .into();
    for round in 0..120 {
        let model = grow(&mut rng, base.clone(), &letters, 1 + round % 60);
        let normalizer = rng.pick(&[None, Some("NFC"), Some("NFKC")]);
        let file = file(
            &model,
            &normalizer.map_or(Value::Null, |form| json!({"type": form})),
            &json!({
                "type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true
            }),
            false,
        );
        let texts = texts(
            &mut rng,
            &[
                "a", "b", "c", "ab", " ", "  ", "\n", "1", "'s", "\u{e9}", "中", "e\u{301}", "\u{fb01}",
            ],
        );
        check(&file, &texts, &mut rng);
    }
}

#[test]
fn sentencepiece_like_files_have_their_library_s_ids() {
    let mut rng = Rng::new(12);
    let letters: Vec<String> = ["a", "b", "c", "\u{2581}", "\u{2581}", "\n", "中", "\u{e9}", "'"]
        .map(str::to_owned)
        .into();
    let mut base: Vec<String> = (0..=255).map(|byte| format!("<0x{byte:02X}>")).collect();
    base.extend(["a", "b", "c", "\u{2581}", "\n", "中", "\u{e9}", "'", "d"].map(str::to_owned));
    for round in 0..160 {
        let model = grow(&mut rng, base.clone(), &letters, 1 + round % 60);
        let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"});
        let (normalizer, pre_tokenizer) = match rng.below(5) {
            0 => (
                replace,
                json!({"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": false}),
            ),
            1 => (
                json!({"type": "Sequence", "normalizers": [{"type": "Prepend", "prepend": "\u{2581}"}, replace]}),
                Value::Null,
            ),
            _ => (
                Value::Null,
                json!({
                    "type": "Metaspace", "replacement": "\u{2581}",
                    "prepend_scheme": rng.pick(&["always", "first", "never"]), "split": rng.below(2) == 0
                }),
            ),
        };
        let file = file(&model, &normalizer, &pre_tokenizer, true);
        let texts = texts(
            &mut rng,
            &[
                "a",
                "b",
                "c",
                "d",
                "ab",
                " ",
                "  ",
                "\u{2581}",
                "\n",
                "'",
                "\u{e9}",
                "中",
                "文",
                "\u{1f600}",
            ],
        );
        check(&file, &texts, &mut rng);
    }
}
