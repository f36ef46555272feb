//! Which model is counted how if no document says otherwise: by the model's name, in lower case and without a vendor
//! before a slash. The first row that matches counts.
//!
//! A tokenizer that is not there (one that the operator may put into the tokenizers' folder under that name) is replaced by
//! o200k_base and called an approximation. Factors of approximations are where learning begins:
//!
//! - Claude to 4.6: cl100k_base × 1.18; later: o200k_base × 1.55. Both are means over English, Chinese, code and JSON of
//!   reconstructed vocabularies of these models against ours; single kinds of text are up to 10 % off.
//! - Gemini: o200k_base × 1.08, from Gemma 3's published vocabulary, which is of its kind.
//!
//! Prices of images: OpenAI "Images and vision", Anthropic "Vision", Google "Understand and count tokens", Qwen-VL's model
//! cards.

use super::Family;
use crate::{documents::Images, glob::glob_matches};

/// A row of the list.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Default {
    pub models: &'static [&'static str],
    pub tokenizer: &'static str,
    /// Whether the tokenizer is the model's own.
    pub exact: bool,
    /// Thousandths.
    pub factor: u32,
    pub family: Family,
    pub images: Images,
}

const GPT_4O: Images = tiles(85, 170);

const fn tiles(base: u32, per_tile: u32) -> Images {
    Images::Tiles { base, per_tile }
}

const fn patches(percent: u32) -> Images {
    Images::Patches { cap: 1536, percent }
}

const fn own(
    models: &'static [&'static str],
    tokenizer: &'static str,
    family: Family,
    images: Images,
) -> Default {
    Default {
        models,
        tokenizer,
        exact: true,
        factor: 1_000,
        family,
        images,
    }
}

const fn like(
    models: &'static [&'static str],
    tokenizer: &'static str,
    factor: u32,
    family: Family,
    images: Images,
) -> Default {
    Default {
        models,
        tokenizer,
        exact: false,
        factor,
        family,
        images,
    }
}

const O200K: &str = "o200k_base";
const CL100K: &str = "cl100k_base";

const LATE_CLAUDE: Default = like(
    &["*claude*"],
    O200K,
    1_550,
    Family::Anthropic,
    Images::Areas { cap: 4784 },
);
const GEMINI: Default = like(
    &["gemini*", "learnlm*"],
    O200K,
    1_080,
    Family::Gemini,
    Images::Crops {
        per_crop: 258,
        most: 64,
    },
);
const ANY: Default = like(&["*"], O200K, 1_000, Family::Openai, GPT_4O);

const LIST: &[Default] = &[
    own(&["gpt-oss*"], "o200k_harmony", Family::Harmony, GPT_4O),
    own(&["gpt-4o-mini*"], O200K, Family::Openai, tiles(2833, 5667)),
    own(
        &["gpt-4o*", "chatgpt-4o*", "gpt-4.5*"],
        O200K,
        Family::Openai,
        GPT_4O,
    ),
    own(
        &["gpt-4.1-nano*", "gpt-5-nano*"],
        O200K,
        Family::Openai,
        patches(246),
    ),
    own(
        &["gpt-4.1-mini*", "gpt-5-mini*"],
        O200K,
        Family::Openai,
        patches(162),
    ),
    own(&["o4-mini*"], O200K, Family::Openai, patches(172)),
    own(&["gpt-4.1*"], O200K, Family::Openai, GPT_4O),
    own(&["gpt-5.1*"], O200K, Family::Openai, tiles(70, 140)),
    own(&["gpt-5.*"], O200K, Family::Openai, patches(120)),
    own(&["gpt-5*"], O200K, Family::Openai, tiles(70, 140)),
    own(&["o1*", "o3*", "o4*"], O200K, Family::Openai, tiles(75, 150)),
    own(&["computer-use*"], O200K, Family::Openai, tiles(65, 129)),
    own(
        &[
            "gpt-4*",
            "gpt-3.5*",
            "gpt-35*",
            "text-embedding-3*",
            "text-embedding-ada-002*",
        ],
        CL100K,
        Family::OpenaiLegacy,
        GPT_4O,
    ),
    own(
        &["text-davinci-*", "code-*-00?"],
        "p50k_base",
        Family::None,
        GPT_4O,
    ),
    own(
        &["davinci*", "curie*", "babbage*", "ada", "gpt2*"],
        "r50k_base",
        Family::None,
        GPT_4O,
    ),
    like(
        &[
            "*claude-1*",
            "*claude-2*",
            "*claude-3*",
            "*claude-instant*",
            "*claude-*-4",
            "*claude-*-4-0*",
            "*claude-*-4-1*",
            "*claude-*-4-2*",
            "*claude-*-4-5*",
            "*claude-*-4-6*",
            "*claude-*-4.1*",
            "*claude-*-4.5*",
            "*claude-*-4.6*",
            "*claude-*-4@*",
            "*claude-*-4:*",
        ],
        CL100K,
        1_180,
        Family::Anthropic,
        Images::Areas { cap: 1568 },
    ),
    LATE_CLAUDE,
    GEMINI,
    like(
        &["qwen3.5*", "qwen3.6*", "qwen3-5*", "qwen3-6*"],
        "qwen3.5",
        1_000,
        Family::Chatml,
        Images::Areas { cap: 1280 },
    ),
    own(
        &["qwen*", "qwq*", "qvq*"],
        "qwen",
        Family::Chatml,
        Images::Areas { cap: 1280 },
    ),
    own(&["deepseek*"], "deepseek", Family::Deepseek, GPT_4O),
    own(&["glm*", "chatglm*"], "glm", Family::Glm, GPT_4O),
    own(&["*llama-4*", "*llama4*"], "llama4", Family::Llama3, GPT_4O),
    own(&["*llama-3*", "*llama3*"], "llama3", Family::Llama3, GPT_4O),
    own(
        &[
            "mistral*",
            "ministral*",
            "codestral*",
            "devstral*",
            "magistral*",
            "pixtral*",
            "open-mi*",
        ],
        "tekken",
        Family::Mistral,
        GPT_4O,
    ),
    own(&["kimi*", "moonshot*"], "kimi", Family::Chatml, GPT_4O),
    own(&["minimax*", "abab*"], "minimax", Family::Chatml, GPT_4O),
    own(&["gemma*"], "gemma", Family::Gemma, Images::Fixed { tokens: 258 }),
];

