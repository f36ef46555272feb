//! The lines of the request log that a batch carries: events as they are, and each name once for the whole batch.

use tollgate_shm::Event;

use super::RequestRecord;

/// A finished request, its names by number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Line {
    /// What the ring said. Its `usage` and `deployment` mean nothing outside its region and generation.
    pub event: Event,
    /// When it ended, checked: Unix milliseconds by region time.
    pub time_ms: u64,
    /// Place of its channel and model in [`Lines::who`].
    pub who: u32,
    /// Place of its deployment in [`Lines::deployments`]; `u32::MAX` for none.
    pub deployment: u32,
    /// Place of its experiment's group in [`Lines::groups`]; `u32::MAX` for none.
    pub group: u32,
}

/// Lines, oldest first, with their names.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Lines {
    /// Channel codes and models; the same pair may stand here twice.
    pub who: Vec<(String, String)>,
    /// Ids of deployments.
    pub deployments: Vec<String>,
    /// Experiments and groups.
    pub groups: Vec<(String, String)>,
    /// The requests.
    pub requests: Vec<Line>,
}

fn number(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

impl Lines {
    /// Adds a channel and model; returns their place.
    pub fn add_who(&mut self, channel: &str, model: &str) -> u32 {
        self.who.push((channel.to_owned(), model.to_owned()));
        number(self.who.len() - 1)
    }

    /// Adds a deployment; returns its place.
    pub fn add_deployment(&mut self, id: String) -> u32 {
        self.deployments.push(id);
        number(self.deployments.len() - 1)
    }

    /// Adds a group of an experiment; returns its place.
    pub fn add_group(&mut self, experiment: String, group: String) -> u32 {
        self.groups.push((experiment, group));
        number(self.groups.len() - 1)
    }

    /// Whether there is no line.
    pub fn is_empty(&self) -> bool {
        self.requests.is_empty()
    }

    /// The lines with names in place of numbers.
    pub fn records(&self) -> impl Iterator<Item = RequestRecord> {
        self.requests.iter().map(|line| {
            let (channel, model) = match self.who.get(line.who as usize) {
                Some((channel, model)) => (channel.as_str(), model.as_str()),
                None => ("", ""),
            };
            let deployment = self.deployments.get(line.deployment as usize);
            let deployment = deployment.cloned().unwrap_or_default();
            let group = self.groups.get(line.group as usize).cloned();
            RequestRecord::new(&line.event, line.time_ms, channel, model, deployment, group)
        })
    }
}
