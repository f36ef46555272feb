//! Made-up Unigram files against `tokenizers` with the same file: whatever a file combines, its ids are those of its own
//! library, and its counts are the same in parts and in steps, or it is refused.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a broken expectation is a failed test"
)]

use std::collections::BTreeMap;

use serde_json::{Value, json};
use tollgate_meter_oracle::compare::{compare, counter};
use tollgate_meter_oracle::subject::from_json;
use tollgate_meter_oracle::texts::{Rng, adversarial, chinese, english, soup};

/// Parts of which tokens and texts are made.
const LETTERS: &[&str] = &[
    "a", "b", "c", "A", "1", "\u{2581}", "\u{2581}", ".", "'", "\u{e9}", "中", "文", "か", "각", "क", "\n",
];
const OTHERS: &[&str] = &[
    "d",
    " ",
    "  ",
    "   ",
    "\u{3000}",
    "\u{301}",
    "e\u{301}",
    "\u{ff21}",
    "\u{fb01}",
    "\u{ff76}\u{ff9e}",
    "\u{94d}\u{937}",
    "\u{1100}\u{1161}",
    "\r\n",
    "\t",
    "\u{a0}",
    "\u{200b}",
    "\u{ad}",
    "\u{1f468}\u{200d}\u{1f469}",
    "\u{1f1e9}\u{1f1ea}",
    "``",
    "''",
    "'''",
    "\u{130}",
    "\u{3a3}",
    "<unk>",
    "<0x61>",
    "\u{7f}",
    "\0",
    "\u{fdfa}",
    "\u{1cf2}",
    "\u{e0}\u{316}",
    "ｆ\u{303}",
    "--",
    "\u{fe70}",
];

/// Tokens with scores; in some files many are equal, or sums of others, so that there are ties.
fn vocab(rng: &mut Rng, size: usize, byte_fallback: bool) -> Vec<(String, f64)> {
    let mut vocab = vec![("<unk>".to_owned(), 0.0), ("<s>".to_owned(), 0.0)];
    if byte_fallback {
        vocab.extend((0..=255).map(|byte| (format!("<0x{byte:02X}>"), -9.0)));
        vocab.push(("\u{2581}".to_owned(), -3.0));
    }
    let coarse = rng.below(3);
    let longest = rng.pick(&[2, 4, 9]);
    for _ in 0..size {
        let length = 1 + rng.below(longest);
        let token: String = (0..length).map(|_| rng.pick(LETTERS)).collect();
        let score = match coarse {
            0 => -1.0 - rng.below(3) as f64 * 0.5 * length as f64,
            1 => -0.1 * length as f64 - 0.7,
            _ => -(rng.below(1_000_000_007) as f64) / 9.7e7 - 0.5,
        };
        vocab.push((token, score));
    }
    vocab
}

/// A table of characters in SentencePiece's format: each node has a block of 256 units of its own.
fn charsmap(map: &BTreeMap<&str, &str>) -> String {
    let mut nodes: Vec<(Vec<u8>, usize)> = vec![(Vec::new(), 0)];
    let mut units = vec![0u32; 256];
    let mut replacements = String::new();
    let offset = |from: usize, block: usize| (((from ^ (block * 256)) as u32) << 10) & !0x3FF;
    let mut next = 0;
    let mut block = 1;
    while next < nodes.len() {
        let (prefix, place) = nodes[next].clone();
        next += 1;
        let below: Vec<&str> = map
            .keys()
            .copied()
            .filter(|key| key.as_bytes().starts_with(&prefix))
            .collect();
        units.resize((block + 1) * 256, 0);
        units[place] |= offset(place, block);
        if let Some(content) = map
            .iter()
            .find(|(key, _)| key.as_bytes() == prefix)
            .map(|entry| entry.1)
        {
            units[place] |= 1 << 8;
            units[block * 256] = replacements.len() as u32 | 1 << 31;
            replacements.push_str(content);
            replacements.push('\0');
        }
        for key in below {
            if let Some(&byte) = key.as_bytes().get(prefix.len()) {
                let child = block * 256 + usize::from(byte);
                if units[child] == 0 {
                    units[child] = u32::from(byte);
                    nodes.push(([prefix.as_slice(), &[byte]].concat(), child));
                }
            }
        }
        block += 1;
    }
    let trie: Vec<u8> = units.iter().flat_map(|unit| unit.to_le_bytes()).collect();
    let mut bytes = (trie.len() as u32).to_le_bytes().to_vec();
    bytes.extend(trie);
    bytes.extend(replacements.bytes());
    base64(&bytes)
}

