//! Where the interesting values stand in answers: one table for whole bodies, split bodies and stream events.

use super::usage::Figure;

/// What a value means, by the keys that lead to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    Ignore,
    /// The body of an OpenAI chat completion, completion or embedding, or an event of their streams. Gemini's answers have
    /// other names at this level, so that one role reads both.
    OpenAi,
    /// Gemini's `candidates`, and one of them.
    Candidates,
    Candidate,
    /// Gemini's `content` of a candidate.
    GeminiContent,
    GeminiParts,
    GeminiPart,
    /// Gemini's `functionCall`, `executableCode` or `codeExecutionResult` in a part.
    GeminiCall,
    /// The body of an OpenAI response, or the `response` of its stream's last events.
    Responses,
    /// The same without its texts, which a stream has delivered already.
    ResponsesEnvelope,
    /// The body of an Anthropic message.
    Anthropic,
    /// The `message` of an Anthropic stream's first event.
    AnthropicEnvelope,
    Choices,
    Choice,
    /// A `message` or `delta`.
    Message,
    ToolCalls,
    ToolCall,
    Function,
    /// A string of text or an array of parts.
    Content,
    /// A part of a content, an output item, or a content block.
    Part,
    /// Text of the answer; other types than strings are ignored.
    Text,
    /// Text of the answer wherever it has strings or numbers (a tool call's arguments as an object).
    Loose,
    Usage,
    InputDetails,
    OutputDetails,
    Figure(Figure),
    /// Anything but `null` is an error report.
    Error,
    Id,
    Model,
    Created,
    Index,
    /// A string here ends a choice or a message.
    Finish,
}

