//! The mock's text, and how many tokens a text has.
//!
//! Every word below is written with a leading space and is then one token of `o200k_base` and of `cl100k_base`.
//! Both split a text before a space that precedes a letter, so tokens never reach across words and a text of
//! N words has exactly N tokens. The tests check both with tiktoken's own tables.

use tiktoken_rs::CoreBPE;

/// Each with one leading space.
pub const WORDS: &[&str] = &[
    " hello", " the", " water", " is", " clear", " and", " very", " cold", " in", " this", " small",
    " river", " near", " our", " house", " where", " people", " walk", " every", " morning", " to", " work",
    " or", " school",
];

/// `count` tokens of text, beginning with word number `start`.
pub fn text(start: u64, count: u64) -> String {
    let mut out = String::with_capacity(usize::try_from(count).unwrap_or(0).saturating_mul(7));
    for position in 0..count {
        out.push_str(word(start.wrapping_add(position)));
    }
    out
}

/// Word number `position` of the endless text.
pub fn word(position: u64) -> &'static str {
    let index = usize::try_from(position % WORDS.len() as u64).unwrap_or(0);
    WORDS[index]
}

/// Tokens of a text in `o200k_base`; names of special tokens count as ordinary text.
pub fn count(text: &str) -> u64 {
    if text.is_empty() {
        return 0;
    }
    o200k().count_ordinary(text) as u64
}

/// The reference tables.
pub fn o200k() -> &'static CoreBPE {
    tiktoken_rs::o200k_base_singleton()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_word_is_one_token() {
        for word in WORDS {
            assert_eq!(count(word), 1, "{word:?} in o200k_base");
            assert_eq!(
                tiktoken_rs::cl100k_base_singleton().encode_ordinary(word).len(),
                1,
                "{word:?} in cl100k_base"
            );
        }
    }

    #[test]
    fn any_stretch_has_as_many_tokens_as_words() {
        for start in 0..WORDS.len() as u64 {
            for length in [0, 1, 2, 25, 1000] {
                assert_eq!(count(&text(start, length)), length, "{length} words from {start}");
            }
        }
    }
}
