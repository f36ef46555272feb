//! Published tokenizer files: what is understood, and that everything else is refused by its name.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a broken expectation is a failed test"
)]

use serde_json::{Value, json};
use tollgate_meter::TokenCounter;
use tollgate_meter::tokenizer::load::{LoadError, rank_file, source_checksum, tekken_json, tokenizer_json};
use tollgate_meter::tokenizer::{Counter, Normalizer, Pattern, StreamCounter, Vocabulary, VocabularyError};

/// GPT-2's letters for all bytes, ids from 1000 down, and the tokens `ab`, ` ab` and `abab` besides.
fn byte_level() -> Value {
    let mut others = 0x100..;
    let mut vocab: serde_json::Map<String, Value> = (0..=u8::MAX)
        .map(|byte| match byte {
            b'!'..=b'~' | 0xA1..=0xAC | 0xAE..=0xFF => char::from(byte),
            _ => others.next().and_then(char::from_u32).expect("a character"),
        })
        .zip(0..)
        .map(|(letter, at)| (letter.to_string(), json!(1000 - at)))
        .collect();
    for (token, id) in [("ab", 5), ("Ġab", 4), ("abab", 3), ("<|stop|>", 2)] {
        vocab.insert(token.to_owned(), json!(id));
    }
    json!({
        "added_tokens": [{"id": 2, "content": "<|stop|>", "special": true}],
        "normalizer": null,
        "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": false, "trim_offsets": true, "use_regex": true},
        "model": {
            "type": "BPE", "dropout": null, "byte_fallback": false, "ignore_merges": false,
            "vocab": vocab, "merges": ["a b", ["Ġ", "ab"], "ab ab"]
        }
    })
}

fn compiled(file: &Value) -> Result<Vec<u8>, LoadError> {
    tokenizer_json(file.to_string().as_bytes())
}

fn ids(file: &Value, text: &str) -> Vec<u32> {
    let buffer = compiled(file).expect("a usable file");
    let mut counter = Counter::new(Vocabulary::from_bytes(&buffer).expect("a good buffer"));
    let ids = counter.encode(text);
    assert_eq!(counter.count(text), ids.len() as u64, "{text:?}");
    ids
}

/// The value at a path of keys.
fn at<'v>(file: &'v mut Value, path: &[&str]) -> &'v mut Value {
    path.iter().fold(file, |value, key| &mut value[*key])
}

#[test]
fn ids_are_those_of_the_file() {
    let file = byte_level();
    assert_eq!(ids(&file, "ab"), [5]);
    assert_eq!(ids(&file, " ab abab"), [4, 4, 5]);
    assert_eq!(ids(&file, "ababab"), [3, 5]);
    // Without the merge, the token is never reached, unless whole pieces are looked up first.
    let mut file = file;
    file["model"]["merges"] = json!(["a b"]);
    assert_eq!(ids(&file, "abab"), [5, 5]);
    file["model"]["ignore_merges"] = json!(true);
    assert_eq!(ids(&file, "abab"), [3]);
}

#[test]
fn special_tokens_spellings_are_ordinary_text() {
    assert_eq!(ids(&byte_level(), "<|stop|>").len(), 8);
}

#[test]
fn a_prefix_is_put_before_the_beginning_only() {
    let mut file = byte_level();
    file["pre_tokenizer"]["add_prefix_space"] = json!(true);
    assert_eq!(ids(&file, "ab"), [4]);
    assert_eq!(ids(&file, " ab"), [4]);
    assert_eq!(ids(&file, ""), [0; 0]);
    let buffer = compiled(&file).expect("a usable file");
    let vocabulary = Vocabulary::from_bytes(&buffer).expect("a good buffer");
    assert_eq!(vocabulary.most_tokens(2), 3);
    let mut counter = Counter::new(vocabulary);
    let mut stream = StreamCounter::new();
    for part in ["a", "b", " ", "a", "b"] {
        stream.push(&mut counter, part);
    }
    assert_eq!(stream.finish(&mut counter), 2);
}

