//! JSON Schema for Gemini, which takes schemas in two forms: `parameters` / `responseSchema`, a subset of OpenAPI's that
//! every model knows, and `parametersJsonSchema` / `responseJsonSchema`, a larger subset of JSON Schema proper. A schema
//! is written in the first form if that can say it, else in the second as it stands.

use crate::json::{Array, Json, Kind, Object, Str};
use crate::refusal::{At, Refusal};
use crate::request::{for_each_element, for_each_member};

/// Levels of schemas within schemas; a walk over a schema takes time in proportion to size times depth.
const MAX_DEPTH: usize = 16;

/// Bytes of one schema.
const MAX_BYTES: usize = 256 * 1024;

/// Keywords of the OpenAPI form whose values are copied as they stand.
const COPIED: &[&str] = &[
    "title",
    "description",
    "nullable",
    "required",
    "minItems",
    "maxItems",
    "minProperties",
    "maxProperties",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "pattern",
    "default",
    "example",
    "propertyOrdering",
];

/// Keywords that only the JSON Schema form has.
const ONLY_JSON_SCHEMA: &[&str] = &["$ref", "$defs", "definitions", "oneOf", "prefixItems"];

/// Keywords that neither form has and that change which values are valid in ways that a model must know.
const REFUSED: &[&str] = &[
    "allOf",
    "not",
    "if",
    "then",
    "else",
    "dependentSchemas",
    "$dynamicRef",
    "$recursiveRef",
    "unevaluatedProperties",
];

/// Formats that the OpenAPI form accepts.
const FORMATS: &[&str] = &["float", "double", "int32", "int64", "enum", "date-time"];

/// Which of the two members a schema became.
pub(super) struct Names {
    pub(super) open_api: &'static str,
    pub(super) json_schema: &'static str,
}

/// Writes a schema as a member of `object`.
pub(super) fn write(
    schema: Json<'_>,
    names: &Names,
    at: &At<'_>,
    object: &mut Object<'_>,
) -> Result<(), Refusal> {
    if schema.raw().len() > MAX_BYTES {
        return Err(at.refuse("schemas longer than 256 KiB are not translated"));
    }
    let mut walk = Walk { json_schema: false };
    let mut written = Vec::with_capacity(schema.raw().len());
    walk.schema(schema, at, 0, &mut written)?;
    if walk.json_schema {
        object.raw(names.json_schema, schema.raw());
    } else {
        object.key(names.open_api).append(&mut written);
    }
    Ok(())
}

struct Walk {
    /// Something was found that only the JSON Schema form can say.
    json_schema: bool,
}

impl Walk {
    fn schema(
        &mut self,
        schema: Json<'_>,
        at: &At<'_>,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Refusal> {
        if depth >= MAX_DEPTH {
            return Err(at.refuse("schemas nested deeper than 16 levels are not translated"));
        }
        if schema.kind() == Kind::Bool {
            // `true` allows anything, which the OpenAPI form cannot say.
            self.json_schema = true;
            out.extend_from_slice(b"{}");
            return Ok(());
        }
        let mut written = Object::open(out);
        for_each_member(schema, at, |key, value, at| {
            match key {
                "type" => self.kind(value, &mut written),
                "properties" => {
                    let mut properties = Object::open(written.key(key));
                    for (name, property) in value.members() {
                        let text = name.text();
                        self.schema(property, &at.key(&text), depth + 1, properties.key_of(name))?;
                    }
                    properties.close();
                }
                "items" if value.kind() == Kind::Array => {
                    return Err(at.refuse("a tuple has to be written as prefixItems on this deployment"));
                }
                "items" => self.schema(value, at, depth + 1, written.key(key))?,
                "anyOf" => {
                    let mut any = Array::open(written.key(key));
                    for_each_element(value, at, |each, at| self.schema(each, at, depth + 1, any.item()))?;
                    any.close();
                }
                "enum" => {
                    self.json_schema |= value.elements().any(|each| each.kind() != Kind::String);
                    written.raw(key, value.raw());
                }
                "const" => match value.str() {
                    Some(text) => Self::constant(text, &mut written),
                    None => self.json_schema = true,
                },
                "format"
                    if value
                        .str()
                        .is_some_and(|format| FORMATS.iter().any(|known| format.is(known))) =>
                {
                    written.raw(key, value.raw());
                }
                "additionalProperties" if value.kind() == Kind::Object => {
                    self.json_schema = true;
                    self.schema(value, at, depth + 1, &mut Vec::new())?;
                }
                _ if COPIED.contains(&key) => {
                    written.raw(key, value.raw());
                }
                _ if ONLY_JSON_SCHEMA.contains(&key) => {
                    self.json_schema = true;
                    self.inside(value, at, depth)?;
                }
                _ if REFUSED.contains(&key) => {
                    return Err(at.refuse("this keyword of JSON Schema is not possible on this deployment"));
                }
                // Restrictions that neither form has but that a model need not know (`$schema`, `uniqueItems`,
                // `additionalProperties: false`, ...), and annotations: the README has the list.
                _ => {}
            }
            Ok(())
        })?;
        written.close();
        Ok(())
    }

