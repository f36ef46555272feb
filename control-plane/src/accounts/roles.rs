//! Roles: which actions on which resources.

use std::collections::{BTreeMap, BTreeSet};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

macro_rules! named {
    ($(#[$outer:meta])* $type:ident as $schema:literal { $($(#[$inner:meta])* $variant:ident = $name:literal,)+ }) => {
        $(#[$outer])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
        #[schemars(rename = $schema)]
        pub enum $type {
            $($(#[$inner])* #[serde(rename = $name)] $variant,)+
        }

        impl $type {
            /// All of them.
            pub const ALL: &[$type] = &[$($type::$variant,)+];

            /// Its name in the API.
            pub const fn name(self) -> &'static str {
                match self {
                    $($type::$variant => $name,)+
                }
            }

            /// The one with that name.
            pub fn from_name(name: &str) -> Option<$type> {
                Self::ALL.iter().copied().find(|one| one.name() == name)
            }
        }
    };
}

named! {
    /// What can be acted on.
    Resource as "Resource" {
        /// Channels and their keys.
        Channels = "channels",
        /// What channels extend.
        Templates = "templates",
        /// Models and their deployments in the configuration.
        Models = "models",
        /// Providers.
        Providers = "providers",
        /// Rules.
        Rules = "rules",
        /// Rules with parameters.
        RuleTemplates = "rule_templates",
        /// Rules for counting tokens.
        CountingRules = "counting_rules",
        /// Settings.
        Settings = "settings",
        /// Whole documents.
        Documents = "documents",
        /// Usage of the past.
        Usage = "usage",
        /// The request log and requests in flight.
        Requests = "requests",
        /// Limits as they stand.
        Limits = "limits",
        /// Deployments as they stand.
        Deployments = "deployments",
        /// Instances.
        Instance = "instance",
        /// Alerts, silences, and who is told.
        Alerts = "alerts",
        /// Dry runs.
        Explain = "explain",
        /// What is done in an emergency.
        Emergency = "emergency",
        /// Accounts.
        Accounts = "accounts",
        /// Roles.
        Roles = "roles",
        /// API tokens of other accounts.
        Tokens = "tokens",
        /// The audit log.
        Audit = "audit",
        /// Backups.
        Backup = "backup",
    }
}

named! {
    /// What can be done.
    Action as "PermittedAction" {
        /// Look.
        Read = "read",
        /// Add.
        Create = "create",
        /// Change.
        Update = "update",
        /// Remove.
        Delete = "delete",
        /// Do.
        Execute = "execute",
    }
}

impl Resource {
    /// What the configuration consists of.
    const CONFIGURATION: [Resource; 9] = [
        Resource::Channels,
        Resource::Templates,
        Resource::Models,
        Resource::Providers,
        Resource::Rules,
        Resource::RuleTemplates,
        Resource::CountingRules,
        Resource::Settings,
        Resource::Documents,
    ];
}

/// Allowed actions by resource.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Permissions(BTreeMap<Resource, BTreeSet<Action>>);

/// Permissions as somebody wrote them: names, or `*` for all.
pub type Wanted = BTreeMap<String, Vec<String>>;

impl Permissions {
    /// Everything.
    pub fn all() -> Permissions {
        let all: BTreeSet<Action> = Action::ALL.iter().copied().collect();
        Permissions(Resource::ALL.iter().map(|r| (*r, all.clone())).collect())
    }

    /// Those that are meant.
    ///
    /// # Errors
    /// The field and what is wrong with it.
    pub fn parse(wanted: &Wanted) -> Result<Permissions, (String, String)> {
        let mut permissions = Permissions::default();
        for (resource, actions) in wanted {
            let field = format!("permissions.{resource}");
            let resources: Vec<Resource> = match resource.as_str() {
                "*" => Resource::ALL.to_vec(),
                name => vec![Resource::from_name(name).ok_or_else(|| {
                    let known: Vec<&str> = Resource::ALL.iter().map(|r| r.name()).collect();
                    (
                        field.clone(),
                        format!("unknown resource; there are {}", known.join(", ")),
                    )
                })?],
            };
            for action in actions {
                let actions: Vec<Action> = match action.as_str() {
                    "*" => Action::ALL.to_vec(),
                    name => vec![Action::from_name(name).ok_or_else(|| {
                        let known: Vec<&str> = Action::ALL.iter().map(|a| a.name()).collect();
                        (
                            field.clone(),
                            format!("unknown action; there are {}", known.join(", ")),
                        )
                    })?],
                };
                for resource in &resources {
                    permissions.add(*resource, &actions);
                }
            }
        }
        Ok(permissions)
    }

    fn add(&mut self, resource: Resource, actions: &[Action]) {
        self.0.entry(resource).or_default().extend(actions);
    }

    /// Adds what others allow.
    pub fn extend(&mut self, other: &Permissions) {
        for (resource, actions) in &other.0 {
            self.0.entry(*resource).or_default().extend(actions);
        }
    }

    /// What both allow.
    #[must_use]
    pub fn intersection(&self, other: &Permissions) -> Permissions {
        let both = self.0.iter().filter_map(|(resource, actions)| {
            let actions: BTreeSet<Action> = actions.intersection(other.0.get(resource)?).copied().collect();
            (!actions.is_empty()).then_some((*resource, actions))
        });
        Permissions(both.collect())
    }

    /// Whether they allow this.
    pub fn allow(&self, resource: Resource, action: Action) -> bool {
        self.0
            .get(&resource)
            .is_some_and(|actions| actions.contains(&action))
    }

    /// Whether they allow all that others do.
    pub fn cover(&self, other: &Permissions) -> bool {
        let mut wanted = other
            .0
            .iter()
            .flat_map(|(r, actions)| actions.iter().map(|a| (*r, *a)));
        wanted.all(|(resource, action)| self.allow(resource, action))
    }
}

/// A role that somebody made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Role {
    /// Its name.
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// What it allows.
    pub permissions: Permissions,
    /// Whether the program brings it and it cannot be changed.
    #[serde(default)]
    pub built_in: bool,
}

/// The role of that name that the program brings.
pub fn built_in(name: &str) -> Option<Role> {
    use Action::{Create, Delete, Execute, Read, Update};
    let mut permissions = Permissions::default();
    let description = match name {
        "admin" => {
            permissions = Permissions::all();
            "may do everything"
        }
        "operator" => {
            for resource in Resource::CONFIGURATION {
                permissions.add(resource, &[Read, Create, Update, Delete]);
            }
            for resource in RUNNING {
                permissions.add(resource, &[Read]);
            }
            permissions.add(Resource::Emergency, &[Execute]);
            permissions.add(Resource::Alerts, &[Create, Update, Delete, Execute]);
            "runs the gateway: changes the configuration and acts in an emergency, but has no say over accounts"
        }
        "auditor" => {
            for resource in Resource::ALL {
                permissions.add(*resource, &[Read]);
            }
            "sees everything, the audit log included, and changes nothing"
        }
        "viewer" => {
            for resource in Resource::CONFIGURATION.into_iter().chain(RUNNING) {
                permissions.add(resource, &[Read]);
            }
            "sees the configuration and how it is used"
        }
        _ => return None,
    };
    Some(Role {
        name: name.to_owned(),
        description: description.to_owned(),
        permissions,
        built_in: true,
    })
}

/// Names of the roles that the program brings.
pub(super) const BUILT_IN: [&str; 4] = ["admin", "auditor", "operator", "viewer"];

/// What a running gateway shows.
const RUNNING: [Resource; 7] = [
    Resource::Usage,
    Resource::Requests,
    Resource::Limits,
    Resource::Deployments,
    Resource::Instance,
    Resource::Alerts,
    Resource::Explain,
];

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(text: &str) -> Wanted {
        serde_json::from_str(text).unwrap()
    }

    #[test]
    fn roles_allow_what_their_names_say() {
        let role = |name: &str| built_in(name).unwrap().permissions;
        for resource in Resource::ALL {
            for action in Action::ALL {
                assert!(role("admin").allow(*resource, *action));
                assert_eq!(role("auditor").allow(*resource, *action), *action == Action::Read);
                assert!(*action == Action::Read || !role("viewer").allow(*resource, *action));
            }
        }
        for resource in [
            Resource::Accounts,
            Resource::Roles,
            Resource::Audit,
            Resource::Backup,
        ] {
            assert!(!role("operator").allow(resource, Action::Read), "{resource:?}");
            assert!(!role("viewer").allow(resource, Action::Read), "{resource:?}");
        }
        assert!(role("operator").allow(Resource::Channels, Action::Delete));
        assert!(role("operator").allow(Resource::Emergency, Action::Execute));
        assert!(BUILT_IN.iter().all(|name| built_in(name).is_some()));
        assert!(built_in("root").is_none());
    }

    #[test]
    fn written_permissions_are_read_and_compared() {
        let some =
            Permissions::parse(&wanted(r#"{"channels": ["read", "update"], "usage": ["*"]}"#)).unwrap();
        assert!(some.allow(Resource::Channels, Action::Update));
        assert!(some.allow(Resource::Usage, Action::Delete));
        assert!(!some.allow(Resource::Channels, Action::Delete));
        let all = Permissions::parse(&wanted(r#"{"*": ["*"]}"#)).unwrap();
        assert_eq!(all, Permissions::all());
        assert!(all.cover(&some) && !some.cover(&all));
        assert_eq!(all.intersection(&some), some);
        let reads = Permissions::parse(&wanted(r#"{"*": ["read"]}"#)).unwrap();
        assert!(
            !reads
                .intersection(&some)
                .allow(Resource::Channels, Action::Update)
        );
        for (text, field) in [
            (r#"{"chanels": ["read"]}"#, "permissions.chanels"),
            (r#"{"channels": ["write"]}"#, "permissions.channels"),
        ] {
            assert_eq!(Permissions::parse(&wanted(text)).unwrap_err().0, field);
        }
    }
}
