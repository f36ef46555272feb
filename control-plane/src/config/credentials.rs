//! Credentials inside a `providers` document, found by their place in the text, so that everything else of an
//! operator's file stays as it was written.

use std::ops::Range;

use crate::secrets::{MasterKey, SealError};

/// What the API shows in place of a credential, and takes back as "the one that is stored".
pub const REDACTED: &str = "***";

/// Deepest nesting that is looked into; credentials stand at depth 4.
const MAX_DEPTH: usize = 64;

#[derive(Clone, Debug, PartialEq, Eq)]
enum Step {
    Key(String),
    Index(usize),
}

/// A text within an object: where its key and its value stand, quotes included.
#[derive(Clone, Debug, Default)]
struct Spot {
    key: Range<usize>,
    value: Range<usize>,
    text: String,
}

/// What stands in one provider.
#[derive(Clone, Debug, Default)]
struct Spots {
    id: Option<String>,
    /// Texts in `credentials`, by their key.
    credentials: Vec<(String, Spot)>,
}

impl Spots {
    fn get(&self, name: &str) -> Option<&Spot> {
        self.credentials.iter().find(|(n, _)| n == name).map(|(_, s)| s)
    }
}

/// A walk over JSON text that has been found to be valid, or ends early where it is not.
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    path: Vec<Step>,
    found: Vec<Spots>,
}

impl Walk<'_> {
    fn blank(&mut self) {
        while self.bytes.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    fn peek(&mut self) -> Option<u8> {
        self.blank();
        self.bytes.get(self.at).copied()
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn string(&mut self) -> Option<(Range<usize>, String)> {
        self.blank();
        let start = self.at;
        self.expect(b'"')?;
        loop {
            match *self.bytes.get(self.at)? {
                b'\\' => self.at += 2,
                b'"' => break,
                _ => self.at += 1,
            }
        }
        self.at += 1;
        let span = start..self.at;
        let text = serde_json::from_slice(self.bytes.get(span.clone())?).ok()?;
        Some((span, text))
    }

    fn value(&mut self, key: &Range<usize>) -> Option<()> {
        if self.path.len() > MAX_DEPTH {
            return None;
        }
        match self.peek()? {
            b'{' => self.object(),
            b'[' => self.array(),
            b'"' => {
                let (value, text) = self.string()?;
                self.note(Spot {
                    key: key.clone(),
                    value,
                    text,
                });
                Some(())
            }
            _ => {
                let word = |b: &u8| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'+' | b'.');
                while self.bytes.get(self.at).is_some_and(word) {
                    self.at += 1;
                }
                Some(())
            }
        }
    }

    fn object(&mut self) -> Option<()> {
        self.expect(b'{')?;
        if self.peek()? == b'}' {
            return self.expect(b'}');
        }
        loop {
            let (key, name) = self.string()?;
            self.expect(b':')?;
            self.path.push(Step::Key(name));
            self.value(&key)?;
            self.path.pop();
            match self.peek()? {
                b',' => self.at += 1,
                _ => return self.expect(b'}'),
            }
        }
    }

    fn array(&mut self) -> Option<()> {
        self.expect(b'[')?;
        if self.peek()? == b']' {
            return self.expect(b']');
        }
        for index in 0.. {
            self.path.push(Step::Index(index));
            self.value(&(0..0))?;
            self.path.pop();
            match self.peek()? {
                b',' => self.at += 1,
                _ => return self.expect(b']'),
            }
        }
        None
    }

    fn note(&mut self, spot: Spot) {
        let [Step::Key(list), Step::Index(index), Step::Key(field), rest @ ..] = self.path.as_slice() else {
            return;
        };
        if list != "providers" {
            return;
        }
        let index = *index;
        if self.found.len() <= index {
            self.found.resize(index + 1, Spots::default());
        }
        let Some(provider) = self.found.get_mut(index) else {
            return;
        };
        match (field.as_str(), rest) {
            ("id", []) => provider.id = Some(spot.text),
            ("credentials", [Step::Key(name)]) => provider.credentials.push((name.clone(), spot)),
            _ => {}
        }
    }
}

/// `None` if the text is not JSON.
fn find(bytes: &[u8]) -> Option<Vec<Spots>> {
    serde_json::from_slice::<serde::de::IgnoredAny>(bytes).ok()?;
    let mut walk = Walk {
        bytes,
        at: 0,
        path: Vec::new(),
        found: Vec::new(),
    };
    walk.value(&(0..0))?;
    Some(walk.found)
}

/// Replaces parts of a text; the parts must not overlap.
fn replaced(bytes: &[u8], mut edits: Vec<(Range<usize>, String)>) -> Vec<u8> {
    edits.sort_by_key(|(span, _)| span.start);
    let mut out = Vec::with_capacity(bytes.len() + edits.len() * 64);
    let mut at = 0;
    for (span, text) in edits {
        out.extend_from_slice(bytes.get(at..span.start).unwrap_or_default());
        out.extend_from_slice(text.as_bytes());
        at = span.end;
    }
    out.extend_from_slice(bytes.get(at..).unwrap_or_default());
    out
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}

/// Whether a document holds a credential in the clear.
pub fn has_plain_keys(bytes: &[u8]) -> bool {
    find(bytes).is_some_and(|all| all.iter().any(|p| p.get("key").is_some()))
}

