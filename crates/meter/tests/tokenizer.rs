//! The tokenizer against the reference implementation: the same ids for every kind of text.
#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a broken expectation is a failed test"
)]

use std::collections::HashMap;
use std::sync::LazyLock;

use proptest::prelude::*;
use tollgate_meter::TokenCounter;
use tollgate_meter::tokenizer::{
    Counter, Pattern, StreamCounter, Vocabulary, VocabularyError, builtin, compile, compile_on_board,
};

#[path = "tokenizer/texts.rs"]
mod texts;

use texts::{Rng, adversarial, natural_like, soup};

#[derive(Clone, Copy, Debug)]
enum Encoding {
    Cl100kBase,
    O200kBase,
}

static CL100K_BASE: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let compiled = compile_on_board("cl100k_base").expect("it is on board");
    compiled.expect("it is compiled")
});

fn vocabulary(encoding: Encoding) -> Vocabulary<'static> {
    let vocabulary = match encoding {
        Encoding::Cl100kBase => Vocabulary::from_bytes(&CL100K_BASE),
        Encoding::O200kBase => builtin(),
    };
    vocabulary.expect("a whole vocabulary")
}

fn oracle(encoding: Encoding) -> &'static tiktoken_rs::CoreBPE {
    match encoding {
        Encoding::Cl100kBase => tiktoken_rs::cl100k_base_singleton(),
        Encoding::O200kBase => tiktoken_rs::o200k_base_singleton(),
    }
}

fn counter(encoding: Encoding) -> Counter<'static> {
    Counter::new(vocabulary(encoding))
}

const ENCODINGS: [Encoding; 2] = [Encoding::Cl100kBase, Encoding::O200kBase];

/// Shows the first difference with its surroundings instead of two long lists.
fn assert_same(encoding: Encoding, text: &str, ours: &[u32], reference: &[u32]) {
    if ours == reference {
        return;
    }
    let at = ours.iter().zip(reference).take_while(|(a, b)| a == b).count();
    let common = oracle(encoding)
        .decode_bytes(&reference[..at])
        .expect("reference ids decode")
        .len();
    let start = text.floor_char_boundary(common.saturating_sub(40));
    let end = text.ceil_char_boundary((common + 60).min(text.len()));
    panic!(
        "{encoding:?}: token {at} at byte {common} of {}: ours {:?}, reference {:?}, near {:?}",
        text.len(),
        &ours[at..ours.len().min(at + 6)],
        &reference[at..reference.len().min(at + 6)],
        &text[start..end],
    );
}

fn check(encoding: Encoding, counter: &mut Counter<'_>, text: &str) {
    let reference = oracle(encoding).encode_ordinary(text);
    assert_same(encoding, text, &counter.encode(text), &reference);
    assert_eq!(
        counter.count(text),
        reference.len() as u64,
        "{encoding:?}: count and ids of {text:?}"
    );
}

#[test]
fn soups_of_every_character_class_have_the_reference_ids() {
    for encoding in ENCODINGS {
        let mut counter = counter(encoding);
        let mut rng = Rng::new(1);
        for _ in 0..10_000 {
            check(encoding, &mut counter, &soup(&mut rng, 200));
        }
        for _ in 0..60 {
            check(encoding, &mut counter, &soup(&mut rng, 10_000));
        }
    }
}

#[test]
fn natural_texts_have_the_reference_ids() {
    for encoding in ENCODINGS {
        let mut counter = counter(encoding);
        for (name, text) in natural_like(0..12, 40_000) {
            assert!(text.len() >= 30_000, "{name} is long enough to matter");
            check(encoding, &mut counter, &text);
        }
        for text in [
            include_str!("tokenizer.rs"),
            include_str!("../src/tokenizer/split/mod.rs"),
        ] {
            check(encoding, &mut counter, text);
        }
    }
}

#[test]
fn adversarial_texts_have_the_reference_ids() {
    for encoding in ENCODINGS {
        let mut counter = counter(encoding);
        for (_, text) in adversarial(16_000)
            .into_iter()
            .chain(adversarial(1025))
            .chain(adversarial(3))
        {
            check(encoding, &mut counter, &text);
        }
    }
}

