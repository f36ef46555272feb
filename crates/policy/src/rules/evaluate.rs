//! What a request is asked, and what comes out.

use std::{borrow::Cow, net::IpAddr, sync::Arc};

/// A value from a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Value<'a> {
    /// JSON null.
    Null,
    /// JSON boolean.
    Bool(bool),
    /// JSON number.
    Number(f64),
    /// Text.
    String(Cow<'a, str>),
    /// A list or an object: exists, and equals nothing.
    Other,
}

/// What rules may ask about a request. Asked only if a rule needs it.
pub trait Facts {
    /// A header by its name in lower case; several of one name joined as the caller sees fit.
    fn header(&self, name: &str) -> Option<Cow<'_, str>>;
    /// A query parameter, decoded.
    fn query(&self, name: &str) -> Option<Cow<'_, str>>;
    /// A cookie.
    fn cookie(&self, name: &str) -> Option<Cow<'_, str>>;
    /// The body's field at that index of [`super::RuleSet::body_paths`].
    fn body(&self, path_index: usize) -> Option<Value<'_>>;
    /// The client's address, as far as proxies are trusted.
    fn client_ip(&self) -> Option<IpAddr>;
    /// The method, such as `POST`.
    fn method(&self) -> &str;
    /// The path without the query.
    fn path(&self) -> &str;
    /// The channel code.
    fn channel(&self) -> Option<&str>;
    /// The model as the client wrote it, or its canonical name: the caller's choice.
    fn model(&self) -> Option<&str>;
    /// Bytes of everything that the model reads: never fewer than its tokens.
    fn prompt_bytes(&self) -> u64;
    /// Now, in Unix seconds.
    fn now_unix(&self) -> i64;
}

/// Whether the request goes on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Decision {
    /// No rule ended the evaluation.
    #[default]
    Continue,
    /// A rule ended it and let the request pass. Permission and limits still apply.
    Allow {
        /// The rule's name.
        rule: Arc<str>,
    },
    /// A rule refused the request.
    Deny {
        /// The rule's name.
        rule: Arc<str>,
        /// HTTP status, 400..=599.
        status: u16,
        /// The error's code.
        code: Arc<str>,
        /// The error's message; may be empty.
        message: Arc<str>,
    },
}

/// What rules can do, a bit each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Deeds(pub u16);

impl Deeds {
    /// Refuses the request.
    pub const DENY: Deeds = Deeds(1);
    /// Lets it pass, whatever later rules say.
    pub const ALLOW: Deeds = Deeds(1 << 1);
    /// Makes it another channel's.
    pub const SET_CHANNEL: Deeds = Deeds(1 << 2);
    /// Sends it to another model.
    pub const SET_MODEL: Deeds = Deeds(1 << 3);
    /// Sends it to deployments of a version.
    pub const SET_VERSION: Deeds = Deeds(1 << 4);
    /// Sends it to a deployment.
    pub const SET_DEPLOYMENT: Deeds = Deeds(1 << 5);
    /// Caps its output.
    pub const CAP_MAX_TOKENS: Deeds = Deeds(1 << 6);
    /// Labels it.
    pub const TAG: Deeds = Deeds(1 << 7);

    /// Both.
    pub const fn and(self, other: Deeds) -> Deeds {
        Deeds(self.0 | other.0)
    }

    /// Whether any of these is among them.
    pub const fn has(self, any: Deeds) -> bool {
        self.0 & any.0 != 0
    }
}

/// What a rule in shadow mode would have done with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadowed {
    /// The rule's name.
    pub rule: Arc<str>,
    /// Each of its actions, such as `deny 400 max_tokens_exceeded`.
    pub actions: Arc<[Arc<str>]>,
    /// All of them.
    pub deeds: Deeds,
}

/// What the rules make of a request.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Whether it goes on.
    pub decision: Decision,
    /// It goes on as this channel.
    pub set_channel: Option<Arc<str>>,
    /// It goes on with this model.
    pub set_model: Option<Arc<str>>,
    /// It goes to deployments of this version.
    pub set_version: Option<Arc<str>>,
    /// It goes to this deployment, and with the model that it belongs to.
    pub set_deployment: Option<Arc<str>>,
    /// The most output tokens: the lowest of all caps.
    pub cap_max_tokens: Option<u64>,
    /// Labels, each once, in order.
    pub tags: Vec<Arc<str>>,
    /// Rules that matched, in order.
    pub matched: Vec<Arc<str>>,
    /// What rules in shadow mode would have done; each rule once.
    pub shadow: Vec<Shadowed>,
}

/// What became of one rule in an evaluation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleTrace {
    /// The rule's name.
    pub rule: Arc<str>,
    /// Whether its condition held; `None` if an earlier rule had ended the evaluation.
    pub matched: Option<bool>,
    /// The condition that did not hold, such as `body.max_tokens gt 4096`; below a `not`, one that did.
    pub failed: Option<String>,
}
