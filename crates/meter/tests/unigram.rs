//! Unigram files: which tokens win, what happens to texts before, and that everything else is refused by its name.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a broken expectation is a failed test"
)]

use serde_json::{Value, json};
use tollgate_meter::TokenCounter;
use tollgate_meter::tokenizer::load::{LoadError, sentencepiece_model, tokenizer_json};
use tollgate_meter::tokenizer::{Counter, StepCounter, StreamCounter, Vocabulary, VocabularyError};

fn file(vocab: &[(&str, f64)]) -> Value {
    json!({
        "normalizer": null, "pre_tokenizer": null,
        "model": {"type": "Unigram", "unk_id": 0, "byte_fallback": false, "vocab": vocab}
    })
}

fn compiled(file: &Value) -> Vec<u8> {
    tokenizer_json(file.to_string().as_bytes()).expect("a usable file")
}

/// Ids of a text, which is also counted whole, in parts and in steps.
fn ids(file: &Value, text: &str) -> Vec<u32> {
    let buffer = compiled(file);
    let mut counter = Counter::new(Vocabulary::from_bytes(&buffer).expect("a good buffer"));
    let ids = counter.encode(text);
    let count = ids.len() as u64;
    assert_eq!(counter.count(text), count, "{text:?}");
    let (mut stream, mut steps) = (StreamCounter::new(), StepCounter::default());
    for part in text.split_inclusive(|_| true) {
        stream.push(&mut counter, part);
        steps.feed(&mut counter, part, false);
    }
    steps.feed(&mut counter, "", true);
    let stepped = loop {
        if let Some(stepped) = steps.step(&mut counter, &mut 3) {
            break stepped;
        }
    };
    assert_eq!(stepped, count, "{text:?} in steps");
    assert_eq!(stream.finish(&mut counter), count, "{text:?} in parts");
    ids
}

#[test]
fn the_best_sum_wins_and_of_equals_the_longest_last_token() {
    let file = file(&[
        ("<unk>", 0.0),
        ("a", 0.0),
        ("b", 0.0),
        ("c", 0.0),
        ("d", 0.0),
        ("cd", 1.0),
        ("ab", 2.0),
        ("abc", 5.0),
        ("abcd", 8.0),
    ]);
    assert_eq!(ids(&file, "abcdacd"), [8, 1, 5]);
    // "ab" and "cd" are worth 3, "abc" and "d" 5.
    assert_eq!(ids(&file, "abcd"), [8]);
    let ties = self::file(&[("<unk>", 0.0), ("a", -1.0), ("aa", -2.0), ("aaa", -3.0)]);
    assert_eq!(ids(&ties, "aaa"), [3]);
    assert_eq!(ids(&ties, "aaaaa"), [2, 3]);
}

#[test]
fn runs_of_unknown_characters_are_one_token_or_their_bytes() {
    let mut file = file(&[("<unk>", 0.0), ("a", -1.0), ("b", -1.0)]);
    assert_eq!(ids(&file, "a中文b"), [1, 0, 2]);
    assert_eq!(ids(&file, "中a文"), [0, 1, 0]);
    assert_eq!(ids(&file, "<unk>中a"), [0, 1]);
    let mut vocab: Vec<(String, f64)> = vec![("<unk>".to_owned(), 0.0), ("a".to_owned(), -1.0)];
    vocab.extend((0..=255).map(|byte| (format!("<0x{byte:02X}>"), -5.0)));
    file["model"]["vocab"] = json!(vocab);
    file["model"]["byte_fallback"] = json!(true);
    assert_eq!(ids(&file, "a中"), [1, 2 + 0xE4, 2 + 0xB8, 2 + 0xAD]);
    // Spelled out alone it is itself, beside an unknown character it is bytes like that.
    assert_eq!(ids(&file, "a<unk>a"), [1, 0, 1]);
    assert_eq!(ids(&file, "<unk>é").len(), 5 + 2);
    assert_eq!(ids(&file, "a<0x61>"), [1, 2 + 0x61]);
}

