//! The character classes that the split patterns tell apart, one bit each, so that a set of classes is a mask.

/// Characters per block of the two-level table.
pub const BLOCK: usize = 256;

/// None of the others: controls, format characters, unassigned.
pub const OTHER: u16 = 1;
/// White space (`\s`) except carriage return and line feed.
pub const SPACE: u16 = 1 << 1;
/// Carriage return and line feed.
pub const NEWLINE: u16 = 1 << 2;
/// `\p{N}`.
pub const NUMBER: u16 = 1 << 3;
/// `\p{M}`: combining marks, which are no letters.
pub const MARK: u16 = 1 << 4;
/// `\p{Ll}`.
pub const LOWER: u16 = 1 << 5;
/// `\p{Lu}` and `\p{Lt}`.
pub const UPPER: u16 = 1 << 6;
/// `\p{Lm}` and `\p{Lo}`: letters without case.
pub const CASELESS: u16 = 1 << 7;
/// `[\p{P}\p{S}]`: punctuation and symbols.
pub const GRAPHIC: u16 = 1 << 8;
/// Beside one of the above: `\p{Han}`, the script.
pub const HAN: u16 = 1 << 9;
/// Beside one of the above: the ideographs and kana that DeepSeek's pattern takes apart, `[一-龥\u3040-\u30ff]`.
pub const KANA_OR_IDEOGRAPH: u16 = 1 << 10;
/// Beside one of the above: a character before which NFC never composes nor reorders (NFC_Quick_Check=Yes and
/// combining class 0).
pub const STABLE: u16 = 1 << 11;

/// `\p{L}`.
pub const LETTER: u16 = LOWER | UPPER | CASELESS;
/// `[^\s\p{L}\p{N}\p{M}]`.
pub const SIGN: u16 = OTHER | GRAPHIC;
/// `[^\s\p{L}\p{N}]`.
pub const SYMBOL: u16 = SIGN | MARK;
/// `\s`.
pub const WHITE: u16 = SPACE | NEWLINE;
