//! The ledger as a Redis script: the text, its arguments, its answer.
//!
//! One limit, one script, two keys with one hash tag: the limit's hash and the tag's era. Plain `EVAL` of one text, so it works behind
//! proxies; Redis' own `TIME` and `run_id`, nothing from the caller's clock. Numbers stay below 2^53, which Lua counts exactly.

use crate::ledger::{Answer, Notice, Report};

/// The script. Keys: the limit, the era. Arguments: see [`arguments`].
pub const SCRIPT: &str = include_str!("script.lua");

/// The line of the script that reads the clock and the process; conformance tests put their own in its place.
pub const CLOCK: &str = "local now, run = clock()";

/// Hash tags over which limits are spread: a power of two. Each has an era.
pub const TAGS: u64 = 64;

/// Numbers in an answer.
const FIELDS: usize = 11;

/// The keys for a limit, below a prefix such as `tollgate`: its hash and the era of its tag.
pub fn keys(prefix: &str, limit: u64) -> [String; 2] {
    let tag = tag_of(limit);
    [
        format!("{prefix}:{{{tag:02x}}}:lease:{limit:016x}"),
        era_key(prefix, tag),
    ]
}

/// The tag of a limit.
pub fn tag_of(limit: u64) -> u64 {
    (limit.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 32) & (TAGS - 1)
}

/// The era's key of a tag.
pub fn era_key(prefix: &str, tag: u64) -> String {
    format!("{prefix}:{{{tag:02x}}}:era")
}

/// The channel on which shortages and room are told.
pub fn channel(prefix: &str) -> String {
    format!("{prefix}:leases")
}

/// The script's arguments for a report on a limit. The channel and the limit's name go back into notices.
pub fn arguments(prefix: &str, limit: u64, report: &Report) -> Vec<String> {
    let numbers = [
        report.seq,
        report.have,
        report.want,
        report.need,
        report.standing,
        report.max,
        report.ttl,
        report.hold,
        report.standing_ttl,
    ];
    let mut arguments = vec![
        channel(prefix),
        format!("{limit:016x}"),
        format!("{:016x}", report.id),
    ];
    arguments.extend(numbers.map(|n| n.to_string()));
    arguments
}

/// Reads the script's answer, a list of numbers. `None` if it is something else.
pub fn answer(numbers: &[i64]) -> Option<Answer> {
    let [stale, rest @ ..] = numbers else {
        return None;
    };
    if rest.len() != FIELDS - 1 || rest.iter().any(|n| *n < 0) {
        return None;
    }
    let mut rest = rest.iter().map(|n| n.unsigned_abs());
    let mut next = || rest.next().unwrap_or(0);
    Some(Answer {
        stale: *stale != 0,
        seq: next(),
        granted: next(),
        standing: next(),
        max: next(),
        left: next(),
        over: next(),
        lacking: next(),
        live: next(),
        stranded: next(),
        quarantine: next(),
    })
}

/// Reads a message of the channel: the limit and what is said of it.
pub fn notice(text: &str) -> Option<(u64, Notice)> {
    let mut words = text.split(' ');
    let kind = words.next()?;
    let limit = u64::from_str_radix(words.next()?, 16).ok()?;
    let notice = match kind {
        "room" => Notice::Room,
        "short" => Notice::Short {
            id: u64::from_str_radix(words.next()?, 16).ok()?,
            want: words.next()?.parse().ok()?,
            have: words.next()?.parse().ok()?,
        },
        _ => return None,
    };
    Some((limit, notice))
}
