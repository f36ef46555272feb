//! Channels and templates.

use super::{Context, Named, Path, check_name, limits, relief, routing};
use crate::{
    documents::{Entry, Location, ModelPatterns, Template},
    effective::{EffectiveChannel, Templates, unknown_template},
    glob::is_glob,
    identity::Owner,
};
use std::collections::HashSet;

/// Longest list of globs, tags or keys.
const MAX_LIST: usize = 1_024;

pub(super) fn check_templates(context: &mut Context<'_>) {
    let documents = context.documents;
    context.unique(documents.templates.iter().map(|entry| Named {
        key: entry.value.name.as_str(),
        at: &entry.at,
        path: Path::Field("name"),
        what: "a template of this name",
    }));
    for entry in &documents.templates {
        let Entry { value: template, at } = entry;
        let Template {
            name,
            models,
            limits,
            routes,
            tags,
            ..
        } = template;
        check_name(context, at, "name", name, 64);
        check_patterns(context, at, models);
        check_tags(context, at, tags);
        limits::check_list(context, at, limits, Owner::Channel);
        routing::check_routes(context, at, routes);
    }
}

pub(super) fn check<'d>(context: &mut Context<'d>, templates: &Templates<'d>) -> Vec<EffectiveChannel<'d>> {
    let documents = context.documents;
    context.unique(documents.channels.iter().map(|entry| Named {
        key: entry.value.code.as_str(),
        at: &entry.at,
        path: Path::Field("code"),
        what: "this channel code",
    }));
    context.unique(documents.channels.iter().flat_map(|entry| {
        entry.value.keys.iter().enumerate().map(|(index, key)| Named {
            key: key.sha256,
            at: &entry.at,
            path: Path::Of("keys", index, "sha256"),
            what: "this key",
        })
    }));
    let known: HashSet<&str> = documents
        .templates
        .iter()
        .map(|entry| entry.value.name.as_str())
        .collect();
    let mut channels = Vec::with_capacity(documents.channels.len());
    for entry in &documents.channels {
        let Entry { value: channel, at } = entry;
        check_name(context, at, "code", &channel.code, 64);
        if channel.name.len() > 256 || channel.name.chars().any(char::is_control) {
            context.error(at, "name", "must be at most 256 bytes without control characters");
        }
        if let Some(name) = channel.extends.as_deref().filter(|name| !known.contains(name)) {
            context.problems.extend(unknown_template(documents, at, name));
        }
        check_keys(context, entry);
        check_patterns(context, at, &channel.models);
        check_tags(context, at, &channel.tags);
        limits::check_list(context, at, &channel.limits, Owner::Channel);
        routing::check_routes(context, at, &channel.routes);
        let effective = templates.channel(entry);
        limits::check_effective_names(context, &effective);
        relief::check(
            context,
            at,
            &channel.relief,
            effective.limits.iter().map(|own| own.limit),
        );
        channels.push(effective);
    }
    channels
}

fn check_keys(context: &mut Context<'_>, entry: &Entry<crate::documents::Channel>) {
    let Entry { value: channel, at } = entry;
    if channel.trusted {
        context.warning(
            at,
            "trusted",
            "whoever sends this channel code is this channel; keys are not asked for",
        );
    } else if channel.keys.is_empty() {
        let hint =
            Some("add a key, or say `\"trusted\": true` if the network in front vouches for it".to_owned());
        let problem = at
            .error("keys", "a channel without keys must be marked as trusted")
            .hint(hint);
        context.problems.push(problem);
    }
    if channel.keys.len() > MAX_LIST {
        context.error(at, "keys", format!("at most {MAX_LIST} keys"));
    }
    let mut ids = HashSet::with_capacity(channel.keys.len());
    for (index, key) in channel.keys.iter().enumerate() {
        check_name(context, at, format_args!("keys[{index}].id"), &key.id, 64);
        if !ids.insert(key.id.as_str()) {
            context.error(
                at,
                format_args!("keys[{index}].id"),
                format!("the channel has two keys `{}`", key.id),
            );
        }
    }
}

fn check_tags(context: &mut Context<'_>, at: &Location, tags: &[String]) {
    if tags.len() > MAX_LIST {
        context.error(at, "tags", format!("at most {MAX_LIST} tags"));
    }
    for (index, tag) in tags.iter().enumerate() {
        check_name(context, at, format_args!("tags[{index}]"), tag, 64);
    }
}

fn check_patterns(context: &mut Context<'_>, at: &Location, models: &ModelPatterns) {
    let lists = [
        ("models.allow", models.allow.as_deref().unwrap_or_default()),
        ("models.deny", &models.deny),
    ];
    for (name, patterns) in lists {
        if patterns.len() > MAX_LIST {
            context.error(at, name, format!("at most {MAX_LIST} globs"));
        }
        for (index, pattern) in patterns.iter().enumerate() {
            let path = Path::Item(name, index);
            check_name(context, at, path, pattern, 128);
            if is_glob(pattern) {
                if !pattern.trim_matches('*').is_empty() && !context.any_model_matches(pattern) {
                    context.warning(at, path, format!("no model matches `{pattern}`"));
                }
            } else if let Some(mut problem) = context.unknown_model(at, path, pattern) {
                // A model may well be removed before each channel forgets it; a denied alias would not deny, though.
                if !context.aliases.contains_key(pattern.as_str()) {
                    problem.severity = crate::Severity::Warning;
                }
                context.problems.push(problem);
            }
        }
    }
}
