//! Tollgate's policy: configuration documents, their validation, their compilation to a snapshot that workers read
//! in place, and the evaluation of rules and permissions. Pure: no I/O, no clock, no randomness.
//!
//! ```text
//! files ─Documents::parse─► Documents ─validate─► problems
//!                               └──────compile──► snapshot bytes ─Snapshot::open─► channels, models, limits
//!                                                                └RuleSet::decode─► rules
//! ```
#![forbid(unsafe_code)]

pub mod balance;
mod cidr;
mod compile;
mod counting;
mod decode;
pub mod documents;
mod duration;
mod effective;
pub mod experiment;
mod glob;
mod identity;
mod origin;
mod problem;
pub mod rules;
mod schema;
pub mod session;
pub mod snapshot;
mod strict_json;
mod suggest;
mod text;
mod validate;

pub use cidr::Cidr;
pub use compile::{CompileInput, Seal, Validated, compile};
pub use counting::{CountingInput, Family, VocabularyFile};
pub use documents::{Documents, Kind};
pub use duration::Span;
pub use glob::glob_matches;
pub use identity::{credential_row, hash_name, per_model_key};
pub use origin::{ChannelOrigins, Origin, OriginLimit, Source, Valued};
pub use problem::{Problem, Severity};
pub use rules::{Decision, Deeds, Facts, Outcome, RuleSet, RuleTrace, Shadowed, Value};
pub use schema::schema;
pub use snapshot::{
    ChannelView, CountingView, DeploymentView, ExperimentView, GroupView, KeyView, LimitList, LimitView,
    ModelView, PriceView, ProviderView, Rates, RouteView, SettingsView, Snapshot, SnapshotError,
};
pub use suggest::{near, nearest};
pub use text::{Secret, SecretRef};
pub use validate::validate;
