//! What normal forms and grapheme clusters need to know of a character, one bit each: see `build.rs` for the table.

/// Characters per block of the two-level table.
pub const BLOCK: usize = 256;

/// May stand in one grapheme cluster with a neighbour: marks, joiners, conjoining letters, flags, carriage return. Between
/// two others, clusters always end.
pub const JOINS: u8 = 1;
/// A combining mark that removing accents removes: those of Unicode 9, see `Program`.
pub const ACCENT: u8 = 1 << 1;
/// A letter or a number that no normal form changes or joins with what is before it, and Hangul syllables. Between two of
/// these a text may be normalized apart.
pub const FRESH: u8 = 1 << 2;
