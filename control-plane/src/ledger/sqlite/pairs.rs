//! What numbers of channel × model mean, as a reader remembers it: names are never removed, so only new ones are read.

use std::collections::HashMap;

use rusqlite::Connection;

/// Names by small numbers of their own.
#[derive(Default)]
struct Interned {
    places: HashMap<String, u32>,
    names: Vec<String>,
}

impl Interned {
    fn place(&mut self, name: &str) -> u32 {
        if let Some(place) = self.places.get(name) {
            return *place;
        }
        let place = u32::try_from(self.names.len()).unwrap_or(u32::MAX);
        self.names.push(name.to_owned());
        self.places.insert(name.to_owned(), place);
        place
    }

    fn name(&self, place: u32) -> &str {
        self.names.get(place as usize).map_or("", String::as_str)
    }
}

/// A channel and a model, by the places of their names.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Pair {
    /// Of the channel.
    pub channel: u32,
    /// Of the model.
    pub model: u32,
}

/// Channel and model of each number.
#[derive(Default)]
pub struct Pairs {
    channels: Interned,
    models: Interned,
    /// By the number that the ledger has for them.
    of: Vec<Option<Pair>>,
}

impl Pairs {
    /// Reads those that are new.
    pub fn catch_up(&mut self, db: &Connection) -> rusqlite::Result<()> {
        let known = i64::try_from(self.of.len()).unwrap_or(i64::MAX);
        let mut statement =
            db.prepare_cached("SELECT id, channel, model FROM who WHERE id >= ?1 ORDER BY id")?;
        let mut rows = statement.query([known])?;
        while let Some(row) = rows.next()? {
            let id: u32 = row.get(0)?;
            let pair = self.pair(row.get_ref(1)?.as_str()?, row.get_ref(2)?.as_str()?);
            self.of.resize(id as usize, None);
            self.of.push(Some(pair));
        }
        Ok(())
    }

    /// The pair of these names, which need not be in the ledger.
    pub fn pair(&mut self, channel: &str, model: &str) -> Pair {
        Pair {
            channel: self.channels.place(channel),
            model: self.models.place(model),
        }
    }

    /// Above all numbers.
    pub fn len(&self) -> usize {
        self.of.len()
    }

    /// The pair with a number.
    pub fn of(&self, id: u32) -> Option<Pair> {
        self.of.get(id as usize).copied().flatten()
    }

    /// Name of a channel.
    pub fn channel(&self, place: u32) -> &str {
        self.channels.name(place)
    }

    /// Name of a model.
    pub fn model(&self, place: u32) -> &str {
        self.models.name(place)
    }

    /// The place of a model's name, if any usage has had it.
    pub fn place_of_model(&self, name: &str) -> Option<u32> {
        self.models.places.get(name).copied()
    }
}
