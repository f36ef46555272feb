//! What conditions look at.

/// A field of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Field {
    /// In lower case.
    Header(Box<str>),
    Query(Box<str>),
    Cookie(Box<str>),
    /// Canonical path.
    Body(Box<str>),
    ClientIp,
    Time,
    Method,
    Path,
    Channel,
    Model,
    /// A number.
    PromptBytes,
}

/// What can be compared with a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum FieldType {
    /// Always text (a number only by reading the text).
    Text,
    /// Any JSON value.
    Json,
    Address,
    Time,
}

/// Fields without a name after a dot.
const PLAIN: [&str; 7] = [
    "client.ip",
    "time",
    "method",
    "path",
    "channel",
    "model",
    "prompt_bytes",
];
const NAMED: [&str; 4] = ["header.", "query.", "cookie.", "body."];

impl Field {
    pub fn parse(text: &str) -> Result<Self, String> {
        Ok(match text {
            "client.ip" => Field::ClientIp,
            "time" => Field::Time,
            "method" => Field::Method,
            "path" => Field::Path,
            "channel" => Field::Channel,
            "model" => Field::Model,
            "prompt_bytes" => Field::PromptBytes,
            _ => match text.split_once('.') {
                Some((_, "")) => return Err(format!("`{text}` lacks a name after the dot")),
                Some(("header", name)) => {
                    if !is_token(name) {
                        return Err(format!("`{name}` is no header name"));
                    }
                    Field::Header(name.to_ascii_lowercase().into())
                }
                Some(("query", name)) => Field::Query(name.into()),
                Some(("cookie", name)) => Field::Cookie(name.into()),
                Some(("body", path)) => Field::Body(
                    canonical_path(path)
                        .ok_or_else(|| format!("`{path}` is no path such as `messages.0.role`"))?
                        .into(),
                ),
                _ => return Err(format!("unknown field `{text}`")),
            },
        })
    }

    pub fn kind(&self) -> FieldType {
        match self {
            Field::Body(_) | Field::PromptBytes => FieldType::Json,
            Field::ClientIp => FieldType::Address,
            Field::Time => FieldType::Time,
            _ => FieldType::Text,
        }
    }

    /// What can be written as a field, for suggestions.
    pub fn suggestions() -> impl Iterator<Item = &'static str> {
        PLAIN.into_iter().chain(NAMED)
    }
}

/// Whether `name` can be a header's name (RFC 9110, token).
pub(crate) fn is_token(name: &str) -> bool {
    !name.is_empty()
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte))
}

/// A body path with its steps joined by dots: `metadata.tags[2]` is `metadata.tags.2`. `None` if it is no path: empty
/// steps, brackets around something else than a number, more than 32 steps or 256 bytes. Keys that contain dots or
/// brackets cannot be named.
pub(crate) fn canonical_path(path: &str) -> Option<String> {
    let mut steps: Vec<&str> = Vec::new();
    for step in path.split('.') {
        let (key, mut indexes) = step
            .find('[')
            .map_or((step, ""), |bracket| step.split_at(bracket));
        if key.is_empty() || key.contains(']') {
            return None;
        }
        steps.push(key);
        while let Some(rest) = indexes.strip_prefix('[') {
            let (index, rest) = rest.split_once(']')?;
            if index.is_empty() || index.len() > 9 || !index.bytes().all(|byte| byte.is_ascii_digit()) {
                return None;
            }
            steps.push(index);
            indexes = rest;
        }
        if !indexes.is_empty() {
            return None;
        }
    }
    (steps.len() <= 32 && path.len() <= 256).then(|| steps.join("."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_have_one_spelling() {
        for (path, canonical) in [
            ("model", Some("model")),
            ("messages.0.role", Some("messages.0.role")),
            ("messages[0].role", Some("messages.0.role")),
            ("a[1][2]", Some("a.1.2")),
            ("", None),
            (".", None),
            ("a..b", None),
            ("a.", None),
            ("[0]", None),
            ("a.[0]", None),
            ("a[x]", None),
            ("a[", None),
            ("a]", None),
            ("a[0]b", None),
        ] {
            assert_eq!(canonical_path(path).as_deref(), canonical, "{path}");
        }
    }

    #[test]
    fn fields_read() {
        assert_eq!(Field::parse("header.X-Team"), Ok(Field::Header("x-team".into())));
        assert_eq!(Field::parse("query.a.b"), Ok(Field::Query("a.b".into())));
        assert_eq!(Field::parse("client.ip"), Ok(Field::ClientIp));
        for bad in ["", "headers.x", "header.", "header.a b", "body.", "client.port"] {
            assert!(Field::parse(bad).is_err(), "{bad}");
        }
    }
}
