//! Usage of the whole cluster: each instance keeps a copy of its ledger's sums in Redis, and every instance adds them up.
//!
//! What is written are sums and not differences, under the number of the ledger that they come from. To write one twice changes
//! nothing, and one that Redis has lost is written again: a record in Redis says how far the ledger's changes have come, and is
//! changed by the script that writes the values, so both are lost together or not at all.

mod keys;
mod parts;
mod read;
mod ship;

pub use read::UsageReader;
pub use ship::{Shipper, ShippingFigures};
