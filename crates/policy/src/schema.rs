//! JSON Schemas of the documents, generated from their types.

use crate::documents::{
    Channel, CountingRule, Kind, Model, Provider, Rule, RuleTemplate, Settings, Template,
};
use schemars::{JsonSchema, generate::SchemaSettings};
use serde_json::{Value, json};

/// The JSON Schema (draft 2020-12) of a whole document of that kind.
pub fn schema(kind: Kind) -> Value {
    match kind {
        Kind::Channels => list::<Channel>(kind),
        Kind::Models => list::<Model>(kind),
        Kind::Providers => list::<Provider>(kind),
        Kind::Rules => list::<Rule>(kind),
        Kind::Templates => list::<Template>(kind),
        Kind::RuleTemplates => list::<RuleTemplate>(kind),
        Kind::Tokenizers => list::<CountingRule>(kind),
        Kind::Settings => document::<Settings>(kind, |settings| settings),
    }
}

fn list<T: JsonSchema>(kind: Kind) -> Value {
    document::<T>(kind, |entry| json!({ "type": "array", "items": entry }))
}

fn document<T: JsonSchema>(kind: Kind, content: impl FnOnce(Value) -> Value) -> Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    let entry = content(generator.subschema_for::<T>().to_value());
    let definitions = generator.take_definitions(true);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": format!("tollgate.{}.json", kind.name()),
        "type": "object",
        "properties": { kind.name(): entry },
        "required": [kind.name()],
        "additionalProperties": false,
        "$defs": definitions
    })
}
