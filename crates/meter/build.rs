//! Compiles the built-in vocabularies and the table of character classes into `OUT_DIR`.
//!
//! The rank lists come from `tiktoken-rs` (the vocabularies' publisher ships them under the MIT licence), through its
//! public interface: each id decodes to its bytes. The character classes come from `regex-syntax`, the very tables
//! that the reference's regular expressions use.
#![forbid(unsafe_code)]

use std::error::Error;
use std::path::Path;
use std::{env, fs};

#[path = "src/tokenizer/layout.rs"]
#[allow(dead_code)]
mod layout;

#[path = "src/tokenizer/compile.rs"]
#[allow(dead_code)]
mod compile;

#[path = "src/tokenizer/class.rs"]
#[allow(dead_code)]
mod class;

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo::rerun-if-changed=build.rs");
    for source in ["layout.rs", "compile.rs", "class.rs"] {
        println!("cargo::rerun-if-changed=src/tokenizer/{source}");
    }
    let out = env::var_os("OUT_DIR").ok_or("OUT_DIR is not set")?;
    let out = Path::new(&out);
    // Pattern ids as in `Pattern::id`.
    fs::write(
        out.join("cl100k_base.vocabulary"),
        compile::compile(&tokens(&tiktoken_rs::cl100k_base()?), 1)?,
    )?;
    fs::write(
        out.join("o200k_base.vocabulary"),
        compile::compile(&tokens(&tiktoken_rs::o200k_base()?), 2)?,
    )?;
    let (index, blocks) = character_classes()?;
    fs::write(out.join("class_index.bin"), index)?;
    fs::write(out.join("class_blocks.bin"), blocks)?;
    Ok(())
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

/// A two-level table over all scalar values: block numbers, then blocks of `class::BLOCK` classes.
fn character_classes() -> Result<(Vec<u8>, Vec<u8>), Box<dyn Error>> {
    let mut classes = vec![class::OTHER; 0x11_0000];
    for (expression, mark) in [
        (r"\p{Ll}", class::LOWER),
        (r"[\p{Lu}\p{Lt}]", class::UPPER),
        (r"[\p{Lm}\p{Lo}]", class::CASELESS),
        (r"\p{M}", class::MARK),
        (r"\p{N}", class::NUMBER),
        (r"\s", class::SPACE),
        (r"[\r\n]", class::NEWLINE),
    ] {
        let regex_syntax::hir::HirKind::Class(regex_syntax::hir::Class::Unicode(set)) =
            regex_syntax::parse(expression)?.into_kind()
        else {
            return Err(format!("{expression} is not a class").into());
        };
        for range in set.ranges() {
            for scalar in u32::from(range.start())..=u32::from(range.end()) {
                if let Some(entry) = classes.get_mut(scalar as usize) {
                    *entry = mark;
                }
            }
        }
    }
    let (mut index, mut blocks): (Vec<u8>, Vec<&[u8]>) = (Vec::new(), Vec::new());
    for block in classes.chunks(class::BLOCK) {
        let known = blocks.iter().position(|known| *known == block);
        let number = known.unwrap_or_else(|| {
            blocks.push(block);
            blocks.len() - 1
        });
        index.push(u8::try_from(number)?);
    }
    Ok((index, blocks.concat()))
}
