//! Numbers for names, so that a line of the log and an entry of the journal need not spell them out.

use std::collections::HashMap;

use rusqlite::{Connection, OptionalExtension, params};

use crate::ledger::Served;

/// Table of channel and model pairs, and of deployments. Names are never removed: there are as many as the
/// configuration has ever had.
pub const TABLES: &str = "CREATE TABLE who (
        id INTEGER PRIMARY KEY, channel TEXT NOT NULL, model TEXT NOT NULL, UNIQUE (channel, model));
    CREATE INDEX who_by_model ON who (model);
    CREATE TABLE deployment (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);";

/// Groups of experiments. Made when a file is opened: it was added to this version of the schema later.
pub const GROUPS_TABLE: &str = "CREATE TABLE IF NOT EXISTS experiment_group (
        id INTEGER PRIMARY KEY, experiment TEXT NOT NULL, name TEXT NOT NULL, UNIQUE (experiment, name));";

/// Deployments as they were when they served. Made when a file is opened, too.
pub const SERVED_TABLE: &str = "CREATE TABLE IF NOT EXISTS served_by (
        id INTEGER PRIMARY KEY, deployment TEXT NOT NULL, model TEXT NOT NULL, version TEXT NOT NULL,
        UNIQUE (deployment, model, version));";

/// What has been looked up already. Must be forgotten when a transaction that used it fails.
#[derive(Default)]
pub struct Names {
    who: HashMap<String, HashMap<String, u32>>,
    names: HashMap<u32, (String, String)>,
    deployments: HashMap<String, u32>,
    groups: HashMap<(String, String), u32>,
    served: HashMap<Served, u32>,
}

impl Names {
    /// The number of a channel and model, a new one if need be.
    pub fn who(&mut self, db: &Connection, channel: &str, model: &str) -> rusqlite::Result<u32> {
        if let Some(id) = self.who.get(channel).and_then(|models| models.get(model)) {
            return Ok(*id);
        }
        let known = db
            .prepare_cached("SELECT id FROM who WHERE channel = ?1 AND model = ?2")?
            .query_row(params![channel, model], |r| r.get(0))
            .optional()?;
        let id = match known {
            Some(id) => id,
            None => db
                .prepare_cached("INSERT INTO who (channel, model) VALUES (?1, ?2) RETURNING id")?
                .query_row(params![channel, model], |r| r.get(0))?,
        };
        let models = self.who.entry(channel.to_owned()).or_default();
        models.insert(model.to_owned(), id);
        self.names.insert(id, (channel.to_owned(), model.to_owned()));
        Ok(id)
    }

    /// The channel and model with a number.
    pub fn name(&mut self, db: &Connection, id: u32) -> rusqlite::Result<&(String, String)> {
        match self.names.entry(id) {
            std::collections::hash_map::Entry::Occupied(known) => Ok(known.into_mut()),
            std::collections::hash_map::Entry::Vacant(new) => Ok(new.insert(name(db, id)?)),
        }
    }

    /// The number of a deployment, a new one if need be; 0 for none.
    pub fn deployment(&mut self, db: &Connection, id: &str) -> rusqlite::Result<u32> {
        if id.is_empty() {
            return Ok(0);
        }
        if let Some(number) = self.deployments.get(id) {
            return Ok(*number);
        }
        let known = db
            .prepare_cached("SELECT id FROM deployment WHERE name = ?1")?
            .query_row([id], |r| r.get(0))
            .optional()?;
        let number = match known {
            Some(number) => number,
            None => db
                .prepare_cached("INSERT INTO deployment (name) VALUES (?1) RETURNING id")?
                .query_row([id], |r| r.get(0))?,
        };
        self.deployments.insert(id.to_owned(), number);
        Ok(number)
    }
}

impl Names {
    /// The number of an experiment's group, a new one if need be; never 0.
    pub fn group(&mut self, db: &Connection, experiment: &str, name: &str) -> rusqlite::Result<u32> {
        let key = (experiment.to_owned(), name.to_owned());
        if let Some(id) = self.groups.get(&key) {
            return Ok(*id);
        }
        let known = db
            .prepare_cached("SELECT id FROM experiment_group WHERE experiment = ?1 AND name = ?2")?
            .query_row(params![experiment, name], |r| r.get(0))
            .optional()?;
        let id = match known {
            Some(id) => id,
            None => db
                .prepare_cached(
                    "INSERT INTO experiment_group (experiment, name) VALUES (?1, ?2) RETURNING id",
                )?
                .query_row(params![experiment, name], |r| r.get(0))?,
        };
        self.groups.insert(key, id);
        Ok(id)
    }
}