#[test]
fn texts_pass_the_file_s_steps_in_order() {
    let mut file = file(&[
        ("<unk>", 0.0),
        ("\u{2581}", -2.0),
        ("\u{2581}ab", -1.0),
        ("ab", -1.5),
        ("\"", -3.0),
    ]);
    let metaspace = |scheme: &str, split: bool| json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": scheme, "split": split});
    file["pre_tokenizer"] = metaspace("always", true);
    assert_eq!(ids(&file, "ab  ab"), [2, 1, 2]);
    assert_eq!(ids(&file, " ab"), [2]);
    file["pre_tokenizer"] = metaspace("never", false);
    assert_eq!(ids(&file, "ab ab"), [3, 2]);
    file["pre_tokenizer"] = json!({"type": "Sequence", "pretokenizers": [{"type": "WhitespaceSplit"}, metaspace("always", true)]});
    assert_eq!(ids(&file, " \n ab \u{3000} ab\u{2581}\n"), [2, 2, 1]);
    assert_eq!(ids(&file, "  "), [0; 0]);
    file["normalizer"] = json!({"type": "Sequence", "normalizers": [
        {"type": "Replace", "pattern": {"String": "''"}, "content": "\""}, {"type": "NFKD"}, {"type": "StripAccents"}, {"type": "Lowercase"}
    ]});
    assert_eq!(ids(&file, "'' ＡB\u{301}"), [1, 4, 2]);
    file["normalizer"] = json!({"type": "Sequence", "normalizers": [
        {"type": "Nmt"}, {"type": "Strip", "strip_left": false, "strip_right": true},
        {"type": "Replace", "pattern": {"Regex": " {2,}"}, "content": "\u{2581}"}
    ]});
    file["pre_tokenizer"] = metaspace("first", true);
    assert_eq!(ids(&file, "ab\t\u{7} \n ab \u{200b}"), [2, 2]);
}

#[test]
fn a_piece_of_a_megabyte_is_counted_in_parts_as_a_whole() {
    let file = file(&[
        ("<unk>", 0.0),
        ("a", -1.7),
        ("aa", -2.9),
        ("aaa", -4.3),
        ("aaaaaaaaaaaaa", -17.1),
    ]);
    let buffer = compiled(&file);
    let mut counter = Counter::new(Vocabulary::from_bytes(&buffer).expect("a good buffer"));
    let text = "a".repeat(1_000_003);
    let count = counter.count(&text);
    let mut stream = StreamCounter::new();
    for part in text.as_bytes().chunks(1111) {
        stream.push(&mut counter, std::str::from_utf8(part).expect("ASCII"));
        assert!(stream.pending() < 40_000, "what waits is bounded");
    }
    assert_eq!(stream.finish(&mut counter), count);
}

#[test]
fn what_cannot_be_exact_is_refused_by_name() {
    let long = "x".repeat(1025);
    for (path, value, name) in [
        ("/model/unk_id", Value::Null, "unk_id"),
        (
            "/model/vocab",
            json!([["<unk>", 0.0], [long, -1.0]]),
            "1024 bytes",
        ),
        (
            "/model/vocab",
            json!([["<unk>", 0.0], ["a<unk>", -1.0]]),
            "a<unk>",
        ),
        ("/model/vocab", json!([["<unk>", 20.0], ["a", 11.0]]), "below ten"),
        ("/model/vocab", json!([["<unk>", 0.0], ["a", 1e300]]), "score"),
        ("/model/vocab", json!({"a": 1}), "Unigram"),
        ("/normalizer", json!({"type": "BertNormalizer"}), "BertNormalizer"),
        (
            "/normalizer",
            json!({"type": "Replace", "pattern": {"Regex": "\\d"}, "content": "0"}),
            "\\d",
        ),
        (
            "/pre_tokenizer",
            json!({"type": "WhitespaceSplit"}),
            "WhitespaceSplit",
        ),
        (
            "/pre_tokenizer",
            json!({"type": "Metaspace", "replacement": "_", "prepend_scheme": "always"}),
            "replacement",
        ),
        (
            "/pre_tokenizer",
            json!({"type": "Metaspace", "replacement": "\u{2581}", "add_prefix_space": false}),
            "add_prefix_space",
        ),
    ] {
        let mut file = file(&[("<unk>", 0.0), ("a", -1.0)]);
        *file.pointer_mut(path).expect("a place") = value;
        match tokenizer_json(file.to_string().as_bytes()) {
            Err(LoadError::Unsupported(feature)) => assert!(feature.contains(name), "{feature} names {name}"),
            other => assert_eq!(other.map(|_| ()), Ok(()), "{path} is refused"),
        }
    }
    let syntax = |file: Value| {
        matches!(
            tokenizer_json(file.to_string().as_bytes()),
            Err(LoadError::Syntax(_))
        )
    };
    let mut broken = file(&[("<unk>", 0.0)]);
    for charsmap in ["", "AAA", "AAAA", "/////w==", "BAAAAAAAAAA="] {
        broken["normalizer"] = json!({"type": "Precompiled", "precompiled_charsmap": charsmap});
        assert!(
            syntax(broken.clone()) || charsmap == "BAAAAAAAAAA=",
            "{charsmap:?}"
        );
    }
    let mut beyond = file(&[("<unk>", 0.0)]);
    beyond["model"]["unk_id"] = json!(7);
    assert!(syntax(beyond));
}

