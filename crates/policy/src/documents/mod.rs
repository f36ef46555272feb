//! Configuration documents: one kind per file, as operators write them.

mod admin;
mod alerts;
mod channel;
mod counting;
mod endpoint;
mod experiment;
mod health;
mod limit;
mod model;
mod price;
mod provider;
mod relief;
mod route;
mod routing;
mod rule;
mod settings;

pub use crate::{
    cidr::Cidr,
    decode::Location,
    duration::Span,
    text::{Instant, Moment, Secret, Sha256Hex},
};
pub use admin::{Backup, Oidc, OidcRoles};
pub use alerts::{
    AlertDefaults, AlertReceiver, AlertRule, AlertRuleName, AlertRules, AlertSeverity, AlertThreshold,
    Alerts, EffectiveAlertRule, ReceiverKind, StoredSecret,
};
pub use channel::{AbortPolicy, Channel, ChannelKey, ModelPatterns, Template};
pub use counting::{Characters, CountedPattern, CountingRule, Images, Overheads};
pub use endpoint::Endpoint;
pub use experiment::{Experiment, Group};
pub use health::{HealthCheck, ProbeKind, ProbeMethod, ProbeScope, StatusRange};
pub use limit::{Algorithm, Enforcement, Limit, Metric, OnFull};
pub use model::{Deployment, Model, Timeouts};
pub use price::{Amount, Price};
pub use provider::{Connections, CredentialKind, Credentials, Key, Protocol, Provider, Tls, TlsVersion};
pub use relief::Relief;
pub use route::Route;
pub use routing::{Affinity, Balance, Breaker, Retry, Routing, SameSite, Session};
pub use rule::{Action, Condition, Deny, Operator, Parameter, Rule, RuleTemplate, Shadow, Then, ZonedHours};
pub use settings::{
    Api, Balancer, ChannelSource, Lease, LeasePolicy, Maintenance, NameResolution, Redis, RedisKind, Region,
    RequestLog, Retention, Settings, Testing, UnknownChannel,
};

use crate::{decode, problem::Problem, strict_json, suggest};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::{collections::BTreeSet, sync::Arc};

/// A kind of document. The file is `tollgate.<kind>.json` or `<kind>.json`; lists may be spread over shards,
/// `tollgate.<kind>.<shard>.json`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// Callers, their keys, permissions and limits.
    Channels,
    /// Public models and their deployments.
    Models,
    /// Endpoints and their credentials.
    Providers,
    /// Conditions and actions.
    Rules,
    /// What channels extend.
    Templates,
    /// Rules with parameters.
    RuleTemplates,
    /// Rules for counting tokens.
    Tokenizers,
    /// Everything that exists once.
    Settings,
}

impl Kind {
    /// Every kind.
    pub const ALL: [Kind; 8] = [
        Kind::Channels,
        Kind::Models,
        Kind::Providers,
        Kind::Rules,
        Kind::Templates,
        Kind::RuleTemplates,
        Kind::Tokenizers,
        Kind::Settings,
    ];

    /// The kind's name in file names and as the document's only key.
    pub const fn name(self) -> &'static str {
        match self {
            Kind::Channels => "channels",
            Kind::Models => "models",
            Kind::Providers => "providers",
            Kind::Rules => "rules",
            Kind::Templates => "templates",
            Kind::RuleTemplates => "rule_templates",
            Kind::Tokenizers => "tokenizers",
            Kind::Settings => "settings",
        }
    }

    /// Whether documents of this kind may hold secrets, which are sealed where they stand and shown to nobody.
    pub const fn holds_secrets(self) -> bool {
        matches!(self, Kind::Providers | Kind::Settings)
    }

    /// The kind with that name.
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.name() == name)
    }

    /// The kind of document in a file of that name (without folders).
    pub fn from_file_name(name: &str) -> Option<Self> {
        Self::from_name(stem(name)?)
    }
}

/// The part of a document's file name that names its kind.
fn stem(name: &str) -> Option<&str> {
    let name = name.strip_suffix(".json")?;
    let name = name.strip_prefix("tollgate.").unwrap_or(name);
    name.split('.').next()
}

/// Kinds that have a name already and will be read by later versions.
const LATER: [&str; 1] = ["instance"];

/// One entry of a document, and where it stands.
#[derive(Clone, Debug)]
pub struct Entry<T> {
    /// The entry.
    pub value: T,
    /// Where it was written.
    pub at: Location,
}

/// The documents of one configuration, decoded but not validated.
#[derive(Clone, Debug, Default)]
pub struct Documents {
    /// In the order of files and entries.
    pub channels: Vec<Entry<Channel>>,
    /// What channels extend.
    pub templates: Vec<Entry<Template>>,
    /// Public models.
    pub models: Vec<Entry<Model>>,
    /// Endpoints.
    pub providers: Vec<Entry<Provider>>,
    /// Rules, not ordered by priority yet.
    pub rules: Vec<Entry<Rule>>,
    /// Rules with parameters.
    pub rule_templates: Vec<Entry<RuleTemplate>>,
    /// Rules for counting tokens; the first that names a model counts.
    pub counting_rules: Vec<Entry<CountingRule>>,
    /// Settings, if a document names any.
    pub settings: Option<Entry<Settings>>,
    /// Kinds of which something could not be decoded: references to what is not there are no finding then.
    incomplete: BTreeSet<Kind>,
}

impl Documents {
    /// Decodes documents, given as file name (without folders) and content. Whatever can be decoded is in the result;
    /// everything else is a problem. A configuration with problems of severity error must not be compiled, and
    /// [`crate::compile()`] refuses it.
    pub fn parse(files: &[(String, &[u8])]) -> (Self, Vec<Problem>) {
        let mut documents = Self::default();
        let mut problems = Vec::new();
        for (name, bytes) in files {
            documents.parse_file(name, bytes, &mut problems);
        }
        (documents, problems)
    }