impl Names {
    /// The number of a deployment as it served, a new one if need be.
    pub fn served(&mut self, db: &Connection, served: &Served) -> rusqlite::Result<u32> {
        if let Some(id) = self.served.get(served) {
            return Ok(*id);
        }
        let place = params![served.deployment, served.model, served.version];
        let known = db
            .prepare_cached("SELECT id FROM served_by WHERE deployment = ?1 AND model = ?2 AND version = ?3")?
            .query_row(place, |r| r.get(0))
            .optional()?;
        let id = match known {
            Some(id) => id,
            None => db
                .prepare_cached(
                    "INSERT INTO served_by (deployment, model, version) VALUES (?1, ?2, ?3) RETURNING id",
                )?
                .query_row(place, |r| r.get(0))?,
        };
        self.served.insert(served.clone(), id);
        Ok(id)
    }
}

/// All deployments as they served, by their numbers.
pub fn all_served(db: &Connection) -> rusqlite::Result<HashMap<u32, Served>> {
    let mut statement = db.prepare_cached("SELECT id, deployment, model, version FROM served_by")?;
    let all = statement.query_map([], |r| {
        let served = Served {
            deployment: r.get(1)?,
            model: r.get(2)?,
            version: r.get(3)?,
        };
        Ok((r.get(0)?, served))
    })?;
    all.collect()
}

/// The experiment and name of the group with a number; `None` for 0.
pub fn group(db: &Connection, number: u32) -> rusqlite::Result<Option<(String, String)>> {
    if number == 0 {
        return Ok(None);
    }
    db.prepare_cached("SELECT experiment, name FROM experiment_group WHERE id = ?1")?
        .query_row([number], |r| Ok((r.get(0)?, r.get(1)?)))
        .optional()
}

/// Numbers of an experiment's groups or of groups of a name; `None` when all requests are wanted.
pub fn wanted_groups(
    db: &Connection,
    experiment: Option<&str>,
    name: Option<&str>,
) -> rusqlite::Result<Option<std::collections::HashSet<u32>>> {
    if experiment.is_none() && name.is_none() {
        return Ok(None);
    }
    let mut statement = db.prepare_cached(
        "SELECT id FROM experiment_group WHERE (?1 IS NULL OR experiment = ?1) AND (?2 IS NULL OR name = ?2)",
    )?;
    let ids = statement.query_map(params![experiment, name], |r| r.get(0))?;
    ids.collect::<rusqlite::Result<_>>().map(Some)
}

/// The channel and model with a number.
pub fn name(db: &Connection, id: u32) -> rusqlite::Result<(String, String)> {
    db.prepare_cached("SELECT channel, model FROM who WHERE id = ?1")?
        .query_row([id], |r| Ok((r.get(0)?, r.get(1)?)))
}

/// The deployment with a number; empty for 0.
pub fn deployment(db: &Connection, number: u32) -> rusqlite::Result<String> {
    let found = db
        .prepare_cached("SELECT name FROM deployment WHERE id = ?1")?
        .query_row([number], |r| r.get(0))
        .optional()?;
    Ok(found.unwrap_or_default())
}

/// Numbers of a channel's or a model's pairs; `None` when all are wanted.
pub fn wanted(
    db: &Connection,
    channel: Option<&str>,
    model: Option<&str>,
) -> rusqlite::Result<Option<std::collections::HashSet<u32>>> {
    let (sql, values) = match (channel, model) {
        (None, None) => return Ok(None),
        (Some(channel), None) => ("SELECT id FROM who WHERE channel = ?1", vec![channel]),
        (None, Some(model)) => ("SELECT id FROM who WHERE model = ?1", vec![model]),
        (Some(channel), Some(model)) => (
            "SELECT id FROM who WHERE channel = ?1 AND model = ?2",
            vec![channel, model],
        ),
    };
    let mut statement = db.prepare_cached(sql)?;
    let ids = statement.query_map(rusqlite::params_from_iter(values), |r| r.get(0))?;
    ids.collect::<rusqlite::Result<_>>().map(Some)
}
