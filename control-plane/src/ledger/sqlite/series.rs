//! Usage over time, summed up by the store: from packed buckets, rows of what is not packed, and the journal.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, HashMap};

use rusqlite::types::Value;
use rusqlite::{Connection, params_from_iter};

use super::packed::{self, Usage};
use super::packing::{Packed, there};
use super::pairs::{Pair, Pairs};
use super::{counter_columns, journal, time};
use crate::ledger::Counters;

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

/// Usage of a channel or a model over time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RankedLine {
    /// Its channel; empty for all.
    pub channel: String,
    /// Its model; empty for all.
    pub model: String,
    /// By bucket, one after the other.
    pub points: Vec<Counters>,
}

/// Usage over time, by who had the most requests.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Ranked {
    /// Those with the most requests first.
    pub lines: Vec<RankedLine>,
    /// All others together; `None` if there are none.
    pub others: Option<Vec<Counters>>,
}

impl SeriesQuery {
    /// The buckets that stores have and that make these up.
    pub fn stored(&self) -> u64 {
        if self.step.is_multiple_of(600) && self.from.is_multiple_of(600) {
            600
        } else {
            60
        }
    }

    /// Number of buckets.
    pub fn buckets(&self) -> usize {
        let buckets = self.to.saturating_sub(self.from).checked_div(self.step);
        let rest = self.to.saturating_sub(self.from).checked_rem(self.step);
        let all = buckets.unwrap_or(0) + u64::from(rest.unwrap_or(0) > 0);
        usize::try_from(all).unwrap_or(usize::MAX)
    }

    /// Which of them a time lies in.
    pub fn place(&self, at: u64) -> Option<usize> {
        let place = at.checked_sub(self.from)?.checked_div(self.step)?;
        usize::try_from(place).ok()
    }
}

fn add_at(points: &mut [Counters], place: Option<usize>, counters: &Counters) {
    if let Some(sum) = place.and_then(|place| points.get_mut(place)) {
        *sum = sum.plus(counters);
    }
}

impl Ranked {
    /// Ranks what is known of everybody.
    pub fn of(series: Series, query: &SeriesQuery, top: usize) -> Ranked {
        let buckets = query.buckets();
        let mut all: Vec<_> = series.into_iter().collect();
        all.sort_by_key(|(_, points)| Reverse(points.values().map(Counters::requests).sum::<i64>()));
        let rest = all.split_off(top.min(all.len()));
        let mut others = vec![Counters::default(); if rest.is_empty() { 0 } else { buckets }];
        for (at, counters) in rest.iter().flat_map(|(_, points)| points) {
            add_at(&mut others, query.place(*at), counters);
        }
        let line = |((channel, model), found): ((String, String), BTreeMap<u64, Counters>)| {
            let mut points = vec![Counters::default(); buckets];
            for (at, counters) in &found {
                add_at(&mut points, query.place(*at), counters);
            }
            RankedLine {
                channel,
                model,
                points,
            }
        };
        Ranked {
            lines: all.into_iter().map(line).collect(),
            others: (!rest.is_empty()).then_some(others),
        }
    }
}

/// What a range is read from.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Cover {
    /// Packed buckets: step and begin.
    pub packed: Vec<(u64, u64)>,
    /// From when to when rows are read.
    pub rows: Vec<(u64, u64)>,
}

/// The longest packed buckets that lie within the range, each within a bucket of `within`; rows for the rest.
pub fn cover<P: Packed>(db: &Connection, q: &SeriesQuery, within: u64) -> rusqlite::Result<Cover> {
    cover_of(q, within, |length, end| there::<P>(db, length, q.from, end))
}

