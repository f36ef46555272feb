//! What one pass over a request body finds out.

use std::ops::Range;

use super::field::{Candidate, Scalar};
use super::formula::InputTally;
use crate::Api;

/// Byte range in the body.
pub type Span = Range<usize>;

/// A string of the body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// Where it stands, quotes included.
    pub span: Span,
    /// Its decoded value.
    pub value: String,
}

/// The spellings of the largest output a client asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum MaxTokensName {
    /// `max_tokens`: completions, Anthropic, chat completions (deprecated there).
    MaxTokens,
    /// `max_completion_tokens`: chat completions.
    MaxCompletionTokens,
    /// `max_output_tokens`: responses; Gemini's `generationConfig.maxOutputTokens`.
    MaxOutputTokens,
}

impl MaxTokensName {
    /// All of them, in the order of [`RequestFacts::max_tokens`].
    pub const ALL: [Self; 3] = [Self::MaxTokens, Self::MaxCompletionTokens, Self::MaxOutputTokens];

    /// Whether an upstream of this API follows this spelling. Others are capped too, in case it does, but do not
    /// count as a maximum: an upstream that ignores them would write without end.
    #[must_use]
    pub const fn applies_to(self, api: Api) -> bool {
        match api {
            Api::ChatCompletions => matches!(self, Self::MaxTokens | Self::MaxCompletionTokens),
            Api::Responses | Api::GeminiGenerate => matches!(self, Self::MaxOutputTokens),
            Api::Completions | Api::AnthropicMessages | Api::AnthropicCountTokens | Api::Embeddings => {
                matches!(self, Self::MaxTokens)
            }
            _ => true,
        }
    }

    /// The key in the body.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::MaxTokens => "max_tokens",
            Self::MaxCompletionTokens => "max_completion_tokens",
            Self::MaxOutputTokens => "max_output_tokens",
        }
    }
}

/// One spelling of the output maximum as the client sent it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaxTokens {
    /// Tokens; `None` for `null`.
    pub value: Option<u64>,
    /// Where the value stands.
    pub span: Span,
}

/// The `stream_options` of an OpenAI body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StreamOptions {
    /// Where the value stands: an object, or `null` if `object` is false.
    pub span: Span,
    /// Whether it is an object and not `null`.
    pub object: bool,
    /// Whether the object has no members.
    pub empty: bool,
    /// `include_usage` (`null` is false) and where its value stands.
    pub include_usage: Option<(bool, Span)>,
}

/// Gemini's `generationConfig`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct GenerationConfig {
    /// Where the value stands: an object, or `null` if `object` is false.
    pub span: Span,
    /// Whether it is an object and not `null`.
    pub object: bool,
    /// Whether the object has no members.
    pub empty: bool,
}

/// Everything [`super::scan()`] finds. Keep one and pass it again: its buffers are reused.
#[derive(Debug, Default, Clone, PartialEq)]
pub struct RequestFacts {
    /// The model's public name.
    pub model: Option<Text>,
    /// Whether a stream was asked for.
    pub stream: bool,
    /// Where the value of `stream` stands, if it is there.
    pub stream_span: Option<Span>,
    /// The output maxima, in the order of [`MaxTokensName::ALL`].
    pub max_tokens: [Option<MaxTokens>; 3],
    /// `n`, Gemini's `candidateCount`: answers per prompt; 1 if absent.
    pub n: u64,
    /// `best_of`: answers generated per prompt (completions only); 1 if absent.
    pub best_of: u64,
    /// Prompts in the body: more than 1 only for arrays in `prompt` or `input`.
    pub prompts: u64,
    /// `stream_options`, if it is there.
    pub stream_options: Option<StreamOptions>,
    /// Gemini's `generationConfig`, if it is there. Its output maximum stands among [`Self::max_tokens`].
    pub generation_config: Option<GenerationConfig>,
    /// Offset just after the `{` of the body: the place to inject members.
    pub object_start: usize,
    /// Whether the body is `{}`, so that an injected member needs no comma.
    pub object_empty: bool,
    /// What the input costs, before any model's prices.
    pub input: InputTally,
    /// Whether the upstream adds input that the body does not show (a stored conversation or prompt, a file by
    /// reference): local counts are then too low.
    pub hidden_input: bool,
    /// The wanted fields in the order of the paths; `None` where the body has no such field.
    pub wanted: Vec<Option<Scalar>>,
    pub(super) api: Option<Api>,
    /// In a box, so that a scan can take it out and put it back for the price of a pointer.
    pub(super) buffers: KeptBuffers,
}

