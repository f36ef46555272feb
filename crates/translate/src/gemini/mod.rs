//! Gemini generateContent: answers read, requests written.

mod anthropic_history;
mod array;
mod from_anthropic;
mod from_openai;
mod history;
mod read;
mod schema;
mod tools;

pub use array::GeminiArray;
pub(crate) use from_anthropic::write_request as write_request_of_anthropic;
pub(crate) use from_openai::write_request;
pub(crate) use read::{StreamReader, read_whole};

const HEADERS: &[(&str, &str)] = &[("content-type", "application/json")];

/// The path of a call that generates.
fn path(model: &str, stream: bool) -> String {
    let method = if stream {
        "streamGenerateContent?alt=sse"
    } else {
        "generateContent"
    };
    gemini_path("v1beta", model, method)
}

/// Path (and query, if `method` has one) of a call of Gemini's API. A model's name that says which collection it is in
/// (`tunedModels/x`) stays in that collection.
#[must_use]
pub fn gemini_path(version: &str, model: &str, method: &str) -> String {
    let mut path = format!("/{version}/");
    if !model.contains('/') {
        path.push_str("models/");
    }
    for byte in model.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/@".contains(&byte) {
            path.push(char::from(byte));
        } else {
            path.push_str(&format!("%{byte:02X}"));
        }
    }
    path.push(':');
    path.push_str(method);
    path
}

/// Models before Gemini 3: they think by a budget and demand no signatures.
fn is_old(model: &str) -> bool {
    model.contains("gemini-1.") || model.contains("gemini-2.")
}

#[cfg(test)]
mod tests {
    use super::path;

    #[test]
    fn the_path_names_the_model_and_the_method() {
        assert_eq!(
            path("gemini-2.5-flash", false),
            "/v1beta/models/gemini-2.5-flash:generateContent"
        );
        assert_eq!(
            path("tunedModels/x y?", true),
            "/v1beta/tunedModels/x%20y%3F:streamGenerateContent?alt=sse"
        );
    }
}