fn base64(bytes: &[u8]) -> String {
    let digits = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    bytes
        .chunks(3)
        .flat_map(|chunk| {
            let word = (0..3).fold(0, |word, at| {
                word << 8 | u32::from(chunk.get(at).copied().unwrap_or(0))
            });
            (0..4).map(move |at| {
                if at > chunk.len() {
                    '='
                } else {
                    char::from(digits[(word >> (18 - 6 * at)) as usize & 63])
                }
            })
        })
        .collect()
}

/// A table with the kinds of entries that SentencePiece's own have, and some that they do not.
fn made_up_charsmap(rng: &mut Rng, keep_letters: bool) -> Value {
    let entries = [
        ("\t", " "),
        ("\n", " "),
        ("\r", " "),
        ("\u{a0}", " "),
        ("\u{3000}", " "),
        ("\u{200b}", " "),
        ("\u{ad}", ""),
        ("\u{7f}", ""),
        ("\u{ff21}", "A"),
        ("\u{fb01}", "fi"),
        ("e\u{301}", "\u{e9}"),
        ("a\u{300}", "\u{e0}"),
        ("\u{1100}\u{1161}", "가"),
        ("\u{ff76}\u{ff9e}", "ガ"),
        ("\u{ff76}", "カ"),
        ("\u{fdfa}", "صلى الله"),
        ("\u{fe70}", " \u{64b}"),
        ("ｆ", "f"),
        ("A", "a"),
        ("\u{301}", ""),
        (".", "..."),
        ("1", " one"),
        ("文", ""),
    ];
    // Most files keep letters as they are, so that texts may be cut.
    let kept = entries.len() - if keep_letters || rng.below(4) > 0 { 2 } else { 0 };
    let map = entries[..kept]
        .iter()
        .copied()
        .filter(|_| rng.below(4) > 0)
        .collect();
    json!({"type": "Precompiled", "precompiled_charsmap": charsmap(&map)})
}

fn normalizer(rng: &mut Rng) -> Value {
    let mut steps = Vec::new();
    for _ in 0..rng.below(5) {
        steps.push(match rng.below(16) {
            0 => json!({"type": "NFC"}),
            1 | 2 => json!({"type": "NFKC"}),
            3 => json!({"type": "NFD"}),
            4 => json!({"type": "NFKD"}),
            5 => json!({"type": "Nmt"}),
            6 => json!({"type": "Lowercase"}),
            7 => json!({"type": "StripAccents"}),
            8 => json!({"type": "Strip", "strip_left": rng.below(2) == 0, "strip_right": rng.below(2) == 0}),
            9 => json!({"type": "Replace", "pattern": {"String": rng.pick(&["``", "''", "--", " ", "  ", "\u{a0}", "ab", "c"])}, "content": rng.pick(&["\"", "", "\u{2581}", "-", "ab", " "])}),
            10 => json!({"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": rng.pick(&[" ", "\u{2581}", "", "x"])}),
            11 => json!({"type": "Prepend", "prepend": rng.pick(&["\u{2581}", " ", "ab"])}),
            _ => made_up_charsmap(rng, false),
        });
    }
    match steps.len() {
        0 => Value::Null,
        1 => steps.remove(0),
        _ => json!({"type": "Sequence", "normalizers": steps}),
    }
}

fn pre_tokenizer(rng: &mut Rng, normalizer: &mut Value) -> Value {
    let metaspace = |scheme: &str, split: bool| json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": scheme, "split": split});
    match rng.below(8) {
        0 => Value::Null,
        1 => {
            let replace = json!({"type": "Replace", "pattern": {"String": " "}, "content": "\u{2581}"});
            *normalizer = match normalizer.take() {
                Value::Null => replace,
                other => json!({"type": "Sequence", "normalizers": [other, replace]}),
            };
            if rng.below(2) == 0 {
                json!({"type": "Split", "pattern": {"String": "\u{2581}"}, "behavior": "MergedWithNext", "invert": false})
            } else {
                Value::Null
            }
        }
        2 | 3 => {
            json!({"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace("always", true)]})
        }
        _ => metaspace(rng.pick(&["always", "first", "never"]), rng.below(3) > 0),
    }
}

fn file(vocab: &[(String, f64)], normalizer: &Value, pre_tokenizer: &Value, byte_fallback: bool) -> Value {
    json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": normalizer, "pre_tokenizer": pre_tokenizer, "post_processor": null, "decoder": null,
        "model": {"type": "Unigram", "unk_id": 0, "byte_fallback": byte_fallback, "vocab": vocab}
    })
}