/// Every character that some class might misplace, alone and between letters, digits, spaces and symbols.
#[test]
fn every_character_splits_as_the_reference_does() {
    for encoding in ENCODINGS {
        let mut counter = counter(encoding);
        let mut text = String::new();
        for (number, character) in ('\0'..=char::MAX)
            .filter(|c| *c < '\u{32000}' || *c > '\u{e0000}')
            .enumerate()
        {
            if character > '\u{e0200}' && number % 1009 != 0 {
                continue;
            }
            let before = ["a", "A", "1", " ", "!", "中", "\u{301}", "\n", "'"][number % 9];
            let after = ["z", "Z", "'s", "  x", "?\n/", "\u{e9}", "2", "字", "\t"][number / 9 % 9];
            text.push_str(before);
            text.push(character);
            text.push_str(after);
            if text.len() > 50_000 {
                check(encoding, &mut counter, &text);
                text.clear();
            }
        }
        check(encoding, &mut counter, &text);
    }
}

/// Tokens themselves, alone and in chains: the texts in which merges nearly happen.
#[test]
fn chains_of_tokens_have_the_reference_ids() {
    for encoding in ENCODINGS {
        let mut counter = counter(encoding);
        let (mut rng, reference) = (Rng::new(2), oracle(encoding));
        let tokens = counter.vocabulary().tokens();
        let mut texts = Vec::new();
        for rank in (0..tokens).step_by(7) {
            texts.extend(
                reference
                    .decode_bytes(&[rank])
                    .ok()
                    .and_then(|bytes| String::from_utf8(bytes).ok()),
            );
        }
        for text in &texts {
            check(encoding, &mut counter, text);
        }
        for _ in 0..10_000 {
            let chain: String = (0..2 + rng.below(12))
                .map(|_| texts[rng.below(texts.len())].trim())
                .collect();
            check(encoding, &mut counter, &chain);
        }
    }
}

#[test]
fn special_tokens_are_ordinary_text() {
    for encoding in ENCODINGS {
        let mut counter = counter(encoding);
        for text in [
            "<|endoftext|>",
            "a<|im_start|>system<|im_sep|>b<|endofprompt|>",
            "<|fim_prefix|><|fim_suffix|>",
        ] {
            check(encoding, &mut counter, text);
        }
        assert!(counter.count("<|endoftext|>") > 1);
    }
}

/// Small windows meet at many more places than the real size, and often fail to meet at first.
#[test]
fn windows_of_any_size_give_the_same_ids() {
    for encoding in ENCODINGS {
        let mut counter = counter(encoding);
        let mut rng = Rng::new(3);
        let mut texts: Vec<String> = adversarial(3000).into_iter().map(|(_, text)| text).collect();
        for _ in 0..200 {
            texts.push(soup(&mut rng, 300).split_whitespace().collect());
            texts.push((0..400).map(|_| char::from(b'a' + rng.below(26) as u8)).collect());
            texts.push((0..400).map(|_| char::from(b'a' + rng.below(3) as u8)).collect());
        }
        for text in &texts {
            let reference = oracle(encoding).encode_ordinary(text);
            for window in [1, 2, 3, 5, 8, 13, 40, 200] {
                assert_same(
                    encoding,
                    text,
                    &counter.encode_in_windows(text, window),
                    &reference,
                );
            }
        }
    }
}

#[test]
fn a_megabyte_of_anything_is_counted() {
    for encoding in ENCODINGS {
        let mut counter = counter(encoding);
        for (name, text) in adversarial(1_000_000) {
            let tokens = counter.count(&text);
            assert!(tokens > 0 && tokens <= text.len() as u64, "{name}: {tokens}");
        }
    }
}

fn streamed(counter: &mut Counter<'_>, text: &str, mut next_size: impl FnMut() -> usize) -> u64 {
    let (mut stream, mut rest) = (StreamCounter::new(), text);
    while !rest.is_empty() {
        let size = rest.ceil_char_boundary(next_size().max(1).min(rest.len()));
        let (part, after) = rest.split_at(size);
        stream.push(counter, part);
        assert!(
            stream.pending() <= 16 * 1024,
            "the tail is bounded, {} wait",
            stream.pending()
        );
        rest = after;
    }
    stream.finish(counter)
}

#[test]
fn streams_of_any_chunking_count_as_the_whole() {
    for encoding in ENCODINGS {
        let mut counter = counter(encoding);
        let mut rng = Rng::new(4);
        for _ in 0..1500 {
            let text = soup(&mut rng, 400);
            let whole = counter.count(&text);
            for largest in [1, 3, 20, 300] {
                assert_eq!(
                    streamed(&mut counter, &text, || 1 + rng.below(largest)),
                    whole,
                    "{encoding:?}: {text:?}"
                );
            }
        }
        for (name, text) in natural_like(0..2, 120_000) {
            let whole = counter.count(&text);
            for largest in [4, 5000, 200_000] {
                assert_eq!(
                    streamed(&mut counter, &text, || 1 + rng.below(largest)),
                    whole,
                    "{encoding:?}: {name}"
                );
            }
        }
    }
}

