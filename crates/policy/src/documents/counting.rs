//! Rules for counting tokens.

use crate::counting::Family;
use schemars::JsonSchema;
use serde::Deserialize;

/// Tokens per character, for models whose tokenizer nobody has.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Characters {
    /// Letters of alphabetic scripts.
    pub letter: f64,
    /// Chinese characters, kana, hangul.
    pub cjk: f64,
    /// Digits.
    pub digit: f64,
    /// White space.
    pub space: f64,
    /// Punctuation.
    pub punctuation: f64,
    /// Emoji, symbols, controls.
    pub other: f64,
}

impl Default for Characters {
    fn default() -> Self {
        Self {
            letter: 0.25,
            cjk: 1.0,
            digit: 0.5,
            space: 0.0,
            punctuation: 0.75,
            other: 2.0,
        }
    }
}

/// What a pattern takes out of a text before the rest is counted.
#[derive(Clone, Debug, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CountedPattern {
    /// A regular expression, looked for line by line.
    pub pattern: String,
    /// Tokens of a match.
    pub tokens: f64,
}

/// Tokens beside the texts; what is left out is the family's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Overheads {
    /// Of a chat request, once.
    pub request: Option<u32>,
    /// Of a message.
    pub message: Option<u32>,
    /// Of a message's name.
    pub name: Option<u32>,
    /// Of a request with tools, once.
    pub tools: Option<u32>,
    /// Of a tool.
    pub tool: Option<u32>,
    /// Of a property in a tool or schema.
    pub schema_key: Option<u32>,
    /// Of a value in a tool or schema.
    pub schema_value: Option<u32>,
    /// Of a key or value in JSON that the model reads as such.
    pub json_value: Option<u32>,
    /// Of a second of audio.
    pub audio_second: Option<u32>,
}

/// What an image costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Images {
    /// The same for each.
    Fixed {
        /// Tokens.
        tokens: u32,
    },
    /// A base and a price per tile of 512 px, after scaling into 2048 × 2048 and the shorter side to 768.
    Tiles {
        /// Tokens of any image.
        base: u32,
        /// Tokens of a tile.
        per_tile: u32,
    },
    /// Patches of 32 px, at most `cap`, times `percent` / 100.
    Patches {
        /// Most patches.
        cap: u32,
        /// Hundredths of a token per patch.
        percent: u32,
    },
    /// A token per area of 28 × 28 px, at most `cap`.
    Areas {
        /// Most tokens.
        cap: u32,
    },
    /// Crops of 256 to 768 px.
    Crops {
        /// Tokens of a crop.
        per_crop: u32,
        /// Most crops.
        most: u32,
    },
}

/// How the tokens of some models are counted. What a rule leaves out stays as it is by default.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CountingRule {
    /// Unique among the rules.
    pub name: String,
    /// Models that it is for, by name or glob; the first rule that names a model is its rule.
    pub models: Vec<String>,
    /// The tokenizer: one on board, or a file in the tokenizers' folder by its name.
    pub tokenizer: Option<String>,
    /// Tokens per character instead of a tokenizer.
    pub characters: Option<Characters>,
    /// Taken out of texts before the rest is counted.
    #[serde(default)]
    pub patterns: Vec<CountedPattern>,
    /// What the count of the texts is multiplied by. Leaves out learning unless `learn` is there.
    pub factor: Option<f64>,
    /// Least tokens that a request's texts or an answer count, unless they are empty.
    #[serde(default)]
    pub minimum: u64,
    /// Most tokens that a request's texts or an answer count.
    pub maximum: Option<u64>,
    /// What messages, tools and schemas cost beside their texts.
    pub family: Option<Family>,
    /// Single figures that differ from the family's.
    #[serde(default)]
    pub overheads: Overheads,
    /// What images cost.
    pub images: Option<Images>,
    /// Whether the factor is learned from what the upstream reports; by default for tokenizers that are not the model's own.
    pub learn: Option<bool>,
}
