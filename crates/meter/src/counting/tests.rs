use proptest::prelude::*;

use super::*;
use crate::tokenizer::builtin;

fn rule(patterns: &[(&str, u32)], ratios: Option<[u32; 6]>, factor: u32) -> TextRule {
    TextRule {
        ratios,
        patterns: patterns
            .iter()
            .map(|(pattern, units)| TextPattern::new(pattern, *units).unwrap())
            .collect(),
        factor,
        ..TextRule::default()
    }
}

fn count(rule: &TextRule, text: &str) -> u64 {
    let mut engine = Counter::new(builtin().unwrap());
    ModelCounter::new(rule, Some(&mut engine)).text(text)
}

fn in_pieces(rule: &TextRule, pieces: &[&str]) -> u64 {
    let mut engine = Counter::new(builtin().unwrap());
    let mut counter = ModelCounter::new(rule, Some(&mut engine));
    let mut text = TextCount::new();
    for piece in pieces {
        counter.push(&mut text, piece);
    }
    counter.finish(text)
}

#[test]
fn rules_change_what_texts_count() {
    let text = "Order 4111111111111111 is late.\nSorry!";
    assert_eq!(count(&TextRule::default(), text), 13);
    // `Order ` 2, the number 4, ` is late.` 3, the line's end 1, `Sorry!` 2.
    let cards = rule(&[(r"\d{16}", 4_000)], None, 1_000);
    let rest: u64 = ["Order ", " is late.\n", "Sorry!"]
        .iter()
        .map(|part| count(&TextRule::default(), part))
        .sum();
    assert_eq!(count(&cards, text), 4 + rest);
    assert_eq!(count(&rule(&[], None, 1_500), text), 20);
    let ratios = rule(&[], Some([250, 600, 333, 0, 500, 1_000]), 1_000);
    // 3 letters, 2 characters, a digit, 2 spaces, a mark, an emoji.
    assert_eq!(
        count(&ratios, "abc 中文 7!\u{1f600}"),
        (750 + 1_200 + 333 + 500 + 1_000_u64).div_ceil(1_000)
    );
    assert_eq!(count(&ratios, "   "), 0);
}

#[test]
fn least_and_most_hold_for_texts_that_are_not_empty() {
    let rule = TextRule {
        minimum: 5,
        maximum: 8,
        ..TextRule::default()
    };
    assert_eq!(count(&rule, ""), 0);
    assert_eq!(count(&rule, "a"), 5);
    assert_eq!(count(&rule, &" hello".repeat(100)), 8);
    assert_eq!((rule.most(1), rule.most(100), rule.most(0)), (5, 8, 0));
}

#[test]
fn patterns_that_match_nothing_or_cannot_be_used_are_refused() {
    for pattern in ["a*", "(", "", r"(\w{500}){500}"] {
        assert!(TextPattern::new(pattern, 1).is_err(), "{pattern}");
    }
}

#[test]
fn without_a_tokenizer_bytes_are_counted() {
    let rule = TextRule::default();
    let mut counter = ModelCounter::new(&rule, None);
    assert_eq!(counter.text("12345678"), 2);
    let mut text = TextCount::new();
    counter.push(&mut text, "123");
    counter.push(&mut text, "45678");
    assert_eq!(counter.finish(text), 2);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn pieces_count_as_the_whole(
        words in prop::collection::vec("[a-z0-9]{1,9}|\\n|[ .]{1,3}|[中文字]{1,3}|x{300}|é{200}", 0..40),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ratios: bool, patterns: bool, factor in 1_u32..3_000,
    ) {
        let text: String = words.concat();
        let patterns: &[(&str, u32)] = if patterns { &[(r"\d+", 700), (r"[xé]{10,}", 2_500)] } else { &[] };
        let rule = rule(patterns, ratios.then_some([250, 600, 333, 10, 500, 1_000]), factor);
        let mut at: Vec<usize> = cuts.iter().map(|cut| text.floor_char_boundary(cut.index(text.len() + 1))).collect();
        at.extend([0, text.len()]);
        at.sort_unstable();
        let pieces: Vec<&str> = at.windows(2).map(|pair| &text[pair[0]..pair[1]]).collect();
        let whole = count(&rule, &text);
        prop_assert_eq!(in_pieces(&rule, &pieces), whole);
        let mut bounded = rule.clone();
        bounded.most_per_byte = 2_500;
        prop_assert!(whole <= bounded.most(text.len() as u64));
    }
}
