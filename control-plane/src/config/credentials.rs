//! Credentials inside a `providers` document, and secrets of receivers of alerts inside `settings`, found by their place in the
//! text, so that everything else of an operator's file stays as it was written.

use std::ops::Range;

use crate::secrets::{MasterKey, SealError};

/// What the API shows in place of a credential, and takes back as "the one that is stored".
pub const REDACTED: &str = "***";

/// Deepest nesting that is looked into; credentials stand at depth 4, or 6 where there are several.
const MAX_DEPTH: usize = 64;
/// Credentials of one provider that are looked at; validation allows fewer.
const MOST_KEYS: usize = 4_096;

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

/// Secrets of a receiver of alerts, by their fields.
const OF_RECEIVERS: [&str; 2] = ["secret", "secret_url"];
/// Receivers that are looked at; validation allows fewer.
const MOST_RECEIVERS: usize = 4_096;

/// What stands in one provider, or in one secret of a receiver of alerts.
#[derive(Clone, Debug, Default)]
struct Spots {
    /// The provider's id; of a receiver's secret `alerts/<receiver>/<field>`.
    id: Option<String>,
    /// What stands in `credentials` itself.
    single: Fields,
    /// What stands in each of `credentials.keys`.
    keys: Vec<Fields>,
    /// Texts deeper inside `credentials`, where none belong.
    strays: Vec<Spot>,
}

/// Texts in one object, by their key.
#[derive(Clone, Debug, Default)]
struct Fields(Vec<(String, Spot)>);

impl Fields {
    fn get(&self, name: &str) -> Option<&Spot> {
        self.0.iter().find(|(n, _)| n == name).map(|(_, s)| s)
    }

    /// What [`redacted`] takes out: whatever is not known to be harmless.
    fn secrets(&self) -> impl Iterator<Item = &Spot> {
        let secret =
            |(name, _): &&(String, Spot)| !matches!(name.as_str(), "type" | "name" | "key_ref" | "id");
        self.0.iter().filter(secret).map(|(_, spot)| spot)
    }
}

impl Spots {
    /// Whatever may hold a credential.
    fn all(&self) -> impl Iterator<Item = &Fields> {
        std::iter::once(&self.single).chain(&self.keys)
    }

    /// The credential of the provider of this id that has the same name as `fields`, which stands at `position`.
    fn same(&self, position: usize, fields: &Fields) -> Option<&Fields> {
        match position.checked_sub(1) {
            None => Some(&self.single),
            Some(_) => {
                let id = &fields.get("id")?.text;
                self.keys
                    .iter()
                    .find(|key| key.get("id").is_some_and(|spot| spot.text == *id))
            }
        }
    }
}

/// A walk over JSON text that has been found to be valid, or ends early where it is not.
struct Walk<'a> {
    bytes: &'a [u8],
    at: usize,
    path: Vec<Step>,
    found: Vec<Spots>,
    receivers: Vec<Receiver>,
}

/// A receiver of alerts.
#[derive(Clone, Debug, Default)]
struct Receiver {
    name: Option<String>,
    secrets: [Spots; OF_RECEIVERS.len()],
}

impl Receiver {
    fn spots(self) -> impl Iterator<Item = Spots> {
        let name = self.name;
        self.secrets
            .into_iter()
            .zip(OF_RECEIVERS)
            .map(move |(spots, field)| Spots {
                id: name.as_ref().map(|name| receiver_id(name, field)),
                ..spots
            })
    }
}

/// What a secret of a receiver of alerts is sealed for.
pub fn receiver_id(receiver: &str, field: &str) -> String {
    format!("alerts/{receiver}/{field}")
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

    fn note_receiver(&mut self, spot: Spot) {
        let [_, _, _, Step::Index(index), Step::Key(field), rest @ ..] = self.path.as_slice() else {
            return;
        };
        let index = *index;
        if index >= MOST_RECEIVERS {
            return;
        }
        if self.receivers.len() <= index {
            self.receivers.resize(index + 1, Receiver::default());
        }
        let Some(receiver) = self.receivers.get_mut(index) else {
            return;
        };
        if let ("name", []) = (field.as_str(), rest) {
            receiver.name = Some(spot.text);
            return;
        }
        let secrets = OF_RECEIVERS.into_iter().zip(&mut receiver.secrets);
        for (_, spots) in secrets.filter(|(name, _)| name == field) {
            match rest {
                [Step::Key(name)] => spots.single.0.push((name.clone(), spot.clone())),
                _ => spots.strays.push(spot.clone()),
            }
        }
    }

    fn note(&mut self, spot: Spot) {
        if let [Step::Key(settings), Step::Key(alerts), Step::Key(receivers), ..] = self.path.as_slice()
            && (settings.as_str(), alerts.as_str(), receivers.as_str()) == ("settings", "alerts", "receivers")
        {
            return self.note_receiver(spot);
        }
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
            ("credentials", [Step::Key(name)]) => provider.single.0.push((name.clone(), spot)),
            ("credentials", [Step::Key(keys), Step::Index(at), Step::Key(name)])
                if keys == "keys" && *at < MOST_KEYS =>
            {
                if provider.keys.len() <= *at {
                    provider.keys.resize(at + 1, Fields::default());
                }
                if let Some(fields) = provider.keys.get_mut(*at) {
                    fields.0.push((name.clone(), spot));
                }
            }
            ("credentials", _) => provider.strays.push(spot),
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
        receivers: Vec::new(),
    };
    walk.value(&(0..0))?;
    let mut found = walk.found;
    found.extend(walk.receivers.into_iter().flat_map(Receiver::spots));
    Some(found)
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
    find(bytes).is_some_and(|all| all.iter().any(|p| p.all().any(|f| f.get("key").is_some())))
}

