//! Usage over time by version, deployment or group of an experiment. It is made of results, which have no channels.

use std::collections::BTreeMap;

use crate::ledger::{
    Counters, Results, ResultsQuery, SeriesQuery, Served, ServedLine, SqliteReader, StoreError,
};

/// What tells parts apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum By {
    Version,
    Deployment,
    Group,
}

/// What a part is, as far as it is told apart by that; empty otherwise.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Name {
    pub served: Served,
    pub experiment: String,
    pub group: String,
}

/// What came of a part's requests.
#[derive(Clone, Debug, Default)]
pub(super) struct Part {
    pub name: Name,
    /// By bucket.
    pub points: Vec<Counters>,
    /// Over all of them.
    pub total: Results,
}

/// Parts by who had the most requests.
#[derive(Debug, Default)]
pub(super) struct Parts {
    pub first: Vec<Part>,
    /// All others together.
    pub others: Option<Part>,
}

struct Adding<'q> {
    query: &'q SeriesQuery,
    places: BTreeMap<Name, usize>,
    parts: Vec<Part>,
}

impl Adding<'_> {
    fn add(&mut self, bucket: u64, name: Name, results: &Results) {
        let (parts, buckets) = (&mut self.parts, self.query.buckets());
        let place = *self.places.entry(name).or_insert_with_key(|name| {
            parts.push(Part {
                name: name.clone(),
                points: vec![Counters::default(); buckets],
                total: Results::default(),
            });
            parts.len() - 1
        });
        let Some(part) = parts.get_mut(place) else { return };
        part.total = part.total.plus(results);
        let at = self.query.place(bucket);
        if let Some(sum) = at.and_then(|at| part.points.get_mut(at)) {
            *sum = sum.plus(&results.counters);
        }
    }

    fn ranked(self, top: usize) -> Parts {
        let mut parts = self.parts;
        parts.sort_by(|a, b| {
            let requests = |p: &Part| p.total.counters.requests();
            (requests(b), &a.name).cmp(&(requests(a), &b.name))
        });
        let rest = parts.split_off(top.min(parts.len()));
        let others = rest.into_iter().reduce(|mut sum, part| {
            for (a, b) in sum.points.iter_mut().zip(&part.points) {
                *a = a.plus(b);
            }
            sum.total = sum.total.plus(&part.total);
            sum
        });
        Parts {
            first: parts,
            others: others.map(|part| Part {
                name: Name::default(),
                ..part
            }),
        }
    }
}

/// Reads parts from the ledger.
pub(super) fn read(
    ledger: &SqliteReader,
    query: &SeriesQuery,
    by: By,
    experiment: Option<String>,
    top: usize,
) -> Result<Parts, StoreError> {
    if by == By::Group {
        let mut adding = Adding {
            query,
            places: BTreeMap::new(),
            parts: Vec::new(),
        };
        let wanted = ResultsQuery {
            step: query.stored(),
            from: query.from,
            to: query.to,
            experiment,
            limit: usize::MAX,
        };
        for point in ledger.results(&wanted)? {
            let name = Name {
                experiment: point.experiment,
                group: point.group,
                ..Name::default()
            };
            adding.add(point.bucket, name, &point.results);
        }
        return Ok(adding.ranked(top));
    }
    let found = ledger.served(query, by == By::Version, top)?;
    let part = |line: ServedLine| Part {
        name: Name {
            served: line.served,
            ..Name::default()
        },
        points: line.points,
        total: line.total,
    };
    Ok(Parts {
        first: found.lines.into_iter().map(part).collect(),
        others: found.others.map(part),
    })
}
