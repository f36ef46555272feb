//! Providers: endpoints, credentials, TLS.

use super::{HealthCheck, Span, channel::yes};
use crate::text::{Secret, SecretRef};
use schemars::JsonSchema;
use serde::Deserialize;

/// The API that a provider speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Protocol {
    /// OpenAI's and whatever is compatible with it.
    Openai,
    /// Anthropic's messages.
    Anthropic,
    /// Google's generateContent.
    Gemini,
    /// Anything else: proxied, usage as far as it can be found.
    Other,
}

/// Which header carries a provider's credential.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum CredentialKind {
    /// None is sent.
    #[default]
    None,
    /// `Authorization: Bearer …`.
    Bearer,
    /// `x-api-key: …`.
    XApiKey,
    /// A header of the given name.
    Header,
}

/// What proves to a provider that we may call it. Exactly one of `key`, `encrypted`, `key_ref`, `keys`, unless `type` is `none`.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Credentials {
    /// Which header carries it.
    #[serde(rename = "type")]
    pub kind: CredentialKind,
    /// The header's name, if `type` is `header`.
    pub name: Option<String>,
    /// The credential in the clear; the daemon replaces it by `encrypted`.
    pub key: Option<Secret>,
    /// The credential, encrypted by the daemon.
    pub encrypted: Option<Secret>,
    /// The name under which the daemon holds the credential.
    pub key_ref: Option<String>,
    /// Several credentials, used in turn; one that the provider refuses (401, 403) or that is used up (429) rests while the
    /// others go on.
    #[serde(default)]
    pub keys: Vec<Key>,
}

/// One of several credentials of a provider. Exactly one of `key`, `encrypted`, `key_ref`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// What it is called in the API, in metrics and in logs; unique within the provider.
    pub id: String,
    /// The credential in the clear; the daemon replaces it by `encrypted`.
    pub key: Option<Secret>,
    /// The credential, encrypted by the daemon.
    pub encrypted: Option<Secret>,
    /// The name under which the daemon holds the credential.
    pub key_ref: Option<String>,
    /// Its share of the requests among the provider's keys, 1..=1,000; 1 by default.
    #[serde(default = "one")]
    pub weight: u32,
}

fn one() -> u32 {
    1
}

fn source<'a>(
    encrypted: Option<&'a Secret>,
    plain: Option<&'a Secret>,
    named: Option<&'a str>,
) -> Option<SecretRef<'a>> {
    encrypted
        .map(|text| SecretRef::Encrypted(text.expose()))
        .or(plain.map(|text| SecretRef::Plain(text.expose())))
        .or(named.map(SecretRef::Reference))
}

impl Key {
    /// Where the credential comes from; `None` if nothing says.
    pub fn source(&self) -> Option<SecretRef<'_>> {
        source(
            self.encrypted.as_ref(),
            self.key.as_ref(),
            self.key_ref.as_deref(),
        )
    }
}

impl Credentials {
    /// Where the credentials come from, with the id and the weight of each: a single one has no id.
    pub fn sources(&self) -> impl Iterator<Item = (&str, u32, SecretRef<'_>)> {
        let single = source(
            self.encrypted.as_ref(),
            self.key.as_ref(),
            self.key_ref.as_deref(),
        );
        let several = self
            .keys
            .iter()
            .filter_map(|key| Some((key.id.as_str(), key.weight, key.source()?)));
        single.map(|source| ("", 1, source)).into_iter().chain(several)
    }

    /// The names under which the daemon holds them.
    pub fn references(&self) -> impl Iterator<Item = &str> {
        let several = self.keys.iter().filter_map(|key| key.key_ref.as_deref());
        self.key_ref.as_deref().into_iter().chain(several)
    }
}

/// The oldest version of TLS that is spoken with a provider.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum TlsVersion {
    /// TLS 1.2 (RFC 5246).
    #[default]
    #[serde(rename = "1.2")]
    V1_2,
    /// TLS 1.3 (RFC 8446).
    #[serde(rename = "1.3")]
    V1_3,
}

/// TLS towards a provider whose base URL is `https`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Whether the certificate is verified.
    pub verify: bool,
    /// The name asked for and verified; the base URL's host by default.
    pub server_name: Option<String>,
    /// File with the certificates to trust, in PEM, and no others; the system's by default. The daemon reads it, at most
    /// 1 MiB, and again when it changes.
    pub ca_file: Option<String>,
    /// The oldest version that is spoken.
    pub min_version: TlsVersion,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            verify: true,
            server_name: None,
            ca_file: None,
            min_version: TlsVersion::default(),
        }
    }
}

/// Connections to a provider that are kept for further requests.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Connections {
    /// Idle ones that each worker keeps for each deployment and credential, 0..=65,536; 0 keeps none.
    pub max_idle: u32,
    /// How long one stays idle before it is closed, 1s..=1h. Less than the provider's own time spares requests that meet a
    /// closing connection.
    pub idle_timeout: Span,
    /// Requests over one connection before it is renewed, 1..=1,000,000.
    pub max_requests: u32,
}

impl Default for Connections {
    fn default() -> Self {
        Self {
            max_idle: 256,
            idle_timeout: Span::from_millis(60_000),
            max_requests: 1_000,
        }
    }
}

/// An endpoint that serves models.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Provider {
    /// What deployments call it.
    pub id: String,
    /// The API it speaks.
    pub protocol: Protocol,
    /// `http://host[:port][/prefix]` or `https://…`. A prefix whose last segment is a version (`/v1`, `/api/paas/v4`) takes
    /// the place of the client's `/v1`, as in the SDKs' base URLs; any other is put before the client's path.
    pub base_url: String,
    /// What proves to it that we may call it.
    #[serde(default)]
    pub credentials: Credentials,
    /// TLS, if the base URL is `https`.
    #[serde(default)]
    pub tls: Tls,
    /// Connections that are kept for further requests.
    #[serde(default)]
    pub connections: Connections,
    /// The Host header, if it is not the base URL's host.
    pub host_header: Option<String>,
    /// How its health is probed.
    pub health_check: Option<HealthCheck>,
    /// A disabled provider gets no requests.
    #[serde(default = "yes")]
    pub enabled: bool,
}
