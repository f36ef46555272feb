//! Alerts: what is watched, and who is told.

use super::{Span, channel::yes};
use crate::text::{Secret, SecretRef};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// How bad it is.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
)]
#[serde(rename_all = "snake_case")]
pub enum AlertSeverity {
    /// Good to know.
    #[default]
    Info,
    /// Look at it today.
    Warning,
    /// Look at it now.
    Critical,
}

impl AlertSeverity {
    /// Its name in documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Info => "info",
            Self::Warning => "warning",
            Self::Critical => "critical",
        }
    }
}

/// In which form a receiver is told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum ReceiverKind {
    /// Our own JSON, signed if there is a secret.
    #[default]
    Webhook,
    /// An incoming webhook of Slack, and of what is compatible with it.
    Slack,
    /// A robot of DingTalk; the secret is the one for its signature.
    Dingtalk,
    /// A custom bot of Feishu or Lark; the secret is the one for its signature.
    Feishu,
    /// A group robot of WeCom.
    Wecom,
}

impl ReceiverKind {
    /// Its name in documents.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Webhook => "webhook",
            Self::Slack => "slack",
            Self::Dingtalk => "dingtalk",
            Self::Feishu => "feishu",
            Self::Wecom => "wecom",
        }
    }
}

/// A secret of a receiver. Exactly one of the three.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StoredSecret {
    /// The secret in the clear; the daemon replaces it by `encrypted`.
    pub key: Option<Secret>,
    /// The secret, encrypted by the daemon.
    pub encrypted: Option<Secret>,
    /// Name of the credential with it: a file in the daemon's credential folder.
    pub key_ref: Option<String>,
}

impl StoredSecret {
    /// Where it comes from; `None` unless exactly one of the three says it.
    pub fn source(&self) -> Option<SecretRef<'_>> {
        match (&self.key, &self.encrypted, &self.key_ref) {
            (Some(text), None, None) => Some(SecretRef::Plain(text.expose())),
            (None, Some(text), None) => Some(SecretRef::Encrypted(text.expose())),
            (None, None, Some(name)) => Some(SecretRef::Reference(name)),
            _ => None,
        }
    }
}

/// Somebody who is told.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AlertReceiver {
    /// Its name.
    pub name: String,
    /// In which form it is told.
    #[serde(default)]
    pub kind: ReceiverKind,
    /// Whether it is told at all.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Where it is, `https://…`; everybody who may read the settings sees it. Either this or `secret_url`.
    pub url: Option<String>,
    /// Where it is, for addresses that hold a token, as those of chats do.
    pub secret_url: Option<StoredSecret>,
    /// What messages are signed with (HMAC-SHA256).
    pub secret: Option<StoredSecret>,
    /// File with the certificates that the receiver's is checked against; the system's if not given.
    pub ca_file: Option<String>,
    /// The least severity that it is told of.
    #[serde(default)]
    pub min_severity: AlertSeverity,
    /// The rules that it is told of; all if there are none.
    #[serde(default)]
    pub rules: Vec<AlertRuleName>,
    /// Whether it is told when something is over.
    #[serde(default = "yes")]
    pub resolved: bool,
}

/// What is different of a rule from what the program brings.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct AlertRule {
    /// Whether it is watched.
    pub enabled: Option<bool>,
    /// From where on it is one; in the rule's unit, for those that have one.
    pub threshold: Option<f64>,
    /// How long it must be so before anybody is told, 0..=1d.
    #[serde(rename = "for")]
    pub lasting: Option<Span>,
    /// How long it must be over before it counts as over, 0..=1d.
    pub clear_after: Option<Span>,
    /// How bad it is.
    pub severity: Option<AlertSeverity>,
}

/// What a rule's values are measured in, and where they may begin to matter.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AlertThreshold {
    /// `percent`, `days` or `count`.
    pub unit: &'static str,
    /// If nothing else is said.
    pub default: f64,
    /// The least that may be said.
    pub least: f64,
    /// The most that may be said.
    pub most: f64,
    /// Whether values below it matter, not those above.
    pub below: bool,
}

/// A rule as the program brings it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct AlertDefaults {
    /// `None` for what is so or not.
    pub threshold: Option<AlertThreshold>,
    /// See [`AlertRule::lasting`], milliseconds.
    pub lasting_ms: u64,
    /// See [`AlertRule::clear_after`], milliseconds.
    pub clear_after_ms: u64,
    /// How bad it is.
    pub severity: AlertSeverity,
    /// Whether each instance watches itself; if not, one instance watches for all.
    pub own: bool,
}

const fn above(unit: &'static str, default: f64, least: f64, most: f64) -> Option<AlertThreshold> {
    Some(AlertThreshold {
        unit,
        default,
        least,
        most,
        below: false,
    })
}

const fn below(unit: &'static str, default: f64, least: f64, most: f64) -> Option<AlertThreshold> {
    Some(AlertThreshold {
        unit,
        default,
        least,
        most,
        below: true,
    })
}

const fn rule(
    own: bool,
    severity: AlertSeverity,
    (lasting_s, clear_after_s): (u64, u64),
    threshold: Option<AlertThreshold>,
) -> AlertDefaults {
    AlertDefaults {
        threshold,
        lasting_ms: lasting_s * 1_000,
        clear_after_ms: clear_after_s * 1_000,
        severity,
        own,
    }
}

