//! What a channel comes to with its templates, and where each value was written: for people, not for compilation.

use crate::{
    decode::Location,
    documents::{AbortPolicy, Documents, Enforcement, Entry, Limit, ModelPatterns, Template},
    identity::{Owner, limit_shape},
};
use schemars::JsonSchema;
use serde::Serialize;

/// What a value was written in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// The channel itself.
    Channel,
    /// A template that it extends.
    Template,
    /// Nowhere: it is the default.
    Default,
    /// The settings.
    Settings,
}

/// Where a value was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Origin {
    /// What it was written in.
    pub kind: Source,
    /// Name of the template.
    pub name: Option<String>,
    /// The document; null for a default.
    pub document: Option<String>,
    /// The place in the document, such as `templates[0].limits[2]`; null for a default.
    pub path: Option<String>,
}

/// A value and where it was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Valued<T> {
    /// The value.
    pub value: T,
    /// Where it was written.
    pub origin: Origin,
}

/// A limit that applies to a channel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct OriginLimit {
    /// What it is called.
    pub name: String,
    /// Strict or soft, after all defaults.
    pub enforcement: Enforcement,
    /// Where it was written.
    pub origin: Origin,
    /// Inherited limits that it replaces, the nearest first.
    pub replaces: Vec<Origin>,
}

/// What a channel comes to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct ChannelOrigins {
    /// Its code.
    pub code: String,
    /// Templates that it extends, the nearest first.
    pub chain: Vec<String>,
    /// Whether it is served.
    pub enabled: bool,
    /// Models that may be called; null for all.
    pub allow: Valued<Option<Vec<String>>>,
    /// Models that may not be called.
    pub deny: Vec<Valued<String>>,
    /// Free labels.
    pub tags: Vec<Valued<String>>,
    /// What a client that goes away is charged.
    pub abort_policy: Valued<AbortPolicy>,
    /// Default for limits that do not say.
    pub enforcement: Valued<Enforcement>,
    /// Its limits.
    pub limits: Vec<OriginLimit>,
}

/// What a channel and each of its templates says.
struct Layer<'d> {
    kind: Source,
    name: Option<&'d str>,
    at: &'d Location,
    models: &'d ModelPatterns,
    limits: &'d [Limit],
    tags: &'d [String],
    abort_policy: Option<AbortPolicy>,
    enforcement: Option<Enforcement>,
}

impl Layer<'_> {
    fn origin(&self, path: &str) -> Origin {
        Origin {
            kind: self.kind,
            name: self.name.map(str::to_owned),
            document: Some(self.at.document.to_string()),
            path: Some(self.at.path(path)),
        }
    }
}

fn default_origin() -> Origin {
    Origin {
        kind: Source::Default,
        name: None,
        document: None,
        path: None,
    }
}

/// Templates from the nearest on; unknown names and cycles end the chain, as they do in validation.
fn chain<'d>(documents: &'d Documents, first: Option<&str>) -> Vec<&'d Entry<Template>> {
    let mut chain: Vec<&Entry<Template>> = Vec::new();
    let mut next = first;
    while let Some(name) = next {
        let found = documents.templates.iter().find(|t| t.value.name == name);
        let Some(found) = found.filter(|f| chain.iter().all(|seen| seen.value.name != f.value.name)) else {
            break;
        };
        chain.push(found);
        next = found.value.extends.as_deref();
    }
    chain
}

