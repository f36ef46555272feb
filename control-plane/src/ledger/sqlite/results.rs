//! Results of experiments: one row for each group and bucket. There are few groups, so each batch adds to its rows.
//!
//! A row: counters, then the two histograms.

use rusqlite::{Connection, OptionalExtension, params};

use super::bytes::{Bytes, put, put_signed};
use super::names::Names;
use super::{damaged, journal, prune_steps, time};
use crate::ledger::{Counters, GroupDelta, Keep, Results, ResultsPoint, ResultsQuery, STEPS};

/// Made when a file is opened: it was added to this version of the schema later.
pub const TABLE: &str = "CREATE TABLE IF NOT EXISTS experiment_results (
        step INTEGER NOT NULL, bucket INTEGER NOT NULL, grp INTEGER NOT NULL, data BLOB NOT NULL,
        PRIMARY KEY (step, bucket, grp)) WITHOUT ROWID;";

fn encode(results: &Results) -> Vec<u8> {
    let mut out = Vec::with_capacity(160);
    for n in results.counters.0 {
        put_signed(&mut out, n);
    }
    for n in results.latency.iter().chain(&results.first_token) {
        put(&mut out, *n);
    }
    out
}

fn decode(data: &[u8]) -> Option<Results> {
    let mut bytes = Bytes(data);
    let mut results = Results {
        counters: Counters::default(),
        ..Results::default()
    };
    for n in &mut results.counters.0 {
        *n = bytes.signed()?;
    }
    for n in results.latency.iter_mut().chain(&mut results.first_token) {
        *n = bytes.number()?;
    }
    bytes.is_empty().then_some(results)
}

/// Adds, within a transaction.
pub fn add(db: &Connection, names: &mut Names, deltas: &[GroupDelta]) -> rusqlite::Result<()> {
    for delta in deltas {
        let group = names.group(db, &delta.experiment, &delta.group)?;
        for step in STEPS {
            let place = params![time(step), time(journal::bucket(step, delta.minute)), group];
            let known: Option<Vec<u8>> = db
                .prepare_cached(
                    "SELECT data FROM experiment_results WHERE step = ?1 AND bucket = ?2 AND grp = ?3",
                )?
                .query_row(place, |r| r.get(0))
                .optional()?;
            let sum = match known {
                None => delta.results,
                Some(data) => decode(&data).ok_or_else(damaged)?.plus(&delta.results),
            };
            db.prepare_cached(
                "INSERT OR REPLACE INTO experiment_results (step, bucket, grp, data) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![
                time(step),
                time(journal::bucket(step, delta.minute)),
                group,
                encode(&sum)
            ])?;
        }
    }
    Ok(())
}

/// See [`crate::ledger::Store::results`].
pub fn query(db: &Connection, q: &ResultsQuery) -> rusqlite::Result<Vec<ResultsPoint>> {
    let mut statement = db.prepare_cached(
        "SELECT bucket, experiment, name, data FROM experiment_results JOIN experiment_group ON id = grp
         WHERE step = ?1 AND bucket >= ?2 AND bucket < ?3 AND (?4 IS NULL OR experiment = ?4)
         ORDER BY bucket, experiment, name LIMIT ?5",
    )?;
    let point = |r: &rusqlite::Row<'_>| {
        Ok(ResultsPoint {
            bucket: r.get::<_, i64>(0)?.cast_unsigned(),
            experiment: r.get(1)?,
            group: r.get(2)?,
            results: decode(r.get_ref(3)?.as_blob()?).ok_or_else(damaged)?,
        })
    };
    let limit = time(q.limit as u64);
    statement
        .query_map(
            params![time(q.step), time(q.from), time(q.to), q.experiment, limit],
            point,
        )?
        .collect()
}

/// Removes what need not be kept, within a transaction.
pub fn prune(db: &Connection, keep: &Keep) -> rusqlite::Result<()> {
    prune_steps(db, "experiment_results", "grp", keep)
}
