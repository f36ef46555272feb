//! The ledger: the durable record of usage and of requests.
//!
//! ```text
//! region: usage table ─┐
//!         event rings ─┴─Drain─► Booking (pure) ─Batch─► Store (one transaction) ─► consume events
//! ```
//! The usage table of the region is the truth, events only say when and how. A batch carries the rings' positions
//! together with what was made of their events, so a daemon killed at any instruction neither loses nor doubles
//! usage: what was committed is skipped, what was not is read again, and what never became an event (dropped by a
//! full ring, a worker killed between its two writes) shows as a lasting difference and is booked as such.

mod booking;
mod counters;
mod drain;
mod filter;
mod lines;
#[cfg(test)]
mod memory;
mod record;
mod results;
mod snapshots;
mod sqlite;
mod store;

pub use booking::{Booking, Names, Reading, Seen, SlotEvents};
pub use counters::{COUNTER_NAMES, COUNTERS, Counter, Counters};
pub use drain::{Drain, DrainStatus, RegionNames};
pub use filter::{Facts, Filter};
pub use lines::{Line, Lines};
pub use record::{RequestRecord, flag_bit, flag_names, source_name};
pub use results::{Histogram, Results, quantile_us};
pub use snapshots::{Served, Snapshots};
pub use sqlite::{
    Changed, Changes, Marking, Ranked, RankedLine, RankedServed, RequestPage, RequestSearch, Series,
    SeriesQuery, ServedLine, ShadowSums, SqliteReader, SqliteStore,
};
pub use store::{
    Batch, BookedRow, Delta, GroupDelta, Keep, Position, RequestQuery, ResultsPoint, ResultsQuery, STEPS,
    ServedDelta, ServedQuery, ShadowDelta, ShadowHits, ShadowQuery, Store, StoreError, UsagePoint,
    UsageQuery,
};
