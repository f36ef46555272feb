//! Providers: endpoints, credentials, TLS.

use super::{HealthCheck, channel::yes};
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

/// What proves to a provider that we may call it. Exactly one of `key`, `encrypted`, `key_ref`, unless `type` is `none`.
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
}

impl Credentials {
    /// Where the credential comes from; `None` if there is none.
    pub fn source(&self) -> Option<SecretRef<'_>> {
        let encrypted = self
            .encrypted
            .as_ref()
            .map(|text| SecretRef::Encrypted(text.expose()));
        let plain = self.key.as_ref().map(|text| SecretRef::Plain(text.expose()));
        encrypted
            .or(plain)
            .or(self.key_ref.as_deref().map(SecretRef::Reference))
    }
}

/// TLS towards a provider whose base URL is `https`.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
pub struct Tls {
    /// Whether the certificate is verified.
    pub verify: bool,
    /// The name asked for and verified; the base URL's host by default.
    pub server_name: Option<String>,
    /// File with the certificates to trust; the system's by default.
    pub ca_file: Option<String>,
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            verify: true,
            server_name: None,
            ca_file: None,
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
    /// The Host header, if it is not the base URL's host.
    pub host_header: Option<String>,
    /// How its health is probed.
    pub health_check: Option<HealthCheck>,
    /// A disabled provider gets no requests.
    #[serde(default = "yes")]
    pub enabled: bool,
}