/// The document with every `key` replaced by `encrypted`; `None` if there is nothing to replace. A provider that has
/// both, or no id, is left alone: validation will say what is wrong with it.
///
/// # Errors
/// If a credential cannot be sealed.
pub fn sealed(bytes: &[u8], key: &MasterKey) -> Result<Option<Vec<u8>>, SealError> {
    let mut edits = Vec::new();
    for provider in find(bytes).unwrap_or_default() {
        if let (Some(id), Some(plain), None) = (&provider.id, provider.get("key"), provider.get("encrypted"))
            && plain.text != REDACTED
        {
            edits.push((plain.key.clone(), quoted("encrypted")));
            edits.push((plain.value.clone(), quoted(&key.seal_text(id, &plain.text)?)));
        }
    }
    Ok((!edits.is_empty()).then(|| replaced(bytes, edits)))
}

/// The document without its credentials, for showing. Whatever stands in `credentials` and is not known to be
/// harmless is taken for one. `None` if it is not JSON: then nobody can tell where its credentials are.
pub fn redacted(bytes: &[u8]) -> Option<Vec<u8>> {
    let all = find(bytes)?;
    let secret = |(name, _): &&(String, Spot)| !matches!(name.as_str(), "type" | "name" | "key_ref");
    let edits = all
        .iter()
        .flat_map(|p| p.credentials.iter().filter(secret))
        .map(|(_, spot)| (spot.value.clone(), quoted(REDACTED)));
    Some(replaced(bytes, edits.collect()))
}

/// The document with what [`redacted`] had taken out put back from the stored one, by provider id.
///
/// # Errors
/// The ids of providers for which nothing is stored.
pub fn with_restored(bytes: &[u8], stored: Option<&[u8]>) -> Result<Vec<u8>, Vec<String>> {
    let known = stored.and_then(find).unwrap_or_default();
    let (mut edits, mut unknown) = (Vec::new(), Vec::new());
    for provider in find(bytes).unwrap_or_default() {
        for name in ["encrypted", "key"] {
            let Some(spot) = provider.get(name).filter(|s| s.text == REDACTED) else {
                continue;
            };
            let old = known
                .iter()
                .find(|k| k.id.is_some() && k.id == provider.id)
                .and_then(|k| k.get(name));
            match old {
                Some(old) => edits.push((spot.value.clone(), quoted(&old.text))),
                None => unknown.push(provider.id.clone().unwrap_or_default()),
            }
        }
    }
    if unknown.is_empty() {
        Ok(replaced(bytes, edits))
    } else {
        Err(unknown)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const TEXT: &str = r#"{ "providers" : [
      { "id": "a", "base_url": "http://x", "credentials": {"type":"bearer", "key" : "sk-\u0041\"1" } },
      {"credentials": {"type": "x_api_key", "key_ref": "r"}, "id":"b", "nested": {"credentials": {"key": "not one"}}},
      { "id": "c", "credentials": { "type": "bearer", "encrypted": "AQ==" }, "n": [1, -2.5e3, true, null, {}, []] } ] }"#;

    #[test]
    fn plain_keys_are_sealed_and_nothing_else_changes() {
        let key = MasterKey::from_bytes([3; 32]);
        assert!(has_plain_keys(TEXT.as_bytes()));
        let out = String::from_utf8(sealed(TEXT.as_bytes(), &key).unwrap().unwrap()).unwrap();
        let value: serde_json::Value = serde_json::from_str(&out).unwrap();
        let text = value["providers"][0]["credentials"]["encrypted"]
            .as_str()
            .unwrap();
        let sealed_bytes = key.check_text("a", text).unwrap();
        assert_eq!(key.open("a", &sealed_bytes).unwrap().as_slice(), b"sk-A\"1");
        let back = out
            .replace(text, "sk-\\u0041\\\"1")
            .replacen("\"encrypted\"", "\"key\"", 1);
        assert_eq!(back, TEXT);
        assert_eq!(sealed(out.as_bytes(), &key).unwrap(), None);
        assert!(!has_plain_keys(out.as_bytes()));
    }

    #[test]
    fn redacted_documents_hold_no_credential_and_come_back_whole() {
        let key = MasterKey::from_bytes([3; 32]);
        let stored = sealed(TEXT.as_bytes(), &key).unwrap().unwrap();
        let shown = redacted(&stored).unwrap();
        let text = String::from_utf8(shown.clone()).unwrap();
        assert_eq!(text.matches(REDACTED).count(), 2);
        assert!(!text.contains("AQ==") && !text.contains("sk-"), "{text}");
        assert_eq!(with_restored(&shown, Some(&stored)).unwrap(), stored);
        assert_eq!(with_restored(&shown, None).unwrap_err(), ["a", "c"]);
        let odd = br#"{"providers":[{"id":"a","credentials":{"api_key":"sk-1","type":"bearer"}}]}"#;
        assert!(
            !String::from_utf8(redacted(odd).unwrap())
                .unwrap()
                .contains("sk-1")
        );
        assert_eq!(
            redacted(b"{\"providers\": [{\"credentials\": {\"key\": \"sk"),
            None
        );
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_walk(text in ".{0,200}") {
            let _ = find(text.as_bytes());
            let mut walk = Walk { bytes: text.as_bytes(), at: 0, path: Vec::new(), found: Vec::new() };
            walk.value(&(0..0));
        }

        #[test]
        fn any_credential_is_sealed(secret in "\\PC{1,40}", id in "[a-z]{1,9}") {
            prop_assume!(secret != REDACTED);
            let key = MasterKey::from_bytes([3; 32]);
            let doc = serde_json::json!({"providers": [{"id": id, "credentials": {"key": secret}}]}).to_string();
            let out = sealed(doc.as_bytes(), &key).unwrap().unwrap();
            let value: serde_json::Value = serde_json::from_slice(&out).unwrap();
            let text = value["providers"][0]["credentials"]["encrypted"].as_str().unwrap();
            let opened = key.open(&id, &key.check_text(&id, text).unwrap()).unwrap();
            prop_assert_eq!(opened.as_slice(), secret.as_bytes());
        }
    }
}
