//! Rules for counting.

use super::{Context, Named, Path, check_name};
use crate::{
    counting::ONE,
    documents::{CountingRule, Entry, Images, Location},
    rules,
};

const MAX_PATTERNS: usize = 32;
const MAX_TOKENS: u64 = 1 << 40;
/// Tokens of a part, a tile or a pattern.
const MAX_COST: u32 = 1 << 20;

pub(super) fn check(context: &mut Context<'_>) {
    let documents = context.documents;
    context.unique(documents.counting_rules.iter().map(|entry| Named {
        key: entry.value.name.as_str(),
        at: &entry.at,
        path: Path::Field("name"),
        what: "a counting rule of this name",
    }));
    for entry in &documents.counting_rules {
        let Entry { value: rule, at } = entry;
        check_name(context, at, "name", &rule.name, 64);
        check_models(context, at, rule);
        check_numbers(context, at, rule);
        check_patterns(context, at, rule);
        if let Some(name) = &rule.tokenizer {
            check_tokenizer(context, at, name);
            if rule.characters.is_some() {
                context.error(at, "characters", "either a tokenizer or ratios, not both");
            }
        }
    }
    for entry in &documents.models {
        if let Some(name) = &entry.value.tokenizer {
            check_tokenizer(context, &entry.at, name);
        }
    }
}

fn check_models(context: &mut Context<'_>, at: &Location, rule: &CountingRule) {
    if rule.models.is_empty() || rule.models.len() > 1_024 {
        context.error(at, "models", "needs 1..=1024 names or globs");
    }
    for (index, pattern) in rule.models.iter().enumerate() {
        if !context.any_model_matches(pattern) {
            context.warning(
                at,
                format_args!("models[{index}]"),
                format!("no model matches `{pattern}`"),
            );
        }
    }
}

/// A tokenizer's name is part of file names.
fn check_tokenizer(context: &mut Context<'_>, at: &Location, name: &str) {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.');
    if name.is_empty() || name.len() > 64 || name.starts_with('.') || !name.bytes().all(plain) {
        let reason = "must be 1..=64 letters, digits, `_`, `-` and `.`, and not begin with `.`";
        context.error(at, "tokenizer", reason);
    }
}

fn check_numbers(context: &mut Context<'_>, at: &Location, rule: &CountingRule) {
    if let Some(ratios) = rule.characters {
        for (name, ratio) in [
            ("letter", ratios.letter),
            ("cjk", ratios.cjk),
            ("digit", ratios.digit),
            ("space", ratios.space),
            ("punctuation", ratios.punctuation),
            ("other", ratios.other),
        ] {
            if !(0.0..=100.0).contains(&ratio) {
                context.error(at, format_args!("characters.{name}"), "must be 0..=100");
            }
        }
    }
    if rule
        .factor
        .is_some_and(|factor| !(1.0 / ONE..=100.0).contains(&factor))
    {
        context.error(at, "factor", "must be 0.001..=100");
    }
    if rule.minimum > MAX_TOKENS {
        context.error(at, "minimum", format!("must be at most {MAX_TOKENS}"));
    }
    if rule
        .maximum
        .is_some_and(|most| most == 0 || most < rule.minimum || most > MAX_TOKENS)
    {
        context.error(
            at,
            "maximum",
            format!("must be 1..={MAX_TOKENS} and not below `minimum`"),
        );
    }
    let own = &rule.overheads;
    for (name, figure) in [
        ("request", own.request),
        ("message", own.message),
        ("name", own.name),
        ("tools", own.tools),
        ("tool", own.tool),
        ("schema_key", own.schema_key),
        ("schema_value", own.schema_value),
        ("json_value", own.json_value),
        ("audio_second", own.audio_second),
    ] {
        if figure.is_some_and(|figure| figure > MAX_COST) {
            context.error(
                at,
                format_args!("overheads.{name}"),
                format!("must be at most {MAX_COST}"),
            );
        }
    }
    let costs = match rule.images {
        None => [0; 2],
        Some(Images::Fixed { tokens }) => [tokens, 0],
        Some(Images::Tiles { base, per_tile }) => [base, per_tile],
        Some(Images::Patches { cap, percent }) => [cap, percent],
        Some(Images::Areas { cap }) => [cap, 0],
        Some(Images::Crops { per_crop, most }) => [per_crop, most.max(1)],
    };
    if costs.iter().any(|cost| *cost > MAX_COST) {
        context.error(at, "images", format!("no figure may exceed {MAX_COST}"));
    }
}

fn check_patterns(context: &mut Context<'_>, at: &Location, rule: &CountingRule) {
    if rule.patterns.len() > MAX_PATTERNS {
        context.error(at, "patterns", format!("at most {MAX_PATTERNS} patterns"));
    }
    for (index, counted) in rule.patterns.iter().enumerate() {
        let path = format!("patterns[{index}]");
        if let Err(reason) = rules::regex(&counted.pattern) {
            context.error(at, format_args!("{path}.pattern"), reason);
        } else if shortest_match(&counted.pattern) == 0 {
            context.error(at, format_args!("{path}.pattern"), "matches the empty text");
        }
        if !(0.0..=f64::from(MAX_COST)).contains(&counted.tokens) {
            context.error(
                at,
                format_args!("{path}.tokens"),
                format!("must be 0..={MAX_COST}"),
            );
        }
    }
}

/// Bytes of the shortest text that a pattern matches.
pub(crate) fn shortest_match(pattern: &str) -> usize {
    regex_syntax::parse(pattern)
        .ok()
        .and_then(|tree| tree.properties().minimum_len())
        .unwrap_or(0)
}
