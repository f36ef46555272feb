//! The request log in blocks: writing, searching, pruning.

use std::collections::HashMap;
use std::ops::ControlFlow;

use rusqlite::{Connection, OptionalExtension, params};
use tollgate_shm::Class;

use super::block::{self, BLOCK_LINES, Block, ENOUGH_LINES, StoredLine};
use super::names::{self, Names};
use super::{damaged, time};
use crate::ledger::{Lines, RequestQuery, RequestRecord};

/// Numbers of lines go up by one; a block bears the number of its first line. What is before `kept` is gone, though
/// its block may still be there because later lines are not. The index stands apart from the lines: a search reads
/// all of it.
pub const TABLES: &str = "CREATE TABLE request_block (
        first INTEGER PRIMARY KEY, lines INTEGER NOT NULL, from_ms INTEGER NOT NULL, to_ms INTEGER NOT NULL,
        who BLOB NOT NULL);
    CREATE TABLE request_lines (first INTEGER PRIMARY KEY, data BLOB NOT NULL);
    CREATE TABLE request_log (only INTEGER PRIMARY KEY CHECK (only = 1), kept INTEGER NOT NULL);
    INSERT INTO request_log (only, kept) VALUES (1, 1);";

/// Blocks that one pruning removes at most, to stay short.
const PRUNE_BLOCKS: u32 = 256;

/// The newest block.
struct Newest {
    first: i64,
    block: Block,
}

/// Appends to the log. Must be forgotten when a transaction that used it fails.
#[derive(Default)]
pub struct LogWriter {
    newest: Option<Newest>,
}

pub(super) fn data(db: &Connection, first: i64) -> rusqlite::Result<Vec<u8>> {
    db.prepare_cached("SELECT data FROM request_lines WHERE first = ?1")?
        .query_row([first], |r| r.get(0))
}

fn newest(db: &Connection) -> rusqlite::Result<Newest> {
    let first: Option<i64> = db.query_row("SELECT MAX(first) FROM request_block", [], |r| r.get(0))?;
    match first {
        None => Ok(Newest {
            first: 1,
            block: Block::default(),
        }),
        Some(first) => Ok(Newest {
            first,
            block: Block::read(&data(db, first)?).ok_or_else(damaged)?,
        }),
    }
}

impl Newest {
    /// Begins the next block.
    fn go_on(&mut self) {
        self.first += i64::from(self.block.lines());
        self.block.clear();
    }

    fn write(&self, db: &Connection) -> rusqlite::Result<()> {
        let (from_ms, to_ms) = self.block.times_ms();
        db.prepare_cached(
            "INSERT OR REPLACE INTO request_block (first, lines, from_ms, to_ms, who) VALUES (?1, ?2, ?3, ?4, ?5)",
        )?
        .execute(params![
            self.first,
            self.block.lines(),
            time(from_ms),
            time(to_ms),
            self.block.index()
        ])?;
        db.prepare_cached("INSERT OR REPLACE INTO request_lines (first, data) VALUES (?1, ?2)")?
            .execute(params![self.first, self.block.data()])?;
        Ok(())
    }
}

impl LogWriter {
    /// Appends lines, within a transaction.
    pub fn append(&mut self, db: &Connection, names: &mut Names, lines: &Lines) -> rusqlite::Result<()> {
        if lines.is_empty() {
            return Ok(());
        }
        let numbers = |of: &[String], names: &mut Names| -> rusqlite::Result<Vec<u32>> {
            of.iter().map(|id| names.deployment(db, id)).collect()
        };
        let deployments = numbers(&lines.deployments, names)?;
        let groups: Vec<u32> = lines
            .groups
            .iter()
            .map(|(experiment, name)| names.group(db, experiment, name))
            .collect::<rusqlite::Result<_>>()?;
        let who: Vec<u32> = lines
            .who
            .iter()
            .map(|(channel, model)| names.who(db, channel, model))
            .collect::<rusqlite::Result<_>>()?;
        let mut current = match self.newest.take() {
            Some(known) => known,
            None => newest(db)?,
        };
        if current.block.lines() >= ENOUGH_LINES {
            current.go_on();
        }
        for line in &lines.requests {
            if current.block.lines() >= BLOCK_LINES {
                current.write(db)?;
                current.go_on();
            }
            current.block.add(&StoredLine {
                time_ms: line.time_ms,
                who: who.get(line.who as usize).copied().unwrap_or(0),
                deployment: deployments.get(line.deployment as usize).copied().unwrap_or(0),
                group: groups.get(line.group as usize).copied().unwrap_or(0),
                event: line.event,
            });
        }
        current.write(db)?;
        self.newest = Some(current);
        Ok(())
    }
}

pub(super) fn kept(db: &Connection) -> rusqlite::Result<i64> {
    db.query_row("SELECT kept FROM request_log", [], |r| r.get(0))
}

/// Looks up each name once.
pub(super) struct Cached<'a> {
    db: &'a Connection,
    who: HashMap<u32, (String, String)>,
    deployments: HashMap<u32, String>,
    groups: HashMap<u32, Option<(String, String)>>,
}

