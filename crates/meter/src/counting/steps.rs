//! Counting one text by a model's rule, with pauses.

use super::{ModelCounter, TextCount, UNITS};
use crate::tokenizer::StepCounter;

/// A text that is counted in steps: by the tokenizer where nothing else is asked for, else part by part as it is fed.
#[derive(Debug, Default)]
pub(crate) struct TextSteps {
    parts: TextCount,
    whole: StepCounter,
}

impl ModelCounter<'_> {
    /// Takes the next part of a text (some KB); `last` if it is the last one, which may be empty.
    pub(crate) fn feed(&mut self, steps: &mut TextSteps, part: &str, last: bool) {
        match self.engine.as_deref_mut() {
            Some(engine) if self.rule.is_plain() => engine.feed(&mut steps.whole, part, last),
            _ => self.push(&mut steps.parts, part),
        }
    }

    /// Counts on for about `left` bytes in a text that has been fed to its end; takes what it counts from `left`. The
    /// text's units once it is counted.
    pub(crate) fn step(&mut self, steps: &mut TextSteps, left: &mut usize) -> Option<u64> {
        if self.rule.is_plain()
            && let Some(engine) = self.engine.as_deref_mut()
        {
            return Some(engine.step(&mut steps.whole, left)?.saturating_mul(UNITS));
        }
        *left = left.saturating_sub(steps.parts.line.len());
        let line = std::mem::take(&mut steps.parts.line);
        Some(steps.parts.units.saturating_add(self.line_units(&line)))
    }
}
