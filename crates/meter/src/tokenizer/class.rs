//! The character classes that the split patterns tell apart, one bit each, so that a set of classes is a mask.

/// Characters per block of the two-level table.
pub const BLOCK: usize = 256;

/// None of the others: punctuation, symbols, controls, unassigned.
pub const OTHER: u8 = 1;
/// White space (`\s`) except carriage return and line feed.
pub const SPACE: u8 = 1 << 1;
/// Carriage return and line feed.
pub const NEWLINE: u8 = 1 << 2;
/// `\p{N}`.
pub const NUMBER: u8 = 1 << 3;
/// `\p{M}`: combining marks, which are no letters.
pub const MARK: u8 = 1 << 4;
/// `\p{Ll}`.
pub const LOWER: u8 = 1 << 5;
/// `\p{Lu}` and `\p{Lt}`.
pub const UPPER: u8 = 1 << 6;
/// `\p{Lm}` and `\p{Lo}`: letters without case.
pub const CASELESS: u8 = 1 << 7;

/// `\p{L}`.
pub const LETTER: u8 = LOWER | UPPER | CASELESS;
/// `[^\s\p{L}\p{N}]`.
pub const SYMBOL: u8 = OTHER | MARK;
/// `\s`.
pub const WHITE: u8 = SPACE | NEWLINE;
