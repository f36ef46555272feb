//! Texts to compare on: what a Debian system holds in its manuals, documents and message catalogues, and generators.

use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::texts::{Rng, adversarial, chinese, code, english, json, soup};

/// Longest document.
pub const DOCUMENT: usize = 64 * 1024;

/// Documents from below `folders`, at most `limit` bytes in all and 2 MB of one file, spread evenly over what is there.
pub fn from_folders(folders: &[&Path], limit: usize) -> Vec<String> {
    let mut files = Vec::new();
    for folder in folders {
        collect(folder, &mut files);
    }
    files.sort();
    // A fixed shuffle, so that a limit does not cut off the end of the alphabet.
    let mut rng = Rng::new(77);
    for at in (1..files.len()).rev() {
        files.swap(at, rng.below(at + 1));
    }
    let (mut documents, mut size) = (Vec::new(), 0);
    for file in files {
        if size >= limit {
            break;
        }
        let Some(text) = read(&file) else { continue };
        size += text.len();
        cut(&text, &mut documents);
    }
    documents
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        match entry.file_type() {
            Ok(kind) if kind.is_dir() => collect(&entry.path(), files),
            Ok(kind) if kind.is_file() => files.push(entry.path()),
            _ => {}
        }
    }
}

/// A file's text, decompressed; bytes that are no UTF-8 become U+FFFD.
fn read(path: &Path) -> Option<String> {
    let mut bytes = Vec::new();
    let file = fs::File::open(path).ok()?;
    if path.extension().is_some_and(|extension| extension == "gz") {
        flate2::read::GzDecoder::new(file)
            .take(2 << 20)
            .read_to_end(&mut bytes)
            .ok()?;
    } else {
        file.take(2 << 20).read_to_end(&mut bytes).ok()?;
    }
    (bytes.len() > 100).then(|| String::from_utf8_lossy(&bytes).into_owned())
}

fn cut(text: &str, documents: &mut Vec<String>) {
    let mut rest = text;
    while !rest.is_empty() {
        let (part, after) = rest.split_at(rest.floor_char_boundary(DOCUMENT));
        documents.push(part.to_owned());
        rest = after;
    }
}

/// Generated documents, about `limit` bytes in all: prose, code, JSON, base64, emoji, random bytes, soups of all classes,
/// special tokens' spellings, and the adversarial shapes at several lengths.
pub fn generated(seed: u64, limit: usize) -> Vec<String> {
    let mut rng = Rng::new(seed);
    let (mut documents, mut size) = (Vec::new(), 0);
    let mut add = |text: String| {
        size += text.len();
        documents.push(text);
        size < limit
    };
    // The adversarial shapes once at each length, as far as a fifth of the limit allows.
    let shapes = adversarial(1).len();
    for length in [7, 130, 1025, 9000, DOCUMENT] {
        if length * shapes < limit / 8 && !adversarial(length).into_iter().all(|(_, text)| add(text)) {
            return documents;
        }
    }
    loop {
        let length = 200 + rng.below(20_000);
        let text = match rng.below(12) {
            0 => english(&mut rng, length),
            1 => chinese(&mut rng, length),
            2 => code(&mut rng, length),
            3 => json(&mut rng, length),
            4 => marks(&mut rng, length),
            5 => base64(&mut rng, length),
            6 => emoji(&mut rng, length),
            7 => bytes(&mut rng, length),
            8 => specials(&mut rng, length),
            9 => scripts(&mut rng, length),
            _ => soup(&mut rng, length),
        };
        if !add(text) {
            return documents;
        }
    }
}

fn base64(rng: &mut Rng, length: usize) -> String {
    let digits: Vec<char> = ('A'..='Z')
        .chain('a'..='z')
        .chain('0'..='9')
        .chain(['+', '/'])
        .collect();
    let line = rng.pick(&[64, 76, usize::MAX]);
    let mut text = String::new();
    let mut column = 0;
    while text.len() < length {
        text.push(rng.pick(&digits));
        column += 1;
        if column == line {
            text.push('\n');
            column = 0;
        }
    }
    text
}

fn emoji(rng: &mut Rng, length: usize) -> String {
    let mut text = String::new();
    while text.len() < length {
        text.push(scalar(rng, 0x1F300, 0x1FAFF));
        match rng.below(8) {
            0 => text.push('\u{200d}'),
            1 => text.push('\u{fe0f}'),
            2 => text.push(scalar(rng, 0x1F3FB, 0x1F400)),
            3 => text.push_str(rng.pick(&[" ", "!", " lol ", "\n", "好"])),
            _ => {}
        }
    }
    text
}

