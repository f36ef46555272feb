//! Rules: conditions and actions, and rules with parameters.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{
    Deserialize, Deserializer, Serialize,
    de::{MapAccess, SeqAccess, Visitor, value},
};
use serde_json::Value;
use std::{borrow::Cow, fmt};

use super::channel::yes;

/// How a field is compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Operator {
    /// Equal to a scalar.
    Eq,
    /// Not equal, or absent.
    Ne,
    /// Equal to one of a list; for `time`: within the hours and weekdays.
    In,
    /// Matches a glob.
    Matches,
    /// Matches a regular expression somewhere.
    Regex,
    /// Greater, as a number.
    Gt,
    /// Greater or equal, as a number.
    Ge,
    /// Less, as a number.
    Lt,
    /// Less or equal, as a number.
    Le,
    /// Is there (`true`) or not (`false`).
    Exists,
    /// Contains a text.
    Contains,
    /// Is in an address range, or one of a list of them.
    Cidr,
}

impl Operator {
    /// The operator's name in documents.
    pub const fn name(self) -> &'static str {
        match self {
            Operator::Eq => "eq",
            Operator::Ne => "ne",
            Operator::In => "in",
            Operator::Matches => "matches",
            Operator::Regex => "regex",
            Operator::Gt => "gt",
            Operator::Ge => "ge",
            Operator::Lt => "lt",
            Operator::Le => "le",
            Operator::Exists => "exists",
            Operator::Contains => "contains",
            Operator::Cidr => "cidr",
        }
    }
}

/// A condition: exactly one of `all`, `any`, `not`, or `field` with `op` and `value`.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Condition {
    /// True if every one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub all: Option<Vec<Condition>>,
    /// True if at least one is.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub any: Option<Vec<Condition>>,
    /// True if this is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub not: Option<Box<Condition>>,
    /// `header.<name>`, `query.<name>`, `cookie.<name>`, `body.<path>`, `client.ip`, `time`, `method`, `path`,
    /// `channel` or `model`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// How the field is compared; may be left out for `time`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub op: Option<Operator>,
    /// What it is compared with.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "present"
    )]
    pub value: Option<Value>,
}

/// `null` is a value to compare with, not an absent one.
fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Value>, D::Error> {
    Value::deserialize(deserializer).map(Some)
}

/// The value of a condition on `time`.
#[derive(Clone, Debug, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ZonedHours {
    /// `09:00-18:00`, the end not included; over midnight (`22:00-06:00`) it belongs to the day it begins on.
    pub hours: Option<String>,
    /// `mon` to `sun`; every day by default.
    pub weekdays: Option<Vec<String>>,
    /// A zone's name such as `Asia/Shanghai`, or an offset such as `+08:00`; UTC by default.
    pub zone: Option<String>,
}

/// Refuses the request.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Deny {
    /// HTTP status, 400..=599.
    #[serde(default = "forbidden")]
    pub status: u16,
    /// The error's code in the body.
    #[serde(default = "denied")]
    pub code: String,
    /// The error's message in the body.
    #[serde(default)]
    pub message: String,
}

fn forbidden() -> u16 {
    403
}

fn denied() -> String {
    "denied_by_rule".to_owned()
}

/// Actions; several in one object are applied in the order of these fields, several objects in theirs.
#[derive(Clone, Debug, Default, Deserialize, Serialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Action {
    /// Puts a label on the request's record.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tag: Option<String>,
    /// Goes on as this channel.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_channel: Option<String>,
    /// Goes on with this model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_model: Option<String>,
    /// Goes on with deployments of this version of the model.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_version: Option<String>,
    /// Goes on with this deployment, whatever its weight, and with the model that it belongs to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub set_deployment: Option<String>,
    /// The most output tokens; the lowest of several counts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cap_max_tokens: Option<u64>,
    /// Records what these actions would do, and does not do them.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Shadow>,
    /// Refuses the request; no further rule is looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub deny: Option<Deny>,
    /// `true`: no further rule is looked at.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allow: Option<bool>,
}

/// One action object or a list of them.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(transparent)]
pub struct Then(pub Vec<Action>);

/// What a shadow action would do.
pub type Shadow = Then;

impl<'de> Deserialize<'de> for Then {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct OneOrMany;
        impl<'de> Visitor<'de> for OneOrMany {
            type Value = Then;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an action or a list of actions")
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Then, A::Error> {
                Action::deserialize(value::MapAccessDeserializer::new(map)).map(|action| Then(vec![action]))
            }

            fn visit_seq<A: SeqAccess<'de>>(self, list: A) -> Result<Then, A::Error> {
                Vec::deserialize(value::SeqAccessDeserializer::new(list)).map(Then)
            }
        }
        deserializer.deserialize_any(OneOrMany)
    }
}

impl JsonSchema for Then {
    fn schema_name() -> Cow<'static, str> {
        "Then".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let action = generator.subschema_for::<Action>();
        json_schema!({ "anyOf": [action.clone(), { "type": "array", "items": action, "minItems": 1 }] })
    }
}

/// A rule: `when` and `then`, or a template `with` its parameters.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Rule {
    /// Unique; stands in refusals and records.
    pub name: String,
    /// Higher is looked at first; equal ones by name.
    #[serde(default)]
    pub priority: i32,
    /// A disabled rule is validated, but not looked at.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// When it applies; always by default.
    pub when: Option<Condition>,
    /// What it does.
    pub then: Option<Then>,
    /// The rule template that says when and what.
    pub template: Option<String>,
    /// The template's parameters.
    #[serde(default)]
    pub with: serde_json::Map<String, Value>,
}

/// A parameter of a rule template.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Parameter {
    /// What `${…}` and `with` call it.
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// Its value if the rule names none; without one the parameter is required.
    #[serde(default, deserialize_with = "present")]
    pub default: Option<Value>,
}

/// A rule with parameters. A text that is `${name}` as a whole becomes the parameter's value, of whatever type; within a
/// longer text it becomes the value's text.
#[derive(Clone, Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RuleTemplate {
    /// What rules call it.
    pub name: String,
    /// What it is for.
    #[serde(default)]
    pub description: String,
    /// Its parameters.
    #[serde(default)]
    pub parameters: Vec<Parameter>,
    /// When it applies: a condition with placeholders.
    #[serde(default, deserialize_with = "present")]
    pub when: Option<Value>,
    /// What it does: actions with placeholders.
    pub then: Value,
}
