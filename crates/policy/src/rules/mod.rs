//! Rules: what a request is compared with, and what becomes of it.

mod condition;
mod evaluate;
mod field;
mod program;
pub(crate) mod template;
mod time;

pub(crate) use condition::regex;
pub use evaluate::{Decision, Deeds, Facts, Outcome, RuleTrace, Shadowed, Value};
pub(crate) use field::{canonical_path, is_token};
pub(crate) use program::{PlainRule, check, encode};
pub use program::{RuleSet, RulesError};
