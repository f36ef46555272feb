//! How far regions were booked that are not the present one. Whoever comes back to one, as a program of the version before does that
//! has a layout of its own, goes on there and books nothing twice.

use rusqlite::{Connection, params};

use super::{bits, from_blob, time, to_blob};
use crate::ledger::{BookedRow, Position};

/// Made when a file is opened: they were added to this version of the schema later.
pub const TABLES: &str = "CREATE TABLE IF NOT EXISTS former_region (seq INTEGER PRIMARY KEY, id INTEGER NOT NULL UNIQUE);
    CREATE TABLE IF NOT EXISTS former_position (
        region INTEGER NOT NULL, slot INTEGER NOT NULL, tail INTEGER NOT NULL, PRIMARY KEY (region, slot)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS former_booked (
        region INTEGER NOT NULL, row INTEGER NOT NULL, channel TEXT NOT NULL, model TEXT NOT NULL, counters BLOB NOT NULL,
        PRIMARY KEY (region, row)) WITHOUT ROWID;";

/// Regions that are remembered; older ones are gone with some reboot.
const KEPT: u32 = 3;

fn forget(db: &Connection, region: i64) -> rusqlite::Result<()> {
    for sql in [
        "DELETE FROM former_position WHERE region = ?1",
        "DELETE FROM former_booked WHERE region = ?1",
        "DELETE FROM former_region WHERE id = ?1",
    ] {
        db.execute(sql, [region])?;
    }
    Ok(())
}

/// Remembers where a region was left.
pub fn put_aside(db: &Connection, region: i64, left: &Position) -> rusqlite::Result<()> {
    forget(db, region)?;
    db.execute("INSERT INTO former_region (id) VALUES (?1)", [region])?;
    let mut tail = db.prepare("INSERT INTO former_position (region, slot, tail) VALUES (?1, ?2, ?3)")?;
    for (slot, position) in &left.tails {
        tail.execute(params![region, time(*slot as u64), bits(*position)])?;
    }
    let mut booked = db.prepare(
        "INSERT INTO former_booked (region, row, channel, model, counters) VALUES (?1, ?2, ?3, ?4, ?5)",
    )?;
    for row in &left.rows {
        booked.execute(params![
            region,
            row.row,
            row.channel,
            row.model,
            to_blob(&row.booked)
        ])?;
    }
    let mut old = db.prepare("SELECT id FROM former_region ORDER BY seq DESC LIMIT -1 OFFSET ?1")?;
    let old: Vec<i64> = old
        .query_map([KEPT], |r| r.get(0))?
        .collect::<rusqlite::Result<_>>()?;
    old.into_iter().try_for_each(|region| forget(db, region))
}

/// Makes what is remembered of a region, if anything, the present position.
pub fn take_back(db: &Connection, region: i64) -> rusqlite::Result<()> {
    db.execute(
        "INSERT INTO position (slot, tail) SELECT slot, tail FROM former_position WHERE region = ?1",
        [region],
    )?;
    db.execute(
        "INSERT INTO booked (row, channel, model, counters)
         SELECT row, channel, model, counters FROM former_booked WHERE region = ?1",
        [region],
    )?;
    forget(db, region)
}

/// What is remembered of a region.
pub fn find(db: &Connection, region: i64) -> rusqlite::Result<Position> {
    let mut tails = db.prepare("SELECT slot, tail FROM former_position WHERE region = ?1")?;
    let tails = tails.query_map([region], |r| {
        let slot: u32 = r.get(0)?;
        Ok((slot as usize, r.get::<_, i64>(1)?.cast_unsigned()))
    })?;
    let mut rows = db.prepare("SELECT row, channel, model, counters FROM former_booked WHERE region = ?1")?;
    let rows = rows.query_map([region], |r| {
        Ok(BookedRow {
            row: r.get(0)?,
            channel: r.get(1)?,
            model: r.get(2)?,
            booked: from_blob(r.get_ref(3)?.as_blob()?),
        })
    })?;
    Ok(Position {
        tails: tails.collect::<rusqlite::Result<_>>()?,
        rows: rows.collect::<rusqlite::Result<_>>()?,
    })
}