#[test]
fn what_is_not_done_is_refused_by_name() {
    for (path, value, name) in [
        (&["model", "type"][..], json!("WordPiece"), "WordPiece"),
        (&["model", "type"], json!("Unigram"), "Unigram"),
        (&["model", "dropout"], json!(0.1), "dropout"),
        (
            &["model", "end_of_word_suffix"],
            json!("</w>"),
            "end_of_word_suffix",
        ),
        (
            &["model", "continuing_subword_prefix"],
            json!("##"),
            "continuing_subword_prefix",
        ),
        (&["normalizer"], json!({"type": "Lowercase"}), "Lowercase"),
        (
            &["normalizer"],
            json!({"type": "Sequence", "normalizers": [{"type": "NFC"}, {"type": "StripAccents"}]}),
            "StripAccents",
        ),
        (&["pre_tokenizer"], json!({"type": "Whitespace"}), "Whitespace"),
        (
            &["pre_tokenizer"],
            json!({"type": "Sequence", "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": "\\w+"}, "behavior": "Isolated", "invert": false},
                {"type": "ByteLevel", "add_prefix_space": false, "use_regex": false}
            ]}),
            "\\w+",
        ),
        (
            &["pre_tokenizer"],
            json!({"type": "Sequence", "pretokenizers": [
                {"type": "Digits", "individual_digits": true},
                {"type": "ByteLevel", "add_prefix_space": false, "use_regex": true}
            ]}),
            "Digits",
        ),
        (
            &["pre_tokenizer"],
            json!({"type": "Metaspace", "replacement": "_", "prepend_scheme": "always"}),
            "replacement",
        ),
        (
            &["pre_tokenizer"],
            json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always"}),
            "byte_fallback",
        ),
    ] {
        let mut file = byte_level();
        *at(&mut file, path) = value;
        match compiled(&file) {
            Err(LoadError::Unsupported(feature)) => assert!(feature.contains(name), "{feature} names {name}"),
            other => assert_eq!(other.map(|_| ()), Ok(()), "{path:?} is refused"),
        }
    }
}

#[test]
fn broken_files_are_refused() {
    let syntax = |result: Result<Vec<u8>, LoadError>| matches!(result, Err(LoadError::Syntax(_)));
    assert!(syntax(tokenizer_json(b"{")));
    assert!(syntax(tokenizer_json(b"{\"model\":3}")));
    assert!(syntax(tekken_json(b"[]")));
    assert!(syntax(rank_file(b"not base64", Pattern::O200k, Normalizer::None)));
    let mut file = byte_level();
    file["model"]["merges"] = json!(["a x"]);
    assert!(syntax(compiled(&file)), "joins to no token");
    let mut file = byte_level();
    file["model"]["vocab"].as_object_mut().expect("a map").remove("q");
    assert!(
        matches!(compiled(&file), Err(LoadError::Compile(_))),
        "q cannot be encoded"
    );
    let spaces = rank_file(b"AA== 0", Pattern::Spaces, Normalizer::None);
    assert!(matches!(spaces, Err(LoadError::Unsupported(_))));
}

#[test]
fn a_buffer_knows_what_it_was_made_from() {
    let file = byte_level().to_string();
    let buffer = tokenizer_json(file.as_bytes()).expect("a usable file");
    let vocabulary = Vocabulary::from_bytes(&buffer).expect("a good buffer");
    assert_eq!(vocabulary.source(), source_checksum(file.as_bytes()));
    assert_ne!(vocabulary.source(), source_checksum(&file.as_bytes()[1..]));
    assert_eq!(vocabulary.pattern(), Pattern::Gpt2);
    // A buffer of another layout or with a byte changed is refused, whoever made it.
    for (place, expected) in [(8, None), (buffer.len() - 1, Some(VocabularyError::Corrupt))] {
        let mut bad = buffer.clone();
        bad[place] ^= 0x40;
        let error = Vocabulary::from_bytes(&bad).expect_err("a changed buffer");
        assert_eq!(error, expected.unwrap_or(VocabularyError::LayoutVersion(0x44)));
    }
    assert_eq!(
        Vocabulary::from_bytes(&buffer[..buffer.len() / 2]).err(),
        Some(VocabularyError::Truncated)
    );
}