/// Random bytes as a lossy decoder shows them: mostly U+FFFD, controls and ASCII.
fn bytes(rng: &mut Rng, length: usize) -> String {
    let high = rng.below(3) > 0;
    let raw: Vec<u8> = (0..length / 2)
        .map(|_| (rng.next() & if high { 0xFF } else { 0x7F }) as u8)
        .collect();
    String::from_utf8_lossy(&raw).into_owned()
}

fn specials(rng: &mut Rng, length: usize) -> String {
    let mut text = String::new();
    while text.len() < length {
        text.push_str(rng.pick(&[
            "<|endoftext|>",
            "<|im_start|>",
            "<|im_end|>",
            "<|fim_prefix|>",
            "<think>",
            "</think>",
            "<tool_call>",
            "<s>",
            "</s>",
            "[INST]",
            "<|user|>",
            "[gMASK]",
            "<sop>",
            "<|start|>",
            "<|channel|>",
            "<|message|>",
            "<\u{ff5c}User\u{ff5c}>",
            "<\u{ff5c}begin\u{2581}of\u{2581}sentence\u{ff5c}>",
            "\u{2581}",
            "<0x0A>",
            "assistant\n",
            " hello ",
            "\n",
            "的",
        ]));
    }
    text
}

/// Words in the letters of one script after the other, with marks, digits and punctuation of their blocks.
fn scripts(rng: &mut Rng, length: usize) -> String {
    const BLOCKS: [(u32, u32); 34] = [
        (0x41, 0x5B),
        (0x61, 0x7B),
        (0xC0, 0x180),
        (0x180, 0x250),
        (0x370, 0x400),
        (0x400, 0x530),
        (0x531, 0x58A),
        (0x591, 0x5F5),
        (0x600, 0x700),
        (0x700, 0x750),
        (0x900, 0x980),
        (0x980, 0xA00),
        (0xA00, 0xA80),
        (0xA80, 0xB00),
        (0xB00, 0xB80),
        (0xB80, 0xC00),
        (0xC00, 0xC80),
        (0xC80, 0xD00),
        (0xD00, 0xD80),
        (0xD80, 0xE00),
        (0xE00, 0xE80),
        (0xE80, 0xF00),
        (0xF00, 0x1000),
        (0x1000, 0x10A0),
        (0x10A0, 0x1100),
        (0x1100, 0x1200),
        (0x1200, 0x1380),
        (0x13A0, 0x1400),
        (0x1780, 0x1800),
        (0x1800, 0x18B0),
        (0x1E00, 0x2000),
        (0x3040, 0x3100),
        (0x4E00, 0x9FFF),
        (0xAC00, 0xD7A4),
    ];
    let mut text = String::new();
    while text.len() < length {
        let (from, to) = rng.pick(&BLOCKS);
        for _ in 0..1 + rng.below(12) {
            for _ in 0..1 + rng.below(9) {
                text.push(scalar(rng, from, to));
            }
            text.push_str(rng.pick(&[" ", " ", " ", ", ", ". ", "\n", "-", " 12 ", "", "  "]));
        }
    }
    text
}

/// Letters with marks that may or may not compose, in and out of order, and characters with another normal form.
fn marks(rng: &mut Rng, length: usize) -> String {
    let mut text = String::new();
    while text.len() < length {
        match rng.below(12) {
            0..=3 => text.push(scalar(rng, 0x61, 0x7B)),
            4 => text.push(scalar(rng, 0x41, 0x5B)),
            5 | 6 => text.push(scalar(rng, 0x300, 0x370)),
            7 => text.push(scalar(rng, 0x1100, 0x1200)),
            8 => text.push(scalar(rng, 0x900, 0xA00)),
            9 => text.push(scalar(rng, 0xF900, 0xFB50)),
            10 => text.push(scalar(rng, 0x2000, 0x2140)),
            _ => text.push(' '),
        }
    }
    text
}

/// A character from a range without surrogates.
fn scalar(rng: &mut Rng, from: u32, to: u32) -> char {
    char::from_u32(from + rng.below((to - from) as usize) as u32).unwrap_or('\u{fffd}')
}
