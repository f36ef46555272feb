//! Settings of what is done beside serving requests: backups, and who signs in.

use super::Span;
use schemars::JsonSchema;
use serde::Deserialize;

/// Backups that an instance makes by itself, into `backups` of its state folder.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields, default)]
#[schemars(rename = "BackupSettings")]
pub struct Backup {
    /// Time between two of them, 1m..=366d.
    pub every: Span,
    /// How many are kept, 1..=1,000; the oldest go first.
    pub keep: u32,
}

impl Default for Backup {
    fn default() -> Self {
        Self {
            every: Span::from_millis(86_400_000),
            keep: 14,
        }
    }
}

/// Sign-in to the admin API at an identity provider (OpenID Connect).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Oidc {
    /// The provider, `https://…`, as it calls itself; what it is like is read from `/.well-known/openid-configuration` below.
    pub issuer: String,
    /// What this gateway is called there.
    pub client_id: String,
    /// Name of the credential with the client's secret: a file in the daemon's credential folder; a public client without it.
    pub client_secret_ref: Option<String>,
    /// Where browsers come back to: `/api/v1/oidc/callback` of this API, as they reach it.
    pub redirect_url: String,
    /// What the page that asks calls it.
    #[serde(default = "label")]
    pub label: String,
    /// What is asked for beside `openid`.
    #[serde(default = "scopes")]
    pub scopes: Vec<String>,
    /// The claim that names the account.
    #[serde(default = "name_claim")]
    pub name_claim: String,
    /// Who gets which roles. All that match count; without one nobody is signed in.
    #[serde(default)]
    pub roles: Vec<OidcRoles>,
    /// File with the certificates that the provider's is checked against; the system's if not given.
    pub ca_file: Option<String>,
}

/// Roles of whoever has a claim.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OidcRoles {
    /// The claim, a text or a list of texts; a path such as `realm_access.roles`.
    #[serde(default = "groups")]
    pub claim: String,
    /// What it, or one of the list, must be; a glob.
    pub value: String,
    /// Names of roles.
    pub roles: Vec<String>,
    /// Globs of the channels that they may see and change.
    #[serde(default = "all")]
    pub channels: Vec<String>,
}

fn label() -> String {
    "Single sign-on".to_owned()
}

fn scopes() -> Vec<String> {
    vec!["profile".to_owned(), "email".to_owned()]
}

fn name_claim() -> String {
    "preferred_username".to_owned()
}

fn groups() -> String {
    "groups".to_owned()
}

fn all() -> Vec<String> {
    vec!["*".to_owned()]
}
