//! Usage over time, summed up by the store.

use std::collections::BTreeMap;

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::{journal, names, time};
use crate::ledger::{COUNTER_NAMES, Counters};

/// Which usage.
#[derive(Clone, Debug, Default)]
pub struct SeriesQuery {
    /// Length of a bucket, seconds: a multiple of 60.
    pub step: u64,
    /// First bucket begins here, Unix seconds; a multiple of the step.
    pub from: u64,
    /// Buckets that begin before this.
    pub to: u64,
    /// Apart by channel.
    pub by_channel: bool,
    /// Apart by model.
    pub by_model: bool,
    /// Only this channel.
    pub channel: Option<String>,
    /// Only this model.
    pub model: Option<String>,
}

/// Usage by channel (empty for all), model (empty for all) and bucket.
pub type Series = BTreeMap<(String, String), BTreeMap<u64, Counters>>;

impl SeriesQuery {
    /// The buckets that stores have and that make these up.
    pub fn stored(&self) -> u64 {
        if self.step.is_multiple_of(600) && self.from.is_multiple_of(600) {
            600
        } else {
            60
        }
    }
}

/// Reads usage; what is in the journal still is added to what is in the tables.
pub fn read(db: &Connection, q: &SeriesQuery) -> rusqlite::Result<Series> {
    let (channel, model) = (
        if q.by_channel { "channel" } else { "''" },
        if q.by_model { "model" } else { "''" },
    );
    let sums: Vec<String> = COUNTER_NAMES.iter().map(|n| format!("SUM(\"{n}\")")).collect();
    let mut sql = format!(
        "SELECT bucket / ?1 * ?1, {channel}, {model}, {} FROM usage WHERE step = ?2 AND bucket >= ?3 AND bucket < ?4",
        sums.join(", ")
    );
    let stored = q.stored();
    let mut values: Vec<Value> = [q.step, stored, q.from, q.to]
        .map(|n| Value::Integer(time(n)))
        .into();
    for (column, wanted) in [("channel", &q.channel), ("model", &q.model)] {
        if let Some(wanted) = wanted {
            values.push(Value::Text(wanted.clone()));
            sql.push_str(&format!(" AND {column} = ?{}", values.len()));
        }
    }
    sql.push_str(" GROUP BY 1, 2, 3");
    let mut series = Series::new();
    let mut statement = db.prepare_cached(&sql)?;
    let mut rows = statement.query(params_from_iter(values))?;
    while let Some(row) = rows.next()? {
        let mut counters = Counters::default();
        for (i, slot) in counters.0.iter_mut().enumerate() {
            *slot = row.get(3 + i)?;
        }
        let bucket = row.get::<_, i64>(0)?.cast_unsigned();
        series
            .entry((row.get(1)?, row.get(2)?))
            .or_default()
            .insert(bucket, counters);
    }
    let mut pending: BTreeMap<(u64, u32), Counters> = BTreeMap::new();
    let wanted = names::wanted(db, q.channel.as_deref(), q.model.as_deref())?;
    journal::read(db, |_, entry| {
        for (minute, who, counters) in entry.deltas {
            let bucket = minute.checked_div(q.step).map_or(0, |n| n * q.step);
            let inside = (q.from..q.to).contains(&journal::bucket(stored, minute));
            if inside && wanted.as_ref().is_none_or(|ids| ids.contains(&who)) {
                let sum = pending.entry((bucket, who)).or_default();
                *sum = sum.plus(&counters);
            }
        }
    })?;
    for ((bucket, who), counters) in pending {
        let (mut channel, mut model) = names::name(db, who)?;
        if !q.by_channel {
            channel.clear();
        }
        if !q.by_model {
            model.clear();
        }
        let sum = series
            .entry((channel, model))
            .or_default()
            .entry(bucket)
            .or_default();
        *sum = sum.plus(&counters);
    }
    Ok(series)
}