/// The document with every `key` replaced by `encrypted`; `None` if there is nothing to replace. A provider that has
/// both, or no id, is left alone: validation will say what is wrong with it.
///
/// # Errors
/// If a credential cannot be sealed.
pub fn sealed(bytes: &[u8], key: &MasterKey) -> Result<Option<Vec<u8>>, SealError> {
    let mut edits = Vec::new();
    for provider in find(bytes).unwrap_or_default() {
        for fields in provider.all() {
            if let (Some(id), Some(plain), None) = (&provider.id, fields.get("key"), fields.get("encrypted"))
                && plain.text != REDACTED
            {
                edits.push((plain.key.clone(), quoted("encrypted")));
                edits.push((plain.value.clone(), quoted(&key.seal_text(id, &plain.text)?)));
            }
        }
    }
    Ok((!edits.is_empty()).then(|| replaced(bytes, edits)))
}

/// The document with its credentials sealed by another key; `None` if there is nothing to do, as for those that are of
/// that key already.
///
/// # Errors
/// If a credential opens with neither.
pub fn resealed(bytes: &[u8], old: &MasterKey, new: &MasterKey) -> Result<Option<Vec<u8>>, SealError> {
    let mut edits = Vec::new();
    for provider in find(bytes).unwrap_or_default() {
        for fields in provider.all() {
            let (Some(id), Some(spot)) = (&provider.id, fields.get("encrypted")) else {
                continue;
            };
            if new.check_text(id, &spot.text).is_ok() {
                continue;
            }
            let secret = old.open(id, &old.check_text(id, &spot.text)?)?;
            let secret = std::str::from_utf8(&secret).map_err(|_| SealError::Malformed)?;
            edits.push((spot.value.clone(), quoted(&new.seal_text(id, secret)?)));
        }
    }
    Ok((!edits.is_empty()).then(|| replaced(bytes, edits)))
}