    /// Whether every entry of that kind could be decoded.
    pub fn is_complete(&self, kind: Kind) -> bool {
        !self.incomplete.contains(&kind)
    }

    /// Kinds of which something could not be decoded.
    pub fn incomplete(&self) -> impl Iterator<Item = Kind> + '_ {
        self.incomplete.iter().copied()
    }

    /// The settings, or their defaults.
    pub fn settings(&self) -> Settings {
        self.settings
            .as_ref()
            .map(|entry| entry.value.clone())
            .unwrap_or_default()
    }

    /// When limits that were topped up have their written maximum again, Unix milliseconds, in order.
    pub fn ends_of_relief(&self) -> Vec<u64> {
        let channels = self.channels.iter().flat_map(|entry| &entry.value.relief);
        let models = self.models.iter().flat_map(|entry| &entry.value.relief);
        let settings = self.settings.iter().flat_map(|entry| &entry.value.relief);
        let all = channels.chain(models).chain(settings);
        let mut ends: Vec<u64> = all
            .filter(|relief| relief.add > 0)
            .filter_map(|relief| relief.until)
            .map(|until| until.0)
            .collect();
        ends.sort_unstable();
        ends
    }

    fn parse_file(&mut self, name: &str, bytes: &[u8], problems: &mut Vec<Problem>) {
        let Some(kind) = Kind::from_file_name(name) else {
            problems.push(unknown_file(name));
            return;
        };
        let before = problems.len();
        let document: Arc<str> = name.into();
        self.parse_document(kind, &document, bytes, problems);
        if problems.iter().skip(before).any(Problem::is_error) {
            self.incomplete.insert(kind);
        }
    }

    fn parse_document(&mut self, kind: Kind, document: &Arc<str>, bytes: &[u8], problems: &mut Vec<Problem>) {
        let parsed = match strict_json::parse(bytes) {
            Ok(parsed) => parsed,
            Err(error) => {
                let place = format!("line {} column {}", error.line, error.column);
                problems.push(Problem::error(
                    &**document,
                    place,
                    format!("not JSON: {}", error.reason),
                ));
                return;
            }
        };
        for path in parsed.duplicates {
            problems.push(Problem::error(
                &**document,
                path,
                "the key stands twice in its object",
            ));
        }
        let Value::Object(mut top) = parsed.value else {
            problems.push(Problem::error(
                &**document,
                "",
                format!("expected an object with the key `{}`", kind.name()),
            ));
            return;
        };
        let content = top.remove(kind.name());
        for key in top.keys() {
            let hint = match Kind::from_name(key) {
                Some(other) => Some(format!(
                    "`{}` has its own file, `tollgate.{0}.json`",
                    other.name()
                )),
                None => suggest::did_you_mean(key, [kind.name()]),
            };
            problems.push(Problem::error(&**document, key, format!("unknown field `{key}`")).hint(hint));
        }
        let list = match (kind, content) {
            (_, None) => {
                problems.push(Problem::error(
                    &**document,
                    "",
                    format!("missing field `{}`", kind.name()),
                ));
                return;
            }
            (Kind::Settings, Some(content)) => return self.parse_settings(document, content, problems),
            (_, Some(Value::Array(list))) => list,
            (_, Some(_)) => {
                problems.push(Problem::error(&**document, kind.name(), "expected a list"));
                return;
            }
        };
        match kind {
            Kind::Channels => entries(&mut self.channels, kind, document, list, problems),
            Kind::Models => entries(&mut self.models, kind, document, list, problems),
            Kind::Providers => entries(&mut self.providers, kind, document, list, problems),
            Kind::Rules => entries(&mut self.rules, kind, document, list, problems),
            Kind::Templates => entries(&mut self.templates, kind, document, list, problems),
            Kind::RuleTemplates => entries(&mut self.rule_templates, kind, document, list, problems),
            Kind::Tokenizers => entries(&mut self.counting_rules, kind, document, list, problems),
            Kind::Settings => {}
        }
    }

    fn parse_settings(&mut self, document: &Arc<str>, content: Value, problems: &mut Vec<Problem>) {
        let mut at = Location::new(document, Kind::Settings, None);
        if let Some(other) = &self.settings {
            let reason = format!("settings stand in `{}` already", other.at.document);
            problems.push(at.error("", reason));
            return;
        }
        if let Some(value) = decode::entry(content, &mut at, problems) {
            self.settings = Some(Entry { value, at });
        }
    }
}

fn entries<T: DeserializeOwned>(
    into: &mut Vec<Entry<T>>,
    kind: Kind,
    document: &Arc<str>,
    list: Vec<Value>,
    problems: &mut Vec<Problem>,
) {
    into.reserve(list.len());
    for (index, tree) in (0_u32..).zip(list) {
        let mut at = Location::new(document, kind, Some(index));
        if let Some(value) = decode::entry(tree, &mut at, problems) {
            into.push(Entry { value, at });
        }
    }
}

fn unknown_file(name: &str) -> Problem {
    let stem = stem(name).unwrap_or_default();
    if stem == "alerts" {
        let reason = "not a document of a known kind; it is ignored";
        let hint = "alerts stand in the settings, as `alerts`";
        return Problem::warning(name, "", reason).hint(Some(hint.to_owned()));
    }
    if LATER.contains(&stem) {
        return Problem::warning(
            name,
            "",
            "documents of this kind are not supported yet; it is ignored",
        );
    }
    let hint = suggest::did_you_mean(stem, Kind::ALL.map(Kind::name));
    Problem::warning(name, "", "not a document of a known kind; it is ignored").hint(hint)
}
