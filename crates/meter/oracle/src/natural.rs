//! Natural texts of a few kinds, from this system's manuals and programs, in distinct documents of 8 KB: for figures of
//! speed, so that no cache sees a document twice.

use std::fs;
use std::path::Path;

use crate::corpus::from_folders;
use crate::texts::{Rng, chinese};

/// Bytes of one document.
pub const DOCUMENT: usize = 8192;
/// Bytes of each natural kind that are timed.
pub const TIMED: usize = 4_000_000;

fn documents(text: &str) -> Vec<String> {
    let (mut list, mut rest) = (Vec::new(), text);
    while !rest.is_empty() && list.len() * DOCUMENT < TIMED + 1_000_000 {
        let (part, after) = rest.split_at(rest.floor_char_boundary(DOCUMENT));
        list.push(part.to_owned());
        rest = after;
    }
    list
}

/// Files of a kind below a folder, one after the other.
fn files(folder: &str, suffix: &str) -> String {
    fn walk(folder: &Path, suffix: &str, text: &mut String) {
        let mut entries: Vec<_> = fs::read_dir(folder).into_iter().flatten().flatten().collect();
        entries.sort_by_key(|entry| entry.file_name());
        for entry in entries {
            let path = entry.path();
            if path.is_dir() && !path.is_symlink() {
                walk(&path, suffix, text);
            } else if path.to_string_lossy().ends_with(suffix) && text.len() < 2 * TIMED {
                text.push_str(&fs::read_to_string(&path).unwrap_or_default());
            }
        }
    }
    let mut text = String::new();
    walk(Path::new(folder), suffix, &mut text);
    text
}

/// The translations of a folder's message catalogues.
fn catalogues(folder: &Path) -> String {
    let mut paths: Vec<_> = fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .map(|entry| entry.path())
        .collect();
    paths.sort();
    let mut text = String::new();
    for path in paths {
        let file = fs::read(&path).unwrap_or_default();
        for message in translations(&file) {
            text.push_str(&String::from_utf8_lossy(message));
            text.push('\n');
        }
    }
    text
}

/// The translations in a catalogue (GNU gettext's `.mo`): behind the magic number and the format's revision, their number,
/// where the originals' table stands and where theirs does, which has a length and an offset for each.
fn translations(file: &[u8]) -> impl Iterator<Item = &[u8]> {
    let number = |at: usize| {
        let bytes = file.get(at..).and_then(|rest| rest.first_chunk());
        bytes.map_or(0, |bytes| u32::from_le_bytes(*bytes)) as usize
    };
    let known = number(0) == 0x9504_12DE;
    // The first one is the catalogue's own header.
    (1..if known { number(8) } else { 0 }).filter_map(move |entry| {
        let at = number(16) + 8 * entry;
        file.get(number(at + 4)..)?.get(..number(at))
    })
}

/// Without roff's requests and escapes: what is left of a manual is prose.
fn prose(documents: &[String]) -> String {
    documents
        .iter()
        .flat_map(|document| document.lines())
        .filter(|line| !line.starts_with(['.', '\'']))
        .flat_map(|line| [line, "\n"])
        .collect::<String>()
        .replace("\\-", "-")
        .replace("\\fB", "")
        .replace("\\fI", "")
        .replace("\\fR", "")
}

/// Name and documents of each kind that this system has enough of.
pub fn natural() -> Vec<(&'static str, Vec<String>)> {
    let manuals = |folder: &str| {
        prose(&from_folders(
            &[&Path::new("/usr/share/man").join(folder)],
            40_000_000,
        ))
    };
    let english = manuals("man1") + &manuals("man3");
    // The manuals that there are in Chinese are few: generated text makes up the rest.
    let mut rng = Rng::new(8);
    let zh = manuals("zh_CN") + &chinese(&mut rng, TIMED);
    let others: String = ["de", "fr", "ja", "ru", "es", "ko", "uk", "tr", "pl"]
        .iter()
        .flat_map(|folder| documents(&manuals(folder)).into_iter().take(70))
        .collect();
    let messages = catalogues(Path::new("/usr/share/locale/zh_CN/LC_MESSAGES"));
    let code = files("/usr/lib", ".py");
    let json: String = english
        .lines()
        .filter(|line| line.len() > 20)
        .zip(0..)
        .map(|(line, number): (&str, u32)| {
            let content = serde_json::Value::from(line);
            format!(
                "{{\"role\":\"{}\",\"content\":{content},\"id\":{},\"score\":{}.{}}},",
                ["user", "assistant", "tool"][number as usize % 3],
                number.wrapping_mul(2_654_435_761),
                number % 10,
                number % 997
            )
        })
        .collect();
    [
        ("English", english),
        ("Chinese", zh),
        ("zh messages", messages),
        ("code", code),
        ("JSON", json),
        ("9 languages", others),
    ]
    .into_iter()
    .map(|(name, text)| (name, documents(&text)))
    .filter(|(_, documents)| documents.len() * DOCUMENT > 1_500_000)
    .collect()
}
