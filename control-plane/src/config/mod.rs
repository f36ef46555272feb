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
mod directory;
mod parsed;
mod publish;
mod resolve;
mod settings;
mod source;
mod state;
mod status;

pub use active::Active;
pub use credentials::{REDACTED, has_plain_keys, redacted, sealed, with_restored};
pub use directory::Directory;
pub use parsed::parse_set;
pub use publish::Publisher;
pub use resolve::{Answers, Resolver, Target, Upstream, ask};
pub use settings::{keep, region_sizes};
pub use source::{ConfigSource, Document, DocumentSet, Etag, Fixed, PutError};
pub use state::{LastGood, StateFolder};
pub use status::{ConfigStatus, StatusWatch};
