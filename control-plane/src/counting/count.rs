//! Counts a text or a request as the workers would.

use schemars::JsonSchema;
use serde::Serialize;
use tollgate_meter::counting::{ModelCounter, TextPattern, TextRule};
use tollgate_meter::request::{Formula, ImagePrice, RequestFacts, count_input, scan};
use tollgate_meter::tokenizer::{Counter, Vocabulary, builtin_by_name};
use tollgate_meter::{Api, TokenCounter};
use tollgate_policy::CountingView;
use tollgate_policy::documents::Images;

use super::Tokenizers;

/// What to count.
#[derive(Clone, Copy, Debug)]
pub enum What<'a> {
    /// A text by itself.
    Text(&'a str),
    /// A request's body.
    Request {
        /// The API that it is for.
        api: Api,
        /// The body.
        body: &'a [u8],
    },
}

/// A count, and how it came about.
#[derive(Clone, Debug, Default, PartialEq, Serialize, JsonSchema)]
pub struct Counted {
    /// Tokens.
    pub tokens: u64,
    /// Tokens of the texts among them.
    pub text_tokens: u64,
    /// Tokens by the formula: messages, tools, images.
    pub beside_texts: u64,
    /// Images.
    pub images: u32,
    /// The most that it could have been, before it was counted.
    pub bound: u64,
    /// Whether a part could only be estimated, or the tokenizer is not the model's own.
    pub estimated: bool,
    /// The counting rule; empty for the defaults.
    pub rule: String,
    /// Version of all that decides the count, as request records name it.
    pub version: String,
    /// The tokenizer that counted; empty for ratios.
    pub tokenizer: String,
    /// The tokenizer that was wanted.
    pub wanted_tokenizer: String,
    /// What the texts' tokens were multiplied by.
    pub factor: f64,
}

fn rule(view: &CountingView<'_>) -> Result<TextRule, String> {
    let patterns = view
        .patterns()
        .map(|(pattern, units)| TextPattern::new(pattern, units).map_err(|e| e.to_string()));
    Ok(TextRule {
        ratios: view.ratios(),
        patterns: patterns.collect::<Result<_, _>>()?,
        factor: view.factor(),
        minimum: view.minimum(),
        maximum: view.maximum(),
        most_per_byte: view.most_per_byte(),
    })
}

fn formula(view: &CountingView<'_>) -> Formula {
    Formula {
        parts: view.parts(),
        image: match view.images() {
            Images::Fixed { tokens } => ImagePrice::Fixed { tokens },
            Images::Tiles { base, per_tile } => ImagePrice::Tiles { base, per_tile },
            Images::Patches { cap, percent } => ImagePrice::Patches { cap, percent },
            Images::Areas { cap } => ImagePrice::Areas { cap },
            Images::Crops { per_crop, most } => ImagePrice::Crops { per_crop, most },
        },
        audio_second: view.audio_second(),
    }
}

/// Counts by a model's rule.
///
/// # Errors
/// Why it cannot be counted: the body is not what the API takes, or a tokenizer's file cannot be read.
pub fn count(view: &CountingView<'_>, tokenizers: &Tokenizers, what: What<'_>) -> Result<Counted, String> {
    let rule = rule(view)?;
    let file = match view.vocabulary() {
        Some((file, _)) => Some(tokenizers.bytes(view.tokenizer(), file)?),
        None => None,
    };
    let vocabulary = match &file {
        _ if rule.ratios.is_some() => None,
        Some(bytes) => Some(Vocabulary::from_bytes(bytes)),
        None => Some(builtin_by_name(view.tokenizer()).ok_or("there is no such tokenizer")?),
    };
    let mut engine = match vocabulary {
        Some(vocabulary) => Some(Counter::new(vocabulary.map_err(|e| e.to_string())?)),
        None => None,
    };
    let mut counter = ModelCounter::new(
        &rule,
        engine
            .as_mut()
            .map(|engine| engine as &mut dyn tollgate_meter::counting::Engine),
    );
    let mut counted = Counted {
        estimated: view.is_estimate(),
        rule: view.rule().to_owned(),
        version: format!("{:06x}", view.version()),
        tokenizer: view.tokenizer().to_owned(),
        wanted_tokenizer: view.wanted_tokenizer().to_owned(),
        factor: f64::from(view.factor()) / 1_000.0,
        ..Counted::default()
    };
    match what {
        What::Text(text) => {
            counted.text_tokens = counter.text(text);
            counted.tokens = counted.text_tokens;
            counted.bound = rule.most(text.len() as u64);
        }
        What::Request { api, body } => {
            let formula = formula(view);
            let mut facts = RequestFacts::new();
            scan(body, api, &[], &mut facts).map_err(|e| e.to_string())?;
            let input = count_input(body, api, &formula, &mut counter).map_err(|e| e.to_string())?;
            counted.bound = facts.input.bound(&formula, |bytes| rule.most(bytes));
            counted.text_tokens = counter.tokens(input.text_units);
            counted.beside_texts = input.beside_texts;
            counted.images = input.images;
            counted.tokens = input.tokens.min(counted.bound);
            counted.estimated |= input.estimated || input.hidden_input;
        }
    }
    Ok(counted)
}
