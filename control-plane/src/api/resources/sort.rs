//! The sorts of entries: where they stand, what they are known by, and by what they are looked for.

use tollgate_policy::Kind;

use crate::accounts::Resource;

/// What an entry can be looked for by, beside its id and name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::api) enum Facet {
    /// A field that is a text.
    Field(&'static str),
    /// Each text of a list.
    Each(&'static str),
    /// A field of each object of a list.
    OfEach(&'static str, &'static str),
}

/// A sort of entries.
#[derive(Clone, Copy, Debug)]
pub(in crate::api) struct Sort {
    /// Of which documents.
    pub kind: Kind,
    /// What it is to roles.
    pub resource: Resource,
    /// The field that it is known by.
    pub id: &'static str,
    /// What one of them is called.
    pub one: &'static str,
    /// Query parameters that it can be looked for by.
    pub facets: &'static [(&'static str, Facet)],
}

impl Sort {
    /// Channels.
    pub const CHANNELS: Sort = Sort {
        kind: Kind::Channels,
        resource: Resource::Channels,
        id: "code",
        one: "channel",
        facets: &[("extends", Facet::Field("extends")), ("tag", Facet::Each("tags"))],
    };
    /// Templates of channels.
    pub const TEMPLATES: Sort = Sort {
        kind: Kind::Templates,
        resource: Resource::Templates,
        id: "name",
        one: "template",
        facets: &[("extends", Facet::Field("extends")), ("tag", Facet::Each("tags"))],
    };
    /// Models.
    pub const MODELS: Sort = Sort {
        kind: Kind::Models,
        resource: Resource::Models,
        id: "name",
        one: "model",
        facets: &[("provider", Facet::OfEach("deployments", "provider"))],
    };
    /// Providers.
    pub const PROVIDERS: Sort = Sort {
        kind: Kind::Providers,
        resource: Resource::Providers,
        id: "id",
        one: "provider",
        facets: &[("protocol", Facet::Field("protocol"))],
    };
    /// Rules.
    pub const RULES: Sort = Sort {
        kind: Kind::Rules,
        resource: Resource::Rules,
        id: "name",
        one: "rule",
        facets: &[("template", Facet::Field("template"))],
    };
    /// Rules with parameters.
    pub const RULE_TEMPLATES: Sort = Sort {
        kind: Kind::RuleTemplates,
        resource: Resource::RuleTemplates,
        id: "name",
        one: "rule template",
        facets: &[],
    };
    /// Rules for counting.
    pub const COUNTING_RULES: Sort = Sort {
        kind: Kind::Tokenizers,
        resource: Resource::CountingRules,
        id: "name",
        one: "counting rule",
        facets: &[],
    };

    /// The settings, of which there is one.
    pub const SETTINGS: Sort = Sort {
        kind: Kind::Settings,
        resource: Resource::Settings,
        id: "",
        one: "settings",
        facets: &[],
    };

    /// Whether there is one only, which is known by no field.
    pub fn is_single(&self) -> bool {
        self.id.is_empty()
    }

    /// Whether limited accounts see some of them only.
    pub fn is_limited(&self) -> bool {
        self.kind == Kind::Channels
    }
}
