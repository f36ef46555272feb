//! Kinds of characters that ratios are given for.

/// A kind of character. What a character is does not depend on its neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CharacterClass {
    /// Letters of scripts that spell words: Latin, Cyrillic, Arabic, Devanagari and so on, with their marks.
    Letter,
    /// Chinese characters, kana, hangul, bopomofo.
    Cjk,
    /// Digits and numerals.
    Digit,
    /// White space.
    Space,
    /// ASCII's punctuation, general punctuation and that of CJK, full-width forms.
    Punctuation,
    /// Everything else: emoji, symbols, controls.
    Other,
}

impl CharacterClass {
    /// How many there are.
    pub const COUNT: usize = Self::Other as usize + 1;

    /// The class of a character.
    #[must_use]
    pub fn of(character: char) -> Self {
        match character {
            'a'..='z' | 'A'..='Z' => Self::Letter,
            '0'..='9' => Self::Digit,
            ' ' | '\t' | '\n' | '\r' => Self::Space,
            _ if character.is_ascii_punctuation() => Self::Punctuation,
            _ if character.is_ascii() => Self::Other,
            '\u{2010}'..='\u{2027}'
            | '\u{2030}'..='\u{205e}'
            | '\u{3001}'..='\u{3004}'
            | '\u{3008}'..='\u{3020}'
            | '\u{3030}'
            | '\u{30fb}'
            | '\u{fe30}'..='\u{fe6f}'
            | '\u{ff01}'..='\u{ff0f}'
            | '\u{ff1a}'..='\u{ff20}'
            | '\u{ff3b}'..='\u{ff40}'
            | '\u{ff5b}'..='\u{ff65}' => Self::Punctuation,
            '\u{1100}'..='\u{11ff}'
            | '\u{2e80}'..='\u{2fdf}'
            | '\u{3005}'..='\u{3007}'
            | '\u{3021}'..='\u{302f}'
            | '\u{3031}'..='\u{318f}'
            | '\u{31a0}'..='\u{31ff}'
            | '\u{3400}'..='\u{4dbf}'
            | '\u{4e00}'..='\u{9fff}'
            | '\u{a960}'..='\u{a97f}'
            | '\u{ac00}'..='\u{d7ff}'
            | '\u{f900}'..='\u{faff}'
            | '\u{ff66}'..='\u{ffdc}'
            | '\u{20000}'..='\u{3ffff}' => Self::Cjk,
            _ if character.is_whitespace() => Self::Space,
            _ if character.is_alphabetic() => Self::Letter,
            _ if character.is_numeric() => Self::Digit,
            // Combining marks, which belong to letters.
            '\u{300}'..='\u{36f}' | '\u{483}'..='\u{489}' | '\u{591}'..='\u{5c7}' | '\u{610}'..='\u{65f}' => {
                Self::Letter
            }
            _ => Self::Other,
        }
    }
}

/// Thousandths of a token of a text.
pub(super) fn units(ratios: &[u32; CharacterClass::COUNT], text: &str) -> u64 {
    let mut counts = [0_u64; CharacterClass::COUNT];
    for character in text.chars() {
        if let Some(count) = counts.get_mut(CharacterClass::of(character) as usize) {
            *count += 1;
        }
    }
    counts
        .iter()
        .zip(ratios)
        .map(|(count, ratio)| count.saturating_mul((*ratio).into()))
        .fold(0, u64::saturating_add)
}
