//! What in a configuration is not as safe as it could be: `tollgate check --security`.

mod documents;
mod state;

pub use documents::{Api, of_documents};
pub use state::of_state;

use serde::Serialize;

/// How bad it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, clap::ValueEnum)]
#[serde(rename_all = "snake_case")]
pub enum Risk {
    /// Worth knowing.
    Low,
    /// Worth changing.
    Medium,
    /// Somebody may get what is not theirs.
    High,
}

impl Risk {
    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Risk::Low => "low",
            Risk::Medium => "medium",
            Risk::High => "high",
        }
    }
}

/// Something that is not as safe as it could be. Never holds a secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The same for all findings of its kind.
    pub code: &'static str,
    /// How bad it is.
    pub risk: Risk,
    /// The document or file; empty if it is neither.
    pub place: String,
    /// Where in it.
    pub path: String,
    /// What is so.
    pub what: String,
    /// What to do about it.
    pub advice: &'static str,
}

/// The findings of which a part is shown: worst first, and of each kind together.
pub fn ordered(mut findings: Vec<Finding>) -> Vec<Finding> {
    findings.sort_by(|a, b| (b.risk, a.code, &a.place).cmp(&(a.risk, b.code, &b.place)));
    findings
}
