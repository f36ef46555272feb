//! Writes functions that may be called, and which of them must be.

use super::schema::{self, Names};
use crate::json::{Array, Json, Object, Str, quoted};
use crate::refusal::{At, Refusal};

/// Bytes of all tools together: their schemas are walked level by level, which must not hold up a worker.
const MAX_TOOLS: usize = 1 << 20;

const NAMES: Names = Names {
    open_api: "parameters",
    json_schema: "parametersJsonSchema",
};

/// Refuses what is too large to be walked.
pub(super) fn check(tools: Json<'_>) -> Result<(), Refusal> {
    if tools.raw().len() > MAX_TOOLS {
        return Err(At::ROOT
            .key("tools")
            .refuse("more than 1 MiB of tools is not translated"));
    }
    Ok(())
}

/// Begins the list of declarations; [`close`] ends it once the array is closed.
pub(super) fn open<'o>(object: &'o mut Object<'_>) -> Array<'o> {
    let out = object.key("tools");
    out.extend_from_slice(b"[{\"functionDeclarations\":");
    Array::open(out)
}

pub(super) fn close(object: &mut Object<'_>) {
    object.raw_end("}]");
}

/// Declares one function; its parameters come with their place.
pub(super) fn declare(
    array: &mut Array<'_>,
    name: Str<'_>,
    description: Option<Str<'_>>,
    parameters: Option<(Json<'_>, At<'_>)>,
) -> Result<(), Refusal> {
    let mut written = Object::open(array.item());
    written.string("name", name);
    if let Some(description) = description {
        written.string("description", description);
    }
    if let Some((parameters, at)) = parameters.filter(|(parameters, _)| !schema::is_empty(*parameters)) {
        schema::write(parameters, &NAMES, &at, &mut written)?;
    }
    written.close();
    Ok(())
}

/// Says whether functions may or must be called; `name`: this one only.
pub(super) fn choose(mode: &str, name: Option<Str<'_>>, object: &mut Object<'_>) {
    let mut config = Object::open(object.key("toolConfig"));
    let mut calling = Object::open(config.key("functionCallingConfig"));
    calling.text("mode", mode);
    if let Some(name) = name {
        let mut names = Array::open(calling.key("allowedFunctionNames"));
        quoted(name, names.item());
        names.close();
    }
    calling.close();
    config.close();
}