fn last_said<T>(
    layers: &[Layer<'_>],
    path: &str,
    said: impl Fn(&Layer<'_>) -> Option<T>,
    default: T,
) -> Valued<T> {
    for layer in layers.iter().rev() {
        if let Some(value) = said(layer) {
            return Valued {
                value,
                origin: layer.origin(path),
            };
        }
    }
    Valued {
        value: default,
        origin: default_origin(),
    }
}

fn gathered(layers: &[Layer<'_>], path: &str, of: impl Fn(&Layer<'_>) -> Vec<String>) -> Vec<Valued<String>> {
    let of_layer = |layer: &Layer<'_>| -> Vec<Valued<String>> {
        let origin = |index| layer.origin(&format!("{path}[{index}]"));
        let values = of(layer).into_iter().enumerate();
        values
            .map(|(index, value)| Valued {
                value,
                origin: origin(index),
            })
            .collect()
    };
    layers.iter().flat_map(of_layer).collect()
}

/// Limits, each with those it replaces; the order is that in which they are taken.
fn limits(layers: &[Layer<'_>], default: Enforcement) -> Vec<OriginLimit> {
    let mut found: Vec<(u64, &Limit, OriginLimit)> = Vec::new();
    for layer in layers {
        let inherited = found.len();
        for (index, limit) in layer.limits.iter().enumerate() {
            let shape = limit_shape(limit, Owner::Channel);
            let mut own = OriginLimit {
                name: limit.display_name(),
                enforcement: limit.enforcement.unwrap_or(default),
                origin: layer.origin(&format!("limits[{index}]")),
                replaces: Vec::new(),
            };
            let replaced = found
                .iter_mut()
                .take(inherited)
                .find(|(old, there, _)| *old == shape || (limit.name.is_some() && there.name == limit.name));
            match replaced {
                Some(old) => {
                    own.replaces.push(old.2.origin.clone());
                    own.replaces.append(&mut old.2.replaces);
                    *old = (shape, limit, own);
                }
                None => found.push((shape, limit, own)),
            }
        }
    }
    found.into_iter().map(|(_, _, limit)| limit).collect()
}

impl Documents {
    /// What the channel of that code comes to; `None` if there is none.
    pub fn channel_origins(&self, code: &str) -> Option<ChannelOrigins> {
        let entry = self.channels.iter().find(|c| c.value.code == code)?;
        let channel = &entry.value;
        let templates = chain(self, channel.extends.as_deref());
        let of_template = |t: &&'_ Entry<Template>| t.value.name.clone();
        let names = templates.iter().map(of_template).collect();
        let mut layers: Vec<Layer<'_>> = templates
            .iter()
            .rev()
            .map(|t| Layer {
                kind: Source::Template,
                name: Some(&t.value.name),
                at: &t.at,
                models: &t.value.models,
                limits: &t.value.limits,
                tags: &t.value.tags,
                abort_policy: t.value.abort_policy,
                enforcement: t.value.enforcement,
            })
            .collect();
        layers.push(Layer {
            kind: Source::Channel,
            name: None,
            at: &entry.at,
            models: &channel.models,
            limits: &channel.limits,
            tags: &channel.tags,
            abort_policy: channel.abort_policy,
            enforcement: channel.enforcement,
        });
        let enforcement = last_said(&layers, "enforcement", |l| l.enforcement, Enforcement::default());
        Some(ChannelOrigins {
            code: channel.code.clone(),
            chain: names,
            enabled: channel.enabled,
            allow: last_said(
                &layers,
                "models.allow",
                |l| l.models.allow.clone().map(Some),
                None,
            ),
            deny: gathered(&layers, "models.deny", |l| l.models.deny.clone()),
            tags: gathered(&layers, "tags", |l| l.tags.to_vec()),
            abort_policy: last_said(
                &layers,
                "abort_policy",
                |l| l.abort_policy,
                AbortPolicy::default(),
            ),
            limits: limits(&layers, enforcement.value),
            enforcement,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effective::Templates;

    const TEXT: &str = r#"{"templates": [
        {"name": "standard", "extends": "base", "models": {"deny": ["o1"]}, "tags": ["s"],
         "limits": [{"metric": "requests", "max": 50, "window": "1s"}, {"name": "in", "metric": "input_tokens", "max": 5, "window": "1h"}]},
        {"name": "base", "models": {"allow": ["gpt-*"], "deny": ["x"]}, "abort_policy": "reserved", "enforcement": "soft",
         "limits": [{"metric": "requests", "max": 10, "window": "1s"}, {"metric": "connections", "max": 3}]},
        {"name": "loop", "extends": "loop"}]}"#;
    const CHANNELS: &str = r#"{"channels": [
        {"code": "a", "extends": "standard", "enforcement": "strict", "tags": ["c"],
         "limits": [{"name": "in", "metric": "input_tokens", "max": 9, "window": "10m"}, {"metric": "requests", "max": 1, "window": "1s"}]},
        {"code": "b", "extends": "loop"}, {"code": "c"}]}"#;

    fn documents() -> Documents {
        let files = [
            ("templates.json".to_owned(), TEXT.as_bytes()),
            ("channels.json".to_owned(), CHANNELS.as_bytes()),
        ];
        Documents::parse(&files).0
    }

    #[test]
    fn every_value_says_where_it_was_written() {
        let documents = documents();
        let a = documents.channel_origins("a").unwrap();
        assert_eq!(a.chain, ["standard", "base"]);
        assert_eq!(a.allow.value.as_deref(), Some(&["gpt-*".to_owned()][..]));
        assert_eq!(a.allow.origin.path.as_deref(), Some("templates[1].models.allow"));
        let places = |list: &[Valued<String>]| -> Vec<String> {
            list.iter()
                .map(|v| format!("{} {}", v.value, v.origin.path.as_deref().unwrap()))
                .collect()
        };
        assert_eq!(
            places(&a.deny),
            ["x templates[1].models.deny[0]", "o1 templates[0].models.deny[0]"]
        );
        assert_eq!(
            places(&a.tags),
            ["s templates[0].tags[0]", "c channels[0].tags[0]"]
        );
        assert_eq!(
            (a.abort_policy.value, a.abort_policy.origin.name.as_deref()),
            (AbortPolicy::Reserved, Some("base"))
        );
        assert_eq!(
            (a.enforcement.value, a.enforcement.origin.kind),
            (Enforcement::Strict, Source::Channel)
        );
        let limits: Vec<String> = a
            .limits
            .iter()
            .map(|l| {
                let path = |o: &Origin| o.path.clone().unwrap();
                format!(
                    "{} {} over {:?}",
                    l.name,
                    path(&l.origin),
                    l.replaces.iter().map(path).collect::<Vec<_>>()
                )
            })
            .collect();
        assert_eq!(
            limits,
            [
                "requests/1s channels[0].limits[1] over [\"templates[0].limits[0]\", \"templates[1].limits[0]\"]",
                "connections templates[1].limits[1] over []",
                "in channels[0].limits[0] over [\"templates[0].limits[1]\"]",
            ]
        );
        assert_eq!(documents.channel_origins("b").unwrap().chain, ["loop"]);
        assert_eq!(
            documents.channel_origins("c").unwrap().enforcement.origin,
            default_origin()
        );
        assert!(documents.channel_origins("d").is_none());
    }

    /// What is shown is what is compiled.
    #[test]
    fn origins_agree_with_what_takes_effect() {
        let documents = documents();
        let templates = Templates::resolve(&documents, &mut Vec::new());
        for entry in &documents.channels {
            let real = templates.channel(entry);
            let told = documents.channel_origins(&entry.value.code).unwrap();
            let real_limits: Vec<_> = real
                .limits
                .iter()
                .map(|l| (l.limit.display_name(), l.enforcement, l.at.path(&l.path())))
                .collect();
            let told_limits: Vec<_> = told
                .limits
                .iter()
                .map(|l| (l.name.clone(), l.enforcement, l.origin.path.clone().unwrap()))
                .collect();
            assert_eq!(told_limits, real_limits, "{}", entry.value.code);
            assert_eq!(told.allow.value.as_deref(), real.allow);
            assert_eq!(
                told.deny.iter().map(|v| v.value.as_str()).collect::<Vec<_>>(),
                real.deny
            );
            assert_eq!(
                told.tags.iter().map(|v| v.value.as_str()).collect::<Vec<_>>(),
                real.tags
            );
            assert_eq!(told.abort_policy.value, real.abort_policy);
        }
    }
}
