//! Alerts: what is wrong with the gateway, and who is told of it (ARCHITECTURE.md, "Alerts").
//!
//! ```text
//! region, health, ledger, cluster ─Sight─► Reading ─► Book (pending, firing, resolved) ─due─► Message ─► receivers
//!                                                      │ ▲ what receivers took
//!                                                   Records ◄─ Marks: silences, acknowledgements ◄─ API
//! ```

mod book;
mod certificates;
mod desk;
mod marks;
mod message;
mod parts;
mod reading;
mod send;
mod sight;
mod traffic;
mod watch;

#[cfg(test)]
mod tests;

pub use book::{Alert, Book, Delivery, Look, Notice, State, Told};
pub use desk::{AlertDesk, Sent, Shown};
pub use marks::{Ack, MOST_SILENCES, Marks, Silence};
pub use message::{Message, Post, Told as ToldOf, signature, taken};
pub use reading::{Labels, Reading};
pub use sight::{Places, Sight};
pub use watch::Watch;