/// The row of a model of one of these names, the first that has one; else by the API that its upstream speaks.
pub(crate) fn of<'n>(
    names: impl IntoIterator<Item = &'n str>,
    protocol: Option<crate::documents::Protocol>,
) -> Default {
    use crate::documents::Protocol;
    for name in names {
        let name = name.rsplit('/').next().unwrap_or(name).to_lowercase();
        let found = LIST
            .iter()
            .find(|row| row.models.iter().any(|pattern| glob_matches(pattern, &name)));
        if let Some(row) = found {
            return *row;
        }
    }
    match protocol {
        Some(Protocol::Anthropic) => LATE_CLAUDE,
        Some(Protocol::Gemini) => GEMINI,
        _ => ANY,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_find_their_row() {
        for (name, tokenizer, exact, images) in [
            ("gpt-4o-2024-08-06", O200K, true, GPT_4O),
            ("openai/gpt-4o-mini", O200K, true, tiles(2833, 5667)),
            ("gpt-4.1-mini", O200K, true, patches(162)),
            ("gpt-5.2", O200K, true, patches(120)),
            ("gpt-5", O200K, true, tiles(70, 140)),
            ("gpt-4-turbo", CL100K, true, GPT_4O),
            ("gpt-oss-120b", "o200k_harmony", true, GPT_4O),
            ("Qwen/Qwen3-32B", "qwen", true, Images::Areas { cap: 1280 }),
            ("deepseek-v3.2", "deepseek", true, GPT_4O),
            ("meta-llama/Llama-3.3-70B-Instruct", "llama3", true, GPT_4O),
            (
                "claude-3-5-sonnet-20241022",
                CL100K,
                false,
                Images::Areas { cap: 1568 },
            ),
            (
                "claude-sonnet-4-20250514",
                CL100K,
                false,
                Images::Areas { cap: 1568 },
            ),
            (
                "anthropic.claude-opus-4-6-v1:0",
                CL100K,
                false,
                Images::Areas { cap: 1568 },
            ),
            ("claude-opus-4-7", O200K, false, Images::Areas { cap: 4784 }),
            (
                "anthropic/claude-opus-4.8",
                O200K,
                false,
                Images::Areas { cap: 4784 },
            ),
            ("claude-sonnet-5", O200K, false, Images::Areas { cap: 4784 }),
            ("house-model", O200K, false, GPT_4O),
        ] {
            let row = of([name], None);
            assert_eq!(
                (row.tokenizer, row.exact, row.images),
                (tokenizer, exact, images),
                "{name}"
            );
        }
        assert_eq!(of(["house-model", "claude-3-haiku"], None).factor, 1_180);
        let protocol = Some(crate::documents::Protocol::Gemini);
        assert_eq!(of(["house-model"], protocol).family, Family::Gemini);
    }
}
