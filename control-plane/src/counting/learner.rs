//! Learns how many of an upstream's tokens one of ours is, for models whose tokenizer nobody has: from requests that were
//! counted here and whose usage the upstream has reported.
//!
//! The factor is a ratio of two sums in which each sample weighs 1 % less than the next, so that long requests count
//! for more than short ones and some hundred requests make up a factor. Its error is the mean of how far the factor was off,
//! sample by sample, before it learned from it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Mutex, PoisonError};

use serde::{Deserialize, Serialize};
use tollgate_shm::write_atomically;

/// Weight of what is known when a sample comes.
const KEEP: f64 = 0.99;
/// Samples before a factor is used.
const ENOUGH: u64 = 10;
/// Ratios that no tokenizer has: reports of something else.
const CREDIBLE: std::ops::RangeInclusive<f64> = 0.2..=5.0;
/// Least tokens of ours that a sample needs.
const LEAST: u32 = 20;
/// Relative change from which a factor is published anew.
const STEP: f64 = 0.01;
/// Models that are remembered.
const MODELS: usize = 1_024;

/// What is known of a model.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Learned {
    /// The tokenizer whose tokens the factor is for.
    pub tokenizer: String,
    /// Samples so far.
    pub samples: u64,
    /// Tokens of the upstream per token of ours.
    pub factor: f64,
    /// Mean relative error of a request's count by that factor.
    pub error: f64,
    ours: f64,
    theirs: f64,
    /// What workers were told, in thousandths; 0 for nothing yet.
    published: u32,
}

/// What was learned, of all models.
#[derive(Debug)]
pub struct Learner {
    models: Mutex<BTreeMap<String, Learned>>,
    path: Option<PathBuf>,
}

impl Learner {
    /// Goes on with what is in the file, if there is one.
    pub fn open(path: Option<PathBuf>) -> Learner {
        let known = path
            .as_ref()
            .and_then(|path| std::fs::read(path).ok())
            .and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Learner {
            models: Mutex::new(known.unwrap_or_default()),
            path,
        }
    }

    fn models(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, Learned>> {
        self.models.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a sample: tokens of the request's texts by our tokenizer, what else it costs by the formula, and what the
    /// upstream has reported.
    pub fn learn(&self, model: &str, texts: u32, beside: u32, reported: u32) {
        let theirs = f64::from(reported.saturating_sub(beside));
        let ours = f64::from(texts);
        if texts < LEAST || !CREDIBLE.contains(&(theirs / ours)) {
            return;
        }
        let mut models = self.models();
        // Only models of the configuration get here, so the bound is for configurations that change for ever.
        if models.len() >= MODELS && !models.contains_key(model) {
            models.pop_first();
        }
        let known = models.entry(model.to_owned()).or_default();
        if known.samples > 0 {
            let guess = known.factor * ours + f64::from(beside);
            let off = (guess - f64::from(reported)).abs() / f64::from(reported.max(1));
            // The first ones make a plain mean.
            let weight = (1.0 - KEEP).max(1.0 / known.samples as f64);
            known.error += (off - known.error) * weight;
        }
        known.ours = known.ours * KEEP + ours;
        known.theirs = known.theirs * KEEP + theirs;
        known.factor = known.theirs / known.ours;
        known.samples += 1;
    }

    /// The factor to publish for a model, in thousandths. It follows in steps, so that not every request makes a new
    /// configuration.
    pub fn factor(&self, model: &str) -> Option<u32> {
        let mut models = self.models();
        let known = models.get_mut(model).filter(|known| known.samples >= ENOUGH)?;
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a credible ratio is a small positive number"
        )]
        let now = (known.factor * 1_000.0).round() as u32;
        let then = f64::from(known.published);
        if (f64::from(now) - then).abs() > then * STEP {
            known.published = now;
        }
        Some(known.published)
    }

    /// All factors to publish, by model.
    pub fn factors(&self) -> BTreeMap<String, u32> {
        let names: Vec<String> = self.models().keys().cloned().collect();
        names
            .into_iter()
            .filter_map(|name| {
                let factor = self.factor(&name)?;
                Some((name, factor))
            })
            .collect()
    }

    /// What is known of a model.
    pub fn of(&self, model: &str) -> Option<Learned> {
        self.models().get(model).cloned()
    }

    /// A model is counted with this tokenizer from now on: a factor for another one is forgotten.
    pub fn counts_with(&self, model: &str, tokenizer: &str) {
        let mut models = self.models();
        if let Some(known) = models.get_mut(model)
            && known.tokenizer != tokenizer
        {
            let fresh = known.tokenizer.is_empty();
            if !fresh {
                *known = Learned::default();
            }
            known.tokenizer = tokenizer.to_owned();
        }
    }

    /// Writes it all down.
    pub fn save(&self) {
        let Some(path) = &self.path else { return };
        let models = self.models().clone();
        let written = serde_json::to_vec_pretty(&models)
            .map_err(std::io::Error::other)
            .and_then(|bytes| write_atomically(path, &bytes));
        if let Err(error) = written {
            tracing::warn!(%error, "what was learned about tokenizers cannot be kept");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_ratio_is_learned_and_its_error_shown() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("learned.json");
        let learner = Learner::open(Some(path.clone()));
        for i in 0..200_u32 {
            assert_eq!(learner.factor("m").is_some(), u64::from(i) >= ENOUGH);
            // 1.4 of theirs to one of ours, give or take a tenth.
            let texts = 100 + i;
            let wobble = if i % 2 == 0 { 9 } else { 11 };
            learner.learn("m", texts, 7, 7 + texts * 14 * wobble / 100);
        }
        let known = learner.of("m").unwrap();
        assert!((known.factor - 1.4).abs() < 0.02, "{known:?}");
        assert!((0.05..0.15).contains(&known.error), "{known:?}");
        let factor = learner.factor("m").unwrap();
        assert!((1_370..1_430).contains(&factor), "{factor}");
        learner.counts_with("m", "o200k_base");
        learner.save();
        let again = Learner::open(Some(path));
        assert_eq!(again.of("m").unwrap().samples, 200);
        assert_eq!(again.factor("m"), Some(factor));
        again.counts_with("m", "cl100k_base");
        assert_eq!(again.factor("m"), None, "a factor for another tokenizer");
    }

    #[test]
    fn what_is_not_credible_teaches_nothing() {
        let learner = Learner::open(None);
        for (texts, reported) in [(1_000, 0), (1_000, 1_000_000), (3, 4), (0, 9)] {
            learner.learn("m", texts, 0, reported);
        }
        assert_eq!(learner.of("m"), None);
    }

    #[test]
    fn memory_is_bounded() {
        let learner = Learner::open(None);
        for i in 0..MODELS + 50 {
            learner.learn(&format!("m{i}"), 100, 0, 100);
        }
        assert_eq!(learner.models().len(), MODELS);
    }
}
