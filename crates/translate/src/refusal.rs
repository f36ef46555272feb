//! What cannot be translated, named by its path in the client's request.

use std::borrow::Cow;
use std::fmt;

use crate::Protocol;
use crate::error::{ErrorKind, error_body};

/// Bytes of one key that are shown in a path: keys are the client's and may be long.
const SHOWN_KEY: usize = 64;

/// A request that the deployment's protocol cannot express. The client's fault; the same request may well be served by
/// a deployment of another protocol.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// Where in the request, e.g. `messages[2].content[0].image_url.url`; empty if it is the body as such.
    pub path: String,
    /// Why, as half a sentence.
    pub reason: Cow<'static, str>,
}

impl Refusal {
    /// The body of a 400 in the client's protocol; OpenAI's `param` is the path.
    #[must_use]
    pub fn body(&self, client: Protocol) -> Vec<u8> {
        let param = (!self.path.is_empty()).then_some(self.path.as_str());
        error_body(
            client,
            ErrorKind::InvalidRequest,
            Some("untranslatable_request"),
            &self.to_string(),
            param,
        )
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.path.is_empty() {
            write!(f, "the request {}", self.reason)
        } else {
            write!(f, "{}: {}", self.path, self.reason)
        }
    }
}

impl std::error::Error for Refusal {}

/// A place in the request: a chain of steps on the stack, turned into text only when something is refused.
#[derive(Clone, Copy)]
pub(crate) struct At<'p> {
    parent: Option<&'p At<'p>>,
    step: Step<'p>,
}

#[derive(Clone, Copy)]
enum Step<'p> {
    Root,
    Key(&'p str),
    Index(usize),
}

impl At<'_> {
    pub(crate) const ROOT: At<'static> = At {
        parent: None,
        step: Step::Root,
    };

    pub(crate) const fn key<'s>(&'s self, key: &'s str) -> At<'s> {
        At {
            parent: Some(self),
            step: Step::Key(key),
        }
    }

    pub(crate) const fn index(&self, index: usize) -> At<'_> {
        At {
            parent: Some(self),
            step: Step::Index(index),
        }
    }

    pub(crate) fn refuse(&self, reason: impl Into<Cow<'static, str>>) -> Refusal {
        let mut path = String::new();
        self.write(&mut path);
        Refusal {
            path,
            reason: reason.into(),
        }
    }

    fn write(&self, out: &mut String) {
        if let Some(parent) = self.parent {
            parent.write(out);
        }
        match self.step {
            Step::Root => {}
            Step::Key(key) => {
                if !out.is_empty() {
                    out.push('.');
                }
                let mut end = key.len().min(SHOWN_KEY);
                while !key.is_char_boundary(end) {
                    end -= 1;
                }
                out.push_str(key.get(..end).unwrap_or_default());
            }
            Step::Index(index) => {
                out.push_str(&format!("[{index}]"));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::At;

    #[test]
    fn paths_read_as_in_javascript_and_are_bounded() {
        let messages = At::ROOT.key("messages");
        let third = messages.index(2);
        assert_eq!(third.key("content").refuse("x").path, "messages[2].content");
        assert_eq!(
            At::ROOT.refuse("is not JSON").to_string(),
            "the request is not JSON"
        );
        let long = "é".repeat(100);
        assert_eq!(At::ROOT.key(&long).refuse("x").path, "é".repeat(32));
    }
}
