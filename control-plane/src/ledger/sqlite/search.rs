//! Searching the request log: a page at a time, and a bounded amount of work for each.

use std::collections::HashSet;

use rusqlite::{Connection, params};

use super::log::{Cached, data, kept};
use super::{block, damaged, names, time};
use crate::ledger::{Facts, Filter, RequestRecord};

/// Lines that one search looks at; a page may be short, and the next one goes on from where this ended.
const MOST_LINES: usize = 300_000;

/// Which requests, newest first.
#[derive(Clone, Debug, Default)]
pub struct RequestSearch {
    /// Only lines with a lower number: the next page.
    pub before: Option<i64>,
    /// Only this channel.
    pub channel: Option<String>,
    /// Only this model.
    pub model: Option<String>,
    /// Only this class.
    pub class: Option<String>,
    /// Only callers whom this experiment has sorted.
    pub experiment: Option<String>,
    /// Only callers of a group of this name.
    pub group: Option<String>,
    /// Only this status.
    pub status: Option<u16>,
    /// Only this deployment.
    pub deployment: Option<String>,
    /// Only lines with all of these flags, see [`crate::ledger::flag_bit`].
    pub flags: u32,
    /// Only this request id, 32 hexadecimal digits.
    pub id: Option<String>,
    /// Also attempts that another one followed.
    pub attempts: bool,
    /// Not older, Unix milliseconds.
    pub from_ms: Option<u64>,
    /// Older than this, Unix milliseconds.
    pub to_ms: Option<u64>,
    /// At most so many.
    pub limit: usize,
}

/// A page of the request log.
#[derive(Clone, Debug, Default)]
pub struct RequestPage {
    /// Lines with their numbers.
    pub lines: Vec<(i64, RequestRecord)>,
    /// `before` of the next page; `None` if this is the last one.
    pub next: Option<i64>,
}

/// Numbers of the pairs of channel and model that are asked for; `None` for all.
fn wanted(
    db: &Connection,
    q: &RequestSearch,
    sees: Option<&dyn Fn(&str) -> bool>,
) -> rusqlite::Result<Option<HashSet<u32>>> {
    if q.channel.is_none() && q.model.is_none() && sees.is_none() {
        return Ok(None);
    }
    let mut statement = db.prepare_cached(
        "SELECT id, channel FROM who WHERE (?1 IS NULL OR channel = ?1) AND (?2 IS NULL OR model = ?2)",
    )?;
    let rows = statement.query_map(params![q.channel, q.model], |r| {
        Ok((r.get::<_, u32>(0)?, r.get::<_, String>(1)?))
    })?;
    let mut found = HashSet::new();
    for row in rows {
        let (id, channel) = row?;
        if sees.is_none_or(|sees| sees(&channel)) {
            found.insert(id);
        }
    }
    Ok(Some(found))
}

/// A page of what is asked for, of channels that `sees` accepts.
pub fn search(
    db: &Connection,
    q: &RequestSearch,
    sees: Option<&dyn Fn(&str) -> bool>,
) -> rusqlite::Result<RequestPage> {
    let Some(filter) = Filter::of(q) else {
        return Ok(RequestPage::default());
    };
    let wanted = wanted(db, q, sees)?;
    if wanted.as_ref().is_some_and(HashSet::is_empty) || q.limit == 0 {
        return Ok(RequestPage::default());
    }
    let is_wanted = |who: u32| wanted.as_ref().is_none_or(|ids| ids.contains(&who));
    let groups = names::wanted_groups(db, q.experiment.as_deref(), q.group.as_deref())?;
    let is_in = |group: u32| groups.as_ref().is_none_or(|ids| ids.contains(&group));
    let times = filter.times();
    let (kept, before) = (kept(db)?, q.before.unwrap_or(i64::MAX));
    let mut cached = Cached::new(db);
    let mut page = RequestPage::default();
    let mut looked_at = 0;
    let mut blocks = db.prepare_cached(
        "SELECT first, who FROM request_block
         WHERE first < ?1 AND first + lines > ?2 AND to_ms >= ?3 AND from_ms < ?4 ORDER BY first DESC",
    )?;
    let mut blocks = blocks.query(params![before, kept, time(times.start), time(times.end)])?;
    while let Some(row) = blocks.next()? {
        let first: i64 = row.get(0)?;
        if looked_at >= MOST_LINES {
            // Everything from this block on is left for the next page.
            page.next = page.next.or(Some(first + i64::from(block::BLOCK_LINES)));
            return Ok(page);
        }
        if !block::holds(row.get_ref(1)?.as_blob()?, is_wanted, filter.classes()).ok_or_else(damaged)? {
            continue;
        }
        let data = data(db, first)?;
        let mut of_block = Vec::new();
        for (number, line) in (first..).zip(block::lines(&data)) {
            let line = line.ok_or_else(damaged)?;
            looked_at += 1;
            let event = &line.event;
            let facts = Facts {
                time_ms: line.time_ms,
                class: event.class,
                status: event.status,
                flags: event.flags,
                attempt: event.is_attempt(),
                id: event.request_id,
            };
            if (kept..before).contains(&number)
                && is_wanted(line.who)
                && is_in(line.group)
                && filter.fits(&facts)
            {
                of_block.push((number, line));
            }
        }
        for (number, line) in of_block.iter().rev() {
            let record = cached.record(line)?;
            if q.deployment.as_ref().is_none_or(|d| *d == record.deployment) {
                page.lines.push((*number, record));
            }
            if page.lines.len() == q.limit {
                page.next = Some(*number);
                return Ok(page);
            }
        }
    }
    Ok(page)
}
