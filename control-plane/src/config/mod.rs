//! From documents to what the workers decide by.
//!
//! ```text
//! ConfigSource ─DocumentSet─► Publisher: seal, parse, validate, resolve, compile ─► snapshot.<generation> ─► region
//!                                 └─ ConfigStatus: what is in force, what is wrong
//! ```
//! A set that has an error never takes effect; what was in force stays so.

mod active;
mod authorities;
mod credentials;
mod diff;
mod directory;
mod inherit;
mod nacos;
mod parsed;
mod publish;
mod resolve;
mod settings;
mod shard;
mod source;
mod state;
mod status;
mod version;
mod versions;

pub use active::Active;
pub use credentials::{REDACTED, has_plain_keys, receiver_id, redacted, resealed, sealed, with_restored};
pub use diff::{Difference, DocumentDiff, diff};
pub use directory::Directory;
pub use inherit::{Effective, Override, document_of, effective, instance_of};
pub use nacos::{Account, Nacos, NacosOptions, PublicationGuard, PublicationLock, props as nacos_props};
pub use parsed::parse_set;
pub use publish::Publisher;
pub use resolve::{Answers, Resolver, Target, Upstream, ask};
pub use settings::{keep, region_sizes};
pub use shard::{TARGET as SHARD_BYTES, split};
pub use source::{ConfigSource, Document, DocumentSet, Etag, Fixed, PutError, SourceHealth};
pub use state::{LastGood, StateFolder};
pub use status::{ConfigStatus, StatusWatch};
pub use version::{Change, Edit, Expected, Version, edited, etags};
pub use versions::{VersionFolder, Versions, VersionsError, contents, edits_back_to, list as list_versions};
