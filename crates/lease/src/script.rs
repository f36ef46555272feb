//! The ledger as a Redis script: the text, its arguments, its answer.
//!
//! One command for the limits of one hash tag: the tag's era and the limits' hashes. Plain `EVAL` of one text, so it works behind
//! proxies; Redis' own `TIME` and `run_id`, nothing from the caller's clock. Numbers stay below 2^53, which Lua counts exactly.

use crate::ledger::{Answer, Notice, Report};

/// The script. Keys: see [`keys`]. Arguments: see [`arguments`].
pub const SCRIPT: &str = include_str!("script.lua");

/// The line of the script that reads the clock and the process; conformance tests put their own in its place.
pub const CLOCK: &str = "local now, run = clock()";

/// Hash tags over which limits are spread: a power of two. Each has an era.
pub const TAGS: u64 = 64;

/// Numbers in an answer.
const FIELDS: usize = 11;

/// The most limits in one command: it must not keep Redis from others for long.
pub const MOST: usize = 32;

/// The keys for limits of one tag, below a prefix such as `tollgate`: the era of the tag, then the hash of each.
pub fn keys(prefix: &str, tag: u64, limits: impl IntoIterator<Item = u64>) -> Vec<String> {
    let hash = |limit| format!("{prefix}:{{{tag:02x}}}:lease:{limit:016x}");
    std::iter::once(era_key(prefix, tag))
        .chain(limits.into_iter().map(hash))
        .collect()
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

/// The script's arguments for an instance's reports on limits. The channel and the limits' names go back into notices.
pub fn arguments<'a>(
    prefix: &str,
    id: u64,
    reports: impl IntoIterator<Item = (u64, &'a Report)>,
) -> Vec<String> {
    let mut arguments = vec![channel(prefix), format!("{id:016x}")];
    for (limit, report) in reports {
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
        arguments.push(format!("{limit:016x}"));
        arguments.extend(numbers.map(|n| n.to_string()));
    }
    arguments
}

/// Reads the script's answer to one report, a list of numbers. `None` if it is something else.
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