/// The same of what `packed` says is there: begins of packed buckets of a length, up to an end.
pub fn cover_of(
    q: &SeriesQuery,
    within: u64,
    packed: impl Fn(u64, u64) -> rusqlite::Result<BTreeSet<u64>>,
) -> rusqlite::Result<Cover> {
    let stored = q.stored();
    let end = q.to.min(1 << 52).div_ceil(stored) * stored;
    let lengths: &[u64] = if stored == 60 {
        &[60]
    } else {
        &[86_400, 3_600, 600]
    };
    let mut there = Vec::new();
    for length in lengths.iter().filter(|length| within.is_multiple_of(**length)) {
        there.push((*length, packed(*length, end)?));
    }
    let mut cover = Cover::default();
    let mut at = q.from;
    while at < end {
        let found = there
            .iter()
            .find(|(length, begins)| at + length <= end && begins.contains(&at));
        if let Some((length, _)) = found {
            cover.packed.push((*length, at));
            at += length;
            continue;
        }
        let next = there
            .iter()
            .filter_map(|(_, begins)| begins.range(at + stored..).next());
        let next = next.min().copied().unwrap_or(end);
        match cover.rows.last_mut() {
            Some((_, until)) if *until == at => *until = next,
            _ => cover.rows.push((at, next)),
        }
        at = next;
    }
    Ok(cover)
}

/// No group: somebody else's, or of another model.
const NOBODY: u32 = u32::MAX;
const NOT_ASKED: u32 = u32::MAX - 1;

/// What usage is told apart by.
struct Groups<'a> {
    query: &'a SeriesQuery,
    sees: Option<&'a dyn Fn(&str) -> bool>,
    /// Whether a channel is seen, by its place.
    seen: HashMap<u32, bool>,
    wanted_model: Option<Option<u32>>,
    groups: HashMap<(u32, u32), u32>,
    /// Channel and model of each group; of one that is not told apart by it, of any of its members.
    pairs: Vec<Pair>,
    /// Requests of each.
    requests: Vec<i64>,
    /// Groups by numbers of channel × model.
    of: Vec<u32>,
}

impl<'a> Groups<'a> {
    fn new(query: &'a SeriesQuery, pairs: &Pairs, sees: Option<&'a dyn Fn(&str) -> bool>) -> Groups<'a> {
        let wanted = query.model.as_deref().map(|name| pairs.place_of_model(name));
        Groups {
            query,
            sees,
            seen: HashMap::new(),
            wanted_model: wanted,
            groups: HashMap::new(),
            pairs: Vec::new(),
            requests: Vec::new(),
            of: vec![NOT_ASKED; pairs.len()],
        }
    }

    /// Whether everything is one group.
    fn is_everything(&self) -> bool {
        let q = self.query;
        !q.by_channel && !q.by_model && q.channel.is_none() && q.model.is_none() && self.sees.is_none()
    }

    fn group(&mut self, pairs: &Pairs, pair: Pair) -> u32 {
        if self.wanted_model.is_some_and(|wanted| wanted != Some(pair.model)) {
            return NOBODY;
        }
        let q = self.query;
        if q.channel
            .as_deref()
            .is_some_and(|c| c != pairs.channel(pair.channel))
        {
            return NOBODY;
        }
        if let Some(sees) = self.sees {
            let seen = self.seen.entry(pair.channel);
            if !*seen.or_insert_with(|| sees(pairs.channel(pair.channel))) {
                return NOBODY;
            }
        }
        let key = (
            if q.by_channel { pair.channel } else { 0 },
            if q.by_model { pair.model } else { 0 },
        );
        let next = u32::try_from(self.pairs.len()).unwrap_or(NOBODY);
        *self.groups.entry(key).or_insert_with(|| {
            self.pairs.push(pair);
            self.requests.push(0);
            next
        })
    }

    /// The group of a number of channel × model.
    fn of(&mut self, pairs: &Pairs, who: u32) -> u32 {
        match self.of.get(who as usize) {
            None => return NOBODY,
            Some(&NOT_ASKED) => {}
            Some(group) => return *group,
        }
        let group = pairs.of(who).map_or(NOBODY, |pair| self.group(pairs, pair));
        if let Some(slot) = self.of.get_mut(who as usize) {
            *slot = group;
        }
        group
    }

    fn count(&mut self, group: u32, requests: i64) {
        if let Some(sum) = self.requests.get_mut(group as usize) {
            *sum = sum.saturating_add(requests);
        }
    }

    fn name(&self, pairs: &Pairs, group: usize) -> (String, String) {
        let Some(pair) = self.pairs.get(group) else {
            return (String::new(), String::new());
        };
        let of = |wanted: bool, name: &str| if wanted { name.to_owned() } else { String::new() };
        (
            of(self.query.by_channel, pairs.channel(pair.channel)),
            of(self.query.by_model, pairs.model(pair.model)),
        )
    }
}

