//! What the parts of a request cost beside their texts, by family of chat template.
//!
//! Roles count as texts; the marks around them are here. A figure is the number of tokens that the template writes:
//!
//! | family | request | message | source |
//! | --- | --- | --- | --- |
//! | `openai` | 3 | 3 | OpenAI cookbook "How to count tokens with tiktoken"; tools there: 12 once, 7 a function, 3 a property |
//! | `openai_legacy` | 3 | 3 | the same for GPT-4 and 3.5: 10 a function |
//! | `harmony` | 2 + 70 | 3 | `<\|start\|>role<\|message\|>…<\|end\|>`, begin of the answer, its system message (openai/harmony guide) |
//! | `anthropic` | 6 | 3 | fitted to reported usage; tools 346 once (Anthropic "Tool use", system prompt for `auto`) and 53 each, fitted |
//! | `gemini` | 1 | 1 | fitted; 32 tokens a second of audio (Google "Understand and count tokens") |
//! | `chatml` | 3 | 4 | `<\|im_start\|>role\n…<\|im_end\|>\n` and the head of the answer (Qwen's template) |
//! | `llama3` | 5 | 4 | `<\|start_header_id\|>role<\|end_header_id\|>\n\n…<\|eot_id\|>`, begin of text and head of the answer |
//! | `mistral` | 1 | 1 | `<s>[INST] … [/INST] …</s>`: roles are marks |
//! | `deepseek` | 2 | 1 | begin of sentence, a mark per role, end of sentence behind answers |
//! | `glm` | 3 | 1 | `[gMASK]<sop>`, `<\|role\|>\n` |
//! | `gemma` | 4 | 4 | `<bos>`, `<start_of_turn>role\n…<end_of_turn>\n` and the head of the answer |
//! | `none` | 0 | 0 | texts only |

use schemars::JsonSchema;
use serde::Deserialize;

/// Figures of a request, in the order of the meter's `Part`: request, message, name, tools, tool, schema key, schema
/// value, JSON value.
pub(crate) const PARTS: usize = 8;

/// A family of chat templates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// GPT-4o and later.
    Openai,
    /// GPT-4 and 3.5.
    OpenaiLegacy,
    /// gpt-oss.
    Harmony,
    /// Claude.
    Anthropic,
    /// Gemini.
    Gemini,
    /// Qwen, Yi and others.
    Chatml,
    /// Llama 3 and 4.
    Llama3,
    /// Mistral.
    Mistral,
    /// DeepSeek.
    Deepseek,
    /// GLM.
    Glm,
    /// Gemma.
    Gemma,
    /// Texts only.
    None,
}

impl Family {
    /// Its figures.
    pub(crate) const fn parts(self) -> [u32; PARTS] {
        match self {
            Family::Openai => [3, 3, 1, 12, 7, 3, 1, 1],
            Family::OpenaiLegacy => [3, 3, 1, 12, 10, 3, 1, 1],
            Family::Harmony => [72, 3, 1, 20, 4, 3, 1, 1],
            Family::Anthropic => [6, 3, 1, 346, 53, 3, 1, 1],
            Family::Gemini => [1, 1, 1, 10, 8, 3, 1, 1],
            // Tools are rendered as JSON, with an instruction around them.
            Family::Chatml => [3, 4, 1, 110, 8, 4, 2, 1],
            Family::Llama3 => [5, 4, 1, 60, 8, 4, 2, 1],
            Family::Mistral => [1, 1, 0, 4, 6, 4, 2, 1],
            Family::Deepseek => [2, 1, 0, 60, 8, 4, 2, 1],
            Family::Glm => [3, 1, 0, 60, 8, 4, 2, 1],
            Family::Gemma => [4, 4, 0, 60, 8, 4, 2, 1],
            Family::None => [0; PARTS],
        }
    }

    /// Tokens of a second of audio.
    pub(crate) const fn audio_second(self) -> u32 {
        match self {
            Family::Gemini | Family::Gemma => 32,
            Family::None => 0,
            // Qwen-Audio: a token per 40 ms.
            Family::Chatml => 25,
            _ => 10,
        }
    }
}
