//! How each model is counted: the defaults on board, what documents say, and what comes of both.

mod default;
mod family;

pub use family::Family;
pub(crate) use family::PARTS;

use crate::documents::{CountedPattern, CountingRule, Documents, Images, Model, Protocol};
use crate::glob::glob_matches;

/// Kinds of characters that ratios are given for, in the order of the meter's `CharacterClass`.
pub(crate) const CLASSES: usize = 6;
/// The tokenizer that stands in for one that is not there.
const STAND_IN: &str = "o200k_base";
/// Tokenizers that are part of every binary.
const BUILT_IN: [&str; 2] = ["o200k_base", "o200k_harmony"];
/// Thousandths.
pub(crate) const ONE: f64 = 1_000.0;

/// A compiled vocabulary that workers can map.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct VocabularyFile {
    /// Its file name, without folders.
    pub file: String,
    /// Checksum of what it was compiled from.
    pub source: u64,
    /// The most tokens that a byte of text can have.
    pub growth: u32,
}

/// What counting needs from outside, by name of tokenizer or model.
#[derive(Clone, Copy)]
pub struct CountingInput<'a> {
    /// Vocabularies at hand, but for those that are part of every binary.
    pub vocabulary: &'a dyn Fn(&str) -> Option<VocabularyFile>,
    /// Factors that were learned, in thousandths.
    pub learned: &'a dyn Fn(&str) -> Option<u32>,
}

impl Default for CountingInput<'_> {
    /// Nothing at hand, nothing learned.
    fn default() -> Self {
        Self {
            vocabulary: &|_| None,
            learned: &|_| None,
        }
    }
}

/// How one model is counted, without anything from outside.
#[derive(Clone, Debug)]
pub(crate) struct Wanted<'d> {
    /// Name of the rule; empty for the default.
    pub rule: &'d str,
    pub tokenizer: &'d str,
    pub exact: bool,
    pub ratios: Option<[u32; CLASSES]>,
    pub patterns: &'d [CountedPattern],
    pub factor: u32,
    pub learn: bool,
    pub minimum: u64,
    pub maximum: u64,
    pub parts: [u32; PARTS],
    pub audio_second: u32,
    pub images: Images,
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "in range and not negative by validation; a cast saturates"
)]
pub(crate) fn thousandths(number: f64) -> u32 {
    (number * ONE).round() as u32
}

/// The rule for a model: the first that names it.
pub(crate) fn rule_of<'d>(documents: &'d Documents, model: &Model) -> Option<&'d CountingRule> {
    documents
        .counting_rules
        .iter()
        .map(|entry| &entry.value)
        .find(|rule| {
            rule.models
                .iter()
                .any(|pattern| glob_matches(pattern, &model.name))
        })
}

pub(crate) fn wanted<'d>(documents: &'d Documents, model: &'d Model) -> Wanted<'d> {
    let first = model.deployments.first();
    let protocol: Option<Protocol> = first.and_then(|deployment| {
        let mut providers = documents.providers.iter();
        let provider = providers.find(|entry| entry.value.id == deployment.provider)?;
        Some(provider.value.protocol)
    });
    let upstream = first.and_then(|deployment| deployment.upstream_model.as_deref());
    let base = default::of(std::iter::once(model.name.as_str()).chain(upstream), protocol);
    let mut wanted = Wanted {
        rule: "",
        tokenizer: base.tokenizer,
        exact: base.exact,
        ratios: None,
        patterns: &[],
        factor: base.factor,
        learn: !base.exact,
        minimum: 0,
        maximum: 0,
        parts: base.family.parts(),
        audio_second: base.family.audio_second(),
        images: base.images,
    };
    let rule = rule_of(documents, model);
    // The model's own word goes before its rule's.
    let named = model.tokenizer.as_ref();
    if let Some(tokenizer) = named.or(rule.and_then(|rule| rule.tokenizer.as_ref())) {
        wanted.tokenizer = tokenizer;
        (wanted.exact, wanted.factor, wanted.learn) = (true, 1_000, false);
    }
    if let Some(rule) = rule {
        wanted.follow(rule, named.is_some());
    }
    wanted
}

impl<'d> Wanted<'d> {
    /// Does as a rule says of everything but the tokenizer; `named`: the model has named one itself.
    fn follow(&mut self, rule: &'d CountingRule, named: bool) {
        self.rule = &rule.name;
        if let Some(ratios) = rule.characters.filter(|_| !named) {
            let all = [
                ratios.letter,
                ratios.cjk,
                ratios.digit,
                ratios.space,
                ratios.punctuation,
                ratios.other,
            ];
            self.ratios = Some(all.map(thousandths));
            (self.exact, self.factor, self.learn) = (false, 1_000, false);
        }
        if let Some(factor) = rule.factor {
            (self.factor, self.learn) = (thousandths(factor), false);
        }
        self.learn = rule.learn.unwrap_or(self.learn);
        self.patterns = &rule.patterns;
        (self.minimum, self.maximum) = (rule.minimum, rule.maximum.unwrap_or(0));
        if let Some(family) = rule.family {
            (self.parts, self.audio_second) = (family.parts(), family.audio_second());
        }
        let own = &rule.overheads;
        let figures = [
            own.request,
            own.message,
            own.name,
            own.tools,
            own.tool,
            own.schema_key,
            own.schema_value,
            own.json_value,
        ];
        for (part, figure) in self.parts.iter_mut().zip(figures) {
            *part = figure.unwrap_or(*part);
        }
        self.audio_second = own.audio_second.unwrap_or(self.audio_second);
        self.images = rule.images.unwrap_or(self.images);
    }
}

/// Where a model's tokenizer lies.
pub(crate) enum Lies {
    /// In every binary, under this name.
    BuiltIn,
    /// In a file.
    File(VocabularyFile),
    /// Nowhere: another one stands in for it.
    Nowhere,
}

pub(crate) fn find(tokenizer: &str, input: &CountingInput<'_>) -> Lies {
    if BUILT_IN.contains(&tokenizer) {
        return Lies::BuiltIn;
    }
    (input.vocabulary)(tokenizer).map_or(Lies::Nowhere, Lies::File)
}

pub(crate) const fn stand_in() -> &'static str {
    STAND_IN
}

impl Documents {
    /// Names of the tokenizers that models count with and that are not part of every binary, sorted, each once; with
    /// whether a document names it.
    pub fn tokenizers(&self) -> Vec<(String, bool)> {
        let mut names: Vec<(String, bool)> = self
            .models
            .iter()
            .map(|entry| &entry.value)
            .filter_map(|model| {
                let named = model.tokenizer.is_some()
                    || rule_of(self, model).is_some_and(|rule| rule.tokenizer.is_some());
                let wanted = wanted(self, model);
                let file = wanted.ratios.is_none() && !BUILT_IN.contains(&wanted.tokenizer);
                file.then(|| (wanted.tokenizer.to_owned(), named))
            })
            .collect();
        names.sort_by(|a, b| a.0.cmp(&b.0).then(b.1.cmp(&a.1)));
        names.dedup_by(|later, earlier| later.0 == earlier.0);
        names
    }
}