/// Buffers, or none yet. They are no part of what has been found: all are equal.
#[derive(Debug, Default, Clone)]
pub(super) struct KeptBuffers(pub(super) Option<Box<Buffers>>);

impl PartialEq for KeptBuffers {
    fn eq(&self, _other: &Self) -> bool {
        true
    }
}

/// Memory that is kept from one body to the next; what stands in it means nothing.
#[derive(Debug, Default, Clone)]
pub(super) struct Buffers {
    strings: Vec<String>,
    pub(super) candidates: Vec<Candidate>,
    /// For keys with escapes.
    pub(super) key: String,
    /// The same below the top level, and for strings with escapes.
    pub(super) text: String,
}

impl Buffers {
    /// Strings that are kept.
    const STRINGS: usize = 8;
    /// Largest string that is kept, bytes: what one huge field has grown does not stay for all the small ones after it.
    const STRING_BYTES: usize = 4096;

    /// An empty string.
    pub(super) fn string(&mut self) -> String {
        self.strings.pop().unwrap_or_default()
    }

    fn keep(&mut self, mut text: String) {
        if self.strings.len() < Self::STRINGS && text.capacity() <= Self::STRING_BYTES {
            text.clear();
            self.strings.push(text);
        }
    }

    fn trim(&mut self) {
        for text in [&mut self.key, &mut self.text] {
            if text.capacity() > Self::STRING_BYTES {
                *text = String::new();
            }
        }
    }
}

impl RequestFacts {
    /// Empty facts.
    #[must_use]
    pub fn new() -> Self {
        let mut facts = Self::default();
        facts.clear();
        facts
    }

    /// Forgets the last body, keeps the buffers.
    pub fn clear(&mut self) {
        // Every field by name, so that a new one cannot be forgotten. Assigning a whole new value would move it.
        let Self {
            model,
            stream,
            stream_span,
            max_tokens,
            n,
            best_of,
            prompts,
            stream_options,
            generation_config,
            object_start,
            object_empty,
            input,
            hidden_input,
            wanted,
            api,
            buffers,
        } = self;
        let buffers = buffers.0.get_or_insert_default();
        if let Some(text) = model.take() {
            buffers.keep(text.value);
        }
        for value in wanted.drain(..) {
            if let Some(Scalar::String(text)) = value {
                buffers.keep(text);
            }
        }
        buffers.trim();
        (*n, *best_of, *prompts) = (1, 1, 1);
        (*stream, *stream_span, *stream_options) = (false, None, None);
        *generation_config = None;
        *max_tokens = [const { None }; 3];
        (*object_start, *object_empty) = (0, false);
        (*input, *hidden_input) = (InputTally::default(), false);
        *api = None;
    }

    /// The largest output maximum that the client named in a spelling of this API, tokens per answer. The largest,
    /// because upstreams differ in which of two they follow.
    #[must_use]
    pub fn max_output(&self) -> Option<u64> {
        self.effective_maxima().map(|(_, value)| value).max()
    }

    /// The maxima that this API's upstreams follow.
    fn effective_maxima(&self) -> impl Iterator<Item = (MaxTokensName, u64)> {
        MaxTokensName::ALL
            .into_iter()
            .zip(&self.max_tokens)
            .filter(|(name, _)| self.api.is_none_or(|api| name.applies_to(api)))
            .filter_map(|(name, max)| Some((name, max.as_ref()?.value?)))
    }

    /// The spelling of this API that the client used, the first one that is not `null`.
    #[must_use]
    pub fn max_tokens_name(&self) -> Option<MaxTokensName> {
        self.effective_maxima().map(|(name, _)| name).next()
    }

    /// How many answers are generated, so the factor on [`Self::max_output`]: prompts × max(n, `best_of`).
    #[must_use]
    pub fn answers(&self) -> u64 {
        self.n.max(self.best_of).saturating_mul(self.prompts.max(1))
    }

    /// Whether the client asked for the usage chunk of an OpenAI stream.
    #[must_use]
    pub fn include_usage(&self) -> bool {
        self.stream_options
            .as_ref()
            .and_then(|options| options.include_usage.as_ref())
            .is_some_and(|(include, _)| *include)
    }
}