/// Rows of the table of usage: bucket, channel, model, and what `columns` says.
fn rows(
    db: &Connection,
    q: &SeriesQuery,
    (from, to): (u64, u64),
    columns: &str,
    mut each: impl FnMut(u64, &str, &str, &rusqlite::Row<'_>) -> rusqlite::Result<()>,
) -> rusqlite::Result<()> {
    // Without statistics SQLite would go through all channels of the range.
    let index = q.channel.as_ref().map_or("", |_| "INDEXED BY usage_by_channel");
    let mut sql = format!(
        "SELECT bucket, channel, model, {columns} FROM usage {index} WHERE step = ?1 AND bucket >= ?2 AND bucket < ?3"
    );
    let mut values: Vec<Value> = [q.stored(), from, to].map(|n| Value::Integer(time(n))).into();
    for (column, wanted) in [("channel", &q.channel), ("model", &q.model)] {
        if let Some(wanted) = wanted {
            values.push(Value::Text(wanted.clone()));
            sql.push_str(&format!(" AND {column} = ?{}", values.len()));
        }
    }
    let mut statement = db.prepare_cached(&sql)?;
    let mut found = statement.query(params_from_iter(values))?;
    while let Some(row) = found.next()? {
        let bucket = row.get::<_, i64>(0)?.cast_unsigned();
        each(bucket, row.get_ref(1)?.as_str()?, row.get_ref(2)?.as_str()?, row)?;
    }
    Ok(())
}

/// What the journal has of the range: minute, number of channel × model, counters.
fn pending(db: &Connection, q: &SeriesQuery) -> rusqlite::Result<Vec<(u64, u32, Counters)>> {
    let mut found: HashMap<(u64, u32), Counters> = HashMap::new();
    journal::read(db, |_, entry| {
        for (minute, who, counters) in entry.deltas {
            if (q.from..q.to).contains(&journal::bucket(q.stored(), minute)) {
                let sum = found.entry((minute, who)).or_default();
                *sum = sum.plus(&counters);
            }
        }
    })?;
    // What was folded since is taken off in the journal.
    found.retain(|_, counters| !counters.is_zero());
    let flat = |((minute, who), counters)| (minute, who, counters);
    Ok(found.into_iter().map(flat).collect())
}

/// Reads usage.
pub fn read(
    db: &Connection,
    pairs: &mut Pairs,
    q: &SeriesQuery,
    top: usize,
    sees: Option<&dyn Fn(&str) -> bool>,
) -> rusqlite::Result<Ranked> {
    pairs.catch_up(db)?;
    let mut groups = Groups::new(q, pairs, sees);
    let pending = pending(db, q)?;
    // One channel's usage is found by the table's index sooner.
    let cover = |within| match &q.channel {
        Some(_) => Ok(Cover {
            packed: Vec::new(),
            rows: vec![(q.from, q.to.min(1 << 52))],
        }),
        None => cover::<Usage>(db, q, within),
    };
    let ranked = cover(86_400)?;
    rank(db, pairs, &mut groups, &ranked, &pending)?;
    let mut order: Vec<usize> = (0..groups.pairs.len()).collect();
    let key = |group: &usize| {
        let requests = groups.requests.get(*group).copied();
        (Reverse(requests), groups.name(pairs, *group))
    };
    order.sort_by_cached_key(key);
    let rest = order.split_off(top.min(order.len()));

    // Of each group, the line that it is part of.
    let mut lines = vec![order.len(); groups.pairs.len()];
    for (line, group) in order.iter().enumerate() {
        if let Some(slot) = lines.get_mut(*group) {
            *slot = line;
        }
    }
    let mut points =
        vec![vec![Counters::default(); q.buckets()]; order.len() + usize::from(!rest.is_empty())];
    let details = cover(q.step)?;
    add_up(db, pairs, &mut groups, (&details, &pending), &lines, &mut points)?;
    let others = points.split_off(order.len());
    let line = |(group, points): (usize, Vec<Counters>)| {
        let (channel, model) = groups.name(pairs, group);
        RankedLine {
            channel,
            model,
            points,
        }
    };
    Ok(Ranked {
        lines: order.into_iter().zip(points).map(line).collect(),
        others: others.into_iter().next(),
    })
}

/// Finds out which groups there are, and counts their requests if there are several.
fn rank(
    db: &Connection,
    pairs: &mut Pairs,
    groups: &mut Groups<'_>,
    from: &Cover,
    pending: &[(u64, u32, Counters)],
) -> rusqlite::Result<()> {
    if groups.is_everything() && !from.packed.is_empty() {
        groups.group(pairs, Pair { channel: 0, model: 0 });
        return Ok(());
    }
    for (step, bucket) in &from.packed {
        packed::ranks(db, *step, *bucket, |who, requests| {
            let group = groups.of(pairs, who);
            groups.count(group, requests);
        })?;
    }
    const REQUESTS: &str =
        "\"ok\" + \"client\" + \"rule\" + \"limit\" + \"upstream\" + \"timeout\" + \"abort\" + \"internal\"";
    for range in &from.rows {
        rows(db, groups.query, *range, REQUESTS, |_, channel, model, row| {
            let pair = pairs.pair(channel, model);
            let group = groups.group(pairs, pair);
            groups.count(group, row.get(3)?);
            Ok(())
        })?;
    }
    for (_, who, counters) in pending {
        let group = groups.of(pairs, *who);
        groups.count(group, counters.requests());
    }
    Ok(())
}

/// Adds everything to the line and the bucket that it belongs to.
fn add_up(
    db: &Connection,
    pairs: &mut Pairs,
    groups: &mut Groups<'_>,
    (from, pending): (&Cover, &[(u64, u32, Counters)]),
    lines: &[usize],
    points: &mut [Vec<Counters>],
) -> rusqlite::Result<()> {
    let q = groups.query;
    fn slot<'p>(
        points: &'p mut [Vec<Counters>],
        lines: &[usize],
        group: u32,
        place: usize,
    ) -> Option<&'p mut Counters> {
        let line = lines.get(group as usize)?;
        points.get_mut(*line)?.get_mut(place)
    }
    for (step, bucket) in &from.packed {
        let Some(place) = q.place(*bucket) else { continue };
        if groups.is_everything() {
            if let Some(sum) = slot(points, lines, 0, place) {
                *sum = sum.plus(&packed::total(db, *step, *bucket)?);
            }
            continue;
        }
        let mut nowhere = Counters::default();
        packed::read(db, *step, *bucket, |who, data| {
            let group = groups.of(pairs, who);
            let sum = slot(points, lines, group, place).unwrap_or(&mut nowhere);
            packed::add_counters(data, sum)
        })?;
    }
    for range in &from.rows {
        rows(
            db,
            q,
            *range,
            &counter_columns(),
            |bucket, channel, model, row| {
                let pair = pairs.pair(channel, model);
                let group = groups.group(pairs, pair);
                let sum = q
                    .place(bucket)
                    .and_then(|place| slot(points, lines, group, place));
                if let Some(sum) = sum {
                    for (i, n) in sum.0.iter_mut().enumerate() {
                        *n = n.saturating_add(row.get(3 + i)?);
                    }
                }
                Ok(())
            },
        )?;
    }
    for (minute, who, counters) in pending {
        let group = groups.of(pairs, *who);
        let sum = q
            .place(*minute)
            .and_then(|place| slot(points, lines, group, place));
        if let Some(sum) = sum {
            *sum = sum.plus(counters);
        }
    }
    Ok(())
}
