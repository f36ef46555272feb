//! Who may use the admin API: accounts with roles, browser sessions, API tokens, and the throttling of logins.
//!
//! ```text
//! request ─Credentials─► Accounts::identify ─► Principal (permissions, channels)
//!                             │
//!                          Records (a file; with Redis what the instances share, and a copy in the file)
//! ```
//! Everything is decided from the store at each request, so that a changed role, a disabled account or a new password
//! takes effect at once. Secrets stand in the store as digests (tokens, sessions) or argon2id (passwords).

mod account;
mod directory;
mod external;
mod grants;
mod keep;
mod password;
mod principal;
mod records;
mod redis;
mod roles;
mod secret;
mod session;
mod shared;
mod sign_in;
mod sqlite;
mod throttle;
mod tokens;

pub use account::{Account, AccountChange, AccountView, NewAccount};
pub use directory::{Accounts, AccountsError, Fault, SignedIn};
pub use keep::KeptRecord;
pub use password::{Hasher, generated};
pub use principal::{Credentials, Principal, Via};
pub use records::{Expected, Record, Records, RecordsError, Table};
pub use redis::RedisRecords;
pub use roles::{Action, Permissions, Resource, Role, Wanted, built_in};
pub use secret::random_text;
pub use session::{ABSOLUTE_MS, IDLE_MS};
pub use shared::{CopyFigures, SharedRecords};
pub use sqlite::SqliteRecords;
pub use tokens::{NewToken, TokenView};