fn longest_piece(pattern: Pattern, text: &str) -> usize {
    let (mut at, mut longest) = (0, 0);
    while at < text.len() {
        let end = pattern.piece_end(text, at);
        longest = longest.max(end - at);
        at = end;
    }
    longest
}

/// Texts without one certain cut, whose pieces look ahead: the piece-wise path of the stream.
#[test]
fn streams_without_spaces_count_as_the_whole() {
    for encoding in ENCODINGS {
        let mut counter = counter(encoding);
        let mut rng = Rng::new(5);
        let mut checked = 0;
        while checked < 30 {
            let text: String = soup(&mut rng, 60_000).chars().filter(|c| *c != ' ').collect();
            if longest_piece(counter.vocabulary().pattern(), &text) > 8000 {
                continue;
            }
            checked += 1;
            let whole = counter.count(&text);
            for largest in [7, 3000, 20_000] {
                assert_eq!(
                    streamed(&mut counter, &text, || 1 + rng.below(largest)),
                    whole,
                    "{encoding:?}"
                );
            }
        }
    }
}

#[test]
fn one_endless_piece_is_counted_within_its_stated_error() {
    for encoding in ENCODINGS {
        let mut counter = counter(encoding);
        let mut rng = Rng::new(6);
        let letters: String = (0..200_000)
            .map(|_| char::from(b'a' + rng.below(26) as u8))
            .collect();
        for text in ["a".repeat(200_000), " ".repeat(200_000), letters] {
            let whole = counter.count(&text);
            let parts = streamed(&mut counter, &text, || 999);
            assert!(
                parts.abs_diff(whole) <= 2 * 200_000 / (16 * 1024) + 2,
                "{encoding:?}: {parts} for {whole}"
            );
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(600))]

    #[test]
    fn any_text_in_any_chunks(parts in prop::collection::vec(any::<String>(), 0..12)) {
        let text = parts.concat();
        for encoding in ENCODINGS {
            let mut counter = counter(encoding);
            let reference = oracle(encoding).encode_ordinary(&text);
            prop_assert_eq!(counter.encode(&text), reference.clone());
            let mut stream = StreamCounter::new();
            for part in &parts {
                stream.push(&mut counter, part);
            }
            prop_assert_eq!(stream.finish(&mut counter), reference.len() as u64);
        }
    }
}

#[test]
fn damaged_vocabularies_are_refused() {
    let tokens: Vec<(Vec<u8>, u32)> = (0..=255u8)
        .map(|byte| (vec![byte], byte.into()))
        .chain([(b"ab".to_vec(), 256), (b"abab".to_vec(), 257)])
        .collect();
    let good = compile(&tokens, Pattern::O200k).expect("a small vocabulary");
    let mut counter = Counter::new(Vocabulary::from_bytes(&good).expect("a good buffer"));
    assert_eq!(counter.encode("ababab ab"), [257, 256, 32, 256]);
    assert_eq!(counter.vocabulary().tokens(), 258);

    let error = |bytes: &[u8]| Vocabulary::from_bytes(bytes).err();
    assert_eq!(error(&[]), Some(VocabularyError::BadMagic));
    assert_eq!(error(&good[..20]), Some(VocabularyError::Truncated));
    assert_eq!(error(&good[..good.len() - 1]), Some(VocabularyError::Truncated));
    for (at, expected) in [
        (0, VocabularyError::BadMagic),
        (8, VocabularyError::LayoutVersion(0)),
        (12, VocabularyError::UnknownPattern(0)),
        (16, VocabularyError::Truncated),
        (24, VocabularyError::Corrupt),
    ] {
        let mut bad = good.clone();
        bad[at] ^= if at == 8 || at == 12 { bad[at] } else { 1 };
        assert_eq!(error(&bad), Some(expected), "byte {at}");
    }
    for at in (32..good.len()).step_by(11) {
        let mut bad = good.clone();
        bad[at] ^= 0x10;
        assert_eq!(error(&bad), Some(VocabularyError::Corrupt), "byte {at}");
    }
}

