//! Compiles the built-in vocabularies and the table of character classes into `OUT_DIR`.
//!
//! The rank lists come from `tiktoken-rs` (the vocabularies' publisher ships them under the MIT licence), through its
//! public interface: each id decodes to its bytes. The character classes come from `regex-syntax`, the very tables
//! that the reference's regular expressions use.
#![forbid(unsafe_code)]

use std::error::Error;
use std::path::Path;
use std::{env, fs};

use unicode_normalization::char::{canonical_combining_class, is_combining_mark};
use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfc_quick};
use unicode_segmentation::UnicodeSegmentation;

#[path = "src/tokenizer/layout.rs"]
#[allow(dead_code)]
mod layout;

#[path = "src/tokenizer/compile.rs"]
#[allow(dead_code)]
mod compile;

#[path = "src/tokenizer/atomic.rs"]
#[allow(dead_code)]
mod atomic;

#[path = "src/tokenizer/perfect.rs"]
#[allow(dead_code)]
mod perfect;

#[path = "src/tokenizer/class.rs"]
#[allow(dead_code)]
mod class;

#[path = "src/tokenizer/trait_bits.rs"]
mod trait_bits;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    for source in [
        "layout.rs",
        "compile.rs",
        "atomic.rs",
        "perfect.rs",
        "class.rs",
        "trait_bits.rs",
    ] {
        println!("cargo::rerun-if-changed=src/tokenizer/{source}");
    }
    let out = env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?;
    let out = Path::new(&out);
    // Pattern ids as in `Pattern::id`.
    fs::write(
        out.join("o200k_base.vocabulary"),
        compiled(&tiktoken_rs::o200k_base()?, 2)?,
    )?;
    if env::var_os("CARGO_FEATURE_ONBOARD").is_some() {
        fs::write(
            out.join("cl100k_base.vocabulary"),
            compiled(&tiktoken_rs::cl100k_base()?, 1)?,
        )?;
        fs::write(out.join("p50k_base.ranks"), packed(&tiktoken_rs::p50k_base()?))?;
        fs::write(out.join("r50k_base.ranks"), packed(&tiktoken_rs::r50k_base()?))?;
    }
    fs::write(out.join("class_table.rs"), character_classes()?)?;
    fs::write(out.join("trait_table.rs"), character_traits()?)?;
    Ok(())
}

/// An encoding's buffer, for the pattern of an id.
fn compiled(encoding: &tiktoken_rs::CoreBPE, pattern: u32) -> Result<Vec<u8>, compile::CompileError> {
    let pairing = compile::Pairing {
        tokens: &tokens(encoding),
        joins: compile::Joins::ByRank,
        fallback: None,
    };
    let settings = compile::Settings {
        pattern,
        source: xxhash_rust::xxh3::xxh3_64(&packed(encoding)),
        ..compile::Settings::default()
    };
    compile::compile(&pairing, &settings)
}

/// An encoding's rank list as `load::ranks::packed_ranks` reads it.
fn packed(encoding: &tiktoken_rs::CoreBPE) -> Vec<u8> {
    let tokens = tokens(encoding);
    let mut out = b"SPLNTRV1".to_vec();
    out.extend((tokens.len() as u32).to_le_bytes());
    for (bytes, rank) in tokens {
        for mut number in [rank, bytes.len() as u32] {
            while number >= 0x80 {
                out.push(number as u8 | 0x80);
                number >>= 7;
            }
            out.push(number as u8);
        }
        out.extend(bytes);
    }
    out
}

/// The ordinary tokens of an encoding. Special tokens come after a gap or right behind the last one; their bytes
/// spell `<|...|>`, which no ordinary token does.
fn tokens(encoding: &tiktoken_rs::CoreBPE) -> Vec<(Vec<u8>, u32)> {
    let special = encoding.special_tokens();
    (0..)
        .map_while(|rank| encoding.decode_bytes(&[rank]).ok().map(|bytes| (bytes, rank)))
        .filter(|(bytes, _)| !std::str::from_utf8(bytes).is_ok_and(|text| special.contains(text)))
        .collect()
}

