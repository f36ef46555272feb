//! Accounts: as they are stored, as they are shown, as they are asked for.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::password;

/// Longest list of globs or roles.
const MAX_LIST: usize = 64;

/// An account as it is stored.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Account {
    /// What its owner signs in with.
    pub name: String,
    /// What people call its owner.
    #[serde(default)]
    pub display_name: String,
    /// argon2id, in PHC form; `None` for an account that signs in elsewhere.
    pub password: Option<String>,
    /// Issuer and subject at an identity provider; `None` for an account of ours.
    #[serde(default)]
    pub subject: Option<String>,
    /// Names of its roles.
    pub roles: Vec<String>,
    /// Globs of the channels that it may see and change.
    pub channels: Vec<String>,
    /// Whether it may sign in.
    pub enabled: bool,
    /// Whether somebody else knows its password.
    #[serde(default)]
    pub must_change_password: bool,
    /// Sessions of an earlier epoch have ended.
    #[serde(default)]
    pub epoch: u64,
    /// Unix milliseconds.
    pub created_at_ms: u64,
    /// Unix milliseconds.
    pub changed_at_ms: u64,
    /// Unix milliseconds.
    #[serde(default)]
    pub last_login_ms: Option<u64>,
}

/// An account as it is shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
#[schemars(rename = "Account")]
pub struct AccountView {
    /// What its owner signs in with.
    pub name: String,
    /// What people call its owner.
    pub display_name: String,
    /// Names of its roles.
    pub roles: Vec<String>,
    /// Globs of the channels that it may see and change.
    pub channels: Vec<String>,
    /// Whether it may sign in.
    pub enabled: bool,
    /// Whether somebody else knows its password.
    pub must_change_password: bool,
    /// Whether it signs in at an identity provider, which then says what its roles and channels are.
    pub external: bool,
    /// Unix milliseconds.
    pub created_at_ms: u64,
    /// Unix milliseconds.
    pub changed_at_ms: u64,
    /// Unix milliseconds; null if it has never signed in.
    pub last_login_ms: Option<u64>,
    /// Its version.
    pub etag: String,
}

impl Account {
    /// The account as it is shown.
    pub fn view(&self, version: u64) -> AccountView {
        AccountView {
            name: self.name.clone(),
            display_name: self.display_name.clone(),
            roles: self.roles.clone(),
            channels: self.channels.clone(),
            enabled: self.enabled,
            must_change_password: self.must_change_password,
            external: self.subject.is_some(),
            created_at_ms: self.created_at_ms,
            changed_at_ms: self.changed_at_ms,
            last_login_ms: self.last_login_ms,
            etag: version.to_string(),
        }
    }

    pub(super) fn is_admin(&self) -> bool {
        self.enabled && self.roles.iter().any(|r| r == "admin") && self.channels.iter().any(|c| c == "*")
    }
}

/// An account that is asked for.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct NewAccount {
    /// 1 to 64 of a-z, 0-9, `.`, `_`, `-`, `@`.
    pub name: String,
    /// What people call its owner.
    #[serde(default)]
    pub display_name: String,
    /// Names of roles.
    pub roles: Vec<String>,
    /// Globs of the channels that it may see and change; all by default.
    pub channels: Option<Vec<String>>,
    /// Whether it may sign in; yes by default.
    pub enabled: Option<bool>,
    /// Its password; one is made up if there is none.
    pub password: Option<String>,
}

/// What is to change of an account.
#[derive(Clone, Debug, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AccountChange {
    /// What people call its owner.
    pub display_name: Option<String>,
    /// Names of roles.
    pub roles: Option<Vec<String>>,
    /// Globs of the channels that it may see and change.
    pub channels: Option<Vec<String>>,
    /// Whether it may sign in.
    pub enabled: Option<bool>,
}

/// Something in what was sent is wrong: the field, and what.
pub(super) type Wrong = (String, String);

/// The name as it is stored; names differ by more than case.
pub(super) fn name(text: &str) -> Result<String, Wrong> {
    let name = text.to_ascii_lowercase();
    let plain =
        |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'_' | b'-' | b'@');
    if name.is_empty() || name.len() > 64 || !name.bytes().all(plain) {
        let reason = "must be 1 to 64 of the letters a-z, digits, `.`, `_`, `-` and `@`";
        return Err(("name".into(), reason.into()));
    }
    Ok(name)
}

/// What is wrong with fields that may be chosen freely.
pub(super) fn faults(
    display_name: Option<&str>,
    channels: Option<&[String]>,
    new_password: Option<(&str, &str)>,
) -> Vec<Wrong> {
    let mut faults = Vec::new();
    if display_name.is_some_and(|d| d.len() > 256 || d.chars().any(char::is_control)) {
        let reason = "must be at most 256 bytes without control characters";
        faults.push(("display_name".into(), reason.into()));
    }
    if let Some(globs) = channels {
        if globs.is_empty() || globs.len() > MAX_LIST {
            faults.push((
                "channels".into(),
                "must be 1 to 64 globs; `*` is every channel".into(),
            ));
        }
        for (index, glob) in globs.iter().enumerate() {
            if glob.is_empty() || glob.len() > 64 {
                faults.push((format!("channels[{index}]"), "must be 1 to 64 bytes".into()));
            }
        }
    }
    if let Some((text, name)) = new_password
        && let Some(reason) = password::fault(text, name)
    {
        faults.push(("password".into(), reason.into()));
    }
    faults
}

/// What is wrong with a list of roles, given those that exist.
pub(super) fn role_faults(roles: &[String], exists: impl Fn(&str) -> bool) -> Vec<Wrong> {
    let mut faults = Vec::new();
    if roles.is_empty() || roles.len() > MAX_LIST {
        faults.push(("roles".into(), "must be 1 to 64 names of roles".into()));
    }
    for (index, role) in roles.iter().enumerate() {
        if !exists(role) {
            faults.push((format!("roles[{index}]"), "there is no such role".into()));
        }
    }
    faults
}