#[test]
fn a_damaged_or_older_buffer_is_refused() {
    let buffer = compiled(&file(&[("<unk>", 0.0), ("a", -1.0), ("ab", -1.0)]));
    for place in (0..buffer.len()).step_by(7) {
        let mut bad = buffer.clone();
        bad[place] ^= 0x10;
        assert!(Vocabulary::from_bytes(&bad).is_err(), "byte {place}");
    }
    let mut old = buffer;
    old[8] = 2;
    assert_eq!(
        Vocabulary::from_bytes(&old).err(),
        Some(VocabularyError::LayoutVersion(2))
    );
}

/// No bound of tokens is exceeded by what a normal form makes longer.
#[test]
fn bounds_know_what_the_steps_add() {
    let mut file = file(&[("<unk>", 0.0), ("\u{2581}", -1.0)]);
    let letters = "\u{635}\u{644}\u{649}\u{627}\u{644}\u{647}\u{639}\u{64a}\u{648}\u{633}\u{645}".chars();
    let vocab = file["model"]["vocab"].as_array_mut().expect("a list");
    vocab.extend(letters.map(|letter| json!([letter.to_string(), -2.0])));
    file["normalizer"] = json!({"type": "NFKC"});
    file["pre_tokenizer"] =
        json!({"type": "Metaspace", "replacement": "\u{2581}", "prepend_scheme": "always"});
    let buffer = compiled(&file);
    let vocabulary = Vocabulary::from_bytes(&buffer).expect("a good buffer");
    for text in ["\u{fdfa}", "\u{fdfa}\u{fdfa}", "a", ""] {
        let count = Counter::new(vocabulary).count(text);
        assert!(
            count <= vocabulary.most_tokens(text.len() as u64),
            "{text:?}: {count}"
        );
    }
}

/// A SentencePiece model of these pieces (spelling, score, kind) and fields of trainer and normalizer.
fn model(pieces: &[(&str, f32, u8)], trainer: &[u8], normalizer: &[u8]) -> Vec<u8> {
    let mut file = Vec::new();
    let mut field = |number: u8, bytes: &[u8]| {
        file.extend([number << 3 | 2, bytes.len() as u8]);
        file.extend(bytes);
    };
    for (text, score, kind) in pieces {
        let mut piece = vec![0x0A, text.len() as u8];
        piece.extend(text.bytes());
        piece.push(0x15);
        piece.extend(score.to_le_bytes());
        piece.extend([0x18, *kind]);
        field(1, &piece);
    }
    field(2, trainer);
    field(3, normalizer);
    file
}

#[test]
fn byte_pair_models_of_sentencepiece_merge_by_score() {
    let bytes: Vec<String> = (0..=255).map(|byte| format!("<0x{byte:02X}>")).collect();
    let mut pieces = vec![("<unk>", 0.0, 2), ("<s>", 0.0, 3)];
    pieces.extend(bytes.iter().map(|byte| (byte.as_str(), 0.0, 6)));
    pieces.extend([
        ("bc", -1.0, 1),
        ("ab", -2.0, 1),
        ("\u{2581}a", -3.0, 1),
        ("abc", -4.0, 1),
        ("\u{2581}", -5.0, 1),
        ("a", -6.0, 1),
        ("b", -7.0, 1),
        ("c", -8.0, 1),
    ]);
    // BPE with byte_fallback; no spaces are removed.
    let (trainer, normalizer) = ([0x18, 2, 0x98, 0x02, 1], [0x20, 0]);
    let buffer = sentencepiece_model(&model(&pieces, &trainer, &normalizer)).expect("a usable file");
    let mut counter = Counter::new(Vocabulary::from_bytes(&buffer).expect("a good buffer"));
    assert_eq!(counter.encode("abc"), [260, 258]);
    assert_eq!(counter.encode("ab<s>")[..2], [262, 259]);
    assert_eq!(counter.encode("é"), [262, 2 + 0xC3, 2 + 0xA9]);
    for (kind, trainer, normalizer, name) in [
        (1, &[0x18, 1, 0x98, 0x02, 1][..], &[0x20, 0][..], "no BPE"),
        (1, &[0x18, 2], &[0x20, 0], "byte_fallback"),
        (1, &trainer, &[], "remove_extra_whitespaces"),
        (1, &trainer, &[0x12, 1, 7, 0x20, 0], "table of characters"),
        (4, &trainer, &[0x20, 0], "user-defined"),
        (1, &trainer, &[0x20, 0], "equal scores"),
    ] {
        let mut pieces = pieces.clone();
        pieces.push(("xyz", -9.0, kind));
        if name == "equal scores" {
            pieces.push(("bb", -2.0, kind));
        }
        match sentencepiece_model(&model(&pieces, trainer, normalizer)) {
            Err(LoadError::Unsupported(feature)) => assert!(feature.contains(name), "{feature} names {name}"),
            other => assert_eq!(other.map(|_| ()), Ok(()), "{name} is refused"),
        }
    }
    assert!(matches!(
        sentencepiece_model(b"\x0a\xff"),
        Err(LoadError::Syntax(_))
    ));
}
