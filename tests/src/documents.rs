//! Configuration documents for tests: one provider that is the mock, and what a test adds.

use crate::site::Site;
use serde_json::{Value, json};

/// The credential that goes to the mock. It must never come back to a client.
pub const PROVIDER_KEY: &str = "sk-provider-0123456789-do-not-show";

/// Documents under construction, in the shape of the files.
#[derive(Clone, Debug, Default)]
pub struct Documents {
    channels: Vec<Value>,
    models: Vec<Value>,
    providers: Vec<Value>,
    rules: Vec<Value>,
    templates: Vec<Value>,
    rule_templates: Vec<Value>,
    tokenizers: Vec<Value>,
    settings: serde_json::Map<String, Value>,
}

impl Documents {
    /// No channels, no models; the smallest sensible region, so that many instances fit into a machine's memory.
    pub fn new() -> Self {
        Self::default().setting(
            "region",
            json!({ "counters": 8192, "inflight": 16384, "ring": 16384, "usage": 1024, "workers": 32 }),
        )
    }

    /// Adds a channel.
    #[must_use]
    pub fn channel(mut self, channel: Value) -> Self {
        self.channels.push(channel);
        self
    }

    /// Adds a trusted channel with limits.
    #[must_use]
    pub fn limited(self, code: &str, limits: Value) -> Self {
        self.channel(json!({ "code": code, "trusted": true, "limits": limits }))
    }

    /// Adds a model with one deployment: this model name at the provider `mock`.
    #[must_use]
    pub fn model(self, name: &str, upstream_model: &str) -> Self {
        self.model_value(json!({
            "name": name, "tokenizer": "o200k_base",
            "deployments": [{ "provider": "mock", "upstream_model": upstream_model }],
        }))
    }

    /// Adds any model.
    #[must_use]
    pub fn model_value(mut self, model: Value) -> Self {
        self.models.push(model);
        self
    }

    /// Adds a provider.
    #[must_use]
    pub fn provider(mut self, provider: Value) -> Self {
        self.providers.push(provider);
        self
    }

    /// Adds an OpenAI-like provider with [`PROVIDER_KEY`].
    #[must_use]
    pub fn openai(self, id: &str, url: &str) -> Self {
        self.provider(json!({
            "id": id, "protocol": "openai", "base_url": url,
            "credentials": { "type": "bearer", "key": PROVIDER_KEY },
        }))
    }

    /// Adds a provider that takes every API as it comes, as the mock does, with [`PROVIDER_KEY`].
    #[must_use]
    pub fn any(self, id: &str, url: &str) -> Self {
        self.provider(json!({
            "id": id, "protocol": "other", "base_url": url,
            "credentials": { "type": "bearer", "key": PROVIDER_KEY },
        }))
    }

    /// Adds a rule.
    #[must_use]
    pub fn rule(mut self, rule: Value) -> Self {
        self.rules.push(rule);
        self
    }

    /// Adds a channel template.
    #[must_use]
    pub fn template(mut self, template: Value) -> Self {
        self.templates.push(template);
        self
    }

    /// Adds a rule template.
    #[must_use]
    pub fn rule_template(mut self, template: Value) -> Self {
        self.rule_templates.push(template);
        self
    }

    /// Adds a counting rule.
    #[must_use]
    pub fn counting(mut self, rule: Value) -> Self {
        self.tokenizers.push(rule);
        self
    }

    /// Sets a setting.
    #[must_use]
    pub fn setting(mut self, name: &str, value: Value) -> Self {
        self.settings.insert(name.to_owned(), value);
        self
    }

    /// Those documents that have something in them, by kind.
    pub fn all(&self) -> Vec<(&'static str, Value)> {
        let lists = [
            ("providers", &self.providers),
            ("models", &self.models),
            ("templates", &self.templates),
            ("rule_templates", &self.rule_templates),
            ("channels", &self.channels),
            ("rules", &self.rules),
            ("tokenizers", &self.tokenizers),
        ];
        let lists = lists.into_iter().filter(|(_, list)| !list.is_empty());
        let mut all: Vec<_> = lists.map(|(kind, list)| (kind, json!({ kind: list }))).collect();
        if !self.settings.is_empty() {
            all.push(("settings", json!({ "settings": self.settings })));
        }
        all
    }

    /// Writes those documents that have something in them.
    pub fn write(&self, site: &Site) {
        for (kind, document) in self.all() {
            site.write(kind, &document);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_documents_with_content_are_written() {
        let site = Site::new();
        Documents::new()
            .limited("a", json!([]))
            .model("m", "mock")
            .openai("mock", "http://127.0.0.1:1")
            .write(&site);
        let mut names: Vec<_> = std::fs::read_dir(site.config())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let kinds = ["channels", "models", "providers", "settings"];
        assert_eq!(names, kinds.map(|kind| format!("tollgate.{kind}.json")));
    }
}