/// The document without its credentials, for showing. Whatever stands in `credentials` and is not known to be
/// harmless is taken for one. `None` if it is not JSON: then nobody can tell where its credentials are.
pub fn redacted(bytes: &[u8]) -> Option<Vec<u8>> {
    let all = find(bytes)?;
    let secrets = all
        .iter()
        .flat_map(|p| p.all().flat_map(Fields::secrets).chain(&p.strays));
    let edits = secrets.map(|spot| (spot.value.clone(), quoted(REDACTED)));
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
        let stored = known.iter().find(|k| k.id.is_some() && k.id == provider.id);
        for (position, fields) in provider.all().enumerate() {
            for name in ["encrypted", "key"] {
                let Some(spot) = fields.get(name).filter(|s| s.text == REDACTED) else {
                    continue;
                };
                let old = stored.and_then(|k| k.same(position, fields)?.get(name));
                match old {
                    Some(old) => edits.push((spot.value.clone(), quoted(&old.text))),
                    None => unknown.push(provider.id.clone().unwrap_or_default()),
                }
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

    #[test]
    fn each_of_several_keys_is_sealed_redacted_and_restored_by_its_id() {
        let key = MasterKey::from_bytes([3; 32]);
        let text = br#"{"providers":[{"id":"a","credentials":{"type":"bearer","keys":[
            {"id":"one","key":"sk-1"}, {"id":"two","key":"sk-2","weight":3}, {"id":"three","key_ref":"r"}]}}]}"#;
        assert!(has_plain_keys(text));
        let stored = sealed(text, &key).unwrap().unwrap();
        assert!(!has_plain_keys(&stored) && !String::from_utf8_lossy(&stored).contains("sk-"));
        let shown = String::from_utf8(redacted(&stored).unwrap()).unwrap();
        assert_eq!(shown.matches(REDACTED).count(), 2, "{shown}");
        assert_eq!(with_restored(shown.as_bytes(), Some(&stored)).unwrap(), stored);
        // The order may change, and one may go.
        let value: serde_json::Value = serde_json::from_str(&shown).unwrap();
        let mut other = value.clone();
        let keys = other["providers"][0]["credentials"]["keys"]
            .as_array_mut()
            .unwrap();
        keys.remove(0);
        let back = with_restored(other.to_string().as_bytes(), Some(&stored)).unwrap();
        let back: serde_json::Value = serde_json::from_slice(&back).unwrap();
        let sealed_two = back["providers"][0]["credentials"]["keys"][0]["encrypted"]
            .as_str()
            .unwrap();
        let opened = key.open("a", &key.check_text("a", sealed_two).unwrap()).unwrap();
        assert_eq!(opened.as_slice(), b"sk-2");
        let renamed = shown.replace("\"two\"", "\"four\"");
        assert_eq!(
            with_restored(renamed.as_bytes(), Some(&stored)).unwrap_err(),
            ["a"]
        );
        let deep = br#"{"providers":[{"id":"a","credentials":{"keys":{"x":{"y":"sk-3"}}}}]}"#;
        assert!(
            !String::from_utf8(redacted(deep).unwrap())
                .unwrap()
                .contains("sk-3")
        );
    }

    #[test]
    fn secrets_of_receivers_are_sealed_redacted_and_restored_by_name() {
        let key = MasterKey::from_bytes([3; 32]);
        let text = br#"{"settings": {"redis": null, "alerts": {"receivers": [
            {"secret": {"key": "hush-1"}, "name": "ops", "url": "https://example.com/hook"},
            {"name": "chat", "kind": "slack", "secret_url": {"key": "https://example.com/hush-2"}},
            {"name": "wrong", "secret": "hush-3", "secret_url": [{"key": "hush-4"}]}]}}}"#;
        assert!(has_plain_keys(text));
        let stored = sealed(text, &key).unwrap().unwrap();
        assert!(!has_plain_keys(&stored));
        let value: serde_json::Value = serde_json::from_slice(&stored).unwrap();
        let receivers = &value["settings"]["alerts"]["receivers"];
        for (index, id, plain) in [
            (0, receiver_id("ops", "secret"), &b"hush-1"[..]),
            (
                1,
                receiver_id("chat", "secret_url"),
                b"https://example.com/hush-2",
            ),
        ] {
            let field = id.rsplit('/').next().unwrap();
            let sealed = receivers[index][field]["encrypted"].as_str().unwrap();
            let bytes = key.check_text(&id, sealed).unwrap();
            assert_eq!(key.open(&id, &bytes).unwrap().as_slice(), plain);
        }
        let shown = String::from_utf8(redacted(&stored).unwrap()).unwrap();
        assert!(
            !shown.contains("hush") && shown.contains("https://example.com/hook"),
            "{shown}"
        );
        assert_eq!(shown.matches(REDACTED).count(), 4, "{shown}");
        // What never was a secret does not come back; the others do, whatever their order.
        let right = shown.replace(r#", "secret": "***", "secret_url": [{"key": "***"}]"#, "");
        let mut turned: serde_json::Value = serde_json::from_str(&right).unwrap();
        turned["settings"]["alerts"]["receivers"]
            .as_array_mut()
            .unwrap()
            .reverse();
        let back = with_restored(turned.to_string().as_bytes(), Some(&stored)).unwrap();
        let back: serde_json::Value = serde_json::from_slice(&back).unwrap();
        assert_eq!(back["settings"]["alerts"]["receivers"][2], receivers[0]);
        assert_eq!(
            with_restored(right.as_bytes(), None).unwrap_err(),
            ["alerts/ops/secret", "alerts/chat/secret_url"]
        );
        let other = MasterKey::from_bytes([4; 32]);
        let anew = resealed(&stored, &key, &other).unwrap().unwrap();
        assert_eq!(redacted(&anew), redacted(&stored));
        assert!(!receivers[0]["secret"]["encrypted"].is_null() && anew != stored);
    }

    proptest! {
        #[test]
        fn no_text_breaks_the_walk(text in ".{0,200}") {
            let _ = find(text.as_bytes());
            let mut walk = Walk {
                bytes: text.as_bytes(), at: 0, path: Vec::new(), found: Vec::new(), receivers: Vec::new(),
            };
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
