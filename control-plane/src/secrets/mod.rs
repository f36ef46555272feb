//! Provider credentials at rest: the master key, sealed credentials, and the API's token.

mod master_key;
mod sealed;
mod sealer;
mod token;

pub use master_key::{KeyError, MasterKey, SealError, beside, create_private};
pub use sealed::{MAX_SECRET, NONCE, SEALED_VERSION};
pub use sealer::{CredentialFolder, Sealer};
pub use token::{ApiToken, TokenError};