#[test]
fn unusable_rank_lists_are_refused() {
    use tollgate_meter::tokenizer::CompileError;
    let bytes: Vec<(Vec<u8>, u32)> = (0..=255u8).map(|byte| (vec![byte], byte.into())).collect();
    let with = |extra: (Vec<u8>, u32)| compile(&[bytes.clone(), vec![extra]].concat(), Pattern::O200k).err();
    assert_eq!(
        compile(&bytes[1..], Pattern::O200k).err(),
        Some(CompileError::MissingByte(0))
    );
    assert_eq!(with((vec![], 300)), Some(CompileError::BadLength(300)));
    assert_eq!(with((vec![b'a'; 2000], 300)), Some(CompileError::BadLength(300)));
    assert_eq!(
        with((b"ab".to_vec(), 1 << 20)),
        Some(CompileError::RankTooHigh(1 << 20))
    );
    assert_eq!(with((b"ab".to_vec(), 7)), Some(CompileError::Duplicate(7)));
    assert_eq!(with((b"a".to_vec(), 300)), Some(CompileError::Duplicate(300)));
}

#[test]
fn compiled_vocabularies_are_whole_and_small() {
    let (o200k, cl100k) = (vocabulary(Encoding::O200kBase), vocabulary(Encoding::Cl100kBase));
    assert!(o200k.size() < 3_500_000, "{}", o200k.size());
    assert!(cl100k.size() < 1_800_000, "{}", cl100k.size());
    assert_eq!((o200k.tokens(), cl100k.tokens()), (199_998, 100_256));
}

/// The definition, word for word: of all neighbours that form a token join those of lowest rank, leftmost first.
fn merged_by_definition(tokens: &HashMap<Vec<u8>, u32>, piece: &str) -> Vec<u32> {
    let mut parts: Vec<Vec<u8>> = match tokens.get(piece.as_bytes()) {
        Some(_) => vec![piece.as_bytes().to_vec()],
        None => piece.bytes().map(|byte| vec![byte]).collect(),
    };
    let join = |parts: &[Vec<u8>]| {
        (1..parts.len())
            .filter_map(|at| Some((*tokens.get(&parts[at - 1..=at].concat())?, at)))
            .min()
    };
    while let Some((_, at)) = join(&parts) {
        let right = parts.remove(at);
        parts[at - 1].extend(right);
    }
    parts.iter().map(|part| tokens[part]).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1500))]

    /// Vocabularies that no training would yield: joins that rank below their halves, tokens that merging never
    /// reaches, tokens across parts of characters.
    #[test]
    fn any_vocabulary_merges_by_definition(
        seed in any::<u64>(),
        extra in 1..60usize,
        shuffled in any::<bool>(),
    ) {
        const ALPHABET: [&str; 6] = ["a", "b", "ab", "\u{e9}", "中", "\u{4e00}\u{5b57}"];
        let mut rng = Rng::new(seed);
        let mut word = |length: usize| -> String { (0..length).map(|_| rng.pick(&ALPHABET)).collect() };
        let mut list: Vec<Vec<u8>> = (0..=255u8).map(|byte| vec![byte]).collect();
        for at in 0..extra {
            let text = word(2 + at % 4).into_bytes();
            // Parts of characters too.
            let token = text[at % 3 % text.len()..text.len() - at % 2].to_vec();
            if token.len() > 1 && !list.contains(&token) {
                list.push(token);
            }
        }
        let texts: Vec<String> = (0..12).map(|at| word(1 + at * 4)).collect();
        if shuffled {
            for at in (1..list.len()).rev() {
                list.swap(at, rng.below(at + 1));
            }
        } else {
            list[256..].sort_by_key(Vec::len);
        }
        let ranked: Vec<(Vec<u8>, u32)> = list.into_iter().zip(0..).collect();
        let buffer = compile(&ranked, Pattern::O200k).expect("a small vocabulary");
        let mut counter = Counter::new(Vocabulary::from_bytes(&buffer).expect("a good buffer"));
        let tokens: HashMap<Vec<u8>, u32> = ranked.into_iter().collect();
        for text in &texts {
            // Letters without case or in lower case only: one piece.
            prop_assert_eq!(Pattern::O200k.piece_end(text, 0), text.len());
            let expected = merged_by_definition(&tokens, text);
            prop_assert_eq!(counter.count(text), expected.len() as u64);
            for window in [7, 20, 1024] {
                prop_assert_eq!(&counter.encode_in_windows(text, window), &expected);
            }
        }
    }
}

/// A stream without spaces is cut behind pieces that only end there because of what follows.
#[test]
fn streams_see_what_follows_a_cut() {
    for encoding in ENCODINGS {
        let mut counter = counter(encoding);
        let text = "<U6E64>\t\t/xda/x4e\t<CJK>\n".repeat(4000);
        let whole = counter.count(&text);
        for seed in 0..40 {
            let mut rng = Rng::new(seed);
            assert_eq!(
                streamed(&mut counter, &text, || 1 + rng.below(17)),
                whole,
                "{encoding:?}"
            );
        }
    }
}