fn text(rng: &mut Rng, round: usize) -> String {
    match round % 5 {
        0 => soup(rng, 80),
        1 => {
            let unit: String = (0..1 + rng.below(3)).map(|_| rng.pick(LETTERS)).collect();
            unit.repeat(rng.below(80))
        }
        _ => {
            let length = rng.below(70);
            (0..length)
                .map(|_| {
                    if rng.below(3) > 0 {
                        rng.pick(LETTERS)
                    } else {
                        rng.pick(OTHERS)
                    }
                })
                .collect()
        }
    }
}

/// Files that are made up; `TOLLGATE_ROUNDS` changes it.
fn rounds() -> usize {
    std::env::var("TOLLGATE_ROUNDS")
        .ok()
        .and_then(|rounds| rounds.parse().ok())
        .unwrap_or(60)
}

/// Takes tables of characters out of a description.
fn shorten(steps: &mut Value) {
    match steps {
        Value::Object(fields) => {
            fields.remove("precompiled_charsmap");
            fields.values_mut().for_each(shorten);
        }
        Value::Array(list) => list.iter_mut().for_each(shorten),
        _ => {}
    }
}

#[test]
fn unigram_files_have_their_library_s_ids() {
    let mut rng = Rng::new(21 + rounds() as u64);
    for round in 0..rounds() {
        let byte_fallback = rng.below(2) == 0;
        let size = 5 + rng.below(200);
        let vocab = vocab(&mut rng, size, byte_fallback);
        let mut normalizer = normalizer(&mut rng);
        let pre_tokenizer = pre_tokenizer(&mut rng, &mut normalizer);
        let file = file(&vocab, &normalizer, &pre_tokenizer, byte_fallback);
        let subject = from_json("made up", &file);
        let mut counter = counter(&subject);
        for at in 0..60 {
            let text = text(&mut rng, at);
            if let Err(difference) = compare(&subject.oracles[0], &mut counter, &text, &mut rng) {
                let vocab = if vocab.len() < 40 {
                    format!("{vocab:?}")
                } else {
                    String::new()
                };
                let mut steps = json!([normalizer, pre_tokenizer]);
                shorten(&mut steps);
                assert_eq!(difference, "", "round {round}: {steps} {vocab}");
            }
        }
    }
}

/// Pieces and texts of tens of kilobytes, in parts and steps, where ties are decided by what came long before.
#[test]
fn long_texts_have_their_library_s_ids() {
    let mut rng = Rng::new(22);
    for round in 0..12 {
        let byte_fallback = rng.below(2) == 0;
        let vocab = vocab(&mut rng, 300, byte_fallback);
        let normalizer = if round % 3 == 0 {
            Value::Null
        } else {
            made_up_charsmap(&mut rng, true)
        };
        let pre_tokenizer = match round % 4 {
            0 => Value::Null,
            1 => {
                json!({"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, {"type": "Metaspace", "replacement": "\u{2581}"}]})
            }
            _ => {
                json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always", "split": round % 2 == 0})
            }
        };
        let subject = from_json(
            "made up",
            &file(&vocab, &normalizer, &pre_tokenizer, byte_fallback),
        );
        let mut counter = counter(&subject);
        let mut texts = vec![
            english(&mut rng, 60_000),
            chinese(&mut rng, 60_000),
            soup(&mut rng, 60_000),
        ];
        let mut mixed = String::new();
        while mixed.len() < 60_000 {
            mixed.push_str(if rng.below(9) == 0 {
                rng.pick(OTHERS)
            } else {
                rng.pick(LETTERS)
            });
        }
        texts.push(mixed);
        texts.extend(
            adversarial(40_000)
                .into_iter()
                .map(|(_, text)| text)
                .skip(round % 3)
                .step_by(3),
        );
        for text in &texts {
            if let Err(difference) = compare(&subject.oracles[0], &mut counter, text, &mut rng) {
                assert_eq!(difference, "", "round {round}: {pre_tokenizer}");
            }
        }
    }
}
