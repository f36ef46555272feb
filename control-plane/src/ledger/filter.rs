//! Which lines of the request log a search wants, wherever they stand: in the ledger, which knows names by numbers, or in a
//! List of Redis. What goes by names, each compares by itself.

use std::ops::Range;

use tollgate_shm::Class;

use super::record::flag_bit;
use super::{RequestRecord, RequestSearch};

/// What of a line a search goes by, beside names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// When it ended, Unix milliseconds.
    pub time_ms: u64,
    /// Number of its class.
    pub class: u8,
    /// HTTP status.
    pub status: u16,
    /// Its flags, see [`flag_bit`].
    pub flags: u32,
    /// Whether another attempt followed.
    pub attempt: bool,
    /// Its id.
    pub id: [u64; 2],
}

/// What a search wants of it.
#[derive(Clone, Debug)]
pub struct Filter {
    times: Range<u64>,
    classes: u8,
    status: Option<u16>,
    flags: u32,
    attempts: bool,
    id: Option<[u64; 2]>,
}

/// A request id's two halves.
fn halves(id: &str) -> Option<[u64; 2]> {
    let (high, low) = id.split_at_checked(16)?;
    let number = |text: &str| u64::from_str_radix(text, 16).ok();
    (id.len() == 32).then_some([number(high)?, number(low)?])
}

fn class_of(name: &str) -> Option<Class> {
    Class::ALL.into_iter().find(|class| class.name() == name)
}

impl Filter {
    /// `None` if no line can be wanted: its class or id is none.
    pub fn of(q: &RequestSearch) -> Option<Filter> {
        Some(Filter {
            times: q.from_ms.unwrap_or(0)..q.to_ms.unwrap_or(u64::MAX),
            classes: match &q.class {
                None => u8::MAX,
                Some(name) => 1 << class_of(name)? as u8,
            },
            status: q.status,
            flags: q.flags,
            attempts: q.attempts,
            id: match &q.id {
                None => None,
                Some(id) => Some(halves(id)?),
            },
        })
    }

    /// A bit for each class that is wanted.
    pub fn classes(&self) -> u8 {
        self.classes
    }

    /// The times that are wanted, Unix milliseconds.
    pub fn times(&self) -> &Range<u64> {
        &self.times
    }

    /// Whether a line is wanted.
    pub fn fits(&self, line: &Facts) -> bool {
        (self.classes == u8::MAX || 1u8.checked_shl(line.class.into()).unwrap_or(0) & self.classes != 0)
            && (self.attempts || !line.attempt)
            && line.flags & self.flags == self.flags
            && self.times.contains(&line.time_ms)
            && self.status.is_none_or(|status| status == line.status)
            && self.id.is_none_or(|id| id == line.id)
    }
}

impl Facts {
    /// Of a line with names. A class that only a newer version knows is none that can be asked for.
    pub fn of(record: &RequestRecord) -> Facts {
        let flags = record.flags.split(',');
        Facts {
            time_ms: record.time_ms,
            class: class_of(&record.class).map_or(u8::MAX, |class| class as u8),
            status: record.status,
            flags: flags.clone().filter_map(flag_bit).fold(0, |all, bit| all | bit),
            attempt: flags.clone().any(|flag| flag == "attempt"),
            id: halves(&record.request_id).unwrap_or_default(),
        }
    }
}
