//! What an upstream says that a request used.

use crate::json::{Integer, integer};

/// Tokens as an upstream reported them, in one vocabulary for all APIs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Usage {
    /// All input tokens: OpenAI's `prompt_tokens` or `input_tokens`, which include cached ones; Anthropic's
    /// `input_tokens` plus its two cache figures, which stand beside it.
    pub input: Option<u64>,
    /// All output tokens, reasoning included.
    pub output: Option<u64>,
    /// Input tokens read from the provider's cache; part of `input`.
    pub cached: u64,
    /// Input tokens written to the provider's cache (Anthropic); part of `input`.
    pub cache_creation: u64,
    /// Output tokens spent on reasoning; part of `output`.
    pub reasoning: u64,
    /// Audio tokens; part of `input`.
    pub audio_input: u64,
    /// Audio tokens; part of `output`.
    pub audio_output: u64,
    /// Whether a figure was no count (negative, fractional, above 2^53 - 1, a string) and was ignored.
    pub malformed: bool,
}

impl Usage {
    /// Takes over the figures of a later report of the same answer. Reports are cumulative, so that the larger figure
    /// is the newer one, and one that an upstream takes back stays.
    pub fn merge(&mut self, later: &Self) {
        self.input = self.input.max(later.input);
        self.output = self.output.max(later.output);
        self.cached = self.cached.max(later.cached);
        self.cache_creation = self.cache_creation.max(later.cache_creation);
        self.reasoning = self.reasoning.max(later.reasoning);
        self.audio_input = self.audio_input.max(later.audio_input);
        self.audio_output = self.audio_output.max(later.audio_output);
        self.malformed |= later.malformed;
    }

    /// Whether both input and output are known, so that nothing need be counted locally.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.input.is_some() && self.output.is_some()
    }

    /// Input plus output, what is unknown as 0; saturating.
    #[must_use]
    pub fn total(&self) -> u64 {
        self.input.unwrap_or(0).saturating_add(self.output.unwrap_or(0))
    }
}

/// A number of a usage object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Figure {
    Prompt,
    Input,
    Output,
    Total,
    Cached,
    /// Anthropic's, which stands beside `input_tokens` and is not part of it.
    CacheRead,
    CacheCreation,
    Reasoning,
    /// Gemini's thoughts, which stand beside the candidates' tokens and are not part of them.
    Thoughts,
    /// Gemini's tokens of what tools put into the prompt, beside it.
    ToolPrompt,
    AudioInput,
    AudioOutput,
}

/// Figures as they are read, before they are brought to [`Usage`]'s vocabulary.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct RawUsage {
    pub(super) present: bool,
    prompt: Option<u64>,
    input: Option<u64>,
    output: Option<u64>,
    total: Option<u64>,
    cached: u64,
    cache_read: u64,
    cache_creation: u64,
    reasoning: u64,
    thoughts: u64,
    tool_prompt: u64,
    audio_input: u64,
    audio_output: u64,
    malformed: bool,
}

impl RawUsage {
    pub(super) fn number(&mut self, figure: Figure, number: &[u8]) {
        let Integer::Value(value) = integer(number) else {
            self.malformed = true;
            return;
        };
        let slot = match figure {
            Figure::Prompt => return self.prompt = self.prompt.max(Some(value)),
            Figure::Input => return self.input = self.input.max(Some(value)),
            Figure::Output => return self.output = self.output.max(Some(value)),
            Figure::Total => return self.total = self.total.max(Some(value)),
            Figure::Cached => &mut self.cached,
            Figure::CacheRead => &mut self.cache_read,
            Figure::CacheCreation => &mut self.cache_creation,
            Figure::Reasoning => &mut self.reasoning,
            Figure::Thoughts => &mut self.thoughts,
            Figure::ToolPrompt => &mut self.tool_prompt,
            Figure::AudioInput => &mut self.audio_input,
            Figure::AudioOutput => &mut self.audio_output,
        };
        *slot = value.max(*slot);
    }

    /// A figure that is neither a number nor `null`.
    pub(super) const fn malformed(&mut self) {
        self.malformed = true;
    }

    pub(super) fn usage(&self) -> Option<Usage> {
        if !self.present {
            return None;
        }
        let beside = self.cache_read.saturating_add(self.cache_creation);
        let mut input = self
            .prompt
            .map(|prompt| prompt.saturating_add(self.tool_prompt))
            .max(self.input.map(|input| input.saturating_add(beside)));
        let mut output = match self.thoughts {
            0 => self.output,
            thoughts => Some(self.output.unwrap_or(0).saturating_add(thoughts)),
        };
        // Embeddings report no output; some servers only a total and one part.
        if let Some(total) = self.total {
            match (input, output) {
                (Some(known), None) => output = Some(total.saturating_sub(known)),
                (None, Some(known)) => input = Some(total.saturating_sub(known)),
                _ => {}
            }
        }
        Some(Usage {
            input,
            output,
            cached: self.cached.max(self.cache_read),
            cache_creation: self.cache_creation,
            reasoning: self.reasoning.max(self.thoughts),
            audio_input: self.audio_input,
            audio_output: self.audio_output,
            malformed: self.malformed,
        })
    }
}
