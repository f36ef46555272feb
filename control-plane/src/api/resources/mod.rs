//! Entries of the configuration's documents as resources: channels, templates, models, providers, rules, rule templates,
//! counting rules, and the settings.
//!
//! Documents stay what they are: an entry is found by its place in the text (`index`), and a change replaces its text and
//! nothing else (`edit`), so that an operator's file stays as it was written. Its version is a hash of its own text:
//! editors of different entries do not get into each other's way.

mod answer;
mod edit;
mod effective;
mod index;
mod keys;
mod list;
mod nested;
mod ordered;
mod plan;
mod settings;
pub(super) mod sort;
mod write;

pub(super) use answer::{Item, Page, Written};
pub(super) use effective::{Effective, effective, preview};
pub use index::Indexes;
pub(super) use keys::{MadeKey, NewKey, Rotation, make_key, remove_key, rotate_key};
pub(super) use list::{ListQuery, one, page};
pub(super) use nested::{
    deployment, deployments, make_deployment, patch_deployment, remove_deployment, replace_deployment,
};
pub(super) use settings::{patch_settings, read_settings, replace_settings};
pub(super) use write::{CreateQuery, Deed, WriteQuery, amend, create, patch, remove, replace};