macro_rules! rules {
    ($($(#[$doc:meta])* $variant:ident $name:ident = $default:expr;)+) => {
        /// What is watched.
        #[derive(
            Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema,
        )]
        #[serde(rename_all = "snake_case")]
        pub enum AlertRuleName {
            $($(#[$doc])* $variant,)+
        }

        impl AlertRuleName {
            /// All rules.
            pub const ALL: &'static [AlertRuleName] = &[$(AlertRuleName::$variant,)+];

            /// Its name in documents.
            pub const fn name(self) -> &'static str {
                match self {
                    $(AlertRuleName::$variant => stringify!($name),)+
                }
            }

            /// As the program brings it.
            pub const fn defaults(self) -> AlertDefaults {
                match self {
                    $(AlertRuleName::$variant => $default,)+
                }
            }
        }

        /// What is different of the rules from what the program brings.
        #[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, JsonSchema)]
        #[serde(deny_unknown_fields, default)]
        pub struct AlertRules {
            $($(#[$doc])* pub $name: AlertRule,)+
        }

        impl AlertRules {
            /// What is said of a rule.
            pub const fn of(&self, name: AlertRuleName) -> &AlertRule {
                match name {
                    $(AlertRuleName::$variant => &self.$name,)+
                }
            }
        }
    };
}

use AlertSeverity::{Critical, Warning};

rules! {
    /// None of a model's deployments gets requests.
    ModelDown model_down = rule(false, Critical, (10, 30), None);
    /// A deployment gets no requests: its breaker is open, or probes find it ill.
    DeploymentDown deployment_down = rule(false, Warning, (30, 60), None);
    /// So many of a model's requests fail at its providers or here, of at least 20 within five minutes.
    ErrorRate error_rate = rule(false, Warning, (60, 120), above("percent", 10.0, 0.1, 100.0));
    /// So many of a channel's requests are refused by limits, of at least 20 within five minutes.
    ChannelThrottled channel_throttled = rule(false, Warning, (120, 300), above("percent", 20.0, 0.1, 100.0));
    /// A channel has used so much of a limit of tokens.
    LimitNearlyUsed limit_nearly_used = rule(false, Warning, (60, 60), above("percent", 90.0, 1.0, 100.0));
    /// A channel has spent so much of a limit of money.
    BudgetNearlyUsed budget_nearly_used = rule(false, Warning, (0, 60), above("percent", 90.0, 1.0, 100.0));
    /// A channel's key expires within so many days.
    KeyExpiring key_expiring = rule(false, Warning, (0, 0), below("days", 7.0, 0.01, 365.0));
    /// A certificate that an instance shows or trusts expires within so many days.
    CertificateExpiring certificate_expiring = rule(true, Warning, (0, 0), below("days", 14.0, 0.01, 365.0));
    /// An instance has left the cluster without having been drained.
    InstanceLost instance_lost = rule(false, Critical, (15, 15), None);
    /// Redis does not answer an instance, or not as it should.
    RedisLost redis_lost = rule(true, Critical, (15, 15), None);
    /// Nacos does not answer an instance.
    NacosLost nacos_lost = rule(true, Warning, (30, 15), None);
    /// Documents are refused, or a worker does not take them up.
    ConfigurationNotTaken configuration_not_taken = rule(true, Warning, (30, 0), None);
    /// So little of the disk with the state folder is left.
    DiskLow disk_low = rule(true, Warning, (60, 300), below("percent", 10.0, 0.1, 90.0));
    /// The ledger cannot be written, or so much of the rings of events waits for it.
    LedgerBehind ledger_behind = rule(true, Critical, (30, 60), above("percent", 50.0, 1.0, 100.0));
    /// So many panics of workers were caught within ten minutes.
    WorkerPanics worker_panics = rule(true, Warning, (0, 0), above("count", 1.0, 1.0, 1_000_000.0));
}

/// A rule as it is in force.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct EffectiveAlertRule {
    /// Which.
    pub name: AlertRuleName,
    /// Whether it is watched.
    pub enabled: bool,
    /// `None` for what is so or not.
    pub threshold: Option<AlertThreshold>,
    /// From where on it is one; 1 for what is so or not.
    pub value: f64,
    /// How long it must be so, milliseconds.
    pub lasting_ms: u64,
    /// How long it must be over, milliseconds.
    pub clear_after_ms: u64,
    /// How bad it is.
    pub severity: AlertSeverity,
}

/// What is watched, and who is told.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "AlertSettings")]
pub struct Alerts {
    /// Whether anything is watched.
    pub enabled: bool,
    /// Time after which receivers are told again of what lasts and nobody has acknowledged, 1m..=31d.
    pub repeat_interval: Span,
    /// Who is told; at most 20.
    pub receivers: Vec<AlertReceiver>,
    /// What is different of the rules from what the program brings.
    pub rules: AlertRules,
}

impl Default for Alerts {
    fn default() -> Self {
        Self {
            enabled: true,
            repeat_interval: Span::from_millis(4 * 3_600_000),
            receivers: Vec::new(),
            rules: AlertRules::default(),
        }
    }
}

impl Alerts {
    /// A rule as it is in force.
    pub fn rule(&self, name: AlertRuleName) -> EffectiveAlertRule {
        let (own, defaults) = (self.rules.of(name), name.defaults());
        let ms = |span: Option<Span>, default| span.map_or(default, Span::as_millis);
        EffectiveAlertRule {
            name,
            enabled: self.enabled && own.enabled.unwrap_or(true),
            threshold: defaults.threshold,
            value: defaults
                .threshold
                .map_or(1.0, |t| own.threshold.unwrap_or(t.default)),
            lasting_ms: ms(own.lasting, defaults.lasting_ms),
            clear_after_ms: ms(own.clear_after, defaults.clear_after_ms),
            severity: own.severity.unwrap_or(defaults.severity),
        }
    }
}
