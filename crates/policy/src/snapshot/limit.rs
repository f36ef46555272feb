//! Limits, in place.

use super::{Code, LimitRecord, ModelMatch, Range, Scope, Section, Snapshot, text_at};
use crate::{
    documents::{Algorithm, Enforcement, Metric, OnFull},
    glob::glob_matches,
    identity::{hash_name, limit_key, per_model_key},
};
use std::fmt;
use zerocopy::little_endian::U32;

/// The limits of a channel, of a model, or of everything.
#[derive(Clone, Copy)]
pub struct LimitList<'a> {
    limits: &'a [LimitRecord],
    ids: &'a [U32],
    strings: &'a str,
    owner: u64,
}

impl<'a> LimitList<'a> {
    pub(super) fn new(snapshot: Snapshot<'a>, range: Range, owner: u64) -> Self {
        Self {
            limits: snapshot.records(Section::Limits),
            ids: snapshot.run(Section::LimitLists, range),
            strings: snapshot.strings,
            owner,
        }
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.ids.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty()
    }

    /// In the order they were written, inherited ones first.
    pub fn iter(&self) -> LimitIter<'a> {
        LimitIter { list: *self }
    }
}

impl<'a> IntoIterator for LimitList<'a> {
    type Item = LimitView<'a>;
    type IntoIter = LimitIter<'a>;

    fn into_iter(self) -> LimitIter<'a> {
        self.iter()
    }
}

/// Iterator over a [`LimitList`].
#[derive(Clone)]
pub struct LimitIter<'a> {
    list: LimitList<'a>,
}

impl<'a> Iterator for LimitIter<'a> {
    type Item = LimitView<'a>;

    fn next(&mut self) -> Option<LimitView<'a>> {
        let (id, rest) = self.list.ids.split_first()?;
        self.list.ids = rest;
        let record = self.list.limits.get(usize::try_from(id.get()).ok()?)?;
        Some(LimitView {
            record,
            strings: self.list.strings,
            owner: self.list.owner,
        })
    }
}

/// A limit.
#[derive(Clone, Copy)]
pub struct LimitView<'a> {
    record: &'a LimitRecord,
    strings: &'a str,
    owner: u64,
}

impl<'a> LimitView<'a> {
    /// How refusals and statistics call it, unique in its list.
    pub fn name(&self) -> &'a str {
        text_at(self.strings, self.record.name)
    }

    /// What its usage belongs to: the same in every generation, whatever becomes of maximum, burst and name; never 0.
    pub fn key(&self) -> u64 {
        limit_key(self.owner, self.record.shape.get())
    }

    /// The counter that a request for `model` uses: [`LimitView::key`], or the model's own one if the limit is per model.
    pub fn counter_key(&self, model: &str) -> u64 {
        if self.per_model() {
            per_model_key(self.key(), hash_name(model.as_bytes()))
        } else {
            self.key()
        }
    }

    /// [`LimitView::counter_key`] for a model whose [`crate::ModelView::name_hash`] is known.
    pub fn counter_key_hashed(&self, model_hash: u64) -> u64 {
        if self.per_model() {
            per_model_key(self.key(), model_hash)
        } else {
            self.key()
        }
    }

    /// What is counted.
    pub fn metric(&self) -> Metric {
        Metric::from_code(self.record.metric, Metric::Requests)
    }

    /// How it is counted.
    pub fn algorithm(&self) -> Algorithm {
        Algorithm::from_code(self.record.algorithm, Algorithm::SlidingWindow)
    }

    /// Strict or soft.
    pub fn enforcement(&self) -> Enforcement {
        Enforcement::from_code(self.record.enforcement, Enforcement::Strict)
    }

    /// Whose usage it counts.
    pub fn scope(&self) -> Scope {
        Scope::from_code(self.record.scope, Scope::Channel)
    }

    /// Length of the window in milliseconds; 0 for `concurrency`.
    pub fn window_ms(&self) -> u64 {
        self.record.window_ms.get()
    }

    /// The most that is admitted in a window, at most 2^39 - 1.
    pub fn max(&self) -> u64 {
        self.record.max.get()
    }

    /// What a token bucket holds; equals `max` for other algorithms.
    pub fn burst(&self) -> u64 {
        self.record.burst.get()
    }

    /// The longest delay by a leaky bucket, in milliseconds; 0 for other algorithms.
    pub fn max_delay_ms(&self) -> u64 {
        self.record.max_delay_ms.get()
    }

    /// Whether a request for the model of that (canonical) name counts. A request without a model has the name `""`.
    pub fn applies_to(&self, model: &str) -> bool {
        match ModelMatch::from_code(self.record.model_match, ModelMatch::Any) {
            ModelMatch::Any => true,
            ModelMatch::Exact => self.model_pattern() == model,
            ModelMatch::Glob => glob_matches(self.model_pattern(), model),
        }
    }

    /// The model or glob it is for; empty for all.
    pub fn model_pattern(&self) -> &'a str {
        text_at(self.strings, self.record.model)
    }

    /// Whether each model has a counter of its own.
    pub fn per_model(&self) -> bool {
        self.record.per_model != 0
    }

    /// What a full counter table answers.
    pub fn on_full(&self) -> OnFull {
        OnFull::from_code(self.record.on_full, OnFull::Closed)
    }
}

impl fmt::Debug for LimitView<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LimitView")
            .field("name", &self.name())
            .field("key", &self.key())
            .field("max", &self.max())
            .finish_non_exhaustive()
    }
}