impl Role {
    /// The role of an object's member.
    pub(super) fn member(self, key: &[u8]) -> Self {
        match self {
            Self::OpenAi => match key {
                b"choices" => Self::Choices,
                b"usage" => Self::Usage,
                b"error" => Self::Error,
                b"id" => Self::Id,
                b"model" => Self::Model,
                b"created" => Self::Created,
                // Groq reports a stream's usage one level down.
                b"x_groq" => Self::ResponsesEnvelope,
                // Gemini, and its countTokens, whose figure has no usage object around it.
                b"candidates" => Self::Candidates,
                b"usageMetadata" => Self::Usage,
                b"responseId" => Self::Id,
                b"modelVersion" => Self::Model,
                b"totalTokens" => Self::Figure(Figure::Prompt),
                _ => Self::Ignore,
            },
            Self::Responses | Self::ResponsesEnvelope => match key {
                b"output" if self == Self::Responses => Self::Content,
                b"usage" => Self::Usage,
                b"error" => Self::Error,
                b"id" => Self::Id,
                b"model" => Self::Model,
                b"created_at" => Self::Created,
                _ => Self::Ignore,
            },
            Self::Anthropic | Self::AnthropicEnvelope => match key {
                b"content" if self == Self::Anthropic => Self::Content,
                b"usage" => Self::Usage,
                b"error" => Self::Error,
                b"id" => Self::Id,
                b"model" => Self::Model,
                b"stop_reason" => Self::Finish,
                // `count_tokens` answers with the figure alone.
                b"input_tokens" => Self::Figure(Figure::Input),
                _ => Self::Ignore,
            },
            Self::Candidate => match key {
                b"content" => Self::GeminiContent,
                b"index" => Self::Index,
                b"finishReason" => Self::Finish,
                _ => Self::Ignore,
            },
            Self::GeminiContent => match key {
                b"parts" => Self::GeminiParts,
                _ => Self::Ignore,
            },
            Self::GeminiPart => match key {
                b"text" => Self::Text,
                b"functionCall" | b"executableCode" | b"codeExecutionResult" => Self::GeminiCall,
                _ => Self::Ignore,
            },
            Self::GeminiCall => match key {
                b"name" | b"code" | b"output" => Self::Text,
                b"args" => Self::Loose,
                _ => Self::Ignore,
            },
            Self::Choice => match key {
                b"delta" | b"message" => Self::Message,
                b"text" => Self::Text,
                b"index" => Self::Index,
                b"finish_reason" => Self::Finish,
                b"usage" => Self::Usage,
                _ => Self::Ignore,
            },
            Self::Message => match key {
                b"content" => Self::Content,
                b"refusal" | b"reasoning_content" | b"reasoning" => Self::Text,
                b"tool_calls" => Self::ToolCalls,
                b"function_call" => Self::Function,
                _ => Self::Ignore,
            },
            Self::ToolCall => match key {
                b"function" => Self::Function,
                _ => Self::Ignore,
            },
            Self::Function => match key {
                b"name" | b"arguments" => Self::Text,
                _ => Self::Ignore,
            },
            Self::Part => match key {
                b"text" | b"refusal" | b"thinking" | b"partial_json" | b"name" | b"arguments" => Self::Text,
                b"content" | b"summary" => Self::Content,
                b"input" => Self::Loose,
                b"stop_reason" => Self::Finish,
                _ => Self::Ignore,
            },
            Self::Usage => match key {
                b"prompt_tokens" => Self::Figure(Figure::Prompt),
                b"input_tokens" => Self::Figure(Figure::Input),
                b"completion_tokens" | b"output_tokens" => Self::Figure(Figure::Output),
                b"total_tokens" => Self::Figure(Figure::Total),
                b"prompt_tokens_details" | b"input_tokens_details" => Self::InputDetails,
                b"completion_tokens_details" | b"output_tokens_details" => Self::OutputDetails,
                b"cache_read_input_tokens" => Self::Figure(Figure::CacheRead),
                b"cache_creation_input_tokens" => Self::Figure(Figure::CacheCreation),
                // DeepSeek's and Moonshot's names.
                b"prompt_cache_hit_tokens" | b"cached_tokens" => Self::Figure(Figure::Cached),
                // Gemini's: the prompt includes what was cached, but not what a tool put in; thoughts stand beside the
                // candidates.
                b"promptTokenCount" => Self::Figure(Figure::Prompt),
                b"toolUsePromptTokenCount" => Self::Figure(Figure::ToolPrompt),
                b"candidatesTokenCount" | b"responseTokenCount" => Self::Figure(Figure::Output),
                b"thoughtsTokenCount" => Self::Figure(Figure::Thoughts),
                b"cachedContentTokenCount" => Self::Figure(Figure::Cached),
                b"totalTokenCount" => Self::Figure(Figure::Total),
                _ => Self::Ignore,
            },
            Self::InputDetails => match key {
                b"cached_tokens" => Self::Figure(Figure::Cached),
                b"audio_tokens" => Self::Figure(Figure::AudioInput),
                _ => Self::Ignore,
            },
            Self::OutputDetails => match key {
                b"reasoning_tokens" => Self::Figure(Figure::Reasoning),
                b"audio_tokens" => Self::Figure(Figure::AudioOutput),
                _ => Self::Ignore,
            },
            Self::Loose => Self::Loose,
            _ => Self::Ignore,
        }
    }

    /// The role of an array's elements.
    pub(super) const fn element(self) -> Self {
        match self {
            // Gemini streams an array of what is else one answer, if nobody asks for events.
            Self::OpenAi => Self::OpenAi,
            Self::Choices => Self::Choice,
            Self::Candidates => Self::Candidate,
            Self::GeminiParts => Self::GeminiPart,
            Self::ToolCalls => Self::ToolCall,
            Self::Content => Self::Part,
            Self::Loose => Self::Loose,
            _ => Self::Ignore,
        }
    }

    /// Whether a string here is text of the answer.
    pub(super) const fn is_text(self) -> bool {
        matches!(self, Self::Text | Self::Loose | Self::Content)
    }

    /// Whether texts may stand below, so that a reader that wants none may skip the value.
    pub(super) const fn holds_text(self) -> bool {
        self.is_text()
            || matches!(
                self,
                Self::Message
                    | Self::ToolCalls
                    | Self::ToolCall
                    | Self::Function
                    | Self::Part
                    | Self::GeminiContent
                    | Self::GeminiParts
                    | Self::GeminiPart
                    | Self::GeminiCall
            )
    }
}
