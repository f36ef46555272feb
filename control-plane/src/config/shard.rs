//! Large lists over several documents, `tollgate.<kind>.<shard>.json`: Nacos wants documents near 100 KB.

use std::sync::Arc;

use serde_json::Value;
use serde_json::value::RawValue;
use tollgate_policy::Kind;
use xxhash_rust::xxh3::xxh3_64;

/// A document's size that is aimed at, in bytes.
pub const TARGET: usize = 100 << 10;

/// Kinds whose entries come in an order that means something.
const ORDERED: [Kind; 2] = [Kind::Rules, Kind::Tokenizers];

/// A kind's list over as many documents as it takes for each to have about `target` bytes; one if it fits, or if it is
/// no list. Each entry keeps its text. Where the order means nothing, an entry's shard is decided by its name, so that
/// editing one entry changes one document.
pub fn split(kind: Kind, bytes: &[u8], target: usize) -> Vec<(String, Arc<[u8]>)> {
    let whole = || vec![(format!("tollgate.{}.json", kind.name()), bytes.into())];
    if bytes.len() <= target {
        return whole();
    }
    let Some(entries) = entries(kind, bytes) else {
        return whole();
    };
    let ordered = ORDERED.contains(&kind);
    let shards = if ordered {
        in_order(&entries, target)
    } else {
        by_name(&entries, bytes.len().div_ceil(target).next_power_of_two())
    };
    let digits = shards.len().to_string().len();
    let shards = shards.into_iter().enumerate();
    shards
        .filter(|(_, entries)| !entries.is_empty())
        .map(|(number, entries)| {
            let list: Vec<&str> = entries.iter().map(|e| e.get()).collect();
            let text = format!("{{\"{}\":[\n{}\n]}}\n", kind.name(), list.join(",\n"));
            let name = format!("tollgate.{}.{number:0digits$}.json", kind.name());
            (name, text.into_bytes().into())
        })
        .collect()
}

/// The entries of a list; `None` if the text is not of the kind, or has more than its list.
fn entries(kind: Kind, bytes: &[u8]) -> Option<Vec<Box<RawValue>>> {
    use std::collections::BTreeMap;
    let mut top: BTreeMap<String, Box<RawValue>> = serde_json::from_slice(bytes).ok()?;
    let list = top.remove(kind.name())?;
    if !top.is_empty() {
        return None;
    }
    serde_json::from_str(list.get()).ok()
}

fn in_order(entries: &[Box<RawValue>], target: usize) -> Vec<Vec<&RawValue>> {
    let mut shards: Vec<Vec<&RawValue>> = vec![Vec::new()];
    let mut size = 0;
    for entry in entries {
        size += entry.get().len() + 2;
        if size > target && shards.last().is_some_and(|s| !s.is_empty()) {
            shards.push(Vec::new());
            size = entry.get().len() + 2;
        }
        if let Some(shard) = shards.last_mut() {
            shard.push(entry);
        }
    }
    shards
}

fn by_name(entries: &[Box<RawValue>], count: usize) -> Vec<Vec<&RawValue>> {
    let mut shards: Vec<Vec<&RawValue>> = vec![Vec::new(); count];
    for entry in entries {
        let value: Value = serde_json::from_str(entry.get()).unwrap_or_default();
        let name = ["code", "id", "name"].iter().find_map(|n| value.get(n)?.as_str());
        let hash = xxh3_64(name.unwrap_or_default().as_bytes());
        let place = usize::try_from(hash % (count as u64)).unwrap_or(0);
        if let Some(shard) = shards.get_mut(place) {
            shard.push(entry);
        }
    }
    shards
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    fn text(kind: &str, field: &str, count: usize) -> String {
        let list: Vec<String> = (0..count)
            .map(|i| format!(r#"{{ "{field}": "entry{i:05}",  "n": 1.50 }}"#))
            .collect();
        format!(r#"{{"{kind}": [{}]}}"#, list.join(", "))
    }

    fn all(shards: &[(String, Arc<[u8]>)], kind: Kind) -> Vec<String> {
        let entries = shards.iter().flat_map(|(_, bytes)| entries(kind, bytes).unwrap());
        entries.map(|e| e.get().to_owned()).collect()
    }

    #[test]
    fn what_fits_stays_one_document_byte_for_byte() {
        let small = text("channels", "code", 3);
        let found = split(Kind::Channels, small.as_bytes(), TARGET);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].0, "tollgate.channels.json");
        assert_eq!(&*found[0].1, small.as_bytes());
        let settings = format!(r#"{{"settings": {{"x": "{}"}}}}"#, "x".repeat(500));
        assert_eq!(split(Kind::Settings, settings.as_bytes(), 100).len(), 1);
    }

    #[test]
    fn an_edit_changes_one_shard_and_nothing_is_lost() {
        let before = text("channels", "code", 1_000);
        let shards = split(Kind::Channels, before.as_bytes(), 5_000);
        assert!(shards.len() > 4 && shards.iter().all(|(_, b)| b.len() < 10_000));
        let found: BTreeSet<String> = all(&shards, Kind::Channels).into_iter().collect();
        assert_eq!(found.len(), 1_000);
        assert!(found.contains(r#"{ "code": "entry00007",  "n": 1.50 }"#));
        let after = before.replace(r#""entry00007",  "n": 1.50"#, r#""entry00007",  "n": 2"#);
        let edited = split(Kind::Channels, after.as_bytes(), 5_000);
        let differ = shards.iter().zip(&edited).filter(|(a, b)| a != b).count();
        assert_eq!((shards.len(), differ), (edited.len(), 1));
    }

    #[test]
    fn rules_keep_their_order() {
        let before = text("rules", "name", 1_000);
        let mut shards = split(Kind::Rules, before.as_bytes(), 5_000);
        assert!(shards.len() > 4);
        shards.sort();
        let found = all(&shards, Kind::Rules);
        assert_eq!(found.len(), 1_000);
        assert!(found.is_sorted());
    }
}
