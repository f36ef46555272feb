//! What is wrong with a document, and where.

use schemars::JsonSchema;
use serde::Serialize;
use std::fmt;

/// Whether a problem keeps the documents from taking effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// Takes effect, but is probably not what was meant.
    Warning,
    /// Nothing of the new documents takes effect until this is repaired.
    Error,
}

/// One finding of [`crate::Documents::parse`], [`crate::validate()`] or [`crate::compile()`].
///
/// Never holds the text of a credential: type errors name the types, not the values.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct Problem {
    /// File name as it was given to `parse`.
    pub document: String,
    /// Where in the document, such as `channels[3].limits[0].window`; `line 3 column 7` for a syntax error;
    /// empty for the document as a whole.
    pub path: String,
    /// What is wrong, in lower case, without a full stop.
    pub reason: String,
    /// Error or warning.
    pub severity: Severity,
    /// What to write instead, if that can be guessed.
    pub hint: Option<String>,
}

impl Problem {
    /// An error without a hint.
    pub fn error(document: impl Into<String>, path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            document: document.into(),
            path: path.into(),
            reason: reason.into(),
            severity: Severity::Error,
            hint: None,
        }
    }

    /// A warning without a hint.
    pub fn warning(document: impl Into<String>, path: impl Into<String>, reason: impl Into<String>) -> Self {
        Self {
            severity: Severity::Warning,
            ..Self::error(document, path, reason)
        }
    }

    /// The same problem with a hint, if there is one.
    #[must_use]
    pub fn hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint.or(self.hint);
        self
    }

    /// Whether this keeps the documents from taking effect.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{word}: {}", self.document)?;
        if !self.path.is_empty() {
            write!(f, ": {}", self.path)?;
        }
        write!(f, ": {}", self.reason)?;
        if let Some(hint) = &self.hint {
            write!(f, " ({hint})")?;
        }
        Ok(())
    }
}