/// A two-level table over all scalar values, as Rust source: block numbers, then blocks of `class::BLOCK` classes.
fn character_classes() -> Result<String, Box<dyn Error>> {
    let mut classes = vec![class::OTHER; 0x11_0000];
    for (expression, mark) in [
        (r"[\p{P}\p{S}]", class::GRAPHIC),
        (r"\p{Ll}", class::LOWER),
        (r"[\p{Lu}\p{Lt}]", class::UPPER),
        (r"[\p{Lm}\p{Lo}]", class::CASELESS),
        (r"\p{M}", class::MARK),
        (r"\p{N}", class::NUMBER),
        (r"\s", class::SPACE),
        (r"[\r\n]", class::NEWLINE),
    ] {
        for_each(expression, &mut classes, |class| *class = mark)?;
    }
    for (expression, flag) in [
        (r"\p{Han}", class::HAN),
        (r"[一-龥\u3040-\u30ff]", class::KANA_OR_IDEOGRAPH),
    ] {
        for_each(expression, &mut classes, |class| *class |= flag)?;
    }
    for (scalar, class) in (0..).zip(&mut classes) {
        let stable = char::from_u32(scalar).is_none_or(|character| {
            canonical_combining_class(character) == 0
                && is_nfc_quick(std::iter::once(character)) == IsNormalized::Yes
        });
        *class |= if stable { class::STABLE } else { 0 };
    }
    Ok(two_levels("", "u16", &classes, class::BLOCK))
}

/// A table over all scalar values as numbers of blocks and blocks, as Rust source.
fn two_levels<T: PartialEq + Clone + std::fmt::Debug>(
    name: &str,
    kind: &str,
    table: &[T],
    block: usize,
) -> String {
    let (mut index, mut blocks): (Vec<usize>, Vec<&[T]>) = (Vec::new(), Vec::new());
    for block in table.chunks(block) {
        let known = blocks.iter().position(|known| *known == block);
        index.push(known.unwrap_or_else(|| {
            blocks.push(block);
            blocks.len() - 1
        }));
    }
    let blocks = blocks.concat();
    format!(
        "static {name}BLOCK_NUMBERS: [u16; {}] = {index:?};\nstatic {name}BLOCKS: [{kind}; {}] = {blocks:?};\n",
        index.len(),
        blocks.len()
    )
}

/// The table of `trait_bits`.
fn character_traits() -> Result<String, Box<dyn Error>> {
    let mut traits = vec![0; 0x11_0000];
    // Marks that are younger than Unicode 9 are none to the libraries that models were trained with. Two of its marks are
    // letters today.
    for_each(r"[\p{M}&&\p{Age:9.0}]", &mut traits, |bits| {
        *bits |= trait_bits::ACCENT
    })?;
    for_each(r"[\x{1CF2}\x{1CF3}]", &mut traits, |bits| {
        *bits |= trait_bits::ACCENT
    })?;
    for_each(r"[\p{L}\p{N}]", &mut traits, |bits| *bits |= trait_bits::FRESH)?;
    for (scalar, bits) in (0..).zip(&mut traits) {
        let Some(character) = char::from_u32(scalar) else {
            continue;
        };
        let joins = |before: &str, after: &str| {
            format!("{before}{character}{after}").graphemes(true).count()
                < before.chars().count() + 1 + after.chars().count()
        };
        let twice = character.to_string();
        // A letter, itself and a Hangul syllable beside it tell all of the kinds that join (UAX 29).
        if joins("a", "") || joins("", "a") || joins(&twice, "") || joins("\u{ac00}", "") || character == '\r'
        {
            *bits |= trait_bits::JOINS;
        }
        let syllable = ('\u{ac00}'..='\u{d7a3}').contains(&character);
        let inert = canonical_combining_class(character) == 0
            && is_nfc_quick(std::iter::once(character)) == IsNormalized::Yes
            && !is_combining_mark(character)
            && std::iter::once(character).nfkd().eq([character]);
        if *bits & trait_bits::JOINS != 0 || !(inert || syllable) {
            *bits &= !trait_bits::FRESH;
        }
    }
    Ok(two_levels("TRAIT_", "u8", &traits, trait_bits::BLOCK))
}

/// Changes the classes of all characters that an expression matches.
fn for_each<T>(
    expression: &str,
    classes: &mut [T],
    mut change: impl FnMut(&mut T),
) -> Result<(), Box<dyn Error>> {
    let regex_syntax::hir::HirKind::Class(regex_syntax::hir::Class::Unicode(set)) =
        regex_syntax::parse(expression)?.into_kind()
    else {
        return Err(format!("{expression} is not a class").into());
    };
    for range in set.ranges() {
        for scalar in u32::from(range.start())..=u32::from(range.end()) {
            classes.get_mut(scalar as usize).map(&mut change);
        }
    }
    Ok(())
}
