//! Whoever makes a request, and what they may do.

use tollgate_policy::glob_matches;

use super::{Action, Permissions, Resource};

/// What a request presents.
#[derive(Clone, Copy, Debug)]
pub enum Credentials<'a> {
    /// `Authorization: Bearer`.
    Bearer(&'a str),
    /// The session's cookie.
    Session(&'a str),
}

/// How somebody proved who they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Via {
    /// The token of the state folder: whoever can read that folder owns the daemon anyway.
    BreakGlass,
    /// An API token, by its id.
    Token(String),
    /// A browser's session.
    Session {
        /// What a changing request must repeat in a header.
        csrf: String,
        /// When it ends, Unix milliseconds.
        expires_at_ms: u64,
        /// Key of its record.
        key: String,
    },
}

impl Via {
    /// Its name in the API and the audit log.
    pub fn name(&self) -> &'static str {
        match self {
            Via::BreakGlass => "break_glass",
            Via::Token(_) => "token",
            Via::Session { .. } => "session",
        }
    }
}

/// Somebody who has proved who they are.
#[derive(Clone, Debug)]
pub struct Principal {
    /// Name of the account; `root` for the break-glass token.
    pub name: String,
    /// What people call them.
    pub display_name: String,
    /// How they proved it.
    pub via: Via,
    /// Names of their roles.
    pub roles: Vec<String>,
    /// What they may do.
    pub permissions: Permissions,
    /// Lists of globs; a channel must match one of each list.
    pub channels: Vec<Vec<String>>,
    /// Whether somebody else knows their password.
    pub must_change_password: bool,
}

impl Principal {
    /// Whoever has the state folder's token.
    pub fn break_glass() -> Principal {
        Principal {
            name: "root".into(),
            display_name: String::new(),
            via: Via::BreakGlass,
            roles: vec!["admin".into()],
            permissions: Permissions::all(),
            channels: Vec::new(),
            must_change_password: false,
        }
    }

    /// Whether they may do this at all.
    pub fn may(&self, resource: Resource, action: Action) -> bool {
        self.permissions.allow(resource, action)
    }

    /// Whether there are channels that they may not see.
    pub fn is_limited(&self) -> bool {
        self.channels.iter().any(|globs| !globs.iter().any(|g| g == "*"))
    }

    /// Whether they may see this channel.
    pub fn sees(&self, channel: &str) -> bool {
        let matches = |globs: &Vec<String>| globs.iter().any(|g| glob_matches(g, channel));
        self.channels.iter().all(matches)
    }

    /// The globs as they are shown.
    pub fn shown_channels(&self) -> Vec<String> {
        match self.channels.as_slice() {
            [] => vec!["*".into()],
            [only] => only.clone(),
            // Of several lists the narrower one is shown; `sees` knows all.
            several => several
                .iter()
                .min_by_key(|l| l.iter().any(|g| g == "*"))
                .cloned()
                .unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_channel_must_match_every_list() {
        let mut somebody = Principal::break_glass();
        assert!(somebody.sees("x") && !somebody.is_limited());
        somebody.channels = vec![vec!["*".into()]];
        assert!(somebody.sees("x") && !somebody.is_limited());
        somebody.channels.push(vec!["wechat*".into(), "app1".into()]);
        assert!(somebody.is_limited());
        assert!(somebody.sees("wechat7") && somebody.sees("app1") && !somebody.sees("app2"));
        assert_eq!(somebody.shown_channels(), ["wechat*", "app1"]);
    }
}
