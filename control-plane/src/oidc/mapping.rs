//! From what a provider says of somebody to an account: its name and its roles.

use serde_json::Value;
use tollgate_policy::documents::Oidc;
use tollgate_policy::glob_matches;

/// Somebody whom the provider knows, as an account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Issuer and subject: what stays the same if the name changes.
    pub subject: String,
    /// Name of the account.
    pub name: String,
    /// What people call its owner.
    pub display_name: String,
    /// Names of its roles.
    pub roles: Vec<String>,
    /// Globs of the channels that it may see and change.
    pub channels: Vec<String>,
}

/// Why somebody gets no account.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NotMapped {
    /// The token has no such claim, or it is no text.
    Unnamed(String),
    /// No mapping gives them a role.
    NoRole,
}

impl std::fmt::Display for NotMapped {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            NotMapped::Unnamed(claim) => write!(f, "the provider says no `{claim}`"),
            NotMapped::NoRole => f.write_str("none of the provider's claims gives a role here"),
        }
    }
}

/// A claim by its path: `groups`, `realm_access.roles`. A name that has dots in it is found too.
fn claim<'c>(claims: &'c Value, path: &str) -> Option<&'c Value> {
    claims
        .get(path)
        .or_else(|| path.split('.').try_fold(claims, |value, step| value.get(step)))
}

/// Whether a claim, or an element of it, is what is asked for.
fn matches(value: &Value, glob: &str) -> bool {
    match value {
        Value::String(text) => glob_matches(glob, text),
        Value::Bool(is) => glob == if *is { "true" } else { "false" },
        Value::Array(list) => list.iter().any(|one| matches(one, glob)),
        _ => false,
    }
}

/// The account of whoever has these claims.
///
/// # Errors
/// See [`NotMapped`].
pub fn identity(settings: &Oidc, claims: &Value) -> Result<Identity, NotMapped> {
    let text = |path: &str| claim(claims, path).and_then(Value::as_str);
    let unnamed = |path: &str| NotMapped::Unnamed(path.to_owned());
    let subject = text("sub").ok_or_else(|| unnamed("sub"))?;
    let name = text(&settings.name_claim).ok_or_else(|| unnamed(&settings.name_claim))?;
    // An address that nobody has verified can be anybody's.
    if settings.name_claim == "email" && claim(claims, "email_verified") == Some(&Value::Bool(false)) {
        return Err(unnamed("email_verified"));
    }
    let (mut roles, mut channels) = (Vec::new(), Vec::new());
    for rule in &settings.roles {
        if !claim(claims, &rule.claim).is_some_and(|value| matches(value, &rule.value)) {
            continue;
        }
        roles.extend(rule.roles.iter().cloned());
        channels.extend(rule.channels.iter().cloned());
    }
    for list in [&mut roles, &mut channels] {
        list.sort();
        list.dedup();
    }
    if roles.is_empty() {
        return Err(NotMapped::NoRole);
    }
    Ok(Identity {
        subject: format!("{}#{subject}", settings.issuer),
        name: name.to_ascii_lowercase(),
        display_name: text("name")
            .unwrap_or_default()
            .chars()
            .filter(|c| !c.is_control())
            .take(64)
            .collect(),
        roles,
        channels,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn settings() -> Oidc {
        serde_json::from_value(json!({
            "issuer": "https://id.example", "client_id": "tollgate", "redirect_url": "https://t.example/api/v1/oidc/callback",
            "roles": [
                {"value": "tollgate-admins", "roles": ["admin"]},
                {"value": "team-*", "roles": ["operator"], "channels": ["team-*"]},
                {"claim": "realm_access.roles", "value": "auditor", "roles": ["auditor"]},
            ],
        }))
        .unwrap()
    }

    #[test]
    fn every_mapping_that_matches_counts() {
        let claims = json!({"sub": "7", "preferred_username": "Mia", "name": "Mia M.",
            "groups": ["team-a", "tollgate-admins"], "realm_access": {"roles": ["auditor", "x"]}});
        let mia = identity(&settings(), &claims).unwrap();
        assert_eq!(
            (mia.subject.as_str(), mia.name.as_str()),
            ("https://id.example#7", "mia")
        );
        assert_eq!(mia.roles, ["admin", "auditor", "operator"]);
        assert_eq!(mia.channels, ["*", "team-*"]);
        let claims = json!({"sub": "8", "preferred_username": "bo", "groups": "team-b"});
        let bo = identity(&settings(), &claims).unwrap();
        assert_eq!(
            (bo.roles, bo.channels),
            (vec!["operator".to_owned()], vec!["team-*".to_owned()])
        );
    }

    #[test]
    fn nobody_gets_in_without_a_name_or_a_role() {
        let none = json!({"sub": "7", "preferred_username": "mia", "groups": ["other"]});
        assert_eq!(identity(&settings(), &none), Err(NotMapped::NoRole));
        let none = json!({"sub": "7", "preferred_username": "mia", "groups": {"tollgate-admins": true}});
        assert_eq!(identity(&settings(), &none), Err(NotMapped::NoRole));
        let unnamed = json!({"sub": "7", "groups": ["tollgate-admins"]});
        assert_eq!(
            identity(&settings(), &unnamed),
            Err(NotMapped::Unnamed("preferred_username".into()))
        );
        let mut by_email = settings();
        by_email.name_claim = "email".into();
        let claims = json!({"sub": "7", "email": "a@b.example", "email_verified": false, "groups": ["tollgate-admins"]});
        assert!(identity(&by_email, &claims).is_err());
    }
}