impl<'a> Cached<'a> {
    /// Nothing is looked up yet.
    pub fn new(db: &'a Connection) -> Cached<'a> {
        Cached {
            db,
            who: HashMap::new(),
            deployments: HashMap::new(),
            groups: HashMap::new(),
        }
    }

    /// The record of a line.
    pub fn record(&mut self, line: &StoredLine) -> rusqlite::Result<RequestRecord> {
        let (channel, model) = match self.who.entry(line.who) {
            std::collections::hash_map::Entry::Occupied(known) => known.into_mut(),
            std::collections::hash_map::Entry::Vacant(new) => new.insert(names::name(self.db, line.who)?),
        };
        let deployment = match self.deployments.get(&line.deployment) {
            Some(known) => known.clone(),
            None => {
                let id = names::deployment(self.db, line.deployment)?;
                self.deployments.insert(line.deployment, id.clone());
                id
            }
        };
        let group = match self.groups.get(&line.group) {
            Some(known) => known.clone(),
            None => {
                let named = names::group(self.db, line.group)?;
                self.groups.insert(line.group, named.clone());
                named
            }
        };
        Ok(RequestRecord::new(
            &line.event,
            line.time_ms,
            channel,
            model,
            deployment,
            group,
        ))
    }
}

/// A page of the log, newest first.
pub fn query(db: &Connection, q: &RequestQuery) -> rusqlite::Result<Vec<(i64, RequestRecord)>> {
    let classes = match &q.class {
        None => u8::MAX,
        Some(name) => match Class::ALL.into_iter().find(|c| c.name() == name) {
            Some(class) => 1 << class as u8,
            None => return Ok(Vec::new()),
        },
    };
    let wanted = names::wanted(db, q.channel.as_deref(), q.model.as_deref())?;
    if wanted.as_ref().is_some_and(|ids| ids.is_empty()) || q.limit == 0 {
        return Ok(Vec::new());
    }
    let is_wanted = |who: u32| wanted.as_ref().is_none_or(|ids| ids.contains(&who));
    let (kept, before) = (kept(db)?, q.before.unwrap_or(i64::MAX));
    let mut cached = Cached::new(db);
    let groups = names::wanted_groups(db, q.experiment.as_deref(), q.group.as_deref())?;
    let is_in = |group: u32| groups.as_ref().is_none_or(|ids| ids.contains(&group));
    let mut found = Vec::new();
    let mut blocks = db.prepare_cached(
        "SELECT first, who FROM request_block WHERE first < ?1 AND first + lines > ?2 ORDER BY first DESC",
    )?;
    let mut blocks = blocks.query(params![before, kept])?;
    while let Some(block) = blocks.next()? {
        let first: i64 = block.get(0)?;
        if !block::holds(block.get_ref(1)?.as_blob()?, is_wanted, classes).ok_or_else(damaged)? {
            continue;
        }
        let data = data(db, first)?;
        let mut of_block = Vec::new();
        for (number, line) in (first..).zip(block::lines(&data)) {
            let line = line.ok_or_else(damaged)?;
            let class = 1u8.checked_shl(line.event.class.into()).unwrap_or(0);
            if (kept..before).contains(&number)
                && class & classes != 0
                && is_wanted(line.who)
                && is_in(line.group)
            {
                of_block.push((number, line));
            }
        }
        for (number, line) in of_block.iter().rev() {
            found.push((*number, cached.record(line)?));
            if found.len() == q.limit {
                return Ok(found);
            }
        }
    }
    Ok(found)
}

/// The first line at or after `first` in a block that is young enough.
fn first_since(db: &Connection, first: i64, from_ms: u64) -> rusqlite::Result<i64> {
    let data = data(db, first)?;
    let found = (first..)
        .zip(block::lines(&data))
        .try_for_each(|(number, line)| match line {
            Some(line) if line.time_ms < from_ms => ControlFlow::Continue(()),
            Some(_) => ControlFlow::Break(Ok(number)),
            None => ControlFlow::Break(Err(damaged())),
        });
    match found {
        ControlFlow::Break(result) => result,
        ControlFlow::Continue(()) => Ok(first),
    }
}

/// Forgets lines up to the first one that is at or after `from_ms` and all but the newest `most`, within a
/// transaction. Lines stand in the order of their batches, so one may go a little later than its time says.
pub fn prune(db: &Connection, from_ms: u64, most: u64) -> rusqlite::Result<()> {
    let ends = db
        .query_row(
            "SELECT first, first + lines FROM request_block ORDER BY first DESC LIMIT 1",
            [],
            |r| Ok((r.get::<_, i64>(0)?, r.get::<_, i64>(1)?)),
        )
        .optional()?;
    let Some((newest, next)) = ends else {
        return Ok(());
    };
    let old = kept(db)?;
    let mut kept = old.max(next.saturating_sub(time(most)));
    let mut blocks = db.prepare_cached(
        "SELECT first, first + lines, from_ms, to_ms FROM request_block WHERE first + lines > ?1
         ORDER BY first LIMIT ?2",
    )?;
    let mut blocks = blocks.query(params![kept, PRUNE_BLOCKS])?;
    while let Some(block) = blocks.next()? {
        let (first, end): (i64, i64) = (block.get(0)?, block.get(1)?);
        let (from, to): (i64, i64) = (block.get(2)?, block.get(3)?);
        if to < time(from_ms) {
            kept = kept.max(end);
            continue;
        }
        if from < time(from_ms) {
            kept = kept.max(first_since(db, first, from_ms)?);
        }
        break;
    }
    if kept > old {
        db.execute("UPDATE request_log SET kept = ?1", [kept])?;
    }
    // The newest block stays: numbers go on from it.
    let mut gone = db.prepare_cached(
        "DELETE FROM request_block WHERE first IN (SELECT first FROM request_block WHERE first < ?1
             AND first + lines <= ?2 ORDER BY first LIMIT ?3) RETURNING first",
    )?;
    let gone: Vec<i64> = gone
        .query_map(params![newest, kept, PRUNE_BLOCKS], |r| r.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    let mut lines = db.prepare_cached("DELETE FROM request_lines WHERE first = ?1")?;
    for first in gone {
        lines.execute([first])?;
    }
    Ok(())
}
