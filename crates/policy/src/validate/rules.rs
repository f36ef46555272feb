//! Rules and rule templates.

use super::{Context, Named, Path, check_name};
use crate::{
    decode,
    documents::{Condition, Entry, Kind, Location, Rule, RuleTemplate, Then},
    rules::{self, PlainRule, template},
    suggest,
};
use serde_json::Value;
use std::collections::HashSet;

const MAX_RULES: usize = 10_000;

/// Checks all rules; the enabled ones come back with their templates filled in.
pub(super) fn check(context: &mut Context<'_>) -> Vec<PlainRule> {
    let documents = context.documents;
    check_templates(context);
    context.unique(documents.rules.iter().map(|entry| Named {
        key: entry.value.name.as_str(),
        at: &entry.at,
        path: Path::Field("name"),
        what: "a rule of this name",
    }));
    if let Some(entry) = documents.rules.get(MAX_RULES) {
        context.error(&entry.at, "", format!("more than {MAX_RULES} rules"));
    }
    let mut plain = Vec::new();
    for entry in &documents.rules {
        check_name(context, &entry.at, "name", &entry.value.name, 128);
        let Some(rule) = expand(context, entry) else {
            continue;
        };
        let from_template = entry.value.template.as_deref();
        let mut found = Vec::new();
        rules::check(&rule, &mut |path, reason, hint| {
            found.push(match from_template {
                Some(name) => entry
                    .at
                    .error("with", format!("in template `{name}`: {path}: {reason}"))
                    .hint(hint),
                None => entry.at.error(path, reason).hint(hint),
            });
        });
        context.problems.append(&mut found);
        check_targets(
            context,
            &entry.at,
            &rule.then,
            if from_template.is_some() { "with" } else { "then" },
        );
        if entry.value.enabled {
            plain.push(rule);
        }
    }
    plain
}

/// The rule with its template filled in.
fn expand(context: &mut Context<'_>, entry: &Entry<Rule>) -> Option<PlainRule> {
    let Entry { value: rule, at } = entry;
    let Some(name) = rule.template.as_deref() else {
        if !rule.with.is_empty() {
            context.error(at, "with", "is for rules that name a template");
        }
        let Some(then) = rule.then.clone() else {
            context.error(at, "then", "missing: what does the rule do?");
            return None;
        };
        return Some(PlainRule {
            name: rule.name.clone(),
            priority: rule.priority,
            when: rule.when.clone(),
            then,
        });
    };
    for (path, given) in [("when", rule.when.is_some()), ("then", rule.then.is_some())] {
        if given {
            context.error(
                at,
                path,
                "a rule that names a template says neither `when` nor `then`",
            );
        }
    }
    let Some(found) = template::find(&context.documents.rule_templates, name) else {
        if context.documents.is_complete(Kind::RuleTemplates) {
            let known = context
                .documents
                .rule_templates
                .iter()
                .map(|entry| entry.value.name.as_str());
            let hint = suggest::did_you_mean(name, known);
            context.problems.push(
                at.error("template", format!("unknown rule template `{name}`"))
                    .hint(hint),
            );
        }
        return None;
    };
    let arguments = match template::arguments(rule, found) {
        Ok(arguments) => arguments,
        Err(misuses) => {
            for (path, reason, hint) in misuses {
                context.problems.push(at.error(&path, reason).hint(hint));
            }
            return None;
        }
    };
    let when = match &found.when {
        None => None,
        Some(tree) => Some(part::<Condition>(
            context,
            at,
            name,
            template::fill(tree, &arguments),
        )?),
    };
    let then = part::<Then>(context, at, name, template::fill(&found.then, &arguments))?;
    Some(PlainRule {
        name: rule.name.clone(),
        priority: rule.priority,
        when,
        then,
    })
}

/// A filled-in part of a template. Its problems are the rule's.
fn part<T: serde::de::DeserializeOwned>(
    context: &mut Context<'_>,
    at: &Location,
    template: &str,
    tree: Value,
) -> Option<T> {
    let mut inner = Location::new(&at.document, Kind::RuleTemplates, None);
    let mut problems = Vec::new();
    let value = decode::entry(tree, &mut inner, &mut problems);
    let clean = problems.is_empty();
    for problem in problems {
        let path = problem
            .path
            .trim_start_matches(Kind::RuleTemplates.name())
            .trim_start_matches('.')
            .to_owned();
        let place = if path.is_empty() {
            String::new()
        } else {
            format!("{path}: ")
        };
        let reason = format!("in template `{template}`: {place}{}", problem.reason);
        context.problems.push(at.error("with", reason).hint(problem.hint));
    }
    value.filter(|_| clean)
}

fn check_templates(context: &mut Context<'_>) {
    let documents = context.documents;
    context.unique(documents.rule_templates.iter().map(|entry| Named {
        key: entry.value.name.as_str(),
        at: &entry.at,
        path: Path::Field("name"),
        what: "a rule template of this name",
    }));
    for Entry {
        value: rule_template,
        at,
    } in &documents.rule_templates
    {
        check_name(context, at, "name", &rule_template.name, 64);
        check_parameters(context, at, rule_template);
    }
}

fn check_parameters(context: &mut Context<'_>, at: &Location, rule_template: &RuleTemplate) {
    let used = template::placeholders(rule_template);
    let mut declared = HashSet::new();
    for (index, parameter) in rule_template.parameters.iter().enumerate() {
        let path = format!("parameters[{index}].name");
        let name = parameter.name.as_str();
        let valid = !name.is_empty()
            && name.len() <= 64
            && name
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !valid {
            context.error(at, &path, "must be 1..=64 letters, digits or underscores");
        } else if !declared.insert(name) {
            context.error(at, &path, format!("parameter `{name}` stands twice"));
        } else if !used.contains(name) {
            context.warning(at, &path, format!("`${{{name}}}` stands nowhere in the template"));
        }
    }
    for name in used.iter().filter(|name| !declared.contains(name.as_str())) {
        let hint = suggest::did_you_mean(name, declared.iter().copied());
        let problem = at
            .error("parameters", format!("`${{{name}}}` is used but not declared"))
            .hint(hint);
        context.problems.push(problem);
    }
}

/// Channels and models that actions name must exist.
fn check_targets(context: &mut Context<'_>, at: &Location, then: &Then, path: &str) {
    for action in &then.0 {
        if let Some(code) = action.set_channel.as_deref()
            && !context.channels.contains(code)
            && context.documents.is_complete(Kind::Channels)
        {
            let hint = suggest::did_you_mean(code, context.channels.iter().copied());
            let problem = at
                .error(
                    &format!("{path}.set_channel"),
                    format!("unknown channel `{code}`"),
                )
                .hint(hint);
            context.problems.push(problem);
        }
        if let Some(model) = action.set_model.as_deref() {
            context.expect_model(at, format!("{path}.set_model"), model);
        }
        if let Some(id) = action.set_deployment.as_deref() {
            super::routing::expect_deployment(context, at, format!("{path}.set_deployment"), id);
        }
        if let Some(shadow) = &action.shadow {
            check_targets(context, at, shadow, path);
        }
    }
}
