//! What the instances share in Redis beside limits: usage of the whole cluster, who leads, what is known of deployments,
//! accounts (ARCHITECTURE.md, "What instances share"). Without `redis` in the settings nothing here runs, and no request ever
//! waits for it.
//!
//! ```text
//! ledger (SQLite) ─marks─► Shipper ─script─► usage:… minutes:… tens:…  ─► reader ─► API of every instance
//! ledger's request log ─script─► {requests}:of:… ─► reader ─► API of every instance
//! prober, region ─► Rumours ─script─► verdict:… breaker:… cooling:…  ─publish─► Rumours ─► region of every instance
//! ```

mod connection;
mod leader;
mod publication;
mod recent;
mod rumours;
mod usage;

pub use crate::cluster::Script;
pub use connection::{Shared, SharedError, SharedFigures};
pub use leader::{Elector, Role, alone};
pub use publication::SharedLock;
pub use recent::{RecentCursor, RecentFigures, RecentLine, RecentReader, RecentWriter};
pub use rumours::{RumourFigures, Rumours};
pub use usage::{Shipper, ShippingFigures, UsageReader};
