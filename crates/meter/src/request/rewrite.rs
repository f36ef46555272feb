//! Changes to a body without parsing it again: spans that the scan recorded are replaced, members are injected.

use std::ops::Range;

use super::facts::{MaxTokensName, RequestFacts};
use crate::Api;
use crate::json::push_json_string;

/// Most edits of one body: model, three output maxima, stream options, one injection.
const MAX_EDITS: usize = 6;

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Edit {
    /// Bytes of the body that go.
    replaced: Range<usize>,
    /// Bytes of `Rewrite::text` that come.
    text: Range<usize>,
}

/// A planned set of changes to one body; a change that is planned twice counts as the last one. Build it from the facts of that body, then [`Self::write_into`] a new body or
/// send the [`Self::pieces`] without copying.
#[derive(Debug)]
pub struct Rewrite<'f> {
    facts: &'f RequestFacts,
    edits: Vec<Edit>,
    text: String,
    /// Members to inject at the start: the key and the bytes of `text` that hold `"key":value`.
    injected: Vec<(&'static str, Range<usize>)>,
}

impl<'f> Rewrite<'f> {
    /// No changes yet.
    #[must_use]
    pub const fn new(facts: &'f RequestFacts) -> Self {
        Self {
            facts,
            edits: Vec::new(),
            text: String::new(),
            injected: Vec::new(),
        }
    }

    /// Makes `model` the upstream's name.
    pub fn set_model(&mut self, name: &str) {
        match &self.facts.model {
            Some(model) if model.value == name => {}
            Some(model) => self.replace(model.span.clone(), |text| push_json_string(name, text)),
            None => self.inject("model", |text| push_json_string(name, text)),
        }
    }

    /// Caps the output at `max` tokens per answer: every spelling in the body is lowered to `max` if it is above; if
    /// none of them is one that the API's upstreams follow, `inject` is added (over a `null` if the client sent one).
    pub fn limit_output(&mut self, max: u64, inject: MaxTokensName) {
        for maximum in self.facts.max_tokens.iter().flatten() {
            self.edits.retain(|edit| edit.replaced != maximum.span);
            if maximum.value.is_some_and(|value| value > max) {
                self.replace(maximum.span.clone(), |text| text.push_str(&max.to_string()));
            }
        }
        if self.facts.max_output().is_some() {
            return;
        }
        if self.facts.api == Some(Api::GeminiGenerate) {
            return self.limit_generation(max);
        }
        let null = MaxTokensName::ALL
            .iter()
            .zip(&self.facts.max_tokens)
            .find(|(name, _)| **name == inject)
            .and_then(|(_, maximum)| maximum.as_ref());
        match null {
            Some(maximum) => self.replace(maximum.span.clone(), |text| text.push_str(&max.to_string())),
            None => self.inject(inject.as_str(), |text| text.push_str(&max.to_string())),
        }
    }

    /// Gives Gemini's `generationConfig` the output maximum that it has not.
    fn limit_generation(&mut self, max: u64) {
        let [.., null] = &self.facts.max_tokens;
        match (&self.facts.generation_config, null) {
            (_, Some(null)) => self.replace(null.span.clone(), |text| text.push_str(&max.to_string())),
            (None, None) => self.inject("generationConfig", |text| {
                text.push_str(&format!("{{\"maxOutputTokens\":{max}}}"));
            }),
            (Some(config), None) if config.object => {
                let start = config.span.start + 1;
                let comma = if config.empty { "" } else { "," };
                self.replace(start..start, |text| {
                    text.push_str(&format!("\"maxOutputTokens\":{max}{comma}"));
                });
            }
            (Some(config), None) => self.replace(config.span.clone(), |text| {
                text.push_str(&format!("{{\"maxOutputTokens\":{max}}}"));
            }),
        }
    }

    /// Makes an OpenAI upstream report usage at the end of its stream. Only for bodies with `stream: true`.
    pub fn include_usage(&mut self) {
        match &self.facts.stream_options {
            None => self.inject("stream_options", |text| text.push_str("{\"include_usage\":true}")),
            Some(options) => match &options.include_usage {
                Some((true, _)) => {}
                Some((false, span)) => self.replace(span.clone(), |text| text.push_str("true")),
                None if options.object => {
                    let start = options.span.start + 1;
                    let comma = if options.empty { "" } else { "," };
                    self.replace(start..start, |text| {
                        text.push_str("\"include_usage\":true");
                        text.push_str(comma);
                    });
                }
                None => {
                    self.replace(options.span.clone(), |text| {
                        text.push_str("{\"include_usage\":true}")
                    });
                }
            },
        }
    }

    fn replace(&mut self, replaced: Range<usize>, write: impl FnOnce(&mut String)) {
        self.edits.retain(|edit| edit.replaced != replaced);
        if self.edits.capacity() == 0 {
            self.edits.reserve_exact(MAX_EDITS);
        }
        let start = self.text.len();
        write(&mut self.text);
        let edit = Edit {
            replaced,
            text: start..self.text.len(),
        };
        let position = self
            .edits
            .partition_point(|other| other.replaced.start < edit.replaced.start);
        self.edits.insert(position, edit);
    }

    fn inject(&mut self, key: &'static str, write: impl FnOnce(&mut String)) {
        self.injected.retain(|(other, _)| *other != key);
        let start = self.text.len();
        push_json_string(key, &mut self.text);
        self.text.push(':');
        write(&mut self.text);
        self.injected.push((key, start..self.text.len()));
    }

    /// Whether the body stays as it is.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.edits.is_empty() && self.injected.is_empty()
    }

    /// Length of the changed body in bytes, given the length of the original.
    #[must_use]
    pub fn len(&self, body_len: usize) -> usize {
        let removed: usize = self.edits.iter().map(|edit| edit.replaced.len()).sum();
        let added: usize = self.edits.iter().map(|edit| edit.text.len()).sum();
        let injected: usize = self.injected.iter().map(|(_, text)| text.len() + 1).sum();
        let injected = injected - usize::from(self.facts.object_empty && injected > 0);
        (body_len + added + injected).saturating_sub(removed)
    }

    /// Shows the changed body as slices of `body` (the one that was scanned) and of the new texts, in order.
    pub fn pieces<'p>(&'p self, body: &'p [u8], mut piece: impl FnMut(&'p [u8])) {
        let mut emit = |bytes: &'p [u8]| {
            if !bytes.is_empty() {
                piece(bytes);
            }
        };
        let mut at = 0;
        if !self.injected.is_empty() {
            at = self.facts.object_start;
            emit(body.get(..at).unwrap_or_default());
            for (index, (_, text)) in self.injected.iter().enumerate() {
                emit(self.text.as_bytes().get(text.clone()).unwrap_or_default());
                let last = index + 1 == self.injected.len();
                emit(if last && self.facts.object_empty {
                    b""
                } else {
                    b","
                });
            }
        }
        for edit in &self.edits {
            emit(body.get(at..edit.replaced.start).unwrap_or_default());
            emit(self.text.as_bytes().get(edit.text.clone()).unwrap_or_default());
            at = edit.replaced.end;
        }
        emit(body.get(at..).unwrap_or_default());
    }

    /// Appends the changed body to `out`.
    pub fn write_into(&self, body: &[u8], out: &mut Vec<u8>) {
        out.reserve(self.len(body.len()));
        self.pieces(body, |piece| out.extend_from_slice(piece));
    }
}
