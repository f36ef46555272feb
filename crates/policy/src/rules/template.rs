//! Rule templates: placeholders in a rule's JSON.

use crate::{
    documents::{Entry, Rule, RuleTemplate},
    suggest,
};
use serde_json::{Map, Value};
use std::collections::BTreeSet;

/// A problem of a rule that names a template: path below the rule, reason, hint.
pub(crate) type Misuse = (String, String, Option<String>);

/// The parameters of a rule: its own values, else the template's defaults.
pub(crate) fn arguments(rule: &Rule, template: &RuleTemplate) -> Result<Map<String, Value>, Vec<Misuse>> {
    let mut misuses = Vec::new();
    for name in rule.with.keys() {
        if !template
            .parameters
            .iter()
            .any(|parameter| parameter.name == *name)
        {
            let known = template
                .parameters
                .iter()
                .map(|parameter| parameter.name.as_str());
            let reason = format!("template `{}` has no parameter `{name}`", template.name);
            misuses.push((format!("with.{name}"), reason, suggest::did_you_mean(name, known)));
        }
    }
    let mut arguments = Map::new();
    for parameter in &template.parameters {
        match rule.with.get(&parameter.name).or(parameter.default.as_ref()) {
            Some(value) => {
                arguments.insert(parameter.name.clone(), value.clone());
            }
            None => {
                let reason = format!(
                    "template `{}` needs the parameter `{}`",
                    template.name, parameter.name
                );
                misuses.push(("with".to_owned(), reason, None));
            }
        }
    }
    if misuses.is_empty() {
        Ok(arguments)
    } else {
        Err(misuses)
    }
}

/// `tree` with its placeholders filled in; unknown ones stay.
pub(crate) fn fill(tree: &Value, arguments: &Map<String, Value>) -> Value {
    match tree {
        Value::String(text) => fill_text(text, arguments),
        Value::Array(list) => Value::Array(list.iter().map(|item| fill(item, arguments)).collect()),
        Value::Object(map) => Value::Object(
            map.iter()
                .map(|(key, value)| (key.clone(), fill(value, arguments)))
                .collect(),
        ),
        other => other.clone(),
    }
}

fn fill_text(text: &str, arguments: &Map<String, Value>) -> Value {
    let whole = text.strip_prefix("${").and_then(|rest| rest.strip_suffix('}'));
    if let Some(value) = whole.and_then(|name| arguments.get(name)) {
        return value.clone();
    }
    let mut filled = String::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once("${") {
        filled.push_str(before);
        match after
            .split_once('}')
            .and_then(|(name, tail)| Some((arguments.get(name)?, tail)))
        {
            Some((Value::String(value), tail)) => {
                filled.push_str(value);
                rest = tail;
            }
            Some((value, tail)) => {
                filled.push_str(&value.to_string());
                rest = tail;
            }
            None => {
                filled.push_str("${");
                rest = after;
            }
        }
    }
    filled.push_str(rest);
    Value::String(filled)
}

/// Placeholders that a template uses.
pub(crate) fn placeholders(template: &RuleTemplate) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    if let Some(when) = &template.when {
        collect(when, &mut names);
    }
    collect(&template.then, &mut names);
    names
}

fn collect(tree: &Value, names: &mut BTreeSet<String>) {
    match tree {
        Value::String(text) => {
            for part in text.split("${").skip(1) {
                if let Some((name, _)) = part.split_once('}') {
                    names.insert(name.to_owned());
                }
            }
        }
        Value::Array(list) => list.iter().for_each(|item| collect(item, names)),
        Value::Object(map) => map.values().for_each(|value| collect(value, names)),
        _ => {}
    }
}

/// The template of that name.
pub(crate) fn find<'d>(templates: &'d [Entry<RuleTemplate>], name: &str) -> Option<&'d RuleTemplate> {
    templates
        .iter()
        .map(|entry| &entry.value)
        .find(|template| template.name == name)
}