    /// Looks for what has to be refused in schemas that will be copied as they stand.
    fn inside(&mut self, value: Json<'_>, at: &At<'_>, depth: usize) -> Result<(), Refusal> {
        let mut nowhere = Vec::new();
        for (index, schema) in value.elements().enumerate() {
            self.schema(schema, &at.index(index), depth + 1, &mut nowhere)?;
        }
        for (name, schema) in value.members() {
            self.schema(schema, &at.key(&name.text()), depth + 1, &mut nowhere)?;
        }
        Ok(())
    }

    /// One type, or one type and `null`.
    fn kind(&mut self, value: Json<'_>, written: &mut Object<'_>) {
        if value.str().is_some() {
            written.raw("type", value.raw());
            return;
        }
        let is_null = |kind: &Json<'_>| kind.str().is_some_and(|name| name.is("null"));
        let mut others = value.elements().filter(|kind| !is_null(kind));
        match (others.next(), others.next()) {
            (Some(one), None) => {
                written.raw("type", one.raw());
                if value.elements().any(|kind| is_null(&kind)) {
                    written.raw("nullable", "true");
                }
            }
            _ => self.json_schema = true,
        }
    }

    fn constant(text: Str<'_>, written: &mut Object<'_>) {
        let mut one = Array::open(written.key("enum"));
        crate::json::quoted(text, one.item());
        one.close();
    }
}

/// Whether a function with these parameters takes none: Gemini refuses an object without properties.
pub(super) fn is_empty(parameters: Json<'_>) -> bool {
    let has = |name| {
        parameters
            .get(name)
            .is_some_and(|value: Json<'_>| value.members().next().is_some())
    };
    !["properties", "additionalProperties", "$defs"]
        .into_iter()
        .any(has)
        && !["$ref", "anyOf", "oneOf", "allOf"]
            .into_iter()
            .any(|name| parameters.get(name).is_some())
}

#[cfg(test)]
mod tests {
    use super::{Names, is_empty, write};
    use crate::json::{Json, Object};
    use crate::refusal::At;

    fn translated(schema: &str) -> Result<String, String> {
        let mut out = Vec::new();
        let mut object = Object::open(&mut out);
        let names = Names {
            open_api: "open",
            json_schema: "full",
        };
        let json = Json::parse(schema.as_bytes()).unwrap();
        write(json, &names, &At::ROOT.key("s"), &mut object).map_err(|refusal| refusal.path)?;
        object.close();
        Ok(String::from_utf8(out).unwrap())
    }

    #[test]
    fn what_open_api_can_say_is_said_in_it() {
        for (schema, expected) in [
            (
                r#"{"$schema":"x","type":"object","additionalProperties":false,"required":["a"],"properties":{"a":{"type":["string","null"],"format":"uuid","x-order":1}}}"#,
                r#"{"open":{"type":"object","required":["a"],"properties":{"a":{"type":"string","nullable":true}}}}"#,
            ),
            (
                r#"{"type":"array","items":{"anyOf":[{"const":"x"},{"type":"integer","format":"int64","exclusiveMinimum":0}]},"uniqueItems":true}"#,
                r#"{"open":{"type":"array","items":{"anyOf":[{"enum":["x"]},{"type":"integer","format":"int64"}]}}}"#,
            ),
        ] {
            assert_eq!(translated(schema).unwrap(), expected);
        }
    }

    #[test]
    fn what_only_json_schema_can_say_is_copied() {
        for schema in [
            r##"{"$ref":"#/$defs/a","$defs":{"a":{"type":"string"}}}"##,
            r#"{"type":["string","integer"]}"#,
            r#"{"type":"object","additionalProperties":{"type":"string"}}"#,
            r#"{"properties":{"a":true}}"#,
            r#"{"enum":[1,2]}"#,
            r#"{"const":1}"#,
        ] {
            assert_eq!(translated(schema).unwrap(), format!("{{\"full\":{schema}}}"));
        }
    }

    #[test]
    fn what_neither_can_say_is_refused_by_its_place() {
        assert_eq!(
            translated(r#"{"properties":{"a":{"not":{}}}}"#).unwrap_err(),
            "s.properties.a.not"
        );
        assert_eq!(
            translated(r#"{"$defs":{"a":{"allOf":[]}},"$ref":"x"}"#).unwrap_err(),
            "s.$defs.a.allOf"
        );
        assert_eq!(translated(r#"{"items":[{}]}"#).unwrap_err(), "s.items");
        let deep = format!(
            "{}{}",
            r#"{"items":"#.repeat(40),
            "{}".to_owned() + &"}".repeat(40)
        );
        assert!(translated(&deep).unwrap_err().ends_with(".items.items"));
    }

    #[test]
    fn functions_without_parameters_are_recognised() {
        for (schema, empty) in [
            (r#"{"type":"object","properties":{}}"#, true),
            ("{}", true),
            (r#"{"properties":{"a":{}}}"#, false),
        ] {
            assert_eq!(is_empty(Json::parse(schema.as_bytes()).unwrap()), empty);
        }
    }
}
